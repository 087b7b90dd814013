//! Ollama played by a stub server, and what it says: events, answers, their end.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::stub_server::{Reply, StubServer};
use super::{Finished, Invocation, PATIENCE, Sandbox};

/// One event with a piece of text.
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
pub fn stream(pieces: &[&str]) -> Reply {
    Reply::stream(pieces.iter().map(|piece| text(piece)).chain([finish("stop")]))
}

/// A sandbox in which Ollama is a stub server.
pub struct Asked {
    pub sandbox: Sandbox,
    pub server: StubServer,
}

impl Asked {
    pub fn with(replies: impl IntoIterator<Item = Reply>) -> Self {
        Self::configured("", replies)
    }

    pub fn configured(config: &str, replies: impl IntoIterator<Item = Reply>) -> Self {
        let asked = Self { sandbox: Sandbox::new(), server: StubServer::start(replies) };
        let port = asked.server.port();
        asked.sandbox.write_config(&format!("[ollama_server]\nport = {port}\n{config}"));
        asked
    }

    pub fn invocation<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Invocation {
        self.sandbox.fusion(["ollama", "run"].into_iter().chain(arguments))
    }

    #[track_caller]
    pub fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Finished {
        self.invocation(arguments).run()
    }

    /// With the streams of the caller's choice.
    pub fn command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = self.invocation(arguments).into_command();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

#[track_caller]
pub fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "the program does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
}
