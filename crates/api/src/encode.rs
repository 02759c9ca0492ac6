//! JSON as the original writes it, from typed values, in one pass.
//!
//! `k8s-openapi` leaves out what is `None` and writes the rest. Go leaves out fields with `omitempty` that
//! are zero or empty, and always writes the others, some as `null`, some as `{}` (`resources`, `strategy`,
//! `status`). The schema table knows which are which: this serializer drops the one sort behind itself and
//! puts in the other. Quantities become canonical. Values without a type in the table (custom resources, raw
//! extensions) are written as they are.

use crate::absent;
use crate::quantity;
use crate::schema::{Field, Shape, Type};
use serde::ser::{self, Serialize};

/// The JSON of a value.
#[derive(Debug, Default)]
pub struct Encoded {
    pub bytes: Vec<u8>,
    /// The JSON says what the value does not, or in other words: reading it gives another value.
    pub altered: bool,
}

/// The JSON of `value`, which is of type `ty`.
///
/// # Errors
/// When a map has a key that is not a string, which no API type has.
pub fn encode<T: Serialize + ?Sized>(
    value: &T,
    ty: Option<&'static Type>,
) -> Result<Encoded, serde_json::Error> {
    let mut out = Encoded { bytes: Vec::with_capacity(1024), altered: false };
    value.serialize(Writer { out: &mut out, hint: ty.map_or(Hint::None, Hint::Object) })?;
    Ok(out)
}

/// What is known of the value that comes next.
#[derive(Clone, Copy)]
enum Hint {
    None,
    Object(&'static Type),
    Shape(&'static Shape),
}

impl Hint {
    fn object(self) -> Option<&'static Type> {
        match self {
            Self::None => None,
            Self::Object(ty) => Some(ty),
            Self::Shape(shape) => shape.object(),
        }
    }

    /// What is known of the items of a list or the values of a map.
    fn element(self) -> Self {
        match self {
            Self::Shape(shape) => shape.element().map_or(Self::None, Self::Shape),
            _ => Self::None,
        }
    }
}

struct Writer<'a> {
    out: &'a mut Encoded,
    hint: Hint,
}

type Result_ = Result<(), serde_json::Error>;

fn plain<T: Serialize + ?Sized>(out: &mut Encoded, value: &T) -> Result_ {
    serde_json::to_writer(&mut out.bytes, value)
}

macro_rules! scalars {
    ($($name:ident: $ty:ty),*) => {$(
        fn $name(self, value: $ty) -> Result_ {
            plain(self.out, &value)
        }
    )*};
}

impl<'a> ser::Serializer for Writer<'a> {
    type Ok = ();
    type Error = serde_json::Error;
    type SerializeSeq = Items<'a>;
    type SerializeTuple = Items<'a>;
    type SerializeTupleStruct = Items<'a>;
    type SerializeTupleVariant = ser::Impossible<(), serde_json::Error>;
    type SerializeMap = Entries<'a>;
    type SerializeStruct = Fields<'a>;
    type SerializeStructVariant = ser::Impossible<(), serde_json::Error>;

    scalars!(serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_f32: f32,
        serialize_char: char, serialize_bytes: &[u8]);

    /// Go writes whole numbers without a fraction.
    fn serialize_f64(self, value: f64) -> Result_ {
        if value.fract() == 0.0 && value.abs() < 1e15 {
            return plain(self.out, &(value as i64));
        }
        plain(self.out, &value)
    }

    fn serialize_str(self, value: &str) -> Result_ {
        if matches!(self.hint, Hint::Shape(Shape::Quantity))
            && let Ok(text) = quantity::canonical(value)
        {
            self.out.altered |= text != value;
            return plain(self.out, text.as_ref());
        }
        plain(self.out, value)
    }

    fn serialize_none(self) -> Result_ {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result_ {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result_ {
        self.out.bytes.extend_from_slice(b"null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result_ {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result_ {
        plain(self.out, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result_ {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result_ {
        self.out.bytes.push(b'{');
        plain(self.out, variant)?;
        self.out.bytes.push(b':');
        value.serialize(Writer { out: self.out, hint: Hint::None })?;
        self.out.bytes.push(b'}');
        Ok(())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Items<'a>, serde_json::Error> {
        self.out.bytes.push(b'[');
        Ok(Items { out: self.out, hint: self.hint.element(), first: true })
    }

    fn serialize_tuple(self, len: usize) -> Result<Items<'a>, serde_json::Error> {
        self.serialize_seq(Some(len))
    }

    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Items<'a>, serde_json::Error> {
        self.serialize_seq(Some(len))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, serde_json::Error> {
        Err(ser::Error::custom("no API type is a tuple variant"))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Entries<'a>, serde_json::Error> {
        self.out.bytes.push(b'{');
        Ok(Entries { out: self.out, hint: self.hint.element(), first: true })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Fields<'a>, serde_json::Error> {
        self.out.bytes.push(b'{');
        Ok(Fields { out: self.out, ty: self.hint.object(), next: 0, first: true })
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, serde_json::Error> {
        Err(ser::Error::custom("no API type is a struct variant"))
    }
}

/// The items of a list.
struct Items<'a> {
    out: &'a mut Encoded,
    hint: Hint,
    first: bool,
}

impl Items<'_> {
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result_ {
        if !self.first {
            self.out.bytes.push(b',');
        }
        self.first = false;
        value.serialize(Writer { out: self.out, hint: self.hint })
    }

    fn finish(self) -> Result_ {
        self.out.bytes.push(b']');
        Ok(())
    }
}

impl ser::SerializeSeq for Items<'_> {
    type Ok = ();
    type Error = serde_json::Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result_ {
        self.item(value)
    }

    fn end(self) -> Result_ {
        self.finish()
    }
}

impl ser::SerializeTuple for Items<'_> {
    type Ok = ();
    type Error = serde_json::Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result_ {
        self.item(value)
    }

    fn end(self) -> Result_ {
        self.finish()
    }
}

impl ser::SerializeTupleStruct for Items<'_> {
    type Ok = ();
    type Error = serde_json::Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result_ {
        self.item(value)
    }

    fn end(self) -> Result_ {
        self.finish()
    }
}

/// The entries of a map.
struct Entries<'a> {
    out: &'a mut Encoded,
    hint: Hint,
    first: bool,
}

impl ser::SerializeMap for Entries<'_> {
    type Ok = ();
    type Error = serde_json::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result_ {
        if !self.first {
            self.out.bytes.push(b',');
        }
        self.first = false;
        let start = self.out.bytes.len();
        plain(self.out, key)?;
        if self.out.bytes.get(start) == Some(&b'"') {
            return Ok(());
        }
        Err(ser::Error::custom("key must be a string"))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result_ {
        self.out.bytes.push(b':');
        value.serialize(Writer { out: self.out, hint: self.hint })
    }

    fn end(self) -> Result_ {
        self.out.bytes.push(b'}');
        Ok(())
    }
}

/// The fields of an object. They come in the table's order, but for `apiVersion` and `kind`, which a kind
/// writes first.
struct Fields<'a> {
    out: &'a mut Encoded,
    ty: Option<&'static Type>,
    /// Place in the table of the first field that is not yet dealt with.
    next: usize,
    first: bool,
}

fn is_type_meta(ty: &Type, name: &str) -> bool {
    ty.is_kind() && matches!(name, "apiVersion" | "kind")
}

impl Fields<'_> {
    fn key(&mut self, name: &str) {
        if !self.first {
            self.out.bytes.push(b',');
        }
        self.first = false;
        // Names of fields need no escapes.
        self.out.bytes.push(b'"');
        self.out.bytes.extend_from_slice(name.as_bytes());
        self.out.bytes.extend_from_slice(b"\":");
    }

    /// Writes the zero values of the fields that were passed over, up to `name` or the end, and returns the
    /// field `name`.
    fn advance(&mut self, name: Option<&str>) -> Option<&'static Field> {
        let ty = self.ty?;
        if name.is_some_and(|n| is_type_meta(ty, n)) {
            return None;
        }
        while let Some(field) = ty.fields.get(self.next) {
            match name {
                Some(name) if field.name > name => return None,
                Some(name) if field.name == name => {
                    self.next += 1;
                    return Some(field);
                }
                _ => {}
            }
            self.next += 1;
            if let Some(zero) = field.zero().filter(|_| !is_type_meta(ty, field.name)) {
                self.key(field.name);
                self.out.bytes.extend_from_slice(zero.as_bytes());
                self.out.altered |= zero != "null";
            }
        }
        None
    }
}

impl ser::SerializeStruct for Fields<'_> {
    type Ok = ();
    type Error = serde_json::Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result_ {
        let field = self.advance(Some(name));
        let (start, first) = (self.out.bytes.len(), self.first);
        self.key(name);
        let value_start = self.out.bytes.len();
        let hint = field.map_or(Hint::None, |f| Hint::Shape(&f.shape));
        value.serialize(Writer { out: self.out, hint })?;
        let Some(field) = field.filter(|f| !f.pointer) else { return Ok(()) };
        let written = written(field, &self.out.bytes[value_start..]);
        self.out.altered |= !matches!(written, Written::Value);
        match written {
            Written::Value => {}
            Written::Nothing => {
                self.out.bytes.truncate(start);
                self.first = first;
            }
            Written::Null => {
                self.out.bytes.truncate(value_start);
                self.out.bytes.extend_from_slice(b"null");
            }
        }
        Ok(())
    }

    fn end(mut self) -> Result_ {
        self.advance(None);
        self.out.bytes.push(b'}');
        Ok(())
    }
}

enum Written {
    Value,
    /// Go would leave it out.
    Nothing,
    /// Go has no empty list here, only none.
    Null,
}

fn written(field: &Field, json: &[u8]) -> Written {
    let empty = match &field.shape {
        Shape::List(_) => json == b"[]",
        Shape::Map(_) => json == b"{}",
        Shape::String | Shape::Bytes => json == b"\"\"",
        Shape::Bool => json == b"false",
        Shape::Int32 | Shape::Int64 | Shape::Double => json == b"0",
        Shape::Time | Shape::MicroTime => absent::is_zero_time(json),
        _ => false,
    };
    match (empty, field.always, &field.shape) {
        (false, ..) => Written::Value,
        (true, _, Shape::Time | Shape::MicroTime) if !field.omit_zero => Written::Null,
        (true, false, _) => Written::Nothing,
        (true, true, Shape::List(_) | Shape::Map(_) | Shape::Bytes) => Written::Null,
        (true, true, _) => Written::Value,
    }
}

#[cfg(test)]
mod tests {
    use crate::Kind;
    use crate::types::{apps::v1::Deployment, core::v1 as core, discovery::v1::EndpointSlice};

    fn again<K: Kind>(json: &str) -> String {
        String::from_utf8(K::decode(json.as_bytes()).unwrap().encode()).unwrap()
    }

    #[test]
    fn what_go_always_writes_is_there() {
        assert_eq!(
            again::<core::Service>(r#"{"metadata":{"name":"a"}}"#),
            r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"a"},"spec":{},"status":{"loadBalancer":{}}}"#
        );
        assert_eq!(
            again::<Deployment>(r#"{"spec":{"template":{"spec":{"containers":[{"name":"c"}]}}}}"#),
            r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{},"spec":{"selector":{},"strategy":{},"template":{"metadata":{},"spec":{"containers":[{"name":"c","resources":{}}]}}},"status":{}}"#
        );
        assert_eq!(
            again::<core::Event>(r#"{"type":"Normal","firstTimestamp":"2026-01-01T00:00:00Z"}"#),
            r#"{"apiVersion":"v1","kind":"Event","eventTime":null,"firstTimestamp":"2026-01-01T00:00:00Z","involvedObject":{},"lastTimestamp":null,"metadata":{},"reportingComponent":"","reportingInstance":"","source":{},"type":"Normal"}"#
        );
    }

    #[test]
    fn a_time_that_was_never_set_is_null() {
        let service = |time: &str| {
            let json = r#"{"metadata":{},"status":{"conditions":[{TIME"message":"m","reason":"r","status":"True","type":"T"}]}}"#;
            json.replace("TIME", time)
        };
        let written = r#"{"apiVersion":"v1","kind":"Service","metadata":{},"spec":{},"status":{"conditions":[{"lastTransitionTime":null,"message":"m","reason":"r","status":"True","type":"T"}],"loadBalancer":{}}}"#;
        for time in ["", r#""lastTransitionTime":null,"#, r#""lastTransitionTime":"0001-01-01T00:00:00Z","#] {
            assert_eq!(again::<core::Service>(&service(time)), written);
        }
        assert_eq!(again::<core::Service>(written), written);
        assert!(core::Service::decode(service(r#""lastTransitionTime":7,"#).as_bytes()).is_err());
        let event = r#"{"eventTime":"2026-01-01T00:00:00.000000Z","series":{"count":1}}"#;
        let written = again::<crate::types::events::v1::Event>(event);
        assert!(written.contains(r#""series":{"count":1,"lastObservedTime":null}"#), "{written}");
    }

    #[test]
    fn what_go_leaves_out_is_not() {
        assert_eq!(
            again::<core::Pod>(
                r#"{"metadata":{"labels":{},"annotations":{"a":""},"finalizers":[],"generateName":""},
                "spec":{"hostNetwork":false,"enableServiceLinks":false,"nodeName":"","volumes":[],
                "containers":[{"name":"c","image":"","env":[{"name":"x","value":""}],"stdin":false,
                "resources":{"limits":{"cpu":"0.5","memory":"1024Mi"},"requests":{}}}]}}"#
            ),
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"annotations":{"a":""}},"spec":{"containers":[{"env":[{"name":"x"}],"name":"c","resources":{"limits":{"cpu":"500m","memory":"1Gi"}}}],"enableServiceLinks":false},"status":{}}"#
        );
    }

    #[test]
    fn lists_that_go_has_none_of_are_null() {
        assert_eq!(
            again::<EndpointSlice>(r#"{"addressType":"IPv4","endpoints":[]}"#),
            r#"{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","addressType":"IPv4","endpoints":null,"metadata":{},"ports":null}"#
        );
    }
}
