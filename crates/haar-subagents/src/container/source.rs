//! Where an image comes from: a registry, an archive by HTTP, or a path inside the folders the operator named.
//!
//! ```text
//! docker://registry.example[:port]/repository[:tag][@sha256:…]   a registry over HTTPS
//! docker+http://…                                               the same over HTTP
//! http://… https://…                                            an archive
//! file:///…                                                     an archive, or the folder of an OCI layout;
//!                                                               #tag chooses among several images
//! ```
//!
//! An archive is what `docker save` writes or an OCI layout in a tar, compressed or not; its members are looked up by
//! name and never unpacked, so that no name of it can lead anywhere.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use haar_api::rpc::{Fault, FaultCode};
use reqwest::Url;
use tar::EntryType;

use super::layer::{MAX_HEAD_BYTES, Metered};
use super::oci::{Digest, MAX_DOCUMENT_BYTES, bad};
use crate::storage::folders::io_fault;
use crate::storage::source::open_file;

/// Members an archive may have: a few per layer.
const MAX_MEMBERS: usize = 16_384;
/// Bytes of a member's name, or of a link's target: they are all kept in memory.
const MAX_NAME_BYTES: usize = 1024;
/// Symlinks from one member to another that are followed.
const MAX_LINKS: usize = 4;

/// An address that may be loaded from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// An image of a registry.
    Registry(Reference),
    /// An archive.
    Web(Url),
    /// A path of this host, and the tag after `#`.
    Path(PathBuf, String),
}

/// An image of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    /// `https://host[:port]` or `http://host[:port]`
    pub(super) base: Url,
    pub(super) repository: String,
    /// A tag or a digest.
    pub(super) tag: String,
    pub(super) digest: Option<Digest>,
}

impl Reference {
    /// What is asked for: the digest when there is one.
    pub(super) fn wanted(&self) -> &str {
        self.digest.as_ref().map_or(&self.tag, Digest::as_str)
    }
}

/// Reads an address.
pub(super) fn parse(source: &str) -> Result<Origin, Fault> {
    if let Some(rest) = source.strip_prefix("docker://") {
        return reference("https", rest).map(Origin::Registry);
    }
    if let Some(rest) = source.strip_prefix("docker+http://") {
        return reference("http", rest).map(Origin::Registry);
    }
    let mut url = Url::parse(source).map_err(|_| unknown())?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(Origin::Web(url)),
        "file" => {
            let tag = url.fragment().unwrap_or_default().to_owned();
            url.set_fragment(None);
            url.to_file_path().map(|path| Origin::Path(path, tag)).map_err(|()| unknown())
        }
        _ => Err(unknown()),
    }
}

fn unknown() -> Fault {
    let text =
        "the image's source must be a docker://, docker+http://, http://, https:// or file:///… address";
    Fault::new(FaultCode::Invalid, text)
}

fn reference(scheme: &str, text: &str) -> Result<Reference, Fault> {
    let wrong = || {
        let shown: String = text.chars().take(120).collect();
        let text =
            format!("{shown:?} is no image of a registry; one is host[:port]/repository[:tag][@sha256:…]");
        Fault::new(FaultCode::Invalid, text)
    };
    let (text, digest) = match text.split_once('@') {
        Some((text, digest)) => (text, Some(Digest::parse(digest).map_err(|_| wrong())?)),
        None => (text, None),
    };
    let (host, path) = text.split_once('/').ok_or_else(wrong)?;
    let (repository, tag) = path.rsplit_once(':').unwrap_or((path, "latest"));
    let is_part = |part: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        !part.is_empty()
            && part.bytes().all(inner)
            && part.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
    };
    let is_tag = |tag: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        (1..=128).contains(&tag.len()) && tag.bytes().all(inner) && !tag.starts_with(['.', '-'])
    };
    if repository.len() > 255 || !repository.split('/').all(is_part) || !is_tag(tag) {
        return Err(wrong());
    }
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    let (host, repository) = match host {
        // Its registry answers elsewhere, and its own images have a first part that nobody writes.
        "docker.io" if !repository.contains('/') => ("registry-1.docker.io", format!("library/{repository}")),
        "docker.io" => ("registry-1.docker.io", repository.to_owned()),
        host => (host, repository.to_owned()),
    };
    if host.is_empty() || !host.bytes().all(is_host) {
        return Err(wrong());
    }
    let base = Url::parse(&format!("{scheme}://{host}/")).map_err(|_| wrong())?;
    Ok(Reference { base, repository, tag: tag.to_owned(), digest })
}

/// The files of a layout or of an archive, by name.
#[derive(Debug)]
pub(super) enum Files<'a> {
    /// A folder inside `image_dirs`.
    Folder(PathBuf, &'a [PathBuf]),
    /// An archive.
    Archive(File, HashMap<String, Member>),
}

/// What an archive's member is.
#[derive(Debug)]
pub(super) enum Member {
    /// A file: where it begins, and its bytes.
    File(u64, u64),
    /// Another name.
    Link(String),
}

impl<'a> Files<'a> {
    /// A path of this host as a layout; none when it is no folder of one.
    pub(super) fn of_folder(path: &Path, image_dirs: &'a [PathBuf]) -> Option<Self> {
        path.join("index.json").exists().then(|| Files::Folder(path.to_owned(), image_dirs))
    }

    /// Reads the list of an archive that is not compressed.
    pub(super) fn of_archive(mut file: File) -> Result<Self, Fault> {
        let unreadable = |error: io::Error| bad(format!("the archive cannot be read: {error}"));
        let metered = Metered::new(file.try_clone().map_err(unreadable)?);
        let left = metered.left();
        let mut archive = tar::Archive::new(metered);
        let mut members = HashMap::new();
        for entry in archive.entries_with_seek().map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            left.set(MAX_HEAD_BYTES);
            if members.len() >= MAX_MEMBERS {
                return Err(bad(format!("the archive has more than {MAX_MEMBERS} members")));
            }
            let name = member_name(&entry.path_bytes())?;
            let member = match entry.header().entry_type() {
                EntryType::Regular => Member::File(entry.raw_file_position(), entry.size()),
                EntryType::Symlink | EntryType::Link => {
                    let target = entry.link_name_bytes().unwrap_or_default();
                    let is_symlink = entry.header().entry_type() == EntryType::Symlink;
                    let base = if is_symlink { name.as_str() } else { "" };
                    Member::Link(joined(base, &member_name(&target)?))
                }
                _ => continue,
            };
            members.insert(joined("", &name), member);
        }
        file.seek(SeekFrom::Start(0)).map_err(unreadable)?;
        Ok(Files::Archive(file, members))
    }

    /// Whether there is a file of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Files::Folder(folder, _) => folder.join(name).is_file(),
            Files::Archive(_, members) => members.contains_key(&joined("", name)),
        }
    }

    /// Opens a file. Of a folder only the names that a layout has may be asked for.
    pub(super) fn file(&self, name: &str) -> Result<Box<dyn Read + '_>, Fault> {
        let missing = || bad(format!("the image lacks {:?}", name.chars().take(120).collect::<String>()));
        match self {
            Files::Folder(folder, image_dirs) => {
                let path = folder.join(name);
                Ok(Box::new(open_file(&path, image_dirs)?.0))
            }
            Files::Archive(file, members) => {
                let mut name = joined("", name);
                for _ in 0..=MAX_LINKS {
                    match members.get(&name) {
                        Some(Member::File(at, bytes)) => {
                            return Ok(Box::new(Piece { file, at: *at, left: *bytes }));
                        }
                        Some(Member::Link(target)) => name.clone_from(target),
                        None => break,
                    }
                }
                Err(missing())
            }
        }
    }

    /// Reads a document.
    pub(super) fn document(&self, name: &str) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::new();
        let mut file = self.file(name)?.take(MAX_DOCUMENT_BYTES + 1);
        file.read_to_end(&mut bytes).map_err(|error| io_fault("read", Path::new(name), &error))?;
        Ok(bytes)
    }
}

fn member_name(bytes: &[u8]) -> Result<String, Fault> {
    if bytes.len() > MAX_NAME_BYTES {
        return Err(bad(format!("the archive has a name of more than {MAX_NAME_BYTES} bytes")));
    }
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// A target as seen from the folder of `base`, both being names of members: no file system is asked.
fn joined(base: &str, target: &str) -> String {
    let folder = base.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(target.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// A piece of a file; several may be read at once.
struct Piece<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Piece<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_of_a_registry_has_a_host_a_repository_and_a_tag() {
        let Ok(Origin::Registry(one)) = parse("docker://r.example:5000/a/b-c:v1.2") else { panic!() };
        assert_eq!((one.base.as_str(), one.repository.as_str()), ("https://r.example:5000/", "a/b-c"));
        assert_eq!(one.wanted(), "v1.2");
        let digest = Digest::of(b"x");
        let Ok(Origin::Registry(two)) = parse(&format!("docker+http://127.0.0.1:5000/a@{digest}")) else {
            panic!()
        };
        assert_eq!((two.base.as_str(), two.wanted()), ("http://127.0.0.1:5000/", digest.as_str()));
        let Ok(Origin::Registry(three)) = parse("docker://docker.io/alpine") else { panic!() };
        assert_eq!((three.repository.as_str(), three.wanted()), ("library/alpine", "latest"));
    }

    #[test]
    fn hostile_addresses_are_refused() {
        for hostile in [
            "",
            "alpine",
            "docker://alpine",
            "docker://r.example/",
            "docker://r.example/../v2/x",
            "docker://r.example/a/../b",
            "docker://r.example/a?x=y",
            "docker://r.example/a#x",
            "docker://r.example/A",
            "docker://user:word@r.example/a",
            "docker://r.example/a:-x",
            "docker://r.example/a:b/../c",
            "docker://r.example/a@sha256:..",
            "docker:///a",
            "docker://r example/a",
            "file://otherhost/etc",
            "oci:/x",
            "/etc",
        ] {
            assert_eq!(parse(hostile).unwrap_err().code, FaultCode::Invalid, "{hostile:?}");
        }
        for long in ["a".repeat(300), format!("a:{}", "t".repeat(200))] {
            assert!(parse(&format!("docker://r.example/{long}")).is_err());
        }
    }

    #[test]
    fn an_archive_of_endless_names_is_refused() {
        for long_target in [false, true] {
            let mut builder = tar::Builder::new(Vec::new());
            let mut head = tar::Header::new_gnu();
            head.set_size(0);
            let long = "n".repeat(MAX_NAME_BYTES + 1);
            if long_target {
                head.set_entry_type(EntryType::Symlink);
                builder.append_link(&mut head, "a", &long).unwrap();
            } else {
                builder.append_data(&mut head, &long, io::empty()).unwrap();
            }
            let mut file = tempfile::tempfile().unwrap();
            io::Write::write_all(&mut file, &builder.into_inner().unwrap()).unwrap();
            file.rewind().unwrap();
            assert_eq!(Files::of_archive(file).unwrap_err().code, FaultCode::BadImage);
        }
    }

    #[test]
    fn a_members_link_leads_to_a_member() {
        assert_eq!(joined("a/layer.tar", "../b/layer.tar"), "b/layer.tar");
        assert_eq!(joined("a/layer.tar", "../../../etc/passwd"), "etc/passwd");
        assert_eq!(joined("", "./x//y/."), "x/y");
    }
}
