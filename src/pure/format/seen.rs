//! The memory that finds a key that comes twice in an object.

use std::collections::HashSet;

use super::Reason;
use super::tokens::KEYS_MAX;

/// The keys of the objects that are open, as hashes of 64 bits: two keys of one object meet by accident once in some
/// 10^19 pairs, and then a document is refused, never misread.
#[derive(Default)]
pub(super) struct Seen {
    hasher: ahash::RandomState,
    levels: Vec<Level>,
    open: usize,
    keys: usize,
}

/// The keys of one object: a few in a list, which is quicker than a set, many in a set.
#[derive(Default)]
struct Level {
    few: Vec<u64>,
    many: HashSet<u64, ahash::RandomState>,
}

/// How many keys the list holds.
const FEW: usize = 24;

impl Seen {
    /// An object opens.
    pub(super) fn enter(&mut self) {
        if self.open == self.levels.len() {
            self.levels.push(Level::default());
        }
        self.open += 1;
    }

    /// The innermost object closes.
    pub(super) fn leave(&mut self) {
        self.open -= 1;
        let level = &mut self.levels[self.open];
        self.keys -= level.few.len() + level.many.len();
        level.few.clear();
        if !level.many.is_empty() {
            level.many = HashSet::default();
        }
    }

    /// Remembers a key of the innermost object, unless it has the key already.
    pub(super) fn insert(&mut self, key: &str) -> Result<(), Reason> {
        if self.keys == KEYS_MAX {
            return Err(Reason::TooManyKeys);
        }
        let hash = self.hasher.hash_one(key);
        let level = &mut self.levels[self.open - 1];
        if level.few.contains(&hash) {
            return Err(Reason::DuplicateKey);
        }
        if level.few.len() < FEW {
            level.few.push(hash);
        } else if !level.many.insert(hash) {
            return Err(Reason::DuplicateKey);
        }
        self.keys += 1;
        Ok(())
    }

    /// Keys that are remembered now.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.levels.iter().map(|level| level.few.capacity() + level.many.len()).sum()
    }
}
