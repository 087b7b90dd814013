//! Searching the hub, with the hub's tool played by a script; `real_search.rs` has the real one.

mod support;

use std::fs;
use std::path::PathBuf;

use insta::assert_snapshot;
use support::{Sandbox, write_program};

const LIST: &str = r#"[{"id": "org/tiny-GGUF", "downloads": 1234, "last_modified": "2020-01-02T03:04:05+00:00",
 "gguf": {"total": 8000000, "context_length": 2048}, "safetensors": {"total": NaN}},
 {"id": "org/large-GGUF", "downloads": 5}, {"id": "../evil"}, {"id": "a/b\u001b[2J"}]"#;

const TINY: &str =
    r#"[{"path": "tiny-Q8_0.gguf", "size": 9000000}, {"path": "tiny-Q4_K_M.gguf", "size": 5000000}]"#;

const LARGE: &str = r#"[{"path": "x-Q4_K_M.gguf", "size": 900000000000000}]"#;

/// Puts a script in the place of the hub's tool; returns the file in which it keeps its command lines.
fn fake_tool(sandbox: &Sandbox, script: &str) -> PathBuf {
    let calls = sandbox.root().join("calls");
    let text = format!("#!/bin/sh\necho \"$*\" >> '{}'\n{script}\n", calls.display());
    write_program(&sandbox.bin().join("hf"), &text);
    calls
}

fn hub_tool(sandbox: &Sandbox) -> PathBuf {
    for (name, text) in [("list", LIST), ("tiny", TINY), ("large", LARGE)] {
        fs::write(sandbox.root().join(name), text).unwrap();
    }
    let root = sandbox.root().display();
    fake_tool(
        sandbox,
        &format!(
            "echo 'Warning: no token' >&2\ncase \"$*\" in *tiny-GGUF*) cat '{root}/tiny';; *large-GGUF*) cat '{root}/large';;\n\
             *) cat '{root}/list';; esac"
        ),
    )
}

#[test]
fn search_ends_with_the_pull_command() {
    let sandbox = Sandbox::new();
    let calls = hub_tool(&sandbox);
    let found = sandbox.fusion(["llama", "search", "--context", "8k", "tiny", "model"]).run().stdout();
    let rows: Vec<Vec<&str>> = found.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "PARAMS", "QUANT", "SIZE", "FITS", "DOWNLOADS", "UPDATED"]);
    assert_eq!(rows[1][..5], ["org/tiny-GGUF:Q4_K_M", "8.0M", "Q4_K_M", "5.0", "MB"]);
    assert_eq!(rows[2][0], "org/large-GGUF:Q4_K_M");
    assert!(rows[2].contains(&"no"), "{found}");
    assert_eq!(found.lines().last(), Some("fusion llama pull org/tiny-GGUF:Q4_K_M"));
    assert_eq!(rows.len(), 4, "{found}");
    let calls = fs::read_to_string(calls).unwrap();
    assert!(calls.starts_with("models ls --search=tiny model --filter=gguf --sort=downloads "), "{calls}");
}

#[test]
fn results_are_kept_for_a_day() {
    let sandbox = Sandbox::new();
    let calls = hub_tool(&sandbox);
    let count = || fs::read_to_string(&calls).unwrap().lines().count();
    let search = || sandbox.fusion(["ollama", "search", "--json", "tiny"]).run().stdout();
    let first = search();
    assert!(first.contains("\"fusion ollama pull hf.co/org/tiny-GGUF:Q4_K_M\""), "{first}");
    assert_eq!(count(), 3);
    assert_eq!(search(), first);
    assert_eq!(count(), 3);
    for kept in fs::read_dir(sandbox.config_dir().join("data/searches")).unwrap() {
        let file = fs::File::options().write(true).open(kept.unwrap().path()).unwrap();
        file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(25 * 3600)).unwrap();
    }
    assert_eq!(search(), first);
    assert_eq!(count(), 6);
}

#[test]
fn search_leaves_out_what_is_too_large() {
    let sandbox = Sandbox::new();
    hub_tool(&sandbox);
    for filter in ["--fits", "--max-size=1GB"] {
        let found = sandbox.fusion(["llama", "search", filter, "tiny"]).run().stdout();
        assert!(found.contains("org/tiny-GGUF:Q4_K_M") && !found.contains("org/large-GGUF"), "{found}");
    }
    assert_snapshot!(sandbox.fusion(["llama", "search", "--max-size", "1KB", "tiny"]).run(), @"
    exit 0
    [stderr]
    no model for llama.cpp matches
    ");
}

#[test]
fn search_without_the_tool_names_its_installation() {
    let sandbox = Sandbox::new();
    assert_snapshot!(sandbox.fusion(["search", "tiny"]).run(), @"
    exit 4
    [stderr]
    error: cannot search the hub: the program hf is not installed
    hint: install it: fusion mlx install, which brings it; or uv tool install huggingface_hub
    ");
}

/// The tool itself would wait and try again.
#[test]
fn search_tells_when_the_hub_takes_requests_again() {
    let sandbox = Sandbox::new();
    fake_tool(
        &sandbox,
        "echo 'HTTP Error 429 thrown while requesting GET http://x' >&2; echo 'Rate limited. Waiting 56.0s before retry [Retry 1/5].' >&2; sleep 600",
    );
    assert_snapshot!(sandbox.fusion(["mlx", "search", "tiny"]).run(), @"
    exit 8
    [stderr]
    no model on this machine has such a name
    error: the hub answers no more requests for now: too many have come from here
    hint: try again in 56s
    ");
}

#[test]
fn a_refused_search_is_told() {
    for (said, told) in [
        (
            "Error: Client error '401 Unauthorized' for url 'http://x/api/models?search=tiny'",
            "error: the search failed: Client error '401 Unauthorized'\nhint: check the token of the hub: hf auth whoami\n",
        ),
        ("Error: Invalid value.", "error: the search failed: Invalid value.\n"),
    ] {
        let sandbox = Sandbox::new();
        fake_tool(&sandbox, &format!("echo \"{said}\" >&2; exit 1"));
        let refused = sandbox.fusion(["mlx", "search", "tiny"]).run().assert_code(8);
        assert_eq!(refused.stderr(), told);
    }
}

#[test]
fn search_offline_shows_what_is_here() {
    let sandbox = Sandbox::new();
    let cached = sandbox.home().join(".cache/huggingface/hub/models--org--tiny-model");
    let snapshot = cached.join("snapshots/c0");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(cached.join("refs")).unwrap();
    fs::write(cached.join("refs/main"), "c0").unwrap();
    for file in fs::read_dir(sandbox.model()).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), snapshot.join(file.file_name())).unwrap();
    }
    fake_tool(
        &sandbox,
        "echo \"'[Errno 111] Connection refused' thrown while requesting GET http://x\" >&2; echo 'Retrying in 1s [Retry 2/5].' >&2; sleep 600",
    );
    assert_snapshot!(sandbox.fusion(["mlx", "search", "TINY"]).run(), @"
    exit 8
    [stdout]
    NAME            PARAMS  QUANT  SIZE  FITS  DOWNLOADS  UPDATED
    org/tiny-model  -       -      49 B  ?     -          just now
    [stderr]
    on this machine:
    error: cannot reach the hub: [Errno 111] Connection refused
    hint: check the connection, then try again
    ");
}

#[test]
fn search_refuses_words_that_are_none() {
    let sandbox = Sandbox::new();
    for wrong in [&["search"][..], &["search", ""], &["search", "-n", "0", "x"]] {
        assert_eq!(sandbox.fusion(wrong.iter().copied()).run().code(), 2, "{wrong:?}");
    }
}
