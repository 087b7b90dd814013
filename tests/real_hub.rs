//! Downloads with the real `hf` tool, from a hub on loopback: no network.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::sys::signal::Signal;

use support::hub::{Fault, Hub};
use support::{Invocation, Sandbox, real, wait_until};

fn main() -> ExitCode {
    real::main(
        "mlx",
        "hf",
        real::tests![
            a_model_is_downloaded_once,
            an_interrupted_download_leaves_nothing_broken,
            a_download_resumes_after_its_tool_was_killed,
            a_damaged_file_is_downloaded_again,
            a_damaged_model_survives_faults_of_the_hub,
            a_broken_connection_is_resumed,
            an_unknown_model_is_exit_7,
            a_gated_model_is_named_with_its_page,
            no_network_is_exit_8,
            the_offline_variable_is_named,
            token_and_cache_of_the_environment_are_used,
            the_cache_of_the_servers_environment_is_used,
            up_downloads_the_model_it_needs,
            an_alias_downloads_its_model,
            a_repository_for_other_programs_is_not_downloaded,
            only_what_the_server_loads_is_downloaded,
            one_quantization_is_pulled_and_removed,
            a_missing_quantization_lists_the_others,
            a_damaged_quantization_is_downloaded_again,
            a_broken_download_of_weights_is_resumed,
            an_interrupted_quantization_can_be_pulled_again,
            a_built_in_alias_downloads_its_quantization,
        ],
    )
}

/// A sandbox with the real tool on its `PATH`, and a hub that has one model.
struct Real {
    sandbox: Sandbox,
    hub: Hub,
}

const MODEL: &str = "test-org/tiny";

impl Real {
    fn new(tool: &Path) -> Self {
        let (sandbox, hub) = (Sandbox::new(), Hub::start());
        real::install(&sandbox, tool);
        hub.offer(MODEL, tiny());
        Self { sandbox, hub }
    }

    fn mlx<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Invocation {
        self.sandbox.fusion(["mlx"].into_iter().chain(arguments)).env("HF_ENDPOINT", self.hub.url())
    }

    fn cache(&self) -> PathBuf {
        self.sandbox.home().join(".cache/huggingface/hub")
    }

    /// The directory of the model in the cache.
    fn model(&self) -> PathBuf {
        self.cache().join("models--test-org--tiny")
    }

    /// Files whose download is not finished.
    fn unfinished(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.model().join("blobs")).into_iter().flatten().flatten();
        files
            .map(|file| file.path())
            .filter(|path| path.extension().is_some_and(|end| end == "incomplete"))
            .collect()
    }

    /// The listed models, each with its defects.
    fn listed(&self) -> Vec<(String, Vec<String>)> {
        let list = self.mlx(["models", "--json"]).run().assert_code(0).json();
        let rows = list.as_array().expect("an array").iter();
        let row = |row: &serde_json::Value| {
            let defects = row["defects"].as_array().expect("an array").iter();
            let defects = defects.map(|defect| defect.as_str().expect("a text").to_owned());
            (row["name"].as_str().expect("a name").to_owned(), defects.collect())
        };
        rows.map(row).collect()
    }

    /// Starts a pull in which the weights never arrive, and waits until everything else has.
    fn start_a_pull_that_stalls(&self) -> support::Running {
        self.hub.break_file("model.safetensors", Fault::StallAfter(100_000));
        let running = self.mlx(["pull", MODEL]).start();
        let others = [
            "config.json",
            "generation_config.json",
            "model.safetensors.index.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ];
        wait_until("all but the weights have arrived", || {
            let snapshots = fs::read_dir(self.model().join("snapshots")).into_iter().flatten().flatten();
            let complete = snapshots
                .map(|snapshot| snapshot.path())
                .any(|snapshot| others.iter().all(|file| snapshot.join(file).is_file()));
            complete && !self.unfinished().is_empty()
        });
        running
    }
}

fn a_model_is_downloaded_once(tool: &Path) {
    let real = Real::new(tool);
    let first = real.mlx(["pull", MODEL]).run().assert_code(0);
    insta::assert_snapshot!(first.stdout(), @"test-org/tiny is here");
    assert!(first.stderr().contains("0 B of 3"), "{first}");
    let files: Vec<String> = real.hub.downloads().into_iter().map(|(file, _)| file).collect();
    assert_eq!(
        files,
        [
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "model.safetensors.index.json",
            "tokenizer.json",
            "tokenizer_config.json"
        ]
    );
    assert_eq!(real.listed(), [(MODEL.to_owned(), vec![])]);
    real.hub.forget();
    real.mlx(["pull", MODEL]).run().assert_code(0);
    assert_eq!(real.hub.downloads(), []);
    let shown = real.mlx(["show", "--json", MODEL]).run().assert_code(0).json();
    assert_eq!(shown["architecture"], "llama");
    assert_eq!(shown["chat_template"], true);
    real.mlx(["rm", "--yes", MODEL]).run().assert_code(0);
    assert!(!real.model().exists());
    insta::assert_snapshot!(real.mlx(["show", MODEL]).run(), @"
    exit 7
    [stderr]
    error: the model test-org/tiny is not on this machine
    hint: download it: fusion mlx pull test-org/tiny
    ");
}

fn an_interrupted_download_leaves_nothing_broken(tool: &Path) {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let real = Real::new(tool);
        let running = real.start_a_pull_that_stalls();
        running.signal(signal);
        let finished = running.finish();
        assert_eq!(finished.code(), 128 + signal as i32, "{}", finished.stderr());
        assert_eq!(finished.stdout(), "");
        real.sandbox.assert_nothing_runs();
        assert_eq!(real.unfinished(), [""; 0].map(PathBuf::from));
        let listed = real.listed();
        assert_eq!(listed.len(), 1);
        assert!(listed[0].1[0].contains("model.safetensors is missing"), "{listed:?}");

        real.hub.repair();
        real.hub.forget();
        real.mlx(["pull", MODEL]).run().assert_code(0);
        assert_eq!(real.hub.downloads(), [("model.safetensors".to_owned(), None)]);
        assert_eq!(real.listed(), [(MODEL.to_owned(), vec![])]);
    }
}

fn a_download_resumes_after_its_tool_was_killed(tool: &Path) {
    let real = Real::new(tool);
    let running = real.start_a_pull_that_stalls();
    let fusion = running.pid();
    for pid in real.sandbox.processes().into_iter().filter(|pid| *pid != fusion) {
        support::processes::kill(pid);
    }
    running.finish().assert_code(8);
    assert_eq!(real.unfinished(), [""; 0].map(PathBuf::from));
    real.hub.repair();
    real.mlx(["pull", MODEL]).run().assert_code(0);
    assert_eq!(real.listed(), [(MODEL.to_owned(), vec![])]);
}

fn a_damaged_file_is_downloaded_again(tool: &Path) {
    let real = Real::new(tool);
    real.mlx(["pull", MODEL]).run().assert_code(0);
    let blobs = fs::read_dir(real.model().join("blobs")).expect("the blobs").flatten();
    let weights = blobs.max_by_key(|blob| blob.metadata().expect("a file").len()).expect("a blob").path();
    fs::File::options().write(true).open(&weights).expect("the weights").set_len(1000).expect("it is cut");
    let listed = real.listed();
    assert!(listed[0].1[0].starts_with("model.safetensors has 1000 of "), "{listed:?}");
    real.mlx(["load", MODEL]).run().assert_code(7);
    real.hub.forget();
    real.mlx(["pull", MODEL]).run().assert_code(0);
    assert_eq!(real.hub.downloads(), [("model.safetensors".to_owned(), None)]);
    assert_eq!(real.listed(), [(MODEL.to_owned(), vec![])]);
}

fn a_damaged_model_survives_faults_of_the_hub(tool: &Path) {
    let real = Real::new(tool);
    real.mlx(["pull", MODEL]).run().assert_code(0);
    let blobs = fs::read_dir(real.model().join("blobs")).expect("the blobs").flatten();
    let weights = blobs.max_by_key(|blob| blob.metadata().expect("a file").len()).expect("a blob").path();
    fs::File::options().write(true).open(&weights).expect("the weights").set_len(1000).expect("it is cut");
    let is_as_it_was = || {
        let listed = real.listed();
        assert!(listed[0].1[0].starts_with("model.safetensors has 1000 of "), "{listed:?}");
        assert_eq!(fs::metadata(&weights).expect("the weights").len(), 1000);
    };
    real.mlx(["pull", MODEL]).env("HF_ENDPOINT", "http://127.0.0.1:1").run().assert_code(8);
    is_as_it_was();
    real.mlx(["up", "-m", MODEL]).env("HF_HUB_OFFLINE", "1").run().assert_code(1);
    is_as_it_was();
    real.hub.break_file("model.safetensors", Fault::Gated);
    real.mlx(["pull", MODEL]).run().assert_code(1);
    is_as_it_was();
    real.hub.repair();
    real.hub.withdraw(MODEL);
    real.mlx(["up", "-m", MODEL]).run().assert_code(7);
    is_as_it_was();
    real.hub.offer(MODEL, tiny());
    // The tool may write no file of that length, as on a full disk.
    let full = "ulimit -f 100 && exec \"$0\" mlx pull \"$1\"";
    let full =
        real.sandbox.command("/bin/sh").arg("-c").arg(full).arg(env!("CARGO_BIN_EXE_fusion")).arg(MODEL);
    full.env("HF_ENDPOINT", real.hub.url()).run().assert_code(8);
    is_as_it_was();
    let interrupted = real.start_a_pull_that_stalls();
    assert!(!weights.exists(), "it is moved aside");
    interrupted.signal(Signal::SIGINT);
    assert_eq!(interrupted.finish().code(), 130);
    is_as_it_was();
    real.hub.repair();
    real.mlx(["pull", MODEL]).run().assert_code(0);
    assert_eq!(real.listed(), [(MODEL.to_owned(), vec![])]);
}

fn tiny() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/tiny"))
}

/// The tool writes ten megabytes at a time, and resumes after the last that were written.
fn a_broken_connection_is_resumed(tool: &Path) {
    const LENGTH: usize = 25_000_000;
    let real = Real::new(tool);
    let header = format!(r#"{{"weights":{{"dtype":"U8","shape":[{LENGTH}],"data_offsets":[0,{LENGTH}]}}}}"#);
    let mut weights = (header.len() as u64).to_le_bytes().to_vec();
    weights.extend(header.bytes());
    weights.resize(weights.len() + LENGTH, 7);
    real.hub.add(MODEL, "model.safetensors", weights);
    real.hub.break_file("model.safetensors", Fault::CutOnce(24_000_000));
    real.mlx(["pull", MODEL]).run().assert_code(0);
    let ranges: Vec<_> = real
        .hub
        .downloads()
        .into_iter()
        .filter(|(file, _)| file == "model.safetensors")
        .map(|(_, range)| range)
        .collect();
    assert_eq!(ranges.len(), 2, "{ranges:?}");
    assert!(ranges[1].as_deref().is_some_and(|range| range.starts_with("bytes=2")), "{ranges:?}");
    assert_eq!(real.listed(), [(MODEL.to_owned(), vec![])]);
    real.mlx(["show", MODEL]).run().assert_code(0);
}

fn an_unknown_model_is_exit_7(tool: &Path) {
    let real = Real::new(tool);
    insta::assert_snapshot!(real.mlx(["-q", "pull", "test-org/none"]).run(), @"
    exit 7
    [stderr]
    error: there is no model test-org/none to download
    hint: check the spelling; a private model requires your token (HF_TOKEN, or `hf auth login`)
    ");
    assert!(!real.cache().join("models--test-org--none").exists());
}

fn a_gated_model_is_named_with_its_page(tool: &Path) {
    let real = Real::new(tool);
    for file in ["config.json", "model.safetensors"] {
        real.hub.break_file(file, Fault::Gated);
    }
    insta::assert_snapshot!(real.mlx(["-q", "pull", MODEL]).run(), @"
    exit 1
    [stderr]
    error: the model test-org/tiny requires its owner's permission to download
    hint: request access at https://huggingface.co/test-org/tiny, then set your token (HF_TOKEN, or `hf auth login`)
    ");
}

fn no_network_is_exit_8(tool: &Path) {
    let real = Real::new(tool);
    let refused = real.mlx(["-q", "pull", MODEL]).env("HF_ENDPOINT", "http://127.0.0.1:1").run();
    let stderr = refused.stderr();
    // The rest of the first line is in the words of the tool.
    let words = stderr.lines().next().and_then(|line| line.splitn(3, ": ").nth(2)).expect("the tool's words");
    assert!(words.contains("refused"), "{stderr}");
    insta::assert_snapshot!(refused.to_string().replace(words, "[WORDS]"), @"
    exit 8
    [stderr]
    error: cannot reach the server that models are downloaded from: [WORDS]
    hint: check the connection, then run the same command again; complete files are kept
    ");
}

fn the_offline_variable_is_named(tool: &Path) {
    let real = Real::new(tool);
    insta::assert_snapshot!(real.mlx(["-q", "pull", MODEL]).env("HF_HUB_OFFLINE", "1").run(), @"
    exit 1
    [stderr]
    error: HF_HUB_OFFLINE is set, so nothing is downloaded
    hint: unset HF_HUB_OFFLINE
    ");
    assert_eq!(real.hub.requests(), []);
}

fn token_and_cache_of_the_environment_are_used(tool: &Path) {
    let real = Real::new(tool);
    let cache = real.sandbox.root().join("elsewhere");
    real.mlx(["pull", MODEL]).env("HF_TOKEN", "hf_secret").env("HF_HUB_CACHE", &cache).run().assert_code(0);
    assert!(cache.join("models--test-org--tiny/refs/main").is_file());
    assert!(!real.cache().exists());
    let asked = real.hub.requests();
    assert!(
        asked.iter().any(|request| request.authorization.as_deref() == Some("Bearer hf_secret")),
        "{asked:?}"
    );
}

fn the_cache_of_the_servers_environment_is_used(tool: &Path) {
    let real = Real::new(tool);
    let home = real.sandbox.root().join("disk");
    real.sandbox.configure("", &format!("env = {{ HF_HOME = \"{}\" }}", home.display()));
    real.mlx(["pull", MODEL]).run().assert_code(0);
    assert!(home.join("hub/models--test-org--tiny/refs/main").is_file());
    assert_eq!(real.listed(), [(MODEL.to_owned(), vec![])]);
}

fn up_downloads_the_model_it_needs(tool: &Path) {
    let real = Real::new(tool);
    let dump = real.sandbox.root().join("dump");
    real.sandbox.faults("mlx", &[&format!("dump={}", dump.display())]);
    let up = real.mlx(["up", "--model", MODEL, "--json"]).run().assert_code(0);
    assert_eq!(up.json()["model"], MODEL);
    assert!(up.stderr().contains(MODEL), "{up}");
    let dump = fs::read_to_string(dump).expect("what it was started with");
    assert!(dump.contains("HF_HUB_OFFLINE"), "{dump}");
    insta::assert_snapshot!(real.mlx(["rm", "--yes", MODEL]).run(), @"
    exit 1
    [stderr]
    error: test-org/tiny is in use: mlx has loaded it
    hint: stop the server first: fusion mlx down
    ");
    real.mlx(["down"]).run().assert_code(0);
    real.mlx(["up", "-m", "test-org/none"]).run().assert_code(7);
    real.sandbox.assert_nothing_runs();
}

fn an_alias_downloads_its_model(tool: &Path) {
    let real = Real::new(tool);
    let name = "mlx-community/Llama-3.2-1B-Instruct-4bit";
    real.hub.offer(name, Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/tiny")));
    let pulled = real.mlx(["pull", "llama3.2:1b"]).run().assert_code(0);
    assert!(pulled.stdout().contains(name), "{pulled}");
    let rows = real.mlx(["models", "--json"]).run().assert_code(0).json();
    assert_eq!(rows[0]["aliases"], serde_json::json!(["llama3.2:1b"]));
    real.mlx(["rm", "--yes", "llama3.2:1b"]).run().assert_code(0);
    assert_eq!(real.listed(), []);
}

fn a_repository_for_other_programs_is_not_downloaded(tool: &Path) {
    let real = Real::new(tool);
    let name = "test-org/gguf";
    for file in ["model-Q4_K_M.gguf", "model-Q8_0.gguf"] {
        real.hub.add(name, file, vec![1; 1000]);
    }
    real.hub.add(name, "README.md", b"---\nlicense: mit\n---\n".to_vec());
    insta::assert_snapshot!(real.mlx(["-q", "pull", name]).run(), @"
    exit 7
    [stderr]
    error: test-org/gguf is not a model for MLX: config.json is missing; there is no tokenizer (tokenizer.json, tokenizer.model ...); there are no weights (model*.safetensors)
    hint: choose a model for mlx; `fusion models` lists aliases of some
    ");
    let files: Vec<String> = real.hub.downloads().into_iter().map(|(file, _)| file).collect();
    assert_eq!(files, ["README.md"]);
    assert_eq!(real.listed(), []);
}

fn only_what_the_server_loads_is_downloaded(tool: &Path) {
    let real = Real::new(tool);
    for file in ["consolidated.safetensors", "pytorch_model.bin", "picture.png"] {
        real.hub.add(MODEL, file, vec![1; 1000]);
    }
    real.hub.add(MODEL, "README.md", b"---\nlicense: mit\n---\n".to_vec());
    real.mlx(["pull", MODEL]).run().assert_code(0);
    let files: Vec<String> = real.hub.downloads().into_iter().map(|(file, _)| file).collect();
    assert_eq!(files.len(), 7, "{files:?}");
    let shown = real.mlx(["show", "--json", MODEL]).run().assert_code(0).json();
    assert_eq!(shown["license"], "mit");
}

/// A repository with two quantizations and two projectors.
const GGUF: &str = "test-org/tiny-GGUF";

impl Real {
    fn offer_gguf(&self) {
        let out = self.sandbox.root().join("tiny.gguf");
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let mut script = std::process::Command::new("python3");
        script.arg(tests.join("make_tiny_gguf.py")).arg(tests.join("models/tiny")).arg(&out);
        assert!(script.status().expect("Python runs").success(), "the model is written");
        let model = fs::read(out).expect("the model");
        for file in ["tiny-Q4_K_M.gguf", "tiny-Q8_0.gguf", "mmproj-tiny-F16.gguf", "mmproj-tiny-BF16.gguf"] {
            // Files of the same content are one file in the cache.
            let padded = [model.clone(), vec![0; file.len()]].concat();
            self.hub.add(GGUF, file, padded);
        }
        self.hub.add(GGUF, "README.md", b"---\nlicense: mit\n---\n".to_vec());
    }

    fn llama<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Invocation {
        self.sandbox.fusion(["llama"].into_iter().chain(arguments)).env("HF_ENDPOINT", self.hub.url())
    }

    /// The names of the GGUF models on this machine.
    fn quantizations(&self) -> Vec<String> {
        let list = self.llama(["models", "--json"]).run().assert_code(0).json();
        let names = list.as_array().expect("an array").iter().map(|row| {
            assert_eq!(row["defects"], serde_json::json!([]));
            row["name"].as_str().expect("a name").to_owned()
        });
        names.collect()
    }

    /// The blobs of the GGUF repository.
    fn blobs(&self) -> Vec<PathBuf> {
        let blobs = fs::read_dir(self.cache().join("models--test-org--tiny-GGUF/blobs"));
        blobs.into_iter().flatten().flatten().map(|blob| blob.path()).collect()
    }
}

fn one_quantization_is_pulled_and_removed(tool: &Path) {
    let real = Real::new(tool);
    real.offer_gguf();
    real.llama(["pull", GGUF]).run().assert_code(0);
    let files = |real: &Real| real.hub.downloads().into_iter().map(|(file, _)| file).collect::<Vec<_>>();
    assert_eq!(files(&real), ["mmproj-tiny-F16.gguf", "tiny-Q4_K_M.gguf"]);
    assert_eq!(real.quantizations(), [format!("{GGUF}:Q4_K_M")]);
    real.hub.forget();
    real.llama(["pull", "test-org/tiny-GGUF:q8_0"]).run().assert_code(0);
    assert_eq!(files(&real), ["tiny-Q8_0.gguf"]);
    assert_eq!(real.quantizations(), [format!("{GGUF}:Q4_K_M"), format!("{GGUF}:Q8_0")]);
    let shown = real.llama(["show", "--json", GGUF]).run().assert_code(0).json();
    assert_eq!(shown["name"], format!("{GGUF}:Q4_K_M"));
    assert_eq!(shown["capabilities"], serde_json::json!(["completion", "vision"]));

    let removed = real.llama(["rm", "--yes", GGUF]).run().assert_code(0);
    assert!(removed.stdout().contains("Q4_K_M"), "{removed}");
    // The projector belongs to the other one, too.
    assert_eq!(real.blobs().len(), 2);
    assert_eq!(real.quantizations(), [format!("{GGUF}:Q8_0")]);
    real.llama(["rm", "--yes", "test-org/tiny-GGUF:Q8_0"]).run().assert_code(0);
    assert_eq!(real.quantizations(), [""; 0]);
    assert!(!real.cache().join("models--test-org--tiny-GGUF").exists());
}

fn a_missing_quantization_lists_the_others(tool: &Path) {
    let real = Real::new(tool);
    real.offer_gguf();
    insta::assert_snapshot!(real.llama(["-q", "pull", "test-org/tiny-GGUF:Q2_K"]).run(), @"
    exit 7
    [stderr]
    error: test-org/tiny-GGUF:Q2_K has no quantization Q2_K; it has Q4_K_M, Q8_0
    hint: choose one: fusion llama pull test-org/tiny-GGUF:Q4_K_M
    ");
    insta::assert_snapshot!(real.llama(["-q", "pull", MODEL]).run(), @"
    exit 7
    [stderr]
    error: test-org/tiny is not a model for llama.cpp: *.gguf is missing
    hint: choose a model for llama; `fusion models` lists aliases of some
    ");
    assert_eq!(real.hub.downloads(), []);
}

fn a_damaged_quantization_is_downloaded_again(tool: &Path) {
    let real = Real::new(tool);
    real.offer_gguf();
    real.llama(["pull", GGUF]).run().assert_code(0);
    let weights = real.cache().join("models--test-org--tiny-GGUF/snapshots");
    let snapshot = fs::read_dir(weights).expect("snapshots").flatten().next().expect("a snapshot").path();
    let weights = snapshot.join("tiny-Q4_K_M.gguf").canonicalize().expect("a blob");
    fs::File::options().write(true).open(&weights).expect("the weights").set_len(100_000).expect("it is cut");
    // Without its replacement, it stays as it is.
    real.llama(["pull", GGUF]).env("HF_ENDPOINT", "http://127.0.0.1:1").run().assert_code(8);
    assert_eq!(fs::metadata(&weights).expect("the weights").len(), 100_000);
    let up = real.llama(["up", "-m", GGUF]).env("HF_HUB_OFFLINE", "1").run();
    assert_ne!(up.code(), 0, "{up}");
    assert_eq!(fs::metadata(&weights).expect("the weights").len(), 100_000);
    real.hub.forget();
    real.llama(["pull", GGUF]).run().assert_code(0);
    assert_eq!(real.hub.downloads(), [("tiny-Q4_K_M.gguf".to_owned(), None)]);
    assert_eq!(real.quantizations(), [format!("{GGUF}:Q4_K_M")]);
}

/// The tool writes ten megabytes at a time, and resumes after the last that were written.
fn a_broken_download_of_weights_is_resumed(tool: &Path) {
    let real = Real::new(tool);
    real.offer_gguf();
    let model = fs::read(real.sandbox.root().join("tiny.gguf")).expect("the model");
    real.hub.add(GGUF, "tiny-Q4_K_M.gguf", [model, vec![0; 25_000_000]].concat());
    real.hub.break_file("tiny-Q4_K_M.gguf", Fault::CutOnce(24_000_000));
    real.llama(["pull", GGUF]).run().assert_code(0);
    let weights: Vec<_> =
        real.hub.downloads().into_iter().filter(|(file, _)| file == "tiny-Q4_K_M.gguf").collect();
    assert_eq!(weights.len(), 2, "{weights:?}");
    assert!(weights[1].1.as_deref().is_some_and(|range| range.starts_with("bytes=2")), "{weights:?}");
    assert_eq!(real.quantizations(), [format!("{GGUF}:Q4_K_M")]);
}

fn an_interrupted_quantization_can_be_pulled_again(tool: &Path) {
    let real = Real::new(tool);
    real.offer_gguf();
    real.hub.break_file("tiny-Q4_K_M.gguf", Fault::StallAfter(100_000));
    let running = real.llama(["pull", GGUF]).start();
    let is_partial = |blob: &PathBuf| blob.extension().is_some_and(|end| end == "incomplete");
    wait_until("a part of the weights is here", || real.blobs().iter().any(is_partial));
    running.signal(Signal::SIGINT);
    running.finish();
    real.sandbox.assert_nothing_runs();
    assert_eq!(real.quantizations(), [""; 0]);
    real.hub.repair();
    real.llama(["pull", GGUF]).run().assert_code(0);
    assert!(!real.blobs().iter().any(is_partial));
    assert_eq!(real.quantizations(), [format!("{GGUF}:Q4_K_M")]);
}

fn a_built_in_alias_downloads_its_quantization(tool: &Path) {
    let real = Real::new(tool);
    real.offer_gguf();
    let name = "bartowski/Llama-3.2-1B-Instruct-GGUF";
    let model = fs::read(real.sandbox.root().join("tiny.gguf")).expect("the model");
    real.hub.add(name, "Llama-3.2-1B-Instruct-Q4_K_M.gguf", model);
    real.llama(["pull", "llama3.2:1b"]).run().assert_code(0);
    let rows = real.llama(["models", "--json"]).run().assert_code(0).json();
    assert_eq!(rows[0]["name"], format!("{name}:Q4_K_M"));
    assert_eq!(rows[0]["aliases"], serde_json::json!(["llama3.2:1b"]));
    real.llama(["rm", "--yes", "llama3.2:1b"]).run().assert_code(0);
    assert_eq!(real.quantizations(), [""; 0]);
}
