//! A server of another kind on the port.

use crate::support::Sandbox;
use crate::support::stub_server::{Response, StubServer};

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
        }
        let methods: Vec<String> = server.lines();
        assert!(methods.iter().all(|line| line.starts_with("GET ")), "{methods:?}");
    }
}
