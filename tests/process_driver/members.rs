//! Which processes belong to an instance, and how all of them are ended.

use std::process::Command;

use fusion::core::process::unix::UnixDriver;
use fusion::core::process::{Ending, Listener, Liveness, ProcessDriver, StopSignal};
use nix::sys::signal::Signal;

use crate::stage::{Stage, ended, kill_all, skipped};
use crate::support::ports::Port;
use crate::support::{fake_runtime, processes, wait_until};

#[test]
fn a_stopped_process_ends_on_sigterm() {
    let stage = Stage::new();
    let child = stage.shell("kill -STOP $$; sleep 1000");
    wait_until("it is stopped", || {
        let output =
            Command::new("ps").args(["-o", "stat=", "-p", &child.id().pid.to_string()]).output().unwrap();
        output.stdout.starts_with(b"T")
    });
    stage.driver.signal_group(child.id(), StopSignal::Terminate).unwrap();
    assert_eq!(ended(child.as_ref()), Ending::Signal(Signal::SIGTERM as i32));
}

#[test]
fn the_group_gets_the_signal_with_all_children() {
    let stage = Stage::new();
    let port = Port::free();
    let child = stage.fake(&["children=3"], &port);
    assert_eq!(stage.members(Some(child.id())).len(), 4);
    stage.driver.signal_group(child.id(), StopSignal::Terminate).unwrap();
    ended(child.as_ref());
    wait_until("the children are gone", || stage.members(Some(child.id())).is_empty());
}

#[test]
fn children_are_killed_after_their_leader_died() {
    let stage = Stage::new();
    let port = Port::free();
    let child = stage.fake(&["children=2", "children-ignore-term"], &port);
    stage.driver.signal_group(child.id(), StopSignal::Terminate).unwrap();
    wait_until("the leader is dead", || stage.driver.liveness(child.id()).unwrap() == Liveness::Dead);
    assert_eq!(stage.members(Some(child.id())).len(), 2);
    ended(child.as_ref());
    assert_eq!(stage.members(Some(child.id())).len(), 2);
    kill_all(&stage, Some(child.id()));
}

#[test]
fn the_group_of_a_zombie_can_be_killed() {
    if cfg!(target_os = "macos") {
        return skipped("the group of a zombie", "macOS hides zombies, and members are killed one by one");
    }
    let stage = Stage::new();
    let port = Port::free();
    let child = stage.fake(&["children=2", "children-ignore-term"], &port);
    // The leader belongs to the driver that started it, so this one does not reap it.
    let observer = UnixDriver::new();
    let members = || observer.members(stage.instance(Some(child.id()))).unwrap();
    observer.signal(child.id(), StopSignal::Kill).unwrap();
    wait_until("the leader is dead", || observer.liveness(child.id()).unwrap() == Liveness::Dead);
    assert_eq!(members().len(), 2);
    assert!(observer.signal_group(child.id(), StopSignal::Kill).unwrap());
    wait_until("the children are gone", || members().is_empty());
}

#[test]
fn children_with_their_own_sessions_are_found() {
    let stage = Stage::new();
    let port = Port::free();
    let child = stage.fake(&["children=2", "children-own-session"], &port);
    stage.driver.signal_group(child.id(), StopSignal::Terminate).unwrap();
    ended(child.as_ref());
    assert_eq!(stage.members(Some(child.id())).len(), 2);
    kill_all(&stage, Some(child.id()));
}

#[test]
fn the_members_of_the_group_are_known() {
    let stage = Stage::new();
    for (faults, alone) in [(&["children=1"][..], 0), (&["children=1", "children-own-session"], 1)] {
        let port = Port::free();
        let child = stage.fake(faults, &port);
        let members = stage.members(Some(child.id()));
        let outside = members.iter().filter(|member| !stage.driver.is_in_group(member, child.id()));
        assert_eq!((members.len(), outside.count()), (2, alone));
        kill_all(&stage, Some(child.id()));
    }
}

#[test]
fn session_and_descent_show_children_without_environment() {
    let stage = Stage::new();
    let fake = fake_runtime();
    // One in the session of the leader, orphaned; one in a session of its own, still the leader's child.
    let script = format!("(env -i sleep 1000 &) ; env -i {fake} ollama child child-session-leader & wait");
    let child = stage.shell(&script);
    wait_until("all are there", || stage.members(Some(child.id())).len() == 3);
    // The shell has one, which macOS hides as it does for all of its own programs.
    wait_until("both have no environment", || {
        processes::with_variable("FUSION_INSTANCE", &stage.instance).len() <= 1
    });
    assert_eq!(stage.members(Some(child.id())).len(), 3);
    kill_all(&stage, Some(child.id()));
}

#[test]
fn a_server_that_forks_away_is_found() {
    let stage = Stage::new();
    let port = Port::free();
    let child = stage.fake(&["fork-away"], &port);
    assert_eq!(ended(child.as_ref()), Ending::Code(0));
    let [server] = &stage.members(Some(child.id()))[..] else { panic!("one process") };
    assert_ne!(server, child.id());
    assert_eq!(stage.members(None), std::slice::from_ref(server));
    let pid = server.pid;
    assert_eq!(stage.listener("127.0.0.1", &port, Some(child.id())), Listener::Ours { pid });
    assert_eq!(stage.listener("127.0.0.1", &port, None), Listener::Ours { pid });
    kill_all(&stage, None);
}

/// The kernel reuses the number of a session only when the session is empty. One process with the instance id proves
/// that the whole session is ours.
#[test]
fn one_instance_id_identifies_a_leaderless_session() {
    let stage = Stage::new();
    let script = format!("{} ollama child & env -i sleep 1000 & exit 0", fake_runtime());
    let child = stage.shell(&script);
    ended(child.as_ref());
    wait_until("one of two has an environment", || {
        stage.members(Some(child.id())).len() == 2
            && processes::with_variable("FUSION_INSTANCE", &stage.instance).len() == 1
    });
    kill_all(&stage, Some(child.id()));
}
