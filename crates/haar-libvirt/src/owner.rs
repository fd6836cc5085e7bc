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
}
