//! Models of the real server: loaded, unloaded, removed, pulled, missing and damaged.

use super::*;

pub(crate) fn models_load_unload_and_are_removed(program: &Path) {
    let real = Real::up(program);
    let list = real.ollama(["models", "--json"]).run().assert_code(0).json();
    assert_eq!(list[0]["name"], "tiny:latest");
    real.ollama(["load", "tiny", "--keep-alive", "forever"]).run().assert_code(0);
    assert_eq!(real.ps(0)["models"], json!(["tiny:latest"]));
    let show = real.ollama(["show", "tiny", "--json"]).run().assert_code(0).json();
    assert_eq!((&show["architecture"], &show["loaded"]), (&json!("llama"), &json!(true)));
    assert_eq!(show["chat_template"], true);
    assert!(real.ps(0)["context"].as_u64().is_some_and(|tokens| tokens > 0), "{}", real.ps(0));
    // The server adds the tag to the name.
    let answer = real.ollama(["run", "-m", "tiny", "--json", "Hello"]).run().assert_code(0).json();
    let left =
        answer["context"]["size"].as_u64().unwrap() - answer["usage"]["total_tokens"].as_u64().unwrap();
    assert_eq!(answer["context"], json!({ "size": real.ps(0)["context"], "left": left }));
    real.put("untemplated", "untemplated", &[]);
    let untemplated = real.ollama(["show", "untemplated", "--json"]).run().assert_code(0).json();
    assert_eq!(untemplated["chat_template"], false);
    let warning = "the roles and the system message are lost";
    let run = real.ollama(["run", "-m", "untemplated", "Hello there, model on the machine"]).run();
    assert!(run.assert_code(0).stderr().contains(warning));
    // It repeats one token, which the server ends after thirty.
    let run = real.ollama(["run", "-m", "untemplated", "hi"]).run().assert_code(8);
    assert!(run.stdout().starts_with("DDDDDDDD"), "{run}");
    assert!(run.stderr().contains("because the model repeated itself"), "{run}");
    assert!(run.stderr().contains("-o frequency_penalty=1") && run.stderr().contains(warning), "{run}");
    real.ollama(["rm", "--yes", "untemplated"]).run().assert_code(0);
    real.ollama(["unload", "tiny"]).run().assert_code(0);
    assert_eq!(real.ps(0)["models"], json!([]));
    real.ollama(["load", "tiny"]).run().assert_code(0);
    real.ollama(["rm", "--yes", "tiny"]).run().assert_code(0);
    wait_until("the runner has ended", || real.runners().is_empty());
    assert_eq!(real.ollama(["models", "--json"]).run().assert_code(0).json(), json!([]));
    for command in ["show", "load", "rm"] {
        real.ollama([command, "tiny"]).run().assert_code(7);
    }
    real.down();
}

/// The default of such a server undoes a load at once.
pub(crate) fn load_keeps_the_model_despite_keep_alive_0(program: &Path) {
    let real = Real::configured(program, "env.OLLAMA_KEEP_ALIVE = \"0\"");
    real.ollama(["up"]).run().assert_code(0);
    real.put("tiny", "plain", &[]);
    real.ollama(["load", "tiny"]).run().assert_code(0);
    assert_eq!(real.ps(0)["models"], json!(["tiny:latest"]));
    real.down();
}

pub(crate) fn unload_warns_while_an_answer_runs(program: &Path) {
    let real = Real::up(program);
    real.put("endless", "endless", &[]);
    let mut run = real.endless_answer();
    let stdout = run.stdout.take().expect("a pipe");
    let reader = std::thread::spawn(move || std::io::copy(&mut { stdout }, &mut std::io::sink()));
    let unload = real.ollama(["unload", "endless"]).run().assert_code(0);
    assert!(unload.stderr().contains("endless is still answering a request"), "{}", unload.stderr());
    real.down();
    wait_for_end(&mut run);
    reader.join().expect("no panic").expect("a pipe can be read");
}

/// Every start of Ollama deletes them otherwise.
pub(crate) fn a_start_keeps_partial_downloads(program: &Path) {
    let real = Real::configured(program, "env.OLLAMA_MODELS = \"~/store\"");
    let blobs = real.sandbox.home().join("store/blobs");
    fs::create_dir_all(&blobs).expect("the home is writable");
    let partial = blobs.join(format!("sha256-{}-partial", "0".repeat(64)));
    fs::write(&partial, "half").expect("the home is writable");
    real.ollama(["up"]).run().assert_code(0);
    real.put("tiny", "plain", &[]);
    assert!(partial.exists(), "the partial download is kept");
    assert!(real.sandbox.home().join("store/manifests").is_dir(), "~ is the home");
    real.down();
}

/// Asserts that stderr has the server's message about a model that does not load. A server that sees the end of its
/// runner before it has read the runner's last lines does not know the cause, and refers to its log.
fn assert_names_load_failure(finished: &Finished, cause: &str) {
    let stderr = finished.stderr();
    let messages = [cause, "model failed to load"];
    assert!(messages.iter().any(|message| stderr.contains(message)), "{stderr}");
}

pub(crate) fn up_that_fails_to_load_stops_its_server(program: &Path) {
    let real = Real::up(program);
    real.put("vocab", "vocab", &[]);
    // A server that was running stays.
    real.ollama(["up", "-m", "vocab"]).run().assert_code(8);
    assert_eq!(real.ps(0)["state"], "ready");
    real.down();
    let up = real.ollama(["up", "-m", "vocab"]).run().assert_code(8);
    assert_names_load_failure(&up, "missing tensor");
    real.sandbox.assert_nothing_runs();
    assert_eq!(real.ps(3)["state"], "stopped");
}

pub(crate) fn a_missing_model_is_exit_7(program: &Path) {
    let real = Real::up(program);
    let missing = real.ollama(["run", "-m", "no-such-model:1b", "Hello"]).run().assert_code(7);
    assert!(missing.stderr().contains("no-such-model:1b"), "{}", missing.stderr());
    real.down();
}

pub(crate) fn damaged_models_are_errors(program: &Path) {
    let real = Real::up(program);
    for (variant, cause) in [("vocab", "missing tensor"), ("arch", "unable to load model")] {
        real.put(variant, variant, &[]);
        for stream in ["--stream", "--no-stream"] {
            let run = real.ollama(["run", stream, "-m", variant, "Hello"]).run().assert_code(8);
            assert_names_load_failure(&run, cause);
        }
        let load = real.ollama(["load", variant]).run().assert_code(8);
        assert_names_load_failure(&load, cause);
        real.ollama(["rm", "--yes", variant]).run().assert_code(0);
    }
    let weights = real.weights();
    let [weights] = &weights[..] else { panic!("one model is left: {weights:?}") };
    let whole = fs::read(weights).expect("the weights");
    fs::write(weights, &whole[..whole.len() / 2]).expect("the model store is ours");
    let truncated = real.ollama(["run", "Hello"]).run().assert_code(8);
    assert!(truncated.stderr().contains("exceeds file size"), "{}", truncated.stderr());
    // The server lists it as if it were whole.
    let unusable = |why: &str| {
        let listed = real.ollama(["models"]).run().assert_code(0).stdout();
        assert!(listed.contains(&format!("unusable: {} {why}", blob_of(weights))), "{listed}");
    };
    unusable(&format!("has {} of {} bytes", whole.len() / 2, whole.len()));
    fs::remove_file(weights).expect("the model store is ours");
    unusable("is missing");
    let run = real.ollama(["run", "Hello"]).run().assert_code(8);
    assert!(run.stderr().contains("the model tiny is incomplete on the disk"), "{run}");
    assert!(run.stderr().contains("fusion ollama rm tiny, then fusion ollama pull tiny"), "{run}");
    for command in ["show", "load"] {
        let refused = real.ollama([command, "tiny"]).run().assert_code(7);
        let expected = format!("incomplete: {} is missing", blob_of(weights));
        assert!(refused.stderr().contains(&expected), "{refused}");
    }
    real.ollama(["rm", "--yes", "tiny"]).run().assert_code(0);
    let manifest = real.sandbox.home().join(".ollama/models/manifests/registry.ollama.ai/library/cut/latest");
    real.put("cut", "plain", &[]);
    fs::write(manifest, "{").expect("the model store is ours");
    let cut = real.ollama(["run", "-m", "cut", "Hello"]).run().assert_code(8);
    assert!(cut.stderr().contains("download it again: fusion ollama pull cut"), "{cut}");
    // The server itself is well.
    assert_eq!(real.ps(0)["state"], "ready");
    real.down();
}

/// Returns how fusion names a file of the model store.
fn blob_of(path: &Path) -> String {
    let name = path.file_name().expect("a file").to_string_lossy();
    format!("blob {}", &name["sha256-".len()..][..12])
}

pub(crate) fn a_model_is_pulled_and_pulled_again(program: &Path) {
    let ollama = Trusting::new(program);
    let pulled = ollama.pull().run().assert_code(0);
    assert!(pulled.stdout().contains("tiny is here"), "{pulled}");
    ollama.assert_answers();
    ollama.pull().run().assert_code(0);
    assert_eq!(ollama.registry.ranges().len(), 1, "what is here is not downloaded again");
    let unknown = ollama.registry.model().replace("tiny", "none");
    ollama.real.ollama(["pull", &unknown]).run().assert_code(7);
    ollama.real.ollama(["rm", "--yes", &ollama.registry.model()]).run().assert_code(0);
    ollama.real.down();
    // `up` downloads a model that it is asked for.
    ollama.real.ollama(["up", "-m", &ollama.registry.model()]).run().assert_code(0);
    assert_eq!(ollama.real.ps(0)["models"], json!([format!("{}:latest", ollama.registry.model())]));
    ollama.real.down();
}

pub(crate) fn an_interrupted_pull_is_resumed(program: &Path) {
    let ollama = Trusting::new(program);
    ollama.registry.set("stall", Some("100000"));
    let pull = ollama.pull().start();
    wait_until("a part was sent", || ollama.registry.has_stalled());
    let part = || {
        let blobs = fs::read_dir(ollama.real.sandbox.home().join(".ollama/models/blobs"));
        let parts = blobs.into_iter().flatten().flatten().map(|blob| blob.path());
        let mut parts = parts.filter(|part| part.to_string_lossy().contains("-partial-"));
        parts.find_map(|part| {
            let part: Value = serde_json::from_str(&fs::read_to_string(part).ok()?).ok()?;
            part["Completed"].as_u64().filter(|bytes| *bytes > 0)
        })
    };
    pull.signal(Signal::SIGINT);
    pull.finish();
    wait_until("the server has noted how much it has", || part().is_some());
    let arrived = part().expect("a number");
    // A restart of the server keeps it.
    ollama.real.ollama(["restart"]).run().assert_code(0);
    ollama.registry.set("stall", None);
    ollama.pull().run().assert_code(0);
    let ranges = ollama.registry.ranges();
    assert!(ranges.last().is_some_and(|range| range.starts_with(&format!("bytes={arrived}-"))), "{ranges:?}");
    ollama.assert_answers();
    ollama.real.down();
}

pub(crate) fn a_damaged_download_is_refused(program: &Path) {
    let ollama = Trusting::new(program);
    ollama.registry.set("damage", Some(""));
    let damaged = ollama.pull().run().assert_code(8);
    assert!(damaged.stderr().contains("digest mismatch"), "{damaged}");
    assert_eq!(ollama.real.ollama(["models", "--json"]).run().assert_code(0).json(), json!([]));
    ollama.registry.set("damage", None);
    ollama.pull().run().assert_code(0);
    ollama.assert_answers();
    ollama.real.down();
}
