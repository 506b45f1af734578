//! How often each interesting thing happened: a generator that has stopped making something proves nothing about it.

use std::collections::BTreeMap;
use std::fmt;

use ibid::{ErrorKind, Record, State};

use super::checker::Cause;
use super::history::{Answer, Ask, Finished, Said, Started, What};

#[derive(Clone, Default)]
pub(crate) struct Coverage(BTreeMap<String, u64>);

/// What must not be missing from a few hundred episodes.
const OFTEN: [&str; 76] = [
    "submit: executed",
    "submit: replayed",
    "submit: joined",
    "submit: accepted",
    "submit: Mismatch",
    "submit: Expired",
    "submit: Duplicate(Registered)",
    "submit: Duplicate(Completed)",
    "submit: Failed",
    "submit: Fenced",
    "submit: RetentionMissing",
    "submit: TooLarge",
    "submit: Busy",
    "submit: InDoubt",
    "submit: Store",
    "submit: Closed",
    "submit: Deadline",
    "track: replayed",
    "track: joined",
    "track: NotFound",
    "resolve: Recorded",
    "resolve: FencedOff",
    "fence: Fenced",
    "fence: Found",
    "forget: Forgotten",
    "durable: registered",
    "durable: run again",
    "durable: checkpoint",
    "durable: accepted",
    "durable: completed",
    "durable: resolved",
    "durable: definitive",
    "durable: in doubt",
    "durable: interrupted",
    "durable: pruned",
    "durable: removed by the expiry sweep",
    "ended: lost",
    "crash while an operation runs",
    "asked at the very end of a record",
    "checkpoint saved",
    "asked about: InDoubt",
    "asked about: Dispatched",
    "oracle: not started",
    "oracle: live",
    "oracle: done",
    "oracle: cannot tell",
    "oracle: too late",
    "oracle: panics",
    "durable: never started",
    "durable: found live",
    "durable: an oracle could not tell",
    "run again without a caller",
    "abandon: Marked",
    "abandon: Released",
    "abandon: NoEffect",
    "acknowledge: Counting",
    "acknowledge: NoEffect",
    "tick: ticked",
    "rows: written",
    "rows: guarded",
    "forget: Live",
    "oracle: missing",
    "oracle: given up",
    "durable: already live",
    "durable: taken",
    "durable: given up",
    "durable: quiet ticks are counted",
    "durable: released by ticks",
    "used again, released by ticks",
    "used again, released as it was given up and failed",
    "used again, released as it had failed and was given up",
    "given up, and completed",
    "a duplicate with its end",
    "the same id in two scopes",
    "started unregistered",
    "forgotten, as nothing of it was durable",
];

/// What must not be missing from many thousands.
const SELDOM: [&str; 34] = [
    "a row belonged to another",
    "expiry sweep: removed some",
    "submit: Duplicate(Dispatched)",
    "submit: Duplicate(InDoubt)",
    "submit: Duplicate(Failed)",
    "submit: AnswerNotKept",
    "submit: RetentionOverflow",
    "submit: QuotaExceeded",
    "submit: RecoveriesExhausted",
    "track: AnswerNotKept",
    "track: InDoubt",
    "track: Expired",
    "track: RecoveriesExhausted",
    "resolve: Already",
    "resolve: Contradicts",
    "forget: InFlight",
    "forget: Tombstone",
    "durable: failed",
    "durable: contradiction",
    "durable: answer of a re-run came too late",
    "durable: forgotten",
    "checkpoint refused",
    "run again with a checkpoint",
    "waits for an end from outside",
    "because it could not be saved",
    "disturb: Counting",
    "durable: found given up",
    "durable: found missing",
    "track: Mismatch",
    "an end of an earlier record was fenced off",
    "a tick was lost with its process",
    "released by ticks, over a restart",
    "asked one tick before",
    "asked after enough ticks",
];

impl Coverage {
    pub(crate) fn count(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what.clone()).or_default() += count;
        }
    }

    /// What has never happened and should have.
    pub(crate) fn missing(&self, long: bool) -> Vec<&'static str> {
        let seldom = SELDOM.iter().filter(|_| long);
        OFTEN.iter().chain(seldom).copied().filter(|what| !self.0.contains_key(*what)).collect()
    }

    pub(super) fn ask(&mut self, ask: &Ask, record: Option<&Record>, (clock, tick): (u64, u64)) {
        let last = record.and_then(|record| record.lapses_at_tick).filter(|_| matches!(ask, Ask::Submit(_)));
        match last.map(|last| last.checked_sub(tick)) {
            Some(Some(0) | None) => self.count("asked after enough ticks"),
            Some(Some(1)) => self.count("asked one tick before"),
            _ => {}
        }
        let is_finished = record.is_some_and(|record| matches!(record.state, State::Completed(_) | State::Failed(..)));
        let end = record.and_then(|record| record.expires_at).filter(|_| is_finished && matches!(ask, Ask::Submit(_)));
        match end.map(|end| end.0.abs_diff(clock)) {
            Some(0) => self.count("asked at the very end of a record"),
            Some(1) => self.count("asked one millisecond beside it"),
            _ => {}
        }
    }

    pub(super) fn answer(&mut self, ask: &Ask, answer: &Answer, how: &'static str) {
        let kind = match ask {
            Ask::Submit(_) => "submit",
            Ask::Track(_) => "track",
            Ask::Lookup => "lookup",
            Ask::Forget => "forget",
            Ask::Resolve { .. } => "resolve",
            Ask::Fence => "fence",
            Ask::List => "list",
            Ask::ExpirySweep => "expiry sweep",
            Ask::Abandon => "abandon",
            Ask::Acknowledge => "acknowledge",
            Ask::Disturb => "disturb",
            Ask::Tick => "tick",
            Ask::Rows(_) => "rows",
        };
        let said = match answer {
            Ok(Said::Answer(how, _)) => how.to_string(),
            Ok(Said::Accepted) => "accepted".to_owned(),
            Ok(Said::Record(record)) => if record.is_some() { "a record" } else { "none" }.to_owned(),
            Ok(Said::Forgotten(forgotten)) => first_word(forgotten),
            Ok(Said::Resolved(resolved)) => first_word(resolved),
            Ok(Said::Fenced(fenced)) => first_word(fenced),
            Ok(Said::Listed(_)) => "listed".to_owned(),
            Ok(Said::Abandoned(abandoned)) => first_word(abandoned),
            Ok(Said::Acknowledged(acknowledged)) => first_word(acknowledged),
            Ok(Said::Ticked) => "ticked".to_owned(),
            Ok(Said::Rows(written)) => if *written { "written" } else { "guarded" }.to_owned(),
            Ok(Said::Swept(count)) => if *count > 0 { "removed some" } else { "removed none" }.to_owned(),
            Err(ErrorKind::Duplicate(status)) => format!("Duplicate({status:?})"),
            Err(kind) => first_word(kind),
        };
        self.count(format!("{kind}: {said}"));
        self.count(format!("because {how}"));
    }

    pub(super) fn cause(&mut self, cause: &Cause) {
        self.count(match cause {
            Cause::Registered => "durable: registered",
            Cause::Rerun => "durable: run again",
            Cause::Checkpoint => "durable: checkpoint",
            Cause::Accepted { .. } => "durable: accepted",
            Cause::Completed { start: Some(_), .. } => "durable: completed",
            Cause::Completed { start: None, .. } => "durable: resolved",
            Cause::Definitive { .. } => "durable: definitive",
            Cause::Failed { .. } => "durable: failed",
            Cause::Doubt { .. } => "durable: in doubt",
            Cause::Aborted => "durable: in doubt, aborted before its first turn",
            Cause::Interrupted => "durable: interrupted",
            Cause::TooLate { .. } => "durable: answer of a re-run came too late",
            Cause::Forgotten => "durable: forgotten",
            Cause::Pruned => "durable: pruned",
            Cause::Swept => "durable: removed by the expiry sweep",
            Cause::Fenced => "durable: fenced",
            Cause::Contradiction => "durable: contradiction",
            Cause::NotStarted => "durable: never started",
            Cause::Live => "durable: found live",
            Cause::CannotTell => "durable: an oracle could not tell",
            Cause::AlreadyLive { .. } => "durable: already live",
            Cause::Taken { .. } => "durable: taken",
            Cause::FoundAbandoned => "durable: found given up",
            Cause::Missing => "durable: found missing",
            Cause::Marked => "durable: given up",
            Cause::Abandoned => "durable: let go",
            Cause::Counting => "durable: quiet ticks are counted",
            Cause::Released => "durable: released by ticks",
        });
    }

    pub(super) fn start(&mut self, started: &Started) {
        if started.call.is_none() {
            self.count("run again without a caller");
        }
        if started.number > 1 && started.checkpoint.is_some() {
            self.count("run again with a checkpoint");
        }
    }

    pub(super) fn end(&mut self, end: &Finished) {
        self.count(match end {
            Finished::Done { .. } => "ended: done",
            Finished::Accepted => "ended: accepted",
            Finished::AlreadyLive => "ended: already live",
            Finished::Taken => "ended: taken",
            Finished::Definitive(_) => "ended: definitive",
            Finished::Unknown(_) => "ended: unknown",
            Finished::Lost => "ended: lost",
        });
    }

    pub(super) fn crash(&mut self, what: &What, runs: bool) {
        if matches!(what, What::Crashed(_)) {
            self.count(if runs { "crash while an operation runs" } else { "crash while none runs" });
        }
    }
}

fn first_word(said: &impl fmt::Debug) -> String {
    let said = format!("{said:?}");
    said.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(what, count)| writeln!(f, "{count:>9} {what}"))
    }
}
