//! What goes wrong before there is an answer: no way to the cloud, or none that can be trusted.
//!
//! A certificate that cannot be trusted is no passing trouble, and nothing was asked then. Everything else of this
//! kind may pass, and what was asked may have been done: an alert or a broken record may come after a request.

use std::error::Error as _;
use std::path::Path;

use haar_cloud::{Error, Result};
use reqwest::{Certificate, RequestBuilder, Response};

/// The certificates of a file.
///
/// # Errors
/// [`Error::BadInput`] for a file that cannot be read or has none.
pub(super) fn certificates(file: &Path) -> Result<Vec<Certificate>> {
    let bad = |why: String| Error::BadInput {
        what: "the file of certificates",
        value: file.display().to_string(),
        why,
    };
    let text = std::fs::read(file).map_err(|error| bad(error.to_string()))?;
    let found = Certificate::from_pem_bundle(&text).map_err(|error| bad(words(&error)))?;
    if found.is_empty() { Err(bad("it has no certificate in PEM".to_owned())) } else { Ok(found) }
}

/// No connection can even be prepared.
pub(super) fn unprepared(error: &reqwest::Error) -> Error {
    Error::BadInput {
        what: "TLS",
        value: "of this machine".to_owned(),
        why: format!("{}; is the package ca-certificates installed?", words(error)),
    }
}

/// Sends a request and waits for the answer's beginning.
pub(super) async fn sent(request: RequestBuilder, what: &str) -> Result<Response> {
    request.send().await.map_err(|error| unsent(what, &error))
}

fn unsent(what: &str, error: &reqwest::Error) -> Error {
    let place = error.url().map(|url| url.origin().ascii_serialization()).unwrap_or_default();
    if is_untrusted(error) {
        return Error::BadInput {
            what: "the certificate of",
            value: place,
            why: format!("{}; name its authority's file in OS_CACERT or `cacert`", words(error)),
        };
    }
    if error.is_builder() {
        let why = format!("it is no address that can be asked ({})", words(error));
        return Error::BadInput { what: "the address of", value: what.to_owned(), why };
    }
    Error::Transient {
        what: what.to_owned(),
        message: format!("no answer from {place}: {}", words(error)),
        retry_after: None,
    }
}

/// The answer began and did not end.
pub(super) fn cut_off(what: &str, error: &reqwest::Error) -> Error {
    Error::Transient {
        what: what.to_owned(),
        message: format!("the answer broke off: {}", words(error)),
        retry_after: None,
    }
}

/// Whether we do not trust who is there. It is kept inside an I/O error, whose `source` skips it.
fn is_untrusted(error: &(dyn std::error::Error + 'static)) -> bool {
    use rustls::Error::{InvalidCertRevocationList, InvalidCertificate, NoCertificatesPresented};
    let mut next = Some(error);
    while let Some(cause) = next {
        let inner = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let inner = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(tls) = inner.or_else(|| cause.downcast_ref::<rustls::Error>()) {
            return matches!(
                tls,
                InvalidCertificate(_) | NoCertificatesPresented | InvalidCertRevocationList(_)
            );
        }
        next = cause.source();
    }
    false
}

/// The innermost words, which are those that tell something.
fn words(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_certificate_that_is_not_trusted_is_no_passing_trouble() {
        use rustls::{AlertDescription, CertificateError};
        let inside = |tls: rustls::Error| std::io::Error::other(tls);
        let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        assert!(is_untrusted(&unknown()) && is_untrusted(&inside(unknown())));
        assert!(is_untrusted(&inside(rustls::Error::NoCertificatesPresented)));
        let others = [
            rustls::Error::AlertReceived(AlertDescription::InternalError),
            rustls::Error::DecryptError,
            rustls::Error::General("closed".to_owned()),
        ];
        assert!(others.into_iter().all(|other| !is_untrusted(&inside(other))));
        assert!(!is_untrusted(&std::io::Error::from(std::io::ErrorKind::ConnectionReset)));
    }
}
