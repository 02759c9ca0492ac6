//! `krate logs`: what the processes of a cluster wrote.

use crate::cli::Logs;
use crate::cluster::Cluster;
use crate::ui::{Explain, Failure, Outcome, say};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

pub fn run(args: &Logs) -> Outcome<()> {
    let cluster = Cluster::of(&args.cluster)?;
    let spec = cluster.load()?;
    let mut names = vec!["fabric".to_owned()];
    names.extend(spec.node_names());
    if let Some(wanted) = &args.process {
        let wanted = if wanted == "server" { "node-1" } else { wanted };
        if !names.iter().any(|n| n == wanted) {
            return Err(Failure::new(
                format!("the cluster has no process named {wanted:?}"),
                format!("It has: server, {}.", names.join(", ")),
            ));
        }
        names.retain(|n| n == wanted);
    }
    let files: Vec<(String, PathBuf)> =
        names.into_iter().map(|n| (n.clone(), cluster.log_file(&n))).collect();
    let mut positions = Vec::new();
    for (name, file) in &files {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        for line in &lines[lines.len().saturating_sub(args.tail)..] {
            say!("{name}: {line}");
        }
        positions.push(text.len() as u64);
    }
    if args.follow { follow(&files, positions) } else { Ok(()) }
}

/// Prints what is appended, woken by the file system.
fn follow(files: &[(String, PathBuf)], mut positions: Vec<u64>) -> Outcome<()> {
    let inotify = Inotify::init(InitFlags::empty()).explain("the logs cannot be watched", "")?;
    for (_, file) in files {
        let _ = inotify.add_watch(file, AddWatchFlags::IN_MODIFY);
    }
    loop {
        for ((name, file), position) in files.iter().zip(&mut positions) {
            let Ok(mut open) = std::fs::File::open(file) else { continue };
            let mut text = String::new();
            open.seek(SeekFrom::Start(*position)).explain("the log cannot be read", "")?;
            open.read_to_string(&mut text).explain("the log cannot be read", "")?;
            // A line that is still being written is shown when it is whole.
            let whole = text.rfind('\n').map_or(0, |end| end + 1);
            *position += whole as u64;
            for line in text[..whole].lines() {
                if !say!("{name}: {line}") {
                    return Ok(());
                }
            }
        }
        let _ = std::io::stdout().flush();
        inotify.read_events().explain("the logs cannot be watched", "")?;
    }
}
