//! A YAML document as the configuration sees it: keys in order and duplicates kept, so that mistakes have paths.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Visitor};

/// The longest configuration file, bytes.
pub(super) const FILE_BYTES_MAX: usize = 1024 * 1024;

/// What a document may unfold to, as one a node and one a byte of text. Every node takes at least a byte of the
/// file, so only aliases of aliases can reach it.
const UNFOLDED_MAX: usize = 2 * FILE_BYTES_MAX;

/// The most keys of one block: more than the plans there can be. Blocks are searched from end to end.
const KEYS_MAX: usize = 2_000;

/// One node of a document.
#[derive(Clone, Debug)]
pub(super) enum Tree {
    Null,
    Bool(bool),
    Whole(i128),
    Fraction(f64),
    Text(String),
    List(Vec<Tree>),
    Block(Vec<(String, Tree)>),
    /// The text of an environment variable, which becomes a number, a list or a text by where it stands.
    Variable(String),
}

impl Tree {
    /// Reads one document; an empty one is `Null`.
    pub(super) fn parse(text: &str) -> Result<Tree, serde_yaml::Error> {
        Unfold(&Cell::new(UNFOLDED_MAX)).deserialize(serde_yaml::Deserializer::from_str(text))
    }

    /// What kind of node it is, with its article, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Tree::Null => "nothing",
            Tree::Bool(_) => "true or false",
            Tree::Whole(_) => "a whole number",
            Tree::Fraction(_) => "a fraction",
            Tree::Text(_) | Tree::Variable(_) => "a string",
            Tree::List(_) => "a list",
            Tree::Block(_) => "a block of keys",
        }
    }

    /// Lays `over` on top of this tree: blocks merge key by key, everything else is replaced. A block left empty
    /// changes nothing. What `whole` names, at the top, is replaced as a whole.
    pub(super) fn lay(&mut self, over: Tree, whole: Option<&str>) {
        match (self, over) {
            (Tree::Block(_), Tree::Null) => {}
            (Tree::Block(entries), Tree::Block(more)) => {
                // A key given twice is kept twice, for the reader to complain of.
                let mut laid: Vec<usize> = Vec::new();
                for (key, value) in more {
                    let place = entries.iter().position(|(name, _)| *name == key);
                    match place {
                        Some(at) if !laid.contains(&at) => {
                            laid.push(at);
                            if whole == Some(key.as_str()) {
                                entries[at].1 = value
                            } else {
                                entries[at].1.lay(value, None)
                            }
                        }
                        _ => {
                            laid.push(entries.len());
                            entries.push((key, value));
                        }
                    }
                }
            }
            (place, over) => *place = over,
        }
    }

    /// Puts the text of an environment variable at a path, making the blocks on the way. A path that leads through
    /// something other than a block puts nothing: the reader, which knows where blocks belong, tells of it.
    pub(super) fn put(&mut self, path: &[String], text: String) {
        let Some((key, rest)) = path.split_first() else {
            *self = Tree::Variable(text);
            return;
        };
        if matches!(self, Tree::Null) {
            *self = Tree::Block(Vec::new());
        }
        if let Tree::Block(entries) = self {
            let at = entries.iter().position(|(name, _)| name == key).unwrap_or_else(|| {
                entries.push((key.clone(), Tree::Null));
                entries.len() - 1
            });
            entries[at].1.put(rest, text);
        }
    }
}

/// Builds a [`Tree`], counting what it holds.
#[derive(Clone, Copy)]
struct Unfold<'a>(&'a Cell<usize>);

impl Unfold<'_> {
    fn count<E: Error>(self, size: usize) -> Result<(), E> {
        let left = self.0.get().checked_sub(size);
        self.0.set(left.ok_or_else(|| E::custom("its aliases unfold to too much"))?);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Unfold<'_> {
    type Value = Tree;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Tree, D::Error> {
        self.count(1)?;
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unfold<'_> {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("plain YAML")
    }

    fn visit_unit<E: Error>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Whole(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Whole(value.into()))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Tree, E> {
        Ok(Tree::Whole(value))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Tree, E> {
        Ok(Tree::Whole(i128::try_from(value).unwrap_or(i128::MAX)))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Fraction(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Tree, E> {
        self.count(value.len())?;
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = from.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = from.next_key_seed(self)? {
            if entries.len() == KEYS_MAX {
                return Err(A::Error::custom(format_args!("a block has over {KEYS_MAX} keys")));
            }
            let key = match key {
                Tree::Text(key) => key,
                // A plan may well be called 2026; a number is as good a name as any.
                Tree::Whole(number) => number.to_string(),
                other => return Err(A::Error::custom(format_args!("a key must be a name, not {}", other.kind()))),
            };
            entries.push((key, from.next_value_seed(self)?));
        }
        Ok(Tree::Block(entries))
    }

    // Without this, serde's own message would show the tag, which is the operator's text.
    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Tree, A::Error> {
        Err(A::Error::custom("tags (!name) are not used here"))
    }
}
