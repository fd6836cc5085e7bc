//! Files over sftp.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::time::{Duration, UNIX_EPOCH};

use haar_ssh::{Error, FileFault};

use crate::harness::{Setup, eventually, sshd, sshd_with, user};

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Bytes that are different everywhere, so that a piece in the wrong place is seen.
fn content(length: usize) -> Vec<u8> {
    (0..length as u64).map(|number| (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_23_names_with_spaces_and_quotes_are_names() {
    let Some(sshd) = sshd("names") else { return };
    let files = sshd.pool().files();
    let name = "it's a \"name\"; $(with) `all` * of\\it ü";
    let (local, remote) = (sshd.path("local"), format!("{}/{name}", sshd.text(name)));
    fs::write(&local, "content").unwrap();
    fs::set_permissions(&local, fs::Permissions::from_mode(0o640)).unwrap();
    files.upload(&local, &remote).await.unwrap();
    let there = sshd.path(name).join(name);
    assert_eq!((fs::read(&there).unwrap(), mode(&there)), (b"content".to_vec(), 0o640));

    files.set_mode(&remote, 0o600).await.unwrap();
    let time = UNIX_EPOCH + Duration::from_secs(1_234_567_890);
    files.set_modified(&remote, time).await.unwrap();
    assert_eq!((mode(&there), fs::metadata(&there).unwrap().mtime()), (0o600, 1_234_567_890));

    let back = sshd.path("it's back");
    files.download(&remote, &back).await.unwrap();
    assert_eq!((fs::read(&back).unwrap(), mode(&back)), (b"content".to_vec(), 0o600));

    assert!(files.exists(&remote).await.unwrap());
    files.remove(&remote).await.unwrap();
    assert!(!files.exists(&remote).await.unwrap());
    files.remove(&remote).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_every_size_arrive_whole_both_ways() {
    let Some(sshd) = sshd("sizes") else { return };
    let files = sshd.pool().files();
    let piece = (256 << 10) - 1024;
    for length in [0, 1, piece - 1, piece, piece + 1, 3 * piece, 20_000_000] {
        let bytes = content(length);
        let (local, remote, back) = (sshd.path("local"), sshd.text("remote"), sshd.path("back"));
        fs::write(&local, &bytes).unwrap();
        files.upload(&local, &remote).await.unwrap();
        assert!(fs::read(&remote).unwrap() == bytes, "{length} bytes went wrong there");
        files.download(&remote, &back).await.unwrap();
        assert!(fs::read(&back).unwrap() == bytes, "{length} bytes went wrong back");
        files.write(&remote, &bytes, 0o644).await.unwrap();
        assert!(fs::read(&remote).unwrap() == bytes, "{length} bytes were written wrong");
    }
    // A file that tells no size.
    files.download("/proc/version", &sshd.path("version")).await.unwrap();
    assert_eq!(fs::read(sshd.path("version")).unwrap(), fs::read("/proc/version").unwrap());
    let parts = fs::read_dir(sshd.path("")).unwrap().flatten();
    let left: Vec<_> = parts
        .map(|entry| entry.file_name())
        .filter(|name| name.to_string_lossy().ends_with(".part"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_transfers_at_a_time_share_one_session() {
    let Some(sshd) = sshd_with("at a time", &Setup { max_sessions: 1, ..Setup::default() }) else { return };
    let pool = sshd.pool();
    let files = std::sync::Arc::new(pool.files());
    let writes = (0..20).map(|number| {
        let (files, remote) = (std::sync::Arc::clone(&files), sshd.text(&format!("deep/down/{number}")));
        tokio::spawn(async move { files.write(&remote, &content(100_000 + number), 0o600).await })
    });
    for write in writes.collect::<Vec<_>>() {
        write.await.unwrap().unwrap();
    }
    assert_eq!((pool.connections(), sshd.logins()), (1, 1));
    for number in 0..20 {
        let there = sshd.path(&format!("deep/down/{number}"));
        assert!(fs::read(&there).unwrap() == content(100_000 + number) && mode(&there) == 0o600);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_never_lies_open() {
    let Some(sshd) = sshd("secret") else { return };
    let files = sshd.pool().files();
    let there = sshd.path("secret");
    // It was there before, and everybody could read it.
    fs::write(&there, "old").unwrap();
    fs::set_permissions(&there, fs::Permissions::from_mode(0o666)).unwrap();
    files.write(there.to_str().unwrap(), b"new", 0o600).await.unwrap();
    assert_eq!((fs::read(&there).unwrap(), mode(&there)), (b"new".to_vec(), 0o600));
    // Neither does a umask take away what was asked for.
    files.write(&sshd.text("open"), b"", 0o666).await.unwrap();
    assert_eq!(mode(&sshd.path("open")), 0o666);
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_are_made_as_deep_as_needed_and_never_over_files() {
    let Some(sshd) = sshd("directories") else { return };
    let files = sshd.pool().files();
    for path in ["a/b c/d", "a/b c/d/", "a//b c"] {
        files.make_dir_all(&sshd.text(path)).await.unwrap();
    }
    assert!(sshd.path("a/b c/d").is_dir());
    files.make_dir_all(".").await.unwrap();
    fs::write(sshd.path("file"), "").unwrap();
    for path in ["file", "file/below", "file/far/below"] {
        let outcome = files.make_dir_all(&sshd.text(path)).await;
        let Err(Error::File { fault, .. }) = &outcome else { panic!("{path}: {outcome:?}") };
        assert_eq!(*fault, FileFault::NotADirectory, "{path}");
    }
    assert!(files.remove(&sshd.text("a")).await.is_err());
    assert!(sshd.path("a").is_dir());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_copied_is_told_clearly() {
    let Some(sshd) = sshd("cannot be copied") else { return };
    let files = sshd.pool().files();
    let (folder, file) = (sshd.path("folder"), sshd.path("file"));
    fs::create_dir(&folder).unwrap();
    fs::write(&file, "x").unwrap();
    let folder_text = folder.to_str().unwrap();

    for outcome in [
        files.upload(&folder, &sshd.text("remote")).await,
        files.upload(&file, folder_text).await,
        files.download(folder_text, &sshd.path("local")).await,
        files.download(file.to_str().unwrap(), &folder).await,
    ] {
        assert!(matches!(outcome, Err(Error::IsDirectory { .. })), "{outcome:?}");
    }
    let outcome = files.upload(&sshd.path("missing"), &sshd.text("remote")).await;
    assert!(matches!(outcome, Err(Error::Local { .. })), "{outcome:?}");
    let outcome = files.download(&sshd.text("missing"), &sshd.path("local")).await;
    assert!(matches!(outcome, Err(Error::File { fault: FileFault::NotFound, .. })), "{outcome:?}");
    let outcome = files.download(file.to_str().unwrap(), &sshd.path("no/such/folder")).await;
    assert!(matches!(outcome, Err(Error::Local { .. })), "{outcome:?}");
    let outcome = files.set_modified(file.to_str().unwrap(), UNIX_EPOCH - Duration::from_secs(1)).await;
    assert!(matches!(outcome, Err(Error::BadInput { .. })), "{outcome:?}");
    // Nothing of that has hurt what comes next.
    files.write(&sshd.text("fine"), b"fine", 0o600).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_sftp_is_named() {
    for (has_sftp, lines) in [(false, vec![]), (false, vec!["Subsystem sftp /does/not/exist".to_owned()])] {
        let setup = Setup { has_sftp, lines, ..Setup::default() };
        let Some(sshd) = sshd_with("no sftp", &setup) else { return };
        let pool = sshd.pool();
        let outcome = pool.files().exists("x").await;
        assert!(matches!(outcome, Err(Error::NoSftp { .. })), "{outcome:?}");
        pool.wait_until_ready(&crate::harness::never()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_go_on_over_another_connection_when_theirs_breaks() {
    let Some(sshd) = sshd("files reconnect") else { return };
    let pool = sshd.pool();
    let files = pool.files();
    files.write(&sshd.text("one"), b"1", 0o600).await.unwrap();
    sshd.kill_connections();
    eventually("the connection is gone", || pool.connections() == 0).await;
    files.write(&sshd.text("two"), b"2", 0o600).await.unwrap();
    assert_eq!(fs::read(sshd.path("two")).unwrap(), b"2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_without_a_slash_begins_at_home() {
    let Some(sshd) = sshd("home") else { return };
    let files = sshd.pool().files();
    let home = nix::unistd::User::from_name(&user()).unwrap().unwrap().dir;
    assert_eq!(files.home_dir().await.unwrap(), home.to_str().unwrap());
    let name = format!(".haar-ssh-test-{}", std::process::id());
    files.write(&name, b"x", 0o600).await.unwrap();
    assert!(home.join(&name).exists());
    files.remove(&name).await.unwrap();
    assert!(!home.join(&name).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_does_not_end_leaves_what_was_there_and_nothing_beside_it() {
    let Some(sshd) = sshd("half a file") else { return };
    let pool = sshd.pool();
    let files = pool.files();
    let (local, there) = (sshd.path("local"), sshd.path("folder/there"));
    let remote = there.to_str().unwrap();
    // More than arrives in the time of this test, and nothing on the disk.
    fs::File::create(&local).unwrap().set_len(1 << 40).unwrap();
    files.write(remote, b"old", 0o600).await.unwrap();
    let beside = || fs::read_dir(sshd.path("folder")).unwrap().count() - 1;
    tokio::select! {
        outcome = files.upload(&local, remote) => panic!("{outcome:?}"),
        () = eventually("it is being written", || beside() == 1) => {}
    }
    assert_eq!(fs::read(&there).unwrap(), b"old");
    pool.settled().await;
    assert_eq!((fs::read(&there).unwrap(), beside()), (b"old".to_vec(), 0));

    let written = async { files.upload(&local, remote).await };
    let cut_off = async {
        eventually("it is being written", || beside() == 1).await;
        sshd.kill_connections();
    };
    let (outcome, ()) = tokio::join!(written, cut_off);
    assert!(matches!(outcome, Err(Error::Lost { .. })), "{outcome:?}");
    assert_eq!(fs::read(&there).unwrap(), b"old");

    // The same the other way.
    let (folder, here) = (sshd.path("here"), sshd.path("here/file"));
    fs::create_dir(&folder).unwrap();
    fs::write(&here, "old").unwrap();
    let beside = || fs::read_dir(&folder).unwrap().count() - 1;
    tokio::select! {
        outcome = files.download(local.to_str().unwrap(), &here) => panic!("{outcome:?}"),
        () = eventually("it is being written", || beside() == 1) => {}
    }
    assert_eq!((fs::read(&here).unwrap(), beside()), (b"old".to_vec(), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_replaced_also_by_a_server_that_cannot_do_it_in_one_step() {
    let lines = vec!["Subsystem sftp internal-sftp -P posix-rename".to_owned()];
    let setup = Setup { has_sftp: false, lines, ..Setup::default() };
    let Some(sshd) = sshd_with("no posix-rename", &setup) else { return };
    let files = sshd.pool().files();
    for content in [&b"first"[..], b"second"] {
        files.write(&sshd.text("folder/there"), content, 0o640).await.unwrap();
        assert_eq!(fs::read(sshd.path("folder/there")).unwrap(), content);
    }
    assert_eq!(fs::read_dir(sshd.path("folder")).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn links_are_followed_and_what_is_no_file_is_not_replaced() {
    let Some(sshd) = sshd("links") else { return };
    let files = sshd.pool().files();
    let (link, target, back) = (sshd.path("link"), sshd.path("target"), sshd.path("back"));
    fs::write(&target, "old").unwrap();
    std::os::unix::fs::symlink("target", &link).unwrap();
    files.write(link.to_str().unwrap(), b"new", 0o600).await.unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read(&target).unwrap(), b"new");
    fs::write(&back, "old").unwrap();
    files.download(back.to_str().unwrap(), &link).await.unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read(&target).unwrap(), b"old");

    let pipe = sshd.path("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let is_pipe = || fs::metadata(&pipe).unwrap().file_type().is_fifo();
    let read = || {
        let pipe = pipe.clone();
        std::thread::spawn(move || fs::read(&pipe).unwrap())
    };
    // OpenSSH's server must be able to go to a place in a file, which a pipe has not.
    let reader = read();
    assert!(files.write(pipe.to_str().unwrap(), b"new", 0o600).await.is_err() && is_pipe());
    assert_eq!(reader.join().unwrap(), b"");
    let reader = read();
    files.download(back.to_str().unwrap(), &pipe).await.unwrap();
    assert!(is_pipe());
    assert_eq!(reader.join().unwrap(), b"old");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_replaced_keeps_its_owner() {
    let Some(sshd) = sshd("owner") else { return };
    if !nix::unistd::geteuid().is_root() {
        crate::harness::left_out("owner", "only root can give a file to somebody else");
        return;
    }
    let there = sshd.path("there");
    fs::write(&there, "old").unwrap();
    std::os::unix::fs::chown(&there, Some(65534), Some(65534)).unwrap();
    sshd.pool().files().write(there.to_str().unwrap(), b"new", 0o640).await.unwrap();
    let metadata = fs::metadata(&there).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), mode(&there)), (65534, 65534, 0o640));
}
