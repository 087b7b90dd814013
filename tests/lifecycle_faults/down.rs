//! Faults of `down` and `restart`.

use nix::sys::signal::Signal;

use crate::support::matrix::{SERVICES, add_key, assert_shows, fleet, for_each_service, reconfigure};
use crate::support::{Sandbox, fake_runtime, processes, same_output, wait_until};
use crate::{assert_nothing_left, down, notes, state, up, with_faults};

#[test]
fn a_server_that_ignores_sigterm_is_killed() {
    let sandbox = with_faults("ollama", &["ignore-term"]);
    up(&sandbox, "ollama");
    insta::assert_snapshot!(sandbox.fusion(["ollama", "down", "--timeout", "0.3"]).run(), @"
    exit 0
    [stdout]
    ollama is down (killed)
    [stderr]
    warning: ollama (pid [PID]) did not stop in time and is killed
    ");
    assert_nothing_left(&sandbox, "ollama");
}

#[test]
fn force_kills_a_server_and_its_children() {
    for_each_service(&["ignore-term", "children=2", "children-ignore-term"], |sandbox, service| {
        up(sandbox, service);
        assert_shows(
            &sandbox.fusion([service, "down", "--force"]).run(),
            service,
            "exit 0\n[stdout]\n[SERVICE] is down (killed)",
        );
        assert_nothing_left(sandbox, service);
    });
}

#[test]
fn a_slow_server_may_finish() {
    for_each_service(&["slow-end=1500"], |sandbox, service| {
        up(sandbox, service);
        let stopped = down(sandbox, service).stdout();
        assert_eq!(
            stopped,
            format!(
                "{service} is down
"
            ),
            "it is not killed"
        );
        assert!(sandbox.log(service).ends_with("ended in peace\n"), "{}", sandbox.log(service));
    });
}

#[test]
fn children_are_stopped() {
    let sandbox = with_faults("ollama", &["children=3"]);
    up(&sandbox, "ollama");
    insta::assert_snapshot!(down(&sandbox, "ollama"), @"
    exit 0
    [stdout]
    ollama is down
    ");
}

#[test]
fn children_that_ignore_sigterm_are_killed() {
    let sandbox = with_faults("ollama", &["children=2", "children-ignore-term"]);
    up(&sandbox, "ollama");
    insta::assert_snapshot!(sandbox.fusion(["ollama", "down", "--timeout", "0.3"]).run(), @"
    exit 0
    [stdout]
    ollama is down (killed)
    [stderr]
    warning: ollama (pid [PID]) did not stop in time and is killed
    ");
    assert_nothing_left(&sandbox, "ollama");
}

#[test]
fn a_child_with_its_own_session_is_stopped() {
    let sandbox = with_faults("ollama", &["children=1", "children-own-session"]);
    up(&sandbox, "ollama");
    insta::assert_snapshot!(down(&sandbox, "ollama"), @"
    exit 0
    [stdout]
    ollama is down
    ");
}

#[test]
fn a_child_in_another_session_is_killed() {
    for_each_service(&["children=1", "children-own-session", "children-ignore-term"], |sandbox, service| {
        up(sandbox, service);
        assert_shows(
            &sandbox.fusion([service, "down", "--timeout", "0.3"]).run(),
            service,
            "exit 0\n\
             [stdout]\n\
             [SERVICE] is down (killed)\n\
             [stderr]\n\
             warning: [SERVICE] (pid [PID]) did not stop in time and is killed",
        );
        assert_nothing_left(sandbox, service);
    });
}

#[test]
fn a_server_suspended_by_sigstop_is_stopped() {
    let sandbox = Sandbox::new();
    let pid = up(&sandbox, "ollama");
    processes::send(pid, Signal::SIGSTOP);
    assert_eq!(state(&sandbox, "ollama"), "unhealthy");
    insta::assert_snapshot!(down(&sandbox, "ollama"), @"
    exit 0
    [stdout]
    ollama is down
    ");
}

/// Up, and then the server dies and leaves two children.
fn left_children(own_session: &str, test: impl Fn(&Sandbox, &str) + Sync) {
    for_each_service(&["children=2", own_session, "die-when=[ROOT]/die"], |sandbox, service| {
        let pid = up(sandbox, service);
        let die = sandbox.root().join("die");
        std::fs::write(&die, "").expect("the sandbox is writable");
        wait_until("the leader is dead", || !processes::lives(pid));
        std::fs::remove_file(die).expect("the sandbox is writable");
        test(sandbox, service);
    });
}

/// They are found although their parent is gone.
#[test]
fn children_of_a_dead_server_are_stopped() {
    assert_left_children_are_stopped("");
}

#[test]
fn sessions_of_a_dead_server_are_stopped() {
    assert_left_children_are_stopped("children-own-session");
}

#[track_caller]
fn assert_left_children_are_stopped(own_session: &str) {
    left_children(own_session, |sandbox, service| {
        assert_eq!(servers(sandbox).len(), 2);
        assert_eq!(state(sandbox, service), "unhealthy");
        down(sandbox, service).assert_stdout(&format!("{service} is down\n"));
    });
}

/// The processes but for the log rotator, which ends by itself within a second of the last of them.
fn servers(sandbox: &Sandbox) -> Vec<i32> {
    let mut living = sandbox.processes();
    living.retain(|pid| !processes::describe(*pid).contains("rotate-log"));
    living
}

#[test]
fn up_stops_children_of_a_dead_server() {
    left_children("", |sandbox, service| {
        let up = sandbox.fusion([service, "up"]).run().assert_code(0);
        let warning =
            "warning: ".to_owned() + service + " died and left processes running; stopping them first\n";
        assert_eq!(up.stderr(), warning);
        assert_eq!(servers(sandbox).len(), 3, "the server and its own children");
        down(sandbox, service);
    });
}

#[test]
fn down_of_a_stopped_service_succeeds() {
    for_each_service(&[], |sandbox, service| {
        let downs = [(), ()].map(|()| sandbox.fusion([service, "down"]).run());
        assert_shows(&same_output(downs), service, "exit 0\n[stdout]\n[SERVICE] is down");
        assert_shows(
            &sandbox.fusion(["down"]).run(),
            service,
            "exit 0\n[stderr]\nnothing is running that fusion started",
        );
    });
}

#[test]
fn two_downs_at_once_both_succeed() {
    for_each_service(&["slow-end=400"], |sandbox, service| {
        up(sandbox, service);
        let downs = [(), ()].map(|()| sandbox.fusion([service, "down"]).start());
        // The stderr of each depends on which of them is first.
        let results = downs.map(|down| down.finish().assert_code(0).stdout());
        assert_eq!(results[0], results[1]);
        assert_eq!(results[0], format!("{service} is down\n"));
        assert_nothing_left(sandbox, service);
    });
}

#[test]
fn a_server_may_exit_during_down() {
    for_each_service(&["ignore-term"], |sandbox, service| {
        for delay in [0, 1, 3, 10] {
            let pid = up(sandbox, service);
            let down = sandbox.fusion([service, "down"]).start();
            std::thread::sleep(std::time::Duration::from_millis(delay));
            processes::kill(pid);
            let down = down.finish().assert_code(0);
            assert_nothing_left(sandbox, service);
            assert_eq!(down.stdout(), format!("{service} is down\n"));
        }
    });
}

#[test]
fn down_clears_the_record_of_an_exited_server() {
    for_each_service(&[], |sandbox, service| {
        let pid = up(sandbox, service);
        processes::kill(pid);
        wait_until("it is dead", || !processes::lives(pid));
        assert_eq!(state(sandbox, service), "exited");
        assert_shows(&down(sandbox, service), service, "exit 0\n[stdout]\n[SERVICE] is down");
        assert_eq!(state(sandbox, service), "stopped");
    });
}

/// Two servers cannot both have the port, and the log must not be rotated while its writer lives.
#[test]
fn restart_never_has_two_alive() {
    for_each_service(&["slow-end=300", "print=started"], |sandbox, service| {
        let first = up(sandbox, service);
        let mut restart = sandbox.fusion([service, "restart"]).start();
        while !restart.has_ended() {
            let servers: Vec<i32> = sandbox
                .processes()
                .into_iter()
                .filter(|pid| processes::describe(*pid).contains("fake-runtime "))
                .collect();
            assert!(servers.len() <= 1, "{servers:?}");
            let log = sandbox.log(service);
            let second_lives = processes::lives(first) && log.matches("started").count() == 2;
            assert!(!second_lives, "{log}");
        }
        restart.finish().assert_code(0);
        assert_ne!(sandbox.pid(service), Some(first));
        down(sandbox, service);
    });
}

#[test]
fn restart_starts_a_stopped_service() {
    for_each_service(&[], |sandbox, service| {
        sandbox.fusion([service, "restart"]).run().assert_code(0);
        down(sandbox, service);
    });
}

#[test]
fn restart_keeps_a_server_that_cannot_start_again() {
    for_each_service(&[], |sandbox, service| {
        let pid = up(sandbox, service);
        reconfigure(sandbox, |text| text.replace(fake_runtime(), "/nowhere/server"));
        let restart = sandbox.fusion([service, "restart"]).run().assert_code(4);
        assert!(restart.stderr().contains("there is no program /nowhere/server"), "{restart}");
        assert!(processes::lives(pid), "it was stopped");
        if service != "ollama" {
            reconfigure(sandbox, |text| text.replace("/nowhere/server", fake_runtime()));
            add_key(sandbox, "working_dir = '/nowhere'");
            let restart = sandbox.fusion([service, "restart"]).run().assert_code(2);
            assert!(restart.stderr().contains("/nowhere, does not exist"), "{restart}");
            assert!(processes::lives(pid), "it was stopped");
        }
        down(sandbox, service);
    });
}

#[test]
fn restart_keeps_a_server_whose_port_is_taken() {
    for_each_service(&[], |sandbox, service| {
        let pid = up(sandbox, service);
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = taken.local_addr().expect("it is bound").port().to_string();
        reconfigure(sandbox, |text| text.replace(&sandbox.port("ollama").to_string(), &port));
        let restart = sandbox.fusion([service, "restart"]).run().assert_code(5);
        assert!(restart.stderr().contains(&format!("port {port} is in use by")), "{restart}");
        assert!(processes::lives(pid), "it was stopped");
        down(sandbox, service);
    });
}

#[test]
fn restart_reports_taken_port_before_missing_program() {
    for_each_service(&[], |sandbox, service| {
        let _taken = std::net::TcpListener::bind(("127.0.0.1", sandbox.port("ollama"))).expect("it is free");
        reconfigure(sandbox, |text| text.replace(fake_runtime(), "/nowhere/server"));
        let restart = sandbox.fusion([service, "restart"]).run().assert_code(5);
        assert!(restart.stderr().contains("is in use by"), "{restart}");
    });
}

/// Of a template of the file no model is looked for.
#[test]
fn restart_keeps_a_server_whose_model_is_gone() {
    let sandbox = Sandbox::new();
    let coder = format!(
        "[instances.coder]\ntemplate = \"mlx\"\nport = {}\nmodel = \"{}\"\n",
        sandbox.port("ollama"),
        sandbox.model().display()
    );
    reconfigure(&sandbox, |text| {
        text.replace(&sandbox.port("ollama").to_string(), &sandbox.port("llama").to_string()) + &coder
    });
    let pids = ["mlx", "coder"].map(|service| up(&sandbox, service));
    std::fs::remove_file(sandbox.model().join("config.json")).expect("the sandbox is writable");
    for (service, pid) in ["mlx", "coder"].into_iter().zip(pids) {
        sandbox.fusion([service, "restart"]).run().assert_code(7);
        assert!(processes::lives(pid), "it was stopped");
    }
    sandbox.fusion(["down"]).run().assert_code(0);
    sandbox.assert_nothing_runs();
}

#[test]
fn down_works_with_a_broken_configuration() {
    for_each_service(&[], |sandbox, service| {
        up(sandbox, service);
        sandbox.write_config("[ollama_server\nport = what?\n");
        sandbox.fusion([service, "up"]).run().assert_code(2);
        assert_shows(
            &sandbox.fusion([service, "down"]).run(),
            service,
            "exit 0\n\
             [stdout]\n\
             [SERVICE] is down\n\
             [stderr]\n\
             warning: [ROOT]/config/config.toml:1:15: unclosed table, expected `]`; the defaults apply in place of what is invalid",
        );
        assert_nothing_left(sandbox, service);
    });
}

#[test]
fn commands_follow_the_recorded_address() {
    for_each_service(&[], |sandbox, service| {
        let pid = up(sandbox, service);
        let elsewhere = crate::support::ports::Port::free();
        let line = |port: u16| format!("port = {port}\n");
        reconfigure(sandbox, |text| text.replace(&line(sandbox.port("ollama")), &line(elsewhere.number())));
        let ps = sandbox.fusion([service, "ps"]).run().assert_code(0);
        assert!(ps.stdout().contains(&sandbox.url("ollama")), "{ps}");
        assert_shows(
            &notes(&ps),
            service,
            "the configuration has changed since the start (address); apply it: fusion [SERVICE] restart",
        );
        assert_shows(
            &sandbox.fusion([service, "up"]).run().assert_names_pid(pid),
            service,
            "exit 0\n\
             [stdout]\n\
             [SERVICE] is up at http://127.0.0.1:[PORT] (pid [PID])\n\
             [stderr]\n\
             warning: the configuration of [SERVICE] has changed since the start (address); apply it: fusion [SERVICE] restart",
        );
        down(sandbox, service);
    });
}

#[test]
fn down_of_all_goes_on_after_a_failure() {
    for failing in SERVICES {
        let (sandbox, _port) = fleet("", &[]);
        let others = SERVICES.into_iter().filter(|service| *service != failing);
        let up: Vec<&str> = std::iter::once("up").chain(others.clone()).collect();
        sandbox.fusion(up).run().assert_code(0);
        // A record of a newer fusion cannot be understood, so `down` leaves it alone.
        std::fs::create_dir_all(sandbox.config_dir().join(failing)).expect("the sandbox is writable");
        std::fs::write(sandbox.file(failing, "state.json"), "{\"format\": 99}")
            .expect("the sandbox is writable");
        let down = sandbox.fusion(["down"]).run().assert_code(1);
        assert_eq!(
            down.stderr(),
            format!(
                "error: {} has format 99; this version reads up to 1\n\
                 hint: use the newer version of fusion that wrote the record\n",
                sandbox.file(failing, "state.json").display()
            )
        );
        for service in SERVICES {
            let result = if service == failing { "failed" } else { "down" };
            let is_row = |line: &str| line.split_whitespace().take(2).eq([service, result]);
            assert!(down.stdout().lines().any(is_row), "{service}: {down}");
        }
        sandbox.assert_nothing_runs();
    }
}
