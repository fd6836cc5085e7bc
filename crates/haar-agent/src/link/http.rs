//! The real [`Link`]: the typed client of `/v1/agent/…` with the agent's own token.

use std::time::Duration;

use haar_api::client::{Client, ClientError, Duplex};
use haar_api::endpoint::Nothing;
use haar_api::table;
use haar_api::v1::{FeedQuery, FenceText, Wait};
use haar_core::fence::Fence;
use haar_core::id::ImageId;
use haar_core::order::{Hello, Report};

use super::{Fed, Link, LinkError, Unsupported, Welcome, wire};

/// How long an answer may take beyond the wait that was asked for.
const LIMIT: Duration = Duration::from_secs(15);
/// The most bytes of a blob: user-data has 64 KiB.
const MOST_BLOB: usize = 1 << 20;

/// The controller over HTTP.
#[derive(Debug, Clone)]
pub struct HttpLink {
    client: Client,
    url: String,
    token: String,
}

impl HttpLink {
    /// The controller at `url` (`http://host:port`), spoken to with an agent's token.
    ///
    /// # Errors
    /// [`ClientError`] when address or token cannot be used.
    pub fn new(url: &str, token: &str) -> Result<HttpLink, ClientError> {
        let client = Client::new(url, Some(token.to_owned()))?;
        Ok(HttpLink { client, url: url.trim_end_matches('/').to_owned(), token: token.to_owned() })
    }
}

impl Link for HttpLink {
    type Stream = Duplex;

    async fn hello(&self, hello: &Hello) -> Result<Welcome, LinkError> {
        let call = self.client.request::<table::AgentHello>(&[]).limit(LIMIT);
        let welcome = call.send(&wire::hello(hello)).await.map_err(|error| link_error(&error))?.value;
        Ok(Welcome { cloud: welcome.cloud, hypervisor: welcome.hypervisor, incarnation: welcome.incarnation })
    }

    async fn feed(&self, since: Option<Fence>, wait: Duration) -> Result<Option<Fed>, LinkError> {
        let query = FeedQuery { since: since.map(FenceText), wait: Some(Wait(wait)) };
        let call = self.client.request::<table::AgentFeed>(&[]).query(query).limit(wait + LIMIT);
        let answered = call.poll(&Nothing).await.map_err(|error| link_error(&error))?;
        Ok(answered.map(|answered| wire::fed(answered.value)))
    }

    async fn report(&self, report: &Report, unsupported: &[Unsupported]) -> Result<(), LinkError> {
        let call = self.client.request::<table::AgentReport>(&[]).limit(LIMIT);
        call.send(&wire::report(report, unsupported)).await.map_err(|error| link_error(&error))?;
        Ok(())
    }

    async fn blob(&self, sha256: &str) -> Result<Vec<u8>, LinkError> {
        let call = self.client.request::<table::AgentBlob>(&[sha256]).limit(LIMIT);
        let mut bytes = call.stream(&Nothing).await.map_err(|error| link_error(&error))?;
        let mut blob = Vec::new();
        while let Some(chunk) = bytes.chunk().await.map_err(|error| link_error(&error))? {
            blob.extend_from_slice(&chunk);
            if blob.len() > MOST_BLOB {
                return Err(LinkError::Unreadable(format!("the blob is larger than {MOST_BLOB} bytes")));
            }
        }
        Ok(blob)
    }

    async fn stream(&self, ticket: &str) -> Result<Duplex, LinkError> {
        let call = self.client.request::<table::AgentStream>(&[ticket]).limit(LIMIT);
        call.upgrade().await.map_err(|error| link_error(&error))
    }

    fn image_source(&self, image: ImageId) -> (String, String) {
        (format!("{}/v1/agent/images/{image}/data", self.url), format!("Bearer {}", self.token))
    }
}

fn link_error(error: &ClientError) -> LinkError {
    if let Some(problem) = error.problem() {
        let message = problem.message.clone();
        return match problem.code.as_str() {
            "stale_incarnation" => LinkError::StaleIncarnation(message),
            // The server itself is in trouble: as good as not there.
            _ if problem.status >= 500 => LinkError::Unreachable(message),
            code => LinkError::Refused { code: code.to_owned(), message },
        };
    }
    let text = with_causes(error);
    if error.is_unreachable() { LinkError::Unreachable(text) } else { LinkError::Unreadable(text) }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
