//! Indexes over objects: they hold hashes and numbers instead of a copy of every key.

use std::hash::{BuildHasher, Hash, RandomState};

use hashbrown::HashTable;

/// The number of an object in the inventory.
pub type ObjectId = u32;

/// The objects that may have a key, by a keyed hash of it. Another key can have the same hash, so a
/// lookup has to compare the key.
#[derive(Default)]
pub(super) struct HashIndex {
    entries: HashTable<IndexEntry>,
    hasher: RandomState,
}

struct IndexEntry {
    hash: u64,
    ids: IdList,
}

/// Most keys have one object.
enum IdList {
    One(ObjectId),
    Many(Vec<ObjectId>),
}

impl IdList {
    fn as_slice(&self) -> &[ObjectId] {
        match self {
            IdList::One(id) => std::slice::from_ref(id),
            IdList::Many(ids) => ids,
        }
    }

    fn push(&mut self, id: ObjectId) {
        match self {
            IdList::One(first) => *self = IdList::Many(vec![*first, id]),
            IdList::Many(ids) => ids.push(id),
        }
    }

    /// Removes an object; says whether any is left.
    fn remove(&mut self, id: ObjectId) -> bool {
        match self {
            IdList::One(only) => *only != id,
            IdList::Many(ids) => {
                ids.retain(|other| *other != id);
                !ids.is_empty()
            }
        }
    }
}

impl HashIndex {
    /// Adds an object under a key, or removes it.
    pub(super) fn set(&mut self, key: &(impl Hash + ?Sized), id: ObjectId, present: bool) {
        let hash = self.hasher.hash_one(key);
        if let Ok(mut entry) = self.entries.find_entry(hash, |entry| entry.hash == hash) {
            if present {
                entry.get_mut().ids.push(id);
            } else if !entry.get_mut().ids.remove(id) {
                entry.remove();
            }
        } else if present {
            let entry = IndexEntry { hash, ids: IdList::One(id) };
            self.entries.insert_unique(hash, entry, |entry| entry.hash);
        }
    }

    /// Returns the objects that may have this key.
    pub(super) fn get(&self, key: &(impl Hash + ?Sized)) -> &[ObjectId] {
        let hash = self.hasher.hash_one(key);
        let entry = self.entries.find(hash, |entry| entry.hash == hash);
        entry.map_or(&[], |entry| entry.ids.as_slice())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_come_and_go_under_a_key() {
        let mut index = HashIndex::default();
        for id in [3, 5, 7] {
            index.set("a", id, true);
        }
        index.set("b", 9, true);
        assert_eq!((index.get("a"), index.get("b"), index.get("c")), (&[3, 5, 7][..], &[9][..], &[][..]));
        index.set("a", 5, false);
        index.set("c", 5, false);
        index.set("b", 9, false);
        assert_eq!((index.get("a"), index.get("b")), (&[3, 7][..], &[][..]));
        index.set("a", 3, false);
        index.set("a", 7, false);
        assert!(index.is_empty());
    }
}
