//! A process of its own for the tests that need one.

use std::path::Path;
use std::time::Duration;

use fusion::cli::terminal::signals::{self, Terminal};
use fusion::core::address::Address;
use fusion::core::files::FileError;
use fusion::core::process::{Listener, Liveness, Pid, ProcessDriver, ProcessError, ProcessSpec, StopSignal};
use fusion::core::services::record::{Record, RecordError};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{self, Uid};
use serde_json::{Value, json};

use crate::identity::{assert_elsewhere, process_id};
use crate::stage::{Stage, ended};
use crate::state::{lock, record, service_paths};
use crate::support::wait_until;

/// No test: what [`Stage::actor`] starts.
#[test]
#[expect(clippy::disallowed_methods, reason = "a variable names the actor's role")]
fn actor() {
    let (Ok(role), Some(directory)) =
        (std::env::var("FUSION_TEST_ROLE"), std::env::var_os("FUSION_TEST_STAGE"))
    else {
        return;
    };
    let stage = Stage::at(Path::new(&directory));
    let spec = ProcessSpec { directory: "/".into(), ..stage.dumping() };
    match role.as_str() {
        "spawn" => drop(stage.driver.spawn(&spec).unwrap()),
        "spawn and wait" => {
            let exits = stage.spec("/bin/sh", &["-c", "exit 7"]);
            let ending = ended(stage.driver.spawn(&exits).unwrap().as_ref());
            tell(&stage, &json!({"ending": format!("{ending:?}")}));
        }
        "fail to spawn" => {
            let missing = ProcessSpec { program: stage.path("missing"), ..spec };
            assert!(matches!(stage.driver.spawn(&missing), Err(ProcessError::ProgramMissing { .. })));
            assert_eq!(nix::sys::wait::waitpid(None, None), Err(nix::errno::Errno::ECHILD));
        }
        "another user" => another_user(&stage),
        "another container" => {
            let process = std::fs::read_to_string(stage.path("process")).unwrap();
            assert_elsewhere(&stage, &process_id(&serde_json::from_str(&process).unwrap()));
            let child = stage.driver.spawn(&stage.spec("/bin/sh", &["-c", "sleep 1000"])).unwrap();
            tell(&stage, &json!(child.id()));
        }
        #[cfg(target_os = "linux")]
        "hidden processes" => hidden_processes(&stage),
        "remember" | "remember although blocked" => {
            let blocked = SigSet::thread_get_mask().unwrap().contains(Signal::SIGTERM);
            assert_eq!(blocked, role == "remember although blocked");
            let _remembering = signals::remember();
            tell(&stage, &json!("remembering"));
            let token = signals::token();
            wait_until("a signal came", || token.is_cancelled());
            let signal = signals::cause(&token).unwrap();
            tell(&stage, &json!(signal as i32));
            wait_until("it may go on", || stage.path("go").exists());
            signals::raise_again(signal);
        }
        "forget" => {
            drop(signals::remember());
            tell(&stage, &json!("remembering"));
            wait_until("it may go on", || stage.path("go").exists());
        }
        "clean" | "line" | "styled" => {
            signals::clean_terminal_on_death();
            signals::showing(match role.as_str() {
                "line" => Terminal::Line,
                "styled" => Terminal::Styled,
                _ => Terminal::Clean,
            });
            tell(&stage, &json!("showing"));
            wait_until("it may go on", || stage.path("go").exists());
        }
        "hold the lock" => {
            let _lock = lock(&stage, Duration::ZERO).unwrap();
            tell(&stage, &json!("locked"));
            wait_until("it may go on", || stage.path("go").exists());
        }
        "write a record" => {
            let new = Record { model: Some("new".to_owned()), ..record(&stage) };
            let error = new.write(&service_paths(&stage)).unwrap_err();
            let RecordError::File(FileError::Io { source, .. }) = &error else { panic!("{error:?}") };
            assert_eq!(source.kind(), std::io::ErrorKind::FileTooLarge);
        }
        role => panic!("no such role: {role}"),
    }
}

fn tell(stage: &Stage, facts: &Value) {
    std::fs::write(stage.path("new"), facts.to_string()).unwrap();
    std::fs::rename(stage.path("new"), stage.path("facts")).unwrap();
}

#[cfg(target_os = "linux")]
fn hidden_processes(stage: &Stage) {
    // The members of group 0 see everything.
    unistd::setgroups(&[]).unwrap();
    unistd::setgid(unistd::Gid::from_raw(65534)).unwrap();
    unistd::setuid(Uid::from_raw(65534)).unwrap();
    let refused = std::fs::read("/proc/1/stat").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    assert_eq!(stage.driver.members(stage.instance(None)).unwrap(), []);
}

fn another_user(stage: &Stage) {
    let read = |name: &str| std::fs::read_to_string(stage.path(name)).unwrap();
    let victim = Pid::try_from(read("victim").parse::<i64>().unwrap()).unwrap();
    let address = Address { host: "127.0.0.1".to_owned(), port: read("port").parse().unwrap() };
    unistd::setuid(Uid::from_raw(65534)).unwrap();
    let identity = stage.driver.identify(victim).unwrap().expect("another user's process is seen");
    assert_eq!(stage.driver.liveness(&identity).unwrap(), Liveness::Alive);
    for refused in [
        stage.driver.signal(&identity, StopSignal::Terminate),
        stage.driver.signal_group(&identity, StopSignal::Terminate).map(drop),
    ] {
        let Err(ProcessError::Signal { pid, source }) = refused else { panic!("{refused:?}") };
        assert_eq!(pid, victim);
        assert_eq!(source.kind(), std::io::ErrorKind::PermissionDenied);
    }
    assert_eq!(stage.driver.listener(&address, None).unwrap(), Listener::Unknown);
}
