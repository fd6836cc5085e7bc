//! Layers as friends and strangers make them: what is laid, what is refused, and that nothing outside is touched.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use haar_api::rpc::FaultCode;
use tar::{Builder, Header};

use super::*;

/// A layer's entries as a test writes them.
enum E<'a> {
    File(&'a str, &'a str),
    Folder(&'a str),
    Symlink(&'a str, &'a str),
    Hard(&'a str, &'a str),
    Device(&'a str, u32, u32),
    Kind(&'a str, u8),
}

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o750);
    header.set_mtime(1_000_000);
    header.set_uid(u64::from(nix::unistd::geteuid().as_raw()));
    header.set_gid(u64::from(nix::unistd::getegid().as_raw()));
    header
}

/// Names as they are, also those that the crate would refuse to write.
fn name(header: &mut Header, field: fn(&mut tar::GnuHeader) -> &mut [u8; 100], text: &str) {
    let field = field(header.as_gnu_mut().unwrap());
    field[..text.len()].copy_from_slice(text.as_bytes());
}

fn layer(entries: &[E<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for entry in entries {
        let (mut head, path, target, text) = match entry {
            E::File(path, text) => (header(EntryType::Regular, text.len() as u64), path, "", *text),
            E::Folder(path) => (header(EntryType::Directory, 0), path, "", ""),
            E::Symlink(path, target) => (header(EntryType::Symlink, 0), path, *target, ""),
            E::Hard(path, target) => (header(EntryType::Link, 0), path, *target, ""),
            E::Device(path, major, minor) => {
                let mut head = header(EntryType::Char, 0);
                head.set_device_major(*major).unwrap();
                head.set_device_minor(*minor).unwrap();
                (head, path, "", "")
            }
            E::Kind(path, kind) => (header(EntryType::new(*kind), 0), path, "", ""),
        };
        name(&mut head, |gnu| &mut gnu.name, path);
        name(&mut head, |gnu| &mut gnu.linkname, target);
        head.set_cksum();
        builder.append(&head, text.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

const ROOM: Room = Room { bytes: 1 << 20, entries: 100 };

/// A folder for the root, with a neighbour that must stay as it is.
struct Case {
    folder: tempfile::TempDir,
}

impl Case {
    fn new() -> Case {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("root")).unwrap();
        fs::create_dir(folder.path().join("outside")).unwrap();
        fs::write(folder.path().join("outside/secret"), "untouched").unwrap();
        Case { folder }
    }

    fn root(&self) -> std::path::PathBuf {
        self.folder.path().join("root")
    }

    fn lay_bytes(&self, bytes: &[u8]) -> Result<Digest, Fault> {
        self.lay_with(bytes, Devices::Refused, &mut ROOM.clone())
    }

    fn lay_with(&self, bytes: &[u8], devices: Devices, room: &mut Room) -> Result<Digest, Fault> {
        lay(&mut Root::open(&self.root()).unwrap(), bytes, devices, room)
    }

    fn lay(&self, entries: &[E<'_>]) -> Result<Digest, Fault> {
        let laid = self.lay_bytes(&layer(entries));
        let outside = self.folder.path().join("outside");
        assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "untouched");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "nothing is made outside");
        assert_eq!(fs::read_dir(self.folder.path()).unwrap().count(), 2, "nothing is made beside the root");
        laid
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap()
    }

    fn is_there(&self, path: &str) -> bool {
        self.root().join(path).symlink_metadata().is_ok()
    }
}

#[track_caller]
fn refused(laid: Result<Digest, Fault>, words: &str) {
    let fault = laid.expect_err("this must be refused");
    assert_eq!(fault.code, FaultCode::BadImage, "{fault}");
    assert!(fault.message.contains(words), "{fault} should say {words:?}");
}

#[test]
fn files_folders_and_links_are_laid_with_what_they_are() {
    let case = Case::new();
    let entries = [
        E::Folder("./"),
        E::Folder("./etc/"),
        E::File("etc/motd", "welcome"),
        E::File("deep/in/folders/nobody/named", "x"),
        E::Symlink("etc/link", "motd"),
        E::Hard("etc/second", "etc/motd"),
        E::Kind("run/fifo", b'6'),
    ];
    let digest = case.lay(&entries).unwrap();
    assert_eq!(digest, Digest::of(&layer(&entries)));
    assert_eq!(case.text("etc/motd"), "welcome");
    assert_eq!(case.text("etc/link"), "welcome");
    assert_eq!(case.text("deep/in/folders/nobody/named"), "x");
    let (first, second) = (case.root().join("etc/motd"), case.root().join("etc/second"));
    let metadata = fs::metadata(&first).unwrap();
    assert_eq!(metadata.ino(), fs::metadata(second).unwrap().ino());
    assert_eq!((metadata.permissions().mode() & 0o7777, metadata.mtime()), (0o750, 1_000_000));
    assert_eq!(fs::metadata(case.root().join("etc")).unwrap().mtime(), 1_000_000, "set after its files");
    assert!(case.is_there("run/fifo"));
}

#[test]
fn a_name_that_leads_out_is_refused() {
    for path in ["../outside/secret", "a/../../outside/secret", "/etc/passwd", "..", "a/..", "./../x"] {
        refused(Case::new().lay(&[E::File(path, "bad")]), "entry");
        refused(Case::new().lay(&[E::Folder(path)]), "entry");
        refused(Case::new().lay(&[E::File("a", "x"), E::Hard("b", path)]), "entry");
    }
}

#[test]
fn a_symlink_is_followed_inside_the_root_and_never_out_of_it() {
    for target in ["/outside", "../outside", "../../../../../../outside", "/../outside"] {
        let case = Case::new();
        let outside = case.folder.path().join("outside");
        let target = if target == "/outside" { outside.to_str().unwrap() } else { target };
        // Where the symlink would lead from outside is made inside, or is refused; never followed.
        let _ = case.lay(&[E::Symlink("link", target), E::File("link/secret", "bad")]);
        let _ = case.lay(&[E::Symlink("link", target), E::Folder("link/new")]);
        let _ = case.lay(&[E::Symlink("link", target), E::Kind("link/fifo", b'6')]);
        let _ = case.lay(&[E::Symlink("link", target), E::Symlink("link/other", "x")]);
        let _ = case.lay(&[E::Symlink("link", target), E::Hard("stolen", "link/secret")]);
        let _ = case.lay(&[E::Symlink("link", target), E::Hard("link/given", "stolen")]);
        let _ = case.lay(&[E::Symlink("link", target), E::File("link/.wh.secret", "")]);
        let _ = case.lay(&[E::Symlink("link", target), E::File("link/.wh..wh..opq", "")]);
        assert!(!case.is_there("stolen") || case.text("stolen") != "untouched", "{target}");
    }
    let case = Case::new();
    case.lay(&[E::Folder("usr/bin"), E::Symlink("bin", "usr/bin")]).unwrap();
    case.lay(&[E::File("bin/tool", "inside")]).unwrap();
    assert_eq!(case.text("usr/bin/tool"), "inside");
}

#[test]
fn a_file_replaces_a_symlink_and_is_not_written_through_it() {
    let case = Case::new();
    symlink(case.folder.path().join("outside/secret"), case.root().join("a")).unwrap();
    case.lay(&[E::File("a", "mine")]).unwrap();
    assert!(case.root().join("a").symlink_metadata().unwrap().is_file());
    symlink(case.folder.path().join("outside"), case.root().join("b")).unwrap();
    case.lay(&[E::Folder("b"), E::File("b/secret", "mine")]).unwrap();
    assert_eq!(case.text("b/secret"), "mine");
}

#[test]
fn a_whiteout_removes_what_lower_layers_laid() {
    let case = Case::new();
    case.lay(&[E::File("a/one", "1"), E::File("a/two", "2"), E::File("b/deep/x", "3"), E::File("c", "4")])
        .unwrap();
    case.lay(&[E::File("a/.wh.one", ""), E::File(".wh.b", ""), E::File(".wh.never", "")]).unwrap();
    assert!(!case.is_there("a/one") && !case.is_there("b"));
    assert_eq!((case.text("a/two"), case.text("c")), ("2".to_owned(), "4".to_owned()));
    assert!(!case.is_there("a/.wh.one"), "a whiteout is no file");
}

#[test]
fn an_opaque_folder_keeps_only_what_its_own_layer_laid_before_or_after() {
    let case = Case::new();
    case.lay(&[E::File("a/old", "1"), E::File("a/sub/old", "2"), E::File("a/both", "3")]).unwrap();
    case.lay(&[
        E::File("a/before", "new"),
        E::File("a/both", "new"),
        E::File("a/sub/new", "new"),
        E::File("a/.wh..wh..opq", ""),
        E::File("a/after", "new"),
    ])
    .unwrap();
    assert!(!case.is_there("a/old") && !case.is_there("a/sub/old"));
    for own in ["a/before", "a/both", "a/sub/new", "a/after"] {
        assert_eq!(case.text(own), "new", "{own}");
    }
}

#[test]
fn a_whiteout_of_its_own_layers_file_does_nothing() {
    let case = Case::new();
    case.lay(&[E::File("a", "mine"), E::File(".wh.a", "")]).unwrap();
    assert_eq!(case.text("a"), "mine");
}

#[test]
fn a_hostile_whiteout_leads_nowhere() {
    for path in [".wh.", ".wh..", ".wh...", "a/.wh..", "../.wh.outside", "../outside/.wh.secret"] {
        refused(Case::new().lay(&[E::File("a/b", "x"), E::File(path, "")]), "");
    }
}

#[test]
fn a_devices_node_is_refused_unless_the_operator_allows_it() {
    refused(Case::new().lay(&[E::Device("dev/null", 1, 3)]), "device");
    let case = Case::new();
    let wiped = case.lay_with(&layer(&[E::Device("x", 0, 0)]), Devices::Made, &mut ROOM.clone());
    refused(wiped, "device");
    if nix::unistd::geteuid().is_root() {
        case.lay_with(&layer(&[E::Device("null", 1, 3)]), Devices::Made, &mut ROOM.clone()).unwrap();
        assert_eq!(fs::metadata(case.root().join("null")).unwrap().rdev(), rustix::fs::makedev(1, 3));
    }
}

#[test]
fn what_is_no_kind_of_file_is_refused() {
    for kind in [b'Z', b'V', b'M', 0xff] {
        refused(Case::new().lay(&[E::Kind("x", kind)]), "kind");
    }
}

#[test]
fn a_hard_link_to_what_is_no_file_is_refused() {
    refused(Case::new().lay(&[E::Folder("a"), E::Hard("b", "a")]), "no file");
    refused(Case::new().lay(&[E::Hard("b", "never")]), "no file");
    refused(Case::new().lay(&[E::Hard("b", "a/never")]), "no file");
}

#[test]
fn bytes_and_entries_have_a_bound() {
    let case = Case::new();
    let mut room = Room { bytes: 10, entries: 100 };
    let laid =
        case.lay_with(&layer(&[E::File("a", "12345"), E::File("b", "123456")]), Devices::Refused, &mut room);
    refused(laid, "more bytes");
    let mut room = Room { bytes: 100, entries: 2 };
    let laid =
        case.lay_with(&layer(&[E::Folder("a"), E::Folder("b"), E::Folder("c")]), Devices::Refused, &mut room);
    refused(laid, "more entries");
}

#[test]
fn a_small_layer_that_unpacks_to_much_is_stopped() {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let mut head = header(EntryType::Regular, 1 << 30);
    name(&mut head, |gnu| &mut gnu.name, "zeros");
    head.set_cksum();
    packed.write_all(head.as_bytes()).unwrap();
    for _ in 0..64 {
        packed.write_all(&[0; 1 << 16]).unwrap();
    }
    let bytes = packed.finish().unwrap();
    assert!(bytes.len() < 1 << 14, "{}", bytes.len());
    let case = Case::new();
    refused(case.lay_bytes(&bytes), "more bytes");
    assert!(fs::metadata(case.root().join("zeros")).unwrap().len() <= ROOM.bytes);
}

#[test]
fn a_head_without_end_is_stopped() {
    for kind in [b'L', b'K', b'x'] {
        let mut head = header(EntryType::new(kind), 1 << 40);
        name(&mut head, |gnu| &mut gnu.name, "long");
        head.set_cksum();
        let endless = head.as_bytes().as_slice().chain(io::repeat(b'a'));
        let case = Case::new();
        let mut root = Root::open(&case.root()).unwrap();
        refused(lay(&mut root, endless, Devices::Refused, &mut ROOM.clone()), "too long");
    }
    // After the archive's end too.
    let endless = io::repeat(0);
    let case = Case::new();
    refused(
        lay(&mut Root::open(&case.root()).unwrap(), endless, Devices::Refused, &mut ROOM.clone()),
        "too long",
    );
}

#[test]
fn a_layer_that_breaks_off_is_refused() {
    let whole = layer(&[E::File("a", &"x".repeat(5000)), E::File("b", "y")]);
    for length in [1, 300, 513, 600, 5000, 5700, 6200] {
        refused(Case::new().lay_bytes(&whole[..length]), "");
    }
}

#[test]
fn names_that_are_too_long_or_too_deep_are_refused() {
    let mut builder = Builder::new(Vec::new());
    let mut head = header(EntryType::Directory, 0);
    builder.append_data(&mut head, "d/".repeat(200), io::empty()).unwrap();
    refused(Case::new().lay_bytes(&builder.into_inner().unwrap()), "too deep");
    let mut builder = Builder::new(Vec::new());
    let mut head = header(EntryType::Directory, 0);
    builder.append_data(&mut head, "n".repeat(256), io::empty()).unwrap();
    refused(Case::new().lay_bytes(&builder.into_inner().unwrap()), "too long");
}

#[test]
fn no_chain_of_symlinks_leads_deeper_than_names_may() {
    let case = Case::new();
    let mut builder = Builder::new(Vec::new());
    let deep = "d/".repeat(100);
    let mut folder = header(EntryType::Directory, 0);
    builder.append_data(&mut folder.clone(), format!("{deep}{}", "d/".repeat(20)), io::empty()).unwrap();
    let mut link = header(EntryType::Symlink, 0);
    builder.append_link(&mut link, "l", &deep).unwrap();
    builder.append_data(&mut folder, format!("l/{}", "e/".repeat(100)), io::empty()).unwrap();
    refused(case.lay_with(&builder.into_inner().unwrap(), Devices::Refused, &mut ROOM.clone()), "too deep");
    // The same where the folders are there and only the file is not.
    let case = Case::new();
    fs::create_dir_all(case.root().join("d/".repeat(140))).unwrap();
    symlink("d/".repeat(139), case.root().join("l")).unwrap();
    refused(case.lay(&[E::File("l/file", "x")]), "too deep");
    refused(case.lay(&[E::Folder("l/new/er")]), "too deep");
}

#[test]
fn heads_that_lay_nothing_are_counted() {
    let mut builder = Builder::new(Vec::new());
    for _ in 0..3 {
        let mut head = header(EntryType::XGlobalHeader, 0);
        name(&mut head, |gnu| &mut gnu.name, "g");
        head.set_cksum();
        builder.append(&head, io::empty()).unwrap();
    }
    let mut room = Room { bytes: 100, entries: 2 };
    let laid = Case::new().lay_with(&builder.into_inner().unwrap(), Devices::Refused, &mut room);
    refused(laid, "more entries");
}

#[test]
fn a_folder_that_a_file_replaced_is_forgotten_with_all_that_was_in_it() {
    let case = Case::new();
    case.lay(&[E::File("low/x", "1")]).unwrap();
    case.lay(&[
        E::File("a/b/own", "mine"),
        E::File("a", "a file now"),
        E::File(".wh.low", ""),
        E::Folder("low/x"),
        E::File("low/x/own", "mine"),
        E::File("low/.wh..wh..opq", ""),
    ])
    .unwrap();
    assert_eq!((case.text("a"), case.text("low/x/own")), ("a file now".to_owned(), "mine".to_owned()));
    case.lay(&[E::File(".wh.low", ""), E::File("b", "")]).unwrap();
    assert!(!case.is_there("low"), "what was a lower layer's own is not this one's");
}

#[test]
fn a_file_with_a_second_name_of_this_layer_is_still_whited_out_under_its_first() {
    let case = Case::new();
    case.lay(&[E::File("low", "x")]).unwrap();
    case.lay(&[E::Hard("mine", "low"), E::File(".wh.low", ""), E::File(".wh.mine", "")]).unwrap();
    assert!(!case.is_there("low") && case.is_there("mine"));
}

#[test]
fn every_compression_gives_the_same_layer() {
    let plain = layer(&[E::File("a", &"text ".repeat(10_000))]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let zstd =
        ruzstd::encoding::compress_to_vec(plain.as_slice(), ruzstd::encoding::CompressionLevel::Fastest);
    // Two frames with one between that is to be skipped, as lazily pulled layers have them.
    let (head, tail) = plain.split_at(700);
    let frame = |piece| ruzstd::encoding::compress_to_vec(piece, ruzstd::encoding::CompressionLevel::Fastest);
    let skipped = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
    let frames = [skipped.clone(), frame(head), skipped, frame(tail)].concat();
    for packed in [plain.clone(), gzip.finish().unwrap(), zstd, frames] {
        let case = Case::new();
        assert_eq!(case.lay_bytes(&packed).unwrap(), Digest::of(&plain));
        assert_eq!(case.text("a").len(), 50_000);
    }
}

#[test]
fn attributes_that_the_overlay_understands_are_not_set() {
    let mut builder = Builder::new(Vec::new());
    let attributes =
        [("SCHILY.xattr.trusted.overlay.opaque", &b"y"[..]), ("SCHILY.xattr.user.fine", &b"1"[..])];
    builder.append_pax_extensions(attributes).unwrap();
    let mut head = header(EntryType::Regular, 0);
    name(&mut head, |gnu| &mut gnu.name, "a");
    head.set_cksum();
    builder.append(&head, io::empty()).unwrap();
    let case = Case::new();
    case.lay_bytes(&builder.into_inner().unwrap()).unwrap();
    let mut names = vec![0; 256];
    let length = rustix::fs::listxattr(case.root().join("a"), names.as_mut_slice()).unwrap();
    assert_eq!(&names[..length], b"user.fine\0");
}

/// What the fuzz target `layers` begins with, as an ordinary test: none leads out, none hangs, none panics.
#[test]
fn the_corpus_of_layers_stays_inside() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/container/corpus/layer");
    let mut count = 0;
    for file in fs::read_dir(corpus).unwrap() {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        let case = Case::new();
        let _ = case.lay_bytes(&bytes);
        // The same with every byte of its heads turned, one at a time.
        for at in (0..bytes.len().min(1536)).step_by(7) {
            let mut turned = bytes.clone();
            turned[at] ^= 0xff;
            let _ = case.lay_bytes(&turned);
        }
        assert_eq!(fs::read_to_string(case.folder.path().join("outside/secret")).unwrap(), "untouched");
        assert_eq!(fs::read_dir(case.folder.path()).unwrap().count(), 2);
        count += 1;
    }
    assert!(count >= 10, "the corpus is there");
}
