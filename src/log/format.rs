//! Turns a log record into one line of text or one JSON object; pure.
//!
//! The invariant: whatever a message or a value contains, the result is one line, and a reader can
//! tell where each value ends. A stranger's bytes never make a line, a field or a terminal escape
//! of their own.

use std::fmt::Write;
use std::time::SystemTime;

use ::log::kv::{self, Key, Value, VisitSource, VisitValue};
use ::log::{Level, Record};
use serde_json::Value as Json;

use crate::foreign;

/// Returns the text of a record: a word for its level, the message, then ` key=value` for each
/// pair, but for an `endpoint` that the message names. There is neither a name in front nor a newline at the end: those are the sink's.
pub(super) fn text(record: &Record<'_>) -> String {
    let word = match record.level() {
        Level::Error => "error: ",
        Level::Warn => "warning: ",
        Level::Info => "",
        Level::Debug | Level::Trace => "debug: ",
    };
    let mut line = String::from(word);
    let message = record.args().to_string();
    line.push_str(&foreign::line(&message));
    // our own visitor never fails
    let _ = record.key_values().visit(&mut TextFields { line: &mut line, message: &message });
    line
}

/// Returns a record as a JSON object: `ts` (RFC 3339, UTC, milliseconds), `level`, `pid` (of the
/// process that logs), `msg`, and the key-value pairs; numbers and booleans stay what they are.
///
/// A key that would repeat one of those four gets an underscore: a line about another process has
/// it as `pid_`.
pub(super) fn json(record: &Record<'_>, now: SystemTime, pid: u32) -> String {
    let level = match record.level() {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug | Level::Trace => "debug",
    };
    // humantime panics before 1970, which a board without a battery may believe it is
    let ts = humantime::format_rfc3339_millis(now.max(SystemTime::UNIX_EPOCH));
    let msg = Json::from(record.args().to_string());
    let mut line = format!(r#"{{"ts":"{ts}","level":"{level}","pid":{pid},"msg":{msg}"#);
    // our own visitor never fails
    let _ = record.key_values().visit(&mut JsonFields(&mut line));
    line.push('}');
    foreign::json(&line).into_owned()
}

/// Returns the severity of syslog(3), as the journal reads it in `<N>`; see sd-daemon(3).
pub(super) fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Appends a value, bare if quotes would change nothing, otherwise as a Rust string literal.
fn push_value(line: &mut String, value: &str) {
    let quoted = format!("{value:?}");
    let is_plain = quoted.len() == value.len() + 2;
    if is_plain && !value.is_empty() && !value.contains([' ', '=']) {
        line.push_str(value);
    } else {
        line.push_str(&quoted);
    }
}

struct TextFields<'a> {
    line: &'a mut String,
    message: &'a str,
}

impl<'kvs> VisitSource<'kvs> for TextFields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        if to_json(&value)?.is_null() {
            return Ok(());
        }
        let value = value.to_string();
        if key.as_str() != "endpoint" || !self.message.ends_with(&value) {
            write!(self.line, " {key}=")?;
            push_value(self.line, &value);
        }
        Ok(())
    }
}

struct JsonFields<'a>(&'a mut String);

impl<'kvs> VisitSource<'kvs> for JsonFields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let found = to_json(&value)?;
        if found.is_null() {
            return Ok(());
        }
        let mut name = key.to_string();
        if ["ts", "level", "pid", "msg"].contains(&key.as_str()) {
            name.push('_');
        }
        write!(self.0, ",{}:{found}", Json::from(name))?;
        Ok(())
    }
}

/// What a value is as JSON; of what is null, as an `Option` that is `None`, there is no pair in a line.
fn to_json(value: &Value<'_>) -> Result<Json, kv::Error> {
    let mut found = ToJson(Json::Null);
    value.visit(&mut found)?;
    Ok(found.0)
}

struct ToJson(Json);

impl VisitValue<'_> for ToJson {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), kv::Error> {
        self.0 = value.to_string().into();
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), kv::Error> {
        self.0 = Json::Null;
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::log::kv::ToValue;
    use std::time::Duration;

    fn with_record(level: Level, message: &str, pairs: &[(&str, Value<'_>)], check: impl Fn(&Record<'_>)) {
        let args = format_args!("{message}");
        check(&Record::builder().level(level).args(args).key_values(&pairs).build());
    }

    fn text_of(level: Level, message: &str, pairs: &[(&str, Value<'_>)]) -> String {
        let line = std::cell::RefCell::default();
        with_record(level, message, pairs, |record| *line.borrow_mut() = text(record));
        line.into_inner()
    }

    #[test]
    fn text_is_words_then_pairs() {
        let pairs = [("slot", 3.into()), ("pid", 41.into())];
        assert_eq!(text_of(Level::Info, "worker ready", &pairs), "worker ready slot=3 pid=41");
        assert_eq!(text_of(Level::Warn, "x", &[]), "warning: x");
        assert_eq!(text_of(Level::Error, "x", &[]), "error: x");
        assert_eq!(text_of(Level::Debug, "x", &[]), "debug: x");
    }

    #[test]
    fn an_endpoint_is_named_once() {
        let pairs = [("endpoint", "tcp://a:1".into()), ("service", "echo".into())];
        assert_eq!(
            text_of(Level::Info, "listening on tcp://a:1", &pairs),
            "listening on tcp://a:1 service=echo"
        );
        assert_eq!(text_of(Level::Info, "stop", &pairs), "stop endpoint=tcp://a:1 service=echo");
    }

    #[test]
    fn values_that_could_mislead_are_quoted() {
        let of = |value: &str| text_of(Level::Info, "m", &[("k", value.into())]);
        assert_eq!(of("127.0.0.1:7"), "m k=127.0.0.1:7");
        assert_eq!(of(""), r#"m k="""#);
        assert_eq!(of("a b"), r#"m k="a b""#);
        assert_eq!(of("a pid=1"), r#"m k="a pid=1""#);
        assert_eq!(of("a=b"), r#"m k="a=b""#);
        assert_eq!(of(r#"say "hi""#), r#"m k="say \"hi\"""#);
        assert_eq!(of(r"a\nb"), r#"m k="a\\nb""#);
        assert_eq!(of("a\nforkd: b"), r#"m k="a\nforkd: b""#);
        assert_eq!(of("\x1b[31m"), r#"m k="\u{1b}[31m""#);
        assert_eq!(of("a\u{2028}b\u{202e}"), r#"m k="a\u{2028}b\u{202e}""#);
        assert_eq!(of("größe"), "m k=größe");
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let (unknown, known) = (None::<u32>, Some(3_u32));
        let pairs = [("worker", unknown.to_value()), ("slot", known.to_value())];
        assert_eq!(text_of(Level::Info, "m", &pairs), "m slot=3");
        with_record(Level::Info, "m", &pairs, |record| {
            let line = json(record, SystemTime::UNIX_EPOCH, 7);
            assert!(line.ends_with(r#""msg":"m","slot":3}"#), "{line}");
        });
    }

    #[test]
    fn a_message_stays_on_its_line() {
        assert_eq!(text_of(Level::Info, "a\nb\t\x7f \"c\" it's", &[]), r#"a\nb\t\u{7f} "c" it's"#);
    }

    #[test]
    fn json_keeps_types_and_has_no_key_twice() {
        let pairs = [
            ("slot", 3.into()),
            ("pid", 41.into()),
            ("ratio", 0.5.into()),
            ("up", true.into()),
            ("delta", (-2).into()),
            ("peer", "a\n\"b\u{9b}".into()),
        ];
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        with_record(Level::Warn, "worker \"w\"\n", &pairs, |record| {
            let expected = concat!(
                r#"{"ts":"2023-11-14T22:13:20.123Z","level":"warn","pid":7,"msg":"worker \"w\"\n","#,
                r#""slot":3,"pid_":41,"ratio":0.5,"up":true,"delta":-2,"peer":"a\n\"b\u009b"}"#
            );
            assert_eq!(json(record, now, 7), expected);
            assert!(serde_json::from_str::<Json>(expected).is_ok());
        });
    }

    #[test]
    fn a_clock_before_1970_is_no_reason_to_die() {
        with_record(Level::Info, "m", &[], |record| {
            let line = json(record, SystemTime::UNIX_EPOCH - Duration::from_secs(1), 7);
            assert!(line.starts_with(r#"{"ts":"1970-01-01T00:00:00.000Z""#));
        });
    }
}
