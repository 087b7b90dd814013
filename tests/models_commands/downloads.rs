//! Downloads with the hub's tool, played by a script.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::cache_model;
use crate::support::{Sandbox, same_output, wait_until, write_program};

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
    insta::assert_snapshot!(sandbox.fusion(["mlx", "up"]).run(), @"
    exit 7
    [stderr]
    error: the model org/tiny is not on this machine
    hint: download it: fusion mlx pull org/tiny
    ");
    insta::assert_snapshot!(sandbox.fusion(["up"]).run(), @"
    exit 7
    [stdout]
    SERVICE  RESULT  PID  ADDRESS
    mlx      failed  -    -
    [stderr]
    error: mlx: the model org/tiny is not on this machine
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
    error: cannot download org/tiny: the program hf is not installed
    hint: install it: fusion mlx install, which brings it; or uv tool install huggingface_hub
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

/// Has the hub's tool list the model's files as they are now, and returns the model's directory.
fn listed_model(sandbox: &Sandbox) -> PathBuf {
    let model = cache_model(sandbox, "org/tiny");
    let snapshot = model.join("snapshots/c0ffee");
    let files = fs::read_dir(&snapshot).expect("the snapshot").flatten().map(|entry| {
        let size = fs::metadata(entry.path()).expect("a file").len();
        (entry.file_name().into_string().expect("a name"), json!({ "size": size }))
    });
    let tree = json!({ "files": files.collect::<serde_json::Map<_, _>>() }).to_string();
    fs::create_dir(model.join("trees")).expect("the sandbox is writable");
    fs::write(model.join("trees/c0ffee.json"), tree).expect("the sandbox is writable");
    model
}

fn cut(file: &Path, length: u64) {
    fs::File::options().write(true).open(file).expect("the file").set_len(length).expect("it is cut");
}

/// All files of a model with their content; of a link, the content of its target.
fn content(model: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    let mut directories = vec![model.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a directory").flatten() {
            if entry.file_type().expect("a type").is_dir() {
                directories.push(entry.path());
            } else {
                all.push((entry.path(), fs::read(entry.path()).expect("a file")));
            }
        }
    }
    all.sort();
    all
}

#[test]
fn a_changed_file_is_usable_and_stays() {
    let sandbox = Sandbox::new();
    let calls = fake_tool(&sandbox, "echo 'offline mode is enabled'; exit 1");
    let config = listed_model(&sandbox).join("snapshots/c0ffee/config.json");
    let text = fs::read_to_string(&config).expect("the configuration");
    fs::remove_file(&config).expect("a link");
    let edited = text.replacen(": ", ":  ", 1);
    fs::write(&config, &edited).expect("the sandbox is writable");
    insta::assert_snapshot!(sandbox.fusion(["mlx", "models"]).run(), @"
    exit 0
    [stdout]
    NAME      SIZE    FORMAT   CHANGED   LAST USED  NOW
    org/tiny  355 kB  float16  just now  just now   changed: config.json
    ");
    sandbox.fusion(["mlx", "up", "-m", "org/tiny"]).run().assert_code(0);
    sandbox.fusion(["mlx", "down"]).run().assert_code(0);
    assert!(!calls.exists(), "nothing is to be downloaded");
    let shown = sandbox.fusion(["mlx", "show", "--json", "org/tiny"]).run().assert_code(0).json();
    assert_eq!((&shown["changed"], &shown["defects"]), (&json!(["config.json"]), &json!([])));
    assert_eq!(fs::read_to_string(&config).expect("the configuration"), edited);
}

#[test]
fn a_failed_pull_keeps_the_old_model() {
    // Each is what the tool does without and with --dry-run.
    let plan = "echo '[dry-run] Will download 0 files (out of 6) totalling 0.0.'";
    let faults = [
        ("", "echo 'httpx.ConnectError: Connection refused'; exit 1", 8),
        ("", "echo 'offline mode is enabled'; exit 1", 1),
        ("", "echo 'Error: Access denied. Model requires approval.'; exit 1", 1),
        ("", "echo 'RepositoryNotFoundError: 404'; exit 1", 7),
        ("", "kill -9 $$", 8),
        ("exit 0", plan, 7),
        ("echo 'OSError: [Errno 28] No space left on device'; exit 1", plan, 8),
        ("echo beef > \"$MODEL/refs/main\"; echo 'RemoteProtocolError'; exit 1", plan, 8),
        ("echo beef > \"$MODEL/refs/main\"; mkdir \"$MODEL/snapshots/beef\"; exit 0", plan, 7),
        ("kill -9 $$", plan, 8),
    ];
    let check = |(download, dry_run, code): (&str, &str, i32)| {
        let sandbox = Sandbox::new();
        let model = listed_model(&sandbox);
        fake_tool(
            &sandbox,
            &format!(
                "MODEL='{}'\ncase \"$*\" in *--dry-run*) {dry_run};; *) {download};; esac",
                model.display()
            ),
        );
        cut(&model.join("snapshots/c0ffee/model.safetensors"), 1000);
        let before = content(&model);
        // One that starts by itself downloads nothing, and does not start.
        let port = sandbox.port("mlx");
        sandbox
            .write_config(&format!("[mlx_server]\nport = {port}\nmodel = \"org/tiny\"\nauto_start = true\n"));
        let up = sandbox.fusion(["up"]).run().assert_code(7);
        assert!(content(&model) == before, "the model has changed: {up}");
        for command in [&["pull", "org/tiny"][..], &["up", "-m", "org/tiny"]] {
            let failed = sandbox.fusion(["mlx"].iter().chain(command).copied()).run();
            assert_eq!(failed.code(), code, "{dry_run} {download}: {failed}");
            assert!(content(&model) == before, "{dry_run} {download}: the model has changed");
        }
        sandbox.assert_nothing_runs();
    };
    std::thread::scope(|scope| {
        for fault in faults {
            scope.spawn(move || check(fault));
        }
    });
}

#[test]
fn an_interrupted_pull_restores_what_it_replaces() {
    let sandbox = Sandbox::new();
    let model = listed_model(&sandbox);
    let weights = model.join("snapshots/c0ffee/model.safetensors");
    cut(&weights, 1000);
    let started = sandbox.root().join("started");
    let script = format!(
        "case \"$*\" in *--dry-run*) echo '[dry-run] Will download 0 files (out of 6) totalling 0.0.';;\n\
         *) echo beef > '{}/refs/main'; touch '{}'; exec sleep 600;; esac",
        model.display(),
        started.display()
    );
    fake_tool(&sandbox, &script);
    let before = content(&model);
    let running = sandbox.fusion(["mlx", "pull", "org/tiny"]).start();
    wait_until("the download has started", || started.exists());
    assert!(!weights.exists(), "it is moved aside");
    running.signal(Signal::SIGINT);
    assert_eq!(running.finish().code(), 130);
    assert!(content(&model) == before, "the model has changed");
    sandbox.assert_nothing_runs();
}

#[test]
fn a_file_that_is_too_short_is_replaced() {
    let sandbox = Sandbox::new();
    let model = listed_model(&sandbox);
    let weights = model.join("snapshots/c0ffee/model.safetensors");
    cut(&weights, 1000);
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/tiny/model.safetensors");
    let script = format!(
        "case \"$*\" in *--dry-run*) echo '[dry-run] Will download 0 files (out of 6) totalling 0.0.';;\n\
         *) [ ! -e '{0}' ] || exit 3; cp '{tiny}' '{1}/blobs/new'; ln -s ../../blobs/new '{0}';; esac",
        weights.display(),
        model.display()
    );
    fake_tool(&sandbox, &script);
    sandbox.fusion(["-q", "mlx", "pull", "org/tiny"]).run().assert_code(0);
    assert_eq!(fs::read(&weights).expect("the weights"), fs::read(tiny).expect("the weights"));
    assert!(!model.join(".fusion-aside").exists());
}

#[test]
fn an_unreadable_file_is_neither_deleted_nor_pulled() {
    let sandbox = Sandbox::new();
    let calls = fake_tool(&sandbox, "exit 1");
    let model = listed_model(&sandbox);
    let weights = model.join("snapshots/c0ffee/model.safetensors");
    fs::remove_file(&weights).expect("a link");
    symlink("model.safetensors", &weights).expect("a link to itself");
    let outputs = ["pull", "load"].map(|command| sandbox.fusion(["mlx", command, "org/tiny"]).run());
    insta::assert_snapshot!(same_output(outputs), @"
    exit 1
    [stderr]
    error: the model org/tiny cannot be used: model.safetensors may not be read: Too many levels of symbolic links (os error [ERRNO])
    hint: check the files in [ROOT]/home/.cache/huggingface/hub/models--org--tiny/snapshots/c0ffee
    ");
    sandbox.fusion(["mlx", "up", "-m", "org/tiny"]).run().assert_code(1);
    assert!(weights.is_symlink() && !calls.exists());
    sandbox.assert_nothing_runs();
}
