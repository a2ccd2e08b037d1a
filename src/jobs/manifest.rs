//! From a request's body to the Job that is sent: the short form, defaults, the service's own marks.
//!
//! A manifest stays the JSON that it came as, so that what a newer Kubernetes knows is not lost on the way.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::{
    idempotency::{self, Marks},
    names::{self, Images},
    pointer::{Pointer, escaped},
    policy,
    templates::{Origins, Written},
    webhook,
};
use crate::problem::FieldError;

/// How long a Job may run that does not say so: an hour.
pub const DEFAULT_DEADLINE_SECONDS: u32 = 60 * 60;
/// How long a finished Job is kept that does not say so: a day.
pub const DEFAULT_TTL_SECONDS: u32 = 24 * 60 * 60;
/// CPU and memory of a short form that names none.
pub const DEFAULT_CPU: &str = "500m";
/// See above.
pub const DEFAULT_MEMORY: &str = "256Mi";
/// Nobody's user, by number: an image that names its user, or none, could not be seen to be no root's.
pub const DEFAULT_USER: u32 = 65532;
/// The annotation that says which template a Job was made from.
pub const TEMPLATE_ANNOTATION: &str = "math-service/template";
/// The label that says whose an object is, and its value here.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "math-service");

/// A Job in short: one container.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ShortForm {
    /// The image, one that `JOBS_IMAGES` allows.
    #[schema(example = "public.ecr.aws/docker/library/busybox:1.37")]
    pub image: String,
    /// The Job's name; one is made where it is missing.
    #[serde(default)]
    #[schema(
        example = "hello",
        max_length = 63,
        pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
    )]
    pub name: Option<String>,
    /// What to run in place of the image's entry point.
    #[serde(default)]
    #[schema(example = json!(["echo"]))]
    pub command: Option<Vec<String>>,
    /// Its arguments.
    #[serde(default)]
    #[schema(example = json!(["hello"]))]
    pub args: Option<Vec<String>>,
    /// Environment variables.
    #[serde(default)]
    pub env: Option<BTreeMap<String, String>>,
    /// CPU that is requested, and the limit: a Kubernetes quantity. `500m` when not given.
    #[serde(default)]
    #[schema(example = "500m")]
    pub cpu: Option<String>,
    /// Memory that is requested, and the limit: a Kubernetes quantity. `256Mi` when not given.
    #[serde(default)]
    #[schema(example = "256Mi")]
    pub memory: Option<String>,
    /// Pods at once. 1 when not given.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 2147483647)]
    pub parallelism: Option<u32>,
    /// Pods that must succeed. 1 when not given.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 2147483647)]
    pub completions: Option<u32>,
    /// Failures after which the Job has failed. 6 when not given, which is Kubernetes' default.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 2147483647)]
    pub backoff_limit: Option<u32>,
    /// Seconds after which the Job is ended, retries included. 3600 when not given.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 2147483647)]
    pub deadline_seconds: Option<u32>,
    /// Seconds after which the finished Job is deleted. 86400 when not given.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 2147483647)]
    pub ttl_seconds: Option<u32>,
    /// Labels of the Job and its pods.
    #[serde(default)]
    pub labels: Option<BTreeMap<String, String>>,
}

/// A Job as Kubernetes knows it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Manifest {
    /// A `batch/v1` Job. Kubernetes' own documentation says what it may hold.
    #[schema(value_type = Object, example = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "hello"}, "spec": {"template": {"spec": {"containers": [{"name": "hello", "image": "public.ecr.aws/docker/library/busybox:1.37", "command": ["echo", "hello"], "resources": {"limits": {"cpu": "500m", "memory": "256Mi"}}, "securityContext": {"runAsUser": 65532}}]}}}}))]
    pub job_manifest: Value,
}

/// A Job that a template describes.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct FromTemplate {
    /// One that `GET /api/v1/templates` lists.
    #[schema(example = "shell", max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    pub template: String,
    /// What it asks for.
    #[serde(default)]
    #[schema(value_type = Object, example = json!({"script": "echo hello"}))]
    pub parameters: Map<String, Value>,
}

/// What creates a Job.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum NewJob {
    /// A template, and what differs.
    FromTemplate(FromTemplate),
    /// The whole Job.
    Manifest(Manifest),
    /// One container, in short.
    ShortForm(Box<ShortForm>),
}

/// What a create says.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct JobRequest {
    /// The Job.
    #[serde(flatten)]
    pub job: NewJob,
    /// An https URL at a host that `JOBS_WEBHOOK_HOSTS` allows: it gets a signed POST when the Job has ended.
    #[serde(default)]
    #[schema(example = "https://hooks.example.com/jobs", max_length = 2048, pattern = "^https://")]
    pub webhook: Option<String>,
}

/// A Job that is about to be sent.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The Job.
    pub job: Value,
    form: Form,
    origins: Origins,
}

/// How the caller wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Short,
    Manifest,
}

/// What the caller says about the name.
#[derive(Debug, PartialEq, Eq)]
pub enum Name {
    /// This one.
    Given(String),
    /// Any that begins so.
    Prefix(String),
}

/// The beginning of names that nobody chose.
const ANY_NAME: &str = "job-";
/// Characters of a name that are made, behind its prefix.
pub const SUFFIX: usize = 10;

impl Draft {
    /// The Job that `body` describes, with every default filled in.
    ///
    /// # Errors
    /// Every field that is missing or cannot be read, by its pointer in the body.
    pub fn read(body: &Value, namespace: &str) -> Result<Self, Vec<FieldError>> {
        Self::of(&Written { body: Cow::Borrowed(body), origins: Origins::default() }, namespace)
    }

    /// The same for what a template may have written.
    ///
    /// # Errors
    /// As above; what a parameter brought in is told of the parameter.
    pub fn of(written: &Written<'_>, namespace: &str) -> Result<Self, Vec<FieldError>> {
        let Written { body, origins } = written;
        let Some(members) = body.as_object() else {
            return Err(vec![FieldError::body("must be a JSON object")]);
        };
        let read = match members.get("job_manifest") {
            Some(manifest) => whole(members, manifest).map(|job| (job, Form::Manifest)),
            None => short_form(members).map(|form| (expanded(&form), Form::Short)),
        };
        let told = |errors: Vec<_>| errors.into_iter().map(|error| origins.error(error)).collect::<Vec<_>>();
        let (job, form) = read.map_err(told)?;
        Self { job, form, origins: origins.clone() }.completed(namespace)
    }

    /// Whether the policy lets it pass.
    ///
    /// # Errors
    /// Every field that it refuses, by its pointer in the body.
    pub fn check(&self, images: &Images) -> Result<(), Vec<FieldError>> {
        let refusals = policy::refusals(&self.job, images);
        if refusals.is_empty() { Ok(()) } else { Err(self.in_body(refusals)) }
    }

    /// Where the caller wrote what stands at `pointer` in the Job; empty for what the caller did not write.
    #[must_use]
    pub fn pointer(&self, pointer: &str) -> String {
        self.origins.pointer(match self.form {
            Form::Manifest => format!("/job_manifest{pointer}"),
            Form::Short => in_short_form(pointer),
        })
    }

    fn in_body(&self, errors: Vec<FieldError>) -> Vec<FieldError> {
        errors
            .into_iter()
            .map(|error| {
                let pointer = self.pointer(&error.pointer);
                // A field that the caller did not write has to be named some way.
                let is_unnamed =
                    pointer.is_empty() || (self.origins.template().is_some() && pointer == "/template");
                let unnamed = is_unnamed && !error.pointer.is_empty();
                let detail = if unnamed {
                    format!("makes a Job whose {} {}", error.pointer, error.detail)
                } else {
                    error.detail
                };
                FieldError { pointer, detail }
            })
            .collect()
    }

    /// What the Job is to be called.
    #[must_use]
    pub fn name(&self) -> Name {
        let metadata = Pointer::root(&self.job).at("metadata");
        let text =
            |field: &str| metadata.at(field).value().and_then(Value::as_str).filter(|text| !text.is_empty());
        match (text("name"), text("generateName")) {
            (Some(name), _) => Name::Given(name.to_owned()),
            (None, prefix) => {
                let prefix = prefix.unwrap_or(ANY_NAME);
                // ASCII, which was checked: any byte is a character.
                Name::Prefix(prefix.get(..names::LONGEST_NAME - SUFFIX).unwrap_or(prefix).to_owned())
            }
        }
    }

    /// The Job under its name, and with this service's marks.
    #[must_use]
    pub fn named(mut self, name: &str, marks: &Marks) -> Value {
        if let Some(metadata) = self.job.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("generateName");
            metadata.insert("name".to_owned(), name.into());
        }
        marks.put(&mut self.job);
        if let Some(template) = self.origins.template() {
            idempotency::mark(&mut self.job, "annotations", TEMPLATE_ANNOTATION, template);
        }
        self.job
    }

    fn completed(mut self, namespace: &str) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        identity(&self.job, namespace, &mut errors);
        if errors.is_empty() {
            complete(&mut self.job, namespace, &mut errors);
        }
        if errors.is_empty() { Ok(self) } else { Err(self.in_body(errors)) }
    }
}

/// The manifest, alone: what stands beside it would be lost.
fn whole(members: &Map<String, Value>, manifest: &Value) -> Result<Value, Vec<FieldError>> {
    let beside = members.keys().filter(|name| *name != "job_manifest");
    let errors: Vec<_> =
        beside.map(|name| FieldError::field(&escaped(name), "does not go with job_manifest")).collect();
    if !errors.is_empty() {
        return Err(errors);
    }
    if !manifest.is_object() {
        return Err(vec![FieldError::field("job_manifest", "must be an object")]);
    }
    Ok(manifest.clone())
}

/// What a Job of ours is, and where.
fn identity(job: &Value, namespace: &str, errors: &mut Vec<FieldError>) {
    let job = Pointer::root(job);
    let mut must = |field: Pointer<'_>, is_right: &dyn Fn(&str) -> bool, detail: String| {
        if field.value().is_some_and(|value| !value.as_str().is_some_and(is_right)) {
            errors.push(FieldError { pointer: field.path(), detail });
        }
    };
    must(job.at("apiVersion"), &|version| version == "batch/v1", "must be batch/v1".to_owned());
    must(job.at("kind"), &|kind| kind == "Job", "must be Job".to_owned());
    let metadata = job.at("metadata");
    let here = format!("must be the namespace of the request, {namespace}");
    must(metadata.at("namespace"), &|name| name == namespace, here);
    must(
        metadata.at("name"),
        &|name| name.is_empty() || names::is_job_name(name),
        names::JOB_NAME_RULE.to_owned(),
    );
    let is_prefix = |prefix: &str| prefix.is_empty() || names::is_job_name(&format!("{prefix}x"));
    must(metadata.at("generateName"), &is_prefix, format!("{}, up to its end", names::JOB_NAME_RULE));
    let (label, ours) = MANAGED_BY;
    must(metadata.at("labels").at(label), &|value| value == ours, "is for this service to set".to_owned());
    let theirs = metadata.at("annotations").at(webhook::ANNOTATION);
    must(theirs, &|_| false, "is for this service to set: say webhook in the request".to_owned());
    for part in ["labels", "annotations"] {
        if metadata.at(part).value().is_some_and(|part| !part.is_object()) {
            errors.push(FieldError {
                pointer: metadata.at(part).path(),
                detail: "must be an object".to_owned(),
            });
        }
    }
}

/// Fills in what "restricted" asks for, a deadline and a TTL, and nothing that the caller decided otherwise: that is for the
/// policy to refuse.
fn complete(job: &mut Value, namespace: &str, errors: &mut Vec<FieldError>) {
    let mut fill = Filling { errors };
    fill.value(job, &[], "apiVersion", "batch/v1");
    fill.value(job, &[], "kind", "Job");
    fill.value(job, &["metadata"], "namespace", namespace);
    fill.value(job, &["metadata", "labels"], MANAGED_BY.0, MANAGED_BY.1);
    fill.value(job, &["spec", "template", "metadata", "labels"], MANAGED_BY.0, MANAGED_BY.1);
    fill.value(job, &["spec"], "activeDeadlineSeconds", DEFAULT_DEADLINE_SECONDS);
    fill.value(job, &["spec"], "ttlSecondsAfterFinished", DEFAULT_TTL_SECONDS);
    const POD: [&str; 3] = ["spec", "template", "spec"];
    fill.value(job, &POD, "restartPolicy", "Never");
    fill.value(job, &POD, "automountServiceAccountToken", false);
    const SECURITY: [&str; 4] = ["spec", "template", "spec", "securityContext"];
    fill.value(job, &SECURITY, "runAsNonRoot", true);
    fill.value(job, &SECURITY, "seccompProfile", json!({"type": "RuntimeDefault"}));
    for list in ["containers", "initContainers"] {
        let containers =
            job.pointer_mut(policy::POD).and_then(|pod| pod.get_mut(list)).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter(|container| container.is_object()) {
            fill.value(container, &["securityContext"], "allowPrivilegeEscalation", false);
            fill.value(container, &["securityContext", "capabilities"], "drop", json!(["ALL"]));
        }
    }
}

struct Filling<'a> {
    errors: &'a mut Vec<FieldError>,
}

impl Filling<'_> {
    /// Sets a member where it is absent or null, and makes the objects that lead there.
    fn value(&mut self, document: &mut Value, path: &[&str], name: &str, value: impl Into<Value>) {
        let mut place = document;
        let mut pointer = String::new();
        for segment in path.iter().copied().map(Some).chain([None]) {
            if place.is_null() {
                *place = json!({});
            }
            let Some(members) = place.as_object_mut() else {
                let error = FieldError { pointer, detail: "must be an object".to_owned() };
                // The same object is on the way to several defaults.
                if !self.errors.contains(&error) {
                    self.errors.push(error);
                }
                return;
            };
            match segment {
                Some(segment) => {
                    pointer = format!("{pointer}/{}", escaped(segment));
                    place = members.entry(segment).or_insert(Value::Null);
                }
                None => {
                    let member = members.entry(name).or_insert(Value::Null);
                    if member.is_null() {
                        *member = value.into();
                    }
                    return;
                }
            }
        }
    }
}

fn short_form(members: &Map<String, Value>) -> Result<ShortForm, Vec<FieldError>> {
    let mut fields = Fields { members, known: Vec::new(), errors: Vec::new() };
    let strings = "must be an array of strings";
    let pairs = "must be an object whose values are strings";
    let (count, whole) =
        ("must be a whole number from 1 to 2147483647", "must be a whole number from 0 to 2147483647");
    let form = ShortForm {
        image: fields.read("image", "must be a string").unwrap_or_default(),
        name: fields.read("name", "must be a string"),
        command: fields.read("command", strings),
        args: fields.read("args", strings),
        env: fields.read("env", pairs),
        cpu: fields.quantity("cpu", "such as 500m or 2"),
        memory: fields.quantity("memory", "such as 256Mi or 2Gi"),
        parallelism: fields.number("parallelism", 1, count),
        completions: fields.number("completions", 1, count),
        backoff_limit: fields.number("backoff_limit", 0, whole),
        deadline_seconds: fields.number("deadline_seconds", 1, count),
        ttl_seconds: fields.number("ttl_seconds", 0, whole),
        labels: fields.read("labels", pairs),
    };
    if members.get("image").is_none_or(Value::is_null) {
        fields.errors.push(FieldError::field("image", "is missing, and so are job_manifest and template"));
    }
    fields.finish(form)
}

/// Members of an object, each read as what it must be; all that are wrong are named, and all that are not known.
pub(super) struct Fields<'a> {
    pub(super) members: &'a Map<String, Value>,
    pub(super) known: Vec<&'static str>,
    pub(super) errors: Vec<FieldError>,
}

impl Fields<'_> {
    pub(super) fn read<T: DeserializeOwned>(&mut self, name: &'static str, expected: &str) -> Option<T> {
        self.known.push(name);
        let value = self.members.get(name).filter(|value| !value.is_null())?;
        let read = T::deserialize(value);
        if read.is_err() {
            self.errors.push(FieldError::field(name, expected));
        }
        read.ok()
    }

    fn number(&mut self, name: &'static str, least: u32, expected: &str) -> Option<u32> {
        let number = self.read::<u32>(name, expected)?;
        if number < least || i32::try_from(number).is_err() {
            self.errors.push(FieldError::field(name, expected));
        }
        Some(number)
    }

    fn quantity(&mut self, name: &'static str, example: &str) -> Option<String> {
        let expected = format!("must be a string, a quantity above zero {example}");
        let quantity = self.read::<String>(name, &expected)?;
        if !policy::is_positive_amount(&quantity) {
            self.errors.push(FieldError::field(name, expected));
        }
        Some(quantity)
    }

    /// What was read, if nothing is wrong. An unknown member may be a misspelt limit: it is not ignored.
    pub(super) fn finish<T>(mut self, read: T) -> Result<T, Vec<FieldError>> {
        for name in self.members.keys().filter(|name| !self.known.contains(&name.as_str())) {
            self.errors.push(FieldError::field(&escaped(name), "is not known"));
        }
        if self.errors.is_empty() { Ok(read) } else { Err(self.errors) }
    }
}

/// The Job of a short form, without the defaults that every Job gets.
fn expanded(form: &ShortForm) -> Value {
    let resources = json!({
        "cpu": form.cpu.as_deref().unwrap_or(DEFAULT_CPU),
        "memory": form.memory.as_deref().unwrap_or(DEFAULT_MEMORY),
    });
    let mut container = json!({
        "name": "main",
        "image": form.image,
        "resources": {"requests": resources, "limits": resources},
    });
    set(&mut container, "command", form.command.as_ref());
    set(&mut container, "args", form.args.as_ref());
    let env = |env: &BTreeMap<String, String>| {
        env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect::<Vec<_>>()
    };
    set(&mut container, "env", form.env.as_ref().map(env));
    let pod = json!({"containers": [container], "securityContext": {"runAsUser": DEFAULT_USER}});
    let mut template = json!({"spec": pod});
    let mut metadata = json!({});
    set(&mut metadata, "name", form.name.as_ref());
    if let Some(labels) = &form.labels {
        metadata["labels"] = json!(labels);
        template["metadata"] = json!({"labels": labels});
    }
    let mut spec = json!({"template": template});
    set(&mut spec, "parallelism", form.parallelism);
    set(&mut spec, "completions", form.completions);
    set(&mut spec, "backoffLimit", form.backoff_limit);
    set(&mut spec, "activeDeadlineSeconds", form.deadline_seconds);
    set(&mut spec, "ttlSecondsAfterFinished", form.ttl_seconds);
    json!({"metadata": metadata, "spec": spec})
}

fn set(object: &mut Value, name: &str, value: Option<impl Serialize>) {
    if let Some(value) = value {
        object[name] = json!(value);
    }
}

/// Where each part of a Job comes from in the short form. The longest that fits counts.
const ORIGINS: [(&str, &str); 17] = [
    ("/spec/template/spec/containers/0/image", "/image"),
    ("/spec/template/spec/containers/0/command", "/command"),
    ("/spec/template/spec/containers/0/args", "/args"),
    ("/spec/template/spec/containers/0/env", "/env"),
    ("/spec/template/spec/containers/0/resources/requests/cpu", "/cpu"),
    ("/spec/template/spec/containers/0/resources/limits/cpu", "/cpu"),
    ("/spec/template/spec/containers/0/resources/requests/memory", "/memory"),
    ("/spec/template/spec/containers/0/resources/limits/memory", "/memory"),
    ("/spec/parallelism", "/parallelism"),
    ("/spec/completions", "/completions"),
    ("/spec/backoffLimit", "/backoff_limit"),
    ("/spec/activeDeadlineSeconds", "/deadline_seconds"),
    ("/spec/ttlSecondsAfterFinished", "/ttl_seconds"),
    ("/spec/template/labels", "/labels"),
    ("/spec/template/metadata/labels", "/labels"),
    ("/metadata/labels", "/labels"),
    ("/metadata/name", "/name"),
];

fn in_short_form(pointer: &str) -> String {
    let origin = ORIGINS.iter().find_map(|(in_job, in_form)| {
        let rest = pointer.strip_prefix(in_job)?;
        // The environment is a list there and an object here.
        let is_list = *in_form == "/env";
        (rest.is_empty() || rest.starts_with('/'))
            .then(|| if is_list { (*in_form).to_owned() } else { format!("{in_form}{rest}") })
    });
    origin.unwrap_or_default()
}
