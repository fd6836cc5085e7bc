//! Loading rules: one text, one transaction, through `nft -f -`.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::Error;

/// Puts the batch in force, wholly or not at all.
///
/// # Errors
/// [`Error::Nft`] with nft's own words, or how to install it.
pub async fn load(batch: &str) -> Result<(), Error> {
    let missing =
        |error: std::io::Error| Error::Nft(format!("nft cannot be run ({error}); install nftables"));
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(missing)?;
    if let Some(mut stdin) = nft.stdin.take() {
        // A refusal shows in the exit status; a closed pipe here adds nothing.
        let _ = stdin.write_all(batch.as_bytes()).await;
    }
    let output = nft.wait_with_output().await.map_err(missing)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Nft(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
