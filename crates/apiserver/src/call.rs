//! One request about a resource on its way through the pipeline, and its answer.

use crate::codec::Rows;
use crate::user::UserInfo;
use bytes::Bytes;
use krate_api::{Resource, Shared, Status};
use krate_client::Options;
use krate_store::Key;
use parking_lot::Mutex;
use std::sync::Arc;

/// What every handler is told. The verb is the handler.
pub(crate) struct Call {
    pub user: Arc<UserInfo>,
    pub rows: Rows,
    pub namespace: String,
    pub name: String,
    pub subresource: String,
    pub options: Options,
    /// What is wrong with the body as it was sent and its JSON does not tell: duplicate keys in YAML.
    pub found: Vec<String>,
    /// Texts for `Warning` headers.
    pub warnings: Mutex<Vec<String>>,
}

impl Call {
    /// The row that is asked about.
    pub fn resource(&self) -> &Arc<Resource> {
        &self.rows.shown
    }

    /// The key of the object that is asked about.
    pub fn key(&self) -> Key {
        Key::new(self.resource().space.as_str(), self.path(&self.name))
    }

    pub fn warn(&self, text: impl Into<String>) {
        let mut warnings = self.warnings.lock();
        let text = text.into();
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// The path of an object in its space.
    pub fn path(&self, name: &str) -> String {
        krate_api::object::key(&self.namespace, name)
    }

    pub fn not_found(&self) -> Status {
        Status::not_found(&self.resource().group, &self.resource().plural, &self.name)
    }

    /// A conflict of this object.
    pub fn conflict(&self, detail: &str) -> Status {
        Status::conflict(&self.resource().group, &self.resource().plural, &self.name, detail)
    }

    pub fn invalid(&self, name: &str, errors: &[krate_api::field::Error]) -> Status {
        Status::invalid(&self.resource().group, &self.resource().kind, name, errors)
    }
}

/// One page of a collection.
pub(crate) struct Listed {
    pub items: Vec<Shared>,
    pub revision: u64,
    /// Empty on the last page.
    pub continue_token: String,
    /// How many objects follow this page, where that is known.
    pub remaining: Option<i64>,
}

/// What a handler answers.
pub(crate) enum Outcome {
    Object {
        object: Shared,
        created: bool,
    },
    List(Listed),
    /// A `Status` of success, a review: not an object with a revision.
    Encoded {
        code: u16,
        bytes: Bytes,
    },
}

impl Outcome {
    pub fn object(object: Shared) -> Self {
        Self::Object { object, created: false }
    }
}
