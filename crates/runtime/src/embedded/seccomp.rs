//! The default seccomp filter: calls that no ordinary container needs, and that have been ways out of one,
//! fail with EPERM unless the container has the capability that they are about.
//!
//! It refuses what Docker's default profile refuses. Calls newer than this table, and those of other
//! architectures, fail with ENOSYS, so that programs fall back to what they used before. Profiles from files
//! are refused at creation: a container must never run with less protection than was asked for.

use super::capabilities::bit;
use crate::cri::{Error, LinuxContainerSecurityContext, ProfileType, Result};
use crate::shim::spec::{Capabilities, Instruction};

/// The newest call that is known here (mseal; numbers are common to all architectures since Linux 5.1).
const NEWEST: u32 = 462;
/// Every flag of clone that makes a namespace.
const NEW_NAMESPACE: u32 = 0x7E02_0000;
const AF_VSOCK: u32 = 40;
/// Personalities that are harmless: Linux, with 32-bit or short uname, and the question which it is.
const PERSONALITIES: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

// Offsets into the kernel's struct seccomp_data.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xC000_00B7;

const LOAD: u16 = 0x20;
const IF_EQUAL: u16 = 0x15;
const IF_GREATER: u16 = 0x25;
const IF_BITS: u16 = 0x45;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7fff_0000;
const REFUSE: u32 = 0x0005_0000 | libc::EPERM as u32;
const UNKNOWN: u32 = 0x0005_0000 | libc::ENOSYS as u32;

/// Refused calls, each with the capabilities of which one allows it after all.
const REFUSED: [(libc::c_long, &[&str]); 58] = [
    (libc::SYS_acct, &["SYS_PACCT"]),
    (libc::SYS_add_key, &[]),
    (libc::SYS_bpf, &["SYS_ADMIN", "BPF"]),
    (libc::SYS_chroot, &["SYS_CHROOT"]),
    (libc::SYS_clock_adjtime, &["SYS_TIME"]),
    (libc::SYS_clock_settime, &["SYS_TIME"]),
    (libc::SYS_delete_module, &["SYS_MODULE"]),
    (libc::SYS_fanotify_init, &["SYS_ADMIN"]),
    (libc::SYS_finit_module, &["SYS_MODULE"]),
    (libc::SYS_fsconfig, &["SYS_ADMIN"]),
    (libc::SYS_fsmount, &["SYS_ADMIN"]),
    (libc::SYS_fsopen, &["SYS_ADMIN"]),
    (libc::SYS_fspick, &["SYS_ADMIN"]),
    (libc::SYS_get_mempolicy, &["SYS_NICE"]),
    (libc::SYS_init_module, &["SYS_MODULE"]),
    (libc::SYS_io_uring_enter, &[]),
    (libc::SYS_io_uring_register, &[]),
    (libc::SYS_io_uring_setup, &[]),
    (libc::SYS_kcmp, &["SYS_PTRACE"]),
    (libc::SYS_kexec_file_load, &["SYS_BOOT"]),
    (libc::SYS_kexec_load, &["SYS_BOOT"]),
    (libc::SYS_keyctl, &[]),
    (libc::SYS_lookup_dcookie, &["SYS_ADMIN"]),
    (libc::SYS_mbind, &["SYS_NICE"]),
    (libc::SYS_migrate_pages, &[]),
    (libc::SYS_mount, &["SYS_ADMIN"]),
    (libc::SYS_mount_setattr, &["SYS_ADMIN"]),
    (libc::SYS_move_mount, &["SYS_ADMIN"]),
    (libc::SYS_move_pages, &[]),
    (libc::SYS_nfsservctl, &[]),
    (libc::SYS_open_by_handle_at, &["DAC_READ_SEARCH"]),
    (libc::SYS_open_tree, &["SYS_ADMIN"]),
    (libc::SYS_perf_event_open, &["SYS_ADMIN", "PERFMON"]),
    (libc::SYS_pidfd_getfd, &["SYS_PTRACE"]),
    (libc::SYS_pivot_root, &[]),
    (libc::SYS_process_madvise, &["SYS_PTRACE"]),
    (libc::SYS_quotactl, &["SYS_ADMIN"]),
    (libc::SYS_quotactl_fd, &["SYS_ADMIN"]),
    (libc::SYS_reboot, &["SYS_BOOT"]),
    (libc::SYS_request_key, &[]),
    (libc::SYS_set_mempolicy, &["SYS_NICE"]),
    (libc::SYS_set_mempolicy_home_node, &["SYS_NICE"]),
    (libc::SYS_setdomainname, &["SYS_ADMIN"]),
    (libc::SYS_sethostname, &["SYS_ADMIN"]),
    (libc::SYS_setns, &["SYS_ADMIN"]),
    (libc::SYS_settimeofday, &["SYS_TIME"]),
    (libc::SYS_swapoff, &[]),
    (libc::SYS_swapon, &[]),
    (libc::SYS_syslog, &["SYS_ADMIN", "SYSLOG"]),
    (libc::SYS_umount2, &["SYS_ADMIN"]),
    (libc::SYS_unshare, &["SYS_ADMIN"]),
    (libc::SYS_userfaultfd, &[]),
    (libc::SYS_vhangup, &["SYS_TTY_CONFIG"]),
    (X86[0], &["SYS_RAWIO"]),
    (X86[1], &["SYS_RAWIO"]),
    (X86[2], &[]),
    (X86[3], &[]),
    (X86[4], &[]),
];

/// Calls of one architecture only.
#[cfg(target_arch = "x86_64")]
const X86: [libc::c_long; 5] =
    [libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_uselib, libc::SYS_ustat, libc::SYS_sysfs];
#[cfg(not(target_arch = "x86_64"))]
const X86: [libc::c_long; 5] = [-1; 5];

/// The filter for a container; empty is unconfined.
pub fn filter(
    context: &LinuxContainerSecurityContext,
    capabilities: &Capabilities,
) -> Result<Vec<Instruction>> {
    match context.seccomp.as_ref().map(|profile| profile.profile_type).filter(|_| !context.privileged) {
        None | Some(ProfileType::Unconfined) => Ok(Vec::new()),
        Some(ProfileType::RuntimeDefault) => default(capabilities.permitted),
        Some(ProfileType::Localhost) => {
            Err(Error::Unimplemented("seccomp profiles of type Localhost are not supported".into()))
        }
    }
}

fn default(permitted: u64) -> Result<Vec<Instruction>> {
    let has = |names: &[&str]| -> Result<bool> {
        names.iter().try_fold(false, |has, name| Ok(has || permitted & bit(name)? != 0))
    };
    let mut program: Vec<Instruction> = vec![
        (LOAD, 0, 0, ARCHITECTURE),
        (IF_EQUAL, 1, 0, NATIVE),
        (RETURN, 0, 0, UNKNOWN),
        (LOAD, 0, 0, NUMBER),
        (IF_GREATER, 0, 1, NEWEST),
        (RETURN, 0, 0, UNKNOWN),
    ];
    for (number, allowed_by) in REFUSED.iter().filter(|(number, _)| *number >= 0) {
        if !has(allowed_by)? {
            on_call(&mut program, *number, &[(RETURN, 0, 0, REFUSE)]);
        }
    }
    if !has(&["SYS_ADMIN"])? {
        // Its flags lie in memory where a filter cannot look; without it programs use clone.
        on_call(&mut program, libc::SYS_clone3, &[(RETURN, 0, 0, UNKNOWN)]);
        let flags = [
            (LOAD, 0, 0, FIRST_ARGUMENT),
            (IF_BITS, 0, 1, NEW_NAMESPACE),
            (RETURN, 0, 0, REFUSE),
            (RETURN, 0, 0, ALLOW),
        ];
        on_call(&mut program, libc::SYS_clone, &flags);
    }
    let family = [
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (IF_EQUAL, 0, 1, AF_VSOCK),
        (RETURN, 0, 0, REFUSE),
        (RETURN, 0, 0, ALLOW),
    ];
    on_call(&mut program, libc::SYS_socket, &family);
    let mut personality = vec![(LOAD, 0, 0, FIRST_ARGUMENT)];
    for harmless in PERSONALITIES {
        personality.extend([(IF_EQUAL, 0, 1, harmless), (RETURN, 0, 0, ALLOW)]);
    }
    personality.push((RETURN, 0, 0, REFUSE));
    on_call(&mut program, libc::SYS_personality, &personality);
    program.push((RETURN, 0, 0, ALLOW));
    Ok(program)
}

/// `block`, which must end with returns, for one call; the call's number is loaded before and after.
fn on_call(program: &mut Vec<Instruction>, number: libc::c_long, block: &[Instruction]) {
    let (Ok(number), Ok(length)) = (u32::try_from(number), u8::try_from(block.len())) else { return };
    program.push((IF_EQUAL, 0, length, number));
    program.extend_from_slice(block);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel does.
    fn decide(program: &[Instruction], architecture: u32, number: libc::c_long, argument: u32) -> u32 {
        let (mut at, mut loaded) = (0, 0);
        loop {
            let (code, jump_true, jump_false, operand) = program[at];
            at += 1;
            let holds = match code {
                LOAD => {
                    loaded = match operand {
                        NUMBER => number as u32,
                        ARCHITECTURE => architecture,
                        _ => argument,
                    };
                    continue;
                }
                RETURN => return operand,
                IF_EQUAL => loaded == operand,
                IF_GREATER => loaded > operand,
                IF_BITS => loaded & operand != 0,
                other => panic!("instruction {other}"),
            };
            at += usize::from(if holds { jump_true } else { jump_false });
        }
    }

    #[test]
    fn what_the_default_allows() {
        let program = default(0).unwrap();
        let call = |number, argument| decide(&program, NATIVE, number, argument);
        assert_eq!(call(libc::SYS_read, 0), ALLOW);
        assert_eq!(call(libc::SYS_execve, 0), ALLOW);
        assert_eq!(call(libc::SYS_keyctl, 0), REFUSE);
        assert_eq!(call(libc::SYS_mount, 0), REFUSE);
        assert_eq!(call(libc::SYS_clone, 0x11), ALLOW);
        assert_eq!(call(libc::SYS_clone, 0x1000_0000), REFUSE);
        assert_eq!(call(libc::SYS_clone3, 0), UNKNOWN);
        assert_eq!(call(libc::SYS_socket, 2), ALLOW);
        assert_eq!(call(libc::SYS_socket, AF_VSOCK), REFUSE);
        assert_eq!(call(libc::SYS_personality, 8), ALLOW);
        assert_eq!(call(libc::SYS_personality, 4), REFUSE);
        assert_eq!(call(999, 0), UNKNOWN);
        assert_eq!(decide(&program, 0x4000_0003, libc::SYS_read, 0), UNKNOWN);
    }

    #[test]
    fn capabilities_allow_their_calls() {
        let admin = default(bit("SYS_ADMIN").unwrap()).unwrap();
        assert_eq!(decide(&admin, NATIVE, libc::SYS_mount, 0), ALLOW);
        assert_eq!(decide(&admin, NATIVE, libc::SYS_clone3, 0), ALLOW);
        assert_eq!(decide(&admin, NATIVE, libc::SYS_reboot, 0), REFUSE);
    }
}
