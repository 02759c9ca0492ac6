//! The columns and cells of `kubectl get`, made by the server (`meta.k8s.io/v1` Table).
//!
//! One printer per kind: its columns are data, its cells a pure function of the object and the time. Cells
//! with a priority above 0 are always filled; the client shows them with `-o wide`. Kinds without a printer
//! have a name and a creation time.

mod access;
mod core;
mod network;
mod pods;
mod storage;
mod text;
mod workloads;

use crate::catalogue::Resource;
use crate::object::Object;
use jiff::Timestamp;
use serde_json::{Value, json};

pub use text::human_duration;

/// One column definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    /// `string`, `integer`, `boolean`, `date`.
    pub kind: &'static str,
    /// `name` for the column that names the object.
    pub format: &'static str,
    pub description: &'static str,
    /// 0 is always shown, more only in wide output.
    pub priority: i32,
}

impl Column {
    /// The JSON of a `TableColumnDefinition`.
    #[must_use]
    pub fn definition(&self) -> Value {
        json!({"name": self.name, "type": self.kind, "format": self.format,
            "description": self.description, "priority": self.priority})
    }

    const fn wide(mut self) -> Self {
        self.priority = 1;
        self
    }
}

const fn column(name: &'static str, kind: &'static str, description: &'static str) -> Column {
    Column { name, kind, format: "", description, priority: 0 }
}

const fn string(name: &'static str, description: &'static str) -> Column {
    column(name, "string", description)
}

const fn integer(name: &'static str, description: &'static str) -> Column {
    column(name, "integer", description)
}

const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    description: "Name of the object, unique among its kind in its namespace.",
    priority: 0,
};
const AGE: Column = string("Age", "Time since the object was created.");
const CONTAINERS: Column = string("Containers", "Names of the containers in the template.").wide();
const IMAGES: Column = string("Images", "Images that the containers in the template use.").wide();
const SELECTOR: Column = string("Selector", "Labels of the pods that belong to it.").wide();

const DEFAULT: &[Column] = &[NAME, column("Created At", "date", "When the object was created.")];

/// How one kind is printed.
struct Printer {
    group: &'static str,
    kind: &'static str,
    columns: &'static [Column],
    cells: fn(&dyn Object, Timestamp) -> Option<Vec<Value>>,
}

/// `print!(Kind, COLUMNS, |object, now| cells)`.
macro_rules! print {
    ($ty:ty, $columns:expr, $cells:expr) => {
        $crate::table::Printer {
            group: <$ty as $crate::object::Kind>::GROUP,
            kind: <$ty as $crate::object::Kind>::KIND,
            columns: $columns,
            cells: |object, now| {
                let cells: fn(&$ty, jiff::Timestamp) -> Vec<serde_json::Value> = $cells;
                (object.as_any() as &dyn std::any::Any).downcast_ref::<$ty>().map(|o| cells(o, now))
            },
        }
    };
}
use print;

/// The printers of a kind: of each version that it is shown in.
fn printers<'a>(group: &'a str, kind: &'a str) -> impl Iterator<Item = &'static Printer> + use<'a> {
    let all = [
        core::PRINTERS,
        pods::PRINTERS,
        workloads::PRINTERS,
        network::PRINTERS,
        storage::PRINTERS,
        access::PRINTERS,
    ];
    all.into_iter().flatten().filter(move |p| p.group == group && p.kind == kind)
}

/// The columns of a kind. Subresources of another kind (`Scale`) have their own.
#[must_use]
pub fn columns_of(group: &str, kind: &str) -> &'static [Column] {
    printers(group, kind).next().map_or(DEFAULT, |p| p.columns)
}

/// The columns of a resource.
#[must_use]
pub fn columns(resource: &Resource) -> &'static [Column] {
    columns_of(&resource.group, &resource.kind)
}

/// The cells of an object of `group` and `kind`, one for each of [`columns_of`].
#[must_use]
pub fn row_of(group: &str, kind: &str, object: &dyn Object, now: Timestamp) -> Vec<Value> {
    let cells = printers(group, kind).find_map(|p| (p.cells)(object, now));
    cells.unwrap_or_else(|| {
        let meta = object.meta();
        let created = meta.creation_timestamp.as_ref();
        vec![json!(meta.name), json!(created.map_or_else(|| "<unknown>".to_owned(), |t| text::rfc3339(t.0)))]
    })
}

/// The cells of an object, one for each of [`columns`].
#[must_use]
pub fn row(resource: &Resource, object: &dyn Object, now: Timestamp) -> Vec<Value> {
    row_of(&resource.group, &resource.kind, object, now)
}

/// What a row says of its object beside the cells: pods that have ended.
#[must_use]
pub fn conditions(object: &dyn Object) -> Vec<Value> {
    pods::conditions(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Catalogue;

    #[test]
    fn every_row_of_the_catalogue_has_a_cell_for_each_column() {
        for resource in Catalogue::builtin().iter() {
            let object = (resource.codec.empty)();
            let cells = row(resource, &*object, Timestamp::UNIX_EPOCH);
            assert_eq!(cells.len(), columns(resource).len(), "{resource:?}");
            assert!(columns(resource).iter().any(|c| c.format == "name"), "{resource:?}");
        }
    }

    #[test]
    fn roles_show_when_they_were_created() {
        let catalogue = Catalogue::builtin();
        let roles = catalogue.get("rbac.authorization.k8s.io", "v1", "roles").unwrap();
        let mut role = (roles.codec.empty)();
        role.meta_mut().name = Some("r".into());
        role.meta_mut().creation_timestamp = Some(crate::meta::Time(Timestamp::UNIX_EPOCH));
        assert_eq!(row(roles, &*role, Timestamp::UNIX_EPOCH), [json!("r"), json!("1970-01-01T00:00:00Z")]);
    }
}
