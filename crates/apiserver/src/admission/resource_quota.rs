//! ResourceQuota: what is created or grows is charged to the quotas of its namespace, in the transaction
//! that writes it: what is refused or fails was never counted, and two writers never share the last place.

use super::{Attributes, Operation};
use crate::codec::Rows;
use crate::server::Inner;
use krate_api::quantity::Quantity;
use krate_api::quota::{Evaluator, Usage, holds};
use krate_api::types::core::v1::ResourceQuota;
use krate_api::{Kind as _, Object, Status};
use krate_store::{Check, Op, Txn};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::sync::OwnedMutexGuard;

/// Those who charge a namespace's quotas take turns here: whoever lost to another would begin anew.
#[derive(Default)]
pub(crate) struct Quotas(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

/// Held from the reading of the quotas until the write.
pub(crate) type Turn = Option<OwnedMutexGuard<()>>;

/// A quota as it is stored, with the revision of that.
struct Stored {
    quota: ResourceQuota,
    revision: u64,
}

impl Quotas {
    async fn turn(&self, namespace: &str) -> OwnedMutexGuard<()> {
        let gate = {
            let mut gates = self.0.lock();
            gates.retain(|name, gate| name == namespace || Arc::strong_count(gate) > 1);
            gates.entry(namespace.to_owned()).or_default().clone()
        };
        gate.lock_owned().await
    }

    /// Adds to a transaction what the object costs, or says which quota does not bear it. Keep the turn until
    /// the transaction is committed.
    pub async fn charge(
        &self,
        server: &Inner,
        at: &Attributes<'_>,
        object: &dyn Object,
        txn: &mut Txn,
    ) -> Result<Turn, Status> {
        let call = at.call;
        let evaluator = Evaluator::of(&call.resource().group, &call.resource().plural);
        let charged = match at.operation {
            Operation::Create => call.subresource.is_empty(),
            Operation::Update => evaluator.charges_updates(&call.subresource),
            _ => false,
        };
        let namespaced = call.resource().namespaced && !call.namespace.is_empty();
        if !charged || !namespaced || server.read_all::<ResourceQuota>(&call.namespace).await?.is_empty() {
            return Ok(None);
        }
        let turn = self.turn(&call.namespace).await;
        let quotas = stored(server, &call.namespace).await?;
        let now = server.clock.now();
        let old = at.old.filter(|_| at.operation == Operation::Update).map(|old| evaluator.usage(old, now));
        let usage = evaluator.usage(object, now);
        for changed in charge(at, &evaluator, object, (usage, old), quotas)? {
            add(server, changed, txn)?;
        }
        Ok(Some(turn))
    }
}

async fn stored(server: &Inner, namespace: &str) -> Result<Vec<Stored>, Status> {
    let mut found = Vec::new();
    for shared in server.read_all::<ResourceQuota>(namespace).await? {
        let quota = shared.typed::<ResourceQuota>().map_err(Status::internal)?;
        found.push(Stored { quota: (*quota).clone(), revision: shared.revision });
    }
    Ok(found)
}

fn add(server: &Inner, changed: Stored, txn: &mut Txn) -> Result<(), Status> {
    let catalogue = server.catalogue();
    let row = catalogue
        .get(ResourceQuota::GROUP, ResourceQuota::VERSION, ResourceQuota::PLURAL)
        .ok_or_else(|| Status::internal("quotas are not served"))?;
    let meta = &changed.quota.metadata;
    let path = krate_api::object::key(
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default(),
    );
    let key = krate_store::Key::new(row.space.as_str(), path);
    let value = server.encoder.value(&Rows::of(&catalogue, row), Box::new(changed.quota));
    txn.checks.push(Check::At(key.clone(), changed.revision));
    txn.ops.push(Op::Put { key, value, ttl: None });
    Ok(())
}

fn amounts(quota: &ResourceQuota, used: bool) -> Usage {
    let status = quota.status.as_ref();
    let list = status.and_then(|s| if used { s.used.as_ref() } else { s.hard.as_ref() });
    list.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), Quantity::of(v).ok()?))).collect()
}

/// `cpu=1,memory=2Gi`.
fn told(amounts: &Usage, names: &[&String]) -> String {
    let one = |name: &&String| format!("{name}={}", amounts.get(*name).copied().unwrap_or_default());
    names.iter().map(one).collect::<Vec<_>>().join(",")
}

/// The quotas that change by an object, with their new usage, or the refusal.
fn charge(
    at: &Attributes<'_>,
    evaluator: &Evaluator,
    object: &dyn Object,
    (usage, old): (Usage, Option<Usage>),
    quotas: Vec<Stored>,
) -> Result<Vec<Stored>, Status> {
    let mut concerned = Vec::new();
    for stored in quotas {
        let quota = &stored.quota;
        let hard = amounts(quota, false);
        let limited: Vec<String> = hard.keys().filter(|name| evaluator.concerns(name)).cloned().collect();
        if limited.is_empty() || !quota.spec.as_ref().is_some_and(|spec| holds(spec, object)) {
            continue;
        }
        let name = quota.metadata.name.clone().unwrap_or_default();
        if let Some(missing) = evaluator.missing(&limited, object) {
            return Err(at.forbidden(&format!("failed quota: {name}: {missing}")));
        }
        let used = amounts(quota, true);
        if limited.iter().any(|name| !used.contains_key(name)) {
            let names = limited.join(",");
            return Err(at.forbidden(&format!("status unknown for quota: {name}, resources: {names}")));
        }
        concerned.push((stored, name, hard, used));
    }
    let negative: Vec<&str> =
        usage.iter().filter(|(_, amount)| amount.is_negative()).map(|(name, _)| name.as_str()).collect();
    if !negative.is_empty() {
        let names = negative.join(",");
        return Err(at.forbidden(&format!("quota usage is negative for resource(s): {names}")));
    }
    let delta = delta(usage, old);
    let mut changed = Vec::new();
    for (mut stored, name, hard, mut used) in concerned {
        let requested: Vec<&String> = delta.keys().filter(|name| hard.contains_key(*name)).collect();
        let before = used.clone();
        for resource in &requested {
            used.entry((*resource).clone()).or_default().add(&delta[*resource]);
        }
        let exceeded: Vec<&String> =
            requested.iter().filter(|resource| used[**resource] > hard[**resource]).copied().collect();
        if !exceeded.is_empty() {
            return Err(at.forbidden(&format!(
                "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
                told(&delta, &exceeded),
                told(&before, &exceeded),
                told(&hard, &exceeded)
            )));
        }
        if !requested.is_empty() {
            let text: BTreeMap<_, _> = used.into_iter().map(|(name, amount)| (name, amount.text())).collect();
            stored.quota.status.get_or_insert_default().used = Some(text);
            changed.push(stored);
        }
    }
    Ok(changed)
}

/// What is used more than before; nothing is said of what stays.
fn delta(usage: Usage, old: Option<Usage>) -> Usage {
    let mut delta = usage;
    for (name, amount) in old.into_iter().flatten() {
        delta.entry(name).or_default().sub(&amount);
    }
    delta.retain(|_, amount| !amount.is_zero());
    delta
}
