//! The addresses of instances: which port each gets, and who has it already.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use super::support::{Sandbox, three_ports};
use super::{ps, run, web};

#[test]
fn ports_are_chosen_in_order_and_kept() {
    let sandbox = Sandbox::new();
    let (_held, first) = three_ports();
    let (second, third) = (first + 1, first + 2);
    let range = format!("default_port = {second}\nport_range = [{first}, {third}]\n");
    let instances = ["a", "b", "c", "e"].map(|name| format!("[instances.{name}]\ntemplate = \"web\"\n"));
    sandbox.write_config(&web("", &range, &instances.concat()));
    for (name, port) in [("a", second), ("b", first), ("c", third)] {
        assert_eq!(ps(&sandbox, name)["address"], serde_json::Value::Null);
        run(&sandbox, &format!("{name} up"), 0);
        assert_eq!(ps(&sandbox, name)["address"], format!("http://127.0.0.1:{port}"));
        let kept = std::fs::read_to_string(sandbox.file(name, "port")).expect("it is kept");
        assert_eq!(kept, format!("{port}\n"));
        let mode = std::fs::metadata(sandbox.file(name, "port")).expect("it is kept").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let refused = run(&sandbox, "e up", 5).stderr();
    assert!(refused.contains(&format!("every port from {first} to {third} is in use")), "{refused}");
    // Tried first the next time.
    run(&sandbox, "c down", 0);
    run(&sandbox, "b down", 0);
    assert_eq!(ps(&sandbox, "c")["address"], format!("http://127.0.0.1:{third}"));
    run(&sandbox, "c up", 0);
    assert_eq!(ps(&sandbox, "c")["address"], format!("http://127.0.0.1:{third}"));
    run(&sandbox, "c down", 0);
    // What was kept is in use by another program: the next one.
    let other = TcpListener::bind(("127.0.0.1", third)).expect("a free port");
    run(&sandbox, "c up", 0);
    assert_eq!(ps(&sandbox, "c")["address"], format!("http://127.0.0.1:{first}"));
    drop(other);
    run(&sandbox, "down", 0);
}

#[test]
fn a_single_port_in_use_names_its_listener() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("ollama");
    let file = |more: &str| {
        web("", &format!("default_port = {port}\n"), &format!("[instances.x]\ntemplate = \"web\"\n{more}"))
    };
    sandbox.write_config(&file(""));
    let other = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
    let refused = run(&sandbox, "x up", 5).stderr();
    assert!(refused.contains(&format!("error: port {port} is in use by ")), "{refused}");
    drop(other);
    sandbox.write_config(&file(&format!("[instances.y]\ntemplate = \"web\"\nport = {port}\n")));
    insta::assert_snapshot!(run(&sandbox, "x up", 5), @"
    exit 5
    [stderr]
    error: port [OLLAMA] is configured for another service, and the template has no other
    hint: choose a port: fusion config set instances.x.port PORT
    ");
}

/// Before it the instance has no port.
#[test]
fn first_start_warns_of_a_public_host() {
    let sandbox = Sandbox::new();
    let port = format!("default_port = {}\n", sandbox.port("ollama"));
    sandbox.write_config(&web("", &port, "[instances.x]\ntemplate = \"web\"\nhost = \"0.0.0.0\"\n"));
    insta::assert_snapshot!(run(&sandbox, "x up", 0), @"
    exit 0
    [stdout]
    x is up at http://127.0.0.1:[OLLAMA] (pid [PID])
    [stderr]
    warning: x listens on 0.0.0.0:[OLLAMA]: the server has no authentication: anyone who can reach this address can use it
    ");
    run(&sandbox, "x down", 0);
}

#[test]
fn instances_started_at_once_get_different_ports() {
    let sandbox = Sandbox::new();
    let (_held, first) = three_ports();
    let range = format!("port_range = [{first}, {}]\n", first + 2);
    let instances = ["a", "b", "c"].map(|name| format!("[instances.{name}]\ntemplate = \"web\"\n"));
    sandbox.write_config(&web("bind-after=300", &range, &instances.concat()));
    let ups = ["a", "b", "c"].map(|name| sandbox.fusion([name, "up"]).start());
    for up in ups {
        up.finish().assert_code(0);
    }
    let mut ports: Vec<String> =
        ["a", "b", "c"].map(|name| ps(&sandbox, name)["address"].to_string()).to_vec();
    ports.sort();
    ports.dedup();
    assert_eq!(ports.len(), 3, "{ports:?}");
    run(&sandbox, "down", 0);
}

#[test]
fn configured_ports_of_others_are_left_out() {
    let sandbox = Sandbox::new();
    let (_held, first) = three_ports();
    let range = format!("default_port = {first}\nport_range = [{first}, {}]\n", first + 2);
    sandbox.write_config(&web(
        "",
        &range,
        &format!(
            "[instances.a]\ntemplate = \"web\"\n[instances.b]\ntemplate = \"web\"\nport = {first}\n\
             [gateway]\nport = {}\n",
            first + 1
        ),
    ));
    run(&sandbox, "a up", 0);
    assert_eq!(ps(&sandbox, "a")["address"], format!("http://127.0.0.1:{}", first + 2));
    run(&sandbox, "a down", 0);
}

#[test]
fn second_service_of_an_address_names_the_first() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("ollama");
    sandbox.write_config(&web(
        "",
        "",
        &format!(
            "[instances.one]\ntemplate = \"web\"\nport = {port}\n[instances.two]\ntemplate = \"web\"\nport = {port}\n"
        ),
    ));
    insta::assert_snapshot!(run(&sandbox, "one up", 0), @"
    exit 0
    [stdout]
    one is up at http://127.0.0.1:[OLLAMA] (pid [PID])
    [stderr]
    warning: two is configured at 127.0.0.1:[OLLAMA], too; only one of them can run
    ");
    insta::assert_snapshot!(run(&sandbox, "two up", 5), @"
    exit 5
    [stderr]
    error: one (pid [PID]) runs at 127.0.0.1:[OLLAMA]
    hint: stop it: fusion one down; or choose another port: fusion config set instances.two.port [SPARE]
    ");
    run(&sandbox, "two health", 5);
    // It is no server that fusion did not start.
    assert_eq!(ps(&sandbox, "two")["state"], "stopped");
    assert_eq!(ps(&sandbox, "one")["state"], "ready");
    run(&sandbox, "two down", 0);
    assert_eq!(ps(&sandbox, "one")["state"], "ready");
    run(&sandbox, "one down", 0);
}
