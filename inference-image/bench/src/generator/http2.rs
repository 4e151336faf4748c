//! HTTP/2 without TLS as far as a unary gRPC call needs it, one stream at a time. The headers of every request are
//! the same bytes, and those of a response are not parsed: a successful call has a message, a failed one has none.
//! RFC 9113 (frames), RFC 7541 (headers), <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.

use super::connection::{Progress, Reply};
use std::io::{self, Error, ErrorKind, IoSlice, Read, Write};
use std::net::SocketAddr;

const PATH: &str = "/inference.GRPCInferenceService/ModelInfer";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER: usize = 9;
/// Length of the prefix of a gRPC message.
const PREFIX: usize = 5;
const BUFFER: usize = 64 << 10;
/// DATA frames per system call.
const FRAMES: usize = 40;
/// The largest possible window; as much as a server may send without asking.
const WINDOW: u32 = (1 << 31) - 1;
const DEFAULT_WINDOW: u32 = 65_535;

mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PING: u8 = 6;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const WINDOW_UPDATE: u8 = 8;
}

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// The state of one connection.
pub(super) struct Http2 {
    /// Sent before anything else: an unfinished frame, and acknowledgements.
    urgent: Vec<u8>,
    /// The headers of the next request.
    block: Vec<u8>,
    stream: u32,
    body_sent: usize,
    is_sent: bool,
    connection_room: i64,
    stream_room: i64,
    initial_room: i64,
    max_frame: usize,
    input: Vec<u8>,
    filled: usize,
    message: Vec<u8>,
    is_done: bool,
    received: u32,
    is_ending: bool,
}

impl Http2 {
    pub(super) fn new(authority: SocketAddr) -> Self {
        let mut urgent = PREFACE.to_vec();
        // SETTINGS_INITIAL_WINDOW_SIZE, and the same for the whole connection.
        let setting = [&4_u16.to_be_bytes()[..], &WINDOW.to_be_bytes()].concat();
        frame(&mut urgent, kind::SETTINGS, 0, 0, &setting);
        frame(
            &mut urgent,
            kind::WINDOW_UPDATE,
            0,
            0,
            &(WINDOW - DEFAULT_WINDOW).to_be_bytes(),
        );
        Self {
            urgent,
            block: first_block(&authority.to_string()),
            stream: u32::MAX,
            body_sent: 0,
            is_sent: false,
            connection_room: DEFAULT_WINDOW.into(),
            stream_room: 0,
            initial_room: DEFAULT_WINDOW.into(),
            max_frame: 16_384,
            input: vec![0; BUFFER],
            filled: 0,
            message: Vec::new(),
            is_done: false,
            received: 0,
            is_ending: false,
        }
    }

    pub(super) fn start(&mut self) {
        self.stream = self.stream.wrapping_add(2);
        (self.body_sent, self.is_sent, self.is_done) = (0, false, false);
        self.stream_room = self.initial_room;
        self.message.clear();
        frame(
            &mut self.urgent,
            kind::HEADERS,
            END_HEADERS,
            self.stream,
            &self.block,
        );
        self.block = LATER_BLOCK.to_vec();
    }

    /// Sends what the windows allow.
    pub(super) fn send(&mut self, socket: &mut impl Write, body: &[u8]) -> io::Result<()> {
        loop {
            let frames = self.plan(body);
            if frames.is_empty() && self.urgent.is_empty() {
                self.is_sent = self.body_sent == body.len();
                return Ok(());
            }
            let mut slices = Vec::with_capacity(1 + 2 * frames.len());
            slices.push(IoSlice::new(&self.urgent));
            for (header, range) in &frames {
                slices.extend([IoSlice::new(header), IoSlice::new(&body[range.clone()])]);
            }
            let written = socket.write_vectored(&slices)?;
            self.account(written, &frames, body);
        }
    }

    fn plan(&self, body: &[u8]) -> Vec<([u8; HEADER], std::ops::Range<usize>)> {
        let mut frames = Vec::new();
        let mut start = self.body_sent;
        let room = usize::try_from(self.connection_room.min(self.stream_room)).unwrap_or(0);
        let end = body.len().min(start + room);
        while start < end && frames.len() < FRAMES {
            let next = end.min(start + self.max_frame);
            let flags = if next == body.len() { END_STREAM } else { 0 };
            frames.push((header(next - start, kind::DATA, flags, self.stream), start..next));
            start = next;
        }
        frames
    }

    fn account(
        &mut self,
        mut written: usize,
        frames: &[([u8; HEADER], std::ops::Range<usize>)],
        body: &[u8],
    ) {
        let urgent = written.min(self.urgent.len());
        self.urgent.drain(..urgent);
        written -= urgent;
        for (header, range) in frames {
            if written == 0 {
                return;
            }
            let whole = HEADER + range.len();
            if written < whole {
                // An unfinished frame has to be completed before anything else.
                self.urgent.extend_from_slice(&header[written.min(HEADER)..]);
                self.urgent
                    .extend_from_slice(&body[range.start + written.saturating_sub(HEADER)..range.end]);
            }
            written = written.saturating_sub(whole);
            self.body_sent = range.end;
            self.connection_room -= range.len() as i64;
            self.stream_room -= range.len() as i64;
        }
    }

    pub(super) fn receive(&mut self, socket: &mut impl Read) -> io::Result<Progress> {
        loop {
            let space = self.input.len() - self.filled;
            let read = socket.read(&mut self.input[self.filled..])?;
            if read == 0 {
                return Ok(Progress::Closed);
            }
            self.filled += read;
            self.parse()?;
            if self.is_done {
                return Ok(Progress::Answered);
            }
            if read < space {
                return Ok(Progress::Waiting);
            }
        }
    }

    /// Takes complete frames out of the input.
    fn parse(&mut self) -> io::Result<()> {
        let input = std::mem::take(&mut self.input);
        let mut start = 0;
        while let Some(head) = input[start..self.filled].first_chunk::<HEADER>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let end = start + HEADER + length;
            if end > self.filled {
                break;
            }
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & WINDOW;
            self.frame(head[3], head[4], stream, &input[start + HEADER..end])?;
            start = end;
        }
        self.input = input;
        self.input.copy_within(start..self.filled, 0);
        self.filled -= start;
        if self.filled == self.input.len() {
            return Err(Error::new(
                ErrorKind::InvalidData,
                "a frame larger than was allowed",
            ));
        }
        Ok(())
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        let short = || Error::new(ErrorKind::InvalidData, "a frame that is too short");
        let number = |at: usize| {
            let bytes = payload
                .get(at..)
                .and_then(|rest| rest.first_chunk())
                .ok_or_else(short)?;
            io::Result::Ok(u32::from_be_bytes(*bytes))
        };
        match kind {
            kind::DATA => {
                self.received += u32::try_from(payload.len()).unwrap_or(0);
                if self.received > WINDOW / 2 {
                    frame(
                        &mut self.urgent,
                        kind::WINDOW_UPDATE,
                        0,
                        0,
                        &self.received.to_be_bytes(),
                    );
                    self.received = 0;
                }
                if stream == self.stream {
                    self.message
                        .extend_from_slice(unpadded(flags, payload).ok_or_else(short)?);
                }
            }
            kind::SETTINGS if flags & ACK == 0 => self.settings(payload),
            kind::PING if flags & ACK == 0 => frame(&mut self.urgent, kind::PING, ACK, 0, payload),
            kind::GOAWAY => self.is_ending = true,
            kind::RST_STREAM if stream == self.stream => {
                self.message.clear();
                (self.is_done, self.is_ending) = (true, true);
            }
            kind::WINDOW_UPDATE if stream == 0 => self.connection_room += i64::from(number(0)?),
            kind::WINDOW_UPDATE if stream == self.stream => self.stream_room += i64::from(number(0)?),
            _ => {}
        }
        if matches!(kind, kind::DATA | kind::HEADERS) && stream == self.stream && flags & END_STREAM != 0 {
            self.is_done = true;
        }
        Ok(())
    }

    fn settings(&mut self, payload: &[u8]) {
        for setting in payload.as_chunks::<6>().0 {
            let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
            match u16::from_be_bytes([setting[0], setting[1]]) {
                // SETTINGS_INITIAL_WINDOW_SIZE also applies to the open stream.
                4 => {
                    self.stream_room += i64::from(value) - self.initial_room;
                    self.initial_room = value.into();
                }
                // SETTINGS_MAX_FRAME_SIZE
                5 => self.max_frame = value as usize,
                _ => {}
            }
        }
        frame(&mut self.urgent, kind::SETTINGS, ACK, 0, &[]);
    }

    pub(super) fn reply(&self) -> Reply<'_> {
        let whole = self.message.as_slice();
        match whole.split_first_chunk::<PREFIX>() {
            // Not compressed, of this length.
            Some(([0, length @ ..], body)) if u32::from_be_bytes(*length) as usize == body.len() => Reply {
                status: 200,
                body,
                whole,
            },
            _ => Reply {
                status: 0,
                body: b"no gRPC message: the call failed",
                whole,
            },
        }
    }

    /// Also true if the server responded before it had read the whole request.
    pub(super) fn is_ending(&self) -> bool {
        self.is_ending || !self.is_sent
    }
}

fn unpadded(flags: u8, payload: &[u8]) -> Option<&[u8]> {
    if flags & PADDED == 0 {
        return Some(payload);
    }
    let (&padding, rest) = payload.split_first()?;
    rest.get(..rest.len().checked_sub(padding.into())?)
}

fn header(length: usize, kind: u8, flags: u8, stream: u32) -> [u8; HEADER] {
    let [_, a, b, c] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    let [s, t, u, v] = stream.to_be_bytes();
    [a, b, c, kind, flags, s, t, u, v]
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&header(payload.len(), kind, flags, stream));
    out.extend_from_slice(payload);
}

/// The headers of a connection's first request. The last four enter the peer's dynamic table.
fn first_block(authority: &str) -> Vec<u8> {
    // `:method: POST` and `:scheme: http` are entries 3 and 6 of the static table; the other names 4, 1 and 31.
    let mut block = vec![0x80 | 3, 0x80 | 6];
    let mut string = |prefix: &[u8], value: &str| {
        block.extend_from_slice(prefix);
        block.push(u8::try_from(value.len()).unwrap_or(0));
        block.extend_from_slice(value.as_bytes());
    };
    string(&[0x40 | 4], PATH);
    string(&[0x40 | 1], authority);
    string(b"\x40\x02te", "trailers");
    string(&[0x40 | 31], "application/grpc");
    block
}

/// The same by their indices in the tables: the newest entry of the dynamic table is 62.
const LATER_BLOCK: [u8; 6] = [0x80 | 3, 0x80 | 6, 0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62];
