//! A layer of an image: laid or refused, and nothing outside its folder is touched; what was laid can be removed.
#![no_main]

use std::fs;

use haar_subagents::container::{Limits, lay_layer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let temp = tempfile::tempdir().unwrap();
    let (root, outside) = (temp.path().join("root"), temp.path().join("outside"));
    fs::create_dir(&root).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "untouched").unwrap();
    let limits = Limits { bytes: 1 << 20, entries: 1000, ..Limits::default() };
    // Twice, for the second time there is something to white out and to replace.
    for _ in 0..2 {
        let _ = lay_layer(&root, bytes, limits);
    }
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "untouched");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 2);
    temp.close().unwrap();
});
