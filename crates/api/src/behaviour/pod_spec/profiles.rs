//! The old annotations of seccomp and AppArmor profiles: their faults, and that they say what the fields say.

use super::containers::{self, all_names};
use super::volume_sources::local_path;
use crate::behaviour::check::Check;
use crate::field::{Errors, Path};
use crate::types::core::v1::{Container, PodSpec};
use std::collections::BTreeMap;

const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP: &str = "container.seccomp.security.alpha.kubernetes.io/";
pub const APPARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const NO_SECCOMP: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
const LOCAL: &str = "localhost/";

pub type Annotations = BTreeMap<String, String>;

/// The faults of the annotations themselves.
pub fn annotations(errors: &mut Errors, path: &Path, annotations: &Annotations, spec: &PodSpec) {
    let of_containers = annotations.iter().filter(|(key, _)| key.starts_with(SECCOMP));
    for (key, profile) in annotations.get_key_value(SECCOMP_POD).into_iter().chain(of_containers) {
        let path = path.child(key);
        match profile.as_str() {
            "runtime/default" | "docker/default" | "unconfined" => {}
            local if local.starts_with(LOCAL) => local_path(errors, &path, &local[LOCAL.len()..]),
            other => errors.invalid(&path, other, "must be a valid seccomp profile"),
        }
    }
    for (key, profile) in annotations {
        let Some(container) = key.strip_prefix(APPARMOR) else { continue };
        if !all_names(spec).any(|name| name == container) {
            errors.invalid(&path.key(key), container, "container not found");
        }
        if !matches!(profile.as_str(), "" | "runtime/default" | "unconfined") && !profile.starts_with(LOCAL) {
            errors.invalid(&path.key(key), profile, &format!("invalid AppArmor profile name: {profile:?}"));
        }
    }
}

/// A profile as a field has it.
struct Profile<'a> {
    kind: &'a str,
    file: Option<&'a str>,
}

/// Annotations that say something else than the fields of a new pod. `path` is the specification's.
pub fn agreement(errors: &mut Errors, path: &Path, annotations: &Annotations, spec: &PodSpec) {
    let own = spec.security_context.as_ref();
    let seccomp = own.and_then(|c| c.seccomp_profile.as_ref());
    let field =
        |p: &'_ crate::types::core::v1::SeccompProfile| (p.type_.clone(), p.localhost_profile.clone());
    if let (Some((kind, file)), Some(text)) = (seccomp.map(field), annotations.get(SECCOMP_POD)) {
        let path = path.child("securityContext").child("seccompProfile");
        differs(errors, &path, "seccomp", &Profile { kind: &kind, file: file.as_deref() }, text, true);
    }
    containers::visit(path, spec, |path, container| {
        let profile = container.security_context.as_ref().and_then(|c| c.seccomp_profile.as_ref());
        let key = format!("{SECCOMP}{}", container.name);
        if let (Some(profile), Some(text)) = (profile, annotations.get(&key)) {
            let path = path.child("securityContext").child("seccompProfile");
            let profile = Profile { kind: &profile.type_, file: profile.localhost_profile.as_deref() };
            differs(errors, &path, "seccomp", &profile, text, true);
        }
    });
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return;
    }
    containers::visit(path, spec, |path, container| {
        let of_container = container.security_context.as_ref().and_then(|c| c.app_armor_profile.as_ref());
        let profile = of_container.or(own.and_then(|c| c.app_armor_profile.as_ref()));
        let key = format!("{APPARMOR}{}", container.name);
        if let (Some(profile), Some(text)) = (profile, annotations.get(&key)) {
            let path = path.child("securityContext").child("appArmorProfile");
            let profile = Profile { kind: &profile.type_, file: profile.localhost_profile.as_deref() };
            differs(errors, &path, "apparmor", &profile, text, false);
        }
    });
}

fn differs(errors: &mut Errors, path: &Path, what: &str, profile: &Profile<'_>, text: &str, docker: bool) {
    let same = match profile.kind {
        "Unconfined" => text == "unconfined",
        "RuntimeDefault" => text == "runtime/default" || (docker && text == "docker/default"),
        "Localhost" => text.starts_with(LOCAL),
        _ => return,
    };
    if !same {
        let text = format!("{what} type in annotation and field must match");
        errors.forbidden(&path.child("type"), &text);
    } else if profile.kind == "Localhost" && text.strip_prefix(LOCAL) != profile.file {
        let text = format!("{what} profile in annotation and field must match");
        errors.forbidden(&path.child("localhostProfile"), &text);
    }
}

/// Annotations that do nothing without a field beside them: of the pod, or of one container and whether it is in
/// a template.
pub fn old_annotations(
    warnings: &mut Vec<String>,
    path: &Path,
    annotations: &Annotations,
    spec: &PodSpec,
    container: Option<(&Container, bool)>,
) {
    let own = spec.security_context.as_ref();
    let Some((container, template)) = container else {
        if annotations.contains_key(SECCOMP_POD) && own.is_none_or(|c| c.seccomp_profile.is_none()) {
            warnings.push(format!("{}: {NO_SECCOMP}", path.key(SECCOMP_POD)));
        }
        return;
    };
    let context = container.security_context.as_ref();
    let key = format!("{SECCOMP}{}", container.name);
    if annotations.contains_key(&key) && context.is_none_or(|c| c.seccomp_profile.is_none()) {
        warnings.push(format!("{}: {NO_SECCOMP}", path.key(&key)));
    }
    let key = format!("{APPARMOR}{}", container.name);
    let has_field = own.is_some_and(|c| c.app_armor_profile.is_some())
        || context.is_some_and(|c| c.app_armor_profile.is_some());
    // Pods are given the field from the annotation.
    if template && !has_field && annotations.contains_key(&key) {
        let at = path.key(&key);
        warnings.push(format!("{at}: deprecated since v1.30; use the \"appArmorProfile\" field instead"));
    }
}
