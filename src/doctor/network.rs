//! What the network of the kernel leaves: queues, buffers, ports, the firewall's table.

use super::facts::{Facts, Room};
use super::finding::{Finding, Mend, Verdict};
use super::need::Need;
use super::show::amount;

/// How many seconds the firewall and the client's side keep a connection that has ended.
const TIME_WAIT: u64 = 120;

/// How many seconds the client's side keeps the port of a connection that it has ended: `TCP_TIMEWAIT_LEN` of Linux.
const PORT_WAIT: u64 = 60;

/// What a small datagram takes of a receive buffer: its data, and what the kernel keeps with it.
const DATAGRAM: u64 = 768;

/// What the network leaves.
pub(super) fn findings(facts: &Facts, need: &Need) -> Vec<Finding> {
    vec![
        listen_queue(facts, need),
        half_open(facts, need),
        receive_buffer(facts, need),
        tracked(facts, need),
        ports(facts, need),
    ]
}

/// As the warning at the start.
fn listen_queue(facts: &Facts, need: &Need) -> Finding {
    const LIMIT: &str = "net.core.somaxconn";
    Finding::of(LIMIT, &facts.listen_queue, |most| {
        let asked = need.backlog.unwrap_or(0);
        let queue = if asked == 0 { *most } else { asked.min(*most) };
        let mut meaning = format!("{} connections wait at most until forkd accepts them", amount(queue));
        if asked > *most {
            meaning += &format!("; --backlog asks for {}", amount(asked));
        }
        if let Some(arrivals) = need.arrivals.filter(|arrivals| *arrivals > 0) {
            let seconds = queue as f64 / arrivals as f64;
            meaning += &format!("; {} per second fill that in {seconds:.1} s", amount(arrivals));
        }
        let found = Finding::ok(LIMIT, amount(*most), meaning + ".");
        // all of it is there for this one queue
        match asked > *most {
            true => found.judged(need, asked, *most, || Mend::sysctl(LIMIT, asked)),
            false => found,
        }
    })
}

fn half_open(facts: &Facts, need: &Need) -> Finding {
    const LIMIT: &str = "net.ipv4.tcp_max_syn_backlog";
    Finding::of(LIMIT, &facts.half_open, |(most, has_cookies)| {
        let asked = need.backlog.unwrap_or(0);
        match has_cookies {
            true => Finding::ok(
                LIMIT,
                amount(*most),
                "More clients at once cost no connection: SYN cookies are on.",
            ),
            false => {
                let meaning = format!(
                    "SYN cookies are off, and about {} clients can be connecting at once; others try again after a second.",
                    amount(most - most / 4)
                );
                let found = Finding::ok(LIMIT, amount(*most), meaning);
                if asked > *most {
                    found.but(Verdict::Tight, Mend::sysctl("net.ipv4.tcp_syncookies", 1))
                } else {
                    found
                }
            }
        }
    })
}

/// As the warning at the start.
fn receive_buffer(facts: &Facts, need: &Need) -> Finding {
    const LIMIT: &str = "net.core.rmem_max";
    Finding::of(LIMIT, &facts.receive_buffer, |(default, most)| {
        // the kernel takes twice what it is asked for, but not of its default
        let bytes = need.receive_buffer.map_or(*default, |asked| 2 * asked.min(*most));
        let mut meaning = format!("A UDP socket keeps about {} small datagrams", amount(bytes / DATAGRAM));
        meaning += &match need.receive_buffer {
            Some(asked) if asked > *most => {
                format!("; --receive-buffer asks for {}", amount(2 * asked / DATAGRAM))
            }
            Some(_) => String::new(),
            None => format!(", and {} with --receive-buffer {most}", amount(2 * most / DATAGRAM)),
        };
        let found = Finding::ok(LIMIT, amount(*most), meaning + ".");
        let asked = need.receive_buffer.unwrap_or(0);
        match asked > *most {
            true => found.judged(need, asked, *most, || Mend::sysctl(LIMIT, asked)),
            false => found,
        }
    })
}

fn tracked(facts: &Facts, need: &Need) -> Finding {
    const LIMIT: &str = "nf_conntrack_max";
    Finding::of(LIMIT, &facts.tracked, |tracked| {
        let Some(room @ Room { most, used }) = *tracked else {
            return Finding::ok(LIMIT, "not loaded", "No firewall keeps a table of connections.");
        };
        let wanted = need.connections.unwrap_or(0) + need.arrivals.unwrap_or(0) * TIME_WAIT;
        let meaning = format!(
            "A firewall that keeps a table of connections drops new ones when it has {} more; each stays {TIME_WAIT} s \
             after its end.",
            amount(room.left())
        );
        let found = Finding::ok(LIMIT, format!("{}, {} used", amount(most), amount(used)), meaning).judged(
            need,
            wanted,
            room.left(),
            || Mend::sysctl("net.netfilter.nf_conntrack_max", used + 2 * wanted),
        );
        match found.verdict {
            // it is loaded, and no rule has it keep anything yet
            Verdict::Limits if used == 0 => Finding { verdict: Verdict::Tight, ..found },
            _ => found,
        }
    })
}

/// Of interest to clients on this machine alone, such as `forkd load`; so it is never more than tight.
fn ports(facts: &Facts, need: &Need) -> Finding {
    const LIMIT: &str = "net.ipv4.ip_local_port_range";
    Finding::of(LIMIT, &facts.ports, |(first, last)| {
        let count = last.saturating_sub(*first) + 1;
        let reuses = facts.reuses_ports == Ok(1);
        let per_second = if reuses { count } else { count / PORT_WAIT };
        let meaning = format!(
            "For clients here, such as forkd load: one address has {} connections at once to a server, and makes {} per \
             second if it ends them itself. At 127.0.0.1 forkd load has 64 addresses.",
            amount(count),
            amount(per_second)
        );
        let found = Finding::ok(LIMIT, format!("{first} {last}"), meaning);
        let few_ports = need.connections.is_some_and(|asked| asked > count);
        if few_ports && count < 60_000 {
            found.but(Verdict::Tight, Mend::sysctl(LIMIT, "1024 65535"))
        } else if !reuses && need.arrivals.is_some_and(|asked| asked > per_second) {
            found.but(Verdict::Tight, Mend::sysctl("net.ipv4.tcp_tw_reuse", 1))
        } else {
            found
        }
    })
}
