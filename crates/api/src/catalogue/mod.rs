//! The catalogue: one row per resource, from which discovery, routing, RBAC, OpenAPI, storage keys,
//! printing and the command line are made. A custom resource definition adds a row at run time.

pub mod autoscaling;
pub mod events;
pub mod kinds;
pub mod rows;

use crate::behaviour::Behaviour;
use crate::object::{DecodeError, Object, Shared};
use crate::schema::{self, Type};
use std::collections::HashMap;
use std::sync::Arc;

/// A verb of the API, in discovery's spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    Create,
    Delete,
    DeleteCollection,
    Get,
    List,
    Patch,
    Update,
    Watch,
}

impl Verb {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get => "get",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Update => "update",
            Self::Watch => "watch",
        }
    }
}

/// How a resource's bytes become a value. A custom resource has its own.
#[derive(Clone)]
pub struct Codec {
    pub decode: Arc<dyn Fn(&[u8]) -> Result<Box<dyn Object>, DecodeError> + Send + Sync>,
    pub empty: Arc<dyn Fn() -> Box<dyn Object> + Send + Sync>,
    /// The value of an encoding, shared with whoever holds it already.
    pub held: Arc<dyn Fn(&Shared) -> Result<Arc<dyn Object>, DecodeError> + Send + Sync>,
}

/// The way between the kind that a row shows and the kind that its space holds, where they differ
/// (`events.k8s.io` shows what the core group stores).
#[derive(Clone, Copy)]
pub struct Conversion {
    /// The stored form of an object of the row's kind.
    pub to_stored: fn(&dyn Object) -> Box<dyn Object>,
    /// An object of the row's kind from stored bytes.
    pub from_stored: fn(&[u8]) -> Result<Box<dyn Object>, DecodeError>,
}

/// A subresource as discovery shows it. Its kind may be of another group and version (`Scale`).
#[derive(Clone, Debug)]
pub struct Subresource {
    pub name: String,
    pub group: String,
    pub version: String,
    pub kind: String,
    pub verbs: Vec<Verb>,
}

/// One row of the catalogue: a resource in one served version.
pub struct Resource {
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    pub plural: String,
    pub singular: String,
    pub kind: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    pub verbs: Vec<Verb>,
    pub subresources: Vec<Subresource>,
    /// Discovery's `storageVersionHash`; empty for what is not stored.
    pub storage_hash: String,
    /// Space of the store that holds it: `pods`, `deployments.apps`. Versions and groups that show the same
    /// objects (`events`, `events.k8s.io`) name the same space.
    pub space: String,
    pub codec: Codec,
    /// Set when the space holds another kind than the row shows: encode [`Conversion::to_stored`] of what
    /// is written, serve [`Conversion::from_stored`] of what is read.
    pub conversion: Option<Conversion>,
    /// Field labels that may select, besides `metadata.name` and `metadata.namespace`, each with its name in
    /// [`crate::View::fields`].
    pub selectable: Vec<(String, String)>,
    pub behaviour: Arc<dyn Behaviour>,
}

impl Resource {
    /// `v1` or `apps/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The type of its objects in the schema table; none for custom resources.
    #[must_use]
    pub fn schema(&self) -> Option<&'static Type> {
        schema::of_kind(&self.group, &self.version, &self.kind)
    }

    /// `PodList`.
    #[must_use]
    pub fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }

    /// `pods` or `deployments.apps`, as errors name it.
    #[must_use]
    pub fn qualified(&self) -> String {
        crate::status::qualified(&self.group, &self.plural)
    }

    #[must_use]
    pub fn allows(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb)
    }

    #[must_use]
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }
}

impl std::fmt::Debug for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.api_version(), self.plural)
    }
}

/// Every resource that is served, ordered by group, version and plural.
#[derive(Clone, Default)]
pub struct Catalogue {
    rows: Vec<Arc<Resource>>,
    /// The same rows for whoever looks one up: few share their plural.
    places: HashMap<String, Vec<Arc<Resource>>>,
}

impl Catalogue {
    /// The built-in resources.
    #[must_use]
    pub fn builtin() -> Self {
        let mut catalogue = Self::default();
        for row in rows::builtin() {
            catalogue.insert(row);
        }
        catalogue
    }

    pub fn insert(&mut self, row: Resource) {
        let row = Arc::new(row);
        let order = |other: &Arc<Resource>| {
            let [a, b] = [other, &row].map(|r| (r.group.as_str(), r.version.as_str(), r.plural.as_str()));
            a.cmp(&b)
        };
        let namesakes = self.places.entry(row.plural.clone()).or_default();
        namesakes.retain(|other| order(other).is_ne());
        namesakes.push(row.clone());
        match self.rows.binary_search_by(order) {
            Ok(at) => self.rows[at] = row,
            Err(at) => self.rows.insert(at, row),
        }
    }

    #[must_use]
    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.places.get(plural)?.iter().find(|row| row.group == group && row.version == version)
    }

    /// The row of a kind, as an `apiVersion` and `kind` name it.
    #[must_use]
    pub fn by_kind(&self, api_version: &str, kind: &str) -> Option<&Arc<Resource>> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.rows.iter().find(|r| r.group == group && r.version == version && r.kind == kind)
    }

    /// All rows, ordered by group, version, plural.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.rows.iter()
    }
}
