//! XML to a document: elements with elements in them are objects, or arrays if all of these are called `item`; all others
//! are texts.
//!
//! Attributes are passed over, save those by which our answers tell an empty element from an empty text.

use std::borrow::Cow;

use super::super::xml::{Elements, Empty, walk};
use super::super::{Fault, invalid_body};
use super::{DEPTH_MAX, Document, NODES_MAX};
use crate::pure::format::xml::key_of;

/// Reads the root, whatever its name.
pub(super) fn read(text: &str) -> Result<Document, Fault> {
    let mut tree = Tree { open: Vec::new(), root: Document::Null, nodes: 0 };
    walk(text, DEPTH_MAX, &mut tree)?;
    Ok(tree.root)
}

/// As much of a document as has come.
struct Tree {
    open: Vec<Element>,
    /// What it comes to, once its root is closed.
    root: Document,
    nodes: usize,
}

/// An open element.
struct Element {
    name: String,
    empty: Empty,
    text: String,
    children: Vec<(String, Document)>,
}

impl Elements<'_> for Tree {
    fn open(&mut self, name: &str, empty: Empty) -> Result<(), Fault> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(invalid_body("XML with too much in it"));
        }
        self.open.push(Element { name: key_of(name), empty, text: String::new(), children: Vec::new() });
        Ok(())
    }

    fn text(&mut self, piece: Cow<'_, str>) {
        if let Some(element) = self.open.last_mut() {
            element.text.push_str(&piece);
        }
    }

    fn close(&mut self) -> Result<(), Fault> {
        let Some(element) = self.open.pop() else { return Err(Fault::Internal) };
        let (name, value) = element.closed()?;
        match self.open.last_mut() {
            Some(parent) => parent.children.push((name, value)),
            None => self.root = value,
        }
        Ok(())
    }
}

impl Element {
    /// Its name, and what it is now that all of it is known.
    fn closed(self) -> Result<(String, Document), Fault> {
        let Element { name, empty, text, children } = self;
        let is_blank = text.trim_ascii().is_empty();
        let value = match (children.is_empty(), empty) {
            (true, Empty::Null) if is_blank => Document::Null,
            (_, Empty::Null) => return Err(invalid_body("XML with something in an element that is nil")),
            (true, Empty::Object) if is_blank => Document::Object(Vec::new()),
            (true, Empty::Array) if is_blank => Document::Array(Vec::new()),
            (true, _) => Document::Text(text),
            (false, _) if !is_blank => return Err(invalid_body("XML with text beside elements")),
            (false, _) if children.iter().all(|(name, _)| name == "item") => {
                Document::Array(children.into_iter().map(|(_, item)| item).collect())
            }
            (false, _) => Document::grouped(children),
        };
        Ok((name, value))
    }
}
