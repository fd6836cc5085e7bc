//! Typed ids: UUIDs that cannot be mixed up.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::try_parse(text).map($name)
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                $name(id)
            }
        }
    )*};
}

ids! {
    /// This cloud: tells two instances on one host apart.
    CloudId
    /// A machine that runs guests.
    HypervisorId
    /// A size of guest.
    FlavorId
    /// What a guest's first disk is cloned from.
    ImageId
    /// A layer-2 network.
    NetworkId
    /// A range of addresses in a network.
    SubnetId
    /// A group of firewall rules.
    FwGroupId
    /// A virtual machine.
    GuestId
    /// A change under way, with its steps.
    JobId
    /// A bearer token's record.
    TokenId
}

/// A kind of record. The order is the order of loading: what is referred to comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Cluster configuration; one record.
    Config,
    /// [`TokenId`].
    Token,
    /// [`HypervisorId`].
    Hypervisor,
    /// [`ImageId`].
    Image,
    /// [`FlavorId`].
    Flavor,
    /// [`NetworkId`].
    Network,
    /// [`SubnetId`].
    Subnet,
    /// [`FwGroupId`].
    FwGroup,
    /// [`GuestId`].
    Guest,
    /// [`JobId`].
    Job,
}

impl Kind {
    /// Every kind, in the order of loading.
    pub const ALL: [Kind; 10] = [
        Kind::Config,
        Kind::Token,
        Kind::Hypervisor,
        Kind::Image,
        Kind::Flavor,
        Kind::Network,
        Kind::Subnet,
        Kind::FwGroup,
        Kind::Guest,
        Kind::Job,
    ];

    /// The noun, as it stands in paths, commands and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Config => "config",
            Kind::Token => "token",
            Kind::Hypervisor => "hypervisor",
            Kind::Image => "image",
            Kind::Flavor => "flavor",
            Kind::Network => "network",
            Kind::Subnet => "subnet",
            Kind::FwGroup => "fwgroup",
            Kind::Guest => "guest",
            Kind::Job => "job",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
