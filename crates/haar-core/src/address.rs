//! MAC addresses and address ranges.

use std::net::IpAddr;

use ipnet::IpNet;
use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};

use crate::id::{CloudId, GuestId, NetworkId};

/// A MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

/// A text that is no unicast MAC address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a usable MAC address; write six hex bytes such as 02:1a:2b:3c:4d:5e, not multicast, not zero"
)]
pub struct BadMac(String);

impl Mac {
    /// A guest's own: `02:` and the first five bytes of MD5 over the id's text (`mistify-wire` §1.4).
    /// A counter above 0 is hashed in after the id, for the day two collide (design §11.5).
    pub fn of_guest(guest: GuestId, counter: u32) -> Mac {
        let mut hash = Md5::new();
        hash.update(guest.to_string().as_bytes());
        if counter > 0 {
            hash.update(counter.to_string().as_bytes());
        }
        let digest = hash.finalize();
        Mac([0x02, digest[0], digest[1], digest[2], digest[3], digest[4]])
    }
}

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl std::str::FromStr for Mac {
    type Err = BadMac;
    /// Reads six hex bytes separated by `:`, `-`, or three groups separated by `.` (`mistify-wire` §0.3).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadMac(text.to_owned());
        let digits: String = text.chars().filter(|c| !matches!(c, ':' | '-' | '.')).collect();
        let grouped = [(':', 2), ('-', 2), ('.', 4)].into_iter().any(|(separator, width)| {
            text.split(separator).count() == 12 / width
                && text.split(separator).all(|group| group.len() == width)
        });
        if !grouped || digits.len() != 12 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let mut bytes = [0; 6];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[index * 2..index * 2 + 2], 16).map_err(|_| bad())?;
        }
        if bytes[0] & 1 == 1 || bytes == [0; 6] {
            return Err(bad());
        }
        Ok(Mac(bytes))
    }
}

impl TryFrom<String> for Mac {
    type Error = BadMac;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

/// An address range in CIDR form, without host bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr(IpNet);

/// Why a text is no [`Cidr`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCidr {
    /// Not an address, a slash and a length.
    #[error("`{0}` is not a CIDR; write it as 10.1.2.0/24 or fd00:1::/64")]
    Syntax(String),
    /// The address says more than the network.
    #[error("`{given}` has host bits set; did you mean {meant}?")]
    HostBits {
        /// What was given.
        given: String,
        /// The network it lies in.
        meant: String,
    },
}

/// Ranges whose addresses no machine can have as its own (RFC 6890), and what they are for.
const SPECIAL: [(&str, &str); 9] = [
    ("0.0.0.0/8", "hosts that do not know their address yet"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local addresses"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "nobody: it is reserved"),
    ("::/96", "loopback and the unspecified address"),
    ("::ffff:0:0/96", "IPv4 addresses written as IPv6"),
    ("fe80::/10", "link-local addresses"),
    ("ff00::/8", "multicast"),
];

impl Cidr {
    /// The first special range this one shares addresses with, and what it is for.
    pub fn special(self) -> Option<(&'static str, &'static str)> {
        SPECIAL.into_iter().find(|(range, _)| {
            let range: IpNet = range.parse().expect("the table's ranges are well-formed");
            range.contains(&self.0) || self.0.contains(&range)
        })
    }

    /// The network.
    pub fn net(self) -> IpNet {
        self.0
    }

    /// Whether the address lies in it.
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for Cidr {
    type Err = BadCidr;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let net: IpNet = text.parse().map_err(|_| BadCidr::Syntax(text.to_owned()))?;
        if net.addr() != net.network() {
            return Err(BadCidr::HostBits { given: text.to_owned(), meant: net.trunc().to_string() });
        }
        Ok(Cidr(net))
    }
}

impl TryFrom<String> for Cidr {
    type Error = BadCidr;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> String {
        cidr.to_string()
    }
}

/// The host bridge of a network: names the cloud too, so that two instances on one host do not meet,
/// and fits the kernel's 15 characters (design §11.15).
pub fn bridge_name(cloud: CloudId, network: NetworkId) -> String {
    let cloud = cloud.0.simple().to_string();
    let network = network.0.simple().to_string();
    format!("hr{}-{}", &cloud[..4], &network[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_read_in_three_spellings_and_written_in_one() {
        for text in ["02:1A:2b:3c:4d:5e", "02-1a-2b-3c-4d-5e", "021a.2b3c.4d5e"] {
            assert_eq!(text.parse::<Mac>().unwrap().to_string(), "02:1a:2b:3c:4d:5e");
        }
        for text in [
            "",
            "021a2b3c4d5e",
            "03:00:00:00:00:01",
            "00:00:00:00:00:00",
            "02:1a:2b:3c:4d",
            "02:1a:2b:3c:4d:é",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_guests_mac_follows_from_its_id() {
        let guest: GuestId = "7f3a2a54-0d63-4b13-9c7e-0a1b2c3d4e5f".parse().unwrap();
        assert_eq!(Mac::of_guest(guest, 0), Mac::of_guest(guest, 0));
        assert_ne!(Mac::of_guest(guest, 0), Mac::of_guest(guest, 1));
        assert_eq!(Mac::of_guest(guest, 0).0[0], 0x02);
    }

    #[test]
    fn host_bits_are_refused_with_what_was_meant() {
        let error = "192.168.100.1/24".parse::<Cidr>().unwrap_err();
        assert_eq!(
            error,
            BadCidr::HostBits { given: "192.168.100.1/24".into(), meant: "192.168.100.0/24".into() }
        );
        assert!("fd00:1::/64".parse::<Cidr>().is_ok());
        assert!(matches!("10.0.0.0".parse::<Cidr>(), Err(BadCidr::Syntax(_))));
    }

    #[test]
    fn special_ranges_are_known_from_both_sides() {
        for text in
            ["0.0.0.0/0", "127.1.0.0/16", "128.0.0.0/1", "169.254.7.0/24", "255.255.255.255/32", "::/0"]
                .into_iter()
                .chain(["::1/128", "::ffff:10.0.0.0/120", "fe80::/64", "ff02::/16"])
        {
            assert!(text.parse::<Cidr>().unwrap().special().is_some(), "{text}");
        }
        for text in
            ["10.0.0.0/8", "192.168.0.0/16", "100.64.0.0/10", "1.0.0.0/8", "fd00::/8", "2001:db8::/32"]
        {
            assert_eq!(text.parse::<Cidr>().unwrap().special(), None, "{text}");
        }
    }
}
