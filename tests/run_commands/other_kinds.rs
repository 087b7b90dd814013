//! A server of another kind on the port.

use crate::support::Sandbox;
use crate::support::stub_server::{Framing, Response, StubServer};

/// What a llama-server answered on the default port of `mlx_lm.server`.
fn recorded(line: &str) -> Option<Response> {
    let body = match line.strip_suffix(" HTTP/1.1")? {
        "GET /health" => include_str!("../cases/field/llama-server-taken-for-mlx/GET_health"),
        "GET /v1/models" => include_str!("../cases/field/llama-server-taken-for-mlx/GET_v1_models"),
        _ => return None,
    };
    Some(Response::json(200, body))
}

#[test]
fn a_recorded_llama_server_gets_no_prompt() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("mlx");
    let answer = include_str!("../cases/field/llama-server-taken-for-mlx/POST_v1_chat_completions");
    let response = Response { framing: Framing::Raw, ..Response::stream([answer]) };
    let server = StubServer::marked(port, [response], recorded);
    for command in [&["up"][..], &["run", "--json", "Who are you?"], &["load", "org/model"], &["health"]] {
        let arguments = ["mlx"].into_iter().chain(command.iter().copied());
        let refused = sandbox.fusion(arguments).run().assert_code(5);
        assert_eq!(refused.stdout(), "", "{command:?}");
        assert!(refused.stderr().contains(&format!("port {port} is in use by ")), "{refused}");
    }
    let listed = sandbox.fusion(["mlx", "ps", "--json"]).run().assert_code(3).json();
    assert_eq!((&listed["state"], &listed["pid"]), (&"stopped".into(), &serde_json::Value::Null));
    let lines = server.lines();
    assert!(lines.iter().all(|line| line.starts_with("GET ")), "{lines:?}");
}

/// The answers of llama-server to the requests of `mlx_lm.server`, without its header.
#[test]
fn another_kind_of_server_gets_no_prompt() {
    let sandbox = Sandbox::new();
    for service in ["mlx", "ollama"] {
        let port = sandbox.port(service);
        let server = StubServer::unmarked(port, [Response::json(200, r#"{"status":"ok"}"#)]);
        for command in [
            &["run", "Hello"][..],
            &["run", "--no-up", "Hello"],
            &["up"],
            &["health"],
            &["load", "some-model"],
        ] {
            let arguments = [service].into_iter().chain(command.iter().copied());
            let finished = sandbox.fusion(arguments).run().assert_code(5);
            assert_eq!(finished.stdout(), "", "{command:?}");
            let what = format!("port {port} is in use by ");
            assert!(finished.stderr().contains(&what), "{command:?}: {finished}");
            assert!(!finished.stderr().contains("starting"), "{command:?}: {finished}");
        }
        let methods: Vec<String> = server.lines();
        assert!(methods.iter().all(|line| line.starts_with("GET ")), "{methods:?}");
    }
}

/// Nothing is announced before the port is looked at.
#[test]
fn run_announces_no_start_on_a_taken_port() {
    let sandbox = Sandbox::new();
    let (port, model) = (sandbox.port("ollama"), sandbox.model());
    sandbox.write_config(&format!(
        "[ollama_server]\nport = {port}\n[mlx_server]\nport = {port}\nmodel = \"{0}\"\n[mlx_run]\nmodel = \"{0}\"\n",
        model.display()
    ));
    sandbox.fusion(["ollama", "up"]).run().assert_code(0);
    let refused = sandbox.fusion(["mlx", "run", "Hello"]).run().assert_code(5);
    let pid = sandbox.pid("ollama").expect("a PID file");
    insta::assert_snapshot!(
        refused.assert_names_pid(pid),
        @"
    exit 5
    [stderr]
    error: ollama (pid [PID]) runs at 127.0.0.1:[OLLAMA]
    hint: stop it: fusion ollama down; or choose another port: fusion config set mlx_server.port [SPARE]
    "
    );
    sandbox.fusion(["ollama", "down"]).run().assert_code(0);
}
