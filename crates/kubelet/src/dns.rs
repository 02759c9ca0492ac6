//! What a pod's `/etc/resolv.conf` says, by its DNS policy.

use crate::spec;
use krate_api::types::core::v1::{Pod, PodDNSConfig};
use krate_runtime::cri::DnsConfig;
use std::net::IpAddr;

/// The resolver reads no more name servers than this.
const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
/// Characters in all search domains together.
const MAX_SEARCH_CHARS: usize = 2048;
const CLUSTER_OPTIONS: &str = "ndots:5";

/// The cluster's side of name resolution.
#[derive(Clone, Debug, Default)]
pub struct ClusterDns {
    pub servers: Vec<IpAddr>,
    pub domain: String,
}

/// Reads a `resolv.conf`; the last `search` or `domain` line counts.
pub fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            continue;
        }
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            Some("search" | "domain") => {
                config.searches = words
                    .map(|d| d.trim_end_matches('.'))
                    .filter(|d| !d.is_empty())
                    .map(str::to_owned)
                    .collect();
            }
            Some("options") => config.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    config
}

/// The pod's resolver configuration, and whether the pod wanted the cluster's DNS and there is none.
pub fn for_pod(pod: &Pod, cluster: &ClusterDns, host: &DnsConfig) -> (DnsConfig, bool) {
    let policy = spec::spec(pod).dns_policy.as_deref().unwrap_or("ClusterFirst");
    let wants_cluster = match policy {
        "ClusterFirst" => !spec::is_host_network(pod),
        "ClusterFirstWithHostNet" => true,
        _ => false,
    };
    let missing = wants_cluster && cluster.servers.is_empty();
    let mut config = match policy {
        "None" => DnsConfig::default(),
        _ if wants_cluster && !missing => cluster_first(spec::namespace(pod), cluster, host),
        _ => host.clone(),
    };
    if let Some(own) = &spec::spec(pod).dns_config {
        merge(&mut config, own);
    }
    limit(&mut config);
    (config, missing)
}

fn cluster_first(namespace: &str, cluster: &ClusterDns, host: &DnsConfig) -> DnsConfig {
    let mut searches = Vec::new();
    if !cluster.domain.is_empty() {
        let domain = &cluster.domain;
        searches.extend([format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()]);
    }
    extend_new(&mut searches, host.searches.iter().cloned());
    DnsConfig {
        servers: cluster.servers.iter().map(ToString::to_string).collect(),
        searches,
        options: vec![CLUSTER_OPTIONS.to_owned()],
    }
}

fn merge(config: &mut DnsConfig, own: &PodDNSConfig) {
    extend_new(&mut config.servers, own.nameservers.iter().flatten().cloned());
    extend_new(&mut config.searches, own.searches.iter().flatten().cloned());
    for option in own.options.iter().flatten() {
        let Some(name) = option.name.as_deref() else { continue };
        config.options.retain(|o| o.split(':').next() != Some(name));
        config.options.push(match option.value.as_deref() {
            Some(value) if !value.is_empty() => format!("{name}:{value}"),
            _ => name.to_owned(),
        });
    }
}

fn extend_new(list: &mut Vec<String>, more: impl Iterator<Item = String>) {
    for item in more {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

fn limit(config: &mut DnsConfig) {
    config.servers.truncate(MAX_SERVERS);
    config.searches.truncate(MAX_SEARCHES);
    let mut used = 0;
    config.searches.retain(|domain| {
        used += domain.len() + 1;
        used <= MAX_SEARCH_CHARS + 1
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::build::*;
    use krate_api::types::core::v1::PodDNSConfigOption;

    fn cluster() -> ClusterDns {
        ClusterDns { servers: vec!["10.96.0.10".parse().unwrap()], domain: "cluster.local".into() }
    }

    fn host() -> DnsConfig {
        parse_resolv_conf("# x\nnameserver 192.0.2.1\nsearch example.com.\noptions timeout:1\n")
    }

    #[test]
    fn cluster_first() {
        let (config, missing) = for_pod(&pod("web"), &cluster(), &host());
        assert_eq!(config.servers, ["10.96.0.10"]);
        assert_eq!(
            config.searches,
            ["default.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.com"]
        );
        assert_eq!(config.options, ["ndots:5"]);
        assert!(!missing);
    }

    #[test]
    fn the_host_network_takes_the_hosts_dns_unless_told_otherwise() {
        let on_host = edit(pod("web"), |s| s.host_network = Some(true));
        assert_eq!(for_pod(&on_host, &cluster(), &host()).0, host());
        let told = edit(on_host, |s| s.dns_policy = Some("ClusterFirstWithHostNet".into()));
        assert_eq!(for_pod(&told, &cluster(), &host()).0.servers, ["10.96.0.10"]);
    }

    #[test]
    fn the_pods_own_settings_are_merged() {
        let pod = edit(pod("web"), |s| {
            s.dns_config = Some(PodDNSConfig {
                nameservers: Some(vec!["192.0.2.9".into()]),
                searches: Some(vec!["corp.example".into()]),
                options: Some(vec![PodDNSConfigOption {
                    name: Some("ndots".into()),
                    value: Some("2".into()),
                }]),
            });
        });
        let (config, _) = for_pod(&pod, &cluster(), &host());
        assert_eq!(config.servers, ["10.96.0.10", "192.0.2.9"]);
        assert_eq!(config.searches.last().unwrap(), "corp.example");
        assert_eq!(config.options, ["ndots:2"]);
        let none = edit(pod, |s| s.dns_policy = Some("None".into()));
        assert_eq!(for_pod(&none, &cluster(), &host()).0.servers, ["192.0.2.9"]);
    }

    #[test]
    fn without_a_cluster_dns_the_hosts_is_taken_and_said() {
        assert_eq!(for_pod(&pod("web"), &ClusterDns::default(), &host()), (host(), true));
    }
}
