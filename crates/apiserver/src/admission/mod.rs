//! Admission: one chain for create, update, patch, delete and connect, for every kind and subresource.
//!
//! A plugin is a small file that mutates or validates. Their order is the original's. Handlers call
//! [`Chain::admit`] and [`Chain::validate`] and know no plugin; a plugin reads what it needs from the store
//! and never writes.

mod certificates;
mod escalation;
mod limit_ranger;
mod namespace;
mod node_restriction;
mod pod;
mod pod_security;
mod resize;
mod resource_quota;
mod runtime_class;
mod service_account;
mod storage;
mod topology;

use crate::call::Call;
use crate::server::Inner;
use async_trait::async_trait;
use krate_api::{Object, Status};
use std::any::Any;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// What a plugin is told beside the object.
pub(crate) struct Attributes<'a> {
    pub call: &'a Call,
    pub operation: Operation,
    /// The stored object, for update and delete.
    pub old: Option<&'a dyn Object>,
    /// The object's name as errors tell it; for a name that is still to be generated, its beginning.
    pub name: String,
}

impl<'a> Attributes<'a> {
    /// What is done to `object` (the new one, or for a delete the old one) by a call.
    pub fn new(
        call: &'a Call,
        operation: Operation,
        object: Option<&dyn Object>,
        old: Option<&'a dyn Object>,
    ) -> Self {
        let given = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
        let own = object.map(Object::meta).and_then(|m| given(&m.name).or_else(|| given(&m.generate_name)));
        let name = if call.name.is_empty() { own.unwrap_or_default() } else { call.name.clone() };
        Self { call, operation, old, name }
    }

    /// A refusal of what is being done.
    pub fn forbidden(&self, detail: &str) -> Status {
        Status::forbidden(&self.call.resource().group, &self.call.resource().plural, &self.name, detail)
    }

    /// Whether this is about a resource itself (not a subresource) of the core group.
    pub fn is_core(&self, plural: &str) -> bool {
        let resource = self.call.resource();
        self.call.subresource.is_empty() && resource.group.is_empty() && resource.plural == plural
    }
}

/// One rule of admission.
#[async_trait]
pub(crate) trait Plugin: Send + Sync {
    /// May change the object.
    async fn admit(
        &self,
        server: &Inner,
        at: &Attributes<'_>,
        object: &mut dyn Object,
    ) -> Result<(), Status> {
        let _ = (server, at, object);
        Ok(())
    }

    /// May refuse it. There is no object for a delete.
    async fn validate(
        &self,
        server: &Inner,
        at: &Attributes<'_>,
        object: Option<&dyn Object>,
    ) -> Result<(), Status> {
        let _ = (server, at, object);
        Ok(())
    }
}

/// The plugins in their order, and the quotas, which come last.
pub(crate) struct Chain(Vec<Box<dyn Plugin>>, Option<resource_quota::Quotas>);

impl Chain {
    /// The plugins that are on by default.
    pub fn builtin() -> Self {
        let plugins: Vec<Box<dyn Plugin>> = vec![
            Box::new(namespace::NamespaceLifecycle),
            Box::new(limit_ranger::LimitRanger),
            Box::new(service_account::ServiceAccounts),
            Box::new(node_restriction::NodeRestriction),
            Box::new(pod::TaintNewNodes),
            Box::new(pod_security::PodSecurity),
            Box::new(pod::Priority),
            Box::new(pod::DefaultTolerations),
            Box::new(storage::DefaultStorageClass),
            Box::new(storage::InUseProtection),
            Box::new(storage::ClaimResize),
            Box::new(storage::PhaseTime),
            Box::new(runtime_class::RuntimeClasses),
            Box::new(certificates::Certificates),
            Box::new(storage::DefaultIngressClass),
            Box::new(topology::PodTopologyLabels),
            Box::new(resize::PodResize),
            Box::new(escalation::NoEscalation),
        ];
        Self(plugins, Some(resource_quota::Quotas::default()))
    }

    /// No plugin at all.
    pub fn none() -> Self {
        Self(vec![], None)
    }

    pub async fn admit(
        &self,
        server: &Inner,
        at: &Attributes<'_>,
        object: &mut dyn Object,
    ) -> Result<(), Status> {
        for plugin in &self.0 {
            plugin.admit(server, at, object).await?;
        }
        Ok(())
    }

    /// After validation: adds to the write's transaction what quotas are charged. The turn is kept until the
    /// transaction is committed.
    pub async fn charge(
        &self,
        server: &Inner,
        at: &Attributes<'_>,
        object: &dyn Object,
        txn: &mut krate_store::Txn,
    ) -> Result<resource_quota::Turn, Status> {
        match &self.1 {
            Some(quotas) => quotas.charge(server, at, object, txn).await,
            None => Ok(None),
        }
    }

    pub async fn validate(
        &self,
        server: &Inner,
        at: &Attributes<'_>,
        object: Option<&dyn Object>,
    ) -> Result<(), Status> {
        for plugin in &self.0 {
            plugin.validate(server, at, object).await?;
        }
        Ok(())
    }
}

/// The object as a kind, if it is one.
pub(crate) fn cast<K: 'static>(object: &dyn Object) -> Option<&K> {
    (object.as_any() as &dyn Any).downcast_ref()
}

pub(crate) fn cast_mut<K: 'static>(object: &mut dyn Object) -> Option<&mut K> {
    (object.as_any_mut() as &mut dyn Any).downcast_mut()
}
