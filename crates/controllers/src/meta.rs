//! Metadata as controllers keep it of many objects, and small helpers on owners and labels.

use jiff::Timestamp;
use krate_api::meta::{ObjectMeta, OwnerReference, Time};
use krate_api::object::DecodeError;
use krate_api::{Kind, Reason, Shared, Status};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Reads `null`, which Go writes for empty lists and maps, as the empty value.
pub fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// `metadata` without what no controller reads (managed fields).
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct MetaView {
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub namespace: String,
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub name: String,
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub uid: String,
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub resource_version: String,
    pub generation: i64,
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub owner_references: Vec<OwnerReference>,
    #[serde(deserialize_with = "crate::meta::or_default")]
    pub finalizers: Vec<String>,
    pub creation_timestamp: Option<Time>,
    pub deletion_timestamp: Option<Time>,
    pub deletion_grace_period_seconds: Option<i64>,
}

/// An object of any kind of which only the metadata is read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slim(pub MetaView);

impl krate_client::View for Slim {
    fn of(object: &Shared) -> Result<Arc<Self>, DecodeError> {
        #[derive(Deserialize)]
        struct Head {
            metadata: MetaView,
        }
        if let Some(known) = object.at_hand() {
            let mut metadata = MetaView::of(known.meta());
            metadata.resource_version = object.revision.to_string();
            return Ok(Arc::new(Self(metadata)));
        }
        let head: Head = serde_json::from_slice(&object.bytes)?;
        Ok(Arc::new(Self(head.metadata)))
    }
}

impl MetaView {
    /// The same of a typed object.
    #[must_use]
    pub fn of(meta: &ObjectMeta) -> Self {
        Self {
            namespace: namespace(meta).to_owned(),
            name: name(meta).to_owned(),
            uid: uid(meta).to_owned(),
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            generation: meta.generation.unwrap_or(0),
            labels: labels(meta).clone(),
            annotations: meta.annotations.clone().unwrap_or_default(),
            owner_references: meta.owner_references.clone().unwrap_or_default(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
            creation_timestamp: meta.creation_timestamp.clone(),
            deletion_timestamp: meta.deletion_timestamp.clone(),
            deletion_grace_period_seconds: meta.deletion_grace_period_seconds,
        }
    }

    #[must_use]
    pub fn key(&self) -> String {
        krate_api::object::key(&self.namespace, &self.name)
    }

    #[must_use]
    pub fn is_deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    #[must_use]
    pub fn controller(&self) -> Option<&OwnerReference> {
        controller(&self.owner_references)
    }

    /// Creation time; the epoch when there is none.
    #[must_use]
    pub fn created(&self) -> Timestamp {
        self.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0)
    }
}

/// The owner that manages an object, if there is one.
#[must_use]
pub fn controller(owners: &[OwnerReference]) -> Option<&OwnerReference> {
    owners.iter().find(|o| o.controller == Some(true))
}

/// The managing owner of a typed object.
#[must_use]
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    controller(meta.owner_references.as_deref().unwrap_or_default())
}

/// The reference by which `owner` manages an object.
#[must_use]
pub fn controller_reference<K: Kind>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: owner.api_version().to_owned(),
        kind: K::KIND.to_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Whether a reference names the group and kind (any version).
#[must_use]
pub fn refers_to<K: Kind>(reference: &OwnerReference) -> bool {
    let group = reference.api_version.split_once('/').map_or("", |(group, _)| group);
    reference.kind == K::KIND && group == K::GROUP
}

#[must_use]
pub fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

#[must_use]
pub fn namespace(meta: &ObjectMeta) -> &str {
    meta.namespace.as_deref().unwrap_or_default()
}

#[must_use]
pub fn uid(meta: &ObjectMeta) -> &str {
    meta.uid.as_deref().unwrap_or_default()
}

#[must_use]
pub fn key(meta: &ObjectMeta) -> String {
    krate_api::object::key(namespace(meta), name(meta))
}

#[must_use]
pub fn created(meta: &ObjectMeta) -> Timestamp {
    meta.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0)
}

/// Labels, empty when there are none.
#[must_use]
pub fn labels(meta: &ObjectMeta) -> &BTreeMap<String, String> {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    meta.labels.as_ref().unwrap_or(&NONE)
}

#[must_use]
pub fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Whether a create failed because its namespace is being deleted: nothing more is to be created there.
#[must_use]
pub fn namespace_is_terminating(status: &Status) -> bool {
    let causes = status.0.details.as_ref().and_then(|d| d.causes.as_ref());
    status.is(Reason::Forbidden)
        && causes.into_iter().flatten().any(|c| c.reason.as_deref() == Some("NamespaceTerminating"))
}
