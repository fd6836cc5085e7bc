//! Files over lines that are slow, and on servers that say nothing or something else.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use haar_ssh::{Error, Files, HostKeys, KeyPair, Limits, Login, Options, Pool, Target};
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, Session, VerifiedPublicKey};
use russh::{Channel, keys};
use tokio::task::JoinHandle;

use crate::harness::{Setup, Sshd, eventually, limits, sshd, sshd_with};
use crate::proxy::{Manner, Proxy};

const SHORT: Duration = Duration::from_secs(4);

/// Files over a proxy, of a server that may be silent for so long only.
fn files(sshd: &Sshd, proxy: &Proxy, file_answer: Duration) -> Files {
    let mut options = sshd.options();
    options.target.port = proxy.port;
    options.limits = Limits { file_answer, ..limits() };
    Pool::new(options).files()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_over_a_slow_line_takes_its_time() {
    let Some(sshd) = sshd("slow line") else { return };
    let proxy = Proxy::to(sshd.port, Manner::Pass).await;
    // A machine that stands still for a moment must not be taken for a server that is silent.
    let limit = Duration::from_secs(6);
    let files = files(&sshd, &proxy, limit);
    files.write(&sshd.text("small"), b"x", 0o600).await.unwrap();
    proxy.set(Manner::Slow);
    let (local, remote) = (sshd.path("local"), sshd.text("remote"));
    fs::write(&local, vec![7; 8 << 20]).unwrap();
    let began = Instant::now();
    files.upload(&local, &remote).await.unwrap();
    assert!(began.elapsed() > 2 * limit, "the line was not slow: {:?}", began.elapsed());
    assert_eq!(fs::metadata(&remote).unwrap().len(), 8 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_is_waited_for_no_longer_than_the_limit() {
    let Some(sshd) = sshd("falls silent") else { return };
    let proxy = Proxy::to(sshd.port, Manner::Pass).await;
    let files = files(&sshd, &proxy, SHORT);
    files.write(&sshd.text("one"), b"x", 0o600).await.unwrap();
    proxy.set(Manner::Hang);
    let began = Instant::now();
    let outcome = files.exists(&sshd.text("one")).await;
    let Err(error @ Error::NoAnswer { .. }) = &outcome else { panic!("{outcome:?}") };
    assert!(error.may_pass());
    assert!(began.elapsed() >= SHORT && began.elapsed() < 10 * SHORT, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn sftp_that_starts_and_says_nothing_is_no_missing_sftp() {
    let lines = vec!["Subsystem sftp cat >/dev/null".to_owned()];
    let setup = Setup { has_sftp: false, lines, ..Setup::default() };
    let Some(sshd) = sshd_with("silent sftp", &setup) else { return };
    let limits = Limits { file_answer: SHORT, ..limits() };
    let pool = Pool::new(Options { limits, ..sshd.options() });
    let outcome = pool.files().exists("x").await;
    assert!(matches!(outcome, Err(Error::NoAnswer { .. })), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_lost_while_sftp_starts_is_no_missing_sftp() {
    let lines = vec!["Subsystem sftp cat >/dev/null".to_owned()];
    let setup = Setup { has_sftp: false, lines, ..Setup::default() };
    let Some(sshd) = sshd_with("lost start of sftp", &setup) else { return };
    let pool = sshd.pool();
    let files = pool.files();
    let start = tokio::spawn(async move { files.exists("x").await });
    eventually("sftp starts", || sshd.log().contains("Starting session: subsystem")).await;
    sshd.kill_connections();
    let outcome = start.await.unwrap();
    assert!(matches!(outcome, Err(Error::Lost { .. })), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn words_of_a_login_shell_in_place_of_sftp_are_told_as_such() {
    let lines = vec!["Subsystem sftp echo welcome to this server".to_owned()];
    let setup = Setup { has_sftp: false, lines, ..Setup::default() };
    let Some(sshd) = sshd_with("words in sftp", &setup) else { return };
    let outcome = sshd.pool().files().exists("x").await;
    assert!(matches!(outcome, Err(Error::SftpUnreadable { .. })), "{outcome:?}");
}

/// A server that grants sessions and answers nothing that is asked on them; it ends when dropped.
struct Mute {
    port: u16,
    host_key: KeyPair,
    task: JoinHandle<()>,
}

struct Client;

impl Handler for Client {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, _: &str, _: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        Ok(())
    }
}

impl Mute {
    async fn start() -> Self {
        let host_key = KeyPair::generate().unwrap();
        let private = keys::decode_secret_key(&host_key.private, None).unwrap();
        let config = Arc::new(russh::server::Config { keys: vec![private], ..Default::default() });
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let mut sessions = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let config = Arc::clone(&config);
                sessions.spawn(async move { russh::server::run_stream(config, stream, Client).await?.await });
            }
        });
        Self { port, host_key, task }
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_answers_nothing_does_not_keep_sftp_waiting_for_ever() {
    let server = Mute::start().await;
    let host_keys = HostKeys::pinned([server.host_key.public.as_str()]).unwrap();
    let login = Login::Key(KeyPair::generate().unwrap().private);
    let target = Target::new("127.0.0.1", "somebody").port(server.port);
    // Its keep-alives are answered.
    let limits = Limits { session: SHORT, keep_alive: Duration::from_millis(500), ..limits() };
    let pool = Pool::new(Options { limits, ..Options::new(target, vec![login], host_keys) });
    let outcome = tokio::time::timeout(15 * SHORT, pool.files().exists("x")).await.expect("it ends");
    assert!(matches!(outcome, Err(Error::NoAnswer { .. })), "{outcome:?}");
}
