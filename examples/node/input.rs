//! Lines of input: read whole and bounded, then understood or refused by name.

use std::io::{BufRead, Read};

use ibid::NodeId;
use serde::Deserialize;

/// Bytes of one line, at most: a full frame with every byte escaped is less than half of it.
const LINE_BYTES: usize = 1024 * 1024;

pub(crate) enum Line {
    Frame { from: NodeId, payload: String },
    Stats,
    AdvanceClock { ms: i64 },
    ExpirySweep,
    Tick,
    Shutdown,
}

#[derive(Deserialize)]
struct Members {
    control: Option<String>,
    ms: Option<i64>,
    from: Option<String>,
    payload: Option<String>,
}

/// The next line that is not empty, `None` at the end of input. An error is to be reported and read past.
pub(crate) fn next(input: &mut impl BufRead) -> Option<Result<Line, String>> {
    loop {
        let mut line = Vec::new();
        // What stdin cannot give any more is an end of input too.
        let read = input.by_ref().take(LINE_BYTES as u64 + 1).read_until(b'\n', &mut line).unwrap_or(0);
        if read == 0 {
            return None;
        }
        if line.len() > LINE_BYTES && line.last() != Some(&b'\n') {
            // A failed read shows again at the next line.
            let _ended = input.skip_until(b'\n');
            return Some(Err(format!("a line holds at most {LINE_BYTES} bytes")));
        }
        if !line.trim_ascii().is_empty() {
            return Some(understand(&line));
        }
    }
}

fn understand(line: &[u8]) -> Result<Line, String> {
    let text = std::str::from_utf8(line).map_err(|_| "the line is not UTF-8")?;
    if !text.trim_start().starts_with('{') {
        return Err("the line is not a JSON object".into());
    }
    // The error's own text names a position and a type, and may quote what it found there: not repeated.
    let members: Members = serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => "a member is of a wrong type or given twice",
        _ => "the line is not a JSON object",
    })?;
    match (members.control.as_deref(), members.from, members.payload) {
        (Some("stats"), None, None) => Ok(Line::Stats),
        (Some("advance_clock"), None, None) => {
            members.ms.map(|ms| Line::AdvanceClock { ms }).ok_or("advance_clock needs ms, whole milliseconds".into())
        }
        (Some("expiry_sweep"), None, None) => Ok(Line::ExpirySweep),
        (Some("tick"), None, None) => Ok(Line::Tick),
        (Some("shutdown"), None, None) => Ok(Line::Shutdown),
        (Some(_), None, None) => {
            Err("unknown control: there are stats, advance_clock, expiry_sweep, tick and shutdown".into())
        }
        (None, Some(from), Some(payload)) => match NodeId::from_hex(&from) {
            Ok(from) => Ok(Line::Frame { from, payload }),
            Err(invalid) => Err(invalid.to_string()),
        },
        _ => Err("a line holds either control, or from and payload".into()),
    }
}
