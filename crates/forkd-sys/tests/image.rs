//! A forked child becomes a program. These are no tests of the usual harness, as its process has threads, and may not fork.
#![allow(clippy::expect_used)]

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::{OsStr, OsString};
    use std::io::Read;
    use std::net::TcpListener;
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::linux::fs::MetadataExt;
    use std::sync::atomic::AtomicU32;
    use std::time::{Duration, Instant};

    use forkd_sys::fork::{PidCells, Watch, fork};
    use forkd_sys::program::{Image, Privileges, become_program};
    use forkd_sys::signal::{Blocked, caller};
    use rustix::process::{Pid, WaitOptions, getpid, waitpid};

    pub(super) fn main() {
        a_program_finds_what_is_meant_for_it();
        what_can_not_be_is_told();
        a_program_does_not_outlive_its_parent();
    }

    fn image(script: &[OsString]) -> Image<'_> {
        Image {
            program: OsStr::new("sh"),
            arguments: script,
            environment: &[],
            sockets: &[],
            output: None,
            privileges: Privileges::Drop,
            parent: getpid(),
        }
    }

    fn forked(child: impl FnOnce() -> u8) -> i32 {
        let blocked = Blocked::all();
        let cells = PidCells { parent: &AtomicU32::new(0), child: None };
        fork(&blocked, cells, Watch::Nothing, child).expect("fork").pid
    }

    /// What a child of ours has ended with.
    fn status(pid: i32) -> Option<i32> {
        waitpid(Pid::from_raw(pid), WaitOptions::empty()).expect("wait").expect("ended").1.exit_status()
    }

    fn start(image: Image<'_>) -> i32 {
        forked(|| {
            eprintln!("{}", become_program(image));
            3
        })
    }

    /// What it prints until its end, and how it ends.
    fn outcome(image: Image<'_>) -> (i32, String, Option<i32>) {
        let (mut read, write) = std::io::pipe().expect("pipe");
        let pid = start(Image { output: Some(write.as_fd()), ..image });
        drop(write);
        let mut said = String::new();
        read.read_to_string(&mut said).expect("read");
        (pid, said, status(pid))
    }

    fn inode(socket: &impl AsFd) -> u64 {
        let file = std::fs::File::from(socket.as_fd().try_clone_to_owned().expect("clone"));
        file.metadata().expect("metadata").st_ino()
    }

    const LOOK: &str = r#"
    echo $$ $LISTEN_PID $LISTEN_FDS $(cut -d' ' -f5 /proc/$$/stat)
    echo "$EXTRA ${HOME-gone} $1"
    readlink /proc/$$/fd/*
    exec grep -E '^(SigBlk|SigIgn|NoNewPrivs)' /proc/self/status
"#;

    fn a_program_finds_what_is_meant_for_it() {
        // one that is left open by other code, and sockets in each other's places
        let left = rustix::io::dup(std::io::stdout()).expect("dup");
        let sockets: Vec<OwnedFd> =
            (0..3).map(|_| TcpListener::bind("127.0.0.1:0").expect("bind").into()).collect();
        let inodes: Vec<u64> = sockets.iter().map(inode).collect();
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let handed: Vec<_> = order.iter().map(|&i| sockets[i].as_fd()).collect();
            let arguments = ["-c", LOOK, "sh", "argument"].map(OsString::from);
            let environment = [("EXTRA".into(), Some("value".into())), ("HOME".into(), None)];
            let (pid, said, status) =
                outcome(Image { environment: &environment, sockets: &handed, ..image(&arguments) });
            let lines: Vec<&str> = said.lines().collect();
            assert_eq!(status, Some(0), "{said}");
            assert_eq!(lines[0], format!("{pid} {pid} 3 {pid}"));
            assert_eq!(lines[1], "value gone argument");
            assert!(
                lines[2] == "/dev/null" && lines[3].starts_with("pipe:") && lines[4] == lines[3],
                "{said}"
            );
            for (line, &i) in lines[5..8].iter().zip(&order) {
                assert_eq!(*line, format!("socket:[{}]", inodes[i]), "{said}");
            }
            let caller = caller();
            // this comes next, so no other descriptor is open
            assert_eq!(lines[8], format!("SigBlk:\t{:016x}", caller.blocked), "{said}");
            assert_eq!(lines[9], format!("SigIgn:\t{:016x}", caller.ignored), "{said}");
            assert_eq!(lines[10..], ["NoNewPrivs:\t1"], "{said}");
        }
        drop(left);
    }

    fn what_can_not_be_is_told() {
        let script = ["-c".into(), "echo not reached".into()];
        let absent = Image { program: OsStr::new("no-such-program"), ..image(&script) };
        let (_, said, status) = outcome(absent);
        assert!(said.contains("No such file") && status == Some(3), "{said}");
        let (_, said, status) = outcome(Image { parent: Pid::INIT, ..image(&script) });
        assert_eq!((said.trim(), status), ("entity not found", Some(3)));
    }

    fn a_program_does_not_outlive_its_parent() {
        let (mut read, write) = std::io::pipe().expect("pipe");
        let (mut executed, executing) = std::io::pipe().expect("pipe");
        let parent = forked(|| {
            let script = ["-c", "exec sleep 60"].map(OsString::from);
            start(Image { output: Some(write.as_fd()), parent: getpid(), ..image(&script) });
            drop(executing);
            // the program's copy closes at exec
            executed.read(&mut [0]).map_or(1, |_| 0)
        });
        drop(write);
        let since = Instant::now();
        assert_eq!(read.read(&mut [0]).expect("read"), 0);
        assert!(since.elapsed() < Duration::from_secs(45));
        assert_eq!(status(parent), Some(0));
    }
}
