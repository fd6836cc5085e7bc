//! A body to the agent's REST: read or refused, and what is read is written and read again as the same.
#![no_main]

use haar_api::agent::{Guest, go};
use haar_api::rpc::{ImageRequest, SnapshotRequest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    if let Ok(guest) = go::from_slice::<Guest>(body) {
        let written = go::to_vec(&guest).unwrap();
        assert_eq!(go::from_slice::<Guest>(&written).unwrap(), guest);
    }
    // Read or refused.
    let _ = go::from_slice::<SnapshotRequest>(body);
    let _ = go::from_slice::<ImageRequest>(body);
});
