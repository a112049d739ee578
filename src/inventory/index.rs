//! A look-up from a key to every value that has it.

use std::{
    borrow::Borrow,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash},
};

/// Entries in the order of their keys' hashes: compact, quick to build anew with each inventory (numbers are compared,
/// not names), and a list for every key by nature.
#[derive(Debug)]
pub(super) struct Index<K, V>(Vec<(u64, K, V)>);

impl<K: Ord, V: Copy> Index<K, V> {
    /// Every value of `key`, in order.
    pub(super) fn get<'a, Q: Hash + Ord + ?Sized>(&'a self, key: &Q) -> impl Iterator<Item = V> + use<'a, K, V, Q>
    where
        K: Borrow<Q>,
    {
        let hash = hash(key);
        let start = self.0.partition_point(|(other, k, _)| (*other, k.borrow()) < (hash, key));
        let length = self.0[start..].iter().take_while(|(other, k, _)| *other == hash && k.borrow() == key).count();
        self.0[start..start + length].iter().map(|(.., value)| *value)
    }
}

impl<K: Hash + Ord, V: Ord + Copy> FromIterator<(K, V)> for Index<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut entries: Vec<_> = pairs.into_iter().map(|(key, value)| (hash(&key), key, value)).collect();
        entries.sort_unstable();
        entries.shrink_to_fit();
        Self(entries)
    }
}

impl<K: Hash + Ord + Clone, V: Ord + Copy> Index<K, V> {
    /// The index without the values that leave and with these new pairs. Much cheaper than making it anew.
    pub(super) fn changed(&self, leaves: impl Fn(V) -> bool, new: impl IntoIterator<Item = (K, V)>) -> Self {
        let mut entries: Vec<_> = self.0.iter().filter(|(.., value)| !leaves(*value)).cloned().collect();
        entries.extend(new.into_iter().map(|(key, value)| (hash(&key), key, value)));
        // The stable sort makes use of the order that most entries have.
        entries.sort();
        entries.shrink_to_fit();
        Self(entries)
    }
}

impl<K, V> Default for Index<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

fn hash<Q: Hash + ?Sized>(key: &Q) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_all_its_values_in_order_and_no_others() {
        let index: Index<&str, u32> = [("b", 3), ("a", 1), ("b", 2), ("c", 0)].into_iter().collect();
        assert_eq!(index.get("b").collect::<Vec<_>>(), [2, 3]);
        assert_eq!(index.get("a").collect::<Vec<_>>(), [1]);
        assert_eq!(index.get("aa").count() + index.get("").count() + index.get("d").count(), 0);
    }
}
