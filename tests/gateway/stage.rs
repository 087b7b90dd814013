//! A gateway in this process, in front of scripted servers.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use fusion::app::App;
use fusion::core::address::Address;
use fusion::core::config::{Config, GatewaySettings, IdleStop};
use fusion::core::events::{Event, EventBus, Subscriber};
use fusion::core::helper::HelperOutput;
use fusion::core::paths::Paths;
use fusion::core::process::mock::{MockDriver, MockPlan};
use fusion::core::process::{
    Child, Ending, Host, Instance, Listener, Pid, ProcessDriver, ProcessError, ProcessId, ProcessSpec,
    StopSignal, Usage,
};
use fusion::core::runtimes::TABLE;
use fusion::env::Environment;
use fusion::gateway::GatewayServer;
use tempfile::TempDir;

use super::backend::Backend;

/// The gateway under test. Dropping it ends the gateway.
pub struct Stage {
    pub port: u16,
    pub driver: ScriptedDriver,
    pub directory: Arc<TempDir>,
    events: Arc<Events>,
    end: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The events, in words.
#[derive(Default)]
struct Events(Mutex<Vec<String>>);

impl Subscriber for Events {
    fn event(&self, event: &Event) {
        self.0.lock().expect("no panic").push(format!("{:?}", event.kind));
    }
}

/// A driver whose spawns and stops switch scripted servers on and off.
#[derive(Clone)]
pub struct ScriptedDriver {
    mock: MockDriver,
    /// The servers, by port.
    backends: Arc<Mutex<Vec<Backend>>>,
    /// Which process has which port.
    ports: Arc<Mutex<Vec<(ProcessId, u16)>>>,
    /// The servers that another program runs, as processes that this one sees.
    elsewhere: Arc<Mutex<Vec<(ProcessId, u16)>>>,
    /// The memory of the process with a port, in bytes.
    memory: Arc<Mutex<HashMap<u16, u64>>>,
    /// Whether a spawned process listens; else it only lives.
    pub listens: Arc<Mutex<bool>>,
    /// Whether the next process ends at once.
    dies: Arc<Mutex<bool>>,
}

impl Stage {
    /// Starts a gateway in front of Ollama at the address of `backend`, with `settings`.
    pub fn new(backend: &Backend, settings: GatewaySettings) -> Self {
        let directory = Arc::new(TempDir::new().expect("a temporary directory"));
        let driver = Self::scripted(backend);
        let text = format!(
            "[ollama_server]\nport = {}\ncommand = [\"/bin/sh\"]\nstartup_timeout = 60\n\n\
             [mlx_server]\nport = 1\n\n[llama_server]\nport = 2\n\n[aliases]\nfast = \"tiny\"\n",
            backend.port
        );
        Self::in_directory(directory, driver, &text, settings)
    }

    /// Returns a driver that switches this server on and off.
    pub fn scripted(backend: &Backend) -> ScriptedDriver {
        Self::scripted_all(&[backend])
    }

    /// Returns a driver that switches these servers on and off.
    pub fn scripted_all(backends: &[&Backend]) -> ScriptedDriver {
        ScriptedDriver {
            mock: MockDriver::new(),
            backends: Arc::new(Mutex::new(backends.iter().map(|backend| backend.handle()).collect())),
            ports: Arc::default(),
            elsewhere: Arc::default(),
            memory: Arc::default(),
            listens: Arc::new(Mutex::new(true)),
            dies: Arc::default(),
        }
    }

    /// Starts a gateway with this configuration.
    pub fn in_directory(
        directory: Arc<TempDir>,
        driver: ScriptedDriver,
        text: &str,
        settings: GatewaySettings,
    ) -> Self {
        let environment = Environment {
            config_dir: Some(directory.path().to_owned()),
            path: Some(directory.path().into()),
            ..Environment::default()
        };
        let paths = Paths::discover(&environment).expect("paths");
        // On the ports of the others, a server of this machine may listen.
        let is_other = |name: &&str| !text.contains(&format!("[{name}_server]"));
        let others = ["ollama", "mlx", "llama"].into_iter().filter(is_other);
        let others = (11..).zip(others).map(|(port, name)| format!("\n[{name}_server]\nport = {port}\n"));
        let text = [text.to_owned()].into_iter().chain(others).collect::<String>();
        let (mut config, problems) = Config::parse(&text, TABLE);
        assert!(problems.is_empty(), "{problems:?}");
        config.gateway = settings;
        let shared: Arc<dyn ProcessDriver> = Arc::new(driver.clone());
        let (bus, events) = (EventBus::new(), Arc::new(Events::default()));
        bus.subscribe(&events);
        let app = App::new(TABLE, config, paths, environment, shared, bus, HelperOutput::Keep);
        let (end, ended) = tokio::sync::oneshot::channel();
        let (port_sender, port) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let server = GatewayServer::bind(app).expect("a free port");
            port_sender.send(server.address().port).expect("the test waits");
            server.run_until(async {
                // The stage was dropped, too, if the sender is gone.
                let _ = ended.await;
            });
        });
        let port = port.recv().expect("it listens");
        Self { port, driver, directory, events, end: Some(end), thread: Some(thread) }
    }

    /// Replaces the configuration file, which the gateway then reads again.
    pub fn write_config(&self, text: &str) {
        let file = self.directory.path().join("config.toml");
        let new = file.with_extension("new");
        std::fs::write(&new, text).expect("the directory is ours");
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).expect("the file is ours");
        std::fs::rename(new, file).expect("the directory is ours");
    }

    /// Returns what happened so far.
    pub fn events(&self) -> Vec<String> {
        self.events.0.lock().expect("no panic").clone()
    }
}

/// Settings for a test: any port, and nothing is stopped.
pub fn settings() -> GatewaySettings {
    GatewaySettings { port: 0, idle_timeout: IdleStop::Never, ..GatewaySettings::default() }
}

impl Drop for Stage {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the gateway panicked");
        }
        for backend in self.driver.backends.lock().expect("no panic").iter() {
            backend.stop();
        }
    }
}

impl ScriptedDriver {
    /// Returns how many processes were started.
    pub fn starts(&self) -> usize {
        self.mock.spawned().len()
    }

    /// Lets the next start fail: its process ends at once.
    pub fn fail_next_start(&self) {
        *self.dies.lock().expect("no panic") = true;
    }

    /// Lets the process that was started last listen.
    pub fn begin_to_listen(&self, port: u16) {
        self.backend(|backend| {
            if backend.port == port {
                backend.start();
            }
        });
    }

    pub fn mock(&self) -> &MockDriver {
        &self.mock
    }

    /// Lets the process of a server hold this much memory.
    pub fn set_memory(&self, backend: &Backend, bytes: u64) {
        self.memory.lock().expect("no panic").insert(backend.port, bytes);
    }

    /// Lets a process of another program be this server, which holds so much memory.
    pub fn runs_elsewhere(&self, backend: &Backend, memory_bytes: u64) {
        let plan = MockPlan::runs().uses(Usage { memory_bytes, ..Usage::default() });
        let process = self.mock.unrelated(plan);
        self.elsewhere.lock().expect("no panic").push((process, backend.port));
        backend.start();
    }

    fn backend(&self, act: impl Fn(&Backend)) {
        self.backends.lock().expect("no panic").iter().for_each(act);
    }

    fn port_of(&self, process: &ProcessId) -> Option<u16> {
        let ports = self.ports.lock().expect("no panic");
        ports.iter().find(|(known, _)| known == process).map(|(_, port)| *port)
    }

    /// Ends the server of a process.
    fn end(&self, process: &ProcessId) {
        let port = self.port_of(process);
        self.backend(|backend| {
            if Some(backend.port) == port {
                backend.stop();
            }
        });
    }
}

impl ProcessDriver for ScriptedDriver {
    fn spawn(&self, spec: &ProcessSpec) -> Result<Box<dyn Child>, ProcessError> {
        let host = spec.env.iter().find(|(name, _)| name == "OLLAMA_HOST").map(|(_, value)| value.clone());
        let port =
            host.and_then(|host| host.to_str()?.rsplit(':').next()?.parse::<u16>().ok()).expect("a port");
        if std::mem::take(&mut *self.dies.lock().expect("no panic")) {
            self.mock.plan_spawn(MockPlan::runs().dies_after(0, Ending::Code(1)));
        } else {
            self.mock.plan_spawn(MockPlan::runs());
            if *self.listens.lock().expect("no panic") {
                self.begin_to_listen(port);
            }
        }
        let child = self.mock.spawn(spec)?;
        self.ports.lock().expect("no panic").push((child.id().clone(), port));
        Ok(child)
    }

    fn host(&self) -> Result<Host, ProcessError> {
        self.mock.host()
    }

    fn identify(&self, pid: Pid) -> Result<Option<ProcessId>, ProcessError> {
        self.mock.identify(pid)
    }

    fn members(&self, instance: Instance<'_>) -> Result<Vec<ProcessId>, ProcessError> {
        self.mock.members(instance)
    }

    fn instance_id(&self, pid: Pid) -> Option<String> {
        self.mock.instance_id(pid)
    }

    fn signal(&self, process: &ProcessId, signal: StopSignal) -> Result<(), ProcessError> {
        self.end(process);
        self.mock.signal(process, signal)
    }

    fn signal_group(&self, leader: &ProcessId, signal: StopSignal) -> Result<bool, ProcessError> {
        self.end(leader);
        self.mock.signal_group(leader, signal)
    }

    fn is_in_group(&self, process: &ProcessId, leader: &ProcessId) -> bool {
        self.mock.is_in_group(process, leader)
    }

    fn usage(&self, process: &ProcessId) -> Option<Usage> {
        let memory = self.memory.lock().expect("no panic");
        let memory_bytes = self.port_of(process).and_then(|port| memory.get(&port).copied());
        memory_bytes
            .map(|memory_bytes| Usage { memory_bytes, ..Usage::default() })
            .or_else(|| self.mock.usage(process))
    }

    fn listener(&self, address: &Address, ours: Option<Instance<'_>>) -> Result<Listener, ProcessError> {
        let backends = self.backends.lock().expect("no panic");
        if !backends.iter().any(|backend| backend.port == address.port && backend.is_listening()) {
            return Ok(Listener::None);
        }
        let ours = ours.map(|ours| self.mock.members(ours)).transpose()?.unwrap_or_default();
        let elsewhere = self.elsewhere.lock().expect("no panic");
        let other = elsewhere.iter().find(|(_, port)| *port == address.port);
        Ok(match (ours.first(), other) {
            (Some(process), _) => Listener::Ours { pid: process.pid },
            (None, Some((process, _))) => Listener::Other { pid: process.pid, program: None },
            (None, None) => Listener::Unknown,
        })
    }
}
