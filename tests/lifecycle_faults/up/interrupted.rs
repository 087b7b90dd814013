//! `up` is interrupted or killed, or runs beside other commands.

use nix::sys::signal::Signal;

use crate::support::matrix::{SERVICES, fleet, for_each_service};
use crate::support::terminal::Terminal;
use crate::support::{fake_runtime, wait_until};
use crate::{STARTING, assert_nothing_left, down, state, up, with_faults};

#[test]
fn eight_ups_at_once_start_one_process() {
    for_each_service(&["bind-after=100", "print=started"], |sandbox, service| {
        let all: Vec<_> = (0..8).map(|_| sandbox.fusion([service, "up"]).start()).collect();
        let lines: Vec<String> = all.into_iter().map(|one| one.finish().assert_code(0).stdout()).collect();
        assert!(lines.iter().all(|line| *line == lines[0]), "{lines:?}");
        assert_eq!(sandbox.log(service).matches("started").count(), 1);
        let parts = std::fs::read_dir(sandbox.file(service, "")).expect("its directory").flatten();
        let logs = parts.filter(|part| part.file_name().to_string_lossy().contains(".log")).count();
        assert_eq!(logs, 1, "a second start would have rotated the log");
        down(sandbox, service);
    });
}

#[test]
fn up_and_down_can_overlap() {
    for_each_service(&["bind-after=5"], |sandbox, service| {
        for round in (0..20).step_by(3) {
            let up = sandbox.fusion([service, "up"]).start();
            // Down comes a little later each round.
            std::thread::sleep(std::time::Duration::from_millis(round));
            let down = sandbox.fusion([service, "down"]).start();
            let up = up.finish();
            down.finish().assert_code(0);
            assert!([0, 6].contains(&up.code()), "round {round}: {up:?}");
            match sandbox.processes().as_slice() {
                [] => assert_eq!(sandbox.record(service), None),
                _ => assert_eq!(state(sandbox, service), "ready", "round {round}"),
            }
        }
        down(sandbox, service);
    });
}

/// SIGKILL comes at every moment of `up`.
#[test]
fn down_cleans_up_after_a_killed_up() {
    for_each_service(&["bind-after=10"], |sandbox, service| {
        for microseconds in (0..12_000).step_by(900) {
            let up = sandbox.fusion([service, "up"]).start();
            std::thread::sleep(std::time::Duration::from_micros(microseconds));
            up.signal(Signal::SIGKILL);
            let _ = up.finish();
            down(sandbox, service);
        }
    });
}

#[test]
fn up_continues_the_start_of_a_killed_up() {
    for_each_service(&["print=started", "bind-when=[ROOT]/go"], |sandbox, service| {
        let first = sandbox.fusion([service, "up"]).start();
        wait_until("it was started", || sandbox.log(service).contains("started"));
        first.signal(Signal::SIGKILL);
        let _ = first.finish();
        assert_eq!(state(sandbox, service), "starting");
        std::fs::write(sandbox.root().join("go"), "").expect("the sandbox is writable");
        up(sandbox, service);
        assert_eq!(sandbox.log(service).matches("started").count(), 1, "a second one was started");
        assert_eq!(state(sandbox, service), "ready");
        down(sandbox, service);
    });
}

#[test]
fn each_signal_interrupts_up_and_its_server() {
    for_each_service(&["never-bind", "print=started"], |sandbox, service| {
        for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143), (Signal::SIGHUP, 129)] {
            let up = sandbox.fusion([service, "up"]).start();
            wait_until("it was started", || sandbox.log(service).contains("started"));
            up.signal(signal);
            let up = up.finish().assert_code(code);
            assert_eq!(up.stdout(), "");
            assert_eq!(up.status.code(), None, "the signal has its effect");
            assert_nothing_left(sandbox, service);
            std::fs::remove_file(sandbox.file(service, &format!("{service}.log"))).expect("its log");
        }
    });
}

#[test]
fn a_waiting_up_reports_an_interrupted_start() {
    let sandbox = with_faults("ollama", &["never-bind", "print=started"]);
    let first = sandbox.fusion(["ollama", "up"]).start();
    wait_until("it was started", || sandbox.log("ollama").contains("started"));
    let terminal = Terminal::open();
    let second = terminal.script(&sandbox, "-c", "exec \"$0\" ollama up");
    terminal.wait_for(STARTING);
    first.signal(Signal::SIGINT);
    first.finish().assert_code(130);
    second.finish().assert_code(6);
    let shown = terminal.finish();
    let (_, rest) = shown.rsplit_once("\r\u{1b}[K").expect("the progress line is erased");
    // It waits for the lock if the first one is slow to clean up.
    let error = rest.lines().rfind(|line| !line.is_empty()).unwrap_or_default();
    insta::assert_snapshot!(sandbox.normalized(error), @r"\u{1b}[1m\u{1b}[31merror: \u{1b}[0mollama was stopped by another command while it started");
    assert_nothing_left(&sandbox, "ollama");
}

/// A signal is not the failure of one of several services. Model servers start one after the other, and the program
/// beside them.
#[test]
fn an_interrupted_up_of_all_starts_nothing_more() {
    let (sandbox, _port) = fleet("auto_start = true\n", &["never-bind", "print=started"]);
    let up = sandbox.fusion(["up"]).start();
    for first in ["ollama", "web"] {
        wait_until("the first was started", || sandbox.log(first).contains("started"));
    }
    up.signal(Signal::SIGTERM);
    let up = up.finish().assert_code(143);
    assert_eq!(up.status.code(), None, "the signal has its effect");
    for service in SERVICES {
        assert_nothing_left(&sandbox, service);
    }
    for later in ["second", "replaced"] {
        assert!(!sandbox.file(later, &format!("{later}.log")).exists(), "{later} was started");
    }
}

#[test]
fn up_can_be_interrupted_with_blocked_signals() {
    for_each_service(&["never-bind", "print=started"], |sandbox, service| {
        let program = env!("CARGO_BIN_EXE_fusion");
        let up = sandbox
            .command(fake_runtime())
            .arg("with-blocked-signals")
            .arg(program)
            .arg(service)
            .arg("up")
            .start();
        wait_until("it was started", || sandbox.log(service).contains("started"));
        up.signal(Signal::SIGTERM);
        up.finish().assert_code(143);
        assert_nothing_left(sandbox, service);
    });
}
