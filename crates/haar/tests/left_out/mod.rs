//! A test that cannot run here says so: where `cargo xtask test` reads it, since cargo hides what passing tests print.

use std::io::Write as _;

/// Notes in the file named by `HAAR_LEFT_OUT` which test is left out and why.
///
/// # Panics
/// Where `HAAR_LIVE` promises that everything is there.
#[track_caller]
pub(crate) fn left_out(test: &str, reason: &str) {
    assert!(std::env::var_os("HAAR_LIVE").is_none(), "{test} cannot run although HAAR_LIVE is set: {reason}");
    eprintln!("{test} is left out: {reason}");
    let Some(file) = std::env::var_os("HAAR_LEFT_OUT") else { return };
    let file = std::fs::File::options().create(true).append(true).open(file);
    // One write, so that tests that end together do not mix their lines.
    file.and_then(|mut file| file.write_all(format!("{test}: {reason}\n").as_bytes()))
        .expect("the file named by HAAR_LEFT_OUT can be written");
}
