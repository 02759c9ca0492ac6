//! A pod's sandbox: made when there is none that serves.

use super::Worker;
use crate::observed::PodRuntime;
use crate::{dns, events, generate, spec};
use krate_base::Timestamp;
use krate_runtime::cri::{PodSandboxConfig, PodSandboxState};

impl Worker {
    /// Makes the sandbox as attempt `attempt`, after everything of the old one has ended; when to try again
    /// if it cannot be made.
    pub(super) async fn new_sandbox(&mut self, attempt: u32, runtime: &PodRuntime) -> Result<(), Timestamp> {
        if let Some(at) = self.held("sandbox") {
            return Err(at);
        }
        let about = events::about(&self.pod);
        if attempt > 0 && !self.retry.contains_key("sandbox") {
            let text = "Pod sandbox changed, it will be killed and re-created.";
            self.context.recorder.normal(&about, events::SANDBOX_CHANGED, text);
        }
        for old in &runtime.sandboxes {
            if let Err(error) = self.context.runtime.stop_pod_sandbox(&old.id).await {
                let text = format!("error killing pod: {error}");
                self.context.recorder.warning(&about, events::FAILED_KILL, text);
                return Err(self.failed("sandbox"));
            }
        }
        self.remove_old_sandboxes(runtime).await;
        self.tell_missing_dns();
        let config = self.sandbox_config(attempt);
        match self.make_sandbox(&config).await {
            Ok(id) => {
                tracing::debug!(pod = %spec::describe(&self.pod), sandbox = %id, attempt, "sandbox made");
                self.retry.remove("sandbox");
                Ok(())
            }
            Err(error) => {
                let text = format!("Failed to create pod sandbox: {error}");
                self.context.recorder.warning(&about, events::FAILED_SANDBOX, text);
                Err(self.failed("sandbox"))
            }
        }
    }

    async fn make_sandbox(&self, config: &PodSandboxConfig) -> Result<String, String> {
        self.make_log_folder(&config.log_directory).await?;
        fits_the_kernel(&config.hostname)?;
        let handler = self.handler().await?;
        self.has_users(&handler).await?;
        self.context.runtime.run_pod_sandbox(config, &handler).await.map_err(|e| e.to_string())
    }

    /// A pod that asks for users of its own never gets the node's instead.
    async fn has_users(&self, handler: &str) -> Result<(), String> {
        if spec::spec(&self.pod).host_users != Some(false) {
            return Ok(());
        }
        let status = self.context.runtime.status().await.map_err(|e| e.to_string())?;
        let known = status.handlers.iter().find(|known| known.name == handler);
        if known.is_some_and(|handler| handler.user_namespaces) {
            return Ok(());
        }
        let whose = match handler {
            "" => "runtime".to_owned(),
            class => format!("RuntimeClass handler {class:?}"),
        };
        Err(format!("can't set `spec.hostUsers: false`, {whose} does not support user namespaces"))
    }

    /// The runtime's handler that the pod's class names; the runtime's own choice without a class.
    async fn handler(&self) -> Result<String, String> {
        let Some(class) = spec::spec(&self.pod).runtime_class_name.as_deref().filter(|c| !c.is_empty())
        else {
            return Ok(String::new());
        };
        match self.context.runtime_classes.get("", class).await {
            Ok(class) => Ok(class.handler.clone()),
            Err(status) if status.is_not_found() => {
                Err(format!("runtimeclass.node.k8s.io \"{class}\" not found"))
            }
            Err(status) => Err(format!("failed to lookup RuntimeClass {class}: {}", status.message())),
        }
    }

    /// Sandboxes without containers are of no use to anybody; those with containers hold last states.
    async fn remove_old_sandboxes(&self, runtime: &PodRuntime) {
        for old in runtime.sandboxes.iter().filter(|s| s.state == PodSandboxState::NotReady) {
            let used = runtime.containers.iter().any(|c| c.sandbox == old.id);
            if !used && let Err(error) = self.context.runtime.remove_pod_sandbox(&old.id).await {
                tracing::warn!(sandbox = %old.id, %error, "an old sandbox cannot be removed");
            }
        }
    }

    async fn make_log_folder(&self, folder: &str) -> Result<(), String> {
        tokio::fs::create_dir_all(folder).await.map_err(|e| format!("create pod log directory {folder}: {e}"))
    }

    /// Says once per sandbox that the pod wants a cluster DNS and gets the node's.
    fn tell_missing_dns(&self) {
        let (context, pod) = (&self.context, &self.pod);
        if !dns::for_pod(pod, &context.cluster_dns, &Default::default()).1 || spec::is_static(pod) {
            return;
        }
        let policy = spec::spec(pod).dns_policy.as_deref().unwrap_or("ClusterFirst");
        let text = format!(
            "pod: \"{}\". kubelet does not have ClusterDNS IP configured and cannot create Pod using \"{policy}\" policy. Falling back to \"Default\" policy.",
            spec::describe(pod)
        );
        context.recorder.warning(&events::about(pod), events::MISSING_DNS, text);
    }

    pub(super) fn sandbox_config(&self, attempt: u32) -> PodSandboxConfig {
        let (context, pod) = (&self.context, &self.pod);
        let host = std::fs::read_to_string(&context.resolv_conf).unwrap_or_default();
        let (dns, _) = dns::for_pod(pod, &context.cluster_dns, &dns::parse_resolv_conf(&host));
        let logs = context.paths.logs(spec::namespace(pod), spec::name(pod), spec::uid(pod));
        generate::sandbox::config(
            pod,
            generate::sandbox::Setting {
                attempt,
                cluster_domain: &context.cluster_dns.domain,
                node_group: &context.cgroup_parent,
                log_directory: logs.to_string_lossy().into_owned(),
                dns,
                seccomp_root: &context.seccomp_root(),
            },
        )
    }
}

/// A name with its domain may be longer than the kernel takes; one without is cut before.
fn fits_the_kernel(hostname: &str) -> Result<(), String> {
    const MAX: usize = 64;
    if hostname.len() <= MAX {
        return Ok(());
    }
    Err(format!(
        "failed to construct FQDN from pod hostname and cluster domain, FQDN {hostname} is too long ({MAX} characters \
         is the max, {} characters requested)",
        hostname.len()
    ))
}
