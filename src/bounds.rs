//! Every limit: name, unit, default. Beyond one the caller gets a typed refusal at once and nothing is registered.

use std::time::Duration;

/// Bytes of a flow's name, at most: it has to fit its length byte in a key.
pub(crate) const FLOW_NAME_BYTES: usize = 255;
/// Bytes of a ledger table's name, at most.
pub(crate) const TABLE_NAME_BYTES: usize = 64;
/// Bytes of a scope and of an id, at most.
pub(crate) const KEY_PART_BYTES: usize = 255;
/// Bytes of a ledger row's key, at most: three names of 120 bytes, with what keeps them apart, and to spare.
pub(crate) const ROW_KEY_BYTES: usize = 512;
/// Bytes that a request, an answer, a reason or a checkpoint may be configured to hold, at most: 16 MiB.
pub const PAYLOAD_BYTES_CEILING: usize = 16 * 1024 * 1024;

/// What an engine holds at most. The defaults fit a Lightning node; every field can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of one canonical request. Default 64 KiB, at most 16 MiB.
    pub request_bytes: usize,
    /// Bytes of one answer, reason or checkpoint. Default 64 KiB, at most 16 MiB. A longer answer is given to the
    /// callers at hand and recorded as *not kept*.
    pub answer_bytes: usize,
    /// Requests in flight, and as many trackers beside them. Default 10,000.
    pub in_flight: usize,
    /// Requests in flight per scope, and as many trackers. Default 1,000.
    pub in_flight_per_scope: usize,
    /// Callers that wait for one key. Default 1,024. As many may also ask at once how a key stands when nothing has room to
    /// run.
    pub waiters_per_key: usize,
    /// Live records and tombstones per scope. Default 100,000.
    pub records_per_scope: u64,
    /// Transitions in one transaction. Default 1,024.
    pub batch_transitions: usize,
    /// Bytes in one transaction. Default 4 MiB; a single larger transition still gets one of its own.
    pub batch_bytes: usize,
    /// Records that one slice of the expiry sweep removes, at most: beside requests it removes about as many as they record. Default
    /// 256.
    pub expiry_slice: usize,
    /// Re-runs of one record that may end unknown, and answers of an oracle that may tell nothing, before it is a dead letter:
    /// not run again, though still asked about. Default 5. Zero: no re-runs; an oracle is heard once all the same.
    pub recoveries: u8,
    /// Inquiries that run at once without a caller, and likewise re-runs. Default 64.
    pub background_recoveries: usize,
    /// Entries of the in-flight index that one turn of the recovery reads. Default 256.
    pub recovery_slice: usize,
    /// How long an oracle may take for an answer, and how long a retry waits for the first one. Default 5 s.
    pub oracle_timeout: Duration,
    /// How long after the first answer that told nothing an oracle is asked again, and after the first unknown end it is run
    /// again; it doubles each time. Default 1 s.
    pub recovery_pause: Duration,
    /// The end of that doubling, and how often the oracle is asked about a dead letter. Default 60 s.
    pub recovery_pause_max: Duration,
    /// How long a dispatched record may be without news before its oracle is asked, and how often from then on. Default 30 s.
    pub dispatched_silence: Duration,
    /// How often the expiry sweep runs by itself. Default 60 s.
    pub expiry_sweep_every: Duration,
    /// How far the wall clock may leap ahead of the monotonic one before it is [suspect](crate::ClockState). Default 1 h.
    pub clock_jump: Duration,
    /// How long a suspect clock has to stay where it is before it is believed, by the monotonic clock. Default 10 min; zero
    /// believes it at once.
    pub clock_trust_after: Duration,
    /// How long `shutdown` waits for running operations before it leaves them in doubt. Default 10 s.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes: 64 * 1024,
            answer_bytes: 64 * 1024,
            in_flight: 10_000,
            in_flight_per_scope: 1_000,
            waiters_per_key: 1_024,
            records_per_scope: 100_000,
            batch_transitions: 1_024,
            batch_bytes: 4 * 1024 * 1024,
            expiry_slice: 256,
            recoveries: 5,
            background_recoveries: 64,
            recovery_slice: 256,
            oracle_timeout: Duration::from_secs(5),
            recovery_pause: Duration::from_secs(1),
            recovery_pause_max: Duration::from_secs(60),
            dispatched_silence: Duration::from_secs(30),
            expiry_sweep_every: Duration::from_secs(60),
            clock_jump: Duration::from_secs(3_600),
            clock_trust_after: Duration::from_secs(600),
            drain: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// The same limits with room for answers of at least so many bytes.
    pub(crate) fn with_answer_bytes(self, least: usize) -> Self {
        Self { answer_bytes: self.answer_bytes.max(least), ..self }
    }

    /// The same limits with the payload sizes cut to [`PAYLOAD_BYTES_CEILING`], every count at least one and every period at
    /// least a millisecond.
    pub(crate) fn sound(mut self) -> Self {
        self.request_bytes = self.request_bytes.min(PAYLOAD_BYTES_CEILING);
        self.answer_bytes = self.answer_bytes.min(PAYLOAD_BYTES_CEILING);
        for count in [
            &mut self.in_flight,
            &mut self.in_flight_per_scope,
            &mut self.waiters_per_key,
            &mut self.batch_transitions,
            &mut self.expiry_slice,
            &mut self.background_recoveries,
            &mut self.recovery_slice,
        ] {
            *count = (*count).max(1);
        }
        for period in [
            &mut self.expiry_sweep_every,
            &mut self.recovery_pause,
            &mut self.recovery_pause_max,
            &mut self.dispatched_silence,
        ] {
            *period = (*period).max(Duration::from_millis(1));
        }
        self
    }
}
