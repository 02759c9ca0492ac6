//! Linux capabilities by name, and which of them a container gets.

use crate::cri::{Capability, Error, Result};
use crate::shim::spec::Capabilities;

/// In the kernel's order; the position is the number.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container has unless it asks otherwise.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

const EVERY: u64 = (1 << NAMES.len()) - 1;

/// The bit of a capability; `CAP_` in front may be left out.
pub fn bit(name: &str) -> Result<u64> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let number = NAMES.iter().position(|known| *known == short);
    number
        .map(|number| 1 << number)
        .ok_or_else(|| Error::InvalidArgument(format!("unknown capability {name:?}")))
}

pub fn decide(wanted: Option<&Capability>, privileged: bool) -> Result<Capabilities> {
    if privileged {
        return Ok(Capabilities { bounding: EVERY, permitted: EVERY, ambient: 0 });
    }
    let Some(wanted) = wanted else { return finish(bits(&DEFAULT)?, &[]) };
    let all = |names: &[String]| names.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
    let mut set = if all(&wanted.add_capabilities) { EVERY } else { bits(&DEFAULT)? };
    if all(&wanted.drop_capabilities) {
        set = 0;
    }
    for name in wanted.add_capabilities.iter().filter(|name| !name.eq_ignore_ascii_case("ALL")) {
        set |= bit(name)?;
    }
    for name in wanted.drop_capabilities.iter().filter(|name| !name.eq_ignore_ascii_case("ALL")) {
        set &= !bit(name)?;
    }
    finish(set, &wanted.add_ambient_capabilities)
}

fn bits(names: &[&str]) -> Result<u64> {
    names.iter().try_fold(0, |set, name| Ok(set | bit(name)?))
}

fn finish(set: u64, ambient: &[String]) -> Result<Capabilities> {
    let ambient = ambient.iter().try_fold(0, |sofar, name| Ok::<_, Error>(sofar | bit(name)?))?;
    Ok(Capabilities { bounding: set, permitted: set, ambient: ambient & set })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(add: &[&str], drop: &[&str]) -> u64 {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let wanted = Capability {
            add_capabilities: names(add),
            drop_capabilities: names(drop),
            ..Capability::default()
        };
        decide(Some(&wanted), false).unwrap().bounding
    }

    #[test]
    fn adds_and_drops() {
        assert_eq!(decided(&[], &[]), 0xa804_25fb, "Docker's default set");
        assert_eq!(decided(&["NET_BIND_SERVICE"], &["ALL"]), 1 << 10);
        assert_eq!(decided(&["ALL"], &["CAP_SYS_ADMIN"]), EVERY & !(1 << 21));
        assert_eq!(decided(&["net_admin"], &["CHOWN"]), (0xa804_25fb | 1 << 12) & !1);
        assert!(bit("NONSENSE").is_err());
    }
}
