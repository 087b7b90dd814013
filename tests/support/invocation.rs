//! A program run in a sandbox; its stdout, stderr and exit code are compared at once.

mod in_process;

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::mem::take;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::normalize::{Mask, normalize};
use super::{TEST_TIMEOUT, processes};

type Change = Box<dyn FnOnce(&mut Command)>;

/// A command being built.
pub struct Invocation {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
    stdin: Vec<u8>,
    at_terminal: bool,
    timeout: Duration,
    masks: Vec<Mask>,
    change: Option<Change>,
}

impl Invocation {
    pub(super) fn new(program: &OsStr, masks: Vec<Mask>) -> Self {
        Self {
            program: program.to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: None,
            stdin: Vec::new(),
            at_terminal: false,
            timeout: TEST_TIMEOUT,
            masks,
            change: None,
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

    /// Pipes these bytes into its standard input, which is empty by default.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Takes standard input and standard error for a terminal; for [`Self::run_in_process`].
    pub fn at_terminal(mut self) -> Self {
        self.at_terminal = true;
        self
    }

    /// Shows `placeholder` instead of `real` in what is compared.
    pub fn mask(mut self, real: impl Into<String>, placeholder: impl Into<String>) -> Self {
        self.masks.push(Mask::new(real, placeholder));
        self
    }

    /// Shows this service, its port and its model as `[SERVICE]`, `[PORT]` and `[MODEL]`, so the output of one service
    /// can be compared with that of another.
    pub fn mask_service(self, service: &str) -> Self {
        let port = format!("[{}]", service.to_uppercase());
        let models = ["llama3.2:3b", "[ROOT]/model"];
        let masked = models.into_iter().fold(self, |masked, model| masked.mask(model, "[MODEL]"));
        masked.mask(port, "[PORT]").mask(service, "[SERVICE]")
    }

    /// Bounds its run time, where [`TEST_TIMEOUT`] is too short.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Changes the command when it is started, after its streams are piped. For what this builder cannot express.
    pub fn change(mut self, change: impl FnOnce(&mut Command) + 'static) -> Self {
        self.change = Some(Box::new(change));
        self
    }

    /// For streams and waits of the caller's own. The environment and the actions of signals are set, the streams are
    /// not.
    pub fn into_command(self) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().envs(self.environment).args(&self.arguments);
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        processes::reset_signals(&mut command);
        command
    }

    /// Starts it with piped streams.
    pub fn start(mut self) -> Running {
        let (stdin, masks) = (self.stdin.clone(), self.masks.clone());
        let (timeout, change) = (self.timeout, self.change.take());
        let described = self.described();
        let mut command = self.into_command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(change) = change {
            change(&mut command);
        }
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{described}: {error}"));
        // Another process that has the terminal or the pipe would keep it open.
        drop(command);
        if let Some(mut input) = child.stdin.take() {
            // The program need not read it.
            std::thread::spawn(move || drop(input.write_all(&stdin)));
        }
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        Running { child, stdout, stderr, described, timeout, masks }
    }

    /// Runs it to its end and returns its peak memory in bytes, too. A separate process runs it, because the kernel
    /// reports the largest of all children that a process ever had.
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

    /// Runs it to its end *and* to the end of its streams. A descendant that holds them open fails the test.
    #[track_caller]
    pub fn run(mut self) -> Finished {
        if self.change.is_some() {
            return self.start().finish();
        }
        let (stdin, masks, timeout) = (take(&mut self.stdin), take(&mut self.masks), self.timeout);
        let described = self.described();
        let mut command = assert_cmd::Command::from_std(self.into_command());
        command.write_stdin(stdin);
        // The crate's own timeout bounds the program, not its streams, and waits for SIGCHLD, whose action is reset
        // by the driver that some tests use.
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(command.output()));
        let output = receiver.recv_timeout(timeout);
        let output = output.unwrap_or_else(|_| panic!("{described} did not end, or its streams stay open"));
        let output = output.unwrap_or_else(|error| panic!("{described}: {error}"));
        Finished { status: output.status, stdout: output.stdout, stderr: output.stderr, described, masks }
    }

    fn described(&self) -> String {
        format!("{} {:?}", Path::new(&self.program).display(), self.arguments)
    }
}

/// Reads a stream to its end, if it is a pipe.
fn collect(stream: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            stream.read_to_end(&mut bytes).expect("a pipe can be read");
        }
        bytes
    })
}

/// A running program.
pub struct Running {
    child: Child,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
    described: String,
    timeout: Duration,
    masks: Vec<Mask>,
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

    /// Waits for its end and for the end of its streams, as [`Invocation::run`].
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        let deadline = Instant::now() + self.timeout;
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
            masks: self.masks,
        }
    }
}

/// A program that has ended, with its output.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    described: String,
    masks: Vec<Mask>,
}

impl Finished {
    /// The exit code, or 128 plus the number of the signal that ended it, as in a shell.
    pub fn code(&self) -> i32 {
        self.status.code().or_else(|| self.status.signal().map(|signal| 128 + signal)).expect("it ended")
    }

    /// stdout, not normalized.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// stderr, not normalized.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// stdout as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Asserts success, exactly this on stdout, and nothing on stderr. For output that is data.
    #[track_caller]
    pub fn assert_stdout(self, expected: &str) -> Self {
        let described = &self.described;
        assert!(self.stdout() == expected, "{described}\n--- expected: {expected}\n--- actual: {self}");
        assert!(self.code() == 0 && self.stderr.is_empty(), "{described}\n--- actual: {self}");
        self
    }

    /// Asserts the exit code.
    #[track_caller]
    pub fn assert_code(self, code: i32) -> Self {
        assert!(self.code() == code, "{}\n--- expected: exit {code}\n--- actual: {self}", self.described);
        self
    }

    /// Asserts that the output has this PID. Snapshots show every PID as `[PID]`.
    #[track_caller]
    pub fn assert_names_pid(self, pid: i32) -> Self {
        let (output, pid) = (self.stdout() + &self.stderr(), pid.to_string());
        let mut numbers = output.split(|character: char| !character.is_ascii_digit());
        assert!(numbers.any(|number| number == pid), "no {pid} in {self}");
        self
    }

    /// Normalizes output as snapshots show it.
    pub fn normalized(&self, bytes: &[u8]) -> String {
        normalize(&String::from_utf8_lossy(bytes), &self.masks)
    }
}

/// Exit code, stdout and stderr in one text, normalized, for inline snapshots. A stream without output is left out.
impl std::fmt::Display for Finished {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(formatter, "exit {}", self.code())?;
        for (name, bytes) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            let text = self.normalized(bytes);
            if !text.is_empty() {
                let end = if text.ends_with('\n') { "" } else { "\n[no final newline]\n" };
                write!(formatter, "[{name}]\n{text}{end}")?;
            }
        }
        Ok(())
    }
}

/// Asserts that several programs have the same output and exit code. Returns it, for one snapshot.
#[track_caller]
pub fn same_output(all: impl IntoIterator<Item = Finished>) -> String {
    let mut shown: Vec<String> = all.into_iter().map(|finished| finished.to_string()).collect();
    let last = shown.pop().expect("at least one program");
    assert!(shown.iter().all(|one| *one == last), "{shown:#?}\n--- the last one: {last}");
    last
}

/// The outputs of several programs in one text, each below the name of its case: for one snapshot.
pub fn table<C: std::fmt::Display>(cases: impl IntoIterator<Item = (C, impl std::fmt::Display)>) -> String {
    cases.into_iter().fold(String::new(), |table, (case, output)| table + &format!("# {case}\n{output}"))
}

/// Waits for the end of a child, up to [`TEST_TIMEOUT`].
#[track_caller]
pub fn wait_for_end(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + TEST_TIMEOUT;
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return status;
        }
        assert!(Instant::now() < deadline, "the program does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
}
