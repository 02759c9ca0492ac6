//! The program: one file per subcommand, and the wiring between rooms. Nothing else.
//!
//! `main` is careful about order: what re-executes this binary as a shim, a pause process or a container
//! helper, and what enters a node's namespaces, must happen before any thread exists.

mod bench;
mod cli;
mod cluster;
mod commands;
mod demo;
mod host;
mod ui;
mod wiring;

use clap::Parser as _;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Some(code) = krate_runtime::reexec(std::env::args_os()) {
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    let args = cli::Args::parse();
    match commands::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            ui::fail(&error);
            ExitCode::FAILURE
        }
    }
}
