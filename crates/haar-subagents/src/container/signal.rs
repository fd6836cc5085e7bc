//! Signals as images name them, as numbers: a runtime knows fewer names than builders write.

use nix::sys::signal::Signal;

/// What asks a program to end when nothing else is said.
pub(super) const TERM: i32 = 15;
/// The first and the last of the real-time signals that programs may use.
const REAL_TIME: (i32, i32) = (34, 64);

/// The number of `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3` and their like; none for what is no signal.
pub(super) fn number(text: &str) -> Option<i32> {
    let name = text.trim().to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let found = match name.bytes().next()? {
        b'0'..=b'9' => name.parse().ok(),
        _ => match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
            (Some(rest), _) => offset(rest, '+').map(|offset| REAL_TIME.0 + offset),
            (_, Some(rest)) => offset(rest, '-').map(|offset| REAL_TIME.1 - offset),
            _ => format!("SIG{name}").parse::<Signal>().ok().map(|signal| signal as i32),
        },
    };
    found.filter(|number| (1..=REAL_TIME.1).contains(number))
}

fn offset(rest: &str, sign: char) -> Option<i32> {
    if rest.is_empty() {
        return Some(0);
    }
    let offset = rest.strip_prefix(sign)?.parse::<u8>().ok()?;
    Some(i32::from(offset)).filter(|offset| *offset <= REAL_TIME.1 - REAL_TIME.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_has_its_number() {
        for (text, wanted) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("9", 9),
            ("SIGRTMIN+3", 37),
            ("RTMIN", 34),
            ("SIGRTMAX-1", 63),
            ("SIGWINCH", 28),
        ] {
            assert_eq!(number(text), Some(wanted), "{text}");
        }
        for hostile in [
            "",
            "SIG",
            "0",
            "65",
            "-9",
            "SIGRTMIN+31",
            "SIGRTMIN-1",
            "SIGRTMAX+1",
            "--help",
            "1e3",
            "SIGKILLX",
        ] {
            assert_eq!(number(hostile), None, "{hostile:?}");
        }
    }
}
