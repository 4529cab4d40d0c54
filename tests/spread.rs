//! How connections are spread over the workers of a pool that serve many each, and that none is left to a worker that
//! does not come.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::*;
use nix::sys::signal::Signal;

const MODELS: [&str; 3] = ["thread", "event", "coroutine"];

fn spread(daemon: &Daemon) -> Option<f64> {
    daemon.listener(0)["spread"].as_f64()
}

both_ways! {
    fn connections_are_spread_evenly_in_a_burst_and_one_by_one(way: Way) {
        for model in MODELS {
            let daemon = Forkd::new(&format!("-m {model} -w 8")).way(way).start();
            assert_eq!(spread(&daemon), None, "no connections");
            for comes_in_a_burst in [true, false] {
                // a machine that is out of its processors may keep a worker away for longer than it is waited for
                eventually("an even spread", || {
                    let mut clients: Vec<Client> = (0..200)
                        .map(|_| if comes_in_a_burst { daemon.connect() } else { daemon.served() })
                        .collect();
                    clients.iter_mut().for_each(|client| echoes(client, b"x"));
                    let index = spread(&daemon);
                    drop(clients);
                    eventually("they have gone", || spread(&daemon).is_none());
                    index >= Some(0.95)
                });
            }
        }
    }

    fn no_client_waits_for_a_worker_that_does_not_come(way: Way) {
        for model in MODELS {
            let daemon = Forkd::new(&format!("-m {model} -w 3")).way(way).start();
            let workers = daemon.children();
            stopped(workers[0]);
            let mut clients: Vec<Client> = (0..60).map(|_| daemon.asks()).collect();
            clients.iter_mut().for_each(is_answered);
            // those that it has count as if it took clients
            stopped(workers[1]);
            drop(clients);
            let mut client = daemon.asks();
            signal(workers[0], Signal::SIGCONT);
            signal(workers[1], Signal::SIGCONT);
            is_answered(&mut client);
        }
    }

    fn the_connections_of_a_worker_that_is_killed_are_forgotten(way: Way) {
        for model in MODELS {
            let daemon = Forkd::new(&format!("-m {model} -w 2")).way(way).start();
            let clients: Vec<Client> = (0..40).map(|_| daemon.served()).collect();
            signal(daemon.children()[0], Signal::SIGKILL);
            eventually("it is replaced", || daemon.deaths(0, "SIGKILL") == 1 && daemon.children().len() == 2);
            drop(clients);
            eventually("all have gone", || spread(&daemon).is_none());
            eventually("an even spread", || {
                let clients: Vec<Client> = (0..40).map(|_| daemon.served()).collect();
                let index = spread(&daemon);
                drop(clients);
                eventually("they have gone", || spread(&daemon).is_none());
                index >= Some(0.95)
            });
        }
    }
}
