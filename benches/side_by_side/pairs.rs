//! Rates: one server and the other by turns.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forkd_load::{Held, Live, Load, Phase, Plan};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::median;
use crate::page::Page;
use crate::server::{Program, Server};

const ROUNDS: usize = 5;
const SAMPLE: Duration = Duration::from_millis(500);

/// What the clients do.
#[derive(Clone, Copy, PartialEq)]
enum Clients {
    Do(Phase, usize),
    /// Connections of one client, where server and client may have a processor each.
    Unpinned,
    /// Connections of one client, while so many others are idle.
    Idle(usize, usize),
    /// So many connect, a few at the same time, and stay.
    Open(usize),
    /// So many connect at once, before any has an answer.
    Burst(usize),
    /// So many stay, and the server ends by this signal: SIGKILL for all its processes, any other for its master.
    Stay(usize, Signal),
    /// wrk asks for a document by so many connections, kept or closed.
    Http {
        document: &'static str,
        connections: usize,
        closes: bool,
    },
}

struct Pair {
    name: &'static str,
    /// Mostly a forkd.
    forkd: Program,
    other: Program,
    clients: Clients,
    /// Those of the other, where they do something else.
    others: Clients,
}

const fn pair(name: &'static str, forkd: &'static str, other: Program, clients: Clients) -> Pair {
    Pair { name, forkd: Program::Forkd(forkd), other, clients, others: clients }
}

/// A program with idle children, and another of it without.
const fn idle(name: &'static str, program: Program, clients: usize) -> Pair {
    let (with, without) = (Clients::Idle(5_000, clients), Clients::Do(Phase::Churn, clients));
    Pair { name, forkd: program, other: program, clients: with, others: without }
}

/// The price of all limits for so many clients that connect again and again.
fn limited(name: &'static str, without: &'static str, clients: usize) -> Pair {
    let with = Box::leak(format!("{without} {LIMITS}").into_boxed_str());
    pair(name, with, Program::Forkd(without), Clients::Do(Phase::Churn, clients))
}

/// A stop of forkd, with so many that stay, and the end that SIGKILL gives another server: what the kernel takes for it.
const fn stop(name: &'static str, forkd: &'static str, killed: Program, count: usize) -> Pair {
    let (clients, others) = (Clients::Stay(count, Signal::SIGTERM), Clients::Stay(count, Signal::SIGKILL));
    Pair { name, forkd: Program::Forkd(forkd), other: killed, clients, others }
}

use Clients::{Burst, Do, Http, Idle, Open, Stay, Unpinned};
use Phase::{Bulk, Churn, Datagrams, PingPong};
use Program::{Forkd, Nginx, NoLibc, Reference, Static};

const FORK: &str = "-m fork --max-children 32000";
/// Clients that stay are cut off at the end of the grace time, which is as short as it may be.
const FORK_NO_GRACE: &str = "-m fork --max-children 32000 --grace 0s";
const FORK_CONFINED: &str = "-m fork --max-children 32000 --sandbox on";
const PREFORK_CONFINED: &str = "-m prefork --workers 8 --sandbox on";
/// All that is asked about a client, and it always comes in.
const LIMITS: &str = "--allow 127.0.0.0/8 --deny 192.0.2.0/24 --max-per-source 30000 --rate 1000000/s \
    --rate-per-source 1000000/s --early-drop 20000:10:30000 --idle-timeout 1h --max-lifetime 1h --penalty timeout=1s \
    --penalty unread=1s --penalty crash=1s --penalty rate=1s";
const SPARE: &str = "-m fork --max-children 32000 --spare 8";
const PREFORK: &str = "-m prefork --workers 8";
const THREAD: &str = "-m thread --workers 1 --max-threads 2000";
const EVENT: &str = "-m event --workers 1";
const EVENT_2: &str = "-m event --workers 2";
const COROUTINE: &str = "-m coroutine --workers 1";

fn http(model: &'static str) -> Program {
    // one root for all, made before the first
    static ROOT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let root = ROOT.get_or_init(|| crate::server::documents().unwrap_or_default().display().to_string());
    Forkd(Box::leak(format!("{model} --service http --root {root}").into_boxed_str()))
}

fn pairs() -> Vec<Pair> {
    let mut pairs = vec![
        pair("fork: connections, 1 client, against static C", FORK, Static("fork"), Do(Churn, 1)),
        pair("fork: connections, 32 clients, against static C", FORK, Static("fork"), Do(Churn, 32)),
        pair(
            "fork: connections, 1 client, with the sandbox, against without",
            FORK_CONFINED,
            Forkd(FORK),
            Do(Churn, 1),
        ),
        pair(
            "fork: connections, 32 clients, with the sandbox, against without",
            FORK_CONFINED,
            Forkd(FORK),
            Do(Churn, 32),
        ),
        pair(
            "prefork: connections, 8 clients, with the sandbox, against without",
            PREFORK_CONFINED,
            Forkd(PREFORK),
            Do(Churn, 8),
        ),
        limited("fork: connections, 32 clients, with all limits, against none", FORK, 32),
        limited("prefork: connections, 8 clients, with all limits, against none", PREFORK, 8),
        limited("event: connections, 32 clients, with all limits, against none", EVENT, 32),
        pair("fork: connections, 1 client, against no libc", FORK, NoLibc, Do(Churn, 1)),
        pair("fork: connections, 32 clients, against no libc", FORK, NoLibc, Do(Churn, 32)),
        pair(
            "fork: connections, 1 client, unpinned, against prefork in C",
            FORK,
            Reference("prefork"),
            Unpinned,
        ),
        pair("fork with 8 spare: the same", SPARE, Reference("prefork"), Unpinned),
        idle("fork: 1 client with 5,000 idle children, against none", Forkd(FORK), 1),
        idle("static C: 1 client with 5,000 idle children, against none", Static("fork"), 1),
        idle("fork: 32 clients with 5,000 idle children, against none", Forkd(FORK), 32),
        idle("static C: 32 clients with 5,000 idle children, against none", Static("fork"), 32),
        pair("fork: opening 10,000 held connections", FORK, Static("fork"), Open(10_000)),
        pair("fork: opening 19,000 held connections", FORK, Static("fork"), Open(19_000)),
        stop("fork: stop of 10,000 held connections, against SIGKILL", FORK_NO_GRACE, Forkd(FORK), 10_000),
        stop("fork: the same, against SIGKILL of static C", FORK_NO_GRACE, Static("fork"), 10_000),
        pair("fork: ping-pong, 1 client", FORK, Static("fork"), Do(PingPong, 1)),
        pair("fork: bulk", FORK, Static("fork"), Do(Bulk, 1)),
        pair("fork: bulk, against splice", FORK, Static("splice"), Do(Bulk, 1)),
        pair("prefork: connections, 1 client", PREFORK, Reference("prefork"), Do(Churn, 1)),
        pair("prefork: connections, 8 clients", PREFORK, Reference("prefork"), Do(Churn, 8)),
        pair("prefork: ping-pong, 8 clients", PREFORK, Reference("prefork"), Do(PingPong, 8)),
        pair("prefork: bulk", PREFORK, Reference("prefork"), Do(Bulk, 1)),
        pair("thread: connections, 1 client", THREAD, Reference("thread"), Do(Churn, 1)),
        pair("thread: connections, 32 clients", THREAD, Reference("thread"), Do(Churn, 32)),
        pair("thread: connections, 1,000 clients", THREAD, Reference("thread"), Do(Churn, 1_000)),
        pair("thread: a first burst of 200", THREAD, Reference("thread"), Burst(200)),
        pair("event: connections, 32 clients", EVENT, Reference("event"), Do(Churn, 32)),
        pair("event: ping-pong, 1 client", EVENT, Reference("event"), Do(PingPong, 1)),
        pair("event: ping-pong, 32 clients", EVENT, Reference("event"), Do(PingPong, 32)),
        pair("event: bulk", EVENT, Reference("event"), Do(Bulk, 1)),
        pair(
            "event ×2: ping-pong, 32 clients, against two in C",
            EVENT_2,
            Reference("event 2"),
            Do(PingPong, 32),
        ),
        pair("event ×2: ping-pong, 32 clients, against event ×1", EVENT_2, Forkd(EVENT), Do(PingPong, 32)),
        pair("coroutine: connections, 32 clients", COROUTINE, Reference("event"), Do(Churn, 32)),
        pair("coroutine: ping-pong, 32 clients", COROUTINE, Reference("event"), Do(PingPong, 32)),
        pair("coroutine: bulk", COROUTINE, Reference("event"), Do(Bulk, 1)),
        pair("udp: one worker, 1 client", "-m prefork --workers 1", Reference("udp"), Do(Datagrams, 1)),
        pair("udp: one worker, flood of 64", "-m prefork --workers 1", Reference("udp"), Do(Datagrams, 64)),
        pair(
            "udp: default pool, flood of 64, against one worker",
            "-m prefork",
            Forkd("-m prefork --workers 1"),
            Do(Datagrams, 64),
        ),
    ];
    for (name, model) in [("event ×2", EVENT_2), ("prefork", PREFORK), ("thread", THREAD), ("fork", FORK)] {
        let asks = |what: &str, document, connections, closes| Pair {
            name: Box::leak(format!("{name}: http, {what}, against nginx").into_boxed_str()),
            forkd: http(model),
            other: Nginx,
            clients: Http { document, connections, closes },
            others: Http { document, connections, closes },
        };
        pairs.push(asks("closing, 1 KiB, 8 clients", "small", 8, true));
        // a pool that is full lets the others wait
        if name != "prefork" {
            pairs.push(asks("keep-alive, 1 KiB, 256 clients", "small", 256, false));
        }
        pairs.push(asks("keep-alive, 10 MiB, 8 clients", "large", 8, false));
    }
    pairs
}

/// What one round has shown.
struct Sample {
    /// Per second.
    rate: f64,
    /// Seconds of processor time for an operation, or a byte.
    cpu: Option<f64>,
    /// Seconds, as the next.
    p50: Option<f64>,
    p99: Option<f64>,
}

pub(crate) fn table(page: &mut Page, is_asked: &dyn Fn(&str) -> bool) -> io::Result<()> {
    let pairs: Vec<Pair> = pairs().into_iter().filter(|pair| is_asked(pair.name)).collect();
    if pairs.is_empty() {
        return Ok(());
    }
    page.line("| row | forkd | reference | ratio (least–most) | CPU per operation | p50 | p99 |");
    page.line("|---|--:|--:|--:|--:|--:|--:|");
    for pair in &pairs {
        let row = match rounds(pair) {
            Ok(Some(rounds)) => row(&rounds),
            Ok(None) => "skipped: no reference can be had here (cc, nginx, wrk) | | | | | ".into(),
            Err(error) => format!("failed: {error} | | | | | "),
        };
        page.line(&format!("| {} | {row} |", pair.name));
    }
    Ok(())
}

/// The one and the other, round by round; `None` where one of them, or the client, can't be had.
fn rounds(pair: &Pair) -> io::Result<Option<Vec<(Sample, Sample)>>> {
    let is_alone = matches!(pair.clients, Do(Churn | PingPong | Datagrams, 1) | Idle(_, 1));
    let _pinned = is_alone.then(Pinned::new).transpose()?;
    let is_datagram = matches!(pair.clients, Do(Datagrams, _));
    let start = |program| Server::start(program, is_datagram);
    let mut rounds = Vec::new();
    // opening is measured of servers that are new, and none is there after its end
    let is_fresh = matches!(pair.clients, Open(_) | Burst(_) | Stay(..));
    let (mut ours, mut theirs) = (None, None);
    for _ in 0..ROUNDS {
        if is_fresh {
            (ours, theirs) = (None, None);
        }
        for (server, program) in [(&mut ours, pair.forkd), (&mut theirs, pair.other)] {
            if server.is_none() {
                *server = start(program)?;
            }
        }
        let (Some(ours), Some(theirs)) = (&mut ours, &mut theirs) else { return Ok(None) };
        let (Some(one), Some(other)) = (sample(ours, pair.clients)?, sample(theirs, pair.others)?) else {
            return Ok(None);
        };
        rounds.push((one, other));
    }
    Ok(Some(rounds))
}

fn row(rounds: &[(Sample, Sample)]) -> String {
    let all = |of: fn(&Sample) -> Option<f64>| -> (Vec<f64>, Vec<f64>, Vec<f64>) {
        let pairs = rounds.iter().filter_map(|(ours, theirs)| Some((of(ours)?, of(theirs)?)));
        let (ours, theirs): (Vec<f64>, Vec<f64>) = pairs.unzip();
        let ratios = ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect();
        (ours, theirs, ratios)
    };
    let (ours, theirs, mut ratios) = all(|sample| Some(sample.rate));
    ratios.sort_by(f64::total_cmp);
    let ratio = |(.., ratios): (Vec<f64>, Vec<f64>, Vec<f64>)| match ratios.is_empty() {
        true => "–".to_owned(),
        false => format!("{:.2}", median(&ratios)),
    };
    format!(
        "{} | {} | **{:.2}** ({:.2}–{:.2}) | {} | {} | {}",
        number(median(&ours)),
        number(median(&theirs)),
        median(&ratios),
        ratios[0],
        ratios[ratios.len() - 1],
        ratio(all(|sample| sample.cpu)),
        ratio(all(|sample| sample.p50)),
        ratio(all(|sample| sample.p99))
    )
}

/// Per second, with a thousand's unit where it is large.
fn number(rate: f64) -> String {
    match rate {
        _ if rate >= 1e7 => format!("{:.0} M/s", rate / 1e6),
        _ if rate >= 1e4 => format!("{:.1} k/s", rate / 1e3),
        _ if rate >= 10.0 => format!("{rate:.0} /s"),
        _ => format!("{rate:.2} /s"),
    }
}

fn sample(server: &mut Server, clients: Clients) -> io::Result<Option<Sample>> {
    match clients {
        Do(phase, count) => phase_of(server, phase, count).map(Some),
        Unpinned => phase_of(server, Churn, 1).map(Some),
        Idle(idle, count) => {
            let _held = held(server, idle)?;
            phase_of(server, Churn, count).map(Some)
        }
        Open(count) => {
            let held = held(server, count)?;
            let seconds = held.outcome().elapsed.as_secs_f64();
            Ok(Some(Sample { rate: held.outcome().served as f64 / seconds, cpu: None, p50: None, p99: None }))
        }
        Burst(count) => burst(server, count).map(Some),
        Stay(count, signal) => {
            let (_held, before) = (held(server, count)?, server.cpu());
            let took = server.end_by(signal)?;
            let spent = before.and_then(|before| Some(server.cpu()?.saturating_sub(before).as_secs_f64()));
            let (rate, cpu) = (count as f64 / took.as_secs_f64(), spent.map(|spent| spent / count as f64));
            Ok(Some(Sample { rate, cpu, p50: None, p99: None }))
        }
        Http { document, connections, closes } => by_wrk(server, document, connections, closes),
    }
}

/// All connect and ask, and then each waits for its answer.
fn burst(server: &Server, count: usize) -> io::Result<Sample> {
    let begun = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port))?;
        client.write_all(&[7; 64])?;
        clients.push(client);
    }
    clients.iter_mut().try_for_each(|client| client.read_exact(&mut [0; 64]))?;
    Ok(Sample { rate: count as f64 / begun.elapsed().as_secs_f64(), cpu: None, p50: None, p99: None })
}

/// Clients that stay until this is dropped.
pub(crate) fn held(server: &Server, count: usize) -> io::Result<Held> {
    let plan = Plan { clients: count, patience: Duration::from_secs(20), ..Plan::default() };
    let load = Load::new(server.target()?, plan).map_err(io::Error::other)?;
    let held = load.hold(&Arc::new(Live::default())).map_err(io::Error::other)?;
    match held.outcome().served {
        served if served == count => Ok(held),
        served => Err(io::Error::other(format!("{served} of {count} clients were served"))),
    }
}

fn phase_of(server: &Server, phase: Phase, count: usize) -> io::Result<Sample> {
    let plan = Plan { clients: count, duration: SAMPLE, warm_up: SAMPLE / 10, ..Plan::default() };
    let piece = plan.piece as f64;
    let load = Load::new(server.target()?, plan).map_err(io::Error::other)?;
    let (live, before) = (Arc::new(Live::default()), server.cpu());
    let outcome = load.run(phase, &live).map_err(io::Error::other)?;
    let spent = before.and_then(|before| Some(server.cpu()?.saturating_sub(before).as_secs_f64()));
    let unit = if phase == Bulk { piece } else { 1.0 };
    let latency = |percent| outcome.latencies.told(percent).map(|span| span.as_secs_f64());
    Ok(Sample {
        rate: outcome.rate() * unit,
        cpu: spent.map(|spent| spent / (live.done().max(1) as f64 * unit)),
        p50: latency(50.0),
        p99: latency(99.0),
    })
}

fn by_wrk(server: &Server, document: &str, connections: usize, closes: bool) -> io::Result<Option<Sample>> {
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", "-d1s", "--latency", &format!("-c{connections}")]);
    if closes {
        wrk.args(["-H", "Connection: close"]);
    }
    let before = server.cpu();
    let Ok(output) = wrk.arg(format!("http://127.0.0.1:{}/{document}", server.port)).output() else {
        return Ok(None);
    };
    let spent = before.and_then(|before| Some(server.cpu()?.saturating_sub(before).as_secs_f64()));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let after = |head: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(head));
        line.and_then(|line| line.split_whitespace().next()).map(ToOwned::to_owned)
    };
    if text.contains("Non-2xx") {
        return Err(io::Error::other("not all answers were 200"));
    }
    let rate: Option<f64> = after("Requests/sec:").and_then(|rate| rate.parse().ok());
    let done: Option<f64> = text
        .lines()
        .find(|line| line.contains(" requests in "))
        .and_then(|line| line.split_whitespace().next()?.parse().ok());
    let (Some(rate), Some(done)) = (rate, done.filter(|done| *done > 0.0)) else {
        return Err(io::Error::other(format!("wrk has measured nothing: {text}")));
    };
    Ok(Some(Sample {
        rate,
        cpu: spent.map(|spent| spent / done),
        p50: after("50%").as_deref().and_then(seconds),
        p99: after("99%").as_deref().and_then(seconds),
    }))
}

/// As wrk writes it: "1.23ms".
fn seconds(text: &str) -> Option<f64> {
    let at = text.find(char::is_alphabetic)?;
    let number: f64 = text[..at].parse().ok()?;
    Some(
        number
            * match &text[at..] {
                "us" => 1e-6,
                "ms" => 1e-3,
                _ => 1.0,
            },
    )
}

/// This thread, and all that it starts, on one processor; until it is dropped.
struct Pinned(CpuSet);

impl Pinned {
    fn new() -> io::Result<Self> {
        let before = sched_getaffinity(Pid::from_raw(0))?;
        let first = (0..CpuSet::count()).find(|cpu| before.is_set(*cpu).unwrap_or(false)).unwrap_or(0);
        let mut one = CpuSet::new();
        one.set(first)?;
        sched_setaffinity(Pid::from_raw(0), &one)?;
        Ok(Self(before))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = sched_setaffinity(Pid::from_raw(0), &self.0);
    }
}
