//! Downloads by the hub's tool, which a script plays.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::cache_model;
use crate::support::{Sandbox, write_program};

/// A tool in the hub's tool's place, which writes down what it was asked.
fn fake_tool(sandbox: &Sandbox, script: &str) -> PathBuf {
    let calls = sandbox.root().join("calls");
    let text = format!("#!/bin/sh\necho \"$*\" >> '{}'\n{script}\n", calls.display());
    write_program(&sandbox.bin().join("hf"), &text);
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
