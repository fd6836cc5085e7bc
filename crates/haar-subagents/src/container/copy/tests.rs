//! Trees as containers have them: what is in the copy, and what is not.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;

use haar_api::rpc::FaultCode;
use rustix::fs::{CWD, Timestamps, XattrFlags};

use super::*;

const ROOM: Room = Room { bytes: 1 << 20, entries: 100 };

/// A tree, and an empty folder for its copy.
struct Case(tempfile::TempDir);

impl Case {
    fn new() -> Case {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("from")).unwrap();
        fs::create_dir(folder.path().join("to")).unwrap();
        Case(folder)
    }

    fn from(&self, path: &str) -> PathBuf {
        self.0.path().join("from").join(path)
    }

    fn to(&self, path: &str) -> PathBuf {
        self.0.path().join("to").join(path)
    }

    fn copy_with(&self, devices: Devices, room: &mut Room, progress: &Progress) -> Result<Digest, Fault> {
        copy_tree(&self.from(""), &self.to(""), devices, room, progress)
    }

    fn copy(&self) -> Result<Digest, Fault> {
        self.copy_with(Devices::Refused, &mut ROOM.clone(), &Progress::default())
    }
}

#[track_caller]
fn refused(copied: Result<Digest, Fault>, words: &str) {
    let fault = copied.expect_err("this must be refused");
    assert_eq!(fault.code, FaultCode::BadImage, "{fault}");
    assert!(fault.message.contains(words), "{fault} should say {words:?}");
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn files_folders_and_links_are_copied_with_what_they_are() {
    let case = Case::new();
    fs::create_dir_all(case.from("etc/deep")).unwrap();
    fs::write(case.from("etc/motd"), "welcome").unwrap();
    fs::hard_link(case.from("etc/motd"), case.from("etc/deep/second")).unwrap();
    fs::write(case.from("tool"), "x").unwrap();
    fs::set_permissions(case.from("tool"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(case.from("etc/deep"), fs::Permissions::from_mode(0o1711)).unwrap();
    // Where they lead is nobody's business here, and no spelling is changed.
    for (name, target) in [("link", "etc/motd"), ("out", "/never//./there/"), ("loop", "loop")] {
        symlink(target, case.from(name)).unwrap();
    }
    rustix::fs::mknodat(CWD, case.from("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let time = rustix::fs::Timespec { tv_sec: 1_000_000, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    for path in ["tool", "etc/deep", "etc"] {
        rustix::fs::utimensat(CWD, case.from(path), &times, rustix::fs::AtFlags::empty()).unwrap();
    }
    case.copy().unwrap();

    assert_eq!(fs::read_to_string(case.to("etc/motd")).unwrap(), "welcome");
    let (first, second) = (fs::metadata(case.to("etc/motd")).unwrap(), case.to("etc/deep/second"));
    assert_eq!((first.ino(), first.nlink()), (fs::metadata(second).unwrap().ino(), 2));
    assert_eq!((mode(&case.to("tool")), mode(&case.to("etc/deep"))), (0o4751, 0o1711));
    for (name, target) in [("link", "etc/motd"), ("out", "/never//./there/"), ("loop", "loop")] {
        assert_eq!(fs::read_link(case.to(name)).unwrap().as_os_str(), target);
    }
    assert!(fs::symlink_metadata(case.to("fifo")).unwrap().file_type().is_fifo());
    for path in ["tool", "etc/deep", "etc"] {
        assert_eq!(fs::metadata(case.to(path)).unwrap().mtime(), 1_000_000, "{path}");
    }
}

#[test]
fn attributes_of_users_come_along_and_names_are_any_bytes() {
    let case = Case::new();
    let name = OsStr::from_bytes(b"new\nline \xff .wh.name");
    fs::write(case.from("").join(name), "x").unwrap();
    // As no layer could bring it: its lines end at the first of these.
    rustix::fs::setxattr(case.from("").join(name), "user.note", b"a\n\nb\0", XattrFlags::empty()).unwrap();
    fs::write(case.from(".wh.x"), "a file like any other").unwrap();
    case.copy().unwrap();
    let mut value = vec![0; 16];
    let length = rustix::fs::getxattr(case.to("").join(name), "user.note", value.as_mut_slice()).unwrap();
    assert_eq!(&value[..length], b"a\n\nb\0");
    assert!(case.to(".wh.x").exists());
}

#[test]
fn an_owner_and_a_capability_come_along() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let case = Case::new();
    fs::write(case.from("tool"), "x").unwrap();
    symlink("tool", case.from("link")).unwrap();
    for name in ["tool", "link"] {
        std::os::unix::fs::lchown(case.from(name), Some(33), Some(70_000)).unwrap();
    }
    // CAP_DAC_OVERRIDE and CAP_FOWNER: a byte that would end a line.
    let capability = [1, 0, 0, 2, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let key = "security.capability";
    rustix::fs::setxattr(case.from("tool"), key, &capability, XattrFlags::empty()).unwrap();
    case.copy().unwrap();
    for name in ["tool", "link"] {
        let metadata = fs::symlink_metadata(case.to(name)).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (33, 70_000), "{name}");
    }
    let mut value = vec![0; 64];
    let length = rustix::fs::getxattr(case.to("tool"), key, value.as_mut_slice()).unwrap();
    assert_eq!(&value[..length], capability);
}

#[test]
fn sockets_are_left_out_and_so_are_devices_unless_the_operator_allows_them() {
    let case = Case::new();
    let _listener = UnixListener::bind(case.from("socket")).unwrap();
    fs::write(case.from("file"), "x").unwrap();
    let is_root = nix::unistd::geteuid().is_root();
    if is_root {
        let null = rustix::fs::makedev(1, 3);
        rustix::fs::mknodat(CWD, case.from("null"), FileType::CharacterDevice, Mode::RWXU, null).unwrap();
    }
    case.copy().unwrap();
    let names = |folder: &Path| {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&case.to("")), ["file"]);
    if is_root {
        fs::remove_dir_all(case.to("")).unwrap();
        fs::create_dir(case.to("")).unwrap();
        case.copy_with(Devices::Made, &mut ROOM.clone(), &Progress::default()).unwrap();
        assert_eq!(names(&case.to("")), ["file", "null"]);
    }
}

#[test]
fn a_hole_stays_a_hole_and_counts_for_nothing() {
    let case = Case::new();
    let file = File::create(case.from("sparse")).unwrap();
    file.write_all_at(b"begin", 0).unwrap();
    file.write_all_at(b"middle", 512 << 20).unwrap();
    file.set_len(1 << 30).unwrap();
    let mut room = ROOM;
    case.copy_with(Devices::Refused, &mut room, &Progress::default()).unwrap();
    let copy = File::open(case.to("sparse")).unwrap();
    let metadata = copy.metadata().unwrap();
    assert!(metadata.len() == 1 << 30 && metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
    let mut text = [1; 8];
    copy.read_exact_at(&mut text, 512 << 20).unwrap();
    assert_eq!(&text, b"middle\0\0");
    assert!(room.bytes > 0 && room.bytes < ROOM.bytes);
}

#[test]
fn bytes_and_entries_have_a_bound_and_so_has_depth() {
    let case = Case::new();
    for name in ["a", "b", "c"] {
        fs::write(case.from(name), "12345").unwrap();
    }
    let copy = |room: Room| case.copy_with(Devices::Refused, &mut room.clone(), &Progress::default());
    refused(copy(Room { bytes: 14, ..ROOM }), "more bytes");
    let case = Case::new();
    fs::create_dir_all(case.from("a/b/c")).unwrap();
    let copied = case.copy_with(Devices::Refused, &mut Room { entries: 2, ..ROOM }, &Progress::default());
    refused(copied, "more entries");
    let case = Case::new();
    fs::create_dir_all(case.from(&"d/".repeat(129))).unwrap();
    refused(
        case.copy_with(Devices::Refused, &mut Room { entries: 1000, ..ROOM }, &Progress::default()),
        "too deep",
    );
}

#[test]
fn a_copy_that_nobody_wants_any_more_ends() {
    let case = Case::new();
    fs::write(case.from("a"), "1").unwrap();
    let progress = Progress::default();
    progress.cancel();
    let copied = case.copy_with(Devices::Refused, &mut ROOM.clone(), &progress);
    assert_eq!(copied.unwrap_err().code, FaultCode::Unavailable);
    assert!(!case.to("a").exists());
}

#[test]
fn the_digest_is_of_names_contents_and_modes() {
    let of = |change: &dyn Fn(&Case)| {
        let case = Case::new();
        fs::write(case.from("a"), "1").unwrap();
        change(&case);
        let time = std::time::SystemTime::UNIX_EPOCH;
        for path in ["a", ""] {
            let file = File::open(case.from(path));
            let _ = file.and_then(|file| file.set_modified(time));
        }
        case.copy().unwrap()
    };
    let plain = of(&|_| {});
    assert_eq!(plain, of(&|_| {}));
    let others = [
        of(&|case| fs::write(case.from("a"), "2").unwrap()),
        of(&|case| fs::write(case.from("a"), "1\0").unwrap()),
        of(&|case| fs::set_permissions(case.from("a"), fs::Permissions::from_mode(0o700)).unwrap()),
        of(&|case| fs::rename(case.from("a"), case.from("b")).unwrap()),
    ];
    assert!(others.iter().all(|other| *other != plain));
}

#[test]
fn what_an_overlay_has_above_its_image_keeps_its_marks_and_hides_what_it_hid() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let case = Case::new();
    fs::create_dir(case.from("opaque")).unwrap();
    for (name, mark) in [("opaque", "trusted.overlay.opaque"), ("", "trusted.overlay.origin")] {
        rustix::fs::setxattr(case.from(name), mark, b"y", XattrFlags::empty()).unwrap();
    }
    fs::write(case.from("file"), vec![7; 300_000]).unwrap();
    fs::hard_link(case.from("file"), case.from("second")).unwrap();
    let _listener = UnixListener::bind(case.from("socket")).unwrap();
    for (name, number) in [("gone", 0), ("null", rustix::fs::makedev(1, 3))] {
        rustix::fs::mknodat(CWD, case.from(name), FileType::CharacterDevice, Mode::RWXU, number).unwrap();
    }
    let progress = Progress::default();
    copy_upper(&case.from(""), &case.to(""), Devices::Refused, &mut ROOM.clone(), &progress).unwrap();

    assert_eq!(fs::read(case.to("second")).unwrap(), vec![7; 300_000]);
    assert_eq!(fs::metadata(case.to("file")).unwrap().nlink(), 2);
    for hiding in ["gone", "null", "socket"] {
        let metadata = fs::symlink_metadata(case.to(hiding)).unwrap();
        assert!(metadata.file_type().is_char_device() && metadata.rdev() == 0, "{hiding}");
    }
    let mark = |name: &str, mark: &str| {
        let mut value = vec![0; 16];
        rustix::fs::getxattr(case.to(name), mark, value.as_mut_slice()).map(|length| value[..length].to_vec())
    };
    assert_eq!(mark("opaque", "trusted.overlay.opaque"), Ok(b"y".to_vec()));
    assert_eq!(mark("", "trusted.overlay.origin"), Err(Errno::NODATA), "it is of another place");
    assert_eq!(progress.bytes(), (0, 0), "the image is yet to be made");
}
