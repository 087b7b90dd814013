//! A model as a directory of files in the layout of Hugging Face: whether it is complete, and what it says about itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Component, Path};

use serde::Deserialize;
use serde_json::{Map, Value};

/// The longest accepted header of a weights file (the hub's own limit is 25 MB).
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Names of tokenizers; any `*.tiktoken` is one too.
const TOKENIZERS: [&str; 4] = ["tokenizer.json", "tokenizer.model", "tiktoken.model", "vocab.json"];

/// Why the model in a directory cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// A file is not there, or is a link without a target.
    #[error("{file} is missing")]
    Missing { file: String },
    #[error("there are no weights (model*.safetensors)")]
    NoWeights,
    #[error("there is no tokenizer (tokenizer.json, tokenizer.model ...)")]
    NoTokenizer,
    /// A file is shorter than its header or the hub says.
    #[error("{file} has {found} of {expected} bytes")]
    Truncated { file: String, found: u64, expected: u64 },
    #[error("{file} cannot be read: {reason}")]
    Unreadable { file: String, reason: String },
}

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
    /// How much memory every token of the context takes.
    pub bytes_per_token: Option<u64>,
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
    if let Err(defect) = read_json(directory, "config.json") {
        defects.push(defect);
    }
    if !has_tokenizer(directory) {
        defects.push(Defect::NoTokenizer);
    }
    let weights = weight_files(directory);
    if weights.present.is_empty() && weights.missing.is_empty() {
        defects.push(Defect::NoWeights);
    }
    defects.extend(weights.missing.iter().map(|file| Defect::Missing { file: file.clone() }));
    for (file, size) in expected.iter().filter(|(file, _)| is_needed(file)) {
        let defect = match fs::metadata(directory.join(file)) {
            Ok(metadata) if metadata.len() == *size => continue,
            Ok(metadata) => Defect::Truncated { file: file.clone(), found: metadata.len(), expected: *size },
            Err(_) => Defect::Missing { file: file.clone() },
        };
        if !defects.iter().any(|known| known.file() == Some(file.as_str())) {
            defects.push(defect);
        }
    }
    defects
}

/// Returns the defects that the headers of the weights show. Reading them counts as using the model, hence not in lists.
pub fn damaged_weights(directory: &Path) -> Vec<Defect> {
    weight_files(directory).present.iter().filter_map(|file| read_tensors(directory, file).err()).collect()
}

/// Returns what the model in the directory says about itself.
pub fn facts(directory: &Path) -> Facts {
    let config = read_json(directory, "config.json").unwrap_or_default();
    let network = config.get("text_config").filter(|text| text.is_object()).unwrap_or(&config);
    let mut parameters = 0;
    let mut dtype = None;
    let files = weight_files(directory).present;
    for file in &files {
        let Ok(tensors) = read_tensors(directory, file) else { continue };
        let count = count_parameters(&tensors, quantization_of(&config));
        parameters = u64::saturating_add(parameters, count);
        dtype = dtype.or_else(|| most_used_type(&tensors));
    }
    let weight_bytes = files.iter().filter_map(|file| fs::metadata(directory.join(file)).ok());
    Facts {
        architecture: config["model_type"].as_str().map(str::to_owned),
        parameters: (parameters > 0).then_some(parameters),
        quantization: bits(&config).map(|bits| format!("{bits}-bit")).or(dtype),
        context_length: first_number(network, &["max_position_embeddings", "n_positions", "max_seq_len"]),
        weight_bytes: weight_bytes.map(|metadata| metadata.len()).sum(),
        bytes_per_token: bytes_per_token(network),
        license: license(directory),
        chat_template: has_chat_template(directory),
    }
}

/// Returns the quantization without reading the weights: `4-bit`, or the type of the numbers.
pub fn quantization(directory: &Path) -> Option<String> {
    let config = read_json(directory, "config.json").ok()?;
    let dtype = || config["torch_dtype"].as_str().or_else(|| config["dtype"].as_str()).map(str::to_owned);
    bits(&config).map(|bits| format!("{bits}-bit")).or_else(dtype)
}

impl Defect {
    /// Returns the file that is there and damaged.
    pub fn damaged_file(&self) -> Option<&str> {
        self.file().filter(|_| !matches!(self, Self::Missing { .. }))
    }

    fn file(&self) -> Option<&str> {
        match self {
            Self::Missing { file } | Self::Truncated { file, .. } | Self::Unreadable { file, .. } => {
                Some(file)
            }
            Self::NoWeights | Self::NoTokenizer => None,
        }
    }
}

/// The files of the weights: those that are there, and those that are only named.
#[derive(Default)]
struct WeightFiles {
    present: BTreeSet<String>,
    missing: BTreeSet<String>,
}

/// Compares the files that `mlx_lm` and others load (`model*.safetensors`) with the index and with the `of-00003` in
/// their names.
fn weight_files(directory: &Path) -> WeightFiles {
    let names = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let mut wanted = BTreeSet::new();
    wanted.extend(names.filter(|name| {
        name.starts_with("model") && Path::new(name).extension().is_some_and(|end| end == "safetensors")
    }));
    if let Ok(index) = read_json(directory, "model.safetensors.index.json")
        && let Some(map) = index["weight_map"].as_object()
    {
        // A path out of the directory is not a file of this model.
        let names = map.values().filter_map(Value::as_str).filter(|name| is_inside(name));
        wanted.extend(names.map(str::to_owned));
    }
    let siblings: Vec<String> = wanted.iter().flat_map(|name| shards(name)).collect();
    wanted.extend(siblings);
    let (present, missing) = wanted.into_iter().partition(|name| directory.join(name).is_file());
    WeightFiles { present, missing }
}

/// Returns whether a relative path stays in its directory.
pub fn is_inside(path: &str) -> bool {
    Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// Returns all names of the set of weights that `name` belongs to, such as `model-00001-of-00002.safetensors`.
fn shards(name: &str) -> Vec<String> {
    let parts = name.strip_suffix(".safetensors").and_then(|stem| stem.rsplit_once("-of-"));
    let Some((front, count)) = parts else { return Vec::new() };
    let Some((front, _number)) = front.rsplit_once('-') else { return Vec::new() };
    // An index can contain a name of any length.
    let width = count.len();
    let total = count.parse::<u32>().ok().filter(|total| width <= 10 && *total <= 1000);
    let Some(total) = total else { return Vec::new() };
    (1..=total).map(|number| format!("{front}-{number:0width$}-of-{count}.safetensors")).collect()
}

/// One entry of the header of a weights file (<https://huggingface.co/docs/safetensors>).
#[derive(Deserialize)]
struct Tensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// Reads the header of a weights file and checks the length of the file.
fn read_tensors(directory: &Path, name: &str) -> Result<BTreeMap<String, Tensor>, Defect> {
    let unreadable = |reason: String| Defect::Unreadable { file: name.to_owned(), reason };
    let io = |error: io::Error| unreadable(error.to_string());
    let file = File::open(directory.join(name)).map_err(io)?;
    let found = file.metadata().map_err(io)?.len();
    let truncated = |expected: u64| Defect::Truncated { file: name.to_owned(), found, expected };
    if found < 8 {
        return Err(truncated(8));
    }
    let mut reader = BufReader::new(file);
    let mut length = [0; 8];
    reader.read_exact(&mut length).map_err(io)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES {
        return Err(unreadable("it does not start like a safetensors file".to_owned()));
    }
    if found < 8 + length {
        return Err(truncated(8 + length));
    }
    let mut header = Vec::new();
    reader.take(length).read_to_end(&mut header).map_err(io)?;
    let malformed = |error: serde_json::Error| unreadable(error.to_string());
    let mut entries: Map<String, Value> = serde_json::from_slice(&header).map_err(malformed)?;
    entries.remove("__metadata__");
    let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
    for (name, entry) in entries {
        tensors.insert(name, serde_json::from_value(entry).map_err(malformed)?);
    }
    let end = tensors.values().map(|tensor| tensor.data_offsets[1]).max().unwrap_or_default();
    let expected = (8 + length).saturating_add(end);
    if found < expected { Err(truncated(expected)) } else { Ok(tensors) }
}

/// Returns the number of parameters. A packed tensor has fewer numbers than parameters, but its `scales` have one for
/// each group.
fn count_parameters(tensors: &BTreeMap<String, Tensor>, quantization: Option<&Value>) -> u64 {
    let count =
        |tensor: &Tensor| tensor.shape.iter().fold(1, |product: u64, size| product.saturating_mul(*size));
    let group_size = |path: &str| {
        let own = quantization.and_then(|all| all[path]["group_size"].as_u64());
        own.or_else(|| quantization.and_then(|all| all["group_size"].as_u64())).unwrap_or(64)
    };
    let parameters = tensors.iter().map(|(name, tensor)| match name.rsplit_once('.') {
        Some((path, "scales")) if tensors.contains_key(&format!("{path}.weight")) => {
            count(tensor).saturating_mul(group_size(path))
        }
        Some((path, "weight" | "biases")) if tensors.contains_key(&format!("{path}.scales")) => 0,
        _ => count(tensor),
    });
    parameters.fold(0, u64::saturating_add)
}

/// Returns the type of most bytes of the tensors, as configuration files name it.
fn most_used_type(tensors: &BTreeMap<String, Tensor>) -> Option<String> {
    let mut bytes: BTreeMap<&str, u64> = BTreeMap::new();
    for tensor in tensors.values() {
        let [begin, end] = tensor.data_offsets;
        *bytes.entry(&tensor.dtype).or_default() += end.saturating_sub(begin);
    }
    let (dtype, _) = bytes.into_iter().max_by_key(|(_, bytes)| *bytes)?;
    let words = match dtype {
        "F16" => "float16",
        "BF16" => "bfloat16",
        "F32" => "float32",
        other => other,
    };
    Some(words.to_owned())
}

/// Returns the table of the quantization, which `mlx_lm` writes twice.
fn quantization_of(config: &Value) -> Option<&Value> {
    config.get("quantization").or_else(|| config.get("quantization_config")).filter(|table| table.is_object())
}

fn bits(config: &Value) -> Option<u64> {
    quantization_of(config)?["bits"].as_u64()
}

fn first_number(table: &Value, keys: &[&str]) -> Option<u64> {
    keys.iter().find_map(|key| table[*key].as_u64())
}

/// Returns the size of two vectors (key and value) of 16-bit numbers for each key-value head in each layer.
fn bytes_per_token(network: &Value) -> Option<u64> {
    let layers = first_number(network, &["num_hidden_layers", "n_layer"])?;
    let heads = first_number(network, &["num_attention_heads", "n_head"])?;
    let kept = first_number(network, &["num_key_value_heads"]).unwrap_or(heads);
    let size = first_number(network, &["head_dim"])
        .or_else(|| first_number(network, &["hidden_size", "n_embd"])?.checked_div(heads))?;
    Some([2, 2, layers, kept, size].iter().fold(1, |product: u64, factor| product.saturating_mul(*factor)))
}

/// Returns the `license` of the model card, a line of the block between `---` at the start of `README.md`.
fn license(directory: &Path) -> Option<String> {
    let card = fs::read_to_string(directory.join("README.md")).ok()?;
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

fn has_tokenizer(directory: &Path) -> bool {
    let mut names = fs::read_dir(directory).into_iter().flatten().flatten();
    TOKENIZERS.iter().any(|file| directory.join(file).is_file())
        || names.any(|entry| entry.path().extension().is_some_and(|end| end == "tiktoken"))
}

fn has_chat_template(directory: &Path) -> bool {
    let own_file = ["chat_template.jinja", "chat_template.json"];
    own_file.iter().any(|file| directory.join(file).is_file())
        || read_json(directory, "tokenizer_config.json")
            .is_ok_and(|config| config.get("chat_template").is_some_and(|template| !template.is_null()))
}

fn read_json(directory: &Path, name: &str) -> Result<Value, Defect> {
    let text = match fs::read(directory.join(name)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Defect::Missing { file: name.to_owned() });
        }
        Err(error) => {
            return Err(Defect::Unreadable { file: name.to_owned(), reason: error.to_string() });
        }
    };
    serde_json::from_slice(&text)
        .map_err(|error| Defect::Unreadable { file: name.to_owned(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    /// A weights file with one tensor of `elements` 16-bit numbers.
    fn weights(elements: u64) -> Vec<u8> {
        let header = format!(
            r#"{{"a.weight":{{"dtype":"BF16","shape":[{elements}],"data_offsets":[0,{}]}}}}"#,
            elements * 2
        );
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.bytes());
        file.extend(vec![0; usize::try_from(elements * 2).unwrap_or_default()]);
        file
    }

    fn complete_model() -> io::Result<tempfile::TempDir> {
        let model = tempfile::tempdir()?;
        let config = r#"{"model_type":"llama","num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,
            "hidden_size":256,"max_position_embeddings":8192}"#;
        fs::write(model.path().join("config.json"), config)?;
        fs::write(model.path().join("tokenizer.json"), "{}")?;
        fs::write(model.path().join("model.safetensors"), weights(10))?;
        Ok(model)
    }

    fn found(directory: &Path) -> Vec<String> {
        let defects = defects(directory, &[], |_| true).into_iter().chain(damaged_weights(directory));
        defects.map(|defect| defect.to_string()).collect()
    }

    #[test]
    fn a_complete_model_has_no_defects() -> Outcome {
        assert_eq!(found(complete_model()?.path()), [""; 0]);
        Ok(())
    }

    #[test]
    fn missing_weights_and_tokenizer_are_named() -> Outcome {
        let model = tempfile::tempdir()?;
        let expected = [
            "config.json is missing",
            "there is no tokenizer (tokenizer.json, tokenizer.model ...)",
            "there are no weights (model*.safetensors)",
        ];
        assert_eq!(found(model.path()), expected);
        Ok(())
    }

    #[test]
    fn truncated_weights_are_a_defect() -> Outcome {
        let model = complete_model()?;
        let whole = weights(10);
        for length in [0, 7, 8, 20, whole.len() - 1] {
            fs::write(model.path().join("model.safetensors"), &whole[..length])?;
            let found = found(model.path());
            assert_eq!(found.len(), 1, "{length}: {found:?}");
            assert!(found[0].starts_with(&format!("model.safetensors has {length} of ")), "{found:?}");
        }
        fs::write(model.path().join("model.safetensors"), "this is not a safetensors file")?;
        assert_eq!(
            found(model.path()),
            ["model.safetensors cannot be read: it does not start like a safetensors file"]
        );
        Ok(())
    }

    #[test]
    fn missing_shards_are_named() -> Outcome {
        let model = complete_model()?;
        fs::remove_file(model.path().join("model.safetensors"))?;
        fs::write(model.path().join("model-00001-of-00002.safetensors"), weights(10))?;
        assert_eq!(found(model.path()), ["model-00002-of-00002.safetensors is missing"]);
        let index = r#"{"weight_map":{"a":"model-00001-of-00002.safetensors","b":"other.safetensors",
            "c":"../elsewhere.safetensors","d":"/etc/passwd"}}"#;
        fs::write(model.path().join("model.safetensors.index.json"), index)?;
        assert_eq!(
            found(model.path()),
            ["model-00002-of-00002.safetensors is missing", "other.safetensors is missing"]
        );
        Ok(())
    }

    #[test]
    fn a_dangling_link_is_a_missing_file() -> Outcome {
        let model = complete_model()?;
        fs::remove_file(model.path().join("model.safetensors"))?;
        std::os::unix::fs::symlink("../../blobs/gone", model.path().join("model.safetensors"))?;
        assert_eq!(found(model.path()), ["model.safetensors is missing"]);
        Ok(())
    }

    #[test]
    fn needed_files_of_the_hub_must_be_there() -> Outcome {
        let model = complete_model()?;
        let listed =
            [("config.json".to_owned(), 5), ("merges.txt".to_owned(), 9), ("image.png".to_owned(), 9)];
        let size = fs::metadata(model.path().join("config.json"))?.len();
        let found = defects(model.path(), &listed, |file| file != "image.png");
        let expected = [
            Defect::Truncated { file: "config.json".to_owned(), found: size, expected: 5 },
            Defect::Missing { file: "merges.txt".to_owned() },
        ];
        assert_eq!(found, expected);
        Ok(())
    }

    #[test]
    fn a_model_describes_itself() -> Outcome {
        let model = complete_model()?;
        fs::write(
            model.path().join("README.md"),
            "---\nlicense: other\nlicense_name: \"llama3.2\"\n---\n# Card\n",
        )?;
        fs::write(model.path().join("tokenizer_config.json"), r#"{"chat_template": "{{ messages }}"}"#)?;
        let expected = Facts {
            architecture: Some("llama".to_owned()),
            parameters: Some(10),
            quantization: Some("bfloat16".to_owned()),
            context_length: Some(8192),
            weight_bytes: weights(10).len() as u64,
            bytes_per_token: Some(2 * 2 * 2 * 2 * 64),
            license: Some("llama3.2".to_owned()),
            chat_template: true,
        };
        assert_eq!(facts(model.path()), expected);
        Ok(())
    }

    #[test]
    fn packed_weights_count_their_parameters() -> Outcome {
        let header = r#"{"__metadata__":{"format":"mlx"},
            "a.weight":{"dtype":"U32","shape":[4,16],"data_offsets":[0,256]},
            "a.scales":{"dtype":"F16","shape":[4,2],"data_offsets":[256,272]},
            "a.biases":{"dtype":"F16","shape":[4,2],"data_offsets":[272,288]},
            "norm.weight":{"dtype":"F16","shape":[8],"data_offsets":[288,304]}}"#;
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.bytes());
        file.extend([0; 304]);
        let model = complete_model()?;
        fs::write(model.path().join("model.safetensors"), file)?;
        fs::write(model.path().join("config.json"), r#"{"quantization":{"bits":4,"group_size":64}}"#)?;
        let facts = facts(model.path());
        assert_eq!(facts.parameters, Some(4 * 128 + 8));
        assert_eq!(facts.quantization.as_deref(), Some("4-bit"));
        Ok(())
    }
}
