//! A guest as libvirt's domain XML, and a foreign caller's nic as its network XML: pure functions.
//!
//! Choices, and why:
//! - `cache='writeback'`: `none` needs O_DIRECT, which tmpfs and some file systems refuse; writeback works
//!   everywhere and still honours the guest's flushes. `discard='unmap'` gives space back to the host.
//! - `cpu mode='maximum'` under TCG: boots Debian's kernel within a tenth of `qemu64`'s time and also runs
//!   userlands that ask for x86-64-v2 or v3. `host-passthrough` under KVM: guests do not migrate.
//! - TCG's translation cache is capped; its default may grow by 1 GiB per guest, which nobody booked.
//! - A VGA screen by VNC on a unix socket that libvirt places: costs 0.3 s of boot and is the only way into
//!   a guest whose kernel does not speak on the serial port. No USB: PS/2 is there, and probing USB is slow.
//! - No autostart: the node's brain decides what runs after a reboot.
//! - `on_poweroff` and `on_crash` destroy, so that the domain's state reason tells which it was.

use haar_api::rpc::{Disk, Fault, FaultCode, Guest, GuestExtra, Nic, UNTAGGED};

use crate::accel::Accel;
use crate::console::Console;
use crate::filter::{self, Filtered};
use crate::tree::{self, Element};

/// The namespace of what this program keeps in a domain's metadata; it is versioned by its last number.
pub(crate) const NAMESPACE: &str = "urn:haar:guest:1";

/// The name that a guest's agent looks for among its channels.
pub(crate) const AGENT_CHANNEL: &str = "org.qemu.guest_agent.0";

/// MiB of translated code a TCG guest may hold.
const TCG_CACHE_MIB: &str = "256";

/// What a foreign caller's bridge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Switch {
    /// An Open vSwitch, as on the seed's hosts.
    OpenVswitch,
    /// The kernel's own bridge.
    Bridge,
}

/// What the XML needs beside the guest.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) accel: Accel,
    /// Machine architecture in libvirt's words, such as `x86_64`.
    pub(crate) arch: &'static str,
    /// The domain's UUID; absent, libvirt draws one.
    pub(crate) uuid: Option<String>,
    pub(crate) console: Console,
    /// Of each nic, in their order, whether it is held to its addresses.
    pub(crate) filtered: Vec<Filtered>,
}

impl From<tree::Error> for Fault {
    fn from(error: tree::Error) -> Self {
        Fault::new(FaultCode::Invalid, error.to_string())
    }
}

/// The domain XML of this guest.
///
/// # Errors
/// `invalid` when the guest lacks what a domain needs or holds what XML cannot carry; `unavailable` on an
/// architecture whose machine is not known here.
pub(crate) fn domain(guest: &Guest, target: &Target) -> Result<String, Fault> {
    if guest.memory == 0 || guest.cpu == 0 {
        return Err(invalid("the guest needs memory (MiB) and cpu, both above 0"));
    }
    let kind = match target.accel {
        Accel::Kvm => "kvm",
        Accel::Tcg => "qemu",
        Accel::Test => "test",
    };
    let mut root = Element::new("domain").with("type", kind).child(Element::new("name").text(&*guest.id));
    if let Some(uuid) = &target.uuid {
        root = root.child(Element::new("uuid").text(uuid.as_str()));
    }
    let root = root
        .child(Element::new("metadata").child(kept(guest)))
        .child(Element::new("memory").with("unit", "MiB").text(guest.memory.to_string()))
        .child(Element::new("vcpu").text(guest.cpu.to_string()))
        .child(Element::new("os").child(machine(target)?))
        .child(features(target.accel))
        .children(processor(target.accel))
        .child(clock(target.accel))
        .child(Element::new("on_poweroff").text("destroy"))
        .child(Element::new("on_reboot").text("restart"))
        .child(Element::new("on_crash").text("destroy"))
        .child(devices(guest, target)?);
    Ok(root.to_xml()?)
}

/// The libvirt network that a foreign caller's nic hangs on, named by its MAC (`mistify-wire` §3.4).
///
/// # Errors
/// `invalid` when MAC or bridge is missing or malformed, and for VLANs on a Linux bridge.
pub(crate) fn network(nic: &Nic, switch: Switch) -> Result<String, Fault> {
    check_nic(nic)?;
    let tags = nic.vlans.as_deref().unwrap_or_default();
    // The seed's controller writes the first VLAN where it means none; a Linux bridge has just that.
    let tags = if switch == Switch::Bridge && tags == UNTAGGED { &[] } else { tags };
    if switch == Switch::Bridge && !tags.is_empty() {
        return Err(invalid(format!(
            "a nic has VLANs and its network {} is a Linux bridge: libvirt tags frames on an Open vSwitch only",
            nic.network
        )));
    }
    let mut group = Element::new("portgroup").with("name", "vlan-all");
    // libvirt refuses a vlan element without tags.
    if !tags.is_empty() {
        let mut vlan = Element::new("vlan");
        if tags.len() > 1 {
            vlan = vlan.with("trunk", "yes");
        }
        let tags = tags.iter().map(|tag| Element::new("tag").with("id", tag.to_string()));
        group = group.child(vlan.children(tags));
    }
    let mut root = Element::new("network")
        .child(Element::new("name").text(&*nic.mac))
        .child(Element::new("forward").with("mode", "bridge"))
        .child(Element::new("bridge").with("name", &*nic.network));
    if switch == Switch::OpenVswitch {
        root = root.child(Element::new("virtualport").with("type", "openvswitch"));
    }
    Ok(root.child(group).to_xml()?)
}

/// Each disk's bus and its name in the guest: `vda` … `vdz`, `vdaa` and on, or `sda` and on; in their order.
///
/// # Errors
/// `invalid` for a bus that is none of `virtio`, `sata`, `scsi`; an empty one is `virtio`.
pub(crate) fn disk_places(disks: &[Disk]) -> Result<Vec<(&'static str, String)>, Fault> {
    let (mut virtio, mut others) = (0, 0);
    let place = |(index, disk): (usize, &Disk)| {
        let (bus, initial, count) = match disk.bus.as_str() {
            "" | "virtio" => ("virtio", 'v', &mut virtio),
            "sata" => ("sata", 's', &mut others),
            "scsi" => ("scsi", 's', &mut others),
            bus => {
                return Err(invalid(format!(
                    "disk {index} has the bus {bus:?}: it must be `virtio`, `sata` or `scsi`"
                )));
            }
        };
        *count += 1;
        Ok((bus, disk_device(initial, *count - 1)))
    };
    disks.iter().enumerate().map(place).collect()
}

fn disk_device(initial: char, index: usize) -> String {
    let mut letters = Vec::new();
    let mut rest = index + 1;
    while rest > 0 {
        rest -= 1;
        // A remainder by 26 fits a byte.
        letters.push(char::from(b'a' + u8::try_from(rest % 26).unwrap_or(0)));
        rest /= 26;
    }
    letters.extend(['d', initial]);
    letters.iter().rev().collect()
}

/// Whether this is a MAC in colon form; only a network named so is one that this program made.
pub(crate) fn is_mac(text: &str) -> bool {
    let byte = |part: &str| part.len() == 2 && part.bytes().all(|c| c.is_ascii_hexdigit());
    text.split(':').count() == 6 && text.split(':').all(byte)
}

fn check_nic(nic: &Nic) -> Result<(), Fault> {
    if !is_mac(&nic.mac) {
        return Err(invalid(format!(
            "a nic has the mac {:?}: it must be six hex bytes with colons",
            nic.mac
        )));
    }
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"_.-".contains(&c);
    // The kernel's names have at most 15 bytes.
    if !(1..=15).contains(&nic.network.len()) || !nic.network.bytes().all(plain) {
        return Err(invalid(format!(
            "a nic has the network {:?}: it must be a bridge's name on the host",
            nic.network
        )));
    }
    Ok(())
}

fn invalid(message: impl Into<String>) -> Fault {
    Fault::new(FaultCode::Invalid, message)
}

/// What is read back by `describe`: the guest's labels and, for Haar's own, who it belongs to.
fn kept(guest: &Guest) -> Element {
    let labels = guest.metadata.iter().map(|(key, value)| label(key, value));
    let root = Element::new("haar:guest").with("xmlns:haar", NAMESPACE).children(labels);
    let Some(extra) = &guest.haar else { return root };
    let GuestExtra { cloud, name, order, life, provisioned, claim, .. } = extra;
    let fields = [("cloud", cloud), ("life", life), ("order", order), ("name", name), ("claim", claim)];
    let mut owner = Element::new("haar:owner").with("provisioned", provisioned.to_string());
    for (field, value) in fields {
        owner = owner.child(Element::new(&format!("haar:{field}")).text(value.as_str()));
    }
    root.child(owner)
}

/// One label; what XML cannot carry as it is, in hexadecimal.
fn label(key: &str, value: &str) -> Element {
    let label = Element::new("haar:label");
    // A newline or a tab is fine in a text, which holds most of them.
    if tree::can_be_written(key) && tree::can_be_written(&value.replace(['\n', '\t'], "")) {
        return label.with("key", key).text(value);
    }
    label.with("encoding", "hex").with("key", hex(key)).text(hex(value))
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn machine(target: &Target) -> Result<Element, Fault> {
    let kind = Element::new("type").text("hvm");
    match (target.accel, target.arch) {
        // The test driver knows one machine, of its own.
        (Accel::Test, _) => Ok(kind),
        (_, "x86_64") => Ok(kind.with("arch", "x86_64").with("machine", "q35")),
        (_, arch) => Err(Fault::new(
            FaultCode::Unavailable,
            format!("guests on {arch} hosts are not supported by this version, only on x86_64"),
        )),
    }
}

fn features(accel: Accel) -> Element {
    let features = Element::new("features").child(Element::new("acpi")).child(Element::new("apic"));
    match accel {
        Accel::Tcg => features.child(
            Element::new("tcg").child(Element::new("tb-cache").with("unit", "MiB").text(TCG_CACHE_MIB)),
        ),
        Accel::Kvm | Accel::Test => features,
    }
}

fn processor(accel: Accel) -> Option<Element> {
    match accel {
        Accel::Kvm => Some(Element::new("cpu").with("mode", "host-passthrough")),
        Accel::Tcg => Some(Element::new("cpu").with("mode", "maximum")),
        Accel::Test => None,
    }
}

fn clock(accel: Accel) -> Element {
    let clock = Element::new("clock").with("offset", "utc");
    match accel {
        // Under KVM guests have kvmclock; the others count on the HPET.
        Accel::Kvm => clock.child(Element::new("timer").with("name", "hpet").with("present", "no")),
        Accel::Tcg | Accel::Test => clock,
    }
}

fn devices(guest: &Guest, target: &Target) -> Result<Element, Fault> {
    let mut devices = Element::new("devices");
    let places = disk_places(&guest.disks)?;
    for (index, (disk, place)) in guest.disks.iter().zip(&places).enumerate() {
        devices = devices.child(disk_element(disk, index, place, guest.haar.is_some())?);
    }
    if let Some(extra) = &guest.haar
        && !extra.seed.is_empty()
    {
        let before = places.iter().filter(|(bus, _)| *bus == "virtio").count();
        devices = devices.child(seed(&extra.seed, guest.disks.len(), before)?);
    }
    if places.iter().any(|(bus, _)| *bus == "scsi") {
        // libvirt's own choice is a card that few kernels know.
        let controller = Element::new("controller").with("type", "scsi").with("model", "virtio-scsi");
        devices = devices.child(controller);
    }
    for (nic, filtered) in guest.nics.iter().zip(&target.filtered) {
        let interface = interface(nic, guest.haar.is_some())?;
        devices = devices.child(match filtered {
            Filtered::Yes => interface.child(filter::reference(nic)),
            Filtered::No => interface,
        });
    }
    let channel = Element::new("target").with("type", "virtio").with("name", AGENT_CHANNEL);
    let randomness = Element::new("backend").with("model", "random").text("/dev/urandom");
    let screen = Element::new("model").with("type", "vga").with("vram", "16384");
    Ok(devices
        .child(Element::new("controller").with("type", "usb").with("model", "none"))
        .child(serial(&target.console))
        .child(Element::new("channel").with("type", "unix").child(channel))
        .child(
            Element::new("graphics").with("type", "vnc").child(Element::new("listen").with("type", "socket")),
        )
        .child(Element::new("video").child(screen))
        .child(Element::new("memballoon").with("model", "virtio").with("freePageReporting", "on"))
        .child(Element::new("rng").with("model", "virtio").child(randomness)))
}

fn disk_element(
    disk: &Disk,
    index: usize,
    place: &(&'static str, String),
    ours: bool,
) -> Result<Element, Fault> {
    let format = match (&disk.haar, ours) {
        (Some(extra), _) if matches!(extra.format.as_str(), "qcow2" | "raw") => extra.format.as_str(),
        (Some(extra), _) => {
            return Err(invalid(format!(
                "disk {index} has the format {:?}: it must be `qcow2` or `raw`",
                extra.format
            )));
        }
        (None, true) => {
            return Err(invalid(format!("disk {index} names no format; formats are never probed")));
        }
        // The seed's disks are zvols.
        (None, false) => "raw",
    };
    let driver = Element::new("driver").with("discard", "unmap");
    let mut element = file(&disk.source, index, format, place, driver)?;
    if index == 0 {
        element = element.child(Element::new("boot").with("order", "1"));
    }
    Ok(element)
}

fn seed(path: &str, index: usize, virtio_before: usize) -> Result<Element, Fault> {
    let place = ("virtio", disk_device('v', virtio_before));
    Ok(file(path, index, "raw", &place, Element::new("driver"))?.child(Element::new("readonly")))
}

fn file(
    path: &str,
    index: usize,
    format: &str,
    (bus, device): &(&'static str, String),
    driver: Element,
) -> Result<Element, Fault> {
    if !path.starts_with('/') {
        return Err(invalid(format!("disk {index} has the source {path:?}: it must be an absolute path")));
    }
    let (kind, attribute) = if path.starts_with("/dev/") { ("block", "dev") } else { ("file", "file") };
    let driver = driver.with("name", "qemu").with("type", format).with("cache", "writeback");
    Ok(Element::new("disk")
        .with("type", kind)
        .with("device", "disk")
        .child(driver)
        .child(Element::new("source").with(attribute, path))
        .child(Element::new("target").with("dev", device.as_str()).with("bus", *bus)))
}

fn interface(nic: &Nic, ours: bool) -> Result<Element, Fault> {
    check_nic(nic)?;
    let mac = Element::new("mac").with("address", &*nic.mac);
    if ours {
        return Ok(Element::new("interface")
            .with("type", "bridge")
            .child(mac)
            .child(Element::new("source").with("bridge", &*nic.network))
            .child(Element::new("model").with("type", "virtio"))
            // Guests boot from disk: without the ROM there is no PXE to wait for.
            .child(Element::new("rom").with("enabled", "no")));
    }
    let source = Element::new("source").with("network", &*nic.mac).with("portgroup", "vlan-all");
    let mut element = Element::new("interface").with("type", "network").child(mac).child(source);
    if !nic.name.is_empty() {
        element = element.child(Element::new("guest").with("dev", &*nic.name));
    }
    if !nic.model.is_empty() {
        element = element.child(Element::new("model").with("type", &*nic.model));
    }
    Ok(element)
}

fn serial(console: &Console) -> Element {
    Element::new("serial")
        .with("type", "unix")
        // QEMU listens, so that a client may come, leave and come back.
        .child(Element::new("source").with("mode", "bind").with("path", &*console.socket))
        .child(Element::new("log").with("file", &*console.log).with("append", "on"))
        .child(Element::new("target").with("port", "0"))
}

#[cfg(test)]
mod tests;
