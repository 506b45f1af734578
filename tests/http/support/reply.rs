//! An answer: status, header lines in order, body.

use serde_json::Value;

use super::Ask;

/// One answer, as it arrived.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(to, "{}", self.status)?;
        for (name, value) in &self.headers {
            writeln!(to, "{name}: {}", value.escape_ascii())?;
        }
        write!(to, "\n{} bytes: {}", self.body.len(), self.body[..self.body.len().min(400)].escape_ascii())
    }
}

impl Reply {
    /// Every value of this name, in order.
    pub(crate) fn values(&self, name: &str) -> Vec<&[u8]> {
        let named = |(other, _): &&(String, Vec<u8>)| other.eq_ignore_ascii_case(name);
        self.headers.iter().filter(named).map(|(_, value)| value.as_slice()).collect()
    }

    /// The one value of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let values = self.values(name);
        assert!(values.len() <= 1, "{name} is there once: {self:?}");
        values.first().map(|value| str::from_utf8(value).unwrap())
    }

    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The run's number in the demo's answer.
    pub(crate) fn n(&self) -> u64 {
        self.json()["n"].as_u64().unwrap_or_else(|| panic!("no n: {self:?}"))
    }

    /// Whether it says that it was replayed or joined.
    pub(crate) fn is_replay(&self) -> bool {
        match self.header("idempotency-replayed") {
            None => false,
            Some(value) => {
                assert_eq!(value, "true", "{self:?}");
                true
            }
        }
    }

    /// An answer of the handler that ran for this request.
    #[track_caller]
    pub(crate) fn executed(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        assert!(!self.is_replay(), "an executed answer has no replay marker: {self:?}");
        self
    }

    /// The same answer again, marked as a replay: status, body, and the content type, which stands for the other headers.
    #[track_caller]
    pub(crate) fn replays(self, first: &Self) -> Self {
        assert!(self.is_replay(), "a replay is marked: {self:?}");
        assert_eq!(self.status, first.status, "{self:?}\nafter {first:?}");
        assert_eq!(self.body.escape_ascii().to_string(), first.body.escape_ascii().to_string());
        assert_eq!(self.values("content-type"), first.values("content-type"), "{self:?}\nafter {first:?}");
        self
    }

    /// The demo's answer to `ask`, member for member, as the `n`-th run of its route.
    #[track_caller]
    pub(crate) fn answers(self, ask: &Ask, route: &str, n: u64) -> Self {
        let of = |name: &str| ask.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        let actor = of("x-actor").map_or("", |(_, value)| str::from_utf8(value).unwrap());
        let (len, sha256) = (ask.body.len(), super::sha256(&ask.body));
        let expected = format!(r#"{{"route":"{route}","n":{n},"actor":"{actor}","len":{len},"sha256":"{sha256}"}}"#);
        assert_eq!(self.text(), expected);
        assert_eq!(self.header("content-type"), Some("application/json"));
        self
    }
}
