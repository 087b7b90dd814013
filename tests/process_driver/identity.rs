//! Who a process is, and how it ended.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use fusion::core::json_object::JsonObject;
use fusion::core::process::unix::UnixDriver;
use fusion::core::process::{
    Ending, Host, Instance, Liveness, Pid, ProcessDriver, ProcessError, ProcessId, StopSignal,
};
use nix::unistd::{self, Uid};
use serde_json::Value;

use crate::stage::{Stage, ended, skipped};
use crate::support::wait_until;

#[test]
fn exit_code_and_signal_are_distinguished() {
    let stage = Stage::new();
    assert_eq!(ended(stage.shell("exit 3").as_ref()), Ending::Code(3));
    assert_eq!(ended(stage.shell("kill -9 $$").as_ref()), Ending::Signal(9));
    let child = stage.shell("sleep 1000");
    assert_eq!(child.try_wait().unwrap(), None);
    stage.driver.signal(child.id(), StopSignal::Kill).unwrap();
    assert_eq!(ended(child.as_ref()), Ending::Signal(9));
    assert_eq!(child.try_wait().unwrap(), Some(Ending::Signal(9)), "it stays known");
}

#[test]
fn an_unreaped_zombie_is_dead() {
    let stage = Stage::new();
    let child = stage.shell("exit 0");
    // It belongs to the driver that started it, so this one does not reap it.
    let observer = UnixDriver::new();
    wait_until("it is dead", || observer.liveness(child.id()).unwrap() == Liveness::Dead);
    assert_eq!(observer.identify(child.id().pid).unwrap(), None);
    assert_eq!(observer.usage(child.id()), None);
    assert_eq!(observer.members(stage.instance(Some(child.id()))).unwrap(), []);
    observer.signal(child.id(), StopSignal::Kill).unwrap();
}

#[test]
fn a_dead_pid_is_dead() {
    let stage = Stage::new();
    let child = stage.shell("exit 0");
    ended(child.as_ref());
    assert_ne!(stage.driver.liveness(child.id()).unwrap(), Liveness::Alive);
    stage.driver.signal(child.id(), StopSignal::Kill).unwrap();
    stage.driver.signal_group(child.id(), StopSignal::Kill).unwrap();
}

#[test]
fn waiting_for_an_exit_ends_with_it() {
    let stage = Stage::new();
    let child = stage.shell("sleep 1000");
    let observer = UnixDriver::new();
    let wait = |timeout| observer.wait_for_exit(child.id(), timeout).unwrap();
    assert_eq!(wait(Duration::ZERO), Liveness::Alive);
    assert_eq!(wait(Duration::from_millis(1)), Liveness::Alive);
    stage.driver.signal(child.id(), StopSignal::Kill).unwrap();
    assert_eq!(wait(Duration::from_secs(3600)), Liveness::Dead);
}

/// The command line may be the same.
#[test]
fn the_new_process_of_a_pid_is_spared() {
    let stage = Stage::new();
    let child = stage.shell("sleep 1000");
    let now = child.id();
    let earlier = ProcessId { start_time: now.start_time - 1, ..now.clone() };
    let other_boot = "00000000-0000-4000-8000-000000000000".to_owned();
    let other_boot = Host { boot_id: other_boot, ..now.host.clone() };
    let other_boot = ProcessId { host: other_boot, ..now.clone() };
    for gone in [&earlier, &other_boot] {
        assert_eq!(stage.driver.liveness(gone).unwrap(), Liveness::Dead);
        stage.driver.signal(gone, StopSignal::Kill).unwrap();
        stage.driver.signal_group(gone, StopSignal::Kill).unwrap();
        assert_eq!(stage.driver.usage(gone), None);
        let other = Instance { id: "another", leader: Some(gone) };
        assert_eq!(stage.driver.members(other).unwrap(), []);
    }
    assert_eq!(stage.driver.liveness(now).unwrap(), Liveness::Alive);
}

#[test]
fn a_similar_command_line_makes_no_member() {
    let (stage, other_stage) = (Stage::new(), Stage::new());
    let child = stage.shell("sleep 1000");
    let other = other_stage.shell("exec sleep 1000 # ollama serve");
    let members = stage.members(Some(child.id()));
    assert!(members.contains(child.id()));
    assert!(!members.contains(other.id()));
}

#[test]
fn a_process_of_another_user_is_spared() {
    if !Uid::effective().is_root() {
        return skipped("another user's process", "only root can become another user");
    }
    let stage = Stage::new();
    let victim = stage.shell("sleep 1000");
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listening.local_addr().unwrap().port().to_string();
    std::fs::write(stage.path("victim"), victim.id().pid.to_string()).unwrap();
    std::fs::write(stage.path("port"), port).unwrap();
    assert!(stage.act("", "another user"));
    assert_eq!(stage.driver.liveness(victim.id()).unwrap(), Liveness::Alive);
}

#[test]
fn a_process_of_another_machine_is_not_judged() {
    let stage = Stage::new();
    let child = stage.shell("sleep 1000");
    let now = child.id();
    let host = Host {
        boot_id: "00000000-0000-4000-8000-000000000000".to_owned(),
        machine_id: Some("0".repeat(32)),
        name: "elsewhere".to_owned(),
        ..now.host.clone()
    };
    assert_elsewhere(&stage, &ProcessId { host, ..now.clone() });
    assert_eq!(stage.driver.liveness(now).unwrap(), Liveness::Alive);
}

/// The test judges from outside the container, the actor from inside.
#[test]
fn a_process_of_another_container_is_not_judged() {
    let unshared =
        |script: &str| format!("unshare -m --pid --fork --mount-proc /bin/sh -c '{script}' \"$0\"");
    let may_unshare = Command::new("/bin/sh").args(["-c", &unshared(":")]).output();
    if !may_unshare.is_ok_and(|output| output.status.success()) {
        return skipped("another container", "only root on Linux can make a PID namespace");
    }
    let stage = Stage::new();
    let child = stage.shell("sleep 1000");
    std::fs::write(stage.path("process"), serde_json::to_string(child.id()).unwrap()).unwrap();
    let script = "exec \"$0\" actor::actor --exact --nocapture";
    assert!(stage.act(&format!("exec {}", unshared(script)), "another container"));
    assert_eq!(stage.driver.liveness(child.id()).unwrap(), Liveness::Alive);
    assert_elsewhere(&stage, &process_id(&stage.facts("facts")));
    let renamed = Host { name: "renamed".to_owned(), ..child.id().host.clone() };
    let renamed = ProcessId { host: renamed, ..child.id().clone() };
    assert_eq!(stage.driver.liveness(&renamed).unwrap(), Liveness::Alive);
}

pub(crate) fn process_id(json: &Value) -> ProcessId {
    ProcessId::read(&JsonObject::new(json, "the process").unwrap()).unwrap()
}

pub(crate) fn assert_elsewhere(stage: &Stage, process: &ProcessId) {
    assert_eq!(stage.driver.liveness(process).unwrap(), Liveness::Elsewhere);
    stage.driver.signal(process, StopSignal::Kill).unwrap();
    assert!(!stage.driver.signal_group(process, StopSignal::Kill).unwrap());
    assert_eq!(stage.driver.usage(process), None);
    assert_eq!(stage.members(Some(process)), []);
}

/// A hardened machine shows no process of other users, and none of those is ours.
#[test]
fn processes_hidden_by_the_system_are_no_members() {
    const MOUNT: &str = "mount -t proc -o hidepid=1 proc /proc";
    let unshared = |script: &str| format!("unshare -m --propagation private /bin/sh -c '{script}' \"$0\"");
    let may_mount = Command::new("/bin/sh").args(["-c", &unshared(MOUNT)]).output();
    if !may_mount.is_ok_and(|output| output.status.success()) {
        return skipped("hidden processes", "only root on Linux can hide them");
    }
    let script = format!("{MOUNT} && exec \"$0\" actor::actor --exact --nocapture");
    assert!(Stage::new().act(&format!("exec {}", unshared(&script)), "hidden processes"));
}

#[test]
fn fusion_and_its_ancestors_are_not_signalled() {
    let own = i64::from(std::process::id());
    let parent = i64::from(unistd::getppid().as_raw());
    let driver = UnixDriver::new();
    for number in [own, parent] {
        let pid = Pid::try_from(number).unwrap();
        let identity = driver.identify(pid).unwrap().unwrap();
        for refused in [
            driver.signal(&identity, StopSignal::Kill),
            driver.signal_group(&identity, StopSignal::Kill).map(drop),
        ] {
            assert!(
                matches!(refused, Err(ProcessError::Ourselves { pid: named }) if named == pid),
                "{refused:?}"
            );
        }
    }
}
