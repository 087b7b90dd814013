//! Sorts with one copy of the sorting algorithm: the standard library has one for each type.

use std::cmp::Ordering;

use serde_json::{Map, Value};

/// Sorts as [`slice::sort_by`] does.
pub fn sort_by<T>(items: &mut [T], compare: impl Fn(&T, &T) -> Ordering) {
    let from = sorted(items.len(), &|one, other| compare(&items[one], &items[other]));
    arrange(from, &mut |one, other| items.swap(one, other));
}

/// Sorts as [`slice::sort_by_key`] does.
pub fn sort_by_key<T, K: Ord>(items: &mut [T], key: impl Fn(&T) -> K) {
    sort_by(items, |one, other| key(one).cmp(&key(other)));
}

/// Sorts as [`slice::sort`] does.
pub fn sort<T: Ord>(items: &mut [T]) {
    sort_by(items, T::cmp);
}

/// Collects a JSON object. Its `from_iter` would sort the pairs first.
pub fn object<V: Into<Value>>(pairs: impl IntoIterator<Item = (String, V)>) -> Value {
    let mut object = Map::new();
    object.extend(pairs.into_iter().map(|(name, value)| (name, value.into())));
    Value::Object(object)
}

/// Collects items in their order, each once.
pub fn unique<T: Ord>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.into_iter().collect();
    sort(&mut items);
    items.dedup();
    items
}

/// Returns for each place the index of the item that belongs there.
fn sorted(length: usize, compare: &dyn Fn(usize, usize) -> Ordering) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..length).collect();
    indices.sort_unstable_by(|one, other| compare(*one, *other).then(one.cmp(other)));
    indices
}

/// Swaps the items until each is in its place.
fn arrange(mut from: Vec<usize>, swap: &mut dyn FnMut(usize, usize)) {
    // Follows each circle of places, and marks those that are done by pointing them to themselves.
    for start in 0..from.len() {
        let mut place = start;
        loop {
            let next = std::mem::replace(&mut from[place], place);
            if next == start {
                break;
            }
            swap(place, next);
            place = next;
        }
    }
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
    fn equal_items_are_collected_once() {
        assert_eq!(unique([2, 1, 2]), [1, 2]);
    }
}
