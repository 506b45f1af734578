//! Every (state, event, policy) has exactly one row, and every row says what happens.

use Does::*;
use Stored::*;

use super::*;
use crate::inquiry::Found;
use crate::machine::tests::show;
use crate::machine::{Downstream, Event, Said, Step, Write, expire, interrupt, step};
use crate::outcome::{End, Ended};
use crate::policy::{AfterCheckpoint, AfterCompleted, InDoubt, OnFailure, WhileRunning};
use crate::record::{Mark, Origin};

/// What the store holds, and when.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stored {
    Absent,
    /// Registered, its attempt runs in this process.
    Live,
    LiveCheckpointed,
    /// Registered, left behind by another boot.
    Left,
    LeftCheckpointed,
    /// Its interruption is the last one allowed.
    LeftLast,
    LeftLastExpired,
    Dispatched,
    Doubt,
    DoubtCheckpointed,
    /// One more recovery is allowed.
    DoubtLast,
    /// In doubt, re-runs used up (if the policy counts them).
    Exhausted,
    ExhaustedExpired,
    ExhaustedLapsed,
    /// Given up by the host, its attempt runs in this process.
    GivenUpLive,
    GivenUpDispatched,
    GivenUpDoubt,
    Completed,
    NotKept,
    /// Acknowledged, one tick before its release.
    Quiet,
    /// The tick of its release.
    QuietEnd,
    AtExpiry,
    /// The same with a tombstone to follow.
    AtExpiryMarked,
    GraceEnd,
    Lapsed,
    /// Lapsed, its tombstone stands.
    Marked,
    MarkerOver,
    RolledBack,
    Resolved,
    FailedExpired,
    Fenced,
    FencedForever,
    Expired,
    TombstoneOver,
}

const STATES: [Stored; 34] = [
    Absent,
    Live,
    LiveCheckpointed,
    Left,
    LeftCheckpointed,
    LeftLast,
    LeftLastExpired,
    Dispatched,
    Doubt,
    DoubtCheckpointed,
    DoubtLast,
    Exhausted,
    ExhaustedExpired,
    ExhaustedLapsed,
    GivenUpLive,
    GivenUpDispatched,
    GivenUpDoubt,
    Completed,
    NotKept,
    Quiet,
    QuietEnd,
    AtExpiry,
    AtExpiryMarked,
    GraceEnd,
    Lapsed,
    Marked,
    MarkerOver,
    RolledBack,
    Resolved,
    FailedExpired,
    Fenced,
    FencedForever,
    Expired,
    TombstoneOver,
];

/// What happens to it. *Older* comes from attempt 1, the record is in attempt 2.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    AdmitSame,
    AdmitOther,
    AdmitBarred,
    Track,
    TrackSame,
    TrackOther,
    Checkpoint,
    CheckpointOlder,
    Done,
    Accepted,
    AlreadyLive,
    Taken,
    Definitive,
    Unknown,
    Guarded,
    DoneOlder,
    AcceptedOlder,
    TakenOlder,
    DefinitiveOlder,
    UnknownOlder,
    GuardedOlder,
    ResolveDone,
    ResolveFailed,
    ResolveOwnDone,
    ResolveOwnFailed,
    ResolveOlderDone,
    ResolveOlderFailed,
    FoundNotStarted,
    FoundLive,
    FoundAbandoned,
    FoundMissing,
    FoundDone,
    FoundFailed,
    FoundNothing,
    /// The same answer a second time: it was given about the record as it stood one answer ago.
    FoundNothingAgain,
    FoundNotStartedOlder,
    FoundLiveOlder,
    FoundDoneOlder,
    FoundFailedOlder,
    FoundNothingOlder,
    /// The engine itself re-runs it.
    RunAgain,
    RunAgainOlder,
    Forget,
    /// Somebody could have been asked whether it is over.
    ForgetUnasked,
    /// Somebody was asked, and it is over or it is not.
    ForgetOver,
    ForgetLive,
    ForgetOverOlder,
    Fence,
    Abandon,
    Acknowledge,
    Disturb,
    Interrupt,
    Expire,
}

const EVENTS: [Does; 53] = [
    AdmitSame,
    AdmitOther,
    AdmitBarred,
    Track,
    TrackSame,
    TrackOther,
    Checkpoint,
    CheckpointOlder,
    Done,
    Accepted,
    AlreadyLive,
    Taken,
    Definitive,
    Unknown,
    Guarded,
    DoneOlder,
    AcceptedOlder,
    TakenOlder,
    DefinitiveOlder,
    UnknownOlder,
    GuardedOlder,
    ResolveDone,
    ResolveFailed,
    ResolveOwnDone,
    ResolveOwnFailed,
    ResolveOlderDone,
    ResolveOlderFailed,
    FoundNotStarted,
    FoundLive,
    FoundAbandoned,
    FoundMissing,
    FoundDone,
    FoundFailed,
    FoundNothing,
    FoundNothingAgain,
    FoundNotStartedOlder,
    FoundLiveOlder,
    FoundDoneOlder,
    FoundFailedOlder,
    FoundNothingOlder,
    RunAgain,
    RunAgainOlder,
    Forget,
    ForgetUnasked,
    ForgetOver,
    ForgetLive,
    ForgetOverOlder,
    Fence,
    Abandon,
    Acknowledge,
    Disturb,
    Interrupt,
    Expire,
];

/// The base policy, or the base policy with one answer changed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    Base,
    RefuseRunning,
    RefuseCompleted,
    Keep,
    DoubtFailure,
    Rerun,
    Ask,
    ExpiryRefuse,
    ExpiryRerun,
    Tombstone,
    Acknowledged,
    ReplaySafe,
}

const RULES: [Rule; 12] = [
    Rule::Base,
    Rule::RefuseRunning,
    Rule::RefuseCompleted,
    Rule::Keep,
    Rule::DoubtFailure,
    Rule::Rerun,
    Rule::Ask,
    Rule::ExpiryRefuse,
    Rule::ExpiryRerun,
    Rule::Tombstone,
    Rule::Acknowledged,
    Rule::ReplaySafe,
];

struct Row {
    events: &'static [Does],
    states: &'static [&'static [Stored]],
    /// Empty: every policy that no other row of this state and event names.
    rules: &'static [Rule],
    expect: &'static str,
}

impl Row {
    /// Whether it is about this state and event.
    fn is_of(&self, (state, does, _): (Stored, Does, Rule)) -> bool {
        self.events.contains(&does) && self.states.iter().any(|group| group.contains(&state))
    }
}

const fn row(
    events: &'static [Does],
    states: &'static [&'static [Stored]],
    rules: &'static [Rule],
    expect: &'static str,
) -> Row {
    Row { events, states, rules, expect }
}

const ANY: &[Rule] = &[];
const LIVE: &[Stored] = &[Live, LiveCheckpointed];
const IN_DOUBT: &[Stored] = &[Left, Doubt];
const IN_DOUBT_CHECKPOINTED: &[Stored] = &[LeftCheckpointed, DoubtCheckpointed];
const LAST: &[Stored] = &[DoubtLast];
const USED_UP: &[Stored] = &[LeftLast, Exhausted];
const USED_UP_EXPIRED: &[Stored] = &[LeftLastExpired, ExhaustedExpired];
const REGISTERED: &[Stored] = &[Live, LiveCheckpointed, Left, LeftCheckpointed, LeftLast, LeftLastExpired];
const RECORDED_DOUBT: &[Stored] = &[Doubt, DoubtCheckpointed, DoubtLast, Exhausted, ExhaustedExpired, ExhaustedLapsed];
/// In doubt, however it reads so.
const DOUBTED: &[Stored] = &[
    Left,
    LeftCheckpointed,
    LeftLast,
    LeftLastExpired,
    Doubt,
    DoubtCheckpointed,
    DoubtLast,
    Exhausted,
    ExhaustedExpired,
    ExhaustedLapsed,
];
const UNCHECKPOINTED: &[Stored] =
    &[Left, LeftLast, LeftLastExpired, Doubt, DoubtLast, Exhausted, ExhaustedExpired, ExhaustedLapsed];
const FOUND: &[Does] = &[
    FoundNotStarted,
    FoundLive,
    FoundAbandoned,
    FoundMissing,
    FoundDone,
    FoundFailed,
    FoundNothing,
    FoundNothingAgain,
    FoundNotStartedOlder,
    FoundLiveOlder,
    FoundDoneOlder,
    FoundFailedOlder,
    FoundNothingOlder,
];
/// A record whose end is still to come stays, whatever downstream says of it.
const FORGETS: &[Does] = &[Forget, ForgetUnasked, ForgetOver, ForgetLive, ForgetOverOlder];
const EXPIRED: &[Stored] = &[AtExpiry, GraceEnd, FailedExpired];
const COMPLETED: &[Stored] = &[Completed, AtExpiry, GraceEnd];
const FAILED: &[Stored] = &[RolledBack, Resolved, FailedExpired];
const FINISHED: &[Stored] =
    &[Completed, NotKept, AtExpiry, AtExpiryMarked, GraceEnd, RolledBack, Resolved, FailedExpired];
/// Reads as absent, though something is stored: the answer depends on how late it is, so the clock mark is written.
const READS_ABSENT: &[Stored] = &[Lapsed, MarkerOver, TombstoneOver];
const FENCED: &[Stored] = &[Fenced, FencedForever];

const ROWS: &[Row] = &[
    // A request arrives.
    row(&[AdmitSame, AdmitOther], &[&[Absent], READS_ABSENT], ANY, "put registered #1 expires=now+600; say Start"),
    row(&[AdmitSame, AdmitOther], &[&[Absent]], &[Rule::ReplaySafe], "hold registered #1 expires=now+600; say Start"),
    row(&[AdmitBarred], &[&[Absent]], ANY, "say Failed(barred)"),
    row(&[AdmitBarred], &[READS_ABSENT], ANY, "touch; say Failed(barred)"),
    row(&[AdmitSame, AdmitBarred], &[LIVE, &[Dispatched]], ANY, "say Wait"),
    row(&[AdmitSame, AdmitBarred], &[LIVE], &[Rule::RefuseRunning], "say Duplicate(Registered)"),
    row(&[AdmitSame, AdmitBarred], &[&[Dispatched]], &[Rule::RefuseRunning], "say Duplicate(Dispatched)"),
    row(
        &[AdmitSame, AdmitBarred],
        &[IN_DOUBT, IN_DOUBT_CHECKPOINTED, LAST, USED_UP, USED_UP_EXPIRED, &[ExhaustedLapsed]],
        ANY,
        "say InDoubt",
    ),
    row(
        &[AdmitSame, AdmitBarred],
        &[IN_DOUBT, IN_DOUBT_CHECKPOINTED, LAST, USED_UP, USED_UP_EXPIRED, &[ExhaustedLapsed]],
        &[Rule::Ask],
        "say Duplicate(InDoubt)",
    ),
    row(
        &[AdmitSame, RunAgain],
        &[IN_DOUBT],
        &[Rule::Rerun],
        "put registered #3 expires=now+600 recoveries=1; say Start",
    ),
    row(&[AdmitSame, RunAgain], &[LAST], &[Rule::Rerun], "put registered #3 expires=now+600 recoveries=4; say Start"),
    row(
        &[AdmitSame, RunAgain],
        &[IN_DOUBT_CHECKPOINTED],
        &[Rule::Rerun],
        "put registered #3 expires=600 checkpoint=c recoveries=1; say Start",
    ),
    row(&[AdmitBarred], &[IN_DOUBT, IN_DOUBT_CHECKPOINTED, LAST], &[Rule::Rerun], "say InDoubt(barred)"),
    row(&[AdmitSame, AdmitBarred], &[USED_UP], &[Rule::Rerun], "say RecoveriesExhausted"),
    row(&[AdmitSame, AdmitOther, AdmitBarred], &[USED_UP_EXPIRED], &[Rule::Rerun], "remove; say Expired"),
    row(
        &[AdmitSame, AdmitOther],
        &[&[ExhaustedLapsed]],
        &[Rule::Rerun],
        "put registered #1 expires=now+600; say Start",
    ),
    row(&[AdmitBarred], &[&[ExhaustedLapsed]], &[Rule::Rerun], "touch; say Failed(barred)"),
    row(&[AdmitSame, AdmitBarred], &[&[Completed]], ANY, "say replayed A"),
    row(&[AdmitSame, AdmitBarred], &[&[NotKept]], ANY, "say AnswerNotKept"),
    row(&[AdmitSame, AdmitBarred], &[&[Completed, NotKept]], &[Rule::RefuseCompleted], "say Duplicate(Completed)"),
    row(&[AdmitSame, AdmitBarred], &[&[RolledBack]], ANY, "say Failed(R)"),
    row(&[AdmitSame, AdmitBarred], &[&[Resolved]], ANY, "say Duplicate(Failed)"),
    row(
        &[AdmitOther],
        &[REGISTERED, &[Dispatched], RECORDED_DOUBT, &[Completed, NotKept, RolledBack, Resolved]],
        ANY,
        "say Mismatch",
    ),
    row(&[AdmitSame, AdmitOther, AdmitBarred], &[EXPIRED], ANY, "remove; say Expired"),
    row(
        &[AdmitSame, AdmitOther, AdmitBarred],
        &[&[AtExpiryMarked]],
        ANY,
        "put tombstone(Expired) until=1720; say Expired",
    ),
    row(
        &[AdmitSame, AdmitOther, AdmitBarred],
        &[EXPIRED, &[AtExpiryMarked]],
        &[Rule::ExpiryRefuse],
        "touch; say Expired",
    ),
    row(
        &[AdmitSame, AdmitOther],
        &[EXPIRED, &[AtExpiryMarked]],
        &[Rule::ExpiryRerun],
        "put registered #1 expires=now+600; say Start",
    ),
    row(&[AdmitBarred], &[EXPIRED, &[AtExpiryMarked]], &[Rule::ExpiryRerun], "touch; say Failed(barred)"),
    row(&[AdmitSame, AdmitOther, AdmitBarred], &[FENCED], ANY, "say Fenced"),
    row(&[AdmitSame, AdmitOther, AdmitBarred], &[&[Expired]], ANY, "say Expired"),
    row(&[AdmitSame, AdmitOther, AdmitBarred], &[&[Marked]], ANY, "touch; say Expired"),
    // Somebody asks how it stands.
    row(&[Track, TrackSame, TrackOther], &[&[Absent]], ANY, "say NotFound"),
    row(&[Track, TrackSame, TrackOther], &[READS_ABSENT], ANY, "touch; say NotFound"),
    row(&[Track, TrackSame], &[LIVE, &[Dispatched]], ANY, "say Wait"),
    row(
        &[Track, TrackSame],
        &[IN_DOUBT, IN_DOUBT_CHECKPOINTED, LAST, USED_UP, USED_UP_EXPIRED, &[ExhaustedLapsed]],
        ANY,
        "say InDoubt",
    ),
    row(&[Track, TrackSame], &[IN_DOUBT, IN_DOUBT_CHECKPOINTED, LAST], &[Rule::Ask], "say Wait"),
    row(&[Track, TrackSame], &[USED_UP, USED_UP_EXPIRED, &[ExhaustedLapsed]], &[Rule::Ask], "say RecoveriesExhausted"),
    row(&[Track, TrackSame], &[USED_UP], &[Rule::Rerun], "say RecoveriesExhausted"),
    row(&[Track, TrackSame], &[USED_UP_EXPIRED], &[Rule::Rerun], "touch; say Expired"),
    row(&[Track, TrackSame, TrackOther], &[&[ExhaustedLapsed]], &[Rule::Rerun], "touch; say NotFound"),
    row(&[Track, TrackSame], &[&[Completed]], ANY, "say replayed A"),
    row(&[Track, TrackSame], &[&[NotKept]], ANY, "say AnswerNotKept"),
    row(&[Track, TrackSame], &[&[RolledBack]], ANY, "say Failed(R)"),
    row(&[Track, TrackSame], &[&[Resolved]], ANY, "say Duplicate(Failed)"),
    row(&[Track, TrackSame], &[EXPIRED, &[AtExpiryMarked]], ANY, "touch; say Expired"),
    row(&[TrackOther], &[REGISTERED, &[Dispatched], RECORDED_DOUBT, FINISHED], ANY, "say Mismatch"),
    row(&[Track, TrackSame, TrackOther], &[FENCED], ANY, "say Fenced"),
    row(&[Track, TrackSame, TrackOther], &[&[Expired]], ANY, "say Expired"),
    row(&[Track, TrackSame, TrackOther], &[&[Marked]], ANY, "touch; say Expired"),
    // The operation reports: bytes "d" that are good until 300; the answer "A", good until 500; the reason "R" or "U".
    row(
        &[Checkpoint],
        &[&[Live, LiveCheckpointed, Left, LeftCheckpointed]],
        ANY,
        "put registered #2 expires=300 checkpoint=d; say Saved",
    ),
    row(
        &[Checkpoint],
        &[&[LeftLast, LeftLastExpired]],
        ANY,
        "put registered #2 expires=300 checkpoint=d recoveries=4; say Saved",
    ),
    row(&[Checkpoint], &[&[Dispatched]], ANY, "put dispatched #2 expires=300 checkpoint=d; say Saved"),
    row(&[Checkpoint], &[RECORDED_DOUBT, FINISHED], ANY, "say FencedOff; alarm FencedOff"),
    row(
        &[Checkpoint, Done, Accepted, AlreadyLive, Taken, Definitive, Unknown, Guarded],
        &[&[Absent, Expired], FENCED],
        ANY,
        "say FencedOff; alarm FencedOff",
    ),
    row(
        &[Checkpoint, Done, Accepted, AlreadyLive, Taken, Definitive, Unknown, Guarded],
        &[READS_ABSENT, &[Marked]],
        ANY,
        "touch; say FencedOff; alarm FencedOff",
    ),
    row(
        &[CheckpointOlder, DoneOlder, AcceptedOlder, TakenOlder, DefinitiveOlder, UnknownOlder, GuardedOlder],
        &[&[Absent, Dispatched, Expired], REGISTERED, RECORDED_DOUBT, FINISHED, FENCED],
        ANY,
        "say FencedOff; alarm FencedOff",
    ),
    row(
        &[CheckpointOlder, DoneOlder, AcceptedOlder, TakenOlder, DefinitiveOlder, UnknownOlder, GuardedOlder],
        &[READS_ABSENT, &[Marked]],
        ANY,
        "touch; say FencedOff; alarm FencedOff",
    ),
    row(
        &[Done],
        &[&[
            Live,
            Left,
            Doubt,
            DoubtLast,
            LeftLast,
            LeftLastExpired,
            Exhausted,
            ExhaustedExpired,
            ExhaustedLapsed,
            Dispatched,
        ]],
        ANY,
        "put completed(A) expires=500 lapses=620; release A",
    ),
    row(
        &[Done],
        &[&[
            Live,
            Left,
            Doubt,
            DoubtLast,
            LeftLast,
            LeftLastExpired,
            Exhausted,
            ExhaustedExpired,
            ExhaustedLapsed,
            Dispatched,
        ]],
        &[Rule::Tombstone],
        "put completed(A) expires=500 lapses=620 until=1620; release A",
    ),
    row(
        &[Done],
        &[&[LiveCheckpointed], IN_DOUBT_CHECKPOINTED],
        ANY,
        "put completed(A) expires=500 lapses=620 checkpoint=c; release A",
    ),
    row(
        &[Done],
        &[&[LiveCheckpointed], IN_DOUBT_CHECKPOINTED],
        &[Rule::Tombstone],
        "put completed(A) expires=500 lapses=620 until=1620 checkpoint=c; release A",
    ),
    row(
        &[Accepted],
        &[&[Live, Left, Doubt, DoubtLast], &[LeftLast, LeftLastExpired, Exhausted, ExhaustedExpired, ExhaustedLapsed]],
        ANY,
        "put dispatched #2 expires=600; release accepted",
    ),
    row(
        &[Accepted],
        &[&[LiveCheckpointed], IN_DOUBT_CHECKPOINTED],
        ANY,
        "put dispatched #2 expires=600 checkpoint=c; release accepted",
    ),
    row(
        &[AlreadyLive],
        &[&[Live, Left, Doubt, DoubtLast], &[LeftLast, LeftLastExpired, Exhausted, ExhaustedExpired, ExhaustedLapsed]],
        ANY,
        "put dispatched #2 expires=600; release starter Duplicate(Dispatched)",
    ),
    row(
        &[AlreadyLive],
        &[&[LiveCheckpointed], IN_DOUBT_CHECKPOINTED],
        ANY,
        "put dispatched #2 expires=600 checkpoint=c; release starter Duplicate(Dispatched)",
    ),
    row(&[Taken], &[REGISTERED, RECORDED_DOUBT], ANY, "remove; release Mismatch"),
    row(&[Accepted, AlreadyLive, Taken, Unknown], &[&[Dispatched], FINISHED], ANY, "nothing"),
    row(&[Definitive, Guarded], &[REGISTERED, RECORDED_DOUBT], ANY, "remove; release Failed(R)"),
    row(&[Guarded], &[FINISHED], ANY, "nothing"),
    row(
        &[Definitive, Guarded],
        &[&[Live, Left, LeftLast, LeftLastExpired, Doubt, DoubtLast, Exhausted, ExhaustedExpired, ExhaustedLapsed]],
        &[Rule::Keep],
        "put failed(RolledBack, R) expires=600 lapses=720; release Failed(R)",
    ),
    row(
        &[Definitive, Guarded],
        &[&[LiveCheckpointed], IN_DOUBT_CHECKPOINTED],
        &[Rule::Keep],
        "put failed(RolledBack, R) expires=600 lapses=720 checkpoint=c; release Failed(R)",
    ),
    row(
        &[Definitive],
        &[&[LiveCheckpointed, LeftCheckpointed]],
        &[Rule::DoubtFailure],
        "put in doubt #2 expires=600 checkpoint=c; release InDoubt(R)",
    ),
    row(&[Definitive], &[&[DoubtCheckpointed]], &[Rule::DoubtFailure], "release InDoubt(R)"),
    row(
        &[Definitive, Guarded],
        &[&[Dispatched]],
        ANY,
        "put failed(Resolved, R) expires=600 lapses=720; release Duplicate(Failed)",
    ),
    row(
        &[Definitive, Guarded],
        &[&[Dispatched]],
        &[Rule::Tombstone],
        "put failed(Resolved, R) expires=600 lapses=720 until=1720; release Duplicate(Failed)",
    ),
    row(&[Unknown], &[&[Live, Left]], ANY, "put in doubt #2 expires=600 recoveries=1; release InDoubt(U)"),
    row(
        &[Unknown],
        &[&[LiveCheckpointed, LeftCheckpointed]],
        ANY,
        "put in doubt #2 expires=600 checkpoint=c recoveries=1; release InDoubt(U)",
    ),
    row(
        &[Unknown],
        &[&[LeftLast, LeftLastExpired]],
        ANY,
        "put in doubt #2 expires=600 recoveries=5; release InDoubt(U)",
    ),
    row(
        &[Unknown],
        &[&[LeftLast, LeftLastExpired]],
        &[Rule::Rerun, Rule::Ask],
        "put in doubt #2 expires=600 recoveries=5; release InDoubt(U); alarm DeadLetter",
    ),
    row(&[Unknown], &[RECORDED_DOUBT], ANY, "release InDoubt(U)"),
    // An end for a record that has one.
    row(&[Done, ResolveDone, ResolveOwnDone], &[COMPLETED, &[NotKept, AtExpiryMarked]], ANY, "say Resolved(Already)"),
    row(&[Definitive, ResolveFailed, ResolveOwnFailed], &[FAILED], ANY, "say Resolved(Already)"),
    row(
        &[Done, ResolveDone, ResolveOwnDone],
        &[&[RolledBack, FailedExpired]],
        ANY,
        "put failed(RolledBack, R) expires=600 lapses=720 contradiction=A; say Resolved(Contradicts(Failed)); \
         alarm Contradiction(Failed)",
    ),
    row(
        &[Done, ResolveDone, ResolveOwnDone],
        &[&[Resolved]],
        ANY,
        "put failed(Resolved, R) expires=600 lapses=720 contradiction=A; say Resolved(Contradicts(Failed)); \
         alarm Contradiction(Failed)",
    ),
    row(
        &[Definitive, ResolveFailed, ResolveOwnFailed],
        &[COMPLETED],
        ANY,
        "put completed(A) expires=600 lapses=720 contradiction=R; say Resolved(Contradicts(Completed)); \
         alarm Contradiction(Completed)",
    ),
    row(
        &[Definitive, ResolveFailed, ResolveOwnFailed],
        &[&[AtExpiryMarked]],
        ANY,
        "put completed(A) expires=600 lapses=720 until=1720 contradiction=R; say Resolved(Contradicts(Completed)); \
         alarm Contradiction(Completed)",
    ),
    row(
        &[Definitive, ResolveFailed, ResolveOwnFailed],
        &[&[NotKept]],
        ANY,
        "put completed(not kept) expires=600 lapses=720 contradiction=R; say Resolved(Contradicts(Completed)); \
         alarm Contradiction(Completed)",
    ),
    // The end, told from outside.
    row(
        &[ResolveDone, ResolveOwnDone],
        &[
            &[Live, Left, LeftLast, LeftLastExpired, Dispatched],
            &[Doubt, DoubtLast, Exhausted, ExhaustedExpired, ExhaustedLapsed],
        ],
        ANY,
        "put completed(A) expires=600 lapses=720; say Resolved(Recorded); release A",
    ),
    row(
        &[ResolveDone, ResolveOwnDone],
        &[
            &[Live, Left, LeftLast, LeftLastExpired, Dispatched],
            &[Doubt, DoubtLast, Exhausted, ExhaustedExpired, ExhaustedLapsed],
        ],
        &[Rule::Tombstone],
        "put completed(A) expires=600 lapses=720 until=1720; say Resolved(Recorded); release A",
    ),
    row(
        &[ResolveDone, ResolveOwnDone],
        &[&[LiveCheckpointed], IN_DOUBT_CHECKPOINTED],
        ANY,
        "put completed(A) expires=600 lapses=720 checkpoint=c; say Resolved(Recorded); release A",
    ),
    row(
        &[ResolveDone, ResolveOwnDone],
        &[&[LiveCheckpointed], IN_DOUBT_CHECKPOINTED],
        &[Rule::Tombstone],
        "put completed(A) expires=600 lapses=720 until=1720 checkpoint=c; say Resolved(Recorded); release A",
    ),
    row(
        &[ResolveFailed, ResolveOwnFailed],
        &[
            &[Live, Left, LeftLast, LeftLastExpired, Dispatched],
            &[Doubt, DoubtLast, Exhausted, ExhaustedExpired, ExhaustedLapsed],
        ],
        ANY,
        "put failed(Resolved, R) expires=600 lapses=720; say Resolved(Recorded); release Duplicate(Failed)",
    ),
    row(
        &[ResolveFailed, ResolveOwnFailed],
        &[
            &[Live, Left, LeftLast, LeftLastExpired, Dispatched],
            &[Doubt, DoubtLast, Exhausted, ExhaustedExpired, ExhaustedLapsed],
        ],
        &[Rule::Tombstone],
        "put failed(Resolved, R) expires=600 lapses=720 until=1720; say Resolved(Recorded); release Duplicate(Failed)",
    ),
    row(
        &[ResolveFailed, ResolveOwnFailed],
        &[&[LiveCheckpointed], IN_DOUBT_CHECKPOINTED],
        ANY,
        "put failed(Resolved, R) expires=600 lapses=720 checkpoint=c; say Resolved(Recorded); \
         release Duplicate(Failed)",
    ),
    row(
        &[ResolveFailed, ResolveOwnFailed],
        &[&[LiveCheckpointed], IN_DOUBT_CHECKPOINTED],
        &[Rule::Tombstone],
        "put failed(Resolved, R) expires=600 lapses=720 until=1720 checkpoint=c; say Resolved(Recorded); \
         release Duplicate(Failed)",
    ),
    row(
        &[ResolveOlderDone, ResolveOlderFailed],
        &[REGISTERED, &[Dispatched], RECORDED_DOUBT, FINISHED],
        ANY,
        "say Resolved(FencedOff); alarm FencedOff",
    ),
    row(
        &[ResolveDone, ResolveOwnDone, ResolveOlderDone, ResolveFailed, ResolveOwnFailed, ResolveOlderFailed],
        &[&[Absent, Expired], FENCED],
        ANY,
        "say Resolved(NotFound)",
    ),
    row(
        &[ResolveDone, ResolveOwnDone, ResolveOlderDone, ResolveFailed, ResolveOwnFailed, ResolveOlderFailed],
        &[READS_ABSENT, &[Marked]],
        ANY,
        "touch; say Resolved(NotFound)",
    ),
    // Who was asked has answered, about attempt 2 or (*older*) attempt 1: not started (a reason that the limit of 8 bytes
    // cuts where it is stored), live, the end "A" or "R", nothing.
    row(&[FoundNotStarted], &[DOUBTED, &[Dispatched]], ANY, "remove; release Failed(not started)"),
    row(
        &[FoundNotStarted],
        &[UNCHECKPOINTED, &[Dispatched]],
        &[Rule::Keep],
        "put failed(RolledBack, not star) expires=600 lapses=720; release Failed(not star)",
    ),
    row(
        &[FoundNotStarted],
        &[IN_DOUBT_CHECKPOINTED],
        &[Rule::Keep],
        "put failed(RolledBack, not star) expires=600 lapses=720 checkpoint=c; release Failed(not star)",
    ),
    row(&[FoundNotStarted], &[FAILED], ANY, "nothing"),
    row(
        &[FoundNotStarted],
        &[COMPLETED],
        ANY,
        "put completed(A) expires=600 lapses=720 contradiction=not star; alarm Contradiction(Completed)",
    ),
    row(
        &[FoundNotStarted],
        &[&[AtExpiryMarked]],
        ANY,
        "put completed(A) expires=600 lapses=720 until=1720 contradiction=not star; alarm Contradiction(Completed)",
    ),
    row(
        &[FoundNotStarted],
        &[&[NotKept]],
        ANY,
        "put completed(not kept) expires=600 lapses=720 contradiction=not star; alarm Contradiction(Completed)",
    ),
    row(&[FoundLive], &[UNCHECKPOINTED], ANY, "put dispatched #2 expires=600"),
    row(&[FoundLive], &[IN_DOUBT_CHECKPOINTED], ANY, "put dispatched #2 expires=600 checkpoint=c"),
    row(&[FoundLive], &[&[Dispatched], FINISHED], ANY, "nothing"),
    row(&[FoundAbandoned], &[UNCHECKPOINTED, &[Dispatched]], ANY, "put dispatched #2 expires=600 abandoned"),
    row(&[FoundAbandoned], &[IN_DOUBT_CHECKPOINTED], ANY, "put dispatched #2 expires=600 checkpoint=c abandoned"),
    row(&[FoundAbandoned], &[&[GivenUpDoubt]], ANY, "put dispatched #2 expires=600 abandoned"),
    row(&[FoundAbandoned], &[&[GivenUpDispatched], FINISHED], ANY, "nothing"),
    row(&[FoundMissing], &[DOUBTED, FINISHED], ANY, "nothing"),
    row(&[FoundMissing], &[&[Dispatched]], ANY, "put in doubt #2 expires=600"),
    row(&[FoundDone], &[UNCHECKPOINTED, &[Dispatched]], ANY, "put completed(A) expires=600 lapses=720; release A"),
    row(
        &[FoundDone],
        &[UNCHECKPOINTED, &[Dispatched]],
        &[Rule::Tombstone],
        "put completed(A) expires=600 lapses=720 until=1720; release A",
    ),
    row(&[FoundDone], &[IN_DOUBT_CHECKPOINTED], ANY, "put completed(A) expires=600 lapses=720 checkpoint=c; release A"),
    row(
        &[FoundDone],
        &[IN_DOUBT_CHECKPOINTED],
        &[Rule::Tombstone],
        "put completed(A) expires=600 lapses=720 until=1720 checkpoint=c; release A",
    ),
    row(
        &[FoundFailed],
        &[UNCHECKPOINTED, &[Dispatched]],
        ANY,
        "put failed(Resolved, R) expires=600 lapses=720; release Duplicate(Failed)",
    ),
    row(
        &[FoundFailed],
        &[UNCHECKPOINTED, &[Dispatched]],
        &[Rule::Tombstone],
        "put failed(Resolved, R) expires=600 lapses=720 until=1720; release Duplicate(Failed)",
    ),
    row(
        &[FoundFailed],
        &[IN_DOUBT_CHECKPOINTED],
        ANY,
        "put failed(Resolved, R) expires=600 lapses=720 checkpoint=c; release Duplicate(Failed)",
    ),
    row(
        &[FoundFailed],
        &[IN_DOUBT_CHECKPOINTED],
        &[Rule::Tombstone],
        "put failed(Resolved, R) expires=600 lapses=720 until=1720 checkpoint=c; release Duplicate(Failed)",
    ),
    row(&[FoundDone], &[COMPLETED, &[NotKept, AtExpiryMarked]], ANY, "nothing"),
    row(&[FoundFailed], &[FAILED], ANY, "nothing"),
    row(
        &[FoundDone],
        &[&[RolledBack, FailedExpired]],
        ANY,
        "put failed(RolledBack, R) expires=600 lapses=720 contradiction=A; alarm Contradiction(Failed)",
    ),
    row(
        &[FoundDone],
        &[&[Resolved]],
        ANY,
        "put failed(Resolved, R) expires=600 lapses=720 contradiction=A; alarm Contradiction(Failed)",
    ),
    row(
        &[FoundFailed],
        &[COMPLETED],
        ANY,
        "put completed(A) expires=600 lapses=720 contradiction=R; alarm Contradiction(Completed)",
    ),
    row(
        &[FoundFailed],
        &[&[AtExpiryMarked]],
        ANY,
        "put completed(A) expires=600 lapses=720 until=1720 contradiction=R; alarm Contradiction(Completed)",
    ),
    row(
        &[FoundFailed],
        &[&[NotKept]],
        ANY,
        "put completed(not kept) expires=600 lapses=720 contradiction=R; alarm Contradiction(Completed)",
    ),
    row(&[FoundNothing, FoundNothingAgain], &[DOUBTED, &[Dispatched], FINISHED], ANY, "nothing"),
    row(&[FoundNothing], &[IN_DOUBT], &[Rule::Ask], "put in doubt #2 expires=600 recoveries=2"),
    row(
        &[FoundNothing],
        &[IN_DOUBT_CHECKPOINTED],
        &[Rule::Ask],
        "put in doubt #2 expires=600 checkpoint=c recoveries=2",
    ),
    row(
        &[FoundNothing],
        &[LAST],
        &[Rule::Ask],
        "put in doubt #2 expires=600 recoveries=5; release RecoveriesExhausted; alarm DeadLetter",
    ),
    row(
        &[FoundNothingAgain],
        &[&[Exhausted, ExhaustedExpired, ExhaustedLapsed, LeftLast, LeftLastExpired]],
        &[Rule::Ask],
        "release RecoveriesExhausted; alarm DeadLetter",
    ),
    row(
        &[
            FoundNotStarted,
            FoundLive,
            FoundAbandoned,
            FoundMissing,
            FoundDone,
            FoundFailed,
            FoundNothing,
            FoundNothingAgain,
        ],
        &[LIVE, &[GivenUpLive]],
        ANY,
        "nothing",
    ),
    row(
        &[FoundNotStartedOlder, FoundLiveOlder, FoundNothingOlder],
        &[REGISTERED, &[Dispatched], RECORDED_DOUBT, FINISHED],
        ANY,
        "say FencedOff",
    ),
    row(
        &[FoundDoneOlder, FoundFailedOlder],
        &[REGISTERED, &[Dispatched], RECORDED_DOUBT, FINISHED],
        ANY,
        "say FencedOff; alarm FencedOff",
    ),
    row(FOUND, &[&[Absent, Expired], FENCED], ANY, "say FencedOff"),
    row(FOUND, &[READS_ABSENT, &[Marked]], ANY, "touch; say FencedOff"),
    // The engine itself asks for a re-run.
    row(&[RunAgain], &[&[Absent, Dispatched, Expired], LIVE, DOUBTED, FINISHED, FENCED], ANY, "nothing"),
    row(
        &[RunAgainOlder],
        &[&[Absent, Dispatched, Expired], REGISTERED, RECORDED_DOUBT, FINISHED, FENCED],
        ANY,
        "nothing",
    ),
    row(&[RunAgain, RunAgainOlder], &[READS_ABSENT, &[Marked]], ANY, "touch"),
    // By hand.
    row(FORGETS, &[&[Absent]], ANY, "say Forgotten(NotFound)"),
    row(FORGETS, &[READS_ABSENT], ANY, "touch; say Forgotten(NotFound)"),
    row(FORGETS, &[LIVE], ANY, "say Forgotten(InFlight(Registered))"),
    row(FORGETS, &[&[Dispatched]], ANY, "say Forgotten(InFlight(Dispatched))"),
    row(
        FORGETS,
        &[&[Left, LeftCheckpointed, LeftLast, LeftLastExpired], RECORDED_DOUBT],
        ANY,
        "say Forgotten(InFlight(InDoubt))",
    ),
    row(&[Forget, ForgetOver], &[FINISHED], ANY, "remove; say Forgotten(Forgotten)"),
    row(
        &[Forget, ForgetOver],
        &[FINISHED],
        &[Rule::Tombstone],
        "put tombstone(Expired) until=now+1000; say Forgotten(Forgotten)",
    ),
    row(&[ForgetUnasked, ForgetLive, ForgetOverOlder], &[FINISHED], ANY, "say Forgotten(Live)"),
    row(FORGETS, &[FENCED, &[Expired]], ANY, "say Forgotten(Tombstone)"),
    row(FORGETS, &[&[Marked]], ANY, "touch; say Forgotten(Tombstone)"),
    row(&[Fence], &[&[Absent], READS_ABSENT], ANY, "put tombstone(Fenced); say Fenced(Fenced)"),
    row(&[Fence], &[LIVE], ANY, "say Fenced(Found(Registered))"),
    row(&[Fence], &[&[Dispatched]], ANY, "say Fenced(Found(Dispatched))"),
    row(
        &[Fence],
        &[&[Left, LeftCheckpointed, LeftLast, LeftLastExpired], RECORDED_DOUBT],
        ANY,
        "say Fenced(Found(InDoubt))",
    ),
    row(&[Fence], &[COMPLETED, &[NotKept, AtExpiryMarked]], ANY, "say Fenced(Found(Completed))"),
    row(&[Fence], &[FAILED], ANY, "say Fenced(Found(Failed))"),
    row(&[Fence], &[FENCED], ANY, "say Fenced(Fenced)"),
    row(&[Fence], &[&[Expired]], ANY, "say Fenced(Found(Tombstone))"),
    row(&[Fence], &[&[Marked]], ANY, "touch; say Fenced(Found(Tombstone))"),
    row(&[Abandon], &[&[Absent, Expired], FENCED], ANY, "say Abandoned(NoEffect)"),
    row(&[Abandon], &[READS_ABSENT, &[Marked]], ANY, "touch; say Abandoned(NoEffect)"),
    row(&[Abandon], &[COMPLETED, &[NotKept, AtExpiryMarked]], ANY, "say Abandoned(NoEffect)"),
    row(&[Abandon], &[FAILED], ANY, "remove; say Abandoned(Released)"),
    row(&[Abandon], &[&[Live]], ANY, "put registered #2 expires=600 abandoned; say Abandoned(Marked(Registered))"),
    row(
        &[Abandon],
        &[&[LiveCheckpointed]],
        ANY,
        "put registered #2 expires=600 checkpoint=c abandoned; say Abandoned(Marked(Registered))",
    ),
    row(
        &[Abandon],
        &[&[Dispatched]],
        ANY,
        "put dispatched #2 expires=600 abandoned; say Abandoned(Marked(Dispatched))",
    ),
    row(
        &[Abandon],
        &[IN_DOUBT],
        ANY,
        "put in doubt #2 expires=600 recoveries=1 abandoned; say Abandoned(Marked(InDoubt))",
    ),
    row(
        &[Abandon],
        &[IN_DOUBT_CHECKPOINTED],
        ANY,
        "put in doubt #2 expires=600 checkpoint=c recoveries=1 abandoned; say Abandoned(Marked(InDoubt))",
    ),
    row(&[Abandon], &[LAST], ANY, "put in doubt #2 expires=600 recoveries=4 abandoned; say Abandoned(Marked(InDoubt))"),
    row(
        &[Abandon],
        &[USED_UP, USED_UP_EXPIRED, &[ExhaustedLapsed]],
        ANY,
        "put in doubt #2 expires=600 recoveries=5 abandoned; say Abandoned(Marked(InDoubt))",
    ),
    row(&[Abandon], &[&[GivenUpLive]], ANY, "say Abandoned(Marked(Registered))"),
    row(&[Abandon], &[&[GivenUpDispatched]], ANY, "say Abandoned(Marked(Dispatched))"),
    row(&[Abandon], &[&[GivenUpDoubt]], ANY, "say Abandoned(Marked(InDoubt))"),
    // What fails after that is gone.
    row(&[Definitive, Guarded], &[&[GivenUpLive, GivenUpDoubt]], ANY, "remove; release Failed(R)"),
    row(&[Definitive, Guarded], &[&[GivenUpDispatched]], ANY, "remove; release Duplicate(Failed)"),
    row(
        &[ResolveFailed, ResolveOwnFailed],
        &[&[GivenUpLive, GivenUpDispatched, GivenUpDoubt]],
        ANY,
        "remove; say Resolved(Recorded); release Duplicate(Failed)",
    ),
    row(&[FoundNotStarted], &[&[GivenUpDispatched, GivenUpDoubt]], ANY, "remove; release Failed(not started)"),
    row(&[FoundNotStarted], &[&[GivenUpDispatched, GivenUpDoubt]], &[Rule::Keep], "remove; release Failed(not star)"),
    row(&[FoundFailed], &[&[GivenUpDispatched, GivenUpDoubt]], ANY, "remove; release Duplicate(Failed)"),
    // Ticks: 100 have gone by, and the eighth from here releases.
    row(&[Acknowledge, Disturb], &[&[Absent, Expired], FENCED], ANY, "say Acknowledged(NotFound)"),
    row(&[Acknowledge, Disturb], &[READS_ABSENT, &[Marked]], ANY, "touch; say Acknowledged(NotFound)"),
    row(&[Acknowledge, Disturb], &[LIVE], ANY, "say Acknowledged(NoEffect(Registered))"),
    row(&[Acknowledge, Disturb], &[&[Dispatched]], ANY, "say Acknowledged(NoEffect(Dispatched))"),
    row(&[Acknowledge, Disturb], &[DOUBTED], ANY, "say Acknowledged(NoEffect(InDoubt))"),
    row(&[Acknowledge, Disturb], &[FAILED], ANY, "say Acknowledged(NoEffect(Failed))"),
    row(
        &[Acknowledge, Disturb],
        &[COMPLETED, &[NotKept, AtExpiryMarked, Quiet]],
        ANY,
        "say Acknowledged(NoEffect(Completed))",
    ),
    row(
        &[Acknowledge],
        &[COMPLETED],
        &[Rule::Acknowledged],
        "put completed(A) expires=600 lapses=720 tick=108; say Acknowledged(Counting)",
    ),
    row(
        &[Acknowledge],
        &[&[AtExpiryMarked]],
        &[Rule::Acknowledged],
        "put completed(A) expires=600 lapses=720 until=1720 tick=108; say Acknowledged(Counting)",
    ),
    row(
        &[Acknowledge],
        &[&[NotKept]],
        &[Rule::Acknowledged],
        "put completed(not kept) expires=600 lapses=720 tick=108; say Acknowledged(Counting)",
    ),
    row(&[Acknowledge], &[&[Quiet]], &[Rule::Acknowledged], "say Acknowledged(Counting)"),
    row(
        &[Disturb],
        &[&[Quiet]],
        &[Rule::Acknowledged],
        "put completed(A) expires=600 lapses=720 tick=108; say Acknowledged(Counting)",
    ),
    // A restart, and the expiry sweep.
    row(&[Interrupt], &[&[Live, Left]], ANY, "put in doubt #2 expires=600 recoveries=1"),
    row(
        &[Interrupt],
        &[&[LiveCheckpointed, LeftCheckpointed]],
        ANY,
        "put in doubt #2 expires=600 checkpoint=c recoveries=1",
    ),
    row(&[Interrupt], &[&[LeftLast, LeftLastExpired]], ANY, "put in doubt #2 expires=600 recoveries=5"),
    row(
        &[Interrupt],
        &[&[Absent, Dispatched, Marked, Expired], RECORDED_DOUBT, FINISHED, READS_ABSENT, FENCED],
        ANY,
        "nothing",
    ),
    row(&[Expire], &[&[Absent, Dispatched, Expired], REGISTERED, RECORDED_DOUBT, FINISHED, FENCED], ANY, "nothing"),
    row(&[Expire], &[READS_ABSENT], ANY, "remove"),
    row(&[Expire], &[&[Marked]], ANY, "put tombstone(Expired) until=1720"),
];

const LATE: &[Stored] = &[Lapsed, Marked, MarkerOver];
const LATE_MARKED: &[Stored] = &[Marked, MarkerOver];

/// What differs when the same time is suspect, and the trusted one is that of the admission: nothing has lapsed, nothing has
/// ended, and no row writes but those of what is told or forgotten by name.
const SUSPECT_ROWS: &[Row] = &[
    row(
        &[AdmitSame, AdmitOther, AdmitBarred, Track, TrackSame],
        &[EXPIRED, &[AtExpiryMarked], LATE, &[TombstoneOver]],
        ANY,
        "say Expired",
    ),
    row(
        &[AdmitSame, AdmitOther, AdmitBarred, Track, TrackSame],
        &[USED_UP_EXPIRED, &[ExhaustedLapsed]],
        &[Rule::Rerun],
        "say Expired",
    ),
    row(&[TrackOther], &[LATE], ANY, "say Mismatch"),
    row(&[TrackOther], &[&[ExhaustedLapsed]], &[Rule::Rerun], "say Mismatch"),
    row(&[TrackOther], &[&[TombstoneOver]], ANY, "say Expired"),
    row(
        &[
            Checkpoint,
            CheckpointOlder,
            DoneOlder,
            AcceptedOlder,
            TakenOlder,
            DefinitiveOlder,
            UnknownOlder,
            GuardedOlder,
        ],
        &[LATE, &[TombstoneOver]],
        ANY,
        "say FencedOff; alarm FencedOff",
    ),
    row(
        &[Done, Accepted, AlreadyLive, Taken, Definitive, Unknown, Guarded],
        &[&[TombstoneOver]],
        ANY,
        "say FencedOff; alarm FencedOff",
    ),
    row(&[Accepted, AlreadyLive, Taken, Unknown, Guarded], &[LATE], ANY, "nothing"),
    row(&[Done, ResolveDone, ResolveOwnDone], &[LATE], ANY, "say Resolved(Already)"),
    row(
        &[Definitive, ResolveFailed, ResolveOwnFailed],
        &[&[Lapsed]],
        ANY,
        "put completed(A) expires=600 lapses=720 contradiction=R; say Resolved(Contradicts(Completed)); \
         alarm Contradiction(Completed)",
    ),
    row(
        &[Definitive, ResolveFailed, ResolveOwnFailed],
        &[LATE_MARKED],
        ANY,
        "put completed(A) expires=600 lapses=720 until=1720 contradiction=R; say Resolved(Contradicts(Completed)); \
         alarm Contradiction(Completed)",
    ),
    row(&[ResolveOlderDone, ResolveOlderFailed], &[LATE], ANY, "say Resolved(FencedOff); alarm FencedOff"),
    row(
        &[ResolveDone, ResolveOwnDone, ResolveOlderDone, ResolveFailed, ResolveOwnFailed, ResolveOlderFailed],
        &[&[TombstoneOver]],
        ANY,
        "say Resolved(NotFound)",
    ),
    row(
        &[FoundNotStarted],
        &[&[Lapsed]],
        ANY,
        "put completed(A) expires=600 lapses=720 contradiction=not star; alarm Contradiction(Completed)",
    ),
    row(
        &[FoundNotStarted],
        &[LATE_MARKED],
        ANY,
        "put completed(A) expires=600 lapses=720 until=1720 contradiction=not star; alarm Contradiction(Completed)",
    ),
    row(
        &[FoundFailed],
        &[&[Lapsed]],
        ANY,
        "put completed(A) expires=600 lapses=720 contradiction=R; alarm Contradiction(Completed)",
    ),
    row(
        &[FoundFailed],
        &[LATE_MARKED],
        ANY,
        "put completed(A) expires=600 lapses=720 until=1720 contradiction=R; alarm Contradiction(Completed)",
    ),
    row(
        &[FoundDone, FoundLive, FoundAbandoned, FoundMissing, FoundNothing, FoundNothingAgain, RunAgain, RunAgainOlder],
        &[LATE],
        ANY,
        "nothing",
    ),
    row(&[FoundNotStartedOlder, FoundLiveOlder, FoundNothingOlder], &[LATE], ANY, "say FencedOff"),
    row(&[FoundDoneOlder, FoundFailedOlder], &[LATE], ANY, "say FencedOff; alarm FencedOff"),
    row(FOUND, &[&[TombstoneOver]], ANY, "say FencedOff"),
    row(&[RunAgain, RunAgainOlder], &[&[TombstoneOver]], ANY, "nothing"),
    row(&[Forget, ForgetOver], &[LATE], ANY, "remove; say Forgotten(Forgotten)"),
    row(
        &[Forget, ForgetOver],
        &[LATE],
        &[Rule::Tombstone],
        "put tombstone(Expired) until=now+1000; say Forgotten(Forgotten)",
    ),
    row(FORGETS, &[&[TombstoneOver]], ANY, "say Forgotten(Tombstone)"),
    row(&[ForgetUnasked, ForgetLive, ForgetOverOlder], &[LATE], ANY, "say Forgotten(Live)"),
    row(&[Abandon], &[LATE, &[TombstoneOver]], ANY, "say Abandoned(NoEffect)"),
    row(&[Acknowledge, Disturb], &[LATE], ANY, "say Acknowledged(NoEffect(Completed))"),
    row(
        &[Acknowledge],
        &[&[Lapsed]],
        &[Rule::Acknowledged],
        "put completed(A) expires=600 lapses=720 tick=108; say Acknowledged(Counting)",
    ),
    row(
        &[Acknowledge],
        &[LATE_MARKED],
        &[Rule::Acknowledged],
        "put completed(A) expires=600 lapses=720 until=1720 tick=108; say Acknowledged(Counting)",
    ),
    row(&[Acknowledge, Disturb], &[&[TombstoneOver]], ANY, "say Acknowledged(NotFound)"),
    row(&[Fence], &[LATE], ANY, "say Fenced(Found(Completed))"),
    row(&[Fence], &[&[TombstoneOver]], ANY, "say Fenced(Found(Tombstone))"),
];

impl Stored {
    fn now(self) -> u64 {
        match self {
            Absent | Live | LiveCheckpointed | Left | LeftCheckpointed | LeftLast | Dispatched | Doubt => 10,
            DoubtCheckpointed | DoubtLast | Exhausted | NotKept | RolledBack | Resolved | FencedForever => 10,
            GivenUpLive | GivenUpDispatched | GivenUpDoubt | Quiet | QuietEnd => 10,
            Completed => 599,
            LeftLastExpired | ExhaustedExpired | AtExpiry | AtExpiryMarked | FailedExpired => 600,
            GraceEnd => 719,
            Lapsed => 720,
            ExhaustedLapsed => 730,
            Marked => 800,
            Fenced | Expired => 1719,
            MarkerOver | TombstoneOver => 1720,
        }
    }

    fn record(self) -> Option<Record> {
        let checkpoint = Some(bytes("c"));
        let tombstone_until = Some(at(1720));
        let completed = || State::Completed(Some(bytes("A")));
        let failed = |origin| ended(State::Failed(origin, bytes("R")));
        Some(match self {
            Absent => return None,
            Live | Left => record(State::Registered),
            LiveCheckpointed | LeftCheckpointed => Record { checkpoint, ..record(State::Registered) },
            LeftLast | LeftLastExpired => Record { recoveries: RECOVERIES - 1, ..record(State::Registered) },
            Dispatched => record(State::Dispatched),
            Doubt => Record { recoveries: 1, ..record(State::InDoubt) },
            DoubtLast => Record { recoveries: RECOVERIES - 1, ..record(State::InDoubt) },
            DoubtCheckpointed => Record { recoveries: 1, checkpoint, ..record(State::InDoubt) },
            Exhausted | ExhaustedExpired | ExhaustedLapsed => {
                Record { recoveries: RECOVERIES, ..record(State::InDoubt) }
            }
            Completed | AtExpiry | GraceEnd | Lapsed => ended(completed()),
            AtExpiryMarked | Marked | MarkerOver => Record { tombstone_until, ..ended(completed()) },
            GivenUpLive => Record { abandoned: true, ..record(State::Registered) },
            GivenUpDispatched => Record { abandoned: true, ..record(State::Dispatched) },
            GivenUpDoubt => Record { abandoned: true, recoveries: 1, ..record(State::InDoubt) },
            Quiet => Record { lapses_at_tick: Some(TICK + 1), ..ended(completed()) },
            QuietEnd => Record { lapses_at_tick: Some(TICK), ..ended(completed()) },
            NotKept => ended(State::Completed(None)),
            RolledBack | FailedExpired => failed(Origin::RolledBack),
            Resolved => failed(Origin::Resolved),
            Fenced => tombstone(Mark::Fenced, tombstone_until),
            FencedForever => tombstone(Mark::Fenced, None),
            Expired | TombstoneOver => tombstone(Mark::Expired, tombstone_until),
        })
    }
}

fn tombstone(mark: Mark, tombstone_until: Option<UnixMillis>) -> Record {
    Record { request: bytes(""), expires_at: None, tombstone_until, ..record(State::Tombstone(mark)) }
}

impl Rule {
    fn policy(self) -> Policy {
        match self {
            Self::Base => policy(),
            Self::RefuseRunning => policy().while_running(WhileRunning::Refuse),
            Self::RefuseCompleted => policy().after_completed(AfterCompleted::Refuse),
            Self::Keep => policy().on_failure(OnFailure::Keep),
            Self::DoubtFailure => policy().after_checkpoint(AfterCheckpoint::Doubt),
            Self::Rerun => policy().in_doubt(InDoubt::Rerun),
            Self::Ask => policy().in_doubt(InDoubt::Ask),
            Self::ExpiryRefuse => policy().after_expiry(AfterExpiry::Refuse),
            Self::ExpiryRerun => policy().after_expiry(AfterExpiry::Rerun),
            Self::Tombstone => policy().tombstone(TOMBSTONE),
            Self::Acknowledged => policy().retention(Retention::UntilAcknowledged { quiet_ticks: 7 }),
            Self::ReplaySafe => policy().replay_safe(),
        }
    }
}

/// Runs one event of the table. What the supervisor does without a policy reads as a step that says nothing.
#[expect(clippy::too_many_lines, reason = "a line for each event")]
fn run(does: Does, stored: Option<&Record>, cx: Context<'_>) -> Step {
    let token = stored.map_or(OLD_TOKEN, |record| record.attempt.token);
    let of = |number| AttemptId { number, boot: OLD_BOOT, token };
    let finish = |number, end: End| step(stored, Event::Finish { attempt: of(number), end: &end }, cx);
    let guarded = |number| step(stored, Event::Guarded { attempt: of(number), reason: &reason("R") }, cx);
    let resolve = |attempt, end: Ended| step(stored, Event::Resolve { attempt, end: &end }, cx);
    let checkpoint = |number| {
        step(stored, Event::Checkpoint { attempt: of(number), bytes: bytes("d"), expires_at: Some(at(300)) }, cx)
    };
    let forget = |downstream| step(stored, Event::Forget(&downstream), cx);
    let rerun = |number| step(stored, Event::Rerun { attempt: of(number), admission: &admission("same") }, cx);
    let done = || done_until(bytes("A"), Some(at(500)));
    let completed = || Ended::Completed(bytes("A"));
    let failed = || Ended::Failed(bytes("R"));
    match does {
        AdmitSame => step(stored, Event::Admit(&admission("same")), cx),
        AdmitOther => step(stored, Event::Admit(&admission("other")), cx),
        AdmitBarred => step(stored, Event::Admit(&barred("same")), cx),
        Track => step(stored, Event::Track(None), cx),
        TrackSame => step(stored, Event::Track(Some(fingerprint("same"))), cx),
        TrackOther => step(stored, Event::Track(Some(fingerprint("other"))), cx),
        Checkpoint => checkpoint(2),
        CheckpointOlder => checkpoint(1),
        Done => finish(2, done()),
        Accepted => finish(2, End::Accepted),
        AlreadyLive => finish(2, End::AlreadyLive),
        Taken => finish(2, End::Taken),
        Definitive => finish(2, End::Definitive(reason("R"))),
        Unknown => finish(2, End::Unknown(reason("U"))),
        Guarded => guarded(2),
        DoneOlder => finish(1, done()),
        AcceptedOlder => finish(1, End::Accepted),
        TakenOlder => finish(1, End::Taken),
        DefinitiveOlder => finish(1, End::Definitive(reason("R"))),
        UnknownOlder => finish(1, End::Unknown(reason("U"))),
        GuardedOlder => guarded(1),
        ResolveDone => resolve(None, completed()),
        ResolveFailed => resolve(None, failed()),
        ResolveOwnDone => resolve(Some(of(2)), completed()),
        ResolveOwnFailed => resolve(Some(of(2)), failed()),
        ResolveOlderDone => resolve(Some(of(1)), completed()),
        ResolveOlderFailed => resolve(Some(of(1)), failed()),
        FoundNotStarted | FoundNotStartedOlder => found(does, stored, &Found::NotStarted, cx),
        FoundLive | FoundLiveOlder => found(does, stored, &Found::Live, cx),
        FoundAbandoned => found(does, stored, &Found::Abandoned, cx),
        FoundMissing => found(does, stored, &Found::Missing, cx),
        FoundDone | FoundDoneOlder => found(does, stored, &Found::Done(completed()), cx),
        FoundFailed | FoundFailedOlder => found(does, stored, &Found::Done(failed()), cx),
        FoundNothing | FoundNothingAgain | FoundNothingOlder => found(does, stored, &Found::CannotTell, cx),
        RunAgain => rerun(2),
        RunAgainOlder => rerun(1),
        Forget => forget(Downstream::NobodyKnows),
        ForgetUnasked => forget(Downstream::NotAsked),
        ForgetOver => forget(Downstream::Said(of(2), Found::NotStarted)),
        ForgetLive => forget(Downstream::Said(of(2), Found::Live)),
        ForgetOverOlder => forget(Downstream::Said(of(1), Found::NotStarted)),
        Fence => step(stored, Event::Fence, cx),
        Abandon => step(stored, Event::Abandon, cx),
        Acknowledge => step(stored, Event::Acknowledge, cx),
        Disturb => step(stored, Event::Disturb, cx),
        Interrupt => {
            let write = stored.and_then(|record| interrupt(record, cx.now));
            Step::say(Said::Nothing).writing(write.map_or(Write::Keep, |record| Write::Put(Arc::new(record))))
        }
        Expire => {
            Step::say(Said::Nothing).writing(stored.map_or(Write::Keep, |record| expire(record, cx.now, cx.tick)))
        }
    }
}

/// The answer of one who was asked about the record as it reads; *again*: as it read one answer ago.
fn found(does: Does, stored: Option<&Record>, found: &Found, cx: Context<'_>) -> Step {
    const OLDER: [Does; 5] =
        [FoundNotStartedOlder, FoundLiveOlder, FoundDoneOlder, FoundFailedOlder, FoundNothingOlder];
    let token = stored.map_or(OLD_TOKEN, |record| record.attempt.token);
    let attempt = AttemptId { number: if OLDER.contains(&does) { 1 } else { 2 }, boot: OLD_BOOT, token };
    let doubted = stored.and_then(|record| interrupt(record, cx.now)).filter(|_| !cx.live);
    let counted = doubted.as_ref().or(stored).map_or(0, |record| record.recoveries);
    let recoveries = counted.saturating_sub(u8::from(does == FoundNothingAgain));
    step(stored, Event::Found { attempt, recoveries, found }, cx)
}

/// What is wrong with one case.
fn check((state, does, rule): (Stored, Does, Rule), suspect: bool, expect: &str) -> Vec<String> {
    let (policy, stored) = (rule.policy(), state.record());
    let trusted = at(if suspect { 0 } else { state.now() });
    let live = LIVE.contains(&state) || state == GivenUpLive;
    let cx = Context { live, trusted, ..cx(&policy, state.now()) };
    let step = run(does, stored.as_ref(), cx);
    let got = show::step(&step, cx.now);
    let mut wrong = Vec::new();
    if got != expect {
        wrong.push(format!("got {got:?}, expected {expect:?}"));
    }
    if let Write::Put(put) | Write::Hold(put) = &step.write {
        let kept = if matches!(step.caller, Said::Start) {
            check_start(stored.as_ref(), put, does, cx.now)
        } else {
            check_put(stored.as_ref(), put)
        };
        let revision = stored.as_ref().map_or(0, |record| record.revision) + 1;
        let always = [("revision", put.revision == revision), ("updated_at", put.updated_at == cx.now)];
        let broken = always.into_iter().chain(kept).filter(|(_, holds)| !holds);
        wrong.extend(broken.map(|(what, _)| format!("the written {what} is wrong: {put:?}")));
    }
    wrong.into_iter().map(|what| format!("{state:?} / {does:?} / {rule:?} / suspect {suspect}: {what}")).collect()
}

/// What every registration and every re-run sets.
fn check_start(stored: Option<&Record>, put: &Record, does: Does, now: UnixMillis) -> Vec<(&'static str, bool)> {
    let request = if does == AdmitOther { "other" } else { "same" };
    let mut kept = vec![
        ("fingerprint", put.fingerprint == fingerprint(request)),
        ("request", put.request == bytes(request)),
        ("boot", put.attempt.boot == NEW_BOOT),
        ("end", put.lapses_at.is_none() && put.tombstone_until.is_none() && put.contradiction.is_none()),
    ];
    match stored.filter(|_| put.attempt.number > 1) {
        Some(stored) => kept.extend([
            ("token", put.attempt.token == OLD_TOKEN),
            ("attempt", put.attempt.number == stored.attempt.number + 1),
            ("created_at", put.created_at == stored.created_at),
        ]),
        None => kept.extend([
            ("token", put.attempt.token == NEW_TOKEN),
            ("created_at", put.created_at == now),
            ("recoveries", put.recoveries == 0 && put.checkpoint.is_none()),
        ]),
    }
    kept
}

/// What every other write keeps.
fn check_put(stored: Option<&Record>, put: &Record) -> Vec<(&'static str, bool)> {
    let Some(stored) = stored else { return Vec::new() };
    let is_tombstone = matches!(put.state, State::Tombstone(_));
    vec![
        ("attempt", put.attempt == stored.attempt),
        ("fingerprint", put.fingerprint == stored.fingerprint),
        ("created_at", put.created_at == stored.created_at),
        ("request", put.request == if is_tombstone { bytes("") } else { stored.request.clone() }),
    ]
}

impl Stored {
    /// Another state, and what a written record shows besides, for all that it has no row of its own for.
    fn like(self) -> Option<(Self, &'static str)> {
        const LIKE: [(Stored, Stored, &str); 5] = [
            (GivenUpLive, Live, " abandoned"),
            (GivenUpDispatched, Dispatched, " abandoned"),
            (GivenUpDoubt, Doubt, " abandoned"),
            (Quiet, Completed, " tick=101"),
            (QuietEnd, Lapsed, ""),
        ];
        LIKE.into_iter().find(|(own, ..)| *own == self).map(|(_, like, also)| (like, also))
    }
}

/// The row of a case, and what is expected.
fn expected(rows: &[Row], (state, does, rule): (Stored, Does, Rule)) -> Result<(usize, String), String> {
    let has_none = !rows.iter().any(|row| row.is_of((state, does, rule)));
    let Some((like, also)) = state.like().filter(|_| has_none) else {
        return row_of(rows, (state, does, rule)).map(|index| (index, rows[index].expect.into()));
    };
    let index = row_of(rows, (like, does, rule))?;
    let expect = rows[index].expect;
    let is_kept = expect.starts_with("put ") && !expect.contains(" #1 ") && !expect.contains("tombstone");
    let (put, rest) = expect.split_once(';').map_or((expect, String::new()), |(put, rest)| (put, format!(";{rest}")));
    Ok((index, if is_kept { format!("{put}{also}{rest}") } else { expect.into() }))
}

/// The row of a case: the one that names its policy, else the one for any policy.
fn row_of(rows: &[Row], (state, does, rule): (Stored, Does, Rule)) -> Result<usize, String> {
    let fits = |row: &Row| row.is_of((state, does, rule));
    let found = |named: bool| {
        let by_rule = |row: &Row| if named { row.rules.contains(&rule) } else { row.rules.is_empty() };
        let rows = rows.iter().enumerate().filter(|(_, row)| fits(row) && by_rule(row));
        rows.map(|(index, _)| index).collect::<Vec<_>>()
    };
    match (found(true).as_slice(), found(false).as_slice()) {
        ([one], [_]) | ([], [one]) => Ok(*one),
        ([], []) => Err(format!("{state:?} / {does:?} / {rule:?} has no row")),
        (named, any) => Err(format!("{state:?} / {does:?} / {rule:?} has rows {named:?} and {any:?}")),
    }
}

fn cases() -> impl Iterator<Item = (Stored, Does, Rule)> {
    STATES.into_iter().flat_map(|state| {
        EVENTS.into_iter().flat_map(move |does| RULES.into_iter().map(move |rule| (state, does, rule)))
    })
}

#[test]
fn every_state_and_event_has_exactly_one_row_and_every_row_is_used() {
    let mut used = vec![false; ROWS.len()];
    let mut wrong = Vec::new();
    for case in cases() {
        match expected(ROWS, case) {
            Ok((index, _)) => used[index] = true,
            Err(error) => wrong.push(error),
        }
    }
    let idle = used.iter().zip(ROWS).filter(|(used, _)| !**used);
    wrong.extend(idle.map(|(_, row)| format!("never used: {:?} {:?} {}", row.events, row.states, row.expect)));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_row_of_the_table_holds() {
    let rows = cases().filter_map(|case| Some((case, expected(ROWS, case).ok()?)));
    let wrong: Vec<_> = rows.flat_map(|(case, (_, expect))| check(case, false, &expect)).collect();
    assert!(wrong.is_empty(), "{} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// The row of a case at a suspect time, if it has one of its own: one for any policy speaks only where none names it.
fn suspect_row_of(case: (Stored, Does, Rule)) -> Option<usize> {
    let named = SUSPECT_ROWS.iter().position(|row| row.rules.contains(&case.2) && row.is_of(case));
    named.or_else(|| SUSPECT_ROWS.iter().position(|row| row.rules.is_empty() && row.is_of(case)))
}

#[test]
fn at_a_suspect_time_nothing_runs_and_nothing_is_removed_because_of_expiry_and_all_else_holds() {
    let mut used = vec![false; SUSPECT_ROWS.len()];
    let mut wrong = Vec::new();
    // The supervisor asks for no expiry at such a time.
    for case in cases().filter(|(_, does, _)| *does != Expire) {
        let expect = match suspect_row_of(case) {
            Some(index) => {
                used[index] = true;
                SUSPECT_ROWS[index].expect.into()
            }
            None => expected(ROWS, case).unwrap().1,
        };
        wrong.extend(check(case, true, &expect));
    }
    let idle = used.iter().zip(SUSPECT_ROWS).filter(|(used, _)| !**used);
    wrong.extend(idle.map(|(_, row)| format!("never used: {:?} {:?} {}", row.events, row.states, row.expect)));
    assert!(wrong.is_empty(), "{} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
}
