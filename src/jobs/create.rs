//! Creating what may be there already, once.

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::Value;

use super::{
    Jobs,
    api::{Call, Resource, Verb},
    idempotency::{Marks, Verdict},
    manifest::Draft,
    request::etag,
};
use crate::{
    auth::access::Principal,
    http::{idempotency, json::Answer},
    problem::Problem,
};

/// Says that an answer is a repetition of an earlier one.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// What is there now.
pub(super) struct Created {
    /// As it was when it was created: without its status.
    pub(super) object: Value,
    is_replayed: bool,
}

/// What is to be created, and how the caller wrote it.
pub(super) struct Wanted<'a> {
    pub(super) resource: Resource,
    pub(super) namespace: Option<&'a str>,
    pub(super) name: &'a str,
    pub(super) object: &'a Value,
    pub(super) marks: &'a Marks,
    pub(super) draft: Option<&'a Draft>,
}

/// How the request knows again what it made.
///
/// # Errors
/// 422 for a malformed key.
pub(super) fn marks(
    headers: &HeaderMap,
    who: &Principal,
    place: &str,
    body: &Value,
) -> Result<Marks, Problem> {
    let Some(key) = idempotency::key(headers)? else { return Ok(Marks::unkeyed(fastrand::u128(..))) };
    // An issuer is a URL or the name of a setting: it holds no line break.
    let caller = format!("{}\n{}", who.subject().issuer(), who.name());
    Ok(Marks::keyed(&caller, place, key, body))
}

impl Jobs {
    /// Creates it, or finds what this request, or an earlier one with its `Idempotency-Key`, created.
    ///
    /// # Errors
    /// 409 for somebody else's of this name, 422 for a key that came with another body, and whatever Kubernetes says.
    pub(super) async fn create(&self, wanted: &Wanted<'_>) -> Result<Created, Problem> {
        if let Some(earlier) = self.earlier(wanted).await? {
            return Ok(earlier);
        }
        let call = wanted
            .call(Verb::Create)
            .with("fieldManager", Some("math-service"))
            // A field that this cluster does not know would be dropped without a word.
            .with("fieldValidation", Some("Strict"))
            .sending(wanted.object);
        match self.send(&call).await {
            Ok(object) => Ok(Created { object, is_replayed: false }),
            Err(failure) if failure.is_already_exists() => {
                let conflict = failure.problem(&call, None);
                self.found(wanted).await?.ok_or(conflict)
            }
            Err(failure) => Err(failure.problem(&call, wanted.draft)),
        }
    }

    /// What the key created before, wherever: the body may have named it otherwise.
    async fn earlier(&self, wanted: &Wanted<'_>) -> Result<Option<Created>, Problem> {
        let Some(selector) = wanted.marks.selector() else { return Ok(None) };
        let list = self.ask(&wanted.call(Verb::List).with("labelSelector", Some(selector))).await?;
        let items = list.get("items").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let mut earlier = None;
        for item in items {
            match wanted.marks.compare(item) {
                Verdict::Same => return Ok(Some(Created { object: item.clone(), is_replayed: true })),
                Verdict::OtherBody => earlier = Some(other_body()),
                Verdict::Other => {}
            }
        }
        earlier.map_or(Ok(None), Err)
    }

    /// What has the name already, if it is what the request would have created.
    async fn found(&self, wanted: &Wanted<'_>) -> Result<Option<Created>, Problem> {
        let call = wanted.call(Verb::Get).named(wanted.name);
        let object = match self.send(&call).await {
            Ok(object) => object,
            // It went away meanwhile.
            Err(failure) if failure.is(StatusCode::NOT_FOUND) => return Ok(None),
            Err(failure) => return Err(failure.problem(&call, None)),
        };
        match wanted.marks.compare(&object) {
            // Without a key it was this very request, whose first answer was lost.
            Verdict::Same => Ok(Some(Created { object, is_replayed: wanted.marks.selector().is_some() })),
            Verdict::OtherBody => Err(other_body()),
            Verdict::Other => Ok(None),
        }
    }
}

fn other_body() -> Problem {
    let detail = "this Idempotency-Key came with another body before";
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
}

impl<'a> Wanted<'a> {
    fn call(&self, verb: Verb) -> Call<'a> {
        Call { namespace: self.namespace, ..Call::new(verb, self.resource) }
    }
}

impl Created {
    /// The same answer each time: what became of the object since is not in it.
    pub(super) fn as_created(&self) -> Value {
        let mut object = self.object.clone();
        if let Some(members) = object.as_object_mut() {
            members.remove("status");
        }
        object
    }

    /// Whether an earlier request made it.
    pub(super) fn is_replayed(&self) -> bool {
        self.is_replayed
    }

    /// `answer`, marked if it is a repetition.
    pub(super) fn answer(&self, code: StatusCode, uid: &str, answer: impl Serialize) -> Response {
        let mut response = (code, [(header::CACHE_CONTROL, "no-store")], Answer(answer)).into_response();
        response.headers_mut().extend(etag(uid));
        if self.is_replayed {
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}
