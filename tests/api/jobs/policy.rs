//! What a Job may ask for.

use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Container, PodSecurityContext, SELinuxOptions, SecurityContext},
};
use math_service::jobs::{
    idempotency::Marks,
    manifest::{Draft, Name},
    names::Images,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::IMAGE;

fn images() -> Images {
    "registry.example.com/team/*".parse().unwrap()
}

/// A manifest that says no more than it must.
fn manifest() -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"},
        "spec": {"template": {"spec": {"containers": [
            {"name": "main", "image": IMAGE, "resources": {"limits": {"cpu": "1", "memory": "64Mi"}}}]}}},
    })
}

/// Sets what stands at a pointer, and makes what leads there.
fn set(document: &mut Value, pointer: &str, value: Value) {
    let mut place = document;
    for segment in pointer.split('/').skip(1) {
        let segment = segment.replace("~1", "/");
        place = match segment.parse::<usize>() {
            Ok(index) => {
                if !place.is_array() {
                    *place = json!([]);
                }
                let items = place.as_array_mut().unwrap();
                while items.len() <= index {
                    items.push(json!({}));
                }
                &mut items[index]
            }
            Err(_) => {
                if !place.is_object() {
                    *place = json!({});
                }
                place.as_object_mut().unwrap().entry(segment).or_insert(Value::Null)
            }
        };
    }
    *place = value;
}

/// The pointers that are refused, without what stands before those in the Job.
fn refused(job: &Value) -> Vec<String> {
    let body = json!({"job_manifest": job});
    let outcome = Draft::read(&body, "jobs-a").and_then(|draft| draft.check(&images()));
    let pointers = outcome.err().unwrap_or_default().into_iter().map(|error| error.pointer);
    pointers.map(|pointer| pointer.replacen("/job_manifest", "", 1)).collect()
}

const POD: &str = "/spec/template/spec";

/// Each a field, and a value that it may not have.
fn forbidden() -> Vec<(&'static str, Value)> {
    vec![
        ("/spec/manualSelector", json!(true)),
        ("/metadata/finalizers", json!(["example.com/never"])),
        ("/spec/template/metadata/finalizers", json!(["example.com/never"])),
        ("/metadata/labels/app.kubernetes.io~1managed-by", json!("Helm")),
        ("/metadata/labels/math-service~1idempotency-key", json!("x")),
        ("/metadata/annotations/math-service~1request", json!("x")),
        (
            "/spec/template/metadata/annotations/container.apparmor.security.beta.kubernetes.io~1main",
            json!("unconfined"),
        ),
        ("/spec/template/spec/hostNetwork", json!(true)),
        ("/spec/template/spec/hostPID", json!(true)),
        ("/spec/template/spec/hostIPC", json!(true)),
        ("/spec/template/spec/hostPID", json!("true")),
        ("/spec/template/spec/nodeName", json!("node-1")),
        ("/spec/template/spec/priorityClassName", json!("system-node-critical")),
        ("/spec/template/spec/priority", json!(2_000_000_000)),
        ("/spec/template/spec/serviceAccountName", json!("admin")),
        ("/spec/template/spec/serviceAccount", json!("admin")),
        ("/spec/template/spec/automountServiceAccountToken", json!(true)),
        ("/spec/template/spec/ephemeralContainers", json!([{"name": "debug", "image": IMAGE}])),
        ("/spec/template/spec/tolerations/0", json!({"operator": "Exists"})),
        ("/spec/template/spec/volumes/0/hostPath", json!({"path": "/"})),
        ("/spec/template/spec/volumes/0/nfs", json!({"server": "a", "path": "/"})),
        ("/spec/template/spec/volumes/0/csi", json!({"driver": "any"})),
        ("/spec/template/spec/volumes/0/image", json!({"reference": "evil/image"})),
        ("/spec/template/spec/volumes/0/somethingNew", json!({})),
        ("/spec/template/spec/volumes/0/projected/sources/0/serviceAccountToken", json!({"path": "token"})),
        ("/spec/template/spec/securityContext/runAsNonRoot", json!(false)),
        ("/spec/template/spec/securityContext/runAsUser", json!(0)),
        ("/spec/template/spec/securityContext/seccompProfile/type", json!("Unconfined")),
        ("/spec/template/spec/securityContext/appArmorProfile/type", json!("Unconfined")),
        ("/spec/template/spec/securityContext/sysctls", json!([{"name": "kernel.msgmax", "value": "1"}])),
        ("/spec/template/spec/securityContext/seLinuxOptions", json!({"type": "spc_t"})),
        ("/spec/template/spec/securityContext/windowsOptions/hostProcess", json!(true)),
    ]
}

/// The same of a container, of either kind.
fn forbidden_in_containers() -> Vec<(&'static str, Value)> {
    vec![
        ("/image", json!("evil.example.com/team/tool")),
        ("/image", json!("registry.example.com.evil/team/tool")),
        ("/image", json!(7)),
        ("/image", json!(null)),
        ("/securityContext/privileged", json!(true)),
        ("/securityContext/allowPrivilegeEscalation", json!(true)),
        ("/securityContext/capabilities/add", json!(["NET_ADMIN"])),
        ("/securityContext/capabilities/add", json!("NET_ADMIN")),
        ("/securityContext/capabilities/drop", json!(["CHOWN"])),
        ("/securityContext/runAsUser", json!(0)),
        ("/securityContext/runAsUser", json!("0")),
        ("/securityContext/runAsNonRoot", json!(false)),
        ("/securityContext/procMount", json!("Unmasked")),
        ("/securityContext/seccompProfile/type", json!("Unconfined")),
        ("/securityContext/appArmorProfile/type", json!("Unconfined")),
        ("/securityContext/seLinuxOptions", json!({"level": "s0"})),
        ("/securityContext/windowsOptions/hostProcess", json!(true)),
        ("/resources/limits/cpu", json!(null)),
        ("/resources/limits/memory", json!(null)),
        ("/resources/limits/memory", json!("0")),
        ("/resources/limits/memory", json!("-1Gi")),
        ("/ports/0/hostPort", json!(80)),
        ("/livenessProbe/httpGet/host", json!("169.254.169.254")),
        ("/lifecycle/postStart/httpGet/host", json!("10.0.0.1")),
        ("/lifecycle/preStop/tcpSocket/host", json!("10.0.0.1")),
    ]
}

/// Fields that anybody may set.
fn harmless() -> Vec<(&'static str, Value)> {
    vec![
        ("/metadata/labels/team", json!("a")),
        ("/metadata/namespace", json!("jobs-a")),
        ("/spec/suspend", json!(true)),
        ("/spec/backoffLimit", json!(0)),
        ("/spec/completionMode", json!("Indexed")),
        ("/spec/somethingNew", json!({"deep": [1, {"er": null}]})),
        ("/spec/template/spec/nodeSelector/kind", json!("fast")),
        ("/spec/template/spec/restartPolicy", json!("OnFailure")),
        ("/spec/template/spec/serviceAccountName", json!("default")),
        ("/spec/template/spec/hostNetwork", json!(false)),
        ("/spec/template/spec/tolerations/0", json!({"key": "spot", "operator": "Exists"})),
        ("/spec/template/spec/volumes/0", json!({"name": "tmp", "emptyDir": {}})),
        ("/spec/template/spec/volumes/0", json!({"name": "cm", "configMap": {"name": "a"}})),
        ("/spec/template/spec/securityContext/runAsUser", json!(1000)),
        ("/spec/template/spec/containers/0/securityContext/readOnlyRootFilesystem", json!(true)),
        ("/spec/template/spec/containers/0/securityContext/runAsUser", json!(1000)),
        ("/spec/template/spec/containers/0/ports/0", json!({"containerPort": 80})),
        (
            "/spec/template/spec/containers/0/image",
            json!(
                "registry.example.com/team/deep/er@sha256:0000000000000000000000000000000000000000000000000000000000000000"
            ),
        ),
    ]
}

#[test]
fn what_restricted_pods_need_is_filled_in_and_nothing_else_is_touched() {
    let draft = Draft::read(&json!({"job_manifest": manifest()}), "jobs-a").unwrap();
    draft.check(&images()).unwrap();
    assert_eq!(draft.name(), Name::Given("a".to_owned()));
    let mut marked = draft.named("a", &Marks::unkeyed(1));
    marked["metadata"].as_object_mut().unwrap().remove("annotations").expect("the mark of the request");
    let ours = json!({"app.kubernetes.io/managed-by": "math-service"});
    let expected = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "a", "namespace": "jobs-a", "labels": ours},
        "spec": {"activeDeadlineSeconds": 3600, "ttlSecondsAfterFinished": 86400, "template": {"metadata": {"labels": ours}, "spec": {
            "restartPolicy": "Never", "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "main", "image": IMAGE, "resources": {"limits": {"cpu": "1", "memory": "64Mi"}},
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]}}},
    });
    assert_eq!(marked, expected);
}

#[test]
fn each_field_that_is_forbidden_is_refused_by_name_and_each_other_is_kept() {
    assert_eq!(refused(&manifest()), Vec::<String>::new());
    for (pointer, value) in forbidden() {
        let mut job = manifest();
        set(&mut job, pointer, value.clone());
        assert_eq!(refused(&job), [pointer], "{value}");
    }
    for (pointer, value) in harmless() {
        let mut job = manifest();
        set(&mut job, pointer, value.clone());
        assert_eq!(refused(&job), Vec::<String>::new(), "{pointer} {value}");
        let draft = Draft::read(&json!({"job_manifest": job}), "jobs-a").unwrap();
        assert_eq!(draft.job.pointer(pointer), Some(&value), "{pointer} is as it came");
    }
}

#[test]
fn containers_that_come_first_and_sidecars_are_no_way_around_it() {
    for list in ["containers", "initContainers"] {
        for (field, value) in forbidden_in_containers() {
            let mut job = manifest();
            let container = job.pointer("/spec/template/spec/containers/0").unwrap().clone();
            set(&mut job, &format!("{POD}/initContainers/0"), container);
            set(&mut job, &format!("{POD}/initContainers/0/restartPolicy"), json!("Always"));
            set(&mut job, &format!("{POD}/{list}/0{field}"), value.clone());
            assert_eq!(refused(&job), [format!("{POD}/{list}/0{field}")], "{value}");
        }
    }
}

#[test]
fn what_is_no_job_of_this_namespace_is_refused_by_name() {
    for (pointer, value) in [
        ("/apiVersion", json!("batch/v1beta1")),
        ("/kind", json!("CronJob")),
        ("/kind", json!(["Job"])),
        ("/metadata/namespace", json!("other")),
        ("/metadata/name", json!("A")),
        ("/metadata/name", json!("../x")),
        ("/metadata/generateName", json!("A-")),
        ("/metadata/labels", json!([])),
        ("/metadata/annotations", json!("a")),
        ("/spec/template/spec/containers", json!([])),
        ("/spec/template/spec/containers", json!({})),
        ("/spec/template", json!("a")),
        ("/spec", json!(7)),
        ("/spec/template/spec/securityContext", json!([])),
    ] {
        let mut job = manifest();
        set(&mut job, pointer, value.clone());
        assert_eq!(refused(&job).first().map(String::as_str), Some(pointer), "{value}");
    }
    for (body, pointer) in [
        (json!([]), ""),
        (json!({"job_manifest": []}), "/job_manifest"),
        (json!({"job_manifest": manifest(), "image": IMAGE}), "/image"),
        (json!({}), "/image"),
        (json!({"image": 7}), "/image"),
        (json!({"image": IMAGE, "comand": ["echo"]}), "/comand"),
        (json!({"image": IMAGE, "command": "echo"}), "/command"),
        (json!({"image": IMAGE, "env": {"A": 1}}), "/env"),
        (json!({"image": IMAGE, "cpu": "none"}), "/cpu"),
        (json!({"image": IMAGE, "memory": "0"}), "/memory"),
        (json!({"image": IMAGE, "parallelism": 0}), "/parallelism"),
        (json!({"image": IMAGE, "completions": 2_147_483_648_u32}), "/completions"),
        (json!({"image": IMAGE, "backoff_limit": -1}), "/backoff_limit"),
        (json!({"image": IMAGE, "deadline_seconds": 1.5}), "/deadline_seconds"),
        (json!({"image": IMAGE, "ttl_seconds": "1"}), "/ttl_seconds"),
        (json!({"image": IMAGE, "name": "A"}), "/name"),
        (json!({"image": "evil/image"}), "/image"),
        (json!({"image": IMAGE, "labels": {"math-service/x": "1"}}), "/labels/math-service~1x"),
    ] {
        let outcome = Draft::read(&body, "jobs-a").and_then(|draft| draft.check(&images()));
        let errors = outcome.expect_err(&body.to_string());
        assert_eq!(errors[0].pointer, pointer, "{body}: {errors:?}");
    }
}

#[test]
fn a_short_form_says_all_that_it_can_and_gets_a_name_where_it_has_none() {
    let body = json!({
        "image": IMAGE, "name": "a", "command": ["sh"], "args": ["-c", "true"], "env": {"A": "1"}, "cpu": "2", "memory": "1Gi",
        "parallelism": 2, "completions": 4, "backoff_limit": 0, "deadline_seconds": 60, "ttl_seconds": 0, "labels": {"team": "a"},
    });
    let draft = Draft::read(&body, "jobs-a").unwrap();
    draft.check(&images()).unwrap();
    let spec = &draft.job["spec"];
    assert_eq!(
        (&spec["parallelism"], &spec["completions"], &spec["backoffLimit"]),
        (&json!(2), &json!(4), &json!(0))
    );
    assert_eq!((&spec["activeDeadlineSeconds"], &spec["ttlSecondsAfterFinished"]), (&json!(60), &json!(0)));
    let container = &spec["template"]["spec"]["containers"][0];
    assert_eq!((&container["command"], &container["args"]), (&json!(["sh"]), &json!(["-c", "true"])));
    assert_eq!(container["env"], json!([{"name": "A", "value": "1"}]));
    assert_eq!(container["resources"]["limits"], json!({"cpu": "2", "memory": "1Gi"}));
    assert_eq!(container["resources"]["requests"], container["resources"]["limits"]);
    assert_eq!(spec["template"]["spec"]["securityContext"]["runAsUser"], 65532);
    assert_eq!(spec["template"]["metadata"]["labels"]["team"], "a");
    assert_eq!(draft.job["metadata"]["labels"]["team"], "a");
    let unnamed = Draft::read(&json!({"image": IMAGE}), "jobs-a").unwrap();
    assert_eq!(unnamed.name(), Name::Prefix("job-".to_owned()));
    let limits = &unnamed.job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"];
    assert_eq!(limits, &json!({"cpu": "500m", "memory": "256Mi"}));
}

// ---------------------------------------------------------------- the standard, written down a second time

/// The Pod Security Standard "restricted", read off its page, on Kubernetes' own types.
fn is_restricted(job: &Job) -> bool {
    let Some(pod) = job.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()) else { return false };
    let allowed_volumes = [
        "name",
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    let volumes_are_good = pod.volumes.iter().flatten().all(|volume| {
        serde_json::to_value(volume)
            .unwrap()
            .as_object()
            .unwrap()
            .keys()
            .all(|key| allowed_volumes.contains(&key.as_str()))
    });
    let context = pod.security_context.clone().unwrap_or_default();
    let no_host = [pod.host_network, pod.host_pid, pod.host_ipc].iter().all(|host| *host != Some(true));
    let pod_is_good = context.run_as_user != Some(0)
        && context.sysctls.as_ref().is_none_or(Vec::is_empty)
        && context.se_linux_options.as_ref().is_none_or(|options| *options == SELinuxOptions::default())
        && context.windows_options.as_ref().is_none_or(|options| options.host_process != Some(true));
    let containers = pod.containers.iter().chain(pod.init_containers.iter().flatten());
    let no_debugger = pod.ephemeral_containers.as_ref().is_none_or(Vec::is_empty);
    no_host
        && volumes_are_good
        && pod_is_good
        && no_debugger
        && containers.into_iter().all(|container| is_restricted_container(container, &context))
}

fn is_restricted_container(container: &Container, pod: &PodSecurityContext) -> bool {
    let own: SecurityContext = container.security_context.clone().unwrap_or_default();
    let capabilities = own.capabilities.clone().unwrap_or_default();
    let seccomp =
        own.seccomp_profile.as_ref().or(pod.seccomp_profile.as_ref()).map(|profile| profile.type_.as_str());
    let app_armor = own
        .app_armor_profile
        .as_ref()
        .or(pod.app_armor_profile.as_ref())
        .map(|profile| profile.type_.as_str());
    let limits =
        container.resources.as_ref().and_then(|resources| resources.limits.clone()).unwrap_or_default();
    own.privileged != Some(true)
        && own.allow_privilege_escalation == Some(false)
        && own.run_as_non_root.or(pod.run_as_non_root) == Some(true)
        && own.run_as_user != Some(0)
        && capabilities.drop.iter().flatten().any(|capability| capability == "ALL")
        && capabilities.add.iter().flatten().all(|capability| capability == "NET_BIND_SERVICE")
        && matches!(seccomp, Some("RuntimeDefault" | "Localhost"))
        && app_armor != Some("Unconfined")
        && own.proc_mount.as_deref().is_none_or(|mount| mount == "Default")
        && own.se_linux_options.as_ref().is_none_or(|options| *options == SELinuxOptions::default())
        && own.windows_options.as_ref().is_none_or(|options| options.host_process != Some(true))
        && container.ports.iter().flatten().all(|port| port.host_port.unwrap_or(0) == 0)
        && ["cpu", "memory"].iter().all(|resource| limits.contains_key(*resource))
        && container.image.as_deref().is_some_and(|image| image.starts_with("registry.example.com/team/"))
}

/// A manifest with any of the fields above, in any combination, also set to what they must not be or to nonsense.
fn any_manifest() -> impl Strategy<Value = Value> {
    let in_containers = forbidden_in_containers().into_iter().flat_map(|(field, value)| {
        [("containers", 0), ("initContainers", 0), ("containers", 1)]
            .map(|(list, index)| (format!("{POD}/{list}/{index}{field}"), value.clone()))
    });
    let elsewhere =
        forbidden().into_iter().chain(harmless()).map(|(pointer, value)| (pointer.to_owned(), value));
    let places: Vec<(String, Value)> = in_containers.chain(elsewhere).collect();
    let value = |given: Value| {
        let others = [
            json!(null),
            json!(false),
            json!(true),
            json!({}),
            json!([]),
            json!(""),
            json!(0),
            json!("RuntimeDefault"),
            json!(["ALL"]),
        ];
        prop_oneof![3 => Just(given), 2 => proptest::sample::select(others.to_vec())]
    };
    let change =
        proptest::sample::select(places).prop_flat_map(move |(pointer, given)| (Just(pointer), value(given)));
    proptest::collection::vec(change, 0..5).prop_map(|changes| {
        let mut job = manifest();
        for (pointer, value) in changes {
            set(&mut job, &pointer, value);
        }
        job
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_manifest_that_passes_makes_a_pod_that_is_not_restricted(manifest in any_manifest()) {
        let draft = Draft::read(&json!({"job_manifest": manifest}), "jobs-a");
        let passed = draft.ok().filter(|draft| draft.check(&images()).is_ok());
        // What Kubernetes could not read, it would refuse.
        if let Some(job) = passed.and_then(|draft| serde_json::from_value::<Job>(draft.job).ok()) {
            prop_assert!(is_restricted(&job), "{job:?}");
        }
    }

    #[test]
    fn no_short_form_that_passes_makes_a_pod_that_is_not_restricted(
        image in "(registry\\.example\\.com|evil|[a-z./:@-]{0,12})/team/[a-z.:/@]{1,8}",
        name in proptest::option::of("[a-zA-Z0-9./-]{0,70}"),
        words in proptest::option::of(proptest::collection::vec(".{0,8}", 0..3)),
        cpu in proptest::option::of("[0-9.]{0,3}[a-zA-Z]{0,2}"),
        count in proptest::option::of(any::<i64>()),
        labels in proptest::option::of(proptest::collection::btree_map("[a-z/.-]{0,12}", ".{0,4}", 0..3)),
    ) {
        let body = json!({"image": image, "name": name, "command": words, "cpu": cpu, "memory": cpu, "parallelism": count,
            "deadline_seconds": count, "labels": labels});
        let passed = Draft::read(&body, "jobs-a").ok().filter(|draft| draft.check(&images()).is_ok());
        if let Some(draft) = passed {
            let job: Job = serde_json::from_value(draft.job).expect("a short form makes a Job that Kubernetes can read");
            prop_assert!(is_restricted(&job), "{job:?}");
            prop_assert!(job.spec.unwrap().active_deadline_seconds.is_some_and(|seconds| seconds > 0));
        }
    }
}
