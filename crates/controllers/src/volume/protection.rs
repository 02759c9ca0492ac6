//! Claims stay while pods use them, volumes while they are bound: by finalizers that these two controllers
//! give and take.

use super::{finalizer, has_finalizer};
use crate::env::{Env, synced, wake_due};
use crate::meta;
use crate::pods::{self, PodView};
use krate_api::Status;
use krate_api::types::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use krate_api::volumes::{CLAIM_PROTECTION, VOLUME_PROTECTION, claim_name};
use krate_client::{Api, Index, Informer, Outcome, Queue};
use std::sync::Arc;

const CLAIMS_ACCOUNT: &str = "pvc-protection-controller";
const VOLUMES_ACCOUNT: &str = "pv-protection-controller";

struct Claims {
    api: Api<PersistentVolumeClaim>,
    pod_api: Api<Pod>,
    claims: Informer<PersistentVolumeClaim>,
    users: Index<PodView>,
}

pub fn start_claims(env: &Env) {
    let claims = env.informers.of::<PersistentVolumeClaim>();
    let pods = pods::informer(&env.informers);
    let controller = Arc::new(Claims {
        api: env.api(CLAIMS_ACCOUNT),
        pod_api: env.api(CLAIMS_ACCOUNT),
        claims: claims.clone(),
        users: pods::by_claim(&pods),
    });
    let queue: Queue = env.queue("pvcprotection");
    wake_due(&claims, &queue, |claim| {
        has_finalizer(claim, CLAIM_PROTECTION) == claim.metadata.deletion_timestamp.is_some()
    });
    let (q, c) = (queue.clone(), controller.clone());
    pods.subscribe(move |old, new| {
        if new.is_none_or(|pod| pod.is_finished()) {
            let deleting =
                |key: &String| c.claims.get(key).is_some_and(|x| x.metadata.deletion_timestamp.is_some());
            let keys = new.or(old).map(|pod| pod.claims()).unwrap_or_default();
            keys.into_iter().filter(deleting).for_each(|key| q.add(key));
        }
    });
    env.run(&queue, 1, synced!(claims, pods), move |key: String| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await.map(|()| Outcome::Done) }
    });
}

impl Claims {
    async fn reconcile(&self, key: &str) -> Result<(), Status> {
        let Some(claim) = self.claims.get(key) else { return Ok(()) };
        let deleting = claim.metadata.deletion_timestamp.is_some();
        if has_finalizer(&*claim, CLAIM_PROTECTION) != deleting {
            return Ok(());
        }
        if deleting && (self.users.get(key).iter().any(|p| uses(p)) || self.used_after_all(key).await?) {
            return Ok(());
        }
        let mut wanted = (*claim).clone();
        finalizer(&mut wanted, CLAIM_PROTECTION, !deleting);
        gone_is_fine(self.api.update(wanted).await.map(drop))
    }

    /// The cache may be behind; only the server knows for sure that nobody uses a claim.
    async fn used_after_all(&self, key: &str) -> Result<bool, Status> {
        let (namespace, claim) = krate_api::object::split_key(key);
        let pods = self.pod_api.list(namespace, Default::default()).await?;
        let uses = |pod: &Pod| {
            let spec = pod.spec.clone().unwrap_or_default();
            let bound = spec.node_name.as_deref().is_some_and(|n| !n.is_empty());
            let name = meta::name(&pod.metadata);
            bound && spec.volumes.iter().flatten().any(|v| claim_name(name, v).as_deref() == Some(claim))
        };
        Ok(pods.items.iter().any(|pod| uses(pod)))
    }
}

/// A pod that is not on a node uses nothing yet, and will not get there with a claim that is being deleted.
fn uses(pod: &PodView) -> bool {
    !pod.spec.node_name.is_empty()
}

pub fn start_volumes(env: &Env) {
    let volumes = env.informers.of::<PersistentVolume>();
    let queue: Queue = env.queue("pvprotection");
    wake_due(&volumes, &queue, volume_is_due);
    let (api, cache): (Api<PersistentVolume>, _) = (env.api(VOLUMES_ACCOUNT), volumes.clone());
    env.run(&queue, 1, synced!(volumes), move |name: String| {
        let (api, cache) = (api.clone(), cache.clone());
        async move {
            let Some(volume) = cache.get(&name).filter(|v| volume_is_due(v)) else {
                return Ok(Outcome::Done);
            };
            let mut wanted = (*volume).clone();
            finalizer(&mut wanted, VOLUME_PROTECTION, volume.metadata.deletion_timestamp.is_none());
            gone_is_fine(api.update(wanted).await.map(drop))?;
            Ok::<_, Status>(Outcome::Done)
        }
    });
}

/// Whether a volume lacks the finalizer, or has it and may go.
fn volume_is_due(volume: &PersistentVolume) -> bool {
    let has = has_finalizer(volume, VOLUME_PROTECTION);
    let bound = volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
    if volume.metadata.deletion_timestamp.is_some() { has && !bound } else { !has }
}

fn gone_is_fine(written: Result<(), Status>) -> Result<(), Status> {
    match written {
        Err(status) if !status.is_not_found() => Err(status),
        _ => Ok(()),
    }
}
