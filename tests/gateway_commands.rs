//! `fusion serve` and `fusion gateway`, as programs.

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use nix::sys::signal::Signal;
use serde_json::Value;
use support::ports::Port;
use support::stub_server::{Response, StubServer};
use support::{Running, Sandbox, processes, programs, wait_until};

/// Configures the gateway at a port of its own.
fn with_gateway(sandbox: &Sandbox, more: &str) -> Port {
    let port = Port::free();
    // What a stopped Ollama has is in its store.
    let model = sandbox.home().join(".ollama/models/manifests/registry.ollama.ai/library/llama3.2");
    std::fs::create_dir_all(&model).and_then(|()| std::fs::write(model.join("3b"), "{}")).expect("a store");
    let file = sandbox.config_dir().join("config.toml");
    let text = std::fs::read_to_string(&file).expect("a configuration");
    sandbox.write_config(&format!("{text}\n[gateway]\nport = {}\n{more}\n", port.number()));
    port
}

/// Starts `fusion serve`, and waits until it listens.
fn serving(sandbox: &Sandbox, port: &Port) -> Running {
    let serve = sandbox.fusion(["serve"]).start();
    wait_until("it listens", || TcpStream::connect(("127.0.0.1", port.number())).is_ok());
    serve
}

fn exchange(port: &Port, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port.number())).expect("the gateway listens");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("it responds");
    response
}

fn chat(port: &Port) -> String {
    let body = r#"{"model":"llama3.2:3b","messages":[]}"#;
    let length = body.len();
    exchange(
        port,
        &format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        ),
    )
}

fn state(sandbox: &Sandbox, service: &str) -> Value {
    let json = sandbox.fusion([service, "ps", "--json"]).run().stdout();
    serde_json::from_str::<Value>(&json).expect("JSON")["state"].take()
}

#[test]
fn services_outlive_the_gateway() {
    let sandbox = Sandbox::new();
    let port = with_gateway(&sandbox, "");
    sandbox.fusion(["gateway", "up"]).run().assert_code(0);
    assert!(chat(&port).starts_with("HTTP/1.1 200 "));
    let pid = sandbox.pid("ollama").expect("it was started");
    assert_eq!(state(&sandbox, "gateway"), "ready");
    sandbox.fusion(["gateway", "down"]).run().assert_code(0);
    assert_eq!(state(&sandbox, "gateway"), "stopped");
    assert!(processes::lives(pid));
    assert_eq!(state(&sandbox, "ollama"), "ready");
    sandbox.fusion(["down"]).run().assert_code(0);
}

#[test]
fn down_ends_the_gateway_before_the_services() {
    let sandbox = Sandbox::new();
    let port = with_gateway(&sandbox, "");
    let names = || {
        let json = sandbox.fusion(["ps", "--json"]).run().assert_code(0).stdout();
        let views: Vec<Value> = serde_json::from_str(&json).expect("JSON");
        views.into_iter().map(|view| format!("{} {}", view["name"], view["template"])).collect::<Vec<_>>()
    };
    assert!(!names().contains(&"\"gateway\" \"gateway\"".to_owned()));
    sandbox.fusion(["gateway", "up"]).run().assert_code(0);
    assert!(chat(&port).starts_with("HTTP/1.1 200 "));
    assert!(names().contains(&"\"gateway\" \"gateway\"".to_owned()), "{:?}", names());
    // Without names, what fusion runs: the gateway, too.
    let log = sandbox.fusion(["log"]).run().assert_code(0).stdout();
    assert!(log.lines().any(|line| line.starts_with("gateway | ")), "{log}");
    let [gateway, ollama] = ["gateway", "ollama"].map(|service| sandbox.pid(service));
    sandbox.fusion(["restart"]).run().assert_code(0);
    assert!(sandbox.pid("gateway") != gateway && sandbox.pid("ollama") != ollama, "it was not restarted");
    let down = sandbox.fusion(["down"]).run().assert_code(0);
    let rows: Vec<String> =
        down.stdout().lines().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect();
    assert_eq!(rows, ["SERVICE", "gateway", "ollama"]);
    sandbox.assert_nothing_runs();
}

/// What `metrics` shows of the requests to Ollama.
fn request_metrics(sandbox: &Sandbox) -> Value {
    let metrics = sandbox.fusion(["metrics", "ollama", "--json"]).run().assert_code(0).json();
    metrics["services"][0].clone()
}

#[test]
fn metrics_shows_what_the_gateway_knows() {
    let sandbox = Sandbox::new();
    with_gateway(&sandbox, "token = \"secret\"\nidle_timeout = 1000");
    sandbox.fusion(["gateway", "up"]).run().assert_code(0);
    sandbox.fusion(["ollama", "up"]).run().assert_code(0);
    assert_eq!(request_metrics(&sandbox)["in_flight"], 0);
    sandbox.fusion(["gateway", "down"]).run().assert_code(0);
    assert!(request_metrics(&sandbox)["in_flight"].is_null());
    sandbox.fusion(["down"]).run().assert_code(0);
}

#[test]
fn metrics_shows_the_last_answer() {
    let sandbox = Sandbox::new();
    let port = with_gateway(&sandbox, "idle_timeout = 1000");
    let serve = serving(&sandbox, &port);
    assert!(chat(&port).starts_with("HTTP/1.1 200 "));
    wait_until("the request is counted", || request_metrics(&sandbox)["first_token_ms"].is_number());
    let known = request_metrics(&sandbox);
    assert_eq!(known["in_flight"], 0, "{known}");
    assert!(known["context_used"].is_u64(), "{known}");
    assert!((1..=1000).contains(&known["idle_left_s"].as_u64().expect("a number")), "{known}");
    serve.signal(Signal::SIGTERM);
    assert_eq!(serve.finish().code(), 143);
    sandbox.fusion(["down"]).run().assert_code(0);
}

/// The token goes to no other program.
#[test]
fn metrics_asks_only_a_gateway() {
    let sandbox = Sandbox::new();
    let other = StubServer::start([Response::json(200, r#"{"status":"ok"}"#)]);
    let text = std::fs::read_to_string(sandbox.config_dir().join("config.toml")).expect("a configuration");
    let port = other.port();
    sandbox.write_config(&format!("{text}\n[gateway]\nport = {port}\ntoken = \"secret\"\n"));
    sandbox.fusion(["metrics"]).run().assert_code(0);
    TcpStream::connect(("127.0.0.1", port))
        .and_then(|mut last| last.write_all(b"GET /last HTTP/1.1\r\n\r\n"))
        .expect("it listens");
    let asked = other.request();
    assert_eq!((asked.line.as_str(), asked.header("authorization")), ("GET /api/health HTTP/1.1", None));
    assert_eq!(other.request().line, "GET /last HTTP/1.1");
}

#[test]
fn gateway_up_beside_a_running_one_is_done() {
    let sandbox = Sandbox::new();
    let port = with_gateway(&sandbox, "");
    let serve = serving(&sandbox, &port);
    sandbox.fusion(["gateway", "up"]).run().assert_code(0);
    let taken = sandbox.fusion(["serve"]).run().assert_code(5);
    assert!(
        taken.stderr().contains("is in use by") && taken.stderr().contains(&format!("(pid {})", serve.pid())),
        "{taken}"
    );
    serve.signal(Signal::SIGINT);
    assert_eq!(serve.finish().code(), 130);
}

#[test]
fn gateway_is_named_as_any_service() {
    let sandbox = Sandbox::new();
    let port = with_gateway(&sandbox, "");
    let run = |words: &str, code| sandbox.fusion(words.split(' ')).run().assert_code(code);
    let other = std::net::TcpListener::bind(("127.0.0.1", port.number())).expect("a free port");
    let hint = "choose another port: fusion config set gateway.port [SPARE]";
    let refused = run("up gateway", 5);
    assert!(refused.to_string().contains(hint), "{refused}");
    drop(other);
    run("up gateway ollama", 0);
    let pid = sandbox.pid("gateway").expect("it was started");
    assert!(run("log gateway", 0).stdout().contains("the gateway listens on"));
    assert_eq!(run("ps gateway --json", 0).json()[0]["pid"], pid);
    run("restart gateway", 0);
    assert!(!processes::lives(pid));
    let kept = run("remove gateway --yes", 2);
    assert!(kept.stderr().contains("fusion config unset gateway.KEY"), "{kept}");
    run("down gateway", 0);
    assert_eq!((state(&sandbox, "gateway"), state(&sandbox, "ollama")), ("stopped".into(), "ready".into()));
    assert!(run("up gatway", 2).stderr().contains("did you mean gateway?"));
    run("down", 0);
}

#[test]
fn a_gateway_that_could_not_serve_keeps_running() {
    let sandbox = Sandbox::new();
    let port = with_gateway(&sandbox, "");
    sandbox.fusion(["gateway", "up"]).run().assert_code(0);
    let pid = sandbox.pid("gateway").expect("it was started");
    let file = sandbox.config_dir().join("config.toml");
    let text = std::fs::read_to_string(&file).expect("a configuration");
    for (more, why) in [
        (
            format!("[instances.other]\ntemplate = \"mlx\"\nport = {}\n", port.number()),
            "other has the address of the gateway",
        ),
        (String::new(), "which other machines can reach, and `gateway.token` is not set"),
    ] {
        let gateway = if more.is_empty() { "[gateway]\nhost = \"0.0.0.0\"" } else { "[gateway]" };
        sandbox.write_config(&format!("{}{more}", text.replace("[gateway]", gateway)));
        for words in ["gateway restart", "restart gateway"] {
            let refused = sandbox.fusion(words.split(' ')).run().assert_code(2);
            assert!(refused.stderr().contains(why), "{refused}");
            assert!(processes::lives(pid), "{words}");
        }
    }
    sandbox.write_config(&text);
    sandbox.fusion(["gateway", "down"]).run().assert_code(0);
    sandbox.assert_nothing_runs();
}

/// It has a token there, which the servers of models do not have.
#[test]
fn gateway_open_to_others_warns_of_nothing() {
    let sandbox = Sandbox::new();
    with_gateway(&sandbox, "host = \"0.0.0.0\"\ntoken = \"secret\"");
    let up = sandbox.fusion(["gateway", "up"]).run().assert_code(0);
    assert_eq!(up.stderr(), "");
    sandbox.fusion(["gateway", "down"]).run().assert_code(0);
    sandbox.assert_nothing_runs();
}

#[test]
fn serve_refuses_what_is_not_safe() {
    let sandbox = Sandbox::new();
    with_gateway(&sandbox, "host = \"0.0.0.0\"");
    let refused = sandbox.fusion(["serve"]).run().assert_code(2);
    assert!(refused.stderr().contains("`gateway.token` is not set"), "{}", refused.stderr());
    let sandbox = Sandbox::new();
    let file = sandbox.config_dir().join("config.toml");
    let text = std::fs::read_to_string(&file).expect("a configuration");
    sandbox.write_config(&format!("{text}\n[gateway]\nport = {}\n", sandbox.port("mlx")));
    let refused = sandbox.fusion(["serve"]).run().assert_code(2);
    assert!(refused.stderr().contains("mlx has the address of the gateway"), "{}", refused.stderr());
}

/// Nothing is lost and nothing happens twice.
#[test]
fn killed_gateway_finds_its_start_again() {
    let sandbox = Sandbox::new();
    let gate = sandbox.root().join("gate");
    sandbox.faults("ollama", &[&format!("bind-when={}", gate.display())]);
    let port = with_gateway(&sandbox, "idle_timeout = 1");
    let serve = serving(&sandbox, &port);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = TcpStream::connect(("127.0.0.1", port.number())).expect("it listens");
            let body = r#"{"model":"llama3.2:3b"}"#;
            let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 23\r\n\r\n";
            stream.write_all(format!("{head}{body}").as_bytes()).expect("it reads");
            // It breaks off with the gateway.
            drop(stream.read(&mut [0; 64]));
        });
        wait_until("it starts", || sandbox.pid("ollama").is_some());
        serve.signal(Signal::SIGKILL);
    });
    assert_eq!(serve.finish().code(), 137);
    let pid = sandbox.pid("ollama").expect("it lives on");
    let serve = serving(&sandbox, &port);
    std::fs::write(&gate, "").expect("the sandbox is writable");
    assert!(chat(&port).starts_with("HTTP/1.1 200 "));
    assert_eq!(sandbox.pid("ollama"), Some(pid));
    // Its idle time is over a second after the request.
    wait_until("it is stopped", || !processes::lives(pid));
    serve.signal(Signal::SIGTERM);
    assert_eq!(serve.finish().code(), 143);
    sandbox.assert_nothing_runs();
}

#[test]
fn service_that_run_uses_is_not_stopped() {
    let sandbox = Sandbox::new();
    sandbox.faults("ollama", &["token-after=400"]);
    let port = with_gateway(&sandbox, "idle_timeout = 1");
    let serve = serving(&sandbox, &port);
    assert!(chat(&port).starts_with("HTTP/1.1 200 "));
    let pid = sandbox.pid("ollama").expect("it was started");
    // Longer than the idle time.
    sandbox.fusion(["ollama", "run", "hi"]).run().assert_code(0);
    wait_until("it is stopped", || !processes::lives(pid));
    serve.signal(Signal::SIGTERM);
    assert_eq!(serve.finish().code(), 143);
}

#[test]
fn service_that_died_is_restarted() {
    let sandbox = Sandbox::new();
    sandbox.configure("restart = \"on-failure\"", "");
    let port = with_gateway(&sandbox, "");
    sandbox.fusion(["ollama", "up"]).run().assert_code(0);
    let serve = serving(&sandbox, &port);
    let first = sandbox.pid("ollama").expect("it was started");
    processes::kill(first);
    wait_until("it is started again", || sandbox.pid("ollama").is_some_and(|pid| pid != first));
    wait_until("it is ready", || state(&sandbox, "ollama") == "ready");
    let json = sandbox.fusion(["ollama", "ps", "--json"]).run().json();
    assert_eq!(json["restarts"], 1);
    // What is stopped stays so.
    sandbox.fusion(["ollama", "down"]).run().assert_code(0);
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert_eq!(state(&sandbox, "ollama"), "stopped");
    serve.signal(Signal::SIGTERM);
    assert_eq!(serve.finish().code(), 143);
}

/// The gateway in the background has a working directory of its own.
#[test]
fn gateway_keeps_the_project_of_its_start() {
    let sandbox = Sandbox::new();
    let own = Port::free();
    let more = format!(
        "[instances.own]\ntemplate = \"ollama\"\nport = {}\nworking_dir = \"${{PROJECT_ROOT}}\"\n",
        own.number()
    );
    let port = with_gateway(&sandbox, &more);
    let project = sandbox.root().join("elsewhere");
    std::fs::create_dir(&project).expect("the sandbox is writable");
    sandbox.fusion(["gateway", "up"]).directory(&project).run().assert_code(0);
    let response = exchange(
        &port,
        "POST /api/instances/own/start HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    );
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    let record = sandbox.record("own").expect("it was started");
    assert_eq!(record["project_root"].as_str(), project.to_str());
    // Another directory now is no change of the configuration.
    let shown = sandbox.fusion(["gateway", "ps"]).directory(&sandbox.home()).run().assert_code(0);
    assert!(!(shown.stdout() + &shown.stderr()).contains("has changed"), "{}", shown.stderr());
    sandbox.fusion(["down"]).run().assert_code(0);
    sandbox.assert_nothing_runs();
}

/// A script that starts the server and waits for it.
#[test]
fn idle_stop_ends_wrapper_scripts_and_grandchildren() {
    let sandbox = Sandbox::new();
    let script = sandbox.root().join("wrapper");
    let server = support::fake_runtime();
    programs::write_program(
        &script,
        &format!("#!/bin/sh\n/bin/sleep 1000 &\n'{server}' ollama serve\n: end\n"),
    );
    sandbox.configure(&format!("command = [{script:?}]"), "");
    let port = with_gateway(&sandbox, "idle_timeout = 1");
    let serve = serving(&sandbox, &port);
    let response = chat(&port);
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    let started = sandbox.processes();
    assert!(started.len() >= 3, "the script, its server, another child: {started:?}");
    wait_until("they are gone", || state(&sandbox, "ollama") == "stopped");
    assert!(started.into_iter().filter(|pid| *pid != serve.pid()).all(|pid| !processes::lives(pid)));
    serve.signal(Signal::SIGTERM);
    assert_eq!(serve.finish().code(), 143);
    sandbox.assert_nothing_runs();
}

#[test]
fn address_that_another_program_has_is_named() {
    let sandbox = Sandbox::new();
    let _other = StubServer::unmarked(sandbox.port("ollama"), [Response::json(200, r#"{"status":"ok"}"#)]);
    let port = with_gateway(&sandbox, "");
    let serve = serving(&sandbox, &port);
    let response = chat(&port);
    assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
    assert!(
        response.to_lowercase().contains("retry-after: ") && response.contains("is in use"),
        "{response}"
    );
    serve.signal(Signal::SIGTERM);
    assert_eq!(serve.finish().code(), 143);
}

#[test]
fn serve_starts_no_service_by_itself() {
    let sandbox = Sandbox::new();
    sandbox.configure("auto_start = true", "");
    let port = with_gateway(&sandbox, "");
    let serve = serving(&sandbox, &port);
    // Its keeper has had its turn when the models are listed.
    let list = exchange(&port, "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(list.starts_with("HTTP/1.1 200 "), "{list}");
    assert_eq!(sandbox.pid("ollama"), None);
    serve.signal(Signal::SIGTERM);
    let ended = serve.finish();
    let address = format!("http://127.0.0.1:{0} (in a browser: http://fusion.localhost:{0}/)", port.number());
    assert!(ended.stdout().contains(&address), "{ended}");
    sandbox.assert_nothing_runs();
}

#[test]
fn idle_stop_works_on_after_a_restart() {
    let sandbox = Sandbox::new();
    let port = with_gateway(&sandbox, "idle_timeout = 2");
    let begin = || serving(&sandbox, &port);
    let serve = begin();
    assert!(chat(&port).starts_with("HTTP/1.1 200 "));
    let pid = sandbox.pid("ollama").expect("it was started");
    serve.signal(Signal::SIGTERM);
    assert_eq!(serve.finish().code(), 143);
    assert!(processes::lives(pid));
    let serve = begin();
    // Without a request.
    wait_until("it is stopped", || !processes::lives(pid));
    serve.signal(Signal::SIGTERM);
    assert_eq!(serve.finish().code(), 143);
    sandbox.assert_nothing_runs();
}

#[test]
fn hangup_reads_the_configuration_again() {
    let sandbox = Sandbox::new();
    let port = with_gateway(&sandbox, "");
    let serve = serving(&sandbox, &port);
    let mut events = TcpStream::connect(("127.0.0.1", port.number())).expect("it listens");
    events.write_all(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it reads");
    events.read_exact(&mut [0; 12]).expect("a head");
    // The file is as it was: only the signal can be the reason.
    serve.signal(Signal::SIGHUP);
    let (mut read, mut some) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&read).contains("\"type\":\"config_changed\"") {
        let count = events.read(&mut some).expect("an event comes");
        assert!(count > 0, "{}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&some[..count]);
    }
    serve.signal(Signal::SIGTERM);
    assert_eq!(serve.finish().code(), 143);
}

/// The gateway raises its own limit.
#[test]
fn services_keep_the_descriptor_limit_of_before() {
    let sandbox = Sandbox::new();
    let (script, limit) = (sandbox.root().join("wrapper"), sandbox.root().join("limit"));
    let server = support::fake_runtime();
    let text = format!("#!/bin/sh\nulimit -Sn > '{}'\nexec '{server}' ollama serve\n", limit.display());
    programs::write_program(&script, &text);
    sandbox.configure(&format!("command = [{script:?}]"), "");
    let port = with_gateway(&sandbox, "");
    let gateway = sandbox.root().join("gateway");
    let fusion = env!("CARGO_BIN_EXE_fusion");
    programs::write_program(&gateway, &format!("#!/bin/sh\nulimit -Sn 200\nexec '{fusion}' serve\n"));
    let serve = sandbox.command(&gateway).start();
    wait_until("it listens", || TcpStream::connect(("127.0.0.1", port.number())).is_ok());
    assert!(chat(&port).starts_with("HTTP/1.1 200 "));
    assert_eq!(std::fs::read_to_string(&limit).expect("it was started").trim(), "200");
    // More than twice as many connections as that would allow.
    let open: Vec<_> = (0..450)
        .map(|_| {
            let mut client = TcpStream::connect(("127.0.0.1", port.number())).expect("it listens");
            client.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it reads");
            client.read_exact(&mut [0; 12]).expect("it answers");
            client
        })
        .collect();
    assert_eq!(open.len(), 450);
    serve.signal(Signal::SIGTERM);
    assert_eq!(serve.finish().code(), 143);
    sandbox.fusion(["down"]).run().assert_code(0);
}

#[test]
fn failed_start_is_answered_with_its_cause() {
    let sandbox = Sandbox::new();
    sandbox.faults("ollama", &["print=out-of-luck", "die=3"]);
    let port = with_gateway(&sandbox, "");
    let serve = serving(&sandbox, &port);
    let died = chat(&port);
    assert!(
        died.starts_with("HTTP/1.1 502 ") && died.to_lowercase().contains("\r\nretry-after: 1\r\n"),
        "{died}"
    );
    assert!(
        died.contains("exited with status 3") && died.contains("the last line of its log: out-of-luck"),
        "{died}"
    );
    serve.signal(Signal::SIGTERM);
    assert_eq!(serve.finish().code(), 143);
    sandbox.assert_nothing_runs();
}

/// What was not started has not died.
#[test]
fn missing_program_is_503() {
    let sandbox = Sandbox::new();
    std::fs::remove_file(sandbox.bin().join("ollama")).expect("its own link");
    let port = with_gateway(&sandbox, "");
    let serve = serving(&sandbox, &port);
    let missing = chat(&port);
    assert!(
        missing.starts_with("HTTP/1.1 503 ") && missing.to_lowercase().contains("\r\nretry-after: "),
        "{missing}"
    );
    serve.signal(Signal::SIGTERM);
    assert_eq!(serve.finish().code(), 143);
}

/// One set of views, in which the gateway is no instance of its own.
#[test]
fn instances_are_those_of_ps() {
    let sandbox = Sandbox::new();
    let port = with_gateway(&sandbox, "idle_timeout = 1000");
    sandbox.fusion(["gateway", "up"]).run().assert_code(0);
    assert!(chat(&port).starts_with("HTTP/1.1 200 "));
    let body = |path: &str| -> Value {
        let response =
            exchange(&port, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        serde_json::from_str(response.split_once("\r\n\r\n").expect("a body").1).expect("JSON")
    };
    // What grows by itself.
    let shown = |mut views: Value| {
        for view in views.as_array_mut().expect("rows") {
            for key in ["uptime_s", "cpu_percent", "memory_bytes"] {
                assert!(view.as_object_mut().expect("an object").remove(key).is_some(), "{key}");
            }
        }
        views
    };
    let mut listed = sandbox.fusion(["ps", "--json"]).run().assert_code(0).json();
    listed.as_array_mut().expect("rows").retain(|view| view["name"] != "gateway");
    assert_eq!(shown(body("/api/instances")), shown(listed));
    assert_eq!(body("/api/templates"), sandbox.fusion(["templates", "--json"]).run().assert_code(0).json());
    let keys = |view: &Value| view.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    let (here, there) =
        (body("/api/metrics"), sandbox.fusion(["metrics", "--json"]).run().assert_code(0).json());
    assert_eq!((keys(&here), keys(&here["services"][0])), (keys(&there), keys(&there["services"][0])));
    sandbox.fusion(["down"]).run().assert_code(0);
    sandbox.assert_nothing_runs();
}
