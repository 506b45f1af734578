//! A step as one line of text: what is written, said, released, raised; what is nothing is left out.

use super::{RETENTION, T, TOMBSTONE};
use crate::error::Error;
use crate::machine::{Release, Said, Step, Write};
use crate::outcome::Reply;
use crate::record::{Bytes, Record, State, Status};
use crate::time::UnixMillis;

pub(super) fn step(step: &Step, now: UnixMillis) -> String {
    let mut parts = vec![write(&step.write, now)];
    parts.push(match &step.caller {
        Said::Nothing => String::new(),
        said @ (Said::Start
        | Said::Wait
        | Said::Saved
        | Said::FencedOff
        | Said::Reply(_)
        | Said::Resolved(_)
        | Said::Forgotten(_)
        | Said::Fenced(_)
        | Said::Abandoned(_)
        | Said::Acknowledged(_)
        | Said::Guarded) => format!("say {}", caller(said)),
    });
    parts.push(match &step.waiters {
        Release::Nobody => String::new(),
        Release::Starter(Ok(_)) => "release accepted".into(),
        Release::Starter(Err(error)) => format!("release starter {}", kind(error)),
        Release::All(Ok(answer)) => format!("release {}", text(answer)),
        Release::All(Err(error)) => format!("release {}", kind(error)),
    });
    parts.push(step.alarm.map_or(String::new(), |alarm| format!("alarm {alarm:?}")));
    parts.retain(|part| !part.is_empty());
    if parts.is_empty() { "nothing".into() } else { parts.join("; ") }
}

pub(super) fn write(write: &Write, now: UnixMillis) -> String {
    match write {
        Write::Keep => String::new(),
        Write::Touch => "touch".into(),
        Write::Remove => "remove".into(),
        Write::Rows => "rows".into(),
        Write::Hold(record) => format!("hold {}", self::record(record, now)),
        Write::Put(record) => format!("put {}", self::record(record, now)),
    }
}

pub(super) fn caller(said: &Said) -> String {
    match said {
        Said::Reply(Ok(Reply::Answer(outcome))) => format!("{} {}", outcome.how, text(&outcome.answer)),
        Said::Reply(Ok(Reply::Accepted)) => "accepted".into(),
        Said::Reply(Err(error)) => kind(error),
        Said::Nothing | Said::Start | Said::Wait | Said::Saved | Said::FencedOff => format!("{said:?}"),
        Said::Resolved(_) | Said::Forgotten(_) | Said::Fenced(_) => format!("{said:?}"),
        Said::Abandoned(_) | Said::Acknowledged(_) | Said::Guarded => format!("{said:?}"),
    }
}

/// The kind and, in place of its length, the text of the reason.
pub(super) fn kind(error: &Error) -> String {
    let kind = format!("{:?}", error.kind());
    let name = kind.split('(').next().unwrap_or_default();
    match error.reason() {
        Some(reason) => format!("{name}({})", text(reason.bytes())),
        None => kind.replace("(None)", ""),
    }
}

fn record(record: &Record, now: UnixMillis) -> String {
    let mut line = match &record.state {
        State::Registered | State::Dispatched | State::InDoubt => {
            format!("{} #{}", record.state.status(), record.attempt.number)
        }
        State::Completed(None) => "completed(not kept)".into(),
        State::Completed(Some(answer)) => format!("completed({})", text(answer)),
        State::Failed(origin, reason) => format!("failed({origin:?}, {})", text(reason)),
        State::Tombstone(mark) => format!("tombstone({mark:?})"),
    };
    let times = [("expires", record.expires_at), ("lapses", record.lapses_at), ("until", record.tombstone_until)];
    for (name, time) in times {
        if let Some(time) = time {
            line += &format!(" {name}={}", millis(time, now));
        }
    }
    for (name, bytes) in [("checkpoint", &record.checkpoint), ("contradiction", &record.contradiction)] {
        if let Some(bytes) = bytes {
            line += &format!(" {name}={}", text(bytes));
        }
    }
    // How many re-runs ended unknown no longer matters once the record has an end.
    let counts = record.state.status() == Status::Registered || record.state.status() == Status::InDoubt;
    if counts && record.recoveries > 0 {
        line += &format!(" recoveries={}", record.recoveries);
    }
    if let Some(tick) = record.lapses_at_tick {
        line += &format!(" tick={tick}");
    }
    if record.abandoned {
        line += " abandoned";
    }
    line
}

fn millis(time: UnixMillis, now: UnixMillis) -> String {
    match [RETENTION, TOMBSTONE].into_iter().find(|after| time == now.saturating_add(*after)) {
        Some(after) => format!("now+{}", after.as_millis()),
        None => (time.0 - T).to_string(),
    }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
