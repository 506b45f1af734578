//! What an operation does: takes its time, saves checkpoints, ends in one of all the ways there are.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use ibid::testing::Random;
use ibid::{Attempt, Bytes, Completion, End, ErrorKind, Guard, Operation, Reason, Row, UnixMillis};
use tokio::sync::Semaphore;

use super::history::{Finished, History, Started, What};
use super::plan::{millis, of};

/// Decided before it runs, so that it does the same each time.
#[derive(Clone)]
pub(crate) struct Script {
    panics_first: bool,
    checkpoints: Vec<(Duration, usize, Option<Duration>)>,
    takes: Duration,
    end: Ends,
}

#[derive(Clone)]
enum Ends {
    Done {
        bytes: usize,
        for_long: Option<Duration>,
        row: Option<Claim>,
    },
    Accepted,
    AlreadyLive,
    Taken,
    Definitive(usize),
    Unknown,
    Panics,
    /// Not before the episode does; then like `Done`.
    Hangs,
}

/// A row that only one of two requests can have.
#[derive(Clone)]
pub(crate) struct Claim {
    name: u64,
    guard: bool,
    otherwise: bool,
    for_long: Option<Duration>,
}

impl Script {
    /// Ends at once with an answer.
    pub(crate) fn short() -> Self {
        let end = Ends::Done { bytes: 10, for_long: None, row: None };
        Self { panics_first: false, checkpoints: Vec::new(), takes: Duration::ZERO, end }
    }

    pub(crate) fn draw(random: &mut Random) -> Self {
        let checkpoints = match random.below(8) {
            0..=4 => 0,
            5 | 6 => 1,
            _ => 2,
        };
        let checkpoint = |random: &mut Random| {
            let bytes = of(random, &[0, 9, 9, 9, 200]);
            let for_long = random.once_in(3).then(|| millis(random, &[0, 100, 3_000]));
            (millis(random, &[0, 1, 50, 400]), bytes, for_long)
        };
        let checkpoints = (0..checkpoints).map(|_| checkpoint(random)).collect();
        Self {
            panics_first: random.once_in(40),
            checkpoints,
            takes: millis(random, &[0, 0, 1, 5, 60, 300, 1_500, 8_000]),
            end: Ends::draw(random),
        }
    }

    /// The operation of a request, or of nobody's.
    pub(crate) fn operation(self, history: History, of: Of, release: Arc<Semaphore>) -> Operation {
        Operation::new(move |attempt| {
            let run = Run::begin(history, of, &attempt);
            if self.panics_first {
                resume_unwind(Box::new("while it is created"));
            }
            async move { self.play(run, attempt, release).await }
        })
    }

    async fn play(self, mut run: Run, attempt: Attempt, release: Arc<Semaphore>) -> End {
        for (delay, bytes, for_long) in &self.checkpoints {
            pass(*delay).await;
            let bytes: Bytes = padded(&format!("c{}", run.start), *bytes);
            let expires_at = for_long.map(|end| attempt.admitted_at().saturating_add(end));
            if let Err(kind) = run.save(&attempt, bytes, expires_at).await
                && !matches!(kind, ErrorKind::TooLarge { .. })
            {
                return run.end(Finished::Unknown((*b"not saved").into()));
            }
        }
        pass(self.takes).await;
        let done = |bytes, expires_at, rows, otherwise| {
            let answer = padded(&format!("answer of {}", run.start), bytes);
            Finished::Done { answer, expires_at, rows, otherwise }
        };
        let end = match self.end {
            Ends::Done { bytes, for_long, row } => {
                let until = |for_long: Option<Duration>| for_long.map(|end| attempt.admitted_at().saturating_add(end));
                let otherwise = row.as_ref().filter(|claim| claim.otherwise).map(|_| (*b"lost its row").into());
                let rows = row.map(|claim| claim.row(until(claim.for_long))).into_iter().collect();
                done(bytes, until(for_long), rows, otherwise)
            }
            Ends::Accepted => Finished::Accepted,
            Ends::AlreadyLive => Finished::AlreadyLive,
            Ends::Taken => Finished::Taken,
            Ends::Definitive(bytes) => Finished::Definitive(padded(&format!("no {}", run.start), bytes)),
            Ends::Unknown => Finished::Unknown(padded(&format!("lost {}", run.start), 8)),
            Ends::Panics => resume_unwind(Box::new("on its way")),
            Ends::Hangs => {
                // It fails when the episode closes it, and that is the sign.
                drop(release.acquire().await);
                done(10, None, Vec::new(), None)
            }
        };
        run.end(end)
    }
}

impl Ends {
    fn draw(random: &mut Random) -> Self {
        match random.below(24) {
            0..=9 => Self::Done {
                bytes: of(random, &[0, 10, 10, 10, 24, 64, 65, 300]),
                for_long: random.once_in(6).then(|| millis(random, &[0, 200, 5_000])),
                row: random.once_in(4).then(|| Claim::draw(random)),
            },
            10 | 11 => Self::Accepted,
            12..=14 => Self::Definitive(of(random, &[8, 8, 100])),
            15 | 16 => Self::Unknown,
            17 => Self::Panics,
            18 | 19 => Self::Hangs,
            20 => Self::AlreadyLive,
            21 => Self::Taken,
            _ => Self::Accepted,
        }
    }
}

impl Claim {
    pub(crate) fn draw(random: &mut Random) -> Self {
        Self {
            name: random.below(2),
            guard: !random.once_in(4),
            otherwise: random.once_in(2),
            for_long: random.once_in(3).then(|| millis(random, &[100, 2_000])),
        }
    }

    fn row(&self, until: Option<UnixMillis>) -> Row {
        self.worth(until, *b"taken")
    }

    /// A row like that, which belongs to no record.
    pub(crate) fn of_nobody(&self, value: Bytes, now: UnixMillis) -> Row {
        self.worth(self.for_long.map(|end| now.saturating_add(end)), value)
    }

    /// That it goes, whoever has it.
    pub(crate) fn removal(&self) -> Row {
        Row::removal("claims", format!("claim {}", self.name).into_bytes()).expect("a sound row")
    }

    fn worth(&self, until: Option<UnixMillis>, value: impl Into<Bytes>) -> Row {
        let row = Row::new("claims", format!("claim {}", self.name).into_bytes(), value).expect("a sound row");
        let row = row.guard(if self.guard { Guard::Absent } else { Guard::Any });
        until.into_iter().fold(row, Row::expires_at)
    }
}

/// `name`, as long as it says; nothing if that is 0.
fn padded(name: &str, bytes: usize) -> Bytes {
    if bytes == 0 { [].into() } else { format!("{name:.<bytes$}").into_bytes().into() }
}

/// Lets time pass; none does not even give way.
pub(crate) async fn pass(time: Duration) {
    if time > Duration::ZERO {
        // It always ends by the timer.
        tokio::time::timeout(time, std::future::pending::<()>()).await.ok();
    }
}

/// What it is the operation of.
#[derive(Clone, Copy)]
pub(crate) struct Of {
    pub(crate) boot: usize,
    pub(crate) key: usize,
    pub(crate) call: Option<usize>,
}

/// A start that notes its end, however that comes.
struct Run {
    history: History,
    start: usize,
    ended: bool,
}

impl Run {
    fn begin(history: History, Of { boot, key, call }: Of, attempt: &Attempt) -> Self {
        let start = history.number();
        history.note(What::Started(Started {
            start,
            boot,
            key,
            call,
            number: attempt.number(),
            token: attempt.token().0,
            request: attempt.request().clone(),
            checkpoint: attempt.last_checkpoint().cloned(),
            boot_id: attempt.id().boot,
            admitted_at: attempt.admitted_at(),
            expires_at: attempt.expires_at(),
        }));
        Self { history, start, ended: false }
    }

    async fn save(&self, attempt: &Attempt, bytes: Bytes, expires_at: Option<UnixMillis>) -> Result<(), ErrorKind> {
        self.history.note(What::Saving { start: self.start, bytes: bytes.clone(), expires_at });
        let result = attempt.checkpoint(bytes, expires_at).await.map_err(|error| error.kind().clone());
        self.history.note(What::Saved { start: self.start, result: result.clone() });
        result
    }

    fn end(&mut self, end: Finished) -> End {
        self.ended = true;
        self.history.note(What::Ended { start: self.start, end: end.clone() });
        match end {
            Finished::Done { answer, expires_at, rows, otherwise } => {
                let done = rows.into_iter().fold(Completion::new(answer), Completion::row);
                let done = expires_at.into_iter().fold(done, Completion::expires_at);
                let reason = otherwise.into_iter().map(Reason::from_bytes);
                End::Done(reason.fold(done, Completion::otherwise))
            }
            Finished::Accepted => End::Accepted,
            Finished::AlreadyLive => End::AlreadyLive,
            Finished::Taken => End::Taken,
            Finished::Definitive(reason) => End::Definitive(Reason::from_bytes(reason)),
            Finished::Unknown(reason) => End::Unknown(Reason::from_bytes(reason)),
            Finished::Lost => resume_unwind(Box::new("a start is lost by being dropped")),
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.ended {
            self.history.note(What::Ended { start: self.start, end: Finished::Lost });
        }
    }
}
