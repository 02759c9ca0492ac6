//! Frames of SPDY/3.1 (draft-mbelshe-httpbis-spdy-00, section 2.2).

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// Longest frame that is accepted, in bytes.
const MAX_FRAME: usize = 1 << 20;
const HEADER: usize = 8;
const VERSION: u16 = 3;
const FLAG_FIN: u8 = 1;
/// REFUSED_STREAM of RST_STREAM.
const REFUSED: u32 = 3;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// A frame from the client. `block` is a compressed header block.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    Data {
        stream: u32,
        bytes: Bytes,
        end: bool,
    },
    SynStream {
        stream: u32,
        block: Bytes,
        end: bool,
    },
    Headers {
        block: Bytes,
    },
    Reset {
        stream: u32,
    },
    Ping {
        id: u32,
    },
    GoAway,
    /// SETTINGS, WINDOW_UPDATE and what a later version may add.
    Other,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(&'static str);

/// Cuts frames out of what was read.
#[derive(Default)]
pub struct Decoder(BytesMut);

impl Decoder {
    /// Where to read into.
    pub fn buffer(&mut self) -> &mut BytesMut {
        self.0.reserve(16 << 10);
        &mut self.0
    }

    /// The next whole frame, if there is one.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Malformed> {
        if self.0.len() < HEADER {
            return Ok(None);
        }
        let length = u32::from_be_bytes([0, self.0[5], self.0[6], self.0[7]]) as usize;
        if length > MAX_FRAME {
            return Err(Malformed("a frame is longer than 1 MiB"));
        }
        if self.0.len() < HEADER + length {
            return Ok(None);
        }
        let mut head = self.0.split_to(HEADER);
        let body = self.0.split_to(length).freeze();
        let (first, flags) = (head.get_u32(), head[0]);
        let end = flags & FLAG_FIN != 0;
        if first & 0x8000_0000 == 0 {
            return Ok(Some(Frame::Data { stream: first, bytes: body, end }));
        }
        if (first >> 16) as u16 & 0x7fff != VERSION {
            return Err(Malformed("a frame is of another version than 3"));
        }
        control((first & 0xffff) as u16, body, end).map(Some)
    }
}

fn control(kind: u16, mut body: Bytes, end: bool) -> Result<Frame, Malformed> {
    let need = match kind {
        SYN_STREAM => 10,
        SYN_REPLY | PING | HEADERS => 4,
        RST_STREAM | GOAWAY => 8,
        _ => return Ok(Frame::Other),
    };
    if body.len() < need {
        return Err(Malformed("a control frame is too short"));
    }
    let id = body.get_u32() & 0x7fff_ffff;
    Ok(match kind {
        SYN_STREAM => Frame::SynStream { stream: id, block: body.slice(6..), end },
        SYN_REPLY | HEADERS => Frame::Headers { block: body },
        RST_STREAM => Frame::Reset { stream: id },
        PING => Frame::Ping { id },
        _ => Frame::GoAway,
    })
}

fn frame(first: u32, flags: u8, body: &[&[u8]]) -> Bytes {
    let length: usize = body.iter().map(|b| b.len()).sum();
    let mut out = BytesMut::with_capacity(HEADER + length);
    out.put_u32(first);
    out.put_u32((u32::from(flags) << 24) | (length as u32 & 0x00ff_ffff));
    for part in body {
        out.extend_from_slice(part);
    }
    out.freeze()
}

fn control_frame(kind: u16, body: &[&[u8]]) -> Bytes {
    frame(0x8000_0000 | (u32::from(VERSION) << 16) | u32::from(kind), 0, body)
}

pub fn data(stream: u32, bytes: &[u8], end: bool) -> Bytes {
    frame(stream, if end { FLAG_FIN } else { 0 }, &[bytes])
}

pub fn syn_reply(stream: u32, block: &[u8]) -> Bytes {
    control_frame(SYN_REPLY, &[&stream.to_be_bytes(), block])
}

pub fn reset(stream: u32) -> Bytes {
    control_frame(RST_STREAM, &[&stream.to_be_bytes(), &REFUSED.to_be_bytes()])
}

pub fn ping(id: u32) -> Bytes {
    control_frame(PING, &[&id.to_be_bytes()])
}

pub fn go_away() -> Bytes {
    control_frame(GOAWAY, &[&[0; 8]])
}

#[cfg(test)]
pub fn syn_stream(stream: u32, block: &[u8]) -> Bytes {
    control_frame(SYN_STREAM, &[&stream.to_be_bytes(), &[0; 6], block])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_data_frame_is_read_back_whatever_the_pieces() {
        let bytes = data(7, b"hello", true);
        let mut decoder = Decoder::default();
        decoder.buffer().extend_from_slice(&bytes[..6]);
        assert_eq!(decoder.next_frame().unwrap(), None);
        decoder.buffer().extend_from_slice(&bytes[6..]);
        let frame = decoder.next_frame().unwrap();
        assert_eq!(frame, Some(Frame::Data { stream: 7, bytes: Bytes::from_static(b"hello"), end: true }));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::default();
            decoder.buffer().extend_from_slice(&bytes);
            while let Ok(Some(_)) = decoder.next_frame() {}
        }
    }
}
