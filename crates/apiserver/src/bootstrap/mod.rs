//! What every cluster begins with: namespaces, roles, priority classes, the `kubernetes` Service.
//!
//! Everything goes through the same handlers as any request, as the server's own identity. Idempotent.

pub(crate) mod rbac;

use crate::pipeline::perform;
use crate::server::Inner;
use crate::user::UserInfo;
use krate_api::{Kind, Status};
use krate_client::{Body, Request, Verb};
use std::sync::Arc;

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Writes what is missing.
pub(crate) async fn run(server: &Inner) -> Result<(), Status> {
    for name in NAMESPACES {
        let mut namespace = krate_api::types::core::v1::Namespace::default();
        namespace.metadata.name = Some(name.to_owned());
        ensure(server, namespace).await?;
    }
    Ok(())
}

/// Creates the object unless one of its name exists.
pub(crate) async fn ensure<K: Kind>(server: &Inner, object: K) -> Result<(), Status> {
    let meta = object.meta();
    let namespace = meta.namespace.clone().unwrap_or_default();
    let mut request = Request::of::<K>(Verb::Create, &namespace, "");
    request.body = Some(Body::Object(Box::new(object)));
    match perform(server, &Arc::new(UserInfo::apiserver()), request).await {
        Ok(_) => Ok(()),
        Err(status) if status.is_already_exists() => Ok(()),
        Err(status) => Err(status),
    }
}
