//! A runtime for tests: it runs nothing, remembers what it was asked for, and does what the test says.

use async_trait::async_trait;
use krate_base::Clock;
use krate_runtime::cri::*;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, watch};

#[derive(Default)]
struct State {
    sandboxes: BTreeMap<String, (PodSandboxStatus, PodSandboxConfig)>,
    containers: BTreeMap<String, Held>,
    images: BTreeSet<String>,
    /// Images whose pull fails, with the message.
    broken: BTreeMap<String, String>,
    /// Exit codes of containers that end as soon as they start, by name.
    at_start: BTreeMap<String, i32>,
    /// Commands by their first word and how they end; others succeed.
    commands: BTreeMap<String, (i32, String)>,
    /// Containers that ignore their stop signal, by name.
    stubborn: BTreeSet<String>,
    /// Containers that end with success at their stop signal, by name.
    polite: BTreeSet<String>,
    pulls: Vec<(String, Option<AuthConfig>)>,
    calls: Vec<String>,
    next: u32,
}

#[derive(Clone)]
struct Held {
    sandbox: String,
    status: ContainerStatus,
    config: ContainerConfig,
}

/// A handle; clones share the runtime.
#[derive(Clone)]
pub struct FakeRuntime {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<Arc<ContainerEvent>>,
    changes: watch::Sender<u64>,
    clock: Clock,
}

impl FakeRuntime {
    pub fn new(clock: Clock) -> Self {
        let state = State { images: ["nginx:1".to_owned()].into(), ..State::default() };
        Self {
            state: Arc::new(Mutex::new(state)),
            events: broadcast::channel(EVENT_QUEUE).0,
            changes: watch::channel(0).0,
            clock,
        }
    }

    pub fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().calls)
    }

    pub fn pulls(&self) -> Vec<(String, Option<AuthConfig>)> {
        self.state.lock().pulls.clone()
    }

    /// Somebody imports an image.
    pub fn import(&self, image: &str) {
        self.state.lock().images.insert(image.to_owned());
        self.changes.send_modify(|count| *count += 1);
    }

    pub fn break_image(&self, image: &str, message: &str) {
        let mut state = self.state.lock();
        state.images.remove(image);
        state.broken.insert(image.to_owned(), message.to_owned());
    }

    pub fn mend_image(&self, image: &str) {
        self.state.lock().broken.remove(image);
    }

    pub fn end_at_start(&self, container: &str, code: i32) {
        self.state.lock().at_start.insert(container.to_owned(), code);
    }

    pub fn answer(&self, command: &str, code: i32, output: &str) {
        self.state.lock().commands.insert(command.to_owned(), (code, output.to_owned()));
    }

    pub fn make_stubborn(&self, container: &str) {
        self.state.lock().stubborn.insert(container.to_owned());
    }

    pub fn end_well(&self, container: &str) {
        self.state.lock().polite.insert(container.to_owned());
    }

    /// The newest running container of that name.
    pub fn running(&self, name: &str) -> Option<(String, ContainerConfig)> {
        let state = self.state.lock();
        let of_name = |h: &&Held| h.status.metadata.name == name && h.status.state == ContainerState::Running;
        state
            .containers
            .values()
            .filter(of_name)
            .max_by_key(|h| h.status.created_at)
            .map(|h| (h.status.id.clone(), h.config.clone()))
    }

    pub fn count(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.sandboxes.len(), state.containers.len())
    }

    /// The container's process ends by itself.
    pub fn exit(&self, name: &str, code: i32) {
        if let Some((id, _)) = self.running(name) {
            self.end(&id, code);
        }
    }

    /// The sandbox of every pod dies, with its containers.
    pub fn kill_sandboxes(&self) {
        let ids: Vec<String> = self.state.lock().sandboxes.keys().cloned().collect();
        for id in ids {
            self.end_sandbox(&id);
        }
    }

    fn end_sandbox(&self, id: &str) {
        let running: Vec<String> = {
            let mut state = self.state.lock();
            if let Some((sandbox, _)) = state.sandboxes.get_mut(id) {
                sandbox.state = PodSandboxState::NotReady;
                sandbox.network = PodSandboxNetworkStatus::default();
            }
            let of_it = state
                .containers
                .values()
                .filter(|h| h.sandbox == id && h.status.state == ContainerState::Running);
            of_it.map(|h| h.status.id.clone()).collect()
        };
        running.iter().for_each(|id| self.end(id, 137));
        self.tell(id, "", ContainerEventType::Stopped);
    }

    fn end(&self, id: &str, code: i32) {
        let sandbox = {
            let mut state = self.state.lock();
            let now = self.now();
            let Some(held) = state.containers.get_mut(id) else { return };
            if held.status.state == ContainerState::Exited {
                return;
            }
            held.status.state = ContainerState::Exited;
            held.status.exit_code = code;
            held.status.finished_at = now;
            held.status.reason = if code == 0 { "Completed" } else { "Error" }.to_owned();
            held.sandbox.clone()
        };
        self.tell(&sandbox, id, ContainerEventType::Stopped);
    }

    fn now(&self) -> i64 {
        i64::try_from(self.clock.now().as_nanosecond()).unwrap()
    }

    fn tell(&self, sandbox: &str, container: &str, kind: ContainerEventType) {
        let event = ContainerEvent {
            container_id: container.to_owned(),
            container_event_type: kind,
            created_at: self.now(),
            pod_sandbox_status: self.state.lock().sandboxes.get(sandbox).map(|(s, _)| s.clone()),
            containers_statuses: vec![],
        };
        // Nobody listens: nobody minds.
        let _ = self.events.send(Arc::new(event));
    }

    fn note(&self, call: String) {
        self.state.lock().calls.push(call);
    }
}

fn matches(selector: &Map, labels: &Map) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn no(what: &str) -> Error {
    Error::NotFound(format!("{what} not found"))
}

#[async_trait]
impl Runtime for FakeRuntime {
    async fn version(&self) -> Result<VersionResponse> {
        Ok(VersionResponse { runtime_name: "fake".into(), runtime_version: "1".into(), ..Default::default() })
    }

    async fn status(&self) -> Result<RuntimeStatus> {
        Ok(RuntimeStatus::default())
    }

    async fn run_pod_sandbox(&self, config: &PodSandboxConfig, _handler: &str) -> Result<String> {
        self.note(format!("run {}", config.metadata.name));
        let id = {
            let mut state = self.state.lock();
            state.next += 1;
            let id = format!("s{}", state.next);
            let namespaces = config.linux.security_context.namespace_options.clone();
            let ip = if namespaces.network == NamespaceMode::Node {
                String::new()
            } else {
                format!("10.0.0.{}", state.next)
            };
            let status = PodSandboxStatus {
                id: id.clone(),
                metadata: config.metadata.clone(),
                created_at: self.now(),
                network: PodSandboxNetworkStatus { ip, additional_ips: vec![] },
                namespaces,
                labels: config.labels.clone(),
                annotations: config.annotations.clone(),
                ..Default::default()
            };
            state.sandboxes.insert(id.clone(), (status, config.clone()));
            id
        };
        self.tell(&id, "", ContainerEventType::Started);
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        self.note(format!("stop-sandbox {id}"));
        self.end_sandbox(id);
        Ok(())
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        self.note(format!("remove-sandbox {id}"));
        let mut state = self.state.lock();
        state.sandboxes.remove(id);
        state.containers.retain(|_, held| held.sandbox != id);
        Ok(())
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatus> {
        self.state.lock().sandboxes.get(id).map(|(s, _)| s.clone()).ok_or_else(|| no(id))
    }

    async fn list_pod_sandbox(&self, filter: &PodSandboxFilter) -> Result<Vec<PodSandbox>> {
        let state = self.state.lock();
        let all = state.sandboxes.values().filter(|(s, _)| matches(&filter.label_selector, &s.labels));
        Ok(all
            .map(|(s, _)| PodSandbox {
                id: s.id.clone(),
                metadata: s.metadata.clone(),
                state: s.state,
                created_at: s.created_at,
                labels: s.labels.clone(),
                ..Default::default()
            })
            .collect())
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: &ContainerConfig,
        _sandbox_config: &PodSandboxConfig,
    ) -> Result<String> {
        self.note(format!("create {}", config.metadata.name));
        let mut state = self.state.lock();
        state.next += 1;
        let id = format!("c{}", state.next);
        let (_, sandbox) = state.sandboxes.get(sandbox_id).ok_or_else(|| no(sandbox_id))?;
        let status = ContainerStatus {
            id: id.clone(),
            metadata: config.metadata.clone(),
            created_at: self.now(),
            image: config.image.clone(),
            image_ref: "nginx@sha256:1".into(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            mounts: config.mounts.clone(),
            log_path: format!("{}/{}", sandbox.log_directory, config.log_path),
            ..Default::default()
        };
        state
            .containers
            .insert(id.clone(), Held { sandbox: sandbox_id.to_owned(), status, config: config.clone() });
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        let (sandbox, name, ends) = {
            let mut state = self.state.lock();
            let now = self.now();
            let held = state.containers.get_mut(id).ok_or_else(|| no(id))?;
            held.status.state = ContainerState::Running;
            held.status.started_at = now;
            let (sandbox, name) = (held.sandbox.clone(), held.status.metadata.name.clone());
            let ends = state.at_start.get(&name).copied();
            state.calls.push(format!("start {name}"));
            (sandbox, name, ends)
        };
        let _ = name;
        self.tell(&sandbox, id, ContainerEventType::Started);
        if let Some(code) = ends {
            self.end(id, code);
        }
        Ok(())
    }

    async fn stop_container(&self, id: &str, timeout: Duration) -> Result<()> {
        let (stubborn, polite) = {
            let mut state = self.state.lock();
            let Some(held) = state.containers.get(id) else { return Ok(()) };
            let name = held.status.metadata.name.clone();
            state.calls.push(format!("stop {name} {}s", timeout.as_secs()));
            (state.stubborn.contains(&name), state.polite.contains(&name))
        };
        if stubborn {
            tokio::time::sleep(timeout).await;
        }
        let code = match (stubborn, polite) {
            (true, _) => 137,
            (false, true) => 0,
            (false, false) => 143,
        };
        self.end(id, code);
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        self.note(format!("remove {id}"));
        self.state.lock().containers.remove(id);
        Ok(())
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus> {
        self.state.lock().containers.get(id).map(|h| h.status.clone()).ok_or_else(|| no(id))
    }

    async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<Container>> {
        let state = self.state.lock();
        let all = state.containers.values().filter(|h| matches(&filter.label_selector, &h.status.labels));
        Ok(all
            .map(|h| Container {
                id: h.status.id.clone(),
                pod_sandbox_id: h.sandbox.clone(),
                metadata: h.status.metadata.clone(),
                state: h.status.state,
                created_at: h.status.created_at,
                labels: h.status.labels.clone(),
                annotations: h.status.annotations.clone(),
                ..Default::default()
            })
            .collect())
    }

    async fn update_container_resources(&self, id: &str, resources: &LinuxContainerResources) -> Result<()> {
        let mut state = self.state.lock();
        let held = state.containers.get_mut(id).ok_or_else(|| no(id))?;
        held.config.linux.resources = Some(resources.clone());
        let name = held.status.metadata.name.clone();
        state.calls.push(format!("update {name}"));
        Ok(())
    }

    async fn update_pod_sandbox_resources(
        &self,
        id: &str,
        _resources: &LinuxContainerResources,
    ) -> Result<()> {
        self.note(format!("update {id}"));
        Ok(())
    }

    async fn reopen_container_log(&self, _id: &str) -> Result<()> {
        Ok(())
    }

    async fn exec_sync(&self, id: &str, cmd: &[String], _timeout: Duration) -> Result<ExecSyncResponse> {
        let mut state = self.state.lock();
        let name = state.containers.get(id).map(|h| h.status.metadata.name.clone()).ok_or_else(|| no(id))?;
        state.calls.push(format!("exec {name} {}", cmd.join(" ")));
        let (exit_code, output) =
            cmd.first().and_then(|c| state.commands.get(c)).cloned().unwrap_or_default();
        Ok(ExecSyncResponse { stdout: output.into_bytes(), stderr: vec![], exit_code })
    }

    async fn container_stats(&self, id: &str) -> Result<ContainerStats> {
        Err(no(id))
    }

    async fn list_container_stats(&self, _filter: &ContainerStatsFilter) -> Result<Vec<ContainerStats>> {
        Ok(vec![])
    }

    async fn pod_sandbox_stats(&self, id: &str) -> Result<PodSandboxStats> {
        Err(no(id))
    }

    fn get_container_events(&self) -> broadcast::Receiver<Arc<ContainerEvent>> {
        self.events.subscribe()
    }
}

#[async_trait]
impl Images for FakeRuntime {
    async fn list_images(&self, _filter: Option<&str>) -> Result<Vec<Image>> {
        let all = self.state.lock().images.clone();
        Ok(all.into_iter().map(|id| Image { id, size: 1234, ..Default::default() }).collect())
    }

    async fn image_status(&self, image: &str) -> Result<Option<Image>> {
        let there = self.state.lock().images.contains(image);
        Ok(there.then(|| Image { id: image.to_owned(), size: 1234, ..Default::default() }))
    }

    async fn pull_image(&self, image: &ImageSpec, auth: Option<&AuthConfig>) -> Result<String> {
        let mut state = self.state.lock();
        state.pulls.push((image.image.clone(), auth.cloned()));
        if let Some(message) = state.broken.get(&image.image) {
            return Err(Error::Unavailable(message.clone()));
        }
        state.images.insert(image.image.clone());
        Ok(image.image.clone())
    }

    async fn remove_image(&self, image: &str) -> Result<()> {
        self.state.lock().images.remove(image);
        Ok(())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    async fn image_fs_info(&self) -> Result<ImageFsInfo> {
        Ok(ImageFsInfo::default())
    }
}

#[async_trait]
impl Streams for FakeRuntime {
    async fn exec(&self, container: &str, _cmd: &[String], _flags: StreamFlags) -> Result<Session> {
        Err(no(container))
    }

    async fn attach(&self, container: &str, _flags: StreamFlags) -> Result<Session> {
        Err(no(container))
    }

    async fn port_forward(&self, sandbox: &str, _port: u16) -> Result<Box<dyn Duplex>> {
        Err(no(sandbox))
    }
}
