//! Instances of templates: how they start, their directories, what becomes of them when the file changes.

mod ports;
mod stop_command;
#[path = "../support/mod.rs"]
mod support;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use nix::sys::signal::Signal;
use support::ports::Port;
use support::{Finished, Sandbox, command_line, fake_runtime, three_ports, wait_until, write_program};

/// The start of a program that answers `/api/version` on its port.
fn server(faults: &str) -> String {
    format!("start_command = \"\"\"'{}' ollama {faults} --port {{port}}\"\"\"\n", fake_runtime())
}

/// A template `web` with these lines, then the rest of the file.
fn web(faults: &str, template: &str, rest: &str) -> String {
    format!("[templates.web]\n{}health_endpoint = \"/api/version\"\n{template}{rest}", server(faults))
}

fn ps(sandbox: &Sandbox, service: &str) -> serde_json::Value {
    sandbox.fusion([service, "ps", "--json"]).run().json()
}

#[track_caller]
fn run(sandbox: &Sandbox, words: &str, code: i32) -> Finished {
    sandbox.fusion(words.split(' ')).run().assert_code(code)
}

#[test]
fn the_services_of_usm_core_run() {
    let sandbox = Sandbox::new();
    // Plays Python's file server: `-m http.server PORT --bind HOST --directory DIR`.
    let dump = sandbox.root().join("dump");
    let script = format!(
        "#!/bin/sh\nprintf '%s\\n' \"$@\" > '{}'\npwd >> '{}'\nexec '{}' ollama --port \"$3\"\n",
        dump.display(),
        dump.display(),
        fake_runtime()
    );
    write_program(&sandbox.bin().join("python3"), &script);
    let (_held, first) = three_ports();
    let services = include_str!("../cases/services/services.toml")
        .replace("8766", &first.to_string())
        .replace("8799", &(first + 2).to_string())
        .replace("port = 11435", &format!("port = {}", sandbox.port("mlx")));
    let fresh = std::fs::read_to_string(sandbox.config_dir().join("config.toml")).expect("the configuration");
    sandbox.write_config(&format!("{fresh}\n{services}"));
    for directory in ["notes", "notes v2"] {
        std::fs::create_dir(sandbox.project().join(directory)).expect("the sandbox is writable");
    }
    run(&sandbox, "notes-api-primary up", 0);
    assert_eq!(ps(&sandbox, "notes-api-v2")["address"], serde_json::Value::Null);
    run(&sandbox, "notes-api-v2 up", 0);
    // The argument with a space is one, and the process is in the directory.
    let directory = sandbox.project().join("notes v2");
    let words = std::fs::read_to_string(&dump).expect("it was started");
    assert_eq!(
        words,
        format!(
            "-m\nhttp.server\n{}\n--bind\n127.0.0.1\n--directory\n{}\n{}\n",
            first + 1,
            directory.display(),
            directory.display()
        )
    );
    let shown = ps(&sandbox, "notes-api-v2");
    assert_eq!(shown["state"], "ready");
    assert_eq!(shown["template"], "notes-api");
    assert_eq!(shown["runtime"], serde_json::Value::Null);
    assert_eq!(shown["display_name"], "Notes API");
    assert_eq!(shown["version"], "2.0-beta");
    assert_eq!(shown["git_branch"], "feature/search");
    assert_eq!(shown["tags"], serde_json::json!(["core", "beta"]));
    // A template with a runtime's name keeps the API.
    run(&sandbox, "ollama-second up", 0);
    let second = ps(&sandbox, "ollama-second");
    assert_eq!((&second["runtime"], &second["state"]), (&"ollama".into(), &"ready".into()));
    let answer = run(&sandbox, "ollama-second run -m llama3.2:3b hello", 0);
    assert!(!answer.stdout().is_empty());
    run(&sandbox, "down", 0);
    sandbox.assert_nothing_runs();
}

/// The environment of the runtime stays, the later of two values counts, and arguments come last.
#[test]
fn a_replaced_start_has_every_part() {
    let sandbox = Sandbox::new();
    let (port, dump) = (Port::free(), sandbox.root().join("dump"));
    sandbox.write_config(&format!(
        "[templates.ollama]\nstart_command = \"OLLAMA_NOPRUNE=lead A=lead B=lead '{}' ollama dump={} --port {{port}}\"\n\
         args = ['{{name}} {{host}}', 'x']\nenv = {{ A = 'template', C = 'template', D = 'template' }}\n\
         [instances.x]\ntemplate = \"ollama\"\nport = {}\nmodel = \"no-such-model\"\nargs = ['{{model}}']\n\
         env = {{ B = 'own', D = '{{port}}' }}\n",
        fake_runtime(),
        dump.display(),
        port.number()
    ));
    run(&sandbox, "x up", 0);
    let started: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&dump).expect("it was started")).expect("JSON");
    let number = port.number().to_string();
    let arguments = started["arguments"].as_array().expect("an array");
    assert_eq!(arguments[3..], ["--port", &*number, "x 127.0.0.1", "x", "no-such-model"]);
    for (name, value) in [
        ("OLLAMA_HOST", &*format!("127.0.0.1:{number}")),
        ("OLLAMA_NOPRUNE", "lead"),
        ("A", "lead"),
        ("B", "own"),
        ("C", "template"),
        ("D", &*number),
    ] {
        assert_eq!(started["environment"][name], value, "{name}");
    }
    run(&sandbox, "x down", 0);
}

#[test]
fn no_prompt_goes_to_another_service() {
    let sandbox = Sandbox::new();
    let file = sandbox.config_dir().join("config.toml");
    let text = std::fs::read_to_string(file).expect("the configuration");
    let (port, command) = (sandbox.port("ollama"), command_line("ollama", &[]));
    sandbox.write_config(&format!(
        "{text}\n[instances.other]\ntemplate = \"ollama\"\nport = {port}\n{command}\n"
    ));
    run(&sandbox, "other up", 0);
    for words in ["ollama run hi", "ollama run --no-up hi", "ollama health"] {
        let refused = run(&sandbox, words, 5);
        assert!(refused.stderr().contains("error: other (pid "), "{refused}");
    }
    run(&sandbox, "other run hi", 0);
    run(&sandbox, "other down", 0);
}

#[test]
fn working_directory_must_exist() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("ollama");
    let file = |directory: &str| {
        web(
            "",
            "",
            &format!("[instances.x]\ntemplate = \"web\"\nport = {port}\nworking_dir = '{directory}'\n"),
        )
    };
    sandbox.write_config(&file("${PROJECT_ROOT}/none"));
    insta::assert_snapshot!(run(&sandbox, "x up", 2), @"
    exit 2
    [stderr]
    error: the working directory of x, [ROOT]/project/none, does not exist
    hint: make it: mkdir -p [ROOT]/project/none; or choose another: fusion config set instances.x.working_dir DIR
    ");
    assert_eq!(sandbox.record("x"), None);
    sandbox.write_config(&file("config.toml"));
    insta::assert_snapshot!(run(&sandbox, "x up", 2), @"
    exit 2
    [stderr]
    error: the working directory of x, [ROOT]/config/config.toml, is not a directory
    hint: choose another: fusion config set instances.x.working_dir DIR
    ");
    let found = run(&sandbox, "doctor", 1).stdout();
    assert!(found.contains("x: the working directory of x, "), "{found}");
    // A relative one starts at the directory of the file.
    sandbox.write_config(&file("below"));
    std::fs::create_dir(sandbox.config_dir().join("below")).expect("the sandbox is writable");
    run(&sandbox, "x up", 0);
    run(&sandbox, "x down", 0);
}

/// A text of the configuration is UTF-8, a path need not be.
#[test]
fn a_project_root_must_be_text() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("ollama");
    sandbox.write_config(&web(
        "",
        "",
        &format!("[instances.x]\ntemplate = \"web\"\nport = {port}\nworking_dir = '${{PROJECT_ROOT}}/x'\n"),
    ));
    let root = sandbox.root().join(OsStr::from_bytes(b"\xff"));
    let up = sandbox.fusion(["x", "up"]).env("FUSION_PROJECT_ROOT", &root).run();
    insta::assert_snapshot!(up, @r#"
    exit 2
    [stderr]
    error: ${PROJECT_ROOT} in "${PROJECT_ROOT}/x" has no value for x
    hint: set FUSION_PROJECT_ROOT to a directory whose name is UTF-8
    "#);
    assert_eq!(sandbox.record("x"), None);
}

/// Another value of the variable later is no change of the configuration.
#[test]
fn project_root_is_that_of_the_start() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("ollama");
    sandbox.write_config(&web(
        "",
        "env = { ROOT = '${PROJECT_ROOT}' }\n",
        &format!("[instances.x]\ntemplate = \"web\"\nport = {port}\nworking_dir = '${{PROJECT_ROOT}}'\n"),
    ));
    run(&sandbox, "x up", 0);
    assert_eq!(
        sandbox.record("x").expect("a record")["project_root"],
        sandbox.project().display().to_string()
    );
    let elsewhere = sandbox.fusion(["x", "ps"]).directory(&sandbox.home()).run().assert_code(0);
    assert!(!elsewhere.stdout().contains("has changed"), "{elsewhere}");
    let root = sandbox.home();
    sandbox.fusion(["x", "restart"]).env("FUSION_PROJECT_ROOT", &root).run().assert_code(0);
    assert_eq!(sandbox.record("x").expect("a record")["project_root"], root.display().to_string());
    run(&sandbox, "x down", 0);
}

#[test]
fn changes_of_a_running_instance_are_named() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("ollama");
    let file = |more: &str| web("", "", &format!("[instances.x]\ntemplate = \"web\"\nport = {port}\n{more}"));
    sandbox.write_config(&file("env = { A = '1' }\n"));
    run(&sandbox, "x up", 0);
    let changed = file("args = ['quiet']\nenv = { A = '2', B = '1' }\nworking_dir = '/'\n");
    sandbox.write_config(&changed);
    let shown = run(&sandbox, "x ps", 0).stdout();
    let note = "the configuration has changed since the start (command, env.A, env.B, working_dir); \
                apply it: fusion x restart";
    assert!(shown.contains(note), "{shown}");
    run(&sandbox, "x restart", 0);
    assert!(!run(&sandbox, "x ps", 0).stdout().contains("has changed"));
    // Tags and the like are no part of what runs.
    sandbox.write_config(&format!("{changed}tags = ['new']\n"));
    assert!(!run(&sandbox, "x ps", 0).stdout().contains("has changed"));
    // One whose program is not there.
    sandbox.write_config(&changed.replace("template = \"web\"", "template = \"gone\"").replace(
        "[templates.web]",
        "[templates.gone]\nstart_command = \"no-such-program\"\nhealth_endpoint = \"/api/version\"\n[templates.web]",
    ));
    assert!(run(&sandbox, "x ps", 0).stdout().contains("has changed since the start (template); "));
    run(&sandbox, "x down", 0);
}

#[test]
fn removed_instances_are_shown_and_can_be_stopped() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("ollama");
    let instance = format!("[instances.x]\ntemplate = \"web\"\nport = {port}\n");
    sandbox.write_config(&web("", "", &instance));
    run(&sandbox, "x up", 0);
    sandbox.write_config("[instances.other]\ntemplate = \"ollama\"\n");
    let shown = run(&sandbox, "ps --json", 0).json();
    let names: Vec<_> = shown.as_array().expect("an array").iter().map(|service| &service["name"]).collect();
    assert_eq!(names, ["ollama", "mlx", "llama", "other", "x"]);
    assert_eq!(shown[4]["state"], "ready");
    assert_eq!(shown[4]["template"], "web");
    assert!(run(&sandbox, "x ps", 0).stdout().contains("stop it: fusion x down"));
    insta::assert_snapshot!(run(&sandbox, "x restart", 2), @"
    exit 2
    [stderr]
    error: x is not in the configuration any longer
    hint: stop it: fusion x down
    ");
    run(&sandbox, "x log", 0);
    run(&sandbox, "x down", 0);
    run(&sandbox, "x ps", 2);
    sandbox.assert_nothing_runs();
}

/// Whatever has become of the file.
#[test]
fn instances_can_be_stopped_with_a_broken_file() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("ollama");
    sandbox.write_config(&web("", "", &format!("[instances.x]\ntemplate = \"web\"\nport = {port}\n")));
    run(&sandbox, "x up", 0);
    sandbox.write_config("[instances.x\n");
    run(&sandbox, "x down", 0);
    sandbox.assert_nothing_runs();
}

#[test]
fn health_of_a_program_is_its_endpoint() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("ollama");
    let hangs = sandbox.root().join("hang");
    let file = |template: &str| {
        web(
            &format!("hang-while={}", hangs.display()),
            template,
            &format!("[instances.x]\ntemplate = \"web\"\nport = {port}\n"),
        )
    };
    sandbox.write_config(&file("health_timeout_ms = 500\n"));
    run(&sandbox, "x health", 3);
    run(&sandbox, "x up", 0);
    let healthy = run(&sandbox, "x health --json", 0).json();
    assert_eq!((&healthy["service"], &healthy["model"]), (&"x".into(), &serde_json::Value::Null));
    std::fs::write(&hangs, "").expect("the sandbox is writable");
    run(&sandbox, "x health", 124);
    std::fs::remove_file(&hangs).expect("it was written");
    // Another path of the same server.
    let text = file("").replace("/api/version", "http://localhost:{port}/no-such-path");
    sandbox.write_config(&text);
    insta::assert_snapshot!(run(&sandbox, "x health", 8), @"
    exit 8
    [stderr]
    error: x at 127.0.0.1:[OLLAMA] is not healthy: HTTP 404 to /no-such-path
    hint: see the log: fusion x log
    ");
    run(&sandbox, "x down", 0);
}

/// A shell would expand it.
#[test]
fn a_tilde_in_a_command_is_explained() {
    let sandbox = Sandbox::new();
    sandbox.write_config(
        "[templates.web]\nstart_command = '~/bin/web'\ndefault_port = 8188\n[instances.x]\ntemplate = 'web'\n",
    );
    insta::assert_snapshot!(sandbox.fusion(["x", "up"]).run_in_process(), @"
    exit 4
    [stderr]
    error: there is no program ~/bin/web, which the template web of x names
    hint: write ${HOME} for ~ in the command of [templates.web], which no shell runs: fusion config edit
    ");
}

#[test]
fn only_model_servers_are_prompted() {
    let sandbox = Sandbox::new();
    sandbox.write_config(&web("", "default_port = 8188\n", "[instances.x]\ntemplate = \"web\"\n"));
    insta::assert_snapshot!(run(&sandbox, "x run hello", 2), @"
    exit 2
    [stderr]
    error: x is no model server: its template web is not a runtime
    hint: see its commands: fusion x --help
    ");
    for words in [
        "x models",
        "x pull m",
        "x load m",
        "x install",
        "x up -m m",
        "x up --install",
        "x up --force",
        "x health -m m",
    ] {
        let refused = run(&sandbox, words, 2);
        assert!(refused.stderr().contains("error: x is no model server"), "{refused}");
    }
    let help = run(&sandbox, "x --help", 0).stdout();
    assert!(help.contains("health") && !help.contains("  run "), "{help}");
    assert!(help.contains("Check that the server is healthy") && !help.contains("token"), "{help}");
    for command in ["x up", "x health"] {
        let help = run(&sandbox, &format!("{command} --help"), 0).stdout();
        let is_of_models = ["--model", "MODEL", "--force"].iter().any(|word| help.contains(word));
        assert!(help.contains("--json") && !is_of_models, "{help}");
    }
}

#[test]
fn instance_of_a_runtime_has_its_commands() {
    let sandbox = Sandbox::new();
    let fresh = std::fs::read_to_string(sandbox.config_dir().join("config.toml")).expect("the configuration");
    let (model, port) = (sandbox.model(), Port::free());
    sandbox.write_config(&format!(
        "{fresh}\n[instances.coder]\ntemplate = \"mlx\"\nmodel = \"{}\"\nport = {}\n\
         [instances.coder.run]\nsystem_prompt = \"Code only.\"\n",
        model.display(),
        port.number()
    ));
    let help = |words: &str| run(&sandbox, words, 0).stdout();
    assert_eq!(help("help coder run"), help("coder run --help"));
    run(&sandbox, "man --out pages", 0);
    assert!(sandbox.project().join("pages/fusion-coder-run.1").is_file());
    run(&sandbox, "mlx up", 0);
    run(&sandbox, "coder up", 0);
    let dry = run(&sandbox, "coder run --dry-run hello", 0).stdout();
    assert!(dry.contains("Code only.") && dry.contains(&model.display().to_string()), "{dry}");
    let answer = run(&sandbox, "coder run --json hello", 0).json();
    assert_eq!((&answer["service"], &answer["runtime"]), (&"coder".into(), &"mlx".into()));
    run(&sandbox, "coder health", 0);
    run(&sandbox, "coder models", 0);
    assert_ne!(sandbox.pid("mlx"), sandbox.pid("coder"));
    run(&sandbox, "coder down", 0);
    assert_eq!(ps(&sandbox, "mlx")["state"], "ready");
    run(&sandbox, "mlx down", 0);
}

/// A program without a health endpoint is ready when its port accepts, and no other listener is taken for it.
#[test]
fn foreign_listener_is_never_taken_for_the_service() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("ollama");
    sandbox.write_config(&format!(
        "[templates.plain]\n{}[instances.x]\ntemplate = \"plain\"\nport = {port}\n",
        server("hang")
    ));
    // It accepts, and answers nothing.
    run(&sandbox, "x up", 0);
    run(&sandbox, "x health", 0);
    run(&sandbox, "x down", 0);
    let other = sandbox.command(fake_runtime()).arg("ollama").arg("--port").arg(port.to_string()).start();
    wait_until("it listens", || ps(&sandbox, "x")["state"] == "stopped" && run_code(&sandbox) == 5);
    other.signal(Signal::SIGKILL);
    other.finish();
}

fn run_code(sandbox: &Sandbox) -> i32 {
    let up = sandbox.fusion(["x", "up"]).run();
    if up.code() == 0 {
        sandbox.fusion(["x", "down"]).run();
    }
    up.code()
}
