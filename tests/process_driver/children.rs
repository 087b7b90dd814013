//! A process that lives for days collects no zombies.

use std::process::Command;

use fusion::core::process::unix::UnixDriver;
use fusion::core::process::{Ending, Liveness, Pid, ProcessDriver, ProcessSpec};
use nix::errno::Errno;
use nix::sys::signal::kill;

use crate::stage::{Stage, ended};
use crate::support::wait_until;

/// Returns whether the process is neither alive nor a zombie: both can be signalled.
fn is_reaped(pid: Pid) -> bool {
    kill(nix::unistd::Pid::from_raw(pid.as_raw()), None) == Err(Errno::ESRCH)
}

#[test]
fn a_dropped_handle_leaves_no_zombie() {
    let stage = Stage::new();
    let process = stage.shell("exit 0").id().clone();
    wait_until("it is dead", || stage.driver.liveness(&process).unwrap() == Liveness::Dead);
    // It may have ended during the call above, after the driver reaped its children.
    assert_eq!(stage.driver.identify(process.pid).unwrap(), None);
    assert!(is_reaped(process.pid));
}

#[test]
fn a_thousand_spawns_leave_no_zombie() {
    let stage = Stage::new();
    let spec = ProcessSpec { log: None, ..stage.spec("/bin/sh", &["-c", ":"]) };
    let spawn = |_| stage.driver.spawn(&spec).unwrap().id().clone();
    let mut unreaped: Vec<_> = (0..1000).map(spawn).collect();
    wait_until("all are reaped", || {
        stage.driver.liveness(&unreaped[0]).unwrap();
        unreaped.retain(|process| !is_reaped(process.pid));
        unreaped.is_empty()
    });
}

#[test]
fn how_a_reaped_child_ended_is_known() {
    let stage = Stage::new();
    let child = stage.shell("exit 3");
    wait_until("it is reaped", || {
        stage.driver.liveness(child.id()).unwrap();
        is_reaped(child.id().pid)
    });
    for _ in 0..2 {
        assert_eq!(child.try_wait().unwrap(), Some(Ending::Code(3)));
        assert_eq!(stage.driver.ending(child.id()), Some(Ending::Code(3)));
    }
    assert_eq!(UnixDriver::new().ending(child.id()), None, "of a child of another driver");
}

#[test]
fn a_handle_works_on_another_thread() {
    let stage = Stage::new();
    let child = stage.shell("exit 3");
    let waiting = std::thread::spawn(move || ended(child.as_ref()));
    assert_eq!(waiting.join().unwrap(), Ending::Code(3));
}

#[test]
fn only_own_children_are_reaped() {
    let (stage, other) = (Stage::new(), UnixDriver::new());
    let child = stage.shell("exit 3");
    let mut plain = Command::new("/bin/sh").args(["-c", "exit 4"]).spawn().unwrap();
    let pid = Pid::try_from(i64::from(plain.id())).unwrap();
    wait_until("both have ended", || {
        other.liveness(child.id()).unwrap() == Liveness::Dead && other.identify(pid).unwrap().is_none()
    });
    assert!(!is_reaped(child.id().pid));
    assert!(!is_reaped(pid));
    assert_eq!(plain.wait().unwrap().code(), Some(4));
    assert_eq!(child.try_wait().unwrap(), Some(Ending::Code(3)));
}
