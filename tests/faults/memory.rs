//! Children that write what they like into memory that they share with others.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::*;
use crate::wire::noise;

const PAGE: u64 = 4096;

/// The shared mappings of a process: where, whether it may write there, and of which file.
fn shared_mappings(pid: i32) -> Vec<(Range<u64>, bool, String)> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mapping = |line: &str| {
        let mut fields = line.split_whitespace();
        let (range, access) = (fields.next()?, fields.next()?);
        let (from, to) = range.split_once('-')?;
        let number = |hex| u64::from_str_radix(hex, 16).ok();
        let file = fields.nth(2)?.to_owned();
        access.ends_with('s').then_some((number(from)?..number(to)?, access.starts_with("rw"), file))
    };
    maps.lines().filter_map(mapping).collect()
}

/// Writes to a child's memory, as its own code could.
struct Wild {
    memory: File,
    reach: Vec<Range<u64>>,
    /// The pages there that the master uses.
    used: Vec<u64>,
    noise: Vec<u8>,
}

impl Wild {
    /// `None` where this machine lets no process write to another's memory.
    fn in_place_of(child: i32, master: i32) -> Option<Self> {
        let memory = OpenOptions::new().write(true).open(format!("/proc/{child}/mem"));
        if !need(memory.is_ok(), "this test writes to the memory of a child (ptrace_scope)") {
            return None;
        }
        let writable = shared_mappings(child).into_iter().filter(|mapping| mapping.1);
        let reach: Vec<Range<u64>> = writable.map(|mapping| mapping.0).collect();
        let pages = File::open(format!("/proc/{master}/pagemap")).unwrap();
        let is_used = |&page: &u64| {
            let mut entry = [0; 8];
            pages.read_exact_at(&mut entry, page / PAGE * 8).unwrap();
            u64::from_ne_bytes(entry) >> 62 != 0
        };
        let all = reach.iter().flat_map(|range| range.clone().step_by(PAGE as usize));
        let used: Vec<u64> = all.filter(is_used).collect();
        assert!(!used.is_empty());
        Some(Self { memory: memory.unwrap(), reach, used, noise: noise(0, 1 << 20) })
    }

    /// Other bytes in each round, over all pages that are used.
    fn scribble(&self, round: usize) {
        for (number, &page) in self.used.iter().enumerate() {
            let from = (round * 997 + number * 4099) % (self.noise.len() - PAGE as usize);
            self.memory.write_all_at(&self.noise[from..][..PAGE as usize], page).unwrap();
        }
    }

    fn scribble_everywhere(&self) {
        let pieces = self
            .reach
            .iter()
            .flat_map(|range| range.clone().step_by(self.noise.len()).map(|from| (from, range.end - from)));
        for (from, left) in pieces {
            let bytes = &self.noise[..self.noise.len().min(left as usize)];
            self.memory.write_all_at(bytes, from).unwrap();
        }
    }
}

both_ways! {
    fn a_child_that_writes_over_all_it_can_reach_harms_no_other(way: Way) {
        for args in ["--max-children 5", "-m prefork -w 3", "-m event -w 2", "-m coroutine -w 2", "-m thread -w 2"] {
            let daemon = Forkd::new(args).way(way).start();
            let going_wild = daemon.served();
            let child = daemon.server_of(&going_wild);
            let mut bystander = daemon.served();
            let Some(wild) = Wild::in_place_of(child, daemon.pid()) else { return };
            for round in 0..1000 {
                wild.scribble(round);
                if round % 100 == 99 {
                    echoes(&mut bystander, b"not my memory");
                    short_connection(daemon.addr(), b"nor mine").unwrap();
                    stays_within_bounds(&daemon);
                }
            }
            wild.scribble_everywhere();
            stays_within_bounds(&daemon);
            drop(going_wild);
            short_connection(daemon.addr(), b"still there").unwrap();
            echoes(&mut bystander, b"to the end");
            drop(bystander);
            if args.starts_with("--max") {
                eventually("all places are free", || daemon.listener(0)["alive"] == 0);
                let l = daemon.listener(0);
                assert_eq!(daemon.deaths(0, ""), l["forked"].as_u64().unwrap(), "{l}");
                let mut clients: Vec<Client> = (0..5).map(|_| daemon.served()).collect();
                clients.iter_mut().for_each(|client| echoes(client, b"a place each"));
                let more = daemon.asks();
                assert!(is_silent(&more, Duration::from_millis(200)), "there are more than five");
                clients.pop();
                is_answered(&mut { more });
            }
            daemon.signal(Signal::SIGTERM);
            assert!(daemon.wait().success(), "{:?}", daemon.log());
        }
    }
}

fn stays_within_bounds(daemon: &Daemon) {
    let status = daemon.status();
    let (l, own) = (&status["listeners"][0], daemon.children());
    let alive = l["alive"].as_u64().unwrap();
    let children = status["children"].as_array().unwrap();
    assert!(alive <= 5 && children.len() <= 5, "{status}");
    assert!(l["peak"].as_u64() <= Some(5) && l["forked"].as_u64() <= Some(20), "{status}");
    // what has ended since is no child any more
    let strangers = children.iter().filter(|child| !own.contains(&(child["pid"].as_i64().unwrap() as i32)));
    assert!(strangers.count() <= 2, "{status} {own:?}");
    if l["model"] == "fork" {
        assert!(l["connections"].as_u64() <= l["forked"].as_u64(), "{status}");
    }
    for counter in ["connections", "bytes_in", "bytes_out", "failed"] {
        assert!(l[counter].as_u64() < Some(1 << 50), "{counter}: {status}");
    }
}

#[test]
fn no_child_can_write_what_the_master_goes_by() {
    for (args, sees) in [("", false), ("-m prefork -w 1", true), ("-m event -w 1", true)] {
        let daemon = Daemon::start(args);
        let client = daemon.served();
        let child = daemon.server_of(&client);
        let theirs = shared_mappings(child);
        let own: Vec<_> = shared_mappings(daemon.pid())
            .into_iter()
            .filter(|(_, may_write, file)| *may_write && !theirs.iter().any(|x| x.1 && x.2 == *file))
            .collect();
        assert_eq!(own.len(), 1, "{args}: {theirs:?}");
        let (range, _, file) = &own[0];
        assert_eq!(theirs.iter().any(|x| x.2 == *file), sees, "{args}");
        let memory = OpenOptions::new().write(true).open(format!("/proc/{child}/mem"));
        if !need(memory.is_ok(), "this test writes to the memory of a child (ptrace_scope)") {
            return;
        }
        let error = memory.unwrap().write_all_at(&[0xff; 64], range.start).unwrap_err();
        assert!([libc::EIO, libc::EFAULT].contains(&error.raw_os_error().unwrap()), "{args}: {error}");
        assert_ne!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
