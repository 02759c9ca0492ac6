//! The pause process: it does nothing and holds a pod's namespaces open while doing it.
//!
//! It is a fork of the shim, not a program of its own, so it shares the shim's memory.

use super::spec::SandboxSpec;
use crate::cgroup::{Group, Hierarchies};
use crate::kernel::{process, socket};
use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// Forks the pause process; returns its pid when the namespaces are ready.
pub fn start(spec: &SandboxSpec, hierarchies: &Hierarchies) -> Result<i32, String> {
    let group = hierarchies.group(&spec.cgroup);
    group.create().map_err(|error| format!("make the sandbox's control group: {error}"))?;
    let (mut ours, theirs) = UnixStream::pair().map_err(|error| format!("make a socket pair: {error}"))?;
    let pid = process::clone_child(flags(spec).bits())
        .map_err(|error| format!("make the pod's namespaces: {error}"))?;
    if pid == 0 {
        drop(ours);
        hold(spec, &group, theirs);
    }
    drop(theirs);
    let mut answer = String::new();
    let heard = ours.read_to_string(&mut answer);
    match answer.as_str() {
        "ready" => Ok(pid),
        "" => Err(format!(
            "the pause process ended ({})",
            heard.err().map_or("no reason".into(), |e| e.to_string())
        )),
        error => Err(error.to_owned()),
    }
}

fn flags(spec: &SandboxSpec) -> CloneFlags {
    let mut flags = CloneFlags::empty();
    if !spec.host_network {
        flags |= CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS;
    }
    if !spec.host_ipc {
        flags |= CloneFlags::CLONE_NEWIPC;
    }
    if spec.shared_pid {
        flags |= CloneFlags::CLONE_NEWPID;
    }
    flags
}

fn hold(spec: &SandboxSpec, group: &Group, mut report: UnixStream) -> ! {
    let answer = match prepare(spec, group) {
        Ok(()) => "ready".to_owned(),
        Err(error) => error,
    };
    let ready = answer == "ready";
    let _ = report.write_all(answer.as_bytes());
    drop(report);
    if !ready {
        process::exit_now(1);
    }
    process::close_from(0);
    loop {
        nix::unistd::pause();
    }
}

fn prepare(spec: &SandboxSpec, group: &Group) -> Result<(), String> {
    let failed = |what: &'static str| move |error: nix::Error| format!("{what}: {error}");
    prctl::set_dumpable(false).map_err(failed("protect the pause process"))?;
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(failed("tie the pause process to the shim"))?;
    prctl::set_name(c"pause").map_err(failed("name the pause process"))?;
    process::default_signals();
    // As init of a shared process namespace it inherits orphans.
    process::reap_automatically();
    nix::unistd::setsid().map_err(failed("make a session"))?;
    group.join().map_err(|error| format!("enter the control group: {error}"))?;
    if !spec.host_network {
        socket::loopback_up().map_err(|error| format!("bring loopback up: {error}"))?;
        if !spec.hostname.is_empty() {
            nix::unistd::sethostname(&spec.hostname).map_err(failed("set the host name"))?;
        }
    }
    for (name, value) in &spec.sysctls {
        // Dots separate, but an interface's name may hold a dot, which is then written as a slash.
        let path: String = name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect();
        std::fs::write(format!("/proc/sys/{path}"), value)
            .map_err(|error| format!("set sysctl {name}: {error}"))?;
    }
    Ok(())
}
