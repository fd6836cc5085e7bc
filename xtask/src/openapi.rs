//! `cargo xtask openapi`: writes `openapi/haar-v1.json` anew from the endpoint table, or checks it.
//!
//! The document is made by a test of `haar-api`, which compares it with the checked-in file and writes
//! it when told; so that xtask needs none of the product's crates.

use anyhow::{Context, Result, bail};

use crate::{run, tidy};

pub(crate) const HELP: &str = "\
cargo xtask openapi [--check]

Writes openapi/haar-v1.json from the endpoint table.
  --check   changes nothing, and fails when the file is out of date";

const FILE: &str = "openapi/haar-v1.json";
/// The test that compares, or writes when this variable is set.
const TEST: &str = "openapi::tests::the_checked_in_document_is_up_to_date";
const WRITE: &str = "HAAR_REWRITE";

/// The command.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let mut test = run::cargo();
    test.args(["test", "--quiet", "--package", "haar-api", "--lib", "--", "--exact", TEST]);
    let file = tidy::top()?.join(FILE);
    match arguments {
        [] => {
            let before = std::fs::read(&file).ok();
            let printed = run::quietly(test.env(WRITE, "1")).context("the document could not be made")?;
            ensure_one_ran(&printed)?;
            let is_same = before == std::fs::read(&file).ok();
            eprintln!("{FILE}: {}", if is_same { "as it was" } else { "written; look at the difference" });
            Ok(())
        }
        [option] if option == "--check" => {
            let out_of_date = || format!("{FILE} is out of date; write it with `cargo xtask openapi`");
            ensure_one_ran(&run::quietly(test.env_remove(WRITE)).with_context(out_of_date)?)
        }
        _ => bail!("`openapi` knows the option --check only\n\n{HELP}"),
    }
}

/// A renamed test would be skipped in silence.
fn ensure_one_ran(printed: &str) -> Result<()> {
    if !printed.contains("1 passed") {
        bail!(
            "haar-api has no test `{TEST}` any more; name the one that compares the document in xtask/src/openapi.rs"
        );
    }
    Ok(())
}
