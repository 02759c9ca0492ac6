//! A call to the API as a value, and the border over which it goes.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use krate_api::meta::DeleteOptions;
use krate_api::{Kind, Object, Shared, Status};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Get,
    List,
    Create,
    Update,
    Patch(PatchKind),
    Delete,
    DeleteCollection,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    Json,
    Merge,
    StrategicMerge,
    Apply,
}

impl PatchKind {
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::StrategicMerge => "application/strategic-merge-patch+json",
            Self::Apply => "application/apply-patch+yaml",
        }
    }
}

/// A request's body.
pub enum Body {
    /// A typed object; in process it is used as it is, over the wire it is encoded once.
    Object(Box<dyn Object>),
    /// Encoded bytes: a patch, or an object of a kind that the caller does not know.
    Bytes(Bytes),
}

/// The parameters of a request, with the names of the API's query parameters.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub label_selector: String,
    pub field_selector: String,
    pub resource_version: String,
    pub resource_version_match: String,
    pub limit: usize,
    pub continue_token: String,
    pub timeout_seconds: Option<u32>,
    pub allow_watch_bookmarks: bool,
    pub send_initial_events: Option<bool>,
    pub dry_run: bool,
    pub field_manager: String,
    /// `Ignore`, `Warn`, `Strict`, or empty for the default.
    pub field_validation: String,
    pub force: bool,
    /// Grace period, propagation policy and preconditions of a delete.
    pub delete: Option<DeleteOptions>,
}

/// A call about one resource.
pub struct Request {
    pub verb: Verb,
    pub group: String,
    pub version: String,
    pub plural: String,
    /// Empty for cluster-scoped resources, and for lists over all namespaces.
    pub namespace: String,
    /// Empty for collections.
    pub name: String,
    /// Empty for the main resource.
    pub subresource: String,
    pub options: Options,
    pub body: Option<Body>,
}

impl Request {
    /// A request about kind `K`.
    #[must_use]
    pub fn of<K: Kind>(verb: Verb, namespace: &str, name: &str) -> Self {
        Self {
            verb,
            group: K::GROUP.to_owned(),
            version: K::VERSION.to_owned(),
            plural: K::PLURAL.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: String::new(),
            options: Options::default(),
            body: None,
        }
    }
}

/// A successful answer.
#[derive(Debug)]
pub enum Reply {
    Object(Shared),
    List {
        items: Vec<Shared>,
        /// The list's resourceVersion.
        revision: u64,
        /// Empty on the last page.
        continue_token: String,
    },
    /// Answers that are not objects with a revision: a `Status` of success, a review.
    Bytes(Bytes),
}

/// A change as a watcher sees it.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    Added(Shared),
    Modified(Shared),
    Deleted(Shared),
    /// Everything up to this revision has been delivered. `initial_end` marks the end of the initial
    /// events when they were asked for.
    Bookmark {
        revision: u64,
        initial_end: bool,
    },
}

/// A watch that goes on until it ends, by an error (for example 410 Expired) or by the server's timeout.
pub type WatchStream = BoxStream<'static, Result<WatchEvent, Status>>;

/// The border between whoever works with the API and the API.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    async fn send(&self, request: Request) -> Result<Reply, Status>;

    /// Opens a watch of a collection (verb and body of the request are ignored).
    async fn watch(&self, request: Request) -> Result<WatchStream, Status>;
}
