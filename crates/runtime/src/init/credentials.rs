//! From root with everything to the user, groups and capabilities that the container shall have.

use super::{Doing, Result};
use crate::kernel::process as kernel;
use crate::shim::spec::ProcessSpec;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

/// Number of the highest capability that the kernel may know.
const LAST_CAPABILITY: u32 = 63;

pub fn assume(process: &ProcessSpec) -> Result<()> {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let wanted = process.capabilities;
    for capability in (0..=LAST_CAPABILITY).filter(|c| wanted.bounding & 1 << c == 0) {
        kernel::drop_bounding(capability).doing("drop capabilities from the bounding set")?;
    }
    if !process.no_new_privileges {
        // Allowed to root only, so before root's rights go.
        filter(process)?;
    }
    prctl::set_keepcaps(true).doing("keep capabilities")?;
    let groups: Vec<Gid> = process.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    setgroups(&groups).doing("set the supplementary groups")?;
    let (uid, gid) = (Uid::from_raw(process.uid), Gid::from_raw(process.gid));
    setresgid(gid, gid, gid).doing(format_args!("set the group {gid}"))?;
    setresuid(uid, uid, uid).doing(format_args!("set the user {uid}"))?;
    // More than we have ourselves cannot be given.
    let own = kernel::permitted_capabilities().doing("read capabilities")?;
    let permitted = wanted.permitted & own;
    let ambient = wanted.ambient & permitted;
    kernel::set_capabilities(permitted, permitted, ambient).doing("set capabilities")?;
    for capability in (0..=LAST_CAPABILITY).filter(|c| ambient & 1 << c != 0) {
        kernel::raise_ambient(capability).doing("set ambient capabilities")?;
    }
    // The container must not outlive its shim. Changing the user has cleared what was set before.
    prctl::set_pdeathsig(Signal::SIGKILL).doing("tie the process to its shim")?;
    if process.no_new_privileges {
        prctl::set_no_new_privs().doing("set no_new_privs")?;
        filter(process)?;
    }
    Ok(())
}

fn filter(process: &ProcessSpec) -> Result<()> {
    if process.seccomp.is_empty() {
        return Ok(());
    }
    let program: Vec<libc::sock_filter> =
        process.seccomp.iter().map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k }).collect();
    kernel::load_seccomp(&program).doing("load the seccomp filter")
}
