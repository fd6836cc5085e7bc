//! A domain's XML read back as a guest: the inverse of `xml`, and tolerant of strangers' domains.

use haar_api::rpc::{Disk, DiskExtra, Guest, GuestExtra, Nic};

use crate::console::Console;
use crate::filter;
use crate::tree::{Element, Error};
use crate::xml::{AGENT_CHANNEL, NAMESPACE};

/// What a domain's XML says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Described {
    /// The guest as it was defined; `haar` only when this program wrote it for Haar.
    pub(crate) guest: Guest,
    /// libvirt's UUID of the domain.
    pub(crate) uuid: String,
    /// Empty texts when the serial console is not a socket with a log.
    pub(crate) console: Console,
    /// This program wrote it, for Haar or for a caller of the seed's kind.
    pub(crate) written_here: bool,
    /// It has UEFI variables, which undefining must be told to remove.
    pub(crate) has_nvram: bool,
    /// Something inside has opened the guest agent's channel.
    pub(crate) has_agent: bool,
    /// The unix socket of its VNC screen while it runs; else empty.
    pub(crate) vnc_socket: String,
    /// Names of the libvirt networks its nics hang on.
    pub(crate) networks: Vec<String>,
    /// Names of the network filters its nics are held by.
    pub(crate) filters: Vec<String>,
    /// MACs of the nics that filters of ours hold.
    pub(crate) held: Vec<String>,
}

impl Described {
    /// Reads the XML of one domain.
    ///
    /// # Errors
    /// When it is not XML.
    pub(crate) fn parse(xml: &str) -> Result<Self, Error> {
        let root = Element::parse(xml)?;
        let none = Element::default();
        let devices = root.find("devices").unwrap_or(&none);
        let console = console(devices);
        let disks: Vec<Disk> = devices.all("disk").filter_map(disk).collect();
        let kept = root.find("metadata").and_then(kept);
        let mut guest = Guest {
            id: root.text_of("name").to_owned(),
            kind: "kvm".into(),
            nics: devices.all("interface").map(nic).collect(),
            memory: memory_mib(&root),
            cpu: root.text_of("vcpu").trim().parse().unwrap_or(0),
            haar: kept.and_then(|kept| kept.find("owner")).map(owner),
            ..Guest::default()
        };
        if let Some(kept) = kept {
            guest.metadata = kept.all("label").filter_map(label).collect();
        }
        guest.disks = disks;
        if let Some(extra) = &mut guest.haar {
            extra.console_socket.clone_from(&console.socket);
            extra.console_log.clone_from(&console.log);
            extra.accel = if root.attribute("type") == "kvm" { "kvm".into() } else { "tcg".into() };
            extra.seed = seed(devices);
        }
        Ok(Described {
            guest,
            uuid: root.text_of("uuid").to_owned(),
            console,
            written_here: kept.is_some(),
            has_nvram: root
                .find("os")
                .is_some_and(|os| os.find("nvram").is_some() || !os.attribute("firmware").is_empty()),
            has_agent: devices.all("channel").filter_map(|channel| channel.find("target")).any(|target| {
                target.attribute("name") == AGENT_CHANNEL && target.attribute("state") == "connected"
            }),
            vnc_socket: devices
                .all("graphics")
                .filter(|screen| screen.attribute("type") == "vnc")
                .map(|screen| screen.attribute_of("listen", "socket").to_owned())
                .find(|socket| !socket.is_empty())
                .unwrap_or_default(),
            networks: devices
                .all("interface")
                .map(|nic| nic.attribute_of("source", "network").to_owned())
                .filter(|name| !name.is_empty())
                .collect(),
            filters: devices
                .all("interface")
                .filter_map(|nic| Some(nic.find("filterref")?.attribute("filter").to_owned()))
                .collect(),
            held: devices
                .all("interface")
                .filter(|nic| filter::is_ours(nic.attribute_of("filterref", "filter")))
                .map(|nic| nic.attribute_of("mac", "address").to_owned())
                .collect(),
        })
    }
}

/// Our element among those of other programs, told by its namespace.
fn kept(metadata: &Element) -> Option<&Element> {
    metadata.all("guest").find(|element| element.attributes.iter().any(|(_, value)| value == NAMESPACE))
}

/// None for what this program did not write so.
fn label(element: &Element) -> Option<(String, String)> {
    let (key, value) = (element.attribute("key"), element.text.as_str());
    match element.attribute("encoding") {
        "" => Some((key.to_owned(), value.to_owned())),
        "hex" => Some((of_hex(key)?, of_hex(value)?)),
        _ => None,
    }
}

fn of_hex(text: &str) -> Option<String> {
    let digits: Vec<char> = text.chars().collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).ok();
    String::from_utf8(digits.chunks(2).map(byte).collect::<Option<_>>()?).ok()
}

fn owner(element: &Element) -> GuestExtra {
    let field = |name| element.text_of(name).to_owned();
    GuestExtra {
        cloud: field("cloud"),
        name: field("name"),
        order: field("order"),
        life: field("life"),
        claim: field("claim"),
        provisioned: element.attribute("provisioned") == "true",
        ..GuestExtra::default()
    }
}

fn console(devices: &Element) -> Console {
    let Some(serial) = devices.all("serial").find(|serial| serial.attribute("type") == "unix") else {
        return Console::default();
    };
    Console {
        socket: serial.attribute_of("source", "path").to_owned(),
        log: serial.attribute_of("log", "file").to_owned(),
    }
}

/// A writable disk; CD drives and our read-only seed are none.
fn disk(element: &Element) -> Option<Disk> {
    if element.attribute("device") != "disk" || element.find("readonly").is_some() {
        return None;
    }
    let format = element.attribute_of("driver", "type").to_owned();
    Some(Disk {
        bus: element.attribute_of("target", "bus").to_owned(),
        device: element.attribute_of("target", "dev").to_owned(),
        source: source(element),
        haar: Some(DiskExtra { format, ..DiskExtra::default() }),
        ..Disk::default()
    })
}

fn seed(devices: &Element) -> String {
    devices.all("disk").find(|disk| disk.find("readonly").is_some()).map(source).unwrap_or_default()
}

fn source(disk: &Element) -> String {
    let attribute = if disk.attribute("type") == "block" { "dev" } else { "file" };
    disk.attribute_of("source", attribute).to_owned()
}

fn nic(element: &Element) -> Nic {
    Nic {
        network: element.attribute_of("source", "bridge").to_owned(),
        model: element.attribute_of("model", "type").to_owned(),
        mac: element.attribute_of("mac", "address").to_owned(),
        device: element.attribute_of("target", "dev").to_owned(),
        ..Nic::default()
    }
}

fn memory_mib(root: &Element) -> u64 {
    let Some(memory) = root.find("memory") else { return 0 };
    let value: u64 = memory.text.trim().parse().unwrap_or(0);
    match memory.attribute("unit") {
        "b" | "bytes" => value >> 20,
        "MiB" | "M" => value,
        "GiB" | "G" => value << 10,
        // libvirt itself always answers in KiB.
        _ => value >> 10,
    }
}
