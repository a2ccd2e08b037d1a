//! What the service's own pages have in common: their style, their scripts, and what they may load.
//!
//! Links are relative, because only the browser knows what stands before the service's paths: a stage, a base path.

use axum::{
    extract::{Path, rejection::PathRejection},
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};

use super::Routes;
use crate::problem::Problem;

/// Only what this server sends, nothing inline; forms stay here, and no other site shows the page in a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Every page's style, and the home page's script.
#[must_use]
pub fn routes() -> Routes {
    vec![("/assets/{name}", get(asset))]
}

async fn asset(name: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    match name.as_ref().map_or("", |Path(name)| name.as_str()) {
        "style.css" => Ok(file("text/css; charset=utf-8", include_str!("assets/style.css"))),
        "home.js" => Ok(file("text/javascript; charset=utf-8", include_str!("assets/home.js"))),
        _ => Err(Problem::new(StatusCode::NOT_FOUND, "no such asset")),
    }
}

/// A file of this build: pages name it with their version, so it may be kept.
pub(crate) fn file(content_type: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "public, max-age=86400"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, text).into_response()
}

/// A page: `root` leads from it to the service's root, such as `.` or `..`.
pub(crate) struct Page<'a> {
    pub(crate) title: &'a str,
    pub(crate) root: &'a str,
    /// Further style sheets and scripts, from the root.
    pub(crate) styles: &'a [&'a str],
    pub(crate) scripts: &'a [&'a str],
    pub(crate) body: &'a str,
}

impl IntoResponse for Page<'_> {
    fn into_response(self) -> Response {
        let Self { title, root, styles, scripts, body } = self;
        let version = crate::VERSION;
        let styles: String = ["assets/style.css"]
            .iter()
            .chain(styles)
            .map(|path| format!("<link rel=\"stylesheet\" href=\"{root}/{path}?v={version}\">\n"))
            .collect();
        let scripts: String = scripts
            .iter()
            .map(|path| format!("<script src=\"{root}/{path}?v={version}\" defer></script>\n"))
            .collect();
        let page = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<link rel=\"icon\" href=\"data:,\">\n{styles}{scripts}\
             </head>\n<body>\n{body}</body>\n</html>\n"
        );
        let mut response = Html(page).into_response();
        let headers = response.headers_mut();
        for (name, value) in [
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "same-origin"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}
