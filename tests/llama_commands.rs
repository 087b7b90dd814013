//! The commands of llama.cpp, played by the fake runtime: a router over a directory, and a server of one model.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::{Finished, Sandbox, fake_runtime, write_program};

/// A sandbox with a directory of two models.
struct Llama {
    sandbox: Sandbox,
}

impl Llama {
    fn new(server: &str) -> Self {
        let llama = Self { sandbox: Sandbox::new() };
        fs::create_dir_all(llama.models()).expect("the sandbox is writable");
        llama.add_model("one.gguf");
        llama.add_model("two.gguf");
        llama.configure(server);
        llama
    }

    fn configure(&self, server: &str) {
        self.sandbox.write_config(&format!(
            "[llama_server]\nport = {}\nstartup_timeout = 60\nmodels_dir = \"{}\"\n{server}\n",
            self.sandbox.port("llama"),
            self.models().display(),
        ));
    }

    fn models(&self) -> std::path::PathBuf {
        self.sandbox.root().join("gguf")
    }

    fn add_model(&self, file: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/make_tiny_gguf.py");
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/tiny");
        let made = Command::new("python3").arg(script).arg(model).arg(self.models().join(file)).status();
        assert!(made.expect("Python runs").success(), "the model is written");
    }

    fn fusion(&self, words: &str) -> support::Invocation {
        self.sandbox.fusion(["llama"].into_iter().chain(words.split_whitespace()))
    }

    fn ps(&self) -> Value {
        self.fusion("ps --json").run().assert_code(0).json()
    }

    fn down(&self) -> Finished {
        let finished = self.fusion("down").run().assert_code(0);
        self.sandbox.assert_nothing_runs();
        finished
    }

    /// Has `llama-server` list these devices, and write this into its log.
    fn tells(&self, devices: &str, log: &str) {
        let program = self.sandbox.bin().join("llama-server");
        fs::remove_file(&program).expect("the sandbox is writable");
        let devices =
            format!("[ \"$1\" = --list-devices ] && printf 'Available devices:\\n  {devices}\\n' && exit");
        let script =
            format!("#!/bin/sh\n{devices}\nprintf '{log}' >&2\nexec {} llama \"$@\"\n", fake_runtime());
        write_program(&program, &script);
    }

    /// What the fake wrote about its own start.
    fn dump(&self) -> Value {
        let dump = self.sandbox.root().join("dump.json");
        support::wait_until("the fake has written about itself", || dump.exists());
        serde_json::from_slice(&fs::read(dump).expect("the dump")).expect("JSON")
    }

    fn dumping(server: &str) -> Self {
        let llama = Self::new("");
        let dump = format!("dump={}", llama.sandbox.root().join("dump.json").display());
        llama.configure(&format!("{}\n{server}", support::command_line("llama", &[&dump])));
        llama
    }
}

#[test]
fn router_loads_and_unloads_models() {
    let llama = Llama::new("");
    insta::assert_snapshot!(llama.fusion("up").run(), @"
    exit 0
    [stdout]
    llama is up at http://127.0.0.1:[LLAMA] (pid [PID])
    ");
    assert_eq!(llama.ps()["models"], json!([]));
    llama.fusion("load two").run().assert_code(0).assert_stdout("two is loaded\n");
    let ps = llama.ps();
    assert_eq!(
        (&ps["models"], &ps["context"], &ps["version"]),
        (&json!(["two"]), &json!(4096), &json!("b42"))
    );
    // The only one that is loaded is the one that is meant.
    let answer = llama.fusion("run --json Hello").run().assert_code(0).json();
    assert_eq!((&answer["model"], &answer["context"]["size"]), (&json!("two"), &json!(4096)));
    llama.fusion("unload two").run().assert_code(0);
    llama.fusion("unload two").run().assert_code(0);
    assert_eq!(llama.ps()["models"], json!([]));
    llama.down();
}

#[test]
fn up_loads_the_model_it_is_given() {
    let llama = Llama::new("");
    llama.fusion("up -m one").run().assert_code(0);
    assert_eq!(llama.ps()["models"], json!(["one"]));
    llama.fusion("up -m two").run().assert_code(0);
    assert_eq!(llama.ps()["models"], json!(["one", "two"]));
    llama.down();
}

#[test]
fn run_without_a_model_lists_what_there_is() {
    let llama = Llama::new("");
    insta::assert_snapshot!(llama.fusion("run Hello").run(), @"
    exit 7
    [stderr]
    error: no model is given, and llama has one, two
    hint: name one with --model, or: fusion config set llama_run.model one
    ");
    fs::remove_file(llama.models().join("two.gguf")).expect("it was there");
    let answer = llama.fusion("run --json Hello").run().assert_code(0).json();
    assert_eq!(answer["model"], "one");
    llama.down();
}

#[test]
fn one_model_is_never_mistaken_for_another() {
    let llama = Llama::new("model = \"one\"");
    llama.fusion("up").run().assert_code(0);
    assert_eq!(llama.ps()["models"], json!(["one"]));
    llama.fusion("run Hello").run().assert_code(0);
    for words in ["run -m two Hello", "load two", "health -m two"] {
        let refused = llama.fusion(words).run();
        assert_eq!(refused.stdout(), "", "{words}");
        insta::allow_duplicates! {
            insta::assert_snapshot!(refused, @"
            exit 7
            [stderr]
            error: the server does not serve two; it serves one
            hint: restart it with that model: fusion llama down, then fusion llama up -m two; or have it serve every model: take `model` out of its table: fusion config edit
            ");
        }
    }
    insta::assert_snapshot!(llama.fusion("unload one").run().assert_code(1).stderr(), @"
    error: the server cannot unload its model while it runs
    hint: stop the server: fusion llama down
    ");
    llama.fusion("up -m two").run().assert_code(0);
    assert_eq!(llama.ps()["models"], json!(["two"]));
    for words in ["health --json", "run --json Hello"] {
        assert_eq!(llama.fusion(words).run().assert_code(0).json()["model"], "two", "{words}");
    }
    llama.down();
}

#[test]
fn variables_of_other_servers_are_withheld() {
    let llama = Llama::dumping("env = { LLAMA_ARG_THREADS = \"2\" }");
    let up = llama.fusion("up").env("LLAMA_API_KEY", "x").env("OLLAMA_HOST", "1.2.3.4").env("KEPT", "yes");
    up.run().assert_code(0);
    let environment = &llama.dump()["environment"];
    assert!(environment["LLAMA_API_KEY"].is_null() && environment["OLLAMA_HOST"].is_null(), "{environment}");
    assert_eq!((&environment["LLAMA_ARG_THREADS"], &environment["KEPT"]), (&json!("2"), &json!("yes")));
    llama.down();
}

#[test]
fn a_server_has_home_without_its_variable() {
    let llama = Llama::dumping("");
    let mut up = llama.fusion("up").into_command();
    assert!(up.env_remove("HOME").status().expect("it runs").success());
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).expect("readable").expect("a user");
    assert_eq!(llama.dump()["environment"]["HOME"], user.dir.display().to_string());
    llama.down();
}

#[test]
fn impossible_names_are_exit_2() {
    let llama = Llama::new("");
    for name in ["", "a/b c", "a/b/c"] {
        for command in [
            &["show"][..],
            &["load"],
            &["unload"],
            &["rm"],
            &["pull"],
            &["up", "-m"],
            &["run", "Hi", "-m"],
            &["health", "-m"],
        ] {
            let words = ["llama"].into_iter().chain(command.iter().copied()).chain([name]);
            let refused = llama.sandbox.fusion(words).run_in_process().assert_code(2);
            assert!(refused.stderr().contains(&format!("{name:?} is not the name of a model")), "{refused}");
        }
    }
}

#[test]
fn a_router_starts_without_a_model() {
    let llama = Llama::dumping("args = [\"-c\", \"8192\"]");
    llama.fusion("up").run().assert_code(0);
    let arguments = llama.dump()["arguments"].clone();
    let words: Vec<&str> = arguments.as_array().expect("words").iter().filter_map(Value::as_str).collect();
    let start = words.iter().position(|word| *word == "--host").expect("a host");
    let port = llama.sandbox.port("llama").to_string();
    let models = llama.models().display().to_string();
    let expected =
        ["--host", "127.0.0.1", "--port", &port, "--cors-origins", "localhost", "--models-dir", &models];
    assert_eq!(words[start..], [&expected[..], &["--offline", "-c", "8192"]].concat());
    llama.down();
}

#[test]
fn a_file_is_served_under_its_listed_name() {
    let llama = Llama::dumping("model = \"./../gguf/two.gguf\"");
    llama.fusion("up").run().assert_code(0);
    let arguments = llama.dump()["arguments"].clone();
    let words: Vec<&str> = arguments.as_array().expect("words").iter().filter_map(Value::as_str).collect();
    let start = words.iter().position(|word| *word == "-m").expect("a model");
    let file = llama.models().join("two.gguf").display().to_string();
    assert_eq!(words[start..], ["-m", &file, "--alias", "two", "--offline"]);
    llama.down();
}

/// A server that generates may wait for its client after SIGTERM.
#[test]
fn a_server_that_ignores_sigterm_is_interrupted() {
    let llama = Llama::new(&support::command_line("llama", &["ignore-term"]));
    llama.fusion("up").run().assert_code(0);
    let down = llama.fusion("down --json").run().assert_code(0).json();
    assert_eq!(down["killed"], false);
    llama.sandbox.assert_nothing_runs();
}

#[test]
fn mlx_is_not_taken_for_llama() {
    let llama = Llama::new("");
    let mut fake = llama.sandbox.command(support::fake_runtime()).into_command();
    let port = llama.sandbox.port("llama").to_string();
    let mut server = fake.args(["mlx", "--host", "127.0.0.1", "--port", &port]).spawn().expect("it starts");
    support::wait_until("it listens", || {
        std::net::TcpStream::connect(("127.0.0.1", llama.sandbox.port("llama"))).is_ok()
    });
    llama.fusion("up").run().assert_code(5);
    server.kill().expect("it runs");
    server.wait().expect("it ends");
}

#[test]
fn damaged_files_are_refused_by_name() {
    let llama = Llama::new("");
    let cut = fs::read(llama.models().join("one.gguf")).expect("the model");
    fs::write(llama.models().join("one.gguf"), &cut[..100_000]).expect("the model is writable");
    fs::write(llama.models().join("foreign.gguf"), "no model").expect("the directory is writable");
    let said = |name: &str, code| llama.fusion(&format!("up -m {name}")).run().assert_code(code);
    let said = |name: &str, code| llama.sandbox.normalized(&said(name, code).stderr());
    insta::assert_snapshot!(said("one", 7), @"
    error: the model one is incomplete: one.gguf has 100000 of 352384 bytes
    hint: copy or convert the model again; fusion does not repair your own directories
    ");
    insta::assert_snapshot!(said("foreign", 1), @"
    error: the model foreign cannot be used: foreign.gguf is not a GGUF file: it does not start like one
    hint: check the files in [ROOT]/gguf/foreign.gguf
    ");
    nix::unistd::mkfifo(&llama.models().join("fifo.gguf"), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    insta::assert_snapshot!(said("fifo", 1), @"
    error: the model fifo cannot be used: fifo.gguf is a FIFO, not a file
    hint: check the files in [ROOT]/gguf/fifo.gguf
    ");
    llama.down();
    let shown = llama.fusion("show --json one").run().assert_code(0).json();
    assert_eq!(shown["defects"], json!(["one.gguf has 100000 of 352384 bytes"]));
    let listed = llama.fusion("models --json").run().assert_code(0).json();
    assert_eq!(listed[0]["defects"], json!(["fifo.gguf is a FIFO, not a file"]));
}

#[test]
fn a_git_lfs_pointer_is_named() {
    let llama = Llama::new("");
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 352384\n";
    fs::write(llama.models().join("one.gguf"), pointer).expect("the model is writable");
    let up = llama.fusion("up -m one").run().assert_code(7);
    insta::assert_snapshot!(llama.sandbox.normalized(&up.stderr()), @"
    error: the model one is incomplete: one.gguf is a Git LFS pointer instead of the file
    hint: download the file: git -C [ROOT]/gguf lfs pull --include one.gguf
    ");
    llama.sandbox.assert_nothing_runs();
}

#[test]
fn an_alias_means_a_model_of_the_directory() {
    let llama = Llama::new("model = \"mine\"");
    let config = llama.sandbox.config_dir().join("config.toml");
    let text = fs::read_to_string(&config).expect("the configuration");
    llama
        .sandbox
        .write_config(&format!("{text}\n[aliases]\nmine = \"one\"\nother = {{ llama = \"two\" }}\n"));
    llama.fusion("up").run().assert_code(0);
    assert_eq!(llama.ps()["models"], json!(["one"]));
    let answer = llama.fusion("run --json -m mine Hello").run().assert_code(0).json();
    assert_eq!(answer["model"], "one");
    assert_eq!(llama.fusion("run -m other Hello").run().assert_code(7).stdout(), "");
    let rows = llama.fusion("models --json").run().assert_code(0).json();
    let aliases: Vec<&Value> = rows.as_array().expect("rows").iter().map(|row| &row["aliases"]).collect();
    assert_eq!(aliases, [&json!(["mine"]), &json!(["other"])]);
    llama.down();
}

#[test]
fn headers_describe_models() {
    let llama = Llama::new("");
    let shown = llama.fusion("show --json two").run().assert_code(0).json();
    let facts = |name: &str| shown[name].clone();
    assert_eq!(facts("architecture"), "llama");
    assert_eq!(facts("quantization"), "F16");
    assert_eq!(facts("context_length"), 32_768);
    assert_eq!(facts("chat_template"), true);
    assert_eq!(facts("capabilities"), json!(["completion"]));
    assert_eq!(facts("format"), "gguf");
    assert!(facts("parameters").as_u64().is_some_and(|count| count > 100_000), "{shown}");
    assert!(facts("memory")["bytes"].as_u64() > facts("memory")["weight_bytes"].as_u64(), "{shown}");
}

#[test]
fn devices_and_log_tell_of_a_required_gpu() {
    let llama = Llama::new("model = \"one\"");
    let layers =
        "load_tensors: offloaded 20/33 layers to GPU\\nload_tensors: CUDA0 model buffer size = 1 MiB\\n";
    for (devices, log, code, said) in [
        ("(none)", "", 6, "on the CPU"),
        ("CUDA0: GPU", "", 0, "does not tell whether a model runs on the GPU"),
        ("CUDA0: GPU", layers, 6, "partly on the CPU: 60% of it"),
    ] {
        llama.tells(devices, log);
        let required = llama.fusion("up --require-gpu").run().assert_code(code);
        assert!(required.stderr().contains(said), "{devices} {log}: {required}");
        if code == 6 {
            llama.sandbox.assert_nothing_runs();
        }
        llama.down();
    }
    let up = llama.fusion("up").run().assert_code(0);
    assert_eq!(up.stderr(), "warning: llama runs one partly on the CPU: 60% of it is on the GPU\n");
    llama.down();
}

#[test]
fn a_router_gets_the_context_of_models() {
    let llama = Llama::dumping(
        "[models.one]\ncontext = 2048\n[models.gone]\ncontext = 512\n[models.two]\ntemperature = 0\n",
    );
    llama.fusion("up").run().assert_code(0);
    let preset = || {
        let arguments = llama.dump()["arguments"].as_array().expect("arguments").clone();
        let flag = arguments.iter().position(|word| word == "--models-preset").expect("the flag");
        fs::read_to_string(arguments[flag + 1].as_str().expect("a path")).expect("the file")
    };
    assert_eq!(preset(), "version = 1\n\n[one]\nctx-size = 2048\n");
    // Another context is another start.
    let text = fs::read_to_string(llama.sandbox.config_dir().join("config.toml")).expect("the configuration");
    llama.sandbox.write_config(&text.replace("2048", "4096"));
    let ps = llama.fusion("ps").run().assert_code(0).stdout();
    assert!(ps.contains("the configuration has changed since the start (command)"), "{ps}");
    fs::remove_file(llama.sandbox.root().join("dump.json")).expect("the dump");
    llama.fusion("restart").run().assert_code(0);
    assert_eq!(preset(), "version = 1\n\n[one]\nctx-size = 4096\n");
    let directory = fs::read_dir(llama.sandbox.config_dir().join("llama")).expect("the directory");
    let extensions = directory.flatten().filter_map(|entry| entry.path().extension().map(ToOwned::to_owned));
    assert_eq!(extensions.filter(|extension| extension == "ini").count(), 1);
    llama.down();
}
