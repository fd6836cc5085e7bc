//! Bridges over netlink: made with their addresses, listed by name, removed; those of others only looked at.

use std::net::IpAddr;

use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::{Handle, LinkBridge, LinkUnspec};

use super::{Error, routes};

/// A talk with the kernel about bridges; ends when dropped.
pub struct Bridges {
    pub(super) handle: Handle,
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for Bridges {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Bridges {
    /// Opens a netlink socket in the present network namespace.
    ///
    /// # Errors
    /// [`Error::Netlink`] when there is no permission.
    pub fn open() -> Result<Bridges, Error> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Netlink)?;
        Ok(Bridges { handle, connection: tokio::spawn(connection) })
    }

    /// The bridge is there, is up, and has exactly these addresses of global scope.
    ///
    /// # Errors
    /// [`Error::NotABridge`] when the name is taken by another kind of link; [`Error::RangeTaken`] when the host
    /// reaches the range of an address to be added elsewhere; [`Error::Link`] for the kernel's no.
    pub async fn ensure(&self, name: &str, addresses: &[(IpAddr, u8)]) -> Result<(), Error> {
        let found = self.find(name).await?;
        if found.as_ref().is_some_and(|link| !is_bridge(link)) {
            return Err(Error::NotABridge(name.to_owned()));
        }
        let present = match &found {
            Some(link) => self.addresses(name, link.header.index).await?,
            None => Vec::new(),
        };
        let missing: Vec<(IpAddr, u8)> = addresses
            .iter()
            .filter(|wanted| !present.iter().any(|(has, _)| has == *wanted))
            .copied()
            .collect();
        // Before anything is made: what is in force already is not taken away when others come later.
        self.refuse_taken(name, &missing).await?;
        let link = match found {
            Some(link) => link,
            None => self.add(name).await?,
        };
        let index = link.header.index;
        let up = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().set(up).execute().await.map_err(refused("switch on", name))?;
        for (has, message) in present {
            if !addresses.contains(&has) && !is_link_local(has.0) {
                let delete = self.handle.address().del(message).execute();
                delete.await.map_err(refused("take an address from", name))?;
            }
        }
        for (address, prefix) in missing {
            let add = self.handle.address().add(index, address, prefix).execute();
            add.await.map_err(refused("give an address to", name))?;
        }
        Ok(())
    }

    /// The bridge, which is somebody else's, is there and up. Changes nothing.
    ///
    /// # Errors
    /// [`Error::NoBridge`], [`Error::NotABridge`] or [`Error::BridgeDown`] when guests cannot be plugged into it.
    pub async fn is_usable(&self, name: &str) -> Result<(), Error> {
        match self.find(name).await? {
            None => Err(Error::NoBridge(name.to_owned())),
            Some(link) if !is_bridge(&link) => Err(Error::NotABridge(name.to_owned())),
            Some(link) if !link.header.flags.contains(LinkFlags::Up) => {
                Err(Error::BridgeDown(name.to_owned()))
            }
            Some(_) => Ok(()),
        }
    }

    /// The bridge is not there.
    ///
    /// # Errors
    /// As [`Bridges::ensure`].
    pub async fn remove(&self, name: &str) -> Result<(), Error> {
        let Some(link) = self.find(name).await? else { return Ok(()) };
        if !is_bridge(&link) {
            return Err(Error::NotABridge(name.to_owned()));
        }
        self.handle.link().del(link.header.index).execute().await.map_err(refused("remove", name))
    }

    /// Whether anything is plugged into it; nothing is into a bridge that is not there.
    ///
    /// # Errors
    /// [`Error::Link`] for the kernel's no.
    pub async fn has_ports(&self, name: &str) -> Result<bool, Error> {
        let Some(bridge) = self.find(name).await? else { return Ok(false) };
        let links: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.map_err(refused("list", name))?;
        let plugged_in =
            |link: &LinkMessage| link.attributes.contains(&LinkAttribute::Controller(bridge.header.index));
        Ok(links.iter().any(plugged_in))
    }

    /// Names of the bridges that begin with `prefix`.
    ///
    /// # Errors
    /// [`Error::Link`] for the kernel's no.
    pub async fn named(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let links: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.map_err(refused("list", prefix))?;
        let mut names: Vec<String> =
            links.iter().filter(|link| is_bridge(link)).filter_map(name_of).collect();
        names.retain(|name| name.starts_with(prefix));
        names.sort();
        Ok(names)
    }

    async fn add(&self, name: &str) -> Result<LinkMessage, Error> {
        let mut bridge = LinkBridge::new(name);
        // Without an address of its own a bridge takes its lowest port's, and changes it as guests come and go.
        if let Some(mac) = mac_from(name) {
            bridge = bridge.address(mac);
        }
        self.handle.link().add(bridge.build()).execute().await.map_err(refused("make", name))?;
        let made = self.find(name).await?;
        made.ok_or_else(|| Error::NotABridge(name.to_owned()))
    }

    /// The link of that name; the kernel answers "no such device" as an error.
    async fn find(&self, name: &str) -> Result<Option<LinkMessage>, Error> {
        let mut links = Box::pin(self.handle.link().get().match_name(name).execute());
        match links.try_next().await {
            Ok(link) => Ok(link),
            Err(rtnetlink::Error::NetlinkError(message)) if message.raw_code() == -nix::libc::ENODEV => {
                Ok(None)
            }
            Err(error) => Err(refused("look up", name)(error)),
        }
    }

    async fn addresses(&self, name: &str, index: u32) -> Result<Vec<((IpAddr, u8), AddressMessage)>, Error> {
        let present = self.handle.address().get().set_link_index_filter(index).execute();
        let present: Vec<_> = present.try_collect().await.map_err(refused("read the addresses of", name))?;
        let entry = |message: AddressMessage| {
            let address = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            })?;
            Some(((address, message.header.prefix_len), message))
        };
        Ok(present.into_iter().filter_map(entry).collect())
    }

    async fn refuse_taken(&self, name: &str, addresses: &[(IpAddr, u8)]) -> Result<(), Error> {
        // An address without a range, or with one of a single address, takes over nothing.
        let ranges = addresses.iter().filter_map(|(address, prefix)| IpNet::new(*address, *prefix).ok());
        let ranges: Vec<IpNet> = ranges.map(|range| range.trunc()).collect();
        if ranges.is_empty() {
            return Ok(());
        }
        let routes = routes::foreign(&self.handle, own_prefix(name)).await?;
        for range in ranges {
            if let Some(route) = routes.iter().find(|route| route.is_taken_over_by(range)) {
                return Err(Error::RangeTaken {
                    bridge: name.to_owned(),
                    range,
                    taken: route.range,
                    link: route.link.clone(),
                });
            }
        }
        Ok(())
    }
}

/// What the names of all bridges of the same cloud begin with.
fn own_prefix(name: &str) -> &str {
    name.split_inclusive('-').next().unwrap_or(name)
}

fn refused(doing: &'static str, bridge: &str) -> impl FnOnce(rtnetlink::Error) -> Error {
    let bridge = bridge.to_owned();
    move |source| Error::Link { doing, bridge, source }
}

fn is_bridge(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => {
            infos.iter().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Bridge)))
        }
        _ => false,
    })
}

pub(super) fn name_of(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.segments()[0] & 0xffc0 == 0xfe80,
    }
}

/// A locally administered MAC address from the hex digits of one of our bridge names (`hrcccc-nnnnnnnn`).
fn mac_from(name: &str) -> Option<Vec<u8>> {
    let (cloud, network) = name.strip_prefix("hr")?.split_once('-')?;
    let byte = |text: &str, at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    Some(vec![
        0x06,
        byte(network, 0)?,
        byte(network, 2)?,
        byte(network, 4)?,
        byte(network, 6)?,
        byte(cloud, 0)?,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridges_own_mac_follows_from_its_name() {
        assert_eq!(mac_from("hrab12-01020304"), Some(vec![0x06, 1, 2, 3, 4, 0xab]));
        assert_eq!(mac_from("br0"), None);
        assert_eq!(mac_from("hr-"), None);
    }
}
