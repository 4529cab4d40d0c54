//! What a text that is no endpoint was meant to be, and so what to write instead of it.

use super::{Endpoint, parse};

/// Where a host is missing, the safe one.
const LOOPBACK: &str = "127.0.0.1";

/// The endpoint that is meant by a text such as `8080`, `*:8080`, `TCP://localhost:8080`, `udp:8080`, `/run/x` or
/// `./x`, with a remark where that is needed; all forms, if none is meant.
pub(super) fn advice(input: &str) -> String {
    let (scheme, rest) = divided(input);
    let parsed = |text: String| parse(&text).ok();
    if let Some(meant) = parsed(format!("{scheme}:{rest}")).or_else(|| parsed(format!("{scheme}://{rest}"))) {
        return meant.to_string();
    }
    let with_host = |host: &str, port: &str| parsed(format!("{scheme}://{host}:{port}"));
    if let Some(everywhere) = rest.strip_prefix("*:").and_then(|port| with_host("[::]", port)) {
        return format!("{everywhere} (for every address, of IPv4 as well)");
    }
    if let Some(here) = with_host(LOOPBACK, rest.strip_prefix(':').unwrap_or(rest)) {
        return format!("{here} (for this machine alone; 0.0.0.0 stands for every address)");
    }
    match in_a_directory(&scheme, rest) {
        Some(meant) => format!("{meant}, with the whole path of the directory"),
        None => "tcp://HOST:PORT, udp://HOST:PORT, unix:///PATH, unixgram:///PATH or systemd:NAME".into(),
    }
}

/// The scheme that a text has, in lower case, or that it means; and what follows.
fn divided(input: &str) -> (String, &str) {
    const SCHEMES: [&str; 5] = ["tcp", "udp", "unix", "unixgram", "systemd"];
    let is_scheme = |word: &str| SCHEMES.iter().any(|scheme| scheme.eq_ignore_ascii_case(word));
    let named =
        input.split_once("://").or_else(|| input.split_once(':').filter(|(scheme, _)| is_scheme(scheme)));
    let is_path = input.contains('/') && !input.contains(':');
    match named {
        Some((scheme, rest)) => match scheme.to_ascii_lowercase() {
            // the slashes of a path are its own
            scheme if scheme.starts_with("unix") => (scheme, rest),
            scheme => (scheme, rest.trim_start_matches('/')),
        },
        None => ((if is_path { "unix" } else { "tcp" }).into(), input),
    }
}

/// The endpoint of a socket file whose path does not start at `/`. Which directory it starts from, the text does not say.
fn in_a_directory(scheme: &str, path: &str) -> Option<Endpoint> {
    let name =
        path.rsplit('/').next().filter(|name| !["", ".", ".."].contains(name) && !path.starts_with('/'))?;
    parse(&format!("{scheme}:///DIRECTORY/{name}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_meant() {
        let alone =
            |endpoint: &str| format!("{endpoint} (for this machine alone; 0.0.0.0 stands for every address)");
        for text in ["8080", ":8080", "tcp:8080", "tcp://8080", "tcp://:8080", "tcp::8080", "TCP:8080"] {
            assert_eq!(advice(text), alone("tcp://127.0.0.1:8080"), "{text}");
        }
        assert_eq!(advice("udp:53"), alone("udp://127.0.0.1:53"));
        for (text, meant) in [
            ("127.0.0.1:80", "tcp://127.0.0.1:80"),
            ("localhost:8080", "tcp://localhost:8080"),
            ("udp:a:1", "udp://a:1"),
            ("[::1]:7", "tcp://[::1]:7"),
            ("/run/x", "unix:///run/x"),
            ("unix:/run/x", "unix:///run/x"),
            ("TCP://a:7", "tcp://a:7"),
            ("tcp:/a:7", "tcp://a:7"),
            ("udp:///[::1]:7", "udp://[::1]:7"),
            ("Udp://[::1]:7", "udp://[::1]:7"),
            ("UNIX:///run/X", "unix:///run/X"),
            ("Unixgram:/run/x", "unixgram:///run/x"),
            ("SystemD:Echo", "systemd:Echo"),
            ("systemd://echo", "systemd:echo"),
        ] {
            assert_eq!(advice(text), meant, "{text}");
        }
    }

    #[test]
    fn a_star_is_every_address() {
        let remark = " (for every address, of IPv4 as well)";
        for (text, meant) in
            [("*:8080", "tcp://[::]:8080"), ("tcp://*:7", "tcp://[::]:7"), ("UDP:*:53", "udp://[::]:53")]
        {
            assert_eq!(advice(text), format!("{meant}{remark}"), "{text}");
        }
    }

    #[test]
    fn a_relative_path_needs_its_directory() {
        let remark = ", with the whole path of the directory";
        for (text, meant) in [
            ("./sock", "unix:///DIRECTORY/sock"),
            ("../run/x.sock", "unix:///DIRECTORY/x.sock"),
            ("run/x", "unix:///DIRECTORY/x"),
            ("unix:./sock", "unix:///DIRECTORY/sock"),
            ("unix://run/x", "unix:///DIRECTORY/x"),
            ("unix:sock", "unix:///DIRECTORY/sock"),
            ("UNIXGRAM:sock", "unixgram:///DIRECTORY/sock"),
        ] {
            assert_eq!(advice(text), format!("{meant}{remark}"), "{text}");
        }
    }

    #[test]
    fn where_nothing_is_meant_all_forms_are_named() {
        let texts = [
            "",
            "localhost",
            "http://a:80",
            "99999",
            "tcp://a",
            "::1:80",
            "systemd:",
            "unix:",
            "unix:///",
            "unix:.",
            "*",
            "*:",
            "*:x",
            "run/",
            "..",
        ];
        for text in texts {
            assert!(advice(text).starts_with("tcp://HOST:PORT, "), "{text}: {}", advice(text));
        }
    }
}
