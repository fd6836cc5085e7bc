//! Where an image comes from: an HTTP address, or a file inside the folders the operator named.
//!
//! Promised: a file outside those folders is never read, whatever symlinks say; no password or token of an
//! address reaches a log or an answer; what is on this host or needs a token is asked for directly, whatever
//! proxy the environment names.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use haar_api::rpc::{Fault, FaultCode};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use reqwest::Url;

use super::reach::{self, Resolver};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the other side may be silent in the middle of an image.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_REDIRECTS: usize = 5;

/// An address that may be fetched from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// http or https
    Web(Url),
    /// A path of this host.
    File(PathBuf),
}

/// Reads an address.
pub(super) fn parse(source: &str) -> Result<Source, Fault> {
    let invalid = || {
        let text = "the image's source must be an http://, https:// or file:///… address";
        Fault::new(FaultCode::Invalid, text)
    };
    let url = Url::parse(source).map_err(|_| invalid())?;
    match url.scheme() {
        "http" | "https" if url.has_host() => {
            reach::check(&url)?;
            Ok(Source::Web(url))
        }
        "file" => url.to_file_path().map(Source::File).map_err(|()| invalid()),
        _ => Err(invalid()),
    }
}

/// Opens a regular file that really lies inside one of the folders.
pub(crate) fn open_file(path: &Path, image_dirs: &[PathBuf]) -> Result<(File, u64), Fault> {
    let outside = || {
        let text = format!(
            "{} is not inside image_dirs of this host's configuration; move it there or add its folder",
            path.display()
        );
        Fault::new(FaultCode::Invalid, text)
    };
    let cannot = |error: std::io::Error| {
        Fault::new(FaultCode::NotFound, format!("cannot read image file {}: {error}", path.display()))
    };
    let allowed: Vec<PathBuf> = image_dirs.iter().filter_map(|folder| folder.canonicalize().ok()).collect();
    let inside = |real: &Path| allowed.iter().any(|folder| real.starts_with(folder));
    // Whether a path outside exists is nobody's business, hence one answer for both.
    let real = path.canonicalize().map_err(|error| if inside(path) { cannot(error) } else { outside() })?;
    if !inside(&real) {
        return Err(outside());
    }
    if !real.metadata().map_err(cannot)?.is_file() {
        let text = format!("{} is not a regular file", path.display());
        return Err(Fault::new(FaultCode::Invalid, text));
    }
    let file = File::open(&real).map_err(cannot)?;
    // A folder on the way may have become a symlink since; what counts is what was opened.
    let opened = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(cannot)?;
    if !inside(&opened) {
        return Err(outside());
    }
    let length = file.metadata().map_err(cannot)?.len();
    Ok((file, length))
}

/// What a source answered; the body is not read yet.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) response: reqwest::Response,
    /// The byte of the image that the body begins with.
    pub(super) from: u64,
    /// Bytes of the whole image, when the source says.
    pub(super) length: Option<u64>,
    /// Which version of the image this is, when the source can be asked for a part of it.
    pub(super) validator: Option<String>,
}

/// Where an earlier answer broke off, and of which version it was.
#[derive(Debug, Clone, Copy)]
pub(super) struct GoOn<'a> {
    pub(super) from: u64,
    pub(super) validator: &'a str,
}

/// Asks for the image, or for the rest of it: a source that has another version by now, or knows no ranges, gives
/// the whole of it.
pub(super) async fn open_web(
    url: &Url,
    authorization: &str,
    is_pinned: bool,
    go_on: Option<GoOn<'_>>,
) -> Result<Opened, Fault> {
    let client = client(goes_direct(url, authorization), is_pinned)?;
    let response = ask(&client, url, authorization, go_on).await?;
    let from = go_on.map_or(0, |go_on| go_on.from);
    match response.status() {
        StatusCode::OK => return Ok(Opened::whole(response)),
        StatusCode::PARTIAL_CONTENT if go_on.is_some() => {
            let validator = go_on.map(|go_on| go_on.validator.to_owned());
            let same = validator.as_ref().is_some_and(|version| may_be(response.headers(), version));
            if let Some(length) = rest_of(response.headers(), from).filter(|_| same) {
                return Ok(Opened { response, from, length, validator });
            }
        }
        StatusCode::RANGE_NOT_SATISFIABLE if go_on.is_some() => {}
        status => return Err(refused(url, status)),
    }
    // It answered something else than the rest.
    let response = ask(&client, url, authorization, None).await?;
    match response.status() {
        StatusCode::OK => Ok(Opened::whole(response)),
        status => Err(refused(url, status)),
    }
}

impl Opened {
    fn whole(response: reqwest::Response) -> Self {
        let (length, validator) = (response.content_length(), validator(response.headers()));
        Opened { response, from: 0, length, validator }
    }
}

async fn ask(
    client: &reqwest::Client,
    url: &Url,
    authorization: &str,
    go_on: Option<GoOn<'_>>,
) -> Result<reqwest::Response, Fault> {
    let mut request = client.get(url.clone());
    if !authorization.is_empty() {
        let mut value = HeaderValue::from_str(authorization).map_err(|_| {
            Fault::new(FaultCode::Invalid, "the authorization for the image's source is no header value")
        })?;
        value.set_sensitive(true);
        request = request.header(header::AUTHORIZATION, value);
    }
    if let Some(GoOn { from, validator }) = go_on {
        request = request.header(header::RANGE, format!("bytes={from}-")).header(header::IF_RANGE, validator);
    }
    request.send().await.map_err(|error| web_fault(url, error))
}

fn refused(url: &Url, status: StatusCode) -> Fault {
    let code = match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => FaultCode::NotFound,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => FaultCode::Unavailable,
        status if status.is_client_error() => FaultCode::Invalid,
        _ => FaultCode::Unavailable,
    };
    Fault::new(code, format!("{} answered {status}; check the image's source", shown(url)))
}

/// What tells this version of the image from another, in words that `If-Range` takes: a weak tag does not promise
/// the same bytes. None when the source says that it gives no parts.
fn validator(headers: &HeaderMap) -> Option<String> {
    let word = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if word(header::ACCEPT_RANGES).is_some_and(|ranges| ranges.trim().eq_ignore_ascii_case("none")) {
        return None;
    }
    let tag = word(header::ETAG).filter(|tag| tag.starts_with('"'));
    tag.or_else(|| word(header::LAST_MODIFIED)).map(ToOwned::to_owned)
}

/// Whether an answer may be of this version: a part says its tag again, and need not say its date.
fn may_be(headers: &HeaderMap, version: &str) -> bool {
    let field = if version.starts_with('"') { header::ETAG } else { header::LAST_MODIFIED };
    headers.get(field).is_none_or(|told| told.as_bytes() == version.as_bytes())
}

/// The whole's length, if this is the rest from that byte on; none when it is another part.
fn rest_of(headers: &HeaderMap, from: u64) -> Option<Option<u64>> {
    let range = headers.get(header::CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    let (range, length) = range.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (first.trim().parse::<u64>().ok()?, last.trim().parse::<u64>().ok()?);
    let length = length.trim().parse::<u64>().ok();
    let to_the_end = length.is_none_or(|length| last.checked_add(1) == Some(length));
    (first == from && to_the_end).then_some(length)
}

/// The fault for a connection that failed or broke.
pub(crate) fn web_fault(url: &Url, error: reqwest::Error) -> Fault {
    let error = error.without_url();
    let mut text = format!("cannot fetch the image from {}: {error}", shown(url));
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    Fault::new(FaultCode::Unavailable, text)
}

/// An address without what may be secret in it.
pub(crate) fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

/// Refuses an address that nothing is fetched from.
pub(crate) fn check_reach(url: &Url) -> Result<(), Fault> {
    reach::check(url)
}

/// Whether no proxy may stand between. The proxy of `http_proxy` and its like would read a token that is not encrypted,
/// and it has another loopback than we do.
pub(crate) fn goes_direct(url: &Url, authorization: &str) -> bool {
    is_loopback(url) || (!authorization.is_empty() && url.scheme() != "https")
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or(host == "localhost", |address| address.is_loopback())
}

/// Follows redirects a few times; not from HTTPS to plain HTTP, where anybody on the way chooses what comes, unless that
/// is held against a digest; and never to a link-local address.
fn redirects(is_pinned: bool) -> reqwest::redirect::Policy {
    reqwest::redirect::Policy::custom(move |attempt| {
        if attempt.previous().len() > MAX_REDIRECTS {
            return attempt.error("it redirects too often");
        }
        if reach::is_refused(attempt.url()) {
            return attempt.error(reach::REFUSED);
        }
        if !attempt.previous().last().is_none_or(|from| may_follow(from, attempt.url(), is_pinned)) {
            return attempt.error("it redirects from HTTPS to plain HTTP, where a digest is needed");
        }
        attempt.follow()
    })
}

fn may_follow(from: &Url, to: &Url, is_pinned: bool) -> bool {
    is_pinned || from.scheme() != "https" || to.scheme() == "https" || is_loopback(to)
}

/// Makes a client; `is_pinned` when what comes is held against a digest that came another way.
pub(crate) fn client(direct: bool, is_pinned: bool) -> Result<reqwest::Client, Fault> {
    // Installed once per process; a second time changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder();
    let builder = if direct { builder.no_proxy() } else { builder };
    builder
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(SILENCE_TIMEOUT)
        .redirect(redirects(is_pinned))
        .dns_resolver(Arc::new(Resolver))
        .build()
        .map_err(|error| {
            let text = format!("cannot prepare TLS ({error}); is the package ca-certificates installed?");
            Fault::new(FaultCode::Unavailable, text)
        })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_three_kinds_of_address_are_sources() {
        assert!(matches!(parse("http://images.example/a.qcow2"), Ok(Source::Web(_))));
        assert_eq!(parse("file:///srv/a%20b.raw").unwrap(), Source::File("/srv/a b.raw".into()));
        for hostile in
            ["", "/etc/passwd", "ftp://x/y", "file://otherhost/etc/passwd", "nbd:unix:/x", "json:{}"]
        {
            assert_eq!(parse(hostile).unwrap_err().code, FaultCode::Invalid, "{hostile:?}");
        }
    }

    #[test]
    fn a_file_outside_the_image_folders_is_never_read() {
        let temp = tempfile::tempdir().unwrap();
        let allowed = temp.path().join("allowed");
        let outside = temp.path().join("outside");
        for folder in [&allowed, &outside] {
            std::fs::create_dir(folder).unwrap();
        }
        std::fs::write(outside.join("secret"), "s").unwrap();
        std::fs::write(allowed.join("image"), "fine").unwrap();
        symlink(outside.join("secret"), allowed.join("link")).unwrap();
        symlink(&outside, allowed.join("folder")).unwrap();
        let dirs = [allowed.clone(), temp.path().join("absent")];

        assert_eq!(open_file(&allowed.join("image"), &dirs).unwrap().1, 4);
        for hostile in ["link", "folder/secret", "../outside/secret", "."] {
            let refused = open_file(&allowed.join(hostile), &dirs).unwrap_err();
            assert_eq!(refused.code, FaultCode::Invalid, "{hostile}");
        }
        let text = |path: &str| open_file(&outside.join(path), &dirs).unwrap_err().message.replace(path, "");
        assert_eq!(text("secret"), text("absent"), "what exists outside is not told");
        assert_eq!(open_file(&allowed.join("absent"), &dirs).unwrap_err().code, FaultCode::NotFound);
    }

    #[test]
    fn what_is_secret_in_an_address_is_not_shown() {
        let url = Url::parse("https://user:word@host:8443/path?token=abc#frag").unwrap();
        assert_eq!(shown(&url), "https://host:8443/path");
    }

    #[test]
    fn a_proxy_stands_between_unless_it_would_read_a_token() {
        let direct = |url: &str, token: &str| goes_direct(&Url::parse(url).unwrap(), token);
        assert!(
            direct("http://127.0.0.1:5000/", "")
                && direct("https://[::1]/", "")
                && direct("http://localhost/", "")
        );
        assert!(direct("http://registry.example/", "Bearer x"));
        assert!(!direct("https://registry.example/", "Bearer x") && !direct("http://registry.example/", ""));
    }

    #[test]
    fn https_leads_to_plain_http_only_with_a_pin() {
        let follows = |from: &str, to: &str, is_pinned: bool| {
            may_follow(&Url::parse(from).unwrap(), &Url::parse(to).unwrap(), is_pinned)
        };
        let (secure, plain) = ("https://a.example/", "http://b.example/");
        assert!(!follows(secure, plain, false) && follows(secure, plain, true));
        assert!(
            follows(secure, secure, false) && follows(plain, plain, false) && follows(plain, secure, false)
        );
        assert!(follows(secure, "http://127.0.0.1/", false));
    }

    #[test]
    fn only_a_strong_version_is_gone_on_with() {
        let of = |fields: &[(&'static str, &'static str)]| {
            let fields = fields
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)));
            validator(&fields.collect())
        };
        let date = "Sat, 21 Nov 2026 09:00:00 GMT";
        assert_eq!(of(&[("etag", "\"a\""), ("last-modified", date)]).as_deref(), Some("\"a\""));
        assert_eq!(of(&[("etag", "W/\"a\""), ("last-modified", date)]).as_deref(), Some(date));
        assert_eq!(of(&[("etag", "W/\"a\"")]), None);
        assert_eq!(of(&[("etag", "\"a\""), ("accept-ranges", "none")]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn a_part_of_another_version_is_known_by_what_it_says() {
        let date = "Sat, 21 Nov 2026 09:00:00 GMT";
        for (name, told, version, same) in [
            ("etag", "\"a\"", "\"a\"", true),
            ("etag", "\"b\"", "\"a\"", false),
            ("etag", "W/\"a\"", "\"a\"", false),
            ("last-modified", "Sat, 21 Nov 2026 10:00:00 GMT", date, false),
            ("last-modified", date, date, true),
            ("etag", "\"b\"", date, true),
            ("server", "x", "\"a\"", true),
        ] {
            let name = http::HeaderName::from_static(name);
            let headers = [(name, HeaderValue::from_static(told))].into_iter().collect();
            assert_eq!(may_be(&headers, version), same, "{told} {version}");
        }
    }

    #[test]
    fn another_part_is_not_the_rest() {
        for (field, found) in [
            ("bytes 10-99/100", Some(Some(100))),
            ("bytes 10-99/*", Some(None)),
            ("bytes 10-98/100", None),
            ("bytes 0-99/100", None),
            ("bytes 10-18446744073709551615/100", None),
            ("bytes */100", None),
            ("10-99/100", None),
        ] {
            let headers = [(header::CONTENT_RANGE, HeaderValue::from_static(field))].into_iter().collect();
            assert_eq!(rest_of(&headers, 10), found, "{field}");
        }
        assert_eq!(rest_of(&HeaderMap::new(), 10), None);
    }
}
