//! Models of MLX: in the hub's cache, and in directories of the user.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::normalize::normalize;
use crate::support::{Sandbox, same_output};
use crate::{cache_model, on_a_terminal};

#[test]
fn models_of_the_cache_are_listed_with_defects() {
    let sandbox = Sandbox::new();
    cache_model(&sandbox, "org/whole");
    let broken = cache_model(&sandbox, "org/broken");
    fs::remove_file(broken.join("snapshots/c0ffee/model.safetensors")).expect("it was there");
    let foreign = cache_model(&sandbox, "org/for-others");
    for file in ["model.safetensors", "model.safetensors.index.json"] {
        fs::remove_file(foreign.join("snapshots/c0ffee").join(file)).expect("it was there");
    }
    let list = sandbox.fusion(["mlx", "models", "--json"]).run_in_process().assert_code(0).json();
    let rows: Vec<(&str, &Value)> = list
        .as_array()
        .expect("an array")
        .iter()
        .map(|row| (row["name"].as_str().expect("a name"), &row["defects"]))
        .collect();
    assert_eq!(rows, [("org/broken", &json!(["model.safetensors is missing"])), ("org/whole", &json!([]))]);
    insta::assert_snapshot!(sandbox.fusion(["mlx", "models"]).run_in_process(), @"
    exit 0
    [stdout]
    NAME        SIZE    FORMAT   CHANGED   LAST USED  NOW
    org/broken  355 kB  float16  just now  just now   unusable: model.safetensors is missing
    org/whole   355 kB  float16  just now  just now
    ");
    insta::assert_snapshot!(sandbox.fusion(["mlx", "load", "org/broken"]).run_in_process(), @"
    exit 7
    [stderr]
    error: the model org/broken is incomplete: model.safetensors is missing
    hint: download the missing files: fusion mlx pull org/broken
    ");
}

#[test]
fn an_incomplete_directory_is_refused() {
    let sandbox = Sandbox::new();
    let empty = sandbox.project().join("empty");
    fs::create_dir(&empty).expect("the sandbox is writable");
    insta::assert_snapshot!(sandbox.fusion(["mlx", "up", "--model", "./empty"]).run_in_process(), @"
    exit 7
    [stderr]
    error: the model [ROOT]/project/empty is incomplete: config.json is missing; there is no tokenizer (tokenizer.json, tokenizer.model ...); there are no weights (model*.safetensors)
    hint: copy or convert the model again; fusion does not repair your own directories
    ");
    insta::assert_snapshot!(sandbox.fusion(["mlx", "pull", "./nowhere"]).run_in_process(), @"
    exit 7
    [stderr]
    error: there is no directory [ROOT]/project/nowhere
    hint: a name that starts with /, ./, ../ or ~/ is a directory
    ");
    fs::write(sandbox.model().join("model.safetensors"), b"\x40\0\0\0\0\0\0\0{}")
        .expect("the sandbox is writable");
    insta::assert_snapshot!(sandbox.fusion(["mlx", "up"]).run_in_process(), @"
    exit 7
    [stderr]
    error: the model [ROOT]/model is incomplete: model.safetensors has 10 of 72 bytes
    hint: copy or convert the model again; fusion does not repair your own directories
    ");
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
    // Without advice to remove it by another program.
    let refused = sandbox.fusion(["mlx", "rm", "-y", "./tiny"]).mask(tiny, "[TINY]").run();
    insta::assert_snapshot!(refused, @"
    exit 1
    [stderr]
    error: [TINY] is your own directory; fusion removes only what it downloaded
    hint: check its content and remove it yourself
    ");
    assert!(Path::new(tiny).join("config.json").exists());
}

#[test]
fn relative_models_do_not_depend_on_the_directory() {
    let sandbox = Sandbox::new();
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/tiny");
    symlink(tiny, sandbox.config_dir().join("tiny")).expect("a link");
    let configured = fs::read_to_string(sandbox.config_dir().join("config.toml")).expect("a configuration");
    let model = format!("model = \"{}\"", sandbox.model().display());
    assert!(configured.contains(&model), "{configured}");
    let aliases = "\n[aliases]\nmine = \"./tiny\"\n";
    sandbox.write_config(&(configured.replace(&model, "model = \"./tiny\"") + aliases));
    // A name on the command line is relative to the working directory.
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
fn names_that_would_leave_the_cache_are_refused() {
    let sandbox = Sandbox::new();
    let outside = sandbox.home().join("precious");
    fs::create_dir_all(&outside).expect("the sandbox is writable");
    let cached = cache_model(&sandbox, "org/tiny");
    let cache = cached.parent().expect("the cache");
    symlink(&outside, cache.join("models--org--link")).expect("a link");
    let mut refused = Vec::new();
    for name in [
        "org/..",
        "x/../../../../precious",
        "models--org--tiny",
        "org/tiny/snapshots",
        "org\\tiny",
        "org/ti ny",
        "",
    ] {
        refused.push(
            sandbox.fusion(["mlx", "rm", "--yes", name]).mask(format!("{name:?}"), "[NAME]").run_in_process(),
        );
        sandbox.fusion(["mlx", "pull", name]).run_in_process().assert_code(2);
    }
    insta::assert_snapshot!(same_output(refused), @"
    exit 2
    [stderr]
    error: [NAME] is not the name of a model
    hint: `fusion models` lists names that mlx accepts
    ");
    insta::assert_snapshot!(sandbox.fusion(["mlx", "rm", "--yes", "org/link"]).run_in_process(), @"
    exit 1
    [stderr]
    error: [ROOT]/home/.cache/huggingface/hub/models--org--link is a symbolic link, and its target is not part of the cache
    ");
    assert!(outside.is_dir() && cached.join("refs/main").is_file());
}

#[test]
fn a_loaded_model_is_not_removed() {
    let sandbox = Sandbox::new();
    let model = cache_model(&sandbox, "org/tiny");
    sandbox.fusion(["mlx", "up", "-m", "org/tiny"]).run().assert_code(0);
    insta::assert_snapshot!(sandbox.fusion(["mlx", "rm", "-y", "org/tiny"]).run(), @"
    exit 1
    [stderr]
    error: org/tiny is in use: mlx has loaded it
    hint: stop the server first: fusion mlx down
    ");
    assert!(model.join("refs/main").is_file());
    insta::assert_snapshot!(sandbox.fusion(["mlx", "unload", "org/tiny"]).run(), @"
    exit 1
    [stderr]
    error: the server cannot unload its model while it runs
    hint: stop the server: fusion mlx down
    ");
    sandbox.fusion(["mlx", "down"]).run().assert_code(0);
    insta::assert_snapshot!(sandbox.fusion(["mlx", "rm", "-y", "org/tiny"]).run(), @"
    exit 0
    [stdout]
    removed org/tiny, 355 kB freed
    ");
    assert!(!model.exists());
}

#[test]
fn load_restarts_the_server_with_another_model() {
    let sandbox = Sandbox::new();
    cache_model(&sandbox, "org/one");
    cache_model(&sandbox, "org/two");
    let loaded = || sandbox.fusion(["mlx", "models", "--json"]).run().assert_code(0).json();
    let loaded = || {
        let rows = loaded();
        let rows = rows.as_array().expect("an array").iter().filter(|row| row["loaded"] == true);
        rows.map(|row| row["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    insta::assert_snapshot!(sandbox.fusion(["mlx", "load", "org/one"]).run(), @"
    exit 0
    [stdout]
    org/one is loaded
    ");
    assert_eq!(loaded(), ["org/one"]);
    insta::assert_snapshot!(sandbox.fusion(["mlx", "load", "org/two"]).run(), @"
    exit 0
    [stdout]
    org/two is loaded
    ");
    assert_eq!(loaded(), ["org/two"]);
    let up = sandbox.fusion(["mlx", "up", "--json", "-m", "org/one"]).run().assert_code(0).json();
    assert_eq!((&up["model"], &up["started"]), (&json!("org/one"), &json!(true)), "it was started anew");
    assert_eq!(loaded(), ["org/one"]);
    let up = sandbox.fusion(["mlx", "up", "--json", "-m", "org/one"]).run().assert_code(0).json();
    assert_eq!((&up["model"], &up["started"]), (&json!("org/one"), &json!(false)));
    insta::assert_snapshot!(sandbox.fusion(["mlx", "load", "org/one", "--keep-alive", "1h"]).run(), @"
    exit 1
    [stderr]
    error: the server keeps its model loaded until another one is loaded, so it has no time limit
    hint: omit --keep-alive
    ");
    sandbox.fusion(["mlx", "down"]).run().assert_code(0);
}

/// No request can then stall on the hub or download from it.
#[test]
fn a_server_with_its_model_is_offline() {
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
fn a_very_long_file_name_is_a_defect() {
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
fn rm_on_a_terminal_removes_only_after_yes() {
    let sandbox = Sandbox::new();
    let model = cache_model(&sandbox, "org/tiny");
    let question = ")? [y/N] ";
    let declined = [&b"\n"[..], b"n\n", b"what?\n", b"\x04"].map(|answer| {
        let (shown, code) = on_a_terminal(&sandbox, &["mlx", "rm", "org/tiny"], question, answer);
        assert_eq!(code, Some(1));
        assert!(model.exists());
        shown
    });
    assert!(declined.iter().all(|shown| *shown == declined[0]), "{declined:#?}");
    insta::assert_snapshot!(normalize(&declined[0], &[]), @r"Remove org/tiny (355 kB)? [y/N] nothing was removed\r");
    let (shown, code) = on_a_terminal(&sandbox, &["mlx", "rm", "org/tiny"], question, b"y\n");
    insta::assert_snapshot!(normalize(&shown, &[]), @r"Remove org/tiny (355 kB)? [y/N] removed org/tiny, 355 kB freed\r");
    assert_eq!(code, Some(0));
    assert!(!model.exists());
}

/// The server reads no `chat_template.json`.
#[test]
fn show_names_a_missing_chat_template() {
    let sandbox = Sandbox::new();
    let files = cache_model(&sandbox, "org/tiny").join("snapshots/c0ffee");
    let config = files.join("tokenizer_config.json");
    let text = fs::read_to_string(&config).expect("the configuration");
    let mut tokenizer: Value = serde_json::from_str(&text).expect("JSON");
    let template = tokenizer.as_object_mut().expect("an object").remove("chat_template");
    fs::write(&config, tokenizer.to_string()).expect("the sandbox is writable");
    fs::write(files.join("chat_template.json"), json!({ "chat_template": template }).to_string())
        .expect("the sandbox is writable");
    let shown = sandbox.fusion(["mlx", "show", "org/tiny"]).run().assert_code(0).stdout();
    assert!(shown.lines().any(|line| line.split_whitespace().eq(["chat", "template", "none"])), "{shown}");
}

#[test]
fn a_fifo_is_named_and_not_waited_for() {
    let sandbox = Sandbox::new();
    let files = cache_model(&sandbox, "org/tiny").join("snapshots/c0ffee");
    for file in ["config.json", "README.md", "tokenizer_config.json"] {
        let _ = fs::remove_file(files.join(file));
        nix::unistd::mkfifo(&files.join(file), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    }
    let shown = sandbox.fusion(["mlx", "show", "--json", "org/tiny"]).run().assert_code(0).json();
    assert_eq!(shown["defects"], json!(["config.json is a FIFO, not a file"]));
    insta::assert_snapshot!(sandbox.fusion(["mlx", "load", "org/tiny"]).run(), @"
    exit 1
    [stderr]
    error: the model org/tiny cannot be used: config.json is a FIFO, not a file
    hint: check the files in [ROOT]/home/.cache/huggingface/hub/models--org--tiny/snapshots/c0ffee
    ");
}

#[test]
fn a_git_lfs_pointer_names_its_cure() {
    let sandbox = Sandbox::new();
    let clone = sandbox.project().join("clone");
    fs::create_dir(&clone).expect("the sandbox is writable");
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/tiny");
    for file in fs::read_dir(tiny).expect("the tiny model").flatten() {
        fs::copy(file.path(), clone.join(file.file_name())).expect("a copy");
    }
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n";
    fs::write(clone.join("model.safetensors"), pointer).expect("the sandbox is writable");
    insta::assert_snapshot!(sandbox.fusion(["mlx", "load", "./clone"]).run(), @"
    exit 7
    [stderr]
    error: the model [ROOT]/project/clone is incomplete: model.safetensors is a Git LFS pointer instead of the file
    hint: download the files: git -C [ROOT]/project/clone lfs pull
    ");
    assert!(clone.join("model.safetensors").exists());
}

#[test]
fn the_reason_for_missing_files_is_named() {
    let sandbox = Sandbox::new();
    fs::remove_file(cache_model(&sandbox, "org/no-reference").join("refs/main")).expect("it was there");
    let other = cache_model(&sandbox, "org/no-snapshot");
    fs::write(other.join("refs/main"), "beef").expect("the sandbox is writable");
    let model = cache_model(&sandbox, "org/no-target");
    let file = model.join("snapshots/c0ffee/model.safetensors");
    fs::remove_file(&file).expect("it was there");
    symlink("../../blobs/gone", &file).expect("a link");
    let disk = sandbox.root().join("disk");
    fs::create_dir(&disk).expect("the sandbox is writable");
    let linked = cache_model(&sandbox, "org/linked");
    fs::rename(&linked, disk.join("linked")).expect("it moves");
    symlink(disk.join("linked"), &linked).expect("a link");
    symlink("/nonexistent", linked.with_file_name("models--org--unplugged")).expect("a link");
    let list = sandbox.fusion(["mlx", "models", "--json"]).run().assert_code(0).json();
    let rows = list.as_array().expect("an array").iter();
    let rows: Vec<String> = rows.map(|row| format!("{} {}", row["name"], row["defects"])).collect();
    insta::assert_snapshot!(rows.join("\n"), @r#"
    "org/linked" []
    "org/no-reference" ["refs/main, which names the newest files, is missing"]
    "org/no-snapshot" ["snapshots/beef is missing"]
    "org/no-target" ["model.safetensors is a link, and its target ../../blobs/gone is missing"]
    "org/unplugged" ["models--org--unplugged is a link, and its target /nonexistent is missing"]
    "#);
    sandbox.fusion(["mlx", "show", "org/linked"]).run().assert_code(0);
}

#[test]
fn impossible_names_are_usage_errors() {
    let sandbox = Sandbox::new();
    let mut refused = Vec::new();
    for name in ["bad name!", ""] {
        for command in ["up", "run", "load", "show", "pull", "rm"] {
            let words: &[&str] = match command {
                "up" => &["up", "-m", name],
                "run" => &["-q", "run", "-m", name, "Hello"],
                command => &[command, name],
            };
            let output = sandbox
                .fusion(["mlx"].iter().chain(words).copied())
                .mask(format!("{name:?}"), "[NAME]")
                .run();
            // `run` without a name has words of its own.
            if (command, name) == ("run", "") {
                output.assert_code(2);
            } else {
                refused.push(output);
            }
        }
    }
    insta::assert_snapshot!(same_output(refused), @"
    exit 2
    [stderr]
    error: [NAME] is not the name of a model
    hint: `fusion models` lists names that mlx accepts
    ");
    sandbox.fusion(["mlx", "up"]).run().assert_code(0);
    for command in [
        &["unload", "bad name!"][..],
        &["run", "-m", "bad name!", "Hello"],
        &["load", ""],
        &["health", "-m", "bad name!"],
        &["health", "-m", ""],
    ] {
        sandbox.fusion(["mlx"].iter().chain(command).copied()).run().assert_code(2);
    }
    sandbox.fusion(["mlx", "down"]).run().assert_code(0);
}

/// The server starts in another directory, and expands nothing that the configuration has set.
#[test]
fn tool_and_server_use_the_resolved_cache() {
    let sandbox = Sandbox::new();
    let cache = cache_model(&sandbox, "org/tiny").parent().expect("the cache").to_owned();
    for value in ["$HOME/.cache/huggingface/hub", "../home/.cache/huggingface/hub"] {
        let fusion = |words: &str| sandbox.fusion(words.split(' ')).env("HF_HUB_CACHE", value);
        let list = fusion("mlx models --json").run().assert_code(0).json();
        assert_eq!(list[0]["name"], "org/tiny", "{value}");
        let dump = sandbox.root().join("dump");
        sandbox.faults("mlx", &[&format!("dump={}", dump.display())]);
        fusion("mlx up -m org/tiny").run().assert_code(0);
        let dumped: Value = serde_json::from_slice(&fs::read(&dump).expect("a dump")).expect("JSON");
        let handed = dumped["environment"]["HF_HUB_CACHE"].as_str().expect("a path");
        assert_eq!(
            fs::canonicalize(handed).expect("a directory"),
            cache.canonicalize().expect("a directory"),
            "{value}"
        );
        assert!(Path::new(handed).is_absolute(), "{handed}");
        fusion("mlx down").run().assert_code(0);
    }
}
