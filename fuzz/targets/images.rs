//! A file that claims to be an image: sound or refused, in bounded time.
#![no_main]

use std::io::{Seek as _, Write as _};

use haar_api::image_check;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    let (qcow2, raw) = (image_check::check_qcow2(&file), image_check::check_raw(&file));
    assert!(qcow2.is_err() || raw.is_err(), "both: {qcow2:?} {raw:?}");
});
