//! JSON-RPC 1.0 as the Open vSwitch database speaks it (RFC 7047, section 4): pure framing and decoding of messages.
//!
//! Messages follow each other on the stream with nothing between them. [`Frames`] finds where each one ends, looking
//! at every byte once however the stream is cut, and refuses to hold more than 64 MiB.

use std::{borrow::Cow, io};

use bytes::{Buf, BytesMut};
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use tokio_util::codec::Decoder;

/// Cuts the stream into messages: one JSON object each.
#[derive(Debug, Default)]
pub struct Frames {
    /// How much of the buffer has been looked at.
    scanned: usize,
    /// How many brackets are open.
    depth: usize,
    in_string: bool,
    escaped: bool,
}

/// A stream that does not consist of messages.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Reading failed.
    #[error("could not read")]
    Read(#[from] io::Error),
    /// There is something else than an object.
    #[error("the byte {0:#04x} begins no JSON object")]
    NotAnObject(u8),
    /// A message does not end.
    #[error("a message is larger than {LARGEST_MESSAGE} bytes")]
    TooLarge,
}

impl Decoder for Frames {
    type Item = BytesMut;
    type Error = FrameError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<BytesMut>, FrameError> {
        if self.depth == 0 {
            let blank = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            buffer.advance(blank);
            match buffer.first() {
                None => return Ok(None),
                Some(b'{') => {}
                Some(byte) => return Err(FrameError::NotAnObject(*byte)),
            }
        }
        while let Some(byte) = buffer.get(self.scanned) {
            self.scanned += 1;
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth -= 1,
                _ => {}
            }
            if self.depth == 0 {
                let frame = buffer.split_to(self.scanned);
                *self = Self::default();
                if frame.len() > LARGE {
                    // Else the buffer would keep the room of the largest message for ever.
                    *buffer = BytesMut::from(&buffer[..]);
                }
                return Ok(Some(frame));
            }
        }
        if buffer.len() > LARGEST_MESSAGE { Err(FrameError::TooLarge) } else { Ok(None) }
    }
}

/// A message of the server.
#[derive(Debug)]
pub enum Message<'a> {
    /// The answer to the request with this id.
    Answer {
        /// The request's id.
        id: u64,
        /// What was asked for, or why it was refused.
        result: Result<&'a RawValue, String>,
    },
    /// A question whether we still live, to be answered with [`pong`].
    Echo {
        /// The question's id, whatever it is.
        id: &'a RawValue,
        /// What is to be sent back.
        params: &'a RawValue,
    },
    /// Rows changed.
    Update {
        /// The monitor's id: that of the request which made it.
        monitor: u64,
        /// The changes, for [`super::rows::Update::decode`].
        tables: &'a RawValue,
    },
    /// Anything else.
    Other,
}

impl<'a> Message<'a> {
    /// Decodes one frame.
    ///
    /// # Errors
    /// It is not a message of JSON-RPC, or an update without its parameters.
    pub fn decode(frame: &'a str) -> Result<Self, serde_json::Error> {
        let Parts { id, method, params, result, error } = serde_json::from_str(frame)?;
        Ok(match (method.as_deref(), params, id) {
            (Some("echo"), Some(params), Some(id)) => Self::Echo { id, params },
            (Some("update"), Some(params), None) => {
                let (monitor, tables) = serde_json::from_str(params.get())?;
                Self::Update { monitor, tables }
            }
            (None, None, Some(id)) => match (id.get().parse(), result, error) {
                (Ok(id), _, Some(error)) => Self::Answer { id, result: Err(summary(error)) },
                (Ok(id), Some(result), None) => Self::Answer { id, result: Ok(result) },
                _ => Self::Other,
            },
            _ => Self::Other,
        })
    }
}

#[derive(Deserialize)]
struct Parts<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// The request to follow these columns of these tables; see RFC 7047, 4.1.5. Its id is also the monitor's.
#[must_use]
pub fn monitor(id: u64, database: &str, tables: &[(&str, &[&str])]) -> String {
    let columns = |columns: &[&str]| json!({ "columns": columns });
    let tables: serde_json::Map<_, _> = tables.iter().map(|(table, c)| ((*table).to_owned(), columns(c))).collect();
    json!({ "id": id, "method": "monitor", "params": [database, id, tables] }).to_string()
}

/// The request to end a monitor.
#[must_use]
pub fn monitor_cancel(id: u64, monitor: u64) -> String {
    json!({ "id": id, "method": "monitor_cancel", "params": [monitor] }).to_string()
}

/// The question whether the server still lives.
#[must_use]
pub fn echo(id: u64) -> String {
    json!({ "id": id, "method": "echo", "params": [] }).to_string()
}

/// The answer to the same question of the server.
#[must_use]
pub fn pong(id: &RawValue, params: &RawValue) -> String {
    format!(r#"{{"id":{id},"result":{params},"error":null}}"#)
}

/// A refusal in one line.
fn summary(error: &RawValue) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
        #[serde(default)]
        details: Option<String>,
    }
    match serde_json::from_str(error.get()) {
        Ok(Refusal { error, details: Some(details) }) => format!("{error}: {details}"),
        Ok(Refusal { error, details: None }) => error,
        Err(_) => error.get().chars().take(200).collect(),
    }
}

/// Some hundred thousand rows: far beyond what a host has, and small enough to be had.
const LARGEST_MESSAGE: usize = 64 << 20;
/// Room that is worth giving back.
const LARGE: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The frames of a stream that arrives in these pieces.
    fn frames<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<String>, FrameError> {
        let (mut decoder, mut buffer, mut frames) = (Frames::default(), BytesMut::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while let Some(frame) = decoder.decode(&mut buffer)? {
                frames.push(String::from_utf8_lossy(&frame).into_owned());
            }
        }
        Ok(frames)
    }

    #[test]
    fn brackets_and_quotes_inside_strings_end_no_message() {
        let stream = r#"{"a":"}\"]\\"}{"b":[{}]} {"c":"\\\""}"#;
        let expected = [r#"{"a":"}\"]\\"}"#, r#"{"b":[{}]}"#, r#"{"c":"\\\""}"#];
        assert_eq!(frames([stream.as_bytes()]).unwrap(), expected);
    }

    #[test]
    fn what_is_no_message_is_refused_before_it_is_buffered() {
        for (stream, byte) in [("HTTP/1.1 400", b'H'), ("[1]", b'['), ("{}]", b']'), ("\n\"", b'"')] {
            let result = frames([stream.as_bytes()]);
            assert!(matches!(result, Err(FrameError::NotAnObject(b)) if b == byte), "{stream}");
        }
    }

    #[test]
    fn a_message_without_end_is_given_up() {
        let open = vec![b'['; 1 << 20];
        let pieces = std::iter::once(&b"{"[..]).chain(std::iter::repeat_n(&open[..], 64));
        assert!(matches!(frames(pieces), Err(FrameError::TooLarge)));
    }

    #[test]
    fn the_room_of_a_large_message_is_given_back() {
        let large = format!(r#"{{"x":"{}"}}{{"y""#, "x".repeat(10 * LARGE));
        let (mut decoder, mut buffer) = (Frames::default(), BytesMut::from(large.as_bytes()));
        assert!(decoder.decode(&mut buffer).unwrap().is_some());
        assert_eq!(&buffer[..], br#"{"y""#);
        assert!(buffer.capacity() < LARGE);
    }

    #[test]
    fn messages_are_told_apart() {
        let decode = |text| Message::decode(text).unwrap();
        assert!(matches!(
            decode(r#"{"id":null,"method":"update","params":[3,{"Port":{}}]}"#),
            Message::Update { monitor: 3, tables } if tables.get() == r#"{"Port":{}}"#
        ));
        let Message::Echo { id, params } = decode(r#"{"id":"echo","method":"echo","params":["a", 1]}"#) else {
            panic!("not an echo")
        };
        assert_eq!(pong(id, params), r#"{"id":"echo","result":["a", 1],"error":null}"#);
        assert!(matches!(
            decode(r#"{"id":2,"result":{},"error":null}"#),
            Message::Answer { id: 2, result: Ok(result) } if result.get() == "{}"
        ));
        let Message::Answer { id: 2, result: Err(why) } = decode(
            r#"{"id":2,"error":{"syntax":"x","details":"nix is not a valid column name","error":"syntax error"}}"#,
        ) else {
            panic!("not a refusal")
        };
        assert_eq!(why, "syntax error: nix is not a valid column name");
        assert!(matches!(decode(r#"{"id":null,"method":"stolen","params":["x"]}"#), Message::Other));
        assert!(Message::decode(r#"{"id":null,"method":"update","params":[]}"#).is_err());
    }

    proptest! {
        #[test]
        fn however_the_stream_is_cut_the_messages_are_the_same(
            texts in prop::collection::vec(".*", 1..5),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let expected: Vec<_> = texts.iter().map(|t| json!({ "id": [t, { t.as_str(): [] }] }).to_string()).collect();
            let stream = expected.concat().into_bytes();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
            cuts.sort_unstable();
            let ends = cuts.iter().copied().chain([stream.len()]);
            let pieces = std::iter::once(0).chain(cuts.iter().copied()).zip(ends).map(|(start, end)| &stream[start..end]);
            prop_assert_eq!(frames(pieces).unwrap(), expected);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in any::<Vec<u8>>(), tail in r#"[\[\]{}":,\\ a0]*"#) {
            let _ = frames([&bytes[..]]);
            let _ = frames([b"{", tail.as_bytes(), &bytes[..]]);
            let _ = Message::decode(&String::from_utf8_lossy(&bytes));
            let _ = Message::decode(&tail);
        }
    }
}
