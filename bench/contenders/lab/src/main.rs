//! The lab's simulation: prints milliseconds of CPU for one simulated day at steps of a second, on EKS (`WORK=eks`), on
//! Lambda (`WORK=lambda`) or on EKS with a million times the requests (`WORK=eks-million`), or for an hour with 10,000 pods
//! (`WORK=pods`).

use std::{error::Error, hint::black_box, io::Write, time::Duration};

use math_service::lab::{
    container::Pipeline,
    cost::Prices,
    inputs,
    run::Span,
    service::Profile,
    traffic::Traffic,
    verdict::{Scenario, Target},
};
use nix::time::{ClockId, clock_gettime};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// CPU time to spend on runs; the last may exceed it.
const ENOUGH: Duration = Duration::from_secs(1);
const DAY: u64 = 86_400;
const HOUR: u64 = 3600;
const PODS: i32 = 10_000;

fn main() -> Result<(), Box<dyn Error>> {
    let (target, scenario) = match std::env::var("WORK")?.as_str() {
        "eks" => (Target::Eks, scenario("diurnal:5..200", "cpu=1ms,wait=20ms", DAY)?),
        // Each request costs a millionth, so that the pods are the same.
        "eks-million" => (Target::Eks, scenario("diurnal:5e6..200e6", "cpu=0.000001ms,wait=20ms", DAY)?),
        "lambda" => (Target::Lambda, scenario("diurnal:5..200", "cpu=1ms,wait=20ms", DAY)?),
        "pods" => (Target::Eks, many()?),
        work => return Err(format!("there is no WORK={work}").into()),
    };
    let start = cpu()?;
    let mut runs = 0u32;
    while cpu()? - start < ENOUGH {
        let side = scenario.simulate(target)?;
        if black_box(side.run.requests.served) <= 0.0 {
            return Err("nothing was served".into());
        }
        runs += 1;
    }
    let figure = (cpu()? - start).as_secs_f64() * 1000.0 / f64::from(runs);
    Ok(writeln!(std::io::stdout(), r#"{{"figure": {figure}}}"#)?)
}

fn scenario(traffic: &str, profile: &str, seconds: u64) -> Result<Scenario, String> {
    let manifests = [
        include_str!("../../../../k8s/base/deployment.yaml"),
        include_str!("../../../../k8s/base/hpa.yaml"),
        include_str!("../../../../k8s/base/service.yaml"),
    ];
    let (cluster, region) = inputs::cluster(include_str!("../../../../cluster-config.yaml"))?;
    let mut function = inputs::function(include_str!("../../../../template.yaml"))?;
    function.throttle = None;
    let mut traffic = Traffic::parse(traffic)?;
    (traffic.noise, traffic.seed) = (0.1, 1);
    Ok(Scenario {
        cluster,
        workload: inputs::workload(&manifests.join("\n---\n"))?,
        pipeline: Pipeline::default(),
        function,
        profile: Profile::parse(profile)?,
        lambda_profile: None,
        traffic,
        span: Span::of(seconds)?,
        prices: Prices::of(&region)?,
        has_free_tier: false,
    })
}

/// All of them there from the start, and a load that keeps them about where they are.
fn many() -> Result<Scenario, String> {
    let mut scenario = scenario("constant:500000", "cpu=1ms", HOUR)?;
    let hpa = scenario.workload.hpa.as_mut().ok_or("no autoscaler")?;
    (hpa.min_replicas, hpa.max_replicas) = (PODS, 2 * PODS);
    (scenario.cluster.nodes, scenario.cluster.max_nodes) = (1000, 1000);
    Ok(scenario)
}

fn cpu() -> nix::Result<Duration> {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map(Duration::from)
}
