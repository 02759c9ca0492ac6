//! Fields that belong to features which are off in a cluster of this version: a write drops them, as the
//! original does, unless the object has them already.

use crate::behaviour::fill::{items, items_mut};
use crate::types::core::v1::{Lifecycle, PodSpec, VolumeProjection};

/// Drops what is off. `old` is the specification before an update.
pub fn drop_disabled(spec: &mut PodSpec, old: Option<&PodSpec>) {
    if old.is_none_or(|old| old.scheduling_group.is_none()) {
        spec.scheduling_group = None;
    }
    if !old.is_some_and(|old| projects(old, |s| s.cluster_trust_bundle.is_some())) {
        each_projection(spec, |source| source.cluster_trust_bundle = None);
    }
    if !old.is_some_and(|old| projects(old, |s| s.pod_certificate.is_some())) {
        each_projection(spec, |source| source.pod_certificate = None);
    }
    if !old.is_some_and(has_stop_signal) {
        drop_stop_signals(spec);
    }
}

fn projects(spec: &PodSpec, has: fn(&VolumeProjection) -> bool) -> bool {
    items(&spec.volumes).iter().filter_map(|v| v.projected.as_ref()).flat_map(|p| items(&p.sources)).any(has)
}

fn each_projection(spec: &mut PodSpec, change: fn(&mut VolumeProjection)) {
    let volumes = items_mut(&mut spec.volumes).iter_mut();
    volumes.filter_map(|v| v.projected.as_mut()).flat_map(|p| items_mut(&mut p.sources)).for_each(change);
}

fn has_stop_signal(spec: &PodSpec) -> bool {
    let plain = spec.containers.iter().chain(items(&spec.init_containers)).map(|c| &c.lifecycle);
    let all = plain.chain(items(&spec.ephemeral_containers).iter().map(|c| &c.lifecycle));
    all.flatten().any(|lifecycle| lifecycle.stop_signal.is_some())
}

fn drop_stop_signals(spec: &mut PodSpec) {
    let init = items_mut(&mut spec.init_containers).iter_mut();
    let plain = spec.containers.iter_mut().chain(init).map(|c| &mut c.lifecycle);
    let debuggers = items_mut(&mut spec.ephemeral_containers).iter_mut().map(|c| &mut c.lifecycle);
    for lifecycle in plain.chain(debuggers) {
        let Some(hooks) = lifecycle else { continue };
        // Hooks that were there without a signal stay, even if there is nothing in them.
        if hooks.stop_signal.take().is_some() && *hooks == Lifecycle::default() {
            *lifecycle = None;
        }
    }
}
