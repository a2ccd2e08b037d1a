//! The Lambda function: gateway events in, gateway answers out.
//!
//! `lambda_http` gives the events their types and `lambda_runtime` fetches them. The step between,
//! lambda_http's own conversion into an HTTP request, is not used: it adds the stage to the path,
//! resolves `..` in it, keeps one of several values of a header, and panics on a malformed `Host`,
//! query or base64 body, where the container answers 400. [`request`] and [`Answer`] make the two
//! targets equal instead; each difference has a test in `tests/api/lambda.rs`.

use std::{convert::Infallible, net::IpAddr};

use axum::{
    body::Body,
    extract::Request,
    http::{
        HeaderMap, HeaderValue, Method, StatusCode, Uri,
        header::{CONTENT_ENCODING, CONTENT_LENGTH, COOKIE, Entry, HOST, SET_COOKIE},
    },
    response::Response,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use lambda_http::{
    aws_lambda_events::{
        alb::{AlbTargetGroupRequest, AlbTargetGroupResponse},
        apigw::{
            ApiGatewayProxyRequest, ApiGatewayProxyResponse, ApiGatewayV2httpRequest,
            ApiGatewayV2httpResponse,
        },
        encodings,
        query_map::QueryMap,
    },
    request::LambdaRequest,
};
use lambda_runtime::{Context, LambdaEvent, service_fn};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::schedule::Invocation;
use crate::{
    app::App,
    http::{
        client_ip,
        path::{self, AsSent},
        scheme::{OverTls, forwarded_https},
    },
    lifecycle::Phase,
    problem::Problem,
    telemetry::context::{self, REQUEST_ID},
};

/// Answers the events of the Runtime API with `app` until Lambda ends the process.
///
/// With an extension registered, Lambda would send SIGTERM before that. There is nothing left to do then: a log line is
/// written before the code after it runs, and what a request changes is stored before its answer.
///
/// An event of another kind never gets to the app: it fails to deserialize, and lambda_runtime reports that as the
/// invocation's error.
///
/// # Errors
/// When the Runtime API cannot be reached.
pub async fn run(app: App) -> Result<(), lambda_runtime::Error> {
    app.lifecycle().advance(Phase::Ready);
    let serve = move |event: LambdaEvent<Invocation>| {
        let app = app.clone();
        async move {
            let LambdaEvent { payload, context, .. } = event;
            Ok::<_, Infallible>(match payload {
                Invocation::Request(payload) => answer(app, LambdaEvent::new(*payload, context)).await,
                Invocation::Scheduled => {
                    app.catch_up().await;
                    Answer::Nothing
                }
            })
        }
    };
    lambda_runtime::Runtime::new(service_fn(serve)).run().await
}

/// The app's answer to an event.
pub async fn answer(app: App, event: LambdaEvent<LambdaRequest>) -> Answer {
    let LambdaEvent { payload, context, .. } = event;
    let format = Format::of(&payload);
    let response = match request(payload, &context) {
        Ok((request, client)) => app.serve(request, client).await,
        Err(refused) => {
            let Refused { request, client, problem } = *refused;
            app.refuse(request, client, problem).await
        }
    };
    Answer::encode(format, response).await
}

/// An event that cannot be expressed as an HTTP request: what can be of it, and what cannot.
#[derive(Debug)]
pub struct Refused {
    request: Request,
    client: Option<IpAddr>,
    problem: Problem,
}

/// What the gateways' events have in common.
struct Parts {
    method: Method,
    path: String,
    /// The path before the stage was removed from it, where it was.
    as_sent: Option<String>,
    query: String,
    headers: HeaderMap,
    body: Option<String>,
    is_base64: bool,
    host: Option<String>,
    client: Option<IpAddr>,
    is_over_tls: bool,
}

/// The HTTP request that an event describes, and the client's address.
///
/// # Errors
/// When its body is not the base64 that it claims to be, or its path is too long for a URI.
pub fn request(event: LambdaRequest, context: &Context) -> Result<(Request, Option<IpAddr>), Box<Refused>> {
    let mut parts = match event {
        LambdaRequest::ApiGatewayV1(event) => Parts::from(event),
        LambdaRequest::ApiGatewayV2(event) => Parts::from(event),
        LambdaRequest::Alb(event) => Parts::from(event),
        _ => {
            let problem = Problem::new(StatusCode::BAD_REQUEST, "events of this kind are not supported");
            return Err(Box::new(Refused { request: Request::default(), client: None, problem }));
        }
    };
    parts.complete_headers(context);
    parts.into_request()
}

impl From<ApiGatewayProxyRequest> for Parts {
    fn from(event: ApiGatewayProxyRequest) -> Self {
        let context = event.request_context;
        let path = event.path.unwrap_or_default();
        // The path has no stage, and the context's path has. Where both are the same, a custom
        // domain's mapping stands in front, and it may be named like the stage.
        let is_mapped = context.path.as_ref() == Some(&path);
        let stage = context.stage.filter(|_| is_mapped).unwrap_or_default();
        let (path, as_sent) = without_stage(path, &stage);
        Self {
            method: event.http_method,
            path,
            as_sent,
            query: query_of_decoded(prefer(
                event.multi_value_query_string_parameters,
                event.query_string_parameters,
            )),
            headers: if event.multi_value_headers.is_empty() {
                event.headers
            } else {
                event.multi_value_headers
            },
            body: event.body,
            is_base64: event.is_base64_encoded,
            host: context.domain_name,
            client: context.identity.source_ip.and_then(|ip| ip.parse().ok()),
            is_over_tls: true,
        }
    }
}

impl From<ApiGatewayV2httpRequest> for Parts {
    fn from(event: ApiGatewayV2httpRequest) -> Self {
        let context = event.request_context;
        let mut headers = event.headers;
        let cookies = event.cookies.unwrap_or_default().join("; ");
        if let Some(cookies) = HeaderValue::from_str(&cookies).ok().filter(|value| !value.is_empty()) {
            headers.insert(COOKIE, cookies);
        }
        let stage = context.stage.filter(|stage| stage != "$default").unwrap_or_default();
        let (path, as_sent) = without_stage(event.raw_path.unwrap_or_default(), &stage);
        Self {
            method: context.http.method,
            path,
            as_sent,
            query: escape(&event.raw_query_string.unwrap_or_default(), QUERY),
            headers,
            body: event.body,
            is_base64: event.is_base64_encoded,
            host: context.domain_name,
            client: context.http.source_ip.and_then(|ip| ip.parse().ok()),
            is_over_tls: true,
        }
    }
}

impl From<AlbTargetGroupRequest> for Parts {
    fn from(event: AlbTargetGroupRequest) -> Self {
        let headers =
            if event.multi_value_headers.is_empty() { event.headers } else { event.multi_value_headers };
        // The load balancer appends the peer that it saw: the last entry. Its own health checks have none.
        let client = client_ip::forwarded_for(&headers).next().flatten();
        // It listens with or without TLS; API Gateway and Function URLs speak nothing but TLS.
        let is_over_tls = forwarded_https(&headers);
        Self {
            method: event.http_method,
            path: event.path.unwrap_or_default(),
            as_sent: None,
            query: query_as_sent(prefer(
                event.multi_value_query_string_parameters,
                event.query_string_parameters,
            )),
            headers,
            body: event.body,
            is_base64: event.is_base64_encoded,
            host: None,
            client,
            is_over_tls,
        }
    }
}

impl Parts {
    /// Adds what the transport would have brought.
    fn complete_headers(&mut self, context: &Context) {
        let host = self.host.as_deref().and_then(|host| HeaderValue::from_str(host).ok());
        let headers = &mut self.headers;
        // Only a load balancer's health check comes without: the check for a missing Host is not for it.
        headers.entry(HOST).or_insert_with(|| host.unwrap_or(HeaderValue::from_static("localhost")));
        // The caller's own id names the request; in its place, the invocation's does.
        match HeaderValue::from_str(&context.request_id) {
            Ok(id) if context::given_id(headers).is_none() => drop(headers.insert(REQUEST_ID, id)),
            _ => {}
        }
        // Lambda's own header names the segment of this invocation, the gateway's that of the gateway.
        if let Some(trace) = context.xray_trace_id.as_deref().and_then(|id| HeaderValue::from_str(id).ok()) {
            headers.insert("x-amzn-trace-id", trace);
        }
    }

    fn into_request(self) -> Result<(Request, Option<IpAddr>), Box<Refused>> {
        let client = self.client.map(|ip| ip.to_canonical());
        let mut request = Request::default();
        *request.method_mut() = self.method;
        *request.headers_mut() = self.headers;
        if self.is_over_tls {
            request.extensions_mut().insert(OverTls);
        }
        match body(self.body.unwrap_or_default(), self.is_base64).and_then(|body| {
            let uri = uri(&self.path, &self.query)?;
            Ok((uri, body))
        }) {
            Ok((uri, body)) => {
                *request.uri_mut() = uri;
                *request.body_mut() = body;
                if let Some(as_sent) = self.as_sent.and_then(|path| self::uri(&path, "").ok()) {
                    request.extensions_mut().insert(AsSent(as_sent));
                }
                Ok((request, client))
            }
            Err(problem) => Err(Box::new(Refused { request, client, problem })),
        }
    }
}

fn body(text: String, is_base64: bool) -> Result<Body, Problem> {
    if !is_base64 {
        return Ok(Body::from(text));
    }
    let detail = "the gateway declared the body as base64, and it is not";
    BASE64_STANDARD.decode(text).map(Body::from).map_err(|_| Problem::new(StatusCode::BAD_REQUEST, detail))
}

/// What a URI's path and query may not hold (RFC 3986), and a decoded one may. `%` stays: gateways
/// differ in whether they decode, and a path that was sent encoded must stay what it was.
const PATH: &AsciiSet = &QUERY.add(b'?').add(b'`').add(b'{').add(b'}');
const QUERY: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>');

fn escape(text: &str, set: &'static AsciiSet) -> String {
    utf8_percent_encode(text, set).to_string()
}

fn uri(path: &str, query: &str) -> Result<Uri, Problem> {
    let mut target = escape(path, PATH);
    if !target.starts_with(['/', '*']) {
        target.insert(0, '/');
    }
    if !query.is_empty() {
        target.push('?');
        target.push_str(query);
    }
    target.parse().map_err(|_| Problem::new(StatusCode::URI_TOO_LONG, "the path and query are too long"))
}

/// The path to route, and the path as sent where that is another.
fn without_stage(path: String, stage: &str) -> (String, Option<String>) {
    if stage.is_empty() {
        return (path, None);
    }
    match path::strip(&path, &format!("/{stage}")) {
        "" => ("/".to_owned(), Some(path)),
        rest if rest.len() == path.len() => (path, None),
        rest => (rest.to_owned(), Some(path)),
    }
}

/// The map with every value of a repeated parameter, where the event has it.
fn prefer(multi: QueryMap, single: QueryMap) -> QueryMap {
    if multi.is_empty() { single } else { multi }
}

/// REST APIs decode the query: it is encoded again.
fn query_of_decoded(parameters: QueryMap) -> String {
    join(&parameters, |text| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string())
}

/// Load balancers pass the query as it was sent.
fn query_as_sent(parameters: QueryMap) -> String {
    join(&parameters, |text| escape(text, QUERY))
}

fn join(parameters: &QueryMap, encode: impl Fn(&str) -> String) -> String {
    parameters
        .iter()
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
        .collect::<Vec<_>>()
        .join("&")
}

/// Which form of answer the caller of the function understands.
#[derive(Debug, Clone, Copy)]
enum Format {
    Rest,
    Http,
    Alb,
}

impl Format {
    fn of(event: &LambdaRequest) -> Self {
        match event {
            LambdaRequest::ApiGatewayV1(_) => Self::Rest,
            LambdaRequest::Alb(_) => Self::Alb,
            _ => Self::Http,
        }
    }
}

/// An HTTP response in the form that the gateway asks for.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// For REST APIs.
    Rest(ApiGatewayProxyResponse),
    /// For HTTP APIs and Function URLs.
    Http(ApiGatewayV2httpResponse),
    /// For application load balancers.
    Alb(AlbTargetGroupResponse),
    /// For a schedule.
    Nothing,
}

impl Answer {
    async fn encode(format: Format, response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let length = body.size_hint().exact();
        let (body, is_base64) = encode_body(&parts.headers, body).await;
        let status = i64::from(parts.status.as_u16());
        let mut headers = join_repeated(parts.headers);
        // hyper does the same in the container, where axum has not done it already.
        if let (Some(length), Entry::Vacant(entry)) = (length, headers.entry(CONTENT_LENGTH)) {
            entry.insert(HeaderValue::from(length));
        }
        match format {
            Format::Rest => {
                let mut answer = ApiGatewayProxyResponse::default();
                answer.status_code = status;
                answer.multi_value_headers = headers;
                answer.body = body;
                answer.is_base64_encoded = is_base64;
                Self::Rest(answer)
            }
            Format::Http => {
                let mut answer = ApiGatewayV2httpResponse::default();
                answer.status_code = status;
                answer.cookies = headers
                    .get_all(SET_COOKIE)
                    .iter()
                    .filter_map(|v| v.to_str().ok().map(str::to_owned))
                    .collect();
                answer.headers = headers;
                answer.headers.remove(SET_COOKIE);
                answer.body = body;
                answer.is_base64_encoded = is_base64;
                Self::Http(answer)
            }
            Format::Alb => {
                let mut answer = AlbTargetGroupResponse::default();
                answer.status_code = status;
                answer.status_description = Some(parts.status.to_string());
                // Which of the two the load balancer reads is a setting of its target group.
                answer.headers = headers.clone();
                answer.multi_value_headers = headers;
                answer.body = body;
                answer.is_base64_encoded = is_base64;
                Self::Alb(answer)
            }
        }
    }
}

/// Text stays text whatever its content type, the rest becomes base64. A compressed body is never text.
async fn encode_body(headers: &HeaderMap, body: Body) -> (Option<encodings::Body>, bool) {
    // Our bodies are complete before they are sent: reading one cannot fail.
    let bytes = body.collect().await.map(|collected| collected.to_bytes()).unwrap_or_default();
    if bytes.is_empty() {
        return (None, false);
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) if !headers.contains_key(CONTENT_ENCODING) => {
            (Some(encodings::Body::Text(text.to_owned())), false)
        }
        _ => (Some(encodings::Body::Binary(bytes.to_vec())), true),
    }
}

/// Answers carry one value a header: repeated ones are joined with commas, as HTTP allows for all
/// but Set-Cookie (RFC 9110 §5.3).
fn join_repeated(mut headers: HeaderMap) -> HeaderMap {
    let repeated: Vec<_> = headers
        .keys()
        .filter(|name| **name != SET_COOKIE && headers.get_all(*name).iter().nth(1).is_some())
        .cloned()
        .collect();
    for name in repeated {
        if let Entry::Occupied(mut entry) = headers.entry(&name) {
            let joined = entry.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b", "[..]);
            if let Ok(joined) = HeaderValue::from_bytes(&joined) {
                entry.insert(joined);
            }
        }
    }
    headers
}
