//! `fusion chat` on a pseudo-terminal.

use super::terminal::Terminal;
use super::{Running, Sandbox, wait_until};

/// The answer of the fake runtime.
pub const FAKE_ANSWER: &str = "Hello from the fake runtime.";

/// What ends a conversation.
pub const CONTROL_D: &str = "\x04";

/// Returns a sandbox whose Ollama runs with these faults.
pub fn running(faults: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.faults("ollama", faults);
    sandbox.fusion(["ollama", "up"]).run().assert_code(0);
    sandbox
}

/// Stops the Ollama of [`running`].
pub fn down(sandbox: &Sandbox) {
    sandbox.fusion(["ollama", "down"]).run_in_process().assert_code(0);
}

/// A conversation that a test types.
pub struct Chat {
    terminal: Terminal,
    pub fusion: Running,
    /// The text that ends an answer.
    answer: &'static str,
    /// How much of the output was awaited.
    seen: usize,
}

impl Chat {
    /// Starts `fusion ollama chat` with these arguments on a terminal.
    pub fn start(sandbox: &Sandbox, arguments: &str) -> Self {
        Self::with(sandbox, "ollama", arguments, FAKE_ANSWER)
    }

    /// Starts `fusion SERVICE chat` with these arguments on a terminal. Every answer ends with `answer`.
    pub fn with(sandbox: &Sandbox, service: &str, arguments: &str, answer: &'static str) -> Self {
        let chat =
            Self::script(sandbox, Terminal::open(), &format!("exec \"$0\" {service} chat {arguments}"));
        Self { answer, ..chat }
    }

    /// Runs a shell script on a terminal. `$0` is the program under test.
    pub fn script(sandbox: &Sandbox, terminal: Terminal, script: &str) -> Self {
        let fusion = terminal.script(sandbox, "-c", &format!("export TERM=xterm NO_COLOR=1; {script}"));
        Self { terminal, fusion, answer: FAKE_ANSWER, seen: 0 }
    }

    /// Waits until this is shown after what was awaited before.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> &mut Self {
        let mut end = None;
        wait_until(&format!("the terminal shows {text:?} in\n{}", self.terminal.text()), || {
            let shown = self.terminal.text();
            end = shown[self.seen..].find(text).map(|at| self.seen + at + text.len());
            end.is_some()
        });
        self.seen = end.unwrap_or_default();
        self
    }

    /// Waits until this is shown after what was awaited before; returns false if the program ends before that.
    pub fn shows(&mut self, text: &str) -> bool {
        let mut end = None;
        wait_until(&format!("the terminal shows {text:?}, or the program ends"), || {
            let has_ended = self.fusion.has_ended();
            let shown = self.terminal.text();
            end = shown[self.seen..].find(text).map(|at| self.seen + at + text.len());
            has_ended || end.is_some()
        });
        self.seen = end.unwrap_or(self.seen);
        end.is_some()
    }

    /// All that was shown so far.
    pub fn shown(&self) -> String {
        self.terminal.text()
    }

    /// Waits for the prompt, and types.
    #[track_caller]
    pub fn types(&mut self, text: &str) -> &mut Self {
        self.expect("> ").send(text)
    }

    pub fn send(&mut self, text: &str) -> &mut Self {
        self.send_bytes(text.as_bytes())
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.terminal.send(bytes);
        self
    }

    /// Sends a message, and waits for its answer.
    #[track_caller]
    pub fn asks(&mut self, message: &str) -> &mut Self {
        let answer = self.answer;
        self.types(&format!("{message}\r")).expect(answer)
    }

    /// Leaves; returns all that was shown.
    #[track_caller]
    pub fn leaves(mut self) -> String {
        self.types(CONTROL_D);
        self.ends(0)
    }

    /// Waits for the end of the program; returns the terminal, which stays open.
    #[track_caller]
    pub fn leaves_terminal(self, code: i32) -> Terminal {
        self.fusion.finish().assert_code(code);
        self.terminal
    }

    #[track_caller]
    pub fn ends(self, code: i32) -> String {
        self.fusion.finish().assert_code(code);
        self.terminal.finish()
    }
}
