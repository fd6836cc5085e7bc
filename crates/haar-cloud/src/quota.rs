//! Quotas of a project: limits, what is used, and what a spawn would lack.
//!
//! No limit is `None` and never a number: a cloud writes it as −1. A server of a flavor that is no longer
//! known counts as an instance alone, and how many such there are is told. Deliberately absent: asking.

use std::fmt;

use crate::flavor::Flavor;
use crate::{Error, Result};

/// What a project has a limit of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Resource {
    /// Servers.
    Instances,
    /// Cores.
    Cores,
    /// Memory in MB.
    Ram,
    /// Space of volumes in GB.
    Volume,
    /// Anything else, in the cloud's word: ports, addresses, key pairs.
    Other(String),
}

impl Resource {
    /// Reads the word that an OpenStack has for it.
    #[must_use]
    pub fn from_word(word: &str) -> Self {
        match word {
            "instances" | "instance" => Self::Instances,
            "cores" => Self::Cores,
            "ram" => Self::Ram,
            "gigabytes" => Self::Volume,
            other => Self::Other(other.to_owned()),
        }
    }

    fn unit(&self) -> &'static str {
        match self {
            Self::Ram => " MB",
            Self::Volume => " GB",
            Self::Instances | Self::Cores | Self::Other(_) => "",
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Instances => "instances",
            Self::Cores => "cores",
            Self::Ram => "RAM",
            Self::Volume => "volume space",
            Self::Other(word) => word,
        })
    }
}

/// One thing a project has too little of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// What.
    pub what: Resource,
    /// How much is needed, where the cloud said it.
    pub need: Option<u64>,
    /// How much is left, where the cloud said it.
    pub have: Option<u64>,
}

impl fmt::Display for Lack {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, unit) = (&self.what, self.what.unit());
        match (self.need, self.have) {
            (Some(need), Some(have)) => write!(formatter, "{what}: {need}{unit} needed, {have}{unit} left"),
            (Some(need), None) => write!(formatter, "{what}: {need}{unit} needed"),
            (None, Some(have)) => write!(formatter, "{what}: {have}{unit} left"),
            (None, None) => write!(formatter, "{what}"),
        }
    }
}

/// A limit as a cloud writes it: −1, and whatever else is below 0, is none.
#[must_use]
pub fn limit(number: i64) -> Option<u64> {
    u64::try_from(number).ok()
}

/// What is used, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Servers.
    pub instances: u64,
    /// Cores.
    pub cores: u64,
    /// Memory in MB.
    pub ram_mb: u64,
    /// Space of volumes in GB.
    pub volume_gb: u64,
    /// Servers among them whose flavor is not known: their cores and memory are missing above.
    pub unknown_flavors: u64,
}

impl Usage {
    /// What servers with these flavors use; `None` is a flavor that is not known.
    #[must_use]
    pub fn of_servers<'a>(flavors: impl IntoIterator<Item = Option<&'a Flavor>>) -> Self {
        let mut usage = Self::default();
        for flavor in flavors {
            usage.instances += 1;
            match flavor {
                Some(flavor) => {
                    usage.cores = usage.cores.saturating_add(u64::from(flavor.cores));
                    usage.ram_mb = usage.ram_mb.saturating_add(flavor.ram_mb);
                }
                None => usage.unknown_flavors += 1,
            }
        }
        usage
    }

    /// What one more server would use; `volume_gb` is its boot volume, if it needs one.
    #[must_use]
    pub fn of_spawn(flavor: &Flavor, volume_gb: Option<u64>) -> Self {
        Self { volume_gb: volume_gb.unwrap_or(0), ..Self::of_servers([Some(flavor)]) }
    }
}

/// What sets a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LimitOf {
    /// What the project may use: beyond it, the quota is used up.
    #[default]
    Project,
    /// What the machines have: beyond it there is no hardware left, and the cloud itself says why.
    Machines,
}

/// Limits and use of a project.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Quota {
    /// What sets these limits.
    pub limit_of: LimitOf,
    /// The most servers; `None` is no limit.
    pub max_instances: Option<u64>,
    /// The most cores.
    pub max_cores: Option<u64>,
    /// The most memory in MB.
    pub max_ram_mb: Option<u64>,
    /// The most space of volumes in GB.
    pub max_volume_gb: Option<u64>,
    /// What is used now.
    pub used: Usage,
}

impl Quota {
    /// Everything that a spawn would lack, while `pending` is promised to others and not yet used.
    #[must_use]
    pub fn lacks(&self, spawn: &Usage, pending: &Usage) -> Vec<Lack> {
        let (used, max) = (&self.used, self);
        let rows = [
            (Resource::Instances, max.max_instances, used.instances, pending.instances, spawn.instances),
            (Resource::Cores, max.max_cores, used.cores, pending.cores, spawn.cores),
            (Resource::Ram, max.max_ram_mb, used.ram_mb, pending.ram_mb, spawn.ram_mb),
            (Resource::Volume, max.max_volume_gb, used.volume_gb, pending.volume_gb, spawn.volume_gb),
        ];
        let mut lacks = Vec::new();
        for (what, max, used, pending, need) in rows {
            let left = max.map(|max| max.saturating_sub(used).saturating_sub(pending));
            if left.is_some_and(|left| left < need) {
                lacks.push(Lack { what, need: Some(need), have: left });
            }
        }
        lacks
    }

    /// As [`Self::lacks`], as a refusal. What the machines have is not for us to judge: how it is spread over them
    /// is not known here.
    ///
    /// # Errors
    /// [`Error::OverQuota`] with each thing that is lacking.
    pub fn check(&self, spawn: &Usage, pending: &Usage) -> Result<()> {
        if self.limit_of == LimitOf::Machines {
            return Ok(());
        }
        let lacks = self.lacks(spawn, pending);
        if lacks.is_empty() { Ok(()) } else { Err(Error::OverQuota { lacks }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flavor() -> Flavor {
        Flavor { id: "1".into(), name: "a".into(), cores: 4, ram_mb: 8000, disk_gb: 20 }
    }

    fn used(instances: u64, cores: u64) -> Usage {
        Usage { instances, cores, ..Usage::default() }
    }

    #[test]
    fn without_limits_nothing_is_lacking_and_a_limit_of_nothing_is_one() {
        let spawn = Usage::of_spawn(&flavor(), Some(100));
        assert!(Quota::default().lacks(&spawn, &Usage::default()).is_empty());
        let none = Quota { max_instances: limit(0), ..Quota::default() };
        assert_eq!(none.lacks(&spawn, &Usage::default()).len(), 1);
    }

    #[test]
    fn what_the_machines_lack_is_no_quota() {
        let spawn = Usage::of_spawn(&flavor(), None);
        let full = Quota { max_cores: Some(1), ..Quota::default() };
        assert!(full.check(&spawn, &Usage::default()).unwrap_err().is_over_quota());
        let machines = Quota { limit_of: LimitOf::Machines, ..full };
        assert!(machines.check(&spawn, &Usage::default()).is_ok());
        assert_eq!(machines.lacks(&spawn, &Usage::default()).len(), 1, "it can still be looked at");
    }

    #[test]
    fn what_is_promised_to_others_is_not_left_for_us() {
        let quota = Quota { max_cores: Some(10), used: used(1, 4), ..Quota::default() };
        let spawn = Usage::of_spawn(&flavor(), None);
        assert!(quota.lacks(&spawn, &Usage::default()).is_empty());
        let lack = Lack { what: Resource::Cores, need: Some(4), have: Some(3) };
        assert_eq!(quota.lacks(&spawn, &used(1, 3)), [lack]);
    }

    #[test]
    fn a_volume_is_only_counted_where_one_is_needed() {
        let quota = Quota {
            max_volume_gb: Some(10),
            used: Usage { volume_gb: 50, ..Usage::default() },
            ..Quota::default()
        };
        let lacks = |volume| quota.lacks(&Usage::of_spawn(&flavor(), volume), &Usage::default());
        assert!(lacks(None).is_empty());
        assert_eq!(lacks(Some(1)), [Lack { what: Resource::Volume, need: Some(1), have: Some(0) }]);
    }

    #[test]
    fn a_refusal_names_each_lack_with_its_unit() {
        let quota =
            Quota { max_instances: Some(1), max_ram_mb: Some(9000), used: used(1, 0), ..Quota::default() };
        let spawn = Usage { ram_mb: 9001, instances: 1, ..Usage::default() };
        let error = quota.check(&spawn, &Usage::default()).unwrap_err();
        assert!(error.is_over_quota());
        let text = error.to_string();
        assert!(text.contains("instances: 1 needed, 0 left; RAM: 9001 MB needed, 9000 MB left"), "{text}");
    }
}
