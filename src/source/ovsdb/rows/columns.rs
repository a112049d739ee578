//! The columns of a row in the notation of RFC 7047, 5.1: values, sets, maps and references.

use std::sync::Arc;

use serde_json::{Value, value::RawValue};
use uuid::Uuid;

use super::Object;

/// The columns of a row, and which of them did not hold what they should.
pub(super) struct Columns<'a> {
    pub(super) values: Object<'a>,
    pub(super) misfits: Vec<&'static str>,
}

impl Columns<'_> {
    pub(super) fn get<T>(&mut self, name: &'static str, decode: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        self.get_raw(name, |value| decode(&serde_json::from_str(value.get()).ok()?))
    }

    fn get_raw<T>(&mut self, name: &'static str, decode: impl FnOnce(&RawValue) -> Option<T>) -> Option<T> {
        let decoded = decode(self.values.get(name)?);
        if decoded.is_none() {
            self.misfits.push(name);
        }
        decoded
    }

    /// A column that holds references to rows, in order. A bridge may have thousands of them.
    pub(super) fn references(&mut self, name: &'static str) -> Vec<Uuid> {
        let mut rows = self.get_raw(name, references).unwrap_or_default();
        rows.sort_unstable();
        rows.dedup();
        rows
    }

    /// A column that holds a value or nothing.
    pub(super) fn optional<T>(&mut self, name: &'static str, decode: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        self.get(name, |value| match set(value)? {
            [] => Some(None),
            [value] => decode(value).map(Some),
            _ => None,
        })?
    }

    /// A column that holds any number of values.
    pub(super) fn set<T>(&mut self, name: &'static str, decode: impl Fn(&Value) -> Option<T>) -> Vec<T> {
        self.get(name, |value| set(value)?.iter().map(decode).collect()).unwrap_or_default()
    }

    /// A column that maps text to text; of its values, `keys`.
    pub(super) fn map<const N: usize>(&mut self, name: &'static str, keys: [&str; N]) -> [Option<Arc<str>>; N] {
        let pick = |value: &Value| {
            let pairs = pairs(value)?;
            let find = |key| pairs.iter().find(|(k, _)| *k == key).filter(|(_, v)| !v.is_empty());
            Some(keys.map(|key| find(key).map(|(_, value)| Arc::from(*value))))
        };
        self.get(name, pick).unwrap_or([const { None }; N])
    }
}

/// The members of a `<set>`: one that stands for itself, or any number.
fn set(value: &Value) -> Option<&[Value]> {
    match value.as_array().map(Vec::as_slice) {
        Some([tag, Value::Array(members)]) if tag == "set" => Some(members),
        // An atom: text, a number, a truth value. (A fourth sort, `["uuid", …]`, is in `references`.)
        None if !value.is_object() && !value.is_null() => Some(std::slice::from_ref(value)),
        _ => None,
    }
}

/// The pairs of a `<map>` from text to text.
fn pairs(value: &Value) -> Option<Vec<(&str, &str)>> {
    match value.as_array()?.as_slice() {
        [tag, Value::Array(pairs)] if tag == "map" => pairs
            .iter()
            .map(|pair| match pair.as_array()?.as_slice() {
                [key, value] => Some((key.as_str()?, value.as_str()?)),
                _ => None,
            })
            .collect(),
        _ => None,
    }
}

/// The members of a `<set>` of `<uuid>`s.
fn references(value: &RawValue) -> Option<Vec<Uuid>> {
    type Reference<'a> = (&'a str, Uuid);
    let reference = |(tag, uuid): Reference| (tag == "uuid").then_some(uuid);
    if let Ok(one) = serde_json::from_str(value.get()) {
        return Some(vec![reference(one)?]);
    }
    let (tag, members): (&str, Vec<Reference>) = serde_json::from_str(value.get()).ok()?;
    members.into_iter().map(reference).collect::<Option<_>>().filter(|_| tag == "set")
}
