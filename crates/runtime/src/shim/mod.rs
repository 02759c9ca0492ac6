//! The shim: one small process per pod that outlives the kubelet.
//!
//! It makes the pod's namespaces and containers, holds their streams, writes their logs, reaps them and says
//! how they ended. It has one thread, on purpose: it forks without exec. It keeps nothing that is not also
//! in the sandbox's folder, except what only a living process can hold.

mod attachment;
mod connection;
mod container;
mod launch;
pub mod log;
mod pause;
pub mod protocol;
mod server;
pub mod spec;

use crate::kernel::process;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

/// First argument that makes this program a shim.
pub const SHIM_COMMAND: &str = "shim";

/// A shim and its pause process are killed after every container, as in Kubernetes' own nodes.
const OOM_SCORE: i32 = -998;

/// What a shim prints, as one line, when it is ready or has given up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Ready {
    Pause(i32),
    Failed(String),
}

/// Runs a re-executed role and returns its exit code, or `None` when the arguments ask for none. The program
/// calls this before it does anything else, above all before it starts a thread.
pub fn reexec(mut args: impl Iterator<Item = OsString>) -> Option<i32> {
    let _program = args.next()?;
    if args.next()?.to_str() != Some(SHIM_COMMAND) {
        return None;
    }
    let folder = args.next()?;
    Some(shim_main(Path::new(&folder)))
}

/// The shim of the sandbox in `folder`.
pub fn shim_main(folder: &Path) -> i32 {
    process::set_oom_score(OOM_SCORE);
    match server::Server::start(folder) {
        Ok(mut server) => {
            announce(&Ready::Pause(server.pause()));
            if let Err(error) = server.run() {
                eprintln!("shim: {error}");
                return 1;
            }
            0
        }
        Err(error) => {
            announce(&Ready::Failed(error));
            1
        }
    }
}

/// Tells who started us, and lets go of that pipe.
fn announce(ready: &Ready) {
    let mut line = serde_json::to_vec(ready).unwrap_or_default();
    line.push(b'\n');
    let _ = std::io::stdout().write_all(&line);
    let _ = std::io::stdout().flush();
    // Stderr leads to the shim's log file; stdout is not needed any more.
    if let Ok(null) = std::fs::OpenOptions::new().write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdout(&null);
    }
}
