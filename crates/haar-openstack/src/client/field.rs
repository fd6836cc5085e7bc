//! One key of an answer, read without building the rest, and where the list's next page is.
//!
//! Each service has its own way to name the next page: `servers_links`, or a bare `next`. The order of the
//! keys inside stays as it came, which for a server's addresses is the order of its networks.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, de::DeserializeOwned};

/// A key's value, and the link to the next page.
pub(super) struct Field<T> {
    pub(super) value: Option<T>,
    pub(super) next: Option<String>,
}

#[derive(Deserialize)]
struct Link {
    rel: String,
    href: String,
}

impl<T: DeserializeOwned> Field<T> {
    pub(super) fn read(body: &[u8], key: &str) -> serde_json::Result<Self> {
        let mut reader = serde_json::Deserializer::from_slice(body);
        let field = Seed { key, value: PhantomData }.deserialize(&mut reader)?;
        reader.end()?;
        Ok(field)
    }
}

struct Seed<'a, T> {
    key: &'a str,
    value: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Seed<'_, T> {
    type Value = Field<T>;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Field<T>, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Seed<'_, T> {
    type Value = Field<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "an object with the key {}", self.key)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field<T>, A::Error> {
        let links = format!("{}_links", self.key);
        let mut field = Field { value: None, next: None };
        while let Some(key) = map.next_key::<String>()? {
            if key == self.key {
                field.value = Some(map.next_value()?);
            } else if key == links {
                let links: Vec<Link> = map.next_value()?;
                field.next = links.into_iter().find(|link| link.rel == "next").map(|link| link.href);
            } else if key == "next" {
                field.next = map.next_value()?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(Vec<u32>, Option<String>)> {
        let field = Field::read(text.as_bytes(), "things").ok()?;
        Some((field.value?, field.next))
    }

    #[test]
    fn the_next_page_is_found_in_each_services_form() {
        let linked = r#"{"things": [1], "things_links": [{"rel": "previous", "href": "p"}, {"rel": "next", "href": "n"}]}"#;
        assert_eq!(read(linked), Some((vec![1], Some("n".to_owned()))));
        assert_eq!(read(r#"{"next": "/n", "things": []}"#), Some((vec![], Some("/n".to_owned()))));
        assert_eq!(read(r#"{"things": [2], "other": {"next": 1}}"#), Some((vec![2], None)));
    }

    #[test]
    fn what_is_no_such_answer_is_none() {
        for text in ["", "[]", "{}", "7", r#"{"things": null}"#, r#"{"things": [1]} trailing"#, "<html>"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
