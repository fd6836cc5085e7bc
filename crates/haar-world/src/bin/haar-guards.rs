//! Removes each guard once, in a copy of the workspace, and says which seed misses it:
//! `cargo run --release -p haar-world --bin haar-guards -- --seeds 2000 [--from N]`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use haar_world::guards::{GUARDS, Guard};

/// What a world is built of, besides the workspace's own two files.
const CRATES: [&str; 3] = ["haar-core", "haar-store", "haar-world"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str| {
        let position = arguments.iter().position(|argument| argument == name)?;
        arguments.get(position + 1)?.parse::<usize>().ok()
    };
    let seeds = number("--seeds").unwrap_or(2000);
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let copy = std::env::temp_dir().join(format!("haar-guards-{}", std::process::id()));
    let mut missed_by_none = 0;
    println!("| guard | seed | what was wrong |");
    println!("| --- | --- | --- |");
    for (index, guard) in GUARDS.iter().enumerate() {
        if index < number("--from").unwrap_or(0) {
            continue;
        }
        let found = make_copy(&workspace, &copy)
            .map_err(|error| format!("cannot copy the workspace: {error}"))
            .and_then(|()| run_without(guard, &copy, seeds));
        match found {
            Ok(Some((seed, wrong))) => println!("| {} | {seed} | {wrong} |", guard.name),
            Ok(None) => {
                println!("| {} | none of {seeds} | |", guard.name);
                missed_by_none += 1;
            }
            Err(error) => {
                println!("| {} | – | {error} |", guard.name);
                missed_by_none += 1;
            }
        }
    }
    // The folder is this process's own; that it stays behind would harm nobody.
    let _ = fs::remove_dir_all(&copy);
    if missed_by_none == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The crates of a world under a workspace of their own; what was built there before stays.
fn make_copy(workspace: &Path, copy: &Path) -> std::io::Result<()> {
    fs::create_dir_all(copy)?;
    let manifest = fs::read_to_string(workspace.join("Cargo.toml"))?;
    let members = r#"members = ["crates/*", "xtask"]"#;
    let begin = manifest.find("default-members").unwrap_or(0);
    let end = manifest[begin..].find(']').map_or(begin, |end| begin + end + 1);
    let manifest = format!("{}{}", &manifest[..begin], &manifest[end..]);
    fs::write(copy.join("Cargo.toml"), manifest.replace(members, r#"members = ["crates/*"]"#))?;
    fs::copy(workspace.join("Cargo.lock"), copy.join("Cargo.lock"))?;
    for name in CRATES {
        copy_folder(&workspace.join("crates").join(name), &copy.join("crates").join(name))?;
    }
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::write(&target, fs::read(entry.path())?)?;
        }
    }
    Ok(())
}

/// The first seed that misses the guard.
fn run_without(guard: &Guard, copy: &Path, seeds: usize) -> Result<Option<(u64, String)>, String> {
    let text = guard.removed(copy)?;
    fs::write(copy.join(guard.file), text)
        .map_err(|error| format!("cannot write {}: {error}", guard.file))?;
    let target: PathBuf = copy.join("target");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(copy)
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .args(["run", "--release", "--quiet", "-p", "haar-world", "--bin", "haar-world", "--"])
        .args(["--no-steps", "--failures", "1", "--seeds", &seeds.to_string()])
        .output()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    let told = String::from_utf8_lossy(&output.stdout);
    if !told.contains("seeds from") {
        let why = String::from_utf8_lossy(&output.stderr);
        let line = why.lines().find(|line| line.contains("error") || line.contains("panicked"));
        return Err(format!("it did not run: {}", line.unwrap_or("no word")));
    }
    Ok(first_failure(&told))
}

fn first_failure(told: &str) -> Option<(u64, String)> {
    let failures = told.lines().filter_map(|line| {
        let (seed, wrong) = line.strip_prefix("seed ")?.split_once(": ")?;
        let wrong: String = wrong.chars().take(110).collect();
        Some((seed.parse::<u64>().ok()?, wrong.replace('|', "/")))
    });
    failures.min()
}
