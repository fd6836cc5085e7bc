//! Servers in a real OpenStack: the example of `haar-openstack`, with the cloud of `tests/openstack` around it.
//!
//! Nova's fake driver is the one without limits. Where the packages cannot be had, the bench is left out, and
//! that is said.

use anyhow::Result;

use super::figure::Figure;
use crate::openstack::{self, Cloud};
use crate::run;

const COMPUTE: &str = "Fake";
const EXAMPLE: (&str, &str) = ("haar-openstack", "bench_openstack");

/// Measures and hands over the figures; takes the cloud down also after a failure.
pub(super) fn measure(each: &mut dyn FnMut(Figure)) -> Result<()> {
    if let Some(why) = openstack::missing() {
        eprintln!("   left out: {why}");
        return Ok(());
    }
    let (package, name) = EXAMPLE;
    // First, so that what does not compile costs no bringing up.
    super::build(package, name)?;
    let cloud = Cloud::choose()?;
    cloud.up(COMPUTE)?;
    let mut program = run::cargo();
    program.arg("run").args(super::example_words(package, name));
    let what = format!("the example `{name}` of {package}");
    super::read(cloud.told(&mut program, COMPUTE), &what, &mut |line| Figure::parse(line).map(&mut *each))
}
