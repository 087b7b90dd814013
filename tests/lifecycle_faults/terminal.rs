//! Faults of the terminal from which a runtime is started.

use nix::sys::signal::Signal;

use crate::support::matrix::{assert_shows, for_each_service};
use crate::support::terminal::Terminal;
use crate::support::{processes, wait_until};
use crate::{assert_nothing_left, down, state};

const CONTROL_C: &[u8] = b"\x03";
const CONTROL_Z: &[u8] = b"\x1a";

/// A server with these faults prints a line when it is started, and binds when there is a file.
const HELD_START: [&str; 2] = ["print=started", "bind-when=[ROOT]/go"];

#[test]
fn control_c_during_up_stops_the_server() {
    for_each_service(&["never-bind", "print=started"], |sandbox, service| {
        let mut terminal = Terminal::open();
        let shell = terminal.script(sandbox, "-c", &format!("exec \"$0\" {service} up"));
        // The server may print before fusion does.
        terminal.wait_for(&format!("{service} is starting"));
        wait_until("it was started", || sandbox.log(service).contains("started"));
        terminal.send(CONTROL_C);
        shell.finish().assert_code(130);
        assert_nothing_left(sandbox, service);
        let shown = terminal.finish();
        // The progress line is erased.
        assert!(shown.ends_with("\r\u{1b}[K") || shown.ends_with("\u{1b}[0m"), "{shown:?}");
    });
}

#[test]
fn a_dumb_terminal_gets_no_escape_sequence() {
    for_each_service(&["bind-after=300"], |sandbox, service| {
        let terminal = Terminal::open();
        terminal
            .script(sandbox, "-c", &format!("TERM=dumb exec \"$0\" {service} up"))
            .finish()
            .assert_code(0);
        let shown = terminal.finish();
        assert_shows(
            &sandbox.normalized(&shown),
            service,
            "[SERVICE] is up at http://127.0.0.1:[PORT] (pid [PID])\\r",
        );
        down(sandbox, service);
    });
}

/// The server has its own session, so the terminal's signals do not reach it.
#[test]
fn control_c_after_up_spares_the_server() {
    for_each_service(&[], |sandbox, service| {
        let mut terminal = Terminal::open();
        let shell =
            terminal.script(sandbox, "-c", &format!("\"$0\" {service} up; echo waiting; exec sleep 1000"));
        terminal.wait_for("waiting");
        terminal.send(CONTROL_C);
        shell.finish().assert_code(130);
        assert_eq!(state(sandbox, service), "ready");
        down(sandbox, service);
    });
}

#[test]
fn a_hang_up_after_up_spares_the_server() {
    for_each_service(&[], |sandbox, service| {
        let terminal = Terminal::open();
        let shell =
            terminal.script(sandbox, "-c", &format!("\"$0\" {service} up; echo waiting; exec sleep 1000"));
        terminal.wait_for("waiting");
        terminal.close();
        shell.finish().assert_code(129);
        assert_eq!(state(sandbox, service), "ready");
        down(sandbox, service);
    });
}

#[test]
fn a_hang_up_during_up_stops_the_server() {
    for_each_service(&["never-bind", "print=started"], |sandbox, service| {
        let terminal = Terminal::open();
        let shell = terminal.script(sandbox, "-c", &format!("exec \"$0\" {service} up"));
        wait_until("it was started", || sandbox.log(service).contains("started"));
        terminal.close();
        shell.finish().assert_code(129);
        assert_nothing_left(sandbox, service);
    });
}

/// `nohup` has SIGHUP ignored.
#[test]
fn nohup_lets_up_survive_a_hang_up() {
    for_each_service(&HELD_START, |sandbox, service| {
        let go = sandbox.root().join("go");
        let terminal = Terminal::open();
        let script = &format!("trap '' HUP; \"$0\" {service} up >/dev/null 2>&1; echo $? >code");
        let shell = terminal.script(sandbox, "-c", script);
        wait_until("it was started", || sandbox.log(service).contains("started"));
        terminal.close();
        std::fs::write(go, "").expect("the sandbox is writable");
        shell.finish();
        let code = std::fs::read_to_string(sandbox.project().join("code")).expect("the exit code");
        assert_eq!(code, "0\n");
        assert_eq!(state(sandbox, service), "ready");
        down(sandbox, service);
    });
}

#[test]
fn up_works_as_a_background_job() {
    for_each_service(&["bind-after=200"], |sandbox, service| {
        let mut terminal = Terminal::open();
        let shell =
            terminal.script(sandbox, "-mc", &format!("\"$0\" {service} up & wait; echo waited; read x"));
        terminal.wait_for("waited");
        assert!(terminal.text().contains(&sandbox.url("ollama")), "{}", terminal.text());
        terminal.send(b"\n");
        shell.finish();
        assert_eq!(state(sandbox, service), "ready");
        down(sandbox, service);
    });
}

/// Ctrl-Z suspends fusion, not the server.
#[test]
fn a_suspended_up_can_continue() {
    for_each_service(&HELD_START, |sandbox, service| {
        let go = sandbox.root().join("go");
        let mut terminal = Terminal::open();
        let script =
            &format!("\"$0\" {service} up; echo \"stopped: $?\"; fg >/dev/null; echo \"ended: $?\"; read x");
        let shell = terminal.script(sandbox, "-mc", script);
        wait_until("it was started", || sandbox.log(service).contains("started"));
        terminal.send(CONTROL_Z);
        terminal.wait_for("stopped: 1");
        std::fs::write(go, "").expect("the sandbox is writable");
        terminal.wait_for("ended: 0");
        assert!(terminal.text().contains(&sandbox.url("ollama")), "{}", terminal.text());
        terminal.send(b"\n");
        shell.finish();
        down(sandbox, service);
    });
}

#[test]
fn control_c_during_down_keeps_the_record() {
    for_each_service(&["end-when=[ROOT]/end"], |sandbox, service| {
        let end = sandbox.root().join("end");
        sandbox.fusion([service, "up"]).run().assert_code(0);
        let pid = sandbox.pid(service).expect("a PID");
        let mut terminal = Terminal::open();
        let shell = terminal.script(sandbox, "-c", &format!("exec \"$0\" {service} down"));
        terminal.wait_for(&format!("stopping {service}"));
        terminal.send(CONTROL_C);
        shell.finish().assert_code(130);
        assert!(processes::lives(pid), "it was not waited for");
        assert!(sandbox.record(service).is_some());
        std::fs::write(end, "").expect("the sandbox is writable");
        assert_shows(&down(sandbox, service), service, "exit 0\n[stdout]\n[SERVICE] is down");
    });
}

#[test]
fn watch_refreshes_in_place_until_interrupted() {
    for_each_service(&[], |sandbox, service| {
        sandbox.fusion([service, "up"]).run().assert_code(0);
        let mut terminal = Terminal::open();
        let shell = terminal.script(sandbox, "-c", "exec \"$0\" ps --watch");
        terminal.wait_for("ready");
        let pid = sandbox.pid(service).expect("a PID");
        processes::send(pid, Signal::SIGKILL);
        terminal.wait_for("exited");
        terminal.send(CONTROL_C);
        shell.finish().assert_code(130);
        let shown = terminal.finish();
        assert!(shown.starts_with("\u{1b}[H"), "{shown:?}");
        assert!(shown.matches("\u{1b}[H").count() >= 2, "{shown:?}");
        down(sandbox, service);
    });
}

#[test]
fn progress_is_overwritten() {
    for_each_service(&HELD_START, |sandbox, service| {
        let go = sandbox.root().join("go");
        let terminal = Terminal::open();
        let shell = terminal.script(sandbox, "-c", &format!("exec \"$0\" {service} up"));
        terminal.wait_for(&format!("{service} is starting"));
        std::fs::write(go, "").expect("the sandbox is writable");
        shell.finish().assert_code(0);
        let shown = terminal.finish();
        let (_, result) = shown.rsplit_once("\r\u{1b}[K").expect("the progress line is erased");
        assert_shows(
            &sandbox.normalized(result),
            service,
            "[SERVICE] is up at http://127.0.0.1:[PORT] (pid [PID])\\r",
        );
        down(sandbox, service);
    });
}
