//! Faults of `up`: a server that dies, or is never ready, or is not what its configuration says.

mod addresses;
mod child;
mod files;
mod interrupted;
mod streams;
mod waits;

use crate::support::{Sandbox, processes, wait_until, write_program};
use crate::{assert_nothing_left, assert_silence_is_told, assert_up_fails, down, state, up, with_faults};

#[test]
fn dies_at_once() {
    let sandbox = with_faults("ollama", &["print=no luck today", "die=3"]);
    assert_up_fails(&sandbox, "ollama", 6).assert(
        6,
        "",
        "the end of [ROOT]/config/ollama/ollama.log:\n  | no luck today\n\
         error: ollama (process [PID]) exited with status 3 [TIME] s after its start\n\
         hint: its whole log: fusion ollama log\n",
    );
    assert_eq!(sandbox.log("ollama"), "no luck today\n", "the log stays");
}

#[test]
fn dies_after_a_while() {
    let sandbox = with_faults("mlx", &["never-bind", "die-after=300"]);
    let up = assert_up_fails(&sandbox, "mlx", 6);
    assert!(up.stderr().contains("exited with status 1"), "{}", up.stderr());
    assert!(up.stderr().contains("  | fatal: the fake runtime was told to die\n"), "{}", up.stderr());
}

#[test]
fn dies_by_a_signal() {
    let sandbox = with_faults("ollama", &["signal=9"]);
    assert_up_fails(&sandbox, "ollama", 6).assert(
        6,
        "",
        "its log is empty: [ROOT]/config/ollama/ollama.log\n\
         error: ollama (process [PID]) was ended by signal 9, SIGKILL [TIME] s after its start\n\
         hint: its whole log: fusion ollama log\n",
    );
}

#[test]
fn dies_of_the_first_question() {
    let sandbox = with_faults("mlx", &["die-on-chat"]);
    let up = assert_up_fails(&sandbox, "mlx", 6);
    assert!(up.stderr().contains("died of a question"), "{}", up.stderr());
}

#[test]
fn the_last_twenty_lines_are_shown_and_made_harmless() {
    let sandbox = with_faults("ollama", &["flood=3000", "print-hex=1b5d35323b633b1b5c6279650a", "die=1"]);
    let stderr = assert_up_fails(&sandbox, "ollama", 6).stderr();
    let shown: Vec<&str> = stderr.lines().filter(|line| line.starts_with("  | ")).collect();
    assert_eq!(shown.len(), 20, "{stderr}");
    assert_eq!(shown[19], format!("  | {:099}", 29), "{stderr}");
    assert!(!stderr.contains('\x1b'), "{stderr:?}");
}

#[test]
fn program_missing() {
    let sandbox = Sandbox::new();
    std::fs::remove_file(sandbox.bin().join("ollama")).expect("the sandbox is writable");
    let up = assert_up_fails(&sandbox, "ollama", 4);
    assert!(up.stderr().contains("ollama is not installed"), "{}", up.stderr());
    assert!(up.stderr().contains("hint: "), "{}", up.stderr());
}

#[test]
fn configured_program_missing() {
    let sandbox = Sandbox::new();
    sandbox.configure("command = [\"/nowhere/at/all\"]", "");
    let up = assert_up_fails(&sandbox, "ollama", 4);
    assert!(up.stderr().contains("/nowhere/at/all"), "{}", up.stderr());
}

#[test]
fn program_not_executable() {
    let sandbox = Sandbox::new();
    let program = sandbox.root().join("program");
    std::fs::write(&program, "no program").expect("the sandbox is writable");
    sandbox.configure(&format!("command = [{program:?}]"), "");
    let up = assert_up_fails(&sandbox, "ollama", 4);
    assert!(up.stderr().contains(&program.display().to_string()), "{}", up.stderr());
}

#[test]
fn interpreter_missing() {
    let sandbox = Sandbox::new();
    let program = executable(&sandbox, "#!/nowhere/python3\n");
    sandbox.configure(&format!("command = [{program:?}]"), "");
    let up = assert_up_fails(&sandbox, "ollama", 4);
    assert!(up.stderr().contains("/nowhere/python3"), "{}", up.stderr());
}

fn executable(sandbox: &Sandbox, content: &str) -> String {
    let program = sandbox.root().join("program");
    write_program(&program, content);
    program.display().to_string()
}

#[test]
fn binds_late() {
    let sandbox = with_faults("ollama", &["bind-after=2000"]);
    up(&sandbox, "ollama");
    assert_eq!(state(&sandbox, "ollama"), "ready");
    down(&sandbox, "ollama");
}

#[test]
fn answers_503_while_loading() {
    let sandbox = with_faults("mlx", &["loading=700"]);
    up(&sandbox, "mlx");
    let requests = sandbox.log("mlx");
    assert!(requests.contains("POST /v1/chat/completions"), "{requests}");
    down(&sandbox, "mlx");
}

#[test]
fn never_binds() {
    let sandbox = with_faults("ollama", &["never-bind"]);
    let refused = std::io::Error::from(nix::errno::Errno::ECONNREFUSED);
    let up = sandbox.fusion(["ollama", "up", "--timeout", "0.5"]).run();
    up.assert(
        6,
        "",
        &format!(
            "its log is empty: [ROOT]/config/ollama/ollama.log\n\
             error: ollama (process [PID]) was not ready within [TIME] s: {refused}\n\
             hint: its whole log: fusion ollama log\n"
        ),
    );
    assert_nothing_left(&sandbox, "ollama");
}

#[test]
fn binds_and_hangs() {
    let sandbox = with_faults("ollama", &["hang"]);
    let up = sandbox.fusion(["ollama", "up", "--timeout", "1"]).run().assert_code(6);
    assert_silence_is_told(&up, "was not ready within 1 s");
    assert_nothing_left(&sandbox, "ollama");
}

#[test]
fn always_answers_500() {
    let sandbox = with_faults("ollama", &["status=500"]);
    let up = sandbox.fusion(["ollama", "up", "--timeout", "1"]).run().assert_code(6);
    assert!(up.stderr().contains("HTTP 500"), "{}", up.stderr());
    assert_nothing_left(&sandbox, "ollama");
}

/// `/health` answers, and no chat ever does.
#[test]
fn health_answers_and_the_model_never_does() {
    let sandbox = with_faults("mlx", &["chat-hang"]);
    let up = sandbox.fusion(["mlx", "up", "--timeout", "1"]).run().assert_code(6);
    assert!(up.stderr().contains("was not ready within 1 s"), "{}", up.stderr());
    assert_nothing_left(&sandbox, "mlx");
}

#[test]
fn health_answers_and_every_chat_is_refused() {
    let sandbox = with_faults("mlx", &["chat-status=400"]);
    let up = assert_up_fails(&sandbox, "mlx", 6);
    assert!(up.stderr().contains("cannot generate: the fake runtime was told to fail"), "{}", up.stderr());
}

#[test]
fn the_model_is_not_on_this_machine() {
    let sandbox = Sandbox::new();
    std::fs::remove_dir_all(sandbox.model()).expect("the sandbox is writable");
    let up = assert_up_fails(&sandbox, "mlx", 7);
    assert!(up.stderr().contains(&sandbox.model().display().to_string()), "{}", up.stderr());
    assert_eq!(sandbox.log("mlx"), "", "it was not even started");
}

#[test]
fn the_server_does_not_know_its_model() {
    let sandbox = with_faults("mlx", &["models=another"]);
    let up = assert_up_fails(&sandbox, "mlx", 7);
    assert!(up.stderr().contains("not found"), "{}", up.stderr());
}

#[test]
fn a_server_that_daemonizes_itself() {
    let sandbox = with_faults("ollama", &["daemonize", "bind-after=300"]);
    up(&sandbox, "ollama");
    let ps = sandbox.fusion(["ollama", "ps", "--json"]).run().assert_code(0).json();
    let pid = i32::try_from(ps["pid"].as_i64().expect("a PID")).expect("a PID");
    assert!(processes::lives(pid), "ps names a dead process");
    assert_eq!(sandbox.pid("ollama"), Some(pid));
    assert_eq!(ps["state"], "ready");
    down(&sandbox, "ollama");
}

#[test]
fn a_server_that_daemonizes_itself_and_nobody_waits() {
    let sandbox = with_faults("ollama", &["daemonize", "bind-after=300"]);
    sandbox.fusion(["ollama", "up", "--no-wait"]).run().assert_code(0);
    wait_until("it is ready", || state(&sandbox, "ollama") == "ready");
    up(&sandbox, "ollama");
    down(&sandbox, "ollama");
}

/// What is asked after the answer is known would be cut off when fusion ends, and servers log that as an error.
#[test]
fn up_asks_nothing_twice() {
    let sandbox = Sandbox::new();
    up(&sandbox, "mlx");
    let log = sandbox.log("mlx");
    let asked: Vec<&str> = log.lines().skip_while(|line| !line.starts_with("GET")).collect();
    assert_eq!(asked, ["GET /health", "POST /v1/chat/completions"], "{log}");
    down(&sandbox, "mlx");
}
