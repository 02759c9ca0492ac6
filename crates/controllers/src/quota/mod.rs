//! Resource quotas: `status.hard` follows the specification, `status.used` what there is.
//!
//! Admission counts what is made; this controller counts anew when something goes away, ends, or comes
//! into or out of a quota's scope, and when a quota is new or changes. Only resources that a quota names
//! are followed, by their metadata.

use crate::env::{Env, Resources, synced, wake_due};
use crate::meta::{self, Slim};
use crate::pods::{self, PodView};
use krate_api::quantity::Quantity;
use krate_api::quota::{Evaluator, Usage, holds};
use krate_api::types::core::v1::{
    PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaSpec, ResourceQuotaStatus, Service,
};
use krate_api::{Kind, Object, Resource, Shared, Status, Verb};
use krate_base::Clock;
use krate_client::{Api, DynamicApi, Informer, Options, Outcome, Queue, Source, Transport};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const ACCOUNT: &str = "resourcequota-controller";
const WORKERS: usize = 5;

struct Controller {
    api: Api<ResourceQuota>,
    transport: Arc<dyn Transport>,
    quotas: Informer<ResourceQuota>,
    resources: Resources,
    queue: Queue,
    clock: Clock,
    env: Env,
    /// The spaces of the resources that are followed.
    followed: Mutex<BTreeSet<String>>,
}

pub fn start(env: &Env) {
    let quotas = env.informers.of::<ResourceQuota>();
    let queue: Queue = env.queue("resource_quota_controller_resource_changes");
    let controller = Arc::new(Controller {
        api: env.api(ACCOUNT),
        transport: env.transport(ACCOUNT),
        quotas: quotas.clone(),
        resources: env.resources.clone(),
        queue: queue.clone(),
        clock: env.clock.clone(),
        env: env.clone(),
        followed: Mutex::default(),
    });
    wake_due(&quotas, &queue, is_new);
    let first = controller.clone();
    // What changed while nobody looked is counted when the term begins. And again when admission has begun to charge
    // for something: what was made between the count and that moment is in neither.
    quotas.subscribe(move |old, new| {
        let Some(quota) = new else { return };
        if old.is_none_or(|old| charged(old) != charged(quota)) {
            first.queue.add(meta::key(&quota.metadata));
        }
    });
    env.run(&queue, WORKERS, synced!(quotas), move |key: String| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
}

/// What admission charges for.
fn charged(quota: &ResourceQuota) -> BTreeSet<&String> {
    quota.status.iter().flat_map(|s| s.hard.iter().flat_map(BTreeMap::keys)).collect()
}

/// Whether the status is not yet of the specification.
fn is_new(quota: &ResourceQuota) -> bool {
    let spec = quota.spec.as_ref().and_then(|s| s.hard.as_ref());
    let status = quota.status.as_ref();
    status.and_then(|s| s.hard.as_ref()) != spec || status.is_none_or(|s| s.used.is_none())
}

impl Controller {
    async fn reconcile(self: &Arc<Self>, key: &str) -> Result<Outcome, Status> {
        let (namespace, _) = krate_api::object::split_key(key);
        // Taken before anything is counted: what is made from then on changes the quota, and the write below
        // is then refused.
        let Some(quota) = self.quotas.get(key) else { return Ok(Outcome::Done) };
        let spec = quota.spec.clone().unwrap_or_default();
        let hard = spec.hard.clone().unwrap_or_default();
        let mut used: Usage = Usage::new();
        for resource in self.concerned(&hard) {
            self.follow(&resource).await;
            self.count(namespace, &resource, &spec, &mut used).await?;
        }
        let known = |name: &String| self.is_known(name);
        let before = quota.status.as_ref().and_then(|s| s.used.clone()).unwrap_or_default();
        let text = hard.keys().map(|name| {
            let counted = used.get(name).map(|amount| amount.text());
            // What cannot be counted stays as somebody else (a device's maker) has counted it.
            let kept = counted.or_else(|| before.get(name).filter(|_| !known(name)).cloned());
            (name.clone(), kept.unwrap_or_else(|| Quantity::default().text()))
        });
        let status = ResourceQuotaStatus { hard: spec.hard.clone(), used: Some(text.collect()) };
        if quota.status.as_ref() == Some(&status) {
            return self.confirm(namespace, &quota).await;
        }
        let mut fresh = (*quota).clone();
        fresh.status = Some(status);
        match self.api.update_status(fresh).await {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(Outcome::Done),
        }
    }

    /// Whether the quota is still the one with which was counted. What went away and what was charged for since then
    /// can make up for each other: the count is then what the old status says, and the present one says more.
    async fn confirm(&self, namespace: &str, counted: &ResourceQuota) -> Result<Outcome, Status> {
        let name = counted.metadata.name.as_deref().unwrap_or_default();
        // The controller may list and watch, and nothing else.
        let field_selector = format!("metadata.name={name}");
        let present = self.api.list(namespace, Options { field_selector, ..Options::default() }).await?;
        let version = |quota: &ResourceQuota| quota.metadata.resource_version.clone();
        let changed = present.items.first().is_some_and(|present| version(present) != version(counted));
        Ok(if changed { Outcome::Again } else { Outcome::Done })
    }

    /// The resources that a quota's names are about.
    fn concerned(&self, hard: &BTreeMap<String, impl Sized>) -> Vec<Arc<Resource>> {
        let catalogue = self.resources.borrow().clone();
        let mut spaces = BTreeSet::new();
        let fits = |resource: &&Arc<Resource>| {
            let evaluator = Evaluator::of(&resource.group, &resource.plural);
            let listed = [Verb::List, Verb::Watch].iter().all(|verb| resource.allows(*verb));
            resource.namespaced && listed && hard.keys().any(|name| evaluator.concerns(name))
        };
        let mut found: Vec<_> = catalogue.iter().filter(fits).cloned().collect();
        found.retain(|resource| {
            spaces.insert((resource.space.clone(), resource.group.clone(), resource.plural.clone()))
        });
        found
    }

    fn is_known(&self, name: &str) -> bool {
        let catalogue = self.resources.borrow().clone();
        catalogue.iter().any(|resource| Evaluator::of(&resource.group, &resource.plural).concerns(name))
    }

    async fn count(
        &self,
        namespace: &str,
        resource: &Resource,
        spec: &ResourceQuotaSpec,
        used: &mut Usage,
    ) -> Result<(), Status> {
        let evaluator = Evaluator::of(&resource.group, &resource.plural);
        let api = DynamicApi::of(self.transport.clone(), resource);
        let now = self.clock.now();
        for shared in api.list(namespace, Options::default()).await?.items {
            let object = typed(resource, &shared)?;
            if !holds(spec, &*object) {
                continue;
            }
            for (name, amount) in evaluator.usage(&*object, now) {
                used.entry(name).or_default().add(&amount);
            }
        }
        Ok(())
    }

    /// Follows what goes away of a resource, from the first quota on that names it.
    async fn follow(self: &Arc<Self>, resource: &Resource) {
        if !self.followed.lock().insert(resource.space.clone()) {
            return;
        }
        let controller = self.clone();
        let evaluator = Evaluator::of(&resource.group, &resource.plural);
        if resource.group.is_empty() && resource.plural == Pod::PLURAL {
            let pods = pods::informer(&self.env.informers);
            pods.subscribe(move |old, new| {
                if let Some(old) = old.filter(|old| new.is_none_or(|new| is_released(old, new))) {
                    controller.recount(old.namespace(), &evaluator);
                }
            });
            pods.synced().await;
        } else {
            let objects = self.env.informers.get::<Slim>(Source::resource(resource));
            objects.subscribe(move |old, new| {
                if let (Some(old), None) = (old, new) {
                    controller.recount(&old.0.namespace, &evaluator);
                }
            });
            objects.synced().await;
        }
    }

    fn recount(&self, namespace: &str, evaluator: &Evaluator) {
        for quota in self.quotas.list_in(namespace) {
            let hard = quota.spec.as_ref().and_then(|s| s.hard.as_ref());
            if hard.is_some_and(|hard| hard.keys().any(|name| evaluator.concerns(name))) {
                self.queue.add(meta::key(&quota.metadata));
            }
        }
    }
}

/// Whether a pod takes less than before, or belongs to other scopes.
fn is_released(old: &PodView, new: &PodView) -> bool {
    (new.is_finished() && !old.is_finished())
        || new.spec.active_deadline_seconds != old.spec.active_deadline_seconds
}

/// The object as its evaluator needs it; of most kinds that is nothing.
fn typed(resource: &Resource, shared: &Shared) -> Result<Arc<dyn Object>, Status> {
    fn of<K: Kind>(shared: &Shared) -> Result<Arc<dyn Object>, Status> {
        let typed: Arc<K> = shared.typed().map_err(Status::internal)?;
        Ok(typed)
    }
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", Pod::PLURAL) => of::<Pod>(shared),
        ("", Service::PLURAL) => of::<Service>(shared),
        ("", PersistentVolumeClaim::PLURAL) => of::<PersistentVolumeClaim>(shared),
        _ => Ok(Arc::new(ResourceQuota::default())),
    }
}
