//! GGUF files: what the header says of the model, and whether the file is as long as it says
//! (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>).

pub mod names;

use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::path::Path;

use super::defect::{Defect, denied, file_length, is_lfs_pointer};

use crate::core::sorted_map::SortedMap;

/// The first bytes of every file.
const MAGIC: &[u8; 4] = b"GGUF";

/// The most values of an array that are kept: one for each layer.
const MAX_KEPT_VALUES: u64 = 4096;

/// The longest text that is kept, in bytes: chat templates have up to some 100 KB.
const MAX_TEXT_BYTES: u64 = 4 * 1024 * 1024;

/// The deepest nesting of arrays; files have none.
const MAX_DEPTH: u32 = 4;

/// The header of one file.
#[derive(Debug, Clone, Default)]
pub struct Header {
    values: SortedMap<String, MetadataValue>,
    /// How many numbers the tensors hold.
    pub parameters: u64,
    /// The length of the file.
    pub file_bytes: u64,
    /// The type of most of the numbers, such as `Q4_K`.
    tensor_type: Option<&'static str>,
}

#[derive(Debug, Clone, PartialEq)]
enum MetadataValue {
    Number(u64),
    Text(String),
    Numbers(Vec<u64>),
}

impl Header {
    /// Reads the header of a file; fails when it is none, or when the file is shorter than its tensors.
    pub fn read(path: &Path) -> Result<Self, Defect> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let directory = path.parent().unwrap_or(path);
        let found = file_length(directory, &name)?;
        if is_lfs_pointer(directory, &name) {
            return Err(Defect::LfsPointer { file: name });
        }
        let file = File::open(path).map_err(|error| denied(&name, &error))?;
        let mut reader = HeaderReader { input: BufReader::new(file), position: 0, length: found };
        reader.header().map_err(|fault| match fault {
            HeaderFault::Short(expected) => Defect::Truncated { file: name.clone(), found, expected },
            HeaderFault::Malformed(reason) => Defect::NotGguf { file: name.clone(), reason },
            HeaderFault::Io(error) => denied(&name, &error),
        })
    }

    /// Returns the kind of network, such as `llama`.
    pub fn architecture(&self) -> Option<&str> {
        self.text("general.architecture")
    }

    /// Returns how most of the numbers are stored, such as `Q4_K_M`.
    pub fn quantization(&self) -> Option<&'static str> {
        // The flag 1024 marks a guessed type.
        let file_type = self.number("general.file_type").map(|number| number & !1024);
        let named = FILE_TYPES.iter().find(|(number, _)| Some(*number) == file_type);
        named.map(|(_, name)| *name).or(self.tensor_type)
    }

    /// Returns the longest conversation that the model was made for, in tokens.
    pub fn context_length(&self) -> Option<u64> {
        self.of_network("context_length")
    }

    /// Returns the licence, by name.
    pub fn license(&self) -> Option<&str> {
        match self.text("general.license") {
            Some("other") => self.text("general.license.name").or(Some("other")),
            license => license,
        }
    }

    /// Returns the Jinja template by which a conversation is put to the model.
    pub fn chat_template(&self) -> Option<&str> {
        self.text("tokenizer.chat_template")
    }

    /// Returns how many files the model was split into.
    pub fn parts(&self) -> Option<u64> {
        self.number("split.count").filter(|count| *count > 1)
    }

    /// Returns what the model can do, as far as the header tells.
    pub fn capabilities(&self) -> Vec<String> {
        let is_embedding = self.of_network("pooling_type").is_some_and(|kind| kind > 0);
        let template = self.chat_template().unwrap_or_default();
        let reasons = ["<think>", "reasoning_content", "enable_thinking"];
        let capabilities = [
            (if is_embedding { "embedding" } else { "completion" }, true),
            ("tools", template.contains("tools")),
            ("thinking", reasons.iter().any(|word| template.contains(word))),
        ];
        capabilities.into_iter().filter(|(_, has)| *has).map(|(name, _)| name.to_owned()).collect()
    }

    /// Returns the bytes that every token of a conversation takes in memory; `None` where the layers keep something
    /// else than keys and values of every token.
    pub fn bytes_per_token(&self) -> Option<u64> {
        let layers = self.of_network("block_count")?;
        let product = |factors: &[u64]| factors.iter().fold(1, |all: u64, one| all.saturating_mul(*one));
        // Latent attention keeps one compressed vector and the rotated part of the key (16-bit numbers).
        if let Some(rank) = self.of_network("attention.kv_lora_rank") {
            let rotated = self.of_network("rope.dimension_count")?;
            return Some(product(&[2, layers, rank.saturating_add(rotated)]));
        }
        // How many layers forget what lies outside of a window is in the server's code, not in the file.
        let window = self.of_network("attention.sliding_window").filter(|window| *window > 0);
        if window.is_some_and(|window| self.context_length().is_none_or(|length| window < length)) {
            return None;
        }
        let heads = self.of_network("attention.head_count");
        let is_recurrent = ["ssm.state_size", "wkv.head_size", "shortconv.l_cache"]
            .iter()
            .any(|key| self.of_network(key).is_some());
        let kept = match self.values.get(&self.key("attention.head_count_kv")) {
            Some(MetadataValue::Numbers(kept)) => {
                kept.iter().fold(0, |all: u64, one| all.saturating_add(*one))
            }
            Some(MetadataValue::Number(kept)) if !is_recurrent => product(&[*kept, layers]),
            Some(MetadataValue::Number(kept)) => {
                product(&[*kept, layers.checked_div(self.of_network("full_attention_interval")?)?])
            }
            _ if is_recurrent => return None,
            _ => product(&[heads?, layers]),
        };
        let size = || self.of_network("embedding_length")?.checked_div(heads?);
        let key = self.of_network("attention.key_length").or_else(size)?;
        let value = self.of_network("attention.value_length").or_else(size)?;
        Some(product(&[2, kept, key.saturating_add(value)]))
    }

    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture().unwrap_or_default())
    }

    fn of_network(&self, key: &str) -> Option<u64> {
        self.number(&self.key(key))
    }

    fn number(&self, key: &str) -> Option<u64> {
        match self.values.get(key)? {
            MetadataValue::Number(number) => Some(*number),
            _ => None,
        }
    }

    fn text(&self, key: &str) -> Option<&str> {
        match self.values.get(key)? {
            MetadataValue::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }
}

/// Why a header cannot be read.
enum HeaderFault {
    /// The file ends before this many bytes.
    Short(u64),
    Malformed(String),
    Io(io::Error),
}

struct HeaderReader {
    input: BufReader<File>,
    position: u64,
    length: u64,
}

impl HeaderReader {
    fn header(&mut self) -> Result<Header, HeaderFault> {
        if self.bytes(4)? != MAGIC {
            return Err(HeaderFault::Malformed("it does not start like one".to_owned()));
        }
        let version = self.u32()?;
        if !(2..=3).contains(&version) {
            return Err(HeaderFault::Malformed(format!("it has version {version} of the format")));
        }
        let (tensors, pairs) = (self.u64()?, self.u64()?);
        let mut header = Header { file_bytes: self.length, ..Header::default() };
        for _ in 0..pairs {
            let key = self.text()?;
            let kind = self.u32()?;
            if let Some(value) = self.value(kind, 0)? {
                header.values.insert(key, value);
            }
        }
        self.tensors(tensors, &mut header)?;
        Ok(header)
    }

    /// Reads the list of tensors, and checks that the last of them ends within the file.
    fn tensors(&mut self, count: u64, header: &mut Header) -> Result<(), HeaderFault> {
        let mut bytes_of_type: SortedMap<&'static str, u64> = SortedMap::new();
        let mut end: u64 = 0;
        for _ in 0..count {
            self.text()?;
            let dimensions = self.u32()?;
            let mut numbers: u64 = 1;
            for _ in 0..dimensions {
                numbers = numbers.saturating_mul(self.u64()?);
            }
            let (kind, offset) = (self.u32()?, self.u64()?);
            header.parameters = header.parameters.saturating_add(numbers);
            let known = TENSOR_TYPES.iter().find(|known| known.0 == kind);
            let bytes = known.map_or(0, |(_, _, block, size)| numbers.div_ceil(*block).saturating_mul(*size));
            if let Some((_, name, ..)) = known {
                let sum = bytes_of_type.get_or_default(*name);
                *sum = sum.saturating_add(bytes);
            }
            end = end.max(offset.saturating_add(bytes));
        }
        header.tensor_type = bytes_of_type.into_iter().max_by_key(|(_, bytes)| *bytes).map(|(name, _)| name);
        let alignment = header.number("general.alignment").filter(|number| *number > 0).unwrap_or(32);
        let start = self.position.div_ceil(alignment).saturating_mul(alignment);
        let expected = if count == 0 { self.position } else { start.saturating_add(end) };
        if self.length < expected { Err(HeaderFault::Short(expected)) } else { Ok(()) }
    }

    /// Reads a value; `None` for one that says nothing about the model as a whole.
    fn value(&mut self, kind: u32, depth: u32) -> Result<Option<MetadataValue>, HeaderFault> {
        Ok(match kind {
            8 => Some(MetadataValue::Text(self.text()?)),
            9 => self.array(depth)?,
            // Fractions, which nothing here asks for.
            6 => self.skip(4).map(|()| None)?,
            12 => self.skip(8).map(|()| None)?,
            _ => self.number(kind)?.map(MetadataValue::Number),
        })
    }

    /// Reads a whole number or a truth value; `None` when it is negative.
    fn number(&mut self, kind: u32) -> Result<Option<u64>, HeaderFault> {
        let Some(size) = size_of(kind) else {
            return Err(HeaderFault::Malformed(format!("a value has the unknown type {kind}")));
        };
        let mut wide = [0; 8];
        wide[..size].copy_from_slice(self.bytes(size as u64)?.as_slice());
        let is_signed = matches!(kind, 1 | 3 | 5 | 11);
        let is_negative = is_signed && wide[size - 1] & 0x80 != 0;
        Ok((!is_negative).then(|| u64::from_le_bytes(wide)))
    }

    fn array(&mut self, depth: u32) -> Result<Option<MetadataValue>, HeaderFault> {
        if depth >= MAX_DEPTH {
            return Err(HeaderFault::Malformed("arrays are nested too deeply".to_owned()));
        }
        let (kind, count) = (self.u32()?, self.u64()?);
        match size_of(kind) {
            Some(_) if count <= MAX_KEPT_VALUES && !matches!(kind, 6 | 12) => {
                let mut numbers = Vec::new();
                for _ in 0..count {
                    numbers.push(self.number(kind)?.unwrap_or_default());
                }
                Ok(Some(MetadataValue::Numbers(numbers)))
            }
            Some(size) => self.skip(count.saturating_mul(size as u64)).map(|()| None),
            None if kind == 8 => {
                for _ in 0..count {
                    let length = self.u64()?;
                    self.skip(length)?;
                }
                Ok(None)
            }
            None => {
                for _ in 0..count {
                    self.value(kind, depth + 1)?;
                }
                Ok(None)
            }
        }
    }

    fn text(&mut self) -> Result<String, HeaderFault> {
        let length = self.u64()?;
        if length > MAX_TEXT_BYTES {
            self.skip(length)?;
            return Ok(String::new());
        }
        Ok(String::from_utf8_lossy(&self.bytes(length)?).into_owned())
    }

    fn u32(&mut self) -> Result<u32, HeaderFault> {
        let mut number = [0; 4];
        number.copy_from_slice(&self.bytes(4)?);
        Ok(u32::from_le_bytes(number))
    }

    fn u64(&mut self) -> Result<u64, HeaderFault> {
        let mut number = [0; 8];
        number.copy_from_slice(&self.bytes(8)?);
        Ok(u64::from_le_bytes(number))
    }

    fn bytes(&mut self, count: u64) -> Result<Vec<u8>, HeaderFault> {
        self.advance(count)?;
        let mut bytes = vec![0; usize::try_from(count).unwrap_or(usize::MAX)];
        self.input.read_exact(&mut bytes).map_err(HeaderFault::Io)?;
        Ok(bytes)
    }

    fn skip(&mut self, count: u64) -> Result<(), HeaderFault> {
        self.advance(count)?;
        self.input.seek_relative(i64::try_from(count).unwrap_or(i64::MAX)).map_err(HeaderFault::Io)
    }

    /// Fails when the file ends before the next `count` bytes do; so nothing longer than the file is ever read or kept.
    fn advance(&mut self, count: u64) -> Result<(), HeaderFault> {
        let end = self.position.saturating_add(count);
        if end > self.length {
            return Err(HeaderFault::Short(end));
        }
        self.position = end;
        Ok(())
    }
}

/// Returns the size in bytes of a value of this type, if all such values have one.
fn size_of(kind: u32) -> Option<usize> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

/// The types of tensors: number, name, numbers in a block, bytes of a block (`ggml.h`, `ggml-common.h`).
const TENSOR_TYPES: &[(u32, &str, u64, u64)] = &[
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (9, "Q8_1", 32, 36),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
];

/// The names of `general.file_type` (`llama.h`: `llama_ftype`).
const FILE_TYPES: &[(u64, &str)] = &[
    (0, "F32"),
    (1, "F16"),
    (2, "Q4_0"),
    (3, "Q4_1"),
    (7, "Q8_0"),
    (8, "Q5_0"),
    (9, "Q5_1"),
    (10, "Q2_K"),
    (11, "Q3_K_S"),
    (12, "Q3_K_M"),
    (13, "Q3_K_L"),
    (14, "Q4_K_S"),
    (15, "Q4_K_M"),
    (16, "Q5_K_S"),
    (17, "Q5_K_M"),
    (18, "Q6_K"),
    (19, "IQ2_XXS"),
    (20, "IQ2_XS"),
    (21, "Q2_K_S"),
    (22, "IQ3_XS"),
    (23, "IQ3_XXS"),
    (24, "IQ1_S"),
    (25, "IQ4_NL"),
    (26, "IQ3_S"),
    (27, "IQ3_M"),
    (28, "IQ2_S"),
    (29, "IQ2_M"),
    (30, "IQ4_XS"),
    (31, "IQ1_M"),
    (32, "BF16"),
    (36, "TQ1_0"),
    (37, "TQ2_0"),
    (38, "MXFP4"),
];

#[cfg(test)]
mod tests;
