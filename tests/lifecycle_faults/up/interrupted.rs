//! An `up` that is interrupted, killed, or not the only one.

use nix::sys::signal::Signal;

use crate::support::terminal::Terminal;
use crate::support::{Sandbox, command_line, fake_runtime, wait_until};
use crate::{assert_nothing_left, down, state, up, with_faults};

#[test]
fn eight_ups_at_once_start_one_process() {
    for runtime in ["ollama", "mlx"] {
        let sandbox = with_faults(runtime, &["bind-after=100", "print=started"]);
        let all: Vec<_> = (0..8).map(|_| sandbox.fusion([runtime, "up"]).start()).collect();
        let lines: Vec<String> = all.into_iter().map(|one| one.finish().assert_code(0).stdout()).collect();
        assert!(lines.iter().all(|line| *line == lines[0]), "{lines:?}");
        assert_eq!(sandbox.log(runtime).matches("started").count(), 1);
        let parts = std::fs::read_dir(sandbox.file(runtime, "")).expect("its directory").flatten();
        let logs = parts.filter(|part| part.file_name().to_string_lossy().contains(".log")).count();
        assert_eq!(logs, 1, "a second start would have rotated the log");
        down(&sandbox, runtime);
    }
}

#[test]
fn up_against_down() {
    let sandbox = with_faults("ollama", &["bind-after=5"]);
    for round in 0..20 {
        let up = sandbox.fusion(["ollama", "up"]).start();
        // Down comes a little later each round.
        std::thread::sleep(std::time::Duration::from_millis(round));
        let down = sandbox.fusion(["ollama", "down"]).start();
        let (up, down) = (up.finish(), down.finish().assert_code(0));
        assert!([0, 6].contains(&up.code()), "round {round}: {up:?}");
        assert_eq!(down.stdout(), "ollama is down\n");
        match sandbox.processes().as_slice() {
            [] => assert_eq!(sandbox.record("ollama"), None),
            _ => assert_eq!(state(&sandbox, "ollama"), "ready", "round {round}"),
        }
    }
    down(&sandbox, "ollama");
}

/// At every moment of `up`: whatever has been started by then, the next `down` finds.
#[test]
fn fusion_is_killed_during_up() {
    let sandbox = with_faults("ollama", &["bind-after=10"]);
    for microseconds in (0..12_000).step_by(300) {
        let up = sandbox.fusion(["ollama", "up"]).start();
        std::thread::sleep(std::time::Duration::from_micros(microseconds));
        up.signal(Signal::SIGKILL);
        let _ = up.finish();
        down(&sandbox, "ollama");
    }
}

/// Killed before it waits, and then the next `up` goes on where it was.
#[test]
fn fusion_is_killed_during_up_and_up_goes_on() {
    let sandbox = Sandbox::new();
    let go = sandbox.root().join("go");
    sandbox.faults("ollama", &["print=started", &format!("bind-when={}", go.display())]);
    let first = sandbox.fusion(["ollama", "up"]).start();
    wait_until("it was started", || sandbox.log("ollama").contains("started"));
    first.signal(Signal::SIGKILL);
    let _ = first.finish();
    assert_eq!(state(&sandbox, "ollama"), "starting");
    std::fs::write(&go, "").expect("the sandbox is writable");
    up(&sandbox, "ollama");
    assert_eq!(sandbox.log("ollama").matches("started").count(), 1, "a second one was started");
    assert_eq!(state(&sandbox, "ollama"), "ready");
    down(&sandbox, "ollama");
}

#[test]
fn interrupted_by_each_signal() {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143), (Signal::SIGHUP, 129)] {
        let sandbox = with_faults("ollama", &["never-bind", "print=started"]);
        let up = sandbox.fusion(["ollama", "up"]).start();
        wait_until("it was started", || sandbox.log("ollama").contains("started"));
        up.signal(signal);
        let up = up.finish().assert_code(code);
        assert_eq!(up.stdout(), "");
        assert_eq!(up.status.code(), None, "the signal has its effect");
        assert_nothing_left(&sandbox, "ollama");
    }
}

#[test]
fn interrupted_while_another_up_waits_too() {
    let sandbox = with_faults("ollama", &["never-bind", "print=started"]);
    let first = sandbox.fusion(["ollama", "up"]).start();
    wait_until("it was started", || sandbox.log("ollama").contains("started"));
    let terminal = Terminal::open();
    let second = terminal.script(&sandbox, "-c", "exec \"$0\" ollama up");
    terminal.wait_for("ollama is starting");
    first.signal(Signal::SIGINT);
    first.finish().assert_code(130);
    second.finish().assert_code(6);
    terminal.wait_for("ollama was stopped, or given up, by another command while it started");
    assert_nothing_left(&sandbox, "ollama");
}

/// The signal has its effect, and is not taken for a failure of one of several.
#[test]
fn an_interrupted_up_of_all_begins_no_other() {
    let sandbox = Sandbox::new();
    let hangs = command_line("ollama", &["never-bind", "print=started"]);
    sandbox.configure(&format!("auto_start = true\n{hangs}"), "auto_start = true");
    let up = sandbox.fusion(["up"]).start();
    wait_until("the first was started", || sandbox.log("ollama").contains("started"));
    up.signal(Signal::SIGTERM);
    let up = up.finish().assert_code(143);
    assert_eq!(up.status.code(), None, "the signal has its effect");
    assert_nothing_left(&sandbox, "ollama");
    assert!(!sandbox.file("mlx", "mlx.log").exists(), "the second was started");
}

/// And neither do they keep an `up` from being interrupted.
#[test]
fn interrupted_with_blocked_signals() {
    let sandbox = with_faults("ollama", &["never-bind", "print=started"]);
    let program = env!("CARGO_BIN_EXE_fusion");
    let up = sandbox
        .command(fake_runtime())
        .arg("with-blocked-signals")
        .arg(program)
        .arg("ollama")
        .arg("up")
        .start();
    wait_until("it was started", || sandbox.log("ollama").contains("started"));
    up.signal(Signal::SIGTERM);
    up.finish().assert_code(143);
    assert_nothing_left(&sandbox, "ollama");
}
