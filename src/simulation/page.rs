//! The page at `/lab`: a form, and what comes out of it, made on the server. It needs no script: a form is a query, and a
//! query is a link to its result.

use std::fmt::Write;

use axum::{
    Extension,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};

use super::{
    Simulated, Simulator,
    parameters::{CROSSOVER, FIELDS, Field, Kind, Parameters, fields},
};
use crate::{
    http::{
        pages::{self, Page},
        path::{self, AsSent},
    },
    lab::{
        chart,
        report::{comparison, count, crossing, duration, escaped, sentence},
        run::clock,
        verdict::{Side, Target},
    },
    problem::{FieldError, Problem},
};

/// Most decisions that the page lists.
const LISTED: usize = 100;

/// The form: what is seen at once, and what is folded away.
const FORM: [(&str, &[&str], &[&str]); 5] = [
    (
        "Traffic",
        &["traffic.shape", "traffic.from", "traffic.to", "traffic.at_hours", "traffic.for_hours", "hours"],
        &["traffic.noise", "traffic.seed"],
    ),
    (
        "A request",
        &["profile.cpu_ms", "profile.wait_ms"],
        &[
            "profile.memory_mib",
            "profile.request_memory_kib",
            "profile.request_bytes",
            "profile.response_bytes",
            "profile.log_bytes",
            "profile.start_ms",
            "profile.init_ms",
            "profile.sandbox_ms",
        ],
    ),
    (
        "EKS",
        &[
            "eks.min_replicas",
            "eks.max_replicas",
            "eks.cpu_percent",
            "eks.memory_percent",
            "eks.cpu_request_milli",
            "eks.max_nodes",
        ],
        &[
            "eks.instance",
            "eks.min_nodes",
            "eks.node_start_seconds",
            "eks.cpu_limit_milli",
            "eks.memory_request_mib",
            "eks.memory_limit_mib",
            "eks.up_pods",
            "eks.up_seconds",
            "eks.down_pods",
            "eks.down_seconds",
            "eks.down_window_seconds",
            "eks.pod_start_seconds",
            "eks.max_in_flight",
            "eks.timeout_seconds",
            "eks.balancer",
        ],
    ),
    (
        "Lambda",
        &["lambda.memory_mb", "lambda.throttle_rate"],
        &[
            "lambda.throttle_burst",
            "lambda.architecture",
            "lambda.gateway",
            "lambda.timeout_seconds",
            "lambda.account_concurrency",
            "lambda.reserved_concurrency",
            "lambda.provisioned_concurrency",
            "lambda.idle_seconds",
        ],
    ),
    ("Prices", &["region", "free_tier"], &[]),
];

/// What a query leads to.
struct Shown {
    status: StatusCode,
    /// What the form holds.
    parameters: Parameters,
    verdict: String,
    results: String,
    wrong: Vec<String>,
    /// Seconds after which it is worth another try.
    retry_after: Option<u64>,
}

/// The form with its result. Without a query it is that of the defaults.
pub(super) async fn show(
    State(simulator): State<Simulator>,
    as_sent: Option<Extension<AsSent>>,
    uri: Uri,
) -> Response {
    let (root, folder) = path::around("lab", as_sent.as_deref());
    let query = uri.query().unwrap_or_default();
    let shown = match Parameters::of_query(query) {
        Ok(parameters) => result(&simulator, parameters, folder).await,
        Err(errors) => Shown {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            parameters: Parameters::of_what_is_right(query),
            verdict: refusal("This cannot be simulated", &list(&errors)),
            results: String::new(),
            wrong: errors.into_iter().map(|error| error.pointer).collect(),
            retry_after: None,
        },
    };
    let target = simulator.settings.target;
    let body = format!(
        "<header class=\"top\"><h1>Scaling lab</h1>\n\
         <p>EKS or Lambda, before you pay for either: your traffic on both, second by second.</p></header>\n\
         <main class=\"lab\">\n{}{}<div class=\"results\">{}</div>\n</main>\n\
         <footer><p>Simulated by the {target} target of <a href=\"{root}/\">math-service</a> {}, which has \
         <a href=\"{root}/openapi.json\">the same as JSON</a> at POST /api/v1/simulations.</p></footer>\n",
        shown.verdict,
        form(&shown.parameters, &shown.wrong),
        shown.results,
        crate::VERSION,
    );
    let mut response =
        Page { title: "Scaling lab", root: &root, styles: &["lab/lab.css"], scripts: &[], body: &body }
            .into_response();
    *response.status_mut() = shown.status;
    if let Some(seconds) = shown.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

async fn result(simulator: &Simulator, parameters: Parameters, folder: String) -> Shown {
    let rendered = simulator
        .run(parameters.clone(), move |simulated| {
            Ok((simulated.verdict_html(&folder), simulated.results_html()?))
        })
        .await;
    match rendered {
        Ok((verdict, results)) => Shown {
            status: StatusCode::OK,
            parameters,
            verdict,
            results,
            wrong: Vec::new(),
            retry_after: None,
        },
        Err(problem) => Shown {
            status: problem.status(),
            parameters,
            verdict: refusal("No simulation", &format!("<p>{}.</p>", escaped(problem.detail()))),
            results: String::new(),
            wrong: Vec::new(),
            retry_after: problem.seconds_to_wait(),
        },
    }
}

/// What the page links to: the result as a file, the page's style.
pub(super) async fn file(
    State(simulator): State<Simulator>,
    name: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Response, Problem> {
    type Render = fn(&Simulated) -> Result<Vec<u8>, String>;
    let (content_type, disposition, render): (_, _, Render) =
        match name.as_ref().map_or("", |Path(name)| name.as_str()) {
            "lab.css" => {
                let style = concat!(include_str!("../lab/chart.css"), include_str!("lab.css"));
                return Ok(pages::file("text/css; charset=utf-8", style));
            }
            "simulation.json" => {
                ("application/json", "attachment; filename=\"simulation.json\"", Simulated::document)
            }
            "simulation.svg" => ("image/svg+xml", "attachment; filename=\"simulation.svg\"", |simulated| {
                Ok(chart::document(&simulated.panels()?).into_bytes())
            }),
            "simulation.html" => {
                ("text/html; charset=utf-8", "attachment; filename=\"simulation.html\"", |simulated| {
                    Ok(simulated.page()?.into_bytes())
                })
            }
            _ => return Err(Problem::new(StatusCode::NOT_FOUND, "no such file")),
        };
    let parameters = Parameters::of_query(uri.query().unwrap_or_default()).map_err(Problem::invalid)?;
    let text = simulator.run(parameters, render).await?;
    let mut response = text.into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_DISPOSITION, disposition),
        // It is saved; were it shown, it could do nothing.
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

impl Simulated {
    fn panels(&self) -> Result<Vec<chart::Panel>, String> {
        chart::panels(&self.sides, &self.prices)
    }

    fn page(&self) -> Result<String, String> {
        let title = self.parameters.title();
        let text = comparison(&title, &self.sides, &self.verdict, &self.prices);
        Ok(crate::lab::report::html(&title, &text, &self.panels()?))
    }

    fn verdict_html(&self, folder: &str) -> String {
        let verdict = &self.verdict;
        let class = class(verdict.target);
        let reasons: String =
            verdict.reasons.iter().map(|reason| format!("<li>{}</li>", escaped(reason))).collect();
        let crossing = match verdict.is_crossover_sought {
            true => format!("<p>{}</p>\n", escaped(&crossing(verdict.crossover.as_ref()))),
            false => String::new(),
        };
        let query = escaped(&self.parameters.query());
        format!(
            "<section class=\"panel verdict {class}\" aria-labelledby=\"verdict\"><h2 id=\"verdict\">{}</h2>\n<p>{}.</p>\n\
             <ul>{reasons}</ul>\n{crossing}<p class=\"links\"><a class=\"narrow\" href=\"#charts\">Charts</a><a href=\"?{query}\">Link to this result</a>\
             <a href=\"{folder}/simulation.json?{query}\" download>JSON</a>\
             <a href=\"{folder}/simulation.svg?{query}\" download>SVG</a>\
             <a href=\"{folder}/simulation.html?{query}\" download>HTML</a></p></section>\n",
            escaped(&sentence(verdict)),
            escaped(&self.parameters.title()),
        )
    }

    fn results_html(&self) -> Result<String, String> {
        let charts: String =
            self.panels()?.iter().map(|panel| format!("<figure>{}</figure>\n", panel.svg())).collect();
        let bills: String = self.sides.iter().map(|(target, side)| bill(*target, side)).collect();
        let is_marked =
            self.sides.iter().any(|(_, side)| side.bill.lines.iter().any(|line| !line.is_confirmed));
        let mark = if is_marked { " * This price is not confirmed." } else { "" };
        Ok(format!(
            "<section class=\"panel\" aria-labelledby=\"figures\"><h2 id=\"figures\">Side by side</h2>\n{}</section>\n\
             <div class=\"seen\"><section class=\"panel\" aria-labelledby=\"charts\"><h2 id=\"charts\">What happens</h2>\n\
             {charts}</section>\n{}</div>\n\
             <section class=\"panel\" aria-labelledby=\"bills\"><h2 id=\"bills\">A month of this</h2>\n\
             <p class=\"notes\">730 hours; list prices of {}, {}.{mark}</p><div class=\"bills\">{bills}</div></section>\n",
            figures(&self.sides),
            self.decisions(),
            escaped(&self.prices.name),
            escaped(&self.prices.date),
        ))
    }

    /// Why sizes changed, and what else a person should know.
    fn decisions(&self) -> String {
        let mut html =
            "<section class=\"panel decisions\" aria-labelledby=\"decisions\"><h2 id=\"decisions\">\
             Decisions, explained</h2>\n"
                .to_owned();
        for (target, side) in &self.sides {
            for note in &side.run.notes {
                let _ = writeln!(
                    html,
                    "<p class=\"notes\"><strong>{}</strong>: {}.</p>",
                    target.name(),
                    escaped(note)
                );
            }
        }
        let run = &self.sides[0].1.run;
        if run.decisions.is_empty() {
            html.push_str("<p class=\"notes\">On EKS nothing changed its size.</p>\n");
        }
        html.push_str("<ol tabindex=\"0\" aria-label=\"Decisions in order of time\">\n");
        for decision in run.decisions.iter().take(LISTED) {
            let _ = writeln!(
                html,
                "<li><time>{}</time><strong>{} {} to {}</strong><span>{}</span></li>",
                clock(decision.at),
                decision.what,
                decision.from,
                decision.to,
                escaped(&decision.why)
            );
        }
        html.push_str("</ol>\n");
        let more = run.decisions.len().saturating_sub(LISTED) as u64 + run.more_decisions;
        if more > 0 {
            let _ = writeln!(html, "<p class=\"notes\">And {more} more.</p>");
        }
        html.push_str(
            "<p class=\"notes\">On Lambda nobody decides: each request that finds no idle environment gets a new one, within the limits.</p></section>\n",
        );
        html
    }
}

fn class(target: Target) -> &'static str {
    match target {
        Target::Eks => "eks",
        Target::Lambda => "lambda",
    }
}

fn figures(sides: &[(Target, Side); 2]) -> String {
    let mut rows = String::new();
    let mut row = |name: &str, cell: &dyn Fn(&Side) -> String| {
        let cells: String = sides.iter().map(|(_, side)| format!("<td>{}</td>", cell(side))).collect();
        let _ = writeln!(rows, "<tr><th scope=\"row\">{name}</th>{cells}</tr>");
    };
    row("A month", &|side| side.bill.total().to_string());
    row("Requests", &|side| count(side.run.requests.arrived));
    row("Served", &|side| format!("{:.2} %", 100.0 * (1.0 - side.run.requests.lost_share())));
    row("Refused or failed", &|side| count(side.run.requests.shed + side.run.requests.failed));
    row("Latency, p50", &|side| duration(side.run.latency.p50_ms));
    row("Latency, p95", &|side| duration(side.run.latency.p95_ms));
    row("Latency, p99", &|side| duration(side.run.latency.p99_ms));
    row("Cold starts", &|side| count(side.run.requests.cold));
    row("Most pods, environments", &|side| count(side.run.most_servers.ceil()));
    format!(
        "<table><thead><tr><th scope=\"col\">Figure</th><th scope=\"col\" class=\"eks\">EKS</th>\
         <th scope=\"col\" class=\"lambda\">Lambda</th></tr></thead><tbody>\n{rows}</tbody></table>\n"
    )
}

fn bill(target: Target, side: &Side) -> String {
    let mut rows = String::new();
    for line in &side.bill.lines {
        let mark = if line.is_confirmed { "" } else { " *" };
        let _ = writeln!(
            rows,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}{mark}</td></tr>",
            escaped(&line.item),
            escaped(&line.quantity),
            line.usd
        );
    }
    format!(
        "<div class=\"scroll\"><table><caption>{}</caption><tbody>\n{rows}</tbody>\
         <tfoot><tr><th scope=\"row\">Total</th><td></td><td>{}</td></tr></tfoot></table></div>\n",
        target.name(),
        side.bill.total()
    )
}

fn refusal(title: &str, html: &str) -> String {
    format!(
        "<section class=\"panel verdict errors\" role=\"alert\" aria-labelledby=\"verdict\"><h2 id=\"verdict\">{title}</h2>\n{html}</section>\n"
    )
}

fn list(errors: &[FieldError]) -> String {
    let line = |error: &FieldError| {
        let field = fields().find(|field| field.pointer() == error.pointer);
        let detail = escaped(&error.detail);
        match field {
            Some(field) => format!("<li><a href=\"#{}\">{}</a> {detail}</li>", id(field), field.label),
            None => format!("<li>{} {detail}</li>", escaped(error.pointer.trim_start_matches('/'))),
        }
    };
    format!("<ul>{}</ul>", errors.iter().map(line).collect::<String>())
}

/// `eks-max_replicas`.
fn id(field: &Field) -> String {
    field.name.replace('.', "-")
}

fn form(parameters: &Parameters, wrong: &[String]) -> String {
    let inputs = |names: &[&str]| -> String {
        let fields = names.iter().filter_map(|name| FIELDS.iter().find(|field| field.name == *name));
        let inputs: String = fields.map(|field| input(field, parameters, wrong)).collect();
        format!("<div class=\"fields\">{inputs}</div>\n")
    };
    let standard = Parameters::default();
    let mut html = "<form class=\"panel scenario\" method=\"get\" aria-label=\"Scenario\">\n".to_owned();
    for (title, first, folded) in FORM {
        // What somebody has changed, or got wrong, is not hidden from them.
        let is_open = folded.iter().any(|name| {
            FIELDS.iter().any(|field| {
                field.name == *name
                    && (field.text(parameters) != field.text(&standard) || wrong.contains(&field.pointer()))
            })
        });
        let open = if is_open { " open" } else { "" };
        let _ = write!(html, "<fieldset><legend>{title}</legend>{}", inputs(first));
        if !folded.is_empty() {
            let _ = write!(
                html,
                "<details{open}><summary>More settings<span class=\"unseen\">: {title}</span></summary>{}</details>",
                inputs(folded)
            );
        }
        html.push_str("</fieldset>\n");
    }
    let _ = writeln!(html, "<div class=\"fields\">{}</div>", input(&CROSSOVER, parameters, wrong));
    html.push_str("<p><button>Simulate</button></p></form>\n");
    html
}

fn input(field: &Field, parameters: &Parameters, wrong: &[String]) -> String {
    let (id, name, label, unit) = (id(field), field.name, field.label, field.unit);
    let class = name.rsplit('.').next().unwrap_or_default();
    let value = escaped(&field.text(parameters));
    let invalid = if wrong.contains(&field.pointer()) { " aria-invalid=\"true\"" } else { "" };
    let number = |least: f64, most: f64, step: &str, required: &str| {
        let help = if unit.is_empty() { String::new() } else { format!(" aria-describedby=\"{id}-unit\"") };
        let unit =
            if unit.is_empty() { String::new() } else { format!("<small id=\"{id}-unit\">{unit}</small>") };
        format!(
            "<div class=\"field {class}\"><label for=\"{id}\">{label}</label><input id=\"{id}\" name=\"{name}\" type=\"number\" \
             inputmode=\"decimal\" min=\"{least}\" max=\"{most}\" step=\"{step}\" value=\"{value}\"{required}{help}{invalid}>{unit}</div>\n"
        )
    };
    match field.kind {
        Kind::Number { least, most, .. } => number(least, most, "any", " required"),
        Kind::Whole { least, most, .. } => number(least, most, "1", " required"),
        Kind::Optional { least, most, .. } => number(least, most, "1", " placeholder=\"none\""),
        Kind::Choice { of, .. } => {
            let options: String = of
                .iter()
                .map(|(option, text)| {
                    let selected = if *option == value { " selected" } else { "" };
                    format!("<option value=\"{option}\"{selected}>{text}</option>")
                })
                .collect();
            format!(
                "<div class=\"field wide {class}\"><label for=\"{id}\">{label}</label><select id=\"{id}\" name=\"{name}\"{invalid}>{options}</select></div>\n"
            )
        }
        Kind::Switch { .. } => {
            let checked = if value == "true" { " checked" } else { "" };
            format!(
                "<label class=\"field wide check {class}\"><input type=\"checkbox\" id=\"{id}\" name=\"{name}\" value=\"true\"{checked}{invalid}>{label}</label>\n"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_in_the_form_once() {
        let mut named: Vec<&str> =
            FORM.iter().flat_map(|(_, first, folded)| first.iter().chain(*folded)).copied().collect();
        let mut fields: Vec<&str> = FIELDS.iter().map(|field| field.name).collect();
        named.sort_unstable();
        fields.sort_unstable();
        assert_eq!(named, fields);
    }
}
