//! What a guest wrote, made harmless for a terminal.
//!
//! A serial log is full of what its own terminal should do: tell where the cursor is, clear, scroll, change its title.
//! Replayed on a person's terminal this hides lines, and answers to questions land in the shell as if typed. Text, line
//! ends, tabs and colours pass; every other control sequence is dropped, also when it comes in pieces. What passes is
//! valid UTF-8: no byte goes out before the letter it belongs to is whole, and what is no letter is shown as `�`.
//! Deliberately absent: drawing what a full-screen program drew.

/// The most bytes of a sequence that is kept to see how it ends; a longer one is no colour.
const MOST_SEQUENCE: usize = 64;

const ESCAPE: u8 = 0x1b;
const BELL: u8 = 0x07;

/// What stands for bytes that are no letter.
const NO_LETTER: &[u8] = "\u{fffd}".as_bytes();

/// Drops what a terminal would do other than show, from bytes that come in pieces.
#[derive(Debug, Default)]
pub(crate) struct Harmless {
    state: State,
    /// The bytes of a sequence that may be a colour.
    sequence: Vec<u8>,
    /// The first bytes of a letter of several.
    letter: Vec<u8>,
    is_coloured: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// After ESC and an intermediate byte, such as `(`: one byte more ends it.
    Intermediate,
    /// After ESC `[`: ends with a letter.
    Control,
    /// In a text for the terminal, such as a title: ends with BEL or ESC `\`.
    Addressed,
    /// After an ESC in such a text.
    MaybeEnd,
    /// In a letter of several bytes.
    Letter,
}

impl Harmless {
    /// What is left of the next piece.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut passed = Vec::with_capacity(bytes.len());
        for byte in bytes {
            self.take(*byte, &mut passed);
        }
        passed
    }

    /// What comes after the last piece: the colours end.
    pub(crate) fn end(&mut self) -> &'static [u8] {
        if std::mem::take(&mut self.is_coloured) { b"\x1b[0m" } else { b"" }
    }

    fn take(&mut self, byte: u8, passed: &mut Vec<u8>) {
        self.state = match (self.state, byte) {
            // Cancel and substitute end any sequence.
            (_, 0x18 | 0x1a) => State::Text,
            (State::Addressed, BELL) => State::Text,
            (State::Addressed, ESCAPE) => State::MaybeEnd,
            // One whose end is lost does not swallow the rest of the log.
            (State::Addressed, b'\n') => self.plain(byte, passed),
            (State::Addressed, _) => State::Addressed,
            (State::MaybeEnd, b'\\') => State::Text,
            (State::MaybeEnd | State::Escape, _) => self.after_escape(byte),
            (_, ESCAPE) => State::Escape,
            (State::Intermediate, 0x20..=0x2f) => State::Intermediate,
            (State::Intermediate, _) => State::Text,
            (State::Control, _) => self.in_control(byte, passed),
            (State::Letter, 0x80..=0xbf) => self.in_letter(byte, passed),
            (State::Letter, _) => {
                passed.extend_from_slice(NO_LETTER);
                self.plain(byte, passed)
            }
            (State::Text, _) => self.plain(byte, passed),
        };
    }

    /// A byte outside of any sequence.
    fn plain(&mut self, byte: u8, passed: &mut Vec<u8>) -> State {
        match byte {
            b'\n' | b'\r' | b'\t' | 0x20..=0x7e => passed.push(byte),
            // The others ring, answer, move or switch character sets.
            0x00..=0x1f | 0x7f => {}
            0xc2..=0xf4 => {
                self.letter.clear();
                self.letter.push(byte);
                return State::Letter;
            }
            // These begin nothing; a terminal may still take some of them for control characters.
            _ => passed.extend_from_slice(NO_LETTER),
        }
        State::Text
    }

    /// A byte that goes on with a letter. The letter is sent on when it is whole, and only then.
    fn in_letter(&mut self, byte: u8, passed: &mut Vec<u8>) -> State {
        self.letter.push(byte);
        match (std::str::from_utf8(&self.letter), self.letter.as_slice()) {
            (Ok(_), [0xc2, control @ 0x80..=0x9f]) => return upper(*control),
            (Ok(_), letter) => passed.extend_from_slice(letter),
            (Err(error), _) if error.error_len().is_none() => return State::Letter,
            (Err(_), _) => passed.extend_from_slice(NO_LETTER),
        }
        State::Text
    }

    fn after_escape(&mut self, byte: u8) -> State {
        match byte {
            b'[' => {
                self.sequence.clear();
                State::Control
            }
            // Operating system command, device control, start of string, privacy message, application command.
            b']' | b'P' | b'X' | b'^' | b'_' => State::Addressed,
            0x20..=0x2f => State::Intermediate,
            ESCAPE => State::Escape,
            _ => State::Text,
        }
    }

    fn in_control(&mut self, byte: u8, passed: &mut Vec<u8>) -> State {
        match byte {
            // Parameters and intermediates.
            0x20..=0x3f => {
                if self.sequence.len() <= MOST_SEQUENCE {
                    self.sequence.push(byte);
                }
                State::Control
            }
            b'm' if self.is_colour() => {
                passed.extend_from_slice(b"\x1b[");
                passed.extend_from_slice(&self.sequence);
                passed.push(b'm');
                self.is_coloured = true;
                State::Text
            }
            // A line end in the middle of a sequence is a line end all the same.
            b'\n' | b'\r' | b'\t' => {
                passed.push(byte);
                State::Control
            }
            0x40..=0x7e => State::Text,
            _ => State::Control,
        }
    }

    /// Numbers only: `CSI > m` and `CSI ? m` set and ask other things.
    fn is_colour(&self) -> bool {
        let plain = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b';' | b':');
        self.sequence.len() <= MOST_SEQUENCE && self.sequence.iter().all(plain)
    }
}

/// A control character of two bytes; some begin a sequence as ESC and a letter do.
fn upper(byte: u8) -> State {
    match byte {
        0x9b => State::Control,
        0x90 | 0x98 | 0x9d | 0x9e | 0x9f => State::Addressed,
        _ => State::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(bytes: &[u8]) -> String {
        String::from_utf8(Harmless::default().pass(bytes)).unwrap()
    }

    #[test]
    fn text_line_ends_and_colours_pass() {
        let text = "[\u{1b}[0;32m  OK  \u{1b}[0m] Größe\t1 µs £ ¿ 😀\r\nlogin: ";
        assert_eq!(passed(text.as_bytes()), text);
        assert_eq!(passed(b"\x1b[38:2:1:2:3mred"), "\u{1b}[38:2:1:2:3mred");
    }

    #[test]
    fn questions_moves_and_titles_go() {
        for (bytes, left) in [
            (&b"a\x1b[6nb"[..], "ab"),
            (b"a\x1b[cb\x1b[>0qc", "abc"),
            (b"a\x1b[2J\x1b[1;1Hb", "ab"),
            (b"a\x1b]0;title\x07b\x1b]52;c;aGFoYQ==\x1b\\c", "abc"),
            (b"a\x1bP$q\"p\x1b\\b", "ab"),
            (b"a\x1bcb\x1b7c\x1b(Bd\x1b#8e", "abcde"),
            (b"a\x05\x07\x08\x0e\x0f\x7fb", "ab"),
            (b"a\xc2\x9b6nb\xc2\x9d0;t\x07c", "abc"),
            (b"a\x1b[>4;1mb\x1b[?4mc", "abc"),
            (b"a\x1b[31\x18b", "ab"),
            (b"a\x1b]0;title\nb", "a\nb"),
            (b"a\x1b]0;t\x1b[31mb", "a\x1b[31mb"),
        ] {
            assert_eq!(passed(bytes), left, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn no_byte_passes_but_as_part_of_a_letter() {
        for (bytes, left) in [
            // What stands between the two bytes of a control character must not bring them back together.
            (&b"\xc2\x00\x9b6n"[..], "\u{fffd}\u{fffd}6n"),
            (b"\xc2\x07\x9d0;t", "\u{fffd}\u{fffd}0;t"),
            (b"\xc2\xc2\x9bm\x9b6n", "\u{fffd}\u{1b}[m\u{fffd}6n"),
            (b"\xc2\x1b[6n\x9b6n", "\u{fffd}6n"),
            (b"\x9b6n\x90q\xff", "\u{fffd}6n\u{fffd}q\u{fffd}"),
            (b"Gr\xf6\xdfe", "Gr\u{fffd}\u{fffd}e"),
            (b"\xe0\x82\x9b6n\xed\xa0\x80", "\u{fffd}\u{fffd}6n\u{fffd}\u{fffd}"),
            ("a\u{9b}6nü\u{20ac}\u{1f600}".as_bytes(), "aü\u{20ac}\u{1f600}"),
        ] {
            assert_eq!(passed(bytes), left, "{bytes:x?}");
        }
    }

    #[test]
    fn a_sequence_that_comes_in_pieces_is_the_same() {
        let bytes = b"a\x1b[6nb\x1b]0;t\x1b\\c\x1b[31md\xc2\x9b6ne\xc2\xb5";
        let whole = passed(bytes);
        let mut pieces = Harmless::default();
        let each: Vec<u8> = bytes.iter().flat_map(|byte| pieces.pass(&[*byte])).collect();
        assert_eq!(String::from_utf8(each).unwrap(), whole);
        assert_eq!(whole, "abc\u{1b}[31mdeµ");
        assert_eq!((pieces.end(), pieces.end()), (&b"\x1b[0m"[..], &b""[..]), "colours end once");
    }

    #[test]
    fn an_endless_sequence_is_no_colour_and_takes_no_room() {
        let mut harmless = Harmless::default();
        assert!(harmless.pass(b"\x1b[").is_empty());
        assert!(harmless.pass(&vec![b'1'; 1 << 20]).is_empty());
        assert!(harmless.sequence.len() <= MOST_SEQUENCE + 1);
        assert_eq!(harmless.pass(b"mtext"), b"text");
    }
}
