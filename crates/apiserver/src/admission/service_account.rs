//! ServiceAccount: a pod runs as an account of its namespace, with that account's pull secrets and a token
//! at the well-known place.

use super::{Attributes, Operation, Plugin, cast_mut};
use crate::server::Inner;
use async_trait::async_trait;
use krate_api::types::core::v1::{
    ConfigMapProjection, Container, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath,
    ObjectFieldSelector, Pod, PodSpec, ProjectedVolumeSource, ServiceAccount, ServiceAccountTokenProjection,
    Volume, VolumeMount, VolumeProjection,
};
use krate_api::{Kind as _, Object, Status};
use std::sync::Arc;
use std::time::Duration;

/// Where every pod finds its token.
const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Prefix of the volume's name.
const VOLUME: &str = "kube-api-access-";
/// Lifetime of the token, seconds: an hour, and a little that tells these from others.
const TOKEN_SECONDS: i64 = 3607;
const MIRROR: &str = "kubernetes.io/config.mirror";
/// How long the first pod of a new namespace waits for the `default` account.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) struct ServiceAccounts;

#[async_trait]
impl Plugin for ServiceAccounts {
    async fn admit(
        &self,
        server: &Inner,
        at: &Attributes<'_>,
        object: &mut dyn Object,
    ) -> Result<(), Status> {
        if !at.is_core("pods") || at.operation != Operation::Create {
            return Ok(());
        }
        let Some(pod) = cast_mut::<Pod>(object) else { return Ok(()) };
        let spec = pod.spec.get_or_insert_default();
        if pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR)) {
            return check_mirror(at, spec);
        }
        let account_name = match spec.service_account_name.as_deref().or(spec.service_account.as_deref()) {
            None | Some("") => "default".to_owned(),
            Some(name) => name.to_owned(),
        };
        spec.service_account_name = Some(account_name.clone());
        spec.service_account = Some(account_name.clone());
        let namespace = &at.call.namespace;
        let Some(account) = find(server, namespace, &account_name).await? else {
            let detail = format!(
                "error looking up service account {namespace}/{account_name}: serviceaccount \"{account_name}\" \
                 not found"
            );
            return Err(at.forbidden(&detail));
        };
        if spec.image_pull_secrets.as_ref().is_none_or(Vec::is_empty) {
            spec.image_pull_secrets.clone_from(&account.image_pull_secrets);
        }
        let mounts =
            spec.automount_service_account_token.or(account.automount_service_account_token).unwrap_or(true);
        if mounts {
            mount_token(server, spec);
        }
        Ok(())
    }
}

fn check_mirror(at: &Attributes<'_>, spec: &PodSpec) -> Result<(), Status> {
    if spec.service_account_name.as_deref().is_some_and(|n| !n.is_empty()) {
        return Err(at.forbidden("a mirror pod may not reference service accounts"));
    }
    let secret = spec.volumes.iter().flatten().any(|v| v.secret.is_some());
    if secret { Err(at.forbidden("a mirror pod may not reference secrets")) } else { Ok(()) }
}

/// The account; that of a new namespace is awaited, for it is made by a controller.
async fn find(server: &Inner, namespace: &str, name: &str) -> Result<Option<Arc<ServiceAccount>>, Status> {
    let from = server.store.revision();
    let found = server.read::<ServiceAccount>(namespace, name).await?;
    if found.is_some() || name != "default" {
        return Ok(found);
    }
    let wait = async {
        let mut watch = server.store.watch(ServiceAccount::PLURAL, from).await.ok()?;
        let path = krate_api::object::key(namespace, name);
        while let Ok(events) = watch.next().await {
            if events.iter().any(|e| !e.deleted && *e.entry.key.path == *path) {
                return Some(());
            }
        }
        None
    };
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(Some(())) => server.read::<ServiceAccount>(namespace, name).await,
        _ => Ok(None),
    }
}

fn mount_token(server: &Inner, spec: &mut PodSpec) {
    let present = spec.volumes.iter().flatten().find(|v| v.name.starts_with(VOLUME) && v.projected.is_some());
    let name = present.map(|v| v.name.clone());
    let (name, exists) = match name {
        Some(name) => (name, true),
        None => (format!("{VOLUME}{}", server.rng.suffix(5)), false),
    };
    let containers = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
    let mut used = false;
    for container in containers {
        used |= mount(container, &name);
    }
    if used && !exists {
        spec.volumes.get_or_insert_default().push(token_volume(&name));
    }
}

/// Mounts the token unless something is mounted there.
fn mount(container: &mut Container, volume: &str) -> bool {
    let mounts = container.volume_mounts.get_or_insert_default();
    if mounts.iter().any(|m| m.mount_path == MOUNT) {
        return false;
    }
    mounts.push(VolumeMount {
        name: volume.to_owned(),
        mount_path: MOUNT.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    });
    true
}

fn token_volume(name: &str) -> Volume {
    let token = VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            expiration_seconds: Some(TOKEN_SECONDS),
            path: "token".to_owned(),
            audience: None,
        }),
        ..VolumeProjection::default()
    };
    let authority = VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: "kube-root-ca.crt".to_owned(),
            items: Some(vec![KeyToPath { key: "ca.crt".to_owned(), path: "ca.crt".to_owned(), mode: None }]),
            optional: None,
        }),
        ..VolumeProjection::default()
    };
    let field = ObjectFieldSelector {
        api_version: Some("v1".to_owned()),
        field_path: "metadata.namespace".to_owned(),
    };
    let namespace = VolumeProjection {
        downward_api: Some(DownwardAPIProjection {
            items: Some(vec![DownwardAPIVolumeFile {
                path: "namespace".to_owned(),
                field_ref: Some(field),
                ..DownwardAPIVolumeFile::default()
            }]),
        }),
        ..VolumeProjection::default()
    };
    Volume {
        name: name.to_owned(),
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(0o644),
            sources: Some(vec![token, authority, namespace]),
        }),
        ..Volume::default()
    }
}
