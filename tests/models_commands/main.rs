//! The commands about models: Ollama's by its native API, played by a stub; MLX's in a hub cache on the disk.

mod downloads;
mod gpu;
mod memory;
mod mlx;
mod ollama;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::json;
use support::ollama::Ollama;
use support::terminal::Terminal;
use support::{Sandbox, same_output, wait_for_end};

/// A sandbox in which an Ollama with these models runs that fusion did not start.
fn with_ollama(models: &[&str]) -> (Sandbox, Ollama) {
    let sandbox = Sandbox::new();
    let ollama = Ollama::start(sandbox.port("ollama"), models);
    (sandbox, ollama)
}

/// The tiny model in a hub cache of the sandbox, laid out as the hub's tool does; returns its directory.
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
fn no_server_is_started_with_no_up() {
    let sandbox = Sandbox::new();
    let refused = ["models", "pull", "show", "load", "rm"].map(|command| {
        let name = (command != "models").then_some("llama3.2:3b");
        sandbox.fusion(["ollama", command, "--no-up"].into_iter().chain(name)).run_in_process()
    });
    insta::assert_snapshot!(same_output(refused), @"
    exit 3
    [stderr]
    error: ollama is not running
    hint: start the server: fusion ollama up
    ");
    insta::assert_snapshot!(sandbox.fusion(["ollama", "unload", "llama3.2:3b"]).run_in_process(), @"
    exit 0
    [stdout]
    llama3.2:3b is not loaded: ollama is not running
    ");
    let all = sandbox.fusion(["models", "--json"]).run_in_process().assert_code(0);
    insta::assert_snapshot!(all.stderr(), @"ollama is not running, so its models are unknown; `fusion ollama up` starts it");
    assert_eq!(all.json()["models"], json!([]));
    assert_eq!(all.json()["aliases"]["llama3.2:3b"]["mlx"], "mlx-community/Llama-3.2-3B-Instruct-4bit");
    sandbox.assert_nothing_runs();
}

#[test]
fn aliases_of_the_configuration_are_used() {
    let (sandbox, ollama) = with_ollama(&["llama3.2:3b"]);
    let config = fs::read_to_string(sandbox.config_dir().join("config.toml")).expect("a configuration");
    let aliases = "\n[aliases]\nsmall = { ollama = \"llama3.2:3b\", mlx = \"org/small\" }\n";
    sandbox.write_config(&(config + aliases));
    cache_model(&sandbox, "org/small");
    insta::assert_snapshot!(sandbox.fusion(["ollama", "load", "small"]).run_in_process(), @"
    exit 0
    [stdout]
    llama3.2:3b is loaded
    ");
    assert_eq!(ollama.requests().pop().expect("a request").1["model"], "llama3.2:3b");
    let shown = sandbox.fusion(["mlx", "show", "--json", "small"]).run_in_process().assert_code(0).json();
    assert_eq!((&shown["name"], &shown["aliases"]), (&json!("org/small"), &json!(["small"])));
    let all = sandbox.fusion(["models"]).run_in_process().assert_code(0).stdout();
    assert!(
        all.lines().any(|line| line.split_whitespace().eq(["small", "llama3.2:3b", "org/small", "-"])),
        "{all}"
    );
}

#[test]
fn models_of_one_service_do_not_hide_others() {
    let sandbox = Sandbox::new();
    cache_model(&sandbox, "org/tiny");
    let state = sandbox.file("ollama", "state.json");
    fs::create_dir_all(state.parent().expect("a directory")).expect("the sandbox is writable");
    symlink("elsewhere", &state).expect("a link");
    let listed = sandbox.fusion(["models"]).run_in_process().assert_code(1);
    insta::assert_snapshot!(listed.normalized(&listed.stderr), @"
    error: cannot list the models of ollama
      caused by: [ROOT]/config/ollama/state.json is a symbolic link
    hint: remove the link: fusion follows no links there, because they can point anywhere
    ");
    assert!(listed.stdout().contains("org/tiny"), "{}", listed.stdout());
}

/// Runs a command with all its streams on a terminal, and types `answer` when it asks; returns what the terminal shows.
fn on_a_terminal(
    sandbox: &Sandbox,
    arguments: &[&str],
    question: &str,
    answer: &[u8],
) -> (String, Option<i32>) {
    let mut terminal = Terminal::without_echo();
    let mut command = sandbox.fusion(arguments.iter().copied()).into_command();
    command.stdin(terminal.stream()).stdout(terminal.stream()).stderr(terminal.stream());
    let mut child = command.spawn().expect("fusion starts");
    // It holds the terminal open.
    drop(command);
    terminal.wait_for(question);
    terminal.send(answer);
    let status = wait_for_end(&mut child);
    (terminal.finish(), status.code())
}
