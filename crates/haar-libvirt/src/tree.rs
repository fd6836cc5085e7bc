//! A small XML tree: what this program writes to libvirt, and what it reads back.
//!
//! Promised: everything written is escaped; what XML cannot carry unchanged (control characters) is refused
//! and named; text that was written reads back the same.
//! Deliberately absent: namespaces (names are compared without prefix), comments, mixed content.

use quick_xml::escape::{escape, resolve_xml_entity};
use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

/// An element with its attributes, its children and its own text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Element {
    /// With prefix when written, without when read.
    pub(crate) name: String,
    pub(crate) attributes: Vec<(String, String)>,
    pub(crate) children: Vec<Element>,
    pub(crate) text: String,
}

/// Why a tree cannot be written or read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Error {
    /// A character XML 1.0 cannot carry, or would change on the way.
    #[error("the value of `{place}` holds the control character U+{code:04X}: remove it")]
    Character { place: String, code: u32 },
    /// The text is not XML.
    #[error("the XML cannot be read: {0}")]
    Malformed(String),
}

impl Element {
    /// An empty element.
    pub(crate) fn new(name: &str) -> Self {
        Element { name: name.to_owned(), ..Element::default() }
    }

    /// With one more attribute.
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.attributes.push((name.to_owned(), value.into()));
        self
    }

    /// With this text and no children.
    pub(crate) fn text(mut self, text: impl Into<String>) -> Self {
        self.text = text.into();
        self
    }

    /// With one more child, the last.
    pub(crate) fn child(mut self, child: Element) -> Self {
        self.children.push(child);
        self
    }

    /// With more children, in order.
    pub(crate) fn children(mut self, children: impl IntoIterator<Item = Element>) -> Self {
        self.children.extend(children);
        self
    }

    /// The first child of that name.
    pub(crate) fn find(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// Every child of that name.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The text of the first child of that name, empty when there is none.
    pub(crate) fn text_of(&self, name: &str) -> &str {
        self.find(name).map_or("", |child| &child.text)
    }

    /// The value of an attribute of the first child of that name, empty when there is none.
    pub(crate) fn attribute_of(&self, child: &str, name: &str) -> &str {
        self.find(child).map_or("", |child| child.attribute(name))
    }

    /// The value of an attribute, empty when there is none.
    pub(crate) fn attribute(&self, name: &str) -> &str {
        self.attributes.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// The tree as indented XML.
    ///
    /// # Errors
    /// [`Error::Character`] names the first value that holds a control character.
    pub(crate) fn to_xml(&self) -> Result<String, Error> {
        let mut out = String::new();
        self.write(&mut out, 0)?;
        Ok(out)
    }

    fn write(&self, out: &mut String, depth: usize) -> Result<(), Error> {
        let indent = "  ".repeat(depth);
        out.push_str(&format!("{indent}<{}", self.name));
        for (name, value) in &self.attributes {
            // A reader would turn a newline or a tab in an attribute into a space.
            check(value, &format!("{}@{name}", self.name), &[])?;
            out.push_str(&format!(" {name}=\"{}\"", escape(value.as_str())));
        }
        if self.children.is_empty() && self.text.is_empty() {
            out.push_str("/>\n");
            return Ok(());
        }
        out.push('>');
        if self.children.is_empty() {
            check(&self.text, &self.name, &['\n', '\t'])?;
            out.push_str(&escape(self.text.as_str()));
        } else {
            out.push('\n');
            for child in &self.children {
                child.write(out, depth + 1)?;
            }
            out.push_str(&indent);
        }
        out.push_str(&format!("</{}>\n", self.name));
        Ok(())
    }

    /// Reads a document; the answer is its root element, every name without its prefix.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it is not well-formed XML with one root.
    pub(crate) fn parse(xml: &str) -> Result<Element, Error> {
        let mut reader = Reader::from_str(xml);
        // The bottom holds the root once that has ended.
        let mut open = vec![Element::default()];
        loop {
            match reader.read_event().map_err(malformed)? {
                Event::Start(start) => open.push(begin(&start)?),
                Event::Empty(start) => {
                    let element = begin(&start)?;
                    append(&mut open, |parent| parent.children.push(element))?;
                }
                Event::End(_) => {
                    let mut element = open.pop().ok_or_else(unbalanced)?;
                    if !element.children.is_empty() {
                        // What stands between children is indentation.
                        element.text.clear();
                    }
                    append(&mut open, |parent| parent.children.push(element))?;
                }
                Event::Text(text) => append(&mut open, |at| at.text.push_str(&text.xml10_content()))?,
                Event::CData(text) => append(&mut open, |at| at.text.push_str(&text.xml10_content()))?,
                Event::GeneralRef(reference) => {
                    let text = match reference.resolve_char_ref().map_err(malformed)? {
                        Some(character) => character.to_string(),
                        None => resolve_xml_entity(&reference.xml10_content())
                            .ok_or_else(|| Error::Malformed("it names an unknown entity".into()))?
                            .to_owned(),
                    };
                    append(&mut open, |at| at.text.push_str(&text))?;
                }
                Event::Eof => break,
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
            }
        }
        match (open.pop(), open.is_empty()) {
            (Some(mut bottom), true) if bottom.children.len() == 1 => Ok(bottom.children.remove(0)),
            _ => Err(unbalanced()),
        }
    }
}

fn begin(start: &BytesStart<'_>) -> Result<Element, Error> {
    let mut element = Element::new(local(start.name().as_ref()));
    for attribute in start.attributes() {
        let attribute = attribute.map_err(malformed)?;
        let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(malformed)?;
        element.attributes.push((local(attribute.key.as_ref()).to_owned(), value.into_owned()));
    }
    Ok(element)
}

fn append(open: &mut [Element], change: impl FnOnce(&mut Element)) -> Result<(), Error> {
    change(open.last_mut().ok_or_else(unbalanced)?);
    Ok(())
}

fn local(name: &str) -> &str {
    name.rsplit_once(':').map_or(name, |(_, local)| local)
}

fn malformed(error: impl std::fmt::Display) -> Error {
    Error::Malformed(error.to_string())
}

fn unbalanced() -> Error {
    Error::Malformed("it has no single root element".into())
}

/// Whether an element's text or an attribute can hold this.
pub(crate) fn can_be_written(value: &str) -> bool {
    unfit(value, &[]).is_none()
}

fn check(value: &str, place: &str, allowed: &[char]) -> Result<(), Error> {
    match unfit(value, allowed) {
        None => Ok(()),
        Some(character) => Err(Error::Character { place: place.to_owned(), code: character as u32 }),
    }
}

fn unfit(value: &str, allowed: &[char]) -> Option<char> {
    let is_unfit =
        |c: &char| (c.is_control() && !allowed.contains(c)) || matches!(*c, '\u{fffe}' | '\u{ffff}');
    value.chars().find(is_unfit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_reads_back_as_it_was_written() {
        let hostile = "a<b>&\"'</x>]]>\n\t{\"k\":\"&amp;\"} ü ";
        let tree = Element::new("a")
            .with("k", "<&\"'>")
            .child(Element::new("b").text(hostile))
            .child(Element::new("c"));
        let xml = tree.to_xml().unwrap();
        assert_eq!(Element::parse(&xml).unwrap(), tree, "{xml}");
    }

    #[test]
    fn control_characters_are_refused_and_named() {
        let text = Element::new("claim").text("a\u{0}b").to_xml().unwrap_err();
        assert_eq!(text, Error::Character { place: "claim".into(), code: 0 });
        let attribute = Element::new("source").with("file", "/a\nb").to_xml().unwrap_err();
        assert_eq!(attribute, Error::Character { place: "source@file".into(), code: 10 });
        assert!(Element::new("claim").text("a\rb").to_xml().is_err(), "a reader would change it");
    }

    #[test]
    fn what_is_not_one_document_is_an_error() {
        for text in ["", "<a>", "<a/><b/>", "<a></b>", "<a>&nope;</a>", "</a>"] {
            assert!(Element::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn prefixes_are_ignored_when_reading() {
        let tree = Element::parse("<h:a xmlns:h='urn:x'><h:b>1</h:b></h:a>").unwrap();
        assert_eq!(tree.text_of("b"), "1");
    }
}
