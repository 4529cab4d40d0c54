//! Which servers take part, and what each is started with.

use super::words::split;
use forkd_load::{Phase, Reach};
use forkd_net::Endpoint;

/// forkd's models by the names that [`Contestant::model`] takes, in the order of the classical table: with
/// one process, with more, with threads, with neither.
pub const MODELS: [&str; 8] =
    ["iterative", "fork", "spare", "prefork", "thread", "prethread", "event", "coroutine"];

/// Workers of a pool whose workers serve one client each.
const POOL: u32 = 8;

/// Children that wait for their client.
const SPARE: u32 = 16;

/// A server that takes part.
#[derive(Debug, Clone, PartialEq)]
pub enum Contestant {
    /// forkd itself.
    Model(&'static str),
    /// A program that is started for it.
    Command {
        /// What it is called.
        name: String,
        /// The command as it was given, with `{port}` or `{path}` in it.
        command: String,
        /// The program and its arguments, taken from that.
        words: Vec<String>,
    },
    /// One that runs already.
    Running {
        /// Where.
        endpoint: Endpoint,
        /// Its first process.
        pid: Option<u32>,
        /// How far away it may be.
        reach: Reach,
    },
}

impl Contestant {
    /// Finds a model of forkd.
    ///
    /// # Errors
    ///
    /// A sentence that names those that there are.
    pub fn model(name: &str) -> Result<Self, String> {
        let known = MODELS.into_iter().find(|model| *model == name);
        known
            .map(Self::Model)
            .ok_or_else(|| format!("there is no model {name:?}: take some of {}", MODELS.join(", ")))
    }

    /// Reads `NAME=COMMAND`. The command is split into words as a shell would, and run without one.
    ///
    /// # Errors
    ///
    /// A sentence that says what is missing; `place` is what must be in the command, such as `{port}`.
    pub fn command(text: &str, place: &str) -> Result<Self, String> {
        let (name, command) = text
            .split_once('=')
            .filter(|(name, _)| !name.trim().is_empty())
            .ok_or_else(|| format!("{text:?} has no name: write NAME=COMMAND, such as 'socat=socat TCP-LISTEN:{{port}},fork EXEC:cat'"))?;
        let words = split(command)?;
        match words.iter().any(|word| word.contains(place)) {
            true => Ok(Self::Command { name: name.trim().into(), command: command.into(), words }),
            false => Err(format!(
                "the command of {:?} has no {place}, so it can't be told where to listen",
                name.trim()
            )),
        }
    }

    /// Returns what it is called.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Model(name) => (*name).into(),
            Self::Command { name, .. } => name.clone(),
            Self::Running { endpoint, .. } => endpoint.to_string(),
        }
    }

    /// Tells whether it has such a phase at all.
    #[must_use]
    pub fn has(&self, phase: Phase) -> bool {
        match self {
            Self::Model(_) => true,
            // whether it answers datagrams is not known; what it is started on is a stream
            Self::Command { .. } => phase != Phase::Datagrams,
            Self::Running { endpoint, .. } => endpoint.is_datagram() == (phase == Phase::Datagrams),
        }
    }

    /// Returns the workers of its pool, the threads of prethread's or the children of spare that wait, if `asked` for or by
    /// default.
    pub(super) fn workers(&self, asked: Option<u32>, processors: usize) -> Option<u32> {
        match self {
            Self::Model("prefork" | "prethread") => Some(asked.unwrap_or(POOL)),
            Self::Model("spare") => Some(asked.unwrap_or(SPARE)),
            Self::Model("thread" | "event" | "coroutine") => Some(asked.unwrap_or(processors as u32)),
            _ => None,
        }
    }

    /// Whether it has a fixed number of workers that serve one client each.
    pub(super) fn is_pool(&self) -> bool {
        matches!(self, Self::Model("prefork" | "prethread"))
    }

    /// Whether each connection has a thread of its own, so that forkd's count of children is not all.
    pub(super) fn starts_threads(&self) -> bool {
        *self == Self::Model("thread")
    }
}

/// The options of a model of forkd, after `serve`: its limits have room for `clients` clients.
pub(super) fn options(model: &str, workers: Option<u32>, clients: usize) -> Vec<String> {
    let kind = match model {
        "prethread" => "thread",
        "spare" => "fork",
        model => model,
    };
    let mut options = vec!["-m".to_owned(), kind.to_owned()];
    let mut say = |option: &str, number: u64| options.extend([option.to_owned(), number.to_string()]);
    match (model, workers) {
        ("prethread", Some(threads)) => say("--threads", threads.into()),
        ("spare", Some(children)) => say("--spare", children.into()),
        (_, Some(workers)) => say("--workers", workers.into()),
        (_, None) => {}
    }
    // those that have just hung up are still there for a moment
    let room = (clients as u64 * 2 + 64).max(1024);
    match model {
        "fork" | "spare" => say("--max-children", room),
        "thread" => say("--max-threads", room),
        _ => {}
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_known_by_name() {
        for name in MODELS {
            assert_eq!(Contestant::model(name).unwrap().name(), name);
        }
        let why = Contestant::model("fibre").unwrap_err();
        assert!(why.contains("\"fibre\"") && why.contains("iterative, fork, spare, prefork"), "{why}");
    }

    #[test]
    fn a_command_has_a_name_and_a_place_to_listen() {
        let socat = Contestant::command(" so=socat 'TCP-LISTEN:{port},fork' EXEC:cat", "{port}").unwrap();
        let words = ["socat", "TCP-LISTEN:{port},fork", "EXEC:cat"].map(str::to_owned).to_vec();
        let command = "socat 'TCP-LISTEN:{port},fork' EXEC:cat".into();
        assert_eq!(socat, Contestant::Command { name: "so".into(), command, words });
        for (text, why) in [
            ("socat", "has no name: write NAME=COMMAND"),
            ("=socat {port}", "has no name"),
            ("a=b", "has no {port}"),
            ("a=b '{port}", "not closed"),
        ] {
            let error = Contestant::command(text, "{port}").unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn pools_have_workers_and_others_have_room() {
        let workers = |name, asked| Contestant::model(name).unwrap().workers(asked, 4);
        assert_eq!(
            MODELS.map(|name| workers(name, None)),
            [None, None, Some(16), Some(8), Some(4), Some(8), Some(4), Some(4)]
        );
        assert_eq!(workers("event", Some(3)), Some(3));
        assert_eq!(options("prefork", Some(8), 10).join(" "), "-m prefork --workers 8");
        assert_eq!(options("prethread", Some(8), 10).join(" "), "-m thread --threads 8");
        assert_eq!(options("fork", None, 10).join(" "), "-m fork --max-children 1024");
        assert_eq!(options("spare", Some(16), 10).join(" "), "-m fork --spare 16 --max-children 1024");
        assert_eq!(options("thread", Some(2), 5000).join(" "), "-m thread --workers 2 --max-threads 10064");
        assert_eq!(options("iterative", None, 5000).join(" "), "-m iterative");
    }

    #[test]
    fn what_runs_already_has_the_phases_of_its_transport() {
        let running = |endpoint: &str| Contestant::Running {
            endpoint: endpoint.parse().unwrap(),
            pid: None,
            reach: Reach::Loopback,
        };
        assert!(
            running("tcp://127.0.0.1:7").has(Phase::Hold) && !running("udp://127.0.0.1:7").has(Phase::Hold)
        );
        assert!(running("udp://127.0.0.1:7").has(Phase::Datagrams));
        assert!(!running("unix:///x").has(Phase::Datagrams));
    }
}
