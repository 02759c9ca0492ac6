//! Reads the table's file.
//!
//! Lines: `%package` names a package, numbered from 0 in this order; `&N` says that the types that follow
//! are of package N; `@Type` begins a type; any other line is a field of it, `name shape number flags..`.
//!
//! Shapes: `s`tring, `b`ool, `i`nt32, `l` int64, `d`ouble, b`y`tes, `a`ny, `q`uantity, i`n`t or string,
//! `t`ime, `u` time with microseconds; a scalar's Go type after `=`; `[]` and `{}` before the shape of items
//! and values; else a type, `Name` of the same package or `N.Name` of package N.
//!
//! Flags of types: `=shape` (not an object), `ma` (atomic), `k=group/version/Kind`. Of fields: `r`equired,
//! `!` always written, `p`ointer, `z` omitted when zero, `ps=`, `pk=` patch strategy and key, `la`, `ls`,
//! `lm=keys` list types, `ma` atomic map, `d=json` default, `e=values` with `~`
//! for a space.
//!
//! The file is ours and made by a program: what cannot be read is a defect of the build, and panics.

use super::{Field, KindName, ListType, Shape, Type};
use std::collections::HashMap;
use std::sync::OnceLock;

type Places = HashMap<(&'static str, &'static str), u16>;

/// Types of the file, in its order.
pub(super) fn types(text: &'static str) -> Vec<Type> {
    let packages: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix('%')).collect();
    let places = places(text, &packages);
    let mut types: Vec<Type> = Vec::with_capacity(places.len());
    let mut package = "";
    for line in text.lines() {
        match line.split_at_checked(1) {
            None | Some(("#" | "%", _)) => {}
            Some(("&", n)) => package = packages[number(n)],
            Some(("@", rest)) => types.push(header(package, rest)),
            Some(_) => {
                let field = field(line, &Names { package, packages: &packages, places: &places });
                types.last_mut().expect("a field belongs to a type").fields.push(field);
            }
        }
    }
    types
}

fn number(text: &str) -> usize {
    text.parse().expect("the schema table numbers its packages")
}

fn places(text: &'static str, packages: &[&'static str]) -> Places {
    let mut places = Places::new();
    let mut package = "";
    for line in text.lines() {
        if let Some(n) = line.strip_prefix('&') {
            package = packages[number(n)];
        } else if let Some(rest) = line.strip_prefix('@') {
            let name = rest.split(' ').next().unwrap_or_default();
            let place = u16::try_from(places.len()).expect("fewer than 65,536 types");
            places.insert((package, name), place);
        }
    }
    places
}

fn header(package: &'static str, line: &'static str) -> Type {
    let mut words = line.split(' ');
    let mut ty = Type {
        package,
        name: words.next().unwrap_or_default(),
        fields: vec![],
        kinds: vec![],
        scalar: None,
        map_atomic: false,
        zero: OnceLock::new(),
    };
    for word in words {
        if let Some(kind) = word.strip_prefix("k=") {
            let mut parts = kind.split('/');
            let mut part = || parts.next().unwrap_or_default();
            ty.kinds.push(KindName { group: part(), version: part(), kind: part() });
        } else if let Some(shape) = word.strip_prefix('=') {
            ty.scalar = scalar(shape);
        } else if word == "ma" {
            ty.map_atomic = true;
        }
    }
    ty
}

struct Names<'a> {
    package: &'static str,
    packages: &'a [&'static str],
    places: &'a Places,
}

impl Names<'_> {
    /// A shape and the Go name of its scalar.
    fn shape(&self, text: &'static str) -> (Shape, &'static str) {
        if let Some(rest) = text.strip_prefix("[]") {
            let (inner, name) = self.shape(rest);
            return (Shape::List(Box::new(inner)), name);
        }
        if let Some(rest) = text.strip_prefix("{}") {
            let (inner, name) = self.shape(rest);
            return (Shape::Map(Box::new(inner)), name);
        }
        let (word, name) = text.split_once('=').unwrap_or((text, ""));
        if let Some(shape) = scalar(word) {
            return (shape, name);
        }
        let (package, name) = match word.split_once('.') {
            Some((n, name)) => (self.packages[number(n)], name),
            None => (self.package, word),
        };
        let place = self.places.get(&(package, name));
        (Shape::Object(*place.unwrap_or_else(|| panic!("the schema table has no {package}.{name}"))), "")
    }
}

fn scalar(word: &str) -> Option<Shape> {
    Some(match word {
        "s" => Shape::String,
        "b" => Shape::Bool,
        "i" => Shape::Int32,
        "l" => Shape::Int64,
        "d" => Shape::Double,
        "y" => Shape::Bytes,
        "a" => Shape::Any,
        "q" => Shape::Quantity,
        "n" => Shape::IntOrString,
        "t" => Shape::Time,
        "u" => Shape::MicroTime,
        _ => return None,
    })
}

fn field(line: &'static str, names: &Names) -> Field {
    let mut words = line.split(' ');
    let name = words.next().unwrap_or_default();
    let (shape, go_name) = names.shape(words.next().unwrap_or_default());
    let mut field = Field {
        name,
        shape,
        go_name,
        number: words.next().unwrap_or_default(),
        required: false,
        always: false,
        pointer: false,
        omit_zero: false,
        list_type: None,
        list_keys: "",
        map_atomic: false,
        patch_merge: false,
        patch_retain_keys: false,
        patch_key: "",
        default: "",
        values: "",
    };
    for word in words {
        flag(&mut field, word);
    }
    field
}

fn flag(field: &mut Field, word: &'static str) {
    match word.split_once('=').unwrap_or((word, "")) {
        ("r", _) => field.required = true,
        ("!", _) => field.always = true,
        ("p", _) => field.pointer = true,
        ("z", _) => field.omit_zero = true,
        ("la", _) => field.list_type = Some(ListType::Atomic),
        ("ls", _) => field.list_type = Some(ListType::Set),
        ("lm", keys) => {
            field.list_type = Some(ListType::Map);
            field.list_keys = keys;
        }
        ("ma", _) => field.map_atomic = true,
        ("ps", strategy) => {
            field.patch_merge = strategy.split(',').any(|s| s == "merge");
            field.patch_retain_keys = strategy.split(',').any(|s| s == "retainKeys");
        }
        ("pk", key) => field.patch_key = key,
        ("d", json) => field.default = json,
        ("e", values) => field.values = values,
        (other, _) => panic!("the schema table has an unknown flag {other}"),
    }
}
