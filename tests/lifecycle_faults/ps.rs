//! Faults of `ps` and `health`.

use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::matrix::{SERVICES, assert_shows, fleet, for_each_service, role_of};
use crate::support::{Finished, Sandbox, fake_runtime, processes, wait_until};
use crate::{down, mask_silence, notes, set_startup_timeout, state, up, with_faults};

/// Each server answers only when all have been probed.
#[test]
fn a_hanging_service_does_not_delay_others() {
    let (sandbox, _port) = fleet("", &["hang-while=[ROOT]/hold"]);
    for service in SERVICES {
        up(&sandbox, service);
    }
    let hold = sandbox.root().join("hold");
    let probes = || SERVICES.map(|service| sandbox.log(service).matches("GET ").count());
    let states = |ps: &Finished| {
        let all = ps.json();
        let of = |service| all.as_array()?.iter().find(|one| one["name"] == service)?["state"].as_str();
        SERVICES.map(|service| of(service).unwrap_or_default().to_owned())
    };
    std::fs::write(&hold, "").expect("the sandbox is writable");
    let before = probes();
    let ps = sandbox.fusion(["ps", "--json"]).start();
    wait_until("all are probed", || probes().iter().zip(before).all(|(now, before)| *now > before));
    std::fs::remove_file(&hold).expect("the sandbox is writable");
    assert_eq!(states(&ps.finish().assert_code(0)), ["ready"; 4]);

    for hanging in ["second", "web"] {
        processes::send(sandbox.pid(hanging).expect("a PID"), Signal::SIGSTOP);
    }
    let ps = sandbox.fusion(["ps", "--json"]).run().assert_code(0);
    assert_eq!(states(&ps), ["ready", "unhealthy", "ready", "unhealthy"]);
    insta::assert_snapshot!(sandbox.fusion(["down"]).run(), @"
    exit 0
    [stdout]
    SERVICE   RESULT  PID
    ollama    down    [PID]
    second    down    [PID]
    replaced  down    [PID]
    web       down    [PID]
    ");
}

#[test]
fn ps_writes_nothing() {
    for_each_service(&[], |sandbox, service| {
        let pid = up(sandbox, service);
        processes::kill(pid);
        wait_until("it is dead", || !processes::lives(pid));
        let before = snapshot(sandbox);
        sandbox.fusion(["ps"]).run().assert_code(0);
        sandbox.fusion(["mlx", "ps"]).run().assert_code(3);
        sandbox.fusion([service, "ps", "--json"]).run().assert_code(3);
        assert_eq!(snapshot(sandbox), before);
        down(sandbox, service);
    });
}

fn snapshot(sandbox: &Sandbox) -> Vec<(String, u64, std::time::SystemTime)> {
    let mut all = Vec::new();
    let mut directories = vec![sandbox.config_dir()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
            let metadata = entry.metadata().expect("metadata");
            if metadata.is_dir() {
                directories.push(entry.path());
            }
            all.push((
                entry.path().display().to_string(),
                metadata.len(),
                metadata.modified().expect("a time"),
            ));
        }
    }
    all.sort();
    all
}

#[test]
fn ps_distinguishes_starting_unhealthy_and_exited() {
    for_each_service(&["hang"], |sandbox, service| {
        sandbox.fusion([service, "up", "--no-wait"]).run().assert_code(0);
        let ps = sandbox.fusion([service, "ps", "--json"]).run().assert_code(1);
        assert_eq!(ps.json()["state"], "starting");
        // The same server, after its startup timeout.
        set_startup_timeout(sandbox, 1);
        wait_until("the startup timeout is over", || state(sandbox, service) == "unhealthy");
        let pid = sandbox.pid(service).expect("a PID");
        processes::kill(pid);
        // `ps` may have started before the last of its threads ended.
        wait_until("ps sees that it is dead", || state(sandbox, service) == "exited");
        assert_shows(
            &notes(&sandbox.fusion([service, "ps"]).run().assert_code(3)).replace("/health", "/api/version"),
            service,
            "the server ended without `down`, about [TIME]s ago; last log line: GET /api/version\nsee the log: fusion [SERVICE] log",
        );
        down(sandbox, service);
    });
}

#[test]
fn a_new_listener_on_the_port_is_external() {
    for_each_service(&[], |sandbox, service| {
        let pid = up(sandbox, service);
        processes::kill(pid);
        wait_until("it is dead", || !processes::lives(pid));
        let port = sandbox.port("ollama").to_string();
        let other = sandbox.command(fake_runtime()).arg(role_of(service)).arg("--port").arg(port).start();
        wait_until("it answers", || state(sandbox, service) != "exited");
        let ps = sandbox.fusion([service, "ps", "--json"]).run().assert_code(0).json();
        assert_eq!((&ps["state"], &ps["started_by"]), (&json!("external"), &json!("other")));
        assert_eq!(ps["pid"], json!(other.pid()));
        let down = sandbox.fusion([service, "down"]).run();
        assert_shows(
            &down.assert_names_pid(other.pid()),
            service,
            "exit 5\n\
             [stderr]\n\
             error: [SERVICE] at 127.0.0.1:[PORT] is fake-runtime (pid [PID]), a process that fusion did not start\n\
             hint: stop it with the program that started it",
        );
        assert!(processes::lives(other.pid()), "an external server was stopped");
        processes::kill(other.pid());
        other.finish();
    });
}

#[test]
fn up_of_an_unhealthy_service_fails() {
    for_each_service(&[], |sandbox, service| {
        let pid = up(sandbox, service);
        processes::send(pid, Signal::SIGSTOP);
        let up = sandbox.fusion([service, "up", "--timeout", "0.5"]);
        assert_shows(
            &mask_silence(up).run(),
            service,
            "exit 6\n\
             [stderr]\n\
             error: [SERVICE] (pid [PID]) is running at 127.0.0.1:[PORT] and does not respond: [SILENCE]\n\
             hint: see the log: fusion [SERVICE] log; restart the server: fusion [SERVICE] restart",
        );
        sandbox.fusion([service, "up", "--no-wait", "--timeout", "0.5"]).run().assert_code(6);
        assert!(processes::lives(pid), "it is left as it is");
        sandbox.fusion([service, "restart"]).run().assert_code(0);
        assert!(!processes::lives(pid));
        down(sandbox, service);
    });
}

#[test]
fn ps_and_down_work_without_the_log() {
    for_each_service(&[], |sandbox, service| {
        up(sandbox, service);
        std::fs::remove_file(sandbox.file(service, &format!("{service}.log"))).expect("a log");
        sandbox.fusion(["ps"]).run().assert_code(0);
        down(sandbox, service);
    });
}

#[test]
fn ps_filters_control_characters_of_the_log() {
    for_each_service(&["print-hex=1b5b324a1b5d303b68690741ff0a", "bind-after=100"], |sandbox, service| {
        let pid = up(sandbox, service);
        let words = sandbox.file(service, &format!("{service}.log"));
        processes::kill(pid);
        wait_until("it is dead", || !processes::lives(pid));
        std::fs::write(words, b"\x1b[2J\x1b]0;hi\x07A\xff").expect("the log");
        let ps = sandbox.fusion([service, "ps"]).run().assert_code(3);
        assert!(!ps.stdout.contains(&0x1b) && !ps.stdout.contains(&0x07), "{:?}", ps.stdout());
        down(sandbox, service);
    });
}

/// The configured model, and a copy of it.
fn two_models(sandbox: &Sandbox) -> [String; 2] {
    let other = sandbox.root().join("other");
    std::fs::create_dir(&other).expect("the sandbox is writable");
    for file in std::fs::read_dir(sandbox.model()).expect("the model").flatten() {
        std::fs::copy(file.path(), other.join(file.file_name())).expect("the sandbox is writable");
    }
    [sandbox.model(), other].map(|path| path.display().to_string())
}

fn loaded(sandbox: &Sandbox) -> Value {
    sandbox.fusion(["mlx", "ps", "--json"]).run().assert_code(0).json()["models"].clone()
}

#[test]
fn run_waits_for_a_starting_server() {
    let sandbox = Sandbox::new();
    let [own, other] = two_models(&sandbox);
    let go = sandbox.root().join("go");
    sandbox.faults("mlx", &[&format!("models={own},{other}"), &format!("bind-when={}", go.display())]);
    sandbox.fusion(["mlx", "up", "--no-wait"]).run().assert_code(0);
    let stderr = sandbox.root().join("stderr");
    let mut run = sandbox.fusion(["mlx", "run", "-m", &other, "Hello"]).into_command();
    run.stdin(Stdio::null()).stdout(Stdio::null());
    run.stderr(std::fs::File::create(&stderr).expect("the sandbox is writable"));
    let mut run = run.spawn().expect("it starts");
    let stderr = || std::fs::read_to_string(&stderr).expect("its stderr");
    wait_until("it waits", || stderr().ends_with('\n'));
    std::fs::write(go, "").expect("the sandbox is writable");
    assert!(run.wait().expect("a child").success(), "{}", stderr());
    insta::assert_snapshot!(sandbox.normalized(&stderr()), @"
    waiting for mlx, which is starting
    mlx loads [ROOT]/other in place of [ROOT]/model
    ");
    assert_eq!(loaded(&sandbox), json!([other]));
    down(&sandbox, "mlx");
}

#[test]
fn a_failed_model_change_keeps_the_loaded_one() {
    let sandbox = Sandbox::new();
    let [own, other] = two_models(&sandbox);
    sandbox.faults("mlx", &[&format!("models={own}")]);
    up(&sandbox, "mlx");
    sandbox.fusion(["mlx", "run", "-m", &other, "Hello"]).run().assert_code(7);
    assert_eq!(loaded(&sandbox), json!([own]));
    sandbox.fusion(["mlx", "up"]).run().assert_code(0);
    down(&sandbox, "mlx");
}

/// The request would have the server unload its own model, or download the other one.
#[test]
fn health_asks_for_no_missing_model() {
    let sandbox = Sandbox::new();
    let [own, _] = two_models(&sandbox);
    up(&sandbox, "mlx");
    insta::assert_snapshot!(sandbox.fusion(["mlx", "health", "-m", "org/none"]).run(), @"
    exit 7
    [stderr]
    error: the model org/none is not on this machine
    hint: download it: fusion mlx pull org/none
    ");
    assert_eq!(loaded(&sandbox), json!([own]));
    down(&sandbox, "mlx");
}

/// The server has one model and swaps it for the one that a request names. Only a command with `-m` swaps it back.
#[test]
fn only_run_and_health_change_the_loaded_model() {
    let sandbox = Sandbox::new();
    let [own, other] = two_models(&sandbox);
    sandbox.faults("mlx", &[&format!("models={own},{other}")]);
    let loaded = || loaded(&sandbox);
    let health = |arguments: &[&str]| {
        let arguments = ["mlx", "health", "--json"].iter().chain(arguments);
        sandbox.fusion(arguments.copied()).run().assert_code(0).json()["model"].clone()
    };
    up(&sandbox, "mlx");
    assert_eq!(loaded(), json!([own]));
    insta::assert_snapshot!(sandbox.fusion(["mlx", "run", "-m", &other, "Hello"]).run(), @"
    exit 0
    [stdout]
    Hello from the fake runtime.
    [stderr]
    mlx loads [ROOT]/other in place of [ROOT]/model
    ");
    assert_eq!((loaded(), health(&[])), (json!([other]), json!(other)));
    let again = sandbox.fusion(["mlx", "up", "--json"]).run().assert_code(0).json();
    assert_eq!((&again["model"], &again["started"]), (&json!(other), &json!(false)));
    assert_eq!((health(&["-m", &own]), loaded()), (json!(own), json!([own])));
    insta::assert_snapshot!(sandbox.fusion(["mlx", "run", "-m", &own, "Hello"]).run(), @"
    exit 0
    [stdout]
    Hello from the fake runtime.
    ");
    down(&sandbox, "mlx");
}

#[test]
fn watch_needs_a_terminal() {
    let sandbox = Sandbox::new();
    insta::assert_snapshot!(sandbox.fusion(["ps", "--watch"]).run(), @"
    exit 2
    [stderr]
    error: --watch needs a terminal
    hint: leave out --watch to print the state once, as JSON with --json
    ");
}

#[test]
fn health_fails_if_stopped_or_not_generating() {
    let sandbox = with_faults("ollama", &["chat-status=500"]);
    insta::assert_snapshot!(sandbox.fusion(["ollama", "health"]).run(), @"
    exit 3
    [stderr]
    error: ollama is not running
    hint: start the server: fusion ollama up
    ");
    up(&sandbox, "ollama");
    insta::assert_snapshot!(sandbox.fusion(["ollama", "health"]).run(), @"
    exit 8
    [stderr]
    error: ollama did not generate with llama3.2:3b: the fake runtime was told to fail
    hint: see the log: fusion ollama log
    ");
    down(&sandbox, "ollama");
}

/// Fusion does not have the log of such a server.
#[test]
fn health_of_an_external_server_has_no_log() {
    let sandbox = Sandbox::new();
    let other = sandbox
        .command(fake_runtime())
        .arg("ollama")
        .arg("chat-status=500")
        .arg("--port")
        .arg(sandbox.port("ollama").to_string())
        .start();
    wait_until("it answers", || state(&sandbox, "ollama") == "external");
    insta::assert_snapshot!(sandbox.fusion(["ollama", "health"]).run(), @"
    exit 8
    [stderr]
    error: ollama did not generate with llama3.2:3b: the fake runtime was told to fail
    ");
    processes::kill(other.pid());
    other.finish();
}

/// The timeout of a model that loads is too long for a server that does not even answer a probe.
#[test]
fn health_of_a_hanging_server_times_out() {
    for_each_service(&[], |sandbox, service| {
        let pid = up(sandbox, service);
        processes::send(pid, Signal::SIGSTOP);
        let health = sandbox.fusion([service, "health"]).run().assert_code(124);
        assert!(health.stderr().contains("it accepts connections and does not respond\n"), "{health}");
        assert!(health.stderr().ends_with(&format!("hint: see the log: fusion {service} log\n")), "{health}");
        down(sandbox, service);
    });
}

/// The exit code is that of `run`.
#[test]
fn health_of_a_silent_model_times_out() {
    let sandbox = with_faults("ollama", &["chat-hang"]);
    set_startup_timeout(&sandbox, 1);
    up(&sandbox, "ollama");
    insta::assert_snapshot!(sandbox.fusion(["ollama", "health"]).run(), @"
    exit 124
    [stderr]
    error: ollama did not generate with llama3.2:3b: it has not generated anything yet
    hint: see the log: fusion ollama log
    ");
    sandbox.fusion(["ollama", "run", "--timeout", "0.3", "Hello"]).run().assert_code(124);
    down(&sandbox, "ollama");
}

#[test]
fn health_of_a_missing_model_fails() {
    let sandbox = Sandbox::new();
    up(&sandbox, "ollama");
    insta::assert_snapshot!(sandbox.fusion(["ollama", "health", "--model", "absent"]).run(), @"
    exit 7
    [stderr]
    error: the model absent is not on this machine
      caused by: model 'absent' not found
    hint: download it: fusion ollama pull absent
    ");
    let health = sandbox.fusion(["ollama", "health", "--json"]).run().assert_code(0).json();
    assert_eq!((&health["runtime"], &health["model"]), (&json!("ollama"), &json!("llama3.2:3b")));
    assert!(health["latency_ms"].is_number());
    down(&sandbox, "ollama");
}
