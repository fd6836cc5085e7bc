//! Whose a domain is, and so whether a caller may touch it (design §11.1, §11.15).
//!
//! A domain belongs to a cloud and to one life of a guest. Another life of the same guest, another cloud's
//! guest and a domain that Haar did not make are each a `conflict` and left as they are. A caller without `haar`
//! speaks the seed's language: its domains are those that this program wrote for such callers.

use haar_api::rpc::{Fault, FaultCode, Guest};

use crate::describe::Described;

/// How exactly the caller must name what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Match {
    /// Cloud and life, to the letter: what makes and what removes.
    Exact,
    /// The cloud to the letter, whatever the life: an operator's order.
    AnyLife,
    /// Cloud and life where the caller names them.
    AsNamed,
}

/// Whether the caller's guest is the one found.
///
/// # Errors
/// `conflict`, with both sides' words.
pub(crate) fn check(wanted: &Guest, found: &Described, exactness: Match) -> Result<(), Fault> {
    let id = &wanted.id;
    let conflict = |message: String| Err(Fault::new(FaultCode::Conflict, message));
    let (want, have) = match (&wanted.haar, &found.guest.haar) {
        (None, None) if found.written_here => return Ok(()),
        (None, _) => {
            return conflict(format!("a domain {id} exists that is not the caller's: it is left alone"));
        }
        (Some(_), None) => {
            return conflict(format!("a domain {id} exists that Haar did not make: it is left alone"));
        }
        (Some(want), Some(have)) => (want, have),
    };
    let named = |value: &str| exactness != Match::AsNamed || !value.is_empty();
    if named(&want.cloud) && want.cloud != have.cloud {
        return conflict(format!(
            "the domain {id} belongs to the cloud {:?}, not {:?}",
            have.cloud, want.cloud
        ));
    }
    if exactness != Match::AnyLife && named(&want.life) && want.life != have.life {
        return conflict(format!(
            "the domain {id} is the life {:?} of the guest, not {:?}",
            have.life, want.life
        ));
    }
    Ok(())
}

/// Whether no domain of somebody else's on this host has a MAC of one of Haar's guests: frames for the one could reach
/// the other. Among the guests of one cloud its controller sees to that, and callers without `haar` to their own.
///
/// # Errors
/// `conflict`, with the other's name.
pub(crate) fn check_macs<'a>(
    wanted: &Guest,
    others: impl IntoIterator<Item = &'a Described>,
) -> Result<(), Fault> {
    let Some(want) = &wanted.haar else { return Ok(()) };
    let is_strangers = |other: &&Described| {
        other.guest.id != wanted.id && other.guest.haar.as_ref().is_none_or(|have| have.cloud != want.cloud)
    };
    for other in others.into_iter().filter(is_strangers) {
        let has = |mac: &str| other.guest.nics.iter().any(|nic| nic.mac.eq_ignore_ascii_case(mac));
        if let Some(nic) = wanted.nics.iter().find(|nic| !nic.mac.is_empty() && has(&nic.mac)) {
            let message = format!(
                "the MAC {} is that of the domain {}, which is not of this cloud: give the guest another one or make it on another host",
                nic.mac, other.guest.id
            );
            return Err(Fault::new(FaultCode::Conflict, message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use haar_api::rpc::GuestExtra;

    use super::*;

    fn guest(cloud: &str, life: &str) -> Guest {
        let haar = GuestExtra { cloud: cloud.into(), life: life.into(), ..GuestExtra::default() };
        Guest { haar: Some(haar), ..Guest::default() }
    }

    fn described(guest: Guest) -> Described {
        Described { guest, written_here: true, ..Described::default() }
    }

    #[test]
    fn each_exactness_refuses_what_it_should() {
        use Match::{AnyLife, AsNamed, Exact};
        let found = described(guest("c", "1.2"));
        let cases = [
            (guest("c", "1.2"), Exact, true),
            (guest("c", "1.3"), Exact, false),
            (guest("d", "1.2"), Exact, false),
            (guest("c", ""), Exact, false),
            (guest("c", "1.3"), AnyLife, true),
            (guest("d", "1.2"), AnyLife, false),
            (guest("", ""), AnyLife, false),
            (guest("", ""), AsNamed, true),
            (guest("c", "1.3"), AsNamed, false),
            (guest("d", ""), AsNamed, false),
            (Guest::default(), Exact, false),
            (Guest::default(), AsNamed, false),
        ];
        for (wanted, exactness, fine) in cases {
            assert_eq!(check(&wanted, &found, exactness).is_ok(), fine, "{wanted:?} {exactness:?}");
        }
    }

    #[test]
    fn a_strangers_domain_is_never_haars() {
        for exactness in [Match::Exact, Match::AnyLife, Match::AsNamed] {
            let foreign = described(Guest::default());
            assert!(
                check(&Guest::default(), &foreign, exactness).is_ok(),
                "the seed's callers have their own"
            );
            for wanted in [guest("c", "1.2"), Guest::default()] {
                let stranger = Described::default();
                assert_eq!(check(&wanted, &stranger, exactness).unwrap_err().code, FaultCode::Conflict);
            }
            assert_eq!(check(&guest("c", "1.2"), &foreign, exactness).unwrap_err().code, FaultCode::Conflict);
        }
    }

    #[test]
    fn a_mac_of_somebody_elses_domain_is_nobodys_here() {
        let with = |id: &str, cloud: Option<&str>, mac: &str| {
            let nics = vec![haar_api::rpc::Nic { mac: mac.into(), ..Default::default() }];
            let haar = cloud.map(|cloud| guest(cloud, "1").haar.unwrap());
            Guest { id: id.into(), nics, haar, ..Guest::default() }
        };
        let (mine, mac) = (Some("mine"), "02:00:00:00:00:01");
        for (wanted, cloud, is_fine) in [
            (with("a", mine, mac), None, false),
            (with("a", mine, "02:00:00:00:00:01"), Some("other"), false),
            (with("a", mine, mac), mine, true),
            (with("b", mine, mac), None, true),
            (with("a", mine, "02:00:00:00:00:02"), None, true),
            (with("a", mine, ""), None, true),
            (with("a", None, mac), None, true),
        ] {
            let other = described(with("b", cloud, if wanted.nics[0].mac.is_empty() { "" } else { mac }));
            assert_eq!(check_macs(&wanted, [&other]).is_ok(), is_fine, "{wanted:?} {other:?}");
        }
    }
}
