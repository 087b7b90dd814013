//! Models with and without defects.

use std::io;

use super::*;

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
fn a_complete_model_has_no_defects() -> anyhow::Result<()> {
    assert_eq!(found(complete_model()?.path()), [""; 0]);
    Ok(())
}

#[test]
fn missing_weights_and_tokenizer_are_named() -> anyhow::Result<()> {
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
fn truncated_weights_are_a_defect() -> anyhow::Result<()> {
    let model = complete_model()?;
    let whole = weights(10);
    for length in [0, 7, 8, 20, whole.len() - 1] {
        fs::write(model.path().join("model.safetensors"), &whole[..length])?;
        let found = found(model.path());
        assert_eq!(found.len(), 1, "{length}: {found:?}");
        assert!(found[0].starts_with(&format!("model.safetensors has {length} of ")), "{found:?}");
    }
    fs::write(model.path().join("model.safetensors"), "this is not a safetensors file")?;
    assert_eq!(found(model.path()), ["model.safetensors does not start like a safetensors file"]);
    Ok(())
}

#[test]
fn missing_shards_are_named() -> anyhow::Result<()> {
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
fn a_dangling_link_is_named_with_its_target() -> anyhow::Result<()> {
    let model = complete_model()?;
    fs::remove_file(model.path().join("model.safetensors"))?;
    std::os::unix::fs::symlink("../../blobs/gone", model.path().join("model.safetensors"))?;
    assert_eq!(
        found(model.path()),
        ["model.safetensors is a link, and its target ../../blobs/gone is missing"]
    );
    Ok(())
}

#[test]
fn a_file_of_another_length_is_changed() -> anyhow::Result<()> {
    let model = complete_model()?;
    let length = |file: &str| fs::metadata(model.path().join(file)).map(|metadata| metadata.len());
    let (config, weights) = (length("config.json")?, length("model.safetensors")?);
    for (config, weights) in [(config - 5, weights - 5), (config + 5, weights + 5)] {
        let listed = [("config.json".to_owned(), config), ("model.safetensors".to_owned(), weights)];
        assert_eq!(defects(model.path(), &listed, |_| true), []);
        assert_eq!(changed_files(model.path(), &listed, |_| true), ["config.json", "model.safetensors"]);
    }
    Ok(())
}

#[test]
fn only_files_that_end_early_are_too_short() -> anyhow::Result<()> {
    let model = complete_model()?;
    let whole = weights(10);
    fs::write(model.path().join("model.safetensors"), &whole[..whole.len() - 1])?;
    fs::write(model.path().join("tokenizer.json"), r#"{"version": "1."#)?;
    fs::write(model.path().join("notes.txt"), "")?;
    let listed =
        [("model.safetensors", whole.len()), ("tokenizer.json", 50), ("notes.txt", 9), ("merges.txt", 9)];
    let listed = listed.map(|(file, size)| (file.to_owned(), size as u64));
    let too_short =
        |file: &str, found, expected| Defect::Truncated { file: file.to_owned(), found, expected };
    let expected = [
        too_short("model.safetensors", whole.len() as u64 - 1, whole.len() as u64),
        too_short("tokenizer.json", 15, 50),
        too_short("notes.txt", 0, 9),
        Defect::Missing { file: "merges.txt".to_owned() },
    ];
    assert_eq!(defects(model.path(), &listed, |file| file != "image.png"), expected);
    Ok(())
}

#[test]
fn configuration_that_only_python_reads_is_sound() -> anyhow::Result<()> {
    let model = complete_model()?;
    for config in [r#"{"a": NaN, "b": 1e400, "c": "\ud800"}"#.to_owned(), "[".repeat(200) + &"]".repeat(200)]
    {
        fs::write(model.path().join("config.json"), config)?;
        assert_eq!(found(model.path()), [""; 0]);
    }
    // The server decides.
    fs::write(model.path().join("config.json"), r#"{"a": 01}"#)?;
    assert_eq!(found(model.path()), [""; 0]);
    fs::write(model.path().join("config.json"), r#"{"model_type": "lla"#)?;
    assert_eq!(found(model.path()), ["config.json ends early"]);
    Ok(())
}

/// `mlx_lm` loads none of these.
#[test]
fn configuration_that_python_refuses_is_named() -> anyhow::Result<()> {
    let deep = format!(r#"{{"a": {}{}}}"#, "[".repeat(900), "]".repeat(900));
    for (file, content, defect) in [
        (
            "config.json",
            "\u{feff}{}",
            "config.json begins with a byte order mark, and the server refuses that",
        ),
        ("config.json", &deep, "config.json is nested more than 500 deep, and the server refuses that"),
        (
            "tokenizer_config.json",
            "\u{feff}{}",
            "tokenizer_config.json begins with a byte order mark, and the server refuses that",
        ),
        (
            "tokenizer_config.json",
            &deep,
            "tokenizer_config.json is nested more than 500 deep, and the server refuses that",
        ),
        (
            "tokenizer.json",
            "\u{feff}{}",
            "tokenizer.json begins with a byte order mark, and the server refuses that",
        ),
    ] {
        let model = complete_model()?;
        fs::write(model.path().join(file), content)?;
        assert_eq!(found(model.path()), [defect]);
    }
    Ok(())
}

#[test]
fn what_is_not_a_file_is_named() -> anyhow::Result<()> {
    let model = complete_model()?;
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        fs::remove_file(model.path().join(file))?;
    }
    nix::unistd::mkfifo(&model.path().join("config.json"), nix::sys::stat::Mode::S_IRWXU)?;
    fs::create_dir(model.path().join("tokenizer.json"))?;
    std::os::unix::fs::symlink("model.safetensors", model.path().join("model.safetensors"))?;
    let found = found(model.path());
    assert_eq!(
        found[..2],
        ["config.json is a FIFO, not a file", "tokenizer.json is a directory, not a file"]
    );
    assert!(found[2].starts_with("model.safetensors may not be read: "), "{found:?}");
    assert_eq!(found.len(), 3);
    Ok(())
}

#[test]
fn a_git_lfs_pointer_is_named() -> anyhow::Result<()> {
    let model = complete_model()?;
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n";
    for file in ["tokenizer.json", "model.safetensors"] {
        fs::write(model.path().join(file), pointer)?;
    }
    let expected = ["tokenizer.json", "model.safetensors"]
        .map(|file| format!("{file} is a Git LFS pointer instead of the file"));
    assert_eq!(
        defects(model.path(), &[], |_| true).iter().map(ToString::to_string).collect::<Vec<_>>(),
        expected
    );
    Ok(())
}

#[test]
fn only_templates_that_the_server_reads_count() -> anyhow::Result<()> {
    let templates = [
        ("chat_template.json", r#"{"chat_template": "{{ messages }}"}"#, false),
        ("tokenizer_config.json", r#"{"chat_template": null}"#, false),
        ("tokenizer_config.json", r#"{"chat_template": [{"name": "default", "template": "x"}]}"#, true),
        ("tokenizer_config.json", r#"{"chat_template_type": "muse_spark"}"#, true),
        ("chat_template.jinja", "{{ messages }}", true),
        ("additional_chat_templates/tool_use.jinja", "{{ messages }}", true),
    ];
    for (file, content, is_read) in templates {
        let model = complete_model()?;
        fs::create_dir(model.path().join("additional_chat_templates"))?;
        fs::write(model.path().join(file), content)?;
        assert_eq!(has_chat_template(model.path()), is_read, "{file}: {content}");
    }
    Ok(())
}

#[test]
fn a_model_describes_itself() -> anyhow::Result<()> {
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
        token_cache: Some(TokenCache { growing: 2 * 2 * 2 * 2 * 64, ..TokenCache::default() }),
        license: Some("llama3.2".to_owned()),
        chat_template: true,
    };
    assert_eq!(facts(model.path()), expected);
    Ok(())
}

#[test]
fn packed_weights_count_their_parameters() -> anyhow::Result<()> {
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
