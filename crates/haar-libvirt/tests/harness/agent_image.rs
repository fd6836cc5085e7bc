//! Where the guest image with Debian's QEMU guest agent is; a test without it says so.

use std::io::Write as _;
use std::path::PathBuf;

/// The image, as `cargo xtask image --with-agent` makes it. Where its packages cannot be had the test is left out by
/// name, also where `HAAR_LIVE` promises all else.
pub(crate) fn agent_image(test: &str) -> Option<PathBuf> {
    if let Some(image) = std::env::var_os("HAAR_TEST_AGENT_IMAGE") {
        return Some(image.into());
    }
    let Ok(why) = std::env::var("HAAR_TEST_AGENT_IMAGE_MISSING") else {
        crate::left_out::left_out(test, "HAAR_TEST_AGENT_IMAGE names no image");
        return None;
    };
    let line = format!("{test}: {}\n", why.replace('\n', " "));
    eprint!("left out: {line}");
    if let Some(file) = std::env::var_os("HAAR_LEFT_OUT") {
        let file = std::fs::File::options().create(true).append(true).open(file);
        // One write, so that tests that end together do not mix their lines.
        file.and_then(|mut file| file.write_all(line.as_bytes())).unwrap();
    }
    None
}
