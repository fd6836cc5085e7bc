//! The project's own commands, run as `cargo xtask <command>`.
//!
//! One row of the table and one file per command. This crate uses none of the product's crates:
//! it is the first thing a fresh machine builds.

mod bench;
mod cloud;
mod demo;
mod image;
mod libvirt;
mod openapi;
mod openstack;
mod packages;
mod run;
mod sim;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;

/// A command: its name, one line about it, what `--help` after it prints, and what it does.
struct Row {
    name: &'static str,
    about: &'static str,
    help: &'static str,
    main: fn(&[String]) -> Result<()>,
}

const COMMANDS: &[Row] = &[
    Row { name: "demo", about: "from nothing to a running guest, shown", help: demo::HELP, main: demo::main },
    Row { name: "test", about: "run all a change must pass", help: test::HELP, main: test::main },
    Row {
        name: "bench",
        about: "measure, each figure beside its yardstick",
        help: bench::HELP,
        main: bench::main,
    },
    Row { name: "sim", about: "run many simulated worlds", help: sim::HELP, main: sim::main },
    Row {
        name: "openapi",
        about: "write the OpenAPI document anew",
        help: openapi::HELP,
        main: openapi::main,
    },
    Row { name: "tidy", about: "check the manners no compiler checks", help: tidy::HELP, main: tidy::main },
    Row { name: "image", about: "make the tiny bootable guest image", help: image::HELP, main: image::main },
    Row {
        name: "packages",
        about: "install the Debian packages a command needs",
        help: packages::HELP,
        main: packages::main,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(name) = arguments.first() else {
        eprint!("{}", overview());
        return ExitCode::from(2);
    };
    if ["help", "--help", "-h"].contains(&name.as_str()) {
        print!("{}", overview());
        return ExitCode::SUCCESS;
    }
    let Some(row) = COMMANDS.iter().find(|row| row.name == name) else {
        eprintln!("error: there is no command `{name}`\n\n{}", overview());
        return ExitCode::from(2);
    };
    if arguments.iter().any(|word| word == "--help" || word == "-h") {
        println!("{}", row.help);
        return ExitCode::SUCCESS;
    }
    match (row.main)(&arguments[1..]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn overview() -> String {
    let rows: String = COMMANDS.iter().map(|row| format!("  {:10} {}\n", row.name, row.about)).collect();
    format!("usage: cargo xtask <command> [options]\n\n{rows}\n`cargo xtask <command> --help` tells more.\n")
}
