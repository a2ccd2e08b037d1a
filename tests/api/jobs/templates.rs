//! Jobs that a template describes.

use std::{fs, path::Path};

use math_service::{
    app::App,
    config::Config,
    jobs::{manifest::Draft, templates::Templates},
    targets::Target,
};
use serde_json::{Value, json};

use super::{Answer, Asked, Kubernetes, Service, Setup, expecting};
use crate::access::Folder;

const JOBS: &str = "/api/v1/namespaces/jobs-a/jobs";

/// What `a.yaml` of every test is: see [`Setup`].
pub(super) const A: &str = "\
name: a
description: For tests.
parameters:
  count: {type: integer, description: How many., minimum: 1, maximum: 5, default: 2}
  image: {type: string, description: Which., default: 'registry.example.com/team/tool:1'}
  word: {type: string, description: What to say., pattern: '[a-z]+', required: true}
job:
  image: ${{ image }}
  args: ['--word=${{ word }}']
  completions: ${{ count }}
  labels: {word: '${{ word }}'}
";

fn shipped() -> Templates {
    Templates::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("k8s/components/jobs/templates")).unwrap()
}

fn echoing() -> (Service, Kubernetes) {
    let (kubernetes, cluster) = Kubernetes::with(|asked: &Asked| Answer::Json(201, asked.body.clone()));
    (Setup { cluster: Some(cluster), ..Setup::default() }.start(), kubernetes)
}

fn of(parameters: Value) -> Value {
    json!({"template": "a", "parameters": parameters})
}

#[tokio::test]
async fn a_template_makes_a_job_of_what_differs() {
    let (service, kubernetes) = echoing();
    let reply = service.post(JOBS, &of(json!({"word": "hi", "count": 3}))).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    let sent = &kubernetes.asked()[0].body;
    assert_eq!(sent["metadata"]["annotations"]["math-service/template"], "a");
    assert_eq!(sent["spec"]["completions"], 3);
    let container = &sent["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(
        (&container["args"], &container["image"]),
        (&json!(["--word=hi"]), &json!("registry.example.com/team/tool:1"))
    );
    // In a batch, and under the original's name.
    let batch = json!({"items": [of(json!({"word": "hi"})), of(json!({"word": "HI"}))]});
    let answer = service.post("/api/v1/namespaces/jobs-a/jobs:batch", &batch).await.json();
    assert_eq!((&answer["items"][0]["status"], &answer["items"][1]["status"]), (&json!(201), &json!(422)));
    assert_eq!(answer["items"][1]["problem"]["errors"][0]["pointer"], "/items/1/parameters/word");
    let alias = json!({"namespace": "jobs-a", "template": "a", "parameters": {"word": "hi"}});
    assert_eq!(service.post("/api/eks-create-job", &alias).await.status, 200);
}

#[tokio::test]
async fn what_is_wrong_is_told_of_the_parameter_that_brought_it_in() {
    let (service, kubernetes) = expecting(vec![]);
    for (body, pointer, detail) in [
        (of(json!({})), "/parameters/word", "is missing"),
        (of(json!({"word": "hi", "count": 6})), "/parameters/count", "from 1 to 5"),
        (of(json!({"word": "hi", "count": "3"})), "/parameters/count", "must be a whole number"),
        (of(json!({"word": "hi\", \"image\": \"evil"})), "/parameters/word", "[a-z]+"),
        (of(json!({"word": "hi", "more": 1})), "/parameters/more", "is not known"),
        (of(json!([])), "/parameters", "must be an object"),
        // The policy looks at what comes out.
        (of(json!({"word": "hi", "image": "evil/image"})), "/parameters/image", "JOBS_IMAGES"),
        (json!({"template": "b"}), "/template", "GET /api/v1/templates"),
        (json!({"template": 1}), "/template", "GET /api/v1/templates"),
        (json!({"template": "a", "image": "x"}), "/image", "does not go with template"),
    ] {
        let reply = service.post(JOBS, &body).await;
        assert_eq!(reply.status, 422, "{body}");
        let error = &reply.json()["errors"][0];
        assert_eq!(error["pointer"], pointer, "{body}");
        assert!(error["detail"].as_str().unwrap().contains(detail), "{error}");
    }
    assert_eq!(kubernetes.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn what_kubernetes_refuses_is_told_of_the_parameter_too() {
    let refused = |field: &str| {
        let cause = json!({"field": field, "message": "Invalid value: nope", "reason": "FieldValueInvalid"});
        Answer::Json(
            422,
            json!({"kind": "Status", "code": 422, "reason": "Invalid", "message": "no", "details": {"causes": [cause]}}),
        )
    };
    let post = "POST /apis/batch/v1/namespaces/jobs-a/jobs";
    let (service, _) =
        expecting(vec![(post, refused("metadata.labels.word")), (post, refused("spec.suspend"))]);
    for pointer in ["/parameters/word", "/template"] {
        let reply = service.post(JOBS, &of(json!({"word": "hi"}))).await;
        assert_eq!(reply.json()["errors"][0]["pointer"], pointer, "{}", reply.text());
    }
}

#[tokio::test]
async fn templates_are_listed_with_what_they_ask_for() {
    let (service, kubernetes) = expecting(vec![]);
    let list = service.get("/api/v1/templates").await.json();
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let item = &list["items"][0];
    assert_eq!((&item["name"], &item["description"]), (&json!("a"), &json!("For tests.")));
    assert_eq!(
        item["parameters"]["count"],
        json!({"type": "integer", "description": "How many.", "required": false, "default": 2, "minimum": 1.0, "maximum": 5.0})
    );
    assert_eq!(item.get("body"), None);
    let whole = service.get("/api/v1/templates/a").await.json();
    assert_eq!((&whole["name"], &whole["body"]["image"]), (&json!("a"), &json!("${{ image }}")));
    assert_eq!(service.get("/api/v1/templates/b").await.status, 404);
    assert_eq!(kubernetes.calls(), Vec::<String>::new());
}

#[test]
fn the_shipped_templates_make_jobs_that_pass() {
    let images = "public.ecr.aws/docker/library/*".parse().unwrap();
    let templates = shipped();
    for body in [
        json!({"template": "shell", "parameters": {"script": "echo \"$(date)\"; exit 1"}}),
        json!({"template": "shards", "parameters": {"dataset": "sea", "shards": 100, "size": "1"}}),
    ] {
        let written = templates.written(&body).unwrap();
        let draft = Draft::of(&written, "jobs-a").unwrap();
        draft.check(&images).unwrap();
        assert!(!draft.job.to_string().contains("${{"), "{}", draft.job);
    }
    assert_eq!(templates.iter().count(), 2, "each of them is tried here");
}

#[test]
fn a_file_that_is_wrong_stops_the_start_with_one_line() {
    let folder = Folder::new();
    let start = || {
        let path = folder.path().to_str().unwrap().to_owned();
        let config = Config::from_env(|name| (name == "JOBS_TEMPLATES_DIR").then(|| path.clone())).unwrap();
        App::new(&config, Target::Container, None).err().map(|error| error.to_string())
    };
    // As a ConfigMap is mounted: hidden folders, links, and what is no template.
    fs::create_dir(folder.path().join("..2026")).unwrap();
    fs::write(folder.path().join("..2026/a.yaml"), A).unwrap();
    std::os::unix::fs::symlink("..2026/a.yaml", folder.path().join("a.yaml")).unwrap();
    fs::write(folder.path().join("README.md"), "no template").unwrap();
    assert_eq!(start(), None);
    let wrong = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        let error = start().unwrap_or_else(|| panic!("{text}"));
        fs::remove_file(&path).unwrap();
        let place = format!("JOBS_TEMPLATES_DIR: {}:", path.display());
        assert!(!error.contains('\n'), "{error}");
        error.strip_prefix(&place).map(str::to_owned).unwrap_or_else(|| panic!("{error}"))
    };
    assert!(wrong("b.yaml", "name: [").starts_with('1'));
    assert!(
        wrong("b.yml", &A.replace("[a-z]+", "[a-z"))
            .starts_with("6: /parameters/word/pattern is no regular expression")
    );
    assert_eq!(wrong("b.yaml", A), "1: /name a is that of another file too");
    fs::write(folder.path().join("b.yaml"), "#".repeat(300 * 1024)).unwrap();
    assert!(start().unwrap().contains("larger than"));
    fs::remove_dir_all(folder.path()).unwrap();
    assert!(start().unwrap().starts_with("JOBS_TEMPLATES_DIR: "), "a folder that is not there");
}
