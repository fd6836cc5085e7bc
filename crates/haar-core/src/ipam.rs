//! Addresses of one subnet: which are free, which are held and by whom, and which comes next.
//!
//! Free addresses are kept as ranges, so taking, giving back and finding the next cost O(log n) however
//! large the subnet is. The next address is the first free one after the last that was handed out,
//! wrapping, so that a freed address rests as long as possible. Network, broadcast (IPv4) and gateway
//! addresses are never handed out; a `/31` or `/32` has neither network nor broadcast address.
//! Held addresses are kept even while the subnet itself is unknown: records load in any order.
//! Deliberately absent: who may ask, and anything durable; the pool is derived from the records.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::address::Cidr;
use crate::id::GuestId;
use crate::network::{BadSubnet, SubnetSpec};

/// The addresses of one subnet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pool {
    range: Option<Range>,
    free: BTreeMap<u128, u128>,
    held: BTreeMap<IpAddr, GuestId>,
    cursor: Option<IpAddr>,
}

/// How many addresses a subnet has for guests, and how many are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressCount {
    /// Held by guests.
    pub used: u64,
    /// Handed out at most; saturates for large IPv6 ranges.
    pub total: u128,
}

/// What may be handed out: `first..=last` without the reserved ones.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    v4: bool,
    first: u128,
    last: u128,
    reserved: Vec<u128>,
}

/// Why an address cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// Not between start and end.
    Outside,
    /// Network, broadcast or gateway address.
    Reserved,
    /// Another guest's.
    Held(GuestId),
}

impl Pool {
    /// Sets the range, or takes it away; what is held stays held.
    pub fn set_range(&mut self, spec: Option<&SubnetSpec>) {
        self.range = spec.map(Range::of);
        if self.range.is_none() {
            self.cursor = None;
        }
        self.free = BTreeMap::new();
        let Some(range) = &self.range else { return };
        let mut taken: Vec<u128> = range.reserved.clone();
        taken.extend(self.held.keys().filter_map(|address| range.number(*address)));
        taken.sort_unstable();
        let mut from = Some(range.first);
        for number in taken {
            let Some(start) = from else { break };
            if number < start || number > range.last {
                continue;
            }
            if number > start {
                self.free.insert(start, number - 1);
            }
            from = number.checked_add(1).filter(|next| *next <= range.last);
        }
        if let Some(start) = from {
            self.free.insert(start, range.last);
        }
    }

    /// Whether an address may be handed out and, if so, to nobody yet.
    ///
    /// # Errors
    /// [`Unavailable`] says why it cannot be had.
    pub fn available(&self, address: IpAddr) -> Result<(), Unavailable> {
        if let Some(holder) = self.held.get(&address) {
            return Err(Unavailable::Held(*holder));
        }
        let range = self.range.as_ref().ok_or(Unavailable::Outside)?;
        range.usable(address).map(|_| ())
    }

    /// Whether a guest may keep an address: like [`Pool::available`], but held ones count as free.
    ///
    /// # Errors
    /// [`Unavailable`] says why it cannot be had.
    pub fn usable(spec: &SubnetSpec, address: IpAddr) -> Result<(), Unavailable> {
        Range::of(spec).usable(address).map(|_| ())
    }

    /// Notes that a guest holds an address; the first holder stays when there is one.
    pub fn take(&mut self, address: IpAddr, guest: GuestId) {
        if self.held.contains_key(&address) {
            return;
        }
        self.held.insert(address, guest);
        let Some(number) = self.range.as_ref().and_then(|range| range.usable(address).ok()) else { return };
        let Some((&start, &end)) = self.free.range(..=number).next_back() else { return };
        if number > end {
            return;
        }
        self.free.remove(&start);
        if start < number {
            self.free.insert(start, number - 1);
        }
        if number < end {
            self.free.insert(number + 1, end);
        }
    }

    /// Gives an address back, if this guest holds it.
    pub fn give_back(&mut self, address: IpAddr, guest: GuestId) {
        if self.held.get(&address) != Some(&guest) {
            return;
        }
        self.held.remove(&address);
        let Some(number) = self.range.as_ref().and_then(|range| range.usable(address).ok()) else { return };
        let before = self.free.range(..number).next_back().map(|(start, end)| (*start, *end));
        let after = self.free.range(number..).next().map(|(start, end)| (*start, *end));
        let mut range = (number, number);
        if let Some((start, end)) = before.filter(|(_, end)| end + 1 == number) {
            range.0 = start;
            debug_assert!(end < number);
        }
        if let Some((start, end)) = after.filter(|(start, _)| number + 1 == *start) {
            self.free.remove(&start);
            range.1 = end;
        }
        self.free.insert(range.0, range.1);
    }

    /// Notes the last address handed out.
    pub fn set_cursor(&mut self, address: IpAddr) {
        self.cursor = Some(address);
    }

    /// The last address handed out.
    pub fn cursor(&self) -> Option<IpAddr> {
        self.cursor
    }

    /// Whether any address is free.
    pub fn has_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// The next free address after the last one handed out, wrapping.
    pub fn next_free(&self) -> Option<IpAddr> {
        let range = self.range.as_ref()?;
        let after_last =
            self.cursor.and_then(|address| range.number(address)).and_then(|number| number.checked_add(1));
        let from = after_last.unwrap_or(range.first);
        let inside = self.free.range(..=from).next_back().filter(|(_, end)| **end >= from).map(|_| from);
        let later = || self.free.range(from..).next().map(|(start, _)| *start);
        let wrapped = || self.free.keys().next().copied();
        inside.or_else(later).or_else(wrapped).map(|number| range.address(number))
    }

    /// The last address of `spec`'s range that a guest could have and none does.
    pub fn last_free(&self, spec: &SubnetSpec) -> Option<IpAddr> {
        let range = Range::of(spec);
        let (first, last) = (range.first, range.last);
        // So many are held that one of this many is free, if any is.
        let most = self.held.len() as u128 + range.reserved.len() as u128 + 1;
        let lowest = first.max(last.saturating_sub(most));
        let addresses = (lowest..=last).rev().map(|number| range.address(number));
        addresses
            .into_iter()
            .find(|address| range.usable(*address).is_ok() && self.holder(*address).is_none())
    }

    /// Who holds an address.
    pub fn holder(&self, address: IpAddr) -> Option<GuestId> {
        self.held.get(&address).copied()
    }

    /// Every held address with its holder, in order.
    pub fn held(&self) -> impl Iterator<Item = (IpAddr, GuestId)> + '_ {
        self.held.iter().map(|(address, guest)| (*address, *guest))
    }

    /// Whether the pool knows nothing and so need not be kept.
    pub fn is_idle(&self) -> bool {
        self.range.is_none() && self.held.is_empty()
    }

    /// How many addresses there are, and how many are held.
    pub fn count(&self) -> AddressCount {
        let total = self.range.as_ref().map_or(0, Range::size);
        AddressCount { used: u64::try_from(self.held.len()).unwrap_or(u64::MAX), total }
    }
}

impl Range {
    fn of(spec: &SubnetSpec) -> Range {
        let net = spec.cidr.net();
        let v4 = matches!(net, IpNet::V4(_));
        let mut reserved = Vec::new();
        if net.max_prefix_len() - net.prefix_len() >= 2 {
            reserved.push(number_of(net.network()));
            if v4 {
                reserved.push(number_of(net.broadcast()));
            }
        }
        reserved.extend(spec.gateway.map(number_of));
        let (first, last) = (number_of(spec.start), number_of(spec.end));
        reserved.retain(|number| (first..=last).contains(number));
        reserved.sort_unstable();
        reserved.dedup();
        Range { v4, first, last, reserved }
    }

    fn number(&self, address: IpAddr) -> Option<u128> {
        (address.is_ipv4() == self.v4).then(|| number_of(address))
    }

    fn address(&self, number: u128) -> IpAddr {
        if self.v4 {
            IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)))
        } else {
            IpAddr::V6(Ipv6Addr::from(number))
        }
    }

    fn usable(&self, address: IpAddr) -> Result<u128, Unavailable> {
        let number = self.number(address).ok_or(Unavailable::Outside)?;
        if !(self.first..=self.last).contains(&number) {
            return Err(Unavailable::Outside);
        }
        if self.reserved.contains(&number) {
            return Err(Unavailable::Reserved);
        }
        Ok(number)
    }

    fn size(&self) -> u128 {
        (self.last - self.first).saturating_add(1).saturating_sub(self.reserved.len() as u128)
    }
}

fn number_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// First and last address of a range that could be a guest's or a gateway's.
pub fn usable(cidr: Cidr) -> (IpAddr, IpAddr) {
    let net = cidr.net();
    match (net.network(), net.broadcast()) {
        (IpAddr::V4(first), IpAddr::V4(last)) if net.prefix_len() <= 30 => {
            (Ipv4Addr::from(u32::from(first) + 1).into(), Ipv4Addr::from(u32::from(last) - 1).into())
        }
        (IpAddr::V6(first), last) if net.prefix_len() <= 126 => {
            (Ipv6Addr::from(u128::from(first) + 1).into(), last)
        }
        narrow => narrow,
    }
}

/// The most name servers told to a guest.
pub const MOST_DNS: usize = 3;

/// Checks what a subnet says by itself; overlaps are the fleet's to know.
///
/// # Errors
/// [`BadSubnet`] names the first thing at fault.
pub fn check_subnet(spec: &SubnetSpec) -> Result<(), BadSubnet> {
    if let Some((special, meant_for)) = spec.cidr.special() {
        return Err(BadSubnet::Special { cidr: spec.cidr, special, meant_for });
    }
    let inside = |what, address: IpAddr| {
        if spec.cidr.contains(address) {
            Ok(())
        } else {
            Err(BadSubnet::Outside { what, address, cidr: spec.cidr })
        }
    };
    inside("start", spec.start)?;
    inside("end", spec.end)?;
    if number_of(spec.start) > number_of(spec.end) {
        return Err(BadSubnet::Order { start: spec.start, end: spec.end });
    }
    if let Some(gateway) = spec.gateway {
        inside("gateway", gateway)?;
        let net = spec.cidr.net();
        let has_ends = net.max_prefix_len() - net.prefix_len() >= 2;
        let is_broadcast = gateway.is_ipv4() && gateway == net.broadcast();
        if has_ends && (gateway == net.network() || is_broadcast) {
            return Err(BadSubnet::Gateway(gateway));
        }
    }
    if Range::of(spec).size() == 0 {
        return Err(BadSubnet::Empty { cidr: spec.cidr, start: spec.start, end: spec.end });
    }
    if spec.dns.len() > MOST_DNS {
        return Err(BadSubnet::TooManyDns(spec.dns.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::id::NetworkId;
    use crate::name::Name;

    fn subnet(cidr: &str, gateway: Option<&str>, start: &str, end: &str) -> SubnetSpec {
        SubnetSpec {
            name: Name::new("s").unwrap(),
            project: Name::default_project(),
            metadata: BTreeMap::new(),
            network: NetworkId(Uuid::nil()),
            cidr: cidr.parse().unwrap(),
            gateway: gateway.map(|text| text.parse().unwrap()),
            start: start.parse().unwrap(),
            end: end.parse().unwrap(),
            dns: Vec::new(),
        }
    }

    fn guest(number: u128) -> GuestId {
        GuestId(Uuid::from_u128(number))
    }

    fn fill(pool: &mut Pool) -> Vec<String> {
        let mut given = Vec::new();
        while let Some(address) = pool.next_free() {
            pool.take(address, guest(given.len() as u128));
            pool.set_cursor(address);
            given.push(address.to_string());
        }
        given
    }

    #[test]
    fn network_broadcast_and_gateway_are_never_handed_out() {
        let mut pool = Pool::default();
        pool.set_range(Some(&subnet("10.0.0.0/29", Some("10.0.0.3"), "10.0.0.0", "10.0.0.7")));
        assert_eq!(pool.count().total, 5);
        assert_eq!(fill(&mut pool), ["10.0.0.1", "10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        assert_eq!(pool.available("10.0.0.0".parse().unwrap()), Err(Unavailable::Reserved));
        assert_eq!(pool.available("10.0.0.3".parse().unwrap()), Err(Unavailable::Reserved));
        assert_eq!(pool.available("10.0.0.7".parse().unwrap()), Err(Unavailable::Reserved));
        assert_eq!(pool.available("10.0.1.1".parse().unwrap()), Err(Unavailable::Outside));
        assert_eq!(pool.available("fd00::1".parse().unwrap()), Err(Unavailable::Outside));
        assert_eq!(pool.available("10.0.0.2".parse().unwrap()), Err(Unavailable::Held(guest(1))));
    }

    #[test]
    fn the_next_address_comes_after_the_last_given_and_wraps() {
        let mut pool = Pool::default();
        pool.set_range(Some(&subnet("10.0.0.0/24", None, "10.0.0.10", "10.0.0.12")));
        for want in ["10.0.0.10", "10.0.0.11"] {
            let address = pool.next_free().unwrap();
            assert_eq!(address.to_string(), want);
            pool.take(address, guest(1));
            pool.set_cursor(address);
        }
        pool.give_back("10.0.0.10".parse().unwrap(), guest(1));
        assert_eq!(pool.next_free().unwrap().to_string(), "10.0.0.12");
        pool.take("10.0.0.12".parse().unwrap(), guest(2));
        pool.set_cursor("10.0.0.12".parse().unwrap());
        assert_eq!(pool.next_free().unwrap().to_string(), "10.0.0.10");
    }

    #[test]
    fn only_the_holder_gives_an_address_back() {
        let mut pool = Pool::default();
        pool.set_range(Some(&subnet("10.0.0.0/24", None, "10.0.0.10", "10.0.0.12")));
        let address = "10.0.0.10".parse().unwrap();
        pool.take(address, guest(1));
        pool.take(address, guest(2));
        pool.give_back(address, guest(2));
        assert_eq!(pool.holder(address), Some(guest(1)));
    }

    #[test]
    fn ipv6_has_no_broadcast_and_may_be_huge() {
        let mut pool = Pool::default();
        pool.set_range(Some(&subnet(
            "fd00:1::/64",
            Some("fd00:1::1"),
            "fd00:1::",
            "fd00:1::ffff:ffff:ffff:ffff",
        )));
        assert_eq!(pool.next_free().unwrap().to_string(), "fd00:1::2");
        assert_eq!(pool.available("fd00:1::ffff:ffff:ffff:ffff".parse().unwrap()), Ok(()));
        assert_eq!(pool.count().total, (1 << 64) - 2);
    }

    #[test]
    fn the_ends_of_the_number_space_do_not_overflow() {
        let all = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let mut pool = Pool::default();
        pool.set_range(Some(&subnet("::/0", None, "::", all)));
        pool.take(all.parse().unwrap(), guest(1));
        pool.set_cursor(all.parse().unwrap());
        assert_eq!(pool.next_free().unwrap().to_string(), "::1");
        pool.give_back(all.parse().unwrap(), guest(1));
        assert!(pool.available(all.parse().unwrap()).is_ok());
    }

    #[test]
    fn what_can_be_a_guests_leaves_network_and_broadcast_alone() {
        let texts = |cidr: &str| {
            let (first, last) = usable(cidr.parse().unwrap());
            (first.to_string(), last.to_string())
        };
        assert_eq!(texts("10.77.0.0/24"), ("10.77.0.1".into(), "10.77.0.254".into()));
        assert_eq!(texts("10.0.0.0/31"), ("10.0.0.0".into(), "10.0.0.1".into()));
        assert_eq!(texts("fd00::/64").0, "fd00::1");
    }

    #[test]
    fn the_last_free_address_is_of_the_range_that_is_asked_for() {
        let mut pool = Pool::default();
        let spec = subnet("10.0.0.0/24", Some("10.0.0.1"), "10.0.0.0", "10.0.0.255");
        pool.set_range(Some(&spec));
        let last = |pool: &Pool, end: &str| {
            let narrowed = SubnetSpec { end: end.parse().unwrap(), ..spec.clone() };
            pool.last_free(&narrowed).map(|address| address.to_string())
        };
        assert_eq!(last(&pool, "10.0.0.255").unwrap(), "10.0.0.254");
        assert_eq!(last(&pool, "10.0.0.100").unwrap(), "10.0.0.100");
        pool.take("10.0.0.100".parse().unwrap(), guest(1));
        assert_eq!(last(&pool, "10.0.0.100").unwrap(), "10.0.0.99");
        for number in 2..100 {
            pool.take(format!("10.0.0.{number}").parse().unwrap(), guest(1));
        }
        assert_eq!(last(&pool, "10.0.0.100"), None);
    }

    #[test]
    fn the_smallest_subnets_hand_out_all_they_have() {
        for (cidr, start, end) in [
            ("10.0.0.0/31", "10.0.0.0", "10.0.0.1"),
            ("10.0.0.9/32", "10.0.0.9", "10.0.0.9"),
            ("fd00::a/127", "fd00::a", "fd00::b"),
            ("fd00::a/128", "fd00::a", "fd00::a"),
        ] {
            let spec = subnet(cidr, None, start, end);
            assert_eq!(check_subnet(&spec), Ok(()), "{cidr}");
            let mut pool = Pool::default();
            pool.set_range(Some(&spec));
            let wanted = if start == end { vec![start] } else { vec![start, end] };
            assert_eq!(fill(&mut pool), wanted, "{cidr}");
        }
        let spec = subnet("10.0.0.9/32", Some("10.0.0.9"), "10.0.0.9", "10.0.0.9");
        assert!(check_subnet(&spec).is_err(), "a gateway leaves nothing to a guest");
    }

    #[test]
    fn bad_subnets_are_refused_with_the_reason() {
        let good = subnet("10.0.0.0/24", Some("10.0.0.1"), "10.0.0.2", "10.0.0.9");
        assert_eq!(check_subnet(&good), Ok(()));
        let bad = |change: fn(&mut SubnetSpec)| {
            let mut spec = good.clone();
            change(&mut spec);
            check_subnet(&spec).unwrap_err()
        };
        assert!(matches!(
            bad(|s| s.start = "10.1.0.1".parse().unwrap()),
            BadSubnet::Outside { what: "start", .. }
        ));
        assert!(matches!(
            bad(|s| s.end = "fd00::1".parse().unwrap()),
            BadSubnet::Outside { what: "end", .. }
        ));
        assert!(matches!(bad(|s| s.start = "10.0.0.10".parse().unwrap()), BadSubnet::Order { .. }));
        assert!(matches!(
            bad(|s| s.gateway = Some("10.0.1.1".parse().unwrap())),
            BadSubnet::Outside { what: "gateway", .. }
        ));
        assert!(matches!(bad(|s| s.gateway = Some("10.0.0.255".parse().unwrap())), BadSubnet::Gateway(_)));
        assert!(matches!(bad(|s| s.gateway = Some("10.0.0.0".parse().unwrap())), BadSubnet::Gateway(_)));
        assert!(matches!(
            bad(|s| {
                s.start = "10.0.0.1".parse().unwrap();
                s.end = s.start;
            }),
            BadSubnet::Empty { .. }
        ));
        assert!(matches!(bad(|s| s.dns = vec!["10.0.0.1".parse().unwrap(); 4]), BadSubnet::TooManyDns(4)));
    }

    proptest! {
        /// Whatever is taken and given back, in whatever order, the ranges say what a plain set says, and
        /// a pool that learns its range last is the same.
        #[test]
        fn ranges_say_what_a_plain_set_says(steps in proptest::collection::vec((0u8..20, any::<bool>()), 1..80)) {
            let spec = subnet("10.0.0.0/28", Some("10.0.0.5"), "10.0.0.2", "10.0.0.14");
            let mut pool = Pool::default();
            pool.set_range(Some(&spec));
            let mut late = Pool::default();
            let mut held = BTreeSet::new();
            for (last, take) in steps {
                let address: IpAddr = format!("10.0.0.{last}").parse().unwrap();
                if take {
                    pool.take(address, guest(1));
                    late.take(address, guest(1));
                    held.insert(last);
                } else {
                    pool.give_back(address, guest(1));
                    late.give_back(address, guest(1));
                    held.remove(&last);
                }
                let free: Vec<u8> = (2..=14).filter(|n| *n != 5 && !held.contains(n)).collect();
                for number in 0..20u8 {
                    let address: IpAddr = format!("10.0.0.{number}").parse().unwrap();
                    prop_assert_eq!(pool.available(address).is_ok(), free.contains(&number));
                }
                prop_assert_eq!(pool.has_free(), !free.is_empty());
                let next = pool.next_free().map(|a| a.to_string());
                prop_assert_eq!(next, free.first().map(|n| format!("10.0.0.{n}")));
            }
            late.set_range(Some(&spec));
            prop_assert_eq!(late, pool);
        }
    }
}
