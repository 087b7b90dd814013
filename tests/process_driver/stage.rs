//! A directory for the processes of a test, which end with the test.

use std::cell::RefCell;
use std::ffi::OsString;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use fusion::core::address::Address;
use fusion::core::process::unix::UnixDriver;
use fusion::core::process::{
    Child, Ending, Instance, Listener, Pid, ProcessDriver, ProcessId, ProcessSpec, StopSignal,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::ports::Port;
use crate::support::{fake_runtime, processes, wait_until};

/// A directory and an instance. When it is dropped, the processes of the instance are killed.
pub(crate) struct Stage {
    pub(crate) directory: PathBuf,
    pub(crate) instance: String,
    pub(crate) driver: UnixDriver,
    leaders: RefCell<Vec<ProcessId>>,
    /// The test owns the directory, its actor does not.
    owned: Option<TempDir>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let owned = TempDir::new().unwrap();
        let mut stage = Self::at(&owned.path().canonicalize().unwrap());
        stage.owned = Some(owned);
        stage
    }

    /// The stage that a test has made, for its actor.
    pub(crate) fn at(directory: &Path) -> Self {
        let instance = directory.file_name().unwrap().to_string_lossy().into_owned();
        Self {
            directory: directory.to_owned(),
            instance,
            driver: UnixDriver::new(),
            leaders: RefCell::default(),
            owned: None,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(crate) fn spec(&self, program: &str, args: &[&str]) -> ProcessSpec {
        ProcessSpec {
            program: PathBuf::from(program),
            args: args.iter().map(OsString::from).collect(),
            without: Vec::new(),
            home: None,
            env: Vec::new(),
            directory: self.directory.clone(),
            log: Some(self.path("log")),
            instance: self.instance.clone(),
        }
    }

    pub(crate) fn spawn(&self, spec: &ProcessSpec) -> Box<dyn Child> {
        let child = self.driver.spawn(spec).unwrap_or_else(|error| panic!("{error:?}"));
        self.leaders.borrow_mut().push(child.id().clone());
        child
    }

    pub(crate) fn shell(&self, script: &str) -> Box<dyn Child> {
        self.spawn(&self.spec("/bin/sh", &["-c", script]))
    }

    /// Starts a fake runtime and waits until its faults are in force.
    pub(crate) fn fake(&self, faults: &[&str], port: &Port) -> Box<dyn Child> {
        let number = port.number().to_string();
        let words = [&["ollama"], faults, &["--host", "127.0.0.1", "--port", &number]].concat();
        let child = self.spawn(&self.spec(fake_runtime(), &words));
        wait_until("the fake listens", || TcpStream::connect(("127.0.0.1", port.number())).is_ok());
        child
    }

    pub(crate) fn instance<'a>(&'a self, leader: Option<&'a ProcessId>) -> Instance<'a> {
        Instance { id: &self.instance, leader }
    }

    pub(crate) fn members(&self, leader: Option<&ProcessId>) -> Vec<ProcessId> {
        self.driver.members(self.instance(leader)).unwrap()
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.path("log")).unwrap_or_default()).into_owned()
    }

    pub(crate) fn listener(&self, host: &str, port: &Port, leader: Option<&ProcessId>) -> Listener {
        let address = Address { host: host.to_owned(), port: port.number() };
        self.driver.listener(&address, Some(self.instance(leader))).unwrap()
    }

    /// Has the actor play `role` in its own process, started by a shell that ran `before` first. The output of the test
    /// harness is discarded.
    pub(crate) fn actor_spec(&self, before: &str, role: &str) -> ProcessSpec {
        let script = format!("exec >/dev/null\n{before}\nexec \"$0\" actor::actor --exact --nocapture");
        let mut spec = self.spec("/bin/sh", &["-c", &script]);
        spec.args.push(std::env::current_exe().unwrap().into());
        spec.env = vec![
            ("FUSION_TEST_ROLE".into(), role.into()),
            ("FUSION_TEST_STAGE".into(), self.directory.clone().into()),
        ];
        spec
    }

    /// The same, not started by the driver.
    pub(crate) fn actor(&self, before: &str, role: &str) -> Command {
        let spec = self.actor_spec(before, role);
        let mut command = Command::new(spec.program);
        command
            .args(spec.args)
            .envs(spec.env)
            .current_dir(spec.directory)
            .env("FUSION_INSTANCE", "of-the-caller");
        command
    }

    /// Has the actor play `role` to its end. Returns whether it succeeded.
    pub(crate) fn act(&self, before: &str, role: &str) -> bool {
        self.actor(before, role).status().unwrap().success()
    }

    /// What the actor reports, or what a fake with `dump=` was started with. That fake ends with the stage, also where
    /// the system hides the instance in its environment.
    pub(crate) fn facts(&self, name: &str) -> Value {
        let path = self.path(name);
        wait_until("there are facts", || path.exists());
        let facts: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        if name == "dump" {
            let pid = Pid::try_from(facts["pid"].as_i64().unwrap()).unwrap();
            self.leaders.borrow_mut().extend(self.driver.identify(pid).unwrap());
        }
        facts
    }

    pub(crate) fn dumping(&self) -> ProcessSpec {
        let dump = format!("dump={}", self.path("dump").display());
        self.spec(fake_runtime(), &["ollama", "never-bind", &dump])
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.owned.is_none() {
            return;
        }
        let leaders = self.leaders.borrow();
        wait_until("the instance has ended", || {
            let led = leaders.iter().flat_map(|leader| self.members(Some(leader)));
            let left: Vec<ProcessId> = led.chain(self.members(None)).collect();
            for member in &left {
                processes::kill(member.pid.as_raw());
            }
            left.is_empty()
        });
    }
}

pub(crate) fn ended(child: &dyn Child) -> Ending {
    let mut ending = None;
    wait_until("it has ended", || {
        ending = child.try_wait().unwrap();
        ending.is_some()
    });
    ending.unwrap()
}

pub(crate) fn kill_all(stage: &Stage, leader: Option<&ProcessId>) {
    wait_until("all are gone", || {
        let left = stage.members(leader);
        for member in &left {
            stage.driver.signal(member, StopSignal::Kill).unwrap();
        }
        left.is_empty()
    });
}

#[expect(clippy::print_stderr, reason = "a check that does not run is reported")]
pub(crate) fn skipped(what: &str, why: &str) {
    eprintln!("skipped: {what}, because {why}");
}
