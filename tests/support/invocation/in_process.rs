//! Commands run in the test's own process: they cost a fraction of what a program costs.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use fusion::app::App;
use fusion::cli::dispatch::{self, World};
use fusion::cli::terminal::streams::Streams;
use fusion::core::address::Address;
use fusion::core::cancel::CancelToken;
use fusion::core::config::Config;
use fusion::core::events::EventBus;
use fusion::core::helper::HelperOutput;
use fusion::core::paths::Paths;
use fusion::core::process::unix::UnixDriver;
use fusion::core::process::{
    Child, Holdings, Host, Instance, Listener, ListeningSockets, Pid, ProcessDriver, ProcessError, ProcessId,
    ProcessSpec, StopSignal, Usage,
};
use fusion::core::runtimes;
use fusion::env::{Environment, HuggingFaceVariables};

use super::{Finished, Invocation};

impl Invocation {
    /// Runs the command line in this process, with its environment and standard input.
    #[track_caller]
    pub fn run_in_process(self) -> Finished {
        assert!(self.change.is_none() && self.program == env!("CARGO_BIN_EXE_fusion"), "it needs a program");
        let streams = Streams::captured(&self.stdin).expect("a directory for temporary files");
        let world = World {
            table: runtimes::TABLE,
            environment: self.environment(),
            streams: streams.clone(),
            driver: Arc::new(Driver { unix: UnixDriver::new(), environment: self.environment.clone() }),
            serve: fusion::gateway::serve,
            cancel: CancelToken::new(),
        };
        let described = format!("fusion {:?}", self.arguments);
        let exit = dispatch::main(world, [OsString::from("fusion")].into_iter().chain(self.arguments));
        Finished {
            status: ExitStatus::from_raw(i32::from(exit as u8) << 8),
            stdout: streams.output.written().expect("it is readable"),
            stderr: streams.error.written().expect("it is readable"),
            described,
            masks: self.masks,
        }
    }

    /// Returns the app over the configuration of the sandbox, as a front end that lives long has it.
    pub fn app(&self) -> App {
        let environment = self.environment();
        let paths = Paths::discover(&environment).expect("a directory for the configuration");
        let config = Config::load(&paths.config_file(), runtimes::TABLE).expect("a valid configuration");
        let driver = Arc::new(Driver { unix: UnixDriver::new(), environment: self.environment.clone() });
        App::new(runtimes::TABLE, config, paths, environment, driver, EventBus::new(), HelperOutput::Keep)
    }

    /// Returns what the program would read from its environment.
    fn environment(&self) -> Environment {
        let variable = |name: &str| {
            let found = self.environment.iter().rev().find(|(key, _)| key == name);
            found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
        };
        let directory = |name: &str| variable(name).map(PathBuf::from);
        Environment {
            config_dir: directory("FUSION_CONFIG_DIR"),
            project_root: directory("FUSION_PROJECT_ROOT"),
            home: directory("HOME"),
            current_dir: self.directory.clone(),
            program: Some(self.program.clone().into()),
            path: variable("PATH"),
            no_color: variable("NO_COLOR").is_some(),
            stdin_is_terminal: self.at_terminal,
            stderr_is_terminal: self.at_terminal,
            hugging_face: HuggingFaceVariables {
                hub_cache: directory("HF_HUB_CACHE"),
                legacy_hub_cache: directory("HUGGINGFACE_HUB_CACHE"),
                home: directory("HF_HOME"),
                xdg_cache_home: directory("XDG_CACHE_HOME"),
            },
            ..Environment::default()
        }
    }
}

/// The system's driver. What it spawns has the environment of the sandbox, so the sandbox finds it.
struct Driver {
    unix: UnixDriver,
    environment: Vec<(OsString, OsString)>,
}

impl ProcessDriver for Driver {
    fn spawn(&self, spec: &ProcessSpec) -> Result<Box<dyn Child>, ProcessError> {
        let env = [&self.environment[..], &spec.env].concat();
        self.unix.spawn(&ProcessSpec { env, ..spec.clone() })
    }

    fn host(&self) -> Result<Host, ProcessError> {
        self.unix.host()
    }

    fn identify(&self, pid: Pid) -> Result<Option<ProcessId>, ProcessError> {
        self.unix.identify(pid)
    }

    fn sleep_until_exit(&self, pid: Pid, limit: Duration) {
        self.unix.sleep_until_exit(pid, limit);
    }

    fn members(&self, instance: Instance<'_>) -> Result<Vec<ProcessId>, ProcessError> {
        self.unix.members(instance)
    }

    fn instance_id(&self, pid: Pid) -> Option<String> {
        self.unix.instance_id(pid)
    }

    fn signal(&self, process: &ProcessId, signal: StopSignal) -> Result<(), ProcessError> {
        self.unix.signal(process, signal)
    }

    fn signal_group(&self, leader: &ProcessId, signal: StopSignal) -> Result<bool, ProcessError> {
        self.unix.signal_group(leader, signal)
    }

    fn is_in_group(&self, process: &ProcessId, leader: &ProcessId) -> bool {
        self.unix.is_in_group(process, leader)
    }

    fn usage(&self, process: &ProcessId) -> Option<Usage> {
        self.unix.usage(process)
    }

    fn holdings(&self, process: &ProcessId) -> Holdings {
        self.unix.holdings(process)
    }

    fn listener(&self, address: &Address, ours: Option<Instance<'_>>) -> Result<Listener, ProcessError> {
        self.unix.listener(address, ours)
    }

    fn listening(&self, ports: &[u16]) -> Option<ListeningSockets> {
        self.unix.listening(ports)
    }

    fn listener_among(
        &self,
        sockets: &ListeningSockets,
        address: &Address,
        ours: Option<Instance<'_>>,
    ) -> Result<Listener, ProcessError> {
        self.unix.listener_among(sockets, address, ours)
    }

    fn own_listener(&self, sockets: &ListeningSockets, address: &Address, leader: Pid) -> Option<Pid> {
        self.unix.own_listener(sockets, address, leader)
    }
}
