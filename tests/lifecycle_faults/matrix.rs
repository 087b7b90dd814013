//! Every kind of service keeps the rules of the lifecycle.

use std::net::TcpListener;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::support::matrix::{for_each_service, role_of};
use super::support::{Running, Sandbox, fake_runtime, processes, wait_until, write_program};
use super::{assert_nothing_left, assert_up_fails, down, state, up};

#[test]
fn every_kind_starts_and_stops() {
    for_each_service(&[], |sandbox, service| {
        let pid = up(sandbox, service);
        assert_eq!(state(sandbox, service), "ready");
        // Idempotent.
        assert_eq!(up(sandbox, service), pid);
        sandbox.fusion([service, "health"]).run().assert_code(0);
        sandbox.fusion([service, "restart"]).run().assert_code(0);
        assert_ne!(sandbox.pid(service), Some(pid));
        down(sandbox, service);
        assert_eq!(state(sandbox, service), "stopped");
        down(sandbox, service);
    });
}

#[test]
fn early_death_of_every_kind_is_told() {
    for faults in [&["print=broken", "die=3"][..], &["never-bind", "die-after=300"], &["signal=9"]] {
        for_each_service(faults, |sandbox, service| {
            assert_up_fails(sandbox, service, 6);
        });
    }
}

#[test]
fn no_kind_starts_without_its_program() {
    for_each_service(&[], |sandbox, service| {
        let file = sandbox.config_dir().join("config.toml");
        let text = std::fs::read_to_string(file).expect("the configuration");
        let [locked, script] = ["locked", "script"].map(|name| sandbox.root().join(name));
        std::fs::write(&locked, "no program").expect("the sandbox is writable");
        write_program(&script, "#!/nowhere/python3\n");
        for (program, problem) in [
            ("/nowhere/server".into(), "/nowhere/server"),
            (locked, "Permission denied"),
            (script, "its interpreter /nowhere/python3 is missing"),
        ] {
            sandbox.write_config(&text.replace(fake_runtime(), &program.display().to_string()));
            let up = assert_up_fails(sandbox, service, 4);
            assert!(up.stderr().contains(problem), "{up}");
        }
    });
}

#[test]
fn every_kind_is_waited_for() {
    for faults in [&["bind-after=700"][..], &["loading=700"]] {
        for_each_service(faults, |sandbox, service| {
            up(sandbox, service);
            assert_eq!(state(sandbox, service), "ready");
            down(sandbox, service);
        });
    }
}

#[test]
fn no_kind_outlives_its_startup_timeout() {
    for faults in [&["never-bind"][..], &["hang"], &["status=500"]] {
        for_each_service(faults, |sandbox, service| {
            sandbox.fusion([service, "up", "--timeout", "0.5"]).run().assert_code(6);
            assert_nothing_left(sandbox, service);
        });
    }
}

#[test]
fn every_kind_refuses_a_port_in_use() {
    for_each_service(&[], |sandbox, service| {
        let other = TcpListener::bind(("127.0.0.1", sandbox.port("ollama"))).expect("a free port");
        let up = assert_up_fails(sandbox, service, 5);
        assert!(up.stderr().contains("is in use by"), "{up}");
        drop(other);
    });
}

#[test]
fn a_server_that_fusion_did_not_start_survives() {
    for_each_service(&[], |sandbox, service| {
        let port = sandbox.port("ollama").to_string();
        let foreign: Running =
            sandbox.command(fake_runtime()).arg(role_of(service)).arg("--port").arg(&port).start();
        wait_until("it listens", || state(sandbox, service) == "external");
        sandbox.fusion([service, "up"]).run().assert_code(0);
        for words in [&[service, "down"][..], &[service, "down", "--force"], &[service, "restart"]] {
            let refused = sandbox.fusion(words.iter().copied()).run().assert_code(5);
            assert!(refused.stderr().contains("a process that fusion did not start"), "{refused}");
        }
        sandbox.fusion(["down"]).run().assert_code(0);
        assert_eq!(sandbox.record(service), None);
        assert_eq!(state(sandbox, service), "external");
        foreign.signal(Signal::SIGKILL);
        foreign.finish();
    });
}

#[test]
fn every_kind_is_killed_when_it_ignores_sigterm() {
    for_each_service(&["ignore-term", "children=2", "children-ignore-term"], |sandbox, service| {
        up(sandbox, service);
        let down = down(sandbox, service);
        assert!(down.stdout().contains("(killed)"), "{down}");
    });
}

#[test]
fn children_with_their_own_session_end_too() {
    for_each_service(&["children=3", "children-own-session"], |sandbox, service| {
        up(sandbox, service);
        down(sandbox, service);
    });
}

#[test]
fn a_stopped_process_of_every_kind_ends() {
    for_each_service(&[], |sandbox, service| {
        let pid = up(sandbox, service);
        kill(Pid::from_raw(pid), Signal::SIGSTOP).expect("it lives");
        down(sandbox, service);
    });
}

#[test]
fn death_of_every_kind_is_seen() {
    for_each_service(&["print=last words"], |sandbox, service| {
        let pid = up(sandbox, service);
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it lives");
        wait_until("it is gone", || state(sandbox, service) == "exited");
        sandbox.fusion([service, "health"]).run().assert_code(3);
        up(sandbox, service);
        down(sandbox, service);
    });
}

#[test]
fn every_kind_may_put_itself_into_the_background() {
    for_each_service(&["fork-away"], |sandbox, service| {
        let pid = up(sandbox, service);
        assert_eq!(state(sandbox, service), "ready");
        let listed = sandbox.fusion([service, "ps", "--json"]).run().json();
        assert_eq!(listed["pid"], pid);
        down(sandbox, service);
    });
    // Its first process ends after the first response, and only a parent knows the other one.
    for faults in [&["fork-away", "lingers=300"][..], &["fork-away", "hands-over-socket", "lingers=300"]] {
        for_each_service(faults, |sandbox, service| {
            let pid = up(sandbox, service);
            wait_until("the first process is gone", || sandbox.processes().len() <= 2);
            let listed = sandbox.fusion([service, "ps", "--json"]).run().json();
            assert_eq!((&listed["pid"], &listed["state"]), (&pid.into(), &"ready".into()));
            down(sandbox, service);
        });
    }
    let lingers = "lingers-until=[ROOT]/go";
    for faults in [
        &["fork-away", lingers][..],
        &["fork-away", "forks-twice", lingers],
        &["fork-away", "hands-over-socket", lingers],
    ] {
        for_each_service(faults, |sandbox, service| {
            let first = up(sandbox, service);
            let go = sandbox.root().join("go");
            std::fs::write(&go, "").expect("the sandbox is writable");
            wait_until("the first process is gone", || !processes::lives(first));
            let listed = sandbox.fusion([service, "ps", "--json"]).run().json();
            assert_ne!(listed["pid"], first);
            assert_eq!((&listed["state"], &listed["started_by"]), (&"ready".into(), &"fusion".into()));
            assert_ne!(up(sandbox, service), first);
            down(sandbox, service);
            // Both are there.
            std::fs::remove_file(go).expect("the sandbox is writable");
            up(sandbox, service);
            down(sandbox, service);
        });
    }
    for_each_service(&["fork-away", "never-bind", "die-after=200"], |sandbox, service| {
        assert_up_fails(sandbox, service, 6);
    });
}

#[test]
fn a_killed_start_of_every_kind_is_found() {
    for_each_service(&["never-bind"], |sandbox, service| {
        let start = sandbox.fusion([service, "up"]).start();
        wait_until("it is recorded", || sandbox.pid(service).is_some());
        start.signal(Signal::SIGKILL);
        start.finish();
        assert_eq!(state(sandbox, service), "starting");
        down(sandbox, service);
    });
}

#[test]
fn an_interrupted_start_of_every_kind_leaves_nothing() {
    for_each_service(&["never-bind"], |sandbox, service| {
        let start = sandbox.fusion([service, "up"]).start();
        wait_until("it is recorded", || sandbox.pid(service).is_some());
        start.signal(Signal::SIGINT);
        start.finish();
        assert_nothing_left(sandbox, service);
    });
}

/// The listener carries the instance id, so a lost record can be made again.
#[test]
fn every_kind_without_a_record_is_found() {
    for_each_service(&["children=2"], |sandbox, service| {
        let lose = || std::fs::remove_file(sandbox.file(service, "state.json")).expect("a record");
        let pid = up(sandbox, service);
        lose();
        let listed = sandbox.fusion([service, "ps", "--json"]).run().assert_code(0).json();
        assert_eq!(
            (&listed["state"], &listed["pid"], &listed["started_by"]),
            (&json!("ready"), &json!(pid), &json!("fusion"))
        );
        assert!(sandbox.record(service).is_none(), "ps wrote a record");
        let again = sandbox.fusion([service, "up", "--json"]).run().assert_code(0).json();
        assert_eq!((&again["pid"], &again["started"]), (&json!(pid), &json!(false)));
        assert_eq!((&again["state"], &again["started_by"]), (&json!("ready"), &json!("fusion")));
        assert_eq!(sandbox.record(service).expect("a record")["process"]["pid"], pid);
        assert_eq!(state(sandbox, service), "ready");
        lose();
        let stopped = down(sandbox, service);
        assert_eq!(stopped.stdout(), format!("{service} is down\n"), "{stopped}");
    });
}

/// A program may overwrite its environment, and macOS hides that of many.
#[test]
fn a_server_that_hides_its_environment_is_found() {
    let sandbox = Sandbox::new();
    let command = format!(
        "command = [\"/usr/bin/env\", \"-u\", \"FUSION_INSTANCE\", \"{}\", \"ollama\"]",
        fake_runtime()
    );
    sandbox.configure(&command, "");
    let lose = || std::fs::remove_file(sandbox.file("ollama", "state.json")).expect("a record");
    let pid = up(&sandbox, "ollama");
    lose();
    let listed = sandbox.fusion(["ollama", "ps", "--json"]).run().assert_code(0).json();
    assert_eq!((&listed["pid"], &listed["started_by"]), (&json!(pid), &json!("fusion")));
    assert_eq!(up(&sandbox, "ollama"), pid);
    assert_eq!(sandbox.record("ollama").expect("a record")["process"]["pid"], pid);
    lose();
    down(&sandbox, "ollama");
    assert!(!processes::lives(pid));
}

/// The death of `up` between the start and its record leaves an intent: a record without a process.
#[test]
fn a_hidden_server_of_a_killed_up_continues() {
    let sandbox = Sandbox::new();
    let command = format!(
        "command = [\"/usr/bin/env\", \"-u\", \"FUSION_INSTANCE\", \"{}\", \"ollama\", \"bind-when={}\"]",
        fake_runtime(),
        sandbox.root().join("go").display()
    );
    sandbox.configure(&command, "");
    sandbox.fusion(["ollama", "up", "--no-wait"]).run().assert_code(0);
    let pid = sandbox.pid("ollama").expect("a PID file");
    let forget_process = || {
        let mut record = sandbox.record("ollama").expect("a record");
        record["process"] = json!(null);
        std::fs::write(sandbox.file("ollama", "state.json"), record.to_string()).expect("a record");
    };
    forget_process();
    let listed = sandbox.fusion(["ollama", "ps", "--json"]).run().json();
    assert_eq!((&listed["state"], &listed["pid"]), (&json!("starting"), &json!(pid)));
    std::fs::write(sandbox.root().join("go"), "").expect("the sandbox is writable");
    assert_eq!(up(&sandbox, "ollama"), pid, "a second one was started");
    forget_process();
    down(&sandbox, "ollama");
    assert!(!processes::lives(pid));
}

/// Who writes to the log without having been started by fusion leads no session there.
#[test]
fn a_foreign_writer_of_the_log_is_external() {
    let sandbox = Sandbox::new();
    let log = sandbox.file("ollama", "ollama.log");
    std::fs::create_dir_all(sandbox.file("ollama", "")).expect("the sandbox is writable");
    let script = "exec \"$0\" ollama --host 127.0.0.1 --port \"$1\" >> \"$2\" 2>&1";
    let port = sandbox.port("ollama").to_string();
    let server =
        sandbox.command("/bin/sh").arg("-c").arg(script).arg(fake_runtime()).arg(port).arg(&log).start();
    wait_until("it listens", || state(&sandbox, "ollama") == "external");
    let refused = sandbox.fusion(["ollama", "down"]).run().assert_code(5);
    assert!(refused.stderr().contains("did not start"), "{refused}");
    server.signal(Signal::SIGTERM);
    server.finish();
}

/// Only the record is lost: the server may be loading.
#[test]
fn a_loading_server_without_a_record_is_starting() {
    for_each_service(&["loading=60000"], |sandbox, service| {
        sandbox.fusion([service, "up", "--no-wait"]).run().assert_code(0);
        wait_until("it listens", || sandbox.fusion([service, "ps"]).run().stdout().contains("starting"));
        wait_until("it is bound", || {
            std::net::TcpStream::connect(("127.0.0.1", sandbox.port("ollama"))).is_ok()
        });
        std::fs::remove_file(sandbox.file(service, "state.json")).expect("a record");
        assert_eq!(state(sandbox, service), "starting");
        sandbox.fusion([service, "up", "--no-wait"]).run().assert_code(0);
        assert_eq!(sandbox.record(service).expect("a record")["ready"], false);
        down(sandbox, service);
        assert_nothing_left(sandbox, service);
    });
}
