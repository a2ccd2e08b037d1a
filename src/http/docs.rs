//! `/openapi.json` and, with the feature `docs-ui`, the interactive page at `/docs`.

use axum::{
    Json,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use utoipa::OpenApi;

use super::{Routes, health, home};
#[cfg(feature = "jobs")]
use crate::jobs;
#[cfg(feature = "lab")]
use crate::simulation;
use crate::{addition, auth::trail, fibonacci, load, problem};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "math-service",
        description = "Adds two numbers and counts Fibonacci numbers: one router, on Kubernetes and on Lambda, with the same answers.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    // Relative to the document: whatever stage or base path it was fetched under.
    servers((url = ".")),
    paths(
        addition::add, load::serve, fibonacci::nth, fibonacci::next, fibonacci::current, fibonacci::reset, home::show, health::live, health::healthz, health::ready, health::health, health::scrape, trail::list,
        openapi,
    ),
    components(schemas(problem::Document<'static>)),
    tags(
        (name = "addition", description = "The addition"),
        (name = "load", description = "CPU load, where it is enabled"),
        (name = "fibonacci", description = "Fibonacci numbers, and each caller's own sequence of them"),
        (name = "lab", description = "Simulations of both targets"),
        (name = "audit", description = "Who changed what"),
        (name = "service", description = "About the service"),
        (name = "health", description = "For probes, alarms and Prometheus"),
    ),
)]
struct Api;

/// The documentation routes.
#[must_use]
pub fn routes() -> Routes {
    #[cfg_attr(not(feature = "docs-ui"), expect(unused_mut, reason = "the page is a feature"))]
    let mut routes = vec![("/openapi.json", get(openapi))];
    #[cfg(feature = "docs-ui")]
    routes.extend(ui::routes());
    routes
}

/// The OpenAPI 3.1 document of everything here.
#[utoipa::path(get, path = "/openapi.json", tag = "service", responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)))]
pub(crate) async fn openapi() -> Response {
    // Decided when it is compiled: what ships has no code that makes the document.
    if cfg!(all(feature = "jobs", feature = "lab")) {
        ([(header::CONTENT_TYPE, "application/json")], COMMITTED).into_response()
    } else {
        Json(document()).into_response()
    }
}

/// The [`document`] with every route, as both targets have them, printed by `make openapi`. The code that makes it would be
/// a twentieth of what they ship.
const COMMITTED: &str = include_str!("openapi.json");

/// What the handlers' attributes say.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    let document = Api::openapi();
    #[cfg(feature = "jobs")]
    let document = document.merge_from(jobs::docs::Api::openapi());
    #[cfg(feature = "lab")]
    let document = document.merge_from(Lab::openapi());
    document
}

#[cfg(feature = "lab")]
#[derive(OpenApi)]
#[openapi(paths(simulation::simulate))]
struct Lab;

#[cfg(feature = "docs-ui")]
mod ui {
    use axum::{
        Extension,
        extract::{Path, rejection::PathRejection},
        http::{HeaderMap, StatusCode},
        response::Html,
    };

    use super::*;
    use crate::{
        http::{
            accept,
            path::{self, AsSent},
        },
        problem::Problem,
    };

    /// Compressed by the build script.
    static SCRIPT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui-bundle.js.gz"));
    static STYLE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui.css.gz"));
    static START: &str =
        "SwaggerUIBundle({url: document.documentElement.dataset.openapi, dom_id: '#ui', deepLinking: true});";

    /// Only what this server sends; Swagger UI styles elements inline and draws data: images.
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
        connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

    pub(super) fn routes() -> Routes {
        vec![("/docs", get(page)), ("/docs/{asset}", get(asset))]
    }

    /// Relative links, because only the browser knows what stands before `/docs`: a stage, a base path.
    async fn page(as_sent: Option<Extension<AsSent>>) -> Response {
        let (root, assets) = path::around("docs", as_sent.as_deref());
        let page = format!(
            "<!doctype html><html lang=\"en\" data-openapi=\"{root}/openapi.json\"><head><meta charset=\"utf-8\">\
             <title>math-service API</title><meta name=\"viewport\" content=\"width=device-width\">\
             <link rel=\"icon\" href=\"data:,\"><link rel=\"stylesheet\" href=\"{assets}/swagger-ui.css\"></head>\
             <body><div id=\"ui\"></div><script src=\"{assets}/swagger-ui-bundle.js\"></script>\
             <script src=\"{assets}/start.js\"></script></body></html>"
        );
        let headers = [
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "same-origin"),
        ];
        (headers, Html(page)).into_response()
    }

    async fn asset(
        name: Result<Path<String>, PathRejection>,
        headers: HeaderMap,
    ) -> Result<Response, Problem> {
        const SCRIPT_TYPE: &str = "text/javascript; charset=utf-8";
        let (content_type, bytes) = match name.as_ref().map_or("", |Path(name)| name.as_str()) {
            "start.js" => return Ok(([(header::CONTENT_TYPE, SCRIPT_TYPE)], START).into_response()),
            "swagger-ui-bundle.js" => (SCRIPT_TYPE, SCRIPT),
            "swagger-ui.css" => ("text/css; charset=utf-8", STYLE),
            _ => return Err(Problem::new(StatusCode::NOT_FOUND, "no such asset")),
        };
        // A client that does not say what it takes, takes anything (RFC 9110 §12.5.3).
        let accepts_gzip = !headers.contains_key(header::ACCEPT_ENCODING)
            || accept::quality(&headers, &header::ACCEPT_ENCODING, &["gzip", "*"]).is_some_and(|q| q > 0.0);
        if !accepts_gzip {
            let detail = "this file is kept compressed: accept gzip";
            return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, detail));
        }
        let headers = [
            (header::CONTENT_TYPE, content_type),
            (header::CONTENT_ENCODING, "gzip"),
            (header::CACHE_CONTROL, "public, max-age=86400"),
            (header::VARY, "accept-encoding"),
        ];
        Ok((headers, bytes).into_response())
    }
}

#[cfg(all(test, feature = "jobs", feature = "lab"))]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_committed_document_is_what_the_handlers_attributes_say() {
        let committed: Value = serde_json::from_str(COMMITTED).unwrap();
        let said = serde_json::to_value(document()).unwrap();
        assert!(committed == said, "src/http/openapi.json is not what the code says: run `make openapi`");
    }
}
