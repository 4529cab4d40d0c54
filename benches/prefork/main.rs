//! axum in two workers of forkd, each with a runtime of one thread, beside axum alone in one process with two threads: the
//! table of docs/PERFORMANCE.md, as Markdown.
//!
//! ```sh
//! cargo bench --bench prefork               # needs wrk
//! cargo bench --bench prefork -- --write    # puts the table into the document
//! ```
//!
//! Both are this program, with the same routes. Only ratios mean something: each round measures one and the other by turns;
//! the table has the median of the rounds' ratios, with the smallest and the largest. The load generator has its share of
//! the same processors. Memory is the sum of the proportional set sizes (proc(5), `Pss`) of all processes, after the load.

#[path = "../page/mod.rs"]
mod page;

use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::{env, fs};

use axum::Router;
use axum::routing::get;
use forkd_server::{Error, Server, Worker};
use page::{Arguments, Page};
use tokio::net::TcpListener;
use tokio::runtime::Builder;

const ROUNDS: usize = 5;
const SECONDS: usize = 2;

/// The name of a row, and what wrk does in it.
const ROWS: [(&str, &[&str]); 3] = [
    ("keep-alive, 4 connections", &["-t1", "-c4"]),
    ("keep-alive, 64 connections", &["-t1", "-c64"]),
    ("a connection for each request, 32 at once", &["-t1", "-c32", "-H", "Connection: close"]),
];

fn main() -> io::Result<()> {
    match env::args().nth(1).as_deref() {
        Some("forkd") => under_forkd().map_err(io::Error::other),
        Some("alone") => alone(),
        _ => measure(),
    }
}

fn app() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

fn under_forkd() -> Result<(), Error> {
    let server = Server::bind("tcp://127.0.0.1:0")?.workers(2);
    println!("{}", server.server_address().to_string().replace("tcp", "http"));
    server.run(|worker| Builder::new_current_thread().enable_all().build()?.block_on(serve(worker)))
}

async fn serve(worker: Worker) -> io::Result<()> {
    let listener = worker.tcp_listener()?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    worker.ready();
    axum::serve(listener, app())
        .with_graceful_shutdown(async move { worker.shutdown().requested().await })
        .await
}

fn alone() -> io::Result<()> {
    Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("http://{}", listener.local_addr()?);
        axum::serve(listener, app()).await
    })
}

/// A server under measurement.
struct Measured {
    process: Child,
    url: String,
}

impl Measured {
    fn start(how: &str) -> io::Result<Self> {
        let mut process = Command::new(env::current_exe()?).arg(how).stdout(Stdio::piped()).spawn()?;
        let mut url = String::new();
        BufReader::new(process.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?).read_line(&mut url)?;
        Ok(Self { process, url: url.trim_end().into() })
    }

    /// Requests a second.
    fn rate(&self, wrk: &[&str]) -> io::Result<f64> {
        let ended = Command::new("wrk").args(wrk).arg(format!("-d{SECONDS}s")).arg(&self.url).output()?;
        let said = String::from_utf8_lossy(&ended.stdout);
        if said.contains("Socket errors") || said.contains("Non-2xx") {
            return Err(io::Error::other(format!("requests have failed:\n{said}")));
        }
        let rate = said.lines().find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse().ok());
        rate.ok_or_else(|| io::Error::other(format!("wrk has no rate:\n{said}")))
    }

    /// Its memory and that of its children, in KiB.
    fn memory(&self) -> io::Result<u64> {
        let pid = self.process.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let all = children.split_whitespace().map(str::to_owned).chain([pid.to_string()]);
        all.map(|pid| {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next());
            pss.and_then(|kib| kib.parse::<u64>().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
        })
        .sum()
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.process.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.process.wait();
    }
}

fn measure() -> io::Result<()> {
    let Some(arguments) = Arguments::read() else { return Ok(()) };
    let mut page = Page::begin("prefork");
    page.line("| row | two workers of forkd | two threads of one process | ratio (least–most) |");
    page.line("|---|--:|--:|--:|");
    let [forkd, alone] = [Measured::start("forkd")?, Measured::start("alone")?];
    for (name, wrk) in ROWS.into_iter().filter(|(name, _)| arguments.has(name)) {
        let rounds = (0..ROUNDS).map(|_| Ok([forkd.rate(wrk)?, alone.rate(wrk)?]));
        let rounds: Vec<[f64; 2]> = rounds.collect::<io::Result<_>>()?;
        let [ours, theirs] = [0, 1].map(|side| sorted(rounds.iter().map(|round| round[side]))[ROUNDS / 2]);
        let ratios = sorted(rounds.iter().map(|[ours, theirs]| ours / theirs));
        let [least, median, most] = [0, ROUNDS / 2, ROUNDS - 1].map(|at| ratios[at]);
        page.line(&format!(
            "| {name} | {:.1} k/s | {:.1} k/s | **{median:.2}** ({least:.2}–{most:.2}) |",
            ours / 1000.0,
            theirs / 1000.0
        ));
    }
    let [ours, theirs] = [forkd.memory()?, alone.memory()?];
    page.line(&format!(
        "| memory of all processes | {ours} KiB | {theirs} KiB | **{:.2}** |",
        ours as f64 / theirs as f64
    ));
    page.end(&arguments)
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}
