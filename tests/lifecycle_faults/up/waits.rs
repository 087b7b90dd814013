//! What `up` waits for and how long, what ends the wait, and what other commands do meanwhile.

use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::matrix::{assert_shows, for_each_service};
use crate::support::{Running, Sandbox, fake_runtime, processes, wait_until};
use crate::{
    assert_nothing_left, assert_up_fails, down, log_lines_hidden, set_startup_timeout, state, up,
    with_faults, without_lock_notes,
};

/// Starts an MLX server outside fusion, with these faults. Returns the file that it prints to, too.
fn start_external(sandbox: &Sandbox, faults: &str) -> (Running, PathBuf) {
    let log = sandbox.root().join("external.log");
    let script = format!("exec \"$0\" mlx {faults} --port {} >\"$1\" 2>&1", sandbox.port("mlx"));
    let shell = sandbox.command("/bin/sh").arg("-c").arg(script).arg(fake_runtime()).arg(&log);
    let server = shell.start();
    wait_until("it answers", || state(sandbox, "mlx") == "external");
    (server, log)
}

fn end(server: Running) {
    assert!(processes::lives(server.pid()), "an external server was stopped");
    processes::kill(server.pid());
    server.finish();
}

#[test]
fn waiting_for_an_external_server_blocks_no_command() {
    let sandbox = Sandbox::new();
    let (server, log) = start_external(&sandbox, "chat-hang");
    let up = sandbox.fusion(["mlx", "up"]).start();
    let was_probed = || std::fs::read_to_string(&log).is_ok_and(|log| log.contains("POST "));
    wait_until("it was probed", was_probed);
    insta::assert_snapshot!(sandbox.fusion(["mlx", "down"]).run(), @"
    exit 5
    [stderr]
    error: mlx at 127.0.0.1:[MLX] is fake-runtime (pid [PID]), a process that fusion did not start
    hint: stop it with the program that started it
    ");
    up.signal(Signal::SIGINT);
    insta::assert_snapshot!(up.finish(), @"exit 130");
    end(server);
}

#[test]
fn the_timeout_bounds_waiting_for_an_external_server() {
    let sandbox = Sandbox::new();
    let (server, _) = start_external(&sandbox, "chat-hang");
    let up = sandbox.fusion(["mlx", "up", "--timeout", "0.5"]).run();
    insta::assert_snapshot!(up.assert_names_pid(server.pid()), @"
    exit 5
    [stderr]
    error: port [MLX] is in use by fake-runtime (pid [PID])
      caused by: it has not generated anything yet
    hint: stop that program, or choose another port: fusion config set mlx_server.port [SPARE]
    ");
    insta::assert_snapshot!(sandbox.fusion(["mlx", "up", "--no-wait"]).run(), @"
    exit 0
    [stdout]
    mlx is up at http://127.0.0.1:[MLX] (pid [PID], not started by fusion)
    ");
    end(server);
}

#[test]
fn up_waits_for_an_external_model_to_load() {
    let sandbox = Sandbox::new();
    let loading = sandbox.root().join("loading");
    std::fs::write(&loading, "").expect("the sandbox is writable");
    let (server, log) = start_external(&sandbox, &format!("chat-loading-while={}", loading.display()));
    let up = sandbox.fusion(["mlx", "up"]).start();
    let probes = || std::fs::read_to_string(&log).map_or(0, |log| log.matches("POST ").count());
    wait_until("it was probed again", || probes() >= 2);
    std::fs::remove_file(&loading).expect("it is there");
    insta::assert_snapshot!(up.finish(), @"
    exit 0
    [stdout]
    mlx is up at http://127.0.0.1:[MLX] (pid [PID], not started by fusion)
    ");
    end(server);
}

#[test]
fn up_warns_if_an_external_server_cannot_generate() {
    let sandbox = Sandbox::new();
    let (server, _) = start_external(&sandbox, "chat-status=400");
    insta::assert_snapshot!(sandbox.fusion(["mlx", "up"]).run(), @"
    exit 0
    [stdout]
    mlx is up at http://127.0.0.1:[MLX] (pid [PID], not started by fusion)
    [stderr]
    warning: mlx did not generate with its own model: the fake runtime was told to fail
    ");
    end(server);
}

/// The timeout of one `up` is longer than the configured one, and the other commands have no option.
#[test]
fn every_command_respects_a_longer_timeout() {
    for_each_service(&["bind-when=[ROOT]/go"], |sandbox, service| {
        let go = sandbox.root().join("go");
        set_startup_timeout(sandbox, 1);
        let first = sandbox.fusion([service, "up", "--timeout", "60"]).start();
        let mut seen = Value::Null;
        wait_until("the configured timeout is over", || {
            seen = sandbox.fusion([service, "ps", "--json"]).run().json();
            seen["uptime_s"].as_u64() >= Some(2)
        });
        assert_eq!(seen["state"], "starting");
        let second = sandbox.fusion([service, "up"]).start();
        let third = sandbox.fusion([service, "up", "--no-wait"]).run();
        assert_shows(
            &without_lock_notes(&third),
            service,
            "exit 0\n[stdout]\n[SERVICE] is starting at http://127.0.0.1:[PORT] (pid [PID])",
        );
        std::fs::write(go, "").expect("the sandbox is writable");
        let (first, second) = (first.finish().assert_code(0), second.finish().assert_code(0));
        assert_eq!(without_lock_notes(&first), without_lock_notes(&second));
        down(sandbox, service);
    });
}

/// It may be longer than the default for a server that has been ready.
#[test]
fn the_timeout_bounds_waiting_for_a_hanging_server() {
    for_each_service(&["hang-while=[ROOT]/hanging"], |sandbox, service| {
        let hanging = sandbox.root().join("hanging");
        up(sandbox, service);
        std::fs::write(&hanging, "").expect("the sandbox is writable");
        let uptime =
            || sandbox.fusion([service, "ps", "--json"]).run().json()["uptime_s"].as_u64().expect("a number");
        let again = sandbox.fusion([service, "up", "--timeout", "60"]).start();
        let since = uptime();
        wait_until("the default timeout is over", || uptime() > since + 6);
        std::fs::remove_file(&hanging).expect("the sandbox is writable");
        assert_shows(
            &again.finish(),
            service,
            "exit 0\n[stdout]\n[SERVICE] is up at http://127.0.0.1:[PORT] (pid [PID])",
        );
        down(sandbox, service);
    });
}

#[test]
fn up_fails_at_once_on_insufficient_memory() {
    let sandbox = with_faults("mlx", &["quiet", "chat-status=500", "says=[METAL] Insufficient Memory"]);
    insta::assert_snapshot!(assert_up_fails(&sandbox, "mlx", 6), @"
    exit 6
    [stderr]
    the end of [ROOT]/config/mlx/mlx.log:
      | listening on 127.0.0.1:[MLX]
    error: mlx (pid [PID]) started and cannot generate: [METAL] Insufficient Memory
    hint: see the whole log: fusion mlx log
    ");
}

/// An attempt may be expensive for the server, and adds lines to its log.
#[test]
fn failed_completions_are_retried_at_growing_intervals() {
    let sandbox = with_faults("mlx", &["chat-status=500"]);
    insta::assert_snapshot!(log_lines_hidden(&sandbox.fusion(["mlx", "up", "--timeout", "1.5"]).run()), @"
    exit 6
    [stderr]
    the end of [ROOT]/config/mlx/mlx.log:
    error: mlx (pid [PID]) was not ready within [TIME] s: the fake runtime was told to fail
    hint: see the whole log: fusion mlx log
    ");
    let attempts = sandbox.log("mlx").matches("POST ").count();
    // One at once, the others after 25, 50, 100, 200, 400 and 800 ms.
    assert!((2..=7).contains(&attempts), "{attempts} attempts");
    assert_nothing_left(&sandbox, "mlx");
}

/// The server runs on without listening, and another one answers at its address.
#[test]
fn commands_name_another_server_on_the_port() {
    let sandbox = Sandbox::new();
    sandbox.faults("mlx", &["never-bind"]);
    sandbox.fusion(["mlx", "up", "--no-wait"]).run().assert_code(0);
    let other = sandbox.command(fake_runtime()).arg("mlx").arg("--model").arg(sandbox.model());
    let other = other.arg("--port").arg(sandbox.port("mlx").to_string()).start();
    wait_until("it answers", || state(&sandbox, "mlx") == "unhealthy");
    let [up, health] = ["up", "health"].map(|command| sandbox.fusion(["mlx", command]).run());
    insta::assert_snapshot!(up.assert_names_pid(other.pid()), @"
    exit 5
    [stderr]
    error: port [MLX] is in use by fake-runtime (pid [PID])
      caused by: another server of this kind responds there
    hint: stop that program, or choose another port: fusion config set mlx_server.port [SPARE]
    ");
    insta::assert_snapshot!(health.assert_names_pid(other.pid()), @"
    exit 5
    [stderr]
    error: port [MLX] is in use by fake-runtime (pid [PID])
      caused by: another server of this kind responds there
    hint: stop that program, or choose another port: fusion config set mlx_server.port [SPARE]
    ");
    end(other);
    down(&sandbox, "mlx");
}

/// Ctrl-C comes while the old server ends, which it may finish.
#[test]
fn an_interrupted_restart_starts_nothing() {
    for_each_service(&["end-when=[ROOT]/end"], |sandbox, service| {
        let end = sandbox.root().join("end");
        let pid = up(sandbox, service);
        let restart = sandbox.fusion([service, "restart"]).start();
        wait_until("it got SIGTERM", || sandbox.log(service).contains("told to end"));
        restart.signal(Signal::SIGINT);
        assert_shows(&restart.finish(), service, "exit 130");
        assert_eq!(sandbox.record(service).map(|record| record["process"]["pid"].clone()), Some(json!(pid)));
        std::fs::write(end, "").expect("the sandbox is writable");
        wait_until("it has ended", || !processes::lives(pid));
        assert!(!sandbox.file(service, &format!("{service}.log.1")).exists(), "another one was started");
        assert_eq!(state(sandbox, service), "exited");
        down(sandbox, service);
    });
}

/// Ollama uses its default, and says so in its log only.
#[test]
fn up_tells_of_refused_variables() {
    let line = "print=level=WARN msg=\"invalid environment variable, using default\" key=OLLAMA_NUM_PARALLEL value=x default=1";
    let sandbox = with_faults("ollama", &[line]);
    let up = sandbox.fusion(["ollama", "up", "-v"]).env("OLLAMA_NUM_PARALLEL", "x").run().assert_code(0);
    let stderr = up.stderr();
    let lines: Vec<&str> = stderr.lines().filter(|line| line.contains("OLLAMA_")).collect();
    insta::assert_snapshot!(lines.join("\n"), @"
    ollama inherits OLLAMA_NUM_PARALLEL
    warning: ollama used its default in place of OLLAMA_NUM_PARALLEL=x, which it cannot read; correct the value, then restart it: fusion ollama restart
    ");
    // Only the start tells it.
    let again = sandbox.fusion(["ollama", "up"]).run().assert_code(0);
    assert_eq!(again.stderr(), "");
    down(&sandbox, "ollama");
}
