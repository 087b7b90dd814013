//! The command with which a template stops its service.

use super::support::{Sandbox, fake_runtime};
use super::{run, web};

#[test]
fn stop_command_runs_before_the_signals() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("ollama");
    let note = sandbox.root().join("note");
    let file = |stop: &str| {
        web(
            "",
            &format!("stop_command = \"\"\"{stop}\"\"\"\nenv = {{ GREETING = 'hello' }}\n"),
            &format!(
                "[instances.x]\ntemplate = \"web\"\nport = {port}\nstop_timeout = 2\nworking_dir = '${{HOME}}'\n"
            ),
        )
    };
    sandbox.write_config(&file(&format!(
        "MORE=2 sh -c 'echo {{pid}} {{name}} $GREETING $MORE $PWD > {}; kill -0 {{pid}}'",
        note.display()
    )));
    run(&sandbox, "x up", 0);
    let pid = sandbox.pid("x").expect("a PID file");
    assert_eq!(run(&sandbox, "x down", 0).stderr(), "");
    let told = std::fs::read_to_string(&note).expect("it ran");
    assert_eq!(told, format!("{pid} x hello 2 {}\n", sandbox.home().display()));
    for (stop, why) in [
        ("sh -c 'exit 3'", "it exited with status 3"),
        ("sh -c 'kill -9 $$'", "signal 9 ended it"),
        ("no-such-program", "there is no program no-such-program"),
        ("sleep 60", "it did not end within 2 s"),
    ] {
        sandbox.write_config(&file(stop));
        run(&sandbox, "x up", 0);
        let stderr = run(&sandbox, "x down", 0).stderr();
        assert!(stderr.contains("warning: the stop_command of x") && stderr.contains(why), "{stderr}");
        sandbox.assert_nothing_runs();
    }
    // `--force` goes straight to the kill.
    sandbox.write_config(&file("sleep 60"));
    run(&sandbox, "x up", 0);
    run(&sandbox, "x down --force", 0);
}

/// The first process lingers beside the one in the background, and no environment proves that they are one service.
#[test]
fn stop_command_runs_once_for_two_processes() {
    let sandbox = Sandbox::new();
    let (port, note) = (sandbox.port("ollama"), sandbox.root().join("note"));
    sandbox.write_config(&format!(
        "[templates.web]\nhealth_endpoint = \"/api/version\"\n\
         start_command = \"'{}' ollama fork-away lingers-until={} --port {{port}}\"\n\
         stop_command = \"sh -c 'echo {{pid}} >> {}'\"\n\
         [instances.x]\ntemplate = \"web\"\nport = {port}\n",
        fake_runtime(),
        sandbox.root().join("go").display(),
        note.display()
    ));
    run(&sandbox, "x up", 0);
    let record = sandbox.record("x").expect("a record");
    assert_ne!(record["background"]["pid"], record["process"]["pid"]);
    run(&sandbox, "x down", 0);
    let told = std::fs::read_to_string(&note).expect("it ran");
    assert_eq!(told, format!("{}\n", record["background"]["pid"]));
}

/// In the new directory the command might stop another server.
#[test]
fn stop_command_runs_where_the_service_was_started() {
    let sandbox = Sandbox::new();
    let (port, note) = (sandbox.port("ollama"), sandbox.root().join("note"));
    let configure = |directory: &str, host: &str| {
        std::fs::create_dir_all(sandbox.config_dir().join(directory)).expect("the sandbox is writable");
        sandbox.write_config(&web(
            "",
            &format!("stop_command = \"sh -c 'echo $PWD {{working_dir}} {{host}} > {}'\"\n", note.display()),
            &format!(
                "[instances.x]\ntemplate = \"web\"\nport = {port}\nhost = '{host}'\nworking_dir = '{directory}'\n"
            ),
        ));
    };
    configure("old", "127.0.0.1");
    run(&sandbox, "x up", 0);
    configure("new", "localhost");
    assert_eq!(run(&sandbox, "x restart", 0).stderr(), "");
    for (directory, host) in [("old", "127.0.0.1"), ("new", "localhost")] {
        let path = sandbox.config_dir().join(directory);
        let told = std::fs::read_to_string(&note).expect("it ran");
        assert_eq!(told, format!("{0} {0} {host}\n", path.display()));
        run(&sandbox, "x down", 0);
    }
}
