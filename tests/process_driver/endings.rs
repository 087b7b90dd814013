//! The signals that end fusion itself.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};

use nix::sys::signal::{SigSet, Signal};
use serde_json::json;

use crate::stage::Stage;
use crate::support::{processes, wait_until};

const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

fn start(stage: &Stage, before: &str, role: &str) -> Child {
    let child = stage.actor(before, role).stderr(Stdio::piped()).spawn().unwrap();
    stage.facts("facts");
    child
}

fn send(child: &Child, signal: Signal) {
    processes::send(child.id().cast_signed(), signal);
}

/// By which signal it ended, and what it printed to stderr.
fn ending(mut child: Child) -> (Option<i32>, String) {
    let mut printed = String::new();
    child.stderr.take().unwrap().read_to_string(&mut printed).unwrap();
    (child.wait().unwrap().signal(), printed)
}

#[test]
fn a_signal_is_remembered_and_raised_again() {
    for signal in ENDING {
        let stage = Stage::new();
        let child = start(&stage, "", "remember");
        send(&child, signal);
        wait_until("it is remembered", || stage.facts("facts") == json!(signal as i32));
        // What must be finished first is not broken off by impatience.
        send(&child, Signal::SIGINT);
        send(&child, Signal::SIGTERM);
        std::fs::write(stage.path("go"), "").unwrap();
        assert_eq!(ending(child), (Some(signal as i32), String::new()), "{signal}");
    }
}

#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let stage = Stage::new();
    let child = start(&stage, "trap '' HUP INT", "remember");
    send(&child, Signal::SIGHUP);
    send(&child, Signal::SIGINT);
    send(&child, Signal::SIGTERM);
    wait_until("the one that counts is remembered", || stage.facts("facts") == json!(Signal::SIGTERM as i32));
    std::fs::write(stage.path("go"), "").unwrap();
    assert_eq!(ending(child).0, Some(Signal::SIGTERM as i32));
}

#[test]
fn a_signal_that_was_blocked_at_the_start_is_remembered() {
    let stage = Stage::new();
    let before = SigSet::from_iter(ENDING).thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK).unwrap();
    let child = start(&stage, "", "remember although blocked");
    before.thread_set_mask().unwrap();
    send(&child, Signal::SIGTERM);
    wait_until("it is remembered", || stage.facts("facts") == json!(Signal::SIGTERM as i32));
    std::fs::write(stage.path("go"), "").unwrap();
    assert_eq!(ending(child).0, Some(Signal::SIGTERM as i32));
}

#[test]
fn when_nothing_is_remembered_any_more_a_signal_ends_at_once() {
    let stage = Stage::new();
    let child = start(&stage, "", "forget");
    send(&child, Signal::SIGTERM);
    assert_eq!(ending(child), (Some(Signal::SIGTERM as i32), String::new()));
}

#[test]
fn the_terminal_is_left_clean_by_a_death_by_signal() {
    for (role, left) in [("clean", ""), ("line", "\r\u{1b}[K\u{1b}[0m"), ("styled", "\u{1b}[0m\n")] {
        for signal in ENDING {
            let stage = Stage::new();
            let child = start(&stage, "", role);
            send(&child, signal);
            assert_eq!(ending(child), (Some(signal as i32), left.to_owned()), "{role} {signal}");
        }
    }
}
