//! The persistent volume binder: brings claims and volumes together, and takes care of volumes whose claims
//! are gone.
//!
//! A claim and a volume refer to each other, so a binding takes four writes. Each step looks at what is there
//! and goes on from it; whoever is interrupted in between finds its way again. One worker does both sides: two
//! claims never race for one volume.

mod claims;
mod recycle;
mod volumes;
mod write;

use super::COMPONENT;
use crate::env::{Env, synced};
use crate::meta;
use crate::pods::{self, PodView};
use krate_api::Status;
use krate_api::types::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use krate_api::types::storage::v1::StorageClass;
use krate_api::volumes::{class_of_claim, class_of_volume};
use krate_client::{Api, Index, Informer, Outcome, Queue, Recorder};
use std::sync::Arc;

const ACCOUNT: &str = "persistent-volume-binder";

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key {
    Claim(String),
    Volume(String),
}

struct Binder {
    claim_api: Api<PersistentVolumeClaim>,
    volume_api: Api<PersistentVolume>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    /// Volumes by the key of the claim that they refer to.
    referring: Index<PersistentVolume>,
    classes: Informer<StorageClass>,
    pods: Index<PodView>,
    pod_api: Api<Pod>,
    recorder: Recorder,
}

pub fn start(env: &Env) {
    let claims = env.informers.of::<PersistentVolumeClaim>();
    let volumes = env.informers.of::<PersistentVolume>();
    let classes = env.informers.of::<StorageClass>();
    let pods = pods::informer(&env.informers);
    let binder = Arc::new(Binder {
        claim_api: env.api(ACCOUNT),
        volume_api: env.api(ACCOUNT),
        claims: claims.clone(),
        volumes: volumes.clone(),
        referring: volumes.index("claim", |volume| claim_key(volume).into_iter().collect()),
        classes: classes.clone(),
        pods: pods::by_claim(&pods),
        pod_api: env.api(ACCOUNT),
        recorder: env.recorder(ACCOUNT, COMPONENT),
    });
    let queue: Queue<Key> = env.queue("claims_and_volumes");
    let (q, b) = (queue.clone(), binder.clone());
    claims.subscribe(move |old, new| {
        let Some(claim) = new.or(old) else { return };
        let key = meta::key(&claim.metadata);
        b.referring.keys(&key).into_iter().for_each(|volume| q.add(Key::Volume(volume)));
        q.add(Key::Claim(key));
    });
    let (q, b) = (queue.clone(), binder.clone());
    volumes.subscribe(move |old, new| b.volume_changed(&q, old, new));
    let (q, b) = (queue.clone(), binder.clone());
    classes.subscribe(move |old, new| {
        if let Some(class) = new.or(old) {
            // It may have become the default.
            b.waiting(meta::name(&class.metadata), true).for_each(|key| q.add(Key::Claim(key)));
        }
    });
    let (q, b) = (queue.clone(), binder.clone());
    pods.subscribe(move |old, new| {
        if let Some(volume) = new.or(old).and_then(|pod| recycle::volume_of(&pod.metadata)) {
            q.add(Key::Volume(volume.to_owned()));
        }
        // A claim that waits for its first pod says which one it waits for.
        if let (None, Some(pod)) = (old, new) {
            let pending = |key: &String| b.claims.get(key).is_some_and(|c| is_unbound(&c));
            pod.claims().into_iter().filter(pending).for_each(|key| q.add(Key::Claim(key)));
        }
    });
    env.run(&queue, 1, synced!(claims, volumes, classes, pods), move |key: Key| {
        let binder = binder.clone();
        async move {
            match key {
                Key::Claim(key) => binder.sync_claim(&key).await?,
                Key::Volume(name) => binder.sync_volume(&name).await?,
            }
            Ok::<_, Status>(Outcome::Done)
        }
    });
}

/// The key of the claim that a volume refers to.
fn claim_key(volume: &PersistentVolume) -> Option<String> {
    let reference = volume.spec.as_ref()?.claim_ref.as_ref()?;
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    Some(krate_api::object::key(&part(&reference.namespace), &part(&reference.name)))
}

fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default()
}

fn is_unbound(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending") == "Pending"
}

impl Binder {
    fn volume_changed(
        &self,
        queue: &Queue<Key>,
        old: Option<&Arc<PersistentVolume>>,
        new: Option<&Arc<PersistentVolume>>,
    ) {
        let Some(volume) = new.or(old) else { return };
        queue.add(Key::Volume(meta::name(&volume.metadata).to_owned()));
        let referred = [old, new].into_iter().flatten().filter_map(|v| claim_key(v));
        referred.for_each(|key| queue.add(Key::Claim(key)));
        let named = |claim: &Arc<PersistentVolumeClaim>| {
            volume_name(claim) == meta::name(&volume.metadata) && is_unbound(claim)
        };
        let claims = self.claims.list();
        claims.iter().filter(|c| named(c)).for_each(|c| queue.add(Key::Claim(meta::key(&c.metadata))));
        if new.is_some_and(|v| v.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Available")) {
            self.waiting(class_of_volume(volume), false).for_each(|key| queue.add(Key::Claim(key)));
        }
    }

    /// Claims that wait for a volume of a class; with `default`, also those that name no class yet.
    fn waiting(&self, class: &str, default: bool) -> impl Iterator<Item = String> {
        let claims = self.claims.list();
        let class = class.to_owned();
        claims.into_iter().filter(move |c| is_unbound(c)).filter_map(move |claim| {
            let fits = match class_of_claim(&claim) {
                Some(named) => named == class,
                None => default || class.is_empty(),
            };
            fits.then(|| meta::key(&claim.metadata))
        })
    }
}
