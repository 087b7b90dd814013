//! The files of weights in a directory: their names, and what their headers say.

use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::Path;

use serde_json::{Map, Value};

use super::{is_inside, read_json};
use crate::core::files;
use crate::core::json_object;
use crate::core::models::defect::{Defect, denied, file_length, is_lfs_pointer};
use crate::core::order;
use crate::core::sorted_map::SortedMap;

/// The longest accepted header of a weights file (the hub's own limit is 25 MB).
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The files of the weights: those that are there, and those that are only named.
#[derive(Default)]
pub(super) struct WeightFiles {
    pub(super) present: Vec<String>,
    pub(super) missing: Vec<String>,
}

/// Compares the files that `mlx_lm` and others load (`model*.safetensors`) with the index and with the `of-00003` in
/// their names.
pub(super) fn weight_files(directory: &Path) -> WeightFiles {
    let is_weights = |name: &String| {
        name.starts_with("model") && Path::new(name).extension().is_some_and(|end| end == "safetensors")
    };
    let mut wanted = files::names(directory);
    wanted.retain(is_weights);
    if let Ok(index) = read_json(directory, "model.safetensors.index.json")
        && let Some(map) = index["weight_map"].as_object()
    {
        // A path out of the directory is not a file of this model.
        let names = map.values().filter_map(Value::as_str).filter(|name| is_inside(name));
        wanted.extend(names.map(str::to_owned));
    }
    let siblings: Vec<String> = wanted.iter().flat_map(|name| shards(name)).collect();
    wanted.extend(siblings);
    let (present, missing) =
        order::unique(wanted).into_iter().partition(|name| directory.join(name).is_file());
    WeightFiles { present, missing }
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
pub(super) struct Tensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

impl Tensor {
    fn read(entry: &Value) -> Option<Self> {
        let numbers = |name| entry[name].as_array()?.iter().map(Value::as_u64).collect::<Option<Vec<_>>>();
        Some(Self {
            dtype: entry["dtype"].as_str()?.to_owned(),
            shape: numbers("shape")?,
            data_offsets: numbers("data_offsets")?.try_into().ok()?,
        })
    }
}

/// Reads the header of a weights file and checks the length of the file; `None` for a header that the server may
/// understand.
pub(super) fn read_tensors(
    directory: &Path,
    name: &str,
) -> Result<Option<SortedMap<String, Tensor>>, Defect> {
    let found = file_length(directory, name)?;
    if is_lfs_pointer(directory, name) {
        return Err(Defect::LfsPointer { file: name.to_owned() });
    }
    let file = File::open(directory.join(name)).map_err(|error| denied(name, &error))?;
    let truncated = |expected: u64| Defect::Truncated { file: name.to_owned(), found, expected };
    if found < 8 {
        return Err(truncated(8));
    }
    let mut reader = BufReader::new(file);
    let mut length = [0; 8];
    reader.read_exact(&mut length).map_err(|error| denied(name, &error))?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES {
        return Err(Defect::NotSafetensors { file: name.to_owned() });
    }
    if found < 8 + length {
        return Err(truncated(8 + length));
    }
    let mut header = Vec::new();
    reader.take(length).read_to_end(&mut header).map_err(|error| denied(name, &error))?;
    let Some(tensors) = parse_header(&header) else { return Ok(None) };
    let end = tensors.values().map(|tensor| tensor.data_offsets[1]).max().unwrap_or_default();
    let expected = (8 + length).saturating_add(end);
    if found < expected { Err(truncated(expected)) } else { Ok(Some(tensors)) }
}

fn parse_header(header: &[u8]) -> Option<SortedMap<String, Tensor>> {
    let mut entries: Map<String, Value> = json_object::parse(header).ok()?;
    entries.remove("__metadata__");
    let mut tensors = SortedMap::new();
    for (name, entry) in entries {
        tensors.insert(name, Tensor::read(&entry)?);
    }
    Some(tensors)
}

/// Returns the number of parameters. A packed tensor has fewer numbers than parameters, but its `scales` have one for
/// each group.
pub(super) fn count_parameters(tensors: &SortedMap<String, Tensor>, quantization: Option<&Value>) -> u64 {
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
pub(super) fn most_used_type(tensors: &SortedMap<String, Tensor>) -> Option<String> {
    let mut bytes: SortedMap<&str, u64> = SortedMap::new();
    for tensor in tensors.values() {
        let [begin, end] = tensor.data_offsets;
        *bytes.get_or_default(&tensor.dtype) += end.saturating_sub(begin);
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
