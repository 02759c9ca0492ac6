//! The checks of the pod security standards: a table of small pure functions over a pod's metadata and specification.
//!
//! They stand in the order in which their findings are told: those of `baseline`, then those of `restricted`, each by
//! name. A check of `restricted` may stand in for one of `baseline` that asks for less of the same.

use super::policy::{Level, Version};
use krate_api::meta::ObjectMeta;
use krate_api::types::core::v1::{
    Capabilities, EphemeralContainer, LifecycleHandler, PodSpec, Probe, SELinuxOptions, SecurityContext,
    Volume,
};
use std::collections::BTreeSet;

/// What is wrong: in short, and which fields of what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub reason: String,
    pub detail: String,
}

/// A pod as the checks see it.
pub(super) struct Subject<'a> {
    pub meta: &'a ObjectMeta,
    pub spec: &'a PodSpec,
    pub version: Version,
    containers: Vec<Part<'a>>,
}

/// What the checks need of a container of any sort.
struct Part<'a> {
    name: &'a str,
    security: Option<&'a SecurityContext>,
    ports: Vec<i32>,
    hosts: Vec<&'a str>,
}

type Check = fn(&Subject<'_>) -> Option<Finding>;

struct Row {
    name: &'static str,
    level: Level,
    /// The first version (1.N) that has it.
    since: u16,
    /// The check of `baseline` in whose place it is.
    replaces: &'static str,
    check: Check,
}

const fn row(name: &'static str, level: Level, since: u16, replaces: &'static str, check: Check) -> Row {
    Row { name, level, since, replaces, check }
}

const TABLE: &[Row] = &[
    row("appArmorProfile", Level::Baseline, 0, "", app_armor),
    row("capabilities_baseline", Level::Baseline, 0, "", capabilities),
    row("hostNamespaces", Level::Baseline, 0, "", host_namespaces),
    row("hostPathVolumes", Level::Baseline, 0, "", host_paths),
    row("hostPorts", Level::Baseline, 0, "", host_ports),
    row("hostProbesAndHostLifecycle", Level::Baseline, 34, "", hosts),
    row("privileged", Level::Baseline, 0, "", privileged),
    row("procMount", Level::Baseline, 0, "", proc_mount),
    row("seLinuxOptions", Level::Baseline, 0, "", se_linux),
    row("seccompProfile_baseline", Level::Baseline, 19, "", seccomp),
    row("sysctls", Level::Baseline, 0, "", sysctls),
    row("windowsHostProcess", Level::Baseline, 0, "", host_process),
    row("allowPrivilegeEscalation", Level::Restricted, 8, "", escalation),
    row("capabilities_restricted", Level::Restricted, 22, "capabilities_baseline", dropped),
    row("restrictedVolumes", Level::Restricted, 0, "hostPathVolumes", volumes),
    row("runAsNonRoot", Level::Restricted, 0, "", non_root),
    row("runAsUser", Level::Restricted, 23, "", user),
    row("seccompProfile_restricted", Level::Restricted, 19, "seccompProfile_baseline", seccomp_restricted),
];

/// Everything in a pod that a level forbids.
pub(super) fn find(level: Level, version: Version, meta: &ObjectMeta, spec: &PodSpec) -> Vec<Finding> {
    let subject = Subject { meta, spec, version, containers: parts(spec) };
    let holds = |row: &&Row| row.level <= level && version.is_at_least(row.since);
    let replaced: Vec<&str> = TABLE.iter().filter(holds).map(|r| r.replaces).collect();
    let rows = TABLE.iter().filter(holds).filter(|r| !replaced.contains(&r.name));
    rows.filter_map(|row| (row.check)(&subject)).collect()
}

fn parts(spec: &PodSpec) -> Vec<Part<'_>> {
    let init = spec.init_containers.iter().flatten();
    let plain = init.chain(&spec.containers).map(|c| Part {
        name: &c.name,
        security: c.security_context.as_ref(),
        ports: c.ports.iter().flatten().filter_map(|p| p.host_port).collect(),
        hosts: {
            let life = c.lifecycle.as_ref();
            let ends = [life.and_then(|l| l.post_start.as_ref()), life.and_then(|l| l.pre_stop.as_ref())];
            let probes = [&c.liveness_probe, &c.readiness_probe, &c.startup_probe];
            hosts_of(&probes.map(Option::as_ref), &ends)
        },
    });
    let late = spec.ephemeral_containers.iter().flatten().map(|c: &EphemeralContainer| Part {
        name: &c.name,
        security: c.security_context.as_ref(),
        ports: c.ports.iter().flatten().filter_map(|p| p.host_port).collect(),
        hosts: vec![],
    });
    plain.chain(late).collect()
}

fn hosts_of<'a>(probes: &[Option<&'a Probe>], ends: &[Option<&'a LifecycleHandler>]) -> Vec<&'a str> {
    let probes = probes.iter().flatten().flat_map(|p| {
        [
            p.http_get.as_ref().and_then(|a| a.host.as_deref()),
            p.tcp_socket.as_ref().and_then(|a| a.host.as_deref()),
        ]
    });
    let ends = ends.iter().flatten().flat_map(|h| {
        [
            h.http_get.as_ref().and_then(|a| a.host.as_deref()),
            h.tcp_socket.as_ref().and_then(|a| a.host.as_deref()),
        ]
    });
    probes.chain(ends).flatten().filter(|host| !host.is_empty()).collect()
}

fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

fn quoted<T: AsRef<str>>(list: impl IntoIterator<Item = T>) -> String {
    let list: Vec<String> = list.into_iter().map(|v| format!("\"{}\"", v.as_ref())).collect();
    list.join(", ")
}

/// `container "a"`, `containers "a", "b"`.
fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

fn finding(reason: &str, detail: String) -> Option<Finding> {
    Some(Finding { reason: reason.to_owned(), detail })
}

impl<'a> Subject<'a> {
    fn bad(&self, is_bad: impl Fn(&Part<'a>) -> bool) -> Vec<&'a str> {
        self.containers.iter().filter(|c| is_bad(c)).map(|c| c.name).collect()
    }

    fn is_windows(&self) -> bool {
        self.version.is_at_least(25) && self.spec.os.as_ref().is_some_and(|os| os.name == "windows")
    }

    /// The pod has its own user namespace, where less is dangerous.
    fn has_own_users(&self) -> bool {
        self.version.is_at_least(35) && self.spec.host_users == Some(false)
    }
}

/// Who sets something: `pod`, `container "a"`, or both.
fn setters(pod: bool, names: &[&str]) -> Option<String> {
    match (pod, names.is_empty()) {
        (false, true) => None,
        (true, true) => Some("pod".to_owned()),
        (false, false) => Some(containers(names)),
        (true, false) => Some(format!("pod and {}", containers(names))),
    }
}

fn app_armor(s: &Subject<'_>) -> Option<Finding> {
    const PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
    let mut values = BTreeSet::new();
    let mut bad = |kind: Option<&str>| {
        let kind = kind.filter(|k| !matches!(*k, "RuntimeDefault" | "Localhost"));
        kind.map(|k| values.insert(k.to_owned())).is_some()
    };
    let of_pod = s.spec.security_context.as_ref().and_then(|c| c.app_armor_profile.as_ref());
    let pod = bad(of_pod.map(|p| p.type_.as_str()));
    let mut names = vec![];
    for part in &s.containers {
        let profile = part.security.and_then(|c| c.app_armor_profile.as_ref());
        if bad(profile.map(|p| p.type_.as_str())) {
            names.push(part.name);
        }
    }
    let allowed = |v: &str| v.is_empty() || v == "runtime/default" || v.starts_with("localhost/");
    let annotations: Vec<String> = s
        .meta
        .annotations
        .iter()
        .flatten()
        .filter(|(key, value)| key.starts_with(PREFIX) && !allowed(value))
        .map(|(key, value)| format!("{key}=\"{value}\""))
        .collect();
    let mut who: Vec<String> = setters(pod, &names).into_iter().collect();
    let mut values: Vec<String> = values.into_iter().collect();
    if !annotations.is_empty() {
        who.push(plural("annotation", "annotations", annotations.len()).to_owned());
        values.extend(annotations);
    }
    if who.is_empty() {
        return None;
    }
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
    finding(reason, format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(values)))
}

/// Capabilities that containers have anyway.
const DEFAULT: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Containers that add capabilities beside the allowed ones, and those capabilities.
fn added<'a>(s: &Subject<'a>, allowed: &[&str]) -> Option<(Vec<&'a str>, BTreeSet<&'a str>)> {
    let mut values = BTreeSet::new();
    let mut names = vec![];
    for part in &s.containers {
        let added = part.security.and_then(|c| c.capabilities.as_ref()?.add.as_ref());
        let before = names.len();
        for value in added.into_iter().flatten().filter(|v| !allowed.contains(&v.as_str())) {
            values.insert(value.as_str());
            if names.len() == before {
                names.push(part.name);
            }
        }
    }
    (!names.is_empty()).then_some((names, values))
}

fn not_included(names: &[&str], values: BTreeSet<&str>) -> String {
    format!("{} must not include {} in securityContext.capabilities.add", containers(names), quoted(values))
}

fn capabilities(s: &Subject<'_>) -> Option<Finding> {
    let (names, values) = added(s, &DEFAULT)?;
    finding("non-default capabilities", not_included(&names, values))
}

fn dropped(s: &Subject<'_>) -> Option<Finding> {
    if s.is_windows() {
        return None;
    }
    let drops = |c: &Capabilities| c.drop.iter().flatten().any(|d| d == "ALL");
    let keeps = s.bad(|c| !c.security.and_then(|c| c.capabilities.as_ref()).is_some_and(drops));
    let mut details = vec![];
    if !keeps.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&keeps)));
    }
    if let Some((names, values)) = added(s, &["NET_BIND_SERVICE"]) {
        details.push(not_included(&names, values));
    }
    if details.is_empty() { None } else { finding("unrestricted capabilities", details.join("; ")) }
}

fn host_namespaces(s: &Subject<'_>) -> Option<Finding> {
    let all = [
        (s.spec.host_network, "hostNetwork=true"),
        (s.spec.host_pid, "hostPID=true"),
        (s.spec.host_ipc, "hostIPC=true"),
    ];
    let set: Vec<&str> = all.iter().filter(|(on, _)| *on == Some(true)).map(|(_, text)| *text).collect();
    if set.is_empty() { None } else { finding("host namespaces", set.join(", ")) }
}

fn host_paths(s: &Subject<'_>) -> Option<Finding> {
    let all = s.spec.volumes.iter().flatten();
    let names: Vec<&str> = all.filter(|v| v.host_path.is_some()).map(|v| v.name.as_str()).collect();
    if names.is_empty() {
        return None;
    }
    finding("hostPath volumes", format!("{} {}", plural("volume", "volumes", names.len()), quoted(names)))
}

fn host_ports(s: &Subject<'_>) -> Option<Finding> {
    let names = s.bad(|c| c.ports.iter().any(|p| *p != 0));
    if names.is_empty() {
        return None;
    }
    let ports = s.containers.iter().flat_map(|c| &c.ports).filter(|p| **p != 0);
    let ports: BTreeSet<String> = ports.map(ToString::to_string).collect();
    let list: Vec<String> = ports.into_iter().collect();
    finding(
        "hostPort",
        format!(
            "{} {} {} {}",
            containers(&names),
            plural("uses", "use", names.len()),
            plural("hostPort", "hostPorts", list.len()),
            list.join(", ")
        ),
    )
}

fn hosts(s: &Subject<'_>) -> Option<Finding> {
    let names = s.bad(|c| !c.hosts.is_empty());
    if names.is_empty() {
        return None;
    }
    let hosts: BTreeSet<&str> = s.containers.iter().flat_map(|c| c.hosts.iter().copied()).collect();
    finding(
        "probe or lifecycle host",
        format!(
            "{} {} probe or lifecycle {} {}",
            containers(&names),
            plural("uses", "use", names.len()),
            plural("host", "hosts", hosts.len()),
            quoted(hosts)
        ),
    )
}

fn privileged(s: &Subject<'_>) -> Option<Finding> {
    let names = s.bad(|c| c.security.and_then(|c| c.privileged) == Some(true));
    if names.is_empty() {
        return None;
    }
    finding("privileged", format!("{} must not set securityContext.privileged=true", containers(&names)))
}

fn proc_mount(s: &Subject<'_>) -> Option<Finding> {
    if s.has_own_users() {
        return None;
    }
    let kind = |c: &Part<'_>| c.security.and_then(|c| c.proc_mount.clone()).filter(|m| m != "Default");
    let names = s.bad(|c| kind(c).is_some());
    let kinds: BTreeSet<String> = s.containers.iter().filter_map(kind).collect();
    if names.is_empty() {
        return None;
    }
    finding(
        "procMount",
        format!("{} must not set securityContext.procMount to {}", containers(&names), quoted(kinds)),
    )
}

fn se_linux(s: &Subject<'_>) -> Option<Finding> {
    let mut types = BTreeSet::new();
    let (mut user, mut role) = (false, false);
    let engine = s.version.is_at_least(31);
    let set = |text: &Option<String>| text.as_deref().is_some_and(|t| !t.is_empty());
    let mut bad = |options: Option<&SELinuxOptions>| {
        let Some(options) = options else { return false };
        let kind = options.type_.as_deref().unwrap_or("");
        let known = matches!(kind, "" | "container_t" | "container_init_t" | "container_kvm_t")
            || (engine && kind == "container_engine_t");
        if !known {
            types.insert(kind.to_owned());
        }
        user |= set(&options.user);
        role |= set(&options.role);
        !known || set(&options.user) || set(&options.role)
    };
    let pod = bad(s.spec.security_context.as_ref().and_then(|c| c.se_linux_options.as_ref()));
    let mut names = vec![];
    for part in &s.containers {
        if bad(part.security.and_then(|c| c.se_linux_options.as_ref())) {
            names.push(part.name);
        }
    }
    let who = setters(pod, &names)?;
    let mut data = vec![];
    if !types.is_empty() {
        data.push(format!("{} {}", plural("type", "types", types.len()), quoted(types)));
    }
    data.extend(user.then(|| "user may not be set".to_owned()));
    data.extend(role.then(|| "role may not be set".to_owned()));
    finding(
        "seLinuxOptions",
        format!("{who} set forbidden securityContext.seLinuxOptions: {}", data.join("; ")),
    )
}

/// The seccomp profiles of the pod and of a container.
fn profiles<'a>(s: &Subject<'a>, part: &Part<'a>) -> (Option<&'a str>, Option<&'a str>) {
    let pod = s.spec.security_context.as_ref().and_then(|c| c.seccomp_profile.as_ref());
    let own = part.security.and_then(|c| c.seccomp_profile.as_ref());
    (pod.map(|p| p.type_.as_str()), own.map(|p| p.type_.as_str()))
}

fn is_confined(profile: &str) -> bool {
    matches!(profile, "RuntimeDefault" | "Localhost")
}

/// Who says that system calls are not filtered.
fn unconfined(s: &Subject<'_>) -> Option<Finding> {
    let of_pod = s.spec.security_context.as_ref().and_then(|c| c.seccomp_profile.as_ref());
    let of_pod = of_pod.map(|p| p.type_.as_str()).filter(|p| !is_confined(p));
    let own = |part: &Part<'_>| {
        let own = part.security.and_then(|c| c.seccomp_profile.as_ref()).map(|p| p.type_.clone());
        own.filter(|p| !is_confined(p))
    };
    let names = s.bad(|part| own(part).is_some());
    let who = setters(of_pod.is_some(), &names)?;
    let mut values: BTreeSet<String> = s.containers.iter().filter_map(own).collect();
    values.extend(of_pod.map(str::to_owned));
    finding(
        "seccompProfile",
        format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(values)),
    )
}

fn seccomp(s: &Subject<'_>) -> Option<Finding> {
    unconfined(s)
}

fn seccomp_restricted(s: &Subject<'_>) -> Option<Finding> {
    if s.is_windows() {
        return None;
    }
    if let Some(found) = unconfined(s) {
        return Some(found);
    }
    let names = s.bad(|part| matches!(profiles(s, part), (None, None)));
    if names.is_empty() {
        return None;
    }
    finding(
        "seccompProfile",
        format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            containers(&names)
        ),
    )
}

/// Kernel parameters that a pod may set, each with the version from which on.
const SYSCTLS: [(&str, u16); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

fn sysctls(s: &Subject<'_>) -> Option<Finding> {
    let all = s.spec.security_context.iter().flat_map(|c| c.sysctls.iter().flatten());
    let allowed =
        |name: &str| SYSCTLS.iter().any(|(known, since)| *known == name && s.version.is_at_least(*since));
    let names: Vec<&str> = all.map(|c| c.name.as_str()).filter(|name| !allowed(name)).collect();
    if names.is_empty() { None } else { finding("forbidden sysctls", names.join(", ")) }
}

fn host_process(s: &Subject<'_>) -> Option<Finding> {
    let of_pod = s.spec.security_context.as_ref().and_then(|c| c.windows_options.as_ref()?.host_process);
    let own = |c: &Part<'_>| c.security.and_then(|c| c.windows_options.as_ref()?.host_process);
    let names = s.bad(|c| own(c) == Some(true));
    let who = setters(of_pod == Some(true), &names)?;
    finding("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
}

fn escalation(s: &Subject<'_>) -> Option<Finding> {
    if s.is_windows() {
        return None;
    }
    let names = s.bad(|c| c.security.and_then(|c| c.allow_privilege_escalation) != Some(false));
    if names.is_empty() {
        return None;
    }
    finding(
        "allowPrivilegeEscalation != false",
        format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&names)),
    )
}

/// The kind of a volume by the name of its field; none for those that everybody may use.
fn restricted_kind(v: &Volume) -> Option<&'static str> {
    let allowed = v.config_map.is_some()
        || v.csi.is_some()
        || v.downward_api.is_some()
        || v.empty_dir.is_some()
        || v.ephemeral.is_some()
        || v.image.is_some()
        || v.persistent_volume_claim.is_some()
        || v.projected.is_some()
        || v.secret.is_some();
    let kinds = [
        (v.host_path.is_some(), "hostPath"),
        (v.gce_persistent_disk.is_some(), "gcePersistentDisk"),
        (v.aws_elastic_block_store.is_some(), "awsElasticBlockStore"),
        (v.git_repo.is_some(), "gitRepo"),
        (v.nfs.is_some(), "nfs"),
        (v.iscsi.is_some(), "iscsi"),
        (v.glusterfs.is_some(), "glusterfs"),
        (v.rbd.is_some(), "rbd"),
        (v.flex_volume.is_some(), "flexVolume"),
        (v.cinder.is_some(), "cinder"),
        (v.cephfs.is_some(), "cephfs"),
        (v.flocker.is_some(), "flocker"),
        (v.fc.is_some(), "fc"),
        (v.azure_file.is_some(), "azureFile"),
        (v.vsphere_volume.is_some(), "vsphereVolume"),
        (v.quobyte.is_some(), "quobyte"),
        (v.azure_disk.is_some(), "azureDisk"),
        (v.photon_persistent_disk.is_some(), "photonPersistentDisk"),
        (v.portworx_volume.is_some(), "portworxVolume"),
        (v.scale_io.is_some(), "scaleIO"),
        (v.storageos.is_some(), "storageos"),
    ];
    let kind = kinds.iter().find(|(is, _)| *is).map_or("unknown", |(_, kind)| *kind);
    (!allowed).then_some(kind)
}

fn volumes(s: &Subject<'_>) -> Option<Finding> {
    let bad: Vec<(&str, &str)> = s
        .spec
        .volumes
        .iter()
        .flatten()
        .filter_map(|v| restricted_kind(v).map(|kind| (v.name.as_str(), kind)))
        .collect();
    if bad.is_empty() {
        return None;
    }
    let kinds: BTreeSet<&str> = bad.iter().map(|(_, kind)| *kind).collect();
    finding(
        "restricted volume types",
        format!(
            "{} {} {} {} {}",
            plural("volume", "volumes", bad.len()),
            quoted(bad.iter().map(|(name, _)| name)),
            plural("uses", "use", bad.len()),
            plural("restricted volume type", "restricted volume types", kinds.len()),
            quoted(kinds)
        ),
    )
}

fn non_root(s: &Subject<'_>) -> Option<Finding> {
    if s.has_own_users() {
        return None;
    }
    let pod = s.spec.security_context.as_ref().and_then(|c| c.run_as_non_root);
    let own = |c: &Part<'_>| c.security.and_then(|c| c.run_as_non_root);
    let explicit = s.bad(|c| own(c) == Some(false));
    let reason = "runAsNonRoot != true";
    let silent = s.bad(|c| own(c).is_none());
    if let Some(who) = setters(pod == Some(false), &explicit) {
        return finding(reason, format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    if pod == Some(true) || silent.is_empty() {
        return None;
    }
    finding(reason, format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&silent)))
}

fn user(s: &Subject<'_>) -> Option<Finding> {
    if s.has_own_users() {
        return None;
    }
    let pod = s.spec.security_context.as_ref().and_then(|c| c.run_as_user) == Some(0);
    let names = s.bad(|c| c.security.and_then(|c| c.run_as_user) == Some(0));
    finding("runAsUser=0", format!("{} must not set runAsUser=0", setters(pod, &names)?))
}
