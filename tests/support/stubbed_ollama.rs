//! Ollama played by a stub server, and its responses: events, answers, their ends.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::stub_server::{Response, StubServer};
use super::{Finished, Invocation, Sandbox};

/// One event with this text as its delta.
pub fn text(text: &str) -> String {
    event(&json!({ "content": text }), &Value::Null)
}

pub fn event(delta: &Value, finish_reason: &Value) -> String {
    let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish_reason });
    format!("data: {}\n\n", json!({ "object": "chat.completion.chunk", "choices": [choice] }))
}

/// The end of an answer.
pub fn finish(reason: &str) -> String {
    event(&json!({}), &json!(reason)) + "data: [DONE]\n\n"
}

/// A stream of these pieces of text.
pub fn stream(pieces: &[&str]) -> Response {
    Response::stream(pieces.iter().map(|piece| text(piece)).chain([finish("stop")]))
}

/// A sandbox in which Ollama is a stub server.
pub struct StubbedOllama {
    pub sandbox: Sandbox,
    pub server: StubServer,
}

impl StubbedOllama {
    pub fn with(responses: impl IntoIterator<Item = Response>) -> Self {
        Self::configured("", responses)
    }

    pub fn configured(config: &str, responses: impl IntoIterator<Item = Response>) -> Self {
        let stubbed = Self { sandbox: Sandbox::new(), server: StubServer::start(responses) };
        let port = stubbed.server.port();
        stubbed.sandbox.write_config(&format!("[ollama_server]\nport = {port}\n{config}"));
        stubbed
    }

    pub fn invocation<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Invocation {
        let invocation = self.sandbox.fusion(["ollama", "run"].into_iter().chain(arguments));
        invocation.mask(format!(":{}", self.server.port()), ":[STUB]")
    }

    /// Runs the command in this process.
    #[track_caller]
    pub fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Finished {
        self.invocation(arguments).run_in_process()
    }

    /// For streams and waits of the caller's own.
    pub fn command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = self.invocation(arguments).into_command();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}
