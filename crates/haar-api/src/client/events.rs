//! A reader of server-sent events.
//!
//! Knows the fields `id`, `event` and `data`, joins several `data` lines, skips comments. Tells a stream that
//! was told to its end from one that only broke off. Deliberately absent: reconnecting; the caller has the last
//! id and asks again from there.

use super::error::ClientError;
use super::stream::ByteReader;
use crate::problem::Problem;
use crate::v1::EventView;

/// The most bytes of one message.
const MOST_MESSAGE: usize = 8 << 20;

/// One message of the stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Where to go on from: `epoch.revision.n`.
    pub id: String,
    /// What changed.
    pub event: EventView,
}

/// Reads messages off an open event stream.
#[derive(Debug)]
pub struct EventReader {
    bytes: ByteReader,
    parser: Parser,
    has_ended: bool,
}

impl EventReader {
    pub(super) fn new(bytes: ByteReader) -> EventReader {
        EventReader { bytes, parser: Parser::default(), has_ended: false }
    }

    /// The next message; None when the server ended the stream. Whether it then had told all that was asked for,
    /// [`Self::has_ended`] says.
    ///
    /// # Errors
    /// [`ClientError::Problem`] when the server cannot go on, such as `resync` when events are no longer kept;
    /// [`ClientError::Broken`] when the connection breaks, [`ClientError::Json`] when a message is not an event's.
    pub async fn next(&mut self) -> Result<Option<Message>, ClientError> {
        loop {
            while let Some(raw) = self.parser.take() {
                match told(raw)? {
                    Told::Change(message) => return Ok(Some(*message)),
                    Told::End => self.has_ended = true,
                    Told::Else => {}
                }
            }
            match self.bytes.chunk().await? {
                None => return Ok(None),
                Some(chunk) => self.parser.push(&chunk)?,
            }
        }
    }

    /// Whether the server said that these were all. A stream that follows has no end, and one whose server stops
    /// or whose token is removed ends without a word.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }
}

/// What a message of the stream is about.
#[derive(Debug)]
enum Told {
    Change(Box<Message>),
    End,
    /// What a later server may say besides.
    Else,
}

fn told(raw: Raw) -> Result<Told, ClientError> {
    match raw.event.as_str() {
        "change" => {
            let event = serde_json::from_str(&raw.data).map_err(ClientError::Json)?;
            Ok(Told::Change(Box::new(Message { id: raw.id, event })))
        }
        "resync" => {
            let problem: Problem = serde_json::from_str(&raw.data).map_err(ClientError::Json)?;
            Err(ClientError::Problem(Box::new(problem)))
        }
        "end" => Ok(Told::End),
        _ => Ok(Told::Else),
    }
}

#[derive(Debug, Default, Clone, PartialEq)]
struct Raw {
    id: String,
    event: String,
    data: String,
}

#[derive(Debug, Default)]
struct Parser {
    pending: Vec<u8>,
    current: Raw,
}

impl Parser {
    fn push(&mut self, chunk: &[u8]) -> Result<(), ClientError> {
        self.pending.extend_from_slice(chunk);
        if self.pending.len() + self.current.data.len() > MOST_MESSAGE {
            let text = "an event is larger than 8 MiB".to_owned();
            return Err(ClientError::NotHaar { status: 200, text });
        }
        Ok(())
    }

    /// The next whole message among what was pushed.
    fn take(&mut self) -> Option<Raw> {
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\n', '\r']);
            if line.is_empty() {
                let whole = std::mem::take(&mut self.current);
                if !whole.data.is_empty() {
                    return Some(whole);
                }
                continue;
            }
            self.field(line);
        }
        None
    }

    fn field(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "id" => value.clone_into(&mut self.current.id),
            "event" => value.clone_into(&mut self.current.event),
            "data" => {
                if !self.current.data.is_empty() {
                    self.current.data.push('\n');
                }
                self.current.data.push_str(value);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_across_chunks_and_comments_skipped() {
        let mut parser = Parser::default();
        parser.push(b": alive\n\nid: 1.2.0\nevent: cha").unwrap();
        assert_eq!(parser.take(), None);
        parser.push(b"nge\r\ndata: {\ndata: }\n\nid: 1.3.0\n").unwrap();
        let raw = Raw { id: "1.2.0".into(), event: "change".into(), data: "{\n}".into() };
        assert_eq!(parser.take(), Some(raw));
        assert_eq!(parser.take(), None);
    }

    #[test]
    fn a_server_that_cannot_go_on_is_an_error_and_its_last_word_is_known() {
        let raw = |event: &str, data: &str| Raw { id: String::new(), event: event.into(), data: data.into() };
        let problem = serde_json::to_string(&Problem::new(410, "resync", "list again")).unwrap();
        let error = told(raw("resync", &problem)).unwrap_err();
        assert_eq!(error.problem().map(|problem| problem.code.as_str()), Some("resync"));
        assert!(matches!(told(raw("end", "{}")), Ok(Told::End)));
        assert!(matches!(told(raw("news", "{}")), Ok(Told::Else)));
    }

    #[test]
    fn an_endless_message_is_refused() {
        let mut parser = Parser::default();
        assert!(parser.push(&vec![b'x'; MOST_MESSAGE + 1]).is_err());
    }
}
