//! Real programs that are no model servers: nginx, which puts itself into the background and is told to quit, Redis,
//! which speaks no HTTP, and Python's file server.

mod support;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;
use support::processes::lives;
use support::{Finished, Sandbox, real};

fn main() -> ExitCode {
    real::main_of(&[
        ("nginx", "nginx", real::tests![nginx_puts_itself_into_the_background]),
        ("redis", "redis-server", real::tests![redis_is_ready_when_its_port_accepts]),
        ("python", "python3", real::tests![two_file_servers_run_at_once]),
    ])
}

#[track_caller]
fn run(sandbox: &Sandbox, words: &str, code: i32) -> Finished {
    sandbox.fusion(words.split(' ')).run().assert_code(code)
}

fn ps(sandbox: &Sandbox, service: &str) -> Value {
    sandbox.fusion([service, "ps", "--json"]).run().json()
}

fn pid_of(ps: &Value) -> i32 {
    ps["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("a PID")
}

/// Its first process ends with 0 and leaves a master with its workers.
fn nginx_puts_itself_into_the_background(program: &Path) {
    let sandbox = Sandbox::without_config();
    let directory = sandbox.project().join("site");
    fs::create_dir_all(directory.join("logs")).expect("the sandbox is writable");
    fs::write(directory.join("index.html"), "hello").expect("the sandbox is writable");
    let port = sandbox.port("ollama");
    let place = directory.display();
    fs::write(
        directory.join("nginx.conf"),
        format!(
            "pid {place}/nginx.pid;\nerror_log {place}/logs/error.log;\nworker_processes 2;\n\
             events {{}}\nhttp {{ access_log {place}/logs/access.log; client_body_temp_path {place}/1;\n\
             proxy_temp_path {place}/2; fastcgi_temp_path {place}/3; uwsgi_temp_path {place}/4;\n\
             scgi_temp_path {place}/5; server {{ listen 127.0.0.1:{port}; root {place}; }} }}\n"
        ),
    )
    .expect("the sandbox is writable");
    let nginx = program.display();
    sandbox.write_config(&format!(
        "[templates.nginx]\n\
         start_command = \"'{nginx}' -p '{{working_dir}}' -c '{{working_dir}}/nginx.conf' -e '{{working_dir}}/logs/error.log'\"\n\
         stop_command = \"'{nginx}' -p '{{working_dir}}' -c '{{working_dir}}/nginx.conf' -e '{{working_dir}}/logs/error.log' -s quit\"\n\
         health_endpoint = \"http://localhost:{{port}}/index.html\"\n\
         [instances.site]\ntemplate = \"nginx\"\nport = {port}\nworking_dir = '${{PROJECT_ROOT}}/site'\n"
    ));
    run(&sandbox, "site up", 0);
    let ready = ps(&sandbox, "site");
    assert_eq!(ready["state"], "ready");
    let master = fs::read_to_string(directory.join("nginx.pid")).expect("the PID file of nginx");
    assert_eq!(master.trim(), pid_of(&ready).to_string(), "the one that listens is the master");
    run(&sandbox, "site health", 0);
    let down = run(&sandbox, "site down", 0);
    assert_eq!(down.stderr(), "", "the stop_command succeeded");
    sandbox.assert_nothing_runs();
    assert!(!directory.join("nginx.pid").exists(), "nginx has stopped by itself");
}

fn redis_is_ready_when_its_port_accepts(program: &Path) {
    let sandbox = Sandbox::without_config();
    let port = sandbox.port("ollama");
    for daemonize in ["no", "yes"] {
        sandbox.write_config(&format!(
            "[templates.redis]\n\
             command = ['{}', '--port', '{{port}}', '--bind', '{{host}}', '--daemonize', '{daemonize}', '--save', '']\n\
             [instances.cache]\ntemplate = \"redis\"\nport = {port}\n",
            program.display()
        ));
        run(&sandbox, "cache up", 0);
        let ready = ps(&sandbox, "cache");
        assert_eq!((&ready["state"], &ready["runtime"]), (&"ready".into(), &Value::Null));
        let pid = pid_of(&ready);
        assert!(lives(pid));
        run(&sandbox, "cache health", 0);
        run(&sandbox, "cache restart", 0);
        let again = ps(&sandbox, "cache");
        assert!(!again["pid"].is_null(), "{again} {}", sandbox.log("cache"));
        assert_ne!(pid_of(&again), pid);
        let down = run(&sandbox, "cache down", 0);
        assert!(!down.stdout().contains("killed"), "{down}");
        sandbox.assert_nothing_runs();
    }
    // What else listens there is never taken for it.
    let _other = real::hold(port);
    run(&sandbox, "cache up", 5);
    assert_eq!(ps(&sandbox, "cache")["state"], "stopped");
}

fn two_file_servers_run_at_once(program: &Path) {
    let sandbox = Sandbox::without_config();
    let (one, two) = (sandbox.port("ollama"), sandbox.port("mlx"));
    let (first, last) = (one.min(two), one.max(two));
    for name in ["a", "b c"] {
        fs::create_dir_all(sandbox.project().join(name)).expect("the sandbox is writable");
        fs::write(sandbox.project().join(name).join("name.txt"), name).expect("the sandbox is writable");
    }
    sandbox.write_config(&format!(
        "[templates.files]\n\
         start_command = \"'{}' -m http.server {{port}} --bind 127.0.0.1 --directory {{working_dir}}\"\n\
         health_endpoint = \"http://localhost:{{port}}/name.txt\"\n\
         port_range = [{first}, {last}]\n\
         [instances.first]\ntemplate = \"files\"\nport = {one}\nworking_dir = '${{PROJECT_ROOT}}/a'\n\
         [instances.second]\ntemplate = \"files\"\nport = {two}\nworking_dir = '${{PROJECT_ROOT}}/b c'\n",
        program.display()
    ));
    run(&sandbox, "first up", 0);
    run(&sandbox, "second up", 0);
    for (service, name, port) in [("first", "a", one), ("second", "b c", two)] {
        assert_eq!(ps(&sandbox, service)["state"], "ready");
        let url = format!("http://127.0.0.1:{port}/name.txt");
        let read = sandbox.command(program).arg("-c").arg(format!(
            "import urllib.request; print(urllib.request.urlopen('{url}').read().decode(), end='')"
        ));
        read.run().assert_code(0).assert_stdout(name);
    }
    run(&sandbox, "down", 0);
    sandbox.assert_nothing_runs();
}
