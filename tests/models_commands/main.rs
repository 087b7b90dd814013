//! The commands about models: Ollama's by its native API, played by a stub; MLX's in a hub cache on the disk.

mod downloads;
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
use support::{Sandbox, wait_for_end};

/// A sandbox in which Ollama runs, started by somebody else, with these models.
fn with_ollama(models: &[&str]) -> (Sandbox, Ollama) {
    let sandbox = Sandbox::new();
    let ollama = Ollama::start(sandbox.port("ollama"), models);
    (sandbox, ollama)
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
    let status = wait_for_end(&mut child);
    (terminal.finish(), status.code())
}
