//! A guest's claim as text in its domain's metadata: what books it again after the books were restored.
//!
//! A stored record like those of the ledger: JSON with a version `v`.

use haar_core::order::Claim;
use serde::{Deserialize, Serialize};

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Stored {
    v: u32,
    #[serde(flatten)]
    claim: Claim,
}

/// The claim as one line.
pub(crate) fn encode(claim: &Claim) -> String {
    let stored = Stored { v: VERSION, claim: claim.clone() };
    serde_json::to_string(&stored).expect("a claim holds only what JSON can say")
}

/// The claim of a text; None when it is none, or a newer one.
pub(crate) fn decode(text: &str) -> Option<Claim> {
    let stored: Stored = serde_json::from_str(text).ok()?;
    (stored.v <= VERSION).then_some(stored.claim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_of_version_1_is_read_as_it_was_written() {
        let golden = include_str!("../tests/golden/claim-v1.json").trim_end();
        let claim = decode(golden).unwrap();
        assert_eq!(encode(&claim), golden);
        assert_eq!(claim.name.as_str(), "web");
    }

    #[test]
    fn a_text_that_is_no_claim_is_none() {
        assert_eq!(decode(""), None);
        assert_eq!(decode("{}"), None);
        let newer = include_str!("../tests/golden/claim-v1.json").replace("\"v\":1", "\"v\":2");
        assert_eq!(decode(&newer), None);
    }
}
