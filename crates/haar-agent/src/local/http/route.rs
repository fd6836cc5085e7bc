//! The whole table of paths: which request is for whom, and which is sent elsewhere.
//!
//! As the seed's router (`mistify-wire` §0.5): an unknown path and a wrong method are the same 404; an unclean path,
//! and a slash too many at the end outside a guest's paths, are sent to the right one by 301.
//! The README's variants are served too: `DELETE /guests/{id}` and `/container_images`. Deliberately absent: its
//! GET for actions, for a GET must change nothing.

use http::Method;

use crate::local::action;

/// Which images are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Images {
    All,
    Containers,
}

/// What a snapshot is of, as the path says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) guest: String,
    pub(super) disk: Option<String>,
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Metadata,
    PatchMetadata,
    ListImages(Images),
    FetchImage(Images),
    GetImage(Images, String),
    DeleteImage(Images, String),
    ListJobs,
    GetJob(String),
    CancelJob(String),
    ListGuests,
    CreateGuest,
    GetGuest(String),
    Act { guest: String, action: String },
    GuestJobs(String),
    GuestJob { guest: String, job: String },
    GuestMetadata(String),
    PatchGuestMetadata(String),
    Metrics { guest: String, kind: &'static str },
    ListSnapshots(Target),
    CreateSnapshot(Target),
    GetSnapshot(Target, String),
    DeleteSnapshot(Target, String),
    RollbackSnapshot(Target, String),
    DownloadSnapshot(Target, String),
    Profile(String),
}

/// Where a request belongs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Route(Route),
    /// At this path, which is not encoded.
    Moved(String),
    Nothing,
}

/// Finds the place of a request by its decoded path.
pub(super) fn find(method: &Method, path: &str) -> Found {
    let clean = clean(path);
    if clean != path {
        return Found::Moved(clean);
    }
    if let Some(route) = route(method, path) {
        return Found::Route(route);
    }
    match path.strip_suffix('/') {
        Some(shorter) if !is_of_a_guest(shorter) && route(method, shorter).is_some() => {
            Found::Moved(shorter.to_owned())
        }
        _ => Found::Nothing,
    }
}

fn is_of_a_guest(path: &str) -> bool {
    path.starts_with("/guests/")
}

fn route(method: &Method, path: &str) -> Option<Route> {
    let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    if segments.iter().any(|segment| segment.is_empty()) {
        return None;
    }
    let owned = |text: &str| text.to_owned();
    Some(match (method.as_str(), segments.as_slice()) {
        ("GET", ["metadata"]) => Route::Metadata,
        ("PATCH", ["metadata"]) => Route::PatchMetadata,
        ("GET", ["images"]) => Route::ListImages(Images::All),
        ("POST", ["images"]) => Route::FetchImage(Images::All),
        ("GET", ["images", id]) => Route::GetImage(Images::All, owned(id)),
        ("DELETE", ["images", id]) => Route::DeleteImage(Images::All, owned(id)),
        ("GET", ["container_images"]) => Route::ListImages(Images::Containers),
        ("POST", ["container_images"]) => Route::FetchImage(Images::Containers),
        ("GET", ["container_images", id]) => Route::GetImage(Images::Containers, owned(id)),
        ("DELETE", ["container_images", id]) => Route::DeleteImage(Images::Containers, owned(id)),
        ("GET", ["jobs"]) => Route::ListJobs,
        ("GET", ["jobs", id]) => Route::GetJob(owned(id)),
        ("DELETE", ["jobs", id]) => Route::CancelJob(owned(id)),
        ("GET", ["guests"]) => Route::ListGuests,
        ("POST", ["guests"]) => Route::CreateGuest,
        ("GET", ["debug", "pprof"]) => Route::Profile(String::new()),
        ("GET", ["debug", "pprof", name]) => Route::Profile(owned(name)),
        (method, ["guests", guest, rest @ ..]) => return of_a_guest(method, guest, rest),
        _ => return None,
    })
}

fn of_a_guest(method: &str, guest: &str, rest: &[&str]) -> Option<Route> {
    let id = || guest.to_owned();
    Some(match (method, rest) {
        ("GET", []) => Route::GetGuest(id()),
        ("DELETE", []) => Route::Act { guest: id(), action: "delete".to_owned() },
        ("GET", ["jobs"]) => Route::GuestJobs(id()),
        ("GET", ["jobs", job]) => Route::GuestJob { guest: id(), job: (*job).to_owned() },
        ("GET", ["metadata"]) => Route::GuestMetadata(id()),
        ("PATCH", ["metadata"]) => Route::PatchGuestMetadata(id()),
        ("GET", ["metrics", "cpu"]) => Route::Metrics { guest: id(), kind: "cpu" },
        ("GET", ["metrics", "disk"]) => Route::Metrics { guest: id(), kind: "disk" },
        ("GET", ["metrics", "nic"]) => Route::Metrics { guest: id(), kind: "nic" },
        ("POST", [name]) if action::OF_GUESTS.contains(name) => {
            Route::Act { guest: id(), action: (*name).to_owned() }
        }
        (method, ["snapshots", rest @ ..]) => {
            return of_snapshots(method, Target { guest: id(), disk: None }, rest);
        }
        (method, ["disks", disk, "snapshots", rest @ ..]) if is_index(disk) => {
            return of_snapshots(method, Target { guest: id(), disk: Some((*disk).to_owned()) }, rest);
        }
        _ => return None,
    })
}

fn of_snapshots(method: &str, target: Target, rest: &[&str]) -> Option<Route> {
    let owned = |name: &str| name.to_owned();
    Some(match (method, rest) {
        ("GET", []) => Route::ListSnapshots(target),
        ("POST", []) => Route::CreateSnapshot(target),
        ("GET", [name]) => Route::GetSnapshot(target, owned(name)),
        ("DELETE", [name]) => Route::DeleteSnapshot(target, owned(name)),
        ("POST", [name, "rollback"]) => Route::RollbackSnapshot(target, owned(name)),
        ("GET", [name, "download"]) => Route::DownloadSnapshot(target, owned(name)),
        _ => return None,
    })
}

fn is_index(text: &str) -> bool {
    text.len() <= 3 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The path without doubled slashes and dots; a slash at its end stays.
fn clean(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    let mut clean = format!("/{}", kept.join("/"));
    if path.ends_with('/') && !clean.ends_with('/') {
        clean.push('/');
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: &str, path: &str) -> Found {
        find(&method.parse().unwrap(), path)
    }

    #[test]
    fn an_unclean_path_is_sent_to_the_clean_one() {
        for (path, clean) in [
            ("//guests", "/guests"),
            ("/guests//g", "/guests/g"),
            ("/a/../guests", "/guests"),
            ("/../..", "/"),
            ("/guests/./", "/guests/"),
        ] {
            assert_eq!(found("GET", path), Found::Moved(clean.into()), "{path}");
        }
    }

    #[test]
    fn a_slash_at_the_end_is_sent_away_but_not_within_a_guest() {
        assert_eq!(found("GET", "/guests/"), Found::Moved("/guests".into()));
        assert_eq!(found("GET", "/jobs/j/"), Found::Moved("/jobs/j".into()));
        for nothing in ["/guests/g/", "/guests/g/jobs/", "/nothing/", "/"] {
            assert_eq!(found("GET", nothing), Found::Nothing, "{nothing}");
        }
    }

    #[test]
    fn a_wrong_method_is_no_path_and_no_get_acts() {
        for (method, path) in [
            ("PUT", "/guests"),
            ("HEAD", "/guests"),
            ("GET", "/guests/g/reboot"),
            ("POST", "/guests/g/explode"),
            ("GET", "/guests/g/disks/x/snapshots"),
        ] {
            assert_eq!(found(method, path), Found::Nothing, "{method} {path}");
        }
    }

    #[test]
    fn the_readmes_paths_are_served_too() {
        let deleted = Route::Act { guest: "g".into(), action: "delete".into() };
        assert_eq!(found("DELETE", "/guests/g"), Found::Route(deleted.clone()));
        assert_eq!(found("POST", "/guests/g/delete"), Found::Route(deleted));
        assert_eq!(found("GET", "/container_images"), Found::Route(Route::ListImages(Images::Containers)));
    }
}
