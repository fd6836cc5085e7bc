//! The wire structs of `/v1`, one file per noun.
//!
//! Requests refuse unknown fields; answers may grow, and readers ignore what they do not know.
//! Words that can grow new members (states, goals, statuses) are text in answers, so that an old reader
//! can still read a new server; words a caller chooses from are enums.

mod common;
mod config;
mod event;
mod flavor;
mod fwgroup;
mod guest;
mod hypervisor;
mod image;
mod job;
mod network;
mod query;
mod status;
mod token;

pub use common::{FenceText, List, Ref, Reference, ResourcesView, Time};
pub use config::{ConfigPatch, ConfigView, SettingView};
pub use event::EventView;
pub use flavor::{FlavorCreate, FlavorPatch, FlavorView};
pub use fwgroup::{FwAction, FwGroupCreate, FwGroupPatch, FwGroupView, FwProtocol, FwRuleBody};
pub use guest::{CandidateView, CandidatesView, GuestCreate, GuestPatch, GuestRestart, GuestView};
pub use hypervisor::{HypervisorCreate, HypervisorPatch, HypervisorView, InventoryView, OvercommitRatios};
pub use image::{ImageCreate, ImageFormat, ImagePatch, ImageView};
pub use job::{JobView, StepView};
pub use network::{
    NetworkCreate, NetworkPatch, NetworkReach, NetworkView, SubnetCreate, SubnetPatch, SubnetView,
};
pub use query::{
    BadWait, DEFAULT_LIMIT, EventsQuery, FeedQuery, GuestListQuery, JobListQuery, ListQuery, LogQuery,
    MOST_LIMIT, MOST_WAIT, NoQuery, RefQuery, RefWaitQuery, SubnetListQuery, UploadQuery, Wait, WaitQuery,
};
pub use status::{
    CapacityView, CheckView, CheckedView, FaultView, HypervisorCapacity, JobsView, StatusView, StrangerView,
    SubnetCapacity,
};
pub use token::{TokenCreate, TokenCreated, TokenRole, TokenView, WhoamiView};
