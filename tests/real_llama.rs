//! The real `llama-server`, with the tiny model of this repository as a GGUF file: no network, no download.

mod support;

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::chat::Chat;
use support::processes::{describe, kill, lives, send};
use support::{Invocation, Sandbox, real, wait_until};

/// The answer of the tiny model at temperature 0.
const SENTENCE: &str = "Hello! This is a tiny model on your own machine.\n";

fn main() -> ExitCode {
    real::main(
        "llama",
        "llama-server",
        real::tests![
            a_router_starts_loads_switches_and_stops,
            one_model_is_served_under_its_name,
            a_bad_file_names_the_cause,
            a_port_in_use_is_exit_5,
            an_external_server_is_never_stopped,
            an_interrupt_stops_the_generation,
            down_ends_a_stream_without_a_kill,
            a_schema_is_enforced,
            reasoning_stays_off_stdout,
            a_conversation_changes_its_model,
            a_prompt_beyond_the_context_is_exit_8,
            an_image_for_a_text_model_is_exit_8,
            an_answer_ends_at_the_context,
            tool_calls_are_in_the_json,
            a_file_elsewhere_is_not_served_by_a_router,
            a_model_of_the_cache_is_served,
            a_git_lfs_pointer_is_named,
            down_ends_a_server_that_waits_for_its_client,
            a_killed_model_process_is_exit_8,
            an_instance_runs_beside_the_router,
        ],
    )
}

/// A sandbox with the real server, and a directory of models.
struct Real {
    sandbox: Sandbox,
}

impl Real {
    /// Configures a router over a directory with the tiny model.
    fn new(program: &Path, server: &str) -> Self {
        let sandbox = Sandbox::without_config();
        real::install(&sandbox, program);
        let real = Self { sandbox };
        fs::create_dir_all(real.models()).expect("the sandbox is writable");
        real.add("tiny", &[], &[]);
        real.configure(server);
        real
    }

    fn configure(&self, server: &str) {
        self.sandbox.write_config(&format!(
            "[llama_server]\nport = {}\nmodels_dir = \"{}\"\n{server}\n\n[llama_run]\ntemperature = 0.0\n",
            self.sandbox.port("llama"),
            self.models().display(),
        ));
    }

    fn models(&self) -> PathBuf {
        self.sandbox.root().join("gguf")
    }

    /// Writes a variant of the tiny model: options of the script that makes it, and of the one that converts it.
    fn add(&self, name: &str, options: &[&str], gguf_options: &[&str]) {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let mut model = tests.join("models/tiny");
        if !options.is_empty() {
            model = self.sandbox.root().join("variant");
            run_script(&tests.join("make_tiny_model.py"), &model, options, None);
        }
        let out = self.models().join(format!("{name}.gguf"));
        run_script(&tests.join("make_tiny_gguf.py"), &model, gguf_options, Some(&out));
    }

    fn llama<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Invocation {
        self.sandbox.fusion(["llama"].into_iter().chain(arguments))
    }

    fn up(&self) {
        self.llama(["up"]).run().assert_code(0);
    }

    fn ps(&self, code: i32) -> Value {
        self.llama(["ps", "--json"]).run().assert_code(code).json()
    }

    fn down(&self) {
        let down = self.llama(["down", "--json"]).run().assert_code(0).json();
        assert_eq!(down["killed"], false);
        self.sandbox.assert_nothing_runs();
    }
}

fn run_script(script: &Path, model: &Path, options: &[&str], out: Option<&Path>) {
    let mut command = Command::new("python3");
    command.arg(script).arg(model).args(out).args(options);
    assert!(command.status().expect("Python runs").success(), "{} fails", script.display());
}

fn pid_of(ps: &Value) -> i32 {
    ps["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("a PID")
}

fn a_router_starts_loads_switches_and_stops(program: &Path) {
    let real = Real::new(program, "");
    real.add("other", &[], &[]);
    real.up();
    let ready = real.ps(0);
    assert_eq!((&ready["state"], &ready["models"]), (&json!("ready"), &json!([])));
    assert_eq!(ready["version"], "b11434");

    real.llama(["load", "tiny"]).run().assert_code(0);
    let loaded = real.ps(0);
    assert_eq!((&loaded["models"], &loaded["context"]), (&json!(["tiny"]), &json!(32_768)));
    let answer = real.llama(["run", "--json", "Hello"]).run().assert_code(0).json();
    let left = 32_768 - answer["usage"]["total_tokens"].as_u64().unwrap();
    assert_eq!(answer["context"], json!({ "size": 32_768, "left": left }));
    // The only one that is loaded.
    assert_eq!(real.llama(["run", "Hello"]).run().assert_code(0).stdout(), SENTENCE);

    let answer = real.llama(["run", "--json", "-m", "other", "Hello"]).run().assert_code(0).json();
    assert_eq!((&answer["model"], &answer["text"]), (&json!("other"), &json!(SENTENCE.trim_end())));
    real.llama(["unload", "tiny"]).run().assert_code(0);
    assert_eq!(real.ps(0)["models"], json!(["other"]));
    // A file that came after the router looked.
    real.add("late", &[], &[]);
    real.llama(["run", "-m", "late", "Hello"]).run().assert_code(0);
    real.llama(["run", "-m", "none", "Hello"]).run().assert_code(7);
    real.llama(["health", "-m", "late"]).run().assert_code(0);

    real.llama(["restart"]).run().assert_code(0);
    let pid = pid_of(&real.ps(0));
    assert_ne!(pid, pid_of(&ready));
    real.llama(["up", "-m", "tiny"]).run().assert_code(0);
    assert_eq!(real.ps(0)["models"], json!(["tiny"]));
    real.down();
    assert!(!lives(pid));
    drop(real::hold(real.sandbox.port("llama")));
}

fn one_model_is_served_under_its_name(program: &Path) {
    let real = Real::new(program, "model = \"../gguf/tiny.gguf\"");
    real.add("other", &[], &[]);
    real.up();
    assert_eq!(real.ps(0)["models"], json!(["tiny"]));
    let answer = real.llama(["run", "--json", "Hello"]).run().assert_code(0).json();
    assert_eq!((&answer["model"], &answer["text"]), (&json!("tiny"), &json!(SENTENCE.trim_end())));
    // The server would answer with the model that it has.
    let refused = real.llama(["run", "-m", "other", "Hello"]).run().assert_code(7);
    assert_eq!(refused.stdout(), "");
    real.llama(["load", "other"]).run().assert_code(7);
    real.llama(["up", "-m", "other"]).run().assert_code(0);
    assert_eq!(real.ps(0)["models"], json!(["other"]));
    real.down();
}

fn a_bad_file_names_the_cause(program: &Path) {
    let real = Real::new(program, "model = \"empty\"");
    real.add("empty", &[], &["--vocab-only"]);
    let up = real.llama(["up"]).run().assert_code(6);
    assert!(up.stderr().contains("tensor 'token_embd.weight' not found"), "{}", up.stderr());
    let whole = fs::read(real.models().join("tiny.gguf")).expect("the model");
    fs::write(real.models().join("empty.gguf"), &whole[..100_000]).expect("the model is writable");
    let up = real.llama(["up"]).run().assert_code(7);
    assert!(up.stderr().contains("empty.gguf has 100000 of "), "{}", up.stderr());
    // The router says only that the model failed to load.
    real.configure("");
    real.add("empty", &[], &["--vocab-only"]);
    for command in [&["up", "-m", "empty"][..], &["run", "-m", "empty", "Hello"]] {
        let refused = real.llama(command.iter().copied()).run().assert_code(8);
        let cause = "caused by: its log: check_tensor_dims: tensor 'token_embd.weight' not found";
        assert!(refused.stderr().contains(cause), "{refused}");
        assert!(refused.stderr().contains("hint: the file is damaged"), "{refused}");
    }
    real.down();
    real.configure("args = [\"--no-such-option\"]");
    let up = real.llama(["up"]).run().assert_code(6);
    assert!(up.stderr().contains("invalid argument: --no-such-option"), "{}", up.stderr());
    real.sandbox.assert_nothing_runs();
}

fn a_port_in_use_is_exit_5(program: &Path) {
    let real = Real::new(program, "");
    let holder = real::hold(real.sandbox.port("llama"));
    real.llama(["up"]).run().assert_code(5);
    real.sandbox.assert_nothing_runs();
    drop(holder);
    real.up();
    real.down();
}

fn an_external_server_is_never_stopped(program: &Path) {
    let real = Real::new(program, "");
    let port = real.sandbox.port("llama").to_string();
    let mut command = real.sandbox.command(program).into_command();
    let log = fs::File::create(real.sandbox.root().join("log")).expect("a log");
    command.args(["--host", "127.0.0.1", "--port", &port, "--offline", "--alias", "tiny", "-m"]);
    command.arg(real.models().join("tiny.gguf"));
    let mut server = command.stdout(log.try_clone().expect("a log")).stderr(log).spawn().expect("it starts");
    wait_until("it answers", || real.llama(["ps", "--json"]).run().json()["state"] == "external");
    real.up();
    assert_eq!(real.llama(["run", "Hello"]).run().assert_code(0).stdout(), SENTENCE);
    real.llama(["run", "-m", "other", "Hello"]).run().assert_code(7);
    real.llama(["down"]).run().assert_code(5);
    assert!(server.try_wait().expect("a child").is_none(), "it was stopped");
    server.kill().expect("a child can be killed");
    server.wait().expect("a child ends");
}

fn an_interrupt_stops_the_generation(program: &Path) {
    let real = Real::new(program, "");
    real.add("endless", &["--no-eos", "--slow", "50"], &[]);
    real.llama(["up", "-m", "endless"]).run().assert_code(0);
    let run = real.llama(["run", "--stream", "-m", "endless", "Hello"]).into_command();
    let (run, _) = real::start_and_read_until(run, "machine.");
    send(i32::try_from(run.id()).expect("a PID"), Signal::SIGINT);
    let output = run.wait_with_output().expect("it ends");
    assert_eq!(output.status.signal(), Some(Signal::SIGINT as i32), "{output:?}");
    // An idle server unloads at once; one that generates would wait.
    real.llama(["unload", "endless"]).run().assert_code(0);
    real.down();
}

fn down_ends_a_stream_without_a_kill(program: &Path) {
    for server in ["", "model = \"endless\""] {
        let real = Real::new(program, "");
        real.add("endless", &["--no-eos", "--slow", "50"], &[]);
        real.configure(server);
        real.llama(["up", "-m", "endless"]).run().assert_code(0);
        let run = real.llama(["run", "--stream", "-m", "endless", "Hello"]).into_command();
        let (run, _) = real::start_and_read_until(run, "machine.");
        real.down();
        let output = run.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(8), "{output:?}");
    }
}

fn a_schema_is_enforced(program: &Path) {
    let real = Real::new(program, "");
    let schema = real.sandbox.project().join("schema.json");
    let object = json!({
        "type": "object",
        "properties": { "ok": { "type": "boolean" } },
        "required": ["ok"],
        "additionalProperties": false,
    });
    fs::write(schema, object.to_string()).expect("the project is writable");
    let answer = real.llama(["run", "--schema", "schema.json", "Hello"]).run().assert_code(0).stdout();
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    assert!(answer["ok"].is_boolean(), "{answer}");
    real.down();
}

fn reasoning_stays_off_stdout(program: &Path) {
    let real = Real::new(program, "");
    real.add("thinking", &["--thinking"], &["--thinking"]);
    real.up();
    let run = |reasoning| {
        real.llama(["run", "-m", "thinking", "--reasoning", reasoning, "Hello"]).run().assert_code(0)
    };
    let (hidden, shown) = (run("hide"), run("show"));
    assert_eq!((hidden.stdout(), shown.stdout()), (SENTENCE.to_owned(), SENTENCE.to_owned()));
    assert_eq!(hidden.stderr(), "");
    assert!(shown.stderr().contains("Someone wrote something here"), "{}", shown.stderr());
    real.down();
}

fn an_image_for_a_text_model_is_exit_8(program: &Path) {
    let real = Real::new(program, "");
    let refused = real.llama(["run", "-m", "tiny", "-f", real::PICTURE, "Hello"]).run().assert_code(8);
    assert!(refused.stderr().contains("warning: tiny does not see the images of the prompt\n"), "{refused}");
    assert!(refused.stderr().contains("hint: leave out the image, or choose a model that"), "{refused}");
    real.down();
}

fn a_prompt_beyond_the_context_is_exit_8(program: &Path) {
    let real = Real::new(program, "args = [\"-c\", \"1024\", \"-np\", \"1\"]");
    let long = "Tell me about the tiny model on your own machine. ".repeat(400);
    let refused = real.llama(["run", "-m", "tiny", &long]).run().assert_code(8);
    let stderr = refused.stderr();
    assert!(stderr.contains("exceeds the available context size (1024 tokens)"), "{stderr}");
    assert!(stderr.contains("to llama_server.args"), "{stderr}");
    real.down();
}

/// The other limit of the context: the server generates until it is full.
fn an_answer_ends_at_the_context(program: &Path) {
    let real = Real::new(program, "args = [\"-c\", \"256\", \"-np\", \"1\"]");
    real.add("endless", &["--no-eos"], &[]);
    let answer = real.llama(["run", "--json", "--strict", "-m", "endless", "Hello"]).run();
    let answer = answer.assert_code(9).json();
    assert_eq!(answer["finish_reason"], "length");
    assert_eq!(answer["usage"]["total_tokens"], 256, "{answer}");
    assert_eq!(answer["context"], json!({ "size": 256, "left": 0 }));
    real.down();
}

/// The server forces a call by a grammar.
fn tool_calls_are_in_the_json(program: &Path) {
    let real = Real::new(program, "");
    real.add("tools", &[], &["--tools"]);
    let city =
        json!({ "type": "object", "properties": { "city": { "enum": ["Oslo"] } }, "required": ["city"] });
    let function = json!({ "name": "get_weather", "parameters": city });
    let tools = format!("tools={}", json!([{ "type": "function", "function": function }]));
    let shown = real.llama(["show", "--json", "tools"]).run().assert_code(0).json();
    assert_eq!(shown["capabilities"], json!(["completion", "tools"]));
    for stream in ["--stream", "--no-stream"] {
        let run = ["run", stream, "-m", "tools", "--json", "-o", &tools, "-o", "tool_choice=required"];
        let answer = real.llama(run.into_iter().chain(["--max-tokens", "200", "Hello"])).run();
        let answer = answer.assert_code(0).json();
        assert_eq!(answer["finish_reason"], "tool_calls", "{answer}");
        let call = &answer["tool_calls"][0];
        assert_eq!(call["name"], "get_weather", "{answer}");
        let arguments: Value = serde_json::from_str(call["arguments"].as_str().expect("text")).expect("JSON");
        assert_eq!(arguments, json!({ "city": "Oslo" }));
    }
    real.down();
}

fn a_file_elsewhere_is_not_served_by_a_router(program: &Path) {
    let real = Real::new(program, "");
    let elsewhere = real.sandbox.project().join("mine.gguf");
    fs::copy(real.models().join("tiny.gguf"), &elsewhere).expect("the project is writable");
    real.up();
    for words in [["load", "./mine.gguf"].as_slice(), &["run", "-m", "./mine.gguf", "Hello"]] {
        let refused = real.llama(words.iter().copied()).run().assert_code(7);
        assert_eq!(refused.stdout(), "");
        let expected = format!("error: the server does not serve {}; it serves tiny\n", elsewhere.display());
        assert!(refused.stderr().starts_with(&expected), "{}", refused.stderr());
    }
    assert_eq!(real.ps(0)["models"], json!([]));
    real.down();
    real.configure(&format!("model = \"{}\"", elsewhere.display()));
    real.up();
    assert_eq!(real.llama(["run", "Hello"]).run().assert_code(0).stdout(), SENTENCE);
    real.down();
}

/// Laid out as the hub's own tool does.
fn a_model_of_the_cache_is_served(program: &Path) {
    let real = Real::new(program, "");
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let model = real.sandbox.home().join(".cache/huggingface/hub/models--test-org--tiny-GGUF");
    for directory in ["refs", "blobs", &format!("snapshots/{commit}")] {
        fs::create_dir_all(model.join(directory)).expect("the home is writable");
    }
    fs::write(model.join("refs/main"), commit).expect("the home is writable");
    fs::rename(real.models().join("tiny.gguf"), model.join("blobs/aa")).expect("the home is writable");
    let entry = model.join(format!("snapshots/{commit}/tiny-Q4_K_M.gguf"));
    std::os::unix::fs::symlink("../../blobs/aa", entry).expect("the home is writable");
    let name = "test-org/tiny-GGUF:Q4_K_M";

    // A router without a directory, then a server of this model.
    for server in ["", "model = \"tiny\""] {
        let port = real.sandbox.port("llama");
        real.sandbox.write_config(&format!(
            "[llama_server]\nport = {port}\n{server}\n\n[llama_run]\ntemperature = 0.0\n\n\
             [aliases]\ntiny = {{ llama = \"test-org/tiny-GGUF\" }}\n"
        ));
        real.llama(["up", "-m", "tiny"]).run().assert_code(0);
        assert_eq!(real.ps(0)["models"], json!([name]));
        for asked in ["tiny", "test-org/tiny-GGUF", "test-org/tiny-GGUF:q4_k_m"] {
            let answer = real.llama(["run", "--json", "-m", asked, "Hello"]).run().assert_code(0).json();
            assert_eq!((&answer["model"], &answer["text"]), (&json!(name), &json!(SENTENCE.trim_end())));
        }
        let rows = real.llama(["models", "--json"]).run().assert_code(0).json();
        assert_eq!(rows[0]["aliases"], json!(["tiny"]));
        assert_eq!(rows[0]["loaded"], json!(true));
        real.down();
    }
}

fn a_git_lfs_pointer_is_named(program: &Path) {
    let real = Real::new(program, "model = \"pointer\"");
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 352384\n";
    fs::write(real.models().join("pointer.gguf"), pointer).expect("the directory is writable");
    let up = real.llama(["up"]).run().assert_code(7);
    assert!(up.stderr().contains("pointer.gguf is a Git LFS pointer"), "{}", up.stderr());
    real.sandbox.assert_nothing_runs();
}

/// After SIGTERM it often waits until a client that still listens has gone; a second signal ends it.
fn down_ends_a_server_that_waits_for_its_client(program: &Path) {
    use std::io::{Read as _, Write as _};
    let real = Real::new(program, "");
    real.add("endless", &["--no-eos", "--slow", "50"], &[]);
    real.configure("model = \"endless\"");
    for _ in 0..3 {
        real.up();
        let body = r#"{"messages":[{"role":"user","content":"Hello"}],"stream":true}"#;
        let address = ("127.0.0.1", real.sandbox.port("llama"));
        let mut client = std::net::TcpStream::connect(address).expect("it listens");
        write!(
            client,
            "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("it reads");
        assert!(client.read(&mut [0; 256]).expect("an answer") > 0);
        // The client neither reads on nor goes.
        real.down();
        drop(client);
    }
}

fn a_killed_model_process_is_exit_8(program: &Path) {
    let real = Real::new(program, "");
    real.add("endless", &["--no-eos", "--slow", "50"], &[]);
    real.up();
    let router = pid_of(&real.ps(0));
    let run = real.llama(["run", "--stream", "-m", "endless", "Hello"]).into_command();
    let (run, _) = real::start_and_read_until(run, "machine.");
    let is_child = |pid: &i32| describe(*pid).contains("endless.gguf");
    let children: Vec<i32> = real.sandbox.processes().into_iter().filter(is_child).collect();
    assert!(!children.is_empty() && !children.contains(&router), "{children:?}");
    children.into_iter().for_each(kill);
    let output = run.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(8), "{output:?}");
    // The router is well, and loads the model again.
    wait_until("the router has seen it", || real.ps(0)["models"] == json!([]));
    assert_eq!(real.llama(["run", "-m", "tiny", "Hello"]).run().assert_code(0).stdout(), SENTENCE);
    // The end of a router that is killed is the end of its models.
    kill(router);
    wait_until("ps sees that it is gone", || real.llama(["ps", "--json"]).run().json()["state"] == "exited");
    real.llama(["down"]).run().assert_code(0);
    real.sandbox.assert_nothing_runs();
}

/// The context of the loaded model is shown with its use; another model goes on with the conversation.
fn a_conversation_changes_its_model(program: &Path) {
    let real = Real::new(program, "");
    real.add("other", &[], &[]);
    let mut chat = Chat::with(&real.sandbox, "llama", "-s one -m tiny", SENTENCE.trim_end());
    chat.expect("tiny > ").send("Hello\r").expect(SENTENCE.trim_end()).expect("/32k > ");
    chat.send("/model other\r").expect("other > ").send("Really?\r").expect(SENTENCE.trim_end());
    chat.leaves();
    real.down();
}

/// The instance serves one model, the built-in service all of the directory.
fn an_instance_runs_beside_the_router(program: &Path) {
    let real = Real::new(program, "");
    let file = real.models().join("tiny.gguf");
    let config =
        fs::read_to_string(real.sandbox.config_dir().join("config.toml")).expect("the configuration");
    real.sandbox.write_config(&format!(
        "{config}\n[instances.one]\ntemplate = \"llama\"\nport = {}\nmodel = \"{}\"\n\
         [instances.one.run]\ntemperature = 0.0\n",
        real.sandbox.port("mlx"),
        file.display()
    ));
    let run = |words: &str| real.sandbox.fusion(words.split(' ')).run().assert_code(0);
    run("llama up");
    run("one up");
    assert_eq!(run("one run Hello").stdout(), SENTENCE);
    assert_eq!(run("one ps --json").json()["runtime"], "llama");
    run("one down");
    assert_eq!(run("llama ps --json").json()["state"], "ready");
    run("llama down");
    real.sandbox.assert_nothing_runs();
}
