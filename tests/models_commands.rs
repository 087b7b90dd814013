//! The commands about models: Ollama's by its native API, played by a stub; MLX's in a hub cache on the disk.

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use support::ollama::{Line, Ollama};
use support::terminal::Terminal;
use support::{Sandbox, wait_until};

/// A sandbox in which Ollama runs, started by somebody else, with these models.
fn with_ollama(models: &[&str]) -> (Sandbox, Ollama) {
    let sandbox = Sandbox::new();
    let ollama = Ollama::start(sandbox.port("ollama"), models);
    (sandbox, ollama)
}

fn send(lines: &[Value]) -> Vec<Line> {
    lines.iter().cloned().map(Line::Send).collect()
}

/// The tiny model in a hub cache of the sandbox, laid out as the hub's tool does; gives its directory.
fn cache_model(sandbox: &Sandbox, name: &str) -> PathBuf {
    let model =
        sandbox.home().join(".cache/huggingface/hub").join(format!("models--{}", name.replace('/', "--")));
    let snapshot = model.join("snapshots/c0ffee");
    for directory in [&snapshot, &model.join("refs"), &model.join("blobs")] {
        fs::create_dir_all(directory).expect("the sandbox is writable");
    }
    fs::write(model.join("refs/main"), "c0ffee").expect("the sandbox is writable");
    let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/tiny"));
    for (number, file) in fs::read_dir(source).expect("the tiny model").flatten().enumerate() {
        fs::copy(file.path(), model.join("blobs").join(number.to_string())).expect("a copy");
        symlink(format!("../../blobs/{number}"), snapshot.join(file.file_name())).expect("a link");
    }
    model
}

#[test]
fn the_models_of_ollama_are_listed() {
    let (sandbox, _ollama) = with_ollama(&["qwen3:4b", "llama3.2:3b"]);
    let list = sandbox.fusion(["ollama", "models", "--json"]).run().assert_code(0).json();
    let expected = json!({
        "runtime": "ollama", "aliases": [], "name": "llama3.2:3b", "size_bytes": 2_019_393_189_u64, "format": "gguf",
        "quantization": "Q4_K_M", "modified": "2024-08-04T21:56:49Z", "last_used": null, "loaded": false, "defects": []
    });
    assert_eq!(list[0], expected);
    assert_eq!(list[1]["name"], "qwen3:4b");
    let table = sandbox.fusion(["ollama", "models"]).run().assert_code(0).stdout();
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "SIZE", "STORED", "AS", "CHANGED", "LAST", "USED", "NOW"]);
    assert_eq!(lines[1][..4], ["llama3.2:3b", "2.0", "GB", "Q4_K_M"]);
}

#[test]
fn a_list_that_is_null_is_no_error() {
    let (sandbox, _ollama) = with_ollama(&[]);
    let empty = "Ollama has no models; `fusion ollama pull NAME` downloads one\n";
    sandbox.fusion(["ollama", "models"]).run().assert(0, "", empty);
    assert_eq!(sandbox.fusion(["ollama", "models", "--json"]).run().assert_code(0).json(), json!([]));
}

#[test]
fn a_runtime_that_does_not_run_is_not_started_unasked() {
    let sandbox = Sandbox::new();
    let not_running = "error: ollama is not running\nhint: start it: fusion ollama up\n";
    for command in ["models", "pull", "show", "load", "rm"] {
        let name = (command != "models").then_some("llama3.2:3b");
        let arguments = ["ollama", command, "--no-up"].into_iter().chain(name);
        sandbox.fusion(arguments).run().assert(3, "", not_running);
    }
    let unload = "llama3.2:3b is not loaded: ollama is not running\n";
    sandbox.fusion(["ollama", "unload", "llama3.2:3b"]).run().assert(0, unload, "");
    let all = sandbox.fusion(["models", "--json"]).run().assert_code(0);
    let note = "ollama is not running, so its models are not known; `fusion ollama up` starts it\n";
    assert_eq!(all.stderr(), note);
    assert_eq!(all.json()["models"], json!([]));
    assert_eq!(all.json()["aliases"]["llama3.2:3b"]["mlx"], "mlx-community/Llama-3.2-3B-Instruct-4bit");
    sandbox.assert_nothing_runs();
}

#[test]
fn a_server_is_started_to_ask_it_where_that_is_allowed() {
    let sandbox = Sandbox::new();
    let list = sandbox.fusion(["ollama", "models", "--json"]).run().assert_code(0).json();
    assert_eq!(list[0]["name"], "llama3.2:3b");
    assert!(sandbox.pid("ollama").is_some());
    sandbox.fusion(["ollama", "down"]).run().assert_code(0);
    let config = fs::read_to_string(sandbox.config_dir().join("config.toml")).expect("a configuration");
    sandbox.write_config(&config.replace("[ollama_run]\n", "[ollama_run]\nauto_up = false\n"));
    sandbox.fusion(["ollama", "models"]).run().assert_code(3);
    sandbox.assert_nothing_runs();
}

#[test]
fn a_pull_tells_how_far_it_is() {
    let (sandbox, ollama) = with_ollama(&[]);
    ollama.script(&send(&[
        json!({ "status": "pulling manifest" }),
        json!({ "status": "pulling dde5", "digest": "sha256:dde5", "total": 2_000_000_000_u64 }),
        json!({ "status": "pulling dde5", "digest": "sha256:dde5", "total": 2_000_000_000_u64, "completed": 2_000_000_000_u64 }),
        json!({ "status": "verifying sha256 digest" }),
        json!({ "status": "writing manifest" }),
        json!({ "status": "success" }),
    ]));
    let stderr = "downloading llama3.2:1b\npulling manifest\n0 B of 2.0 GB (0%)\nverifying sha256 digest\n\
                  writing manifest\n";
    sandbox.fusion(["ollama", "pull", "llama3.2:1b"]).run().assert(0, "llama3.2:1b is here\n", stderr);
    let request = json!({ "model": "llama3.2:1b", "stream": true });
    assert_eq!(ollama.asked(), [("POST /api/pull".to_owned(), request)]);
    sandbox.fusion(["-q", "ollama", "pull", "llama3.2:1b"]).run().assert(0, "llama3.2:1b is here\n", "");
}

#[test]
fn an_error_on_a_later_line_of_a_200_is_an_error() {
    let (sandbox, ollama) = with_ollama(&[]);
    ollama.script(&send(&[
        json!({ "status": "pulling manifest" }),
        json!({ "error": "pull model manifest: file does not exist" }),
    ]));
    let stderr = "error: there is no model nix to download\n\
                  hint: check the spelling; a private model needs your token (HF_TOKEN, or `hf auth login`)\n";
    sandbox.fusion(["-q", "ollama", "pull", "nix"]).run().assert(7, "", stderr);
    ollama.script(&send(&[
        json!({ "status": "pulling manifest" }),
        json!({ "error": "write: no space left on device" }),
    ]));
    let full = sandbox.fusion(["-q", "ollama", "pull", "llama3.2:1b"]).run().assert_code(8);
    assert!(
        full.stderr().starts_with("error: the download failed: write: no space left on device\n"),
        "{}",
        full.stderr()
    );
    let unreachable =
        "max retries exceeded: Get \"https://registry\": dial tcp: lookup registry: no such host";
    ollama.script(&send(&[json!({ "error": unreachable })]));
    let offline = sandbox.fusion(["-q", "ollama", "pull", "llama3.2:1b"]).run().assert_code(8);
    assert!(offline.stderr().contains("no such host\nhint: check the connection"), "{}", offline.stderr());
}

#[test]
fn a_pull_that_breaks_off_is_no_success() {
    let (sandbox, ollama) = with_ollama(&[]);
    let begin = json!({ "status": "pulling dde5", "digest": "sha256:dde5", "total": 100, "completed": 50 });
    ollama.script(&[Line::Send(begin.clone()), Line::Cut]);
    sandbox.fusion(["ollama", "pull", "llama3.2:1b"]).run().assert_code(8);
    ollama.script(&send(&[begin]));
    let early = sandbox.fusion(["-q", "ollama", "pull", "llama3.2:1b"]).run().assert_code(8);
    assert!(early.stderr().contains("the server ended its reply too early"), "{}", early.stderr());
}

#[test]
fn an_interrupted_pull_closes_the_connection() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let (sandbox, ollama) = with_ollama(&[]);
        ollama.script(&[Line::Send(json!({ "status": "pulling manifest" })), Line::Wait]);
        let running = sandbox.fusion(["ollama", "pull", "llama3.2:1b"]).start();
        wait_until("the pull was asked for", || !ollama.asked().is_empty());
        running.signal(signal);
        assert_eq!(running.finish().code(), 128 + signal as i32);
        wait_until("the server noticed", || ollama.was_cut_off());
    }
}

#[test]
fn nothing_is_removed_unasked() {
    let (sandbox, ollama) = with_ollama(&["llama3.2:3b"]);
    let stderr =
        "error: llama3.2:3b is not removed unasked, and there is no terminal to ask at\nhint: say --yes\n";
    sandbox.fusion(["ollama", "rm", "llama3.2:3b"]).run().assert(2, "", stderr);
    assert_eq!(ollama.asked().iter().filter(|(request, _)| request.starts_with("DELETE")).count(), 0);
    let stdout = "llama3.2:3b is removed, 2.0 GB are free again\n";
    sandbox.fusion(["ollama", "rm", "--yes", "llama3.2:3b"]).run().assert(0, stdout, "");
    let last = ollama.asked().pop();
    assert_eq!(last, Some(("DELETE /api/delete".to_owned(), json!({ "model": "llama3.2:3b" }))));
    let missing = "error: the model llama3.2:3b is not on this machine\nhint: download it: fusion ollama pull llama3.2:3b\n";
    // Whoever wants it removed does not want it downloaded.
    sandbox.fusion(["ollama", "rm", "-y", "llama3.2:3b"]).run().assert(
        7,
        "",
        "error: the model llama3.2:3b is not on this machine\nhint: those that are here: fusion ollama models\n",
    );
    for command in [&["show"][..], &["load"], &["unload"]] {
        let arguments = ["ollama"].into_iter().chain(command.iter().copied()).chain(["llama3.2:3b"]);
        sandbox.fusion(arguments).run().assert(7, "", missing);
    }
}

#[test]
fn a_model_of_ollama_is_shown() {
    let (sandbox, _ollama) = with_ollama(&["llama3.2:3b"]);
    let shown = sandbox.fusion(["ollama", "show", "--json", "llama3.2:3b"]).run().assert_code(0).json();
    for (field, value) in [
        ("runtime", json!("ollama")),
        ("parameters", json!(3_212_749_888_u64)),
        ("context_length", json!(131_072)),
        ("quantization", json!("Q4_K_M")),
        ("size_bytes", json!(2_019_393_189_u64)),
        ("license", json!("LLAMA 3.2 COMMUNITY LICENSE AGREEMENT")),
        ("chat_template", json!(true)),
        ("capabilities", json!(["completion", "tools"])),
        ("path", Value::Null),
        (
            "memory",
            json!({ "bytes": 2_489_155_237_u64, "weight_bytes": 2_019_393_189_u64, "context_tokens": 4096 }),
        ),
    ] {
        assert_eq!(shown[field], value, "{field}");
    }
    assert!(shown["machine_memory_bytes"].as_u64().is_some_and(|bytes| bytes > 0));
    let text = sandbox.fusion(["ollama", "show", "llama3.2:3b"]).run().assert_code(0).stdout();
    assert!(
        text.contains("\nparameters     3.2B\nstored as      gguf, Q4_K_M\ncontext        131,072 tokens\n"),
        "{text}"
    );
    assert!(
        text.contains(
            "\nmemory         about 2.5 GB (2.0 GB of weights, and a conversation of 4,096 tokens), "
        ),
        "{text}"
    );
}

#[test]
fn a_model_is_loaded_for_as_long_as_is_said_and_let_go_of() {
    let (sandbox, ollama) = with_ollama(&["llama3.2:3b"]);
    let load = ["ollama", "load", "llama3.2:3b"];
    for (keep_alive, seconds) in [(None, Value::Null), (Some("30m"), json!(1800)), (Some("-1"), json!(-1))] {
        let options = keep_alive.into_iter().flat_map(|time| ["--keep-alive", time]);
        sandbox.fusion(load.into_iter().chain(options)).run().assert(0, "llama3.2:3b is loaded\n", "");
        let (request, body) = ollama.asked().pop().expect("a request");
        assert_eq!((request.as_str(), &body["keep_alive"]), ("POST /api/generate", &seconds));
    }
    let list = sandbox.fusion(["ollama", "models", "--json"]).run().assert_code(0).json();
    assert_eq!(list[0]["loaded"], true);
    sandbox.fusion(["ollama", "unload", "llama3.2:3b"]).run().assert(
        0,
        "llama3.2:3b is not loaded any more\n",
        "",
    );
    let (_, body) = ollama.asked().pop().expect("a request");
    assert_eq!(body["keep_alive"], 0);
    sandbox.fusion(load.into_iter().chain(["--keep-alive", "soon"])).run().assert(
        2,
        "",
        "error: invalid value 'soon' for '--keep-alive <TIME>': expected seconds (300), a number with a unit (90s, \
         30m, 2h, 1d), or forever\n\nFor more information, try '--help'.\n",
    );
}

#[test]
fn aliases_of_the_configuration_mean_what_it_says() {
    let (sandbox, ollama) = with_ollama(&["llama3.2:3b"]);
    let config = fs::read_to_string(sandbox.config_dir().join("config.toml")).expect("a configuration");
    let aliases = "\n[aliases]\nsmall = { ollama = \"llama3.2:3b\", mlx = \"org/small\" }\n";
    sandbox.write_config(&(config + aliases));
    cache_model(&sandbox, "org/small");
    sandbox.fusion(["ollama", "load", "small"]).run().assert(0, "llama3.2:3b is loaded\n", "");
    assert_eq!(ollama.asked().pop().expect("a request").1["model"], "llama3.2:3b");
    let shown = sandbox.fusion(["mlx", "show", "--json", "small"]).run().assert_code(0).json();
    assert_eq!((&shown["name"], &shown["aliases"]), (&json!("org/small"), &json!(["small"])));
    let all = sandbox.fusion(["models"]).run().assert_code(0).stdout();
    assert!(
        all.lines().any(|line| line.split_whitespace().eq(["small", "llama3.2:3b", "org/small"])),
        "{all}"
    );
}

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

#[test]
fn up_has_ollama_download_and_load_a_model() {
    let (sandbox, ollama) = with_ollama(&[]);
    ollama.script(&send(&[json!({ "status": "success" })]));
    let up = sandbox.fusion(["ollama", "up", "--model", "llama3.2:1b"]).run().assert_code(0);
    assert!(up.stdout().starts_with("ollama is up at "), "{}", up.stdout());
    let asked: Vec<String> = ollama.asked().into_iter().map(|(request, _)| request).collect();
    assert_eq!(asked, ["POST /api/show", "POST /api/pull", "POST /api/generate"]);
}

/// A tool in the hub's tool's place, which writes down what it was asked.
fn fake_tool(sandbox: &Sandbox, script: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let calls = sandbox.root().join("calls");
    let tool = sandbox.bin().join("hf");
    fs::write(&tool, format!("#!/bin/sh\necho \"$*\" >> '{}'\n{script}\n", calls.display()))
        .expect("a script");
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).expect("it can be run");
    calls
}

#[test]
fn a_download_that_does_not_fit_is_not_begun() {
    let sandbox = Sandbox::new();
    let calls = fake_tool(&sandbox, "echo '[dry-run] Will download 3 files (out of 3) totalling 900.0T.'");
    let refused = sandbox.fusion(["-q", "mlx", "pull", "org/huge"]).run().assert_code(1);
    let stderr = refused.stderr();
    assert!(stderr.starts_with("error: org/huge needs 945 TB and "), "{stderr}");
    assert!(
        stderr.contains(" left\nhint: make room: `fusion mlx models` shows what the models take"),
        "{stderr}"
    );
    let calls = fs::read_to_string(calls).expect("it was called");
    assert_eq!(calls.lines().count(), 1, "{calls}");
    assert!(
        calls.starts_with("download org/huge --include *.json ") && calls.ends_with(" --dry-run\n"),
        "{calls}"
    );
}

/// Versions before 1.0 know no `--dry-run`, and take several patterns after one `--include` only.
#[test]
fn an_older_tool_is_made_do_with() {
    let sandbox = Sandbox::new();
    let source = cache_model(&sandbox, "org/source");
    let target = source.with_file_name("models--org--tiny");
    let script = format!(
        "case \"$*\" in *--dry-run*) echo 'usage: hf' >&2; echo 'hf: error: unrecognized arguments: --dry-run' >&2; exit 2;;\n\
         *--include*--include*) exit 3;; *) mkdir -p '{0}'; cp -R '{1}/.' '{0}/';; esac",
        target.display(),
        source.display()
    );
    let calls = fake_tool(&sandbox, &script);
    sandbox.fusion(["-q", "mlx", "pull", "org/tiny"]).run().assert(0, "org/tiny is here\n", "");
    let calls = fs::read_to_string(calls).expect("it was called");
    let download = "download org/tiny --include *.json model*.safetensors *.py tokenizer.model *.tiktoken \
                    tiktoken.model *.txt *.jsonl *.jinja README.md";
    assert_eq!(calls.lines().skip(1).collect::<Vec<_>>(), [download]);
}

#[test]
fn a_repository_for_other_programs_is_named_as_such_and_not_downloaded_whole() {
    let sandbox = Sandbox::new();
    let source = cache_model(&sandbox, "org/source");
    let files = source.join("snapshots/c0ffee");
    for file in ["model.safetensors", "model.safetensors.index.json"] {
        fs::remove_file(files.join(file)).expect("it was there");
    }
    let target = source.with_file_name("models--org--gguf");
    let script = format!("mkdir -p '{0}'; cp -R '{1}/.' '{0}/'", target.display(), source.display());
    let calls = fake_tool(&sandbox, &script);
    let stderr = "error: org/gguf is not a model for MLX: there are no weights (model*.safetensors)\n\
                  hint: choose a model made for mlx; `fusion models` shows short names for some\n";
    sandbox.fusion(["-q", "mlx", "pull", "org/gguf"]).run().assert(7, "", stderr);
    let calls = fs::read_to_string(calls).expect("it was called");
    assert_eq!(calls.lines().count(), 2, "{calls}");
    assert!(calls.lines().all(|call| call.contains(" --include model*.safetensors ")), "{calls}");
}

#[test]
fn what_one_runtime_cannot_tell_is_an_error_and_the_others_are_listed() {
    let sandbox = Sandbox::new();
    cache_model(&sandbox, "org/tiny");
    let state = sandbox.file("ollama", "state.json");
    fs::create_dir_all(state.parent().expect("a directory")).expect("the sandbox is writable");
    symlink("elsewhere", &state).expect("a link");
    let listed = sandbox.fusion(["models"]).run().assert_code(1);
    assert_eq!(
        listed.stderr(),
        format!(
            "error: the models of ollama are not known\n  caused by: {} is a symbolic link\n\
             hint: remove the link: fusion follows none here, for it could lead anywhere\n",
            state.display()
        )
    );
    assert!(listed.stdout().contains("org/tiny"), "{}", listed.stdout());
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

/// As `up` of one does.
#[test]
fn up_of_all_downloads_a_model_that_is_missing() {
    let sandbox = Sandbox::new();
    let source = cache_model(&sandbox, "org/source");
    let target = source.with_file_name("models--org--tiny");
    let script = format!(
        "case \"$*\" in *--dry-run*) ;; *) cp -R '{}' '{}';; esac",
        source.display(),
        target.display()
    );
    let calls = fake_tool(&sandbox, &script);
    sandbox.write_config(&format!(
        "[ollama_server]\nport = {}\n[mlx_server]\nport = {}\nmodel = \"org/tiny\"\nauto_start = true\n",
        sandbox.port("ollama"),
        sandbox.port("mlx")
    ));
    let up = sandbox.fusion(["-q", "up", "--json"]).run().assert_code(0).json();
    assert_eq!((&up[0]["model"], &up[0]["state"]), (&json!("org/tiny"), &json!("ready")));
    let calls = fs::read_to_string(calls).expect("it was called");
    assert!(calls.contains("download org/tiny "), "{calls}");
    sandbox.fusion(["down"]).run().assert(0, "mlx is down\n", "");
}

#[test]
fn without_the_hubs_tool_up_says_how_to_get_it() {
    let sandbox = Sandbox::new();
    let stderr = "error: there is no program hf, which downloads models\n\
                  hint: it comes with the installation: fusion mlx install\n";
    sandbox.fusion(["mlx", "up", "-m", "org/tiny"]).run().assert(4, "", stderr);
    sandbox.fusion(["mlx", "pull", "org/tiny"]).run().assert(4, "", stderr);
    sandbox.assert_nothing_runs();
}

#[test]
fn run_downloads_nothing_unasked() {
    let sandbox = Sandbox::new();
    let calls = fake_tool(&sandbox, "exit 1");
    let refused = sandbox.fusion(["mlx", "run", "-m", "org/tiny", "Hello"]).run().assert_code(7);
    assert!(refused.stderr().contains("fusion mlx pull org/tiny"), "{}", refused.stderr());
    assert!(!calls.exists());
    sandbox.assert_nothing_runs();
}

/// Runs a command with all its streams on a terminal, and types `answer` when it asks.
fn on_a_terminal(
    sandbox: &Sandbox,
    arguments: &[&str],
    question: &str,
    answer: &[u8],
) -> (String, Option<i32>) {
    let mut terminal = Terminal::open();
    let mut command = sandbox.fusion(arguments.iter().copied()).into_command();
    command.stdin(terminal.stream()).stdout(terminal.stream()).stderr(terminal.stream());
    let mut child = command.spawn().expect("fusion starts");
    // It holds the terminal open.
    drop(command);
    terminal.wait_for(question);
    terminal.send(answer);
    let status = child.wait().expect("a child can be waited for");
    (terminal.finish(), status.code())
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

#[test]
fn a_terminal_gets_a_bar_that_goes_away() {
    let (sandbox, ollama) = with_ollama(&[]);
    let layer = |completed: u64| json!({ "status": "pulling", "digest": "sha256:aa", "total": 1000, "completed": completed });
    ollama.script(&send(&[layer(0), json!({ "status": "success" })]));
    let bar = "\r\u{1b}[K[>                       ]   0%  0 B of 1.0 kB";
    let (shown, code) = on_a_terminal(&sandbox, &["ollama", "pull", "x"], "x is here", b"");
    assert!(shown.contains(bar), "{shown:?}");
    assert!(shown.ends_with("\r\u{1b}[Kx is here\r\n"), "{shown:?}");
    assert_eq!(code, Some(0));
}

/// The line with the bar goes away, and the program dies of the signal.
#[test]
fn an_interrupted_bar_leaves_a_clean_line() {
    let (sandbox, ollama) = with_ollama(&[]);
    let layer = json!({ "status": "pulling", "digest": "sha256:aa", "total": 1000, "completed": 500 });
    ollama.script(&[Line::Send(layer), Line::Wait]);
    let mut terminal = Terminal::open();
    let running = terminal.script(&sandbox, "-c", "\"$0\" ollama pull x; echo; echo code $?");
    terminal.wait_for("50%  500 B of 1.0 kB");
    terminal.send(b"\x03");
    running.finish();
    wait_until("the server noticed", || ollama.was_cut_off());
    let shown = terminal.finish();
    let after = shown.rsplit("500 B of 1.0 kB").next().unwrap_or_default();
    assert!(after.contains("\r\u{1b}[K"), "{shown:?}");
}
