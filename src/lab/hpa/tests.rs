//! The rules against recorded runs, against recorded unit tests, and against what they promise.

use std::{io::Read, path::Path};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    Config,
    behavior::{Recommendation, ScaleEvent, change_in, stabilize, store},
    calculator::{self, Basis, Proposal, Tolerances, Verdict},
    cases,
    controller::{Outcome, Reading, Scale, Selection, State, Sync},
    explain, objects,
    pods::{Observation, Phase, Pod, Sample, Truth, align},
    spec::{
        Behavior, Hpa, Metric, MetricSpec, Policy, PolicyKind, Rules, SelectPolicy, Source, Target, TargetRef,
    },
    trace,
};

fn unzipped(bytes: &[u8]) -> Vec<u8> {
    let mut inside = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut inside).unwrap();
    inside
}

const TRACES: [(&str, &[u8]); 2] = [
    ("s01", include_bytes!("../../../tests/data/hpa/s01-step-default.json.gz")),
    ("s02", include_bytes!("../../../tests/data/hpa/s02-demo-behavior.json.gz")),
];

#[test]
fn recorded_runs_of_the_real_controller_are_repeated_sync_by_sync() {
    for (name, bytes) in TRACES {
        let trace = trace::read(&unzipped(bytes)).unwrap();
        for (way, lines) in [("open", trace.replay()), ("closed", trace.replay_closed())] {
            let lines = lines.unwrap();
            assert_eq!(lines.len(), 103, "{name}");
            for line in &lines {
                assert!(line.agrees(), "{name} {way}: {line:?}");
            }
        }
    }
}

#[test]
fn another_load_leads_elsewhere() {
    let mut recorded: Value = serde_json::from_slice(&unzipped(TRACES[0].1)).unwrap();
    recorded["load"]["breakpoints"] = json!([[0, 30], [90, 60]]);
    let trace = trace::read(recorded.to_string().as_bytes()).unwrap();
    let disagree = trace.replay_closed().unwrap().iter().filter(|line| !line.agrees()).count();
    assert!(disagree > 50, "{disagree}");
}

#[expect(clippy::disallowed_methods, reason = "tests have no settings, and this one says where cases are")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[test]
fn recorded_unit_tests_of_the_real_controller_give_the_same() {
    let Some(folder) = variable("HPA_VECTORS") else {
        println!("skipped: HPA_VECTORS names no folder of recorded cases");
        return;
    };
    let mut files: Vec<_> =
        std::fs::read_dir(Path::new(&folder)).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    let mut count = 0;
    for file in &files {
        let document: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let cases = document["cases"].as_array().unwrap();
        let all = cases::decide(document.clone());
        assert_eq!(all.len(), cases.len());
        for (case, decided) in cases.iter().zip(all) {
            let decided = decided.unwrap_or_else(|refused| panic!("{refused:?}"));
            compare(case, &decided);
            // Alone it is the same.
            let mut alone = case.clone();
            alone["group"] = document["group"].clone();
            alone["config"] = document.get("config").cloned().unwrap_or_else(|| json!({}));
            assert_eq!(cases::decide(alone), [Ok(decided)]);
            count += 1;
        }
    }
    println!("{count} recorded cases");
    assert!(count > 0, "{folder} has no cases");
}

fn compare(case: &Value, decided: &cases::Decided) {
    let name = &case["name"];
    assert_eq!(decided.name.as_deref(), name.as_str());
    for (field, expected) in case["expect"].as_object().unwrap() {
        let given = &decided.expect[field];
        if field == "errorContains" {
            assert!(given.as_str().unwrap().contains(expected.as_str().unwrap()), "{name}: {given}");
        } else {
            assert_eq!(given, expected, "{name}: {field}");
        }
    }
    if let (Some(expected), Some(observed)) = (case.get("observed"), &decided.observed) {
        assert_eq!(observed, expected, "{name}");
    }
}

/// The one result of a case.
fn decided(case: Value) -> Value {
    match cases::decide(case).as_slice() {
        [Ok(decided)] => Value::Object(decided.expect.clone()),
        other => panic!("{other:?}"),
    }
}

const NOW: i64 = 1_000_000_000;

fn ready() -> Pod {
    Pod {
        phase: Phase::Running,
        deleted: false,
        ready: Some((Truth::True, NOW - 3_600_000)),
        start_ms: Some(NOW - 3_600_000),
    }
}

fn sample(value_milli: i64) -> Option<Sample> {
    Some(Sample { at_ms: NOW, window_ms: 15_000, value_milli })
}

fn basis(config: &Config, current: i32) -> Basis<'_> {
    Basis { current, status: current, now_ms: NOW, tolerances: config.tolerances(None), config }
}

/// CPU against 50 percent of a request of 100m each.
fn cpu(config: &Config, pods: &[Pod], samples: &[Option<Sample>], current: i32) -> Result<Proposal, String> {
    let requests = vec![100; pods.len()];
    let seen = Observation { pods, samples, strays: &[], requests: Ok(&requests) };
    calculator::utilization(&seen, 50, true, &basis(config, current))
}

#[test]
fn a_tolerance_exactly_hit_depends_on_the_release() {
    for (minor, milli, replicas) in [(32, 45, 10), (32, 55, 11), (33, 45, 10), (33, 55, 10), (35, 56, 12)] {
        let proposal = cpu(&Config::of(minor), &[ready(); 10], &[sample(milli); 10], 10).unwrap();
        assert_eq!(proposal.replicas, replicas, "1.{minor}: {milli}m of 50m");
    }
}

#[test]
fn an_autoscaler_may_have_tolerances_of_its_own() {
    let behavior = Behavior {
        up: Rules { tolerance: Some(0.02), ..Rules::up() },
        down: Rules { tolerance: Some(0.5), ..Rules::down() },
    };
    let own = Config::of(35).tolerances(Some(&behavior));
    assert!(own.allow(1.02) && !own.allow(1.03) && own.allow(0.5) && !own.allow(0.49));
    // 1.32 knows no such field.
    assert_eq!(Config::of(32).tolerances(Some(&behavior)), Tolerances::Around(0.1));
}

#[test]
fn a_pod_leaves_its_first_minutes_exactly_at_their_end() {
    let config = Config::default();
    for (age_ms, counts) in [(299_999, false), (300_000, true)] {
        // Not ready since long after its start: once that was over, it was ready in between.
        let start = NOW - age_ms;
        let pod = Pod { ready: Some((Truth::False, start + 60_000)), start_ms: Some(start), ..ready() };
        assert_eq!(cpu(&config, &[pod], &[sample(50)], 1).is_ok(), counts, "{age_ms}");
    }
}

#[test]
fn in_its_first_minutes_a_pod_counts_once_a_whole_window_began_after_it_was_ready() {
    let config = Config::default();
    for (since_ms, counts) in [(NOW - 15_000, true), (NOW - 14_999, false)] {
        let pod = Pod { ready: Some((Truth::True, since_ms)), start_ms: Some(NOW - 60_000), ..ready() };
        assert_eq!(cpu(&config, &[pod], &[sample(50)], 1).is_ok(), counts);
        // Not ready is not ready, however fresh the sample.
        let pod = Pod { ready: Some((Truth::False, since_ms)), ..pod };
        assert!(cpu(&config, &[pod], &[sample(50)], 1).is_err());
    }
}

#[test]
fn pods_that_are_not_ready_count_as_idle_on_the_way_up_only() {
    let config = Config::default();
    let pending = Pod { phase: Phase::Pending, ready: None, start_ms: None, ..ready() };
    let pods = [ready(), ready(), pending];
    // Left out, they would make it 1.6 x 2 = 4. Counted, 53 % of all requests are used, which is near enough.
    let up = cpu(&config, &pods, &[sample(80), sample(80), None], 3).unwrap();
    assert_eq!((up.replicas, up.working.filled_ratio), (3, Some(1.06)));
    let turned = cpu(&config, &pods, &[sample(60), sample(60), None], 3).unwrap();
    assert_eq!((turned.replicas, turned.working.verdict), (3, Verdict::Turned));
    let down = cpu(&config, &pods, &[sample(20), sample(20), None], 3).unwrap();
    assert_eq!((down.replicas, down.working.filled_ratio), (1, None));
}

#[test]
fn pods_without_a_sample_count_as_full_on_the_way_down_and_as_idle_on_the_way_up() {
    let config = Config::default();
    let pods = [ready(); 4];
    let down = cpu(&config, &pods, &[sample(10), sample(10), sample(10), None], 4).unwrap();
    // (10 + 10 + 10 + 100) / 400 = 32 %, 0.64 x 4.
    assert_eq!(down.replicas, 3);
    let up = cpu(&config, &pods, &[sample(100), sample(100), sample(100), None], 4).unwrap();
    assert_eq!((up.replicas, up.working.filled_ratio), (6, Some(1.5)));
}

#[test]
fn a_resource_may_have_a_target_in_its_own_unit() {
    let config = Config::default();
    let seen = |samples: &'static [Option<Sample>]| Observation {
        pods: &[Pod { phase: Phase::Running, deleted: false, ready: None, start_ms: None }; 2],
        samples,
        strays: &[],
        // No request is asked for.
        requests: Err("missing request for memory"),
    };
    const SAMPLES: &[Option<Sample>] = &[
        Some(Sample { at_ms: NOW, window_ms: 15_000, value_milli: 300 }),
        Some(Sample { at_ms: NOW, window_ms: 15_000, value_milli: 301 }),
    ];
    let memory = calculator::average(&seen(SAMPLES), 100, false, &basis(&config, 2)).unwrap();
    assert_eq!((memory.replicas, memory.usage_milli), (6, 300));
    // CPU looks at readiness here, too.
    assert!(calculator::average(&seen(SAMPLES), 100, true, &basis(&config, 2)).is_err());
}

#[test]
fn values_of_unknown_pods_count_where_no_request_is_looked_up() {
    let config = Config::default();
    let pods = [ready()];
    let requests = [100];
    let seen = Observation { pods: &pods, samples: &[sample(50)], strays: &[150], requests: Ok(&requests) };
    assert_eq!(calculator::average(&seen, 50, false, &basis(&config, 1)).unwrap().usage_milli, 100);
    assert_eq!(calculator::utilization(&seen, 50, true, &basis(&config, 1)).unwrap().percent, Some(50));
}

#[test]
fn one_value_is_multiplied_by_the_pods_that_run_and_are_ready() {
    let config = Config::default();
    let done = Pod { phase: Phase::Succeeded, ..ready() };
    let pods = [ready(), ready(), done];
    assert_eq!(calculator::whole(3000, 1000, &pods, &basis(&config, 3)).unwrap().replicas, 6);
    let error = calculator::external_whole(&[1000, 2000], 1000, &[], &basis(&config, 3)).unwrap_err();
    assert!(error.starts_with("unable to calculate ready pods: no pods returned"), "{error}");
    // At zero nobody is asked.
    assert_eq!(calculator::whole(3000, 1000, &[], &basis(&config, 0)).unwrap().replicas, 3);
}

#[test]
fn a_value_for_each_pod_is_divided_by_the_replicas_that_are_there() {
    let config = Config::default();
    let moving = Basis { current: 10, status: 3, ..basis(&config, 0) };
    let proposal = calculator::shared(10_000, 1000, &moving);
    assert_eq!((proposal.replicas, proposal.usage_milli), (10, 3334));
    assert_eq!(calculator::external_shared(&[1500, 1500], 1000, &moving).replicas, 3);
}

#[test]
fn absurd_values_do_what_they_do_in_go_and_end_nothing() {
    let config = Config::default();
    let huge = calculator::whole(i64::MAX, 1, &[ready()], &basis(&config, 1)).unwrap();
    assert_eq!(huge.replicas, i32::MIN);
    let capped = Config::of(35);
    assert_eq!(calculator::whole(i64::MAX, 1, &[ready()], &basis(&capped, 1)).unwrap().replicas, i32::MAX);
    assert_eq!(calculator::external_shared(&[i64::MAX, 1], 1, &basis(&capped, 1)).usage_milli, i64::MAX);
    for values in [[i64::MAX; 3], [i64::MIN; 3], [0, -1, i64::MIN]] {
        let samples = values.map(sample);
        let _ = cpu(&config, &[ready(); 3], &samples, i32::MAX);
        let _ = calculator::external_shared(&values, 0, &basis(&config, 0));
    }
}

#[test]
fn ages_on_a_bound_are_as_the_controller_compares_them() {
    let config = Config::default();
    // Without behavior the window includes its end, and only what is older is replaced.
    let mut log = vec![Recommendation { replicas: 9, at_ms: NOW - 300_000 }];
    assert_eq!((stabilize(&mut log, 3, NOW, &config), log.len()), (9, 2));
    let mut log = vec![Recommendation { replicas: 9, at_ms: NOW - 300_001 }];
    assert_eq!((stabilize(&mut log, 3, NOW, &config), log.len()), (3, 1));

    // A change a whole period ago does not count any more, and is kept until it is older.
    let event = |age_ms| ScaleEvent { change: 4, at_ms: NOW - age_ms, is_outdated: false };
    assert_eq!((change_in(15, &[event(15_000)], NOW), change_in(15, &[event(14_999)], NOW)), (0, 4));
    let behavior = Behavior { up: Rules::up(), down: Rules::down() };
    for (age_ms, kept) in [(15_000, 2), (15_001, 1)] {
        let mut history = super::behavior::History { ups: vec![event(age_ms)], ..Default::default() };
        store(&mut history, &behavior, 1, 2, NOW);
        assert_eq!(history.ups.len(), kept, "{age_ms}");
    }
}

#[test]
fn a_percentage_down_is_cut_off_and_one_up_is_rounded_up() {
    let limits = |direction: &str, current: i32, policy: Value| {
        decided(json!({
            "group": "scale_limits", "direction": direction, "currentReplicas": current, "rules": policy,
        }))["limit"]
            .clone()
    };
    let half = json!({ "policies": [{ "type": "Percent", "value": 50, "periodSeconds": 60 }] });
    assert_eq!(limits("down", 5, half.clone()), 2);
    assert_eq!(limits("up", 5, half), 8);
    assert_eq!(limits("up", 5, json!({ "selectPolicy": "Disabled" })), 5);
    assert_eq!(limits("down", 5, json!({ "selectPolicy": "Disabled" })), 5);
}

#[test]
fn a_container_without_metrics_fails_them_all_before_133() {
    let case = |kubernetes: &str| {
        let sample = |pod: &str, container: &str| {
            json!({ "pod": pod, "timestampAge": 0, "windowSeconds": 60,
                    "containers": [{ "name": container, "usageMilli": 900 }] })
        };
        let pod = |name: &str| {
            json!({ "name": name, "phase": "Running", "ready": "True", "readyTransitionAge": 9000,
                    "startAge": 9000, "containers": [{ "name": "web", "requestMilli": 1000 }] })
        };
        decided(json!({
            "group": "replica_calc", "config": { "kubernetes": kubernetes }, "function": "resource_utilization",
            "resource": "cpu", "container": "web", "currentReplicas": 2, "targetUtilizationPercent": 30,
            "pods": [pod("a"), pod("b")], "samples": [sample("a", "web"), sample("b", "proxy")],
        }))
    };
    assert!(
        case("1.32")["error"]
            .as_str()
            .unwrap()
            .ends_with("container web not present in metrics for pod test-namespace/b")
    );
    // One pod counts 90 %, the other as idle: 45 % / 30 % x 2.
    assert_eq!(case("1.33")["replicas"], 3);
}

#[test]
fn what_is_no_case_is_refused_by_name() {
    for (case, reason) in [
        (json!([]), "a case is an object"),
        (json!({}), "a case says its `group`"),
        (json!({ "group": "nope" }), "there is no group \"nope\""),
        (json!({ "group": "scale_limits", "cases": 3 }), "`cases` is a list"),
        (json!({ "group": "convert_desired_replicas", "currentReplicas": 1e10 }), "invalid type"),
        (json!({ "group": "convert_desired_replicas", "config": { "tolerance": "x" } }), "config: "),
        (
            json!({ "group": "group_pods", "resource": "cpu", "samples": [], "pods": [{ "name": "a" }, { "name": "a" }] }),
            "two pods are named \"a\"",
        ),
    ] {
        let refused = cases::decide(case.clone()).remove(0).unwrap_err();
        assert!(refused.reason.contains(reason), "{case}: {}", refused.reason);
    }
}

#[test]
fn samples_find_their_pods_in_any_order() {
    let of = |value| sample(value).unwrap();
    let aligned = align(&["a", "b", "c"], [("c", of(3)), ("gone", of(9)), ("a", of(1)), ("a", of(2))]);
    assert_eq!(aligned.samples, [sample(2), None, sample(3)]);
    assert_eq!(aligned.strays, [9]);
}

fn explained(manifests: &str, metrics: &str) -> String {
    let mut objects = objects::read(manifests).unwrap();
    objects.merge(objects::read(metrics).unwrap());
    explain::explain(&objects, None, 35).unwrap()
}

const WEB: &str = include_str!("../../../tests/data/hpa/web.yaml");
const WEB_METRICS: &str = include_str!("../../../tests/data/hpa/web-metrics.json");

#[test]
fn an_explanation_says_which_pods_count_and_what_decides() {
    let text = explained(WEB, WEB_METRICS);
    for line in [
        "HorizontalPodAutoscaler default/web keeps Deployment web between 1 and 10 replicas.",
        "web-7d78889cbf-2rkmb: uses 87m CPU of 100m CPU",
        "web-7d78889cbf-x6tkc: does not count yet: it is 30 s old, and its sample began before it was ready",
        "use 90 % of what they request (a whole percent, cut off), 90m CPU each: 90 / 50 = 1.8.",
        "On the way up, those that are not ready (1) count as using nothing: 1.2.",
        "That is outside of 0.1 of 1: 1.2 x 3 pods, rounded up, is 4 replicas.",
        "Result: from 3 to 4 replicas.",
        "AbleToScale is True, SucceededRescale",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    // The other target's pod is not looked at.
    assert!(!text.contains("other-5c6c8cbc5d"), "{text}");
}

#[test]
fn yaml_and_json_and_lists_and_single_objects_are_all_read() {
    let yaml = objects::read(WEB).unwrap();
    assert_eq!((yaml.hpas.len(), yaml.pods.len()), (1, 4));
    let json = objects::read(WEB_METRICS).unwrap();
    assert_eq!(json.usages.len(), 4);
    let custom = r#"{"kind":"MetricValueList","apiVersion":"custom.metrics.k8s.io/v1beta1","items":[
        {"describedObject":{"kind":"Pod","namespace":"default","name":"a","apiVersion":"/v1"},"metricName":"qps",
         "timestamp":"2026-11-20T12:00:30Z","value":"1500m","selector":null}]}
        {"kind":"ExternalMetricValueList","items":[{"metricName":"queue","metricLabels":{"name":"jobs"},
         "timestamp":"2026-11-20T12:00:30Z","value":"12"}]}"#;
    let custom = objects::read(custom).unwrap();
    assert_eq!((custom.customs[0].value_milli, custom.externals[0].value_milli), (1500, 12_000));
}

#[test]
fn manifests_that_cannot_be_are_refused_with_the_field() {
    let hpa = |spec: &str| {
        objects::read(&format!("kind: HorizontalPodAutoscaler\nmetadata: {{name: web}}\nspec: {spec}"))
            .unwrap_err()
    };
    let target = "scaleTargetRef: {kind: Deployment, name: web}";
    for (spec, reason) in [
        (format!("{{{target}, maxReplicas: 0}}"), "are no range"),
        (format!("{{{target}}}"), "maxReplicas"),
        (
            format!(
                "{{{target}, maxReplicas: 3, behavior: {{scaleUp: {{policies: [{{type: Pods, value: 0, periodSeconds: 15}}]}}}}}}"
            ),
            "a policy has a value of 1 or more",
        ),
        (format!("{{{target}, maxReplicas: 3, metrics: [{{type: Resource}}]}}"), "has a field `resource`"),
        (
            format!(
                "{{{target}, maxReplicas: 3, metrics: [{{type: Resource, resource: {{name: cpu, target: {{averageValue: lots}}}}}}]}}"
            ),
            "is not a quantity",
        ),
    ] {
        let error = hpa(&spec);
        assert!(error.starts_with("HorizontalPodAutoscaler web: ") && error.contains(reason), "{error}");
    }
    assert!(objects::read("{").unwrap_err().starts_with("not JSON"));
    assert!(objects::read("a: [").unwrap_err().starts_with("not YAML"));
}

#[test]
fn each_kind_of_metric_is_explained() {
    let manifests = "
kind: HorizontalPodAutoscaler
metadata: {name: web, namespace: default}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  maxReplicas: 20
  metrics:
  - {type: External, external: {metric: {name: queue, selector: {matchLabels: {name: jobs}}}, target: {type: AverageValue, averageValue: 30}}}
  - {type: Object, object: {metric: {name: qps}, describedObject: {kind: Service, name: web}, target: {type: Value, value: 2k}}}
  - {type: Pods, pods: {metric: {name: jobs}, target: {type: AverageValue, averageValue: '5'}}}
  - {type: ContainerResource, containerResource: {name: memory, container: web, target: {type: AverageValue, averageValue: 64Mi}}}
status: {currentReplicas: 2, desiredReplicas: 2}
---
kind: Deployment
metadata: {name: web, namespace: default}
spec: {replicas: 2, selector: {matchLabels: {app: web}}}
status: {replicas: 2}
---
kind: Pod
metadata: {name: a, namespace: default, labels: {app: web}}
status: {phase: Running, startTime: '2026-11-20T11:00:00Z', conditions: [{type: Ready, status: 'True', lastTransitionTime: '2026-11-20T11:00:05Z'}]}
";
    let metrics = r#"
{"kind":"ExternalMetricValueList","items":[{"metricName":"queue","metricLabels":{"name":"jobs"},"timestamp":"2026-11-20T12:00:30Z","value":"95"},
 {"metricName":"queue","metricLabels":{"name":"mail"},"timestamp":"2026-11-20T12:00:30Z","value":"9999"}]}
{"kind":"MetricValueList","items":[{"describedObject":{"kind":"Service","name":"web"},"metricName":"qps","timestamp":"2026-11-20T12:00:30Z","value":"2100"},
 {"describedObject":{"kind":"Pod","name":"a"},"metric":{"name":"jobs"},"timestamp":"2026-11-20T12:00:30Z","value":"7"}]}
{"kind":"PodMetrics","metadata":{"name":"a"},"timestamp":"2026-11-20T12:00:30Z","window":"1m0s","containers":[{"name":"web","usage":{"memory":"32Mi"}}]}"#;
    let text = explained(manifests, metrics);
    for line in [
        "queue from outside of the cluster, which shall be 30 for each pod",
        "The value over the target, rounded up: 4 replicas.",
        "qps of Service web, which shall be 2000",
        "1.05 is within 0.1 of 1: it stays at 2 replicas.",
        "jobs of the pods, which shall be 5 for each pod",
        "memory of the container web in each pod, which shall be 64 MiB for each pod",
        "(found by the target's selector)",
        "The metric that asks for the most decides: 4 replicas.",
        "Result: from 2 to 4 replicas.",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

/// An autoscaler of one metric that pods report, in whose numbers every sync is exact.
fn autoscaler(min: i32, max: i32, behavior: Option<Behavior>) -> Hpa {
    Hpa {
        namespace: "default".into(),
        name: "web".into(),
        target: TargetRef { api_version: "apps/v1".into(), kind: "Deployment".into(), name: "web".into() },
        min_replicas: min,
        max_replicas: max,
        metrics: vec![MetricSpec {
            source: Source::Pods(Metric { name: "qps".into(), selector: None }),
            target: Target {
                kind: "AverageValue".into(),
                average_value_milli: Some(1000),
                ..Target::default()
            },
        }],
        behavior,
    }
}

/// One sync whose pods are all ready and report `each`.
fn sync(state: &mut State, hpa: &Hpa, current: i32, each: i64, now_ms: i64, config: &Config) -> Outcome {
    let pods = vec![ready(); usize::try_from(current).unwrap()];
    let samples = vec![sample(each); pods.len()];
    let seen = Observation { pods: &pods, samples: &samples, strays: &[], requests: Ok(&[]) };
    let scale = Scale { spec: current, status: current, selector: Selection::Usable };
    let readings = [Reading::Pods(seen)];
    let sync = Sync { now_ms, scale: Ok(&scale), update_error: None, pods: &pods, readings: &readings };
    state.sync(hpa, &sync, config)
}

fn policies() -> impl Strategy<Value = Vec<Policy>> {
    let kind = prop_oneof![Just(PolicyKind::Pods), Just(PolicyKind::Percent)];
    let policy = (kind, 1..=150, 1..=240);
    let policy = policy.prop_map(|(kind, value, period_seconds)| Policy { kind, value, period_seconds });
    prop::collection::vec(policy, 1..4)
}

fn rules(windows: std::ops::Range<i32>) -> impl Strategy<Value = Rules> {
    let select = prop_oneof![Just(SelectPolicy::Max), Just(SelectPolicy::Min), Just(SelectPolicy::Disabled)];
    (policies(), select, windows).prop_map(|(policies, select_policy, window)| Rules {
        stabilization_window_seconds: Some(window),
        select_policy,
        policies,
        tolerance: None,
    })
}

fn behaviors(windows: std::ops::Range<i32>) -> impl Strategy<Value = Behavior> {
    (rules(windows.clone()), rules(windows)).prop_map(|(up, down)| Behavior { up, down })
}

/// What the replicas were at the start of a period: the last count that was set at or before it.
fn at_start(timeline: &[(i64, i32)], cutoff_ms: i64) -> i32 {
    timeline.iter().rev().find(|(at, _)| *at <= cutoff_ms).map_or(timeline[0].1, |(_, replicas)| *replicas)
}

fn allowed(rules: &Rules, timeline: &[(i64, i32)], now_ms: i64, current: i32, up: bool) -> i32 {
    let each = rules.policies.iter().map(|policy| {
        let start = f64::from(at_start(timeline, now_ms - i64::from(policy.period_seconds) * 1000));
        let value = f64::from(policy.value);
        match (policy.kind, up) {
            (PolicyKind::Pods, true) => start + value,
            (PolicyKind::Pods, false) => start - value,
            (PolicyKind::Percent, true) => (start * (1.0 + value / 100.0)).ceil(),
            (PolicyKind::Percent, false) => (start * (1.0 - value / 100.0)).trunc(),
        }
    });
    let most = each.clone().fold(f64::NEG_INFINITY, f64::max);
    let least = each.fold(f64::INFINITY, f64::min);
    let limit = match rules.select_policy {
        SelectPolicy::Disabled => f64::from(current),
        SelectPolicy::Max => {
            if up {
                most
            } else {
                least
            }
        }
        SelectPolicy::Min => {
            if up {
                least
            } else {
                most
            }
        }
    };
    limit as i32
}

proptest! {
    #[test]
    fn replicas_stay_within_bounds_and_rates(
        (min, span) in (1..10, 0..60),
        behavior in prop::option::of(behaviors(0..200)),
        loads in prop::collection::vec((0i64..200_000, 1i64..40_000), 1..60),
    ) {
        let (hpa, config) = (autoscaler(min, min + span, behavior), Config::default());
        let (mut state, mut current, mut now_ms) = (State::default(), min, NOW);
        let mut timeline = vec![(i64::MIN, min)];
        for (total, pause_ms) in loads {
            now_ms += pause_ms;
            let each = total / i64::from(current);
            let mut twin = state.clone();
            let again = sync(&mut twin, &hpa, current, each, now_ms, &config);
            let outcome = sync(&mut state, &hpa, current, each, now_ms, &config);
            prop_assert_eq!((&again, &twin), (&outcome, &state), "the same input, the same output");
            let after = outcome.replicas;
            prop_assert!((min..=min + span).contains(&after), "{} is out of bounds", after);
            match &hpa.behavior {
                None => prop_assert!(after <= (2 * current).max(4)),
                Some(behavior) if after > current => {
                    prop_assert!(after <= allowed(&behavior.up, &timeline, now_ms, current, true));
                }
                Some(behavior) if after < current => {
                    prop_assert!(after >= allowed(&behavior.down, &timeline, now_ms, current, false));
                }
                Some(_) => {}
            }
            timeline.push((now_ms, after));
            current = after;
        }
    }

    #[test]
    fn within_the_tolerance_nothing_is_rescaled(
        current in 1..100, each in 901i64..1100, behavior in prop::option::of(behaviors(0..200)),
    ) {
        let hpa = autoscaler(1, 100, behavior);
        let outcome = sync(&mut State::default(), &hpa, current, each, NOW, &Config::default());
        prop_assert!(!outcome.is_rescaled);
        prop_assert_eq!(outcome.replicas, current);
    }

    #[test]
    fn more_load_never_asks_for_fewer_replicas(
        current in 1..1000, low in 0i64..100_000, more in 0i64..100_000, minor in 32u32..36,
    ) {
        let (hpa, config) = (autoscaler(1, 1000, None), Config::of(minor));
        let of = |each| sync(&mut State::default(), &hpa, current, each, NOW, &config).proposed;
        prop_assert!(of(low) <= of(low + more));
    }

    #[test]
    fn any_value_in_any_place_of_a_case_is_decided_or_refused(
        values in prop::collection::vec(any::<i64>(), 12), group in 0usize..10, which in 0usize..6,
    ) {
        let names = ["replica_calc", "group_pods", "pod_requests", "convert_desired_replicas", "scale_limits",
            "scaling_with_rules", "stabilize_legacy", "stabilize_behaviors", "store_scale_events", "reconcile"];
        let functions = ["resource_utilization", "pods_average_value", "object_value", "object_average_value",
            "external_value", "external_average_value"];
        let at = |index: usize| values[index];
        let small = |index: usize| at(index) as i32;
        let rules = json!({ "stabilizationWindowSeconds": small(0), "selectPolicy": "Max",
            "policies": [{ "type": "Percent", "value": small(1), "periodSeconds": small(2) },
                         { "type": "Pods", "value": small(3), "periodSeconds": small(4) }] });
        let events = json!([{ "change": small(5), "age": at(6), "outdated": at(7) > 0 }]);
        let pod = json!({ "name": "a", "phase": "Running", "ready": "True", "readyTransitionAge": at(8),
            "startAge": at(9), "containers": [{ "name": "c", "requestMilli": at(10) }] });
        let usage = json!({ "pod": "a", "timestampAge": at(11), "windowSeconds": at(0),
            "containers": [{ "name": "c", "usageMilli": at(1) }] });
        let metric = json!({ "type": "Resource", "name": "cpu", "samples": [usage],
            "target": { "type": "Utilization", "averageUtilizationPercent": small(2) } });
        let case = json!({
            "group": names[group], "function": functions[which], "direction": "up", "container": "",
            "config": { "downscaleStabilizationWindowSeconds": at(3), "cpuInitializationPeriodSeconds": at(4) },
            "resource": "cpu", "pods": [pod], "samples": [usage], "rules": rules,
            "behavior": { "scaleUp": rules, "scaleDown": rules }, "scaleUpEvents": events, "scaleDownEvents": events,
            "prevScaleEvents": events, "recommendations": [{ "replicas": small(5), "age": at(6) }],
            "currentReplicas": small(7), "desiredReplicas": small(8), "minReplicas": small(9), "maxReplicas": small(10),
            "previousReplicas": small(7), "replicaChange": small(8), "sumPeriodSeconds": small(9),
            "scaleUpStabilizationWindowSeconds": small(0), "scaleDownStabilizationWindowSeconds": small(1),
            "metricValueMilli": at(2), "metricValuesMilli": [at(3), at(4)], "targetUtilizationPercent": small(5),
            "targetValueMilli": at(6), "targetAverageValueMilli": at(7), "metrics": [metric],
            "scale": { "specReplicas": small(7), "statusReplicas": small(8), "selector": "a=b" },
        });
        let results = cases::decide(case);
        prop_assert!(matches!(results.as_slice(), [Ok(_)]), "{:?}", results);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[-\\[\\]{}:,a-zA-Z0-9 .\"'&*!|>%@`#\n]{0,200}") {
        let _ = objects::read(&text);
        let _ = trace::read(text.as_bytes());
        let _ = super::selector::Selector::parse(&text);
        let _ = super::quantity::milli(&text);
    }
}
