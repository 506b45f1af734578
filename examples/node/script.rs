//! What a caller wants the simulated side of the world to do. It is no part of the request: a retry may ask for
//! something else, and gets what was recorded.

use std::time::Duration;

use crate::call::{InvalidParams, Params, number};

/// `{"delay_ms":n,"outcome":".."}`
#[derive(Clone, Copy)]
pub(crate) struct Script {
    /// Between the effect, which is on disk by then, and the news of it.
    pub(crate) delay: Duration,
    pub(crate) outcome: Scripted,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scripted {
    Accept,
    Settle,
    RejectValidation,
    Definitive,
    Duplicate,
    Unknown,
    Panic,
    Hang,
}

const NAMES: [(&str, Scripted); 8] = [
    ("accept", Scripted::Accept),
    ("settle", Scripted::Settle),
    ("reject_validation", Scripted::RejectValidation),
    ("definitive", Scripted::Definitive),
    ("duplicate", Scripted::Duplicate),
    ("unknown", Scripted::Unknown),
    ("panic", Scripted::Panic),
    ("hang", Scripted::Hang),
];

impl Scripted {
    pub(crate) fn name(self) -> &'static str {
        NAMES.iter().find(|(_, scripted)| *scripted == self).map_or("accept", |(name, _)| name)
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, scripted)| *scripted)
    }
}

impl Script {
    /// Accepts everything at once.
    pub(crate) const NONE: Self = Self { delay: Duration::ZERO, outcome: Scripted::Accept };

    /// The param `simulate`; without it everything is accepted at once.
    pub(crate) fn of(params: &Params) -> Result<Self, InvalidParams> {
        let mut script = Self::NONE;
        let Some(simulate) = params.get("simulate") else { return Ok(script) };
        let members = simulate.as_object().ok_or_else(|| InvalidParams("simulate is not an object".into()))?;
        if let Some(delay) = members.get("delay_ms").filter(|delay| !delay.is_null()) {
            script.delay = Duration::from_millis(number("simulate.delay_ms", delay)?);
        }
        if let Some(outcome) = members.get("outcome").filter(|outcome| !outcome.is_null()) {
            let known = outcome.as_str().and_then(Scripted::named);
            script.outcome = known.ok_or_else(|| {
                let names: Vec<_> = NAMES.iter().map(|(name, _)| *name).collect();
                InvalidParams(format!("simulate.outcome is one of {}", names.join(", ")))
            })?;
        }
        Ok(script)
    }
}
