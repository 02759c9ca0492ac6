//! One file per subcommand.

mod agent;
mod bench;
mod down;
mod image;
mod kubeconfig;
mod logs;
mod rotate_keys;
mod server;
mod status;
mod up;
mod version;

use crate::cli::{Args, Command};
use crate::ui::{Explain, Outcome};
use crate::{cluster, demo};

/// Carries out what the command line asks for.
pub fn run(args: Args) -> Outcome<()> {
    match args.command {
        Command::Up(args) => runtime()?.block_on(up::run(args)),
        Command::Down(args) => down::run(&args),
        Command::Status(args) => runtime()?.block_on(status::run(args)),
        Command::Server(args) => server::run(args),
        Command::Agent(args) => agent::run(args),
        Command::Kubeconfig(args) => kubeconfig::run(&args),
        Command::Logs(args) => logs::run(&args),
        Command::Image(args) => runtime()?.block_on(image::run(args)),
        Command::RotateKeys(args) => rotate_keys::run(&args),
        Command::Bench(args) => runtime()?.block_on(bench::run(args)),
        Command::Version => version::run(),
        Command::Fabric(args) => cluster::fabric::run(&args),
        Command::NodeHolder(args) => cluster::holder::run(&args),
        Command::DemoWeb(args) => runtime()?.block_on(demo::serve(&args)),
    }
}

/// The runtime of a command (`server` and `agent` make their own after entering their namespaces).
fn runtime() -> Outcome<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().explain("threads cannot be made", "")
}
