//! What every guest method asks of its caller before it touches libvirt.

use haar_api::rpc::{Fault, FaultCode, Guest, GuestRequest};
use uuid::Uuid;

/// The text of EINVAL, which the seed answers for an empty id.
const EINVAL: &str = "invalid argument";

/// Bytes of an id, so that file names made of it stay below the file system's 255.
const ID_BYTES: usize = 128;

/// The guest of a request, whose id is fit to be a domain's name and part of a file's name.
///
/// # Errors
/// `invalid` for a null guest, an empty id, an id with `/` or control characters, and for a guest of Haar's
/// whose id is no lower-case UUID.
pub(crate) fn named(request: &GuestRequest) -> Result<Guest, Fault> {
    let invalid = |message: String| Fault::new(FaultCode::Invalid, message);
    let Some(guest) = &request.guest else {
        return Err(invalid("the request has no guest: `guest` must be an object with an id".into()));
    };
    let id = guest.id.as_str();
    if id.is_empty() {
        return Err(invalid(EINVAL.into()));
    }
    if id.len() > ID_BYTES || id.starts_with('.') || id.contains(|c: char| c == '/' || c.is_control()) {
        return Err(invalid(format!("the guest id {id:?} cannot be a domain's name: use a UUID")));
    }
    if guest.haar.is_some() && uuid(id).is_none_or(|uuid| uuid != id) {
        return Err(invalid(format!("the guest id {id:?} is no lower-case UUID")));
    }
    Ok(guest.clone())
}

/// The id as canonical UUID, if it is one.
pub(crate) fn uuid(id: &str) -> Option<String> {
    Uuid::try_parse(id).ok().map(|uuid| uuid.hyphenated().to_string())
}

#[cfg(test)]
mod tests {
    use haar_api::rpc::GuestExtra;

    use super::*;

    fn ask(id: &str, haar: bool) -> Result<Guest, Fault> {
        let haar = haar.then(GuestExtra::default);
        named(&GuestRequest {
            guest: Some(Guest { id: id.into(), haar, ..Guest::default() }),
            ..GuestRequest::default()
        })
    }

    #[test]
    fn null_guests_and_unfit_ids_are_invalid() {
        assert_eq!(named(&GuestRequest::default()).unwrap_err().code, FaultCode::Invalid);
        assert_eq!(ask("", false).unwrap_err().to_string(), "invalid: invalid argument");
        for id in ["../x", "a/b", ".", "..", "a\nb", "a\0b", &"x".repeat(129)] {
            assert_eq!(ask(id, false).unwrap_err().code, FaultCode::Invalid, "{id:?}");
        }
        assert!(ask("web server", false).is_ok());
    }

    #[test]
    fn haars_guests_have_canonical_ids() {
        assert!(ask("0b6f0d5c-1d5b-4e0f-9a53-0d9c1f6ad001", true).is_ok());
        for id in ["0B6F0D5C-1D5B-4E0F-9A53-0D9C1F6AD001", "0b6f0d5c1d5b4e0f9a530d9c1f6ad001", "web"] {
            assert_eq!(ask(id, true).unwrap_err().code, FaultCode::Invalid, "{id:?}");
        }
    }
}
