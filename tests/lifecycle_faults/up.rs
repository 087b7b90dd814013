//! Faults of `up`: a server dies, is never ready, or differs from its configuration.

mod addresses;
mod child;
mod files;
mod interrupted;
mod streams;
mod waits;

use crate::support::matrix::for_each_service;
use crate::support::{Sandbox, processes, wait_until, write_program};
use crate::{assert_nothing_left, assert_up_fails, down, state, times_out, up, with_faults};

#[test]
fn up_reports_a_server_that_dies_at_once() {
    let sandbox = with_faults("ollama", &["print=no luck today", "die=3"]);
    insta::assert_snapshot!(assert_up_fails(&sandbox, "ollama", 6), @"
    exit 6
    [stderr]
    the end of [ROOT]/config/ollama/ollama.log:
      | no luck today
    error: ollama (pid [PID]) exited with status 3 [TIME] s after its start
    hint: see the whole log: fusion ollama log
    ");
    assert_eq!(sandbox.log("ollama"), "no luck today\n", "the log stays");
}

#[test]
fn up_reports_a_server_that_dies_later() {
    let sandbox = with_faults("mlx", &["never-bind", "die-after=300"]);
    insta::assert_snapshot!(assert_up_fails(&sandbox, "mlx", 6), @"
    exit 6
    [stderr]
    the end of [ROOT]/config/mlx/mlx.log:
      | fatal: the fake runtime was told to die
    error: mlx (pid [PID]) exited with status 1 [TIME] s after its start
    hint: see the whole log: fusion mlx log
    ");
}

#[test]
fn up_names_the_signal_that_ended_a_server() {
    let sandbox = with_faults("ollama", &["signal=9"]);
    insta::assert_snapshot!(assert_up_fails(&sandbox, "ollama", 6), @"
    exit 6
    [stderr]
    the log is empty: [ROOT]/config/ollama/ollama.log
    error: ollama (pid [PID]) was killed by signal 9, SIGKILL [TIME] s after its start
    hint: see the whole log: fusion ollama log
    ");
}

#[test]
fn a_program_for_another_processor_is_named() {
    let sandbox = with_faults("ollama", &["signal=4"]);
    insta::assert_snapshot!(assert_up_fails(&sandbox, "ollama", 6), @"
    exit 6
    [stderr]
    the log is empty: [ROOT]/config/ollama/ollama.log
    error: ollama (pid [PID]) was killed by signal 4, SIGILL [TIME] s after its start
    hint: the program was built for another processor: install or build it for this one
    ");
}

#[test]
fn up_reports_a_server_that_dies_answering() {
    let sandbox = with_faults("mlx", &["die-on-chat"]);
    insta::assert_snapshot!(assert_up_fails(&sandbox, "mlx", 6), @"
    exit 6
    [stderr]
    the end of [ROOT]/config/mlx/mlx.log:
      | listening on 127.0.0.1:[MLX]
      | GET /health
      | POST /v1/chat/completions
      | fatal: the fake runtime died of a question
    error: mlx (pid [PID]) exited with status 1 [TIME] s after its start
    hint: see the whole log: fusion mlx log
    ");
}

#[test]
fn a_failure_shows_twenty_filtered_log_lines() {
    for_each_service(&["flood=3000", "print-hex=1b5d35323b633b1b5c6279650a", "die=1"], |sandbox, service| {
        let stderr = assert_up_fails(sandbox, service, 6).stderr();
        let shown: Vec<&str> = stderr.lines().filter(|line| line.starts_with("  | ")).collect();
        assert_eq!(shown.len(), 20, "{stderr}");
        assert_eq!(shown[19], format!("  | {:099}", 29), "{stderr}");
        assert!(!stderr.contains('\x1b'), "{stderr:?}");
    });
}

#[test]
fn up_reports_a_missing_program() {
    let sandbox = Sandbox::new();
    std::fs::remove_file(sandbox.bin().join("ollama")).expect("the sandbox is writable");
    insta::assert_snapshot!(assert_up_fails(&sandbox, "ollama", 4), @"
    exit 4
    [stderr]
    error: ollama is not installed: no ollama on PATH
    hint: install it: fusion ollama install
    ");
}

#[test]
fn up_reports_a_missing_configured_program() {
    let sandbox = Sandbox::new();
    sandbox.configure("command = [\"/nowhere/at/all\"]", "");
    insta::assert_snapshot!(assert_up_fails(&sandbox, "ollama", 4), @"
    exit 4
    [stderr]
    error: there is no program /nowhere/at/all, which ollama_server.command names
    hint: correct the path: fusion config edit; or remove it: fusion config unset ollama_server.command
    ");
}

#[test]
fn up_reports_a_program_without_execute_permission() {
    let sandbox = Sandbox::new();
    let program = sandbox.root().join("program");
    std::fs::write(&program, "no program").expect("the sandbox is writable");
    sandbox.configure(&format!("command = [{program:?}]"), "");
    insta::assert_snapshot!(assert_up_fails(&sandbox, "ollama", 4), @"
    exit 4
    [stderr]
    error: cannot run [ROOT]/program
      caused by: Permission denied (os error [ERRNO])
    hint: check that it is executable and made for this machine
    ");
}

#[test]
fn up_names_a_missing_interpreter() {
    let sandbox = Sandbox::new();
    let program = executable(&sandbox, "#!/nowhere/python3\n");
    sandbox.configure(&format!("command = [{program:?}]"), "");
    insta::assert_snapshot!(assert_up_fails(&sandbox, "ollama", 4), @"
    exit 4
    [stderr]
    error: cannot run [ROOT]/program: its interpreter /nowhere/python3 is missing
    hint: install it again
    ");
}

fn executable(sandbox: &Sandbox, content: &str) -> String {
    let program = sandbox.root().join("program");
    write_program(&program, content);
    program.display().to_string()
}

#[test]
fn up_waits_for_a_late_bind() {
    let sandbox = with_faults("ollama", &["bind-after=1200"]);
    up(&sandbox, "ollama");
    assert_eq!(state(&sandbox, "ollama"), "ready");
    down(&sandbox, "ollama");
}

#[test]
fn up_waits_for_a_server_that_loads() {
    let sandbox = with_faults("mlx", &["loading=700"]);
    up(&sandbox, "mlx");
    let requests = sandbox.log("mlx");
    assert!(requests.contains("POST /v1/chat/completions"), "{requests}");
    down(&sandbox, "mlx");
}

#[test]
fn up_fails_if_the_server_never_binds() {
    let sandbox = with_faults("ollama", &["never-bind"]);
    insta::assert_snapshot!(sandbox.fusion(["ollama", "up", "--timeout", "0.5"]).run(), @"
    exit 6
    [stderr]
    the log is empty: [ROOT]/config/ollama/ollama.log
    error: ollama (pid [PID]) was not ready within [TIME] s: Connection refused (os error [ERRNO])
    hint: see the whole log: fusion ollama log
    ");
    assert_nothing_left(&sandbox, "ollama");
}

#[test]
fn up_fails_if_the_server_hangs() {
    let sandbox = with_faults("ollama", &["hang"]);
    insta::assert_snapshot!(times_out(&sandbox, "ollama", "[SILENCE]"), @"
    exit 6
    [stderr]
    the end of [ROOT]/config/ollama/ollama.log:
    error: ollama (pid [PID]) was not ready within [TIME] s: [SILENCE]
    hint: see the whole log: fusion ollama log
    ");
    assert_nothing_left(&sandbox, "ollama");
}

#[test]
fn up_fails_if_every_status_is_500() {
    let sandbox = with_faults("ollama", &["status=500"]);
    insta::assert_snapshot!(times_out(&sandbox, "ollama", "HTTP 500 without an Ollama version"), @"
    exit 6
    [stderr]
    the end of [ROOT]/config/ollama/ollama.log:
    error: ollama (pid [PID]) was not ready within [TIME] s: HTTP 500 without an Ollama version
    hint: see the whole log: fusion ollama log
    ");
    assert_nothing_left(&sandbox, "ollama");
}

/// `/health` answers, `/v1/chat/completions` does not.
#[test]
fn up_fails_if_the_model_never_answers() {
    let sandbox = with_faults("mlx", &["chat-hang"]);
    insta::assert_snapshot!(times_out(&sandbox, "mlx", "[SILENCE]"), @"
    exit 6
    [stderr]
    the end of [ROOT]/config/mlx/mlx.log:
    error: mlx (pid [PID]) was not ready within [TIME] s: [SILENCE]
    hint: see the whole log: fusion mlx log
    ");
    assert_nothing_left(&sandbox, "mlx");
}

#[test]
fn up_fails_at_once_if_chat_is_refused() {
    let sandbox = with_faults("mlx", &["chat-status=400"]);
    insta::assert_snapshot!(assert_up_fails(&sandbox, "mlx", 6), @"
    exit 6
    [stderr]
    the end of [ROOT]/config/mlx/mlx.log:
      | listening on 127.0.0.1:[MLX]
      | GET /health
      | POST /v1/chat/completions
    error: mlx (pid [PID]) started and cannot generate: the fake runtime was told to fail
    hint: see the whole log: fusion mlx log
    ");
}

#[test]
fn up_starts_nothing_without_the_model() {
    let sandbox = Sandbox::new();
    std::fs::remove_dir_all(sandbox.model()).expect("the sandbox is writable");
    insta::assert_snapshot!(assert_up_fails(&sandbox, "mlx", 7), @"
    exit 7
    [stderr]
    error: there is no directory [ROOT]/model
    hint: a name that starts with /, ./, ../ or ~/ is a directory
    ");
    assert_eq!(sandbox.log("mlx"), "", "it was started");
}

#[test]
fn up_fails_if_the_server_lacks_the_model() {
    let sandbox = with_faults("mlx", &["models=another"]);
    insta::assert_snapshot!(assert_up_fails(&sandbox, "mlx", 7), @"
    exit 7
    [stderr]
    error: the model [ROOT]/model is not on this machine
      caused by: model '[ROOT]/model' not found
    hint: check the path
    ");
}

#[test]
fn up_follows_a_server_that_forks_away() {
    let sandbox = with_faults("ollama", &["fork-away", "bind-after=300"]);
    up(&sandbox, "ollama");
    let ps = sandbox.fusion(["ollama", "ps", "--json"]).run().assert_code(0).json();
    let pid = i32::try_from(ps["pid"].as_i64().expect("a PID")).expect("a PID");
    assert!(processes::lives(pid), "ps names a dead process");
    assert_eq!(sandbox.pid("ollama"), Some(pid));
    assert_eq!(ps["state"], "ready");
    down(&sandbox, "ollama");
}

#[test]
fn a_server_that_forks_away_is_found_later() {
    let sandbox = with_faults("ollama", &["fork-away", "bind-after=300"]);
    sandbox.fusion(["ollama", "up", "--no-wait"]).run().assert_code(0);
    wait_until("it is ready", || state(&sandbox, "ollama") == "ready");
    up(&sandbox, "ollama");
    down(&sandbox, "ollama");
}

/// A later probe would be cut off when fusion ends, and servers log that as an error.
#[test]
fn up_probes_a_ready_server_once() {
    let sandbox = Sandbox::new();
    up(&sandbox, "mlx");
    let log = sandbox.log("mlx");
    let requests: Vec<&str> = log.lines().skip_while(|line| !line.starts_with("GET")).collect();
    assert_eq!(requests, ["GET /health", "POST /v1/chat/completions"], "{log}");
    down(&sandbox, "mlx");
}
