//! StatefulSets: pods with names, each with claims of its own, started, ended and updated in order.
//!
//! A reconcile finds the revisions, plans with [`plan`], carries the plan out until something fails, and
//! writes the status if it differs ([`status`]). A pod's name is its identity ([`identity`]): two pods of one
//! ordinal cannot be, for the API has no two objects of one name. Claims are in [`claims`].

mod claims;
mod identity;
mod plan;
mod revisions;
mod status;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use crate::claim::claim_all;
use crate::env::{Env, synced};
use crate::history::{self, History};
use crate::meta::{self, Slim};
use crate::owners::Owners;
use crate::patience::{Backoff, Patience as _};
use crate::pods::{self, PodView};
use crate::slow_start::slow_start;
use claims::{OfSet, Store};
use krate_api::labels::Selector;
use krate_api::types::apps::v1::StatefulSet;
use krate_api::types::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use krate_api::{Object, Status};
use krate_base::Clock;
use krate_client::api::delete_uid;
use krate_client::recorder::reference;
use krate_client::{Api, Index, Outcome, Recorder, Source};
use parking_lot::Mutex;
use plan::{Action, Observed, Why};
use revisions::Revisions;
use std::sync::Arc;
use std::time::Duration;

const ACCOUNT: &str = "statefulset-controller";
const WORKERS: usize = 5;
/// The longest pause before a pod that keeps failing is made anew. The original has none, and is held up
/// by the rate of its requests alone; a member of a database should not be missing for longer than needed.
const MAX_PAUSE: Duration = Duration::from_secs(60);

struct Controller {
    api: Api<StatefulSet>,
    pod_api: Api<Pod>,
    sets: Arc<Owners<StatefulSet>>,
    history: History,
    claims: Store,
    by_controller: Index<PodView>,
    recorder: Recorder,
    clock: Clock,
    backoff: Mutex<Backoff>,
}

pub fn start(env: &Env) {
    let pods = pods::informer(&env.informers);
    let by_controller = pods::by_controller(&pods);
    let sets = Owners::<StatefulSet>::watch(env, "statefulset", &pods, selector);
    let cache = env.informers.get::<Slim>(Source::of::<PersistentVolumeClaim>());
    let recorder = env.recorder(ACCOUNT, ACCOUNT);
    let controller = Arc::new(Controller {
        api: env.api(ACCOUNT),
        pod_api: env.api(ACCOUNT),
        history: History::watch(env, ACCOUNT, &sets),
        claims: Store { api: env.api(ACCOUNT), cache: cache.clone(), recorder: recorder.clone() },
        sets: sets.clone(),
        by_controller,
        recorder,
        clock: env.clock.clone(),
        backoff: Mutex::new(Backoff::up_to(MAX_PAUSE)),
    });
    let c = controller.clone();
    cache.subscribe(move |old, new| {
        if let (Some(claim), None) | (None, Some(claim)) = (old, new) {
            c.claim_came_or_went(claim);
        }
    });
    let (informer, revisions) = (sets.informer.clone(), controller.history.informer().clone());
    env.run(&sets.queue, WORKERS, synced!(informer, revisions, pods, cache), move |key: String| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
}

fn selector(set: &StatefulSet) -> Option<Selector> {
    Selector::of(set.spec.as_ref().map(|s| &s.selector)).ok()
}

/// The templates of the two revisions, decoded once.
struct Templates {
    current: PodTemplateSpec,
    update: PodTemplateSpec,
}

impl Controller {
    /// It may need its owners, or a pod may wait for it to be made anew.
    fn claim_came_or_went(&self, claim: &Slim) {
        for set in self.sets.informer.list_in(&claim.0.namespace) {
            if identity::may_be_claim(&set, &claim.0.name) {
                self.sets.queue.add(meta::key(&set.metadata));
            }
        }
    }

    async fn reconcile(&self, key: &str) -> Result<Outcome, Status> {
        let Some(set) = self.sets.informer.get(key) else {
            self.backoff.lock().prune();
            return Ok(Outcome::Done);
        };
        let Some(selector) = selector(&set).filter(|s| !s.is_everything()) else {
            tracing::warn!(key, "the selector is invalid or empty");
            return Ok(Outcome::Done);
        };
        let revisions = self.revisions(&set, &selector).await?;
        let pods = self.pods(&set, &selector).await?;
        let by_ordinal = |pod: &Arc<PodView>| Some((identity::ordinal(&set, pod.name())?, pod.clone()));
        let of_set = OfSet { store: &self.claims, set: &set };
        let observed = Observed {
            set: &set,
            current: meta::name(&revisions.current.metadata),
            update: meta::name(&revisions.update.metadata),
            pods: pods.iter().filter_map(by_ordinal).collect(),
            claims: &of_set,
            now: self.clock.now(),
        };
        let acted = self.carry_out(&observed, &of_set, &revisions).await;
        let status = status::status(&observed, revisions.collisions);
        if set.status.as_ref() != Some(&status) {
            let changed = StatefulSet { status: Some(status), ..(*set).clone() };
            self.api.update_status(changed).await?;
        }
        let paused = acted?;
        self.clean_up(&set, &revisions, &pods).await?;
        let next = paused.into_iter().chain(observed.next_available()).min();
        Ok(next.map_or(Outcome::Done, Outcome::After))
    }

    /// The set's pods; a pod that is not named like one of them is none of its business.
    async fn pods(&self, set: &StatefulSet, selector: &Selector) -> Result<Vec<Arc<PodView>>, Status> {
        let mut pods = self.by_controller.get(meta::uid(&set.metadata));
        pods.extend(self.by_controller.get(&pods::orphans(meta::namespace(&set.metadata))));
        pods.retain(|pod| identity::ordinal(set, pod.name()).is_some());
        claim_all(pods, set, selector, &self.pod_api, &self.api).await
    }

    /// Creations first, carefully; then the rest in order. Stops at the first failure. What has to wait, by
    /// how long.
    async fn carry_out(
        &self,
        observed: &Observed<'_>,
        claims: &OfSet<'_>,
        revisions: &Revisions,
    ) -> Result<Option<Duration>, Status> {
        let mut paused = None;
        let actions = plan::plan(observed);
        let create = |action: &&Action| matches!(action, Action::Create { .. });
        let (new, rest): (Vec<_>, Vec<_>) = actions.iter().partition(create);
        if !new.is_empty() {
            let templates = self.templates(observed.set, revisions);
            let one = |n: usize| self.create(observed, claims, &templates, new.get(n).copied());
            if let Some(status) = slow_start(new.len(), one).await.failure {
                return if meta::namespace_is_terminating(&status) { Ok(None) } else { Err(status) };
            }
        }
        for action in rest {
            match action {
                Action::Create { .. } => {}
                Action::CreateClaims { ordinal } => claims.create(*ordinal).await?,
                Action::Delete { pod, why: Why::Ended } if let Some(pause) = self.pause(observed, pod) => {
                    paused = Some(paused.map_or(pause, |before: Duration| before.min(pause)));
                }
                Action::Delete { pod, why } => self.delete(observed.set, pod, *why).await?,
                Action::Correct { ordinal, pod, condemned } => {
                    self.correct(claims, *ordinal, pod, *condemned).await?;
                }
            }
        }
        Ok(paused)
    }

    /// How long a pod that has ended must still wait to be made anew. A new template is tried at once.
    fn pause(&self, observed: &Observed<'_>, pod: &PodView) -> Option<Duration> {
        let place = format!("{} {}", pod.name(), observed.update);
        self.backoff.lock().of(meta::uid(&observed.set.metadata)).replace(&place).err()
    }

    /// What cannot be read back is taken from the set, whose template is that of the last revision.
    fn templates(&self, set: &StatefulSet, revisions: &Revisions) -> Templates {
        let own = || set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
        Templates {
            current: history::template(&revisions.current).unwrap_or_else(own),
            update: history::template(&revisions.update).unwrap_or_else(own),
        }
    }

    async fn create(
        &self,
        observed: &Observed<'_>,
        claims: &OfSet<'_>,
        templates: &Templates,
        action: Option<&Action>,
    ) -> Result<(), Status> {
        let Some(Action::Create { ordinal, revision }) = action else { return Ok(()) };
        claims.create(*ordinal).await?;
        let template = if revision == observed.update { &templates.update } else { &templates.current };
        let pod = identity::pod(observed.set, template, revision, *ordinal);
        let name = meta::name(&pod.metadata).to_owned();
        match self.pod_api.create(pod).await {
            Ok(created) => {
                let kept = claims.retain(*ordinal, meta::uid(&created.metadata), false).await;
                self.tell(
                    observed.set,
                    if kept.is_ok() { "create" } else { "update" },
                    &name,
                    kept.as_ref().err(),
                );
                kept
            }
            Err(status) => {
                if !status.is_already_exists() && !meta::namespace_is_terminating(&status) {
                    self.tell(observed.set, "create", &name, Some(&status));
                }
                Err(status)
            }
        }
    }

    async fn delete(&self, set: &StatefulSet, pod: &PodView, why: Why) -> Result<(), Status> {
        if why == Why::Ended {
            let (namespace, name) = (pod.namespace(), meta::name(&set.metadata));
            let about = reference(set);
            let text = |how| format!("StatefulSet {namespace}/{name} is recreating {how} Pod {}", pod.name());
            if pod.status.phase == "Failed" {
                self.recorder.warning(&about, "RecreatingFailedPod", text("failed"));
            } else {
                self.recorder.normal(&about, "RecreatingTerminatedPod", text("terminated"));
            }
        }
        match self.pod_api.delete(pod.namespace(), pod.name(), delete_uid(pod.uid())).await {
            Err(status) if status.is_not_found() => Ok(()),
            result => {
                self.tell(set, "delete", pod.name(), result.as_ref().err());
                result
            }
        }
    }

    /// Makes a pod and its claims say again whose they are. Volumes of a pod cannot be changed: a pod that
    /// has others than the set's claims gets the API's refusal told as an event, as the original does.
    async fn correct(
        &self,
        claims: &OfSet<'_>,
        ordinal: i32,
        pod: &PodView,
        condemned: bool,
    ) -> Result<(), Status> {
        claims.create(ordinal).await?;
        claims.retain(ordinal, pod.uid(), condemned).await?;
        let stored = identity::storage_matches(claims.set, ordinal, pod);
        if condemned || (identity::matches(claims.set, ordinal, pod) && stored) {
            return Ok(());
        }
        let change = |pod: &mut Pod| {
            let labels = pod.metadata.labels.get_or_insert_default();
            labels.extend(identity::labels(claims.set, ordinal).map(|(key, value)| (key.to_owned(), value)));
            if !stored {
                let spec = pod.spec.get_or_insert_default();
                identity::mount_claims(claims.set, ordinal, spec.volumes.get_or_insert_default());
            }
            true
        };
        let changed = self.pod_api.modify(pod.namespace(), pod.name(), change).await.map(drop);
        self.tell(claims.set, "update", pod.name(), changed.as_ref().err());
        changed
    }

    /// An event about what was done to a pod, or failed.
    fn tell(&self, set: &StatefulSet, verb: &str, pod: &str, failure: Option<&Status>) {
        let (about, name) = (reference(set), meta::name(set.meta()));
        let noun = match verb {
            "create" => "Create",
            "delete" => "Delete",
            _ => "Update",
        };
        match failure {
            None => {
                let message = format!("{verb} Pod {pod} in StatefulSet {name} successful");
                self.recorder.normal(&about, &format!("Successful{noun}"), message);
            }
            Some(status) => {
                let message = format!("{verb} Pod {pod} in StatefulSet {name} failed error: {status}");
                self.recorder.warning(&about, &format!("Failed{noun}"), message);
            }
        }
    }
}
