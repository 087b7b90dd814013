//! MLX's models: in the hub's cache, and in directories of the user.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::Sandbox;
use crate::{cache_model, on_a_terminal};

#[test]
fn the_models_of_the_cache_are_listed_whole_or_not() {
    let sandbox = Sandbox::new();
    cache_model(&sandbox, "org/whole");
    let broken = cache_model(&sandbox, "org/broken");
    fs::remove_file(broken.join("snapshots/c0ffee/model.safetensors")).expect("it was there");
    let foreign = cache_model(&sandbox, "org/for-others");
    for file in ["model.safetensors", "model.safetensors.index.json"] {
        fs::remove_file(foreign.join("snapshots/c0ffee").join(file)).expect("it was there");
    }
    let list = sandbox.fusion(["mlx", "models", "--json"]).run().assert_code(0).json();
    let rows: Vec<(&str, &Value)> = list
        .as_array()
        .expect("an array")
        .iter()
        .map(|row| (row["name"].as_str().expect("a name"), &row["defects"]))
        .collect();
    assert_eq!(rows, [("org/broken", &json!(["model.safetensors is missing"])), ("org/whole", &json!([]))]);
    let table = sandbox.fusion(["mlx", "models"]).run().assert_code(0).stdout();
    assert!(table.contains("incomplete: model.safetensors is missing"), "{table}");
    sandbox.fusion(["mlx", "load", "org/broken"]).run().assert(
        7,
        "",
        "error: the model org/broken is incomplete: model.safetensors is missing\n\
         hint: download the rest of it: fusion mlx pull org/broken\n",
    );
}

#[test]
fn a_directory_that_is_no_model_is_named_with_what_it_lacks() {
    let sandbox = Sandbox::new();
    let empty = sandbox.project().join("empty");
    fs::create_dir(&empty).expect("the sandbox is writable");
    sandbox.fusion(["mlx", "up", "--model", "./empty"]).run().assert(
        7,
        "",
        "error: the model [ROOT]/project/empty is incomplete: config.json is missing; there is no tokenizer \
         (tokenizer.json, tokenizer.model ...); there are no weights (model*.safetensors)\n\
         hint: copy or convert the model again; fusion does not repair a directory of yours\n",
    );
    sandbox.fusion(["mlx", "pull", "./nowhere"]).run().assert(
        7,
        "",
        "error: there is no directory [ROOT]/project/nowhere\n\
         hint: a name that begins with /, ./, ../ or ~/ is a directory\n",
    );
    fs::write(sandbox.model().join("model.safetensors"), b"\x40\0\0\0\0\0\0\0{}")
        .expect("the sandbox is writable");
    sandbox.fusion(["mlx", "up"]).run().assert(
        7,
        "",
        "error: the model [ROOT]/model is incomplete: model.safetensors has 10 of 72 bytes\n\
         hint: copy or convert the model again; fusion does not repair a directory of yours\n",
    );
    sandbox.assert_nothing_runs();
}

#[test]
fn a_directory_works_wherever_a_name_does() {
    let sandbox = Sandbox::new();
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/tiny");
    symlink(tiny, sandbox.project().join("tiny")).expect("a link");
    for name in [tiny, "tiny", "./tiny"] {
        let shown = sandbox.fusion(["mlx", "show", "--json", name]).run().assert_code(0).json();
        assert_eq!(shown["architecture"], "llama");
        assert_eq!(shown["path"], tiny);
        let up = sandbox.fusion(["mlx", "up", "--json", "--model", name]).run().assert_code(0).json();
        assert_eq!(up["model"], tiny);
    }
    sandbox.fusion(["mlx", "down"]).run().assert_code(0);
    let refused = sandbox.fusion(["mlx", "rm", "-y", "./tiny"]).run().assert_code(1);
    assert!(refused.stderr().contains("is a directory of yours"), "{}", refused.stderr());
    assert!(!refused.stderr().contains("rm -r"), "no advice to remove whatever it is: {}", refused.stderr());
    assert!(Path::new(tiny).join("config.json").exists());
}

#[test]
fn a_relative_model_in_the_configuration_is_the_same_wherever_fusion_is_started() {
    let sandbox = Sandbox::new();
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/tiny");
    symlink(tiny, sandbox.config_dir().join("tiny")).expect("a link");
    let configured = fs::read_to_string(sandbox.config_dir().join("config.toml")).expect("a configuration");
    let model = format!("model = \"{}\"", sandbox.model().display());
    assert!(configured.contains(&model), "{configured}");
    let aliases = "\n[aliases]\nmine = \"./tiny\"\n";
    sandbox.write_config(&(configured.replace(&model, "model = \"./tiny\"") + aliases));
    // What is typed starts where it is typed.
    std::fs::create_dir(sandbox.project().join("tiny")).expect("the sandbox is writable");
    let up = sandbox.fusion(["mlx", "up", "--json"]).run().assert_code(0).json();
    assert_eq!(up["model"], tiny);
    for directory in [sandbox.project(), sandbox.home()] {
        let fusion = |words: &str| sandbox.fusion(words.split(' ')).directory(&directory).run();
        assert_eq!(fusion("mlx ps").assert_code(0).stderr(), "");
        assert_eq!(fusion("mlx up").assert_code(0).stderr(), "");
        let request = fusion("mlx run --dry-run Hello").assert_code(0).json();
        assert_eq!(request["model"], tiny);
        assert_eq!(fusion("mlx show --json mine").assert_code(0).json()["path"], tiny);
        fusion("mlx restart").assert_code(0);
    }
    sandbox.fusion(["mlx", "show", "./tiny"]).run().assert_code(0);
    sandbox.fusion(["mlx", "down"]).run().assert_code(0);
}

#[test]
fn a_name_that_would_leave_the_cache_is_refused() {
    let sandbox = Sandbox::new();
    let outside = sandbox.home().join("precious");
    fs::create_dir_all(&outside).expect("the sandbox is writable");
    let cached = cache_model(&sandbox, "org/tiny");
    let cache = cached.parent().expect("the cache");
    symlink(&outside, cache.join("models--org--link")).expect("a link");
    for name in [
        "org/..",
        "x/../../../../precious",
        "models--org--tiny",
        "org/tiny/snapshots",
        "org\\tiny",
        "org/ti ny",
        "",
    ] {
        let refused = sandbox.fusion(["mlx", "rm", "--yes", name]).run().assert_code(2);
        let stderr = refused.stderr();
        assert!(stderr.starts_with(&format!("error: {name:?} is not the name of a model\n")), "{stderr}");
        sandbox.fusion(["mlx", "pull", name]).run().assert_code(2);
    }
    let link = sandbox.fusion(["mlx", "rm", "--yes", "org/link"]).run().assert_code(1);
    assert!(link.stderr().contains("is a symbolic link"), "{}", link.stderr());
    assert!(outside.is_dir() && cached.join("refs/main").is_file());
}

#[test]
fn a_model_that_is_loaded_is_not_removed() {
    let sandbox = Sandbox::new();
    let model = cache_model(&sandbox, "org/tiny");
    sandbox.fusion(["mlx", "up", "-m", "org/tiny"]).run().assert_code(0);
    let in_use = "error: org/tiny is in use: mlx has loaded it\nhint: stop it first: fusion mlx down\n";
    sandbox.fusion(["mlx", "rm", "-y", "org/tiny"]).run().assert(1, "", in_use);
    assert!(model.join("refs/main").is_file());
    sandbox.fusion(["mlx", "unload", "org/tiny"]).run().assert(
        1,
        "",
        "error: the server cannot let go of its model while it runs\nhint: stop it: fusion mlx down\n",
    );
    sandbox.fusion(["mlx", "down"]).run().assert_code(0);
    let removed = sandbox.fusion(["mlx", "rm", "-y", "org/tiny"]).run().assert_code(0);
    assert!(removed.stdout().starts_with("org/tiny is removed, "), "{}", removed.stdout());
    assert!(!model.exists());
}

#[test]
fn loading_another_model_starts_the_server_with_it() {
    let sandbox = Sandbox::new();
    cache_model(&sandbox, "org/one");
    cache_model(&sandbox, "org/two");
    let loaded = || sandbox.fusion(["mlx", "models", "--json"]).run().assert_code(0).json();
    let loaded = || {
        let rows = loaded();
        let rows = rows.as_array().expect("an array").iter().filter(|row| row["loaded"] == true);
        rows.map(|row| row["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    sandbox.fusion(["mlx", "load", "org/one"]).run().assert(0, "org/one is loaded\n", "");
    assert_eq!(loaded(), ["org/one"]);
    sandbox.fusion(["mlx", "load", "org/two"]).run().assert(0, "org/two is loaded\n", "");
    assert_eq!(loaded(), ["org/two"]);
    let up = sandbox.fusion(["mlx", "up", "--json", "-m", "org/one"]).run().assert_code(0).json();
    assert_eq!((&up["model"], &up["started"]), (&json!("org/one"), &json!(true)), "it was started anew");
    assert_eq!(loaded(), ["org/one"]);
    let up = sandbox.fusion(["mlx", "up", "--json", "-m", "org/one"]).run().assert_code(0).json();
    assert_eq!((&up["model"], &up["started"]), (&json!("org/one"), &json!(false)));
    let keep_alive = sandbox.fusion(["mlx", "load", "org/one", "--keep-alive", "1h"]).run().assert_code(1);
    assert!(keep_alive.stderr().contains("hint: leave --keep-alive out"), "{}", keep_alive.stderr());
    sandbox.fusion(["mlx", "down"]).run().assert_code(0);
}

/// So that no request can stall on, or download from, a hub.
#[test]
fn a_server_whose_model_is_here_is_kept_from_the_hub() {
    let sandbox = Sandbox::new();
    cache_model(&sandbox, "org/tiny");
    let dump = sandbox.root().join("dump");
    sandbox.faults("mlx", &[&format!("dump={}", dump.display())]);
    sandbox.fusion(["mlx", "up", "-m", "org/tiny"]).run().assert_code(0);
    let dumped = fs::read(dump).expect("what it was started with");
    let dumped: Value = serde_json::from_slice(&dumped).expect("JSON");
    assert_eq!(dumped["environment"]["HF_HUB_OFFLINE"], "1");
    sandbox.fusion(["mlx", "down"]).run().assert_code(0);
}

/// An index may hold a name of any length.
#[test]
fn an_index_with_an_endless_number_of_files_is_a_defect() {
    let sandbox = Sandbox::new();
    let files = cache_model(&sandbox, "org/tiny").join("snapshots/c0ffee");
    let file = format!("model-1-of-{}2.safetensors", "0".repeat(70_000));
    let index = json!({ "weight_map": { "weight": file } }).to_string();
    fs::write(files.join("model.safetensors.index.json"), index).expect("the sandbox is writable");
    let shown = sandbox.fusion(["mlx", "show", "--json", "org/tiny"]).run().assert_code(0).json();
    assert_eq!(shown["defects"], json!([format!("{file} is missing")]));
    sandbox.fusion(["mlx", "up", "-m", "org/tiny", "-q"]).run().assert_code(4);
}

#[test]
fn rm_asks_on_a_terminal_and_takes_anything_but_yes_for_no() {
    let sandbox = Sandbox::new();
    let model = cache_model(&sandbox, "org/tiny");
    let question = ")? [y/N] ";
    for answer in [&b"\n"[..], b"n\n", b"what?\n", b"\x04"] {
        let (shown, code) = on_a_terminal(&sandbox, &["mlx", "rm", "org/tiny"], question, answer);
        assert!(shown.contains("Remove org/tiny (") && shown.contains("nothing was removed"), "{shown:?}");
        assert_eq!(code, Some(1));
        assert!(model.exists());
    }
    let (shown, code) = on_a_terminal(&sandbox, &["mlx", "rm", "org/tiny"], question, b"y\n");
    assert!(shown.contains("org/tiny is removed, "), "{shown:?}");
    assert_eq!(code, Some(0));
    assert!(!model.exists());
}
