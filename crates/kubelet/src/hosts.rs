//! The `/etc/hosts` that the kubelet keeps for a pod's containers.

use krate_api::types::core::v1::HostAlias;
use std::fmt::Write as _;

/// For a pod with its own network.
pub fn for_pod(ips: &[String], hostname: &str, domain: &str, aliases: &[HostAlias]) -> String {
    let mut out = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    for ip in ips {
        let _ = if domain.is_empty() {
            writeln!(out, "{ip}\t{hostname}")
        } else {
            writeln!(out, "{ip}\t{hostname}.{domain}\t{hostname}")
        };
    }
    out + &entries(aliases)
}

/// For a pod in the node's network: the node's own file and the pod's aliases.
pub fn for_host_network(host_file: &str, aliases: &[HostAlias]) -> String {
    format!("# Kubernetes-managed hosts file (host network).\n{host_file}{}", entries(aliases))
}

fn entries(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let mut out = String::from("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        let _ = writeln!(out, "{}\t{names}", alias.ip);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pods_own_name_and_its_aliases() {
        let alias = HostAlias { ip: "192.0.2.1".into(), hostnames: Some(vec!["a".into(), "b".into()]) };
        let text = for_pod(&["10.0.0.2".into()], "db-0", "db.default.svc.cluster.local", &[alias]);
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(text.contains("\n10.0.0.2\tdb-0.db.default.svc.cluster.local\tdb-0\n"));
        assert!(text.ends_with("\n# Entries added by HostAliases.\n192.0.2.1\ta\tb\n"));
    }
}
