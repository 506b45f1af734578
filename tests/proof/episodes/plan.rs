//! What an episode is made of: its keys with their policies, its limits, its length, drawn from the seed.

use std::time::Duration;

use ibid::testing::Random;
use ibid::{
    AfterCheckpoint, AfterCompleted, AfterExpiry, Flow, InDoubt, Key, Limits, OnFailure, OnStoreFailure, Policy,
    Retention, WhileRunning,
};

/// The other scope.
const BESIDE: &str = "beside";

/// One episode.
pub(crate) struct Plan {
    pub(crate) keys: Vec<Place>,
    pub(crate) limits: Limits,
    pub(crate) steps: u64,
    /// How often the store, the process and the clock are interfered with: once in so many steps.
    pub(crate) trouble_every: u64,
}

/// A key and the policy of its flow.
pub(crate) struct Place {
    pub(crate) flow: Flow,
    pub(crate) key: Key,
    pub(crate) grid: Grid,
}

/// A policy whose values can be read.
#[derive(Clone, Debug)]
pub(crate) struct Grid {
    pub(crate) while_running: WhileRunning,
    pub(crate) after_completed: AfterCompleted,
    pub(crate) on_failure: OnFailure,
    pub(crate) after_checkpoint: AfterCheckpoint,
    pub(crate) in_doubt: InDoubt,
    pub(crate) after_expiry: AfterExpiry,
    pub(crate) retention: Retention,
    pub(crate) grace: Duration,
    pub(crate) tombstone: Option<Duration>,
    pub(crate) on_store_failure: OnStoreFailure,
    pub(crate) replay_safe: bool,
    /// Whether the engine gets out of doubt without a caller: by an oracle, or by running it again.
    pub(crate) recovers: bool,
}

impl Grid {
    /// What [`Policy::replay`] says.
    pub(crate) fn replay(retention: Duration) -> Self {
        Self {
            while_running: WhileRunning::Join,
            after_completed: AfterCompleted::Replay,
            on_failure: OnFailure::Forget,
            after_checkpoint: AfterCheckpoint::Believe,
            in_doubt: InDoubt::Ambiguous,
            after_expiry: AfterExpiry::Rerun,
            retention: Retention::Fixed(retention),
            grace: Duration::ZERO,
            tombstone: None,
            on_store_failure: OnStoreFailure::Withhold,
            replay_safe: false,
            recovers: false,
        }
    }

    /// What [`Policy::request_invoice`] says.
    pub(crate) fn request_invoice() -> Self {
        Self {
            in_doubt: InDoubt::Rerun,
            after_expiry: AfterExpiry::RefuseOnce,
            retention: Retention::FromRequest,
            grace: Duration::from_secs(120),
            ..Self::replay(Duration::ZERO)
        }
    }

    /// What [`Policy::send_onion`] says.
    pub(crate) fn send_onion() -> Self {
        Self {
            while_running: WhileRunning::Refuse,
            after_completed: AfterCompleted::Refuse,
            on_failure: OnFailure::Keep,
            in_doubt: InDoubt::Ask,
            retention: Retention::UntilForgotten,
            ..Self::replay(Duration::ZERO)
        }
    }

    /// What [`Policy::send_payment`] says.
    pub(crate) fn send_payment() -> Self {
        Self { retention: Retention::UntilAcknowledged { quiet_ticks: 7 }, ..Self::send_onion() }
    }

    pub(crate) fn policy(&self) -> Policy {
        let policy = Policy::replay(Duration::ZERO)
            .while_running(self.while_running)
            .after_completed(self.after_completed)
            .on_failure(self.on_failure)
            .after_checkpoint(self.after_checkpoint)
            .in_doubt(self.in_doubt)
            .after_expiry(self.after_expiry)
            .retention(self.retention)
            .grace(self.grace)
            .on_store_failure(self.on_store_failure);
        let policy = self.tombstone.into_iter().fold(policy, Policy::tombstone);
        if self.replay_safe { policy.replay_safe() } else { policy }
    }

    /// Whether the policy does without a registration.
    fn may_be_replay_safe(&self) -> bool {
        self.in_doubt == InDoubt::Rerun && !matches!(self.retention, Retention::UntilAcknowledged { .. })
    }

    fn draw(random: &mut Random) -> Self {
        let on_store_failure = of(random, &[OnStoreFailure::Withhold, OnStoreFailure::Reply]);
        let recovers = random.below(3) > 0;
        Self { on_store_failure, recovers, ..Self::draw_policy(random) }
    }

    /// Whether an oracle is asked about its records.
    pub(crate) fn is_asked(&self) -> bool {
        self.recovers && self.in_doubt == InDoubt::Ask
    }

    /// Whether its records are run again without a caller.
    pub(crate) fn is_rerun(&self) -> bool {
        self.recovers && self.in_doubt == InDoubt::Rerun
    }

    fn draw_policy(random: &mut Random) -> Self {
        match random.below(14) {
            0 => Self::replay(millis(random, &[400, 20_000, 600_000])),
            1 | 2 => Self::request_invoice(),
            3 | 4 => Self::send_payment(),
            5 | 6 => Self::send_onion(),
            _ => Self {
                while_running: of(random, &[WhileRunning::Join, WhileRunning::Join, WhileRunning::Refuse]),
                after_completed: of(random, &[AfterCompleted::Replay, AfterCompleted::Replay, AfterCompleted::Refuse]),
                on_failure: of(random, &[OnFailure::Forget, OnFailure::Keep]),
                after_checkpoint: of(random, &[AfterCheckpoint::Believe, AfterCheckpoint::Doubt]),
                in_doubt: of(random, &[InDoubt::Ambiguous, InDoubt::Rerun, InDoubt::Rerun, InDoubt::Ask, InDoubt::Ask]),
                after_expiry: of(random, &[AfterExpiry::RefuseOnce, AfterExpiry::Refuse, AfterExpiry::Rerun]),
                retention: match random.below(6) {
                    0 => Retention::FromRequest,
                    1 => Retention::UntilForgotten,
                    2 | 3 => Retention::UntilAcknowledged { quiet_ticks: of(random, &[0, 1, 2]) },
                    _ => Retention::Fixed(millis(random, &[0, 1, 300, 3_000, 20_000])),
                },
                grace: millis(random, &[0, 1, 200, 4_000, 30_000]),
                tombstone: random.once_in(3).then(|| millis(random, &[0, 1, 500, 5_000])),
                ..Self::replay(Duration::ZERO)
            },
        }
    }
}

/// One of them.
pub(crate) fn of<T: Copy>(random: &mut Random, choices: &[T]) -> T {
    *random.pick(choices).expect("there are choices")
}

pub(crate) fn millis(random: &mut Random, choices: &[u64]) -> Duration {
    Duration::from_millis(of(random, choices))
}

impl Plan {
    pub(crate) fn draw(random: &mut Random) -> Self {
        // Beside the other draws, and in none of the seeds of earlier findings: those stay what they were.
        let is_safe = Random::new(random.clone().number() ^ 0x19e5).once_in(3);
        let mut keys = Vec::<Place>::new();
        for place in 0..=random.below(3) {
            let beside = keys.last().filter(|_| random.once_in(4)).and_then(Place::beside);
            keys.push(beside.unwrap_or_else(|| {
                let grid = Grid::draw(random);
                Place::new(place, Grid { replay_safe: is_safe && grid.may_be_replay_safe(), ..grid })
            }));
        }
        let trouble_every = of(random, &[3, 5, 8, 1_000]);
        Self { keys, limits: limits(random), steps: 8 + random.below(28), trouble_every }
    }

    /// The number of a key.
    pub(crate) fn place(&self, key: &Key) -> usize {
        self.find(key).expect("the episode knows all its keys")
    }

    /// The same; `None` for what the engine writes under a key of its own.
    pub(crate) fn find(&self, key: &Key) -> Option<usize> {
        self.keys.iter().position(|place| place.key == *key)
    }
}

impl Place {
    pub(crate) fn new(place: u64, grid: Grid) -> Self {
        let flow = Flow::new(format!("flow-{place}"), grid.policy()).expect("a name");
        let key = flow.key("scope", [b'a']).expect("a key");
        Self { flow, key, grid }
    }

    /// The same flow and id in another scope: the two must never meet.
    fn beside(&self) -> Option<Self> {
        let key = self.flow.key(BESIDE, self.key.id()).expect("a key");
        let (flow, grid) = (self.flow.clone(), self.grid.clone());
        (key != self.key).then_some(Self { flow, key, grid })
    }
}

fn limits(random: &mut Random) -> Limits {
    let mut limits = Limits::default();
    limits.answer_bytes = of(random, &[24, 64, 64, 65_536]);
    limits.request_bytes = of(random, &[16, 16, 65_536]);
    limits.expiry_sweep_every = millis(random, &[700, 5_000, 60_000, 600_000]);
    limits.drain = millis(random, &[0, 300, 10_000]);
    limits.recoveries = of(random, &[0, 1, 2, 5]);
    if random.once_in(4) {
        limits.background_recoveries = of(random, &[1, 2]);
    }
    if random.once_in(2) {
        limits.dispatched_silence = millis(random, &[50, 2_000]);
    }
    if random.once_in(3) {
        limits.waiters_per_key = of(random, &[1, 2, 3]);
    }
    if random.once_in(4) {
        limits.in_flight = of(random, &[1, 2, 4]);
    }
    if random.once_in(6) {
        limits.in_flight_per_scope = of(random, &[1, 2, 3]);
    }
    if random.once_in(5) {
        limits.records_per_scope = of(random, &[0, 1, 1, 2]);
    }
    if random.once_in(3) {
        limits.batch_transitions = of(random, &[1, 2]);
    }
    if random.once_in(6) {
        limits.batch_bytes = of(random, &[1, 300]);
    }
    if random.once_in(3) {
        limits.expiry_slice = of(random, &[1, 2]);
    }
    limits
}

#[test]
fn the_grids_are_the_policies_they_are_named_after() {
    assert_eq!(Grid::request_invoice().policy(), Policy::request_invoice());
    assert_eq!(Grid::send_payment().policy(), Policy::send_payment());
    assert_eq!(Grid::send_onion().policy(), Policy::send_onion());
}
