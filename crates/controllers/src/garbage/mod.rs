//! The garbage collector: nothing lives without its owners, unless it is set free.
//!
//! A graph of all objects is kept from the metadata of every resource that is served. An object whose
//! owners are all gone is deleted; an owner that is deleted in the foreground stays until the dependents
//! that block it are gone; one that orphans its dependents stays until all of them are freed. The graph is
//! only where questions come from: before anything is deleted the API itself is asked for the object, and
//! for owners that the graph does not know. So a graph that is behind costs a question, never an object.

mod graph;
mod plan;
#[cfg(test)]
mod tests;

use crate::env::{Env, Resources};
use crate::meta::{MetaView, Slim};
use graph::{Entry, FOREGROUND, Graph, Node, ORPHAN, Todo};
use krate_api::meta::{DeleteOptions, OwnerReference, Preconditions};
use krate_api::object::DecodeError;
use krate_api::{Resource, Shared, Status, Verb};
use krate_client::{DynamicApi, Informer, Outcome, PatchKind, Queue, Source, Transport, View, controller};
use parking_lot::Mutex;
use plan::{Fate, OwnerState};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const ACCOUNT: &str = "generic-garbage-collector";
const WORKERS: usize = 20;
/// When an object is looked at again whose owner the API knows, and the graph does not yet.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

impl View for Node {
    fn of(object: &Shared) -> Result<Arc<Self>, DecodeError> {
        let slim = Slim::of(object)?;
        let has = |name: &str| slim.0.finalizers.iter().any(|f| f == name);
        Ok(Arc::new(Self {
            deleting: slim.0.is_deleting(),
            foreground: has(FOREGROUND),
            orphan: has(ORPHAN),
            uid: slim.0.uid.clone(),
            namespace: slim.0.namespace.clone(),
            name: slim.0.name.clone(),
            owners: slim.0.owner_references.clone(),
        }))
    }
}

struct Collector {
    transport: Arc<dyn Transport>,
    resources: Resources,
    /// By the space of the resource.
    followed: Mutex<BTreeMap<String, Informer<Node>>>,
    graph: Mutex<Graph>,
    delete: Queue,
    orphan: Queue,
}

pub fn start(env: &Env) {
    let collector = Arc::new(Collector {
        transport: env.transport(ACCOUNT),
        resources: env.resources.clone(),
        followed: Mutex::default(),
        graph: Mutex::default(),
        delete: env.queue("garbage_collector_attempt_to_delete"),
        orphan: env.queue("garbage_collector_attempt_to_orphan"),
    });
    let env = env.clone();
    env.supervisor.clone().component("garbage-collector", move |shutdown| {
        let (collector, env) = (collector.clone(), env.clone());
        async move {
            if shutdown.run_until_cancelled(collector.follow_first(&env)).await.is_none() {
                return Ok(());
            }
            let (delete, orphan) = (collector.delete.clone(), collector.orphan.clone());
            tokio::join!(
                controller::run(delete, WORKERS, shutdown.clone(), |uid: String| {
                    let collector = collector.clone();
                    async move { collector.attempt_to_delete(&uid).await }
                }),
                controller::run(orphan, WORKERS, shutdown.clone(), |uid: String| {
                    let collector = collector.clone();
                    async move { collector.attempt_to_orphan(&uid).await }
                }),
                shutdown.run_until_cancelled(collector.keep_following(&env)),
            );
            Ok::<(), std::convert::Infallible>(())
        }
    });
}

impl Collector {
    /// Follows everything that is served, and waits until it is known.
    async fn follow_first(self: &Arc<Self>, env: &Env) {
        self.follow(env);
        let informers: Vec<_> = self.followed.lock().values().cloned().collect();
        for informer in informers {
            informer.synced().await;
        }
    }

    /// Custom resources come and go.
    async fn keep_following(self: &Arc<Self>, env: &Env) {
        let mut resources = self.resources.clone();
        while resources.changed().await.is_ok() {
            self.follow(env);
        }
        // Whoever told of changes is gone: there are none any more.
        std::future::pending::<()>().await;
    }

    fn follow(self: &Arc<Self>, env: &Env) {
        let mut served = BTreeMap::new();
        let catalogue = self.resources.borrow().clone();
        for resource in catalogue.iter() {
            let followable = [Verb::List, Verb::Watch, Verb::Delete].iter().all(|v| resource.allows(*v));
            if resource.plural != "events" && followable {
                served.entry(resource.space.clone()).or_insert_with(|| resource.clone());
            }
        }
        let mut followed = self.followed.lock();
        followed.retain(|space, informer| {
            let kept = served.contains_key(space);
            if !kept {
                informer.stop();
            }
            kept
        });
        served.retain(|space, _| !followed.contains_key(space));
        for (space, resource) in served {
            let informer = env.informers.own::<Node>(Source::resource(&resource));
            let collector = self.clone();
            informer.subscribe(move |old, new| collector.changed(&resource, old, new));
            followed.insert(space, informer);
        }
    }

    fn changed(&self, resource: &Arc<Resource>, old: Option<&Arc<Node>>, new: Option<&Arc<Node>>) {
        let todo = match (old, new) {
            (_, Some(node)) => self.graph.lock().put(resource, node.clone()),
            (Some(node), None) => self.graph.lock().remove(&node.uid),
            (None, None) => Todo::default(),
        };
        todo.delete.into_iter().for_each(|uid| self.delete.add(uid));
        todo.orphan.into_iter().for_each(|uid| self.orphan.add(uid));
    }

    fn api(&self, resource: &Resource) -> DynamicApi {
        DynamicApi::of(self.transport.clone(), resource)
    }

    /// The object as the API has it now; `None` when it is gone or another by now.
    async fn live(&self, entry: &Entry) -> Result<Option<(DynamicApi, MetaView)>, Status> {
        let api = self.api(&entry.resource);
        let found = match api.get_opt(&entry.node.namespace, &entry.node.name).await {
            Err(status) if status.code() == 405 => None,
            result => result?,
        };
        let Some(object) = found else { return Ok(None) };
        let slim = Slim::of(&object).map_err(Status::internal)?;
        Ok((slim.0.uid == entry.node.uid).then(|| (api, slim.0.clone())))
    }

    async fn attempt_to_delete(&self, uid: &str) -> Result<Outcome, Status> {
        let Some(entry) = self.graph.lock().get(uid).cloned() else { return Ok(Outcome::Done) };
        if entry.node.deleting && !entry.node.waits() {
            return Ok(Outcome::Done);
        }
        if !entry.node.waits() && self.is_obviously_owned(&entry.node) {
            return Ok(Outcome::Done);
        }
        let Some((api, live)) = self.live(&entry).await? else {
            // Its deletion is on its way to us.
            return Ok(Outcome::Done);
        };
        if live.is_deleting() && live.finalizers.iter().any(|f| f == FOREGROUND) {
            return self.finish_foreground(&api, &live).await;
        }
        if live.is_deleting() || live.owner_references.is_empty() {
            return Ok(Outcome::Done);
        }
        let mut owners = vec![];
        for owner in &live.owner_references {
            owners.push((owner.clone(), self.owner_state(owner, &live.namespace).await?));
        }
        let (blocked, circular) = {
            let graph = self.graph.lock();
            let blocking = || graph.dependents(uid).filter(|d| d.node.blocks(uid));
            (blocking().next().is_some(), blocking().any(|d| d.node.waits()))
        };
        let unseen = {
            let graph = self.graph.lock();
            owners.iter().any(|(o, state)| *state == OwnerState::Lives && graph.get(&o.uid).is_none())
        };
        match plan::fate(&owners, &live.finalizers, blocked, circular) {
            // Should it go before it is seen, nobody would tell of it.
            Fate::Keep if unseen => return Ok(Outcome::After(LOOK_AGAIN)),
            Fate::Keep => {}
            Fate::Unlink(gone) => {
                let kept = |o: &OwnerReference| !gone.contains(&o.uid);
                let owners = live.owner_references.iter().filter(|o| kept(o)).cloned().collect();
                set_owners(&api, &live, owners).await?;
            }
            // The change of its owners brings it back here.
            Fate::Unblock => set_owners(&api, &live, unblocking(&live.owner_references)).await?,
            Fate::Delete(policy) => delete(&api, &live, policy).await?,
        }
        Ok(Outcome::Done)
    }

    /// Every owner is known, and none waits for its dependents: nothing to ask.
    fn is_obviously_owned(&self, node: &Node) -> bool {
        let graph = self.graph.lock();
        node.owners.iter().all(|o| graph.get(&o.uid).is_some_and(|e| !e.node.waits()))
    }

    async fn owner_state(&self, owner: &OwnerReference, namespace: &str) -> Result<OwnerState, Status> {
        if let Some(known) = self.graph.lock().get(&owner.uid) {
            let waits = known.node.waits();
            return Ok(if waits { OwnerState::Waits } else { OwnerState::Lives });
        }
        let Some(resource) = self.resource_of(owner) else {
            // A kind that is not served cannot be asked for: it may come back.
            return Ok(OwnerState::Unknown);
        };
        if resource.namespaced && namespace.is_empty() {
            // Nothing of the cluster's scope can have an owner in a namespace: the reference is void.
            return Ok(OwnerState::Unknown);
        }
        let namespace = if resource.namespaced { namespace } else { "" };
        let found = self.api(&resource).get_opt(namespace, &owner.name).await?;
        let Some(found) = found.filter(|o| o.view.uid == owner.uid) else { return Ok(OwnerState::Gone) };
        let node = Node::of(&found).map_err(Status::internal)?;
        Ok(if node.waits() { OwnerState::Waits } else { OwnerState::Lives })
    }

    /// The resource of an owner's kind, in whatever version it is served.
    fn resource_of(&self, owner: &OwnerReference) -> Option<Arc<Resource>> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let catalogue = self.resources.borrow().clone();
        let exact = catalogue.by_kind(&owner.api_version, &owner.kind).cloned();
        let stored = |r: &&Arc<Resource>| r.group == group && r.kind == owner.kind && r.allows(Verb::Get);
        exact.filter(|r| r.allows(Verb::Get)).or_else(|| catalogue.iter().find(stored).cloned())
    }

    /// An owner that waits: it may go when no dependent blocks it; those that do are looked at.
    async fn finish_foreground(&self, api: &DynamicApi, live: &MetaView) -> Result<Outcome, Status> {
        let blocking: Vec<Arc<Node>> = {
            let graph = self.graph.lock();
            graph.dependents(&live.uid).map(|d| d.node.clone()).filter(|n| n.blocks(&live.uid)).collect()
        };
        if blocking.is_empty() {
            remove_finalizer(api, live, FOREGROUND).await?;
        }
        for dependent in blocking.iter().filter(|d| !d.deleting) {
            self.delete.add(dependent.uid.clone());
        }
        Ok(Outcome::Done)
    }

    /// Frees all dependents of an owner, and only then lets it go.
    async fn attempt_to_orphan(&self, uid: &str) -> Result<Outcome, Status> {
        let (entry, dependents) = {
            let graph = self.graph.lock();
            let Some(entry) = graph.get(uid).cloned() else { return Ok(Outcome::Done) };
            let dependents: Vec<Entry> = graph.dependents(uid).cloned().collect();
            (entry, dependents)
        };
        for dependent in dependents {
            if let Some((api, live)) = self.live(&dependent).await? {
                let others = live.owner_references.iter().filter(|o| o.uid != uid).cloned().collect();
                set_owners(&api, &live, others).await?;
            }
        }
        if let Some((api, live)) = self.live(&entry).await? {
            remove_finalizer(&api, &live, ORPHAN).await?;
        }
        Ok(Outcome::Done)
    }
}

/// The same owners, none of which waits for this dependent.
fn unblocking(owners: &[OwnerReference]) -> Vec<OwnerReference> {
    let free = |o: &OwnerReference| OwnerReference {
        block_owner_deletion: o.block_owner_deletion.map(|_| false),
        ..o.clone()
    };
    owners.iter().map(free).collect()
}

async fn set_owners(api: &DynamicApi, live: &MetaView, owners: Vec<OwnerReference>) -> Result<(), Status> {
    if owners != live.owner_references {
        patch(api, live, serde_json::json!({"ownerReferences": owners})).await?;
    }
    Ok(())
}

async fn remove_finalizer(api: &DynamicApi, live: &MetaView, name: &str) -> Result<(), Status> {
    let left: Vec<_> = live.finalizers.iter().filter(|f| *f != name).collect();
    if left.len() != live.finalizers.len() {
        patch(api, live, serde_json::json!({"finalizers": left})).await?;
    }
    Ok(())
}

/// Patches the metadata of an object if it is still as it was seen.
async fn patch(api: &DynamicApi, live: &MetaView, mut metadata: serde_json::Value) -> Result<(), Status> {
    metadata["uid"] = live.uid.clone().into();
    metadata["resourceVersion"] = live.resource_version.clone().into();
    let body = serde_json::json!({"metadata": metadata}).to_string();
    match api.patch(&live.namespace, &live.name, "", PatchKind::Merge, body).await {
        Err(status) if !status.is_not_found() => Err(status),
        _ => Ok(()),
    }
}

async fn delete(api: &DynamicApi, live: &MetaView, policy: &str) -> Result<(), Status> {
    let options = DeleteOptions {
        propagation_policy: Some(policy.to_owned()),
        preconditions: Some(Preconditions {
            uid: Some(live.uid.clone()),
            resource_version: Some(live.resource_version.clone()),
        }),
        ..DeleteOptions::default()
    };
    match api.delete(&live.namespace, &live.name, options).await {
        Err(status) if !status.is_not_found() => Err(status),
        _ => Ok(()),
    }
}
