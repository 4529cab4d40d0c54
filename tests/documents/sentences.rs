//! What docs/COMPARE.md says of its records: each sentence with a figure in it.
//!
//! Invariant: a sentence has its figures from the record. What it says beside them is checked too: where the record says
//! otherwise there is an error that names the sentence, to be rewritten by hand.

use std::collections::BTreeMap;

use forkd_compare::record::{Entry, Record};
use forkd_compare::report::figures::{self, Figure, Value, View};
use forkd_load::text::{micros, thousands, wrapped};

/// How wide lines of the documents are.
const WIDTH: usize = 118;

/// A block of a document, or what is no longer true of it.
pub(crate) type Said = Result<String, String>;

/// The records by the names of their directories; that of docs/compare itself has none.
pub(crate) type Records = BTreeMap<&'static str, Record>;

/// Its name, and what is said there.
type Block = (&'static str, fn(&Records) -> Said);

pub(crate) const ALL: [Block; 19] = [
    ("about", about),
    ("others", others),
    ("others table", |all| Ok(table(&all["others"]))),
    ("slo", |all| Ok(table(&all["slo"]))),
    ("slo sentences", |all| Ok(sentences(&all["slo"]))),
    ("table", |all| Ok(table(&all[""]))),
    ("sentences", |all| Ok(sentences(&all[""]))),
    ("fork", fork),
    ("children", children),
    ("requests", requests),
    ("memory", memory),
    ("pool", pool),
    ("threads", threads),
    ("stacks", stacks),
    ("one thread", one_thread),
    ("loop", closed_loop),
    ("rate", rate),
    ("cores", cores),
    ("classical", classical),
];

/// A server of a record, as sentences need it.
#[derive(Clone, Copy)]
struct Server<'a> {
    entry: &'a Entry,
    record: &'a Record,
}

impl Server<'_> {
    fn value(&self, figure: &Figure) -> Result<Value, String> {
        figure.of(&self.entry.into()).ok_or_else(|| format!("{} has no {}", self.entry.name, figure.name))
    }

    fn median(&self, figure: &Figure) -> Result<f64, String> {
        Ok(self.value(figure)?.median)
    }

    /// As in "128 µs".
    fn text(&self, figure: &Figure) -> Said {
        let value = self.value(figure)?;
        match figure.is_too_little(&value, &View::from(self.entry)) {
            true => Ok("too little to measure".into()),
            false => Ok(figure.text(value.median)),
        }
    }

    /// With so many clients, of a record that has several numbers of them.
    fn at(&self, clients: usize, figure: &Figure) -> Result<f64, String> {
        let growth = self.entry.growth.iter().find(|growth| growth.clients == clients);
        let value = growth.and_then(|growth| figure.of(&growth.into()));
        let why = || format!("{} has no {} with {clients} clients", self.entry.name, figure.name);
        Ok(value.ok_or_else(why)?.median)
    }

    fn clients(&self) -> String {
        thousands(self.record.settings.clients.last().copied().unwrap_or(0) as f64)
    }
}

fn server<'a>(record: &'a Record, name: &str) -> Result<Server<'a>, String> {
    let entry = record.models.iter().find(|entry| entry.name == name && entry.failure.is_none());
    Ok(Server { entry: entry.ok_or_else(|| format!("the record has no {name}"))?, record })
}

/// How many times the first figure is the second.
fn ratio(one: Server<'_>, other: Server<'_>, figure: &Figure) -> Result<f64, String> {
    Ok(one.median(figure)? / other.median(figure)?)
}

/// That the record bears a sentence out.
fn holds(is_true: bool, sentence: &str) -> Result<(), String> {
    if is_true { Ok(()) } else { Err(format!("the record does not say that {sentence}")) }
}

fn lines(text: &str) -> Said {
    Ok(wrapped(text, Some(WIDTH)).trim_end().to_owned())
}

/// The tool's table in a terminal that is wide enough for it, with what stands below.
fn table(record: &Record) -> String {
    let text = forkd_compare::report::table::tables(record, Some(132));
    let medians = text.split_once("\n\nFrom the lowest").map_or(&*text, |(medians, _)| medians);
    format!("```text\n{}\n```", medians.trim_end())
}

fn sentences(record: &Record) -> String {
    let said = forkd_compare::report::findings::findings(record);
    let quoted =
        said.iter().map(|sentence| format!("- {}", wrapped(sentence, Some(WIDTH)).replace('\n', "\n  ")));
    quoted.map(|item| item.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

fn about(all: &Records) -> Said {
    let Record { made_at, machine, settings, .. } = &all[""];
    lines(&format!(
        "The table that follows, and the picture above, were made at {made_at}: forkd {}, {}, {} × {}, {} clients, medians of \
         {} rounds of {} s. Your figures will be others.",
        machine.forkd,
        machine.kernel,
        machine.processors,
        machine.processor,
        thousands(settings.clients.last().copied().unwrap_or(0) as f64),
        settings.rounds,
        settings.duration_s
    ))
}

fn others(all: &Records) -> Said {
    let record = &all["others"];
    let [ours, python] = [server(record, "fork")?, server(record, "python fork")?];
    let served = python.median(&figures::SERVED)?;
    holds(served == 40.0, "Python's server serves 40 clients at once")?;
    let times = ratio(python, ours, &figures::CPU)?;
    holds(times > 2.0, "to fork a Python interpreter costs more than to fork forkd")?;
    lines(&format!(
        "The table shows what a reader of Python's documentation may miss: `ForkingMixIn.max_children` is 40, so the 41st client \
         waits until one of the others leaves. And it shows what depends on the program that forks: a connection costs Python {} \
         of processor time, and forkd {}, {times:.0} times less.",
        python.text(&figures::CPU)?,
        ours.text(&figures::CPU)?
    ))
}

fn fork(all: &Records) -> Said {
    let [fork, pool] = [server(&all[""], "fork")?, server(&all[""], "prefork")?];
    let share = 1.0 - ratio(pool, fork, &figures::CPU)?;
    holds(share > 0.3, "most of what fork costs is not spent on the connection")?;
    lines(&format!(
        "fork has {} processes for {} clients, and a connection takes {} of processor time, of which the pool of processes \
         (prefork) takes {}: so {:.0} % of it are not spent on the connection. They are spent on fork, exit, and the first steps \
         of the child:",
        fork.text(&figures::PROCESSES)?,
        fork.clients(),
        fork.text(&figures::CPU)?,
        pool.text(&figures::CPU)?,
        share * 100.0
    ))
}

fn children(all: &Records) -> Said {
    let record = &all["growth"];
    let of = |name: &str| -> Said {
        let server = server(record, name)?;
        let [few, many] = [server.at(10, &figures::CPU)?, server.at(1000, &figures::CPU)?];
        Ok(format!("{:.2} × ({} against {})", many / few, micros(many), micros(few)))
    };
    lines(&format!(
        "How the price changes with the number of children: with 1,000 clients in place of 10 a connection costs fork {} and \
         prefork, which has no more children then, {}. What a thousand children cost that sleep is memory. The picture has the \
         rates:",
        of("fork")?,
        of("prefork")?
    ))
}

fn requests(all: &Records) -> Said {
    let record = &all["growth"];
    let [fork, event] = [server(record, "fork")?, server(record, "event")?];
    let rates = |server: Server<'_>| -> Said {
        let [some, many] = [100, 1000].map(|clients| server.at(clients, &figures::REQ_PER_S));
        Ok(format!("{} a second with 100 clients and {} with 1,000", thousands(some?), thousands(many?)))
    };
    let times = |figure| Ok::<f64, String>(fork.at(100, figure)? / event.at(100, figure)?);
    let (connection, request) = (times(&figures::CPU)?, times(&figures::REQ_CPU)?);
    holds(connection > request && request > 1.0, "fork is dear for connections, and less so for requests")?;
    lines(&format!(
        "**Fork is dear for connections, and less so for requests.** With 100 clients a connection costs it {connection:.1} times \
         the processor time that it costs {title}, and a request {request:.1} times: the kernel still switches to another process \
         for each request. It answers {} ({title}: {}). A client that stays for a minute does not notice {} at its beginning. What \
         fork buys: nothing that a handler does, crash, leak or change of user, can reach another client.",
        rates(fork)?,
        rates(event)?,
        micros(fork.at(100, &figures::CPU)?),
        title = event.entry.title()
    ))
}

fn memory(all: &Records) -> Said {
    let [fork, coroutine] = [server(&all[""], "fork")?, server(&all[""], "coroutine")?];
    lines(&format!(
        "A held child has {} of pages of its own or as its share, and {} of page tables, which it can't share: together {}. A \
         client of {} takes {}. The sum of RSS would be far more: it counts the pages of the program, which all share, once for \
         each child.",
        fork.text(&figures::PSS)?,
        fork.text(&figures::PAGE_TABLES)?,
        fork.text(&figures::MEMORY)?,
        coroutine.entry.title(),
        coroutine.text(&figures::MEMORY)?
    ))
}

fn pool(all: &Records) -> Said {
    let [pool, fork] = [server(&all[""], "prefork")?, server(&all[""], "fork")?];
    let times = ratio(pool, fork, &figures::CONN_PER_S)?;
    holds(times > 1.1, "a pool has more connections per second than fork")?;
    let served = pool.median(&figures::SERVED)?;
    holds(
        Some(served) == pool.entry.workers.map(f64::from),
        "a pool serves as many clients as it has workers",
    )?;
    lines(&format!(
        "{} has {} processes however many clients there are, and {times:.1} times the connections per second of fork, because none \
         needs a fork. But look at the column *served at once*: *{} of {}*.",
        pool.entry.title(),
        pool.text(&figures::PROCESSES)?,
        pool.text(&figures::SERVED)?,
        pool.clients()
    ))
}

fn threads(all: &Records) -> Said {
    let [fork, thread] = [server(&all[""], "fork")?, server(&all[""], "thread")?];
    let share = ratio(thread, fork, &figures::CPU)?;
    holds(share < 0.9, "a connection costs thread less than fork")?;
    lines(&format!(
        "{} has {} processes and {} threads: its workers, each with a thread that accepts and one for each of its clients. A \
         connection costs it {share:.2} × what it costs fork ({} against {}), because a thread shares what fork must copy: page \
         tables, descriptors, signal handlers. And a thread whose client has gone serves the next one.",
        thread.entry.title(),
        thread.text(&figures::PROCESSES)?,
        thread.text(&figures::THREADS)?,
        thread.text(&figures::CPU)?,
        fork.text(&figures::CPU)?
    ))
}

fn stacks(all: &Records) -> Said {
    let [fork, thread] = [server(&all[""], "fork")?, server(&all[""], "thread")?];
    let share = ratio(thread, fork, &figures::MEMORY)?;
    holds(share < 0.9, "a held client takes less memory with thread than with fork")?;
    lines(&format!(
        "What a thread doesn't share is its stack: {} for each held client are the pages of it that were touched, and what the C \
         library keeps for a thread. A child of fork takes {} of PSS, since it shares its pages with its parent until it writes to \
         them; but page tables come to that, and with these a thread takes {}, {share:.2} × of a child's {}.",
        thread.text(&figures::PSS)?,
        fork.text(&figures::PSS)?,
        thread.text(&figures::MEMORY)?,
        fork.text(&figures::MEMORY)?
    ))
}

fn one_thread(all: &Records) -> Said {
    let record = &all[""];
    let [event, coroutine] = [server(record, "event")?, server(record, "coroutine")?];
    let [fork, pool] = [server(record, "fork")?, server(record, "prefork")?];
    let times = ratio(event, fork, &figures::REQ_PER_S)?;
    holds(times > 1.1, "event answers more requests than fork")?;
    let above = ratio(event, pool, &figures::CPU)?;
    holds(above > 1.05, "a connection costs event more than a pool")?;
    lines(&format!(
        "{} and {} serve all {} with {} threads. The memory of a held client is {} (event), and {}, a page or two of stack \
         (coroutine). A connection costs event {} and a pool {}: each is registered for events and looked up, which a worker that \
         simply sleeps in read(2) does without. On standing connections it pays: one wake-up finds many clients ready, where the \
         kernel switches between processes and threads for each request. So event answers {times:.1} times the requests of fork \
         with the same clients.",
        event.entry.title(),
        coroutine.entry.title(),
        event.clients(),
        event.text(&figures::THREADS)?,
        event.text(&figures::MEMORY)?,
        coroutine.text(&figures::MEMORY)?,
        event.text(&figures::CPU)?,
        pool.text(&figures::CPU)?
    ))
}

fn closed_loop(all: &Records) -> Said {
    let fork = server(&all[""], "fork")?;
    let (clients, rate) = (fork.clients(), fork.text(&figures::CONN_PER_S)?);
    let count = fork.record.settings.clients.last().copied().unwrap_or(0) as f64;
    let (wait, median) = (count / fork.median(&figures::CONN_PER_S)? * 1e6, fork.median(&figures::P50)?);
    holds((0.8..1.25).contains(&(median / wait)), "p50 is the number of clients over the rate")?;
    lines(&format!(
        "With {clients} clients, p50 of fork is {}, which looks slow for something that takes {}. But {clients} clients that all \
         wait for a server that does {rate} connections a second must wait {clients} / {rate} s = {} each, whatever the server is \
         like (Little's law once more). So in a closed loop the median says nothing that conn/s doesn't; what is of interest is the \
         distance from p50 to p99, which is about fairness. To learn what users feel at a load that they, and not the server, \
         decide on, give a rate:",
        fork.text(&figures::P50)?,
        fork.text(&figures::CPU)?,
        micros(wait)
    ))
}

fn rate(all: &Records) -> Said {
    let record = &all["rate"];
    let [fork, pool] = [server(record, "fork")?, server(record, "prefork")?];
    let longer =
        |server: Server<'_>| Ok::<f64, String>(server.median(&figures::P50)? - pool.median(&figures::P50)?);
    let more = longer(fork)?;
    holds(
        fork.value(&figures::P50)?.differs(&pool.value(&figures::P50)?) && more > 0.0,
        "fork takes longer",
    )?;
    // records of before there were spare children are read, too
    let spare = match server(record, "spare") {
        Ok(spare) => {
            let left = longer(spare)?;
            holds(left < more, "spare children are there sooner than a fork")?;
            format!(
                " Where children wait for their client ({}), {} of that are left.",
                spare.entry.title(),
                micros(left.max(0.0))
            )
        }
        Err(_) => String::new(),
    };
    let text = lines(&format!(
        "At {} connections a second, which each of them can do, the median connection takes {} longer with fork than with {}: the \
         price of the fork, and no more.{spare}",
        thousands(record.settings.rate.unwrap_or(0.0)),
        micros(more),
        pool.entry.title()
    ));
    Ok(format!("{}\n\n{}", table(record), text?))
}

fn cores(all: &Records) -> Said {
    let record = &all[""];
    let [fork, pool] = [server(record, "fork")?, server(record, "prefork")?];
    let (rates, times) = (ratio(pool, fork, &figures::CONN_PER_S)?, ratio(fork, pool, &figures::CPU)?);
    holds(rates < times, "the rates of fork and prefork differ less than their processor time")?;
    lines(&format!(
        "The machine of these figures has {} processors, and the clients need one of them. So the rates of models that use all \
         processors (all but `iterative`) are bounded by what the clients leave, and differ less than the processor time: between \
         {} and fork, {rates:.1} times against {times:.1}. A warning names the servers that the client held up. Believe processor \
         time. Where there are many processors, pools, threads, event and coroutine can have more `--workers`; fork is bounded by \
         its parent, which forks for all clients, one at a time.",
        record.machine.processors,
        pool.entry.title()
    ))
}

/// Stevens' table: what a connection costs, and how much of that is above the iterative server's.
fn classical(all: &Records) -> Said {
    let about = [
        ("iterative", "one client after the other: the baseline"),
        ("fork", "a child for each client"),
        ("spare", "the same, forked before its client comes"),
        ("prefork", "processes made in advance, each in accept"),
        ("thread", "a thread for each client"),
        ("prethread", "threads made in advance, each in accept"),
        ("event", "one thread serves the clients that are ready"),
        ("coroutine", "the same, with a stack for each client"),
    ];
    let base = server(&all[""], "iterative")?.value(&figures::CPU)?;
    let mut rows = vec![
        "| design | | processor time for a connection | above iterative |".to_owned(),
        "|---|---|--:|--:|".to_owned(),
    ];
    let mut above = BTreeMap::new();
    for (name, what) in about {
        let Ok(server) = server(&all[""], name) else { continue };
        let cost = server.value(&figures::CPU)?;
        let (least, most) = cost.range();
        let more = cost.median - base.median;
        let words = match (name, cost.differs(&base)) {
            ("iterative", _) => "0".to_owned(),
            (_, true) => format!("{more:+.1} µs"),
            (_, false) => "no difference that the rounds show".to_owned(),
        };
        above.insert(name, more);
        rows.push(format!("| `{name}` | {what} | {:.1} µs ({least:.1}–{most:.1}) | {words} |", cost.median));
    }
    let of = |name: &str| above.get(name).copied().ok_or_else(|| format!("the record has no {name}"));
    let (fork, share) = (of("fork")?, of("thread")? / of("fork")?);
    let others = above.iter().filter(|(name, _)| !["fork", "spare"].contains(*name)).map(|(_, more)| *more);
    holds(others.fold(0.0, f64::max) < fork, "a fork for each client is dearest")?;
    holds(
        of("prefork")?.max(of("prethread")?) < fork / 10.0,
        "what was made in advance costs next to nothing",
    )?;
    let text = lines(&format!(
        "As then, a fork for each client is dearest, a thread for each client costs {share:.2} × of what fork costs above the \
         iterative server, and a server that made its processes or threads in advance pays less than a tenth of it. Two things \
         have changed:"
    ));
    Ok(format!("{}\n\n{}", rows.join("\n"), text?))
}
