//! The lifecycle of a service as it should be: up, ps, health, restart, down, with the real driver.

mod support;

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use support::{Sandbox, processes, wait_until};

#[test]
fn a_fresh_sandbox_runs_nothing() {
    let sandbox = Sandbox::new();
    sandbox.fusion(["--version"]).run().assert_code(0);
    sandbox.assert_nothing_runs();
}

#[test]
fn both_services_live_the_same_life() {
    let [ollama, mlx] = ["ollama", "mlx"].map(whole_life);
    assert_eq!(ollama, mlx);
    insta::assert_snapshot!(ollama, @"
    exit 0
    [stdout]
    [SERVICE] is up at http://127.0.0.1:[PORT] (pid [PID])
    exit 0
    [stdout]
    [SERVICE] is up at http://127.0.0.1:[PORT] (pid [PID])
    exit 0
    [stdout]
    [SERVICE] is healthy: one token of [MODEL] in [TIME] ms
    exit 0
    [stdout]
    [SERVICE] is up at http://127.0.0.1:[PORT] (pid [PID])
    exit 0
    [stdout]
    [SERVICE] is down
    exit 0
    [stdout]
    [SERVICE] is down
    ");
}

/// Starts, asks, restarts and stops a service; returns what the commands print.
fn whole_life(service: &str) -> String {
    let sandbox = Sandbox::new();
    let run = |command: &str| sandbox.fusion([service, command]).mask_service(service).run();
    let up = run("up");
    let pid = sandbox.pid(service).expect("a PID file");
    let up = up.assert_names_pid(pid);
    assert!(processes::lives(pid));

    let again = run("up").assert_stdout(&up.stdout());
    assert_eq!(sandbox.pid(service), Some(pid));
    let health = run("health");

    let restart = run("restart");
    let second = sandbox.pid(service).expect("a PID file");
    let restart = restart.assert_names_pid(second);
    assert!(processes::lives(second));
    assert_ne!(second, pid);
    assert!(!processes::lives(pid));

    let down = run("down");
    assert!(!processes::lives(second));
    let down_again = run("down");
    sandbox.assert_nothing_runs();
    // The log stays, and nothing that would make the next command believe in a process.
    let mut left: Vec<String> = std::fs::read_dir(sandbox.file(service, ""))
        .expect("its directory")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    left.sort();
    assert_eq!(left, ["lock".to_owned(), format!("{service}.log"), format!("{service}.log.1")]);
    [up, again, health, restart, down, down_again].iter().map(ToString::to_string).collect()
}

/// The fields of `ps --json`, which do not change between releases.
#[test]
fn ps_json_of_a_running_service() {
    let sandbox = Sandbox::new();
    sandbox.fusion(["ollama", "up"]).run().assert_code(0);
    let mut one = sandbox.fusion(["ollama", "ps", "--json"]).run().assert_code(0).json();
    assert!(one["uptime_s"].is_u64(), "{one}");
    assert!(one["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 100_000), "{one}");
    assert!(one["cpu_percent"].is_f64(), "{one}");
    for measured in ["uptime_s", "memory_bytes", "cpu_percent"] {
        one[measured] = json!("measured");
    }
    let expected = json!({
        "name": "ollama",
        "display_name": "Ollama",
        "template": "ollama",
        "runtime": "ollama",
        "state": "ready",
        "pid": sandbox.pid("ollama"),
        "address": sandbox.url("ollama"),
        "uptime_s": "measured",
        "memory_bytes": "measured",
        "cpu_percent": "measured",
        "models": ["llama3.2:3b"],
        "log": sandbox.file("ollama", "ollama.log"),
        "started_by": "fusion",
        "version": "0.0.0-fake",
        "context": null,
        "git_branch": null,
        "tags": [],
        "restarts": null,
    });
    assert_eq!(one, expected);
    insta::assert_snapshot!(sandbox.fusion(["down"]).run(), @"
    exit 0
    [stdout]
    SERVICE  RESULT  PID
    ollama   down    [PID]
    ");
}

#[test]
fn ps_json_of_stopped_services() {
    let sandbox = Sandbox::new();
    let all = sandbox.fusion(["ps", "--json"]).run().assert_code(0).json();
    let stopped = |runtime: &str, display_name: &str| {
        json!({
            "name": runtime,
            "display_name": display_name,
            "template": runtime,
            "runtime": runtime,
            "state": "stopped",
            "pid": null,
            "address": sandbox.url(runtime),
            "uptime_s": null,
            "memory_bytes": null,
            "cpu_percent": null,
            "models": null,
            "log": sandbox.file(runtime, &format!("{runtime}.log")),
            "started_by": null,
            "version": null,
            "context": null,
            "git_branch": null,
            "tags": [],
            "restarts": null,
        })
    };
    assert_eq!(
        all,
        json!([stopped("ollama", "Ollama"), stopped("mlx", "MLX"), stopped("llama", "llama.cpp")])
    );
    let one = sandbox.fusion(["mlx", "ps", "--json"]).run().assert_code(3).json();
    assert_eq!(one, stopped("mlx", "MLX"));
}

#[test]
fn ps_prints_a_table() {
    let sandbox = Sandbox::new();
    // Every port has five digits, which decide the widths.
    insta::assert_snapshot!(sandbox.fusion(["ps"]).run(), @"
    exit 0
    [stdout]
    SERVICE  STATE    PID  ADDRESS                 UPTIME  MEMORY  CPU  MODELS
    ollama   stopped  -    http://127.0.0.1:[OLLAMA]  -       -       -    -
    mlx      stopped  -    http://127.0.0.1:[MLX]  -       -       -    -
    llama    stopped  -    http://127.0.0.1:[LLAMA]  -       -       -    -
    ");
    sandbox.fusion(["mlx", "up"]).run().assert_code(0);
    let table = sandbox.fusion(["mlx", "ps"]).run().assert_code(0).stdout();
    let row: Vec<&str> = table.lines().nth(1).expect("a row").split_whitespace().collect();
    let pid = sandbox.pid("mlx").expect("a PID").to_string();
    assert_eq!(row[..4], ["mlx", "ready", &pid, &sandbox.url("mlx")]);
    assert_eq!(row.last(), Some(&&*sandbox.model().display().to_string()));
    for alias in [&["p"][..], &["status"], &["mx", "p"], &["mlx", "status"]] {
        sandbox.fusion(alias.iter().copied()).run().assert_code(0);
    }
    insta::assert_snapshot!(sandbox.fusion(["mx", "d"]).run(), @"
    exit 0
    [stdout]
    mlx is down
    ");
}

/// The fields of `up --json` and `down --json`, which do not change between releases.
#[test]
fn up_and_down_print_json() {
    let sandbox = Sandbox::new();
    let up = |started: bool| {
        let json = sandbox.fusion(["mlx", "up", "--json"]).run().assert_code(0).json();
        let expected = json!({
            "service": "mlx",
            "runtime": "mlx",
            "state": "ready",
            "pid": sandbox.pid("mlx"),
            "address": sandbox.url("mlx"),
            "model": sandbox.model(),
            "started_by": "fusion",
            "started": started,
        });
        assert_eq!(json, expected);
    };
    up(true);
    up(false);
    let pid = sandbox.pid("mlx");
    let down = |pid: Option<i32>, arguments: &[&str], killed: bool| {
        let mut json = sandbox.fusion(arguments.iter().copied()).run().assert_code(0).json();
        assert!(json["seconds"].is_f64(), "{json}");
        json["seconds"] = json!("measured");
        let expected = json!({"service": "mlx", "runtime": "mlx", "state": "stopped", "pid": pid, "killed": killed, "seconds": "measured"});
        assert_eq!(json, expected);
    };
    down(pid, &["mlx", "down", "--json"], false);
    down(None, &["mlx", "down", "--json"], false);
    let restarted = sandbox.fusion(["mlx", "restart", "--json"]).run().assert_code(0).json();
    assert_eq!((&restarted["pid"], &restarted["started"]), (&json!(sandbox.pid("mlx")), &json!(true)));
    down(sandbox.pid("mlx"), &["mlx", "down", "--json", "--force"], true);
    sandbox.fusion(["mlx", "up", "--json", "--timeout", "never"]).run().assert_code(2);
    let failed = sandbox.fusion(["mlx", "up", "--json", "--timeout", "0"]).run().assert_code(6);
    assert_eq!(failed.stdout(), "");
    sandbox.assert_nothing_runs();
}

#[test]
fn up_can_return_before_the_server_is_ready() {
    let sandbox = Sandbox::new();
    let go = sandbox.root().join("go");
    sandbox.faults("ollama", &[&format!("bind-when={}", go.display())]);
    let up = sandbox.fusion(["ollama", "up", "--no-wait", "--json"]).run().assert_code(0).json();
    assert_eq!((&up["state"], &up["started"]), (&json!("starting"), &json!(true)));
    let ps = sandbox.fusion(["ollama", "ps", "--json"]).run().assert_code(1).json();
    assert_eq!(ps["state"], "starting");
    assert_eq!(ps["pid"], up["pid"]);
    // It runs, so the exit code is not 3.
    let health = sandbox.fusion(["ollama", "health"]).run();
    let run = sandbox.fusion(["ollama", "run", "--no-up", "Hello"]).run();
    assert_eq!(health.to_string(), run.to_string());
    insta::assert_snapshot!(run, @"
    exit 1
    [stderr]
    error: ollama is still starting
    hint: wait until it is ready: fusion ollama up
    ");
    // A second one waits for the same process.
    let second = sandbox.fusion(["ollama", "up"]).start();
    std::fs::write(go, "").expect("the sandbox is writable");
    second.finish().assert_code(0);
    assert_eq!(json!(sandbox.pid("ollama")), up["pid"]);
    insta::assert_snapshot!(sandbox.fusion(["ollama", "up", "--no-wait"]).run(), @"
    exit 0
    [stdout]
    ollama is up at http://127.0.0.1:[OLLAMA] (pid [PID])
    ");
    sandbox.fusion(["ollama", "down"]).run().assert_code(0);
}

#[test]
fn up_of_all_goes_on_after_a_failure() {
    let sandbox = Sandbox::new();
    insta::assert_snapshot!(sandbox.fusion(["up"]).run(), @"
    exit 2
    [stderr]
    error: no service has `auto_start` in the configuration
    hint: start one: fusion ollama up; include it in `fusion up`: fusion config set ollama_server.auto_start true
    ");
    sandbox.configure("auto_start = true\ncommand = [\"/nowhere\"]", "auto_start = true");
    insta::assert_snapshot!(sandbox.fusion(["up"]).run(), @"
    exit 4
    [stdout]
    SERVICE  RESULT  PID    ADDRESS
    ollama   failed  -      -
    mlx      up      [PID]  http://127.0.0.1:[MLX]
    [stderr]
    error: there is no program /nowhere, which ollama_server.command names
    hint: correct the path: fusion config edit; or remove it: fusion config unset ollama_server.command
    ");
    sandbox.configure("auto_start = true", "auto_start = true");
    let up = sandbox.fusion(["up", "--json"]).run().assert_code(0).json();
    let started: Vec<&Value> = up.as_array().expect("an array").iter().map(|one| &one["started"]).collect();
    assert_eq!(started, [&json!(true), &json!(false)]);
    sandbox.fusion(["down", "--json"]).run().assert_code(0);
    sandbox.assert_nothing_runs();
}

#[test]
fn verbose_up_and_down_say_what_they_do() {
    let sandbox = Sandbox::new();
    insta::assert_snapshot!(sandbox.fusion(["ollama", "up", "-v"]).run(), @"
    exit 0
    [stdout]
    ollama is up at http://127.0.0.1:[OLLAMA] (pid [PID])
    [stderr]
    ollama is starting (pid [PID])
    ");
    insta::assert_snapshot!(sandbox.fusion(["ollama", "down", "-v"]).run(), @"
    exit 0
    [stdout]
    ollama is down
    [stderr]
    stopping ollama (pid [PID])
    ");
}

#[test]
fn each_start_begins_a_new_log() {
    let sandbox = Sandbox::new();
    for number in 1..=5 {
        sandbox.faults("ollama", &[&format!("print=start {number}")]);
        sandbox.fusion(["ollama", "restart"]).run().assert_code(0);
    }
    sandbox.fusion(["ollama", "down"]).run().assert_code(0);
    let first_line = |suffix: &str| {
        let path = sandbox.file("ollama", &format!("ollama.log{suffix}"));
        let mode = std::fs::metadata(&path).ok()?.permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
        let text = std::fs::read_to_string(path).ok()?;
        text.lines().next().map(str::to_owned)
    };
    let lines = ["", ".1", ".2", ".3", ".4"].map(first_line);
    assert_eq!(lines.map(Option::unwrap_or_default), ["start 5", "start 4", "start 3", "start 2", ""]);
}

#[test]
fn a_service_outlives_the_shell_that_started_it() {
    let sandbox = Sandbox::new();
    let program = env!("CARGO_BIN_EXE_fusion");
    let script = "\"$0\" ollama up; kill -HUP $$";
    let shell = sandbox.command("/bin/sh").arg("-c").arg(script).arg(program).run();
    assert_eq!(shell.code(), 129);
    let pid = sandbox.pid("ollama").expect("a PID file");
    wait_until("the shell is gone", || processes::lives(pid));
    sandbox.fusion(["ollama", "ps"]).run().assert_code(0);
    sandbox.fusion(["ollama", "down"]).run().assert_code(0);
}

#[test]
fn the_configuration_reaches_the_server() {
    let sandbox = Sandbox::new();
    let dump = sandbox.root().join("dump.json");
    let server = format!(
        "args = [\"dump={}\", \"two words\"]\nenv = {{ OLLAMA_KEEP_ALIVE = \"5m\", EMPTY = \"\", OLLAMA_MODELS = \"~/models\" }}",
        dump.display()
    );
    sandbox.configure(&server, "");
    sandbox.fusion(["ollama", "up"]).run().assert_code(0);
    let dump: Value = serde_json::from_slice(&std::fs::read(dump).expect("the dump")).expect("JSON");
    let arguments = dump["arguments"].as_array().expect("arguments");
    assert_eq!(arguments[1], "serve");
    assert_eq!(arguments[3], "two words");
    assert_eq!(dump["environment"]["OLLAMA_KEEP_ALIVE"], "5m");
    assert_eq!(dump["environment"]["EMPTY"], "");
    assert_eq!(dump["environment"]["OLLAMA_MODELS"], format!("{}/models", sandbox.home().display()));
    assert_eq!(dump["environment"]["OLLAMA_NOPRUNE"], "1");
    assert_eq!(dump["environment"]["OLLAMA_HOST"], format!("127.0.0.1:{}", sandbox.port("ollama")));
    sandbox.fusion(["ollama", "down"]).run().assert_code(0);
}

#[test]
fn run_follows_the_recorded_address() {
    let sandbox = Sandbox::new();
    sandbox.fusion(["ollama", "up"]).run().assert_code(0);
    let elsewhere = support::ports::Port::free();
    sandbox.write_config(&format!("[ollama_server]\nport = {}\n", elsewhere.number()));
    sandbox
        .fusion(["ollama", "run", "--no-up", "Hello"])
        .run()
        .assert_stdout("Hello from the fake runtime.\n");
    sandbox.fusion(["ollama", "down"]).run().assert_code(0);
}

#[test]
fn run_starts_a_service_that_up_then_finds() {
    let sandbox = Sandbox::new();
    sandbox.fusion(["mlx", "run", "--no-up", "Hello"]).run().assert_code(3);
    insta::assert_snapshot!(sandbox.fusion(["mlx", "run", "Hello"]).run(), @"
    exit 0
    [stdout]
    Hello from the fake runtime.
    [stderr]
    starting mlx, which is not running
    ");
    let pid = sandbox.pid("mlx").expect("a PID file");
    sandbox.fusion(["mlx", "up"]).run().assert_code(0).assert_names_pid(pid);
    sandbox.fusion(["mlx", "down"]).run().assert_code(0);
}
