//! An object in its two forms: [`Object`], a value that is being worked on, and [`Shared`], one immutable
//! encoding that is stored, cached, listed and watched by everyone.
//!
//! [`Kind`] ties a Rust type to its resource. Serde is instantiated per kind in this crate only
//! (see [`crate::catalogue::kinds`]); everybody else calls these traits.

use crate::encode::Encoded;
use crate::meta::ObjectMeta;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::Deserialize;
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

/// A Kubernetes object of any kind, typed or custom, while it is being worked on.
pub trait Object: Any + Send + Sync {
    fn api_version(&self) -> &str;
    fn kind(&self) -> &str;
    fn meta(&self) -> &ObjectMeta;
    fn meta_mut(&mut self) -> &mut ObjectMeta;
    /// The JSON of the object, with `apiVersion` and `kind`, and whether it reads as this object.
    fn encoded(&self) -> Encoded;
    /// The JSON of the object, with `apiVersion` and `kind`.
    fn encode(&self) -> Vec<u8> {
        self.encoded().bytes
    }
    fn boxed_clone(&self) -> Box<dyn Object>;
    /// Whether two objects of one kind are equal in every field.
    fn equals(&self, other: &dyn Object) -> bool;
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

/// A Rust type that is a Kubernetes kind.
pub trait Kind: Object + Clone + Default + PartialEq + std::fmt::Debug + Sized + 'static {
    /// Empty for the core group.
    const GROUP: &'static str;
    const VERSION: &'static str;
    const KIND: &'static str;
    /// `pods`; empty for kinds that are not a resource of their own (`Scale`, `Eviction`).
    const PLURAL: &'static str;
    const NAMESPACED: bool;

    /// Reads JSON. Unknown fields pass: strictness is the schema table's work.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError>;
    fn from_value(value: serde_json::Value) -> Result<Self, DecodeError>;
    fn to_value(&self) -> serde_json::Value;
}

/// The bytes are not an object of the kind.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(#[from] pub serde_json::Error);

/// What selection, ordering and delivery need of an object, without its typed value.
#[derive(Default)]
pub struct View {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub labels: BTreeMap<String, String>,
    /// Values of the selectable fields other than `metadata.name` and `metadata.namespace`.
    pub fields: Vec<(&'static str, String)>,
    pub deleting: bool,
    typed: Mutex<Typed>,
}

/// The typed value that an encoding was made from or read into. It may say the revision of another state of the
/// same content: the last state of a deleted object shares its view with the one before.
#[derive(Default)]
enum Typed {
    /// Nobody has it.
    #[default]
    Unread,
    /// Nobody has it; what the first reader decodes is kept until [`View::cool`].
    Awaited,
    /// It is there while somebody holds it.
    Held(Weak<dyn Object>),
    /// As its writer left it, without the revision that the write was to get.
    Written(Box<dyn Object>),
    /// Kept until [`View::cool`].
    Warm(Arc<dyn Object>),
}

impl View {
    /// The view of a value that is about to be stored.
    #[must_use]
    pub fn of(object: &dyn Object, fields: Vec<(&'static str, String)>) -> Self {
        let meta = object.meta();
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            labels: meta.labels.clone().unwrap_or_default(),
            fields,
            deleting: meta.deletion_timestamp.is_some(),
            typed: Mutex::default(),
        }
    }

    /// [`View::of`] of an object whose readers come soon: they share one value, which stays in memory until
    /// [`View::cool`] and afterwards while somebody holds it. It is the object itself if its encoding `reads_as_it`.
    #[must_use]
    pub fn warm(object: Box<dyn Object>, reads_as_it: bool, fields: Vec<(&'static str, String)>) -> Self {
        let mut view = Self::of(&*object, fields);
        *view.typed.get_mut() = if reads_as_it { Typed::Written(object) } else { Typed::Awaited };
        view
    }

    /// Lets go of a value that is kept for readers to come.
    pub fn cool(&self) {
        let mut typed = self.typed.lock();
        match &*typed {
            Typed::Written(_) | Typed::Awaited => *typed = Typed::Unread,
            // what only this view holds goes whole: a weak reference would keep its memory
            Typed::Warm(value) if Arc::strong_count(value) == 1 => *typed = Typed::Unread,
            Typed::Warm(value) => *typed = Typed::Held(Arc::downgrade(value)),
            Typed::Unread | Typed::Held(_) => {}
        }
    }

    /// The view of encoded bytes; reads `metadata` only. Returns the object's revision beside it.
    pub fn parse(bytes: &[u8]) -> Result<(Self, u64), DecodeError> {
        #[derive(Deserialize)]
        struct Head {
            #[serde(default)]
            metadata: Meta,
        }
        #[derive(Deserialize, Default)]
        #[serde(rename_all = "camelCase", default)]
        struct Meta {
            namespace: Option<String>,
            name: Option<String>,
            uid: Option<String>,
            resource_version: Option<String>,
            labels: Option<BTreeMap<String, String>>,
            deletion_timestamp: Option<serde::de::IgnoredAny>,
        }
        let meta = serde_json::from_slice::<Head>(bytes)?.metadata;
        let revision = meta.resource_version.and_then(|v| v.parse().ok()).unwrap_or(0);
        let view = Self {
            namespace: meta.namespace.unwrap_or_default(),
            name: meta.name.unwrap_or_default(),
            uid: meta.uid.unwrap_or_default(),
            labels: meta.labels.unwrap_or_default(),
            fields: Vec::new(),
            deleting: meta.deletion_timestamp.is_some(),
            typed: Mutex::default(),
        };
        Ok((view, revision))
    }
}

/// One immutable version of an object: its encoding and what selection needs. Cheap to clone.
#[derive(Clone)]
pub struct Shared {
    /// The JSON, with `apiVersion`, `kind` and `metadata.resourceVersion`.
    pub bytes: Bytes,
    pub revision: u64,
    pub view: Arc<View>,
}

impl Shared {
    /// From the wire.
    pub fn parse(bytes: Bytes) -> Result<Self, DecodeError> {
        let (view, revision) = View::parse(&bytes)?;
        Ok(Self { bytes, revision, view: Arc::new(view) })
    }

    /// The typed value to look at: decoded unless somebody has it (its writer, or a holder of [`Shared::kept`]).
    pub fn typed<K: Kind>(&self) -> Result<Arc<K>, DecodeError> {
        self.read(false)
    }

    /// The typed value to keep: others find it here for as long as it is held. Some of its memory stays as long as
    /// the view.
    pub fn kept<K: Kind>(&self) -> Result<Arc<K>, DecodeError> {
        self.read(true)
    }

    fn read<K: Kind>(&self, keep: bool) -> Result<Arc<K>, DecodeError> {
        if let Some(typed) = self.typed_at_hand::<K>() {
            return Ok(self.at_its_revision(typed));
        }
        let typed = Arc::new(K::decode(&self.bytes)?);
        let mut slot = self.view.typed.lock();
        match &*slot {
            Typed::Awaited => *slot = Typed::Warm(typed.clone()),
            Typed::Unread | Typed::Held(_) if keep => {
                let object: Arc<dyn Object> = typed.clone();
                *slot = Typed::Held(Arc::downgrade(&object));
            }
            // one space may be shown as two kinds: what is kept is of the kind that is stored
            Typed::Unread | Typed::Held(_) | Typed::Written(_) | Typed::Warm(_) => {}
        }
        Ok(typed)
    }

    /// The typed value if it needs no decoding. It may say another revision than [`Shared::revision`], which counts.
    #[must_use]
    pub fn typed_at_hand<K: Kind>(&self) -> Option<Arc<K>> {
        let any: Arc<dyn Any + Send + Sync> = self.at_hand()?;
        any.downcast().ok()
    }

    /// [`Shared::typed_at_hand`] of whatever kind it is.
    #[must_use]
    pub fn at_hand(&self) -> Option<Arc<dyn Object>> {
        let mut slot = self.view.typed.lock();
        match &*slot {
            Typed::Unread | Typed::Awaited => return None,
            Typed::Held(weak) => return weak.upgrade(),
            Typed::Warm(value) => return Some(value.clone()),
            Typed::Written(_) => {}
        }
        let Typed::Written(mut object) = std::mem::take(&mut *slot) else { return None };
        object.meta_mut().resource_version = Some(self.revision.to_string());
        let value: Arc<dyn Object> = Arc::from(object);
        *slot = Typed::Warm(value.clone());
        Some(value)
    }

    fn at_its_revision<K: Kind>(&self, typed: Arc<K>) -> Arc<K> {
        let says = typed.meta().resource_version.as_deref().and_then(|version| version.parse().ok());
        if says.is_none_or(|revision: u64| revision == self.revision) {
            return typed;
        }
        let mut own = K::clone(&typed);
        own.meta_mut().resource_version = Some(self.revision.to_string());
        Arc::new(own)
    }

    /// `namespace/name`, or `name` for cluster-scoped objects: the key of informers and queues.
    #[must_use]
    pub fn key(&self) -> String {
        key(&self.view.namespace, &self.view.name)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shared({} @{})", self.key(), self.revision)
    }
}

/// `namespace/name`, or `name` when there is no namespace.
#[must_use]
pub fn key(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

/// The reverse of [`key`].
#[must_use]
pub fn split_key(key: &str) -> (&str, &str) {
    key.split_once('/').unwrap_or(("", key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::core::v1::ConfigMap;

    fn shared(warm: bool) -> Shared {
        let mut map = ConfigMap::default();
        map.metadata.name = Some("a".to_owned());
        let bytes = Bytes::from(map.encode());
        let view =
            if warm { View::warm(Box::new(map), true, Vec::new()) } else { View::of(&map, Vec::new()) };
        Shared { bytes, revision: 7, view: Arc::new(view) }
    }

    #[test]
    fn what_was_written_is_there_until_it_is_cooled() {
        let shared = shared(true);
        let first = shared.typed_at_hand::<ConfigMap>().unwrap();
        assert_eq!(first.metadata.resource_version.as_deref(), Some("7"));
        assert!(Arc::ptr_eq(&first, &shared.typed().unwrap()), "decoded again");
        shared.view.cool();
        assert!(Arc::ptr_eq(&first, &shared.typed().unwrap()), "somebody holds it");
        drop(first);
        assert!(shared.at_hand().is_none());
    }

    #[test]
    fn what_nobody_holds_leaves_nothing_behind() {
        let shared = shared(true);
        drop(shared.at_hand().unwrap());
        shared.view.cool();
        assert!(matches!(*shared.view.typed.lock(), Typed::Unread), "a weak reference keeps memory");
        let looked = shared.typed::<ConfigMap>().unwrap();
        assert!(matches!(*shared.view.typed.lock(), Typed::Unread), "a look registers nothing");
        drop(looked);
    }

    #[test]
    fn what_is_kept_is_shared() {
        let shared = shared(false);
        let kept = shared.kept::<ConfigMap>().unwrap();
        assert!(Arc::ptr_eq(&kept, &shared.typed().unwrap()));
        assert!(Arc::ptr_eq(&kept, &shared.kept().unwrap()));
        drop(kept);
        assert!(shared.at_hand().is_none());
    }
}
