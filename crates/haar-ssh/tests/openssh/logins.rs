//! Logging in by keys, files and agents.

use std::path::{Path, PathBuf};
use std::process::{Child, Command as Program, Stdio};

use haar_ssh::{Command, Error, KeyPair, Login, Options, Pool};

use crate::harness::{Sshd, eventually, never, sshd, user, write_private};

fn pool(sshd: &Sshd, logins: Vec<Login>) -> Pool {
    Pool::new(Options { logins, ..sshd.options() })
}

/// A real ssh-agent; ends when dropped.
struct Agent {
    child: Child,
    socket: PathBuf,
}

impl Agent {
    async fn start(socket: PathBuf) -> Self {
        let mut program = Program::new("ssh-agent");
        program.arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).stderr(Stdio::null());
        let child = program.spawn().expect("ssh-agent comes with openssh-client");
        let agent = Self { child, socket };
        eventually("the agent listens", || agent.socket.exists()).await;
        agent
    }

    fn add(&self, key: &Path) {
        let status = Program::new("ssh-add").arg("-q").arg(key).env("SSH_AUTH_SOCK", &self.socket).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_logs_in() {
    let Some(sshd) = sshd("key file") else { return };
    let file = sshd.path("id");
    write_private(&file, &sshd.user_key.private);
    let output =
        pool(&sshd, vec![Login::KeyFile(file)]).run(&Command::new("id -un"), &never()).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), user());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_logs_in_with_whichever_of_its_keys_is_known_rsa_too() {
    let Some(sshd) = sshd("agent") else { return };
    let agent = Agent::start(sshd.path("agent")).await;
    let by_agent = || pool(&sshd, vec![Login::AgentAt(sshd.path("agent"))]);
    let outcome = by_agent().run(&Command::new("true"), &never()).await;
    let Err(Error::Agent { why }) = &outcome else { panic!("{outcome:?}") };
    assert!(why.contains("ssh-add"), "{why}");

    for (name, text) in
        [("other", KeyPair::generate().unwrap().private), ("id", sshd.user_key.private.clone())]
    {
        write_private(&sshd.path(name), &text);
        agent.add(&sshd.path(name));
    }
    by_agent().wait_until_ready(&never()).await.unwrap();

    let rsa = sshd.path("rsa");
    let made =
        Program::new("ssh-keygen").args(["-q", "-t", "rsa", "-b", "2048", "-N", "", "-f"]).arg(&rsa).status();
    assert!(made.unwrap().success());
    sshd.learn_key(&std::fs::read_to_string(rsa.with_extension("pub")).unwrap());
    agent.add(&rsa);
    by_agent().run(&Command::new("true"), &never()).await.unwrap();

    // The same key as a file is refused with the way out, in whichever form it is.
    for form in ["RFC4716", "PKCS8", "PEM"] {
        let mut program = Program::new("ssh-keygen");
        program.args(["-q", "-p", "-P", "", "-N", "", "-m", form, "-f"]).arg(&rsa);
        assert!(program.stdout(Stdio::null()).status().unwrap().success());
        let login = vec![Login::KeyFile(rsa.clone())];
        let outcome = pool(&sshd, login).run(&Command::new("true"), &never()).await;
        let Err(Error::KeyUnusable { why, .. }) = &outcome else { panic!("{form}: {outcome:?}") };
        assert!(why.contains("RSA") && why.contains("ssh-add"), "{form}: {why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protected_key_is_named_with_the_way_out() {
    let Some(sshd) = sshd("protected key") else { return };
    let file = sshd.path("protected");
    for (kind, form) in [("ed25519", "RFC4716"), ("ecdsa", "PKCS8")] {
        let _ = std::fs::remove_file(&file);
        let mut program = Program::new("ssh-keygen");
        program.args(["-q", "-t", kind, "-m", form, "-N", "secret phrase", "-f"]).arg(&file);
        assert!(program.status().unwrap().success());
        let outcome =
            pool(&sshd, vec![Login::KeyFile(file.clone())]).run(&Command::new("true"), &never()).await;
        let Err(Error::KeyEncrypted { name }) = &outcome else { panic!("{kind} {form}: {outcome:?}") };
        assert_eq!(name, file.to_str().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_tried_in_order_and_one_that_cannot_be_read_stops_nobody() {
    let Some(sshd) = sshd("several keys") else { return };
    let missing = Login::KeyFile("/does/not/exist".into());
    let other = Login::Key(KeyPair::generate().unwrap().private);
    let right = Login::Key(sshd.user_key.private.clone());
    let all = vec![missing.clone(), other.clone(), right];
    pool(&sshd, all).wait_until_ready(&never()).await.unwrap();

    let outcome = pool(&sshd, vec![missing.clone(), other]).run(&Command::new("true"), &never()).await;
    let Err(Error::LoginRefused { tried, .. }) = &outcome else { panic!("{outcome:?}") };
    assert_eq!(tried.len(), 2);
    assert!(tried[0].contains("/does/not/exist"), "{tried:?}");

    let outcome = pool(&sshd, vec![missing]).run(&Command::new("true"), &never()).await;
    assert!(matches!(outcome, Err(Error::Local { .. })), "{outcome:?}");
    let outcome = pool(&sshd, Vec::new()).run(&Command::new("true"), &never()).await;
    assert!(matches!(outcome, Err(Error::LoginRefused { .. })), "{outcome:?}");
    let nobody = Login::AgentAt("/does/not/exist".into());
    let outcome = pool(&sshd, vec![nobody]).run(&Command::new("true"), &never()).await;
    assert!(matches!(outcome, Err(Error::Agent { .. })), "{outcome:?}");
}
