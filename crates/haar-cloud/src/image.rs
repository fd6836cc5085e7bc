//! Images: which one a text means, and what disk a server made of it gets.
//!
//! An exact id counts most, then an exact name, then the beginning of a name or id; the newest wins where
//! several are left, and the answer says how many there were. The same images give the same answer,
//! whatever their order. Deliberately absent: a cache; who asks brings today's list.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// An image that a server can be made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The cloud's id.
    pub id: String,
    /// Its name; not always unique.
    pub name: String,
    /// When it was made, where the cloud says so.
    pub created_at: Option<Timestamp>,
    /// The least disk in GB.
    pub min_disk_gb: u64,
    /// The least memory in MB.
    pub min_ram_mb: u64,
}

/// How a text led to an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// It is its id.
    Id,
    /// It is its name.
    Name,
    /// Its name or id begins with it.
    Prefix,
}

/// The image that a text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice<'a> {
    /// The image.
    pub image: &'a Image,
    /// How it was found.
    pub by: By,
    /// How many the text could have meant; with more than one, the newest was taken and a user should be
    /// told.
    pub among: usize,
}

/// The image that `wanted` means.
///
/// # Errors
/// [`Error::BadInput`] for no text, which would mean every image; [`Error::NotFound`] names the text.
pub fn choose<'a>(images: &'a [Image], wanted: &str) -> Result<Choice<'a>> {
    if wanted.is_empty() {
        return Err(Error::BadInput {
            what: "the image",
            value: String::new(),
            why: "give its id, its name, or how its name begins".to_owned(),
        });
    }
    let is_id = |image: &&Image| image.id == wanted;
    let is_name = |image: &&Image| image.name == wanted;
    let begins = |image: &&Image| image.name.starts_with(wanted) || image.id.starts_with(wanted);
    newest(images.iter().filter(is_id), By::Id)
        .or_else(|| newest(images.iter().filter(is_name), By::Name))
        .or_else(|| newest(images.iter().filter(begins), By::Prefix))
        .ok_or_else(|| Error::NotFound { kind: "image".to_owned(), name: wanted.to_owned() })
}

/// Of the same age, or of none, the name that sorts last counts as newest: `ubuntu-22` after `ubuntu-20`.
fn newest<'a>(images: impl Iterator<Item = &'a Image>, by: By) -> Option<Choice<'a>> {
    let images: Vec<&Image> = images.collect();
    let image = *images.iter().max_by_key(|image| (image.created_at, &image.name, &image.id))?;
    Some(Choice { image, by, among: images.len() })
}

/// The disk of a new server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootDisk {
    /// How much it has in all, in GB.
    pub server_gb: u64,
    /// The size of the volume to boot from, where the flavor's own disk is too small.
    pub volume_gb: Option<u64>,
}

/// The disk of a server of `image` on a flavor, when `asked_gb` are wanted.
#[must_use]
pub fn boot_disk(image: &Image, asked_gb: u64, flavor_disk_gb: u64) -> BootDisk {
    let needed = asked_gb.max(image.min_disk_gb);
    BootDisk { server_gb: needed.max(flavor_disk_gb), volume_gb: (needed > flavor_disk_gb).then_some(needed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, name: &str, made: Option<&str>) -> Image {
        let created_at = made.map(|day| format!("{day}T12:00:00Z").parse().unwrap());
        Image { id: id.into(), name: name.into(), created_at, min_disk_gb: 0, min_ram_mb: 0 }
    }

    #[test]
    fn an_id_beats_a_name_and_both_beat_a_beginning() {
        let images = [
            image("1", "debian", Some("2020-01-01")),
            image("debian", "other", None),
            image("3", "debian-12", Some("2026-01-01")),
        ];
        let choice = choose(&images, "debian").unwrap();
        assert_eq!((choice.image, choice.by), (&images[1], By::Id));
        let choice = choose(&images[..1], "debian").unwrap();
        assert_eq!((choice.image, choice.by), (&images[0], By::Name));
    }

    #[test]
    fn of_two_with_one_name_the_newer_is_taken_and_both_are_counted() {
        let old = image("z", "ubuntu", Some("2024-01-01"));
        let new = image("a", "ubuntu", Some("2025-01-01"));
        for images in [[old.clone(), new.clone()], [new.clone(), old]] {
            let choice = choose(&images, "ubuntu").unwrap();
            assert_eq!((choice.image, choice.among), (&new, 2));
        }
    }

    #[test]
    fn an_image_without_a_date_is_older_than_every_other() {
        let images = [image("1", "ub-9", None), image("2", "ub-1", Some("2001-01-01"))];
        assert_eq!(choose(&images, "ub").unwrap().image.id, "2");
    }

    #[test]
    fn no_text_means_no_image() {
        assert!(matches!(choose(&[image("1", "a", None)], ""), Err(Error::BadInput { .. })));
    }
}
