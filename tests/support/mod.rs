//! What the tests share: each test has its own sandbox, in which it runs the program under test.

#![allow(
    dead_code,
    unused_macros,
    unreachable_pub,
    unused_imports,
    clippy::must_use_candidate,
    clippy::return_self_not_must_use,
    reason = "compiled into every test file, of which each uses its own part"
)]

pub mod agent;
pub mod chat;
pub mod hub;
pub mod invocation;
pub mod matrix;
pub mod normalize;
pub mod ollama;
pub mod ports;
pub mod processes;
pub mod programs;
pub mod real;
pub mod stub_server;
pub mod stubbed_ollama;
pub mod terminal;
pub mod tls_registry;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub use invocation::{Finished, Invocation, Running, same_output, table, wait_for_end};
use normalize::Mask;
use ports::Port;
pub use programs::write_program;

/// The variable that marks every process that a sandbox started, directly or not.
pub const MARKER: &str = "FUSION_TEST_SANDBOX";

/// How long a test waits before it fails. Only a failing test waits that long.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Waits until `condition` holds. Fails the test after [`TEST_TIMEOUT`].
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        let waited = start.elapsed();
        assert!(waited < TEST_TIMEOUT, "waited in vain until {what}");
        // A condition that starts a program takes the processor from what it waits for.
        std::thread::sleep((waited / 8).clamp(Duration::from_millis(5), Duration::from_millis(100)));
    }
}

/// A home, a configuration directory, a working directory and two free ports, with fake runtimes on `PATH`.
///
/// Dropping it fails the test if a process that was started in it still lives.
pub struct Sandbox {
    /// Without symbolic links, as programs see it. The temporary directory of macOS is behind one.
    root: PathBuf,
    _directory: TempDir,
    marker: String,
    ollama: Port,
    mlx: Port,
    llama: Port,
}

/// Whatever the umask: what others may write is refused.
fn make_private(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("the sandbox is ours");
}

impl Sandbox {
    /// Configures both services on free ports, each played by a fake on `PATH`.
    pub fn new() -> Self {
        let sandbox = Self::without_config();
        sandbox.configure("", "");
        sandbox
    }

    /// Makes no configuration file. Fusion writes one with the default ports when it needs one.
    pub fn without_config() -> Self {
        let directory =
            tempfile::Builder::new().prefix("fusion-test-").tempdir().expect("a temporary directory");
        let root = directory.path().canonicalize().expect("the directory was made");
        let marker = root.file_name().expect("a name").to_string_lossy().into_owned();
        let sandbox = Self {
            root,
            _directory: directory,
            marker,
            ollama: Port::free(),
            mlx: Port::free(),
            llama: Port::free(),
        };
        for directory in
            [sandbox.home(), sandbox.config_dir(), sandbox.project(), sandbox.bin(), sandbox.model()]
        {
            std::fs::create_dir_all(directory).expect("the sandbox is writable");
        }
        make_private(&sandbox.config_dir(), 0o700);
        for program in ["ollama", "mlx_lm.server", "llama-server"] {
            std::os::unix::fs::symlink(fake_runtime(), sandbox.bin().join(program)).expect("a link");
        }
        for (file, text) in [
            ("config.json", "{}"),
            ("tokenizer.json", "{}"),
            ("tokenizer_config.json", r#"{"chat_template": "{{ messages }}"}"#),
        ] {
            std::fs::write(sandbox.model().join(file), text).expect("the sandbox is writable");
        }
        // Weights without any: a header of two bytes.
        std::fs::write(sandbox.model().join("model.safetensors"), b"\x02\0\0\0\0\0\0\0{}")
            .expect("the sandbox is writable");
        sandbox
    }

    /// Writes the configuration: the ports, the model, and `ollama`, `mlx` appended to the server tables.
    pub fn configure(&self, ollama: &str, mlx: &str) {
        let model = self.model();
        let model = model.display();
        self.write_config(&format!(
            "[ollama_server]\nhost = \"127.0.0.1\"\nport = {}\nstartup_timeout = 60\n{ollama}\n\n\
             [ollama_run]\nmodel = \"llama3.2:3b\"\n\n\
             [mlx_server]\nhost = \"127.0.0.1\"\nport = {}\nmodel = \"{model}\"\nstartup_timeout = 60\n{mlx}\n\n\
             [mlx_run]\nmodel = \"{model}\"\n\n\
             [llama_server]\nhost = \"127.0.0.1\"\nport = {}\nstartup_timeout = 60\n",
            self.ollama.number(),
            self.mlx.number(),
            self.llama.number(),
        ));
    }

    /// Writes exactly this configuration.
    pub fn write_config(&self, text: &str) {
        let file = self.config_dir().join("config.toml");
        std::fs::write(&file, text).expect("the configuration is writable");
        make_private(&file, 0o600);
    }

    /// Configures a fake with these faults as the server of `runtime` (see `fake_runtime/faults.rs`).
    pub fn faults(&self, runtime: &str, faults: &[&str]) {
        let line = command_line(runtime, faults);
        match runtime {
            "ollama" => self.configure(&line, ""),
            _ => self.configure("", &line),
        }
    }

    /// `FUSION_CONFIG_DIR`.
    pub fn config_dir(&self) -> PathBuf {
        self.root.join("config")
    }

    /// `HOME`.
    pub fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    /// The working directory.
    pub fn project(&self) -> PathBuf {
        self.root.join("project")
    }

    /// The first directory of `PATH`.
    pub fn bin(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// A directory that looks like a model.
    pub fn model(&self) -> PathBuf {
        self.root.join("model")
    }

    /// The directory that holds all of it.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The configured port.
    pub fn port(&self, runtime: &str) -> u16 {
        match runtime {
            "ollama" => self.ollama.number(),
            "llama" => self.llama.number(),
            _ => self.mlx.number(),
        }
    }

    /// The base of the URLs of `runtime`.
    pub fn url(&self, runtime: &str) -> String {
        format!("http://127.0.0.1:{}", self.port(runtime))
    }

    /// A file in the directory of `runtime`.
    pub fn file(&self, runtime: &str, name: &str) -> PathBuf {
        self.config_dir().join(runtime).join(name)
    }

    /// The directory of fusion's own installation of a runtime.
    pub fn installation(&self, runtime: &str) -> PathBuf {
        self.config_dir().join("data/runtimes").join(runtime)
    }

    /// The text of the log, empty if there is none.
    pub fn log(&self, runtime: &str) -> String {
        let bytes = std::fs::read(self.file(runtime, &format!("{runtime}.log"))).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The record of what was started.
    pub fn record(&self, runtime: &str) -> Option<serde_json::Value> {
        let bytes = std::fs::read(self.file(runtime, "state.json")).ok()?;
        Some(serde_json::from_slice(&bytes).expect("the record is JSON"))
    }

    /// The PID in the PID file.
    pub fn pid(&self, runtime: &str) -> Option<i32> {
        let text = std::fs::read_to_string(self.file(runtime, &format!("{runtime}.pid"))).ok()?;
        Some(text.trim().parse().expect("the PID file holds a number"))
    }

    /// The program under test with these arguments, in this sandbox.
    pub fn fusion<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Invocation {
        let mut invocation = self.command(env!("CARGO_BIN_EXE_fusion"));
        for argument in arguments {
            invocation = invocation.arg(argument);
        }
        invocation
    }

    /// Any program, in this sandbox's environment.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Invocation {
        let mut path = self.bin().into_os_string();
        path.push(":/usr/local/bin:/usr/bin:/bin");
        Invocation::new(program.as_ref(), self.masks())
            .env("PATH", path)
            .env("HOME", self.home())
            .env("FUSION_CONFIG_DIR", self.config_dir())
            .env(MARKER, &self.marker)
            .directory(&self.project())
    }

    /// Every living process that was started in this sandbox.
    pub fn processes(&self) -> Vec<i32> {
        processes::with_variable(MARKER, &self.marker)
    }

    /// Fails the test if a process that was started in this sandbox still lives.
    #[track_caller]
    pub fn assert_nothing_runs(&self) {
        let left: Vec<String> = self.lingering().into_iter().map(processes::describe).collect();
        assert!(left.is_empty(), "still running: {left:#?}");
    }

    /// The processes that still live after the time that the kernel needs to end a killed process, and that a log
    /// rotator needs to see the end of its writers.
    fn lingering(&self) -> Vec<i32> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let left = self.processes();
            if left.is_empty() || Instant::now() > deadline {
                return left;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A text as snapshots show it.
    pub fn normalized(&self, text: &str) -> String {
        normalize::normalize(text, &self.masks())
    }

    /// What differs between runs.
    fn masks(&self) -> Vec<Mask> {
        let mut masks = vec![Mask::new(self.root.display().to_string(), "[ROOT]")];
        for (port, placeholder) in
            [(&self.ollama, "[OLLAMA]"), (&self.mlx, "[MLX]"), (&self.llama, "[LLAMA]")]
        {
            for before in [":", "port "] {
                let real = format!("{before}{}", port.number());
                masks.push(Mask::new(real, format!("{before}{placeholder}")));
            }
        }
        masks
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let left = if std::thread::panicking() { self.processes() } else { self.lingering() };
        let described: Vec<String> = left.iter().map(|pid| processes::describe(*pid)).collect();
        for pid in &left {
            processes::kill(*pid);
        }
        assert!(left.is_empty() || std::thread::panicking(), "the test left processes: {described:#?}");
    }
}

/// The line of the configuration that makes a fake with these faults the server of `runtime`.
pub fn command_line(runtime: &str, faults: &[&str]) -> String {
    let words: Vec<String> =
        [fake_runtime(), runtime].iter().chain(faults).map(|word| format!("{word:?}")).collect();
    format!("command = [{}]", words.join(", "))
}

/// Three free ports, one after the other, and the first of their numbers. They are free for as long as they are held.
pub fn three_ports() -> ([Port; 3], u16) {
    loop {
        let first = Port::free();
        let number = first.number();
        if let (Some(second), Some(third)) = (Port::reserve(number + 1), Port::reserve(number + 2)) {
            return ([first, second, third], number);
        }
    }
}

/// The path of the fake runtime.
pub fn fake_runtime() -> &'static str {
    env!("CARGO_BIN_EXE_fake-runtime")
}
