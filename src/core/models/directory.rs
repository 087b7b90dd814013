//! A model as a directory of files in the layout of Hugging Face: whether it is complete, and what it says about
//! itself.

mod weights;

use std::fs;
use std::path::{Component, Path};

use serde_json::Value;

use self::weights::{count_parameters, most_used_type, read_tensors, weight_files};
use super::defect::{Defect, begins_with, file_length, is_lfs_pointer, read_file};
use super::python_json::{self, JsonFault};
use super::token_cache::{TokenCache, first_number, token_cache};
use crate::core::files;

const HAS_BYTE_ORDER_MARK: &str = "begins with a byte order mark";

/// Names of tokenizers; any `*.tiktoken` is one too.
const TOKENIZERS: [&str; 4] = ["tokenizer.json", "tokenizer.model", "tiktoken.model", "vocab.json"];

/// What a model says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// The network's name, such as `llama`.
    pub architecture: Option<String>,
    pub parameters: Option<u64>,
    /// Such as `4-bit` or `bfloat16`.
    pub quantization: Option<String>,
    /// Tokens.
    pub context_length: Option<u64>,
    pub weight_bytes: u64,
    /// `None` for an unknown kind of model.
    pub token_cache: Option<TokenCache>,
    /// As its card names it.
    pub license: Option<String>,
    pub chat_template: bool,
}

/// Returns the defects that the names and sizes of the files show.
///
/// `expected` has the names and sizes that the hub lists, if they are known; only those for which `is_needed` is true
/// count.
pub fn defects(directory: &Path, expected: &[(String, u64)], is_needed: fn(&str) -> bool) -> Vec<Defect> {
    let mut defects = Vec::new();
    defects.extend(read_json(directory, "config.json").err());
    // Whatever else is wrong with this one, the server may do without it.
    let settings = read_json(directory, "tokenizer_config.json").err();
    defects.extend(settings.filter(|defect| matches!(defect, Defect::Refused { .. })));
    if begins_with(directory, TOKENIZERS[0], python_json::BYTE_ORDER_MARK.as_bytes()) {
        defects.push(refused(TOKENIZERS[0], HAS_BYTE_ORDER_MARK));
    }
    defects.extend(tokenizer_defect(directory));
    let weights = weight_files(directory);
    if weights.present.is_empty() && weights.missing.is_empty() {
        defects.push(Defect::NoWeights);
    }
    defects.extend(weights.missing.iter().filter_map(|file| file_length(directory, file).err()));
    let pointers = weights.present.iter().filter(|file| is_lfs_pointer(directory, file));
    defects.extend(pointers.map(|file| Defect::LfsPointer { file: file.clone() }));
    for (file, size) in expected.iter().filter(|(file, _)| is_needed(file)) {
        if let Some(defect) = compare(directory, file, *size)
            && !defects.iter().any(|known| known.file() == Some(file))
        {
            defects.push(defect);
        }
    }
    defects
}

/// Returns the needed files whose length the hub does not know: the user has changed them.
pub fn changed_files(
    directory: &Path,
    expected: &[(String, u64)],
    is_needed: fn(&str) -> bool,
) -> Vec<String> {
    let is_changed = |file: &str, size: u64| {
        file_length(directory, file).is_ok_and(|length| length != size)
            && compare(directory, file, size).is_none()
    };
    let needed = expected.iter().filter(|(file, _)| is_needed(file));
    needed.filter(|(file, size)| is_changed(file, *size)).map(|(file, _)| file.clone()).collect()
}

/// Compares a file with the length that the hub lists. Another length alone is a change by the user, not a defect: a
/// file is too short only if its own content ends early.
fn compare(directory: &Path, file: &str, expected: u64) -> Option<Defect> {
    let found = match file_length(directory, file) {
        Ok(found) if found < expected => found,
        Ok(_) => return None,
        Err(defect) => return Some(defect),
    };
    let ends_early = match file.rsplit_once('.') {
        Some((_, "safetensors")) => match read_tensors(directory, file) {
            Ok(_) => false,
            Err(Defect::Truncated { .. }) => true,
            Err(defect) => return Some(defect),
        },
        Some((_, "json")) => matches!(read_json(directory, file), Err(Defect::EndsEarly { .. })),
        _ => found == 0,
    };
    ends_early.then(|| Defect::Truncated { file: file.to_owned(), found, expected })
}

/// Returns the defects that the headers of the weights show. Reading them counts as using the model, hence not in
/// lists.
pub fn damaged_weights(directory: &Path) -> Vec<Defect> {
    weight_files(directory).present.iter().filter_map(|file| read_tensors(directory, file).err()).collect()
}

/// Returns what the model in the directory says about itself.
pub fn facts(directory: &Path) -> Facts {
    let config = read_json(directory, "config.json").unwrap_or_default();
    let mut parameters = 0;
    let mut dtype = None;
    let files = weight_files(directory).present;
    for file in &files {
        let Ok(Some(tensors)) = read_tensors(directory, file) else { continue };
        let count = count_parameters(&tensors, quantization_of(&config));
        parameters = u64::saturating_add(parameters, count);
        dtype = dtype.or_else(|| most_used_type(&tensors));
    }
    let weight_bytes = files.iter().filter_map(|file| fs::metadata(directory.join(file)).ok());
    Facts {
        architecture: config["model_type"].as_str().map(str::to_owned),
        parameters: (parameters > 0).then_some(parameters),
        quantization: bits(&config).map(|bits| format!("{bits}-bit")).or(dtype),
        context_length: context_length_in(&config),
        weight_bytes: weight_bytes.map(|metadata| metadata.len()).sum(),
        token_cache: token_cache(&config),
        license: license(directory),
        chat_template: has_chat_template(directory),
    }
}

/// Returns the quantization without reading the weights: `4-bit`, or the type of the numbers.
pub fn quantization(directory: &Path) -> Option<String> {
    quantization_in(&read_json(directory, "config.json").ok()?)
}

/// Returns the quantization that a `config.json` tells.
pub fn quantization_in(config: &Value) -> Option<String> {
    let dtype = || config["torch_dtype"].as_str().or_else(|| config["dtype"].as_str()).map(str::to_owned);
    bits(config).map(|bits| format!("{bits}-bit")).or_else(dtype)
}

/// Returns the context length in tokens that a `config.json` tells.
pub fn context_length_in(config: &Value) -> Option<u64> {
    let network = config.get("text_config").filter(|text| text.is_object()).unwrap_or(config);
    first_number(network, &["max_position_embeddings", "n_positions", "max_seq_len"])
}

/// Returns whether a relative path stays in its directory.
pub fn is_inside(path: &str) -> bool {
    Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// Returns the table of the quantization, which `mlx_lm` writes twice.
pub fn quantization_of(config: &Value) -> Option<&Value> {
    config.get("quantization").or_else(|| config.get("quantization_config")).filter(|table| table.is_object())
}

fn bits(config: &Value) -> Option<u64> {
    quantization_of(config)?["bits"].as_u64()
}

/// Returns the `license` of the model card, a line of the block between `---` at the start of `README.md`.
fn license(directory: &Path) -> Option<String> {
    let card = String::from_utf8(read_file(directory, "README.md").ok()?).ok()?;
    let block = card.strip_prefix("---")?.split("\n---").next()?;
    let field = |name: &str| {
        let value = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?.trim();
        let value = value.trim_matches(['"', '\'']);
        (!value.is_empty()).then(|| value.to_owned())
    };
    match field("license") {
        Some(license) if license == "other" => field("license_name").or(Some(license)),
        license => license,
    }
}

/// Returns why there is no tokenizer.
fn tokenizer_defect(directory: &Path) -> Option<Defect> {
    let has_tokenizer = TOKENIZERS.iter().any(|file| directory.join(file).is_file())
        || has_file_that_ends_with(directory, "tiktoken");
    if has_tokenizer {
        let pointer = TOKENIZERS.iter().find(|file| is_lfs_pointer(directory, file));
        return pointer.map(|file| Defect::LfsPointer { file: (*file).to_owned() });
    }
    let mut reasons = TOKENIZERS.iter().filter_map(|file| file_length(directory, file).err());
    reasons.find(|reason| !matches!(reason, Defect::Missing { .. })).or(Some(Defect::NoTokenizer))
}

/// Returns whether there is a chat template that `mlx_lm` reads (`mlx_lm/tokenizer_utils.py`, and `from_pretrained` in
/// `transformers/tokenization_utils_base.py`). A `chat_template.json` is for processors of images, and not read.
pub fn has_chat_template(directory: &Path) -> bool {
    let config = read_json(directory, "tokenizer_config.json").unwrap_or_default();
    let is_set = |key: &str| config.get(key).is_some_and(|template| !template.is_null());
    directory.join("chat_template.jinja").is_file()
        || is_set("chat_template")
        || is_set("chat_template_type")
        || has_file_that_ends_with(&directory.join("additional_chat_templates"), "jinja")
}

fn has_file_that_ends_with(directory: &Path, extension: &str) -> bool {
    files::entries(directory).iter().any(|path| path.extension().is_some_and(|end| end == extension))
}

fn refused(file: &str, reason: &'static str) -> Defect {
    Defect::Refused { file: file.to_owned(), reason }
}

/// Reads a JSON file; null for one that fusion cannot parse and the server may.
fn read_json(directory: &Path, name: &str) -> Result<Value, Defect> {
    match python_json::parse(&read_file(directory, name)?) {
        Ok(value) => Ok(value),
        Err(JsonFault::EndsEarly) => Err(Defect::EndsEarly { file: name.to_owned() }),
        Err(JsonFault::ByteOrderMark) => Err(refused(name, HAS_BYTE_ORDER_MARK)),
        Err(JsonFault::TooDeep) => Err(refused(name, "is nested more than 500 deep")),
        Err(JsonFault::Malformed) if is_lfs_pointer(directory, name) => {
            Err(Defect::LfsPointer { file: name.to_owned() })
        }
        Err(JsonFault::Malformed) => Ok(Value::Null),
    }
}

#[cfg(test)]
mod tests;
