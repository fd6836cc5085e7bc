//! Many sessions at a time on servers that allow few on a connection.

use std::time::{Duration, Instant};

use haar_ssh::{Command, Error};

use crate::harness::{Setup, eventually, never, sshd_with};

/// Thirty commands at a time; how many connections that took.
async fn thirty_at_a_time(case: &str, max_sessions: u32) -> Option<usize> {
    let sshd = sshd_with(case, &Setup { max_sessions, ..Setup::default() })?;
    let pool = sshd.pool();
    let begun = sshd.path("begun");
    std::fs::create_dir(&begun).unwrap();
    let mut runs = tokio::task::JoinSet::new();
    for number in 0..30 {
        let pool = pool.clone();
        // Each ends when all have begun, so none does unless all run at the same time.
        let folder = begun.display();
        let text =
            format!("touch {folder}/{number}; until [ -e {folder}/all ]; do sleep 0.1; done; echo {number}");
        runs.spawn(async move { pool.run(&Command::new(text), &never()).await.map(|it| (number, it)) });
    }
    eventually("all have begun", || std::fs::read_dir(&begun).unwrap().count() == 30).await;
    std::fs::write(begun.join("all"), "").unwrap();
    while let Some(run) = runs.join_next().await {
        let (number, output) = run.unwrap().unwrap();
        assert_eq!((output.status, output.stdout), (0, format!("{number}\n").into_bytes()));
    }
    assert_eq!(sshd.logins(), pool.connections(), "connections were made and thrown away");
    Some(pool.connections())
}

#[tokio::test(flavor = "multi_thread")]
async fn case_28_thirty_commands_at_a_time_take_three_connections_of_ten_sessions() {
    let Some(connections) = thirty_at_a_time("case 28: MaxSessions 10", 10).await else { return };
    assert!((3..=4).contains(&connections), "{connections}");
}

#[tokio::test(flavor = "multi_thread")]
async fn case_28_defect_40_thirty_commands_at_a_time_take_eight_connections_of_four_sessions() {
    let Some(connections) = thirty_at_a_time("case 28: MaxSessions 4", 4).await else { return };
    assert!((8..=9).contains(&connections), "{connections}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_at_a_time_stay_on_one_connection_of_ten_sessions() {
    let Some(sshd) = sshd_with("ten at a time", &Setup::default()) else { return };
    let pool = sshd.pool();
    let workers = (0..10).map(|_| {
        let pool = pool.clone();
        tokio::spawn(async move {
            for _ in 0..30 {
                assert_eq!(pool.run(&Command::new("true"), &never()).await.unwrap().status, 0);
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
    assert_eq!((pool.connections(), sshd.logins()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_drops_all_but_one_of_the_connections_being_made_serves_many() {
    let lines = vec!["MaxStartups 1:100:1".to_owned()];
    let setup = Setup { max_sessions: 1, lines, ..Setup::default() };
    let Some(sshd) = sshd_with("MaxStartups 1", &setup) else { return };
    let pool = sshd.pool();
    let runs = (0..12).map(|_| {
        let pool = pool.clone();
        tokio::spawn(async move { pool.run(&Command::new("sleep 1"), &never()).await })
    });
    for run in runs.collect::<Vec<_>>() {
        assert_eq!(run.await.unwrap().unwrap().status, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_one_session_on_a_connection_serves_many() {
    let setup = Setup { max_sessions: 1, ..Setup::default() };
    let Some(sshd) = sshd_with("MaxSessions 1", &setup) else { return };
    let pool = sshd.pool();
    // One after the other: a session that has ended makes room on the same connection.
    for _ in 0..20 {
        assert_eq!(pool.run(&Command::new("true"), &never()).await.unwrap().status, 0);
    }
    assert_eq!(sshd.logins(), 1);
    let runs = (0..5).map(|_| {
        let pool = pool.clone();
        tokio::spawn(async move { pool.run(&Command::new("sleep 0.5"), &never()).await })
    });
    for run in runs.collect::<Vec<_>>() {
        assert_eq!(run.await.unwrap().unwrap().status, 0);
    }
    assert!(pool.connections() <= 5, "{}", pool.connections());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_grants_no_session_is_named() {
    let setup = Setup { max_sessions: 0, ..Setup::default() };
    let Some(sshd) = sshd_with("MaxSessions 0", &setup) else { return };
    let pool = sshd.pool();
    let outcome = pool.run(&Command::new("true"), &never()).await;
    assert!(matches!(outcome, Err(Error::SessionRefused { .. })), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn case_28_defect_16_a_hundred_uploads_take_no_more_connections() {
    let Some(sshd) = sshd_with("case 28: uploads", &Setup { max_sessions: 4, ..Setup::default() }) else {
        return;
    };
    let pool = sshd.pool();
    let local = sshd.path("local");
    std::fs::write(&local, "content").unwrap();
    for number in 0..100 {
        // Files of one's own each time, as different callers would have.
        pool.files().upload(&local, &sshd.text(&format!("up/{number}"))).await.unwrap();
    }
    assert_eq!((pool.connections(), sshd.logins()), (1, 1));
    for number in 0..100 {
        assert_eq!(std::fs::read(sshd.path(&format!("up/{number}"))).unwrap(), b"content");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_who_give_up_leave_no_session_behind() {
    let Some(sshd) = sshd_with("gives up", &Setup { max_sessions: 2, ..Setup::default() }) else { return };
    let pool = sshd.pool();
    pool.wait_until_ready(&never()).await.unwrap();
    for micros in (0..4000).step_by(100) {
        let (command, never) = (Command::new("true"), never());
        let _ = tokio::time::timeout(Duration::from_micros(micros), pool.run(&command, &never)).await;
    }
    eventually("nothing of them runs", || sshd.commands() == 0).await;
    // In the end every place is back: two at a time then fit on the connections there are.
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let before = sshd.logins();
        let (one, other, token) = (Command::new("sleep 0.1"), Command::new("sleep 0.1"), never());
        let (first, second) = tokio::join!(pool.run(&one, &token), pool.run(&other, &token));
        assert_eq!((first.unwrap().status, second.unwrap().status), (0, 0));
        if sshd.logins() == before {
            return;
        }
        assert!(Instant::now() < deadline, "places never came back");
    }
}
