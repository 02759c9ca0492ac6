//! The last step: find the program and become it. Errors read as users of runc know them.

use super::Result;
use crate::kernel::process as kernel;
use crate::shim::spec::ProcessSpec;
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access, execve};
use std::convert::Infallible;
use std::ffi::CString;

pub fn run(process: &ProcessSpec) -> Result<Infallible> {
    let program = process.args.first().ok_or("no command specified")?;
    let found = find(program, &process.env)?;
    let strings = |texts: &[String]| -> Result<Vec<CString>> {
        texts
            .iter()
            .map(|text| CString::new(text.as_str()).map_err(|_| "an argument holds a NUL".to_owned()))
            .collect()
    };
    let (path, args, env) =
        (strings(std::slice::from_ref(&found))?, strings(&process.args)?, strings(&process.env)?);
    kernel::close_on_exec_from(3).map_err(|error| format!("close descriptors: {error}"))?;
    match execve(&path[0], &args, &env) {
        Ok(never) => match never {},
        Err(error) => Err(format!("exec {found}: {}", describe(error))),
    }
}

/// The file to execute: a name with a slash is a path, any other is looked up in `PATH`.
fn find(program: &str, env: &[String]) -> Result<String> {
    if program.contains('/') {
        return match check(program) {
            Ok(()) => Ok(program.to_owned()),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {
                Err(format!("exec: {program:?}: stat {program}: no such file or directory"))
            }
            Err(error) => Err(format!("exec: {program:?}: {}", describe(error))),
        };
    }
    let path = env.iter().rev().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or_default();
    let mut denied = false;
    for folder in path.split(':').filter(|_| !program.is_empty()) {
        let folder = if folder.is_empty() { "." } else { folder };
        let candidate = format!("{folder}/{program}");
        match check(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::EACCES) => denied = true,
            Err(_) => {}
        }
    }
    let why = if denied { "permission denied" } else { "executable file not found in $PATH" };
    Err(format!("exec: {program:?}: {why}"))
}

fn check(path: &str) -> nix::Result<()> {
    if nix::sys::stat::stat(path)?.st_mode & libc::S_IFMT == libc::S_IFDIR {
        return Err(Errno::EISDIR);
    }
    access(path, AccessFlags::X_OK)
}

fn describe(error: Errno) -> &'static str {
    match error {
        Errno::ENOENT => "no such file or directory",
        Errno::EACCES | Errno::EPERM => "permission denied",
        Errno::EISDIR => "is a directory",
        Errno::ENOEXEC => "exec format error",
        other => other.desc(),
    }
}
