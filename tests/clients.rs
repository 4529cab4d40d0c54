//! The programs that people reach an echo server with: OpenBSD's netcat, ncat and socat.
//!
//! One line for each, at the end of the file; several models are asked. netcat ends with 0 even without an
//! echo, so it is the output that is compared.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{Read, Write};
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

/// When a client's input ends.
#[derive(Clone, Copy, PartialEq)]
enum Input {
    /// At once: the client waits for the end of the answer.
    Ends,
    /// When the answer is there: ncat over UDP goes with its input, and leaves the answer behind.
    Waits,
}

/// Runs a command with this input to its end; returns its output.
fn talk(command: &str, bytes: Vec<u8>, input: Input) -> Vec<u8> {
    let mut child = Command::new("timeout")
        .arg("15")
        .args(command.split(' '))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let awaited = if input == Input::Waits { bytes.len() as u64 } else { 0 };
    let (answered, until_answered) = std::sync::mpsc::channel::<()>();
    let writer = std::thread::spawn(move || {
        // a client that ends early breaks the pipe
        let _ = stdin.write_all(&bytes);
        let _ = until_answered.recv();
    });
    let mut answer = Vec::new();
    stdout.by_ref().take(awaited).read_to_end(&mut answer).unwrap();
    drop(answered);
    stdout.read_to_end(&mut answer).unwrap();
    writer.join().unwrap();
    let ended = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{command}: {}: {errors}", ended.status);
    answer
}

fn echoes(tool: &str, command: &str, inputs: &[Vec<u8>], input: Input) {
    if !has(tool) {
        return;
    }
    for model in ["fork", "prefork", "iterative", "thread", "event", "coroutine"] {
        let daemon = Forkd::new(&format!("-m {model} {ENDPOINTS}")).start();
        for bytes in inputs {
            let command = fill_in(command, &daemon);
            let output = talk(&command, bytes.clone(), input);
            let text = String::from_utf8_lossy(&output[..output.len().min(200)]).into_owned();
            assert!(
                output == *bytes,
                "{model}: {command}: {} bytes for {}: {text:?}",
                output.len(),
                bytes.len()
            );
        }
    }
}

macro_rules! client {
    ($name:ident: stream $tool:literal $command:literal) => {
        #[test]
        fn $name() {
            let inputs = [b"hello\nworld".to_vec(), noise(1, BULK)];
            echoes($tool, concat!($tool, " ", $command), &inputs, Input::Ends);
        }
    };
    ($name:ident: datagram $tool:literal $command:literal) => {
        client!(@datagram $name, Ends, $tool $command);
    };
    ($name:ident: held_datagram $tool:literal $command:literal) => {
        client!(@datagram $name, Waits, $tool $command);
    };
    (@datagram $name:ident, $input:ident, $tool:literal $command:literal) => {
        #[test]
        fn $name() {
            let inputs = [b"hello\n".to_vec(), noise(1, 1400)];
            echoes($tool, concat!($tool, " ", $command), &inputs, Input::$input);
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
client!(ncat_udp4: held_datagram "ncat" "-u 127.0.0.1 {udp4}");
client!(ncat_udp6: held_datagram "ncat" "-u -6 ::1 {udp6}");
client!(ncat_unixgram: held_datagram "ncat" "-uU {dir}/datagram");
client!(socat_tcp4: stream "socat" "-t1 - TCP4:127.0.0.1:{tcp4}");
client!(socat_tcp6: stream "socat" "-t1 - TCP6:[::1]:{tcp6}");
client!(socat_unix: stream "socat" "-t1 - UNIX-CONNECT:{dir}/stream");
client!(socat_udp4: datagram "socat" "-t.3 - UDP4:127.0.0.1:{udp4}");
client!(socat_udp6: datagram "socat" "-t.3 - UDP6:[::1]:{udp6}");
client!(socat_unixgram: datagram "socat" "-t.3 - UNIX-SENDTO:{dir}/datagram,bind={dir}/client");
