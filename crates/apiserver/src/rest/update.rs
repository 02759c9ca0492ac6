//! Changes of an object that exists: PUT, and the ground on which PATCH and subresources stand.
//!
//! [`write`] reads, lets its caller make the new object, admits, validates and commits on the condition
//! that nobody wrote in between; if somebody did it starts again, unless the client named a version.

use crate::admission::{Attributes, Operation};
use crate::call::Call;
use crate::codec::restamped;
use crate::error::from_store;
use crate::rest::create::{COMMIT_ATTEMPTS, create};
use crate::rest::{hook, list, meta};
use crate::server::Inner;
use krate_api::types::core::v1::Namespace;
use krate_api::{Object, Shared, Status};
use krate_store::{Check, Entry, Error, Op, Txn, Value};
use std::any::Any;

/// Makes the new object from the old one; called again for each attempt.
pub(crate) type Make<'a> = &'a mut (dyn FnMut(&Entry, &dyn Object) -> Result<Box<dyn Object>, Status> + Send);

/// PUT of the main resource or of a subresource of its own kind.
pub(crate) async fn update(
    server: &Inner,
    call: &Call,
    object: Box<dyn Object>,
) -> Result<(Shared, bool), Status> {
    check_identity(call, &*object)?;
    if list::entry(server, call).await?.is_none() {
        let creates = call.subresource.is_empty() && meta::creates_on_update(call.resource());
        let versioned = object.meta().resource_version.as_deref().is_some_and(|rv| !rv.is_empty());
        let unborn = object.meta().uid.as_deref().is_none_or(str::is_empty);
        if creates && !versioned && unborn {
            server.authorize_create(call)?;
            let mut object = object;
            object.meta_mut().name = Some(call.name.clone());
            return create(server, call, object).await.map(|shared| (shared, true));
        }
        return Err(call.not_found());
    }
    let shared = write(server, call, &mut |_, _| Ok(object.boxed_clone())).await?;
    Ok((shared, false))
}

/// The namespace and name that an object says must be those of the request.
pub(crate) fn check_identity(call: &Call, object: &dyn Object) -> Result<(), Status> {
    let meta = object.meta();
    let namespace = meta.namespace.as_deref().unwrap_or("");
    if call.resource().namespaced && !namespace.is_empty() && namespace != call.namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let wanted = &call.name;
    match meta.name.as_deref().unwrap_or("") {
        "" => Err(Status::bad_request(format!(
            "the name of the object ({wanted} based on URL) was undeterminable: name must be provided"
        ))),
        name if name != *wanted => Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({wanted})"
        ))),
        _ => Ok(()),
    }
}

/// Reads, makes, admits, validates, commits.
pub(crate) async fn write(server: &Inner, call: &Call, make: Make<'_>) -> Result<Shared, Status> {
    for _ in 0..COMMIT_ATTEMPTS {
        let entry = list::entry(server, call).await?.ok_or_else(|| call.not_found())?;
        let old = call.rows.held(&entry)?;
        let new = make(&entry, &*old)?;
        if let Some(done) = attempt(server, call, &entry, &*old, new).await? {
            return Ok(done);
        }
    }
    Err(call.conflict(
        "the object has been modified; please apply your changes to the latest version and try again",
    ))
}

/// One attempt; `None` when somebody wrote in between.
async fn attempt(
    server: &Inner,
    call: &Call,
    entry: &Entry,
    old: &dyn Object,
    mut object: Box<dyn Object>,
) -> Result<Option<Shared>, Status> {
    let resource = call.resource();
    let new = &mut *object;
    check_version(call, entry, old, new)?;
    krate_api::behaviour::meta::before_update(new.meta_mut(), old.meta());
    if resource.namespaced {
        new.meta_mut().namespace = Some(call.namespace.clone());
    }
    new.meta_mut().managed_fields = None;
    resource.behaviour.default(new);
    let at = Attributes::new(call, Operation::Update, Some(old), Some(old));
    server.admission.admit(server, &at, new).await?;
    resource.behaviour.default(new);
    let mut txn = Txn::default();
    if call.subresource.is_empty() {
        resource.behaviour.prepare_update(new, old);
        if let Some(hook) = hook::of(resource) {
            hook.update(server, call, new, old, &mut txn).await?;
        }
    } else {
        resource.behaviour.prepare_subresource(&call.subresource, new, old);
    }
    let mut faults = meta::validate_update(new, old);
    faults.extend(resource.behaviour.validate_update(&call.subresource, new, old));
    if !faults.is_empty() {
        return Err(call.invalid(&call.name, &faults));
    }
    // Of what a user writes; a status is written by controllers, who read no warnings.
    if matches!(call.subresource.as_str(), "" | "scale") {
        for warning in resource.behaviour.warnings(new, Some(old)) {
            call.warn(warning);
        }
    }
    server.admission.validate(server, &at, Some(&*new)).await?;
    let _turn = server.admission.charge(server, &at, &*new, &mut txn).await?;
    if call.options.dry_run {
        return Ok(Some(call.rows.unstored(new, entry.modified)));
    }
    let finished = is_finished(new);
    let value = server.encoder.value(&call.rows, object);
    // What would be stored is what is stored.
    if !finished && restamped(entry).is_some_and(|same| same.bytes == value.bytes) {
        return Ok(Some(call.rows.shared(entry)));
    }
    commit(server, call, entry, (finished, value), old, txn).await
}

/// The client's version and uid must be those of the object.
fn check_version(call: &Call, entry: &Entry, old: &dyn Object, new: &mut dyn Object) -> Result<(), Status> {
    let current = entry.modified.to_string();
    match new.meta().resource_version.as_deref() {
        None | Some("" | "0") => {
            if call.subresource.is_empty() && meta::needs_revision(call.resource()) {
                return Err(call.invalid(&call.name, &[meta::revision_required()]));
            }
        }
        Some(rv) if rv == current => {}
        Some(_) => {
            return Err(Status::modified(&call.resource().group, &call.resource().plural, &call.name));
        }
    }
    new.meta_mut().resource_version = Some(current);
    let uid = new.meta().uid.as_deref().unwrap_or("");
    let have = old.meta().uid.as_deref().unwrap_or("");
    if !uid.is_empty() && uid != have {
        return Err(call.conflict(&format!(
            "StorageError: invalid object, Code: 4, Key: /registry/{}/{}, ResourceVersion: 0, \
             AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object meta: {have}",
            call.resource().plural,
            call.path(&call.name)
        )));
    }
    Ok(())
}

/// Whether nothing holds a deleted object any longer.
fn is_finished(object: &dyn Object) -> bool {
    let meta = object.meta();
    let held = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|l| !l.is_empty());
    let namespace = (object.as_any() as &dyn Any).downcast_ref::<Namespace>();
    let held_by_spec = namespace.and_then(|n| n.spec.as_ref()).is_some_and(|s| held(&s.finalizers));
    meta.deletion_timestamp.is_some()
        && meta.deletion_grace_period_seconds.unwrap_or(0) == 0
        && !held(&meta.finalizers)
        && !held_by_spec
}

async fn commit(
    server: &Inner,
    call: &Call,
    entry: &Entry,
    (finished, value): (bool, Value),
    old: &dyn Object,
    mut txn: Txn,
) -> Result<Option<Shared>, Status> {
    let key = call.key();
    txn.checks.insert(0, Check::At(key.clone(), entry.modified));
    if finished {
        // The last thing that held the object is gone with this write, and so is the object.
        if let Some(hook) = hook::of(call.resource()) {
            txn.ops.clear();
            hook.delete(server, old, &mut txn).await?;
        }
        txn.ops.insert(0, Op::Delete { key, last: Some(value) });
    } else {
        txn.ops.insert(0, Op::Put { key, value, ttl: server.ttl(call.resource()) });
    }
    match server.store.commit(txn).await {
        Ok(done) => {
            let entry = done.entries.first().ok_or_else(|| Status::internal("a commit without entries"))?;
            Ok(Some(call.rows.shared(entry)))
        }
        Err(Error::Failed { .. }) => Ok(None),
        Err(e) => Err(from_store(e)),
    }
}

/// Writes an object that a subresource has made of an entry, under its own rules; `None` when somebody
/// wrote in between.
pub(crate) async fn replace(
    server: &Inner,
    call: &Call,
    entry: &Entry,
    new: Box<dyn Object>,
) -> Result<Option<Shared>, Status> {
    let value = server.encoder.value(&call.rows, new);
    let txn = Txn {
        checks: vec![Check::At(entry.key.clone(), entry.modified)],
        ops: vec![Op::Put { key: entry.key.clone(), value, ttl: server.ttl(call.resource()) }],
    };
    match server.store.commit(txn).await {
        Ok(done) => Ok(done.entries.first().map(|e| call.rows.shared(e))),
        Err(Error::Failed { .. }) => Ok(None),
        Err(e) => Err(from_store(e)),
    }
}

/// The removal of an entry: watchers see its last state with the revision of the deletion.
pub(crate) fn removal(entry: &Entry) -> Op {
    Op::Delete { key: entry.key.clone(), last: restamped(entry) }
}
