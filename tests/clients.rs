//! The programs that people reach an echo server with: OpenBSD's netcat, ncat and socat.
//!
//! One line for each, at the end of the file; several models are asked. netcat ends with 0 even without an
//! echo, so it is the output that is compared.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::Write;
use std::process::{Command, Stdio};

use common::wire::noise;
use common::{Daemon, Forkd, need, need_tool};

const ENDPOINTS: &str = "tcp://127.0.0.1:0 udp://127.0.0.1:0 tcp://[::1]:0 udp://[::1]:0 \
    unix://{dir}/stream unixgram://{dir}/datagram";

/// More than any buffer on the way, and with every byte in it.
const BULK: usize = 700_000;

fn has(tool: &str) -> bool {
    // there are several programs called nc
    need_tool(tool) && (tool != "nc" || need(is_openbsd_nc(), "nc is not OpenBSD's"))
}

fn is_openbsd_nc() -> bool {
    let help = Command::new("nc").arg("-h").output().unwrap();
    String::from_utf8_lossy(&[help.stdout, help.stderr].concat()).contains("OpenBSD")
}

/// Fills in `{tcp4}` and the like, each with a port, and `{dir}`.
fn fill_in(command: &str, daemon: &Daemon) -> String {
    let mut command = command.replace("{dir}", daemon.dir.path().to_str().unwrap());
    for endpoint in daemon.endpoints() {
        let (name, rest) = match endpoint.split_once("://").unwrap() {
            (scheme, rest) if rest.starts_with('[') => (format!("{{{scheme}6}}"), rest),
            (scheme, rest) => (format!("{{{scheme}4}}"), rest),
        };
        command = command.replace(&name, rest.rsplit_once(':').map_or("", |(_, port)| port));
    }
    assert!(!command.contains('{'), "{command}");
    command
}

/// Runs a command with this input to its end; returns its output.
fn talk(command: &str, input: Vec<u8>) -> Vec<u8> {
    let mut child = Command::new("timeout")
        .arg("15")
        .args(command.split(' '))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // the pipe is closed at the end; a client that ends early breaks it
    let writer = std::thread::spawn(move || _ = stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {}: {errors}", output.status);
    output.stdout
}

fn echoes(tool: &str, command: &str, inputs: &[Vec<u8>]) {
    if !has(tool) {
        return;
    }
    for model in ["fork", "prefork", "thread", "event", "coroutine"] {
        let daemon = Forkd::new(&format!("-m {model} {ENDPOINTS}")).start();
        for input in inputs {
            let command = fill_in(command, &daemon);
            let output = talk(&command, input.clone());
            let text = String::from_utf8_lossy(&output[..output.len().min(200)]).into_owned();
            assert!(
                output == *input,
                "{model}: {command}: {} bytes for {}: {text:?}",
                output.len(),
                input.len()
            );
        }
    }
}

macro_rules! client {
    ($name:ident: stream $tool:literal $command:literal) => {
        #[test]
        fn $name() {
            echoes($tool, concat!($tool, " ", $command), &[b"hello\nworld".to_vec(), noise(1, BULK)]);
        }
    };
    ($name:ident: datagram $tool:literal $command:literal) => {
        #[test]
        fn $name() {
            echoes($tool, concat!($tool, " ", $command), &[b"hello\n".to_vec(), noise(1, 1400)]);
        }
    };
}

client!(nc_tcp4: stream "nc" "-N 127.0.0.1 {tcp4}");
client!(nc_tcp6: stream "nc" "-N ::1 {tcp6}");
client!(nc_tcp_by_name: stream "nc" "-N -4 localhost {tcp4}");
client!(nc_unix: stream "nc" "-NU {dir}/stream");
client!(nc_udp4: datagram "nc" "-u -w1 127.0.0.1 {udp4}");
client!(nc_udp6: datagram "nc" "-u -w1 ::1 {udp6}");
client!(nc_unixgram: datagram "nc" "-uU -w1 {dir}/datagram");
client!(ncat_tcp4: stream "ncat" "127.0.0.1 {tcp4}");
client!(ncat_tcp6: stream "ncat" "-6 ::1 {tcp6}");
client!(ncat_unix: stream "ncat" "-U {dir}/stream");
client!(socat_tcp4: stream "socat" "-t1 - TCP4:127.0.0.1:{tcp4}");
client!(socat_tcp6: stream "socat" "-t1 - TCP6:[::1]:{tcp6}");
client!(socat_unix: stream "socat" "-t1 - UNIX-CONNECT:{dir}/stream");
client!(socat_udp4: datagram "socat" "-t.3 - UDP4:127.0.0.1:{udp4}");
client!(socat_udp6: datagram "socat" "-t.3 - UDP6:[::1]:{udp6}");
client!(socat_unixgram: datagram "socat" "-t.3 - UNIX-SENDTO:{dir}/datagram,bind={dir}/client");
