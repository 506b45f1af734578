//! A request: method, target, header lines in order, body.

use std::fmt::Write as _;

/// One request, as a client writes it.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

/// A request of actor `a` with the JSON body of the page's vectors, and `key` in its quoted form.
pub(crate) fn ask(method: &str, target: &str, key: &str) -> Ask {
    keyless(method, target).key(key)
}

/// The same without a key.
pub(crate) fn keyless(method: &str, target: &str) -> Ask {
    let ask = Ask { method: method.into(), target: target.into(), headers: Vec::new(), body: Vec::new() };
    ask.header("X-Actor", "a").header("content-type", "application/json").body(r#"{"amt":1}"#)
}

impl Ask {
    /// Appends a header line.
    pub(crate) fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.into(), value.as_ref().to_vec()));
        self
    }

    /// Takes every line of this name away.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self
    }

    /// Appends a line with this key, quoted and escaped.
    pub(crate) fn key(self, key: &str) -> Self {
        let escaped = key.replace('\\', "\\\\").replace('"', "\\\"");
        self.header("Idempotency-Key", format!("\"{escaped}\""))
    }

    /// Appends a line with these bytes as they are.
    pub(crate) fn raw_key(self, value: impl AsRef<[u8]>) -> Self {
        self.header("Idempotency-Key", value)
    }

    pub(crate) fn actor(self, actor: &str) -> Self {
        self.without("x-actor").header("X-Actor", actor)
    }

    pub(crate) fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    pub(crate) fn target(mut self, target: &str) -> Self {
        self.target = target.into();
        self
    }

    /// The head without the line that frames the body, and without the empty line.
    pub(crate) fn head(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: demo\r\n", self.method, self.target).into_bytes();
        for (name, value) in &self.headers {
            head.extend(name.bytes().chain(*b": "));
            head.extend(value.iter().copied().chain(*b"\r\n"));
        }
        head
    }

    /// The whole request, framed by its length.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head();
        bytes.extend(format!("Content-Length: {}\r\n\r\n", self.body.len()).into_bytes());
        bytes.extend(&self.body);
        bytes
    }

    /// The whole request in chunks of `size` bytes.
    pub(crate) fn chunked(&self, size: usize) -> Vec<u8> {
        let mut bytes = self.head();
        bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
        for chunk in self.body.chunks(size) {
            bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            bytes.extend(chunk);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n\r\n");
        bytes
    }
}

/// Every byte percent-encoded, for a query parameter.
pub(crate) fn escaped(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().fold(String::new(), |mut text, byte| {
        write!(text, "%{byte:02X}").unwrap();
        text
    })
}
