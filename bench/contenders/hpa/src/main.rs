//! The autoscaler's rules: prints milliseconds of CPU for one decision about 10,000 pods (`WORK=decision`), or seconds
//! of CPU for a year of syncs with 100 pods (`WORK=year`).

use std::{error::Error, hint::black_box, io::Write, time::Duration};

use math_service::lab::hpa::{
    Config,
    controller::{Reading, Scale, Selection, State, Sync},
    objects,
    pods::{Observation, Phase, Pod, Sample, Truth, align},
    spec::Hpa,
};
use nix::time::{ClockId, clock_gettime};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// CPU time to spend on decisions; the last may exceed it.
const ENOUGH: Duration = Duration::from_secs(1);

/// A sync every 15 seconds.
const SYNC_MS: i64 = 15_000;
const SYNCS_A_YEAR: i64 = 365 * 24 * 3600 * 1000 / SYNC_MS;

const MANIFEST: &str = "
kind: HorizontalPodAutoscaler
metadata: {name: web, namespace: default}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 1
  maxReplicas: 20000
  metrics:
  - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}
  behavior:
    scaleUp: {stabilizationWindowSeconds: 0, policies: [{type: Percent, value: 100, periodSeconds: 60}]}
    scaleDown: {stabilizationWindowSeconds: 300, policies: [{type: Percent, value: 50, periodSeconds: 60}]}
";

fn main() -> Result<(), Box<dyn Error>> {
    let hpa = objects::read(MANIFEST)?.hpas.into_iter().next().ok_or("no autoscaler")?.0;
    let figure = match std::env::var("WORK")?.as_str() {
        "decision" => decision(&hpa)?,
        "year" => year(&hpa)?,
        work => return Err(format!("there is no WORK={work}").into()),
    };
    Ok(writeln!(std::io::stdout(), r#"{{"figure": {figure}}}"#)?)
}

fn cpu() -> nix::Result<Duration> {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map(Duration::from)
}

/// Pods of which every tenth is in its first minutes: readiness is looked at, not passed over.
fn pods(count: usize, now_ms: i64) -> Vec<Pod> {
    let started = |index: usize| now_ms - if index.is_multiple_of(10) { 60_000 } else { 3_600_000 };
    let pod = |start_ms: i64| Pod {
        phase: Phase::Running,
        deleted: false,
        ready: Some((Truth::True, start_ms + 2000)),
        start_ms: Some(start_ms),
    };
    (0..count).map(|index| pod(started(index))).collect()
}

fn sync(
    state: &mut State,
    hpa: &Hpa,
    config: &Config,
    now_ms: i64,
    (pods, samples, requests): (&[Pod], &[Option<Sample>], &[i64]),
) -> i32 {
    let current = i32::try_from(pods.len()).unwrap_or(i32::MAX);
    let scale = Scale { spec: current, status: current, selector: Selection::Usable };
    let readings = [Reading::Pods(Observation { pods, samples, strays: &[], requests: Ok(requests) })];
    let sync = Sync { now_ms, scale: Ok(&scale), update_error: None, pods, readings: &readings };
    state.sync(hpa, &sync, config).replicas
}

/// From pods and samples with names, in the order of the API, to the new status.
fn decision(hpa: &Hpa) -> Result<f64, Box<dyn Error>> {
    const PODS: usize = 10_000;
    let config = Config::of(35);
    let now_ms = 1_000_000_000;
    let names: Vec<String> = (0..PODS).map(|index| format!("web-7d78889cbf-{index:05}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let sample = |value_milli| Sample { at_ms: now_ms, window_ms: 15_000, value_milli };
    let named: Vec<(&str, Sample)> =
        names.iter().zip(0..).map(|(name, index)| (*name, sample(60 + index % 30))).collect();
    let (pods, requests) = (pods(PODS, now_ms), vec![100; PODS]);
    let began = cpu()?;
    let mut decisions = 0;
    while cpu()? - began < ENOUGH {
        let aligned = align(black_box(&names), black_box(&named).iter().copied());
        let mut state = State::default();
        black_box(sync(&mut state, hpa, &config, now_ms, (&pods, &aligned.samples, &requests)));
        decisions += 1;
    }
    Ok((cpu()? - began).as_secs_f64() * 1e3 / f64::from(decisions))
}

/// The load wavers, and jumps every half hour; the pods stay 100, so that every sync is as much work.
fn year(hpa: &Hpa) -> Result<f64, Box<dyn Error>> {
    const PODS: usize = 100;
    let config = Config::of(35);
    let (mut state, requests) = (State::default(), vec![100; PODS]);
    let mut pods = pods(PODS, 0);
    let mut samples = vec![None; PODS];
    let began = cpu()?;
    for index in 0..SYNCS_A_YEAR {
        let now_ms = index * SYNC_MS;
        let value_milli = if index % 120 == 0 { 80 } else { 48 + index % 5 };
        samples.fill(Some(Sample { at_ms: now_ms, window_ms: 15_000, value_milli }));
        // One pod after the other is a new one.
        pods[index as usize % PODS].start_ms = Some(now_ms - 60_000);
        black_box(sync(&mut state, hpa, &config, now_ms, (&pods, &samples, &requests)));
    }
    Ok((cpu()? - began).as_secs_f64())
}
