//! Models that need more memory than the machine has.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

use serde_json::json;

use crate::support::{Sandbox, same_output};

/// More than any machine has: 8 TB, of which the disk stores nothing.
const WEIGHT_BYTES: u64 = 8_000_000_000_000;

/// A model whose weights are a file with a hole.
fn huge_model(sandbox: &Sandbox) -> PathBuf {
    let model = sandbox.root().join("huge");
    std::fs::create_dir(&model).unwrap();
    let config = json!({ "model_type": "llama", "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "hidden_size": 8 });
    std::fs::write(model.join("config.json"), config.to_string()).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(sandbox.model().join(file), model.join(file)).unwrap();
    }
    let tensor = json!({ "dtype": "U8", "shape": [WEIGHT_BYTES], "data_offsets": [0, WEIGHT_BYTES] });
    let header = json!({ "weight": tensor }).to_string();
    let mut weights = File::create(model.join("model.safetensors")).unwrap();
    weights.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    weights.write_all(header.as_bytes()).unwrap();
    weights.set_len(8 + header.len() as u64 + WEIGHT_BYTES).unwrap();
    model
}

#[test]
fn a_model_beyond_the_memory_is_refused() {
    let sandbox = Sandbox::new();
    let model = huge_model(&sandbox);
    let name = model.to_str().unwrap();
    let models = format!("models={name},{}", sandbox.model().display());
    sandbox.faults("mlx", &[&models]);
    let commands = [&["up", "-m", name][..], &["load", name], &["run", "-m", name, "Hello"]];
    let refused = commands.map(|command| {
        let finished = sandbox.fusion(["mlx"].iter().chain(command).copied()).run();
        finished.assert_code(6)
    });
    let shown = same_output(refused);
    assert!(shown.contains("it needs about 8.0 TB, and there are"), "{shown}");
    sandbox.assert_nothing_runs();
    let forced = |words: &[&str]| sandbox.fusion(["mlx"].iter().chain(words).copied()).run().assert_code(0);
    let load = forced(&["load", "--force", name]);
    assert_eq!(load.stdout(), format!("{name} is loaded\n"));
    assert!(load.stderr().contains("warning: ") && load.stderr().contains("needs about 8.0 TB"), "{load}");
    assert_eq!(forced(&["run", "--force", "-m", name, "Hello"]).stdout(), "Hello from the fake runtime.\n");
    sandbox.fusion(["mlx", "down"]).run().assert_code(0);
}
