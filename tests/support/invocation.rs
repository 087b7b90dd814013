//! A program run in a sandbox, and what became of it: stdout, stderr and exit status compared at once.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{PATIENCE, processes};

/// A command that is put together.
pub struct Invocation {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
    stdin: Vec<u8>,
    patience: Duration,
    replacements: Vec<(String, String)>,
}

impl Invocation {
    pub(super) fn new(program: &OsStr, replacements: Vec<(String, String)>) -> Self {
        Self {
            program: program.to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: None,
            stdin: Vec::new(),
            patience: PATIENCE,
            replacements,
        }
    }

    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().to_owned()));
        self
    }

    pub fn directory(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// What is piped into it; nothing by default.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// How long it may take, where [`PATIENCE`] is too short.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// For what this builder cannot say: the environment is set (and nothing else in it), the streams are not.
    pub fn into_command(self) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().envs(self.environment).args(&self.arguments);
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
    }

    /// Starts it, its streams piped.
    pub fn start(self) -> Running {
        let (stdin, replacements) = (self.stdin.clone(), self.replacements.clone());
        let patience = self.patience;
        let described = format!("{} {:?}", Path::new(&self.program).display(), self.arguments);
        let mut command = self.into_command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{described}: {error}"));
        let mut input = child.stdin.take().expect("a pipe");
        std::thread::spawn(move || {
            // The program need not read it.
            let _ = input.write_all(&stdin);
        });
        let stdout = collect(child.stdout.take().expect("a pipe"));
        let stderr = collect(child.stderr.take().expect("a pipe"));
        Running { child, stdout, stderr, described, patience, replacements }
    }

    /// Runs it to its end, and gives the most memory that it held at once, in bytes, too. It is run by a process of its
    /// own, because the kernel reports the largest of all children that a process ever had.
    #[track_caller]
    pub fn run_measured(self) -> (Finished, u64) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let report = directory.path().join("memory");
        let words = [OsString::from("measured"), report.clone().into(), self.program];
        let arguments = words.into_iter().chain(self.arguments).collect();
        let finished = Self { program: super::fake_runtime().into(), arguments, ..self }.run();
        let memory = std::fs::read_to_string(report).expect("the report");
        (finished, memory.parse().expect("a number of bytes"))
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(self) -> Finished {
        self.start().finish()
    }
}

fn collect(mut stream: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("a pipe can be read");
        bytes
    })
}

/// A program that runs.
pub struct Running {
    child: Child,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
    described: String,
    patience: Duration,
    replacements: Vec<(String, String)>,
}

impl Running {
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a PID")
    }

    pub fn signal(&self, signal: Signal) {
        processes::send(self.pid(), signal);
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_some()
    }

    /// Waits for its end *and* for the end of its streams: a descendant that holds them would be a hang.
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        let deadline = Instant::now() + self.patience;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                break status;
            }
            if Instant::now() > deadline {
                let _ = self.child.kill();
                panic!("{} did not end", self.described);
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        while !(self.stdout.is_finished() && self.stderr.is_finished()) {
            assert!(Instant::now() < deadline, "{} ended and its streams stay open", self.described);
            std::thread::sleep(Duration::from_millis(1));
        }
        Finished {
            status,
            stdout: self.stdout.join().expect("the reader ends"),
            stderr: self.stderr.join().expect("the reader ends"),
            described: self.described,
            replacements: self.replacements,
        }
    }
}

/// A program that ended.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    described: String,
    replacements: Vec<(String, String)>,
}

impl Finished {
    /// The exit code; 128 and the signal's number when a signal ended it, as in a shell.
    pub fn code(&self) -> i32 {
        self.status.code().or_else(|| self.status.signal().map(|signal| 128 + signal)).expect("it ended")
    }

    /// stdout as it was.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// stderr as it was.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// stdout as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Compares all three at once. `[ROOT]`, `[OLLAMA]`, `[MLX]` stand for the sandbox's directory and ports, `[PID]` for
    /// any PID, `[TIME]` for any duration like `1.2 s`.
    #[track_caller]
    pub fn assert(self, code: i32, stdout: &str, stderr: &str) -> Self {
        let actual = describe(self.code(), &self.normalized(&self.stdout), &self.normalized(&self.stderr));
        let expected = describe(code, stdout, stderr);
        assert!(actual == expected, "{}\n--- expected: {expected}--- actual: {actual}", self.described);
        self
    }

    /// Compares the exit code, and shows the output when it differs.
    #[track_caller]
    pub fn assert_code(self, code: i32) -> Self {
        let actual = describe(self.code(), &self.stdout(), &self.stderr());
        assert!(self.code() == code, "{}\n--- expected: exit {code}\n--- actual: {actual}", self.described);
        self
    }

    fn normalized(&self, bytes: &[u8]) -> String {
        let mut text = String::from_utf8_lossy(bytes).into_owned();
        for (real, placeholder) in &self.replacements {
            text = text.replace(real, placeholder);
        }
        let text = replace_number(&text, "pid ", "", "[PID]");
        let text = replace_number(&text, "PID ", "", "[PID]");
        let text = replace_number(&text, "process ", "", "[PID]");
        replace_number(&text, "", " s", "[TIME]")
    }
}

/// Exit code, stdout and stderr in one text, normalized as in [`Finished::assert`]: for inline snapshots.
impl std::fmt::Display for Finished {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (stdout, stderr) = (self.normalized(&self.stdout), self.normalized(&self.stderr));
        formatter.write_str(&describe(self.code(), &stdout, &stderr))
    }
}

fn describe(code: i32, stdout: &str, stderr: &str) -> String {
    format!("exit {code}\n[stdout]\n{stdout}[stderr]\n{stderr}")
}

/// Replaces every number (digits, perhaps with a point) between `before` and `after`.
fn replace_number(text: &str, before: &str, after: &str, placeholder: &str) -> String {
    let is_number = |character: char| character.is_ascii_digit() || character == '.';
    let mut result = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|character: char| character.is_ascii_digit()) {
        let (head, tail) = rest.split_at(start);
        let end = tail.find(|character| !is_number(character)).unwrap_or(tail.len());
        let (number, tail) = tail.split_at(end);
        result.push_str(head);
        let whole_word = !head.ends_with(char::is_alphanumeric);
        let next = tail[after.len().min(tail.len())..].chars().next();
        let is_wanted = head.ends_with(before)
            && tail.starts_with(after)
            && whole_word
            && (after.is_empty() || !next.is_some_and(char::is_alphanumeric));
        if is_wanted {
            result.push_str(placeholder);
            result.push_str(if after.is_empty() { "" } else { after });
        } else {
            result.push_str(number);
        }
        rest = if is_wanted { &tail[after.len()..] } else { tail };
    }
    result + rest
}
