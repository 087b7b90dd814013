//! `fusion top` on a pseudo-terminal and off one.

mod support;

use std::net::TcpListener;

use nix::sys::signal::Signal;
use nix::sys::termios::LocalFlags;
use serde_json::Value;
use support::terminal::Terminal;
use support::{Sandbox, processes, wait_until};

const TOP: &str = "exec \"$0\" top";

/// The cursor is hidden while `top` draws, and shown after that.
const HIDDEN: &str = "\u{1b}[?25l";
const SHOWN: &str = "\u{1b}[?25h";

#[track_caller]
fn assert_restored(terminal: Terminal) {
    let flags = terminal.flags();
    assert!(flags.contains(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG), "{flags:?}");
    let shown = terminal.finish();
    assert!(shown.rfind(SHOWN) > shown.rfind(HIDDEN), "{shown:?}");
}

#[test]
fn keys_start_unload_and_stop() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::of_columns(160);
    let top = terminal.script(&sandbox, "-c", TOP);
    terminal.wait_for("q quit");
    terminal.send(b"u");
    terminal.wait_for("ollama is up at http://");
    terminal.wait_for("llama3.2:3b  ready");
    assert!(sandbox.pid("ollama").is_some_and(processes::lives));
    terminal.send(b"d");
    terminal.wait_for("stop ollama? y or n");
    terminal.send(b"n");
    terminal.send(b"jx");
    terminal.wait_for("mlx has no model loaded");
    assert!(sandbox.pid("ollama").is_some_and(processes::lives));
    terminal.send(b"\x1b[Ady");
    terminal.wait_for("ollama is down");
    terminal.send(b"q");
    top.finish().assert_code(0);
    assert_restored(terminal);
    sandbox.assert_nothing_runs();
}

#[test]
fn the_log_is_shown_until_a_key() {
    let sandbox = Sandbox::new();
    sandbox.faults("ollama", &["print=a-line-of-the-log"]);
    sandbox.fusion(["ollama", "up"]).run().assert_code(0);
    let mut terminal = Terminal::of_columns(100);
    let top = terminal.script(&sandbox, "-c", TOP);
    terminal.wait_for("q quit");
    terminal.send(b"l");
    terminal.wait_for("the log of ollama; any key returns");
    assert!(terminal.text().contains("a-line-of-the-log"), "{}", terminal.text());
    terminal.send(b"qq");
    top.finish().assert_code(0);
    sandbox.fusion(["ollama", "down"]).run().assert_code(0);
}

/// A key of the terminal that means a signal ends it as that signal does.
#[test]
fn control_c_restores_the_terminal() {
    let sandbox = Sandbox::new();
    for (bytes, code) in [(b"\x03", 130), (b"\x1c", 131)] {
        let mut terminal = Terminal::of_columns(80);
        let top = terminal.script(&sandbox, "-c", TOP);
        terminal.wait_for("q quit");
        terminal.send(bytes);
        top.finish().assert_code(code);
        assert_restored(terminal);
    }
}

#[test]
fn every_ending_signal_restores_the_terminal() {
    let sandbox = Sandbox::new();
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGHUP, 129), (Signal::SIGINT, 130)] {
        let terminal = Terminal::of_columns(80);
        let top = terminal.script(&sandbox, "-c", TOP);
        terminal.wait_for("q quit");
        top.signal(signal);
        top.finish().assert_code(code);
        assert_restored(terminal);
    }
}

#[test]
fn an_interrupted_start_leaves_nothing() {
    let sandbox = Sandbox::new();
    sandbox.faults("ollama", &["never-bind"]);
    let mut terminal = Terminal::of_columns(80);
    let top = terminal.script(&sandbox, "-c", TOP);
    terminal.wait_for("q quit");
    terminal.send(b"u");
    terminal.wait_for("starting ollama");
    wait_until("it was started", || {
        sandbox.record("ollama").is_some_and(|record| !record["process"].is_null())
    });
    terminal.send(b"q");
    terminal.wait_for("Ctrl-C cancels it");
    terminal.send(b"\x03");
    top.finish().assert_code(130);
    sandbox.assert_nothing_runs();
}

#[test]
fn control_z_gives_the_terminal_back() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::of_columns(80);
    let script = "\"$0\" top; echo \"stopped: $?\"; stty -a; fg >/dev/null; echo \"ended: $?\"; read x";
    let shell = terminal.script(&sandbox, "-mc", script);
    terminal.wait_for("q quit");
    terminal.send(b"\x1a");
    terminal.wait_for("stopped: 1");
    wait_until("it draws again", || terminal.text().matches("q quit").count() >= 2);
    let before = terminal.text();
    let stty = before.split("stopped: 1").nth(1).expect("what stty says");
    assert!(stty.contains(" icanon") && stty.contains(" echo "), "{stty}");
    terminal.send(b"q");
    terminal.wait_for("ended: 0");
    terminal.send(b"\n");
    shell.finish();
}

/// A screen that does not change costs no output.
#[test]
fn nothing_is_drawn_without_a_change() {
    let sandbox = Sandbox::new();
    // Each look at the services is a connection.
    let listener = TcpListener::bind(("127.0.0.1", sandbox.port("ollama"))).expect("the port is free");
    let mut terminal = Terminal::of_columns(80);
    let top = terminal.script(&sandbox, "-c", TOP);
    terminal.wait_for("q quit");
    let drawn = terminal.text();
    for _ in 0..3 {
        drop(listener.accept().expect("a connection"));
    }
    assert_eq!(terminal.text(), drawn);
    terminal.resize(20, 5);
    wait_until("it is drawn for the new size", || terminal.text().len() > drawn.len());
    terminal.send(b"q");
    top.finish().assert_code(0);
    let text = terminal.finish();
    let narrow = text[drawn.len()..].split(HIDDEN).next().expect("a part");
    for line in narrow.split(";1H").skip(1) {
        let line = line.split('\u{1b}').next().expect("a part");
        assert!(line.chars().count() <= 20, "{line:?}");
    }
}

#[test]
fn without_a_screen_it_refuses() {
    let sandbox = Sandbox::new();
    insta::assert_snapshot!(sandbox.fusion(["top"]).run(), @"
    exit 2
    [stderr]
    error: top needs a terminal
    hint: print the state once: fusion ps --json; or a line each second: fusion top --json
    ");
    let terminal = Terminal::open();
    terminal.script(&sandbox, "-c", "TERM=dumb exec \"$0\" top").finish().assert_code(2);
    insta::assert_snapshot!(terminal.finish().replace('\r', ""), @"
    error: top needs a terminal that can be drawn on, and TERM is dumb
    hint: append the state each second: fusion ps --watch
    ");
}

#[test]
fn json_is_one_line_each_second() {
    let sandbox = Sandbox::new();
    sandbox.faults("ollama", &["gpu=71", "context=4096"]);
    sandbox.fusion(["ollama", "up"]).run().assert_code(0);
    let shell = sandbox.command("/bin/sh").arg("-c").arg("\"$0\" top --json ollama mlx | head -n 2");
    let lines = shell.arg(env!("CARGO_BIN_EXE_fusion")).run().assert_code(0).stdout();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 2);
    let [ollama, mlx] = lines[1]["services"].as_array().expect("services").as_slice() else {
        panic!("{lines:?}")
    };
    assert_eq!((&ollama["name"], &ollama["state"]), (&"ollama".into(), &"ready".into()));
    assert_eq!((&ollama["gpu_percent"], &ollama["context"]), (&71.into(), &4096.into()));
    assert_eq!((&mlx["state"], &mlx["gpu_percent"]), (&"stopped".into(), &Value::Null));
    sandbox.fusion(["ollama", "down"]).run().assert_code(0);
}
