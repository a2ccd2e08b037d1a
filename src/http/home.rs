//! `GET /`: what this is and where to go, as JSON, or as a page for a browser.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::Routes;
use crate::targets::Target;

/// The service's name card.
#[derive(Clone, Serialize, ToSchema)]
pub struct Home {
    /// Always `math-service`.
    #[schema(example = "math-service")]
    name: &'static str,
    /// The running version.
    version: &'static str,
    /// Which target answers.
    target: Target,
    /// Paths to go on from here, relative to this one.
    links: Links,
}

/// Where to go from here.
#[derive(Clone, Serialize, ToSchema)]
struct Links {
    /// The OpenAPI document.
    openapi: &'static str,
    /// The interactive page, where this build has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    docs: Option<&'static str>,
    /// Health for people.
    health: &'static str,
}

/// The home route.
#[must_use]
pub fn routes(target: Target) -> Routes {
    let docs = cfg!(feature = "docs-ui").then_some("docs");
    let links = Links { openapi: "openapi.json", docs, health: "health" };
    let home = Home { name: "math-service", version: crate::VERSION, target, links };
    vec![("/", get(show).with_state(home))]
}

/// What this is, which target answers, and where to go.
#[utoipa::path(get, path = "/", operation_id = "home", tag = "service", responses(
    (status = 200, description = "JSON, or a page where `Accept` prefers `text/html`", content(
        (Home = "application/json"), (String = "text/html"),
    )),
))]
pub(crate) async fn show(State(home): State<Home>, headers: HeaderMap) -> Response {
    let page = if prefers_html(&headers) {
        let policy = "default-src 'none'; style-src 'unsafe-inline'";
        (
            [(header::CONTENT_SECURITY_POLICY, policy), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")],
            Html(page(&home)),
        )
            .into_response()
    } else {
        Json(home).into_response()
    };
    ([(header::VARY, "accept")], page).into_response()
}

fn page(home: &Home) -> String {
    let Home { name, version, target, .. } = home;
    let docs =
        home.links.docs.map_or(String::new(), |_| "<li><a href=\"docs\">Try the API</a></li>".to_owned());
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{name}</title>\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <style>:root{{color-scheme:light dark}}body{{font:1rem/1.5 system-ui;max-width:40rem;margin:2rem auto;padding:0 1rem}}</style>\
         </head><body><h1>{name}</h1><p>Version {version}, answered by the {target} target.</p>\
         <pre>curl -d '{{\"a\":10,\"b\":5}}' -H 'content-type: application/json' URL</pre>\
         <ul>{docs}<li><a href=\"openapi.json\">OpenAPI</a></li><li><a href=\"health\">Health</a></li></ul></body></html>",
    )
}

/// Whether `Accept` ranks `text/html` above JSON (RFC 9110 §12.5.1). curl's `*/*` does not.
fn prefers_html(headers: &HeaderMap) -> bool {
    let ranges =
        || headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    let quality = |media_type: &str| {
        let (main, _) = media_type.split_once('/').unwrap_or_default();
        let wildcard = format!("{main}/*");
        [media_type, &wildcard, "*/*"].iter().find_map(|wanted| {
            ranges().find_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let matches = parts.next()?.eq_ignore_ascii_case(wanted);
                let q = parts
                    .find_map(|part| part.strip_prefix("q="))
                    .map_or(Some(1.0), |q| q.parse::<f32>().ok());
                matches.then_some(q?)
            })
        })
    };
    quality("text/html").unwrap_or(0.0) > quality("application/json").unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

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
