//! Waiting for servers that are not up yet, and telling when waiting is no use.

use std::process::Command as Program;
use std::time::{Duration, Instant};

use haar_ssh::{CancellationToken, Command, Error, Limits, Obstacle, Options, Pool};

use crate::harness::{eventually, free_port, left_out, limits, never, sshd};
use crate::proxy::{Manner, Proxy};

#[tokio::test(flavor = "multi_thread")]
async fn case_30_defect_20_refused_then_logins_refused_then_ready() {
    let Some(mut sshd) = sshd("case 30") else { return };
    sshd.stop();
    sshd.forget_keys();
    let pool = sshd.pool();
    let waiter = pool.clone();
    let wait = tokio::spawn(async move { waiter.wait_until_ready(&never()).await });
    // For this long nothing listens.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!wait.is_finished(), "{:?}", wait.await);
    assert!(sshd.run().unwrap());
    eventually("some logins were refused", || sshd.log().matches("Failed publickey").count() >= 3).await;
    assert!(!wait.is_finished());
    sshd.learn_key(&sshd.user_key.public);
    wait.await.unwrap().unwrap();
    assert_eq!(pool.connections(), 1);

    pool.wait_until_ready(&never()).await.unwrap();
    assert_eq!(sshd.logins(), 1, "what is ready is ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_20_a_login_that_stays_refused_is_told_when_its_grace_is_over_and_not_before() {
    let Some(sshd) = sshd("grace") else { return };
    sshd.forget_keys();
    let login_grace = Duration::from_millis(1500);
    let limits = Limits { login_grace, ..limits() };
    let pool = Pool::new(Options { limits, ..sshd.options() });
    // Unless one says otherwise, it is as long as slow images need.
    assert!(Limits::default().login_grace >= Duration::from_secs(45));
    let began = Instant::now();
    let outcome = pool.wait_until_ready(&never()).await;
    let Err(Error::LoginRefused { tried, .. }) = &outcome else { panic!("{outcome:?}") };
    assert_eq!(tried.len(), 1);
    assert!(began.elapsed() >= login_grace);
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn patience_ends_with_the_last_reason() {
    let Some(sshd) = sshd("patience") else { return };
    let mut options = sshd.options();
    options.target.port = free_port();
    options.limits = Limits { patience: Duration::from_secs(1), ..limits() };
    let outcome = Pool::new(options).wait_until_ready(&never()).await;
    let Err(Error::NotReady { waited, source, .. }) = outcome else { panic!("{outcome:?}") };
    assert!(waited >= Duration::from_secs(1) && waited < Duration::from_secs(60), "{waited:?}");
    assert!(matches!(*source, Error::Unreachable { obstacle: Obstacle::Refused, .. }), "{source:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_or_closes_at_first_is_waited_for() {
    let Some(sshd) = sshd("hangs at first") else { return };
    for manner in [Manner::Hang, Manner::Close] {
        let proxy = Proxy::to(sshd.port, manner).await;
        let mut options = sshd.options();
        options.target.port = proxy.port;
        options.limits = Limits { dial: Duration::from_secs(1), ..limits() };
        let pool = Pool::new(options);
        let waiter = pool.clone();
        let wait = tokio::spawn(async move { waiter.wait_until_ready(&never()).await });
        eventually("two attempts were made", || proxy.accepted() >= 2).await;
        assert!(!wait.is_finished());
        proxy.set(Manner::Pass);
        wait.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_wait_ends_at_once() {
    let Some(sshd) = sshd("cancelled wait") else { return };
    let proxy = Proxy::to(sshd.port, Manner::Hang).await;
    let mut options = sshd.options();
    options.target.port = proxy.port;
    let (pool, cancel) = (Pool::new(options), CancellationToken::new());
    let token = cancel.clone();
    let wait = tokio::spawn(async move { pool.wait_until_ready(&token).await });
    eventually("it has dialled", || proxy.accepted() == 1).await;
    cancel.cancel();
    // The dial by itself would end in another error.
    let outcome = wait.await.unwrap();
    assert!(matches!(outcome, Err(Error::Cancelled { .. })), "{outcome:?}");
}

/// An address of this machine that nobody else uses, and which can be made unreachable.
struct Address(String);

impl Address {
    fn route(&self, action: &str) -> bool {
        let net = format!("{}/32", self.0);
        let mut ip = Program::new("ip");
        ip.args(["route", action, "unreachable", &net, "table", "local"]);
        ip.stderr(std::process::Stdio::null()).status().is_ok_and(|status| status.success())
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        self.route("del");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn case_30_a_route_that_vanishes_after_ssh_worked_is_told_at_once() {
    let test = "case 30: route";
    let Some(sshd) = sshd(test) else { return };
    if !nix::unistd::geteuid().is_root() {
        return left_out(test, "only root can take a route away");
    }
    let number = std::process::id();
    let address = Address(format!("127.99.{}.{}", number / 250 % 250 + 1, number % 250 + 1));
    let proxy = Proxy::at(&address.0, sshd.port, Manner::Pass).await;
    let mut options = sshd.options();
    (options.target.host, options.target.port) = (address.0.clone(), proxy.port);
    let pool = Pool::new(options.clone());
    pool.wait_until_ready(&never()).await.unwrap();
    sshd.kill_connections();
    eventually("the connection is gone", || pool.connections() == 0).await;
    assert!(address.route("add"), "no route could be taken away");

    for outcome in
        [pool.wait_until_ready(&never()).await, pool.run(&Command::new("true"), &never()).await.map(drop)]
    {
        assert!(matches!(outcome, Err(Error::RouteLost { .. })), "{outcome:?}");
    }
    // Where it never worked, there may be a route soon.
    options.limits = Limits { patience: Duration::from_secs(1), ..limits() };
    let outcome = Pool::new(options).wait_until_ready(&never()).await;
    let Err(Error::NotReady { source, .. }) = outcome else { panic!("{outcome:?}") };
    assert!(matches!(*source, Error::Unreachable { obstacle: Obstacle::NoRoute, .. }), "{source:?}");
}
