//! The handler of every route: it does what the query says, and counts.

use std::sync::Arc;
use std::time::Duration;

use ibid::http::Disposition;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::answer::{Asked, Body, Given};
use super::counters::Counters;
use super::journal::{Journal, hex};
use super::query;
use super::routes::REFUND;

/// Clones share counters and journal.
#[derive(Clone)]
pub(crate) struct Handler {
    counters: Arc<Counters>,
    journal: Journal,
}

/// What the query says.
#[derive(Debug, PartialEq)]
struct Wish {
    sleep: Duration,
    sleep_after: Duration,
    /// At which of the two places to panic; elsewhere not at all.
    panic: u8,
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    disposition: Option<Disposition>,
    bytes: Option<usize>,
    stream: bool,
}

/// The bytes of an answer, at most: more would be a test of the machine's memory.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

#[derive(Serialize)]
struct Receipt<'a> {
    route: &'a str,
    n: u64,
    actor: Option<&'a str>,
    len: usize,
    sha256: String,
}

impl Handler {
    pub(crate) fn new(counters: Arc<Counters>, journal: Journal) -> Self {
        Self { counters, journal }
    }

    /// A query that makes no sense is refused before anything is counted.
    pub(crate) async fn answer(&self, asked: Asked<'_>) -> Given {
        let wish = match Wish::read(asked.query) {
            Ok(wish) => wish,
            Err(wrong) => return Given::wrong(400, &wrong),
        };
        let n = self.counters.start(asked.route);
        tokio::time::sleep(wish.sleep).await;
        assert!(wish.panic != 1, "asked to panic before the effect");
        self.counters.note_effect();
        if let (REFUND, Some(token)) = (asked.route, asked.token)
            && let Err(error) = self.journal.append(token, n).await
        {
            // The line may be there or not, and with it the refund.
            let unknown = Given::wrong(500, &format!("the journal failed: {error}"));
            return Given { disposition: Some(Disposition::InDoubt), ..unknown };
        }
        tokio::time::sleep(wish.sleep_after).await;
        assert!(wish.panic != 2, "asked to panic after the effect");
        self.counters.finish();
        wish.answer(&asked, n)
    }
}

impl Wish {
    fn read(query: &str) -> Result<Self, String> {
        let mut wish = Self {
            sleep: Duration::ZERO,
            sleep_after: Duration::ZERO,
            panic: 0,
            status: 200,
            headers: Vec::new(),
            disposition: None,
            bytes: None,
            stream: false,
        };
        for (name, value) in query::parameters(query) {
            match &*name {
                b"sleep" => wish.sleep = Duration::from_millis(query::number("sleep", &value)?),
                b"sleep_after" => wish.sleep_after = Duration::from_millis(query::number("sleep_after", &value)?),
                b"panic" => wish.panic = query::number("panic", &value)?,
                b"status" => {
                    let status = query::number("status", &value)?;
                    wish.status = if (200..600).contains(&status) { status } else { return Err("status".into()) };
                }
                b"header" => wish.headers.push(header(&value).ok_or("header is not Name:Value")?),
                b"as" => wish.disposition = Some(disposition(&value).ok_or("as is keep, forget or in_doubt")?),
                b"bytes" => {
                    let bytes = query::number("bytes", &value)?;
                    wish.bytes = if bytes <= ANSWER_BYTES_MAX { Some(bytes) } else { return Err("bytes".into()) };
                }
                b"stream" => wish.stream = value == b"1",
                _ => {}
            }
        }
        Ok(wish)
    }

    fn answer(self, asked: &Asked<'_>, n: u64) -> Given {
        let mut given = match self.bytes {
            _ if matches!(self.status, 204 | 304) => {
                Given { status: self.status, headers: Vec::new(), body: Body::None, disposition: None }
            }
            _ if self.stream => Given::new(self.status, "application/octet-stream", Body::Endless),
            Some(bytes) => Given::new(self.status, "application/octet-stream", Body::Whole(pattern(bytes))),
            None => Given::json(self.status, super::json(&receipt(asked, n))),
        };
        given.headers.extend(self.headers);
        Given { disposition: self.disposition, ..given }
    }
}

fn receipt<'a>(asked: &Asked<'a>, n: u64) -> Receipt<'a> {
    let (len, sha256) = (asked.body.len(), hex(&Sha256::digest(asked.body)));
    Receipt { route: asked.route, n, actor: asked.actor, len, sha256 }
}

/// Bytes that tell where in the answer they stand: the i-th is (7 + 31 i) mod 256.
fn pattern(bytes: usize) -> Vec<u8> {
    std::iter::successors(Some(7_u8), |last| Some(last.wrapping_add(31))).take(bytes).collect()
}

fn disposition(name: &[u8]) -> Option<Disposition> {
    match name {
        b"keep" => Some(Disposition::Keep),
        b"forget" => Some(Disposition::Forget),
        b"in_doubt" => Some(Disposition::InDoubt),
        _ => None,
    }
}

/// A name that is a token and a value without control characters, bytes above ASCII included: what both frameworks take.
fn header(line: &[u8]) -> Option<(String, Vec<u8>)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let is_text = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    let is_sound = !name.is_empty() && name.iter().all(is_token) && value.iter().all(is_text);
    let name = String::from_utf8(name.into()).ok()?;
    is_sound.then(|| (name, value.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scene {
        handler: Handler,
        counters: Arc<Counters>,
        dir: tempfile::TempDir,
    }

    impl Scene {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let counters = Arc::new(Counters::default());
            let journal = Journal::open(&dir.path().join("journal")).unwrap();
            Self { handler: Handler::new(counters.clone(), journal), counters, dir }
        }

        async fn ask(&self, route: &'static str, query: &str) -> Given {
            let token = Some(ibid::Token([0xab; 32]));
            let asked = Asked { route, query, actor: Some("a"), body: b"{\"amt\":1}", token };
            self.handler.answer(asked).await
        }
    }

    fn text(given: &Given) -> &str {
        let Body::Whole(bytes) = &given.body else { panic!("it has a body") };
        std::str::from_utf8(bytes).unwrap()
    }

    #[tokio::test]
    async fn the_receipt_reads_as_the_page_says() {
        let given = Scene::new().ask("POST /pay", "").await;
        let sha256 = hex(&Sha256::digest(b"{\"amt\":1}"));
        let expected = format!(r#"{{"route":"POST /pay","n":1,"actor":"a","len":9,"sha256":"{sha256}"}}"#);
        assert_eq!((given.status, text(&given)), (200, &*expected));
        assert_eq!(given.headers, [("content-type".to_owned(), b"application/json".to_vec())]);
        assert_eq!(given.disposition, None);
    }

    #[tokio::test]
    async fn a_refund_stands_in_the_journal() {
        let scene = Scene::new();
        scene.ask("POST /pay", "").await;
        scene.ask("POST /refund", "").await;
        let lines = std::fs::read_to_string(scene.dir.path().join("journal")).unwrap();
        assert_eq!(lines, format!("{} 1\n", "ab".repeat(32)));
    }

    #[tokio::test]
    async fn the_answer_is_what_the_query_says() {
        let scene = Scene::new();
        let given = scene.ask("POST /pay", "status=402&header=X-A:1&header=X-A:%ff%2b+&as=forget&bytes=10").await;
        assert_eq!(given.status, 402);
        assert_eq!(given.disposition, Some(Disposition::Forget));
        assert_eq!(given.body, Body::Whole(vec![7, 38, 69, 100, 131, 162, 193, 224, 255, 30]));
        let expected = [
            ("content-type".to_owned(), b"application/octet-stream".to_vec()),
            ("X-A".to_owned(), b"1".to_vec()),
            ("X-A".to_owned(), b"\xff++".to_vec()),
        ];
        assert_eq!(given.headers, expected);
        for status in ["204", "304"] {
            let given = scene.ask("POST /pay", &format!("status={status}&bytes=9")).await;
            assert_eq!((given.body, given.headers.len()), (Body::None, 0));
        }
        assert_eq!(scene.ask("POST /pay", "stream=1").await.body, Body::Endless);
    }

    #[tokio::test]
    async fn a_query_that_makes_no_sense_is_refused_and_nothing_is_counted() {
        let scene = Scene::new();
        for query in
            ["status=99", "status=600", "status=x", "sleep=-1", "as=maybe", "header=A", "header=A:%0a", "bytes=x"]
        {
            assert_eq!(scene.ask("POST /pay", query).await.status, 400, "{query}");
        }
        assert!(scene.counters.to_json().starts_with(r#"{"started":0,"#));
        assert_eq!(scene.ask("POST /pay", "unknown=1&r=2").await.status, 200);
    }

    #[tokio::test]
    async fn a_panic_comes_before_or_after_the_effect() {
        for (query, counts) in
            [("panic=1", r#"{"started":1,"effects":0,"#), ("panic=2", r#"{"started":1,"effects":1,"#)]
        {
            let scene = Arc::new(Scene::new());
            let asking = Arc::clone(&scene);
            let ended = tokio::spawn(async move { asking.ask("POST /pay", query).await }).await;
            assert!(ended.is_err_and(|error| error.is_panic()));
            assert!(scene.counters.to_json().starts_with(&format!("{counts}\"finished\":0")), "{query}");
        }
    }
}
