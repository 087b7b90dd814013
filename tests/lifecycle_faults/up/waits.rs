//! How long `up` waits for what, who can end the wait, and what the others do meanwhile.

use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{Running, Sandbox, fake_runtime, processes, wait_until};
use crate::{assert_nothing_left, assert_up_fails, down, give_for_starting, state, up, with_faults};

/// A server that somebody else started, with these faults, and the file that it prints to.
fn stranger(sandbox: &Sandbox, faults: &str) -> (Running, PathBuf) {
    let log = sandbox.root().join("stranger.log");
    let script = format!("exec \"$0\" mlx {faults} --port {} >\"$1\" 2>&1", sandbox.port("mlx"));
    let shell = sandbox.command("/bin/sh").arg("-c").arg(script).arg(fake_runtime()).arg(&log);
    let stranger = shell.start();
    wait_until("it answers", || state(sandbox, "mlx") == "external");
    (stranger, log)
}

fn end(stranger: Running) {
    assert!(processes::lives(stranger.pid()), "a stranger was stopped");
    processes::kill(stranger.pid());
    stranger.finish();
}

#[test]
fn somebody_elses_that_never_generates_holds_up_nobody_else_and_can_be_interrupted() {
    let sandbox = Sandbox::new();
    let (stranger, log) = stranger(&sandbox, "chat-hang");
    let up = sandbox.fusion(["mlx", "up"]).start();
    let was_asked = || std::fs::read_to_string(&log).is_ok_and(|log| log.contains("POST "));
    wait_until("it was asked", was_asked);
    // Not even a word about waiting.
    let down = sandbox.fusion(["mlx", "down"]).run().assert_code(5);
    assert!(down.stderr().starts_with("error: mlx at 127.0.0.1:"), "{}", down.stderr());
    up.signal(Signal::SIGINT);
    up.finish().assert(130, "", "");
    end(stranger);
}

#[test]
fn somebody_elses_that_never_generates_has_as_long_as_up_was_told() {
    let sandbox = Sandbox::new();
    let (stranger, _) = stranger(&sandbox, "chat-hang");
    let up = sandbox.fusion(["mlx", "up", "--timeout", "0.5"]).run().assert_code(5);
    let (stderr, pid) = (up.stderr(), stranger.pid());
    assert!(
        stderr.contains(&format!("(process {pid})\n  caused by: it has not generated anything yet\n")),
        "{stderr}"
    );
    sandbox.fusion(["mlx", "up", "--no-wait"]).run().assert(
        0,
        "mlx is up at http://127.0.0.1:[MLX] (pid [PID], not started by fusion)\n",
        "",
    );
    end(stranger);
}

#[test]
fn somebody_elses_that_is_loading_its_model_is_waited_for() {
    let sandbox = Sandbox::new();
    let loading = sandbox.root().join("loading");
    std::fs::write(&loading, "").expect("the sandbox is writable");
    let (stranger, log) = stranger(&sandbox, &format!("chat-loading-while={}", loading.display()));
    let up = sandbox.fusion(["mlx", "up"]).start();
    let asked = || std::fs::read_to_string(&log).map_or(0, |log| log.matches("POST ").count());
    wait_until("it was asked again", || asked() >= 2);
    std::fs::remove_file(&loading).expect("it is there");
    up.finish().assert(0, "mlx is up at http://127.0.0.1:[MLX] (pid [PID], not started by fusion)\n", "");
    end(stranger);
}

#[test]
fn somebody_elses_that_refuses_its_own_model_is_warned_about() {
    let sandbox = Sandbox::new();
    let (stranger, _) = stranger(&sandbox, "chat-status=400");
    sandbox.fusion(["mlx", "up"]).run().assert(
        0,
        "mlx is up at http://127.0.0.1:[MLX] (pid [PID], not started by fusion)\n",
        "warning: mlx did not generate with its own model: the fake runtime was told to fail\n",
    );
    end(stranger);
}

/// More time than the configuration gives is known to every command, also to one that was told nothing.
#[test]
fn a_longer_timeout_is_heeded_by_all() {
    let sandbox = Sandbox::new();
    let go = sandbox.root().join("go");
    sandbox.faults("ollama", &[&format!("bind-when={}", go.display())]);
    give_for_starting(&sandbox, 1);
    let first = sandbox.fusion(["ollama", "up", "--timeout", "60"]).start();
    let mut seen = Value::Null;
    wait_until("more time has passed than the configuration gives", || {
        seen = sandbox.fusion(["ollama", "ps", "--json"]).run().json();
        seen["uptime_s"].as_u64() >= Some(2)
    });
    assert_eq!(seen["state"], "starting");
    let second = sandbox.fusion(["ollama", "up"]).start();
    let line = "ollama is starting at http://127.0.0.1:[OLLAMA] (pid [PID])\n";
    sandbox.fusion(["ollama", "up", "--no-wait"]).run().assert(0, line, "");
    std::fs::write(go, "").expect("the sandbox is writable");
    let (first, second) = (first.finish().assert_code(0), second.finish().assert_code(0));
    assert_eq!((first.stdout(), first.stderr()), (second.stdout(), second.stderr()));
    down(&sandbox, "ollama");
}

/// Which may be longer than the few seconds that it gets otherwise.
#[test]
fn one_that_does_not_answer_any_more_has_as_long_as_up_was_told() {
    let sandbox = Sandbox::new();
    let hanging = sandbox.root().join("hanging");
    sandbox.faults("ollama", &[&format!("hang-while={}", hanging.display())]);
    up(&sandbox, "ollama");
    std::fs::write(&hanging, "").expect("the sandbox is writable");
    let uptime =
        || sandbox.fusion(["ollama", "ps", "--json"]).run().json()["uptime_s"].as_u64().expect("a number");
    let again = sandbox.fusion(["ollama", "up", "--timeout", "60"]).start();
    let since = uptime();
    wait_until("it would have been given up", || uptime() > since + 6);
    std::fs::remove_file(&hanging).expect("the sandbox is writable");
    again.finish().assert(0, "ollama is up at http://127.0.0.1:[OLLAMA] (pid [PID])\n", "");
    down(&sandbox, "ollama");
}

#[test]
fn a_model_that_does_not_fit_into_memory_ends_it_at_once() {
    let sandbox = with_faults("mlx", &["quiet", "chat-status=500", "says=[METAL] Insufficient Memory"]);
    assert_up_fails(&sandbox, "mlx", 6).assert(
        6,
        "",
        "the end of [ROOT]/config/mlx/mlx.log:\n  | listening on 127.0.0.1:[MLX]\n\
         error: mlx (process [PID]) started and cannot generate: [METAL] Insufficient Memory\n\
         hint: its whole log: fusion mlx log\n",
    );
}

/// Each attempt may cost the server much, and leaves lines in its log.
#[test]
fn a_generation_that_fails_is_tried_ever_more_seldom() {
    let sandbox = with_faults("mlx", &["chat-status=500"]);
    let up = sandbox.fusion(["mlx", "up", "--timeout", "3"]).run().assert_code(6);
    assert!(
        up.stderr().contains("was not ready within 3 s: the fake runtime was told to fail\n"),
        "{}",
        up.stderr()
    );
    let asked = sandbox.log("mlx").matches("POST ").count();
    // After 25, 50, 100, 200, 400, 800 and 1000 ms and more.
    assert!((2..=9).contains(&asked), "it was asked {asked} times");
    assert_nothing_left(&sandbox, "mlx");
}

/// The server lives on without listening, and what answers at its address is not it.
#[test]
fn an_intruder_of_the_same_kind_is_named_by_all() {
    let sandbox = Sandbox::new();
    sandbox.faults("mlx", &["never-bind"]);
    sandbox.fusion(["mlx", "up", "--no-wait"]).run().assert_code(0);
    let intruder = sandbox.command(fake_runtime()).arg("mlx").arg("--model").arg(sandbox.model());
    let intruder = intruder.arg("--port").arg(sandbox.port("mlx").to_string()).start();
    wait_until("it answers", || state(&sandbox, "mlx") == "unhealthy");
    for arguments in [["mlx", "up"], ["mlx", "health"]] {
        let stderr = sandbox.fusion(arguments).run().assert_code(5).stderr();
        let told =
            format!("(process {})\n  caused by: another server of this kind answers there\n", intruder.pid());
        assert!(stderr.contains(&told), "{arguments:?}: {stderr}");
    }
    end(intruder);
    down(&sandbox, "mlx");
}

/// Ctrl-C while the old one takes its time: it may go on to end, and no new one is started.
#[test]
fn an_interrupted_restart_starts_nothing() {
    let sandbox = Sandbox::new();
    let end = sandbox.root().join("end");
    sandbox.faults("ollama", &[&format!("end-when={}", end.display())]);
    let pid = up(&sandbox, "ollama");
    let restart = sandbox.fusion(["ollama", "restart"]).start();
    wait_until("it was told to end", || sandbox.log("ollama").contains("told to end"));
    restart.signal(Signal::SIGINT);
    restart.finish().assert(130, "", "");
    assert_eq!(sandbox.record("ollama").map(|record| record["process"]["pid"].clone()), Some(json!(pid)));
    std::fs::write(end, "").expect("the sandbox is writable");
    wait_until("it has ended", || !processes::lives(pid));
    assert!(!sandbox.file("ollama", "ollama.log.1").exists(), "another one was started");
    assert_eq!(state(&sandbox, "ollama"), "exited");
    down(&sandbox, "ollama");
}
