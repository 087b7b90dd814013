//! Downloads with the hub's tool, played by a script.

use std::fs;
use std::path::PathBuf;

use crate::cache_model;
use crate::support::{Sandbox, same_output, write_program};

/// Puts a script in the place of the hub's tool; returns the file in which it keeps its command lines.
fn fake_tool(sandbox: &Sandbox, script: &str) -> PathBuf {
    let calls = sandbox.root().join("calls");
    let text = format!("#!/bin/sh\necho \"$*\" >> '{}'\n{script}\n", calls.display());
    write_program(&sandbox.bin().join("hf"), &text);
    calls
}

#[test]
fn a_download_that_does_not_fit_is_refused() {
    let sandbox = Sandbox::new();
    let calls = fake_tool(&sandbox, "echo '[dry-run] Will download 3 files (out of 3) totalling 900.0T.'");
    let refused = sandbox.fusion(["-q", "mlx", "pull", "org/huge"]).run();
    let stderr = refused.stderr();
    let words: Vec<&str> = stderr.split_whitespace().collect();
    // Needed and free, each a number and its unit.
    let sizes = words
        .windows(2)
        .filter(|pair| pair[0].parse::<f64>().is_ok() && pair[1].trim_end_matches(',').ends_with('B'));
    let free = sizes.map(|pair| pair.join(" ")).nth(1).expect("the free space");
    insta::assert_snapshot!(refused.to_string().replace(&free, "[FREE]"), @"
    exit 1
    [stderr]
    error: org/huge needs 945 TB, but [ROOT]/home has [FREE] free
    hint: free space: `fusion mlx models` lists the sizes, `fusion mlx rm NAME` removes a model
    ");
    let calls = fs::read_to_string(calls).expect("it was called");
    assert_eq!(calls.lines().count(), 1, "{calls}");
    assert!(
        calls.starts_with("download org/huge --include *.json ") && calls.ends_with(" --dry-run\n"),
        "{calls}"
    );
}

/// Versions before 1.0 have no `--dry-run`, and take all patterns after one `--include`.
#[test]
fn an_old_tool_is_used_without_dry_run() {
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
    insta::assert_snapshot!(sandbox.fusion(["-q", "mlx", "pull", "org/tiny"]).run(), @"
    exit 0
    [stdout]
    org/tiny is here
    ");
    let calls = fs::read_to_string(calls).expect("it was called");
    let download = "download org/tiny --include *.json model*.safetensors *.py tokenizer.model *.tiktoken \
                    tiktoken.model *.txt *.jsonl *.jinja README.md";
    assert_eq!(calls.lines().skip(1).collect::<Vec<_>>(), [download]);
}

#[test]
fn a_repository_for_other_programs_is_not_downloaded() {
    let sandbox = Sandbox::new();
    let source = cache_model(&sandbox, "org/source");
    let files = source.join("snapshots/c0ffee");
    for file in ["model.safetensors", "model.safetensors.index.json"] {
        fs::remove_file(files.join(file)).expect("it was there");
    }
    let target = source.with_file_name("models--org--gguf");
    let script = format!("mkdir -p '{0}'; cp -R '{1}/.' '{0}/'", target.display(), source.display());
    let calls = fake_tool(&sandbox, &script);
    insta::assert_snapshot!(sandbox.fusion(["-q", "mlx", "pull", "org/gguf"]).run(), @"
    exit 7
    [stderr]
    error: org/gguf is not a model for MLX: there are no weights (model*.safetensors)
    hint: choose a model for mlx; `fusion models` lists aliases of some
    ");
    let calls = fs::read_to_string(calls).expect("it was called");
    assert_eq!(calls.lines().count(), 2, "{calls}");
    assert!(calls.lines().all(|call| call.contains(" --include model*.safetensors ")), "{calls}");
}

/// Only `up -m` asks for a model.
#[test]
fn up_without_a_model_downloads_nothing() {
    let sandbox = Sandbox::new();
    let calls = fake_tool(&sandbox, "exit 1");
    sandbox.write_config(&format!(
        "[ollama_server]\nport = {}\n[mlx_server]\nport = {}\nmodel = \"org/tiny\"\nauto_start = true\n",
        sandbox.port("ollama"),
        sandbox.port("mlx")
    ));
    let one = sandbox.fusion(["mlx", "up"]).run();
    let all = sandbox.fusion(["up"]).run();
    insta::assert_snapshot!(same_output([one, all]), @"
    exit 7
    [stderr]
    error: the model org/tiny is not on this machine
    hint: download it: fusion mlx pull org/tiny
    ");
    assert!(!calls.exists(), "the tool was called");
    sandbox.assert_nothing_runs();
}

#[test]
fn without_the_hubs_tool_nothing_is_downloaded() {
    let sandbox = Sandbox::new();
    let up = sandbox.fusion(["mlx", "up", "-m", "org/tiny"]).run();
    let pull = sandbox.fusion(["mlx", "pull", "org/tiny"]).run();
    insta::assert_snapshot!(same_output([up, pull]), @"
    exit 4
    [stderr]
    error: cannot find the program hf, which downloads models
    hint: install it together with the server: fusion mlx install
    ");
    sandbox.assert_nothing_runs();
}

#[test]
fn run_downloads_nothing_unasked() {
    let sandbox = Sandbox::new();
    let calls = fake_tool(&sandbox, "exit 1");
    insta::assert_snapshot!(sandbox.fusion(["mlx", "run", "-m", "org/tiny", "Hello"]).run(), @"
    exit 7
    [stderr]
    starting mlx, which is not running
    error: the model org/tiny is not on this machine
    hint: download it: fusion mlx pull org/tiny
    ");
    assert!(!calls.exists());
    sandbox.assert_nothing_runs();
}
