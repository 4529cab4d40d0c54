//! Which sockets a service gets from systemd, and whether its configuration can do with them.

use std::path::Path;

use super::{failure, property};
use crate::config::options::ListenOptions;
use crate::config::{Config, File, Sources};
use crate::failed::Failed;
use crate::{Error, Failure, log};
use forkd_server::Endpoint;

/// What a socket unit hands over.
#[derive(Debug)]
pub(super) struct Socket {
    /// Its `FileDescriptorName=`.
    name: String,
    /// Where it takes datagrams.
    datagrams: Vec<Endpoint>,
}

impl Socket {
    /// Those that systemd would hand to a service if it started that now.
    pub(super) fn all_of(unit: &str) -> Result<Vec<Self>, Error> {
        let started = property(unit, "Requires")? + " " + &property(unit, "Wants")?;
        let mut sockets = Vec::new();
        for socket in property(unit, "TriggeredBy")?.split_whitespace() {
            let is_started = started.split_whitespace().any(|other| other == socket);
            if is_started || property(socket, "ActiveState")? == "active" {
                let name = property(socket, "FileDescriptorName")?;
                sockets.push(Self { name, datagrams: datagrams(&property(socket, "Listen")?) });
            }
        }
        Ok(sockets)
    }
}

/// The addresses for datagrams in what systemctl(1) shows of `Listen`: `[::]:7 (Datagram)`, one on each line.
fn datagrams(listen: &str) -> Vec<Endpoint> {
    let addresses = listen.lines().filter_map(|line| line.strip_suffix(" (Datagram)"));
    let endpoint = |address: &str| match address.starts_with('/') {
        true => format!("unixgram://{address}").parse().ok(),
        false => format!("udp://{address}").parse().ok(),
    };
    addresses.filter_map(endpoint).collect()
}

pub(super) fn names(sockets: &[Socket]) -> Vec<&str> {
    sockets.iter().map(|socket| &*socket.name).collect()
}

/// Finds out whether a service with these sockets could serve a configuration. Without those for metrics it could.
pub(super) fn check(unit: &str, sockets: &[Socket], configuration: &str) -> Result<(), Failed> {
    let config = parse(configuration)?;
    for listen in &config.listen {
        listen.endpoints.iter().try_for_each(|endpoint| check_one(unit, sockets, listen, endpoint))?;
    }
    let metrics = config.daemon.metrics.map(|metrics| metrics.0);
    if let Some(why) = metrics.and_then(|endpoint| absence(sockets, &endpoint)) {
        log::caution(&format!("{unit} would serve without metrics: {why}"));
    }
    Ok(())
}

fn check_one(
    unit: &str,
    sockets: &[Socket],
    listen: &ListenOptions,
    endpoint: &Endpoint,
) -> Result<(), Failed> {
    if let Some(why) = absence(sockets, endpoint) {
        return Err(Error::Unavailable(Failure::from(format!("{unit} can't serve {why}"))).into());
    }
    let served = sockets.iter().filter(|socket| is_named(socket, endpoint));
    served
        .flat_map(|socket| &socket.datagrams)
        .try_for_each(|address| listen.check_inherited(address))
        .map_err(|error| failure(unit, error.exit_code(), &error.sentence()))
}

/// Why an endpoint that systemd is to hand over would not be there.
fn absence(sockets: &[Socket], endpoint: &Endpoint) -> Option<String> {
    if !endpoint.is_inherited() || sockets.iter().any(|socket| is_named(socket, endpoint)) {
        return None;
    }
    let names = match sockets {
        [] => "nothing, as there are none".to_owned(),
        _ => names(sockets).join(", "),
    };
    Some(format!("{endpoint}: the sockets that it gets are named {names}"))
}

fn is_named(socket: &Socket, endpoint: &Endpoint) -> bool {
    matches!(endpoint, Endpoint::Systemd(name) if name.as_ref().is_none_or(|name| *name == socket.name))
}

/// Reads what a check has printed.
fn parse(configuration: &str) -> Result<Config, Error> {
    let file = File::parse(Path::new("what the check has printed"), configuration.into())?;
    Config::merge(&Sources::default(), Some(file), Path::new("/"), |_| None, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(configuration: &str) -> Result<(), String> {
        let datagrams = datagrams("[::]:7 (Stream)\n[::]:7 (Datagram)\n/run/x (Datagram)\n/run/y (FIFO)");
        let sockets =
            [Socket { name: "echo".into(), datagrams }, Socket { name: "tcp".into(), datagrams: Vec::new() }];
        check("x.service", &sockets, configuration).map_err(|failed| failed.why)
    }

    #[test]
    fn addresses_for_datagrams_are_endpoints() {
        let expected = ["udp://[::]:7".parse().unwrap(), "unixgram:///run/x".parse().unwrap()];
        assert_eq!(
            datagrams("[::]:7 (Stream)\n[::]:7 (Datagram)\n/run/x (Datagram)\n@a (Datagram)"),
            expected
        );
    }

    #[test]
    fn a_service_gets_the_sockets_that_it_names() {
        let serves = |endpoint: &str| said(&format!("[[listen]]\nendpoints = [\"{endpoint}\"]"));
        assert_eq!(
            [serves("systemd:echo"), serves("systemd:*"), serves("tcp://[::]:7")],
            [Ok(()), Ok(()), Ok(())]
        );
        let why = "x.service can't serve systemd:ech: the sockets that it gets are named echo, tcp";
        assert!(serves("systemd:ech").unwrap_err().contains(why));
        assert_eq!(
            said("[daemon]\nmetrics = \"systemd:m\"\n[[listen]]\nendpoints = [\"systemd:echo\"]"),
            Ok(())
        );
    }

    #[test]
    fn a_service_of_connections_gets_no_datagrams() {
        let serves =
            |name: &str| said(&format!("[[listen]]\nendpoints = [\"systemd:{name}\"]\nservice = \"http\""));
        assert_eq!(serves("tcp"), Ok(()));
        assert!(serves("echo").unwrap_err().contains("ListenDatagram="));
        assert!(serves("*").unwrap_err().contains("ListenDatagram="));
    }
}
