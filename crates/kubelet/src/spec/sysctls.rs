//! Kernel settings that a pod may ask for: those that are the pod's own and harm nobody else.

use super::spec;
use krate_api::types::core::v1::Pod;

/// The settings that every node allows.
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// The name with dots between its parts, as the runtime takes it. Where the first separator is a slash, slashes
/// separate and a dot belongs to a name, such as that of an interface.
pub fn dotted(name: &str) -> String {
    if name.find(['.', '/']).is_none_or(|at| name.as_bytes()[at] == b'.') {
        return name.to_owned();
    }
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    };
    name.chars().map(swap).collect()
}

/// Why the node does not take the pod for its settings.
pub fn forbidden(pod: &Pod) -> Option<String> {
    let spec = spec(pod);
    let wanted = spec.security_context.as_ref().and_then(|c| c.sysctls.as_ref()).into_iter().flatten();
    for name in wanted.map(|s| dotted(&s.name)) {
        let why = if !SAFE.contains(&name.as_str()) {
            "not allowlisted"
        } else if name.starts_with("net.") && spec.host_network == Some(true) {
            "not allowed with host net enabled"
        } else if name.starts_with("kernel.") && spec.host_ipc == Some(true) {
            "not allowed with host ipc enabled"
        } else {
            continue;
        };
        return Some(format!("forbidden sysctl: \"{name}\" {why}"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::build;
    use krate_api::types::core::v1::{PodSecurityContext, Sysctl};

    #[test]
    fn names_are_written_in_two_ways() {
        assert_eq!(dotted("net/ipv4/conf/eno2.100/rp_filter"), "net.ipv4.conf.eno2/100.rp_filter");
        assert_eq!(dotted("net.ipv4.conf.eno2/100.rp_filter"), "net.ipv4.conf.eno2/100.rp_filter");
        assert_eq!(dotted("plain"), "plain");
    }

    #[test]
    fn only_what_is_the_pods_own() {
        let with = |name: &str, host: bool| {
            build::edit(build::pod("p"), |s| {
                s.host_network = Some(host);
                s.security_context = Some(PodSecurityContext {
                    sysctls: Some(vec![Sysctl { name: name.into(), value: "1".into() }]),
                    ..Default::default()
                });
            })
        };
        assert_eq!(forbidden(&with("kernel.shm_rmid_forced", false)), None);
        assert_eq!(
            forbidden(&with("kernel.msgmax", false)).unwrap(),
            "forbidden sysctl: \"kernel.msgmax\" not allowlisted"
        );
        assert_eq!(
            forbidden(&with("net/ipv4/tcp_rmem", true)).unwrap(),
            "forbidden sysctl: \"net.ipv4.tcp_rmem\" not allowed with host net enabled"
        );
    }
}
