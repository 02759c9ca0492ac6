//! NamespaceLifecycle: nothing is created in a namespace that is not there or is going away, and the
//! namespaces that every cluster has are not deleted.

use super::{Attributes, Operation, Plugin};
use crate::server::Inner;
use async_trait::async_trait;
use krate_api::meta::StatusCause;
use krate_api::types::core::v1::Namespace;
use krate_api::{Object, Status};

const PERMANENT: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) struct NamespaceLifecycle;

#[async_trait]
impl Plugin for NamespaceLifecycle {
    async fn admit(&self, server: &Inner, at: &Attributes<'_>, _: &mut dyn Object) -> Result<(), Status> {
        self.check(server, at).await
    }

    async fn validate(
        &self,
        server: &Inner,
        at: &Attributes<'_>,
        _: Option<&dyn Object>,
    ) -> Result<(), Status> {
        // What is created was checked before anything filled it in.
        match at.operation {
            Operation::Create | Operation::Update => Ok(()),
            _ => self.check(server, at).await,
        }
    }
}

impl NamespaceLifecycle {
    async fn check(&self, server: &Inner, at: &Attributes<'_>) -> Result<(), Status> {
        let call = at.call;
        if at.operation == Operation::Delete
            && at.is_core("namespaces")
            && PERMANENT.contains(&call.name.as_str())
        {
            return Err(at.forbidden("this namespace may not be deleted"));
        }
        let review = call.resource().group == "authorization.k8s.io";
        if !call.resource().namespaced || review || at.operation == Operation::Delete {
            return Ok(());
        }
        let name = &call.namespace;
        let Some(namespace) = server.read::<Namespace>("", name).await? else {
            return Err(Status::not_found("", "namespaces", name));
        };
        let phase = namespace.status.as_ref().and_then(|s| s.phase.as_deref());
        if at.operation == Operation::Create && phase == Some("Terminating") {
            let mut status = at.forbidden(&format!(
                "unable to create new content in namespace {name} because it is being terminated"
            ));
            status.0.details.get_or_insert_default().causes = Some(vec![StatusCause {
                reason: Some("NamespaceTerminating".to_owned()),
                message: Some(format!("namespace {name} is being terminated")),
                field: Some("metadata.namespace".to_owned()),
            }]);
            return Err(status);
        }
        Ok(())
    }
}
