//! `GET /`: what this is and where to go, as JSON, or as a page for a browser.

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Routes, accept, pages::Page, path::AsSent};
use crate::targets::Target;

/// The service's name card.
#[derive(Serialize, ToSchema)]
pub struct Home {
    /// Always `math-service`.
    #[schema(example = "math-service")]
    name: &'static str,
    /// The running version.
    version: &'static str,
    /// Which target answers.
    target: Target,
    /// Where to go on from here, relative to this URL.
    links: Links,
}

/// Where to go from here.
#[derive(Serialize, ToSchema)]
struct Links {
    /// The OpenAPI document.
    #[schema(example = "openapi.json")]
    openapi: String,
    /// The interactive page, where this build has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "docs")]
    docs: Option<String>,
    /// Health for people.
    #[schema(example = "health")]
    health: String,
    /// Five seconds of CPU load, where that is enabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "load")]
    load: Option<String>,
}

/// What the page says about this process.
#[derive(Debug, Clone, Copy)]
pub struct Here {
    /// Which target answers.
    pub target: Target,
    /// Whether `/load` burns CPU here.
    pub has_load: bool,
    /// Whether there is a page at `/lab`.
    pub has_lab: bool,
}

/// The home route.
#[must_use]
pub fn routes(here: Here) -> Routes {
    vec![("/", get(show).with_state(here))]
}

impl Home {
    fn at(Here { target, has_load, .. }: Here, as_sent: Option<&str>) -> Self {
        // Seen at `/math`, a relative `docs` is `/docs`: the last segment has to come first.
        let folder = match as_sent.and_then(|path| path.rsplit('/').next()) {
            None | Some("") => String::new(),
            Some(last) => format!("{last}/"),
        };
        let link = |path: &str| format!("{folder}{path}");
        let docs = cfg!(feature = "docs-ui").then(|| link("docs"));
        let load = has_load.then(|| link("load"));
        let links = Links { openapi: link("openapi.json"), docs, health: link("health"), load };
        Self { name: "math-service", version: crate::VERSION, target, links }
    }
}

/// What this is, which target answers, and where to go.
#[utoipa::path(get, path = "/", operation_id = "home", tag = "service", responses(
    (status = 200, description = "JSON, or a page where `Accept` prefers `text/html`", content(
        (Home = "application/json"), (String = "text/html"),
    )),
))]
pub(crate) async fn show(
    State(here): State<Here>,
    as_sent: Option<Extension<AsSent>>,
    headers: HeaderMap,
) -> Response {
    let home = Home::at(here, as_sent.as_ref().map(|Extension(AsSent(uri))| uri.path()));
    let page = if prefers_html(&headers) { page(here, &home) } else { Json(home).into_response() };
    ([(header::VARY, "accept")], page).into_response()
}

/// Two things to try and where to go on. Without scripts the two are curl lines.
fn page(here: Here, home: &Home) -> Response {
    let Home { name, version, target, links } = home;
    // Not the load: what follows a page's links to preview them would burn CPU.
    let Links { openapi, docs, health, load: _ } = links;
    let root = openapi.strip_suffix("/openapi.json").unwrap_or(".");
    let card = |href: &str, title: &str, text: &str| {
        format!(
            "<li><a class=\"card\" href=\"{href}\"><strong>{title}</strong><span>{text}</span></a></li>\n"
        )
    };
    let mut cards = String::new();
    if here.has_lab {
        let href = format!("{root}/lab");
        cards += &card(
            &href,
            "Scaling lab",
            "A day of your traffic on EKS and on Lambda: what scales, what it costs.",
        );
    }
    if let Some(docs) = docs {
        cards += &card(docs, "API", "Every route, to read and to try.");
    }
    cards += &card(openapi, "OpenAPI", "The same as a document.");
    cards += &card(health, "Health", "How this process is.");
    let body = format!(
        "<header class=\"top\"><h1>{name}</h1>\n\
         <p>One router, two targets: the <strong>{target} target</strong> answers, version {version}.</p></header>\n\
         <main class=\"home\">\n\
         <section class=\"panel\" aria-labelledby=\"add\"><h2 id=\"add\">Add two numbers</h2>\n\
         <form id=\"addition\" data-url=\"{root}/\"><div class=\"fields\">\
         <div class=\"field\"><label for=\"a\">First</label><input id=\"a\" name=\"a\" type=\"number\" step=\"any\" value=\"10\" required></div>\
         <div class=\"field\"><label for=\"b\">Second</label><input id=\"b\" name=\"b\" type=\"number\" step=\"any\" value=\"5\" required></div></div>\n\
         <p><button>Add</button> <output id=\"sum\" for=\"a b\"></output></p></form>\n\
         <pre>curl -d '{{\"a\":10,\"b\":5}}' -H 'content-type: application/json' URL</pre></section>\n\
         <section class=\"panel\" aria-labelledby=\"fib\"><h2 id=\"fib\">The next Fibonacci number</h2>\n\
         <p>Your own sequence: each call gets the next number, whichever replica answers.</p>\n\
         <form id=\"fibonacci\" data-url=\"{root}/fibonacci/next\"><p><button>Next</button> <output id=\"number\"></output></p></form>\n\
         <pre>curl -X POST -b jar -c jar URL/fibonacci/next</pre></section>\n\
         <nav aria-label=\"Where to go\"><ul class=\"cards\">\n{cards}</ul></nav>\n</main>\n"
    );
    Page { title: name, root, styles: &[], scripts: &["assets/home.js"], body: &body }.into_response()
}

/// Whether `Accept` ranks `text/html` above JSON. curl's `*/*` does not.
fn prefers_html(headers: &HeaderMap) -> bool {
    let quality = |candidates: &[&str]| accept::quality(headers, &header::ACCEPT, candidates).unwrap_or(0.0);
    quality(&["text/html", "text/*", "*/*"]) > quality(&["application/json", "application/*", "*/*"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_work_wherever_the_service_is_mounted() {
        let links = |as_sent| {
            Home::at(Here { target: Target::Container, has_load: true, has_lab: true }, as_sent).links
        };
        let health = |as_sent| links(as_sent).health;
        assert_eq!(health(None), "health");
        assert_eq!(health(Some("/math/")), "health");
        assert_eq!(health(Some("/math")), "math/health");
        assert_eq!(health(Some("//")), "health");
        assert_eq!(links(Some("/math")).load.as_deref(), Some("math/load"));
    }

    #[test]
    fn a_route_that_only_refuses_is_not_linked() {
        let home = Home::at(Here { target: Target::Container, has_load: false, has_lab: false }, None);
        assert_eq!(home.links.load, None);
    }

    #[test]
    fn only_a_caller_that_prefers_it_gets_the_page() {
        let prefers = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            prefers_html(&headers)
        };
        assert!(prefers("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"));
        assert!(prefers("text/html"));
        assert!(prefers("text/*, application/json;q=0.5"));
        for accept in [
            "*/*",
            "application/json",
            "application/json, text/html",
            "text/html;q=0.1, */*",
            "text/html;q=0",
            "",
        ] {
            assert!(!prefers(accept), "{accept}");
        }
        assert!(!prefers_html(&HeaderMap::new()));
    }
}
