//! Keeps the authorizer's indexes as the store has it: loads everything once, then follows the changes.

use super::Authorizer;
use crate::codec::Rows;
use crate::error::from_store;
use crate::server::Inner;
use krate_api::types::core::v1::{PersistentVolumeClaim, Pod};
use krate_api::types::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use krate_api::{Catalogue, Kind, Status};
use krate_base::Shutdown;
use krate_store::{Entry, Error, ListQuery, Watch};
use std::sync::{Arc, Weak};

/// A kind that the indexes are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Role,
    ClusterRole,
    RoleBinding,
    ClusterRoleBinding,
    Pod,
    Claim,
}

const SOURCES: [Source; 6] = [
    Source::Role,
    Source::ClusterRole,
    Source::RoleBinding,
    Source::ClusterRoleBinding,
    Source::Pod,
    Source::Claim,
];

impl Source {
    fn rows(self, catalogue: &Catalogue) -> Option<Rows> {
        fn row<K: Kind>(catalogue: &Catalogue) -> Option<Rows> {
            let row = catalogue.get(K::GROUP, K::VERSION, K::PLURAL)?;
            Some(Rows::of(catalogue, row))
        }
        match self {
            Self::Role => row::<Role>(catalogue),
            Self::ClusterRole => row::<ClusterRole>(catalogue),
            Self::RoleBinding => row::<RoleBinding>(catalogue),
            Self::ClusterRoleBinding => row::<ClusterRoleBinding>(catalogue),
            Self::Pod => row::<Pod>(catalogue),
            Self::Claim => row::<PersistentVolumeClaim>(catalogue),
        }
    }
}

/// Loads the indexes and returns, per source, the revision from which to follow.
pub(crate) async fn load(server: &Inner) -> Result<u64, Status> {
    let catalogue = server.catalogue();
    let revision = server.store.revision();
    server.authz.rbac.write().clear();
    server.authz.nodes.write().clear();
    for source in SOURCES {
        let Some(rows) = source.rows(&catalogue) else { continue };
        let space = Arc::from(rows.stored.space.as_str());
        let query = ListQuery { space, prefix: String::new(), after: None, limit: 0, at: None };
        for entry in server.store.list(query).await.map_err(from_store)?.entries {
            apply(&server.authz, source, &rows, &entry, false);
        }
    }
    Ok(revision)
}

/// Lets the node index see the pods and claims that the store has now. Only for refusals: it looks at all.
pub(super) async fn catch_up(server: &Inner) -> Result<(), Status> {
    let catalogue = server.catalogue();
    for source in [Source::Claim, Source::Pod] {
        let Some(rows) = source.rows(&catalogue) else { continue };
        let space: Arc<str> = Arc::from(rows.stored.space.as_str());
        let query = ListQuery { space, prefix: String::new(), after: None, limit: 0, at: None };
        for entry in server.store.list(query).await.map_err(from_store)?.entries {
            apply(&server.authz, source, &rows, &entry, false);
            // The index may have heard of its end already, and must not keep it.
            if server.store.get(&entry.key, None).await.map_err(from_store)?.0.is_none() {
                apply(&server.authz, source, &rows, &entry, true);
            }
        }
    }
    Ok(())
}

/// Follows the store until shutdown or until the server is gone; starts over when it falls behind.
pub(crate) async fn follow(server: Weak<Inner>, mut from: u64, shutdown: Shutdown) {
    while let Some(strong) = server.upgrade() {
        let mut watches = Vec::new();
        let mut behind = false;
        for source in SOURCES {
            let Some(rows) = source.rows(&strong.catalogue()) else { continue };
            match strong.store.watch(&rows.stored.space, from).await {
                Ok(watch) => watches.push((source, rows, watch)),
                Err(Error::Compacted { .. }) => {
                    behind = true;
                    break;
                }
                Err(_) => return,
            }
        }
        drop(strong);
        behind |= watches.is_empty();
        let tasks = watches
            .into_iter()
            .map(|(source, rows, watch)| Box::pin(follow_one(server.clone(), source, rows, watch)));
        if !behind {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                _ = futures::future::select_all(tasks) => {}
            }
        }
        // One of them fell behind: read everything anew.
        let Some(strong) = server.upgrade() else { return };
        match load(&strong).await {
            Ok(revision) => from = revision,
            Err(error) => {
                tracing::error!(%error, "the authorizer cannot read the store");
                return;
            }
        }
    }
}

async fn follow_one(server: Weak<Inner>, source: Source, rows: Rows, mut watch: Box<dyn Watch>) {
    while let Ok(events) = watch.next().await {
        let Some(server) = server.upgrade() else { return };
        for event in events {
            apply(&server.authz, source, &rows, &event.entry, event.deleted);
        }
    }
}

fn apply(authz: &Authorizer, source: Source, rows: &Rows, entry: &Entry, deleted: bool) {
    let object = rows.shared(entry);
    let (namespace, name) = (&object.view.namespace, &object.view.name);
    if deleted {
        match source {
            Source::Role | Source::ClusterRole => authz.rbac.write().remove_role(namespace, name),
            Source::RoleBinding | Source::ClusterRoleBinding => {
                authz.rbac.write().remove_binding(namespace, name);
            }
            Source::Pod => authz.nodes.write().remove_pod(&object.key()),
            Source::Claim => {}
        }
        return;
    }
    let read = match source {
        Source::Role => object.typed::<Role>().map(|o| authz.rbac.write().put_role(&o)),
        Source::ClusterRole => object.typed::<ClusterRole>().map(|o| authz.rbac.write().put_cluster_role(&o)),
        Source::RoleBinding => object.typed::<RoleBinding>().map(|o| authz.rbac.write().put_binding(&o)),
        Source::ClusterRoleBinding => {
            object.typed::<ClusterRoleBinding>().map(|o| authz.rbac.write().put_cluster_binding(&o))
        }
        Source::Claim => object.typed::<PersistentVolumeClaim>().map(|o| authz.nodes.write().put_claim(&o)),
        Source::Pod => {
            let node =
                object.view.fields.iter().find(|(f, _)| *f == "spec.nodeName").map(|(_, v)| v.as_str());
            match node {
                Some("") => Ok(()),
                Some(node) if authz.nodes.read().knows(&object.key(), node) => Ok(()),
                _ => object.typed::<Pod>().map(|o| authz.nodes.write().put_pod(&object.key(), &o)),
            }
        }
    };
    if let Err(error) = read {
        tracing::error!(key = %object.key(), %error, "an object cannot be read for authorization");
    }
}
