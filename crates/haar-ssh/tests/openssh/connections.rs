//! Connections that die, hang or lead somewhere else.

use std::time::{Duration, Instant};

use haar_ssh::{Command, Error, HostKeys, KeyPair, Limits, Login, Obstacle, Options, Pool};

use crate::harness::{Setup, eventually, limits, never, sshd, sshd_with};
use crate::proxy::{Manner, Proxy};

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_fails_its_command_and_the_next_one_gets_another() {
    let Some(sshd) = sshd("broken connection") else { return };
    let pool = sshd.pool();
    let begun = sshd.path("begun");
    let command = Command::new(format!("echo x > {}; sleep 5", begun.display()));
    let runner = pool.clone();
    let run = tokio::spawn(async move { runner.run(&command, &never()).await });
    eventually("the command runs", || begun.exists()).await;
    sshd.kill_connections();
    let outcome = run.await.unwrap();
    assert!(matches!(outcome, Err(Error::Lost { .. })), "{outcome:?}");
    let output = pool.run(&Command::new("echo again"), &never()).await.unwrap();
    assert_eq!(output.stdout, b"again\n");
    assert_eq!((pool.connections(), sshd.logins()), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_died_unnoticed_is_replaced_without_an_error() {
    let Some(sshd) = sshd("dies unnoticed") else { return };
    let pool = sshd.pool();
    for _ in 0..10 {
        assert_eq!(pool.run(&Command::new("true"), &never()).await.unwrap().status, 0);
        sshd.kill_connections();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_is_given_up_after_its_signs_of_life_fail() {
    let Some(sshd) = sshd("keep-alive") else { return };
    let proxy = Proxy::to(sshd.port, Manner::Pass).await;
    let mut options = sshd.options();
    options.target.port = proxy.port;
    options.limits = Limits { keep_alive: Duration::from_secs(1), ..limits() };
    let pool = Pool::new(options);
    let begun = sshd.path("begun");
    let (runner, text) = (pool.clone(), format!("echo x > {}; sleep 1000", begun.display()));
    let run = tokio::spawn(async move { runner.run(&Command::new(text), &never()).await });
    eventually("the command runs", || begun.exists()).await;
    proxy.set(Manner::Hang);
    let outcome = tokio::time::timeout(Duration::from_secs(60), run).await.expect("never noticed").unwrap();
    assert!(matches!(outcome, Err(Error::Lost { .. })), "{outcome:?}");
    proxy.set(Manner::Pass);
    assert_eq!(pool.run(&Command::new("true"), &never()).await.unwrap().status, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_grants_nothing_any_more_is_replaced() {
    let Some(sshd) = sshd("silent session") else { return };
    let proxy = Proxy::to(sshd.port, Manner::Pass).await;
    let mut options = sshd.options();
    options.target.port = proxy.port;
    options.limits = Limits { dial: Duration::from_secs(10), session: Duration::from_secs(1), ..limits() };
    let pool = Pool::new(options);
    pool.wait_until_ready(&never()).await.unwrap();
    proxy.set(Manner::Hang);
    let runner = pool.clone();
    let run = tokio::spawn(async move { runner.run(&Command::new("true"), &never()).await });
    eventually("the connection is given up", || pool.connections() == 0).await;
    proxy.set(Manner::Pass);
    // The dial that was on its way meanwhile may have got stuck too; then its limit ends it.
    let outcome = run.await.unwrap();
    if outcome.is_err() {
        assert_eq!(pool.run(&Command::new("true"), &never()).await.unwrap().status, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_accepts_and_hangs_and_one_that_closes_are_told_apart_in_time() {
    let Some(sshd) = sshd("hangs") else { return };
    for (manner, expected) in [(Manner::Hang, Obstacle::Silent), (Manner::Close, Obstacle::Closed)] {
        let proxy = Proxy::to(sshd.port, manner).await;
        let mut options = sshd.options();
        options.target.port = proxy.port;
        options.limits = Limits { dial: Duration::from_secs(1), ..limits() };
        let pool = Pool::new(options);
        let began = Instant::now();
        let outcome = pool.run(&Command::new("true"), &never()).await;
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
        let Err(Error::Unreachable { obstacle, .. }) = outcome else { panic!("{outcome:?}") };
        assert_eq!(obstacle, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_login_is_waited_for() {
    let Some(sshd) = sshd("slow login") else { return };
    let proxy = Proxy::to(sshd.port, Manner::Delay).await;
    let mut options = sshd.options();
    options.target.port = proxy.port;
    let pool = Pool::new(options);
    let began = Instant::now();
    assert_eq!(pool.run(&Command::new("true"), &never()).await.unwrap().status, 0);
    assert!(began.elapsed() > Duration::from_secs(1), "{:?} is not slow", began.elapsed());
    assert_eq!(proxy.accepted(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_15_a_dial_that_hangs_keeps_nobody_from_a_place_that_comes_free() {
    let Some(sshd) = sshd("defect 15") else { return };
    let proxy = Proxy::to(sshd.port, Manner::Pass).await;
    let mut options = sshd.options();
    options.target.port = proxy.port;
    options.limits = Limits { sessions_per_connection: 1, ..limits() };
    let pool = Pool::new(options);
    let (begun, go) = (sshd.path("begun"), sshd.path("go"));
    let text = format!("echo x > {}; while [ ! -e {} ]; do sleep 0.05; done", begun.display(), go.display());
    let run = |text: String| {
        let pool = pool.clone();
        tokio::spawn(async move { pool.run(&Command::new(text), &never()).await })
    };
    let first = run(text);
    eventually("the first command runs", || begun.exists()).await;
    // What is there goes on; what is dialled from now on hangs.
    let before = proxy.accepted();
    proxy.set(Manner::HangNew);
    let second = run("true".to_owned());
    eventually("another connection is being dialled", || proxy.accepted() > before).await;
    assert_eq!(pool.connections(), 1);
    let began = Instant::now();
    std::fs::write(go, "").unwrap();
    assert_eq!(first.await.unwrap().unwrap().status, 0);
    assert_eq!(second.await.unwrap().unwrap().status, 0);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_renewed_in_the_midst_of_transfers_and_commands() {
    let setup = Setup { lines: vec!["RekeyLimit 4M".into(), "LogLevel DEBUG1".into()], ..Setup::default() };
    let Some(sshd) = sshd_with("rekeying", &setup) else { return };
    let pool = sshd.pool();
    let bytes: Vec<u8> = (0..30_000_000_u32).map(|number| (number / 1000) as u8).collect();
    let files = pool.files();
    let remote = sshd.text("remote");
    let runner = pool.clone();
    let runs = tokio::spawn(async move {
        for _ in 0..30 {
            let output = runner.run(&Command::new("head -c 200000 /dev/zero"), &never()).await.unwrap();
            assert_eq!(output.stdout.len(), 200_000);
        }
    });
    files.write(&remote, &bytes, 0o600).await.unwrap();
    files.download(&remote, &sshd.path("back")).await.unwrap();
    assert!(std::fs::read(sshd.path("back")).unwrap() == bytes);
    runs.await.unwrap();
    assert_eq!((pool.connections(), sshd.logins()), (1, 1));
    let renewed = sshd.log().matches("newkeys: rekeying in").count();
    assert!(renewed > 4, "keys were renewed {renewed} times");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_wait_for_a_dead_server_share_its_failure() {
    let Some(sshd) = sshd("shared failure") else { return };
    let proxy = Proxy::to(sshd.port, Manner::Hang).await;
    let mut options = sshd.options();
    options.target.port = proxy.port;
    options.limits = Limits { dial: Duration::from_secs(1), ..limits() };
    let pool = Pool::new(options);
    let began = Instant::now();
    let runs: Vec<_> = (0..50)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { pool.run(&Command::new("true"), &never()).await })
        })
        .collect();
    for run in runs {
        assert!(matches!(run.await.unwrap(), Err(Error::Unreachable { .. })));
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(proxy.accepted() <= 5, "{} connections for 50 callers", proxy.accepted());
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_22_a_changed_host_key_is_refused_with_what_was_expected_and_found() {
    let Some(mut sshd) = sshd("changed host key") else { return };
    let pool = sshd.pool();
    pool.wait_until_ready(&never()).await.unwrap();
    let expected = HostKeys::pinned([sshd.host_key.public.as_str()]).unwrap().fingerprints();
    sshd.stop();
    sshd.change_host_key();
    assert!(sshd.run().unwrap());
    let found = HostKeys::pinned([sshd.host_key.public.as_str()]).unwrap().fingerprints();
    // Waiting does not mend it either.
    for outcome in
        [pool.run(&Command::new("true"), &never()).await.map(drop), pool.wait_until_ready(&never()).await]
    {
        let Err(Error::HostKey { expected: told, found: shown, .. }) = outcome else { panic!("{outcome:?}") };
        assert_eq!((&told, &[shown][..]), (&expected, &found[..]));
    }
    assert_eq!(sshd.logins(), 1, "nothing may be sent to a stranger");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_several_pinned_keys_is_enough() {
    let Some(sshd) = sshd("several host keys") else { return };
    let mut options = sshd.options();
    let other = KeyPair::generate().unwrap().public;
    options.host_keys = HostKeys::pinned([other.as_str(), sshd.host_key.public.as_str()]).unwrap();
    Pool::new(options).wait_until_ready(&never()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_reached_through_a_jump_host() {
    let Some(jump) = sshd("jump host") else { return };
    let Some(inner) = sshd("jump host, inner") else { return };
    let jump_pool = jump.pool();
    let pool = Pool::new(Options { jump: Some(jump_pool.clone()), ..inner.options() });
    assert_eq!(jump_pool.connections(), 0, "nothing is dialled before it is needed");
    let output = pool.run(&Command::new("echo \"$SSH_CONNECTION\""), &never()).await.unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains(&inner.port.to_string()));
    assert_eq!((jump.logins(), inner.logins()), (1, 1));
    let (local, remote) = (inner.path("local"), inner.text("remote"));
    std::fs::write(&local, vec![7; 3_000_000]).unwrap();
    pool.files().upload(&local, &remote).await.unwrap();
    assert_eq!(std::fs::read(&remote).unwrap(), vec![7; 3_000_000]);

    // The jump host's connection breaks: both are made anew.
    jump.kill_connections();
    assert_eq!(pool.run(&Command::new("true"), &never()).await.unwrap().status, 0);
    assert!(inner.connections() > 0);
    drop(pool);
    eventually("the way through the jump host is closed", || inner.connections() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_host_that_leads_nowhere_is_named() {
    let setup = Setup { lines: vec!["AllowTcpForwarding no".into()], ..Setup::default() };
    let Some(closed) = sshd_with("jump host, no forwarding", &setup) else { return };
    let Some(mut inner) = sshd("jump host, dead inner") else { return };
    let options = inner.options();
    let through = |jump| Pool::new(Options { jump: Some(jump), ..options.clone() });
    let outcome = through(closed.pool()).run(&Command::new("true"), &never()).await;
    assert!(matches!(outcome, Err(Error::ForwardingRefused { .. })), "{outcome:?}");

    let Some(open) = sshd("jump host, open") else { return };
    let pool = through(open.pool());
    inner.stop();
    let outcome = pool.run(&Command::new("true"), &never()).await;
    let Err(error @ Error::Unreachable { obstacle: Obstacle::BehindJump, .. }) = &outcome else {
        panic!("{outcome:?}");
    };
    assert!(error.may_pass());

    let stranger = Login::Key(KeyPair::generate().unwrap().private);
    let jump = Pool::new(Options { logins: vec![stranger], ..open.options() });
    let outcome = through(jump).run(&Command::new("true"), &never()).await;
    let Err(Error::LoginRefused { target, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(target, open.target(), "it is the jump host that refuses");
}
