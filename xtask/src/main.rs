//! The developer's commands: `cargo xtask test` is what CI runs.
//!
//! One file per command; what a command needs on the machine, it installs.

mod check;
mod fuzz;
mod r#gen;
mod licences;
mod tidy;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The developer's commands")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Format, lints, tidiness and every test, real containers included
    Test,
    /// Format, lints and tidiness only
    Check,
    /// The tests that start real clusters (needs root)
    E2e {
        /// Only tests whose name contains this
        filter: Option<String>,
    },
    /// Random scenarios in virtual time, each from a seed
    Random {
        /// How many seeds
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// The first of them; by chance, if not given
        #[arg(long)]
        first: Option<u64>,
        /// Replay this one only
        #[arg(long, conflicts_with_all = ["seeds", "first"])]
        seed: Option<u64>,
        /// Built with optimization: for thousands
        #[arg(long)]
        release: bool,
    },
    /// File lengths and headers
    Tidy,
    /// Run the fuzz targets for a while
    Fuzz {
        /// Only this target
        target: Option<String>,
        /// For how long each, in seconds
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Make the data files of `crates/api/data` from a folder of facts about the API
    Gen {
        /// The folder with `openapi/swagger.json`, `proto-fields.tsv`, `api-fields-*.tsv` and their like
        #[arg(long)]
        facts: PathBuf,
    },
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Test => check::prepare().and_then(|()| check::check()).and_then(|()| check::test()),
        Command::Check => check::check(),
        Command::E2e { filter } => check::prepare().and_then(|()| check::e2e(filter.as_deref())),
        Command::Random { seeds, first, seed, release } => check::random(seeds, first, seed, release),
        Command::Tidy => tidy::run(),
        Command::Fuzz { target, seconds } => fuzz::fuzz(target.as_deref(), seconds),
        Command::Gen { facts } => r#gen::run(&facts).map_err(|e| e.to_string()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
