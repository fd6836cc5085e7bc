//! What a cloud offers: flavors, images and the quota, each asked for no more often than needed.
//!
//! Of many tasks that need a list at once, one asks and the others wait for its answer, which may be that it
//! failed. Flavors are good for 30 minutes, and are asked for again when one is looked for and not found; a
//! refresh that fails leaves the old list in use. Images are asked for again on every miss, and after 5 minutes.
//! Both are asked for again when the cloud did not take one of them. A quota that cannot be read is done without
//! for a minute.

use std::time::Duration;

use super::Cloud;
use super::wait::{READ_LIMIT, bounded, patiently};
use crate::Result;
use crate::flavor::{Flavor, List, Set, Wanted};
use crate::image::{self, By, Image};
use crate::quota::{Quota, Usage};
use crate::turns::{Turn, Turns};

/// How long a list of images is good: a newer image of a name should not have to wait for long.
const IMAGES_GOOD_FOR: Duration = Duration::from_secs(5 * 60);
/// How long a quota is good enough to refuse nothing by it.
const QUOTA_GOOD_FOR: Duration = Duration::from_secs(2);
/// How long after a failure spawns do without the quota: each question may take as long.
const DO_WITHOUT: Duration = Duration::from_secs(60);

/// What was seen of a cloud's offers.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    flavors: Turns<List>,
    images: Turns<Seen<Vec<Image>>>,
    quota: Turns<Seen<Quota>>,
}

#[derive(Debug, Default)]
struct Seen<T> {
    at: Option<Duration>,
    value: T,
}

impl<T> Seen<T> {
    fn is_good(&self, now: Duration, good_for: Duration) -> bool {
        self.at.is_some_and(|then| now.saturating_sub(then) < good_for)
    }

    fn put(&mut self, now: Duration, value: T) {
        *self = Self { at: Some(now), value };
    }
}

/// The image that a text means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChosenImage {
    /// The image.
    pub image: Image,
    /// How it was found.
    pub by: By,
    /// How many the text could have meant; with more than one, the newest was taken and a user should be
    /// told.
    pub among: usize,
}

impl Cloud {
    /// The flavors that can be had, by id.
    ///
    /// # Errors
    /// What the cloud says, if it was never asked with success.
    pub async fn flavors(&self) -> Result<Vec<Flavor>> {
        let mut list = self.inner.catalog.flavors.turn().await;
        if list.is_due(self.now())
            && let Err(error) = self.refresh_flavors(&mut list).await
        {
            if list.offered().is_empty() {
                return Err(error);
            }
            tracing::warn!(%error, "the flavors cannot be read, those last seen are used");
        }
        Ok(list.offered().to_vec())
    }

    /// A flavor by its id, else by its exact name.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound), and what the cloud says.
    pub async fn flavor(&self, id_or_name: &str) -> Result<Flavor> {
        self.flavors().await?;
        let mut list = self.inner.catalog.flavors.turn().await;
        if list.find(id_or_name).is_err() {
            self.refresh_flavors(&mut list).await?;
        }
        list.find(id_or_name).cloned()
    }

    /// The cheapest flavor that will do.
    ///
    /// # Errors
    /// [`Error::NoFlavor`](crate::Error::NoFlavor), and as [`Self::flavors`].
    pub async fn cheapest_flavor(&self, wanted: &Wanted<'_>) -> Result<Flavor> {
        wanted.cheapest(&self.flavors().await?).cloned()
    }

    /// The cheapest flavor of each set, in the order of the sets; see [`Wanted::cheapest_of_each`].
    ///
    /// # Errors
    /// [`Error::NoFlavor`](crate::Error::NoFlavor), only without sets, and as [`Self::flavors`].
    pub async fn cheapest_of_each(&self, wanted: &Wanted<'_>, sets: &[Set]) -> Result<Vec<Option<Flavor>>> {
        let flavors = self.flavors().await?;
        Ok(wanted.cheapest_of_each(&flavors, sets)?.into_iter().map(Option::<&Flavor>::cloned).collect())
    }

    /// The cheapest flavors of different sets, the cheapest first; see [`Wanted::cheapest_first`].
    ///
    /// # Errors
    /// As [`Self::flavors`].
    pub async fn cheapest_first(&self, wanted: &Wanted<'_>, sets: &[Set]) -> Result<Vec<Flavor>> {
        let flavors = self.flavors().await?;
        Ok(wanted.cheapest_first(&flavors, sets).into_iter().cloned().collect())
    }

    /// The images that can be had now.
    ///
    /// # Errors
    /// What the cloud says.
    pub async fn images(&self) -> Result<Vec<Image>> {
        let mut images = self.inner.catalog.images.turn().await;
        self.refresh_images(&mut images).await?;
        Ok(images.value.clone())
    }

    /// The image that a text means: an id, a name, or how one of them begins.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound) names the text; and what the cloud says.
    pub async fn image_by_prefix(&self, text: &str) -> Result<ChosenImage> {
        let mut images = self.inner.catalog.images.turn().await;
        let mut fresh = false;
        if !images.is_good(self.now(), IMAGES_GOOD_FOR) {
            self.refresh_images(&mut images).await?;
            fresh = true;
        }
        if !fresh && image::choose(&images.value, text).is_err_and(|error| error.is_not_found()) {
            self.refresh_images(&mut images).await?;
        }
        let choice = image::choose(&images.value, text)?;
        Ok(ChosenImage { image: choice.image.clone(), by: choice.by, among: choice.among })
    }

    /// Limits and use of this project.
    ///
    /// # Errors
    /// What the cloud says.
    pub async fn quota(&self) -> Result<Quota> {
        patiently(READ_LIMIT, "the quota", || self.provider().quota()).await
    }

    /// Refuses what the quota clearly does not allow. In doubt the cloud is asked for the server and says it
    /// itself: what others have in the making is not known here.
    pub(super) async fn check_quota(&self, flavor: &Flavor, volume_gb: Option<u64>) -> Result<()> {
        let spawn = Usage::of_spawn(flavor, volume_gb);
        let mut seen = self.inner.catalog.quota.turn().await;
        let fits = seen.value.lacks(&spawn, &Usage::default()).is_empty();
        if !(fits && seen.is_good(self.now(), QUOTA_GOOD_FOR)) {
            if seen.failure_within(DO_WITHOUT).is_some() {
                return Ok(());
            }
            match seen.ask(bounded(READ_LIMIT, "the quota", self.provider().quota())).await {
                Ok(quota) => seen.put(self.now(), quota),
                Err(error) => {
                    tracing::debug!(%error, "the quota cannot be read, the cloud will say no itself");
                    return Ok(());
                }
            }
        }
        seen.value.check(&spawn, &Usage::default())
    }

    /// Has images and flavors asked for anew: one of them turned out not to be usable.
    pub(super) async fn doubt_offers(&self) {
        self.inner.catalog.images.turn().await.at = None;
        self.inner.catalog.flavors.turn().await.expire();
    }

    async fn refresh_flavors(&self, list: &mut Turn<'_, List>) -> Result<()> {
        let ask = patiently(READ_LIMIT, "the flavors", || self.provider().flavors());
        let answer = list.ask(ask).await;
        list.refresh(self.now(), answer)
    }

    async fn refresh_images(&self, images: &mut Turn<'_, Seen<Vec<Image>>>) -> Result<()> {
        let ask = patiently(READ_LIMIT, "the images", || self.provider().images());
        let fresh = images.ask(ask).await?;
        images.put(self.now(), fresh);
        Ok(())
    }
}
