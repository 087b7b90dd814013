//! Sorts, and fills sorted maps, with one copy of the sorting algorithm: the standard library's has one for each type.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// Sorts as [`slice::sort_by`] does.
pub fn sort_by<T>(items: &mut [T], compare: impl Fn(&T, &T) -> Ordering) {
    let mut from = sorted(items.len(), &|one, other| match (items.get(one), items.get(other)) {
        (Some(one), Some(other)) => compare(one, other),
        _ => Ordering::Equal,
    });
    // Follows each circle of places, and marks those that are done by pointing them to themselves.
    for start in 0..from.len() {
        let mut place = start;
        while let Some(slot) = from.get_mut(place) {
            let next = std::mem::replace(slot, place);
            if next == start {
                break;
            }
            items.swap(place, next);
            place = next;
        }
    }
}

/// Sorts as [`slice::sort_by_key`] does.
pub fn sort_by_key<T, K: Ord>(items: &mut [T], key: impl Fn(&T) -> K) {
    sort_by(items, |one, other| key(one).cmp(&key(other)));
}

/// Sorts as [`slice::sort`] does.
pub fn sort<T: Ord>(items: &mut [T]) {
    sort_by(items, T::cmp);
}

/// Collects a map. `BTreeMap::from_iter` would sort the pairs first.
pub fn map<K: Ord, V>(pairs: impl IntoIterator<Item = (K, V)>) -> BTreeMap<K, V> {
    let mut map = BTreeMap::new();
    map.extend(pairs);
    map
}

/// Collects a JSON object, as [`map`] does.
pub fn object<V: Into<Value>>(pairs: impl IntoIterator<Item = (String, V)>) -> Value {
    let mut object = Map::new();
    object.extend(pairs.into_iter().map(|(name, value)| (name, value.into())));
    Value::Object(object)
}

/// Collects a set. `BTreeSet::from_iter` would sort the items first.
pub fn set<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeSet<T> {
    let mut set = BTreeSet::new();
    set.extend(items);
    set
}

/// Returns for each place the index of the item that belongs there.
fn sorted(length: usize, compare: &dyn Fn(usize, usize) -> Ordering) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..length).collect();
    indices.sort_unstable_by(|one, other| compare(*one, *other).then(one.cmp(other)));
    indices
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sorts_as_the_standard_library_does(keys in prop::collection::vec(0..8_u8, 0..60)) {
            let mut items: Vec<(u8, usize)> = keys.into_iter().enumerate().map(|(index, key)| (key, index)).collect();
            let mut expected = items.clone();
            expected.sort_by_key(|(key, _)| *key);
            sort_by_key(&mut items, |(key, _)| *key);
            prop_assert_eq!(&items, &expected);
            items.reverse();
            sort(&mut items);
            prop_assert_eq!(&items, &expected);
        }
    }

    #[test]
    fn the_last_of_equal_keys_wins() {
        assert_eq!(map([(2, 'a'), (1, 'b'), (2, 'c')]), BTreeMap::from([(1, 'b'), (2, 'c')]));
        assert_eq!(set([2, 1, 2]), BTreeSet::from([1, 2]));
    }
}
