//! A look-up from a key to every value that has it.

use std::borrow::Borrow;

/// Sorted pairs: compact, quick to build anew with each inventory, and a list for every key by nature.
#[derive(Debug)]
pub(super) struct Index<K, V>(Vec<(K, V)>);

impl<K: Ord, V: Ord + Copy> Index<K, V> {
    /// Every value of `key`, in order.
    pub(super) fn get<'a, Q: Ord + ?Sized>(&'a self, key: &Q) -> impl Iterator<Item = V> + use<'a, K, V, Q>
    where
        K: Borrow<Q>,
    {
        let start = self.0.partition_point(|(k, _)| k.borrow() < key);
        let length = self.0[start..].partition_point(|(k, _)| k.borrow() == key);
        self.0[start..start + length].iter().map(|(_, value)| *value)
    }
}

impl<K: Ord, V: Ord> FromIterator<(K, V)> for Index<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut pairs: Vec<_> = pairs.into_iter().collect();
        pairs.sort_unstable();
        pairs.shrink_to_fit();
        Self(pairs)
    }
}

impl<K, V> Default for Index<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
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
