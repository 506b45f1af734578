//! A raw connection: bytes out as they are, answers in as they come.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use super::{Ask, GUARD, Reply, Server};

/// One TCP connection to a server.
pub(crate) struct Wire {
    stream: TcpStream,
    seen: Vec<u8>,
}

impl Wire {
    pub(crate) fn open(server: &Server) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(GUARD)).unwrap();
        Self { stream, seen: Vec::new() }
    }

    /// Sends `bytes` on a connection of their own and reads one answer.
    #[track_caller]
    pub(crate) fn exchange(server: &Server, bytes: &[u8]) -> Reply {
        Self::open(server).say(bytes).reply().expect("an answer")
    }

    /// Sends `ask` on a connection of its own and reads one answer.
    #[track_caller]
    pub(crate) fn send(server: &Server, ask: &Ask) -> Reply {
        Self::exchange(server, &ask.bytes())
    }

    /// Writes. The server may have closed already: what it answered is what counts.
    pub(crate) fn say(mut self, bytes: &[u8]) -> Self {
        self.write(bytes);
        self
    }

    /// Writes, as [`Self::say`]; whether the bytes went out.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Says that nothing more will come.
    pub(crate) fn finish_writing(&mut self) {
        let done = self.stream.shutdown(Shutdown::Write);
        assert!(done.as_ref().is_ok_and(|()| true) || done.is_err_and(|e| e.kind() == ErrorKind::NotConnected));
    }

    /// The next answer with its whole body; none when the connection ends first.
    pub(crate) fn reply(&mut self) -> Option<Reply> {
        let mut reply = self.head()?;
        let bodiless = reply.status == 204 || reply.status == 304;
        let chunked = reply.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let length = reply.header("content-length").map(|length| length.parse::<usize>().unwrap());
        reply.body = match length {
            _ if bodiless => Vec::new(),
            _ if chunked => self.chunks()?,
            Some(length) => self.take(length)?,
            None => self.rest(),
        };
        Some(reply)
    }

    /// The next answer's status and headers. A `100 Continue` before it is passed over.
    pub(crate) fn head(&mut self) -> Option<Reply> {
        loop {
            let head = self.until(b"\r\n\r\n")?;
            let head = parse_head(&head);
            if head.status != 100 {
                return Some(head);
            }
        }
    }

    /// The next `count` bytes of what comes.
    pub(crate) fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.seen.len() < count {
            self.more()?;
        }
        Some(self.seen.drain(..count).collect())
    }

    /// The next piece of a chunked body; none at its end, or when the connection ends first.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.until(b"\r\n")?;
        let size = str::from_utf8(&line).unwrap().trim();
        let size = usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("a chunk size: {size}"));
        let mut chunk = self.take(size + 2)?;
        chunk.truncate(size);
        (size > 0).then_some(chunk)
    }

    /// Whether the server closes without another byte.
    pub(crate) fn ends(&mut self) -> bool {
        self.seen.is_empty() && self.more().is_none()
    }

    fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.until(b"\r\n")?;
            let size = usize::from_str_radix(str::from_utf8(&line).unwrap().trim(), 16).unwrap();
            let mut chunk = self.take(size + 2)?;
            chunk.truncate(size);
            if size == 0 {
                return Some(body);
            }
            body.extend(chunk);
        }
    }

    fn rest(&mut self) -> Vec<u8> {
        while self.more().is_some() {}
        std::mem::take(&mut self.seen)
    }

    fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.seen.windows(end.len()).position(|window| window == end) {
                return Some(self.seen.drain(..at + end.len()).collect());
            }
            self.more()?;
        }
    }

    /// Reads once. A server that neither speaks nor closes is an error of the test.
    fn more(&mut self) -> Option<()> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => None,
            Ok(count) => {
                self.seen.extend(&buffer[..count]);
                Some(())
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => panic!("no answer in time"),
            Err(_) => None,
        }
    }
}

fn parse_head(head: &[u8]) -> Reply {
    let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let status_line = str::from_utf8(lines.next().unwrap()).unwrap();
    assert!(status_line.starts_with("HTTP/1."), "{status_line}");
    let status = status_line.split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.map(|line| {
        let colon = line.iter().position(|byte| *byte == b':').unwrap();
        (String::from_utf8(line[..colon].to_vec()).unwrap(), line[colon + 1..].trim_ascii().to_vec())
    });
    Reply { status, headers: headers.collect(), body: Vec::new() }
}
