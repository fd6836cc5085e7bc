//! Whose a guest's disks are: the record beside them, and what may be done under it.

use std::fs;
use std::io;

use haar_api::rpc::{Fault, FaultCode, Guest, GuestExtra};
use serde::{Deserialize, Serialize};

use super::folders::{Folders, io_fault, is_passing};

/// What stands in `owner.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    /// Version of this record.
    pub(super) v: u32,
    pub(super) guest: String,
    pub(super) cloud: String,
    /// The placement that made the disks; empty for what a stranger's agent or a volume call made.
    pub(super) life: String,
    /// The newest order that asked for them.
    pub(super) order: String,
    /// Whether they have held data; never taken back.
    pub(super) provisioned: bool,
}

/// What stands where a guest's disks belong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing.
    Absent,
    /// A folder with this record.
    Owned(Owner),
    /// A folder whose record is missing or cannot be read, or something that is no folder.
    Unclear(String),
}

impl Owner {
    /// The owner that a request speaks for, in this cloud.
    pub(super) fn of(guest: &Guest, cloud: &str) -> Result<Self, Fault> {
        let extra = guest
            .haar
            .clone()
            .unwrap_or_else(|| GuestExtra { cloud: cloud.to_owned(), ..Default::default() });
        if extra.cloud != cloud {
            let text =
                format!("the call is for cloud {:?} and this storage belongs to {cloud:?}", extra.cloud);
            return Err(Fault::new(FaultCode::Conflict, text));
        }
        Ok(Owner {
            v: 1,
            guest: guest.id.clone(),
            cloud: extra.cloud,
            life: extra.life,
            order: extra.order,
            provisioned: extra.provisioned,
        })
    }

    /// Refuses when these disks are another cloud's or another life's.
    pub(super) fn check_same_life(&self, asked: &Owner) -> Result<(), Fault> {
        self.check_same_cloud(&asked.cloud)?;
        if self.life == asked.life {
            return Ok(());
        }
        let text = format!(
            "guest {} has disks of life {:?} here and life {:?} was asked for; they are left as they are",
            self.guest, self.life, asked.life
        );
        Err(Fault::new(FaultCode::Conflict, text))
    }

    /// Refuses when these disks are another cloud's.
    pub(super) fn check_same_cloud(&self, cloud: &str) -> Result<(), Fault> {
        if self.cloud == cloud {
            return Ok(());
        }
        let text =
            format!("the disks of guest {} belong to cloud {:?}, not {cloud:?}", self.guest, self.cloud);
        Err(Fault::new(FaultCode::Conflict, text))
    }
}

/// Looks at what stands where the guest's disks belong. The id must have been checked.
pub(super) fn look(folders: &Folders, guest: &str) -> Result<Standing, Fault> {
    let folder = folders.guest(guest);
    match fs::symlink_metadata(&folder) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Ok(Standing::Unclear(format!("{} is not a folder", folder.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Standing::Absent),
        Err(error) => return Err(io_fault("look at", &folder, &error)),
    }
    let path = folder.join("owner.json");
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Standing::Unclear(format!("{} is missing", path.display())));
        }
        Err(error) if is_passing(&error) => return Err(io_fault("read", &path, &error)),
        Err(error) => return Ok(Standing::Unclear(format!("{} cannot be read: {error}", path.display()))),
    };
    match serde_json::from_slice::<Owner>(&text) {
        Ok(owner) if owner.guest == guest => Ok(Standing::Owned(owner)),
        Ok(owner) => Ok(Standing::Unclear(format!("{} names guest {:?}", path.display(), owner.guest))),
        Err(error) => Ok(Standing::Unclear(format!("{} cannot be read: {error}", path.display()))),
    }
}

/// The conflict of disks whose owner is unclear.
pub(super) fn unclear(guest: &str, why: &str) -> Fault {
    let text = format!("the owner of the disks of guest {guest} is unclear: {why}; an operator must look");
    Fault::new(FaultCode::Conflict, text)
}
