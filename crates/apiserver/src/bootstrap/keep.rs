//! Keeps the `kubernetes` Service and its endpoints: who deletes them gets them back at once.
//!
//! Acts on what the store tells, never on a timer; what others write into them stays (other servers have endpoints of
//! their own).

use super::kubernetes_service;
use crate::server::Inner;
use futures::FutureExt as _;
use krate_api::types::core::v1::{Endpoints, Service};
use krate_api::types::discovery::v1::EndpointSlice;
use krate_api::{Catalogue, Kind};
use krate_base::Shutdown;
use krate_store::Watch;
use std::sync::{Arc, Weak};

/// Where each of them is in the store.
const PATH: &str = "default/kubernetes";

/// Until shutdown or until the server is gone.
pub(crate) async fn keep(server: Weak<Inner>, shutdown: Shutdown) {
    while let Some(strong) = server.upgrade() {
        let from = strong.store.revision();
        if let Err(error) = kubernetes_service(&strong).await {
            tracing::warn!(%error, "the kubernetes Service cannot be written");
        }
        let mut watches = Vec::new();
        for space in spaces(&strong.catalogue()) {
            match strong.store.watch(&space, from).await {
                Ok(watch) => watches.push(watch),
                Err(error) => return tracing::warn!(%error, "the kubernetes Service is not looked after"),
            }
        }
        drop(strong);
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            _ = futures::future::select_all(watches.into_iter().map(|w| touched(w).boxed())) => {}
        }
    }
}

fn spaces(catalogue: &Catalogue) -> Vec<Arc<str>> {
    fn of<K: Kind>(catalogue: &Catalogue) -> Option<Arc<str>> {
        catalogue.get(K::GROUP, K::VERSION, K::PLURAL).map(|row| Arc::from(row.space.as_str()))
    }
    let all = [of::<Service>(catalogue), of::<Endpoints>(catalogue), of::<EndpointSlice>(catalogue)];
    all.into_iter().flatten().collect()
}

/// Until ours goes, or the watch has fallen behind and may have missed that.
async fn touched(mut watch: Box<dyn Watch>) {
    while let Ok(events) = watch.next().await {
        if events.iter().any(|e| e.deleted && *e.entry.key.path == *PATH) {
            return;
        }
    }
}
