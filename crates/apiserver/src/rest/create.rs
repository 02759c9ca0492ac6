//! POST of an object: admit, fill in, validate, commit.
//!
//! Generated names are tried anew when they are taken. A dry run goes the whole way but the commit.

use crate::admission::{Attributes, Operation};
use crate::call::Call;
use crate::error::from_store;
use crate::rest::{hook, meta};
use crate::server::Inner;
use krate_api::status::Reason;
use krate_api::{Object, Shared, Status};
use krate_store::{Check, Error, Op, Txn};

/// How often a generated name that is taken is replaced by another.
const NAME_ATTEMPTS: usize = 8;
/// How often a transaction that met somebody else's allocation is decided anew.
pub(crate) const COMMIT_ATTEMPTS: usize = 64;
/// Length of the suffix of a generated name.
const SUFFIX: usize = 5;
/// Longest base of a generated name.
const BASE: usize = 63 - SUFFIX;

/// Creates a decoded object. The call's name is that of the URL (empty for collections).
pub(crate) async fn create(
    server: &Inner,
    call: &Call,
    mut object: Box<dyn Object>,
) -> Result<Shared, Status> {
    let resource = call.resource().clone();
    if object.meta().resource_version.as_deref().is_some_and(|rv| !matches!(rv, "" | "0")) {
        let mut status = Status::failure(
            Reason::InternalError,
            "resourceVersion should not be set on objects to be created",
        );
        status.0.reason = None;
        return Err(status);
    }
    meta::enter_namespace(call, object.meta_mut())?;
    resource.behaviour.default(&mut *object);
    let at = Attributes::new(call, Operation::Create, Some(&*object), None);
    server.admission.admit(server, &at, &mut *object).await?;
    resource.behaviour.default(&mut *object);
    let generated = object.meta().name.as_deref().unwrap_or("").is_empty()
        && object.meta().generate_name.as_deref().is_some_and(|g| !g.is_empty());
    if !generated {
        return once(server, call, object).await;
    }
    let base: String = object.meta().generate_name.clone().unwrap_or_default().chars().take(BASE).collect();
    let mut last = None;
    for _ in 0..NAME_ATTEMPTS {
        let mut candidate = object.boxed_clone();
        candidate.meta_mut().name = Some(format!("{base}{}", server.rng.suffix(SUFFIX)));
        match once(server, call, candidate).await {
            Err(status) if status.is_already_exists() => last = Some(status),
            done => return done,
        }
    }
    Err(last.unwrap_or_else(|| Status::internal("no name was generated")))
}

/// One attempt under one name: hooks, strategy, validation, commit.
async fn once(server: &Inner, call: &Call, object: Box<dyn Object>) -> Result<Shared, Status> {
    let resource = call.resource();
    for _ in 0..COMMIT_ATTEMPTS {
        let mut object = object.boxed_clone();
        let mut txn = Txn::default();
        let name = object.meta().name.clone().unwrap_or_default();
        meta::fill(object.meta_mut(), server.rng.uuid(), server.clock.now_seconds());
        if let Some(hook) = hook::of(resource) {
            hook.create(server, call, &mut *object, &mut txn).await?;
        }
        resource.behaviour.prepare_create(&mut *object);
        let mut faults = meta::validate(resource, &*object);
        faults.extend(resource.behaviour.validate(&*object));
        if !faults.is_empty() {
            return Err(call.invalid(&name, &faults));
        }
        for warning in resource.behaviour.warnings(&*object, None) {
            call.warn(warning);
        }
        let at = Attributes::new(call, Operation::Create, Some(&*object), None);
        server.admission.validate(server, &at, Some(&*object)).await?;
        let _turn = server.admission.charge(server, &at, &*object, &mut txn).await?;
        let key = krate_store::Key::new(resource.space.as_str(), call.path(&name));
        if call.options.dry_run {
            let taken = server.store.get(&key, None).await.map_err(from_store)?.0;
            return match taken {
                Some(_) => Err(Status::already_exists(&resource.group, &resource.plural, &name)),
                None => Ok(call.rows.unstored(&*object, 0)),
            };
        }
        let value = server.encoder.value(&call.rows, object);
        txn.checks.insert(0, Check::Absent(key.clone()));
        txn.ops.insert(0, Op::Put { key: key.clone(), value, ttl: server.ttl(resource) });
        match server.store.commit(txn).await {
            Ok(done) => {
                let entry =
                    done.entries.first().ok_or_else(|| Status::internal("a commit without entries"))?;
                return Ok(call.rows.shared(entry));
            }
            Err(Error::Failed { key: failed, .. }) if failed == key => {
                return Err(Status::already_exists(&resource.group, &resource.plural, &name));
            }
            Err(Error::Failed { .. }) => {}
            Err(e) => return Err(from_store(e)),
        }
    }
    Err(Status::too_many_requests("the write met too many others; please try again", 1))
}
