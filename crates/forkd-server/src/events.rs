//! Every line about the life of the daemon and its children, in one place.
//!
//! Constant words first, then `key=value`. error: the operator must act; warn: something is
//! degraded; info: the life of the daemon and of workers; debug: each connection.

use std::fmt::Display;
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::time::Duration;

use log::{debug, error, info, warn};

use crate::Error;
use crate::access::rules::Rule;
use crate::admission::News;
use crate::limit::SharedLimit;
use crate::scoreboard::{Cause, Child, Place};
use crate::transport::{Endpoint, Offence, Peer, Refusal};
use forkd_net::unit;

pub(crate) fn listening(
    endpoint: &Endpoint,
    service: &str,
    model: &dyn Display,
    workers: Option<RangeInclusive<u32>>,
) {
    match workers.map(RangeInclusive::into_inner) {
        None => info!(endpoint:%, service, model:%; "listening on {endpoint}"),
        Some((min, max)) if min < max => {
            let workers = format_args!("{min}..{max}");
            info!(endpoint:%, service, model:%, workers:%; "listening on {endpoint}");
        }
        Some((_, workers)) => info!(endpoint:%, service, model:%, workers; "listening on {endpoint}"),
    }
}

pub(crate) fn sandbox_lacks(missing: &str) {
    info!("the sandbox does without what this kernel lacks, or this process may not use: {missing}");
}

pub(crate) fn secluded(endpoint: &Endpoint, why: &str) {
    warn!(endpoint:%; "only processes of this unit reach {endpoint}; {why}");
}

pub(crate) fn handed_over_in_vain(name: &str) {
    warn!(name:%; "sockets of this name were handed over, and no endpoint asks for them");
}

pub(crate) fn backlog_capped(asked: u32, cap: u32) {
    warn!(asked, cap; "backlog is capped by the kernel (net.core.somaxconn)");
}

pub(crate) fn receive_buffer_capped(endpoint: &Endpoint, asked: u32, cap: u32) {
    warn!(asked, cap, endpoint:%; "receive buffer is capped by the kernel (net.core.rmem_max)");
}

pub(crate) fn draining(signal: &str, children: u32, delay: Duration) {
    let delay = humantime::format_duration(delay);
    info!(signal, children, delay:%; "draining: clients are still taken");
}

pub(crate) fn idle(limit: Duration) {
    let limit = humantime::format_duration(limit);
    info!("no client has been here for {limit}: ending until one comes to the sockets");
}

pub(crate) fn idle_no_more() {
    debug!("going on: a client has come while idle workers were leaving");
}

pub(crate) fn stopping(signal: &str, children: u32, grace: Duration) {
    let grace = humantime::format_duration(grace);
    info!(signal, children, grace:%; "stopping");
}

pub(crate) fn stop_hastened(children: u32) {
    warn!(children; "ending connections that are still open");
}

pub(crate) fn stopped(connections: u64, cut: u64) {
    info!(connections, cut; "stopped");
}

pub(crate) fn attendant_fork_failed(name: &str, error: &dyn Display, suppressed: u64) {
    warn!(error:%, suppressed; "cannot fork the {name}; trying again");
}

pub(crate) fn attendant_ended(name: &str, pid: u32, how: &str, suppressed: u64) {
    warn!(pid, how, suppressed; "{name} ended; starting another");
}

pub(crate) fn upgrading() {
    info!("upgrading: trying the new program");
}

pub(crate) fn upgrade_refused(why: &str) {
    error!("upgrade refused, going on as before: {why}");
}

/// `older`: how many children of programs before this one go on.
pub(crate) fn upgraded(older: usize) {
    info!(older; "upgraded: this program has replaced the one before");
}

pub(crate) fn older_ended(children: usize) {
    warn!(children; "ending children of older programs: their time to finish is over");
}

pub(crate) fn reloading() {
    info!("reloading the configuration");
}

pub(crate) fn reloaded() {
    info!("the new configuration is in force");
}

pub(crate) fn reload_refused(why: &str) {
    error!("reload failed, the old configuration stays in force: {why}");
}

pub(crate) fn no_longer_listening(endpoint: &Endpoint) {
    info!(endpoint:%; "no longer listening on {endpoint}");
}

pub(crate) fn not_adapted(endpoint: &Endpoint, error: &dyn Display) {
    warn!(error:%, endpoint:%; "cannot change the backlog, the receive buffer or the socket's mode");
}

pub(crate) fn worker_started(endpoint: &Endpoint, slot: u32, pid: u32, place: Option<Place>) {
    let worker = place.map(|place| place.number);
    debug!(worker, slot, pid, endpoint:%; "worker started");
}

pub(crate) fn worker_killed(endpoint: &Endpoint, worker: u32, why: &str) {
    warn!(worker, endpoint:%; "killing a worker, which {why}");
    say_unheard(&format!("killing worker {worker} of {endpoint}, which {why}"));
}

pub(crate) fn worker_renewed(endpoint: &Endpoint, place: Option<Place>, pid: u32, why: &dyn Display) {
    let worker = place.map(|place| place.number);
    info!(worker, pid, endpoint:%, why:%; "replacing a worker");
}

/// A program has printed a line, and some before it that are left out.
pub(crate) fn worker_printed(worker: u32, pid: u32, line: &str, left_out: u64) {
    match left_out {
        0 => info!(worker, pid; "{line}"),
        left_out => info!(worker, pid, left_out; "{line}"),
    }
}

/// A worker that accepts by itself has left, which nothing has asked it for.
pub(crate) fn worker_left(endpoint: &Endpoint, worker: u32, pid: u32, status: Option<u8>, age: Duration) {
    let age = humantime::format_duration(age);
    match status {
        Some(status) => warn!(worker, pid, status, endpoint:%, age:%; "worker ended by itself"),
        None => warn!(worker, pid, endpoint:%, age:%; "worker ended by itself"),
    }
    say_unheard(&format!("worker {worker} of {endpoint} ended by itself, after {age}"));
}

/// At its end a program has printed some lines more.
pub(crate) fn worker_lines_left_out(worker: u32, pid: u32, left_out: u64) {
    if left_out > 0 {
        info!(worker, pid, left_out; "worker has printed more than is logged");
    }
}

pub(crate) fn worker_failed(endpoint: &Endpoint, worker: u32, error: &dyn Display) {
    error!(worker, endpoint:%, error:%; "worker failed");
    say_unheard(&format!("worker {worker} of {endpoint} failed: {error}"));
}

/// It was not told to leave.
pub(crate) fn worker_returned(endpoint: &Endpoint, worker: u32) {
    info!(worker, endpoint:%; "worker has returned; another takes its place");
}

pub(crate) fn pool_resized(endpoint: &Endpoint, min: u32, max: u32) {
    info!(min, max, endpoint:%; "pool resized");
}

/// The operator's signal has no effect.
pub(crate) fn no_pool(signal: &str) {
    warn!(signal; "there is no pool of workers to resize; going on as before");
}

/// Limits on the lines about children that did not end by themselves, by kind: clients may cause any number of them.
#[derive(Debug)]
pub(crate) struct DeathLimits {
    failed: SharedLimit,
    killed: SharedLimit,
    oom: SharedLimit,
}

impl DeathLimits {
    pub(crate) const fn new() -> Self {
        Self { failed: SharedLimit::new(), killed: SharedLimit::new(), oom: SharedLimit::new() }
    }
}

/// A child is no more: an ordinary end is for debugging, a violent one for the operator.
pub(crate) fn child_ended(
    endpoint: &Endpoint,
    child: &Child<'_>,
    cause: Cause,
    lived: Duration,
    is_stopping: bool,
    limits: &DeathLimits,
) {
    let (pid, peer, age) = (child.pid(), child.slot.peer(), humantime::format_duration(lived));
    let what = if child.is_watched() { "worker" } else { "child" };
    let worker = child.place().map(|place| place.number);
    let is_expected = matches!(cause, Cause::Signal(signal) if is_stopping && is_of_a_stop(signal));
    if is_expected || cause.is_normal() {
        debug!(worker, pid, cause:%, peer:%, endpoint:%; "{what} ended");
        return;
    }
    let is_crash = matches!(cause, Cause::Signal(_)) && cause.is_crash();
    let limit = match cause {
        Cause::Oom => &limits.oom,
        Cause::Signal(_) if !is_crash => &limits.killed,
        _ => &limits.failed,
    };
    let Some(suppressed) = limit.admit() else { return };
    if cause != Cause::Panicked {
        // of a panic it has said so itself
        say_unheard(&format!("the {what} {pid} of {endpoint} has died: {cause}"));
    }
    match cause {
        Cause::Oom => {
            let carried = child.carried(child.started_ms() + lived.as_millis() as u64);
            let (bytes_in, bytes_out) = (carried.bytes_in, carried.bytes_out);
            warn!(
                worker, pid, cause:%, peer:%, endpoint:%, age:%, bytes_in, bytes_out, suppressed;
                "{what} was killed: out of memory"
            );
        }
        Cause::Signal(_) if !is_crash => {
            warn!(worker, pid, cause:%, peer:%, endpoint:%, age:%, suppressed; "{what} was killed");
        }
        _ => {
            let how = if is_crash { "crashed" } else { "failed" };
            error!(worker, pid, cause:%, peer:%, endpoint:%, age:%, suppressed; "{what} {how}");
        }
    }
}

/// What the master itself sends at a stop, and says so.
fn is_of_a_stop(signal: u8) -> bool {
    [libc::SIGTERM, libc::SIGQUIT, libc::SIGKILL].contains(&i32::from(signal))
}

pub(crate) fn handler_failed(peer: Peer, error: &dyn Display, suppressed: u64) {
    warn!(peer:%, error:%, suppressed; "handler failed");
}

/// Says on standard error that a handler has failed, of which nobody would hear else, as the program has no logger.
pub(crate) fn handler_failed_unheard(peer: Peer, error: &dyn Display, suppressed: u64) {
    let others = if suppressed > 0 { format!(" ({suppressed} more were left out)") } else { String::new() };
    say_unheard(&format!("the handler of {peer} failed: {error}{others}"));
}

/// A worker, or a server in its caller's process, could not serve a single client.
pub(crate) fn worker_cannot_start(error: &Error) {
    let why = error.sentence();
    error!("worker cannot start: {why}");
    say_unheard(&format!("a worker cannot start: {why}"));
}

/// Says on standard error what nobody would hear else, as the program has no logger.
fn say_unheard(what: &str) {
    if has_logger() {
        return;
    }
    let line = format!("forkd-server: {what}\n");
    // in one piece, as other processes may say something; and where it is closed there is nobody to tell
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Whether the program has set a logger, be it one that wants no line: `log` has one of its own until then, of no size,
/// that wants none.
fn has_logger() -> bool {
    let wants_errors = || log::logger().enabled(&log::Metadata::builder().level(log::Level::Error).build());
    log::max_level() > log::LevelFilter::Off || size_of_val(log::logger()) > 0 || wants_errors()
}

/// A handler or a protocol panicked, and its process goes on. The panic itself has been reported.
pub(crate) fn connection_failed(endpoint: &Endpoint, peer: Peer) {
    error!(cause:% = Cause::Panicked, peer:%, endpoint:%; "connection failed");
}

pub(crate) fn error_hook_panicked(peer: Peer) {
    error!(peer:%; "handle_error hook panicked");
}

/// The limit that a process or thread most likely meets which the system refuses to start.
pub(crate) fn limit_of_tasks(error: &io::Error) -> &'static str {
    let is_unit = unit::is_one();
    match error.raw_os_error() {
        Some(libc::EAGAIN) if is_unit => " (TasksMax= of the unit limits processes and threads)",
        Some(libc::EAGAIN) => {
            " (`ulimit -u`, pids.max of the control group and kernel.threads-max limit them)"
        }
        Some(libc::ENOMEM) if is_unit => " (MemoryMax= of the unit limits memory)",
        _ => "",
    }
}

pub(crate) fn fork_failing(error: &io::Error) {
    let limit = limit_of_tasks(error);
    warn!(error:%; "cannot fork; holding connections and trying again{limit}");
}

pub(crate) fn fork_works_again(after: Duration) {
    let after = humantime::format_duration(after);
    info!(after:%; "fork works again");
}

pub(crate) fn spares_failing(endpoint: &Endpoint) {
    warn!(endpoint:%; "spare children end before they have a client; forking one now and then");
}

pub(crate) fn spares_work_again(endpoint: &Endpoint, after: Duration) {
    let after = humantime::format_duration(after);
    info!(endpoint:%, after:%; "spare children wait for clients again");
}

pub(crate) fn held_too_long(peer: Peer, endpoint: &Endpoint, suppressed: u64) {
    warn!(peer:%, endpoint:%, suppressed; "closed a connection for which no child could be forked");
}

pub(crate) fn threads_failing(endpoint: &Endpoint, error: &io::Error) {
    let limit = limit_of_tasks(error);
    warn!(endpoint:%, error:%; "cannot start a thread; holding a connection and trying again{limit}");
}

pub(crate) fn threads_work_again(endpoint: &Endpoint) {
    info!(endpoint:%; "threads can be started again");
}

pub(crate) fn no_thread_for(peer: Peer, endpoint: &Endpoint, suppressed: u64) {
    warn!(peer:%, endpoint:%, suppressed; "closed a connection for which no thread could be started");
}

pub(crate) fn no_threads(endpoint: &Endpoint, error: &io::Error) {
    let limit = limit_of_tasks(error);
    error!(endpoint:%, error:%; "cannot start the threads of a worker{limit}");
    say_unheard(&format!("cannot start the threads for {endpoint}: {error}{limit}"));
}

pub(crate) fn worker_fork_failed(endpoint: &Endpoint, error: &io::Error) {
    let limit = limit_of_tasks(error);
    warn!(endpoint:%, error:%; "cannot fork a worker; trying again{limit}");
}

pub(crate) fn workers_complete(endpoint: &Endpoint) {
    info!(endpoint:%; "all workers are running again");
}

/// What accepting has to tell, if anything.
pub(crate) fn accepting(endpoint: &Endpoint, news: Option<News>) {
    match news {
        None => {}
        Some(News::ShortageBegins(error)) => {
            warn!(endpoint:%, error:%; "cannot accept; connections wait in the backlog");
        }
        Some(News::ShortageEnds) => info!(endpoint:%; "accepting again"),
        Some(News::Failed(error, suppressed)) => accept_failed(endpoint, &error, suppressed),
    }
}

pub(crate) fn accept_failed(endpoint: &Endpoint, error: &dyn Display, suppressed: u64) {
    warn!(endpoint:%, error:%, suppressed; "accept failed");
}

pub(crate) fn rejected(endpoint: &Endpoint, peer: Peer, limit: u32, suppressed: u64) {
    warn!(limit, peer:%, endpoint:%, suppressed; "rejected a connection at the limit");
}

/// By where it comes from.
pub(crate) fn refused(endpoint: &Endpoint, peer: Peer, cause: Refusal, suppressed: u64) {
    info!(peer:%, cause:%, endpoint:%, suppressed; "refused a client");
}

/// From here on all clients of this source are refused for so long.
pub(crate) fn penalised(
    endpoint: &Endpoint,
    source: Rule,
    offence: Offence,
    length: Duration,
    suppressed: u64,
) {
    let length = humantime::format_duration(length);
    info!(source:%, cause:% = offence, lasts:% = length, endpoint:%, suppressed; "refusing a source for a while");
}

/// Of a connection that a proxy passes on.
pub(crate) fn no_proxy_header(endpoint: &Endpoint, proxy: Peer, why: &str, suppressed: u64) {
    warn!(proxy:%, endpoint:%, suppressed; "a proxy has not said whose its connection is: no PROXY header, {why}");
}

pub(crate) fn at_limit(endpoint: &Endpoint, limit: u32, suppressed: u64) {
    warn!(limit, endpoint:%, suppressed; "child limit reached; new clients wait");
}

pub(crate) fn at_thread_limit(endpoint: &Endpoint, limit: u32, suppressed: u64) {
    warn!(limit, endpoint:%, suppressed; "thread limit reached; new clients wait");
}

/// The connection of one client of many has ended; the worker goes on.
pub(crate) fn protocol_panicked(peer: Peer) {
    error!(peer:%; "protocol panicked; its connection ends");
}

pub(crate) fn connections_at_limit(endpoint: &Endpoint, limit: u32, suppressed: u64) {
    warn!(limit, endpoint:%, suppressed; "connection limit reached; new clients wait");
}

pub(crate) fn accepted(endpoint: &Endpoint, peer: Peer, pid: u32) {
    debug!(pid, peer:%, endpoint:%; "connection accepted");
}
