//! What CI runs: format, lints, tidiness, unit tests, and tests on real clusters.

use std::path::Path;
use std::process::{Command, Stdio};

/// A command's failure, as one sentence.
pub type Outcome = Result<(), String>;

/// Programs that the tests call, and the distribution's packages that bring them.
const TOOLS: &[(&str, &str)] = &[
    ("nft", "nftables"),
    ("script", "bsdutils"),
    ("ip", "iproute2"),
    ("pip", "python3-pip"),
    ("diff", "diffutils"),
];

/// Installs what the tests need and the machine lacks.
pub fn prepare() -> Outcome {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = |tool: &str| {
        std::env::split_paths(&path)
            .chain([Path::new("/usr/sbin").to_owned()])
            .any(|dir| dir.join(tool).exists())
    };
    let missing: Vec<&str> =
        TOOLS.iter().filter(|(tool, _)| !has(tool)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    run(Command::new("apt-get").args(["update", "-qq"]))?;
    run(Command::new("apt-get").args(["install", "-y", "-qq", "--no-install-recommends"]).args(missing))
}

/// Format, lints, tidiness.
pub fn check() -> Outcome {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    run(cargo().args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))?;
    crate::licences::run()?;
    crate::tidy::run()
}

/// Every test. Those that start whole clusters run a few at a time, after the others.
pub fn test() -> Outcome {
    if has_nextest() {
        run(cargo().args(["nextest", "run", "--workspace", "--no-fail-fast", "-E", "not binary(e2e)"]))?;
        return e2e(None);
    }
    run(cargo().args(["test", "--workspace", "--no-fail-fast"]))
}

/// So many random scenarios, or the replay of one.
pub fn random(seeds: u64, first: Option<u64>, seed: Option<u64>, release: bool) -> Outcome {
    let mut command = cargo();
    command.args(["test", "--quiet", "-p", "krate-testing", "--test", "random"]);
    command.args(release.then_some("--release")).arg("--");
    command.args(["every_seed_comes_to_its_end", "--nocapture"]);
    match seed {
        Some(seed) => command.env("KRATE_SEED", seed.to_string()),
        None => command.env("KRATE_SEEDS", seeds.to_string()),
    };
    if let Some(first) = first {
        command.env("KRATE_FIRST_SEED", first.to_string());
    }
    run(&mut command)
}

/// The tests on real clusters.
pub fn e2e(filter: Option<&str>) -> Outcome {
    if has_nextest() {
        let mut command = cargo();
        // The whole workspace, so that crates have the features that the other tests were built with.
        command.args(["nextest", "run", "--workspace", "-E", "binary(e2e)"]);
        command.args(["--no-fail-fast", "--test-threads", "2"]);
        return run(command.args(filter));
    }
    run(cargo()
        .args(["test", "-p", "krate", "--test", "e2e", "--"])
        .args(filter)
        .args(["--test-threads", "2"]))
}

fn has_nextest() -> bool {
    let mut probe = cargo();
    probe.args(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|s| s.success())
}

pub fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

pub fn run(command: &mut Command) -> Outcome {
    eprintln!("$ {}", format!("{command:?}").replace('"', ""));
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?} ended with {status}")),
        Err(error) => Err(format!("{command:?} cannot be started: {error}")),
    }
}
