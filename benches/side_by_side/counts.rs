//! What is counted and not timed: mappings, pages, memory, fairness.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::page::{Page, forkd};
use crate::pairs::held;
use crate::server::{Program, Server};
use crate::tracer::{Counts, trace};

const FORK: Program = Program::Forkd("-m fork --max-children 32000");

type Answer = io::Result<Option<String>>;

struct Row {
    name: &'static str,
    /// What is found of forkd, and of others, in the order of [`HEADS`].
    of: fn(Program) -> Answer,
    programs: [Option<Program>; 3],
}

const HEADS: [&str; 2] = ["| row | forkd | static C | no libc |", "|---|--:|--:|--:|"];

fn rows() -> Vec<Row> {
    let all = [Some(FORK), Some(Program::Static("fork")), Some(Program::NoLibc)];
    let pool = |forkd, c| [Some(Program::Forkd(forkd)), c, None];
    let threads = [Some(Program::Forkd("-m thread --workers 1")), Some(Program::Static("thread")), None];
    let mut rows = vec![
        Row { name: "fork: system calls of a connection", of: calls, programs: all },
        Row { name: "fork: page faults of a connection", of: faults, programs: all },
        Row { name: "thread: system calls of a connection", of: calls, programs: threads },
        Row { name: "thread: page faults of a connection", of: faults, programs: threads },
        Row { name: "fork: mappings of the master", of: mappings, programs: all },
        Row { name: "fork: anonymous pages of the master", of: pages, programs: all },
        Row { name: "fork: page tables of a held child, KiB", of: tables, programs: all },
        Row { name: "fork: private memory of a held child, KiB", of: private, programs: all },
        Row {
            name: "prefork: PSS of a pool of 208, MB",
            of: pss,
            programs: pool("-m prefork --workers 208", Some(Program::Static("prefork 208"))),
        },
    ];
    for (name, options) in [
        ("event ×4: Jain's index of 198 held connections", "-m event --workers 4"),
        ("coroutine ×4: Jain's index of 198 held connections", "-m coroutine --workers 4"),
        ("thread ×4: Jain's index of 198 held connections", "-m thread --workers 4"),
    ] {
        rows.push(Row { name, of: fairness, programs: pool(options, None) });
    }
    rows
}

pub(crate) fn table(page: &mut Page, is_asked: &dyn Fn(&str) -> bool) -> io::Result<()> {
    let rows: Vec<Row> = rows().into_iter().filter(|row| is_asked(row.name)).collect();
    if rows.is_empty() {
        return Ok(());
    }
    page.line("");
    HEADS.iter().for_each(|line| page.line(line));
    for row in &rows {
        let cell = |program: &Option<Program>| match program.map(row.of) {
            Some(Ok(Some(answer))) => answer,
            Some(Err(error)) => format!("failed: {error}"),
            _ => "–".into(),
        };
        let cells = row.programs.iter().map(cell).collect::<Vec<_>>().join(" | ");
        page.line(&format!("| {} | {cells} |", row.name));
    }
    Ok(())
}

fn with(program: Program, ask: impl FnOnce(Server) -> io::Result<String>) -> Answer {
    Server::start(program, false)?.map(ask).transpose()
}

/// What a connection of one client after the other costs, in the mean of so many, after as many that are not counted.
fn traced(program: Program, of: fn(&Counts) -> usize) -> Answer {
    const CONNECTIONS: usize = 100;
    with(program, |server| {
        let connections = || (0..CONNECTIONS).try_for_each(|_| connection(server.port));
        connections()?;
        // the children of these are gone
        std::thread::sleep(Duration::from_millis(100));
        let processes = [vec![server.pid()], descendants(server.pid())].concat();
        let processes: Vec<i32> = processes.into_iter().map(u32::cast_signed).collect();
        let tracing = || trace(&processes, || connections().unwrap_or_default());
        let counts = std::thread::scope(|scope| scope.spawn(tracing).join()).ok().flatten();
        let counts = counts.ok_or_else(|| io::Error::other("no process may be traced here (ptrace(2))"))?;
        Ok(format!("{:.1}", of(&counts) as f64 / CONNECTIONS as f64))
    })
}

/// Connects, has an echo, closes, and sees the end.
fn connection(port: u16) -> io::Result<()> {
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    client.write_all(&[7; 64])?;
    client.shutdown(Shutdown::Write)?;
    client.read_to_end(&mut Vec::new()).map(drop)
}

fn calls(program: Program) -> Answer {
    traced(program, Counts::all_calls)
}

fn faults(program: Program) -> Answer {
    traced(program, |counts| counts.faults as usize)
}

fn mappings(program: Program) -> Answer {
    with(program, |server| {
        Ok(fs::read_to_string(format!("/proc/{}/maps", server.pid()))?.lines().count().to_string())
    })
}

fn pages(program: Program) -> Answer {
    with(program, |server| Ok((field(server.pid(), "smaps_rollup", &["Anonymous:"])? / 4).to_string()))
}

/// The value of a field of /proc/PID/FILE in KiB, or the sum of several.
fn field(pid: u32, file: &str, names: &[&str]) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}"))?;
    let of = |line: &str| -> Option<u64> {
        let (name, value) = line.split_once(char::is_whitespace)?;
        names.contains(&name).then(|| value.split_whitespace().next()?.parse().ok())?
    };
    Ok(text.lines().filter_map(of).sum())
}

/// Of the child that serves a client that has had its echo.
fn of_child(program: Program, file: &'static str, names: &'static [&'static str]) -> Answer {
    with(program, |server| {
        let _held = held(&server, 1)?;
        match descendants(server.pid()).last() {
            Some(child) => field(*child, file, names).map(|kib| kib.to_string()),
            None => Err(io::Error::other("no child is there")),
        }
    })
}

fn tables(program: Program) -> Answer {
    of_child(program, "status", &["VmPTE:"])
}

fn private(program: Program) -> Answer {
    of_child(program, "smaps_rollup", &["Private_Clean:", "Private_Dirty:"])
}

fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn descendants(pid: u32) -> Vec<u32> {
    children(pid).into_iter().flat_map(|child| [vec![child], descendants(child)].concat()).collect()
}

fn pss(program: Program) -> Answer {
    with(program, |server| {
        std::thread::sleep(Duration::from_millis(500));
        let all = [vec![server.pid()], descendants(server.pid())].concat();
        let kib: u64 = all.iter().filter_map(|pid| field(*pid, "smaps_rollup", &["Pss:"]).ok()).sum();
        Ok(format!("{:.1} ({} processes)", kib as f64 * 1024.0 / 1e6, all.len()))
    })
}

/// (Σx)² / (n·Σx²): 1 where each worker has as many, 1/n where one has all (Jain, 1984).
fn fairness(program: Program) -> Answer {
    with(program, |server| {
        let _held = held(&server, 198)?;
        let output =
            Command::new(forkd()).args(["status", "--json", "--control"]).arg(&server.control).output()?;
        let status: Value = serde_json::from_slice(&output.stdout).map_err(io::Error::other)?;
        let workers: Vec<f64> = status["children"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|child| child["serving"].as_f64())
            .collect();
        let (sum, squares): (f64, f64) = (workers.iter().sum(), workers.iter().map(|it| it * it).sum());
        Ok(format!("{:.2} {workers:?}", sum * sum / (workers.len() as f64 * squares)))
    })
}
