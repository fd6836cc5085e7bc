//! What cloud-init is told at a server's first boot, and the host keys that a server tells on its console.
//!
//! The server gets an ssh host key of our making, so the key that it must show is known before it boots. An
//! image that ignores that prints its own keys on the console, which is read through the cloud's API. The
//! same text makes the sentinel last of all: when it is there, the first boot is done. The host key's private
//! half is in the user data, where the server's own users may read it: it proves to us which server it is,
//! and nothing more. Deliberately absent: shell scripts as user data, which cannot set a host key in time.

use haar_ssh::{HostKeys, KeyPair};
use serde_json::{Value, json};

/// The file that is there when the first boot is done. Only root can make it.
pub const SENTINEL: &str = "/var/lib/cloud/haar-ready";

const BEGIN: &str = "-----BEGIN SSH HOST KEY KEYS-----";
const END: &str = "-----END SSH HOST KEY KEYS-----";

/// What a first boot needs to know.
#[derive(Debug)]
pub(crate) struct UserData<'a> {
    /// Who logs in.
    pub(crate) user: &'a str,
    /// The public key that may log in.
    pub(crate) authorized_key: &'a str,
    /// The host key the server is to have.
    pub(crate) host_key: &'a KeyPair,
}

impl UserData<'_> {
    /// As a cloud-config. JSON is YAML too, and quotes every text safely.
    pub(crate) fn cloud_config(&self) -> String {
        let mut config = json!({
            "ssh_authorized_keys": [self.authorized_key],
            "ssh_keys": {
                "ed25519_private": self.host_key.private,
                "ed25519_public": self.host_key.public.trim(),
            },
            "ssh": {"emit_keys_on_console": true},
            "runcmd": commands(),
        });
        // Root is there on every image; any other user is the image's own default one, under this name.
        let (key, value) = match self.user {
            "root" => ("disable_root", Value::Bool(false)),
            user => ("user", json!({"name": user})),
        };
        config[key] = value;
        format!("#cloud-config\n{config}\n")
    }
}

/// Each is one line without double quotes, so that also images with a simple reader of user data run them.
fn commands() -> Vec<String> {
    let keys = format!(
        "{{ echo '{BEGIN}'; cat /etc/ssh/ssh_host_*_key.pub; for key in /etc/dropbear/*_host_key; do dropbearkey -y -f $key | grep ^ssh-; done; echo '{END}'; }} 2>/dev/null >/dev/console"
    );
    vec![
        // Commands run without a terminal.
        "[ ! -f /etc/sudoers ] || sed -i 's/^Defaults  *requiretty/# &/' /etc/sudoers".to_owned(),
        // File systems that users mount can be opened to others.
        "[ ! -f /etc/fuse.conf ] || sed -i 's/^# *user_allow_other/user_allow_other/' /etc/fuse.conf"
            .to_owned(),
        "[ ! -f /etc/fuse.conf ] || chmod a+r /etc/fuse.conf".to_owned(),
        // Whoever operates it may sync, remount read-only and power off by sysrq.
        "echo 176 >/proc/sys/kernel/sysrq".to_owned(),
        keys,
        "mkdir -p /var/lib/cloud".to_owned(),
        format!("touch {SENTINEL}"),
    ]
}

/// The host keys that a server told on its console, in OpenSSH's form: those of the last whole block, since
/// a server that is made anew tells new ones. A line that something else was written into is no key, and is left
/// out; so are keys of kinds that are not spoken here, such as RSA.
///
/// ```
/// let console = "[  9.1] cloud-init: -----BEGIN SSH HOST KEY KEYS-----\r\n\
///     ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz1HwHReFVvD5obVsALAgJRNarH4TRpNePnAS root@web\r\n\
///     ssh-ed25519 AAAAC3NzaC1lZDI1NTE5A\r\n\
///     -----END SSH HOST KEY KEYS-----\r\n";
/// let keys = haar_cloud::user_data::host_keys_from_console(console);
/// assert_eq!(keys, ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz1HwHReFVvD5obVsALAgJRNarH4TRpNePnAS"]);
/// ```
#[must_use]
pub fn host_keys_from_console(text: &str) -> Vec<String> {
    let mut last = Vec::new();
    let mut block: Option<Vec<String>> = None;
    for line in text.lines() {
        if line.contains(BEGIN) {
            block = Some(Vec::new());
        } else if line.contains(END) {
            last = block.take().filter(|keys| !keys.is_empty()).unwrap_or(last);
        } else if let Some(keys) = &mut block {
            keys.extend(key_in(line).filter(|key| is_host_key(key)));
        }
    }
    last
}

/// Whether it is a host key in OpenSSH's form, of a kind that a server can show us.
pub(crate) fn is_host_key(line: &str) -> bool {
    HostKeys::pinned([line]).is_ok()
}

/// The key in a line of the console, which may begin with a time or a program's name.
fn key_in(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let is_key = |pair: &&[&str]| {
        let kind = pair[0].starts_with("ssh-") || pair[0].starts_with("ecdsa-sha2-");
        let base64 = |sign: char| sign.is_ascii_alphanumeric() || "+/=".contains(sign);
        kind && pair[1].starts_with("AAAA") && pair[1].chars().all(base64)
    };
    words.windows(2).find(is_key).map(|pair| pair.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(user: &str) -> Value {
        let host_key = crate::key::generate().unwrap();
        let data = UserData { user, authorized_key: "ssh-ed25519 AAAA \"odd\" comment", host_key: &host_key };
        let text = data.cloud_config();
        let json = text.strip_prefix("#cloud-config\n").unwrap();
        assert_eq!(json.trim_end().lines().count(), 1);
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_server_is_given_its_host_key_and_its_user() {
        let config = config("debian");
        assert_eq!(config["user"]["name"], "debian");
        assert_eq!(config["ssh_authorized_keys"][0], "ssh-ed25519 AAAA \"odd\" comment");
        let text = |key: &str| config["ssh_keys"][key].as_str().unwrap().to_owned();
        assert!(text("ed25519_private").starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n"));
        assert!(text("ed25519_public").starts_with("ssh-ed25519 AAAA"));
    }

    #[test]
    fn root_may_log_in_where_it_is_the_user() {
        let config = config("root");
        assert_eq!(config["disable_root"], false);
        assert!(config.get("user").is_none());
    }

    #[test]
    fn the_sentinel_comes_last_and_every_command_is_plain() {
        let commands = commands();
        assert_eq!(commands.last().unwrap(), &format!("touch {SENTINEL}"));
        assert!(commands.iter().all(|command| !command.contains(['"', '\\', '\n', '\t'])));
        assert!(commands.iter().any(|command| command.contains(BEGIN) && command.contains(END)));
    }

    #[test]
    fn keys_on_a_console_are_taken_from_the_last_whole_block() {
        let [old, one, two] = [(); 3].map(|()| crate::key::generate().unwrap().public.trim().to_owned());
        let text = format!(
            "{old} outside\n\
            -----BEGIN SSH HOST KEY KEYS-----\n{old} x\n-----END SSH HOST KEY KEYS-----\n\
            <14>Nov 21 12:00:00 web ec2: -----BEGIN SSH HOST KEY KEYS-----\r\n\
            [   12.1] cloud-init[7]: {one} root@web\r\n\
            {two}\r\nssh-rsa broken\nssh-rsa AAAA\u{1b}[2J\n\
            -----END SSH HOST KEY KEYS-----\n\
            -----BEGIN SSH HOST KEY KEYS-----\n{old} cut"
        );
        assert_eq!(host_keys_from_console(&text), [one, two]);
        assert!(host_keys_from_console("").is_empty());
        let empty = "-----BEGIN SSH HOST KEY KEYS-----\n-----END SSH HOST KEY KEYS-----\n";
        assert!(host_keys_from_console(empty).is_empty());
    }

    #[test]
    fn a_key_that_something_was_written_into_is_no_key() {
        let key = crate::key::generate().unwrap().public.trim().to_owned();
        let (half, rest) = key.split_at(50);
        for spoilt in
            [half.to_owned(), format!("{half}\n[  9.1] eth0: link up\n{rest}"), format!("{key}AAAA")]
        {
            let block = format!("{BEGIN}\n{spoilt}\n{key} root@web\n{END}\n");
            assert_eq!(host_keys_from_console(&block), [key.as_str()], "{spoilt}");
        }
    }
}
