//! DELETE of one object and of a collection.
//!
//! [`plan`] is pure: from the object and the options it says whether the object goes at once, is marked and
//! waits (grace period, finalizers), or is already on its way.

use crate::admission::{Attributes, Operation};
use crate::call::{Call, Listed, Outcome};
use crate::error::from_store;
use crate::rest::create::COMMIT_ATTEMPTS;
use crate::rest::{hook, list, meta, update};
use crate::server::Inner;
use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use krate_api::field::{self, Path};
use krate_api::meta::{DeleteOptions, ObjectMeta, Time};
use krate_api::types::core::v1::{Namespace, Pod};
use krate_api::{Object, Resource, Shared, Status};
use krate_base::Timestamp;
use krate_store::{Check, Entry, Error, Op, Txn};
use std::any::Any;

/// How many objects of a collection are deleted at one time.
const DELETED_AT_ONCE: usize = 64;
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What a deletion does to an object.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// It is removed now; the object is its last state.
    Remove,
    /// It is written with its marks and waits for whoever holds it.
    Mark,
    /// Its deletion is pending and the options change nothing.
    Pending,
}

/// DELETE of one object.
pub(crate) async fn delete(server: &Inner, call: &Call) -> Result<Outcome, Status> {
    let options = call.options.delete.clone().unwrap_or_default();
    check_options(&options)?;
    let (object, gone, uid) = delete_one(server, call, &options).await?;
    if gone && !meta::returns_deleted(call.resource()) {
        return Ok(Outcome::Encoded { code: 200, bytes: success(call.resource(), &call.name, &uid) });
    }
    Ok(Outcome::object(object))
}

/// The `Status` of a deletion.
fn success(resource: &Resource, name: &str, uid: &str) -> Bytes {
    let mut details = serde_json::json!({"name": name, "kind": resource.plural, "uid": uid});
    if !resource.group.is_empty() {
        details["group"] = resource.group.as_str().into();
    }
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
    });
    Bytes::from(status.to_string())
}

fn check_options(options: &DeleteOptions) -> Result<(), Status> {
    let mut faults = Vec::new();
    let policy = options.propagation_policy.as_deref();
    if options.orphan_dependents.is_some() && policy.is_some() {
        faults.push(field::Error::invalid(
            &Path::new("propagationPolicy"),
            &policy,
            "orphanDependents and deletionPropagation cannot be both set",
        ));
    }
    if policy.is_some_and(|p| !matches!(p, "Foreground" | "Background" | "Orphan")) {
        let supported = ["Foreground", "Background", "Orphan", "nil"];
        faults.push(field::Error::not_supported(&Path::new("propagationPolicy"), &policy, &supported));
    }
    let dry: Vec<&str> = options.dry_run.iter().flatten().map(String::as_str).collect();
    faults.extend(crate::options::dry_run(&dry));
    if faults.is_empty() { Ok(()) } else { Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", &faults)) }
}

/// Deletes the call's object: its last or marked state, whether it is gone, and its uid.
async fn delete_one(
    server: &Inner,
    call: &Call,
    options: &DeleteOptions,
) -> Result<(Shared, bool, String), Status> {
    for _ in 0..COMMIT_ATTEMPTS {
        let entry = list::entry(server, call).await?.ok_or_else(|| call.not_found())?;
        let old = call.rows.held(&entry)?;
        let uid = old.meta().uid.clone().unwrap_or_default();
        check_preconditions(call, options, &entry, &uid)?;
        let at = Attributes::new(call, Operation::Delete, Some(&*old), Some(&*old));
        server.admission.validate(server, &at, None).await?;
        let mut new = old.boxed_clone();
        let plan = plan(&mut *new, options, server.clock.now_seconds());
        if plan == Plan::Pending {
            return Ok((call.rows.shared(&entry), false, uid));
        }
        let gone = plan == Plan::Remove;
        if call.options.dry_run {
            return Ok((call.rows.unstored(&*new, entry.modified), gone, uid));
        }
        let mut txn = Txn { checks: vec![Check::At(call.key(), entry.modified)], ops: Vec::new() };
        if gone {
            txn.ops.push(last_state(server, call, &entry, &*old, new));
            if let Some(hook) = hook::of(call.resource()) {
                hook.delete(server, &*old, &mut txn).await?;
            }
        } else {
            let value = server.encoder.value(&call.rows, new);
            txn.ops.push(Op::Put { key: call.key(), value, ttl: None });
        }
        match server.store.commit(txn).await {
            Ok(done) => {
                let entry =
                    done.entries.first().ok_or_else(|| Status::internal("a commit without entries"))?;
                return Ok((call.rows.shared(entry), gone, uid));
            }
            Err(Error::Failed { .. }) => {}
            Err(e) => return Err(from_store(e)),
        }
    }
    Err(Status::too_many_requests("the deletion met too many other writes; please try again", 1))
}

fn last_state(server: &Inner, call: &Call, entry: &Entry, old: &dyn Object, new: Box<dyn Object>) -> Op {
    if new.equals(old) {
        return update::removal(entry);
    }
    Op::Delete { key: call.key(), last: Some(server.encoder.value(&call.rows, new)) }
}

fn check_preconditions(call: &Call, options: &DeleteOptions, entry: &Entry, uid: &str) -> Result<(), Status> {
    let Some(wanted) = &options.preconditions else { return Ok(()) };
    // The original names the kind here, not the resource.
    let (group, kind) = (&call.resource().group, &call.resource().kind);
    let conflict = |detail: &str| Status::conflict(group, kind, &call.name, detail);
    if let Some(want) = wanted.uid.as_deref().filter(|w| *w != uid) {
        return Err(conflict(&format!(
            "the UID in the precondition ({want}) does not match the UID in record ({uid}). The object might \
             have been deleted and then recreated"
        )));
    }
    let revision = entry.modified.to_string();
    if let Some(want) = wanted.resource_version.as_deref().filter(|w| *w != revision) {
        return Err(conflict(&format!(
            "the ResourceVersion in the precondition ({want}) does not match the ResourceVersion in record \
             ({revision}). The object might have been modified"
        )));
    }
    Ok(())
}

/// Marks the object as the options say and tells what is to be done with it.
fn plan(object: &mut dyn Object, options: &DeleteOptions, now: Timestamp) -> Plan {
    let graceful = match grace(object, options) {
        Grace::None => false,
        Grace::Pending => return Plan::Pending,
        Grace::Force => {
            return if finalizers(object.meta(), options).is_empty() { Plan::Remove } else { Plan::Pending };
        }
        Grace::Shorten(seconds) => {
            let meta = object.meta_mut();
            let before = meta.deletion_grace_period_seconds.unwrap_or(0);
            if let Some(at) = &mut meta.deletion_timestamp {
                *at = Time(shift(at.0, seconds - before));
            }
            meta.deletion_grace_period_seconds = Some(seconds);
            true
        }
        Grace::Begin(seconds) => {
            mark(object.meta_mut(), shift(now, seconds), seconds);
            true
        }
    };
    let held = finalizers(object.meta(), options);
    object.meta_mut().finalizers = (!held.is_empty()).then_some(held);
    let held_by_spec = terminate_namespace(object);
    let held = object.meta().finalizers.is_some() || held_by_spec;
    if !graceful {
        if !held {
            return Plan::Remove;
        }
        if object.meta().deletion_timestamp.is_none() {
            mark(object.meta_mut(), now, 0);
            if held_by_spec {
                object.meta_mut().deletion_grace_period_seconds = None;
            }
        } else {
            object.meta_mut().deletion_grace_period_seconds = (!held_by_spec).then_some(0);
        }
        return Plan::Mark;
    }
    if held || object.meta().deletion_grace_period_seconds.unwrap_or(0) > 0 {
        Plan::Mark
    } else {
        Plan::Remove
    }
}

fn mark(meta: &mut ObjectMeta, at: Timestamp, grace: i64) {
    if meta.deletion_timestamp.is_none() && meta.generation.unwrap_or(0) > 0 {
        meta.generation = meta.generation.map(|g| g + 1);
    }
    meta.deletion_timestamp = Some(Time(at));
    meta.deletion_grace_period_seconds = Some(grace);
}

fn shift(at: Timestamp, seconds: i64) -> Timestamp {
    at.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

/// A namespace waits for its own finalizers and says so in its phase.
fn terminate_namespace(object: &mut dyn Object) -> bool {
    let Some(namespace) = (object.as_any_mut() as &mut dyn Any).downcast_mut::<Namespace>() else {
        return false;
    };
    let held = namespace.spec.as_ref().and_then(|s| s.finalizers.as_ref()).is_some_and(|f| !f.is_empty());
    namespace.status.get_or_insert_default().phase = Some("Terminating".to_owned());
    held
}

enum Grace {
    /// The kind has no grace period.
    None,
    Begin(i64),
    Shorten(i64),
    Pending,
    /// It was marked without a period: it goes now.
    Force,
}

/// The grace period of a deletion. Pods alone have one.
fn grace(object: &dyn Object, options: &DeleteOptions) -> Grace {
    let Some(pod) = (object.as_any() as &dyn Any).downcast_ref::<Pod>() else { return Grace::None };
    if pod.metadata.deletion_timestamp.is_some() {
        let Some(current) = pod.metadata.deletion_grace_period_seconds else { return Grace::Force };
        return match options.grace_period_seconds {
            Some(wanted) if wanted < current => Grace::Shorten(wanted.max(0)),
            _ => Grace::Pending,
        };
    }
    let spec = pod.spec.as_ref();
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("");
    let unbound = spec.and_then(|s| s.node_name.as_deref()).unwrap_or("").is_empty();
    if unbound || matches!(phase, "Failed" | "Succeeded") {
        return Grace::Begin(0);
    }
    let own = spec.and_then(|s| s.termination_grace_period_seconds).unwrap_or(30);
    let seconds = options.grace_period_seconds.unwrap_or(own);
    Grace::Begin(if seconds < 0 { 1 } else { seconds })
}

/// The finalizers that hold the object, with those of the garbage collector as the options ask.
fn finalizers(meta: &ObjectMeta, options: &DeleteOptions) -> Vec<String> {
    let present = meta.finalizers.clone().unwrap_or_default();
    let has = |name: &str| present.iter().any(|f| f == name);
    let (orphan, foreground) = match (options.orphan_dependents, options.propagation_policy.as_deref()) {
        (Some(orphan), _) => (orphan, false),
        (None, Some("Orphan")) => (true, false),
        (None, Some("Foreground")) => (false, true),
        (None, Some(_)) => (false, false),
        (None, None) => (has(ORPHAN), !has(ORPHAN) && has(FOREGROUND)),
    };
    let mut list: Vec<String> =
        present.iter().filter(|f| *f != ORPHAN && *f != FOREGROUND).cloned().collect();
    if orphan {
        list.push(ORPHAN.to_owned());
    }
    if foreground {
        list.push(FOREGROUND.to_owned());
    }
    // Keep the order of a list that says the same.
    if list.len() == present.len() && list.iter().all(|f| present.contains(f)) { present } else { list }
}

/// DELETE of a collection: every object that the selectors leave.
pub(crate) async fn delete_collection(server: &Inner, call: &Call) -> Result<Outcome, Status> {
    let options = call.options.delete.clone().unwrap_or_default();
    check_options(&options)?;
    let listed = list::list(server, call).await?;
    // Several at once share the disk's syncs; the answer has the order of the list.
    let calls: Vec<Call> = listed.items.iter().map(|item| call_for(call, item)).collect();
    let delete = |one: Call| delete_listed(server, one, options.clone());
    let deleted: Vec<Option<Shared>> =
        stream::iter(calls).map(delete).buffered(DELETED_AT_ONCE).try_collect().await?;
    let items = deleted.into_iter().flatten().collect();
    Ok(Outcome::List(Listed {
        items,
        revision: server.store.revision(),
        continue_token: listed.continue_token,
        remaining: None,
    }))
}

/// The call that deletes one object of a collection.
fn call_for(call: &Call, item: &Shared) -> Call {
    Call {
        user: call.user.clone(),
        rows: call.rows.clone(),
        namespace: item.view.namespace.clone(),
        name: item.view.name.clone(),
        subresource: String::new(),
        options: call.options.clone(),
        found: Vec::new(),
        warnings: Default::default(),
    }
}

/// Deletes one object of a collection; none when somebody else was faster.
async fn delete_listed(server: &Inner, call: Call, options: DeleteOptions) -> Result<Option<Shared>, Status> {
    match delete_one(server, &call, &options).await {
        Ok((object, _, _)) => Ok(Some(object)),
        Err(status) if status.is_not_found() => Ok(None),
        Err(status) => Err(status),
    }
}
