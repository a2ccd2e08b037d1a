//! What holds for whole runs of either target.

use std::io::Read;

use proptest::prelude::*;

use super::{
    container::{self, Pipeline, Syncs, Workload},
    cost::{Architecture, Balancer, Prices, Usage, Usd},
    hpa::trace,
    inputs,
    lambda::{self, Function},
    run::{Run, Span},
    service::Profile,
    traffic::{Shape, Traffic},
    verdict::{Scenario, Target},
};

fn manifests() -> String {
    [
        include_str!("../../k8s/base/deployment.yaml"),
        include_str!("../../k8s/base/hpa.yaml"),
        include_str!("../../k8s/base/service.yaml"),
    ]
    .join("\n---\n")
}

fn scenario(profile: &str, traffic: &str, seconds: u64) -> Scenario {
    let (cluster, region) = inputs::cluster(include_str!("../../cluster-config.yaml")).unwrap();
    Scenario {
        cluster,
        workload: inputs::workload(&manifests()).unwrap(),
        pipeline: Pipeline::default(),
        function: inputs::function(include_str!("../../template.yaml")).unwrap(),
        profile: Profile::parse(profile).unwrap(),
        lambda_profile: None,
        traffic: Traffic::parse(traffic).unwrap(),
        span: Span::of(seconds).unwrap(),
        prices: Prices::of(&region).unwrap(),
        has_free_tier: false,
    }
}

fn assert_conserved(run: &Run) {
    let requests = run.requests;
    let out = requests.served + requests.shed + requests.failed + requests.waiting;
    let off = (requests.arrived - out).abs();
    assert!(off <= requests.arrived * 1e-9 + 1e-6, "{requests:?}: {off}");
    for count in [requests.served, requests.shed, requests.failed, requests.waiting] {
        assert!(count.is_finite() && count >= -1e-6, "{requests:?}");
    }
}

#[test]
fn a_profile_of_lambdas_own_is_for_lambda_alone() {
    let alike = scenario("cpu=1ms,wait=20ms", "constant:10", 3600);
    let apart = Scenario {
        lambda_profile: Some(Profile::parse("cpu=1ms,wait=70ms").unwrap()),
        ..scenario("cpu=1ms,wait=20ms", "constant:10", 3600)
    };
    let (alike, other) = (alike.compare().unwrap(), apart.compare().unwrap());
    assert_eq!(alike.eks.run, other.eks.run);
    let p50 = |side: &super::verdict::Side| side.run.latency.p50_ms.unwrap();
    assert!((p50(&other.lambda) - p50(&alike.lambda) - 50.0).abs() < 2.0, "{}", p50(&other.lambda));
    assert!(other.lambda.bill.item("Lambda duration") > alike.lambda.bill.item("Lambda duration"));
    let reasons = apart.verdict(&other).unwrap().reasons.join(" ");
    assert!(reasons.contains("83 % of it waiting") || !reasons.contains("waiting"), "{reasons}");
}

#[test]
fn five_seconds_of_waiting_never_move_an_autoscaler_on_cpu_and_lambda_bills_each() {
    let scenario = scenario("cpu=9us,wait=5s", "step:1..50@1h", 6 * 3600);
    let both = scenario.compare().unwrap();
    assert!(both.eks.run.decisions.is_empty(), "{:?}", both.eks.run.decisions);
    assert!(both.eks.run.notes[0].starts_with("the autoscaler never moved"), "{:?}", both.eks.run.notes);
    assert!(both.eks.run.requests.lost_share() < 1e-9);
    let usage = both.lambda.run.usage();
    // Every one of them 5 s and a bit, at 128 MB.
    let per_request = usage.lambda_mb_ms / usage.lambda_requests / 128;
    assert!((5001..5010).contains(&per_request), "{per_request}");
}

#[test]
fn the_autoscaler_follows_load_that_needs_cpu_and_says_why() {
    let mut scenario = scenario("cpu=5ms", "spike:5..60@30m+30m", 3 * 3600);
    scenario.profile.memory_mib = 3.0;
    let run = scenario.simulate(Target::Eks).unwrap().run;
    let first = &run.decisions[0];
    // 300 millicores on two pods of 100m, and two more at a time.
    assert_eq!((first.what, first.from, first.to), ("pods", 2, 4), "{first:?}");
    assert!(first.why.starts_with("cpu ") && first.why.contains("against 50 % wants"), "{}", first.why);
    assert!((1800..1850).contains(&first.at), "{first:?}");
    let last = run.decisions.last().unwrap();
    assert_eq!(last.to, 2, "{last:?}");
    assert!(last.at >= 3600 + 300, "{last:?}");
}

/// The recorded runs of the real controller through the simulation as a whole: pods, their start, metrics, decisions.
#[test]
fn recorded_runs_of_the_real_controller_are_met_within_one_sync() {
    for name in ["s01-step-default", "s02-demo-behavior"] {
        let file =
            std::fs::read(format!("{}/tests/data/hpa/{name}.json.gz", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let mut json = Vec::new();
        flate2::read::GzDecoder::new(file.as_slice()).read_to_end(&mut json).unwrap();
        let trace = trace::read(&json).unwrap();
        let (run, seconds) = replay(&trace);
        // The number of pods in each second, by the simulation and as recorded.
        let mut ours = vec![trace.deployment.initial_replicas as u32; seconds];
        for decision in &run.decisions {
            ours[decision.at as usize..].fill(decision.to);
        }
        let mut theirs = vec![trace.deployment.initial_replicas as u32; seconds];
        for (line, seen) in trace.replay().unwrap().iter().zip(&trace.syncs) {
            theirs[seen.t as usize..].fill(line.recorded.replicas as u32);
        }
        for (second, pods) in ours.iter().enumerate() {
            let near = &theirs[second.saturating_sub(16)..(second + 17).min(seconds)];
            assert!(near.contains(pods), "{name}: {pods} pods after {second} s, recorded were {near:?}");
        }
    }
}

/// One request a second is one millicore here; what is beyond the pods' limits is dropped, as the recorder dropped it.
fn replay(trace: &trace::Trace) -> (Run, usize) {
    let seconds = trace.sync_instants.last().unwrap().ceil() as u64 + 1;
    let points = (0..seconds).map(|second| (second, trace.load.at(second as f64))).collect();
    let (mut cluster, _) = inputs::cluster(include_str!("../../cluster-config.yaml")).unwrap();
    cluster.nodes = 50;
    (cluster.min_nodes, cluster.max_nodes, cluster.minor) = (50, 50, 32);
    let deployment = &trace.deployment;
    let workload = Workload {
        replicas: deployment.initial_replicas as u32,
        hpa: Some(trace.hpa().unwrap()),
        container: "web".into(),
        cpu_request_milli: deployment.cpu_request_m,
        memory_request_mib: None,
        cpu_limit: deployment.cpu_limit_m.map(|milli| milli as f64 / 1000.0),
        memory_limit_mib: None,
        max_in_flight: 1e9,
        timeout_seconds: 0.02,
        pod_start_seconds: 2,
        balancer: Balancer::None,
    };
    let pipeline = Pipeline {
        scrape_seconds: 1,
        window_seconds: 15,
        mean_seconds: 1,
        lag_seconds: 0,
        syncs: Syncs::At(trace.sync_instants.iter().map(|t| (t * 1000.0) as u64).collect()),
    };
    let profile = Profile { cpu_ms: 1.0, wait_ms: 0.0, start_ms: 0.0, ..Profile::default() };
    let traffic = Traffic::of(Shape::Points { points, linear: false });
    let run =
        container::run(&cluster, &workload, &pipeline, &profile, &traffic, Span::of(seconds).unwrap(), 1)
            .unwrap();
    (run, seconds as usize)
}

/// docs/operations.md adds the same up by hand, for us-east-1 and three zones.
#[test]
fn the_bill_at_rest_and_that_of_a_million_additions_are_those_of_the_operations_page() {
    let page = include_str!("../../docs/operations.md");
    let mut scenario = scenario("cpu=0.1ms", "constant:0", 3600);
    scenario.prices = Prices::of("us-east-1").unwrap();
    scenario.prices.zones = 3;
    let eks = scenario.simulate(Target::Eks).unwrap().bill;
    assert_eq!(eks.total().to_string(), "$270.67");
    assert!(page.contains("| all | | 270.67 |"));
    let million = Usage {
        architecture: Architecture::Arm,
        lambda_requests: 1_000_000,
        lambda_mb_ms: 1_000_000 * 2 * 128,
        api_requests: 1_000_000,
        log_bytes: 1_500_000_000,
        ..Usage::default()
    };
    let lambda = scenario.prices.bill(&million, false).unwrap();
    assert_eq!(lambda.item("Lambda requests").to_string(), "$0.20");
    assert_eq!(lambda.item("HTTP API").to_string(), "$1.00");
    // A GB is 2^30 bytes here and a thousand million there.
    assert_eq!(lambda.item("Lambda logs").to_string(), "$0.70");
    assert!(page.contains("| logs: 4 lines of the function and 1 of the API, 1.5 KB | 1.5 × 0.50 | 0.75 |"));
}

#[test]
fn a_month_costs_the_same_however_long_it_was_looked_at() {
    let month = |seconds| {
        scenario("cpu=1ms", "constant:10", seconds).simulate(Target::Eks).unwrap().bill.total().dollars()
    };
    let whole = month(3600);
    for seconds in [360, 900, 4500, 86_436] {
        let part = month(seconds);
        assert!((part / whole - 1.0).abs() < 0.001, "{seconds} s: {part} and {whole}");
    }
}

#[test]
fn hours_add_up_to_the_bill_and_the_same_seed_to_the_same_run() {
    let mut scenario = scenario("cpu=3ms,wait=200ms", "diurnal:5..90", 86_400);
    (scenario.traffic.noise, scenario.traffic.seed) = (0.3, 7);
    for target in [Target::Eks, Target::Lambda] {
        let run = scenario.simulate(target).unwrap().run;
        assert_eq!(run.hours.len(), 24);
        let whole = scenario.prices.bill(&run.usage(), false).unwrap().total();
        let parts: Usd =
            run.hours.iter().map(|hour| scenario.prices.bill(hour, false).unwrap().total()).sum();
        // Below the first tier's end; each hour is rounded to the trillionth.
        let off = (whole.dollars() - parts.dollars()).abs();
        assert!(off < 1e-9, "{target:?}: {off}");
        assert_eq!(run, scenario.simulate(target).unwrap().run);
    }
    let first = scenario.simulate(Target::Eks).unwrap().run;
    scenario.traffic.seed = 8;
    assert_ne!(first.requests, scenario.simulate(Target::Eks).unwrap().run.requests);
}

#[test]
fn a_node_is_added_for_pods_without_a_place_and_goes_when_they_are_gone() {
    let mut scenario = scenario("cpu=50ms", "spike:5..60@30m+30m", 4 * 3600);
    scenario.workload.cpu_request_milli = Some(900);
    let run = scenario.simulate(Target::Eks).unwrap().run;
    let nodes: Vec<(u32, u32)> =
        run.decisions.iter().filter(|each| each.what == "nodes").map(|each| (each.from, each.to)).collect();
    assert_eq!(nodes, [(2, 3), (3, 2)], "{:?}", run.decisions);
}

#[test]
fn the_cheaper_target_changes_at_the_crossover() {
    let mut scenario = scenario("cpu=1ms", "constant:50", 3600);
    scenario.has_free_tier = false;
    let both = scenario.compare().unwrap();
    let verdict = scenario.verdict(&both).unwrap();
    let crossover = verdict.crossover.unwrap();
    assert_eq!(crossover.below, Target::Lambda);
    for (factor, cheaper) in [(0.9, Target::Lambda), (1.1, Target::Eks)] {
        let mut near = scenario.clone();
        near.function.throttle = None;
        near.traffic = scenario.traffic.times(crossover.factor * factor);
        let both = near.compare().unwrap();
        let is_lambda = both.lambda.bill.total() < both.eks.bill.total();
        assert_eq!(is_lambda, cheaper == Target::Lambda, "{factor}");
    }
    assert_eq!(verdict.reasons.len(), 3);
}

#[test]
fn absurd_input_is_an_error_or_a_bounded_run() {
    for (profile, traffic) in [("cpu=1s", "constant:1e12"), ("cpu=1us,wait=10000s", "constant:1e12")] {
        let scenario = scenario(profile, traffic, 86_400);
        for target in [Target::Eks, Target::Lambda] {
            assert_conserved(&scenario.simulate(target).unwrap().run);
        }
    }
    assert!(Traffic::parse("constant:1e13").is_err());
    assert!(Span::of(0).is_err() && Span::of(367 * 86_400).is_err());
    let mut many = scenario("cpu=1ms", "constant:1", 60);
    many.workload.hpa.as_mut().unwrap().max_replicas = i32::MAX;
    assert!(many.simulate(Target::Eks).unwrap_err().contains("pods"));
}

fn traffic() -> impl Strategy<Value = Traffic> {
    let rate = || prop_oneof![Just(0.0), 0.0..10.0, 0.0..1e4, 0.0..1e12];
    let shape = prop_oneof![
        rate().prop_map(|rate| Shape::Constant { rate }),
        (rate(), rate(), 0u64..2000).prop_map(|(from, to, at)| Shape::Step { from, to, at }),
        (rate(), rate(), 0u64..2000, 1u64..2000).prop_map(|(base, peak, at, lasts)| Shape::Spike {
            base,
            peak,
            at,
            lasts
        }),
        (rate(), rate()).prop_map(|(low, high)| Shape::Diurnal { low, high }),
    ];
    (shape, 0.0..1.0, any::<u64>()).prop_map(|(shape, noise, seed)| Traffic { shape, noise, seed })
}

fn profile() -> impl Strategy<Value = Profile> {
    let ms = || prop_oneof![Just(0.0), 0.0..10.0, 0.0..1e7];
    (1e-6..1e4, ms(), 0.0..6e5, 0.0..6e4).prop_map(|(cpu_ms, wait_ms, init_ms, sandbox_ms)| Profile {
        cpu_ms,
        wait_ms,
        init_ms,
        sandbox_ms,
        ..Profile::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_arrives_is_served_shed_failed_or_still_there(
        traffic in traffic(),
        profile in profile(),
        seconds in 1u64..4000,
        memory_mb in 128u32..10_240,
        account in 1u32..5000,
        slots in 1.0..10_000.0,
    ) {
        let mut scenario = scenario("cpu=1ms", "constant:1", seconds);
        (scenario.traffic, scenario.profile) = (traffic, profile);
        scenario.workload.max_in_flight = slots;
        let function = Function { memory_mb, account, ..Function::default() };
        let span = scenario.span;
        assert_conserved(&scenario.simulate(Target::Eks).unwrap().run);
        assert_conserved(&lambda::run(&function, &scenario.profile, &scenario.traffic, span).unwrap());
    }

    /// The project's own files with a piece missing and another put in.
    #[test]
    fn broken_files_are_refused_or_run(
        file in 0usize..3,
        (from, length) in (0.0..1.0, 0.0..0.3),
        piece in prop_oneof![
            Just(String::new()),
            "[ \\n:!{}\\[\\]\"'#|>&*,-]{0,12}",
            "(-?[0-9]{1,20}|null|~|1e999|!Ref X|\\{Ref: X\\}|\\[\\[\\]\\]|- -|\\|)",
        ],
    ) {
        let files = [manifests(), include_str!("../../cluster-config.yaml").into(), include_str!("../../template.yaml").into()];
        let text: Vec<char> = files[file].chars().collect();
        let start = (text.len() as f64 * from) as usize;
        let end = (start + (text.len() as f64 * length * length) as usize).min(text.len());
        let text: String = text[..start].iter().chain(piece.chars().collect::<Vec<_>>().iter()).chain(&text[end..]).collect();
        let mut scenario = scenario("cpu=1ms", "constant:10", 120);
        match file {
            0 => if let Ok(workload) = inputs::workload(&text) { scenario.workload = workload },
            1 => if let Ok((cluster, _)) = inputs::cluster(&text) { scenario.cluster = cluster },
            _ => if let Ok(function) = inputs::function(&text) { scenario.function = function },
        }
        for target in [Target::Eks, Target::Lambda] {
            if let Ok(side) = scenario.simulate(target) {
                assert_conserved(&side.run);
            }
        }
    }

    #[test]
    fn readers_never_panic(text in "\\PC{0,200}", wild in prop::collection::vec(any::<u8>(), 0..200)) {
        let wild = String::from_utf8_lossy(&wild).into_owned();
        for text in [&text, &wild] {
            let _ = inputs::workload(text);
            let _ = inputs::cluster(text);
            let _ = inputs::function(text);
            let _ = Traffic::parse(text);
            let _ = Traffic::history(text);
            let _ = Profile::parse(text);
            let _ = Usd::parse(text);
        }
    }
}
