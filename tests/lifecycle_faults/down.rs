//! Faults of `down` and `restart`.

use nix::sys::signal::Signal;

use crate::support::{Sandbox, processes, wait_until};
use crate::{assert_nothing_left, down, state, up, with_faults};

#[test]
fn ignores_sigterm() {
    let sandbox = with_faults("ollama", &["ignore-term"]);
    up(&sandbox, "ollama");
    sandbox.fusion(["ollama", "down", "--timeout", "0.3"]).run().assert(
        0,
        "ollama is down (killed)\n",
        "warning: ollama (process [PID]) did not end in time and is killed\n",
    );
    assert_nothing_left(&sandbox, "ollama");
}

#[test]
fn ignores_sigterm_and_is_forced() {
    let sandbox = with_faults("ollama", &["ignore-term", "children=2", "children-ignore-term"]);
    up(&sandbox, "ollama");
    sandbox.fusion(["ollama", "down", "--force"]).run().assert(0, "ollama is down (killed)\n", "");
    assert_nothing_left(&sandbox, "ollama");
}

#[test]
fn takes_a_while_to_finish_and_is_let() {
    let sandbox = with_faults("ollama", &["slow-end=1500"]);
    up(&sandbox, "ollama");
    down(&sandbox, "ollama").assert(0, "ollama is down\n", "");
    assert!(sandbox.log("ollama").ends_with("ended in peace\n"), "{}", sandbox.log("ollama"));
}

#[test]
fn children() {
    let sandbox = with_faults("ollama", &["children=3"]);
    up(&sandbox, "ollama");
    down(&sandbox, "ollama").assert(0, "ollama is down\n", "");
}

#[test]
fn children_that_ignore_sigterm() {
    let sandbox = with_faults("ollama", &["children=2", "children-ignore-term"]);
    up(&sandbox, "ollama");
    let down = sandbox.fusion(["ollama", "down", "--timeout", "0.3"]).run().assert_code(0);
    assert_eq!(down.stdout(), "ollama is down (killed)\n");
    assert_nothing_left(&sandbox, "ollama");
}

#[test]
fn a_child_with_its_own_session() {
    let sandbox = with_faults("ollama", &["children=1", "children-own-session"]);
    up(&sandbox, "ollama");
    down(&sandbox, "ollama").assert(0, "ollama is down\n", "");
}

#[test]
fn a_child_with_its_own_session_that_ignores_sigterm() {
    let sandbox = with_faults("ollama", &["children=1", "children-own-session", "children-ignore-term"]);
    up(&sandbox, "ollama");
    sandbox.fusion(["ollama", "down", "--timeout", "0.3"]).run().assert_code(0);
    assert_nothing_left(&sandbox, "ollama");
}

#[test]
fn stopped_by_sigstop() {
    let sandbox = Sandbox::new();
    let pid = up(&sandbox, "ollama");
    processes::send(pid, Signal::SIGSTOP);
    assert_eq!(state(&sandbox, "ollama"), "unhealthy");
    down(&sandbox, "ollama").assert(0, "ollama is down\n", "");
}

/// Up, and then the server dies and leaves two children.
fn left_children(own_session: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    let die = sandbox.root().join("die");
    sandbox.faults("ollama", &["children=2", own_session, &format!("die-when={}", die.display())]);
    let pid = up(&sandbox, "ollama");
    std::fs::write(die, "").expect("the sandbox is writable");
    wait_until("the leader is dead", || !processes::lives(pid));
    sandbox
}

/// What a crashed server leaves behind is found, although its parent is gone.
#[test]
fn leader_dead_and_children_alive() {
    for own_session in ["", "children-own-session"] {
        let sandbox = left_children(own_session);
        assert_eq!(servers(&sandbox).len(), 2);
        assert_eq!(state(&sandbox, "ollama"), "unhealthy");
        down(&sandbox, "ollama").assert(0, "ollama is down\n", "");
    }
}

/// Who lives apart from the log rotator, which ends by itself within a second of the last of them.
fn servers(sandbox: &Sandbox) -> Vec<i32> {
    let mut living = sandbox.processes();
    living.retain(|pid| !processes::describe(*pid).contains("rotate-log"));
    living
}

#[test]
fn leader_dead_and_children_alive_and_up_starts_anew() {
    let sandbox = left_children("");
    sandbox.faults("ollama", &[]);
    let again = sandbox.fusion(["ollama", "up"]).run().assert_code(0);
    assert!(again.stderr().contains("left processes behind"), "{}", again.stderr());
    assert_eq!(servers(&sandbox).len(), 1);
    down(&sandbox, "ollama");
}

#[test]
fn not_running() {
    let sandbox = Sandbox::new();
    for _ in 0..2 {
        sandbox.fusion(["ollama", "down"]).run().assert(0, "ollama is down\n", "");
    }
    sandbox.fusion(["down"]).run().assert(0, "", "nothing is running that fusion started\n");
}

#[test]
fn two_downs() {
    let sandbox = with_faults("ollama", &["slow-end=400"]);
    up(&sandbox, "ollama");
    let both = [sandbox.fusion(["ollama", "down"]).start(), sandbox.fusion(["ollama", "down"]).start()];
    for one in both {
        assert_eq!(one.finish().assert_code(0).stdout(), "ollama is down\n");
    }
    assert_nothing_left(&sandbox, "ollama");
}

#[test]
fn exits_by_itself_meanwhile() {
    for delay in [0, 1, 3, 10] {
        let sandbox = with_faults("ollama", &["ignore-term"]);
        let pid = up(&sandbox, "ollama");
        let down = sandbox.fusion(["ollama", "down"]).start();
        std::thread::sleep(std::time::Duration::from_millis(delay));
        processes::kill(pid);
        assert_eq!(down.finish().assert_code(0).stdout(), "ollama is down\n");
        assert_nothing_left(&sandbox, "ollama");
    }
}

#[test]
fn exited_by_itself_before() {
    let sandbox = Sandbox::new();
    let pid = up(&sandbox, "ollama");
    processes::kill(pid);
    wait_until("it is dead", || !processes::lives(pid));
    assert_eq!(state(&sandbox, "ollama"), "exited");
    down(&sandbox, "ollama").assert(0, "ollama is down\n", "");
    assert_eq!(state(&sandbox, "ollama"), "stopped");
}

/// Two at once could not both have the port, and the log would have been rotated while its writer lived.
#[test]
fn restart_never_has_two_alive() {
    let sandbox = with_faults("ollama", &["slow-end=300", "print=started"]);
    let first = up(&sandbox, "ollama");
    let restart = sandbox.fusion(["ollama", "restart"]).start();
    let mut restart = restart;
    while !restart.has_ended() {
        let servers: Vec<i32> = sandbox
            .processes()
            .into_iter()
            .filter(|pid| processes::describe(*pid).contains("fake-runtime ollama"))
            .collect();
        assert!(servers.len() <= 1, "{servers:?}");
        let log = sandbox.log("ollama");
        let second_lives = processes::lives(first) && log.matches("started").count() == 2;
        assert!(!second_lives, "{log}");
    }
    restart.finish().assert(0, "ollama is up at http://127.0.0.1:[OLLAMA] (pid [PID])\n", "");
    assert_ne!(sandbox.pid("ollama"), Some(first));
    down(&sandbox, "ollama");
}

#[test]
fn restart_of_what_is_not_running_starts_it() {
    let sandbox = Sandbox::new();
    sandbox.fusion(["ollama", "restart"]).run().assert_code(0);
    down(&sandbox, "ollama");
}

/// What could not be started again is not stopped.
#[test]
fn restart_of_what_cannot_be_started_again() {
    let sandbox = Sandbox::new();
    let pid = up(&sandbox, "mlx");
    std::fs::remove_file(sandbox.model().join("config.json")).expect("the sandbox is writable");
    sandbox.fusion(["mlx", "restart"]).run().assert_code(7);
    sandbox.configure("", "command = [\"/nowhere\"]");
    sandbox.fusion(["mlx", "restart"]).run().assert_code(4);
    assert!(processes::lives(pid), "it was stopped");
    down(&sandbox, "mlx");
}

#[test]
fn a_broken_configuration_does_not_keep_it_up() {
    let sandbox = Sandbox::new();
    up(&sandbox, "ollama");
    sandbox.write_config("[ollama_server\nport = what?\n");
    sandbox.fusion(["ollama", "up"]).run().assert_code(2);
    let down = sandbox.fusion(["ollama", "down"]).run().assert_code(0);
    assert_eq!(down.stdout(), "ollama is down\n");
    assert!(down.stderr().starts_with("warning: "), "{}", down.stderr());
    assert_nothing_left(&sandbox, "ollama");
}

#[test]
fn the_configured_address_has_changed() {
    let sandbox = Sandbox::new();
    let pid = up(&sandbox, "ollama");
    let elsewhere = crate::support::ports::Port::free();
    sandbox.write_config(&format!("[ollama_server]\nport = {}\n", elsewhere.number()));
    let ps = sandbox.fusion(["ollama", "ps"]).run().assert_code(0);
    assert!(ps.stdout().contains(&sandbox.url("ollama")), "{}", ps.stdout());
    assert!(ps.stdout().contains("the configuration has changed"), "{}", ps.stdout());
    let again = sandbox.fusion(["ollama", "up"]).run().assert_code(0);
    assert_eq!(again.stdout(), format!("ollama is up at {} (pid {pid})\n", sandbox.url("ollama")));
    assert!(again.stderr().contains("has changed since it was started"), "{}", again.stderr());
    down(&sandbox, "ollama");
}

/// `fusion down` goes on after a failure.
#[test]
fn one_that_cannot_be_stopped_does_not_keep_the_others_up() {
    let sandbox = Sandbox::new();
    up(&sandbox, "mlx");
    // A record that a newer fusion wrote cannot be understood, so nothing is done about it.
    std::fs::create_dir_all(sandbox.config_dir().join("ollama")).expect("the sandbox is writable");
    std::fs::write(sandbox.file("ollama", "state.json"), "{\"format\": 99}")
        .expect("the sandbox is writable");
    let down = sandbox.fusion(["down"]).run().assert_code(1);
    assert_eq!(down.stdout(), "mlx is down\n");
    assert!(down.stderr().contains("format 99"), "{}", down.stderr());
    sandbox.assert_nothing_runs();
}
