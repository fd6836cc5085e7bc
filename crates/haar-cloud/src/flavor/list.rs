//! The flavors of a cloud as they were last seen.
//!
//! A refresh replaces the whole list, so that what vanished is offered no more; one that failed keeps the
//! old list and leaves the next refresh due at once, as does a flavor that the cloud did not take. What
//! vanished stays known by its id, because servers of it go on running and count in the quota. Time is a
//! duration since any fixed start.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Flavor;
use crate::{Error, Result};

/// How long a list is good.
const GOOD_FOR: Duration = Duration::from_secs(30 * 60);

/// The flavors of a cloud as they were last seen.
#[derive(Debug, Clone, Default)]
pub struct List {
    offered: Vec<Flavor>,
    vanished: BTreeMap<String, Flavor>,
    refreshed: Option<Duration>,
}

impl List {
    /// What the cloud offers, by id.
    #[must_use]
    pub fn offered(&self) -> &[Flavor] {
        &self.offered
    }

    /// Whether it is time to ask the cloud: never asked with success, or 30 minutes ago.
    #[must_use]
    pub fn is_due(&self, now: Duration) -> bool {
        self.refreshed.is_none_or(|then| now.saturating_sub(then) >= GOOD_FOR)
    }

    /// Makes a refresh due: something of the list turned out not to be so. It is kept until then.
    pub fn expire(&mut self) {
        self.refreshed = None;
    }

    /// Takes what the cloud answered. A failure changes nothing.
    pub fn refresh<E>(
        &mut self,
        now: Duration,
        answer: std::result::Result<Vec<Flavor>, E>,
    ) -> std::result::Result<(), E> {
        let mut flavors = answer?;
        flavors.sort_by(|a, b| a.id.cmp(&b.id));
        let before = std::mem::replace(&mut self.offered, flavors);
        for flavor in before {
            self.vanished.insert(flavor.id.clone(), flavor);
        }
        for flavor in &self.offered {
            self.vanished.remove(&flavor.id);
        }
        self.refreshed = Some(now);
        Ok(())
    }

    /// An offered flavor by its id, else by its exact name.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn find(&self, id_or_name: &str) -> Result<&Flavor> {
        let by_id = self.offered.iter().find(|flavor| flavor.id == id_or_name);
        by_id
            .or_else(|| self.offered.iter().find(|flavor| flavor.name == id_or_name))
            .ok_or_else(|| Error::NotFound { kind: "flavor".to_owned(), name: id_or_name.to_owned() })
    }

    /// A flavor by its id, also one that is offered no more.
    #[must_use]
    pub fn known(&self, id: &str) -> Option<&Flavor> {
        self.offered.iter().find(|flavor| flavor.id == id).or_else(|| self.vanished.get(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flavor(id: &str, name: &str) -> Flavor {
        Flavor { id: id.to_owned(), name: name.to_owned(), cores: 1, ram_mb: 1, disk_gb: 1 }
    }

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn what_vanished_is_offered_no_more_and_still_known() {
        let mut list = List::default();
        list.refresh::<Error>(seconds(0), Ok(vec![flavor("1", "a"), flavor("2", "b")])).unwrap();
        list.refresh::<Error>(seconds(1), Ok(vec![flavor("1", "a")])).unwrap();
        assert_eq!(list.offered().len(), 1);
        assert!(list.find("b").unwrap_err().is_not_found());
        assert_eq!(list.known("2").unwrap().name, "b");
    }

    #[test]
    fn a_failed_refresh_keeps_the_list_and_the_next_is_due_at_once() {
        let mut list = List::default();
        assert!(list.is_due(seconds(0)));
        list.refresh::<Error>(seconds(0), Ok(vec![flavor("1", "a")])).unwrap();
        assert!(!list.is_due(seconds(1799)) && list.is_due(seconds(1800)));
        list.refresh(seconds(1800), Err("503")).unwrap_err();
        assert!(list.find("a").is_ok() && list.is_due(seconds(1801)));
    }

    #[test]
    fn an_id_counts_before_a_name() {
        let mut list = List::default();
        list.refresh::<Error>(seconds(0), Ok(vec![flavor("1", "2"), flavor("2", "x")])).unwrap();
        assert_eq!(list.find("2").unwrap().name, "x");
    }
}
