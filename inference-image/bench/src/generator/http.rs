//! HTTP/1.1 as far as a load generator needs it: sends prepared bytes, and parses the head of a response for its
//! status and length.

use super::connection::{Progress, Reply};
use std::io::{self, Error, ErrorKind, Read, Write};

const BUFFER: usize = 64 << 10;

/// The state of one connection.
pub(super) struct Http {
    sent: usize,
    is_sent: bool,
    buffer: Vec<u8>,
    filled: usize,
    head: Option<Head>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            sent: 0,
            is_sent: false,
            buffer: vec![0; BUFFER],
            filled: 0,
            head: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Head {
    status: u16,
    length: usize,
    body: usize,
    closes: bool,
}

impl Http {
    pub(super) fn start(&mut self) {
        (self.sent, self.is_sent, self.filled, self.head) = (0, false, 0, None);
    }

    pub(super) fn send(&mut self, stream: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
        while self.sent < bytes.len() {
            self.sent += stream.write(&bytes[self.sent..])?;
        }
        self.is_sent = true;
        Ok(())
    }

    pub(super) fn receive(&mut self, stream: &mut impl Read) -> io::Result<Progress> {
        loop {
            let space = self.buffer.len() - self.filled;
            let read = stream.read(&mut self.buffer[self.filled..])?;
            if read == 0 {
                return Ok(Progress::Closed);
            }
            let seen = self.filled;
            self.filled += read;
            if self.head.is_none() {
                self.head = parse(&self.buffer[..self.filled], seen)?;
            }
            if let Some(head) = self.head {
                if self.filled >= head.body + head.length {
                    return Ok(Progress::Answered);
                }
                let missing = (head.body + head.length).saturating_sub(self.buffer.len());
                self.buffer.resize(self.buffer.len() + missing, 0);
            } else if self.filled == self.buffer.len() {
                return Err(Error::new(
                    ErrorKind::InvalidData,
                    "the head of an answer is larger than 64 KB",
                ));
            }
            // Less than fits means that all has been read: more will be reported.
            if read < space {
                return Ok(Progress::Waiting);
            }
        }
    }

    pub(super) fn reply(&self) -> Reply<'_> {
        let whole = &self.buffer[..self.filled];
        match self.head {
            Some(head) => Reply {
                status: head.status,
                body: &whole[head.body..],
                whole,
            },
            None => Reply {
                status: 0,
                body: &[],
                whole,
            },
        }
    }

    /// Also true if the server responded before it had read the whole request: the rest of the request would be in
    /// the way.
    pub(super) fn is_ending(&self) -> bool {
        !self.is_sent || self.head.is_some_and(|head| head.closes)
    }
}

/// The head, if it is complete; `seen` bytes were checked before.
fn parse(bytes: &[u8], seen: usize) -> io::Result<Option<Head>> {
    let end = b"\r\n\r\n";
    let from = seen.saturating_sub(end.len());
    let Some(position) = bytes[from..].windows(end.len()).position(|window| window == end) else {
        return Ok(None);
    };
    let body = from + position + end.len();
    let invalid = |what: &str| Error::new(ErrorKind::InvalidData, format!("an answer {what}"));
    let text = std::str::from_utf8(&bytes[..body]).map_err(|_| invalid("whose head is not text"))?;
    let mut lines = text.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| invalid("that is not HTTP/1.1"))?;
    let (mut length, mut closes) = (None, false);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok();
        } else if name.eq_ignore_ascii_case("connection") {
            closes = value.trim().eq_ignore_ascii_case("close");
        }
    }
    let length = length.ok_or_else(|| invalid("without Content-Length"))?;
    Ok(Some(Head {
        status,
        length,
        body,
        closes,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::VecDeque;

    /// What arrives, read by read.
    struct Pieces(VecDeque<Vec<u8>>);

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let piece = self.0.pop_front().ok_or(ErrorKind::WouldBlock)?;
            buffer[..piece.len()].copy_from_slice(&piece);
            Ok(piece.len())
        }
    }

    /// Counting a response too early, or never, would make a server look faster, or dead.
    #[test]
    fn an_answer_is_whole_however_it_is_cut() {
        let answer = b"HTTP/1.1 429 Too Many Requests\r\ncontent-LENGTH: 5\r\nConnection: close\r\n\r\nhello";
        for cut in 1..answer.len() {
            let mut http = Http::default();
            http.send(&mut Vec::new(), b"GET").unwrap();
            let mut pieces = Pieces([answer[..cut].to_vec(), answer[cut..].to_vec()].into());
            assert_eq!(http.receive(&mut pieces).unwrap(), Progress::Waiting, "{cut}");
            assert_eq!(http.receive(&mut pieces).unwrap(), Progress::Answered, "{cut}");
            let reply = http.reply();
            assert_eq!(
                (reply.status, reply.body, http.is_ending()),
                (429, &b"hello"[..], true),
                "{cut}"
            );
        }
    }

    #[test]
    fn what_is_no_such_answer_is_an_error() {
        for bytes in [
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "SSH-2.0-OpenSSH\r\n\r\n",
        ] {
            assert!(
                Http::default()
                    .receive(&mut Pieces([bytes.into()].into()))
                    .is_err(),
                "{bytes}"
            );
        }
    }
}
