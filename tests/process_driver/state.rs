//! The lock and the record of a service, as far as their tests need several processes.

use std::time::Duration;

use fusion::core::address::Address;
use fusion::core::cancel::CancelToken;
use fusion::core::events::EventBus;
use fusion::core::paths::{Paths, ServicePaths};
use fusion::core::process::{Liveness, Pid, ProcessDriver};
use fusion::core::services::lock::{ServiceLock, ServiceLockError, is_held};
use fusion::core::services::record::{InstanceId, Record};
use fusion::env::Environment;

use crate::stage::Stage;
use crate::support::{processes, wait_until};

pub(crate) fn service_paths(stage: &Stage) -> ServicePaths {
    let environment = Environment { config_dir: Some(stage.directory.clone()), ..Environment::default() };
    Paths::discover(&environment).unwrap().service("some")
}

pub(crate) fn lock(stage: &Stage, limit: Duration) -> Result<ServiceLock, ServiceLockError> {
    ServiceLock::acquire(&"some".into(), &service_paths(stage), limit, &CancelToken::new(), &EventBus::new())
}

pub(crate) fn record(stage: &Stage) -> Record {
    let address = Address { host: "127.0.0.1".to_owned(), port: 1 };
    let spec = stage.spec("/bin/sh", &[]);
    Record::intent(&spec, InstanceId::try_from("0".repeat(32)).unwrap(), &address, std::time::UNIX_EPOCH)
}

#[test]
fn the_lock_of_a_killed_holder_is_free() {
    let stage = Stage::new();
    let mut holder = stage.actor("", "hold the lock").spawn().unwrap();
    stage.facts("facts");
    let error = lock(&stage, Duration::ZERO).unwrap_err();
    let pid = Pid::try_from(i64::from(holder.id())).unwrap();
    assert!(
        matches!(&error, ServiceLockError::Held { holder: Some(named), .. } if *named == pid),
        "{error:?}"
    );
    assert!(is_held(&service_paths(&stage)).unwrap());
    processes::kill(pid.as_raw());
    holder.wait().unwrap();
    // A process that another test starts now has this process's descriptors until its exec.
    wait_until("it is free", || !is_held(&service_paths(&stage)).unwrap());
    lock(&stage, Duration::from_secs(10)).unwrap();
}

#[test]
fn a_child_does_not_hold_the_lock() {
    let stage = Stage::new();
    let held = lock(&stage, Duration::from_secs(10)).unwrap();
    let child = stage.shell("sleep 1000");
    drop(held);
    lock(&stage, Duration::from_secs(10)).unwrap();
    assert_eq!(stage.driver.liveness(child.id()).unwrap(), Liveness::Alive);
}

/// No file can grow, which is as near to a full disk as a test can get.
#[test]
fn a_full_disk_leaves_the_old_record() {
    let stage = Stage::new();
    let paths = service_paths(&stage);
    let old = record(&stage);
    old.write(&paths).unwrap();
    assert!(stage.act("ulimit -f 0; trap '' XFSZ", "write a record"));
    assert_eq!(Record::read(&paths.state).unwrap(), Some(old));
    assert_eq!(std::fs::read_dir(&paths.directory).unwrap().count(), 1);
}
