//! Starting containers: image, configuration, creation, start, postStart.

use super::images::Ready;
use super::stop::to_duration;
use super::{Mailbox, Worker};
use crate::env::{self, Referenced};
use crate::generate::container::{Setting, config};
use crate::observed::{Observed, PodRuntime, TERMINATION_PATH};
use crate::spec::{self, Role, hash};
use crate::status::Waiting;
use crate::sync::backoff::{self, Turn, go_seconds};
use crate::sync::plan::{Plan, Start};
use crate::volumes::subpath::Part;
use crate::{events, hooks, hosts, paths};
use krate_api::types::core::v1::Container;
use krate_base::Timestamp;
use krate_runtime::cri::{ContainerConfig, Image};
use std::path::{Path, PathBuf};

/// Pause before a container that could not be made is tried again, unless something changes before.
const PAUSE: std::time::Duration = backoff::FIRST;

const CRASH_LOOP: &str = "CrashLoopBackOff";
const ERR_CONFIG: &str = "CreateContainerConfigError";
const ERR_CREATE: &str = "CreateContainerError";
const ERR_RUN: &str = "RunContainerError";
const ERR_POST_START: &str = "PostStartHookError";

impl Worker {
    /// Starts what the plan says, in its order; whether anything was started, and when to look again.
    pub(super) async fn start_all(
        &mut self,
        plan: &Plan,
        runtime: &PodRuntime,
        referenced: &Referenced,
    ) -> (bool, Option<Timestamp>) {
        let (mut changed, mut later) = (false, None);
        let Some(sandbox) = plan.sandbox.as_deref() else { return (false, None) };
        for start in &plan.start {
            // The containers after one whose postStart hook runs wait for the hook.
            if !self.hooks.is_empty() && start.role != Role::Ephemeral {
                break;
            }
            if plan.stop.iter().any(|s| s.name == start.container.name)
                || self.stops.is_stopping_name(&start.container.name)
            {
                continue;
            }
            match self.start_one(start, sandbox, runtime, referenced).await {
                Ok(()) => changed = true,
                Err(at) => later = [later, at].into_iter().flatten().min(),
            }
        }
        (changed, later)
    }

    async fn start_one(
        &mut self,
        start: &Start,
        sandbox: &str,
        runtime: &PodRuntime,
        referenced: &Referenced,
    ) -> Result<(), Option<Timestamp>> {
        let (name, now) = (start.container.name.clone(), self.now());
        if let Some(at) = self.hold.get(&name).copied().filter(|at| now < *at) {
            return Err(Some(at));
        }
        let latest = runtime.latest(&name);
        self.take_turn(start, latest)?;
        let image = match self.image_for(start.role, &start.container, referenced).await {
            Ready::Yes(image) => image,
            Ready::No(at) => return Err(at),
        };
        let key = key(&start.container);
        match self.make_and_start(start, sandbox, runtime, referenced, &image).await {
            Ok(id) => {
                self.given.note(&id, start.container.resources.as_ref());
                if let Some(latest) = latest.filter(|o| o.has_exited()) {
                    self.restarts.next(&key, ended_at(latest), now);
                }
                self.forced.remove(&name);
                self.waiting.remove(&name);
                self.hold.remove(&name);
                self.images.used(&name);
                self.post_start(start.role, &start.container, id, runtime);
                Ok(())
            }
            Err(waiting) => {
                let reason = waiting.reason.clone();
                self.waiting.insert(name.clone(), waiting);
                // A container that was made and could not start has ended: its restarts have their own
                // pauses.
                if reason == ERR_RUN {
                    if let Some(latest) = latest.filter(|o| o.has_exited()) {
                        self.restarts.next(&key, ended_at(latest), now);
                    }
                    self.images.used(&name);
                    return Ok(());
                }
                let at = self.after(PAUSE).unwrap_or(now);
                self.hold.insert(name, at);
                Err(Some(at))
            }
        }
    }

    /// Whether a container that ended may start again now; if not, it waits in its crash loop.
    fn take_turn(&mut self, start: &Start, latest: Option<&Observed>) -> Result<(), Option<Timestamp>> {
        let Some(latest) = latest.filter(|o| o.has_exited()) else { return Ok(()) };
        let turn = self.restarts.turn(&key(&start.container), ended_at(latest), self.now());
        let Turn::Later { at, pause } = turn else { return Ok(()) };
        let (name, pod) = (&start.container.name, spec::describe(&self.pod));
        let text = format!("back-off {} restarting failed container={name} pod={pod}", go_seconds(pause));
        if self.wait_for(name, CRASH_LOOP, &text) {
            let about = events::about_container(&self.pod, start.role, name);
            let text = format!("Back-off restarting failed container {name} in pod {pod}");
            self.context.recorder.warning(&about, events::BACK_OFF, text);
        }
        Err(Some(at))
    }

    /// Makes the container and starts it; its id, or why not.
    async fn make_and_start(
        &mut self,
        start: &Start,
        sandbox: &str,
        runtime: &PodRuntime,
        referenced: &Referenced,
        image: &Image,
    ) -> Result<String, Waiting> {
        let about = events::about_container(&self.pod, start.role, &start.container.name);
        let recorder = self.context.recorder.clone();
        let failed = |reason: &str, text: String| {
            recorder.warning(&about, events::FAILED, format!("Error: {text}"));
            Waiting::new(reason, text)
        };
        // The parts of volumes stay open until the runtime has mounted them.
        let (config, _parts) =
            self.configure(start, runtime, referenced, image).await.map_err(|e| failed(ERR_CONFIG, e))?;
        let attempt = runtime.ready_sandbox().map_or(0, |s| s.metadata.attempt);
        let sandbox_config = self.sandbox_config(attempt);
        let made = self.context.runtime.create_container(sandbox, &config, &sandbox_config).await;
        let id = made.map_err(|e| failed(ERR_CREATE, e.to_string()))?;
        recorder.normal(&about, events::CREATED, "Container created");
        self.context.runtime.start_container(&id).await.map_err(|e| failed(ERR_RUN, e.to_string()))?;
        recorder.normal(&about, events::STARTED, "Container started");
        self.link_log(&start.container.name, &id, &sandbox_config.log_directory, &config.log_path).await;
        self.remove_superseded(&start.container.name, runtime).await;
        Ok(id)
    }

    async fn configure(
        &mut self,
        start: &Start,
        runtime: &PodRuntime,
        referenced: &Referenced,
        image: &Image,
    ) -> Result<(ContainerConfig, Vec<Part>), String> {
        let (context, pod, container) = (self.context.clone(), self.pod.clone(), &start.container);
        let mut ips = runtime.ips();
        if ips.is_empty() && spec::is_host_network(&pod) {
            ips = context.node_ips.iter().map(ToString::to_string).collect();
        }
        let facts = context.facts(ips.clone());
        let links = spec::spec(&pod).enable_service_links.unwrap_or(true);
        let services = context.services.list();
        let services = env::services::variables(spec::namespace(&pod), links, services.iter().map(|s| &**s));
        let volumes = self.volumes.clone().unwrap_or_default();
        let files = env::file::read(container, &volumes.paths);
        let referenced = Referenced { files, ..referenced.clone() };
        let made = env::environment(&pod, container, &facts, &referenced, &services)?;
        for text in made.skipped {
            context.recorder.warning(&events::about(&pod), events::INVALID_ENV, text);
        }
        let uid = spec::uid(&pod);
        let hosts = self.write_hosts(&ips).await?;
        let log = self.termination_log(&container.name).await?;
        let logs = context.paths.logs(spec::namespace(&pod), spec::name(&pod), uid).join(&container.name);
        let count = match runtime.latest(&container.name) {
            Some(latest) => latest.restart_count() + 1,
            None => paths::attempts_by_logs(&logs).max(self.told_attempts(&container.name)),
        };
        tokio::fs::create_dir_all(&logs).await.map_err(|e| {
            format!("create container log directory for container {} failed: {e}", container.name)
        })?;
        let setting = Setting {
            role: start.role,
            restart_count: count,
            image,
            env: &made.variables,
            volumes: &volumes.paths,
            hosts: Some(&hosts),
            termination_log: Some(&log),
            memory_capacity: context.memory,
            target_id: self.target(container, runtime),
            seccomp_root: &context.seccomp_root(),
        };
        // Sub-paths are looked up on the disk: quick enough not to leave the worker for it.
        config(&pod, container, &setting)
    }

    /// How many attempts of a container the status tells of that the runtime has not any more.
    fn told_attempts(&self, name: &str) -> u32 {
        let told = [&self.last.init_container_statuses, &self.last.container_statuses];
        let Some(status) = told.into_iter().flatten().flatten().find(|s| s.name == name) else { return 0 };
        let ended = status.state.as_ref().is_some_and(|s| s.terminated.is_some());
        u32::try_from(status.restart_count).unwrap_or(0) + u32::from(ended)
    }

    /// The running container that an ephemeral container wants to look into.
    fn target(&self, container: &Container, runtime: &PodRuntime) -> Option<String> {
        let ephemeral =
            spec::spec(&self.pod).ephemeral_containers.iter().flatten().find(|e| e.name == container.name)?;
        let target = ephemeral.target_container_name.as_deref().filter(|t| !t.is_empty())?;
        runtime.latest(target).filter(|o| o.is_running()).map(|o| o.id().to_owned())
    }

    /// Writes the pod's hosts file anew, in place: containers have it mounted.
    async fn write_hosts(&self, ips: &[String]) -> Result<PathBuf, String> {
        let (context, pod) = (&self.context, &self.pod);
        let aliases = spec::spec(pod).host_aliases.as_deref().unwrap_or_default();
        let text = if spec::is_host_network(pod) {
            let own = tokio::fs::read_to_string(&context.hosts_file).await.unwrap_or_default();
            hosts::for_host_network(&own, aliases)
        } else {
            let (hostname, domain) = spec::hostname_and_domain(pod, &context.cluster_dns.domain);
            hosts::for_pod(ips, &hostname, &domain, aliases)
        };
        let path = context.paths.hosts(self.uid());
        write_file(&path, text.as_bytes(), 0o644).await?;
        Ok(path)
    }

    /// An empty file for the container's last words, of its own for each attempt.
    async fn termination_log(&self, container: &str) -> Result<PathBuf, String> {
        let name = format!("{:08x}", self.context.rng.next_u64() & 0xffff_ffff);
        let path = self.context.paths.container(self.uid(), container).join(name);
        write_file(&path, b"", 0o666).await?;
        Ok(path)
    }

    /// The link by which log collectors find the log.
    async fn link_log(&self, container: &str, id: &str, folder: &str, log: &str) {
        let pod = &self.pod;
        let link = self.context.paths.container_link(spec::namespace(pod), spec::name(pod), container, id);
        if let Some(parent) = link.parent() {
            let _ = tokio::fs::create_dir_all(parent).await;
        }
        if let Err(error) = tokio::fs::symlink(Path::new(folder).join(log), &link).await {
            tracing::debug!(link = %link.display(), %error, "no link to the log");
        }
    }

    /// Of a container's ended attempts only the newest is kept, for its last state and its log.
    async fn remove_superseded(&self, name: &str, runtime: &PodRuntime) {
        let ended = runtime.containers.iter().filter(|c| c.name() == name && !c.is_running());
        for old in ended.skip(1) {
            self.remove_container(old).await;
        }
    }

    pub(super) async fn remove_container(&self, old: &Observed) {
        if let Err(error) = self.context.runtime.remove_container(old.id()).await {
            tracing::warn!(container = %old.id(), %error, "an old container cannot be removed");
            return;
        }
        let pod = &self.pod;
        let link =
            self.context.paths.container_link(spec::namespace(pod), spec::name(pod), old.name(), old.id());
        let _ = tokio::fs::remove_file(link).await;
        let words = old.status.annotations.get(TERMINATION_PATH);
        for mount in old.status.mounts.iter().filter(|m| words == Some(&m.container_path)) {
            let _ = tokio::fs::remove_file(&mount.host_path).await;
        }
        if !old.status.log_path.is_empty() {
            crate::logs::rotate::remove(Path::new(&old.status.log_path));
        }
    }

    /// Runs the container's postStart hook beside the worker.
    fn post_start(&mut self, role: Role, container: &Container, id: String, runtime: &PodRuntime) {
        let hook = container.lifecycle.as_ref().and_then(|l| l.post_start.clone());
        let Some(hook) = hook.filter(|_| role != Role::Ephemeral) else { return };
        let place = self.place(container, &id, runtime);
        self.hooks.insert(id.clone(), container.name.clone());
        let (mailbox, stop): (Mailbox, _) = (self.mailbox.clone(), self.shutdown.clone());
        self.context.supervisor.spawn(async move {
            if let Some(result) = stop.run_until_cancelled(hooks::run(&place, &hook)).await {
                mailbox.leave(|news| {
                    news.hooks.insert(id, result);
                });
            }
        });
    }

    pub(super) fn place(&self, container: &Container, id: &str, runtime: &PodRuntime) -> hooks::Place {
        hooks::Place {
            runtime: self.context.runtime.clone(),
            container: container.clone(),
            id: id.to_owned(),
            ip: crate::probe::ask::address(&runtime.ips(), &self.context.node_ips, &self.pod),
            pod: spec::describe(&self.pod),
        }
    }

    /// A postStart hook has ended; a container whose hook failed is stopped.
    pub(super) fn hook_ended(&mut self, id: &str, result: Result<(), String>) {
        let Some(name) = self.hooks.remove(id) else { return };
        let Err(text) = result else { return };
        let role = spec::find_container(&self.pod, &name).map_or(Role::Regular, |(role, _)| role);
        let about = events::about_container(&self.pod, role, &name);
        // The text may hold secrets of the container: it goes into the status only.
        self.context.recorder.warning(&about, events::FAILED_POST_START, "PostStartHook failed");
        self.waiting.insert(name.clone(), Waiting::new(ERR_POST_START, text));
        let grace = to_duration(spec::grace_seconds(&self.pod));
        self.stop_now(id, &name, grace, events::FAILED_POST_START);
    }
}

/// The key of a container's restarts: a changed container begins anew.
pub(super) fn key(container: &Container) -> String {
    format!("{}/{}", container.name, hash::container_hash(container))
}

pub(super) fn ended_at(observed: &Observed) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(observed.status.finished_at)).unwrap_or_default()
}

async fn write_file(path: &Path, data: &[u8], mode: u32) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |e: std::io::Error| format!("writing {}: {e}", path.display());
    if let Some(parent) = path.parent() {
        tokio::fs::create_dir_all(parent).await.map_err(failed)?;
    }
    tokio::fs::write(path, data).await.map_err(failed)?;
    tokio::fs::set_permissions(path, PermissionsExt::from_mode(mode)).await.map_err(failed)
}
