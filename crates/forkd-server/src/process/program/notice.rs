//! A message of a program to who has started it: sd_notify(3).

use super::shown::shown;

/// The most bytes of a `STATUS=` that are kept.
const LONGEST_STATUS: usize = 256;

/// What a program says of itself. What it does not mention has not changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Notice {
    /// It serves (`READY=1`), or has finished a reload.
    pub(crate) ready: bool,
    /// It leaves (`STOPPING=1`).
    pub(crate) stopping: bool,
    /// What it does (`STATUS=`), as a part of one line; an empty text takes an earlier one back.
    pub(crate) status: Option<String>,
    pub(crate) watchdog: Option<Watchdog>,
}

/// What a program says to its watchdog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watchdog {
    /// It lives (`WATCHDOG=1`).
    Alive,
    /// It has failed, and is to be treated as if it had not been heard of in time (`WATCHDOG=trigger`).
    Failed,
}

impl Notice {
    /// Reads a message: assignments, one in each line, of which a later one counts. What is not understood is passed over, as
    /// `MAINPID=` is: the program is the one that was started.
    pub(crate) fn parse(message: &[u8]) -> Self {
        let mut notice = Self::default();
        for line in message.split(|&byte| byte == b'\n') {
            match line {
                b"READY=1" => notice.ready = true,
                b"STOPPING=1" => notice.stopping = true,
                b"WATCHDOG=1" => notice.watchdog = Some(Watchdog::Alive),
                b"WATCHDOG=trigger" => notice.watchdog = Some(Watchdog::Failed),
                _ => {
                    let status = line.strip_prefix(b"STATUS=");
                    notice.status = status.map(|text| shown(text, LONGEST_STATUS)).or(notice.status);
                }
            }
        }
        notice
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_assignment_is_understood() {
        let nothing = Notice::default();
        for (message, expected) in [
            ("READY=1", Notice { ready: true, ..nothing.clone() }),
            ("STOPPING=1\n", Notice { stopping: true, ..nothing.clone() }),
            ("RELOADING=1\nMONOTONIC_USEC=7", nothing.clone()),
            ("WATCHDOG=1", Notice { watchdog: Some(Watchdog::Alive), ..nothing.clone() }),
            ("WATCHDOG=trigger", Notice { watchdog: Some(Watchdog::Failed), ..nothing.clone() }),
            ("STATUS=a=b", Notice { status: Some("a=b".into()), ..nothing.clone() }),
            ("STATUS=a\nSTATUS=", Notice { status: Some(String::new()), ..nothing.clone() }),
            (
                "STATUS=up\nREADY=1\nMAINPID=1\nX_OWN=1",
                Notice { ready: true, status: Some("up".into()), ..nothing.clone() },
            ),
        ] {
            assert_eq!(Notice::parse(message.as_bytes()), expected, "{message:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_passed_over() {
        for message in [
            "",
            "\n\n",
            "READY=0",
            "READY=1 ",
            " READY=1",
            "ready=1",
            "READY",
            "BARRIER=1",
            "READY=1\0",
            "MAINPID=0",
        ] {
            assert_eq!(Notice::parse(message.as_bytes()), Notice::default(), "{message:?}");
        }
    }

    #[test]
    fn a_status_is_bounded_and_a_part_of_one_line() {
        let status = |text: &[u8]| Notice::parse(&[b"STATUS=", text].concat()).status.expect("a status");
        assert_eq!(status("é".repeat(500).as_bytes()), "é".repeat(128));
        assert_eq!(status(b"\x1b[31mred\x07\xff"), "red\\u{7}\u{fffd}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message(message: Vec<u8>, status: Vec<u8>) {
            Notice::parse(&message);
            let notice = Notice::parse(&[&message[..], b"\nSTATUS=", &status].concat());
            let status = notice.status.expect("a status");
            prop_assert!(status.len() <= LONGEST_STATUS && !status.contains(char::is_control));
        }
    }
}
