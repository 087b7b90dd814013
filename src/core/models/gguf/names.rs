//! What the names of GGUF files say: the quantization, the parts of a split model, and projectors.

use std::path::Path;

use crate::core::models::hub::search::{RepositoryFile, total_bytes};
use crate::core::order;

/// What a name without a quantization means, if it is there.
pub const DEFAULT_QUANTIZATION: &str = "Q4_K_M";

/// Returns the projector that goes with any quantization: the one of 16 bits, else the first.
pub fn best_projector(mut names: Vec<String>) -> Option<String> {
    names.retain(|name| is_projector(name) && is_gguf(name));
    order::sort(&mut names);
    let best = names.iter().position(|name| tag(name).as_deref() == Some("F16")).unwrap_or(0);
    names.into_iter().nth(best)
}

/// Returns the last part of a file's name, by which the server tells quantizations apart; in capital letters.
pub fn tag(file: &str) -> Option<String> {
    let stem = file.strip_suffix(".gguf")?;
    let stem = part(stem).map_or(stem, |part| part.front);
    let (_, tag) = stem.rsplit_once(['-', '.'])?;
    let is_tag = !tag.is_empty() && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_tag.then(|| tag.to_uppercase())
}

pub fn is_projector(file: &str) -> bool {
    file.to_lowercase().contains("mmproj")
}

pub fn is_gguf(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|end| end == "gguf")
}

pub fn is_quantization(tag: &str) -> bool {
    let digit_after = |start: &str| {
        tag.strip_prefix(start).is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
    };
    matches!(tag, "F16" | "F32" | "BF16") || ["Q", "IQ", "TQ", "MXFP", "NVFP"].into_iter().any(digit_after)
}

/// A part of a model that was split: `FRONT-00001-of-00002`.
pub struct SplitPart<'a> {
    pub front: &'a str,
    pub number: u32,
    pub count: u32,
}

pub fn part(stem: &str) -> Option<SplitPart<'_>> {
    let (front, count) = stem.rsplit_once("-of-")?;
    let (front, number) = front.rsplit_once('-')?;
    let read = |text: &str| text.parse().ok().filter(|_| text.len() == 5);
    let (number, count) = (read(number)?, read(count)?);
    (number >= 1 && number <= count && count <= 1000).then_some(SplitPart { front, number, count })
}

/// One quantization in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufQuantization {
    /// In capital letters.
    pub tag: String,
    /// The name of its first file.
    pub file: String,
    pub is_split: bool,
    /// With the projector; `None` if the size of a file is not known.
    pub bytes: Option<u64>,
}

/// Returns the quantizations of a repository: the usual one first, else the largest of about four bits, else the
/// smallest; then the others, the largest first.
pub fn quantizations(files: &[RepositoryFile]) -> Vec<GgufQuantization> {
    let name = |file: &RepositoryFile| file.path.rsplit('/').next().unwrap_or_default().to_owned();
    let best = best_projector(files.iter().map(name).collect());
    let projector = files.iter().find(|file| Some(name(file)) == best);
    let is_model = |file: &&RepositoryFile| {
        let name = name(file);
        is_gguf(&name) && !is_projector(&name) && !name.to_lowercase().contains("imatrix")
    };
    let mut found: Vec<(String, Vec<&RepositoryFile>)> = Vec::new();
    for file in files.iter().filter(is_model) {
        let Some(tag) = tag(&name(file)) else { continue };
        match found.iter_mut().find(|(known, _)| *known == tag) {
            Some((_, parts)) => parts.push(file),
            None => found.push((tag, vec![file])),
        }
    }
    let quantization = |(tag, parts): (String, Vec<&RepositoryFile>)| GgufQuantization {
        file: parts.first().map(|file| name(file)).unwrap_or_default(),
        is_split: parts.len() > 1,
        bytes: total_bytes(parts.into_iter().chain(projector)),
        tag,
    };
    let mut all: Vec<_> = found.into_iter().map(quantization).collect();
    order::sort_by(&mut all, |one, other| other.bytes.cmp(&one.bytes).then_with(|| one.tag.cmp(&other.tag)));
    let usual = all.iter().position(|one| one.tag == DEFAULT_QUANTIZATION);
    let four_bits = || all.iter().position(|one| is_quantization(&one.tag) && one.tag.contains('4'));
    if let Some(first) = usual.or_else(four_bits).or(all.len().checked_sub(1)) {
        all[..=first].rotate_right(1);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, u64)]) -> Vec<(String, Option<u64>, bool)> {
        let files: Vec<_> = files
            .iter()
            .map(|(path, bytes)| RepositoryFile { path: (*path).to_owned(), bytes: Some(*bytes) })
            .collect();
        quantizations(&files).into_iter().map(|one| (one.tag, one.bytes, one.is_split)).collect()
    }

    #[test]
    fn quantizations_begin_with_the_usual_one() {
        let of = |tag: &str, bytes, split| (tag.to_owned(), Some(bytes), split);
        let files = [
            ("x-Q8_0.gguf", 80),
            ("BF16/x-BF16-00001-of-00002.gguf", 90),
            ("BF16/x-BF16-00002-of-00002.gguf", 70),
            ("x-Q4_K_M.gguf", 40),
            ("x-IQ2_M.gguf", 20),
            ("mmproj-x-F16.gguf", 5),
            ("x-imatrix.gguf", 1),
            ("README.md", 3),
        ];
        let expected =
            [of("Q4_K_M", 45, false), of("BF16", 165, true), of("Q8_0", 85, false), of("IQ2_M", 25, false)];
        assert_eq!(found(&files), expected);
        assert_eq!(found(&files[..3])[0], of("Q8_0", 80, false));
        let four = [("x-Q8_0.gguf", 8), ("x-Q4_0.gguf", 4), ("x-IQ4_XS.gguf", 3), ("x-Q2_K.gguf", 2)];
        assert_eq!(found(&four)[0], of("Q4_0", 4, false));
        assert_eq!(found(&[("model.safetensors", 8)]), []);
    }
}
