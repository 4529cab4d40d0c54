//! `deploy/`: that its files are valid, agree with each other, and name nothing that forkd doesn't have. What balances
//! connections is run, in `tests/system/`.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::*;

/// What Kubernetes itself doesn't know.
const OTHERS: [&str; 4] = ["Kustomization", "ServiceMonitor", "PrometheusRule", "ScaledObject"];

const ALERTS: &str = "kubernetes/overlays/prometheus/alerts.yaml";

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn file(name: &str) -> String {
    fs::read_to_string(deploy().join(name)).unwrap()
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn manifests() -> Vec<PathBuf> {
    let all = files(&deploy().join("kubernetes"));
    all.into_iter().filter(|path| path.extension().is_some_and(|end| end == "yaml")).collect()
}

fn validate(manifests: &[PathBuf]) -> Output {
    Command::new("kubernetes-validate").arg("--strict").args(manifests).output().unwrap()
}

/// Asserts that they fit the schema of each kind that Kubernetes knows.
#[track_caller]
fn are_valid(manifests: &[PathBuf]) {
    let output = validate(manifests);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    for line in said.lines().filter(|line| !line.contains(" passed for resource ")) {
        assert!(OTHERS.iter().any(|kind| line.contains(&format!("schema for kind {kind} "))), "{line}");
    }
}

#[test]
fn manifests_have_what_kubernetes_asks_for() {
    if !need_tool("kubernetes-validate") {
        return;
    }
    let all = manifests();
    assert!(all.len() > 8, "{all:?}");
    are_valid(&all);
    // it would find a mistake
    let dir = tempfile::tempdir().unwrap();
    let wrong = dir.path().join("wrong.yaml");
    let deployment = file("kubernetes/base/deployment.yaml");
    for (right, mistake) in [("replicas: 2", "replicas: two"), ("livenessProbe:", "livelinessProbe:")] {
        fs::write(&wrong, deployment.replacen(right, mistake, 1)).unwrap();
        assert!(!validate(std::slice::from_ref(&wrong)).status.success(), "{mistake}");
    }
}

#[test]
fn overlays_come_to_valid_manifests() {
    if !need_tool("kubernetes-validate") {
        return;
    }
    let (dir, mut manifests) = (tempfile::tempdir().unwrap(), Vec::new());
    for (overlay, kinds, has_replicas) in [
        ("base", &["ConfigMap", "Service", "Deployment", "PodDisruptionBudget"][..], true),
        ("overlays/prometheus", &["Deployment", "ServiceMonitor", "PrometheusRule"], true),
        ("overlays/hpa", &["Deployment", "ServiceMonitor", "HorizontalPodAutoscaler"], false),
        ("overlays/keda", &["Deployment", "ServiceMonitor", "ScaledObject"], false),
    ] {
        let directory = deploy().join("kubernetes").join(overlay);
        let Ok(output) = Command::new("kubectl").arg("kustomize").arg(directory).output() else {
            eprintln!("left out: there is no kubectl, and Debian's of 2020 is too old for patches");
            return;
        };
        let why = String::from_utf8_lossy(&output.stderr);
        if why.contains("json: cannot unmarshal") {
            eprintln!("left out: this kubectl is too old for patches");
            return;
        }
        assert!(output.status.success(), "{overlay}: {why}");
        let text = String::from_utf8(output.stdout).unwrap();
        for kind in kinds {
            assert!(text.contains(&format!("\nkind: {kind}\n")), "{overlay} has no {kind}");
        }
        assert_eq!(text.contains("\n  replicas: 2\n"), has_replicas, "{overlay}");
        // the pods have the configuration under the name that was made for it
        let (_, named) = text.split_once("kind: ConfigMap\nmetadata:\n  name: ").unwrap();
        let name = named.lines().next().unwrap();
        assert!(name.starts_with("forkd-") && text.matches(name).count() == 2, "{name}");
        let manifest = dir.path().join(overlay.replace('/', "-") + ".yaml");
        fs::write(&manifest, text).unwrap();
        manifests.push(manifest);
    }
    are_valid(&manifests);
}

#[test]
fn pods_are_told_what_their_manifest_says() {
    let config = deploy().join("kubernetes/base/forkd.toml");
    let ended = run(&["check", "--config", config.to_str().unwrap()]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let table: toml::Table = ended.stdout.parse().unwrap();
    let daemon = &table["daemon"];
    let seconds = |key: &str| {
        let text = daemon[key].as_str().unwrap();
        text.strip_suffix('s').and_then(|number| number.parse::<u64>().ok()).expect("seconds")
    };
    let deployment = file("kubernetes/base/deployment.yaml");
    let stop = seconds("drain-delay") + seconds("grace") + 5;
    assert!(deployment.contains(&format!("terminationGracePeriodSeconds: {stop}\n")), "{stop}");
    for port in
        ["containerPort: 7007, protocol: TCP", "containerPort: 7007, protocol: UDP", "containerPort: 9707, "]
    {
        assert!(deployment.contains(port), "{port}");
    }
    let toml = file("kubernetes/base/forkd.toml");
    assert!(
        toml.contains("tcp://[::]:7007")
            && toml.contains("udp://[::]:7007")
            && toml.contains("tcp://[::]:9707")
    );
    // two thirds
    let most =
        table["listen"][0]["workers"].as_str().unwrap().split_once("..").unwrap().1.parse::<u32>().unwrap();
    let target = format!("\"{}\"", most * 2 / 3);
    for overlay in ["hpa", "keda"] {
        let text = file(&format!("kubernetes/overlays/{overlay}/autoscaler.yaml"));
        assert!(
            text.contains(&target) && text.contains(&format!("{most} ")),
            "{overlay}: {target} of {most}"
        );
    }
}

#[test]
fn alerts_fire_when_they_should_and_not_before() {
    let Some(promtool) = tool("promtool").filter(|_| need_tool("promtool")) else { return };
    let dir = tempfile::tempdir().unwrap();
    // what is below "spec:" is a file of rules
    let rules = file(ALERTS);
    let (_, spec) = rules.split_once("\nspec:\n").unwrap();
    let spec: Vec<_> = spec.lines().map(|line| line.strip_prefix("  ").unwrap_or(line)).collect();
    fs::write(dir.path().join("rules.yaml"), spec.join("\n")).unwrap();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/deploy/alerts.yaml");
    fs::copy(&tests, dir.path().join("alerts.yaml")).unwrap();
    let output = Command::new(promtool)
        .args(["test", "rules", "alerts.yaml"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    // each alert has a test in which it fires
    let tests = fs::read_to_string(tests).unwrap();
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(tests.contains(&format!("alertname: {alert}\n        exp_alerts:\n")), "{alert} has no test");
    }
}

#[test]
fn what_the_page_on_scaling_serves_is_valid() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/SCALING.md")).unwrap();
    let commands: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("    forkd serve ")).collect();
    assert!(commands.len() >= 3, "{commands:?}");
    for command in commands {
        let ended = run(&[&["check"], &command.split(' ').collect::<Vec<_>>()[..]].concat());
        assert_eq!(ended.code, Some(0), "{command}: {}", ended.stderr);
    }
}

#[test]
fn each_metric_that_is_named_is_one_of_forkds() {
    let daemon = Daemon::start("-m event -w 2 --metrics tcp://127.0.0.1:0 tcp://127.0.0.1:0");
    let line = daemon.wait_for_line("metrics at http://");
    let (_, address) = line.split_once("http://").unwrap();
    let mut stream = connect(address.strip_suffix("/metrics").unwrap().parse().unwrap()).unwrap();
    std::io::Write::write_all(&mut stream, b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let text = std::io::read_to_string(stream).unwrap();
    // those that have no value yet are described
    let name = |line: &str| line.trim_start_matches("# TYPE ").split(['{', ' ']).next().map(str::to_owned);
    let exposed: BTreeSet<_> = text.lines().filter_map(name).collect();
    let is_part = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    let mut named = 0;
    let scaling = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/SCALING.md");
    for path in files(&deploy()).into_iter().chain([scaling]) {
        let text = fs::read_to_string(&path).unwrap();
        for name in text.split(is_part).filter(|word| word.starts_with("forkd_")) {
            assert!(exposed.contains(name), "{}: {name}", path.display());
            named += 1;
        }
    }
    assert!(named > 8, "{named}");
}
