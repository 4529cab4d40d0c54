//! From options to a plan; what makes no sense is refused before anything is started.

use std::time::Duration;

use crate::Error;
use crate::cli::args::RunArgs;
use forkd_compare::{Contestant, Plan};
use forkd_load::{Load, Phase, Reach, Target};

/// The shortest time in which a phase is measured.
const SHORTEST: Duration = Duration::from_millis(10);

/// Reads the options.
///
/// # Errors
///
/// [`Error::Usage`] with a sentence, and those of a target that can't be.
pub(super) fn plan(args: &RunArgs) -> Result<Plan, Error> {
    let usual = if args.slo.is_empty() { Plan::default() } else { Plan::search() };
    let mut clients = if args.clients.is_empty() { usual.clients.clone() } else { args.clients.clone() };
    clients.sort_unstable();
    clients.dedup();
    let plan = Plan {
        contestants: contestants(args)?,
        phases: phases(args, &usual),
        clients,
        duration: args.duration.map_or(usual.duration, |span| span.0),
        rounds: args.rounds.unwrap_or(usual.rounds),
        workers: args.workers,
        size: args.size.unwrap_or(usual.size),
        is_unix: args.transport == "unix",
        rate: args.rate,
        seed: args.seed.unwrap_or(usual.seed),
        patience: usual.patience,
        stay: args.stay.map_or(usual.stay, |span| span.0),
        slo: args.slo.clone(),
    };
    check(&plan)?;
    Ok(plan)
}

/// Each once, in the order in which they follow each other.
fn phases(args: &RunArgs, usual: &Plan) -> Vec<Phase> {
    let all = [Phase::Hold, Phase::Churn, Phase::PingPong, Phase::Bulk, Phase::Datagrams];
    let is_datagram = args.target.as_ref().is_some_and(|target| target.is_datagram());
    match args.phases.is_empty() {
        true if is_datagram => vec![Phase::Datagrams],
        true => usual.phases.clone(),
        false => all.into_iter().filter(|phase| args.phases.contains(phase)).collect(),
    }
}

fn contestants(args: &RunArgs) -> Result<Vec<Contestant>, Error> {
    let mut all = Vec::new();
    match &args.models {
        Some(names) => {
            for name in names.iter().map(|name| name.trim()).filter(|name| !name.is_empty()) {
                all.push(Contestant::model(name).map_err(Error::Usage)?);
            }
        }
        // a target has the other transport's phases, or is on another machine: it is looked at alone
        None if args.target.as_ref().is_some_and(|target| target.is_datagram()) => {}
        None => all = Plan::default().contestants,
    }
    let place = if args.transport == "unix" { "{path}" } else { "{port}" };
    for text in &args.against {
        all.push(Contestant::command(text, place).map_err(Error::Usage)?);
    }
    if let Some(endpoint) = args.target.clone() {
        let reach = if args.i_own_this_host { Reach::OwnHost } else { Reach::Loopback };
        // refused now, and not after all others
        Target::new(&endpoint, reach)?;
        all.push(Contestant::Running { endpoint, pid: args.pid, reach });
    }
    let mut names: Vec<String> = all.iter().map(Contestant::name).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Error::Usage(format!("{} takes part twice: give one another name", pair[0]))),
        None if all.is_empty() => Err(Error::Usage(
            "there is no server to compare: name --models, a server with --against, or a --target".into(),
        )),
        None => Ok(all),
    }
}

fn check(plan: &Plan) -> Result<(), Error> {
    if plan.rounds == 0 || plan.rounds > 1000 {
        return Err(Error::Usage(format!(
            "the number of rounds can't be {}: from 1 to 1000 there may be",
            plan.rounds
        )));
    }
    if plan.workers.is_some_and(|workers| !(1..=1024).contains(&workers)) {
        return Err(Error::Usage("the number of workers may be from 1 to 1024".into()));
    }
    if plan.duration > Duration::ZERO && plan.duration < SHORTEST {
        return Err(Error::Usage(format!(
            "the duration can't be less than {}: nothing could be told from so short a time",
            humantime::format_duration(SHORTEST)
        )));
    }
    if !plan.slo.is_empty() {
        plan.check_search().map_err(Error::Usage)?;
    }
    // what one load may be, each of these may be: a target that is not connected to stands for all
    for datagrams in [false, true] {
        let scheme = if datagrams { "udp" } else { "tcp" };
        let any =
            format!("{scheme}://127.0.0.1:1").parse().map_err(|why| Error::Internal(format!("{why}")))?;
        let target = Target::new(&any, Reach::Loopback)?;
        for &clients in &plan.clients {
            plan.load(clients).check().map_err(Error::Usage)?;
        }
        // where that is not possible, all is not
        let load = Load::new(target, plan.load(plan.clients.first().copied().unwrap_or(1)))?;
        let is_of_it = |phase: &&Phase| (**phase == Phase::Datagrams) == datagrams;
        plan.phases.iter().filter(is_of_it).try_for_each(|phase| load.check(*phase))?;
    }
    match plan.contestants.iter().find(|one| !plan.phases.iter().any(|phase| one.has(*phase))) {
        Some(one) => {
            let phases: Vec<&str> = plan.phases.iter().map(|phase| phase.name()).collect();
            Err(Error::Usage(format!(
                "{} has none of the phases {}: leave it out",
                one.name(),
                phases.join(", ")
            )))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command};

    fn planned(options: &str) -> Result<Plan, String> {
        let words = ["forkd", "compare"].into_iter().chain(options.split_whitespace());
        let cli =
            Cli::from_args(words.map(|word| word.replace('_', " ").into())).map_err(|e| e.to_string())?;
        let Command::Compare(args) = cli.command else { panic!("not compare") };
        plan(&args.run).map_err(|error| error.sentence())
    }

    #[test]
    fn what_is_not_said_is_as_usual() {
        assert_eq!(planned("").unwrap(), Plan::default());
    }

    #[test]
    fn what_is_said_is_in_the_plan() {
        let plan = planned(
            "--models fork,event --against a=b_{path} --phases datagrams,hold --clients 10,1,10 --duration 1s \
             --rounds 2 --workers 3 --size 100 --transport unix --rate 5/s --seed 7 --stay 3ms",
        )
        .unwrap();
        let expected = Plan {
            contestants: vec![
                Contestant::Model("fork"),
                Contestant::Model("event"),
                Contestant::Command {
                    name: "a".into(),
                    command: "b {path}".into(),
                    words: vec!["b".into(), "{path}".into()],
                },
            ],
            phases: vec![Phase::Hold, Phase::Datagrams],
            clients: vec![1, 10],
            duration: Duration::from_secs(1),
            rounds: 2,
            workers: Some(3),
            size: 100,
            is_unix: true,
            rate: Some(5.0),
            seed: 7,
            patience: Plan::default().patience,
            stay: Duration::from_millis(3),
            slo: Vec::new(),
        };
        assert_eq!(plan, expected);
    }

    #[test]
    fn a_target_may_be_alone() {
        let plan = planned("--models= --target tcp://127.0.0.1:7 --pid 5").unwrap();
        assert_eq!(plan.contestants.len(), 1);
        let plan = planned("--target udp://127.0.0.1:7").unwrap();
        assert_eq!((plan.contestants.len(), plan.phases), (1, vec![Phase::Datagrams]));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        for (options, why) in [
            ("--models fork,fibre", "there is no model \"fibre\": take some of iterative, fork"),
            ("--models fork,fork", "fork takes part twice"),
            ("--models=", "there is no server to compare"),
            ("--clients 0", "the number of clients can't be 0"),
            ("--rounds 0", "the number of rounds can't be 0"),
            ("--workers 0", "the number of workers may be from 1"),
            ("--duration 0s", "leaves no time to measure"),
            ("--rate 0", "the rate can't be 0"),
            ("--service chargen", "[possible values: echo]"),
            ("--duration 9ms", "the duration can't be less than 10ms"),
            ("--target tcp://192.0.2.1:7", "say --i-own-this-host"),
            ("--target udp://127.0.0.1:7 --phases churn", "has none of the phases churn"),
            ("--phases datagrams --size 70000", "a datagram of 70000 bytes"),
            ("--against socat", "has no name"),
            ("--against a=b", "has no {port}"),
            ("--against a=b_{port} --transport unix", "has no {path}"),
            ("--against fork=b_{port}", "fork takes part twice"),
            ("--pid 5", "--target <ENDPOINT>"),
            ("--slo p99=1ms --stay 2s", "take more --clients, or a longer --duration"),
            ("--transport udp", "[possible values: tcp, unix]"),
        ] {
            let error = planned(options).unwrap_err();
            assert!(error.contains(why), "{options}: {error}");
        }
    }
}
