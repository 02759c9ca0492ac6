//! Namespaces that are being deleted: their content goes first, pods before everything else, then the
//! finalizer that held the namespace.
//!
//! What goes is every namespaced resource that is served now. Conditions say what remains and why.

mod conditions;
#[cfg(test)]
mod tests;

use crate::env::{Env, Resources, synced, wake_due};
use crate::meta;
use crate::pods;
use conditions::Remains;
use futures::StreamExt;
use krate_api::meta::DeleteOptions;
use krate_api::types::core::v1::Namespace;
use krate_api::{Resource, Status, Verb};
use krate_base::Clock;
use krate_client::{Api, DynamicApi, Informer, Options, Outcome, Queue, Transport};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const ACCOUNT: &str = "namespace-controller";
const WORKERS: usize = 10;
const FINALIZER: &str = "kubernetes";
/// What content with finalizers may take.
const FINALIZER_ESTIMATE: i64 = 15;
/// Resources of one namespace that are emptied at once.
const AT_ONCE: usize = 8;

struct Controller {
    api: Api<Namespace>,
    transport: Arc<dyn Transport>,
    namespaces: Informer<Namespace>,
    resources: Resources,
    clock: Clock,
}

pub fn start(env: &Env) {
    let (namespaces, pods) = (env.informers.of::<Namespace>(), pods::informer(&env.informers));
    let queue: Queue = env.queue("namespace");
    wake_due(&namespaces, &queue, |namespace| namespace.metadata.deletion_timestamp.is_some());
    // The last pod of a namespace is what the rest waits for.
    let (q, n) = (queue.clone(), namespaces.clone());
    pods.subscribe(move |old, new| {
        if let (Some(gone), None) = (old, new)
            && n.get(gone.namespace()).is_some_and(|n| n.metadata.deletion_timestamp.is_some())
        {
            q.add(gone.namespace());
        }
    });
    let controller = Arc::new(Controller {
        api: env.api(ACCOUNT),
        transport: env.transport(ACCOUNT),
        namespaces: namespaces.clone(),
        resources: env.resources.clone(),
        clock: env.clock.clone(),
    });
    env.run(&queue, WORKERS, synced!(namespaces), move |key: String| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
}

impl Controller {
    async fn reconcile(&self, name: &str) -> Result<Outcome, Status> {
        if self.namespaces.get(name).is_none() {
            return Ok(Outcome::Done);
        }
        let Some(namespace) = self.api.get_opt("", name).await? else { return Ok(Outcome::Done) };
        if namespace.metadata.deletion_timestamp.is_none() || !is_held(&namespace) {
            return Ok(Outcome::Done);
        }
        let remains = self.empty(name).await;
        let namespace = self.tell(&namespace, &remains).await?;
        if let Some(failure) = remains.failures.first() {
            return Err(failure.clone());
        }
        if remains.is_empty() {
            self.let_go(&namespace).await?;
            return Ok(Outcome::Done);
        }
        let seconds = u64::try_from(remains.estimate.max(0) / 2 + 1).unwrap_or(1);
        Ok(Outcome::After(Duration::from_secs(seconds)))
    }

    /// Deletes the content. Pods first: nothing that they use goes while any is left.
    async fn empty(&self, namespace: &str) -> Remains {
        let mut remains = Remains::default();
        let (pods, others): (Vec<_>, Vec<_>) =
            self.namespaced().into_iter().partition(|r| r.group.is_empty() && r.plural == "pods");
        for resources in [pods, others] {
            let results: Vec<_> = futures::stream::iter(resources)
                .map(|resource| async move { self.empty_one(&resource, namespace).await })
                .buffered(AT_ONCE)
                .collect()
                .await;
            results.into_iter().for_each(|result| remains.add(result));
            if !remains.is_empty() {
                break;
            }
        }
        remains
    }

    /// The resources that can hold content, each once however many versions and groups show it.
    fn namespaced(&self) -> Vec<Arc<Resource>> {
        let mut seen = BTreeSet::new();
        let catalogue = self.resources.borrow().clone();
        catalogue
            .iter()
            .filter(|r| r.namespaced && r.allows(Verb::List) && r.allows(Verb::Delete))
            .filter(|r| seen.insert(r.space.clone()))
            .cloned()
            .collect()
    }

    /// Deletes all objects of a resource; answers what is left of them.
    async fn empty_one(&self, resource: &Resource, namespace: &str) -> Result<Remains, Status> {
        let api = DynamicApi::of(self.transport.clone(), resource);
        let background = || DeleteOptions {
            propagation_policy: Some("Background".to_owned()),
            ..DeleteOptions::default()
        };
        let gone = |status: &Status| status.is_not_found() || status.code() == 405;
        if resource.allows(Verb::DeleteCollection) {
            match api.delete_collection(namespace, background()).await {
                Err(status) if !gone(&status) => return Err(status),
                _ => {}
            }
        } else {
            for object in api.list(namespace, Options::default()).await?.items {
                match api.delete(namespace, &object.view.name, background()).await {
                    Err(status) if !gone(&status) => return Err(status),
                    _ => {}
                }
            }
        }
        let left = match api.list(namespace, Options::default()).await {
            Err(status) if gone(&status) => return Ok(Remains::default()),
            result => result?.items,
        };
        Ok(remaining(resource, &left))
    }

    async fn tell(&self, namespace: &Arc<Namespace>, remains: &Remains) -> Result<Arc<Namespace>, Status> {
        let mut told = (**namespace).clone();
        let status = told.status.get_or_insert_default();
        status.phase = Some("Terminating".to_owned());
        conditions::set(status.conditions.get_or_insert_default(), remains, self.clock.now_seconds());
        if told == **namespace { Ok(namespace.clone()) } else { self.api.update_status(told).await }
    }

    async fn let_go(&self, namespace: &Namespace) -> Result<(), Status> {
        let mut freed = namespace.clone();
        if let Some(finalizers) = freed.spec.get_or_insert_default().finalizers.as_mut() {
            finalizers.retain(|f| f != FINALIZER);
        }
        match self.api.update_at(freed, "finalize").await {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(()),
        }
    }
}

fn is_held(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.as_ref().and_then(|s| s.finalizers.as_ref());
    finalizers.is_some_and(|f| f.iter().any(|f| f == FINALIZER))
}

/// What is left of a resource: how many, behind which finalizers, and for how long.
fn remaining(resource: &Resource, left: &[krate_api::Shared]) -> Remains {
    let mut remains = Remains::default();
    if left.is_empty() {
        return remains;
    }
    let name = format!("{}.{}", resource.plural, resource.group);
    remains.content = BTreeMap::from([(name, left.len())]);
    for object in left {
        // What cannot be read has no finalizer that we could name.
        let metadata =
            <meta::Slim as krate_client::View>::of(object).map(|s| s.0.clone()).unwrap_or_default();
        remains.estimate = remains.estimate.max(metadata.deletion_grace_period_seconds.unwrap_or(0));
        for finalizer in metadata.finalizers {
            *remains.finalizers.entry(finalizer).or_default() += 1;
        }
    }
    if !remains.finalizers.is_empty() {
        remains.estimate = remains.estimate.max(FINALIZER_ESTIMATE);
    }
    remains
}
