//! The grammar of `forkd probe`.

use std::str::FromStr;

use clap::Args;

use crate::config::values::Span;
use forkd_server::Endpoint;

pub(super) const EXAMPLES: &str = "\
Examples:
  forkd probe tcp://127.0.0.1:7007
  forkd probe --timeout 500ms udp://127.0.0.1:7007
  forkd probe --connect-only tcp://127.0.0.1:13
  forkd probe http://127.0.0.1:9707/readyz";

/// The options of `probe`.
#[derive(Debug, Clone, Args)]
pub struct ProbeArgs {
    /// Server to ask for an echo: tcp://HOST:PORT, udp://HOST:PORT, unix:///PATH or unixgram:///PATH; or
    /// http://HOST:PORT/PATH, where the answer has to have a status of 200 to 299
    #[arg(value_name = "ENDPOINT")]
    pub server: Probed,

    /// How long all may take
    #[arg(long, value_name = "DURATION", default_value = "2s")]
    pub timeout: Span,

    /// Make a connection and no more, for a service that does not echo. The kernel makes it, so this tells whether the
    /// server listens, and not whether it serves
    #[arg(long)]
    pub connect_only: bool,
}

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// What it is asked for by HTTP, if it is asked so.
    pub path: Option<String>,
}

impl FromStr for Probed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix("http://") else {
            let endpoint = text.parse().map_err(|error: forkd_net::ParseEndpointError| error.to_string())?;
            return Ok(Self { endpoint, path: None });
        };
        let (server, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = if path.is_empty() { "/" } else { path };
        match format!("tcp://{server}").parse() {
            Ok(endpoint) if path.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Ok(Self { endpoint, path: Some(path.to_owned()) })
            }
            _ => Err(format!("{text:?} is not like http://HOST:PORT/PATH")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_or_a_url() {
        let probed = |text: &str| text.parse::<Probed>();
        let of = |endpoint: &str, path: Option<&str>| {
            Ok(Probed { endpoint: endpoint.parse().unwrap(), path: path.map(Into::into) })
        };
        assert_eq!(probed("udp://[::1]:7"), of("udp://[::1]:7", None));
        assert_eq!(probed("http://[::1]:9707/readyz"), of("tcp://[::1]:9707", Some("/readyz")));
        assert_eq!(probed("http://localhost:80"), of("tcp://localhost:80", Some("/")));
        for text in ["http://localhost/", "http://:80", "http://a:80/\r\nX", "http://a:80/ b", "http://"] {
            assert!(probed(text).unwrap_err().ends_with("is not like http://HOST:PORT/PATH"), "{text}");
        }
        assert!(probed("localhost:7").unwrap_err().contains("has no scheme"));
    }
}
