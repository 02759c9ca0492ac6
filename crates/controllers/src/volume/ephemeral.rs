//! Generic ephemeral volumes: each gets a claim of its own, which goes with its pod.

use crate::env::{Env, synced};
use crate::meta;
use crate::pods::{self, PodView};
use krate_api::Status;
use krate_api::meta::ObjectMeta;
use krate_api::types::core::v1::{PersistentVolumeClaim, Pod, Volume};
use krate_api::volumes::{claim_name, made_for};
use krate_client::recorder::reference;
use krate_client::{Api, Informer, Outcome, Queue, Recorder};
use std::sync::Arc;

const ACCOUNT: &str = "ephemeral-volume-controller";
const COMPONENT: &str = "ephemeral_volume";
const WORKERS: usize = 4;

struct Controller {
    pod_api: Api<Pod>,
    claim_api: Api<PersistentVolumeClaim>,
    pods: Informer<PodView>,
    claims: Informer<PersistentVolumeClaim>,
    recorder: Recorder,
}

fn is_due(pod: &PodView) -> bool {
    pod.is_active() && pod.spec.volumes.iter().any(|v| v.ephemeral.is_some())
}

pub fn start(env: &Env) {
    let pods = pods::informer(&env.informers);
    let claims = env.informers.of::<PersistentVolumeClaim>();
    let controller = Arc::new(Controller {
        pod_api: env.api(ACCOUNT),
        claim_api: env.api(ACCOUNT),
        pods: pods.clone(),
        claims: claims.clone(),
        recorder: env.recorder(ACCOUNT, COMPONENT),
    });
    let queue: Queue = env.queue("ephemeral_volume");
    let q = queue.clone();
    pods.subscribe(move |old, new| {
        if let (None, Some(pod)) = (old, new.filter(|p| is_due(p))) {
            q.add(pod.metadata.key());
        }
    });
    let (q, by_claim) = (queue.clone(), pods::by_claim(&pods));
    claims.subscribe(move |old, new| {
        // A claim that was in the way may be gone now.
        if let (Some(claim), None) = (old, new) {
            let users = by_claim.get(&meta::key(&claim.metadata));
            users.iter().filter(|p| is_due(p)).for_each(|p| q.add(p.metadata.key()));
        }
    });
    env.run(&queue, WORKERS, synced!(pods, claims), move |key: String| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
}

impl Controller {
    async fn reconcile(&self, key: &str) -> Result<Outcome, Status> {
        if self.pods.get(key).is_none_or(|pod| !is_due(&pod)) {
            return Ok(Outcome::Done);
        }
        let (namespace, name) = krate_api::object::split_key(key);
        // The slim pod does not carry the template.
        let Some(pod) = self.pod_api.get_opt(namespace, name).await? else { return Ok(Outcome::Done) };
        if pod.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        for volume in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
            if volume.ephemeral.is_some() {
                self.provide(&pod, volume).await?;
            }
        }
        Ok(Outcome::Done)
    }

    async fn provide(&self, pod: &Pod, volume: &Volume) -> Result<(), Status> {
        let name = claim_name(meta::name(&pod.metadata), volume).unwrap_or_default();
        let namespace = meta::namespace(&pod.metadata);
        if let Some(claim) = self.claims.get(&krate_api::object::key(namespace, &name)) {
            return made_for(pod, &claim).map_err(Status::internal);
        }
        let Some(claim) = wanted(pod, volume, name) else { return Ok(()) };
        match self.claim_api.create(claim).await {
            Ok(_) => Ok(()),
            Err(status) if status.is_already_exists() || meta::namespace_is_terminating(&status) => Ok(()),
            Err(status) => {
                let text = format!("ephemeral volume {}: create PVC: {}", volume.name, status.message());
                self.recorder.warning(&reference(pod), "FailedCreate", text);
                Err(status)
            }
        }
    }
}

/// The claim that a volume's template asks for.
fn wanted(pod: &Pod, volume: &Volume, name: String) -> Option<PersistentVolumeClaim> {
    let template = volume.ephemeral.as_ref()?.volume_claim_template.clone()?;
    let of_template = template.metadata.unwrap_or_default();
    Some(PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: pod.metadata.namespace.clone(),
            labels: of_template.labels,
            annotations: of_template.annotations,
            owner_references: Some(vec![meta::controller_reference(pod)]),
            ..ObjectMeta::default()
        },
        spec: Some(template.spec),
        status: None,
    })
}
