//! The developer's commands: `cargo xtask <command>`.

mod r#gen;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The developer's commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the data files of `crates/api/data` from a folder of facts about the API.
    Gen {
        /// The folder with `openapi/swagger.json`, `proto-fields.tsv`, `api-fields-*.tsv` and their like.
        #[arg(long)]
        facts: PathBuf,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Gen { facts } => r#gen::run(&facts),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
