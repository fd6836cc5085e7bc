//! A call to a sub-agent's socket, for tests and tools: the client of `haar-api`, at the path that every server
//! of this kit answers on.

use std::path::Path;
use std::time::Duration;

use haar_api::rpc;
use haar_api::rpc_client::{self, Address};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use haar_api::rpc_client::CallError;

/// Calls `method` with `params` on the socket and waits at most `limit` for its result.
///
/// # Errors
/// [`CallError::Fault`] is the method's own no; everything else is the way there.
pub async fn call<P, R>(socket: &Path, method: &str, params: &P, limit: Duration) -> Result<R, CallError>
where
    P: Serialize + Sync,
    R: DeserializeOwned,
{
    let address = Address::Unix(socket.to_owned());
    rpc_client::call(&address, rpc::DEFAULT_PATH, method, params, limit).await
}
