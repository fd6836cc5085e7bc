//! Who a container's program runs as: what the image says, looked up in the image's own files.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use haar_api::rpc::Fault;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::oci::bad;

const MAX_FILE_BYTES: u64 = 1 << 20;

/// Numbers of a user and of its groups.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    /// Its folder, where the files say it.
    pub(super) home: String,
}

/// Looks a user up in the files below `rootfs`, of which nothing is trusted.
pub(super) fn find(rootfs: &Path, spec: &str) -> Result<User, Fault> {
    resolve(spec, &read(rootfs, "etc/passwd"), &read(rootfs, "etc/group"))
}

/// A file of the image, followed as the container would; empty when there is none, or when it is no file.
fn read(rootfs: &Path, name: &str) -> String {
    let open = || {
        let root = File::open(rootfs)?;
        // Without waiting: a FIFO of that name would hold us for ever.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let file = File::from(rustix::fs::openat2(&root, name, flags, Mode::empty(), inside)?);
        let mut bytes = Vec::new();
        if file.metadata()?.is_file() {
            file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
        }
        Ok::<_, std::io::Error>(bytes)
    };
    String::from_utf8_lossy(&open().unwrap_or_default()).into_owned()
}

fn resolve(spec: &str, passwd: &str, group: &str) -> Result<User, Fault> {
    let (user, own_group) = spec.split_once(':').map_or((spec, None), |(user, group)| (user, Some(group)));
    let user = if user.is_empty() { "0" } else { user };
    let unknown = |what: &str, name: &str| {
        let shown: String = name.chars().take(64).collect();
        bad(format!("the image runs as {what} {shown:?}, which its own files do not know"))
    };
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.len() >= 4 && (fields[0] == user || fields[2] == user));
    let (uid, gid, name, home) = match &entry {
        Some(fields) => {
            let number = |field: &str| field.parse::<u32>().map_err(|_| unknown("user", user));
            (number(fields[2])?, number(fields[3])?, fields[0], fields.get(5).copied().unwrap_or_default())
        }
        None => (user.parse().map_err(|_| unknown("user", user))?, 0, "", ""),
    };
    let groups =
        || group.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(|fields| fields.len() >= 4);
    if let Some(wanted) = own_group.filter(|wanted| !wanted.is_empty()) {
        let named = groups().find(|fields| fields[0] == wanted).map(|fields| fields[2].to_owned());
        let number = named.as_deref().unwrap_or(wanted);
        let gid = number.parse().map_err(|_| unknown("group", wanted))?;
        return Ok(User { uid, gid, groups: Vec::new(), home: home.to_owned() });
    }
    let is_in = |fields: &Vec<&str>| !name.is_empty() && fields[3].split(',').any(|member| member == name);
    let groups = groups().filter(is_in).filter_map(|fields| fields[2].parse().ok()).take(64).collect();
    Ok(User { uid, gid, groups, home: home.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:w:/srv:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nlog:x:4:a,web\n";

    #[test]
    fn names_and_numbers_are_looked_up_in_the_images_files() {
        let found = |spec| resolve(spec, PASSWD, GROUP).unwrap();
        assert_eq!((found("").uid, found("").gid, found("").home), (0, 0, "/root".to_owned()));
        assert_eq!(found("web"), User { uid: 33, gid: 34, groups: vec![4], home: "/srv".to_owned() });
        assert_eq!(found("33"), found("web"));
        assert_eq!((found("web:log").gid, found("web:7").gid, found("1000:1000").gid), (4, 7, 1000));
        assert_eq!(found("1000").uid, 1000);
    }

    #[test]
    fn an_unknown_user_is_refused() {
        for spec in ["nobody", "web:nobody", "-1", "99999999999", "../x"] {
            assert!(resolve(spec, PASSWD, GROUP).is_err(), "{spec}");
        }
    }

    #[test]
    fn a_link_out_of_the_image_is_not_followed_and_a_fifo_holds_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let rootfs = folder.path().join("rootfs");
        std::fs::create_dir_all(rootfs.join("etc")).unwrap();
        std::fs::write(folder.path().join("passwd"), "x:x:5:5::/:/").unwrap();
        std::os::unix::fs::symlink("../../passwd", rootfs.join("etc/passwd")).unwrap();
        assert!(find(&rootfs, "x").is_err());
        std::fs::remove_file(rootfs.join("etc/passwd")).unwrap();
        nix::unistd::mkfifo(&rootfs.join("etc/passwd"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(find(&rootfs, "x").is_err());
    }
}
