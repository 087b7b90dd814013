//! The signals that end fusion itself.

use std::os::unix::process::ExitStatusExt;

use fusion::core::process::{Child, Ending};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use serde_json::json;

use crate::stage::{Stage, ended};
use crate::support::{processes, wait_until};

const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Starts the actor by the driver, which resets the signals that the tests may have inherited as ignored.
fn start(stage: &Stage, before: &str, role: &str) -> Box<dyn Child> {
    let child = stage.spawn(&stage.actor_spec(before, role));
    stage.facts("facts");
    child
}

fn send(child: &dyn Child, signal: Signal) {
    processes::send(child.id().pid.as_raw(), signal);
}

#[test]
fn a_signal_is_remembered_and_raised_again() {
    for signal in ENDING {
        let stage = Stage::new();
        let child = start(&stage, "", "remember");
        send(child.as_ref(), signal);
        wait_until("it is remembered", || stage.facts("facts") == json!(signal as i32));
        // Later signals do not interrupt what must be finished first.
        send(child.as_ref(), Signal::SIGINT);
        send(child.as_ref(), Signal::SIGTERM);
        std::fs::write(stage.path("go"), "").unwrap();
        assert_eq!(ended(child.as_ref()), Ending::Signal(signal as i32), "{signal}");
        assert_eq!(stage.log(), "", "{signal}");
    }
}

#[test]
fn a_signal_ignored_at_the_start_stays_ignored() {
    let stage = Stage::new();
    let child = start(&stage, "trap '' HUP INT", "remember");
    send(child.as_ref(), Signal::SIGHUP);
    send(child.as_ref(), Signal::SIGINT);
    send(child.as_ref(), Signal::SIGTERM);
    wait_until("the one that counts is remembered", || stage.facts("facts") == json!(Signal::SIGTERM as i32));
    std::fs::write(stage.path("go"), "").unwrap();
    assert_eq!(ended(child.as_ref()), Ending::Signal(Signal::SIGTERM as i32));
}

#[test]
fn a_signal_blocked_at_the_start_is_remembered() {
    let stage = Stage::new();
    let term = SigSet::from(Signal::SIGTERM);
    let before = term.thread_swap_mask(SigmaskHow::SIG_BLOCK).unwrap();
    // Not by the driver, which unblocks all.
    let mut child = stage.actor("", "remember although blocked").spawn().unwrap();
    before.thread_set_mask().unwrap();
    stage.facts("facts");
    processes::send(child.id().cast_signed(), Signal::SIGTERM);
    wait_until("it is remembered", || stage.facts("facts") == json!(Signal::SIGTERM as i32));
    std::fs::write(stage.path("go"), "").unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(Signal::SIGTERM as i32));
}

#[test]
fn without_remembering_a_signal_ends_at_once() {
    let stage = Stage::new();
    let child = start(&stage, "", "forget");
    send(child.as_ref(), Signal::SIGTERM);
    assert_eq!(ended(child.as_ref()), Ending::Signal(Signal::SIGTERM as i32));
}

#[test]
fn a_death_by_signal_leaves_the_terminal_clean() {
    for (role, left) in [("clean", ""), ("line", "\r\u{1b}[K\u{1b}[0m"), ("styled", "\u{1b}[0m\n")] {
        for signal in ENDING {
            let stage = Stage::new();
            let child = start(&stage, "", role);
            send(child.as_ref(), signal);
            assert_eq!(ended(child.as_ref()), Ending::Signal(signal as i32), "{role} {signal}");
            assert_eq!(stage.log(), left, "{role} {signal}");
        }
    }
}
