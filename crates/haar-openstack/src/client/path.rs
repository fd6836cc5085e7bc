//! Paths and questions of requests, with every part that is somebody's text encoded.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What stays as it is: letters, digits and `-._~`.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A path of these parts.
pub(crate) fn path(parts: &[&str]) -> String {
    parts.iter().map(|part| format!("/{}", utf8_percent_encode(part, ENCODED))).collect()
}

/// A path with a question.
pub(crate) fn query(path: &str, pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(key, value)| {
            format!("{}={}", utf8_percent_encode(key, ENCODED), utf8_percent_encode(value, ENCODED))
        })
        .collect();
    format!("{path}?{}", pairs.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_elsewhere() {
        assert_eq!(path(&["os-keypairs", "a b/../c?d#e"]), "/os-keypairs/a%20b%2F..%2Fc%3Fd%23e");
        assert_eq!(query("/networks", &[("name", "a&b=c é")]), "/networks?name=a%26b%3Dc%20%C3%A9");
    }
}
