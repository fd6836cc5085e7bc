//! What a cloud's "no" means: an OpenStack's answers and the faults of its servers, sorted into classes.
//!
//! The status decides, then the name of the fault, and only where both are the same for two things the
//! words. A quota answers 403, 409 or 413 by service; "no machine left" is only ever said by a server's
//! fault. A 404 counts as "not there" only in the API's own form: a page of a proxy must not make us
//! believe that a server is gone. Deliberately absent: the connection; that is the provider's.

use std::time::Duration;

use serde_json::Value;

use crate::Error;
use crate::quota::{Lack, Resource};

/// How long a cloud is left alone that is asked too much and does not say for how long; by seconds at least.
const A_WHILE: Duration = Duration::from_secs(1);
/// What is kept of a cloud's words.
const WORDS_MAX: usize = 500;

/// An answer that is no success, or that could not be read.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// The kind of thing asked about: `server`, `network`.
    pub kind: &'a str,
    /// Its name or id.
    pub name: &'a str,
    /// The HTTP status.
    pub status: u16,
    /// The body as it came.
    pub body: &'a [u8],
    /// The header `Retry-After`, if there is one. It counts where it says that nothing was done; a gateway that
    /// lost its cloud's answer may send one too.
    pub retry_after: Option<&'a str>,
}

/// The fault of a server in the state ERROR.
#[derive(Debug, Clone, Copy)]
pub struct ServerFault<'a> {
    /// Its code, in the manner of HTTP; 0 if the cloud gives none.
    pub code: u16,
    /// Its message; empty if the cloud gives none.
    pub message: &'a str,
}

impl Answer<'_> {
    /// What it means.
    #[must_use]
    pub fn error(&self) -> Error {
        let body = Body::parse(self.body);
        let message = body.words.clone();
        let what = format!("{} {}", self.kind, self.name);
        let retry_after = self.retry_after.filter(|_| matches!(self.status, 413 | 429 | 503));
        let retry_after =
            retry_after.and_then(|seconds| seconds.trim().parse().ok()).map(Duration::from_secs);
        // Whoever is asked too much has done nothing, also where he does not say for how long.
        let retry_after = retry_after.or_else(|| (self.status == 429).then_some(A_WHILE));
        let transient = |message: String| Error::Transient { what: what.clone(), message, retry_after };
        match self.status {
            401 => Error::Auth { message },
            403 | 409 | 413 if body.is_quota() => Error::OverQuota { lacks: lacks(&message) },
            403 => Error::Forbidden { what, message },
            404 | 410 if body.is_api => {
                Error::NotFound { kind: self.kind.to_owned(), name: self.name.to_owned() }
            }
            409 => Error::Conflict { what, message },
            501 | 505 => Error::Refused { what, status: self.status, message },
            200..=299 => {
                transient(format!("status {} with an answer that cannot be read: {message}", self.status))
            }
            404 | 408 | 410 | 413 | 425 | 429 | 500..=599 => {
                transient(format!("status {}: {message}", self.status))
            }
            status => Error::Refused { what, status, message },
        }
    }
}

impl ServerFault<'_> {
    /// What it means for `server`.
    #[must_use]
    pub fn error(&self, server: &str) -> Error {
        let message = match self.message.trim() {
            "" => "the cloud gives no reason".to_owned(),
            words => clean(words),
        };
        let no_host = [
            "No valid host was found",
            "There are not enough hosts available",
            "Exceeded maximum number of retries",
            "Exceeded max scheduling attempts",
            "Insufficient compute resources",
        ];
        let says = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
        if matches!(self.code, 0 | 500) && says(&no_host) {
            return Error::NoHardware { message };
        }
        if is_quota_text(&message) || says(&["ExceedsAvailableQuota", "VolumeLimitExceeded"]) {
            return Error::OverQuota { lacks: lacks(&message) };
        }
        Error::ServerFailed { server: server.to_owned(), message }
    }
}

/// What a body says.
struct Body {
    /// Whether an API of OpenStack said it.
    is_api: bool,
    /// The fault's name, if it has one: `itemNotFound`, `OverQuota`.
    fault: String,
    words: String,
}

impl Body {
    fn parse(bytes: &[u8]) -> Self {
        let from_json = serde_json::from_slice(bytes).ok().and_then(|value| Self::from_json(&value));
        from_json.unwrap_or_else(|| Self {
            is_api: false,
            fault: String::new(),
            words: match String::from_utf8_lossy(bytes).trim() {
                "" => "an empty answer".to_owned(),
                text => clean(&without_tags(text)),
            },
        })
    }

    /// Each service has its own form: `{"itemNotFound": {…}}`, `{"NeutronError": {…}}`, `{"error": {…}}`,
    /// `{"errors": [{…}]}`, or bare.
    fn from_json(value: &Value) -> Option<Self> {
        let object = value.as_object()?;
        let (name, inner) = match object.get("errors").and_then(|errors| errors.get(0)) {
            Some(first) => ("", first),
            None if object.contains_key("message") => ("", value),
            None => object.iter().next().map(|(name, inner)| (name.as_str(), inner))?,
        };
        let field = |key: &str| inner.get(key).and_then(Value::as_str);
        let words = field("message").or_else(|| field("detail")).or_else(|| inner.as_str())?;
        let fault = field("type").unwrap_or(name);
        Some(Self { is_api: true, fault: fault.to_owned(), words: clean(words) })
    }

    fn is_quota(&self) -> bool {
        self.fault == "OverQuota" || is_quota_text(&self.words)
    }
}

/// How the services word a quota; a permission that lacks has the same status and fault name.
fn is_quota_text(words: &str) -> bool {
    let limit = words.split_once("Maximum number of").is_some_and(|(_, rest)| rest.contains("exceeded"));
    words.contains("Quota exceeded") || words.contains("exceeds allowed") && words.contains("quota") || limit
}

/// What is lacking, as far as the words tell; else the words themselves.
fn lacks(words: &str) -> Vec<Lack> {
    compute_lacks(words)
        .or_else(|| volume_lacks(words))
        .or_else(|| network_lacks(words))
        .unwrap_or_else(|| vec![Lack { what: Resource::Other(words.to_owned()), need: None, have: None }])
}

/// `Quota exceeded for cores, ram: Requested 4, 8192, but already used 20, 50000 of 20, 51200 cores, ram`
fn compute_lacks(words: &str) -> Option<Vec<Lack>> {
    let rest = words.split_once("Quota exceeded for ")?.1;
    let (names, rest) = rest.split_once(": Requested ")?;
    let (needs, rest) = rest.split_once(", but already used ")?;
    let (used, limits) = rest.split_once(" of ")?;
    let (needs, used, limits) = (numbers(needs), numbers(used), numbers(limits));
    let lack = |(position, name): (usize, &str)| {
        let left =
            used.get(position).zip(limits.get(position)).map(|(used, limit)| limit.saturating_sub(*used));
        Lack { what: Resource::from_word(name.trim()), need: needs.get(position).copied(), have: left }
    };
    Some(names.split(',').enumerate().map(lack).collect())
}

/// `… exceeds allowed gigabytes quota. Requested 20G, quota is 1000G and 990G has been consumed.`
fn volume_lacks(words: &str) -> Option<Vec<Lack>> {
    let rest = words.split_once("exceeds allowed gigabytes quota. Requested ")?.1;
    let mut sizes =
        rest.split('G').map(|part| part.rsplit(' ').next().and_then(|size| size.parse::<u64>().ok()));
    let (need, limit, used) = (sizes.next()??, sizes.next()??, sizes.next()??);
    Some(vec![Lack { what: Resource::Volume, need: Some(need), have: Some(limit.saturating_sub(used)) }])
}

/// `Quota exceeded for resources: ['port', 'network'].`
fn network_lacks(words: &str) -> Option<Vec<Lack>> {
    let rest = words.split_once("Quota exceeded for resources: [")?.1;
    let (names, _) = rest.split_once(']')?;
    let name = |name: &str| Resource::from_word(name.trim().trim_matches('\''));
    Some(names.split(',').map(|part| Lack { what: name(part), need: None, have: None }).collect())
}

/// The numbers that a text begins with, parted by commas and spaces.
fn numbers(text: &str) -> Vec<u64> {
    text.split([',', ' ']).filter(|part| !part.is_empty()).map_while(|part| part.parse().ok()).collect()
}

/// The words of a page, without its tags.
fn without_tags(text: &str) -> String {
    let words = text.split('<').map(|part| part.split_once('>').map_or(part, |(_, words)| words));
    words.collect::<Vec<_>>().join(" ")
}

/// One line of bounded length without what would disturb a terminal.
fn clean(words: &str) -> String {
    let plain: String = words.chars().map(|sign| if sign.is_control() { ' ' } else { sign }).collect();
    let mut line = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(WORDS_MAX) {
        line.truncate(end);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Class;

    fn answer(status: u16, body: &str) -> Error {
        let retry_after = Some("7");
        Answer { kind: "server", name: "s1", status, body: body.as_bytes(), retry_after }.error()
    }

    fn lack(what: Resource, need: u64, have: u64) -> Lack {
        Lack { what, need: Some(need), have: Some(have) }
    }

    fn lacks_of(error: Error) -> Vec<Lack> {
        match error {
            Error::OverQuota { lacks } => lacks,
            other => panic!("expected a quota, got {other:?}"),
        }
    }

    #[test]
    fn every_service_says_no_in_its_own_form() {
        let cases = [
            (
                401,
                r#"{"error":{"code":401,"message":"The request you have made requires authentication.","title":"Unauthorized"}}"#,
                Class::Auth,
            ),
            (
                403,
                r#"{"forbidden":{"code":403,"message":"Policy doesn't allow os_compute_api:servers:create to be performed."}}"#,
                Class::Auth,
            ),
            (
                404,
                r#"{"itemNotFound":{"code":404,"message":"Instance s1 could not be found."}}"#,
                Class::NotFound,
            ),
            (
                404,
                r#"{"message":"No image found with ID s1","code":"404 Not Found","title":"Not Found"}"#,
                Class::NotFound,
            ),
            (
                404,
                r#"{"NeutronError":{"type":"NetworkNotFound","message":"Network s1 could not be found.","detail":""}}"#,
                Class::NotFound,
            ),
            (
                409,
                r#"{"NeutronError":{"type":"NetworkInUse","message":"Unable to complete operation","detail":""}}"#,
                Class::Conflict,
            ),
            (
                409,
                r#"{"NeutronError":{"type":"OverQuota","message":"Quota exceeded for resources: ['port'].","detail":""}}"#,
                Class::OverQuota,
            ),
            (
                409,
                r#"{"errors":[{"status":409,"title":"Conflict","detail":"There was a conflict","code":"placement.undefined_code"}]}"#,
                Class::Conflict,
            ),
            (
                413,
                r#"{"overLimit":{"code":413,"message":"This request was rate-limited.","retryAfter":0}}"#,
                Class::Transient,
            ),
            (400, r#"{"badRequest":{"code":400,"message":"Can not find requested image"}}"#, Class::Input),
        ];
        for (status, body, class) in cases {
            assert_eq!(answer(status, body).class(), class, "{status} {body}");
        }
    }

    #[test]
    fn what_is_no_answer_of_the_api_is_asked_again_and_makes_nothing_gone() {
        let page = "<html><head><title>Not Found</title></head><body>nginx\u{1b}[2J</body></html>";
        for status in [200, 404, 408, 410, 429, 500, 502, 503, 504] {
            for body in ["", page, "not json", "[]", "7"] {
                assert!(answer(status, body).is_transient(), "{status} {body}");
            }
        }
        let text = answer(404, page).to_string();
        assert!(text.contains("status 404: Not Found nginx [2J") && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn the_clouds_wish_to_be_left_alone_is_kept() {
        let Error::Transient { retry_after, .. } = answer(429, "") else { panic!("not transient") };
        assert_eq!(retry_after, Some(Duration::from_secs(7)));
        // Who says nothing of it, or a date, has done nothing either.
        for retry_after in [None, Some("Fri, 31 Dec 1999 23:59:59 GMT")] {
            let answer = Answer { kind: "server", name: "a", status: 429, body: b"", retry_after };
            let Error::Transient { retry_after, .. } = answer.error() else { panic!("not transient") };
            assert_eq!(retry_after, Some(A_WHILE));
        }
    }

    #[test]
    fn an_answer_that_got_lost_says_nothing_of_a_pause() {
        for status in [200, 202, 404, 408, 500, 502, 504] {
            let Error::Transient { retry_after, .. } = answer(status, "") else { panic!("{status}") };
            assert_eq!(retry_after, None, "{status}");
        }
    }

    #[test]
    fn a_quota_tells_what_is_needed_and_left_as_far_as_the_cloud_says_it() {
        let body = |words: &str| format!(r#"{{"forbidden":{{"code":403,"message":"{words}"}}}}"#);
        let compute = "Quota exceeded for cores, ram: Requested 4, 8192, but already used 18, 50000 of 20, 51200 cores, ram";
        let lacking = [lack(Resource::Cores, 4, 2), lack(Resource::Ram, 8192, 1200)];
        assert_eq!(lacks_of(answer(403, &body(compute))), lacking);
        let volume = "VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed gigabytes quota. Requested 20G, quota is 1000G and 990G has been consumed.";
        assert_eq!(lacks_of(answer(413, &body(volume))), [lack(Resource::Volume, 20, 10)]);
        for words in ["Maximum number of ports exceeded", "Quota exceeded, too many key pairs."] {
            let error = answer(403, &body(words));
            assert!(error.is_over_quota() && error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn a_server_that_failed_for_another_reason_is_no_lack_of_hardware() {
        let error = ServerFault { code: 500, message: "Build of instance 1 aborted: no kernel" }.error("s1");
        assert!(matches!(&error, Error::ServerFailed { server, .. } if server == "s1"), "{error:?}");
        let odd = ServerFault { code: 404, message: "No valid host was found. " }.error("s1");
        assert!(!odd.is_no_hardware());
        assert!(ServerFault { code: 500, message: "" }.error("s1").to_string().contains("no reason"));
    }

    #[test]
    fn a_servers_fault_may_be_a_quota_too() {
        let message = "Build of instance 1 aborted: VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed gigabytes quota. Requested 5G, quota is 5G and 5G has been consumed.";
        assert_eq!(lacks_of(ServerFault { code: 500, message }.error("s1")), [lack(Resource::Volume, 5, 0)]);
    }
}
