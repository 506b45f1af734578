//! The log: one JSON object per line on stderr.
//!
//! ```text
//! {"time_ms":N,"level":"info","event":"idempotency","key_hash":"..","route":"..","status":N,"duration_ms":N,"attempt":N,"outcome":".."}
//! {"time_ms":N,"level":"warn","event":"records of an earlier boot are in doubt","interrupted":1}
//! ```

use std::fmt::{Debug, Display};
use std::io::Write;

use ibid::{Clock, SystemClock};
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::metadata::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// The event of one request on a keyed route, and what every one of them has.
const REQUEST: &str = "idempotency";
const REQUEST_FIELDS: [&str; 6] = ["key_hash", "route", "status", "duration_ms", "attempt", "outcome"];

/// Everything of ibid's goes to stderr from here on.
pub(crate) fn begin() -> Result<(), String> {
    tracing::subscriber::set_global_default(Log).map_err(|error| error.to_string())
}

/// Spans are not told.
struct Log;

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::INFO && metadata.target().starts_with("ibid")
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        if let Some(line) = line.written(*event.metadata().level(), SystemClock.now().0) {
            // There is nobody to tell that the log cannot be written.
            drop(std::io::stderr().lock().write_all(line.as_bytes()));
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Line {
    event: String,
    fields: Vec<(&'static str, Value)>,
}

impl Line {
    /// With its end. `None` where it is neither a request nor a warning nor an error.
    fn written(mut self, level: Level, time_ms: u64) -> Option<String> {
        if self.event == REQUEST {
            let field = |name| self.fields.iter().position(|(known, _)| *known == name);
            let values =
                REQUEST_FIELDS.map(|name| (name, field(name).map_or(Value::Null, |at| self.fields[at].1.clone())));
            self.fields = values.into();
        } else if level > Level::WARN {
            return None;
        }
        let level = level.as_str().to_ascii_lowercase();
        let mut line = format!(r#"{{"time_ms":{time_ms},"level":"{level}","event":{}"#, Value::from(self.event));
        for (name, value) in self.fields {
            line.push_str(&format!(",{}:{value}", Value::from(name)));
        }
        line.push_str("}\n");
        Some(line)
    }

    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.fields.push((field.name(), value.into()));
    }

    fn put_text(&mut self, field: &Field, text: impl Display) {
        if field.name() == "message" {
            self.event = text.to_string();
        } else {
            self.put(field, text.to_string());
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put_text(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_text(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.put(field, u64::try_from(value).unwrap_or(u64::MAX));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(event: &str, fields: &[(&'static str, Value)], level: Level) -> Option<String> {
        Line { event: event.into(), fields: fields.to_vec() }.written(level, 5)
    }

    #[test]
    fn a_request_has_every_field_in_order() {
        let fields = [("outcome", "passed".into()), ("route", "POST /v1/pay".into()), ("status", 200.into())];
        let expected = r#"{"time_ms":5,"level":"info","event":"idempotency","key_hash":null,"route":"POST /v1/pay","status":200,"duration_ms":null,"attempt":null,"outcome":"passed"}"#;
        assert_eq!(line(REQUEST, &fields, Level::INFO), Some(format!("{expected}\n")));
    }

    #[test]
    fn beside_requests_only_warnings_and_errors_are_told() {
        let fields = [("interrupted", 1.into())];
        let expected = "{\"time_ms\":5,\"level\":\"warn\",\"event\":\"in \\\"doubt\\\"\",\"interrupted\":1}\n";
        assert_eq!(line("in \"doubt\"", &fields, Level::WARN).as_deref(), Some(expected));
        assert!(line("the store failed", &[], Level::ERROR).is_some());
        assert_eq!(line("expiry sweep", &[], Level::INFO), None);
    }
}
