//! The schema table: facts of every API type, field by field, from one compact file.
//!
//! It drives strict decoding, the encoding that Go would write, strategic merge, server-side apply, the
//! OpenAPI documents and protobuf. Read on first use, in about a millisecond, and then shared for ever.

mod docs;
mod read;

use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

pub use docs::Descriptions;

/// What a value is. Named Go types of scalars are in [`Field::go_name`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    String,
    Bool,
    Int32,
    Int64,
    Double,
    /// Base64 in JSON.
    Bytes,
    /// Any JSON: `RawExtension`, `FieldsV1`, the free parts of custom resource definitions.
    Any,
    Quantity,
    IntOrString,
    Time,
    MicroTime,
    /// The type with this place in the table; see [`Shape::object`].
    Object(u16),
    List(Box<Shape>),
    Map(Box<Shape>),
}

impl Shape {
    /// The type of an object.
    #[must_use]
    pub fn object(&self) -> Option<&'static Type> {
        match self {
            Self::Object(i) => TABLE.types.get(usize::from(*i)),
            _ => None,
        }
    }

    /// The shape of the items of a list or the values of a map.
    #[must_use]
    pub fn element(&self) -> Option<&Shape> {
        match self {
            Self::List(inner) | Self::Map(inner) => Some(inner),
            _ => None,
        }
    }
}

/// How two lists are merged by server-side apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    #[default]
    Atomic,
    Set,
    /// By [`Field::list_keys`].
    Map,
}

/// One field of a type.
#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    pub shape: Shape,
    /// Name of the Go type of a scalar that has one (`v1.PullPolicy`); of the items if this is a list.
    pub go_name: &'static str,
    /// Protobuf number; dotted (`2.1`) where an embedded struct is a message of its own; `0` for none.
    pub number: &'static str,
    /// `required` in the OpenAPI document.
    pub required: bool,
    /// Go writes it even when it is zero (no `omitempty`).
    pub always: bool,
    /// Go tells absent from zero.
    pub pointer: bool,
    /// Left out when it is the zero time (`omitzero`).
    pub omit_zero: bool,
    /// Declared in the document; the undeclared are atomic too.
    pub list_type: Option<ListType>,
    /// Names of the keys of a list that is a map, joined by commas.
    pub list_keys: &'static str,
    pub map_atomic: bool,
    /// Strategic merge: items are merged (by [`Self::patch_key`], or as a set of scalars).
    pub patch_merge: bool,
    /// Strategic merge: `$retainKeys` is meant.
    pub patch_retain_keys: bool,
    pub patch_key: &'static str,
    /// A default other than the zero value, as JSON.
    pub default: &'static str,
    /// See [`Self::allowed`].
    values: &'static str,
}

impl Field {
    /// Keys of a list that is a map.
    pub fn keys(&self) -> impl Iterator<Item = &'static str> {
        self.list_keys.split(',').filter(|k| !k.is_empty())
    }

    /// Allowed values, where the document enumerates them; of the items of a list.
    pub fn allowed(&self) -> impl Iterator<Item = String> {
        self.values.split(',').filter(|v| !v.is_empty()).map(|v| v.replace('~', " "))
    }

    /// What Go writes for the field when it was never set; none if it leaves it out.
    #[must_use]
    pub fn zero(&self) -> Option<&'static str> {
        if self.pointer {
            return self.always.then_some("null");
        }
        match &self.shape {
            Shape::Object(_) => self.shape.object().map(Type::zero),
            Shape::Time | Shape::MicroTime => (!self.omit_zero).then_some("null"),
            Shape::Quantity => Some("\"0\""),
            Shape::IntOrString => Some("0"),
            Shape::Any => Some("null"),
            _ if !self.always => None,
            Shape::String => Some("\"\""),
            Shape::Bool => Some("false"),
            Shape::Int32 | Shape::Int64 | Shape::Double => Some("0"),
            Shape::Bytes | Shape::List(_) | Shape::Map(_) => Some("null"),
        }
    }
}

/// A group, version and kind that is made of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindName {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
}

/// One API type.
#[derive(Debug)]
pub struct Type {
    /// `io.k8s.api.core.v1`
    pub package: &'static str,
    /// `Pod`
    pub name: &'static str,
    /// Sorted by name.
    pub fields: Vec<Field>,
    pub kinds: Vec<KindName>,
    /// Set for types that are not objects in JSON (`Quantity`).
    pub scalar: Option<Shape>,
    /// Server-side apply takes it as one value.
    pub map_atomic: bool,
    zero: OnceLock<String>,
}

impl Type {
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.position(name).map(|i| &self.fields[i])
    }

    /// The place of a field in [`Self::fields`].
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.fields.binary_search_by(|f| f.name.cmp(name)).ok()
    }

    /// The name of its OpenAPI definition.
    #[must_use]
    pub fn definition(&self) -> String {
        format!("{}.{}", self.package, self.name)
    }

    /// As Go's reflection names it: `v1.PodSpec`.
    #[must_use]
    pub fn go_name(&self) -> String {
        format!("{}.{}", self.package.rsplit('.').next().unwrap_or_default(), self.name)
    }

    /// Whether objects of the type carry `apiVersion` and `kind` of their own.
    #[must_use]
    pub fn is_kind(&self) -> bool {
        !self.kinds.is_empty()
    }

    /// The JSON that Go writes for the zero value: `{"loadBalancer":{}}` for a Service's status.
    #[must_use]
    pub fn zero(&self) -> &str {
        self.zero.get_or_init(|| {
            let fields = self.fields.iter().filter_map(|f| Some(format!("\"{}\":{}", f.name, f.zero()?)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        })
    }
}

struct Table {
    types: Vec<Type>,
    by_name: HashMap<(&'static str, &'static str), usize>,
    by_kind: HashMap<(&'static str, &'static str, &'static str), usize>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let types = read::types(include_str!("../../data/schema.txt"));
    let by_name = types.iter().enumerate().map(|(i, t)| ((t.package, t.name), i)).collect();
    let kinds = types.iter().enumerate().flat_map(|(i, t)| t.kinds.iter().map(move |k| (i, k)));
    let by_kind = kinds.map(|(i, k)| ((k.group, k.version, k.kind), i)).collect();
    Table { types, by_name, by_kind }
});

/// The type of an OpenAPI definition, `io.k8s.api.core.v1.Pod`.
#[must_use]
pub fn type_named(definition: &str) -> Option<&'static Type> {
    let (package, name) = definition.rsplit_once('.')?;
    TABLE.by_name.get(&(package, name)).map(|i| &TABLE.types[*i])
}

/// The type of a kind.
#[must_use]
pub fn of_kind(group: &str, version: &str, kind: &str) -> Option<&'static Type> {
    TABLE.by_kind.get(&(group, version, kind)).map(|i| &TABLE.types[*i])
}

/// Every type, ordered by package and name.
pub fn types() -> impl Iterator<Item = &'static Type> {
    TABLE.types.iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_well_known_fields() {
        let pod = of_kind("", "v1", "Pod").unwrap();
        assert_eq!(pod.definition(), "io.k8s.api.core.v1.Pod");
        let spec = pod.field("spec").unwrap().shape.object().unwrap();
        assert_eq!(spec.go_name(), "v1.PodSpec");
        let containers = spec.field("containers").unwrap();
        assert!(containers.required && containers.patch_merge && containers.always);
        assert_eq!(containers.patch_key, "name");
        let container = containers.shape.element().and_then(Shape::object).unwrap();
        let ports = container.field("ports").unwrap();
        assert_eq!(ports.keys().collect::<Vec<_>>(), ["containerPort", "protocol"]);
        assert_eq!(container.field("imagePullPolicy").unwrap().go_name, "v1.PullPolicy");
        assert!(container.field("nothing").is_none());
        assert_eq!(type_named("io.k8s.api.core.v1.Volume").unwrap().field("hostPath").unwrap().number, "2.1");
        let strategy = of_kind("apps", "v1", "Deployment").unwrap().field("spec").unwrap();
        let strategy = strategy.shape.object().unwrap().field("strategy").unwrap();
        assert!(strategy.patch_retain_keys);
    }

    #[test]
    fn zero_values_are_what_go_writes() {
        let zero = |name: &str| type_named(&format!("io.k8s.api.core.v1.{name}")).unwrap().zero();
        assert_eq!(zero("ServiceStatus"), r#"{"loadBalancer":{}}"#);
        assert_eq!(zero("Container"), r#"{"name":"","resources":{}}"#);
        assert_eq!(
            zero("PodCondition"),
            r#"{"lastProbeTime":null,"lastTransitionTime":null,"status":"","type":""}"#
        );
        assert_eq!(type_named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").unwrap().zero(), "{}");
    }

    #[test]
    fn every_kind_of_the_catalogue_has_its_type() {
        for row in crate::Catalogue::builtin().iter() {
            assert!(of_kind(&row.group, &row.version, &row.kind).is_some(), "{row:?}");
        }
        for ty in types() {
            assert!(ty.fields.len() <= 128, "{} has more fields than a set of them can hold", ty.name);
            assert!(ty.fields.is_sorted_by(|a, b| a.name < b.name), "{}", ty.name);
        }
    }
}
