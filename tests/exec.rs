//! The exec service: a program for each connection, under each model that can run a handler.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;

use std::time::Duration;

use common::*;
use nix::sys::signal::{SigSet, Signal};

/// A daemon whose first words are options, and whose program is this line of shell.
fn shell(options: &str, line: &str) -> Daemon {
    command(options, &["sh", "-c", line]).start()
}

fn command(options: &str, words: &[&str]) -> Forkd {
    words.iter().fold(Forkd::new(options).arg("--exec"), |forkd, word| forkd.arg(word))
}

/// What a client gets that sends this and then no more.
fn dialogue(mut client: UnixStream, says: &[u8]) -> String {
    client.write_all(says).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut heard = String::new();
    client.read_to_string(&mut heard).unwrap();
    heard
}

/// The next line, without its end.
fn line(client: &mut UnixStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while client.read(&mut byte).unwrap() == 1 && byte != [b'\n'] {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

/// Whether a process has executed the program of this name, which closes what the shell has open for itself.
fn is_program(pid: i32, name: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == name)
}

/// The pid that the program has told in a line.
fn pid(client: &mut UnixStream) -> i32 {
    line(client).parse().unwrap()
}

fn are_gone(pids: &[i32]) -> bool {
    !pids.iter().any(|&pid| is_running(pid))
}

under_models! {
    [fork spare prefork iterative thread coroutine]

    fn cat_echoes_and_a_half_close_gets_the_rest(model) {
        for endpoint in ["tcp://127.0.0.1:0", "tcp://[::1]:0", "unix://{dir}/s"] {
            let daemon = command(&format!("{model} {endpoint}"), &["cat", "-u"]).start();
            for _ in 0..3 {
                let mut client = wire::stream(&daemon);
                echoes(&mut client, b"hello");
                assert_eq!(dialogue(client, b"and the rest"), "and the rest");
            }
        }
    }

    fn a_line_of_shell_is_a_service(model) {
        let daemon = shell(model, "read name; echo \"Hello, $name\"");
        let mut client = wire::stream(&daemon);
        client.write_all(b"World\n").unwrap();
        assert_eq!(line(&mut client), "Hello, World");
        // it has ended by itself, so the connection has, too
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }

    fn a_large_transfer_passes_both_ways(model) {
        let daemon = command(model, &["cat"]).start();
        let payload = wire::noise(7, 8 << 20);
        let mut client = wire::stream(&daemon);
        let sender = wire::send_aside(&client, payload.clone());
        let mut back = Vec::new();
        client.read_to_end(&mut back).unwrap();
        sender.join().unwrap().unwrap();
        assert!(back == payload, "{} of {} bytes came back, or others", back.len(), payload.len());
        eventually("what was carried is counted", || {
            let listener = daemon.listener(0);
            listener["bytes_in"] == payload.len() && listener["bytes_out"] == payload.len()
        });
    }

    fn the_program_has_the_limits_of_the_caller(model) {
        let tell = "ulimit -Sn; ulimit -Hn; ulimit -c; umask; pwd";
        let caller = format!("umask 027; ulimit -c 0; ({tell}) >{{dir}}/caller; exec \"$0\" \"$@\"");
        let forkd = command(model, &["sh", "-c", tell]).limit(libc::RLIMIT_NOFILE, 256);
        let daemon = forkd.within(&["sh", "-c", &caller]).start();
        let expected = std::fs::read_to_string(daemon.path("caller")).unwrap();
        assert_eq!(dialogue(wire::stream(&daemon), b""), expected);
    }

    fn the_program_has_the_signals_of_the_caller(model) {
        let tell = ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"];
        let blocked = SigSet::from_iter([Signal::SIGUSR2, Signal::SIGPROF]);
        // what forkd or the Rust runtime change for themselves, among others
        for ignored in ["CONT", "CONT,PIPE,XFSZ,HUP,INT,USR1,WINCH,CHLD"] {
            let env = ["env".to_owned(), format!("--ignore-signal={ignored}")];
            let env = env.each_ref().map(|word| &**word);
            blocked.thread_block().unwrap();
            let daemon = command(model, &tell).within(&env).start();
            let mut same = std::process::Command::new("env");
            // posix_spawn(3) would ignore signals of the C library
            // SAFETY: it does nothing.
            unsafe { same.pre_exec(|| Ok(())) };
            let expected = same.args(&env[1..]).args(tell).output();
            blocked.thread_unblock().unwrap();
            let expected = String::from_utf8(expected.unwrap().stdout).unwrap();
            assert!(expected.contains("SigBlk:\t0000000004000800\n"), "{expected}");
            assert_eq!(dialogue(wire::stream(&daemon), b""), expected, "{ignored}");
        }
    }

    fn the_program_has_no_other_descriptors_and_leads_its_group(model) {
        let daemon = shell(model, "ls /proc/self/fd | wc -l; echo $$ $(ps -o pgid= -p $$)");
        let heard = dialogue(wire::stream(&daemon), b"");
        let lines: Vec<&str> = heard.lines().collect();
        // three of its own, and the directory that ls reads
        assert_eq!(lines[0], "4", "{heard}");
        let (pid, group) = lines[1].split_once(' ').unwrap();
        assert_eq!(pid, group, "{heard}");
    }

    fn the_program_is_ended_when_the_client_resets(model) {
        let daemon = shell(model, "echo $$; sleep 1000 & echo $!; wait");
        let mut client = wire::stream(&daemon);
        let pids = [pid(&mut client), pid(&mut client)];
        assert!(!are_gone(&pids));
        reset(client);
        eventually("the program and what it has started are gone", || are_gone(&pids));
        // the next one is served
        let mut client = wire::stream(&daemon);
        let pids = [pid(&mut client), pid(&mut client)];
        reset(client);
        eventually("they are gone, too", || are_gone(&pids));
    }

    fn the_program_is_ended_when_a_local_client_closes(model) {
        let daemon = shell(&format!("{model} unix://{{dir}}/s"), "echo $$; exec sleep 1000");
        let mut client = wire::stream(&daemon);
        let pids = [pid(&mut client)];
        drop(client);
        eventually("the program is gone", || are_gone(&pids));
    }

    fn one_that_ignores_its_end_is_killed(model) {
        let daemon = shell(model, "trap '' TERM; echo $$; sleep 1000 & echo $!; wait");
        let mut client = wire::stream(&daemon);
        let pids = [pid(&mut client), pid(&mut client)];
        reset(client);
        eventually("they are gone", || are_gone(&pids));
    }

    fn a_stop_leaves_nothing(model) {
        for (options, line, signals) in [
            ("--grace 0s", "echo $$; sleep 1000 & echo $!; wait", &[Signal::SIGTERM][..]),
            ("--grace 0s", "trap '' TERM; echo $$; sleep 1000 & echo $!; wait", &[Signal::SIGTERM]),
            ("", "echo $$; sleep 1000 & echo $!; wait", &[Signal::SIGQUIT]),
            ("", "echo $$; sleep 1000 & echo $!; wait", &[Signal::SIGTERM, Signal::SIGTERM]),
        ] {
            let daemon = shell(&format!("{model} {options}"), line);
            let mut client = wire::stream(&daemon);
            let pids = [pid(&mut client), pid(&mut client)];
            let workers = daemon.children();
            for &signal in signals {
                daemon.signal(signal);
                // or two that are equal would be one
                daemon.wait_for_line("stopping");
            }
            assert_eq!(daemon.wait().code(), Some(0));
            eventually("the workers are gone", || are_gone(&workers));
            eventually("all is gone", || are_gone(&pids));
        }
    }

    fn a_graceful_stop_lets_the_program_finish(model) {
        let daemon = shell(model, "echo there; read line; echo $line");
        let mut client = wire::stream(&daemon);
        assert_eq!(line(&mut client), "there");
        daemon.signal(Signal::SIGTERM);
        daemon.wait_for_line("stopping");
        client.write_all(b"done\n").unwrap();
        assert_eq!(line(&mut client), "done");
        assert_eq!(daemon.wait().code(), Some(0));
    }

    fn the_program_doesn_t_survive_its_worker(model) {
        let daemon = shell(model, "echo $$; exec sleep 1000");
        let mut client = wire::stream(&daemon);
        let program = pid(&mut client);
        let server = proc_status(program, "PPid").parse().unwrap();
        signal(server, Signal::SIGKILL);
        eventually("the program is gone", || are_gone(&[program]));
    }

    fn many_are_served_at_once(model) {
        // one that serves one after the other serves all
        let daemon = command(model, &["cat"]).start();
        let clients: Vec<_> = (0..50).map(|_| wire::stream(&daemon)).collect();
        let serve = |(n, client): (usize, _)| {
            std::thread::spawn(move || dialogue(client, n.to_string().as_bytes()) == n.to_string())
        };
        let threads: Vec<_> = clients.into_iter().enumerate().map(serve).collect();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
        eventually("all programs have been waited for", || {
            daemon.children().into_iter().all(|worker| children_of(worker).is_empty())
        });
    }

    fn input_that_was_left_unread_does_not_cost_the_answer(model) {
        let daemon = shell(&format!("{model} --log-level debug"), "read name; head -c 200000 /dev/zero; echo $name");
        for lines in 1..=3 {
            let mut client = wire::stream(&daemon);
            client.write_all(b"Ada\nand another line\n").unwrap();
            daemon.wait_for_lines(lines, "program ended");
            // most of the answer is still on its way
            client.write_all(b"and one that comes late\n").unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            assert!(answer.len() == 200_004 && answer.ends_with(b"\0Ada\n"), "{} bytes came", answer.len());
        }
        eventually("all that has come is counted, once", || daemon.listener(0)["bytes_in"] == 3 * 45);
        let daemon = shell(&format!("{model} unix://{{dir}}/s"), "read name; echo $name");
        let mut client = wire::stream(&daemon);
        client.write_all(b"Ada\nand another line\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "Ada\n");
    }

    fn a_process_in_the_background_without_the_connection_does_not_matter(model) {
        let script = "sleep 1000 </dev/null >/dev/null & echo $!; read name; echo Hello, $name";
        let daemon = shell(&format!("{model} --log-level debug"), script);
        let mut client = wire::stream(&daemon);
        let left = pid(&mut client);
        eventually("it has let go of the connection", || is_program(left, "sleep"));
        client.write_all(b"Ada\nand another line\n").unwrap();
        daemon.wait_for_line("program ended");
        let mut answer = String::new();
        let outcome = client.read_to_string(&mut answer);
        assert!(is_running(left));
        signal(left, Signal::SIGKILL);
        outcome.unwrap();
        assert_eq!(answer, "Hello, Ada\n");
    }

    fn a_close_is_told_from_a_half_close(model) {
        let daemon = shell(model, "echo $$; exec sleep 1000");
        let mut client = wire::stream(&daemon);
        let program = pid(&mut client);
        drop(client);
        eventually("the program is gone", || are_gone(&[program]));
        // longer than it takes to find a close out
        let daemon = shell(model, "sleep 2.5; cat; echo and that is all");
        assert_eq!(dialogue(wire::stream(&daemon), b"my last words, "), "my last words, and that is all\n");
    }

    fn what_is_left_in_the_background_may_read_and_write(model) {
        let script = "read first; exec 3<&0; (read go <&3; echo $go; cat <&3) & exit";
        let daemon = shell(&format!("{model} --log-level debug"), script);
        let mut client = wire::stream(&daemon);
        client.write_all(b"first\n").unwrap();
        daemon.wait_for_line("program ended");
        client.write_all(b"go\n").unwrap();
        assert_eq!(line(&mut client), "go");
        assert_eq!(dialogue(client, b"and the rest"), "and the rest");
    }

    fn what_is_left_in_the_background_has_the_connection(model) {
        let daemon = shell(model, "(trap '' HUP; sleep 0.3; echo late) & echo $!");
        let mut client = wire::stream(&daemon);
        let left = pid(&mut client);
        // the program has ended, and its worker is free again
        assert_ne!(pid(&mut wire::stream(&daemon)), left);
        assert_eq!(line(&mut client), "late");
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }

    fn a_program_that_crashes_is_told_of(model) {
        let daemon = shell(&format!("{model} --log-level debug"), "kill -SEGV $$");
        dialogue(wire::stream(&daemon), b"");
        let said = daemon.wait_for_line("handler failed");
        assert!(said.contains("sh was killed") && said.contains("SIGSEGV") && said.contains("peer="), "{said}");

        let daemon = shell(&format!("{model} --log-level debug"), "exit 3");
        dialogue(wire::stream(&daemon), b"");
        let said = daemon.wait_for_line("program ended");
        assert!(said.contains("debug: ") && said.contains("exit status: 3"), "{said}");
        // a program dies of writing to a client that has gone, which is no failure
        let daemon = shell(&format!("{model} --log-level debug"), "echo; sleep 0.2; exec cat /dev/zero");
        let mut client = wire::stream(&daemon);
        line(&mut client);
        drop(client);
        daemon.wait_for_line("program ended");
        assert_eq!(daemon.count_lines("handler failed"), 0);
    }
}

#[test]
fn what_has_left_the_group_keeps_the_connection_too() {
    // the child that serves knows what descends from its program; a shell has /dev/null be the standard input of what it
    // starts in the background
    let script = "read first; exec 3<&0; setsid sh -c 'read go; echo $go' <&3 & exit";
    let daemon = shell("-m fork --log-level debug", script);
    let mut client = wire::stream(&daemon);
    client.write_all(b"first\n").unwrap();
    daemon.wait_for_line("program ended");
    eventually("its child has gone", || daemon.children().is_empty());
    client.write_all(b"go\n").unwrap();
    assert_eq!(line(&mut client), "go");
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

#[test]
fn an_orphan_of_a_program_does_not_stay_a_zombie() {
    let daemon = shell("-m fork", "(sh -c 'echo $$' &); cat");
    let mut client = wire::stream(&daemon);
    let orphan = pid(&mut client);
    eventually("it is gone", || state_of(orphan).is_none());
    echoes(&mut client, b"the program is still there");
}

under_models! {
    [fork spare prefork thread coroutine]

    fn a_program_that_is_slow_to_end_keeps_no_other_client_waiting(model) {
        let daemon = shell(model, "trap '' TERM; echo $$; read line; [ \"$line\" ] || sleep 1000");
        let mut client = wire::stream(&daemon);
        let slow = pid(&mut client);
        reset(client);
        let mut client = wire::stream(&daemon);
        pid(&mut client);
        client.write_all(b"bye\n").unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        assert!(is_running(slow), "its patience is over");
    }
}

/// What `env` says to a client.
fn environment(options: &str) -> (BTreeMap<String, String>, Option<SocketAddr>, Daemon) {
    let forkd = command(options, &["env"]).env("TCPREMOTEHOST", "stale").env("REMOTE_HOST", "stale");
    let daemon = forkd.env("UNIXREMOTEPID", "stale").env("KEPT", "as it was").start();
    let client = wire::stream(&daemon);
    let address = TcpStream::from(OwnedFd::from(client.try_clone().unwrap())).local_addr().ok();
    let heard = dialogue(client, b"");
    let pairs = heard.lines().filter_map(|line| line.split_once('='));
    (pairs.map(|(name, value)| (name.into(), value.into())).collect(), address, daemon)
}

#[test]
fn the_environment_tells_of_a_tcp_client() {
    for (bound, host) in [("tcp://127.0.0.1:0", "127.0.0.1"), ("tcp://[::1]:0", "::1")] {
        let (environment, client, daemon) = environment(bound);
        let client = client.unwrap();
        let (port, ours) = (client.port().to_string(), daemon.addr().port().to_string());
        for (name, value) in [
            ("PROTO", "TCP"),
            ("TCPREMOTEIP", host),
            ("TCPREMOTEPORT", &port),
            ("REMOTE_ADDR", host),
            ("REMOTE_PORT", &port),
            ("TCPLOCALIP", host),
            ("TCPLOCALPORT", &ours),
            ("LOCAL_ADDR", host),
            ("LOCAL_PORT", &ours),
            ("KEPT", "as it was"),
        ] {
            assert_eq!(environment.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(environment.values().all(|value| value != "stale"), "{environment:?}");
        assert!(!environment.contains_key("NOTIFY_SOCKET") && !environment.contains_key("LISTEN_FDS"));
    }
}

#[test]
fn the_environment_tells_of_the_user_that_the_program_runs_as() {
    if !need_root() {
        return;
    }
    let tell = |options: &str| {
        let forkd = shell(options, "echo $(id -u) $USER $LOGNAME $HOME $SHELL");
        dialogue(wire::stream(&forkd), b"")
    };
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let entry: Vec<&str> =
        passwd.lines().find(|line| line.starts_with("nobody:")).unwrap().split(':').collect();
    let [home, login] = [entry[5], entry[6]];
    for model in ["fork", "prefork", "iterative", "thread", "coroutine"] {
        let expected = format!("{} nobody nobody {home} {login}\n", entry[2]);
        assert_eq!(tell(&format!("-m {model} --user nobody")), expected, "{model}");
    }
    // one that nothing is known of
    assert_eq!(tell("--user 61234 --group 61234"), "61234\n");
    let environment = command("", &["sh", "-c", "echo $USER $HOME"]).env("USER", "me").env("HOME", "/there");
    assert_eq!(dialogue(wire::stream(&environment.start()), b""), "me /there\n");
}

#[test]
fn on_a_wildcard_address_the_one_that_was_asked_is_told() {
    let daemon = shell("tcp://[::]:0", "echo $TCPREMOTEIP $TCPLOCALIP");
    let client = TcpStream::connect(("127.0.0.1", daemon.addr().port())).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(dialogue(OwnedFd::from(client).into(), b""), "127.0.0.1 127.0.0.1\n");
}

#[test]
fn the_environment_tells_of_a_local_client() {
    let (environment, _, daemon) = environment("unix://{dir}/s");
    let get = |name: &str| environment.get(name).map(String::as_str);
    assert_eq!(get("PROTO"), Some("UNIX"));
    assert_eq!(get("UNIXREMOTEPID"), Some(&*std::process::id().to_string()));
    assert_eq!(get("UNIXREMOTEEUID"), Some(&*nix::unistd::geteuid().to_string()));
    assert_eq!(get("UNIXREMOTEEGID"), Some(&*nix::unistd::getegid().to_string()));
    assert_eq!(get("UNIXLOCALPATH"), daemon.path("s").to_str());
    assert!(!environment.keys().any(|name| name.starts_with("TCP") || name.starts_with("REMOTE_")));
}

both_ways! {
    fn the_end_of_a_program_is_noticed_either_way(way: Way) {
        for model in ["-m fork", "-m prefork -w 1"] {
            let daemon = command(model, &["sh", "-c", "echo $$; read line; echo $line"]).way(way).start();
            for _ in 0..3 {
                let mut client = wire::stream(&daemon);
                let program = pid(&mut client);
                client.write_all(b"bye\n").unwrap();
                assert_eq!(line(&mut client), "bye");
                assert_eq!(client.read(&mut [0]).unwrap(), 0);
                eventually("it has been waited for", || state_of(program).is_none());
            }
            let mut client = wire::stream(&daemon);
            let program = pid(&mut client);
            reset(client);
            eventually("it is gone", || state_of(program).is_none());

            let mut client = wire::stream(&daemon);
            let program = pid(&mut client);
            daemon.signal(Signal::SIGQUIT);
            assert_eq!(daemon.wait().code(), Some(0));
            eventually("the stop has ended it", || !is_running(program));
        }
    }
}

#[test]
fn when_the_master_dies_programs_have_the_grace_time() {
    for model in ["-m fork", "-m prefork -w 1"] {
        let daemon = shell(&format!("{model} --grace 1s"), "echo $$; sleep 1000 & echo $!; wait");
        let mut client = wire::stream(&daemon);
        let pids = [pid(&mut client), pid(&mut client)];
        daemon.signal(Signal::SIGKILL);
        eventually("all is gone", || are_gone(&pids));
    }
}

#[test]
fn what_can_t_be_run_is_said_before_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain");
    std::fs::write(&plain, "echo no\n").unwrap();
    std::fs::set_permissions(&plain, std::fs::Permissions::from_mode(0o644)).unwrap();
    for (program, code, why) in [
        ("/no/such/program", 69, "cannot run /no/such/program: No such file"),
        ("no-such-program", 69, "cannot run no-such-program, which is in no directory of PATH"),
        (plain.to_str().unwrap(), 77, "plain: Permission denied"),
    ] {
        for model in ["fork", "prefork"] {
            let ended = command(&format!("-m {model}"), &[program]).run();
            assert!(ended.code == Some(code) && ended.stderr.contains(why), "{ended:?}");
            assert!(!ended.stderr.contains("listening on"), "{ended:?}");
        }
        let ended = run(&["check", "--exec", program]);
        assert!(ended.code == Some(code) && ended.stderr.contains(why), "{ended:?}");
    }
    for (args, why) in [
        (
            &["serve", "udp://127.0.0.1:0", "--exec", "cat"][..],
            "needs a connection, and udp://127.0.0.1:0 has none",
        ),
        (&["serve", "--service", "exec"], "no program is named"),
        (&["serve", "--idle-timeout", "1s", "--exec", "cat"], "--idle-timeout has no effect on exec"),
        (&["serve", "--service", "echo", "--exec", "cat"], "--exec needs the service exec"),
        (&["serve", "--inetd", "--exec", "cat"], "cannot be used with"),
        (&["serve", "--exec"], "a value is required"),
    ] {
        let ended = run(args);
        assert!(ended.code == Some(64) && ended.stderr.contains(why), "{ended:?}");
    }
}

#[test]
fn the_program_is_looked_for_below_the_root_directory() {
    if !need_root() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    // a program that needs no library
    common::public_binary(root.path());
    let options = format!("--chroot {}", root.path().display());
    let daemon = command(&options, &["/forkd", "--version"]).start();
    assert!(dialogue(wire::stream(&daemon), b"").starts_with("forkd "));
    let ended = command(&options, &["/bin/cat"]).run();
    assert!(ended.code == Some(69) && ended.stderr.contains("cannot run /bin/cat"), "{ended:?}");
}

#[test]
fn a_process_in_the_background_does_not_matter_below_a_root_directory_without_proc_either() {
    if !need_root() || !common::need_tool("unshare") {
        return;
    }
    for model in ["-m fork", "-m prefork -w 1", "-m coroutine -w 1"] {
        let root = tempfile::tempdir().unwrap();
        let options = format!("{model} --log-level debug --chroot {}", root.path().display());
        // all programs and devices, and no /proc
        let prepare = "mount --bind / $0 && mount --rbind /dev $0/dev && exec \"$@\"";
        let script = "sleep 1000 <&- >&- 2>&- & echo $!; read name; echo Hello, $name";
        let words = ["unshare", "--mount", "sh", "-c", prepare, root.path().to_str().unwrap()];
        let daemon = command(&options, &["sh", "-c", script]).within(&words).start();
        let mut client = wire::stream(&daemon);
        let left = pid(&mut client);
        eventually("it has let go of the connection", || is_program(left, "sleep"));
        client.write_all(b"Ada\nand another line\n").unwrap();
        daemon.wait_for_line("program ended");
        let mut answer = String::new();
        let outcome = client.read_to_string(&mut answer);
        signal(left, Signal::SIGKILL);
        outcome.unwrap();
        assert_eq!(answer, "Hello, Ada\n", "{model}");
    }
}

#[test]
fn what_a_program_lacks_by_now_is_named() {
    let room = tempfile::tempdir().unwrap();
    let [interpreter, script] = ["interpreter", "script"].map(|name| room.path().join(name));
    std::os::unix::fs::symlink("/bin/sh", &interpreter).unwrap();
    // by another process: a descriptor of ours that writes could leak into a child, and the script would be "busy"
    let write = format!("printf '#!{}\\necho served\\n' >$0; chmod 755 $0", interpreter.display());
    assert!(std::process::Command::new("sh").args(["-c", &write]).arg(&script).status().unwrap().success());
    let daemon = command("", &[script.to_str().unwrap()]).start();
    assert_eq!(dialogue(wire::stream(&daemon), b""), "served\n");
    std::fs::remove_file(&interpreter).unwrap();
    assert_eq!(dialogue(wire::stream(&daemon), b""), "");
    daemon.wait_for_line(&format!("which needs {}: No such file", interpreter.display()));
}

#[test]
fn datagrams_that_were_handed_over_are_refused() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let ended = command("systemd:x", &["cat"]).handed("x", socket).run();
    assert!(ended.code == Some(78) && ended.stderr.contains("needs a connection"), "{ended:?}");
}

#[test]
fn a_reload_changes_the_program_or_refuses_it() {
    let forkd = Forkd::new("--config {dir}/f.toml");
    let write = |dir: &std::path::Path, exec: &str| {
        let toml = format!("[[listen]]\nendpoints = ['tcp://127.0.0.1:0']\nexec = {exec}\n");
        std::fs::write(dir.join("f.toml"), toml).unwrap();
    };
    write(forkd.dir.path(), "['echo', 'one']");
    let daemon = forkd.start();
    assert_eq!(daemon.listener(0)["service"], "exec");
    assert_eq!(dialogue(wire::stream(&daemon), b""), "one\n");
    let reload =
        || forkd_command().arg("reload").arg("--control").arg(daemon.control()).status().unwrap().code();
    write(daemon.dir.path(), "['/no/such/program']");
    assert_eq!(reload(), Some(69));
    assert_eq!(dialogue(wire::stream(&daemon), b""), "one\n");
    write(daemon.dir.path(), "['echo', 'two']");
    assert_eq!(reload(), Some(0));
    assert_eq!(dialogue(wire::stream(&daemon), b""), "two\n");
}

#[test]
fn in_the_background_a_relative_program_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("hello");
    std::fs::write(&script, "#!/bin/sh\necho hello from $(pwd)\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let socket = dir.path().join("s");
    let pidfile = dir.path().join("pid");
    let mut command = forkd_command();
    command.current_dir(dir.path()).args(["serve", "--daemon", "--pidfile"]).arg(&pidfile);
    command.arg(format!("unix://{}", socket.display())).args(["--exec", "./hello"]);
    assert_eq!(forkd(&mut command).code, Some(0));
    let heard = dialogue(UnixStream::connect(&socket).unwrap(), b"");
    let master = std::fs::read_to_string(&pidfile).unwrap().trim().parse().unwrap();
    signal(master, Signal::SIGTERM);
    eventually("it has stopped", || !is_running(master));
    assert_eq!(heard, "hello from /\n");
}

#[test]
fn the_kernel_asks_whether_a_silent_client_is_still_there() {
    if !need_tool("ss") {
        return;
    }
    let daemon = shell("", "echo there; exec sleep 1000");
    let mut client = wire::stream(&daemon);
    line(&mut client);
    let filter = format!("sport = :{}", daemon.addr().port());
    let listed =
        std::process::Command::new("ss").args(["-tnoH", "state", "established", &filter]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("timer:(keepalive,"), "{listed}");
}

#[test]
fn a_client_waits_while_no_process_can_be_started_for_its_program() {
    if !need_root() {
        return;
    }
    for model in ["", "-m prefork -w 1"] {
        // the master and one child
        let daemon = command(model, &["cat"]).uid(own_user()).limit(libc::RLIMIT_NPROC, 2).start();
        let mut client = daemon.asks();
        eventually("a child has the client", || daemon.children().len() == 1);
        assert!(is_silent(&client, Duration::from_millis(300)), "{model}");
        assert_eq!(daemon.listener(0)["failed"], 0);
        set_limit(daemon.children()[0], libc::RLIMIT_NPROC, 100).unwrap();
        is_answered(&mut client);
        drop(client);
        // one that goes is not waited for
        let daemon = command(model, &["cat"]).uid(own_user()).limit(libc::RLIMIT_NPROC, 2).start();
        let client = daemon.asks();
        eventually("a child has the client", || daemon.children().len() == 1);
        drop(client);
        daemon.wait_for_line("cannot run cat: Resource temporarily unavailable");
        eventually("it is counted", || daemon.listener(0)["failed"] == 1);
    }
}
