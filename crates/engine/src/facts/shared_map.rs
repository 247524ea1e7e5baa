//! A map that is cheap to clone: clones share their entries, and a change copies only the entries of one shard.

use std::borrow::Borrow;
use std::collections::{HashMap, hash_map};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::iter::FlatMap;
use std::mem;
use std::ops::Index;
use std::slice;
use std::sync::Arc;

/// The target number of entries of a shard, which a change copies while a clone of the map exists.
const SHARD: usize = 64;

/// A hash map whose clones share their entries.
///
/// Later changes are not visible in a clone.
pub struct SharedMap<K, V> {
    /// The entries, by the hash of their keys.
    shards: Arc<Vec<Shard<K, V>>>,
}

type Shard<K, V> = Arc<HashMap<K, V>>;

impl<K, V> SharedMap<K, V> {
    /// Returns the number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.len()).sum()
    }

    /// Returns whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.is_empty())
    }

    /// Returns the entries, in no particular order.
    pub fn iter(&self) -> Iter<'_, K, V> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    /// Returns the keys, in no particular order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// Returns the values, in no particular order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

impl<K: Hash + Eq, V> SharedMap<K, V> {
    /// Returns the value of a key.
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.shards.get(self.place(key))?.get(key)
    }

    /// Returns whether a key exists.
    pub fn contains_key<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// Returns the index of the shard of a key.
    fn place<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let shards = self.shards.len().max(1) as u64;
        usize::try_from(hasher.finish() % shards).unwrap_or_default()
    }
}

impl<K: Hash + Eq + Clone, V: Clone> SharedMap<K, V> {
    /// Sets the value of a key, and returns the old one.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.make_room(&key);
        self.shard(&key).insert(key, value)
    }

    /// Removes a key, and returns its value.
    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        // Nothing is copied for a key that does not exist.
        self.get(key)?;
        self.shard(key).remove(key)
    }

    /// Returns a mutable reference to the value of a key.
    pub fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.get(key)?;
        self.shard(key).get_mut(key)
    }

    /// Returns the entry of a key, to change or create it.
    pub fn entry(&mut self, key: K) -> hash_map::Entry<'_, K, V> {
        self.make_room(&key);
        self.shard(&key).entry(key)
    }

    /// Returns mutable references to all values.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        Arc::make_mut(&mut self.shards).iter_mut().flat_map(|shard| Arc::make_mut(shard).values_mut())
    }

    /// Keeps only the entries for which the function returns true.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        for shard in Arc::make_mut(&mut self.shards) {
            Arc::make_mut(shard).retain(&mut keep);
        }
    }

    /// Returns the shard of a key, copied if a clone of the map shares it.
    fn shard<Q: Hash + ?Sized>(&mut self, key: &Q) -> &mut HashMap<K, V> {
        let place = self.place(key);
        Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[place])
    }

    /// Doubles the number of shards if that of a key is full, unless only that one is, as with keys chosen for equal
    /// hashes.
    fn make_room(&mut self, key: &K) {
        let shards = self.shards.len();
        let is_full = |shard: &Shard<K, V>| shard.len() >= SHARD * 2 && self.len() >= shards * SHARD;
        if !self.shards.get(self.place(key)).is_none_or(is_full) {
            return;
        }
        let full = mem::replace(&mut self.shards, Arc::new(vec![Arc::default(); (shards * 2).max(1)]));
        for (key, value) in Arc::unwrap_or_clone(full).into_iter().flat_map(Arc::unwrap_or_clone) {
            self.shard(&key).insert(key, value);
        }
    }
}

impl<K, V> Clone for SharedMap<K, V> {
    fn clone(&self) -> Self {
        Self { shards: Arc::clone(&self.shards) }
    }
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self { shards: Arc::default() }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SharedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

impl<K: Hash + Eq + Clone, V: Clone> FromIterator<(K, V)> for SharedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        entries.into_iter().for_each(|(key, value)| drop(map.insert(key, value)));
        map
    }
}

impl<K: Hash + Eq + Clone, V: Clone, const N: usize> From<[(K, V); N]> for SharedMap<K, V> {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<K: Hash + Eq + Borrow<Q>, V, Q: Hash + Eq + ?Sized> Index<&Q> for SharedMap<K, V> {
    type Output = V;

    fn index(&self, key: &Q) -> &V {
        self.get(key).expect("the key exists")
    }
}

/// The entries of a [`SharedMap`].
pub(super) type Iter<'m, K, V> =
    FlatMap<slice::Iter<'m, Shard<K, V>>, hash_map::Iter<'m, K, V>, fn(&'m Shard<K, V>) -> hash_map::Iter<'m, K, V>>;

impl<'m, K, V> IntoIterator for &'m SharedMap<K, V> {
    type Item = (&'m K, &'m V);
    type IntoIter = Iter<'m, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Change {
        Insert(u16, u8),
        Remove(u16),
        Edit(u16),
        Add(u16),
        Keep(u8),
    }

    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let key = || 0..500_u16;
        let change = prop_oneof![
            20 => (key(), any::<u8>()).prop_map(|(key, value)| Change::Insert(key, value)),
            5 => key().prop_map(Change::Remove),
            3 => key().prop_map(Change::Edit),
            3 => key().prop_map(Change::Add),
            1 => any::<u8>().prop_map(Change::Keep),
        ];
        prop::collection::vec(change, 0..400)
    }

    fn sorted(entries: impl Iterator<Item = (u16, u8)>) -> Vec<(u16, u8)> {
        let mut entries: Vec<_> = entries.collect();
        entries.sort_unstable();
        entries
    }

    proptest! {
        #[test]
        fn behaves_like_a_hash_map_and_clones_do_not_change(changes in changes()) {
            let (mut shared, mut plain) = (SharedMap::default(), HashMap::new());
            let mut copies = Vec::new();
            for change in changes {
                copies.push((shared.clone(), plain.clone()));
                match change {
                    Change::Insert(key, value) => prop_assert_eq!(shared.insert(key, value), plain.insert(key, value)),
                    Change::Remove(key) => prop_assert_eq!(shared.remove(&key), plain.remove(&key)),
                    Change::Edit(key) => {
                        let edited = [shared.get_mut(&key), plain.get_mut(&key)];
                        edited.into_iter().flatten().for_each(|value| *value = value.wrapping_add(1));
                    }
                    Change::Add(key) => {
                        for value in [shared.entry(key).or_default(), plain.entry(key).or_default()] {
                            *value = value.wrapping_add(1);
                        }
                    }
                    Change::Keep(least) => {
                        shared.retain(|_, value| *value >= least);
                        plain.retain(|_, value| *value >= least);
                    }
                }
                prop_assert!((0..500).all(|key| shared.get(&key) == plain.get(&key)));
            }
            copies.push((shared, plain));
            for (shared, plain) in copies {
                prop_assert_eq!(shared.len(), plain.len());
                let entries = |(key, value): (&u16, &u8)| (*key, *value);
                prop_assert_eq!(sorted(shared.iter().map(entries)), sorted(plain.iter().map(entries)));
            }
        }
    }

    #[test]
    fn a_change_copies_one_shard() {
        let mut map: SharedMap<u32, u32> = (0..10_000).map(|key| (key, key)).collect();
        let copy = map.clone();
        map.insert(7, 0);
        let shared = map.shards.iter().zip(&*copy.shards).filter(|(one, other)| Arc::ptr_eq(one, other)).count();
        assert_eq!(shared, map.shards.len() - 1);
        assert!(
            map.shards.len() > 50 && map.shards.iter().all(|shard| shard.len() <= SHARD * 2),
            "keys are spread evenly"
        );
        assert_eq!((map.get(&7), copy.get(&7)), (Some(&0), Some(&7)));
    }

    #[test]
    fn missing_keys_copy_nothing() {
        let mut map: SharedMap<u32, u32> = [(1, 1)].into();
        let copy = map.clone();
        assert_eq!((map.remove(&2), map.get_mut(&3)), (None, None));
        assert!(Arc::ptr_eq(&map.shards, &copy.shards));
    }
}
