//! A guest's screen: VNC on a unix socket, shown in a folder of this program's own (`Libvirt.Vnc`).
//!
//! QEMU makes the socket as its own user, in a folder that only that user and root may enter; ours is for root alone
//! (0700) and holds a link to it, made when it is asked for. The socket itself is set to 0600.

use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use haar_api::rpc::libvirt::VncResponse;
use haar_api::rpc::{Fault, FaultCode, GuestRequest};
use virt::connect::Connect;

use crate::power;
use crate::service::Host;

/// Where a running guest's screen is; for as long as it runs.
///
/// # Errors
/// `not_found` without a domain or where it has no such screen, `invalid` when it does not run, `unavailable` when the
/// folder cannot be used.
pub(crate) fn vnc(connection: &Connect, host: &Host, asked: &GuestRequest) -> Result<VncResponse, Fault> {
    let (guest, found) = power::active(connection, asked)?;
    let socket = &found.described.vnc_socket;
    if socket.is_empty() {
        let message = format!("the domain {} has no VNC on a unix socket", guest.id);
        return Err(Fault::new(FaultCode::NotFound, message));
    }
    let link = place(&host.screens, &guest.id);
    show(Path::new(socket), &link).map_err(|error| {
        let message = format!("the screen {socket} cannot be shown at {}: {error}", link.display());
        Fault::new(FaultCode::Unavailable, message)
    })?;
    Ok(VncResponse { guest: Some(found.answer(guest)), socket: link.to_string_lossy().into_owned() })
}

/// Removes what was shown; nothing is fine.
///
/// # Errors
/// `failed` when it cannot be removed.
pub(crate) fn remove(folder: &Path, id: &str) -> Result<(), Fault> {
    let link = place(folder, id);
    match std::fs::remove_file(&link) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Fault::new(FaultCode::Failed, format!("{} cannot be removed: {error}", link.display())))
        }
        _ => Ok(()),
    }
}

fn place(folder: &Path, id: &str) -> PathBuf {
    folder.join(format!("{id}.vnc"))
}

fn show(socket: &Path, link: &Path) -> std::io::Result<()> {
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    if std::fs::read_link(link).is_ok_and(|target| target == socket) {
        return Ok(());
    }
    if let Some(folder) = link.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    // Aside and then over the old one, for whoever opens it just now.
    let aside = link.with_extension("new");
    match std::fs::remove_file(&aside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(socket, &aside)?;
    std::fs::rename(&aside, link)
}
