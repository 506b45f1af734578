//! The flags.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ibid::AfterExpiry;
use ibid::http::{OnRunning, Profile};

pub(crate) const USAGE: &str = "\
usage: http_server --db PATH [flags]

  --db PATH                      the engine's file; the journal of the refunds is PATH.journal
  --port N                       on 127.0.0.1; 0 (default) picks one
  --profile WHAT                 classic (default) or ietf: a mismatch is 409 or 422
  --strict-header                take the quoted form of a key only
  --on-running WHAT              refuse (default) or join
  --join-wait MS                 how long a joining request waits at most (default 30000)
  --ttl SECONDS                  how long a finished record answers: 300 to 259200 (default 86400)
  --grace SECONDS                how long an expired record is still known (default 120)
  --on-expired WHAT              rerun (default), refuse-once or refuse
  --store-5xx WHAT               yes (default) or no: whether the handler's 5xx answers are kept
  --canonical-json               two spellings of one JSON value are one request
  --max-in-flight N              requests at a time (default 10000)
  --max-in-flight-per-scope N    and of one principal (default 1000)
  --max-request BYTES            of a request's body (default 65536)
  --max-answer BYTES             of an answer that is kept (default 65536)
  --admin                        serve /admin: faults, clock, expiry sweep, records
  --help                         print this";

#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) db: PathBuf,
    pub(crate) port: u16,
    pub(crate) profile: Profile,
    pub(crate) strict_header: bool,
    pub(crate) on_running: OnRunning,
    pub(crate) ttl: Duration,
    pub(crate) grace: Duration,
    pub(crate) on_expired: AfterExpiry,
    pub(crate) keep_5xx: bool,
    pub(crate) canonical_json: bool,
    pub(crate) max_in_flight: usize,
    pub(crate) max_in_flight_per_scope: usize,
    pub(crate) max_request: usize,
    pub(crate) max_answer: usize,
    pub(crate) admin: bool,
}

impl Args {
    /// `None` if help is asked for.
    pub(crate) fn parse(mut flags: impl Iterator<Item = OsString>) -> Result<Option<Self>, String> {
        let (mut db, mut joins, mut join_wait) = (None, false, Duration::from_secs(30));
        let mut args = Self::default();
        while let Some(flag) = flags.next() {
            let flag = flag.into_string().map_err(|flag| format!("unknown flag: {}", flag.display()))?;
            let mut raw = || flags.next().ok_or(format!("{flag} needs a value"));
            if flag == "--db" {
                db = Some(PathBuf::from(raw()?));
                continue;
            }
            let mut value = || raw()?.into_string().map_err(|_| format!("{flag}: the value is not UTF-8"));
            match flag.as_str() {
                "--port" => args.port = number(&flag, &value()?)?,
                "--profile" => {
                    let choices = [("classic", Profile::Classic), ("ietf", Profile::Ietf)];
                    args.profile = choice(&flag, &value()?, choices)?;
                }
                "--strict-header" => args.strict_header = true,
                "--on-running" => joins = choice(&flag, &value()?, [("refuse", false), ("join", true)])?,
                "--join-wait" => join_wait = Duration::from_millis(number(&flag, &value()?)?),
                "--ttl" => args.ttl = Duration::from_secs(number(&flag, &value()?)?),
                "--grace" => args.grace = Duration::from_secs(number(&flag, &value()?)?),
                "--on-expired" => {
                    let (once, always) = (AfterExpiry::RefuseOnce, AfterExpiry::Refuse);
                    let choices = [("rerun", AfterExpiry::Rerun), ("refuse-once", once), ("refuse", always)];
                    args.on_expired = choice(&flag, &value()?, choices)?;
                }
                "--store-5xx" => args.keep_5xx = choice(&flag, &value()?, [("yes", true), ("no", false)])?,
                "--canonical-json" => args.canonical_json = true,
                "--max-in-flight" => args.max_in_flight = positive(&flag, &value()?)?,
                "--max-in-flight-per-scope" => args.max_in_flight_per_scope = positive(&flag, &value()?)?,
                "--max-request" => args.max_request = number(&flag, &value()?)?,
                "--max-answer" => args.max_answer = number(&flag, &value()?)?,
                "--admin" => args.admin = true,
                "--help" | "-h" => return Ok(None),
                _ => return Err(format!("unknown flag: {flag}")),
            }
        }
        args.db = db.ok_or("--db is needed")?;
        args.on_running = if joins { OnRunning::Join { wait: join_wait } } else { OnRunning::Refuse };
        Ok(Some(args))
    }
}

impl Default for Args {
    fn default() -> Self {
        Self {
            db: PathBuf::new(),
            port: 0,
            profile: Profile::Classic,
            strict_header: false,
            on_running: OnRunning::Refuse,
            ttl: Duration::from_secs(86_400),
            grace: Duration::from_secs(120),
            on_expired: AfterExpiry::Rerun,
            keep_5xx: true,
            canonical_json: false,
            max_in_flight: 10_000,
            max_in_flight_per_scope: 1_000,
            max_request: 65_536,
            max_answer: 65_536,
            admin: false,
        }
    }
}

fn number<N: FromStr>(flag: &str, text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("{flag}: not a number that fits: {text}"))
}

/// The engine would take a bound of none for one.
fn positive(flag: &str, text: &str) -> Result<usize, String> {
    number(flag, text).and_then(|number| if number > 0 { Ok(number) } else { Err(format!("{flag}: at least 1")) })
}

fn choice<T: Copy, const N: usize>(flag: &str, text: &str, choices: [(&str, T); N]) -> Result<T, String> {
    let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    found.ok_or_else(|| format!("{flag} is {}, not {text}", choices.map(|(name, _)| name).join(" or ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(flags: &str) -> Result<Args, String> {
        Args::parse(flags.split_whitespace().map(OsString::from)).map(|args| args.expect("no help was asked for"))
    }

    #[test]
    fn what_is_not_said_is_the_default() {
        let args = parse("--db a.redb").unwrap();
        assert_eq!(args.db, PathBuf::from("a.redb"));
        assert_eq!((args.port, args.ttl, args.grace), (0, Duration::from_secs(86_400), Duration::from_secs(120)));
        assert_eq!((args.max_request, args.max_answer), (65_536, 65_536));
        assert_eq!(args.on_running, OnRunning::Refuse);
        assert!(args.keep_5xx && !args.admin && !args.strict_header && !args.canonical_json);
    }

    #[test]
    fn every_flag_is_heard() {
        let flags = "--db a --port 7 --profile ietf --strict-header --on-running join --join-wait 5 --ttl 300 --grace 9 \
                     --on-expired refuse-once --store-5xx no --canonical-json --max-in-flight 3 \
                     --max-in-flight-per-scope 2 --max-request 10 --max-answer 11 --admin";
        let args = parse(flags).unwrap();
        assert_eq!((args.port, args.profile), (7, Profile::Ietf));
        assert_eq!(args.on_running, OnRunning::Join { wait: Duration::from_millis(5) });
        assert_eq!((args.ttl, args.grace), (Duration::from_secs(300), Duration::from_secs(9)));
        assert_eq!(args.on_expired, AfterExpiry::RefuseOnce);
        assert_eq!((args.max_in_flight, args.max_in_flight_per_scope), (3, 2));
        assert_eq!((args.max_request, args.max_answer), (10, 11));
        assert!(args.strict_header && !args.keep_5xx && args.canonical_json && args.admin);
    }

    #[test]
    fn a_wrong_flag_is_named() {
        for (flags, named) in [
            ("", "--db"),
            ("--db", "--db"),
            ("--db a --port 65536", "--port"),
            ("--db a --ttl 1h", "--ttl"),
            ("--db a --profile draft", "--profile"),
            ("--db a --max-in-flight 0", "--max-in-flight"),
            ("--db a --wat", "--wat"),
        ] {
            let wrong = parse(flags).unwrap_err();
            assert!(wrong.contains(named), "{flags}: {wrong}");
        }
        assert!(Args::parse(["--help".into()].into_iter()).unwrap().is_none());
    }
}
