//! A registry's HTTP: manifests and blobs, and the token it asks for.
//!
//! Promised: what comes is bounded and handed on only once its digest is right; the caller's credentials go to the
//! registry, and to the place of tokens it names only when that speaks HTTPS or is on the same host.
//! Deliberately absent: pushing, searching, mirrors.

use std::fs::File;
use std::path::Path;

use haar_api::rpc::{Fault, FaultCode};
use http::{HeaderValue, StatusCode, header};
use reqwest::{RequestBuilder, Response, Url};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::oci::{Digest, MAX_DOCUMENT_BYTES, bad};
use super::progress::Progress;
use super::source::Reference;
use super::space::Filling;
use crate::storage::fetching::Secret;
use crate::storage::source::{check_reach, client, goes_direct, shown, web_fault};

/// Every kind of manifest that [`super::oci`] reads.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// A repository of a registry. Its methods block and belong on a thread of tokio's that may.
pub(super) struct Registry<'a> {
    reference: &'a Reference,
    authorization: &'a Secret,
    /// What the place of tokens gave.
    token: Option<Secret>,
    /// Whether the manifest is held against a digest that the caller gave.
    is_pinned: bool,
    progress: &'a Progress,
}

impl<'a> Registry<'a> {
    pub(super) fn new(
        reference: &'a Reference,
        authorization: &'a Secret,
        is_pinned: bool,
        progress: &'a Progress,
    ) -> Self {
        Registry { reference, authorization, token: None, is_pinned, progress }
    }

    /// A manifest by tag or digest.
    pub(super) fn manifest(&mut self, wanted: &str) -> Result<Vec<u8>, Fault> {
        let mut response = self.get("manifests", wanted)?;
        let mut bytes = Vec::new();
        while let Some(chunk) = chunk(&mut response, self.progress)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
                return Err(bad(format!("the manifest has more than {MAX_DOCUMENT_BYTES} bytes")));
            }
        }
        Ok(bytes)
    }

    /// A blob, laid into a new file and verified; at most so many bytes.
    pub(super) fn blob(&mut self, digest: &Digest, into: &Path, most: u64) -> Result<File, Fault> {
        let response = self.get("blobs", digest.as_str())?;
        let (file, found) = save(response, into, most, self.progress)?;
        digest.check("a layer or configuration", &found)?;
        Ok(file)
    }

    fn get(&mut self, kind: &str, wanted: &str) -> Result<Response, Fault> {
        let path = format!("v2/{}/{kind}/{wanted}", self.reference.repository);
        let url =
            self.reference.base.join(&path).map_err(|_| bad("the registry's address cannot be made"))?;
        let response = self.ask(&url)?;
        // Also when a token was had before: it lasts for minutes, a large image for longer.
        if response.status() == StatusCode::UNAUTHORIZED {
            let challenge = response.headers().get(header::WWW_AUTHENTICATE);
            let challenge = challenge.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
            if let Some(challenge) = Challenge::read(&challenge) {
                self.token = Some(self.fetch_token(&challenge)?);
                return accept(&url, self.ask(&url)?);
            }
        }
        accept(&url, response)
    }

    fn ask(&self, url: &Url) -> Result<Response, Fault> {
        let bearer = self.token.as_ref().map(|token| format!("Bearer {}", token.reveal()));
        let authorization = bearer.as_deref().unwrap_or(self.authorization.reveal());
        let direct = goes_direct(url, authorization);
        let request = client(direct, self.is_pinned)?.get(url.clone()).header(header::ACCEPT, MANIFESTS);
        send(url, authorized(request, authorization)?, self.progress)
    }

    fn fetch_token(&self, challenge: &Challenge) -> Result<Secret, Fault> {
        let unusable = || bad("the registry names no usable place for tokens");
        let mut url = Url::parse(&challenge.realm).map_err(|_| unusable())?;
        // What answers on this host's loopback is not for a stranger's registry to ask.
        let leads_here = goes_direct(&url, "") && !goes_direct(&self.reference.base, "");
        if !matches!(url.scheme(), "http" | "https") || leads_here {
            return Err(unusable());
        }
        if !challenge.service.is_empty() {
            url.query_pairs_mut().append_pair("service", &challenge.service);
        }
        let scope = format!("repository:{}:pull", self.reference.repository);
        url.query_pairs_mut().append_pair("scope", &scope);
        let same_host =
            url.host() == self.reference.base.host() && url.scheme() == self.reference.base.scheme();
        let may_know = url.scheme() == "https" || same_host;
        let authorization = if may_know { self.authorization.reveal() } else { "" };
        // A token is no image: no digest says that it is the right one.
        let request = client(goes_direct(&url, authorization), false)?.get(url.clone());
        let mut response = accept(&url, send(&url, authorized(request, authorization)?, self.progress)?)?;
        let mut bytes = Vec::new();
        while let Some(chunk) = chunk(&mut response, self.progress)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > 64 << 10 {
                return Err(bad("the registry's token is too long"));
            }
        }
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let token: Token =
            serde_json::from_slice(&bytes).map_err(|_| bad("the registry's token cannot be read"))?;
        token.token.or(token.access_token).map(Secret::new).ok_or_else(|| bad("the registry gave no token"))
    }
}

/// Fetches an archive into a new file; answers its digest.
pub(super) fn archive(
    url: &Url,
    authorization: &Secret,
    is_pinned: bool,
    into: &Path,
    most: u64,
    progress: &Progress,
) -> Result<Digest, Fault> {
    let request = client(goes_direct(url, authorization.reveal()), is_pinned)?.get(url.clone());
    let response = accept(url, send(url, authorized(request, authorization.reveal())?, progress)?)?;
    progress.announce(response.content_length().unwrap_or(0));
    save(response, into, most, progress).map(|(_, digest)| digest)
}

fn save(
    mut response: Response,
    into: &Path,
    most: u64,
    progress: &Progress,
) -> Result<(File, Digest), Fault> {
    let mut filling = Filling::begin(into, most, progress)?;
    let mut hash = Sha256::new();
    while let Some(chunk) = chunk(&mut response, progress)? {
        hash.update(&chunk);
        filling.put(&chunk)?;
        progress.came(chunk.len() as u64);
    }
    Ok((filling.done()?, Digest::ended(hash)))
}

fn authorized(request: RequestBuilder, authorization: &str) -> Result<RequestBuilder, Fault> {
    if authorization.is_empty() {
        return Ok(request);
    }
    let mut value = HeaderValue::from_str(authorization).map_err(|_| {
        Fault::new(FaultCode::Invalid, "the authorization for the image's source is no header value")
    })?;
    value.set_sensitive(true);
    Ok(request.header(header::AUTHORIZATION, value))
}

fn send(url: &Url, request: RequestBuilder, progress: &Progress) -> Result<Response, Fault> {
    check_reach(url)?;
    progress.wait(request.send())?.map_err(|error| web_fault(url, error))
}

fn chunk(response: &mut Response, progress: &Progress) -> Result<Option<bytes::Bytes>, Fault> {
    let url = response.url().clone();
    progress.wait(response.chunk())?.map_err(|error| web_fault(&url, error))
}

fn accept(url: &Url, response: Response) -> Result<Response, Fault> {
    let code = match response.status() {
        StatusCode::OK => return Ok(response),
        StatusCode::NOT_FOUND | StatusCode::GONE => FaultCode::NotFound,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => FaultCode::Unavailable,
        status if status.is_client_error() => FaultCode::Invalid,
        _ => FaultCode::Unavailable,
    };
    let text = format!(
        "{} answered {}; check the image's source and who may read it",
        shown(url),
        response.status()
    );
    Err(Fault::new(code, text))
}

/// `Bearer realm="…",service="…"`
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    realm: String,
    service: String,
}

impl Challenge {
    fn read(text: &str) -> Option<Challenge> {
        let (scheme, rest) = text.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let value = |key: &str| {
            let (_, after) = rest.split_once(&format!("{key}=\""))?;
            after.split_once('"').map(|(value, _)| value.to_owned())
        };
        Some(Challenge { realm: value("realm")?, service: value("service").unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_of_tokens_is_not_where_only_this_host_is_answered() {
        let reference = |base: &str| Reference {
            base: Url::parse(base).unwrap(),
            repository: "a".to_owned(),
            tag: "latest".to_owned(),
            digest: None,
        };
        let (secret, progress) = (Secret::new(String::new()), Progress::default());
        let ask = |base: &str, realm: &str| {
            let challenge = Challenge { realm: realm.to_owned(), service: String::new() };
            Registry::new(&reference(base), &secret, false, &progress).fetch_token(&challenge).unwrap_err()
        };
        assert_eq!(ask("https://r.example/", "http://127.0.0.1:1/token").code, FaultCode::BadImage);
        assert_eq!(ask("https://r.example/", "file:///etc/passwd").code, FaultCode::BadImage);
        assert_eq!(ask("http://127.0.0.1:1/", "http://169.254.169.254/token").code, FaultCode::Invalid);
    }

    #[test]
    fn a_challenge_names_where_tokens_are_given() {
        let read = Challenge::read(r#"Bearer realm="https://a.example/token",service="r.example",scope="x""#);
        let wanted =
            Challenge { realm: "https://a.example/token".to_owned(), service: "r.example".to_owned() };
        assert_eq!(read, Some(wanted));
        for other in ["", "Basic realm=\"x\"", "Bearer", "Bearer realm=unquoted", "Bearer realm=\"open"] {
            assert_eq!(Challenge::read(other), None, "{other:?}");
        }
    }
}
