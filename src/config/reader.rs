//! Typed reading of a [`Tree`]: every mistake is noted with its path and reading goes on, so all are told at once.
//!
//! A getter answers `None` exactly when it has noted a mistake. No message shows a value.

use std::cell::RefCell;
use std::collections::HashMap;

use super::tree::Tree;
use crate::pure::hidden::Hidden;

/// What every variable begins with.
pub(super) const PREFIX: &str = "POLYGATE_";

/// The most steps down that a variable can name: more than any key has.
const STEPS_MAX: usize = 4;

/// What a block is called in messages.
const BLOCK: &str = "a block of keys";

/// The most mistakes that are told; a file that is not ours at all would fill the screen.
const MISTAKES_MAX: usize = 100;

/// The mistakes so far, and which paths the environment set.
#[derive(Default)]
pub(super) struct Log {
    mistakes: RefCell<Vec<String>>,
    variables: Vec<(String, String)>,
    /// All of the environment, for texts that name a variable.
    environment: HashMap<String, Hidden<String>>,
}

impl Log {
    /// Lays the variables that begin with `POLYGATE_` over a tree; all but `POLYGATE_CONFIG`, which names the file.
    pub(super) fn overlay(&mut self, tree: &mut Tree, env: impl Iterator<Item = (String, String)>) {
        let mut variables = Vec::new();
        for (name, text) in env {
            if name.starts_with(PREFIX) {
                variables.push((name.clone(), text.clone()));
            }
            self.environment.insert(name, Hidden::new(text));
        }
        variables.sort();
        for (name, text) in variables {
            if name == "POLYGATE_CONFIG" {
                continue;
            }
            let path: Vec<String> = name[PREFIX.len()..].split("__").map(str::to_ascii_lowercase).collect();
            let odd = path.len() > STEPS_MAX || path.iter().any(String::is_empty);
            if odd || name != name.to_ascii_uppercase() {
                self.mistakes.get_mut().push(format!("{}: unknown variable", shown(&name)));
                continue;
            }
            tree.put(&path, text);
            self.variables.push((path.join("."), name));
        }
    }

    /// The mistakes that were noted, in the order of reading.
    pub(super) fn into_mistakes(self) -> Vec<String> {
        let mut mistakes = self.mistakes.into_inner();
        let more = mistakes.len().saturating_sub(MISTAKES_MAX);
        mistakes.truncate(MISTAKES_MAX);
        if more > 0 {
            mistakes.push(format!("and {more} more"));
        }
        mistakes
    }

    /// Notes a mistake under the path, or under the variable that set what is there.
    fn note(&self, path: &str, text: &str) {
        let set = self.variables.iter().find_map(|(at, name)| {
            let item = path.strip_prefix(at.as_str())?;
            (item.is_empty() || item.starts_with('[')).then(|| shown(name) + item)
        });
        let place = match set {
            Some(place) => place,
            None if path.is_empty() => "the file".to_owned(),
            None => path.to_owned(),
        };
        self.mistakes.borrow_mut().push(format!("{place}: {text}"));
    }

    /// Notes the variables that lead through a path at which there are no keys; whether there are any.
    fn note_through(&self, path: &str) -> bool {
        let below = format!("{path}.");
        let mut any = false;
        for (_, name) in self.variables.iter().filter(|(at, _)| at.starts_with(&below)) {
            self.mistakes.borrow_mut().push(format!("{}: unknown variable", shown(name)));
            any = true;
        }
        any
    }

    fn note_unknown(&self, parent: &str, key: &str, known: &[&'static str]) {
        let close = known
            .iter()
            .map(|name| (strsim::osa_distance(name, key), name))
            .filter(|(far, name)| *far <= name.len().div_ceil(4))
            .min();
        let path = join(parent, key);
        let below = format!("{path}.");
        let mut set = self.variables.iter().filter(|(at, _)| *at == path || at.starts_with(&below)).peekable();
        if set.peek().is_none() {
            let hint = close.map(|(_, name)| format!("; did you mean {name}?")).unwrap_or_default();
            self.note(&join(parent, &shown(key)), &format!("unknown key{hint}"));
        }
        for (at, name) in set {
            let meant = |known: &str| {
                let path = format!("{}{}", join(parent, known), &at[path.len()..]);
                format!("; did you mean {PREFIX}{}?", path.replace('.', "__").to_ascii_uppercase())
            };
            let hint = close.map(|(_, known)| meant(known)).unwrap_or_default();
            self.mistakes.borrow_mut().push(format!("{}: unknown variable{hint}", shown(name)));
        }
    }
}

/// A value, or its absence, and where it stands.
#[derive(Clone)]
pub(super) struct Node<'a> {
    path: String,
    value: Option<Tree>,
    log: &'a Log,
}

impl<'a> Node<'a> {
    /// The whole document.
    pub(super) fn top(tree: Tree, log: &'a Log) -> Self {
        Node { path: String::new(), value: Some(tree), log }
    }

    /// The node, when its key is there at all.
    pub(super) fn given(self) -> Option<Self> {
        self.value.is_some().then_some(self)
    }

    /// Whether there is an empty text.
    pub(super) fn is_empty(&self) -> bool {
        matches!(&self.value, Some(Tree::Text(text) | Tree::Variable(text)) if text.is_empty())
    }

    /// Whether there is a list, or a variable that is written as one.
    pub(super) fn is_list(&self) -> bool {
        match &self.value {
            Some(Tree::List(_)) => true,
            // Not the whole of `[::1]:8080` is in brackets.
            Some(Tree::Variable(text)) => text.starts_with('[') && text.ends_with(']'),
            _ => false,
        }
    }

    /// A whole number within bounds, both included.
    pub(super) fn whole(self, low: u64, high: u64) -> Option<u64> {
        let must = format!("a whole number from {low} to {high}");
        self.value("a whole number", &must, |tree| match tree {
            Tree::Whole(number) => u64::try_from(number).ok().filter(|number| (low..=high).contains(number)),
            _ => None,
        })
    }

    /// One of a few whole numbers; `must` lists them.
    pub(super) fn whole_of(self, must: &str, numbers: &[u16]) -> Option<u16> {
        self.value("a whole number", must, |tree| match tree {
            Tree::Whole(number) => u16::try_from(number).ok().filter(|number| numbers.contains(number)),
            _ => None,
        })
    }

    /// A part of a whole: a number from 0 to 1, both included.
    pub(super) fn ratio(self) -> Option<f64> {
        self.value("a fraction", "a number from 0 to 1", |tree| match tree {
            Tree::Whole(number) => [(0, 0.0), (1, 1.0)].into_iter().find(|(whole, _)| *whole == number).map(|it| it.1),
            Tree::Fraction(number) => Some(number).filter(|number| (0.0..=1.0).contains(number)),
            _ => None,
        })
    }

    /// `true` or `false`.
    pub(super) fn yes_no(self) -> Option<bool> {
        self.value("true or false", "true or false", |tree| match tree {
            Tree::Bool(value) => Some(value),
            _ => None,
        })
    }

    /// A text that `read` makes something of; `must` says what it has to be.
    pub(super) fn text<T>(self, must: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        self.value("a string", must, |tree| match tree {
            Tree::Text(text) => read(&text),
            _ => None,
        })
    }

    /// A text of at most `bytes_max` in which every `${NAME}` stands for what the environment has under that name.
    pub(super) fn filled(self, bytes_max: usize) -> Option<Hidden<String>> {
        let (path, log) = (self.path.clone(), self.log);
        let must = format!("a text of at most {bytes_max} bytes");
        let text = self.text(&must, |text| (text.len() <= bytes_max).then(|| text.to_owned()))?;
        let (mut filled, mut rest) = (Hidden::new(String::new()), &*text);
        while let Some((before, after)) = rest.split_once("${") {
            let name = after.split_once('}').map(|(name, _)| name).filter(|name| is_variable_name(name));
            let Some(name) = name else {
                log.note(&path, "has a ${ that begins no ${NAME}");
                return None;
            };
            let Some(value) = log.environment.get(name) else {
                log.note(&path, &format!("the variable {} is not set", shown(name)));
                return None;
            };
            filled = Hidden::new([filled.expose(), before, value.expose()].concat());
            rest = &after[name.len() + 1..];
        }
        let filled = Hidden::new([filled.expose(), rest].concat());
        if filled.expose().len() > bytes_max {
            log.note(&path, &format!("must be {must}"));
            return None;
        }
        Some(filled)
    }

    /// A list of at most `max` items.
    pub(super) fn list(self, max: usize) -> Option<Vec<Node<'a>>> {
        let (path, log) = (self.path.clone(), self.log);
        let items = self.value("a list", &format!("a list of at most {max}"), |tree| match tree {
            Tree::List(items) if items.len() <= max => Some(items),
            _ => None,
        })?;
        let node = |(at, item)| Node { path: format!("{path}[{at}]"), value: Some(item), log };
        Some(items.into_iter().enumerate().map(node).collect())
    }

    /// A block of keys.
    pub(super) fn block(self) -> Option<Block<'a>> {
        let (path, log) = (self.path.clone(), self.log);
        let entries = self.value(BLOCK, BLOCK, |tree| match tree {
            Tree::Block(entries) => Some(entries),
            _ => None,
        })?;
        Some(Block { path, entries, known: Vec::new(), log })
    }

    /// Notes a mistake about this node.
    pub(super) fn wrong<T>(&self, text: &str) -> Option<T> {
        self.log.note(&self.path, text);
        None
    }

    fn value<T>(mut self, kind: &str, must: &str, read: impl FnOnce(Tree) -> Option<T>) -> Option<T> {
        let through = kind != BLOCK && self.log.note_through(&self.path);
        let tree = match self.value.take() {
            None => return self.wrong("is missing"),
            // The variables made it, and have been noted.
            Some(Tree::Block(_)) if through => return None,
            // A variable's text is itself where a string belongs, and YAML where a number or a list does.
            Some(Tree::Variable(text)) if matches!(kind, "a string" | BLOCK) => Tree::Text(text),
            Some(Tree::Variable(text)) => Tree::parse(&text).unwrap_or(Tree::Text(text)),
            Some(tree) => tree,
        };
        let found = tree.kind();
        read(tree).or_else(|| {
            let but = if found == kind { String::new() } else { format!(", not {found}") };
            self.wrong(&format!("must be {must}{but}"))
        })
    }
}

/// A block of keys, each read once.
pub(super) struct Block<'a> {
    path: String,
    entries: Vec<(String, Tree)>,
    known: Vec<&'static str>,
    log: &'a Log,
}

impl<'a> Block<'a> {
    /// The value of a key.
    pub(super) fn take(&mut self, key: &'static str) -> Node<'a> {
        self.known.push(key);
        let value = self.take_entry(key);
        Node { path: join(&self.path, key), value, log: self.log }
    }

    /// How many keys it has.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Notes a mistake about the block as a whole.
    pub(super) fn wrong<T>(&self, text: &str) -> Option<T> {
        self.log.note(&self.path, text);
        None
    }

    /// Notes a mistake about a path below the block.
    pub(super) fn wrong_below(&self, path: &str, text: &str) {
        self.log.note(&join(&self.path, path), text);
    }

    /// Reads all keys that nobody took, with their values: they are the operator's own names.
    pub(super) fn into_named(mut self) -> Vec<(String, Node<'a>)> {
        let mut named = Vec::new();
        while let Some((key, _)) = self.entries.first() {
            let key = key.clone();
            let value = self.take_entry(&key);
            let path = join(&self.path, &shown(&key));
            named.push((key, Node { path, value, log: self.log }));
        }
        named
    }

    /// Notes every key that nobody took.
    pub(super) fn finish(self) {
        for (key, _) in &self.entries {
            self.log.note_unknown(&self.path, key, &self.known);
        }
    }

    fn take_entry(&mut self, key: &str) -> Option<Tree> {
        let (taken, kept): (Vec<_>, Vec<_>) = self.entries.drain(..).partition(|(name, _)| name == key);
        self.entries = kept;
        if taken.len() > 1 {
            self.log.note(&join(&self.path, &shown(key)), &format!("is given {} times", taken.len()));
        }
        taken.into_iter().next().map(|(_, value)| value)
    }
}

/// Whether `name` is one that shells can give a variable.
fn is_variable_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn join(parent: &str, key: &str) -> String {
    if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
}

/// A name of the operator's, fit for one line of a terminal.
fn shown(name: &str) -> String {
    const CHARS_MAX: usize = 64;
    name.chars().take(CHARS_MAX).flat_map(char::escape_debug).collect()
}
