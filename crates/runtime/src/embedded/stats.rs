//! Statistics, read from control groups, the pod's network namespace and the writable layer.

use super::state::{ContainerEntry, SandboxEntry};
use super::{EmbeddedRuntime, blocking};
use crate::cri::{
    ContainerState, ContainerStats, CpuUsage, FilesystemUsage, NetworkInterfaceUsage, NetworkUsage,
    PodSandboxStats, ProcessUsage, Result,
};
use std::sync::Arc;

impl EmbeddedRuntime {
    pub(super) async fn stats_of(&self, container: &Arc<ContainerEntry>) -> Result<ContainerStats> {
        let record = container.record.lock().clone();
        let (group, timestamp) = (self.hierarchies.group(&record.cgroup), self.now());
        let upper = container.folder.join("upper");
        blocking(move || {
            let (used_bytes, inodes_used) = crate::usage::tree(&upper);
            Ok(ContainerStats {
                id: record.id,
                metadata: record.config.metadata,
                pod_sandbox_id: record.sandbox,
                labels: record.config.labels,
                annotations: record.config.annotations,
                cpu: CpuUsage { timestamp, usage_core_nano_seconds: group.cpu_nanos() },
                memory: group.memory(timestamp),
                writable_layer: FilesystemUsage {
                    timestamp,
                    mountpoint: upper.display().to_string(),
                    used_bytes,
                    inodes_used,
                },
                process: ProcessUsage { timestamp, process_count: group.processes_now() },
            })
        })
        .await
    }

    pub(super) async fn sandbox_stats(&self, sandbox: &Arc<SandboxEntry>) -> Result<PodSandboxStats> {
        let record = sandbox.record.lock().clone();
        let mut containers = Vec::new();
        for container in self.containers_of(&record.id) {
            if container.state() == ContainerState::Running {
                containers.push(self.stats_of(&container).await?);
            }
        }
        let (group, timestamp) = (self.hierarchies.group(&record.cgroup), self.now());
        let host_network =
            record.config.linux.security_context.namespace_options.network == crate::cri::NamespaceMode::Node;
        blocking(move || {
            let network = if host_network {
                String::new()
            } else {
                std::fs::read_to_string(format!("/proc/{}/net/dev", record.pause)).unwrap_or_default()
            };
            Ok(PodSandboxStats {
                id: record.id,
                metadata: record.config.metadata,
                labels: record.config.labels,
                annotations: record.config.annotations,
                cpu: CpuUsage { timestamp, usage_core_nano_seconds: group.cpu_nanos() },
                memory: group.memory(timestamp),
                network: NetworkUsage { timestamp, interfaces: interfaces(&network) },
                process: ProcessUsage { timestamp, process_count: group.processes_now() },
                containers,
            })
        })
        .await
    }
}

/// The lines of `/proc/net/dev`, without loopback.
fn interfaces(text: &str) -> Vec<NetworkInterfaceUsage> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines
        .map(|(name, numbers)| {
            let numbers: Vec<u64> =
                numbers.split_whitespace().map(|number| number.parse().unwrap_or(0)).collect();
            let at = |index: usize| numbers.get(index).copied().unwrap_or(0);
            let name = name.trim().to_owned();
            NetworkInterfaceUsage {
                name,
                rx_bytes: at(0),
                rx_errors: at(2),
                tx_bytes: at(8),
                tx_errors: at(10),
            }
        })
        .filter(|interface| interface.name != "lo")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_read_from_the_kernels_table() {
        let text = "Inter-|   Receive\n face |bytes packets errs\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 10 2 3 0 0 0 0 0 20 4 5 0 0 0 0 0\n";
        let wanted = NetworkInterfaceUsage {
            name: "eth0".into(),
            rx_bytes: 10,
            rx_errors: 3,
            tx_bytes: 20,
            tx_errors: 5,
        };
        assert_eq!(interfaces(text), [wanted]);
    }
}
