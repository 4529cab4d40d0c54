//! What a program finds in its environment about the connection: ucspi-tcp's tcp-environ(5), the UNIX
//! protocol of ucspi-unix, and `REMOTE_ADDR` and `REMOTE_PORT` as systemd sets them (systemd.exec(5)).

use std::ffi::OsString;
use std::os::fd::AsFd;

use crate::sys::socket::credentials;
use crate::transport::{Connection, Endpoint, Peer};

/// All names that tell of a connection. What isn't known of this one is taken out: it would be known of
/// another one, by which this server was started itself.
const NAMES: [&str; 24] = [
    "PROTO",
    "REMOTE_ADDR",
    "REMOTE_PORT",
    "REMOTE_HOST",
    "LOCAL_ADDR",
    "LOCAL_PORT",
    "LOCAL_HOST",
    "TCPREMOTEIP",
    "TCPREMOTEPORT",
    "TCPREMOTEHOST",
    "TCPREMOTEINFO",
    "TCPLOCALIP",
    "TCPLOCALPORT",
    "TCPLOCALHOST",
    "UNIXREMOTEPID",
    "UNIXREMOTEEUID",
    "UNIXREMOTEEGID",
    "UNIXREMOTEUSER",
    "UNIXREMOTEPATH",
    "UNIXLOCALPATH",
    "UNIXLOCALPID",
    "UNIXLOCALUID",
    "UNIXLOCALGID",
    "UNIXLOCALUSER",
];

/// Each name, with the value that it has for this connection.
pub(super) fn of(
    connection: &Connection<'_>,
    socket: impl AsFd,
) -> impl Iterator<Item = (&'static str, Option<OsString>)> {
    let mut known = Vec::new();
    let mut tell = |names: &[&'static str], value: OsString| {
        known.extend(names.iter().map(|&name| (name, value.clone())));
    };
    match connection.peer() {
        Peer::Ip(address) => {
            tell(&["PROTO"], "TCP".into());
            tell(&["REMOTE_ADDR", "TCPREMOTEIP"], address.ip().to_string().into());
            tell(&["REMOTE_PORT", "TCPREMOTEPORT"], address.port().to_string().into());
        }
        Peer::Unix { .. } => {
            tell(&["PROTO"], "UNIX".into());
            if let Some(client) = credentials(socket) {
                if client.pid != 0 {
                    tell(&["UNIXREMOTEPID"], client.pid.to_string().into());
                }
                tell(&["UNIXREMOTEEUID"], client.uid.to_string().into());
                tell(&["UNIXREMOTEEGID"], client.gid.to_string().into());
            }
        }
        Peer::None => {}
    }
    match connection.local_endpoint() {
        Some(Endpoint::Tcp { host, port }) => {
            tell(&["LOCAL_ADDR", "TCPLOCALIP"], host.into());
            tell(&["LOCAL_PORT", "TCPLOCALPORT"], port.to_string().into());
        }
        Some(Endpoint::Unix(path)) => tell(&["UNIXLOCALPATH"], path.into()),
        _ => {}
    }
    NAMES.into_iter().map(move |name| {
        let found = known.iter().find(|(known, _)| *known == name);
        (name, found.map(|(_, value)| value.clone()))
    })
}
