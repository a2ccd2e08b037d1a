//! The lab's command from the outside: what docs/lab.md shows is what it prints.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at the first surprise")]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

fn lab(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_math-lab"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn printed(arguments: &[&str]) -> String {
    let output = lab(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The page's blocks of commands: each command with what follows it.
fn shown(page: &str) -> Vec<(Vec<&str>, String)> {
    let mut commands: Vec<(Vec<&str>, String)> = Vec::new();
    let mut is_open = false;
    for line in page.lines() {
        if line.starts_with("```") {
            is_open = line == "```console";
        } else if is_open {
            match line.strip_prefix("$ math-lab ") {
                Some(command) => commands.push((command.split_whitespace().collect(), String::new())),
                None if line.starts_with("$ ") => commands.push((Vec::new(), String::new())),
                None => {
                    let (_, output) = commands.last_mut().expect("output follows a command");
                    output.push_str(line);
                    output.push('\n');
                }
            }
        }
    }
    commands
}

#[test]
fn docs_lab_md_shows_what_its_commands_print() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/lab.md")).unwrap();
    let commands = shown(&page);
    assert!(commands.iter().filter(|(command, _)| !command.is_empty()).count() >= 4);
    for (command, expected) in
        commands.iter().filter(|(command, output)| !command.is_empty() && !output.is_empty())
    {
        assert_eq!(&printed(command), expected, "math-lab {}", command.join(" "));
    }
}

/// Figures in the page's sentences are those of its tables.
#[test]
fn amounts_in_the_text_of_docs_lab_md_are_in_its_outputs() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/lab.md")).unwrap();
    let outputs: String = shown(&page).into_iter().map(|(_, output)| output).collect();
    let mut is_open = false;
    for line in page.lines() {
        if line.starts_with("```") {
            is_open = !is_open;
        } else if !is_open {
            for word in line.split(|c: char| !(c.is_ascii_digit() || matches!(c, '$' | ',' | '.'))) {
                let word = word.trim_end_matches(['.', ',']);
                if word.starts_with('$') && word.len() > 1 {
                    assert!(outputs.contains(word), "{word} in {line:?} is printed by no command");
                }
            }
        }
    }
}

#[test]
fn json_is_one_document_and_adds_up() {
    let text = printed(&["compare", "--json", "--duration", "1h", "--traffic", "constant:20"]);
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    for target in ["eks", "lambda"] {
        let requests = &document[target]["requests"];
        let of = |name: &str| requests[name].as_f64().unwrap();
        let out = of("served") + of("shed") + of("failed") + of("waiting");
        assert!((of("arrived") - out).abs() < 1e-3, "{requests}");
        assert!(document[target]["month"]["usd"].as_f64().unwrap() > 0.0);
    }
    assert_eq!(document["verdict"]["reasons"].as_array().unwrap().len(), 3);
}

#[test]
fn charts_and_page_need_nothing_from_elsewhere() {
    let directory = std::env::temp_dir().join(format!("math-lab-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (svg, html) = (directory.join("a.svg"), directory.join("a.html"));
    let hour =
        ["compare", "--duration", "1h", "--svg", svg.to_str().unwrap(), "--html", html.to_str().unwrap()];
    printed(&hour);
    let (svg, html) = (std::fs::read_to_string(&svg).unwrap(), std::fs::read_to_string(&html).unwrap());
    std::fs::remove_dir_all(&directory).unwrap();
    assert!(svg.starts_with("<svg") && svg.matches("<path class=").count() >= 9, "{}", &svg[..200]);
    assert!(html.contains("<svg") && html.contains("Take "));
    assert!(html.contains("prefers-color-scheme:dark") && svg.contains("prefers-color-scheme:dark"));
    for outside in ["src=", "href=", "@import", "<script"] {
        assert!(!html.contains(outside), "{outside}");
    }
}

#[test]
fn traffic_and_profile_come_from_files_too() {
    let directory = std::env::temp_dir().join(format!("math-lab-files-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let profile = file("profile.json", r#"{"cpu_ms": 2, "wait_ms": 5}"#);
    let arrived = |traffic: &str| {
        let text = printed(&[
            "simulate",
            "lambda",
            "--json",
            "--duration",
            "10m",
            "--traffic",
            traffic,
            "--profile",
            &profile,
        ]);
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["requests"]["arrived"].as_f64().unwrap()
    };
    assert!(
        (arrived(&file("spike.yaml", "shape: spike\nbase: 1\npeak: 9\nat: 60\nfor: 60\n")) - 1080.0).abs()
            < 1e-6
    );
    assert!(
        (arrived(&file("points.yaml", "{shape: points, points: [[0, 1], [300, 2]]}")) - 900.0).abs() < 1e-6
    );
    let history = "Timestamp,User Count,Type,Name,Requests/s\n100,1,,Aggregated,1\n103,1,,Aggregated,4\n";
    assert!((arrived(&file("run_stats_history.csv", history)) - (3.0 + 597.0 * 4.0)).abs() < 1e-6);
    let wrong = file("wrong.yaml", "shape: spike\nbase: 1\npeek: 9\nat: 60\nfor: 60\n");
    let error = String::from_utf8(lab(&["simulate", "--traffic", &wrong]).stderr).unwrap();
    assert!(error.contains("peek") && error.lines().count() == 1, "{error}");
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn what_is_wrong_is_said_in_a_line() {
    for (arguments, expected) in [
        (vec!["simulate", "--traffic", "wave:1..2"], "is no traffic"),
        (vec!["simulate", "--traffic", "constant:-5"], "not between 0"),
        (vec!["simulate", "--duration", "2y"], "no time"),
        (vec!["simulate", "--duration", "400d"], "no time"),
        (vec!["compare", "--profile", "gpu=1"], "a profile has no"),
        (vec!["compare", "--manifests", "no-such-file"], "no-such-file"),
        (vec!["compare", "--manifests", "k8s/overlays/demo"], "kubectl kustomize"),
        (vec!["compare", "--region", "mars-north-1"], "no prices"),
        (vec!["crossover", "--memory", "64"], "128 to 10240"),
    ] {
        let output = lab(&arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(expected), "{arguments:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

/// A service of its own on this machine; it ends with the test.
struct Service {
    process: std::process::Child,
    url: String,
}

impl Service {
    fn start(delay: &str) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_math-service"))
            .envs([("HOST", "127.0.0.1"), ("PORT", "0"), ("ADD_DELAY", delay)])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        // Its first line says where it listens; the others are nobody's.
        let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, url: format!("http://{}", first["address"].as_str().unwrap()) }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn refused(arguments: &[&str]) -> String {
    let output = lab(arguments);
    assert!(!output.status.success() && output.stdout.is_empty(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_running_service_is_profiled_and_the_profile_is_one_that_simulate_takes() {
    let service = Service::start("20ms");
    let output = lab(&["profile", &service.url, "--requests", "1000", "--concurrency", "50", "--idle", "1"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("one at a time: 100 of 100"), "{said}");
    assert!(said.contains("50 at a time: 900 of 900"), "{said}");
    let profile: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |name: &str| profile[name].as_f64().unwrap();
    // Nothing waits less than it was told to, and the rest is no judgement of this machine.
    assert!(of("cpu_ms") > 0.0 && of("cpu_ms") + of("wait_ms") >= 20.0, "{profile}");
    assert!(
        of("memory_mib") > 1.0 && of("request_bytes") > 100.0 && of("response_bytes") > 100.0,
        "{profile}"
    );
    let path = std::env::temp_dir().join(format!("math-lab-profile-{}.json", std::process::id()));
    std::fs::write(&path, &output.stdout).unwrap();
    let text = printed(&["simulate", "lambda", "--duration", "1h", "--profile", path.to_str().unwrap()]);
    std::fs::remove_file(&path).unwrap();
    assert!(text.contains("Lambda: 1h of"), "{text}");
}

#[test]
fn what_cannot_be_profiled_is_said() {
    let service = Service::start("0s");
    let few = ["--requests", "10", "--idle", "1"];
    let said = |more: &[&str]| refused(&[&["profile", &service.url], &few[..], more].concat());
    assert!(said(&["--body", "{}"]).contains("status 422"));
    assert!(said(&["--path", "/nowhere"]).contains("status 404"));
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(refused(&["profile", &format!("http://{nobody}")]).contains("/metrics: "));
    assert!(refused(&["profile", "localhost:8000"]).contains("is no address such as"));
    assert!(refused(&["profile", &format!("{}/elsewhere", service.url)]).contains("profile it from its log"));
    assert!(refused(&["profile"]).contains("give an address, or --reports"));
    assert!(refused(&["profile", &service.url, "--reports", "-"]).contains("cannot be used with"));
    assert!(refused(&["profile", "--reports", "Cargo.toml"]).contains("no REPORT lines"));
}

#[test]
fn an_answer_that_never_comes_ends_at_the_deadline() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    assert!(refused(&["profile", &url, "--timeout", "1"]).contains("no answer within 1 s"));
}

/// A run of 600 requests, a tenth of a second apart, that take so long, every tenth of them five milliseconds more.
fn recorded(ms: f64, failed: usize) -> String {
    let mut csv = String::from("started,method,name,status,ms,failed,request_id\n");
    for index in 0..600 {
        let took = ms + (index * 7 % 10) as f64 / 10.0 + if index % 10 == 3 { 5.0 } else { 0.0 };
        let is_failed = u8::from(index < failed);
        csv += &format!("{:.1},POST,/,200,{took},{is_failed},id-{index}\n", 1e9 + index as f64 / 10.0);
    }
    csv
}

#[test]
fn two_runs_are_compared_and_what_is_no_difference_is_said() {
    let directory = std::env::temp_dir().join(format!("math-lab-report-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    file("eks_requests.csv", &recorded(5.0, 0));
    file("lambda_requests.csv", &recorded(8.0, 2));
    let mut log = String::new();
    for index in 0..600 {
        let init = if index % 60 == 0 { "Init Duration: 20.5 ms\t" } else { "" };
        log += &format!(
            "REPORT RequestId: id-{index}\tDuration: 3.2 ms\tBilled Duration: 4 ms\tMemory Size: 1024 MB\t\
             Max Memory Used: 30 MB\t{init}\n"
        );
    }
    let log = file("lambda.log", &log);
    let (eks, lambda) = (directory.join("eks"), directory.join("lambda"));
    let (eks, lambda) = (eks.to_str().unwrap(), lambda.to_str().unwrap());

    let text = printed(&["report", eks, lambda]);
    assert_eq!(
        text,
        printed(&["report", eks, &format!("{lambda}_requests.csv")]),
        "the same seed, the same text"
    );
    let difference = text.lines().find(|line| line.starts_with("  p50")).unwrap();
    assert!(difference.contains("+3.0") && !difference.contains("not significant"), "{text}");
    assert!(text.contains("do not tell the targets apart in: failed of POST /."), "{text}");
    assert!(text.contains("because no --reports were given"), "{text}");

    let json: serde_json::Value =
        serde_json::from_str(&printed(&["report", eks, lambda, "--reports", &log, "--json"])).unwrap();
    let names: Vec<&str> =
        json["groups"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap()).collect();
    assert_eq!(names[..2], ["POST /", "POST /, cold starts apart"]);
    assert_eq!(json["groups"][1]["requests"]["lambda"], 590);
    assert_eq!(json["groups"][2]["requests"]["lambda"], 10);
    assert_eq!(json["without_report"], 0);
    // 600 times 4 ms of a GB at $0.0000166667, $0.20 and $1.16 a million calls, 1.5 KB each of logs at $0.5985 a GB and
    // 0.4 KB out at $0.09.
    let expected = 2.4 * 0.000_016_666_7 + 600.0 * 1.36e-6 + 600.0 * (1500.0 * 0.5985 + 400.0 * 0.09) / 1e9;
    let usd = json["lambda"]["usd"].as_f64().unwrap();
    assert!((usd / expected - 1.0).abs() < 0.05, "{usd} instead of {expected}");
    let nodes = |count: &str| {
        let json: serde_json::Value =
            serde_json::from_str(&printed(&["report", eks, lambda, "--json", "--nodes", count])).unwrap();
        json["eks"]["usd"].as_f64().unwrap()
    };
    assert!(nodes("9") > nodes("2"));

    let other = file(
        "other.log",
        "REPORT RequestId: x\tDuration: 3 ms\tBilled Duration: 4 ms\tMemory Size: 128 MB\tMax Memory Used: 30 MB\n",
    );
    assert!(refused(&["report", eks, lambda, "--reports", &other]).contains("is it the log of that time"));
    assert!(refused(&["report", eks, "nowhere"]).contains("nowhere_requests.csv"));
    let wrong = file("wrong.csv", "a,b\n1,2\n");
    assert!(refused(&["report", eks, &wrong]).contains("no column started"));
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_page_tells_what_was_measured_and_what_follows_from_it() {
    let path = std::env::temp_dir().join(format!("math-lab-page-{}.html", std::process::id()));
    let arguments = |run: &'static str| {
        let both = ["--eks", run, "--lambda", "tests/data/lab/lambda", "--traffic", "spike:5..60@30m+30m"];
        let profiles = ["--duration", "3h", "--profile", "cpu=5ms", "--lambda-profile", "cpu=5ms,wait=31ms"];
        [&["page", path.to_str().unwrap()], &both[..], &profiles, &["--fact", "Load=<40> & more"]].concat()
    };
    let text = printed(&arguments("tests/data/lab/eks"));
    let page = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    // The same verdict as on the terminal, and the same figures as the commands for either part.
    let verdict = text.lines().find(|line| line.starts_with("Take ")).unwrap();
    let verdict = verdict.strip_suffix(" What weighs most:").unwrap();
    let runs = printed(&["report", "tests/data/lab/eks", "tests/data/lab/lambda"]);
    let p50 = runs.lines().find_map(|line| line.strip_prefix("  p50")).unwrap();
    let p50 = p50.split(" (").next().unwrap().trim();
    for expected in [
        verdict,
        p50,
        "<dd>&lt;40&gt; &amp; more</dd>",
        "31 ms",
        "EKS control plane",
        "pods 2 → 4",
        "may be chance",
    ] {
        assert!(page.contains(expected), "{expected}");
    }
    for outside in ["src=", "href=", "@import", "url(", "<script"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert_eq!(page.matches("<table>").count(), page.matches("</table>").count());
    assert!(refused(&arguments("nowhere")).contains("nowhere_requests.csv"));
}

#[test]
fn a_functions_profile_takes_from_the_containers_what_its_log_does_not_show() {
    let directory = std::env::temp_dir().join(format!("math-lab-container-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (log, container) = (directory.join("lambda.log"), directory.join("eks.json"));
    let line = "REPORT RequestId: a\tDuration: 30 ms\tBilled Duration: 30 ms\tMemory Size: 1769 MB\tMax Memory Used: 12 MB\t";
    std::fs::write(&log, line).unwrap();
    std::fs::write(
        &container,
        r#"{"cpu_ms": 0.5, "wait_ms": 7, "request_bytes": 123, "response_bytes": 456}"#,
    )
    .unwrap();
    let (log, container) = (log.to_str().unwrap(), container.to_str().unwrap());
    let text = printed(&["profile", "--reports", log, "--container", container]);
    let profile: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (name, expected) in [
        ("cpu_ms", 0.5),
        ("wait_ms", 29.5),
        ("memory_mib", 12.0),
        ("request_bytes", 123.0),
        ("response_bytes", 456.0),
    ] {
        assert_eq!(profile[name].as_f64().unwrap(), expected, "{name}");
    }
    assert!(refused(&["profile", "--reports", log, "--container", log]).contains("lambda.log"));
    assert!(
        refused(&["profile", "--reports", log, "--container", container, "--cpu", "1ms"])
            .contains("cannot be used with")
    );
    std::fs::remove_dir_all(&directory).unwrap();
}
