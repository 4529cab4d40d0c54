//! Clients of other authors, each with the service that it was made for: rdate, the checks of
//! monitoring systems, netcat; and nmap, which tells services by their answers.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use common::{Daemon, Forkd, need, need_root, need_tool, under_models};

/// Runs a command, with the daemon's ports filled in, and returns what it says.
#[track_caller]
fn says(daemon: &Daemon, command: &str) -> String {
    let port = |scheme| daemon.address(scheme).port().to_string();
    let command = command.replace("{tcp}", &port("tcp")).replace("{udp}", &port("udp"));
    let output =
        Command::new("timeout").args(["20", "sh", "-c", &command]).env("TZ", "UTC").output().unwrap();
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command}: {}: {out}{errors}", output.status);
    out.into_owned()
}

fn service(model: &str, service: &str) -> Daemon {
    let endpoints = "tcp://127.0.0.1:0 udp://127.0.0.1:0";
    Daemon::start(&format!("{model} --service {service} {endpoints} --allow-amplification"))
}

/// Seconds since 1970, of a date as date(1) reads it.
fn seconds(date: &str) -> u64 {
    let output = Command::new("date").args(["-u", "+%s", "-d", date]).output().unwrap();
    assert!(output.status.success(), "no date: {date:?}");
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap()
}

#[track_caller]
fn is_now(date: &str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!(seconds(date).abs_diff(now) < 20, "{date:?}");
}

under_models! {
    [fork spare prefork iterative thread event coroutine]

    fn rdate_tells_the_time(model) {
        if need_tool("rdate") {
            is_now(&says(&service(model, "time"), "rdate -p -o {tcp} 127.0.0.1"));
        }
    }

    fn the_monitor_s_check_of_the_clock_is_content(model) {
        let check = "/usr/lib/nagios/plugins/check_time";
        if need(std::path::Path::new(check).exists(), "check_time (monitoring-plugins) is not installed") {
            let daemon = service(model, "time");
            for transport in ["-p {tcp}", "-u -p {udp}"] {
                let answer = says(&daemon, &format!("{check} -H 127.0.0.1 {transport} -w 20 -c 30"));
                assert!(answer.starts_with("TIME OK"), "{answer}");
            }
        }
    }

    fn netcat_reads_the_old_services(model) {
        if !need_tool("nc") {
            return;
        }
        let daytime = service(model, "daytime");
        is_now(&says(&daytime, "nc -d -w 5 127.0.0.1 {tcp}"));
        is_now(&says(&daytime, "echo | nc -u -w 1 127.0.0.1 {udp}"));
        let chargen = service(model, "chargen");
        let text = says(&chargen, "nc -d -w 5 127.0.0.1 {tcp} | head -n 96");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() == 96 && lines.iter().all(|line| line.trim_end().len() <= 72), "{text}");
        assert_eq!(lines[0], lines[95]);
        let nothing = says(&service(model, "discard"), "yes | head -c 1000000 | nc -N -w 5 127.0.0.1 {tcp}");
        assert_eq!(nothing, "");
    }
}

/// In a network of its own, where discard and http can have the ports that nmap expects them at.
///
/// echo, daytime, chargen and time are known by what they answer, on whichever port. discard says nothing, so
/// its port is all there is to go by: nmap says "discard?". http has no general entry in nmap's table of
/// answers (7.93: each names a product); on a port for http, its script asks for the name of the server. It
/// does so by itself from `--version-intensity 7`, the default, on; here it is told to, as all probes of that
/// intensity take more than a minute.
#[test]
fn nmap_recognises_each_service() {
    if !(need_root() && need_tool("nmap") && need_tool("unshare") && need_tool("nsenter") && need_tool("ip"))
    {
        return;
    }
    let up = "ip link set lo up && exec \"$0\" \"$@\"";
    let forkd = Forkd::new("--config {dir}/f.toml").within(&["unshare", "--net", "sh", "-c", up]);
    let services =
        [("echo", 2007), ("discard", 9), ("daytime", 2013), ("chargen", 2019), ("time", 2037), ("http", 80)];
    let table = |(service, port): &(&str, u16)| {
        format!("[[listen]]\nservice = '{service}'\nendpoints = ['tcp://127.0.0.1:{port}']\n")
    };
    std::fs::write(forkd.dir.path().join("f.toml"), services.iter().map(table).collect::<String>()).unwrap();
    let daemon = forkd.start();
    let scan = |options: &[&str]| {
        let pid = daemon.pid().to_string();
        let mut nmap = Command::new("timeout");
        nmap.args(["120", "nsenter", "--net", "--target", &pid, "nmap", "-n", "-Pn", "-sT", "-sV"]);
        let found = nmap.args(["--version-light", "127.0.0.1"]).args(options).stderr(Stdio::inherit());
        found.stdout(Stdio::piped()).spawn().unwrap()
    };
    // beside each other: what nmap does is mostly to wait
    let scans =
        [scan(&["-p", "9,2007,2013,2019,2037"]), scan(&["-p", "80", "--script", "+http-server-header"])];
    let text: String =
        scans.map(|scan| String::from_utf8(scan.wait_with_output().unwrap().stdout).unwrap()).concat();
    for (service, port) in services {
        let line = text.lines().find(|line| line.starts_with(&format!("{port}/tcp")));
        let words: Vec<&str> = line.unwrap_or_default().split_whitespace().collect();
        let expected: &[&str] = match service {
            "discard" => &["open", "discard?"],
            "http" => &["open", "http", "forkd"],
            "time" => &["open", "time", "(32", "bits)"],
            service => &["open", service],
        };
        assert_eq!(words.get(1..), Some(expected), "{service}: {text}");
    }
}

/// This program again, where no client is installed.
#[test]
fn what_is_skipped_is_summed_up_at_the_end() {
    let this = std::env::current_exe().unwrap();
    let without_clients = |required: &str| {
        let mut command = Command::new(&this);
        command.args(["rdate", "netcat"]).env("PATH", "").env("FORKD_REQUIRE_SYSTEM", required);
        command.output().unwrap()
    };
    let output = without_clients("0");
    let said = String::from_utf8_lossy(&output.stderr);
    let summary = ": 14 tests were skipped:\n    7  nc is not installed\n    7  rdate is not installed\n\n";
    assert!(output.status.success() && said.ends_with(summary), "{said}");
    assert!(!without_clients("1").status.success(), "a skip is a failure");
}
