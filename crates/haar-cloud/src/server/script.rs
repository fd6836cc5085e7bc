//! Scripts on a server: put there under a name of their own, run with a limit, and removed.
//!
//! A script runs as who logs in, from a folder that nobody else may look into. Two at once do not meet.

use haar_ssh::{Command, script};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Server;
use super::means::Means;
use crate::Result;

impl Server {
    /// Runs a script to its end.
    pub(super) async fn run_script(
        &self,
        means: &Means,
        what: &str,
        content: &[u8],
        cancel: &CancellationToken,
    ) -> Result<()> {
        let access = self.cloud().access();
        let path = format!("{}/{}", access.folder, Uuid::new_v4());
        let written = async { means.files().await?.write(&path, content, 0o700).await };
        written.await.map_err(|error| self.ssh_error(&error))?;
        let command = Command::new(run_and_remove(&access.folder, &path)).limit(access.script_limit);
        let output = means.run(&command, cancel).await.map_err(|error| self.ssh_error(&error))?;
        self.succeeded(what, output).map(drop)
    }
}

/// Runs a file, whose path has a slash in it, and removes it however that ends.
fn run_and_remove(folder: &str, path: &str) -> String {
    script("chmod 700 \"$1\"; \"$2\"; status=$?; rm -f \"$2\"; exit $status", &[folder, path])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_removed_and_its_status_kept() {
        let home = tempfile::tempdir().unwrap();
        let script = home.path().join(".haar/x");
        std::fs::create_dir(script.parent().unwrap()).unwrap();
        std::fs::write(&script, "#!/bin/sh\nexit 7\n").unwrap();
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let mut command = std::process::Command::new("sh");
        let status = command
            .arg("-c")
            .arg(run_and_remove(".haar", ".haar/x"))
            .current_dir(home.path())
            .status()
            .unwrap();
        assert_eq!((status.code(), script.exists()), (Some(7), false));
    }
}
