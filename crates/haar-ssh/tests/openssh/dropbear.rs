//! The other server that is common: dropbear, as small systems have it, Haar's own tiny guest among them.
//!
//! It reads keys from the home of who logs in only, so that it runs where root's home is one of its own.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use haar_ssh::{HostKeys, KeyPair, Login, Options, Pool, Target, script};

use crate::harness::{eventually, free_port, left_out, left_out_here, limits, never, write_private};

const PROGRAM: &str = "/usr/sbin/dropbear";
const CONVERT: &str = "/usr/bin/dropbearconvert";
/// Begins the server, whose folder is `$1` and whose port is `$2`.
const BEGIN: &str = "mount -t tmpfs -o mode=700 none /root && mkdir -m 700 /root/.ssh && cp \"$1/authorized_keys\" /root/.ssh/ && \
    chmod 600 /root/.ssh/authorized_keys && exec /usr/sbin/dropbear -F -E -s -r \"$1/host_key\" -p \"127.0.0.1:$2\" -P \"$1/pid\"";

/// Ended when dropped.
struct Dropbear(Child);

impl Drop for Dropbear {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(folder: &Path, key: &KeyPair, host_key: &KeyPair, port: u16) -> Dropbear {
    let path = |name: &str| folder.join(name);
    std::fs::write(path("authorized_keys"), &key.public).unwrap();
    write_private(&path("openssh_key"), &host_key.private);
    let mut convert = Command::new(CONVERT);
    convert.args(["openssh", "dropbear"]).args([path("openssh_key"), path("host_key")]);
    assert!(convert.stderr(Stdio::null()).status().unwrap().success());
    let mut server = Command::new("unshare");
    server.args(["--mount", "sh", "-c", BEGIN, "sh"]).arg(folder).arg(port.to_string());
    Dropbear(server.stderr(Stdio::null()).spawn().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn dropbear_ends_no_session_for_one_that_is_being_closed() {
    let test = "dropbear";
    if !nix::unistd::geteuid().is_root() {
        return left_out_here(test, "only root can give it a home of its own");
    }
    if !Path::new(PROGRAM).exists() || !Path::new(CONVERT).exists() {
        return left_out(test, "there is no dropbear: install the package dropbear-bin");
    }
    let folder = tempfile::tempdir().unwrap();
    let (key, host_key, port) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap(), free_port());
    let _server = start(folder.path(), &key, &host_key, port);
    eventually("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
    let host_keys = HostKeys::pinned([host_key.public.as_str()]).unwrap();
    let target = Target::new("127.0.0.1", "root").port(port);
    let pool = Pool::new(Options {
        limits: limits(),
        ..Options::new(target, vec![Login::Key(key.private)], host_keys)
    });
    let path = folder.path().join("script").to_str().unwrap().to_owned();
    // Each session begins just when the one of sftp ends.
    for round in 0..20 {
        let files = pool.files();
        files.write(&path, b"#!/bin/sh\nexit 7\n", 0o700).await.unwrap();
        drop(files);
        let run = haar_ssh::Command::new(script("\"$1\"; status=$?; rm \"$1\"; exit $status", &[&path]));
        let output = pool.run(&run, &never()).await.unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!((output.status, Path::new(&path).exists()), (7, false), "round {round}");
    }
    assert_eq!(pool.connections(), 1);
    pool.close();
}
