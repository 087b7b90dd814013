//! Models of Ollama, by its API.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::ollama::Line;
use crate::support::terminal::Terminal;
use crate::support::{Sandbox, same_output, wait_until};
use crate::{on_a_terminal, with_ollama};

fn send(lines: &[Value]) -> Vec<Line> {
    lines.iter().cloned().map(Line::Send).collect()
}

#[test]
fn models_of_ollama_are_listed() {
    let (sandbox, _ollama) = with_ollama(&["qwen3:4b", "llama3.2:3b"]);
    let list = sandbox.fusion(["ollama", "models", "--json"]).run_in_process().assert_code(0).json();
    let expected = json!({
        "service": "ollama", "runtime": "ollama", "aliases": [], "name": "llama3.2:3b", "size_bytes": 2_019_393_189_u64, "format": "gguf",
        "quantization": "Q4_K_M", "modified": "2024-08-04T21:56:49Z", "last_used": null, "loaded": false, "remote": false, "defects": [], "changed": []
    });
    assert_eq!(list[0], expected);
    assert_eq!(list[1]["name"], "qwen3:4b");
    // The age makes a column wider as time passes: the columns are joined by one space.
    let table = sandbox.fusion(["ollama", "models"]).run_in_process().assert_code(0);
    let rows = table.normalized(&table.stdout);
    let rows: Vec<String> =
        rows.lines().map(|row| row.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    insta::assert_snapshot!(rows.join("\n"), @"
    NAME SIZE FORMAT CHANGED LAST USED NOW
    llama3.2:3b 2.0 GB Q4_K_M [DAYS] days ago -
    qwen3:4b 2.0 GB Q4_K_M [DAYS] days ago -
    ");
}

#[test]
fn a_null_list_of_models_is_empty() {
    let (sandbox, _ollama) = with_ollama(&[]);
    insta::assert_snapshot!(sandbox.fusion(["ollama", "models"]).run_in_process(), @"
    exit 0
    [stderr]
    Ollama has no models; `fusion ollama pull NAME` downloads one
    ");
    assert_eq!(
        sandbox.fusion(["ollama", "models", "--json"]).run_in_process().assert_code(0).json(),
        json!([])
    );
}

#[test]
fn models_starts_the_server_if_allowed() {
    let sandbox = Sandbox::new();
    let list = sandbox.fusion(["ollama", "models", "--json"]).run().assert_code(0).json();
    assert_eq!(list[0]["name"], "llama3.2:3b");
    assert!(sandbox.pid("ollama").is_some());
    sandbox.fusion(["ollama", "down"]).run().assert_code(0);
    let config = fs::read_to_string(sandbox.config_dir().join("config.toml")).expect("a configuration");
    sandbox.write_config(&config.replace("[ollama_run]\n", "[ollama_run]\nstart_on_demand = false\n"));
    sandbox.fusion(["ollama", "models"]).run().assert_code(3);
    sandbox.assert_nothing_runs();
}

#[test]
fn a_pull_shows_its_progress() {
    let (sandbox, ollama) = with_ollama(&[]);
    ollama.script(&send(&[
        json!({ "status": "pulling manifest" }),
        json!({ "status": "pulling dde5", "digest": "sha256:dde5", "total": 2_000_000_000_u64 }),
        json!({ "status": "pulling dde5", "digest": "sha256:dde5", "total": 2_000_000_000_u64, "completed": 2_000_000_000_u64 }),
        json!({ "status": "verifying sha256 digest" }),
        json!({ "status": "writing manifest" }),
        json!({ "status": "success" }),
    ]));
    insta::assert_snapshot!(sandbox.fusion(["ollama", "pull", "llama3.2:1b"]).run_in_process(), @"
    exit 0
    [stdout]
    llama3.2:1b is here
    [stderr]
    downloading llama3.2:1b
    pulling manifest
    0 B of 2.0 GB (0%)
    verifying sha256 digest
    writing manifest
    ");
    let request = json!({ "model": "llama3.2:1b", "stream": true });
    assert_eq!(ollama.requests(), [("POST /api/pull".to_owned(), request)]);
    insta::assert_snapshot!(sandbox.fusion(["-q", "ollama", "pull", "llama3.2:1b"]).run_in_process(), @"
    exit 0
    [stdout]
    llama3.2:1b is here
    ");
}

#[test]
fn error_lines_in_a_200_are_errors() {
    let (sandbox, ollama) = with_ollama(&[]);
    ollama.script(&send(&[
        json!({ "status": "pulling manifest" }),
        json!({ "error": "pull model manifest: file does not exist" }),
    ]));
    insta::assert_snapshot!(sandbox.fusion(["-q", "ollama", "pull", "nix"]).run_in_process(), @"
    exit 7
    [stderr]
    error: there is no model nix to download
    hint: check the spelling; a private model requires your token (HF_TOKEN, or `hf auth login`)
    ");
    ollama.script(&send(&[
        json!({ "status": "pulling manifest" }),
        json!({ "error": "write: no space left on device" }),
    ]));
    insta::assert_snapshot!(sandbox.fusion(["-q", "ollama", "pull", "llama3.2:1b"]).run_in_process(), @"
    exit 8
    [stderr]
    error: the download failed: write: no space left on device
    hint: free space: `fusion ollama models` lists the sizes, `fusion ollama rm NAME` removes a model
    ");
    let unreachable =
        "max retries exceeded: Get \"https://registry\": dial tcp: lookup registry: no such host";
    ollama.script(&send(&[json!({ "error": unreachable })]));
    insta::assert_snapshot!(sandbox.fusion(["-q", "ollama", "pull", "llama3.2:1b"]).run_in_process(), @r#"
    exit 8
    [stderr]
    error: cannot reach the server that models are downloaded from: max retries exceeded: Get "https://registry": dial tcp: lookup registry: no such host
    hint: check the connection, then run the same command again; complete files are kept
    "#);
}

#[test]
fn a_broken_pull_is_a_failure() {
    let (sandbox, ollama) = with_ollama(&[]);
    let begin = json!({ "status": "pulling dde5", "digest": "sha256:dde5", "total": 100, "completed": 50 });
    ollama.script(&[Line::Send(begin.clone()), Line::Cut]);
    sandbox.fusion(["ollama", "pull", "llama3.2:1b"]).run_in_process().assert_code(8);
    ollama.script(&send(&[begin]));
    insta::assert_snapshot!(sandbox.fusion(["-q", "ollama", "pull", "llama3.2:1b"]).run_in_process(), @"
    exit 8
    [stderr]
    error: the download failed: the server ended its response too early
    hint: run the same command again; complete files are kept
    ");
}

#[test]
fn an_interrupted_pull_closes_the_connection() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let (sandbox, ollama) = with_ollama(&[]);
        ollama.script(&[Line::Send(json!({ "status": "pulling manifest" })), Line::Wait]);
        let running = sandbox.fusion(["ollama", "pull", "llama3.2:1b"]).start();
        wait_until("the pull was asked for", || !ollama.requests().is_empty());
        running.signal(signal);
        assert_eq!(running.finish().code(), 128 + signal as i32);
        wait_until("the server noticed", || ollama.was_cut_off());
    }
}

#[test]
fn rm_in_a_script_wants_yes() {
    let (sandbox, ollama) = with_ollama(&["llama3.2:3b"]);
    insta::assert_snapshot!(sandbox.fusion(["ollama", "rm", "llama3.2:3b"]).run_in_process(), @"
    exit 2
    [stderr]
    error: cannot ask whether to remove llama3.2:3b: there is no terminal
    hint: pass --yes to remove it without confirmation
    ");
    assert_eq!(ollama.requests().iter().filter(|(request, _)| request.starts_with("DELETE")).count(), 0);
    insta::assert_snapshot!(sandbox.fusion(["ollama", "rm", "--yes", "llama3.2:3b"]).run_in_process(), @"
    exit 0
    [stdout]
    removed llama3.2:3b, 2.0 GB freed
    ");
    let last = ollama.requests().pop();
    assert_eq!(last, Some(("DELETE /api/delete".to_owned(), json!({ "model": "llama3.2:3b" }))));
    // The hints of `rm` and `unload` do not offer a download.
    insta::assert_snapshot!(sandbox.fusion(["ollama", "rm", "-y", "llama3.2:3b"]).run_in_process(), @"
    exit 7
    [stderr]
    error: the model llama3.2:3b is not on this machine
    hint: list the models on this machine: fusion ollama models
    ");
    insta::assert_snapshot!(sandbox.fusion(["ollama", "unload", "llama3.2:3b"]).run_in_process(), @"
    exit 7
    [stderr]
    error: the model llama3.2:3b is not on this machine
    hint: see what is loaded: fusion ollama ps
    ");
    let missing =
        ["show", "load"].map(|command| sandbox.fusion(["ollama", command, "llama3.2:3b"]).run_in_process());
    insta::assert_snapshot!(same_output(missing), @"
    exit 7
    [stderr]
    error: the model llama3.2:3b is not on this machine
    hint: download it: fusion ollama pull llama3.2:3b
    ");
}

/// The server's own errors for such names name none, or something else.
#[test]
fn impossible_names_are_exit_2() {
    let (sandbox, ollama) = with_ollama(&["llama3.2:3b"]);
    for name in ["bad name!", "", "./x"] {
        for command in ["show", "load", "unload", "rm", "pull"] {
            let refused = sandbox.fusion(["ollama", command, name]).run_in_process().assert_code(2);
            let expected = format!("{name:?} is not the name of a model");
            assert!(refused.stderr().contains(&expected), "{command}: {}", refused.stderr());
        }
    }
    for arguments in [["run", "-m", "./x", "Hello"], ["run", "-m", "bad name!", "Hello"]] {
        sandbox.fusion(["ollama"].into_iter().chain(arguments)).run_in_process().assert_code(2);
    }
    for command in ["up", "health"] {
        sandbox.fusion(["ollama", command, "-m", "bad name!"]).run_in_process().assert_code(2);
    }
    assert_eq!(ollama.requests(), []);
}

#[test]
fn show_describes_a_model() {
    let (sandbox, _ollama) = with_ollama(&["llama3.2:3b"]);
    let shown =
        sandbox.fusion(["ollama", "show", "--json", "llama3.2:3b"]).run_in_process().assert_code(0).json();
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
    let text = sandbox.fusion(["ollama", "show", "llama3.2:3b"]).run_in_process();
    let memory = text.stdout().lines().find(|line| line.starts_with("memory")).expect("a line").to_owned();
    // The memory of the machine is the last number.
    let machine = memory.split(' ').rev().find(|word| word.parse::<f64>().is_ok()).expect("a number");
    insta::assert_snapshot!(text.to_string().replace(&format!(" {machine} GB"), " [MACHINE]"), @"
    exit 0
    [stdout]
    name           llama3.2:3b
    architecture   llama
    parameters     3.2B
    format         gguf, Q4_K_M
    context        131,072 tokens
    size           2.0 GB
    memory         about 2.5 GB (2.0 GB of weights, 4,096 tokens of context) of the [MACHINE] of this machine
    license        LLAMA 3.2 COMMUNITY LICENSE AGREEMENT
    chat template  yes
    capabilities   completion, tools
    changed        [DAYS] days ago
    ");
}

#[test]
fn load_keeps_as_the_models_table_says() {
    let (sandbox, ollama) = with_ollama(&["llama3.2:3b"]);
    let port = sandbox.port("ollama");
    sandbox.write_config(&format!(
        "[ollama_server]\nport = {port}\n[models.\"llama3.2:3b\"]\nkeep_alive = \"1h\"\n"
    ));
    for (options, seconds) in [(&[][..], 3600), (&["--keep-alive", "30m"], 1800)] {
        let load = ["ollama", "load", "llama3.2:3b"].iter().chain(options).copied();
        sandbox.fusion(load).run_in_process().assert_code(0);
        let (_, body) = ollama.requests().pop().expect("a request");
        assert_eq!(body["keep_alive"], seconds);
    }
}

#[test]
fn load_passes_keep_alive_and_unload_zero() {
    let (sandbox, ollama) = with_ollama(&["llama3.2:3b"]);
    let load = ["ollama", "load", "llama3.2:3b"];
    let keep_alives = [(None, json!("5m")), (Some("30m"), json!(1800)), (Some("-1"), json!(-1))];
    let loaded = keep_alives.map(|(keep_alive, seconds)| {
        let options = keep_alive.into_iter().flat_map(|time| ["--keep-alive", time]);
        let finished = sandbox.fusion(load.into_iter().chain(options)).run_in_process();
        let (request, body) = ollama.requests().pop().expect("a request");
        assert_eq!((request.as_str(), &body["keep_alive"]), ("POST /api/generate", &seconds));
        finished
    });
    insta::assert_snapshot!(same_output(loaded), @"
    exit 0
    [stdout]
    llama3.2:3b is loaded
    ");
    let list = sandbox.fusion(["ollama", "models", "--json"]).run_in_process().assert_code(0).json();
    assert_eq!(list[0]["loaded"], true);
    insta::assert_snapshot!(sandbox.fusion(["ollama", "unload", "llama3.2:3b"]).run_in_process(), @"
    exit 0
    [stdout]
    llama3.2:3b is unloaded
    ");
    let (_, body) = ollama.requests().pop().expect("a request");
    assert_eq!(body["keep_alive"], 0);
    insta::assert_snapshot!(sandbox.fusion(load.into_iter().chain(["--keep-alive", "soon"])).run_in_process(), @"
    exit 2
    [stderr]
    error: invalid value 'soon' for '--keep-alive <TIME>': expected seconds (300), a number with a unit (90s, 30m, 2h, 1d), or forever

    For more information, try '--help'.
    ");
}

#[test]
fn up_pulls_and_loads_a_model() {
    let (sandbox, ollama) = with_ollama(&[]);
    ollama.script(&send(&[json!({ "status": "success" })]));
    sandbox.fusion(["ollama", "up", "--model", "llama3.2:1b"]).run_in_process().assert_code(0);
    let asked: Vec<String> = ollama.requests().into_iter().map(|(request, _)| request).collect();
    assert_eq!(asked, ["POST /api/show", "POST /api/pull", "POST /api/show", "POST /api/generate"]);
}

#[test]
fn a_terminal_shows_a_bar_and_erases_it() {
    let (sandbox, ollama) = with_ollama(&[]);
    let layer = |completed: u64| json!({ "status": "pulling", "digest": "sha256:aa", "total": 1000, "completed": completed });
    ollama.script(&send(&[layer(0), json!({ "status": "success" })]));
    let bar = "\r\u{1b}[K\u{1b}[2m[>                       ]   0%  0 B of 1.0 kB";
    let (shown, code) = on_a_terminal(&sandbox, &["ollama", "pull", "x"], "x is here", b"");
    assert!(shown.contains(bar), "{shown:?}");
    assert!(shown.ends_with("\r\u{1b}[Kx is here\r\n"), "{shown:?}");
    assert_eq!(code, Some(0));
}

/// The bar is erased before the program dies of the signal.
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
