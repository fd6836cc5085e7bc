//! `cargo xtask image --check`: boots the image as a hypervisor would and looks at all it promises.
//!
//! QEMU without KVM, q35, virtio, a seed disk; twice from the same disk: name and address from the
//! seed, the host key the seed brings and the console shows, login by key, files over sftp, a file that
//! survives a power button, growth to a larger disk. Every wait is for a condition, with a limit. Uses no libvirt and no root.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::Image;
use crate::{packages, run};

const MAC: &str = "02:ab:cd:00:00:01";
/// What the emulated user network gives to a guest that does not ask.
const ADDRESS: &str = "10.0.2.15/24";
const BOOT_LIMIT: Duration = Duration::from_secs(120);
const STEP_LIMIT: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Runs the whole check; the error says which promise was broken and holds the console's end.
pub(super) fn check(image: &Image) -> Result<()> {
    packages::install(&packages::of(&[
        "qemu-system-x86",
        "qemu-utils",
        "openssh-client",
        "mtools",
        "dosfstools",
    ])?)?;
    let scratch = run::Scratch::inside(&std::env::temp_dir())?;
    let bench = Bench::prepare(scratch.path(), image)?;

    let mut first = bench.boot("first")?;
    first.waits_for("haar-guest: booted from its own disk /dev/vda2")?;
    first.waits_for("haar-guest: seed disk read, host name web")?;
    first.waits_for(&format!("haar-guest: address {ADDRESS} set on eth0"))?;
    first.waits_for(&bench.host_key("root@web")?)?;
    first.waits_for("-----END SSH HOST KEY KEYS-----")?;
    let ready = first.waits_for("haar-guest: ready")?;
    eprintln!("  ready after {:.1} s", ready.as_secs_f32());
    let said = first.ssh("hostname; cat /root/from-seed; echo kept >/root/kept; df -m / | tail -n 1")?;
    let lines: Vec<&str> = said.lines().collect();
    ensure!(lines.first() == Some(&"web"), "the guest calls itself {said:?}");
    ensure!(lines.get(1) == Some(&"seeded"), "the seed's command did not run: {said:?}");
    let mebibytes = lines
        .get(2)
        .and_then(|line| line.split_whitespace().nth(1))
        .and_then(|word| word.parse::<u64>().ok());
    ensure!(mebibytes.is_some_and(|size| size > 300), "the root did not grow to the disk: {said:?}");
    eprintln!("  logged in by key after {:.1} s; root grown", first.began.elapsed().as_secs_f32());
    let sent = bench.file("meta-data");
    let back = bench.file("back");
    first.sftp(&format!("put {sent} /root/sent\nget /root/sent {back}\n"))?;
    ensure!(std::fs::read(&back)? == std::fs::read(&sent)?, "a file came back over sftp as another");
    eprintln!("  a file went there and back over sftp");
    first.press_power_button()?;

    let mut second = bench.boot("second")?;
    second.waits_for("haar-guest: ready")?;
    let said = second.ssh("cat /root/kept; ls /root/from-seed.twice 2>/dev/null || echo once")?;
    ensure!(said == "kept\nonce\n", "after a stop and a start the disk holds {said:?}");
    eprintln!("  the disk kept its file over a stop and a start");
    second.press_power_button()
}

/// The files of one check: a disk on top of the image, the seed, a key.
struct Bench {
    folder: PathBuf,
}

impl Bench {
    fn prepare(folder: &Path, image: &Image) -> Result<Self> {
        let bench = Self { folder: folder.to_owned() };
        for name in ["key", "host"] {
            let file = bench.file(name);
            run::quiet("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "check", "-f", &file])?;
        }
        bench.write("known_hosts", &format!("web {}\n", bench.host_key("")?))?;
        let backing = image.path.canonicalize()?.display().to_string();
        run::quiet(
            "qemu-img",
            ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &backing, &bench.file("disk"), "400M"],
        )?;
        let key = std::fs::read_to_string(bench.file("key.pub"))?;
        let key = key.trim();
        let command = "[ -e /root/from-seed ] && touch /root/from-seed.twice; echo seeded > /root/from-seed";
        bench.write(
            "meta-data",
            &format!(r#"{{"instance-id":"check-1","local-hostname":"web","public-keys":["{key}"]}}"#),
        )?;
        let host_key = std::fs::read_to_string(bench.file("host"))?.replace('\n', "\\n");
        bench.write("user-data", &format!("#cloud-config\n{{\"hostname\":\"web\",\"ssh_authorized_keys\":[\"{key}\"],\"ssh_keys\":{{\"ed25519_private\":\"{host_key}\"}},\"runcmd\":[\"{command}\"]}}"))?;
        let network = format!(
            r#"{{"version":2,"ethernets":{{"lan":{{"match":{{"macaddress":"{MAC}"}},"addresses":["{ADDRESS}","fec0::15/64"],"routes":[{{"to":"default","via":"10.0.2.2"}}],"nameservers":{{"addresses":["10.0.2.3"]}}}}}}}}"#
        );
        bench.write("network-config", &network)?;
        run::quiet("mkfs.vfat", ["-C", "-n", "cidata", &bench.file("seed"), "512"])?;
        for name in ["meta-data", "user-data", "network-config"] {
            run::quiet("mcopy", ["-i", &bench.file("seed"), &bench.file(name), &format!("::{name}")])?;
        }
        Ok(bench)
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// The key that the guest must show: its type, the key, and what stands behind them.
    fn host_key(&self, comment: &str) -> Result<String> {
        let text = std::fs::read_to_string(self.file("host.pub"))?;
        let words: Vec<&str> = text.split_whitespace().take(2).chain([comment]).collect();
        Ok(words.join(" "))
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(std::fs::write(self.folder.join(name), text)?)
    }

    fn boot(&self, name: &str) -> Result<Guest<'_>> {
        let console = self.file(&format!("{name}.console"));
        let monitor = self.file(&format!("{name}.qmp"));
        let mut qemu = run::command("qemu-system-x86_64");
        qemu.args([
            "-machine",
            "q35,accel=tcg",
            "-m",
            "256",
            "-smp",
            "1",
            "-display",
            "none",
            "-nodefaults",
            "-vga",
            "std",
        ]);
        qemu.args([
            "-serial",
            &format!("file:{console}"),
            "-qmp",
            &format!("unix:{monitor},server=on,wait=off"),
        ]);
        qemu.args(["-drive", &format!("if=none,id=disk,format=qcow2,file={}", self.file("disk"))]);
        qemu.args(["-drive", &format!("if=none,id=seed,format=raw,readonly=on,file={}", self.file("seed"))]);
        qemu.args(["-netdev", "user,id=lan,hostfwd=tcp:127.0.0.1:0-:22"]);
        let card = format!("virtio-net-pci,netdev=lan,mac={MAC}");
        let devices =
            [&card, "virtio-blk-pci,drive=disk,bootindex=1", "virtio-blk-pci,drive=seed", "virtio-rng-pci"];
        for (slot, device) in devices.iter().enumerate() {
            // libvirt puts each device of a q35 machine behind a root port of its own; so do we.
            qemu.args(["-device", &format!("pcie-root-port,id=port{slot},chassis={slot}")]);
            qemu.args(["-device", &format!("{device},bus=port{slot}")]);
        }
        let errors = std::fs::File::create(self.folder.join(format!("{name}.errors")))?;
        let process = qemu
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .context("cannot start QEMU")?;
        let process = run::Running(process);
        Ok(Guest {
            bench: self,
            process,
            console: console.into(),
            monitor: monitor.into(),
            began: Instant::now(),
        })
    }
}

/// A running guest; it is ended with this value.
struct Guest<'a> {
    bench: &'a Bench,
    process: run::Running,
    console: PathBuf,
    monitor: PathBuf,
    began: Instant,
}

impl Guest<'_> {
    /// Waits until the console has shown `line`; returns the time since the start.
    fn waits_for(&mut self, line: &str) -> Result<Duration> {
        while !self.printed().contains(line) {
            if let Some(status) = self.process.0.try_wait()? {
                bail!("QEMU ended with {status} before the console said `{line}`:\n{}", self.last_words());
            }
            if self.began.elapsed() > BOOT_LIMIT {
                bail!("the console did not say `{line}` in {BOOT_LIMIT:?}:\n{}", self.last_words());
            }
            sleep(LOOK_AGAIN);
        }
        Ok(self.began.elapsed())
    }

    /// Runs one command in the guest by ssh.
    fn ssh(&self, command: &str) -> Result<String> {
        let mut ssh = run::command("ssh");
        ssh.args(self.ssh_options()).args(["-p", &self.ssh_port()?, "root@127.0.0.1", command]);
        run::quietly(&mut ssh)
            .with_context(|| format!("login failed; the console's end:\n{}", self.last_words()))
    }

    /// Does what these lines say, as a user of sftp would type them.
    fn sftp(&self, lines: &str) -> Result<()> {
        let batch = self.bench.file("batch");
        std::fs::write(&batch, lines)?;
        let mut sftp = run::command("sftp");
        sftp.args(self.ssh_options()).args(["-q", "-P", &self.ssh_port()?, "-b", &batch, "root@127.0.0.1"]);
        run::quietly(&mut sftp).map(drop)
    }

    /// How ssh trusts the guest: by the key that the seed brought it, and by no other.
    fn ssh_options(&self) -> Vec<String> {
        let limit = STEP_LIMIT.as_secs();
        let known_hosts = self.bench.file("known_hosts");
        let mut words: Vec<String> = ["-F", "none", "-i"].map(str::to_owned).into();
        words.push(self.bench.file("key"));
        for option in [
            "IdentitiesOnly=yes".to_owned(),
            "BatchMode=yes".to_owned(),
            "HostKeyAlias=web".to_owned(),
            "StrictHostKeyChecking=yes".to_owned(),
            format!("UserKnownHostsFile={known_hosts}"),
            "LogLevel=ERROR".to_owned(),
            format!("ConnectTimeout={limit}"),
        ] {
            words.extend(["-o".to_owned(), option]);
        }
        words
    }

    /// The port that QEMU chose on the host for the guest's ssh.
    fn ssh_port(&self) -> Result<String> {
        let table =
            self.ask(r#"{"execute":"human-monitor-command","arguments":{"command-line":"info usernet"}}"#)?;
        let after = table.split("HOST_FORWARD]").nth(1).context("QEMU forwards no port")?;
        // File number, host address, host port.
        Ok(after.split_whitespace().nth(2).context("QEMU's table of ports is cut off")?.to_owned())
    }

    /// Presses the virtual power button and waits for the guest to end by itself.
    fn press_power_button(mut self) -> Result<()> {
        self.ask(r#"{"execute":"system_powerdown"}"#)?;
        let pressed = Instant::now();
        loop {
            if let Some(status) = self.process.0.try_wait()? {
                ensure!(status.success(), "QEMU ended with {status}");
                ensure!(
                    self.printed().contains("haar-guest: stopping"),
                    "the guest fell instead of stopping"
                );
                eprintln!("  stopped {:.1} s after the power button", pressed.elapsed().as_secs_f32());
                return Ok(());
            }
            if pressed.elapsed() > STEP_LIMIT {
                bail!("the power button did nothing in {STEP_LIMIT:?}:\n{}", self.last_words());
            }
            sleep(LOOK_AGAIN);
        }
    }

    /// One request to QEMU's monitor; returns the line that answers it.
    fn ask(&self, request: &str) -> Result<String> {
        let stream = UnixStream::connect(&self.monitor).context("cannot reach QEMU's monitor")?;
        stream.set_read_timeout(Some(STEP_LIMIT))?;
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        lines.next().context("QEMU's monitor is silent")??;
        for message in [r#"{"execute":"qmp_capabilities"}"#, request] {
            writeln!(&stream, "{message}")?;
            // Events come between; the answer is the line that has one of these words.
            let answer = lines
                .by_ref()
                .map_while(std::result::Result::ok)
                .find(|line| line.contains("\"return\"") || line.contains("\"error\""));
            let answer = answer.context("QEMU's monitor gave no answer")?;
            ensure!(!answer.contains("\"error\""), "QEMU refused {message}: {answer}");
            if message == request {
                return Ok(answer);
            }
        }
        bail!("QEMU's monitor gave no answer")
    }

    fn printed(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    fn last_words(&self) -> String {
        let printed = self.printed();
        let lines: Vec<&str> = printed.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}
