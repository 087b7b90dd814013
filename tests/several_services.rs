//! Commands over several services: which they mean, what they print, and what a failure of one does to the others.

mod support;

use std::io::Write as _;

use nix::sys::signal::Signal;
use serde_json::json;
use support::terminal::Terminal;
use support::{Sandbox, command_line, processes, wait_until};

/// Ollama with faults, and the others as they are.
fn with_ollama(server: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.configure(server, "");
    sandbox
}

#[test]
fn several_services_are_started_and_stopped() {
    let sandbox = Sandbox::new();
    insta::assert_snapshot!(sandbox.fusion(["up", "mlx", "ol", "mlx"]).run(), @"
    exit 0
    [stdout]
    SERVICE  RESULT  PID    ADDRESS
    mlx      up      [PID]  http://127.0.0.1:[MLX]
    ollama   up      [PID]  http://127.0.0.1:[OLLAMA]
    ");
    insta::assert_snapshot!(sandbox.fusion(["up", "--template", "ollama"]).run(), @"
    exit 0
    [stdout]
    SERVICE  RESULT      PID    ADDRESS
    ollama   already up  [PID]  http://127.0.0.1:[OLLAMA]
    ");
    let before = ["ollama", "mlx"].map(|name| sandbox.pid(name).expect("a PID"));
    insta::assert_snapshot!(sandbox.fusion(["restart"]).run(), @"
    exit 0
    [stdout]
    SERVICE  RESULT  PID    ADDRESS
    ollama   up      [PID]  http://127.0.0.1:[OLLAMA]
    mlx      up      [PID]  http://127.0.0.1:[MLX]
    ");
    let after = ["ollama", "mlx"].map(|name| sandbox.pid(name).expect("a PID"));
    assert!(before.iter().all(|pid| !processes::lives(*pid) && !after.contains(pid)));
    insta::assert_snapshot!(sandbox.fusion(["down", "llama", "mlx"]).run(), @"
    exit 0
    [stdout]
    SERVICE  RESULT       PID
    llama    not running  -
    mlx      down         [PID]
    ");
    insta::assert_snapshot!(sandbox.fusion(["down"]).run(), @"
    exit 0
    [stdout]
    SERVICE  RESULT  PID
    ollama   down    [PID]
    ");
    insta::assert_snapshot!(sandbox.fusion(["restart"]).run(), @"
    exit 0
    [stderr]
    nothing is running that fusion started
    ");
    assert_eq!(sandbox.fusion(["restart", "--json"]).run().assert_code(0).json(), json!([]));
    assert_eq!(sandbox.fusion(["down", "--json"]).run().assert_code(0).json(), json!([]));
}

#[test]
fn a_failure_leaves_the_others_running() {
    let sandbox = with_ollama("command = [\"/nowhere\"]");
    std::fs::remove_file(sandbox.bin().join("llama-server")).expect("it is there");
    let up = sandbox.fusion(["up", "llama", "mlx", "ollama"]).run();
    insta::assert_snapshot!(up, @"
    exit 4
    [stdout]
    SERVICE  RESULT  PID    ADDRESS
    llama    failed  -      -
    mlx      up      [PID]  http://127.0.0.1:[MLX]
    ollama   failed  -      -
    [stderr]
    error: llama is not installed: no llama-server on PATH
    hint: install it: fusion llama install
    error: there is no program /nowhere, which ollama_server.command names
    hint: correct the path: fusion config edit; or remove it: fusion config unset ollama_server.command
    ");
    let mut up = sandbox.fusion(["up", "mlx", "ollama", "--json"]).run().assert_code(4).json();
    let expected = json!([
        {
            "service": "mlx", "runtime": "mlx", "state": "ready", "pid": sandbox.pid("mlx"),
            "address": sandbox.url("mlx"), "model": sandbox.model(), "started_by": "fusion", "started": false,
            "error": null,
        },
        {
            "service": "ollama", "runtime": "ollama", "state": null, "pid": null,
            "address": sandbox.url("ollama"), "model": null, "started_by": null, "started": false,
            "error": "there is no program /nowhere, which ollama_server.command names",
        },
    ]);
    assert_eq!(up.take(), expected);
    let pid = sandbox.pid("mlx");
    let mut down = sandbox.fusion(["down", "mlx", "ollama", "--json"]).run().assert_code(0).json();
    assert!(down[0]["seconds"].is_f64() && down[1]["seconds"].is_f64(), "{down}");
    down[0]["seconds"] = json!("measured");
    down[1]["seconds"] = json!("measured");
    let stopped = |name: &str, pid: Option<i32>| {
        json!({
            "service": name, "runtime": name, "state": "stopped", "pid": pid, "killed": false,
            "seconds": "measured", "error": null,
        })
    };
    assert_eq!(down, json!([stopped("mlx", pid), stopped("ollama", None)]));
}

/// A foreign server is passed over, unless it is named.
#[test]
fn down_and_restart_pass_over_external_services() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("ollama").to_string();
    let server = sandbox.command(support::fake_runtime()).arg("ollama").arg("--port").arg(&port).start();
    let state = || sandbox.fusion(["ps", "ollama", "--json"]).run().json()[0]["state"].clone();
    wait_until("it answers", || state() == "external");
    insta::assert_snapshot!(sandbox.fusion(["up", "ollama", "mlx"]).run(), @"
    exit 0
    [stdout]
    SERVICE  RESULT    PID    ADDRESS
    ollama   external  [PID]  http://127.0.0.1:[OLLAMA]
    mlx      up        [PID]  http://127.0.0.1:[MLX]
    ");
    insta::assert_snapshot!(sandbox.fusion(["restart", "ollama"]).run(), @"
    exit 5
    [stdout]
    SERVICE  RESULT  PID  ADDRESS
    ollama   failed  -    -
    [stderr]
    error: ollama at 127.0.0.1:[OLLAMA] is fake-runtime (pid [PID]), a process that fusion did not start
    hint: stop it with the program that started it
    ");
    insta::assert_snapshot!(sandbox.fusion(["restart"]).run(), @"
    exit 0
    [stdout]
    SERVICE  RESULT  PID    ADDRESS
    mlx      up      [PID]  http://127.0.0.1:[MLX]
    ");
    insta::assert_snapshot!(sandbox.fusion(["down", "mlx", "ollama"]).run(), @"
    exit 5
    [stdout]
    SERVICE  RESULT  PID
    mlx      down    [PID]
    ollama   failed  -
    [stderr]
    error: ollama at 127.0.0.1:[OLLAMA] is fake-runtime (pid [PID]), a process that fusion did not start
    hint: stop it with the program that started it
    ");
    insta::assert_snapshot!(sandbox.fusion(["down"]).run(), @"
    exit 0
    [stderr]
    nothing is running that fusion started
    ");
    assert!(processes::lives(server.pid()), "an external server was stopped");
    processes::kill(server.pid());
    server.finish();
}

#[test]
fn an_unknown_name_names_the_nearest() {
    let sandbox = Sandbox::new();
    for command in ["up", "down", "restart", "log", "ps"] {
        let unknown = sandbox.fusion([command, "mlx", "olama"]).run().assert_code(2);
        assert_eq!(
            unknown.stderr(),
            "error: there is no service olama; did you mean ollama?\nhint: list the services: fusion ps\n"
        );
        let unknown = sandbox.fusion([command, "--template", "ml"]).run().assert_code(2);
        assert!(unknown.stderr().starts_with("error: there is no template ml; did you mean mlx?\n"));
    }
    insta::assert_snapshot!(sandbox.fusion(["up", "--tag", "image"]).run(), @"
    exit 2
    [stderr]
    error: no service has the tag image
    hint: list the services with tags and templates: fusion ps --json
    ");
    insta::assert_snapshot!(sandbox.fusion(["up", "mlx", "--template", "ollama"]).run(), @"
    exit 2
    [stderr]
    error: mlx does not have the template ollama
    hint: list the services with tags and templates: fusion ps --json
    ");
    assert_eq!(sandbox.fusion(["ps", "--tag", "image", "--json"]).run().assert_code(0).json(), json!([]));
    sandbox.assert_nothing_runs();
}

#[test]
fn ps_shows_the_services_asked_for() {
    let sandbox = Sandbox::new();
    sandbox.fusion(["up", "llama"]).run().assert_code(0);
    let names = |arguments: &[&str]| -> Vec<String> {
        let words = ["ps", "--json"].into_iter().chain(arguments.iter().copied());
        let json = sandbox.fusion(words).run().assert_code(0).json();
        let services = json.as_array().expect("an array");
        services.iter().map(|service| service["name"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(names(&["mlx"]), ["mlx"]);
    assert_eq!(names(&["lc", "mlx"]), ["llama", "mlx"]);
    assert_eq!(names(&["--state", "ready"]), ["llama"]);
    assert_eq!(names(&["--state", "stopped"]), ["ollama", "mlx"]);
    assert_eq!(names(&["--template", "mlx"]), ["mlx"]);
    assert_eq!(names(&["mlx", "--state", "ready"]), [""; 0]);
    sandbox.fusion(["ps", "--state", "sleeping"]).run().assert_code(2);
    sandbox.fusion(["down"]).run().assert_code(0);
}

#[test]
fn lines_of_several_logs_begin_with_names() {
    let sandbox = Sandbox::new();
    let print = |text: &str| command_line("x", &["quiet", &format!("print={text}")]);
    let ollama = print("one\\ntwo").replace("\"x\"", "\"ollama\"");
    let mlx = print("three").replace("\"x\"", "\"mlx\"");
    sandbox.configure(&ollama, &mlx);
    sandbox.fusion(["up", "ollama", "mlx"]).run().assert_code(0);
    insta::assert_snapshot!(sandbox.fusion(["log"]).run(), @r"
    exit 0
    [stdout]
    ollama | one\ntwo
    ollama | listening on 127.0.0.1:[OLLAMA]
    mlx    | three
    mlx    | listening on 127.0.0.1:[MLX]
    ");
    insta::assert_snapshot!(sandbox.fusion(["log", "mlx", "ollama", "-n", "1"]).run(), @"
    exit 0
    [stdout]
    mlx    | listening on 127.0.0.1:[MLX]
    ollama | listening on 127.0.0.1:[OLLAMA]
    ");
    insta::assert_snapshot!(sandbox.fusion(["log", "llama", "mlx"]).run(), @"
    exit 1
    [stdout]
    mlx   | three
    mlx   | listening on 127.0.0.1:[MLX]
    [stderr]
    error: llama has no log yet: fusion has not started it
    hint: start the server: fusion llama up
    ");
    insta::assert_snapshot!(sandbox.fusion(["log", "--path"]).run(), @"
    exit 0
    [stdout]
    [ROOT]/config/ollama/ollama.log
    [ROOT]/config/mlx/mlx.log
    ");
    sandbox.fusion(["down", "mlx"]).run().assert_code(0);
    // Of one log, no line has a name.
    assert_eq!(sandbox.fusion(["log"]).run().stdout(), sandbox.fusion(["ollama", "log"]).run().stdout());
    sandbox.fusion(["down"]).run().assert_code(0);
    insta::assert_snapshot!(sandbox.fusion(["log"]).run(), @"
    exit 3
    [stderr]
    error: nothing is running that fusion started
    hint: name the service whose last log you want: fusion log NAME
    ");
}

#[test]
fn several_logs_are_followed_to_their_ends() {
    let sandbox = Sandbox::new();
    sandbox.fusion(["up", "ollama", "mlx"]).run().assert_code(0);
    let terminal = Terminal::open();
    let followed = terminal.script(&sandbox, "-c", "exec \"$0\" log -f mlx llama ollama");
    let print = |name: &str, text: &str| {
        let log = std::fs::OpenOptions::new().append(true).open(sandbox.file(name, &format!("{name}.log")));
        log.and_then(|mut log| log.write_all(text.as_bytes())).expect("the log is writable");
    };
    terminal.wait_for("ollama | listening");
    terminal.wait_for("mlx    | listening");
    print("ollama", "begin");
    print("mlx", "whole line\n");
    terminal.wait_for("mlx    | whole line");
    print("ollama", "ning and end\n");
    print("mlx", "no line end");
    sandbox.fusion(["down", "mlx"]).run().assert_code(0);
    terminal.wait_for("mlx has ended");
    print("ollama", "after the end of the other\n");
    terminal.wait_for("ollama | after the end of the other");
    sandbox.fusion(["down"]).run().assert_code(0);
    followed.finish().assert_code(3);
    let shown = terminal.finish();
    for line in [
        "llama is not running",
        "ollama | beginning and end\r",
        "mlx    | whole line\r",
        "mlx    | no line end\r",
        "ollama has ended",
    ] {
        assert_eq!(shown.matches(line).count(), 1, "{line:?} in {shown:?}");
    }
}

/// What was started stays, and what was being started is stopped.
#[test]
fn an_interrupted_up_tells_what_became_of_each() {
    let sandbox = Sandbox::new();
    let hangs = command_line("ollama", &["never-bind", "print=started"]);
    sandbox.configure(&hangs, "");
    let up = sandbox.fusion(["up", "mlx", "ollama", "llama"]).start();
    wait_until("the second was started", || sandbox.log("ollama").contains("started"));
    up.signal(Signal::SIGINT);
    insta::assert_snapshot!(up.finish(), @"
    exit 130
    [stdout]
    SERVICE  RESULT       PID    ADDRESS
    mlx      up           [PID]  http://127.0.0.1:[MLX]
    ollama   interrupted  -      -
    llama    interrupted  -      -
    ");
    assert_eq!(sandbox.record("ollama"), None);
    assert!(sandbox.pid("mlx").is_some_and(processes::lives));
    sandbox.fusion(["down"]).run().assert_code(0);
}

#[test]
fn rows_end_where_the_screen_ends() {
    let sandbox = Sandbox::new();
    let terminal = Terminal::of_columns(30);
    terminal.script(&sandbox, "-c", "exec \"$0\" ps").finish().assert_code(0);
    insta::assert_snapshot!(terminal.finish().replace('\r', ""), @"
    SERVICE  STATE    PID  ADDRESS
    ollama   stopped  -    http://
    mlx      stopped  -    http://
    llama    stopped  -    http://
    ");
}

#[test]
fn watch_appends_on_a_dumb_terminal() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open();
    let watch = terminal.script(&sandbox, "-c", "TERM=dumb exec \"$0\" ps --watch mlx");
    wait_until("it was printed twice", || terminal.text().matches("stopped").count() >= 2);
    terminal.send(b"\x03");
    watch.finish().assert_code(130);
    let shown = terminal.finish();
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
    assert_eq!(shown.matches("SERVICE").count(), shown.matches("stopped").count());
}
