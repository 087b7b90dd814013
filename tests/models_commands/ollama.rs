//! Ollama's models, by its API.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::ollama::Line;
use crate::support::terminal::Terminal;
use crate::support::{Sandbox, wait_until};
use crate::{on_a_terminal, with_ollama};

fn send(lines: &[Value]) -> Vec<Line> {
    lines.iter().cloned().map(Line::Send).collect()
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
fn a_server_is_started_to_ask_it_where_that_is_allowed() {
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
fn up_has_ollama_download_and_load_a_model() {
    let (sandbox, ollama) = with_ollama(&[]);
    ollama.script(&send(&[json!({ "status": "success" })]));
    let up = sandbox.fusion(["ollama", "up", "--model", "llama3.2:1b"]).run().assert_code(0);
    assert!(up.stdout().starts_with("ollama is up at "), "{}", up.stdout());
    let asked: Vec<String> = ollama.asked().into_iter().map(|(request, _)| request).collect();
    assert_eq!(asked, ["POST /api/show", "POST /api/pull", "POST /api/generate"]);
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
