//! The event that each front sends to a function, and the HTTP response that it makes of the answer.
//!
//! AWS documents the shapes but not the details. These follow what live gateways were seen to do:
//!
//! * Paths, cookies and header names: events recorded behind each front, `vokerhttp/testdata` of
//!   github.com/hotsock/voker. REST APIs, Function URLs and load balancers pass the path as it was sent; an
//!   HTTP API decodes it, see [`http_api_path`].
//! * Which request bodies are text: github.com/ministackorg/ministack/pull/766, and the user guide of
//!   Application Load Balancers, "Lambda functions as targets".
//! * Merged and default headers, inferred answers, errors: the integration tests of `LambdaTestTool-v2` in
//!   github.com/aws/aws-lambda-dotnet.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode, Version};
use http_body_util::Full;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::InvokeError;

/// An HTTP response with its whole body at hand.
pub(crate) type Reply = Response<Full<Bytes>>;

const ACCOUNT: &str = "123456789012";
const API: &str = "abc123";
const API_DOMAIN: &str = "abc123.execute-api.eu-west-2.amazonaws.com";
const URL_DOMAIN: &str = "abc123.lambda-url.eu-west-2.on.aws";
const TARGET_GROUP: &str =
    "arn:aws:elasticloadbalancing:eu-west-2:123456789012:targetgroup/gateway/6d0ecf831eec9f09";

/// The stage of the REST API. Clients call paths without it, as they would behind a custom domain.
const REST_STAGE: &str = "prod";

/// The most bytes that a load balancer passes to a function, and takes from it.
const ALB_LIMIT: usize = 1024 * 1024;

const TRACE_HEADER: HeaderName = HeaderName::from_static("x-amzn-trace-id");

/// Headers that belong to one connection and are never passed on.
const HOP_BY_HOP: [&str; 7] =
    ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

/// Answer headers that REST APIs and Function URLs rename to `x-amzn-remapped-...`.
const REMAPPED: [&str; 3] = ["date", "server", "www-authenticate"];

/// The AWS service that stands between a client and the function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Front {
    /// API Gateway REST API, stage `prod`.
    RestV1,
    /// API Gateway HTTP API with payload format 2.0; no stage means `$default`.
    HttpV2 { stage: Option<String> },
    /// Lambda Function URL.
    FunctionUrl,
    /// Application Load Balancer as it comes: one value per header.
    AlbSingle,
    /// Application Load Balancer with `lambda.multi_value_headers.enabled`.
    AlbMulti,
}

impl FromStr for Front {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "rest-v1" => Ok(Self::RestV1),
            "http-v2" => Ok(Self::HttpV2 { stage: None }),
            "function-url" => Ok(Self::FunctionUrl),
            "alb-single" => Ok(Self::AlbSingle),
            "alb-multi" => Ok(Self::AlbMulti),
            _ => match name.strip_prefix("http-v2:") {
                Some(stage) if !stage.is_empty() => Ok(Self::HttpV2 { stage: Some(stage.into()) }),
                _ => Err(format!("unknown front {name}")),
            },
        }
    }
}

impl fmt::Display for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RestV1 => f.write_str("rest-v1"),
            Self::HttpV2 { stage: None } => f.write_str("http-v2"),
            Self::HttpV2 { stage: Some(stage) } => write!(f, "http-v2:{stage}"),
            Self::FunctionUrl => f.write_str("function-url"),
            Self::AlbSingle => f.write_str("alb-single"),
            Self::AlbMulti => f.write_str("alb-multi"),
        }
    }
}

impl Front {
    fn is_alb(&self) -> bool {
        matches!(self, Self::AlbSingle | Self::AlbMulti)
    }

    /// The scheme and port that clients of the real service use.
    fn scheme(&self) -> (&'static str, &'static str) {
        if self.is_alb() { ("http", "80") } else { ("https", "443") }
    }
}

/// Why a front answers by itself instead of passing on what the function said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The request cannot become an event.
    BadRequest,
    /// The request is over the limit of the front or of Lambda.
    TooLarge,
    /// The function failed, or its answer is not what the front expects.
    Function,
    /// The function took too long.
    Timeout,
}

impl From<InvokeError> for Failure {
    fn from(error: InvokeError) -> Self {
        match error {
            InvokeError::TooLarge => Self::TooLarge,
            InvokeError::TimedOut => Self::Timeout,
            InvokeError::Reported(_) | InvokeError::Exited(_) | InvokeError::Stopped => Self::Function,
        }
    }
}

/// Every value of every name, in the order sent: headers and query parameters alike.
type Values = BTreeMap<String, Vec<String>>;

/// A request, prepared for whichever event it becomes.
struct Prepared<'a> {
    parts: &'a Parts,
    headers: Values,
    body: &'a [u8],
    peer: IpAddr,
}

/// The event that `front` sends for a request from `peer`.
///
/// # Errors
///
/// When the real service would refuse the request.
pub(crate) fn event(front: &Front, parts: &Parts, body: &[u8], peer: IpAddr) -> Result<Value, Failure> {
    if front.is_alb() && body.len() > ALB_LIMIT {
        return Err(Failure::TooLarge);
    }
    let headers = values_of(&gateway_headers(front, parts, body, peer));
    let request = Prepared { parts, headers, body, peer };
    match front {
        Front::RestV1 => Ok(rest_event(request)),
        Front::HttpV2 { stage } => http_api_event(request, stage.as_deref()).ok_or(Failure::BadRequest),
        Front::FunctionUrl => Ok(function_url_event(request)),
        Front::AlbSingle => Ok(alb_event(&request, false)),
        Front::AlbMulti => Ok(alb_event(&request, true)),
    }
}

fn rest_event(mut request: Prepared<'_>) -> Value {
    request.headers = request.headers.into_iter().map(|(name, all)| (rest_name(&name), all)).collect();
    let (body, is_base64) = request.encoded_body(true);
    let path = request.parts.uri.path();
    // A greedy resource does not match the root, which therefore has a resource of its own.
    let (resource, parameters) = match path.strip_prefix('/') {
        Some(proxy) if !proxy.is_empty() => ("/{proxy+}", json!({ "proxy": proxy })),
        _ => ("/", Value::Null),
    };
    let query = decoded(request.query());
    let (time, epoch) = request_time();
    json!({
        "resource": resource,
        "path": path,
        "httpMethod": request.parts.method.as_str(),
        "headers": last(&request.headers),
        "multiValueHeaders": request.headers,
        "queryStringParameters": null_if_empty(&query, last(&query)),
        "multiValueQueryStringParameters": null_if_empty(&query, json!(query)),
        "pathParameters": parameters,
        "stageVariables": null,
        "requestContext": {
            "accountId": ACCOUNT,
            "apiId": API,
            "domainName": API_DOMAIN,
            "domainPrefix": API,
            "extendedRequestId": "ATfSdF7nPHcErRA=",
            "httpMethod": request.parts.method.as_str(),
            "identity": {
                "accessKey": null,
                "accountId": null,
                "caller": null,
                "sourceIp": request.peer.to_string(),
                "user": null,
                "userAgent": request.header("User-Agent"),
                "userArn": null,
            },
            "path": format!("/{REST_STAGE}{path}"),
            "protocol": request.protocol(),
            "requestId": uuid(),
            "requestTime": time,
            "requestTimeEpoch": epoch,
            "resourceId": "al6gqb",
            "resourcePath": resource,
            "stage": REST_STAGE,
        },
        "body": if request.body.is_empty() { Value::Null } else { body.into() },
        "isBase64Encoded": is_base64,
    })
}

/// `None` when the HTTP API would answer 400.
fn http_api_event(mut request: Prepared<'_>, stage: Option<&str>) -> Option<Value> {
    let decoded = http_api_path(request.parts.uri.path())?;
    let path = stage.map_or_else(|| decoded.clone(), |stage| format!("/{stage}{decoded}"));
    let cookies = request.headers.remove("cookie");
    let context = json!({
        "accountId": ACCOUNT,
        "apiId": API,
        "domainName": API_DOMAIN,
        "domainPrefix": API,
        "requestId": "ATfSmjLgPHcESJw=",
        "stage": stage.unwrap_or("$default"),
    });
    Some(format_2_event(&request, &path, &path, cookies.as_ref(), context))
}

fn function_url_event(request: Prepared<'_>) -> Value {
    let path = request.parts.uri.path();
    // The context has the path decoded, and the cookies stay among the headers.
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let context = json!({
        "accountId": "anonymous",
        "apiId": API,
        "domainName": URL_DOMAIN,
        "domainPrefix": API,
        "requestId": uuid(),
        "stage": "$default",
    });
    format_2_event(&request, path, &decoded, request.headers.get("cookie"), context)
}

/// Payload format 2.0, which HTTP APIs and Function URLs share. Whatever is empty is left out.
fn format_2_event(
    request: &Prepared<'_>,
    raw_path: &str,
    path: &str,
    cookies: Option<&Vec<String>>,
    mut context: Value,
) -> Value {
    let (time, epoch) = request_time();
    context["http"] = json!({
        "method": request.parts.method.as_str(),
        "path": path,
        "protocol": request.protocol(),
        "sourceIp": request.peer.to_string(),
        "userAgent": request.header("user-agent").unwrap_or_default(),
    });
    context["routeKey"] = "$default".into();
    context["time"] = time.into();
    context["timeEpoch"] = epoch.into();
    let (body, is_base64) = request.encoded_body(is_text(request.header("content-type")));
    let mut event = json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": raw_path,
        "rawQueryString": request.query(),
        "headers": joined(&request.headers),
        "requestContext": context,
        "isBase64Encoded": is_base64,
    });
    if let Some(cookies) = cookies {
        event["cookies"] = cookies.iter().flat_map(|line| line.split("; ")).collect();
    }
    if !request.query().is_empty() {
        event["queryStringParameters"] = joined(&decoded(request.query()));
    }
    if !request.body.is_empty() {
        event["body"] = body.into();
    }
    event
}

fn alb_event(request: &Prepared<'_>, multi_value: bool) -> Value {
    // A load balancer leaves the decoding of names and values to the function.
    let pairs = request.query().split('&').filter(|pair| !pair.is_empty());
    let query = grouped(pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))));
    let (body, is_base64) = request.encoded_body(is_text(request.header("content-type")));
    let mut event = json!({
        "requestContext": { "elb": { "targetGroupArn": TARGET_GROUP } },
        "httpMethod": request.parts.method.as_str(),
        "path": request.parts.uri.path(),
        "body": body,
        "isBase64Encoded": is_base64,
    });
    if multi_value {
        event["multiValueQueryStringParameters"] = json!(query);
        event["multiValueHeaders"] = json!(request.headers);
    } else {
        event["queryStringParameters"] = last(&query);
        event["headers"] = last(&request.headers);
    }
    event
}

impl Prepared<'_> {
    fn query(&self) -> &str {
        self.parts.uri.query().unwrap_or_default()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.last().map(String::as_str)
    }

    fn protocol(&self) -> &'static str {
        if self.parts.version == Version::HTTP_2 { "HTTP/2.0" } else { "HTTP/1.1" }
    }

    /// The body as JSON can hold it, and whether that took Base64.
    fn encoded_body(&self, is_text: bool) -> (String, bool) {
        match std::str::from_utf8(self.body) {
            Ok(text) if is_text || text.is_empty() => (text.to_owned(), false),
            _ => (BASE64.encode(self.body), true),
        }
    }
}

/// Whether a body of this type is passed as text. Not so JSON's relatives, forms, or a body without type.
fn is_text(content_type: Option<&str>) -> bool {
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    essence.starts_with("text/")
        || ["application/json", "application/javascript", "application/xml"].contains(&essence.as_str())
}

/// What an HTTP API makes of a path: decoded, cut at a `?` that came to light, and decoded again.
///
/// So `%3F` truncates, `%252F` becomes a slash, and `%25` without two digits behind it is refused.
fn http_api_path(path: &str) -> Option<String> {
    let once = strictly_decoded(path)?;
    strictly_decoded(once.split('?').next()?)
}

fn strictly_decoded(text: &str) -> Option<String> {
    let mut escapes = text.split('%').skip(1);
    let well_formed =
        |digits: &[u8]| digits.first_chunk::<2>().is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
    if !escapes.all(|rest| well_formed(rest.as_bytes())) {
        return None;
    }
    percent_decode_str(text).decode_utf8().ok().map(Into::into)
}

/// The headers of the request as the function gets them, with those that the gateway adds.
fn gateway_headers(front: &Front, parts: &Parts, body: &[u8], peer: IpAddr) -> HeaderMap {
    let mut headers = parts.headers.clone();
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove(header::CONTENT_LENGTH);
    // REST APIs drop the length and HTTP APIs always have one.
    if *front != Front::RestV1 && (!body.is_empty() || matches!(front, Front::HttpV2 { .. })) {
        headers.insert(header::CONTENT_LENGTH, body.len().into());
    }
    // HTTP/2 names the host in the URI and may send one cookie per header.
    if let Some(authority) = parts.uri.authority()
        && !headers.contains_key(header::HOST)
    {
        set(&mut headers, header::HOST, authority.as_str());
    }
    if headers.contains_key(header::COOKIE) {
        let cookies = texts(&headers, header::COOKIE).join("; ");
        set(&mut headers, header::COOKIE, &cookies);
    }
    let forwarded = HeaderName::from_static("x-forwarded-for");
    let mut hops = texts(&headers, forwarded.clone());
    hops.push(peer.to_string());
    set(&mut headers, forwarded, &hops.join(", "));
    let (scheme, port) = front.scheme();
    set(&mut headers, HeaderName::from_static("x-forwarded-proto"), scheme);
    set(&mut headers, HeaderName::from_static("x-forwarded-port"), port);
    if !headers.contains_key(&TRACE_HEADER) {
        set(&mut headers, TRACE_HEADER, &new_trace_id());
    }
    headers
}

/// Sets a header, or leaves it alone if the text cannot be one.
fn set(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

fn texts(headers: &HeaderMap, name: HeaderName) -> Vec<String> {
    headers.get_all(name).iter().map(text).collect()
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// The spelling in REST API events: what the gateway itself sets is capitalised, all else is as sent.
fn rest_name(name: &str) -> String {
    match name {
        "host" => "Host",
        "user-agent" => "User-Agent",
        "x-amzn-trace-id" => "X-Amzn-Trace-Id",
        "x-forwarded-for" => "X-Forwarded-For",
        "x-forwarded-port" => "X-Forwarded-Port",
        "x-forwarded-proto" => "X-Forwarded-Proto",
        other => other,
    }
    .to_owned()
}

fn values_of(headers: &HeaderMap) -> Values {
    grouped(headers.iter().map(|(name, value)| (name.as_str(), text(value))))
}

fn decoded(query: &str) -> Values {
    grouped(form_urlencoded::parse(query.as_bytes()))
}

fn grouped(pairs: impl Iterator<Item = (impl Into<String>, impl Into<String>)>) -> Values {
    let mut values = Values::new();
    for (name, value) in pairs {
        values.entry(name.into()).or_default().push(value.into());
    }
    values
}

fn last(values: &Values) -> Value {
    values.iter().map(|(name, all)| (name.clone(), json!(all.last()))).collect::<Map<_, _>>().into()
}

fn joined(values: &Values) -> Value {
    values.iter().map(|(name, all)| (name.clone(), all.join(",").into())).collect::<Map<_, _>>().into()
}

fn null_if_empty(values: &Values, otherwise: Value) -> Value {
    if values.is_empty() { Value::Null } else { otherwise }
}

/// The trace header of an event, whatever the front and the spelling.
pub(crate) fn trace_id(event: &Value) -> Option<&str> {
    let headers = event["headers"].as_object().or_else(|| event["multiValueHeaders"].as_object())?;
    let (_, value) = headers.iter().find(|(name, _)| TRACE_HEADER == name.to_ascii_lowercase().as_str())?;
    value.as_str().or_else(|| value[0].as_str())
}

/// A trace header for a request that came without: `Root=1-<seconds>-<96 bits>`.
pub(crate) fn new_trace_id() -> String {
    let seconds = epoch_millis() / 1000;
    format!("Root=1-{seconds:08x}-{:024x}", fastrand::u128(..) >> 32)
}

/// A random identifier in the form of a version 4 UUID.
pub(crate) fn uuid() -> String {
    let hex = format!("{:032x}", fastrand::u128(..));
    format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
}

fn epoch_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Now, as `10/Jul/2026:19:19:04 +0000` and in milliseconds.
fn request_time() -> (String, u64) {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let stamp = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let month = stamp[5..7].parse::<usize>().map_or("Jan", |number| MONTHS[number - 1]);
    let time = format!("{}/{month}/{}:{} +0000", &stamp[8..10], &stamp[..4], &stamp[11..19]);
    (time, epoch_millis())
}

/// The HTTP response that `front` makes of a function's answer.
pub(crate) fn response(front: &Front, answer: &Value) -> Reply {
    if front.is_alb() && answer.to_string().len() > ALB_LIMIT {
        return failure(front, Failure::Function);
    }
    understood(front, answer).unwrap_or_else(|| failure(front, Failure::Function))
}

/// `None` when the answer is not of the form that the front expects.
fn understood(front: &Front, answer: &Value) -> Option<Reply> {
    let format_2 = matches!(front, Front::HttpV2 { .. } | Front::FunctionUrl);
    if format_2 && answer.get("statusCode").is_none() {
        return Some(inferred(answer));
    }
    let mut reply = Response::new(Full::from(answer_body(answer)?));
    *reply.status_mut() = answer_status(answer)?;
    *reply.headers_mut() = answer_headers(front, answer)?;
    Some(reply)
}

/// An answer without status is a JSON document for the client. A string goes without its quotes.
fn inferred(answer: &Value) -> Reply {
    let body = answer.as_str().map_or_else(|| answer.to_string(), ToOwned::to_owned);
    json_reply(StatusCode::OK, body)
}

fn answer_status(answer: &Value) -> Option<StatusCode> {
    let status = &answer["statusCode"];
    let number = status.as_u64().or_else(|| status.as_str()?.parse().ok())?;
    StatusCode::from_u16(number.try_into().ok()?).ok().filter(|status| !status.is_informational())
}

/// The body, decoded if need be. A REST API does so only for the media types that it is told are binary;
/// this one stands for an API that is told.
fn answer_body(answer: &Value) -> Option<Vec<u8>> {
    match &answer["body"] {
        Value::Null => Some(Vec::new()),
        Value::String(body) if answer["isBase64Encoded"] == true => BASE64.decode(body).ok(),
        Value::String(body) => Some(body.clone().into_bytes()),
        _ => None,
    }
}

fn answer_headers(front: &Front, answer: &Value) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    if matches!(front, Front::RestV1 | Front::AlbMulti) {
        append_all(&mut headers, &answer["multiValueHeaders"])?;
    }
    if *front != Front::AlbMulti {
        append_all(&mut headers, &answer["headers"])?;
    }
    if matches!(front, Front::HttpV2 { .. } | Front::FunctionUrl) {
        append_all(&mut headers, &json!({ "set-cookie": answer["cookies"] }))?;
    }
    // The gateway frames the answer anew, so what described the function's framing must go.
    headers.remove(header::CONTENT_LENGTH);
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    if matches!(front, Front::RestV1 | Front::FunctionUrl) {
        remap(&mut headers);
    }
    let default_type = match front {
        Front::RestV1 | Front::FunctionUrl => Some("application/json"),
        Front::HttpV2 { .. } => Some("text/plain; charset=utf-8"),
        Front::AlbSingle | Front::AlbMulti => None,
    };
    if let Some(default_type) = default_type {
        headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static(default_type));
    }
    Some(headers)
}

/// Adds headers from a map of single or several values, but no value twice: answers often carry both maps.
fn append_all(headers: &mut HeaderMap, map: &Value) -> Option<()> {
    if map.is_null() {
        return Some(());
    }
    for (name, values) in map.as_object()? {
        let name = HeaderName::from_str(name).ok()?;
        let values = match values {
            Value::Null => &[],
            Value::Array(values) => values.as_slice(),
            single => std::slice::from_ref(single),
        };
        for value in values {
            let value = header_value(value)?;
            if !headers.get_all(&name).iter().any(|known| *known == value) {
                headers.append(&name, value);
            }
        }
    }
    Some(())
}

fn header_value(value: &Value) -> Option<HeaderValue> {
    match value {
        Value::String(text) => HeaderValue::from_str(text).ok(),
        Value::Number(_) | Value::Bool(_) => HeaderValue::from_str(&value.to_string()).ok(),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn remap(headers: &mut HeaderMap) {
    for name in REMAPPED {
        if let Some(value) = headers.remove(name)
            && let Ok(name) = HeaderName::try_from(format!("x-amzn-remapped-{name}"))
        {
            headers.insert(name, value);
        }
    }
}

/// What `front` answers when there is nothing of the function's to pass on.
///
/// A Function URL and a load balancer have no timeout of their own: there it is a failure of the function.
pub(crate) fn failure(front: &Front, failure: Failure) -> Reply {
    let (status, message) = match (front, failure) {
        (_, Failure::BadRequest) => (400, "Bad Request"),
        (Front::RestV1, Failure::TooLarge) => (413, "Request Too Long"),
        (Front::RestV1, Failure::Function) => (502, "Internal server error"),
        (Front::RestV1, Failure::Timeout) => (504, "Endpoint request timed out"),
        (Front::HttpV2 { .. }, Failure::Function) => (500, "Internal Server Error"),
        (Front::HttpV2 { .. }, Failure::Timeout) => (503, "Service Unavailable"),
        (_, Failure::TooLarge) => (413, "Request Entity Too Large"),
        (Front::FunctionUrl, Failure::Function | Failure::Timeout) => (502, "Internal Server Error"),
        (_, Failure::Function | Failure::Timeout) => (502, "Bad Gateway"),
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    if front.is_alb() {
        let mut reply = Response::new(Full::from(format!("{} {message}\n", status.as_str())));
        *reply.status_mut() = status;
        set(reply.headers_mut(), header::CONTENT_TYPE, "text/plain");
        return reply;
    }
    json_reply(status, json!({ "message": message }).to_string())
}

fn json_reply(status: StatusCode, body: String) -> Reply {
    let mut reply = Response::new(Full::from(body));
    *reply.status_mut() = status;
    set(reply.headers_mut(), header::CONTENT_TYPE, "application/json");
    reply
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http_body_util::BodyExt;

    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    fn front(name: &str) -> Front {
        name.parse().unwrap()
    }

    fn parts(method: &str, target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn get(name: &str, target: &str, headers: &[(&str, &str)]) -> Value {
        event(&front(name), &parts("GET", target, headers), b"", PEER).unwrap()
    }

    fn post(name: &str, content_type: &str, body: &[u8]) -> Value {
        event(&front(name), &parts("POST", "/", &[("content-type", content_type)]), body, PEER).unwrap()
    }

    fn reply(name: &str, answer: Value) -> (u16, HeaderMap, Bytes) {
        let (parts, body) = response(&front(name), &answer).into_parts();
        let body = futures_util::FutureExt::now_or_never(body.collect()).unwrap().unwrap();
        (parts.status.as_u16(), parts.headers, body.to_bytes())
    }

    #[test]
    fn front_names_read_back() {
        for name in ["rest-v1", "http-v2", "http-v2:live", "function-url", "alb-single", "alb-multi"] {
            assert_eq!(front(name).to_string(), name);
        }
        assert!("http-v2:".parse::<Front>().is_err());
        assert!("lattice".parse::<Front>().is_err());
    }

    #[test]
    fn rest_events_keep_the_stage_in_the_context_alone() {
        let event = get("rest-v1", "/a%20b", &[]);
        assert_eq!(event["path"], "/a%20b");
        assert_eq!(event["resource"], "/{proxy+}");
        assert_eq!(event["pathParameters"], json!({ "proxy": "a%20b" }));
        assert_eq!(event["requestContext"]["path"], "/prod/a%20b");
        assert_eq!(event["requestContext"]["stage"], "prod");
        assert_eq!(event["requestContext"]["identity"]["sourceIp"], "192.0.2.7");
        assert_eq!(get("rest-v1", "/", &[])["resource"], "/");
    }

    #[test]
    fn rest_events_hold_repeated_values_in_the_second_map() {
        let event = get("rest-v1", "/?k=one&k=t%2Bw+o", &[("x-probe", "1"), ("x-probe", "2"), ("host", "h")]);
        assert_eq!(event["headers"]["x-probe"], "2");
        assert_eq!(event["headers"]["Host"], "h");
        assert_eq!(event["multiValueHeaders"]["x-probe"], json!(["1", "2"]));
        assert_eq!(event["queryStringParameters"], json!({ "k": "t+w o" }));
        assert_eq!(event["multiValueQueryStringParameters"], json!({ "k": ["one", "t+w o"] }));
    }

    #[test]
    fn rest_events_have_null_for_what_is_missing() {
        let event = get("rest-v1", "/", &[]);
        for field in ["body", "queryStringParameters", "multiValueQueryStringParameters", "pathParameters"] {
            assert_eq!(event.get(field), Some(&Value::Null), "{field}");
        }
    }

    #[test]
    fn http_api_events_join_values_and_move_cookies() {
        let event =
            get("http-v2", "/p?a=1&a=2&b=%2B", &[("X-Probe", "1"), ("x-probe", "2"), ("cookie", "c=1; d=2")]);
        assert_eq!(event["version"], "2.0");
        assert_eq!(event["routeKey"], "$default");
        assert_eq!(event["rawQueryString"], "a=1&a=2&b=%2B");
        assert_eq!(event["queryStringParameters"], json!({ "a": "1,2", "b": "+" }));
        assert_eq!(event["headers"]["x-probe"], "1,2");
        assert_eq!(event["cookies"], json!(["c=1", "d=2"]));
        assert_eq!(event["headers"].get("cookie"), None);
        assert_eq!(event.get("body"), None);
        assert_eq!(event["requestContext"]["http"]["method"], "GET");
    }

    #[test]
    fn a_named_stage_is_part_of_the_raw_path() {
        let event = get("http-v2:live", "/p", &[]);
        assert_eq!(event["rawPath"], "/live/p");
        assert_eq!(event["requestContext"]["http"]["path"], "/live/p");
        assert_eq!(event["requestContext"]["stage"], "live");
        assert_eq!(get("http-v2", "/p", &[])["requestContext"]["stage"], "$default");
    }

    #[test]
    fn an_http_api_decodes_paths_as_live_ones_were_seen_to() {
        for (sent, seen) in [
            ("/space%20value", Some("/space value")),
            ("/question%3Fvalue", Some("/question")),
            ("/percent%25done", None),
            ("/hash%23value", Some("/hash#value")),
            ("/slash%2Fvalue", Some("/slash/value")),
            ("/unicode-%CE%BB", Some("/unicode-λ")),
            ("/literal%252Fvalue", Some("/literal/value")),
            ("/literal%253Fvalue", Some("/literal?value")),
            ("/literal%2525value", Some("/literal%value")),
        ] {
            assert_eq!(http_api_path(sent).as_deref(), seen, "{sent}");
        }
        let refused = event(&front("http-v2"), &parts("GET", "/percent%25done", &[]), b"", PEER);
        assert_eq!(refused, Err(Failure::BadRequest));
    }

    #[test]
    fn a_function_url_decodes_the_path_in_the_context_alone_and_keeps_the_cookie_header() {
        let event = get("function-url", "/a%20b", &[("cookie", "c=1; d=2")]);
        assert_eq!(event["rawPath"], "/a%20b");
        assert_eq!(event["requestContext"]["http"]["path"], "/a b");
        assert_eq!(event["requestContext"]["domainName"], URL_DOMAIN);
        assert_eq!(event["cookies"], json!(["c=1", "d=2"]));
        assert_eq!(event["headers"]["cookie"], "c=1; d=2");
    }

    #[test]
    fn load_balancer_events_stay_encoded_and_hold_one_kind_of_map() {
        let target = "/a%20b?k=1&k=%2B&flag";
        let headers = [("x-probe", "1"), ("x-probe", "2")];
        let single = get("alb-single", target, &headers);
        assert_eq!(single["path"], "/a%20b");
        assert_eq!(single["queryStringParameters"], json!({ "flag": "", "k": "%2B" }));
        assert_eq!(single["headers"]["x-probe"], "2");
        assert_eq!(single["body"], "");
        assert_eq!(single.get("multiValueHeaders"), None);
        let multi = get("alb-multi", target, &headers);
        assert_eq!(multi["multiValueQueryStringParameters"], json!({ "flag": [""], "k": ["1", "%2B"] }));
        assert_eq!(multi["multiValueHeaders"]["x-probe"], json!(["1", "2"]));
        assert_eq!(multi.get("headers"), None);
    }

    #[test]
    fn only_text_travels_as_text() {
        for (name, content_type, body, is_base64) in [
            ("http-v2", "application/json; charset=utf-8", b"{}".as_slice(), false),
            ("http-v2", "application/problem+json", b"{}", true),
            ("http-v2", "application/x-www-form-urlencoded", b"a=b", true),
            ("function-url", "text/csv", b"a", false),
            ("alb-single", "text/plain", b"\xff", true),
            ("rest-v1", "application/octet-stream", b"a", false),
            ("rest-v1", "application/octet-stream", b"\xff", true),
        ] {
            let event = post(name, content_type, body);
            assert_eq!(event["isBase64Encoded"], is_base64, "{name} {content_type}");
            let plain = BASE64.encode(body);
            assert_eq!(event["body"] == plain, is_base64, "{name} {content_type}");
        }
    }

    #[test]
    fn the_gateway_adds_itself_to_the_headers() {
        let event = get("alb-single", "/", &[("x-forwarded-for", "198.51.100.1"), ("connection", "close")]);
        assert_eq!(event["headers"]["x-forwarded-for"], "198.51.100.1, 192.0.2.7");
        assert_eq!(event["headers"]["x-forwarded-proto"], "http");
        assert_eq!(event["headers"].get("connection"), None);
        assert_eq!(get("http-v2", "/", &[])["headers"]["x-forwarded-port"], "443");
    }

    #[test]
    fn a_trace_header_is_kept_or_made() {
        for name in ["rest-v1", "http-v2", "function-url", "alb-single", "alb-multi"] {
            let kept = get(name, "/", &[("x-amzn-trace-id", "Root=1-2-3")]);
            assert_eq!(trace_id(&kept), Some("Root=1-2-3"), "{name}");
            let made = get(name, "/", &[]);
            assert_eq!(trace_id(&made).map(str::len), Some("Root=1-6a5145a8-536f3e792f6be9b44c1f46fa".len()));
        }
        assert_eq!(trace_id(&json!("no event")), None);
    }

    #[test]
    fn http_2_requests_get_their_host_from_the_uri() {
        assert_eq!(get("http-v2", "http://example.com/p", &[])["headers"]["host"], "example.com");
        let sent = get("http-v2", "/", &[("host", "a b")]);
        assert_eq!(sent["headers"]["host"], "a b");
    }

    #[test]
    fn a_load_balancer_refuses_more_than_a_mebibyte() {
        let parts = parts("POST", "/", &[]);
        let body = vec![b'x'; ALB_LIMIT + 1];
        assert_eq!(event(&front("alb-multi"), &parts, &body, PEER), Err(Failure::TooLarge));
        assert!(event(&front("http-v2"), &parts, &body, PEER).is_ok());
        let (status, ..) = reply("alb-single", json!({ "statusCode": 200, "body": "x".repeat(ALB_LIMIT) }));
        assert_eq!(status, 502);
    }

    #[test]
    fn each_front_reads_its_own_header_maps() {
        let answer = json!({
            "statusCode": 200,
            "headers": { "x-one": "a", "x-both": "c", "content-length": "99" },
            "multiValueHeaders": { "x-many": ["a", "b"], "x-both": ["a", "b"] },
            "cookies": ["c=1", "d=2"],
        });
        for (name, expected) in [
            ("rest-v1", [vec!["a"], vec!["a", "b"], vec!["a", "b", "c"], vec![]]),
            ("http-v2", [vec!["a"], vec![], vec!["c"], vec!["c=1", "d=2"]]),
            ("function-url", [vec!["a"], vec![], vec!["c"], vec!["c=1", "d=2"]]),
            ("alb-single", [vec!["a"], vec![], vec!["c"], vec![]]),
            ("alb-multi", [vec![], vec!["a", "b"], vec!["a", "b"], vec![]]),
        ] {
            let (_, headers, _) = reply(name, answer.clone());
            for (header, expected) in ["x-one", "x-many", "x-both", "set-cookie"].into_iter().zip(expected) {
                let values: Vec<_> = headers.get_all(header).iter().map(text).collect();
                assert_eq!(values, expected, "{name} {header}");
            }
            assert!(!headers.contains_key("content-length"), "{name}");
        }
    }

    #[test]
    fn an_answer_without_status_is_the_document_itself() {
        let (status, headers, body) = reply("http-v2", json!({ "a": 1 }));
        assert_eq!((status, &*body), (200, b"{\"a\":1}".as_slice()));
        assert_eq!(headers["content-type"], "application/json");
        assert_eq!(&*reply("function-url", json!("text")).2, b"text");
        assert_eq!(reply("rest-v1", json!({ "a": 1 })).0, 502);
    }

    #[test]
    fn bodies_are_decoded_when_the_answer_says_so() {
        let answer = json!({ "statusCode": 200, "body": "AP8=", "isBase64Encoded": true });
        assert_eq!(&*reply("alb-single", answer).2, b"\x00\xff");
        assert_eq!(&*reply("http-v2", json!({ "statusCode": 200, "body": "AP8=" })).2, b"AP8=");
    }

    #[test]
    fn malformed_answers_become_the_error_of_the_front() {
        for answer in [
            json!({ "statusCode": 42 }),
            json!({ "statusCode": "soon" }),
            json!({ "statusCode": 200, "body": { "a": 1 } }),
            json!({ "statusCode": 200, "body": "?", "isBase64Encoded": true }),
            json!({ "statusCode": 200, "headers": { "a b": "c" }, "multiValueHeaders": { "a b": ["c"] } }),
        ] {
            assert_eq!(reply("rest-v1", answer.clone()).0, 502, "{answer}");
            assert_eq!(reply("http-v2", answer.clone()).0, 500, "{answer}");
            assert_eq!(reply("alb-multi", answer.clone()).0, 502, "{answer}");
        }
    }

    #[test]
    fn a_challenge_is_remapped_where_aws_does_it() {
        let answer = json!({ "statusCode": 401, "headers": { "WWW-Authenticate": "Bearer" } });
        for (name, header) in [
            ("rest-v1", "x-amzn-remapped-www-authenticate"),
            ("function-url", "x-amzn-remapped-www-authenticate"),
            ("http-v2", "www-authenticate"),
            ("alb-single", "www-authenticate"),
        ] {
            assert_eq!(reply(name, answer.clone()).1[header], "Bearer", "{name}");
        }
    }

    #[test]
    fn request_times_look_like_those_of_the_gateway() {
        let (time, _) = request_time();
        assert_eq!(time.len(), "10/Jul/2026:19:19:04 +0000".len());
        assert!(
            time.ends_with(" +0000") && time.as_bytes()[2] == b'/' && time.as_bytes()[11] == b':',
            "{time}"
        );
    }
}
