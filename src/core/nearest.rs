//! Finds the names that a mistyped name was most likely meant to be: each "did you mean" of fusion's own.

use crate::core::order;

/// How many similar names an error lists.
const MAX_SIMILAR: usize = 3;

/// The least similarity of a similar name, from 0 to 1.
const MIN_SIMILARITY: f64 = 0.6;

/// How many letters of a mistyped name are compared: more cost time, and tell no more.
const MAX_LETTERS: usize = 200;

/// Returns the name that `name` was most likely meant to be: at most a third of its letters differ.
pub fn nearest<'n>(name: &str, names: &mut dyn Iterator<Item = &'n str>) -> Option<&'n str> {
    let name = compared(name);
    let distance = |candidate: &str| strsim::damerau_levenshtein(&name, &candidate.to_lowercase());
    let (distance, candidate) =
        names.map(|candidate| (distance(candidate), candidate)).min_by_key(|(distance, _)| *distance)?;
    (distance <= candidate.chars().count().div_ceil(3)).then_some(candidate)
}

/// Returns the names that resemble `name`, the most similar first: for long names, of which a beginning is typed.
pub fn similar<'n>(name: &str, names: &[&'n str]) -> Vec<&'n str> {
    let name = compared(name);
    let similarity = |other: &str| strsim::jaro_winkler(&name, &other.to_lowercase());
    let mut similar: Vec<(f64, &str)> = names
        .iter()
        .map(|other| (similarity(other), *other))
        .filter(|(similarity, _)| *similarity >= MIN_SIMILARITY)
        .collect();
    order::sort_by(&mut similar, |(one, _), (other, _)| other.total_cmp(one));
    similar.dedup_by_key(|(_, name)| *name);
    similar.into_iter().map(|(_, name)| name).take(MAX_SIMILAR).collect()
}

/// Returns the end of an error about an unknown name.
pub fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

fn compared(name: &str) -> String {
    name.chars().take(MAX_LETTERS).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_of_the_letters_may_differ() {
        let nearest = |name| nearest(name, &mut ["ps", "templates", "codex"].into_iter());
        assert_eq!(nearest("PSS"), Some("ps"));
        assert_eq!(nearest("tmplate"), Some("templates"));
        assert_eq!(nearest("code"), Some("codex"));
        assert_eq!(nearest("comfy"), None);
        assert_eq!(super::nearest("x", &mut std::iter::empty()), None);
    }

    #[test]
    fn similar_names_come_first() {
        let names = ["llama3.2:3b", "qwen3:4b", "llama3.2:1b"];
        assert_eq!(similar("Llama3.2", &names), ["llama3.2:3b", "llama3.2:1b"]);
        assert_eq!(similar("zzz", &names), [""; 0]);
    }
}
