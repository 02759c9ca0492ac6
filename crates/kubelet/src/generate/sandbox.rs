//! The configuration of a pod's sandbox.

use super::{cgroup_parent, security};
use crate::observed;
use crate::spec::{self, resources, sysctls};
use krate_api::types::core::v1::{Container, Pod};
use krate_runtime::cri::{
    DnsConfig, LinuxContainerResources, LinuxPodSandboxConfig, PodSandboxConfig, PodSandboxMetadata,
    PortMapping, Protocol,
};

/// What of a sandbox does not come from the pod.
pub struct Setting<'a> {
    pub attempt: u32,
    pub cluster_domain: &'a str,
    pub node_group: &'a str,
    pub log_directory: String,
    pub dns: DnsConfig,
    pub seccomp_root: &'a str,
}

pub fn config(pod: &Pod, setting: Setting<'_>) -> PodSandboxConfig {
    let (hostname, domain) = spec::hostname_and_domain(pod, setting.cluster_domain);
    let full = spec::spec(pod).set_hostname_as_fqdn == Some(true) && !domain.is_empty();
    let hostname = if full { format!("{hostname}.{domain}") } else { hostname };
    PodSandboxConfig {
        metadata: PodSandboxMetadata {
            name: spec::name(pod).to_owned(),
            uid: spec::uid(pod).to_owned(),
            namespace: spec::namespace(pod).to_owned(),
            attempt: setting.attempt,
        },
        // In the node's UTS namespace a host name would be the node's.
        hostname: if spec::is_host_network(pod) { String::new() } else { hostname },
        log_directory: setting.log_directory,
        dns_config: Some(setting.dns),
        port_mappings: port_mappings(pod),
        labels: observed::sandbox_labels(pod),
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        linux: LinuxPodSandboxConfig {
            cgroup_parent: cgroup_parent(setting.node_group, pod),
            security_context: security::sandbox(pod, setting.seccomp_root),
            sysctls: kernel_settings(pod),
            overhead: None,
            resources: Some(pod_resources(pod)),
        },
    }
}

fn kernel_settings(pod: &Pod) -> krate_runtime::cri::Map {
    let context = spec::spec(pod).security_context.as_ref();
    let all = context.and_then(|c| c.sysctls.as_ref()).into_iter().flatten();
    all.map(|s| (sysctls::dotted(&s.name), s.value.clone())).collect()
}

/// The host ports that lead to the pod; none in the node's network, where ports are the node's anyway.
fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    if spec::is_host_network(pod) {
        return Vec::new();
    }
    let sidecars = spec::init_containers(pod).iter().filter(|c| spec::is_restartable_init(c));
    spec::containers(pod).iter().chain(sidecars).flat_map(of_container).collect()
}

fn of_container(container: &Container) -> Vec<PortMapping> {
    let mapped = container.ports.iter().flatten().filter(|p| p.host_port.is_some_and(|port| port > 0));
    mapped
        .map(|port| PortMapping {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                _ => Protocol::Tcp,
            },
            container_port: port.container_port,
            host_port: port.host_port.unwrap_or_default(),
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
        .collect()
}

/// What the pod as a whole is held to: a weight always, limits if every container has one.
pub fn pod_resources(pod: &Pod) -> LinuxContainerResources {
    LinuxContainerResources {
        cpu_shares: resources::cpu_shares(resources::pod_request(pod, "cpu")),
        cpu_quota: resources::pod_limit(pod, "cpu").map_or(0, resources::cpu_quota),
        cpu_period: resources::CPU_PERIOD,
        memory_limit_in_bytes: resources::pod_limit(pod, "memory").unwrap_or(0),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::build::*;
    use krate_api::types::core::v1::ContainerPort;

    fn setting() -> Setting<'static> {
        Setting {
            attempt: 0,
            cluster_domain: "cluster.local",
            node_group: "/krate/n1/",
            log_directory: "/logs".into(),
            dns: DnsConfig::default(),
            seccomp_root: "",
        }
    }

    #[test]
    fn host_ports_and_names() {
        let pod = edit(pod("web"), |s| {
            s.subdomain = Some("sub".into());
            s.set_hostname_as_fqdn = Some(true);
            s.containers[0].ports = Some(vec![
                ContainerPort { container_port: 80, host_port: Some(8080), ..Default::default() },
                ContainerPort { container_port: 81, ..Default::default() },
            ]);
        });
        let got = config(&pod, setting());
        assert_eq!(got.hostname, "web.sub.default.svc.cluster.local");
        assert_eq!(got.port_mappings.len(), 1);
        assert_eq!(got.linux.cgroup_parent, "/krate/n1/poduid-web");
        assert_eq!(got.labels[observed::POD_UID], "uid-web");
    }
}
