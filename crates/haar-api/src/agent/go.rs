//! JSON as the seed's encoder writes it and its decoder reads it (`mistify-wire` §0.3).
//!
//! Written: `<`, `>` and `&` escaped inside strings, one newline at the end.
//! Read: keys without regard to case, an exact one first; unknown keys ignored; null as if it were absent.
//! Ours on top: a limit on depth. Deliberately absent: the seed's tolerance of what follows the first value.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

/// Levels of objects and lists that a document may have.
pub const MOST_DEPTH: usize = 32;

/// A field and the shape of what is in it.
pub type Field = (&'static str, Shape);

/// Which keys are known where.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// Taken as it is.
    Any,
    /// An object whose keys are free, such as metadata; null in it is the empty string.
    Texts,
    /// An object with these fields.
    Struct(&'static [Field]),
    /// A list of such.
    List(&'static Shape),
    /// An object with free keys and such values.
    Map(&'static Shape),
}

/// A struct of the wire that can be read as the seed reads it.
pub trait Wire: DeserializeOwned {
    /// Its fields.
    const SHAPE: Shape;
}

/// Reads a document. `null` is the struct with nothing in it.
///
/// # Errors
/// What serde says: a syntax error, a value of the wrong type, or too deep.
pub fn from_slice<T: Wire>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    from_value(serde_json::from_slice(bytes)?)
}

/// Reads a value that was parsed already.
///
/// # Errors
/// As [`from_slice`], but for the syntax.
pub fn from_value<T: Wire>(value: Value) -> Result<T, serde_json::Error> {
    if depth(&value) > MOST_DEPTH {
        return Err(serde_json::Error::custom(format!("nested deeper than {MOST_DEPTH} levels")));
    }
    let value = if value.is_null() { Value::Object(Map::new()) } else { value };
    serde_json::from_value(known(value, &T::SHAPE)?)
}

/// Levels of objects and lists in a value.
pub fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(items) => 1 + items.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The value with only known keys, in the case they are known by, and without nulls.
fn known(value: Value, shape: &Shape) -> Result<Value, serde_json::Error> {
    Ok(match (shape, value) {
        (Shape::Struct(fields), Value::Object(object)) => Value::Object(known_fields(object, fields)?),
        // Serde would take a list for the fields in their order.
        (Shape::Struct(_), _) => return Err(serde_json::Error::custom("an object is expected")),
        (Shape::List(inner), Value::Array(items)) => {
            let empty = || Value::Object(Map::new());
            let items = items.into_iter().map(|item| if item.is_null() { empty() } else { item });
            Value::Array(items.map(|item| known(item, inner)).collect::<Result<_, _>>()?)
        }
        (Shape::Map(inner), Value::Object(object)) => {
            let entry = |(key, value)| known(value, inner).map(|value| (key, value));
            Value::Object(object.into_iter().map(entry).collect::<Result<_, _>>()?)
        }
        (Shape::Texts, Value::Object(object)) => {
            let text = |value: Value| if value.is_null() { Value::from("") } else { value };
            Value::Object(object.into_iter().map(|(key, value)| (key, text(value))).collect())
        }
        (_, value) => value,
    })
}

fn known_fields(
    object: Map<String, Value>,
    fields: &[Field],
) -> Result<Map<String, Value>, serde_json::Error> {
    let mut kept = Map::new();
    for (key, value) in object {
        let exact = fields.iter().find(|(name, _)| *name == key);
        let folded = || fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(&key));
        let Some((name, shape)) = exact.or_else(folded) else { continue };
        if value.is_null() || (exact.is_none() && kept.contains_key(*name)) {
            continue;
        }
        kept.insert((*name).to_owned(), known(value, shape)?);
    }
    Ok(kept)
}

/// Writes a document: escaped as the seed's encoder does, with its newline.
///
/// # Errors
/// What serde says of a value that JSON cannot hold.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let plain = serde_json::to_string(value)?;
    let mut written = String::with_capacity(plain.len() + 1);
    // These can stand in strings only, so that they may be replaced wherever they are.
    for character in plain.chars() {
        match character {
            '<' => written.push_str("\\u003c"),
            '>' => written.push_str("\\u003e"),
            '&' => written.push_str("\\u0026"),
            '\u{2028}' => written.push_str("\\u2028"),
            '\u{2029}' => written.push_str("\\u2029"),
            other => written.push(other),
        }
    }
    written.push('\n');
    Ok(written.into_bytes())
}

/// A number without a fraction is written without a point, as the seed does.
pub(super) fn float<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    /// Below it every whole number is exact.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < EXACT {
        // Whole and within range: nothing is lost.
        return serializer.serialize_i64(*value as i64);
    }
    serializer.serialize_f64(*value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::Guest;
    use crate::rpc::SnapshotRequest;

    #[test]
    fn keys_are_matched_without_case_and_an_exact_one_wins() {
        let request: SnapshotRequest =
            from_slice(br#"{"DEST":"other","dest":"exact","DestroyMoreRecent":true,"x":1}"#).unwrap();
        assert_eq!((request.dest.as_str(), request.destroy_more_recent), ("exact", true));
    }

    #[test]
    fn null_is_as_if_absent_everywhere() {
        let guest: Guest =
            from_slice(br#"{"id":null,"nics":null,"disks":[null,{"size":null}],"metadata":{"a":null}}"#)
                .unwrap();
        assert_eq!((guest.id.as_str(), guest.disks.len(), guest.metadata["a"].as_str()), ("", 2, ""));
        assert_eq!(from_slice::<Guest>(b"null").unwrap(), Guest::default());
    }

    #[test]
    fn wrong_types_negative_sizes_and_depth_are_refused() {
        for bad in [
            r#"{"memory":-1}"#,
            r#"{"cpu":1.5}"#,
            r#"{"nics":{}}"#,
            r#"{"metadata":{"a":1}}"#,
            "[]",
            "{",
            "{}x",
        ] {
            assert!(from_slice::<Guest>(bad.as_bytes()).is_err(), "{bad}");
        }
        let deep = format!("{{\"haar\":{}{}}}", "{\"a\":".repeat(40) + "1", "}".repeat(40));
        assert!(from_slice::<Guest>(deep.as_bytes()).unwrap_err().to_string().contains("deeper"));
    }

    #[test]
    fn html_is_escaped_and_a_newline_ends_it() {
        let written = to_vec(&serde_json::json!({"a": "<b>&\u{2028}"})).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), "{\"a\":\"\\u003cb\\u003e\\u0026\\u2028\"}\n");
    }
}
