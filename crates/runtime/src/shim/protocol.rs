//! The words between the runtime and a shim: frames of JSON, four bytes of length first, over the shim's
//! unix socket. Descriptors travel with a request's first byte.
//!
//! One connection carries one call; three calls go on after their first answer: `Watch` (events until the
//! shim ends), `Exec` and `Attach` (the exit code). The runtime closing the connection of an `Exec` kills the
//! process.

use super::spec::{Exited, ProcessSpec, Started};
use serde::{Deserialize, Serialize};

/// Largest frame; an exec's arguments are the largest thing sent.
pub const MAX_FRAME: usize = 4 << 20;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Makes and starts the container described in its folder.
    Start {
        container: String,
    },
    /// `all` reaches every process of the container, not only its first.
    Signal {
        container: String,
        signal: i32,
        all: bool,
    },
    /// The descriptors are those of the streams that are wanted, in order. With a terminal there are none
    /// and the answer carries the terminal.
    Exec {
        container: String,
        process: Box<ProcessSpec>,
        tty: bool,
        stdin: bool,
        stdout: bool,
        stderr: bool,
    },
    Attach {
        container: String,
        stdin: bool,
        stdout: bool,
        stderr: bool,
    },
    Resize {
        container: String,
        columns: u16,
        rows: u16,
    },
    ReopenLog {
        container: String,
    },
    State,
    Watch,
    /// Kills what runs and ends the shim.
    Shutdown,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    Done,
    Started(Started),
    Exit {
        code: i32,
    },
    State {
        pause: i32,
        running: Vec<(String, i32)>,
    },
    /// To watchers: a container runs, or has ended.
    Running {
        container: String,
        started: Started,
    },
    Event {
        container: String,
        exited: Exited,
    },
    Failed {
        kind: Failure,
        message: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    NotFound,
    /// The container does not run (any more).
    NotRunning,
    /// The program could not be started.
    Start,
    Internal,
}

/// A frame ready to be sent.
pub fn encode<T: Serialize>(value: &T) -> serde_json::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, value)?;
    let length = u32::try_from(frame.len() - 4).unwrap_or(u32::MAX);
    frame[..4].copy_from_slice(&length.to_le_bytes());
    Ok(frame)
}

/// Takes one whole frame's body off the front of `buffer`; `None` until it is whole.
pub fn take_frame(buffer: &mut Vec<u8>) -> Result<Option<Vec<u8>>, FrameTooLong> {
    let Some(head) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*head) as usize;
    if length > MAX_FRAME {
        return Err(FrameTooLong);
    }
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    let body = buffer[4..4 + length].to_vec();
    buffer.drain(..4 + length);
    Ok(Some(body))
}

#[derive(Debug, thiserror::Error)]
#[error("a frame of more than {MAX_FRAME} bytes")]
pub struct FrameTooLong;

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn frames_survive_any_cut(texts in proptest::collection::vec(".{0,40}", 0..8), cut in 1usize..9) {
            let bytes: Vec<u8> = texts.iter().flat_map(|text| encode(text).unwrap()).collect();
            let (mut buffer, mut seen) = (Vec::new(), Vec::new());
            for piece in bytes.chunks(cut) {
                buffer.extend_from_slice(piece);
                while let Some(body) = take_frame(&mut buffer).unwrap() {
                    seen.push(serde_json::from_slice::<String>(&body).unwrap());
                }
            }
            proptest::prop_assert_eq!(seen, texts);
        }
    }
}
