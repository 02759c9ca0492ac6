//! The `scale` of workloads: how many are wanted and are there, in one form for all of them.

use crate::admission::{cast, cast_mut};
use crate::call::{Call, Outcome};
use crate::pipeline::bytes_of;
use crate::rest::{list, patch, update};
use crate::server::Inner;
use crate::strict;
use krate_api::field::{Error, Path};
use krate_api::labels::Selector;
use krate_api::meta::ObjectMeta;
use krate_api::types::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use krate_api::types::autoscaling::v1::{Scale, ScaleSpec, ScaleStatus};
use krate_api::types::core::v1::ReplicationController;
use krate_api::{Object, Status};
use krate_client::{Body, PatchKind, Verb};
use std::collections::BTreeMap;

pub(crate) async fn handle(
    server: &Inner,
    call: &Call,
    verb: Verb,
    body: Option<Body>,
) -> Result<Outcome, Status> {
    match verb {
        Verb::Get => {
            let entry = list::entry(server, call).await?.ok_or_else(|| call.not_found())?;
            super::answer(&scale_of(&*call.rows.held(&entry)?)?, false)
        }
        Verb::Update => {
            let wanted = match body {
                Some(Body::Object(object)) => match object.into_any().downcast::<Scale>() {
                    Ok(scale) => *scale,
                    Err(_) => return Err(Status::bad_request("the body is not a Scale")),
                },
                other => strict::of_kind::<Scale>(call, &bytes_of(other)?)?,
            };
            write(server, call, &mut |_| Ok(wanted.clone())).await
        }
        Verb::Patch(kind) => {
            let body = bytes_of(body)?;
            write(server, call, &mut |now| patched(call, kind, now, &body)).await
        }
        _ => Err(Status::method_not_allowed()),
    }
}

fn patched(call: &Call, kind: PatchKind, now: &Scale, body: &[u8]) -> Result<Scale, Status> {
    let kind = if kind == PatchKind::StrategicMerge { PatchKind::Merge } else { kind };
    let found = strict::patch(call, kind, body)?;
    let after = patch::apply(call, kind, &now.encode(), body)?;
    let bytes = serde_json::to_vec(&after).map_err(Status::internal)?;
    strict::patched_kind(call, &bytes, found)
}

/// Writes the number of replicas that `make` gives, under the rules of an update of the whole object.
async fn write(
    server: &Inner,
    call: &Call,
    make: &mut (dyn FnMut(&Scale) -> Result<Scale, Status> + Send),
) -> Result<Outcome, Status> {
    let whole = Call {
        user: call.user.clone(),
        rows: call.rows.clone(),
        namespace: call.namespace.clone(),
        name: call.name.clone(),
        subresource: String::new(),
        options: call.options.clone(),
        found: Vec::new(),
        warnings: Default::default(),
    };
    let written = update::write(server, &whole, &mut |_, old| {
        let wanted = make(&scale_of(old)?)?;
        check(&wanted, &call.name)?;
        let mut new = old.boxed_clone();
        set_replicas(&mut *new, wanted.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0))?;
        new.meta_mut().resource_version = wanted.metadata.resource_version;
        new.meta_mut().uid = wanted.metadata.uid;
        Ok(new)
    })
    .await?;
    let object = (call.resource().codec.decode)(&written.bytes).map_err(Status::internal)?;
    super::answer(&scale_of(&*object)?, false)
}

fn check(scale: &Scale, name: &str) -> Result<(), Status> {
    if scale.metadata.name.as_deref().is_some_and(|n| !n.is_empty() && n != name) {
        return Err(Status::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({name})",
            scale.metadata.name.as_deref().unwrap_or("")
        )));
    }
    let replicas = scale.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
    if replicas < 0 {
        let path = Path::new("spec").child("replicas");
        let fault = Error::invalid(&path, &replicas, "must be greater than or equal to 0");
        return Err(Status::invalid("autoscaling", "Scale", name, &[fault]));
    }
    Ok(())
}

/// Wanted, there, and the selector of the pods.
fn numbers(object: &dyn Object) -> Option<(i32, i32, String)> {
    let text = |selector| Selector::of(Some(selector)).map(|s| s.to_string()).unwrap_or_default();
    if let Some(d) = cast::<Deployment>(object) {
        let spec = d.spec.as_ref()?;
        let there = d.status.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        return Some((spec.replicas.unwrap_or(1), there, text(&spec.selector)));
    }
    if let Some(r) = cast::<ReplicaSet>(object) {
        let spec = r.spec.as_ref()?;
        let there = r.status.as_ref().map_or(0, |s| s.replicas);
        return Some((spec.replicas.unwrap_or(1), there, text(&spec.selector)));
    }
    if let Some(s) = cast::<StatefulSet>(object) {
        let spec = s.spec.as_ref()?;
        let there = s.status.as_ref().map_or(0, |s| s.replicas);
        return Some((spec.replicas.unwrap_or(1), there, text(&spec.selector)));
    }
    let r = cast::<ReplicationController>(object)?;
    let spec = r.spec.as_ref()?;
    let there = r.status.as_ref().map_or(0, |s| s.replicas);
    let none = BTreeMap::new();
    let selector = Selector::from_labels(spec.selector.as_ref().unwrap_or(&none)).to_string();
    Some((spec.replicas.unwrap_or(1), there, selector))
}

fn set_replicas(object: &mut dyn Object, replicas: i32) -> Result<(), Status> {
    if let Some(d) = cast_mut::<Deployment>(object) {
        d.spec.get_or_insert_default().replicas = Some(replicas);
    } else if let Some(r) = cast_mut::<ReplicaSet>(object) {
        r.spec.get_or_insert_default().replicas = Some(replicas);
    } else if let Some(s) = cast_mut::<StatefulSet>(object) {
        s.spec.get_or_insert_default().replicas = Some(replicas);
    } else if let Some(r) = cast_mut::<ReplicationController>(object) {
        r.spec.get_or_insert_default().replicas = Some(replicas);
    } else {
        return Err(Status::internal(format!("{} has no scale", object.kind())));
    }
    Ok(())
}

fn scale_of(object: &dyn Object) -> Result<Scale, Status> {
    let (wanted, there, selector) =
        numbers(object).ok_or_else(|| Status::internal(format!("{} has no scale", object.kind())))?;
    let meta = object.meta();
    Ok(Scale {
        metadata: ObjectMeta {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            creation_timestamp: meta.creation_timestamp.clone(),
            ..ObjectMeta::default()
        },
        spec: Some(ScaleSpec { replicas: Some(wanted) }),
        status: Some(ScaleStatus { replicas: there, selector: Some(selector) }),
    })
}
