//! What a few kinds do in the same transaction as their write: services take addresses and ports.
//!
//! A hook only adds checks and changes to the transaction and fills in the object. When the transaction
//! fails on a key of the hook, the handler starts again and the hook decides anew.

use crate::call::Call;
use crate::server::Inner;
use async_trait::async_trait;
use krate_api::{Object, Resource, Status};
use krate_store::Txn;

/// The registry's part of one kind.
#[async_trait]
pub(crate) trait Hook: Send + Sync {
    /// Before validation of a new object.
    async fn create(
        &self,
        server: &Inner,
        call: &Call,
        object: &mut dyn Object,
        txn: &mut Txn,
    ) -> Result<(), Status>;

    /// Before validation of a change of the main resource.
    async fn update(
        &self,
        server: &Inner,
        call: &Call,
        new: &mut dyn Object,
        old: &dyn Object,
        txn: &mut Txn,
    ) -> Result<(), Status>;

    /// Before the removal.
    async fn delete(&self, server: &Inner, old: &dyn Object, txn: &mut Txn) -> Result<(), Status>;
}

/// The hook of a resource, if it has one.
pub(crate) fn of(resource: &Resource) -> Option<&'static dyn Hook> {
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "services") => Some(&crate::sub::service::Services),
        _ => None,
    }
}
