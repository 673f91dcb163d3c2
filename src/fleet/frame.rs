//! Frames of a stream: Server-Sent Events whose data is a signature, a space and JSON on one line.
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>

use super::cursor::Cursor;
use super::signature::{PublicKey, SigningKey};
use super::wire::MAX_ENTRY_BYTES;

/// The type of a frame, its SSE `event`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameType {
    /// The first frame: what the publisher offers this subscriber.
    Hello,
    /// An entry of the event log.
    Event,
    /// The log cannot be continued at the cursor: catch up, and go on from here.
    Reset,
    /// Nothing happened up to here.
    Heartbeat,
}

impl FrameType {
    pub fn as_str(self) -> &'static str {
        match self {
            FrameType::Hello => "hello",
            FrameType::Event => "event",
            FrameType::Reset => "reset",
            FrameType::Heartbeat => "heartbeat",
        }
    }

    fn named(name: &str) -> Option<FrameType> {
        let all = [FrameType::Hello, FrameType::Event, FrameType::Reset, FrameType::Heartbeat];
        all.into_iter().find(|frame_type| frame_type.as_str() == name)
    }
}

/// A frame as it was received, not verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub cursor: Cursor,
    pub frame_type: FrameType,
    data: String,
}

/// A frame cannot be used. Nothing that follows it in the stream is read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error(
        "no pinned public key has signed this; compare `publicKeys` with what `flux-recv check` prints at the publisher"
    )]
    Signature,
    #[error("the answer is not a stream of flux-recv; does something else answer at this URL?")]
    Format,
    #[error("the stream has a line of more than {MAX_LINE_BYTES} bytes")]
    TooLong,
}

/// Bytes of a line. Most entries have some 400; a line is an entry and its signature.
pub const MAX_LINE_BYTES: usize = 2 * MAX_ENTRY_BYTES;

/// What a signature covers: the purpose, the type, the ID and the JSON.
fn signed_text(frame_type: FrameType, cursor: Cursor, json: &str) -> Vec<u8> {
    format!("flux-recv event v1\n{}\n{cursor}\n{json}", frame_type.as_str()).into_bytes()
}

/// Writes a frame. The JSON has no line breaks.
pub fn write(key: &SigningKey, frame_type: FrameType, cursor: Cursor, json: &str) -> String {
    let signature = key.sign(&signed_text(frame_type, cursor, json));
    format!("id: {cursor}\nevent: {}\ndata: {signature} {json}\n\n", frame_type.as_str())
}

impl Frame {
    /// Returns the JSON, if one of the keys has signed the frame.
    ///
    /// # Errors
    /// When none has.
    pub fn verified(&self, keys: &[PublicKey]) -> Result<&str, FrameError> {
        let (signature, json) = self.data.split_once(' ').ok_or(FrameError::Format)?;
        let text = signed_text(self.frame_type, self.cursor, json);
        let is_signed = keys.iter().any(|key| key.has_signed(&text, signature));
        if is_signed { Ok(json) } else { Err(FrameError::Signature) }
    }
}

/// Cuts what arrives into frames.
#[derive(Default)]
pub struct FrameReader {
    buffer: Vec<u8>,
    /// How much of the buffer was searched for the end of a line.
    searched: usize,
    id: Option<String>,
    event: Option<String>,
    data: Option<String>,
}

impl FrameReader {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next frame that is complete.
    ///
    /// # Errors
    /// When the stream is not one of flux-recv.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let mut at = 0;
        let result = loop {
            let Some(end) = self.buffer[self.searched.max(at)..].iter().position(|byte| *byte == b'\n')
            else {
                self.searched = self.buffer.len();
                break if self.buffer.len() - at > MAX_LINE_BYTES {
                    Err(FrameError::TooLong)
                } else {
                    Ok(None)
                };
            };
            let end = self.searched.max(at) + end;
            let line = std::str::from_utf8(&self.buffer[at..end]).map_err(|_| FrameError::Format)?;
            let line = line.strip_suffix('\r').unwrap_or(line).to_owned();
            at = end + 1;
            self.searched = at;
            match self.take_line(&line) {
                Ok(None) => {}
                done => break done,
            }
        };
        self.buffer.drain(..at);
        self.searched -= at;
        result
    }

    fn take_line(&mut self, line: &str) -> Result<Option<Frame>, FrameError> {
        if line.is_empty() {
            return self.dispatch();
        }
        // A comment, as some proxies send to keep a connection open.
        if line.starts_with(':') {
            return Ok(None);
        }
        let (field, value) = line.split_once(':').ok_or(FrameError::Format)?;
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        let place = match field {
            "id" => &mut self.id,
            "event" => &mut self.event,
            "data" => &mut self.data,
            "retry" => return Ok(None),
            _ => return Err(FrameError::Format),
        };
        match place.replace(value) {
            None => Ok(None),
            Some(_) => Err(FrameError::Format),
        }
    }

    fn dispatch(&mut self) -> Result<Option<Frame>, FrameError> {
        let (id, event, data) = (self.id.take(), self.event.take(), self.data.take());
        if id.is_none() && event.is_none() && data.is_none() {
            return Ok(None);
        }
        let frame = || {
            let (cursor, frame_type) = (id?.parse().ok()?, FrameType::named(&event?)?);
            Some(Frame { cursor, frame_type, data: data? })
        };
        frame().map(Some).ok_or(FrameError::Format)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";

    fn key() -> SigningKey {
        SigningKey::from_pem(KEY.as_bytes()).expect("a key for tests only")
    }

    fn cursor() -> Cursor {
        Cursor { epoch: 7, sequence: 42 }
    }

    fn read(text: &str, step: usize) -> Result<Vec<Frame>, FrameError> {
        let mut reader = FrameReader::default();
        let mut frames = Vec::new();
        for part in text.as_bytes().chunks(step) {
            reader.push(part);
            while let Some(frame) = reader.next_frame()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    #[test]
    fn a_frame_is_read_however_it_is_cut() {
        let written = write(&key(), FrameType::Event, cursor(), "{\"a\":1}");
        let text = format!(": a comment\n\nretry: 5\n{written}{}", written.replace('\n', "\r\n"));
        for step in [1, 2, 7, 1000] {
            let frames = read(&text, step).expect("frames");
            assert_eq!(frames.len(), 2);
            for frame in frames {
                assert_eq!(frame.verified(&[key().public_key()]), Ok("{\"a\":1}"));
            }
        }
    }

    // Whatever is changed in a frame, no key has signed that.
    #[test]
    fn type_id_and_data_are_signed() {
        let written = write(&key(), FrameType::Event, cursor(), "{\"a\":1}");
        for (from, to) in [
            ("event: event", "event: heartbeat"),
            ("07.42", "07.43"),
            ("\"a\":1", "\"a\":2"),
            ("data: ", "data: A"),
        ] {
            let forged = written.replace(from, to);
            assert_ne!(forged, written);
            let frames = read(&forged, 1000).expect("a frame");
            assert_eq!(frames[0].verified(&[key().public_key()]), Err(FrameError::Signature), "{forged}");
        }
        let frames = read(&written, 1000).expect("a frame");
        assert_eq!(frames[0].verified(&[]), Err(FrameError::Signature));
    }

    #[test]
    fn something_else_is_no_stream() {
        for text in
            ["<html>\n", "HTTP\n", "id: 1\n\n", "event: x\nid: 1.1\ndata: x\n\n", "data: a\ndata: b\n\n"]
        {
            assert_eq!(read(text, 1000), Err(FrameError::Format), "{text}");
        }
        assert_eq!(read(&"x".repeat(MAX_LINE_BYTES + 1), 4096), Err(FrameError::TooLong));
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), step in 1usize..20) {
            let mut reader = FrameReader::default();
            for part in bytes.chunks(step) {
                reader.push(part);
                while let Ok(Some(_)) = reader.next_frame() {}
            }
        }
    }
}
