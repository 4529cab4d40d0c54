//! What can be said of two servers that differ: a sentence for each figure.

use super::figures::{self, Figure};

/// What a figure can say of two servers, with the greater value first.
pub(super) struct Topic {
    pub(super) figure: &'static Figure,
    /// Whether the greater value is the better one.
    pub(super) more_is_better: bool,
    /// Whether pools, which have served all clients of it one after the other, are contrasted with each other.
    pub(super) is_of_pools: bool,
    /// What is counted, as in "the processor time of a connection".
    pub(super) what: &'static str,
    pub(super) say: fn(&Contrast) -> String,
}

/// The server with the greatest value, and the one with the least.
pub(super) struct Contrast<'a> {
    pub(super) most: &'a str,
    pub(super) least: &'a str,
    /// As in "2.4 times"; "more than 999 times" if there is next to nothing to compare with.
    pub(super) times: String,
    /// As in "110 µs against 46 µs".
    pub(super) both: String,
}

pub(super) static TOPICS: [Topic; 11] = [
    Topic {
        figure: &figures::CPU,
        more_is_better: false,
        is_of_pools: true,
        what: "the processor time for a connection",
        say: |it| {
            format!(
                "a connection cost {} {} the processor time that it cost {}: {}.",
                it.most, it.times, it.least, it.both
            )
        },
    },
    Topic {
        figure: &figures::MEMORY,
        more_is_better: false,
        is_of_pools: false,
        what: "the memory for a held connection",
        say: |it| {
            format!(
                "a client that only stays connected took {} the memory with {} that it took with {}: {}.",
                it.times, it.most, it.least, it.both
            )
        },
    },
    // of records without page tables
    Topic {
        figure: &figures::PSS,
        more_is_better: false,
        is_of_pools: false,
        what: "the PSS for a held connection",
        say: |it| {
            format!(
                "a client that only stays connected took {} the PSS with {} that it took with {}: {}.",
                it.times, it.most, it.least, it.both
            )
        },
    },
    Topic {
        figure: &figures::REQ_PER_S,
        more_is_better: true,
        is_of_pools: false,
        what: "the number of requests per second",
        say: |it| {
            format!(
                "on standing connections {} answered {} the requests per second of {}: {}.",
                it.most, it.times, it.least, it.both
            )
        },
    },
    Topic {
        figure: &figures::MB_PER_S,
        more_is_better: true,
        is_of_pools: false,
        what: "the speed of one stream",
        say: |it| {
            format!("one stream was {} as fast with {} as with {}: {}.", it.times, it.most, it.least, it.both)
        },
    },
    Topic {
        figure: &figures::P99,
        more_is_better: false,
        is_of_pools: false,
        what: "the time of the slowest percent of connections",
        say: |it| {
            format!(
                "the slowest percent of connections took {} as long with {} as with {}: at least {}.",
                it.times, it.most, it.least, it.both
            )
        },
    },
    Topic {
        figure: &figures::REQ_P99,
        more_is_better: false,
        is_of_pools: false,
        what: "the time of the slowest percent of requests",
        say: |it| {
            format!(
                "the slowest percent of requests took {} as long with {} as with {}: at least {}.",
                it.times, it.most, it.least, it.both
            )
        },
    },
    Topic {
        figure: &figures::CONN_PER_S,
        more_is_better: true,
        is_of_pools: false,
        what: "the number of connections per second",
        say: |it| {
            format!("{} had {} the connections per second of {}: {}.", it.most, it.times, it.least, it.both)
        },
    },
    Topic {
        figure: &figures::DATAGRAMS,
        more_is_better: true,
        is_of_pools: false,
        what: "the number of answered datagrams per second",
        say: |it| {
            format!(
                "{} answered {} the datagrams per second of {}: {}.",
                it.most, it.times, it.least, it.both
            )
        },
    },
    Topic {
        figure: &figures::DATAGRAM_CPU,
        more_is_better: false,
        is_of_pools: false,
        what: "the processor time for a datagram",
        say: |it| {
            format!(
                "a datagram cost {} {} the processor time that it cost {}: {}.",
                it.most, it.times, it.least, it.both
            )
        },
    },
    Topic {
        figure: &figures::REQ_CPU,
        more_is_better: false,
        is_of_pools: false,
        what: "the processor time for a request",
        say: |it| {
            format!(
                "a request cost {} {} the processor time that it cost {}: {}.",
                it.most, it.times, it.least, it.both
            )
        },
    },
];
