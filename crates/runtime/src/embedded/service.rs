//! The CRI's RuntimeService, each call a line or two.

use super::EmbeddedRuntime;
use super::client::call;
use crate::cri::{
    Container, ContainerConfig, ContainerEvent, ContainerFilter, ContainerState, ContainerStats,
    ContainerStatsFilter, ContainerStatus, Error, ExecSyncResponse, LinuxContainerResources, Map, PodSandbox,
    PodSandboxConfig, PodSandboxFilter, PodSandboxStats, PodSandboxStatus, Result, Runtime, RuntimeCondition,
    RuntimeFeatures, RuntimeHandler, RuntimeStatus, VersionResponse,
};
use crate::shim::protocol::Request;
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;

/// What container ids are prefixed with in pods' states.
pub const RUNTIME_NAME: &str = "krate";

#[async_trait]
impl Runtime for EmbeddedRuntime {
    async fn version(&self) -> Result<VersionResponse> {
        Ok(VersionResponse {
            version: "0.1.0".into(),
            runtime_name: RUNTIME_NAME.into(),
            runtime_version: env!("CARGO_PKG_VERSION").into(),
            runtime_api_version: "v1".into(),
        })
    }

    async fn status(&self) -> Result<RuntimeStatus> {
        let ready = |kind: &str| RuntimeCondition {
            r#type: kind.into(),
            status: true,
            ..RuntimeCondition::default()
        };
        Ok(RuntimeStatus {
            conditions: vec![ready("RuntimeReady"), ready("NetworkReady")],
            handlers: vec![RuntimeHandler {
                name: String::new(),
                recursive_read_only_mounts: true,
                user_namespaces: false,
            }],
            features: RuntimeFeatures { supplemental_groups_policy: true },
        })
    }

    async fn run_pod_sandbox(&self, config: &PodSandboxConfig, runtime_handler: &str) -> Result<String> {
        self.run_sandbox(config, runtime_handler).await
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        self.stop_sandbox(id).await
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        self.remove_sandbox(id).await
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatus> {
        Ok(self.sandbox(id)?.status())
    }

    async fn list_pod_sandbox(&self, filter: &PodSandboxFilter) -> Result<Vec<PodSandbox>> {
        let all: Vec<PodSandbox> =
            self.tables.read().sandboxes.values().map(|entry| entry.summary()).collect();
        Ok(all
            .into_iter()
            .filter(|sandbox| {
                filter.id.as_ref().is_none_or(|id| *id == sandbox.id)
                    && filter.state.is_none_or(|state| state == sandbox.state)
                    && matches(&filter.label_selector, &sandbox.labels)
            })
            .collect())
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: &ContainerConfig,
        _sandbox: &PodSandboxConfig,
    ) -> Result<String> {
        self.create(sandbox_id, config).await
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        self.start(id).await
    }

    async fn stop_container(&self, id: &str, timeout: Duration) -> Result<()> {
        self.stop_by_id(id, timeout).await
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        self.remove(id).await
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus> {
        Ok(self.container(id)?.status())
    }

    async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<Container>> {
        let all: Vec<Container> =
            self.tables.read().containers.values().map(|entry| entry.summary()).collect();
        Ok(all
            .into_iter()
            .filter(|container| {
                filter.id.as_ref().is_none_or(|id| *id == container.id)
                    && filter.state.is_none_or(|state| state == container.state)
                    && filter.pod_sandbox_id.as_ref().is_none_or(|id| *id == container.pod_sandbox_id)
                    && matches(&filter.label_selector, &container.labels)
            })
            .collect())
    }

    async fn update_container_resources(&self, id: &str, resources: &LinuxContainerResources) -> Result<()> {
        self.update_resources(id, resources).await
    }

    async fn update_pod_sandbox_resources(
        &self,
        id: &str,
        resources: &LinuxContainerResources,
    ) -> Result<()> {
        self.update_sandbox(id, resources).await
    }

    async fn reopen_container_log(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        if container.state() != ContainerState::Running {
            return Err(Error::FailedPrecondition("container is not running".into()));
        }
        let sandbox = self.sandbox(&container.sandbox())?;
        call(&sandbox.folder, &Request::ReopenLog { container: id.to_owned() }).await.map(drop)
    }

    async fn exec_sync(&self, id: &str, cmd: &[String], timeout: Duration) -> Result<ExecSyncResponse> {
        self.run_and_collect(id, cmd, timeout).await
    }

    async fn container_stats(&self, id: &str) -> Result<ContainerStats> {
        self.stats_of(&self.container(id)?).await
    }

    async fn list_container_stats(&self, filter: &ContainerStatsFilter) -> Result<Vec<ContainerStats>> {
        let wanted = ContainerFilter {
            id: filter.id.clone(),
            state: Some(ContainerState::Running),
            pod_sandbox_id: filter.pod_sandbox_id.clone(),
            label_selector: filter.label_selector.clone(),
        };
        let mut all = Vec::new();
        for container in self.list_containers(&wanted).await? {
            match self.container_stats(&container.id).await {
                Ok(stats) => all.push(stats),
                // Removed meanwhile.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    async fn pod_sandbox_stats(&self, id: &str) -> Result<PodSandboxStats> {
        self.sandbox_stats(&self.sandbox(id)?).await
    }

    fn get_container_events(&self) -> broadcast::Receiver<Arc<ContainerEvent>> {
        self.events.subscribe()
    }
}

/// Every selected label is there with its value.
fn matches(selector: &Map, labels: &Map) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
