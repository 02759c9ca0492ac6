//! Deployments: one ReplicaSet per template, and the passage from one to the next.
//!
//! A reconcile takes at most one step (make the new set, scale some sets, remove old ones) and then writes
//! the status if it differs; what the step changes comes back as events and leads to the next. The numbers
//! are computed in [`rollout`], the status in [`status`], identity in [`crate::hash`], revisions in [`revision`].

mod model;
mod revision;
mod rollout;
mod status;
#[cfg(test)]
mod tests;

use crate::claim::{Claimed, claim_all};
use crate::env::{Env, synced};
use crate::hash;
use crate::meta::{self, MetaView};
use crate::pods::{self, PodView};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use krate_api::Status;
use krate_api::labels::Selector;
use krate_base::Clock;
use krate_client::api::delete_uid;
use krate_client::recorder::reference;
use krate_client::{Api, Index, Informer, Outcome, Queue, Recorder};
use model::{Set, Sets, Wanted};
use rollout::Scale;
use std::sync::Arc;

const ACCOUNT: &str = "deployment-controller";
const WORKERS: usize = 5;

impl Claimed for ReplicaSet {
    fn meta(&self) -> MetaView {
        MetaView::of(&self.metadata)
    }
}

struct Controller {
    api: Api<Deployment>,
    sets_api: Api<ReplicaSet>,
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    sets_by_owner: Index<ReplicaSet>,
    pods_by_controller: Index<PodView>,
    recorder: Recorder,
    clock: Clock,
    queue: Queue,
}

pub fn start(env: &Env) {
    let (deployments, sets) = (env.informers.of::<Deployment>(), env.informers.of::<ReplicaSet>());
    let pods = pods::informer(&env.informers);
    let controller = Arc::new(Controller {
        api: env.api(ACCOUNT),
        sets_api: env.api(ACCOUNT),
        sets_by_owner: sets.index("owner or orphan", |set: &ReplicaSet| {
            let orphan = || pods::orphans(meta::namespace(&set.metadata));
            vec![meta::controller_of(&set.metadata).map_or_else(orphan, |o| o.uid.clone())]
        }),
        pods_by_controller: pods::by_controller(&pods),
        deployments: deployments.clone(),
        sets: sets.clone(),
        recorder: env.recorder(ACCOUNT, ACCOUNT),
        clock: env.clock.clone(),
        queue: env.queue("deployment"),
    });
    let queue = controller.queue.clone();
    deployments.subscribe(move |old, new| {
        if let Some(deployment) = new.or(old) {
            queue.add(meta::key(&deployment.metadata));
        }
    });
    let c = controller.clone();
    sets.subscribe(move |old, new| c.set_changed(old, new));
    let c = controller.clone();
    pods.subscribe(move |old, new| {
        if let (Some(gone), None) = (old, new) {
            c.pod_gone(gone);
        }
    });
    let queue = controller.queue.clone();
    env.run(&queue, WORKERS, synced!(deployments, sets, pods), move |key: String| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
}

impl Controller {
    fn set_changed(&self, old: Option<&Arc<ReplicaSet>>, new: Option<&Arc<ReplicaSet>>) {
        let owners = [old, new].map(|set| set.and_then(|s| meta::controller_of(&s.metadata)));
        let Some(set) = new.or(old) else { return };
        let namespace = meta::namespace(&set.metadata);
        for owner in owners.iter().flatten().filter(|o| meta::refers_to::<Deployment>(o)) {
            self.queue.add(krate_api::object::key(namespace, &owner.name));
        }
        if owners[1].is_none() && new.is_some() {
            for deployment in self.deployments.list_in(namespace) {
                if selector(&deployment).is_ok_and(|s| s.matches(meta::labels(&set.metadata))) {
                    self.queue.add(meta::key(&deployment.metadata));
                }
            }
        }
    }

    /// A Deployment that recreates waits for the last old pod.
    fn pod_gone(&self, pod: &PodView) {
        let Some(owner) = pod.controller().filter(|o| meta::refers_to::<ReplicaSet>(o)) else { return };
        let set = self.sets.get(&krate_api::object::key(pod.namespace(), &owner.name));
        let Some(deployment) = set.as_ref().and_then(|s| meta::controller_of(&s.metadata)) else { return };
        let key = krate_api::object::key(pod.namespace(), &deployment.name);
        if self.deployments.get(&key).is_some_and(|d| d.is_recreate()) {
            self.queue.add(key);
        }
    }

    async fn reconcile(&self, key: &str) -> Result<Outcome, Status> {
        let Some(found) = self.deployments.get(key) else { return Ok(Outcome::Done) };
        let mut deployment = (*found).clone();
        let selector = match selector(&deployment) {
            Ok(selector) if !selector.is_everything() => selector,
            _ => return self.selects_all(&mut deployment).await,
        };
        let mut sets = self.sets_by_owner.get(meta::uid(&deployment.metadata));
        sets.extend(self.sets_by_owner.get(&pods::orphans(meta::namespace(&deployment.metadata))));
        let sets = claim_all(sets, &deployment, &selector, &self.sets_api, &self.api).await?;
        let mut sets = Sets::of(&deployment, sets);
        let now = self.clock.now_seconds();
        if deployment.metadata.deletion_timestamp.is_some() {
            let status = status::counted(&deployment, &sets, now);
            self.write(&mut deployment, status).await?;
            return Ok(Outcome::Done);
        }
        let mut told = deployment.status.clone().unwrap_or_default();
        if status::pause(&deployment, &mut told, now) {
            self.write(&mut deployment, told).await?;
        }
        let status = if deployment.is_paused() || rollout::is_scaling(&deployment, &sets) {
            self.refresh(&mut deployment, &mut sets).await?;
            let scales = rollout::spread(&deployment, &sets);
            self.scale(&deployment, &mut sets, scales).await?;
            if deployment.is_paused() {
                self.clean_up(&deployment, &sets).await?;
            }
            status::counted(&deployment, &sets, now)
        } else {
            if deployment.is_recreate() {
                self.recreate(&mut deployment, &mut sets).await?;
            } else {
                self.roll(&mut deployment, &mut sets).await?;
            }
            status::rollout(&deployment, &sets, now)
        };
        self.write(&mut deployment, status).await?;
        let status = deployment.status.clone().unwrap_or_default();
        let again = status::look_again(&deployment, &status, self.clock.now());
        Ok(again.map_or(Outcome::Done, Outcome::After))
    }

    /// One step of a rolling update.
    async fn roll(&self, deployment: &mut Deployment, sets: &mut Sets) -> Result<(), Status> {
        self.ensure_new(deployment, sets).await?;
        let grow = rollout::grow_new(deployment, sets);
        if self.scale(deployment, sets, grow).await? {
            return Ok(());
        }
        let shrink = rollout::shrink_old(deployment, sets);
        if self.scale(deployment, sets, shrink).await? {
            return Ok(());
        }
        self.clean_up_if_complete(deployment, sets).await
    }

    /// One step of stopping everything old before anything new is started.
    async fn recreate(&self, deployment: &mut Deployment, sets: &mut Sets) -> Result<(), Status> {
        self.refresh(deployment, sets).await?;
        let drop = rollout::drop_old(sets);
        if self.scale(deployment, sets, drop).await? || self.old_pods_run(sets) {
            return Ok(());
        }
        self.ensure_new(deployment, sets).await?;
        let grow = rollout::grow_new(deployment, sets);
        self.scale(deployment, sets, grow).await?;
        self.clean_up_if_complete(deployment, sets).await
    }

    fn old_pods_run(&self, sets: &Sets) -> bool {
        let pods = |set: &Set| self.pods_by_controller.get(meta::uid(&set.object.metadata));
        sets.old.iter().any(|set| set.actual() > 0 || pods(set).iter().any(|p| !p.is_finished()))
    }

    /// Brings the annotations of the present set, if there is one, and of the Deployment up to date.
    async fn refresh(&self, deployment: &mut Deployment, sets: &mut Sets) -> Result<(), Status> {
        if let Some(wanted) = revision::refreshed(deployment, sets) {
            sets.replace(self.sets_api.update(wanted).await?);
        }
        let Some(new) = &sets.new else { return Ok(()) };
        let mut told = deployment.status.clone().unwrap_or_default();
        if deployment.progress_deadline().is_some() && status::condition(&told, status::PROGRESSING).is_none()
        {
            let message = format!("Found new replica set \"{}\"", new.name());
            let now = self.clock.now_seconds();
            status::set_condition(&mut told, status::PROGRESSING, "True", "FoundNewReplicaSet", message, now);
        }
        self.write_revision(deployment, new, told).await
    }

    /// As [`Controller::refresh`], and makes the set of the present template if there is none.
    async fn ensure_new(&self, deployment: &mut Deployment, sets: &mut Sets) -> Result<(), Status> {
        if sets.new.is_some() {
            return self.refresh(deployment, sets).await;
        }
        let wanted = revision::new_set(deployment, sets);
        let name = meta::name(&wanted.metadata).to_owned();
        let replicas = wanted.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        let (object, existed) = match self.sets_api.create(wanted).await {
            Ok(created) => (created, false),
            Err(status) if status.is_already_exists() => {
                (self.resolve_collision(deployment, &name, status).await?, true)
            }
            Err(status) => return self.cannot_create(deployment, &name, status).await,
        };
        if !existed && replicas > 0 {
            let message = format!("Scaled up replica set {name} from 0 to {replicas}");
            self.recorder.normal(&reference(deployment), "ScalingReplicaSet", message);
        }
        let new = Set { object };
        let mut told = deployment.status.clone().unwrap_or_default();
        if !existed && deployment.progress_deadline().is_some() {
            let message = format!("Created new replica set \"{name}\"");
            let now = self.clock.now_seconds();
            status::set_condition(
                &mut told,
                status::PROGRESSING,
                "True",
                "NewReplicaSetCreated",
                message,
                now,
            );
        }
        self.write_revision(deployment, &new, told).await?;
        sets.new = Some(new);
        Ok(())
    }

    /// The name is taken: by our own set that the cache does not show yet, or by that of another template
    /// with the same hash, for which another hash is tried next time.
    async fn resolve_collision(
        &self,
        deployment: &mut Deployment,
        name: &str,
        taken: Status,
    ) -> Result<Arc<ReplicaSet>, Status> {
        let live = self.sets_api.get(meta::namespace(&deployment.metadata), name).await?;
        let template = |t: Option<&_>| t.map(hash::canonical);
        let ours = meta::controller_of(&live.metadata)
            .is_some_and(|o| o.uid == meta::uid(&deployment.metadata))
            && template(live.spec.as_ref().and_then(|s| s.template.as_ref()))
                == template(deployment.spec.as_ref().map(|s| &s.template));
        if ours {
            return Ok(live);
        }
        let mut told = deployment.status.clone().unwrap_or_default();
        told.collision_count = Some(told.collision_count.unwrap_or(0) + 1);
        self.write(deployment, told).await?;
        Err(taken)
    }

    async fn cannot_create(
        &self,
        deployment: &mut Deployment,
        name: &str,
        status: Status,
    ) -> Result<(), Status> {
        if meta::namespace_is_terminating(&status) {
            return Err(status);
        }
        let message = format!("Failed to create new replica set \"{name}\": {status}");
        if deployment.progress_deadline().is_some() {
            let mut told = deployment.status.clone().unwrap_or_default();
            let now = self.clock.now_seconds();
            let kind = status::PROGRESSING;
            status::set_condition(&mut told, kind, "False", "ReplicaSetCreateError", message.clone(), now);
            self.write(deployment, told).await?;
        }
        self.recorder.warning(&reference(deployment), "ReplicaSetCreateError", message);
        Err(status)
    }

    /// Scales sets and notes in them what was wanted. Whether any changed its number.
    async fn scale(
        &self,
        deployment: &Deployment,
        sets: &mut Sets,
        scales: Vec<Scale>,
    ) -> Result<bool, Status> {
        let mut scaled = false;
        for (name, to) in scales {
            let Some(set) = sets.iter().find(|s| s.name() == name) else { continue };
            let from = set.replicas();
            if from == to && !rollout::annotations_differ(deployment, set) {
                continue;
            }
            let mut wanted = (*set.object).clone();
            wanted.spec.get_or_insert_default().replicas = Some(to);
            revision::note_scale(deployment, &mut wanted);
            sets.replace(self.sets_api.update(wanted).await?);
            if from != to {
                scaled = true;
                let way = if to > from { "up" } else { "down" };
                let message = format!("Scaled {way} replica set {name} from {from} to {to}");
                self.recorder.normal(&reference(deployment), "ScalingReplicaSet", message);
            }
        }
        Ok(scaled)
    }

    async fn clean_up_if_complete(&self, deployment: &Deployment, sets: &Sets) -> Result<(), Status> {
        let status = deployment.status.clone().unwrap_or_default();
        if status::is_complete(deployment, &status) { self.clean_up(deployment, sets).await } else { Ok(()) }
    }

    async fn clean_up(&self, deployment: &Deployment, sets: &Sets) -> Result<(), Status> {
        for set in rollout::beyond_history(deployment, sets) {
            let metadata = &set.object.metadata;
            let gone =
                self.sets_api.delete(meta::namespace(metadata), set.name(), delete_uid(meta::uid(metadata)));
            match gone.await {
                Err(status) if !status.is_not_found() => return Err(status),
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes the status, with the revision annotation of the present set, if either differs.
    async fn write_revision(
        &self,
        deployment: &mut Deployment,
        new: &Set,
        status: DeploymentStatus,
    ) -> Result<(), Status> {
        if let Some(revision) = revision::of_deployment(deployment, new) {
            let annotations = deployment.metadata.annotations.get_or_insert_default();
            annotations.insert(model::REVISION.to_owned(), revision);
            deployment.status = Some(status);
            *deployment = (*self.api.update_status(deployment.clone()).await?).clone();
            return Ok(());
        }
        self.write(deployment, status).await
    }

    async fn write(&self, deployment: &mut Deployment, status: DeploymentStatus) -> Result<(), Status> {
        if deployment.status.as_ref() != Some(&status) {
            deployment.status = Some(status);
            *deployment = (*self.api.update_status(deployment.clone()).await?).clone();
        }
        Ok(())
    }

    async fn selects_all(&self, deployment: &mut Deployment) -> Result<Outcome, Status> {
        let message = "This deployment is selecting all pods. A non-empty selector is required.";
        self.recorder.warning(&reference(deployment), "SelectingAll", message);
        let mut status = deployment.status.clone().unwrap_or_default();
        status.observed_generation = deployment.metadata.generation;
        self.write(deployment, status).await?;
        Ok(Outcome::Done)
    }
}

fn selector(deployment: &Deployment) -> Result<Selector, krate_api::labels::SelectorError> {
    Selector::of(deployment.spec.as_ref().map(|s| &s.selector))
}
