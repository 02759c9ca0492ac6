//! RuntimeClass: a pod's class must exist; what its pods cost and where they may run is taken from it.

use super::{Attributes, Operation, Plugin, cast, cast_mut};
use crate::server::Inner;
use async_trait::async_trait;
use krate_api::quantity::Quantity;
use krate_api::types::core::v1::{Pod, PodSpec, Toleration};
use krate_api::types::node::v1::RuntimeClass;
use krate_api::{Object, Status};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) struct RuntimeClasses;

type Amounts = BTreeMap<String, krate_api::k8s_openapi::apimachinery::pkg::api::resource::Quantity>;

#[async_trait]
impl Plugin for RuntimeClasses {
    async fn admit(
        &self,
        server: &Inner,
        at: &Attributes<'_>,
        object: &mut dyn Object,
    ) -> Result<(), Status> {
        if at.operation != Operation::Create || !at.is_core("pods") {
            return Ok(());
        }
        let Some(pod) = cast_mut::<Pod>(object) else { return Ok(()) };
        let spec = pod.spec.get_or_insert_default();
        let Some(class) = class_of(server, at, spec).await? else { return Ok(()) };
        if let Some(fixed) = fixed(&class) {
            if spec.overhead.as_ref().is_some_and(|own| !same(own, fixed)) {
                return Err(at.forbidden(MISMATCH));
            }
            spec.overhead = Some(fixed.clone());
        }
        place(spec, &class).map_err(|fault| at.forbidden(&fault))
    }

    async fn validate(
        &self,
        server: &Inner,
        at: &Attributes<'_>,
        object: Option<&dyn Object>,
    ) -> Result<(), Status> {
        if at.operation != Operation::Create || !at.is_core("pods") {
            return Ok(());
        }
        let Some(spec) = object.and_then(cast::<Pod>).and_then(|p| p.spec.as_ref()) else { return Ok(()) };
        let class = class_of(server, at, spec).await?;
        match (class.as_deref().and_then(fixed), &spec.overhead) {
            (Some(fixed), own) if !own.as_ref().is_some_and(|own| same(own, fixed)) => {
                Err(at.forbidden(MISMATCH))
            }
            (None, Some(_)) => Err(at.forbidden(UNFOUNDED)),
            _ => Ok(()),
        }
    }
}

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
const UNFOUNDED: &str = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";

async fn class_of(
    server: &Inner,
    at: &Attributes<'_>,
    spec: &PodSpec,
) -> Result<Option<Arc<RuntimeClass>>, Status> {
    let Some(name) = spec.runtime_class_name.as_deref() else { return Ok(None) };
    match server.read::<RuntimeClass>("", name).await? {
        Some(class) => Ok(Some(class)),
        None => Err(at.forbidden(&format!("pod rejected: RuntimeClass {name:?} not found"))),
    }
}

fn fixed(class: &RuntimeClass) -> Option<&Amounts> {
    class.overhead.as_ref().map(|overhead| {
        static NOTHING: Amounts = Amounts::new();
        overhead.pod_fixed.as_ref().unwrap_or(&NOTHING)
    })
}

/// Whether both are the same amounts, however they are written.
fn same(a: &Amounts, b: &Amounts) -> bool {
    a.len() == b.len()
        && a.iter().all(|(name, amount)| {
            b.get(name).is_some_and(|other| {
                other == amount || Quantity::of(other).ok().is_some_and(|o| Quantity::of(amount) == Ok(o))
            })
        })
}

/// Adds the class's node selector and tolerations; the fault if the pod's own selector contradicts.
fn place(spec: &mut PodSpec, class: &RuntimeClass) -> Result<(), String> {
    let Some(scheduling) = &class.scheduling else { return Ok(()) };
    for (key, wanted) in scheduling.node_selector.iter().flatten() {
        let own = spec.node_selector.get_or_insert_default().entry(key.clone()).or_insert(wanted.clone());
        if own != wanted {
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {wanted}; pod.spec.nodeSelector[{key}] = {own}"
            ));
        }
    }
    if let Some(more) = scheduling.tolerations.as_ref().filter(|t| !t.is_empty()) {
        spec.tolerations = Some(merged(spec.tolerations.take().unwrap_or_default(), more));
    }
    Ok(())
}

/// Both lists, without what another entry covers.
fn merged(mut all: Vec<Toleration>, more: &[Toleration]) -> Vec<Toleration> {
    all.extend_from_slice(more);
    let mut out: Vec<Toleration> = Vec::new();
    for (i, one) in all.iter().enumerate() {
        let later = all[i + 1..].iter().any(|other| other != one && covers(other, one));
        if !later && !out.iter().any(|other| covers(other, one)) {
            out.push(one.clone());
        }
    }
    out
}

/// Whether everything that `narrow` tolerates `wide` tolerates too, and as long.
fn covers(wide: &Toleration, narrow: &Toleration) -> bool {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let exists = text(&wide.operator) == "Exists";
    if wide == narrow {
        return true;
    }
    if text(&wide.key) != text(&narrow.key) && !(text(&wide.key).is_empty() && exists) {
        return false;
    }
    if text(&wide.effect) != text(&narrow.effect) && !text(&wide.effect).is_empty() {
        return false;
    }
    if text(&wide.effect) == "NoExecute"
        && let Some(most) = wide.toleration_seconds
        && narrow.toleration_seconds.is_none_or(|own| own > most)
    {
        return false;
    }
    let equal = |t: &Toleration| matches!(t.operator.as_deref(), None | Some("" | "Equal"));
    exists || (equal(wide) && equal(narrow) && text(&wide.value) == text(&narrow.value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toleration(key: &str, operator: &str, value: &str) -> Toleration {
        let text = |s: &str| (!s.is_empty()).then(|| s.to_owned());
        Toleration { key: text(key), operator: text(operator), value: text(value), ..Toleration::default() }
    }

    #[test]
    fn what_is_covered_is_left_out() {
        let own = vec![toleration("a", "Equal", "1"), toleration("b", "Exists", "")];
        let more = [toleration("a", "Exists", ""), toleration("b", "Equal", "2"), toleration("c", "", "3")];
        let wanted =
            vec![toleration("b", "Exists", ""), toleration("a", "Exists", ""), toleration("c", "", "3")];
        assert_eq!(merged(own, &more), wanted);
    }

    #[test]
    fn a_short_toleration_does_not_cover_a_long_one() {
        let timed = |seconds| Toleration {
            effect: Some("NoExecute".to_owned()),
            toleration_seconds: seconds,
            ..toleration("a", "Exists", "")
        };
        assert!(covers(&timed(None), &timed(Some(5))));
        assert!(!covers(&timed(Some(5)), &timed(None)));
        assert!(!covers(&timed(Some(5)), &timed(Some(6))));
    }
}
