//! Tests of the reader of GGUF headers.

use anyhow::Context as _;

use super::*;

/// The bytes of a file, put together as the format says.
#[derive(Default)]
struct Gguf {
    pairs: Vec<u8>,
    pair_count: u64,
    tensors: Vec<u8>,
    tensor_count: u64,
    data: u64,
}

impl Gguf {
    fn llama() -> Self {
        Self::default()
            .text("general.architecture", "llama")
            .number("llama.block_count", 4)
            .number("llama.attention.head_count", 8)
            .number("llama.embedding_length", 512)
            .number("llama.context_length", 8192)
    }

    fn pair(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.pairs.extend(text(key));
        self.pairs.extend(kind.to_le_bytes());
        self.pairs.extend(value);
        self.pair_count += 1;
        self
    }

    fn text(self, key: &str, value: &str) -> Self {
        self.pair(key, 8, &text(value))
    }

    fn number(self, key: &str, value: u32) -> Self {
        self.pair(key, 4, &value.to_le_bytes())
    }

    fn numbers(self, key: &str, values: &[i32]) -> Self {
        let mut array = 5_u32.to_le_bytes().to_vec();
        array.extend((values.len() as u64).to_le_bytes());
        array.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self.pair(key, 9, &array)
    }

    fn tensor(mut self, kind: u32, rows: u64, bytes: u64) -> Self {
        self.tensors.extend(text("blk.0.weight"));
        self.tensors.extend(2_u32.to_le_bytes());
        self.tensors.extend(256_u64.to_le_bytes());
        self.tensors.extend(rows.to_le_bytes());
        self.tensors.extend(kind.to_le_bytes());
        self.tensors.extend(self.data.to_le_bytes());
        self.tensor_count += 1;
        self.data += bytes;
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend(self.tensor_count.to_le_bytes());
        file.extend(self.pair_count.to_le_bytes());
        file.extend(&self.pairs);
        file.extend(&self.tensors);
        file.resize(file.len().next_multiple_of(32), 0);
        file.resize(file.len() + usize::try_from(self.data).unwrap(), 0);
        file
    }

    fn read(&self) -> Result<Header, Defect> {
        read(&self.bytes())
    }
}

fn text(value: &str) -> Vec<u8> {
    let mut bytes = (value.len() as u64).to_le_bytes().to_vec();
    bytes.extend(value.bytes());
    bytes
}

fn read(bytes: &[u8]) -> Result<Header, Defect> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("some.gguf");
    std::fs::write(&file, bytes).unwrap();
    Header::read(&file)
}

#[test]
fn a_header_describes_the_model() -> anyhow::Result<()> {
    let tokens: Vec<u8> = (0..300).flat_map(|number| text(&format!("token {number}"))).collect();
    let mut array = [8_u32.to_le_bytes().to_vec(), 300_u64.to_le_bytes().to_vec()].concat();
    array.extend(tokens);
    let header = Gguf::llama()
        .pair("tokenizer.ggml.tokens", 9, &array)
        .number("general.file_type", 15)
        .text("general.license", "apache-2.0")
        .text("tokenizer.chat_template", "{% if tools %}<think>")
        .tensor(12, 2, 288)
        .read()?;
    assert_eq!(header.architecture(), Some("llama"));
    assert_eq!(header.quantization(), Some("Q4_K_M"));
    assert_eq!(header.context_length(), Some(8192));
    assert_eq!(header.license(), Some("apache-2.0"));
    assert_eq!(header.parameters, 512);
    assert_eq!(header.capabilities(), ["completion", "tools", "thinking"]);
    // Keys and values of 64 16-bit numbers for 8 heads in 4 layers.
    assert_eq!(header.bytes_per_token(), Some(2 * 2 * 64 * 8 * 4));
    Ok(())
}

#[test]
fn tensors_tell_the_quantization_without_a_file_type() -> anyhow::Result<()> {
    assert_eq!(Gguf::llama().tensor(0, 1, 1024).tensor(8, 100, 27_200).read()?.quantization(), Some("Q8_0"));
    assert_eq!(Gguf::llama().number("general.file_type", 1024 + 7).read()?.quantization(), Some("Q8_0"));
    assert_eq!(Gguf::llama().read()?.quantization(), None);
    Ok(())
}

#[test]
fn only_layers_that_keep_keys_are_counted() -> anyhow::Result<()> {
    let hybrid = Gguf::llama().numbers("llama.attention.head_count_kv", &[0, 2, 0, 2]);
    assert_eq!(hybrid.number("llama.ssm.state_size", 16).read()?.bytes_per_token(), Some(2 * 4 * 128));
    let latent = Gguf::llama().number("llama.attention.kv_lora_rank", 512);
    let latent = latent.number("llama.rope.dimension_count", 64);
    assert_eq!(latent.read()?.bytes_per_token(), Some(2 * 4 * 576));
    let sparse = Gguf::llama().number("llama.ssm.state_size", 16).number("llama.attention.head_count_kv", 2);
    assert_eq!(sparse.read()?.bytes_per_token(), None);
    let sparse = Gguf::llama().number("llama.ssm.state_size", 16).number("llama.attention.head_count_kv", 2);
    let sparse = sparse.number("llama.full_attention_interval", 4);
    assert_eq!(sparse.read()?.bytes_per_token(), Some(2 * 2 * 128));
    let windowed = Gguf::llama().number("llama.attention.sliding_window", 1024);
    assert_eq!(windowed.read()?.bytes_per_token(), None);
    Ok(())
}

#[test]
fn a_file_cut_anywhere_is_truncated() -> anyhow::Result<()> {
    let whole = Gguf::llama().text("general.name", "x").tensor(1, 2, 1024).bytes();
    assert!(read(&whole).is_ok());
    for length in 0..whole.len() {
        let defect = read(&whole[..length]).err().context("it was taken for whole")?;
        let Defect::Truncated { found, expected, .. } = &defect else { panic!("{length}: {defect}") };
        assert_eq!(*found, length as u64);
        assert!(*expected > *found && *expected <= whole.len() as u64, "{defect}");
    }
    Ok(())
}

#[test]
fn foreign_and_hostile_files_are_named() {
    let said = |bytes: &[u8]| read(bytes).expect_err("it was read").to_string();
    assert_eq!(said(b"no model"), "some.gguf is not a GGUF file: it does not start like one");
    assert_eq!(said(b"GGUF\x63\0\0\0"), "some.gguf is not a GGUF file: it has version 99 of the format");
    let unknown = Gguf::default().pair("a", 77, &[]).bytes();
    assert_eq!(said(&unknown), "some.gguf is not a GGUF file: a value has the unknown type 77");
    let mut nested = Vec::new();
    for _ in 0..40 {
        nested.extend(9_u32.to_le_bytes());
        nested.extend(1_u64.to_le_bytes());
    }
    let nested = Gguf::default().pair("a", 9, &nested).bytes();
    assert_eq!(said(&nested), "some.gguf is not a GGUF file: arrays are nested too deeply");
    // Lengths that no memory and no file has.
    let mut endless = b"GGUF\x03\0\0\0".to_vec();
    endless.extend([0xff; 40]);
    assert!(said(&endless).starts_with("some.gguf has 48 of "), "{}", said(&endless));
}

#[test]
fn tensors_beyond_every_size_are_truncated() {
    let read = Gguf::llama().tensor(0, u64::MAX, 1).tensor(0, u64::MAX, 1).read();
    assert!(matches!(read, Err(Defect::Truncated { .. })), "{read:?}");
}

#[test]
fn missing_files_and_directories_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let missing = Header::read(&directory.path().join("none.gguf"));
    assert_eq!(missing.err(), Some(Defect::Missing { file: "none.gguf".to_owned() }));
    let made = directory.path().join("made.gguf");
    std::fs::create_dir(&made).unwrap();
    let defect = Header::read(&made).err().map(|defect| defect.to_string());
    assert_eq!(defect.as_deref(), Some("made.gguf is a directory, not a file"));
}
