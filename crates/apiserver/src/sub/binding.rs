//! Binding: a pod gets its node, once.

use crate::admission::cast_mut;
use crate::call::{Call, Outcome};
use crate::rest::create::COMMIT_ATTEMPTS;
use crate::rest::{list, update};
use crate::server::Inner;
use krate_api::field::{Error, Path};
use krate_api::meta::Time;
use krate_api::types::core::v1::{Binding, Pod, PodCondition};
use krate_api::{Kind as _, Status};
use krate_client::Body;

const SCHEDULED: &str = "PodScheduled";

pub(crate) async fn create(server: &Inner, call: &Call, body: Option<Body>) -> Result<Outcome, Status> {
    let binding: Binding = super::admitted(server, call, body).await?;
    let name = if call.name.is_empty() {
        binding.metadata.name.clone().unwrap_or_default()
    } else {
        call.name.clone()
    };
    check(&binding, &name)?;
    let catalogue = server.catalogue();
    let row = catalogue
        .get(Pod::GROUP, Pod::VERSION, Pod::PLURAL)
        .ok_or_else(|| Status::internal("pods are not served"))?;
    let pods = Call {
        user: call.user.clone(),
        rows: crate::codec::Rows::of(&catalogue, row),
        namespace: call.namespace.clone(),
        name,
        subresource: "binding".to_owned(),
        options: call.options.clone(),
        found: Vec::new(),
        warnings: Default::default(),
    };
    for _ in 0..COMMIT_ATTEMPTS {
        let entry = list::entry(server, &pods).await?.ok_or_else(|| pods.not_found())?;
        let mut object = pods.rows.copy(&entry)?;
        let Some(pod) = cast_mut::<Pod>(&mut *object) else { return Err(Status::internal("not a pod")) };
        assign(pod, &binding, Time(server.clock.now_seconds()))
            .map_err(|why| Status::conflict("", "pods/binding", &pods.name, &why))?;
        if call.options.dry_run || update::replace(server, &pods, &entry, object).await?.is_some() {
            return Ok(super::done());
        }
    }
    Err(pods.conflict("the pod is being changed by others; please try again"))
}

fn check(binding: &Binding, name: &str) -> Result<(), Status> {
    let target = Path::new("target");
    let mut faults = Vec::new();
    if !matches!(binding.target.kind.as_deref(), None | Some("" | "Node")) {
        let kind = binding.target.kind.as_deref().unwrap_or("");
        faults.push(Error::not_supported(&target.child("kind"), kind, &["Node", "<empty>"]));
    }
    if binding.target.name.as_deref().unwrap_or("").is_empty() {
        faults.push(Error::required(&target.child("name"), ""));
    }
    if faults.is_empty() { Ok(()) } else { Err(Status::invalid("", "Binding", name, &faults)) }
}

/// Gives the pod its node, or says why it cannot have it.
fn assign(pod: &mut Pod, binding: &Binding, now: Time) -> Result<(), String> {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let have = pod.metadata.uid.as_deref().unwrap_or("");
    if let Some(uid) = binding.metadata.uid.as_deref().filter(|u| !u.is_empty() && *u != have) {
        return Err(format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {have}"));
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return Err(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let generation = pod.metadata.generation;
    let spec = pod.spec.get_or_insert_default();
    if let Some(node) = spec.node_name.as_deref().filter(|n| !n.is_empty()) {
        return Err(format!("pod {name} is already assigned to node \"{node}\""));
    }
    if spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty()) {
        return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    spec.node_name.clone_from(&binding.target.name);
    for (key, value) in binding.metadata.annotations.iter().flatten() {
        pod.metadata.annotations.get_or_insert_default().insert(key.clone(), value.clone());
    }
    for (key, value) in binding.metadata.labels.iter().flatten() {
        let labels = pod.metadata.labels.get_or_insert_default();
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    let status = pod.status.get_or_insert_default();
    // What was only foreseen has come (KEP-5278).
    status.nominated_node_name = None;
    let conditions = status.conditions.get_or_insert_default();
    let scheduled = PodCondition {
        type_: SCHEDULED.to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(now),
        observed_generation: generation,
        ..PodCondition::default()
    };
    match conditions.iter_mut().find(|c| c.type_ == SCHEDULED) {
        Some(condition) => *condition = scheduled,
        None => conditions.push(scheduled),
    }
    Ok(())
}
