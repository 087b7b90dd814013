//! Failures in the middle of `up` and `down`, injected step by step with the mock driver.

mod elsewhere;
mod kinds;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use self::kinds::{ServiceKind, for_each_kind};
use super::record::{InstanceId, Record};
use super::{
    DownOptions, ManagedService, Origin, ServiceError, ServiceManager, State, Up, UpKind, UpOptions,
};
use crate::core::address::Address;
use crate::core::cancel::{CancelToken, Cancelled};
use crate::core::config::Config;
use crate::core::events::{Event, EventBus, Subscriber};
use crate::core::logs::rotator;
use crate::core::paths::Paths;
use crate::core::process::mock::{MockDriver, MockPlan};
use crate::core::process::{
    Child, Ending, Host, Instance, Listener, Pid, ProcessDriver, ProcessError, ProcessId, ProcessSpec,
    StopSignal, Usage,
};
use crate::core::runtimes::TABLE;
use crate::env::Environment;
use crate::test_ports::Port;

/// A machine with one service on it, and hooks at the steps of its start.
struct Machine {
    kind: ServiceKind,
    root: tempfile::TempDir,
    driver: MockDriver,
    config: Config,
    paths: Paths,
    environment: Environment,
    address: Address,
    _reserved: Port,
    on_spawn: Hook,
    /// Called after the first scan for members of an instance.
    on_scan: Hook,
    events: Arc<Events>,
    bus: EventBus,
    cancel: CancelToken,
}

/// Reads a request and sends what a ready server does. Calls the hook in between.
fn respond(mut stream: TcpStream, at_request: impl FnOnce()) {
    let _ = stream.read(&mut [0; 4096]);
    at_request();
    let body = "{\"version\":\"1\"}";
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(format!("{head}{body}").as_bytes());
}

type Hook = Mutex<Option<Box<dyn FnOnce() + Send>>>;

#[derive(Default)]
struct Events(Mutex<Vec<String>>);

impl Subscriber for Events {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap().push(format!("{:?}", event.kind));
    }
}

/// The mock driver, with the hooks.
struct Staged<'a>(&'a Machine);

impl ProcessDriver for Staged<'_> {
    fn spawn(&self, spec: &ProcessSpec) -> Result<Box<dyn Child>, ProcessError> {
        let is_rotator = spec.args.first().is_some_and(|word| word == rotator::SUBCOMMAND);
        let child = self.0.driver.spawn(spec)?;
        if !is_rotator && let Some(hook) = self.0.on_spawn.lock().unwrap().take() {
            hook();
        }
        Ok(child)
    }

    fn ending(&self, child: &ProcessId) -> Option<Ending> {
        self.0.driver.ending(child)
    }

    fn host(&self) -> Result<Host, ProcessError> {
        self.0.driver.host()
    }

    fn identify(&self, pid: Pid) -> Result<Option<ProcessId>, ProcessError> {
        self.0.driver.identify(pid)
    }

    fn members(&self, instance: Instance<'_>) -> Result<Vec<ProcessId>, ProcessError> {
        let members = self.0.driver.members(instance);
        if let Some(hook) = self.0.on_scan.lock().unwrap().take() {
            hook();
        }
        members
    }

    fn instance_id(&self, pid: Pid) -> Option<String> {
        self.0.driver.instance_id(pid)
    }

    fn signal(&self, process: &ProcessId, signal: StopSignal) -> Result<(), ProcessError> {
        self.0.driver.signal(process, signal)
    }

    fn signal_group(&self, leader: &ProcessId, signal: StopSignal) -> Result<bool, ProcessError> {
        self.0.driver.signal_group(leader, signal)
    }

    fn is_in_group(&self, process: &ProcessId, leader: &ProcessId) -> bool {
        self.0.driver.is_in_group(process, leader)
    }

    fn usage(&self, process: &ProcessId) -> Option<Usage> {
        self.0.driver.usage(process)
    }

    fn listener(&self, address: &Address, ours: Option<Instance<'_>>) -> Result<Listener, ProcessError> {
        self.0.driver.listener(address, ours)
    }
}

impl Machine {
    fn new(kind: ServiceKind) -> Self {
        let root = tempfile::tempdir().unwrap();
        let reserved = Port::free();
        let port = reserved.number();
        let text = kind.config(port);
        let (config, problems) = Config::parse(&text, TABLE);
        assert!(problems.is_empty(), "{problems:?}");
        let environment = Environment {
            config_dir: Some(root.path().to_owned()),
            home: Some(root.path().to_owned()),
            program: Some("/nowhere/fusion".into()),
            ..Environment::default()
        };
        let (events, bus) = (Arc::new(Events::default()), EventBus::new());
        bus.subscribe(&events);
        Self {
            kind,
            driver: MockDriver::new(),
            config,
            paths: Paths::discover(&environment).unwrap(),
            environment,
            address: Address { host: "127.0.0.1".to_owned(), port },
            _reserved: reserved,
            on_spawn: Mutex::new(None),
            on_scan: Mutex::new(None),
            events,
            bus,
            cancel: CancelToken::new(),
            root,
        }
    }

    /// Makes the next process listen and respond from its spawn on. Calls the hook at the first request.
    fn will_respond(&self, at_first_request: impl FnOnce() + Send + 'static) {
        self.driver.plan_spawn(MockPlan::runs().listens(&self.address));
        let address = (self.address.host.clone(), self.address.port);
        self.on_spawn.lock().unwrap().replace(Box::new(move || {
            let listener = TcpListener::bind(address).unwrap();
            std::thread::spawn(move || {
                // `up` sends one request; then the port is free again.
                if let Ok((stream, _)) = listener.accept() {
                    respond(stream, at_first_request);
                }
            });
        }));
    }

    fn with<T>(&self, work: impl FnOnce(&ServiceManager<'_>, &ManagedService) -> T) -> T {
        let manager = ServiceManager {
            table: TABLE,
            driver: &Staged(self),
            events: &self.bus,
            cancel: &self.cancel,
            config: &self.config,
            paths: &self.paths,
            environment: &self.environment,
            sockets: None,
        };
        let name = self.kind.name();
        let service = ManagedService {
            origin: if self.kind == ServiceKind::BuiltIn { Origin::BuiltIn } else { Origin::Instance },
            name: name.into(),
            template: self.kind.template(TABLE, &self.config),
            settings: self.config.service(name).unwrap(),
            files: self.paths.service(name),
        };
        work(&manager, &service)
    }

    fn up(&self) -> Result<Up, ServiceError> {
        self.with(|manager, service| manager.up(service, &UpOptions::default()))
    }

    fn up_within(&self, limit: Duration) -> Result<Up, ServiceError> {
        let options = UpOptions { timeout: Some(limit), ..UpOptions::default() };
        self.with(|manager, service| manager.up(service, &options))
    }

    fn down(&self) -> Result<super::Down, ServiceError> {
        self.with(|manager, service| manager.down(service, &DownOptions::default()))
    }

    fn state(&self) -> State {
        self.with(|manager, service| manager.status(service).unwrap().state)
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.root.path().join(self.kind.name()).join(name)
    }

    /// Returns the file that is named after the service.
    fn own_file(&self, extension: &str) -> std::path::PathBuf {
        self.file(&format!("{}.{extension}", self.kind.name()))
    }

    fn record(&self) -> Option<Record> {
        Record::read(&self.file("state.json")).unwrap()
    }

    #[track_caller]
    fn assert_nothing_remains(&self) {
        assert_eq!(self.driver.living(), [], "a process remains");
        assert_eq!(self.record(), None, "a record remains");
        assert!(!self.own_file("pid").exists(), "a pid file remains");
    }
}

/// Makes every write of this file fail.
fn obstruct(path: &Path) {
    std::fs::create_dir_all(path.join("in the way")).unwrap();
}

fn clear(path: &Path) {
    std::fs::remove_dir_all(path).unwrap();
}

#[test]
fn up_and_down_leave_nothing() {
    for_each_kind(|kind| {
        let machine = Machine::new(kind);
        machine.will_respond(|| {});
        let up = machine.up().unwrap();
        assert_eq!(up.kind, UpKind::Started);
        assert_eq!(machine.record().unwrap().process.map(|process| process.pid), up.endpoint.pid);
        assert!(machine.record().unwrap().ready);
        machine.down().unwrap();
        machine.assert_nothing_remains();
    });
}

#[test]
fn down_ignores_sockets_of_ending_process() {
    for_each_kind(|kind| {
        let machine = Machine::new(kind);
        machine.will_respond(|| {});
        machine.up().unwrap();
        let socket = TcpListener::bind((machine.address.host.as_str(), machine.address.port)).unwrap();
        machine.driver.unrelated(MockPlan::runs().listens(&machine.address).of_another_user());
        let released = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(socket);
        });
        machine.down().unwrap();
        released.join().unwrap();
        let events = machine.events.0.lock().unwrap();
        assert!(!events.iter().any(|event| event.starts_with("PortInUse")), "{events:?}");
    });
}

#[test]
fn nothing_changes_without_lock() {
    for_each_kind(|kind| {
        let machine = Machine::new(kind);
        obstruct(&machine.file("lock"));
        assert!(matches!(machine.up().unwrap_err(), ServiceError::Lock(_)));
        assert!(machine.driver.spawned().is_empty(), "never without the lock");
        assert!(matches!(machine.down().unwrap_err(), ServiceError::Lock(_)));
        machine.assert_nothing_remains();
    });
}

#[test]
fn nothing_starts_without_intent() {
    for_each_kind(|kind| {
        let machine = Machine::new(kind);
        obstruct(&machine.file("state.json.new"));
        assert!(matches!(machine.up().unwrap_err(), ServiceError::Record(_)));
        assert!(machine.driver.spawned().is_empty(), "never without a record");
        machine.assert_nothing_remains();
    });
}

#[test]
fn nothing_starts_without_log() {
    for_each_kind(|kind| {
        let machine = Machine::new(kind);
        obstruct(&machine.own_file("log"));
        assert!(matches!(machine.up().unwrap_err(), ServiceError::Log(_)));
        assert!(machine.driver.spawned().is_empty());
        machine.assert_nothing_remains();
    });
}

#[test]
fn failed_spawn_leaves_nothing() {
    for_each_kind(|kind| {
        let machine = Machine::new(kind);
        machine.driver.plan_failure(ProcessError::ProgramMissing { program: "/gone".into() });
        assert!(matches!(
            machine.up().unwrap_err(),
            ServiceError::Process(ProcessError::ProgramMissing { .. })
        ));
        machine.assert_nothing_remains();
    });
}

#[test]
fn unrecorded_process_is_stopped() {
    for_each_kind(|kind| {
        let machine = Machine::new(kind);
        let new = machine.file("state.json.new");
        *machine.on_spawn.lock().unwrap() = Some(Box::new(move || obstruct(&new)));
        assert!(matches!(machine.up().unwrap_err(), ServiceError::Record(_)));
        assert_eq!(machine.driver.spawned().len(), 1);
        machine.assert_nothing_remains();
    });
}

#[test]
fn process_without_pid_file_is_stopped() {
    for_each_kind(|kind| {
        let machine = Machine::new(kind);
        let new = machine.own_file("pid.new");
        *machine.on_spawn.lock().unwrap() = Some(Box::new(move || obstruct(&new)));
        assert!(matches!(machine.up().unwrap_err(), ServiceError::Record(_)));
        machine.assert_nothing_remains();
    });
}

#[test]
fn failed_log_rotator_is_reported() {
    for_each_kind(|kind| {
        let machine = Machine::new(kind);
        machine.will_respond(|| {});
        machine.driver.plan_failure(ProcessError::ProgramMissing { program: "/gone".into() });
        machine.up().unwrap();
        let events = machine.events.0.lock().unwrap().join("\n");
        assert!(events.contains("LogNotRotated"), "{events}");
        machine.down().unwrap();
        machine.assert_nothing_remains();
    });
}

#[test]
fn process_with_unrecorded_readiness_is_stopped() {
    for_each_kind(|kind| {
        let machine = Machine::new(kind);
        let new = machine.file("state.json.new");
        let obstacle = new.clone();
        machine.will_respond(move || obstruct(&obstacle));
        assert!(matches!(machine.up().unwrap_err(), ServiceError::Record(_)));
        clear(&new);
        machine.assert_nothing_remains();
    });
}

#[test]
fn death_at_any_moment_leaves_nothing() {
    for_each_kind(|kind| {
        for scans in 0..12 {
            for ending in [Ending::Code(0), Ending::Code(1), Ending::Signal(11)] {
                let machine = Machine::new(kind);
                machine.driver.plan_spawn(MockPlan::runs().dies_after(scans, ending));
                let error = machine.up().unwrap_err();
                assert!(matches!(error, ServiceError::Failed(_)), "{scans} scans: {error}");
                machine.assert_nothing_remains();
            }
        }
    });
}

/// After a boot nobody knows the status.
#[test]
fn end_without_status_0_is_a_failure() {
    for_each_kind(|kind| {
        for (ending, fails) in [
            (Some(Ending::Code(0)), false),
            (Some(Ending::Code(1)), true),
            (Some(Ending::Signal(9)), true),
            (None, true),
        ] {
            let machine = Machine::new(kind);
            machine.will_respond(|| {});
            machine.up().unwrap();
            let is_well = || machine.with(|manager, service| !manager.has_failed(service));
            assert!(is_well(), "it runs");
            let process = machine.record().unwrap().process.unwrap();
            match ending {
                Some(ending) => machine.driver.end(&process, ending),
                None => machine.driver.reboot(),
            }
            assert_eq!(is_well(), !fails, "{ending:?}");
        }
    });
}

#[test]
fn cancellation_at_any_moment_leaves_nothing() {
    for_each_kind(|kind| {
        let mut failed = 0;
        for at in 0..12 {
            let mut machine = Machine::new(kind);
            machine.cancel = CancelToken::after_checks(at);
            let error = machine.up().unwrap_err();
            assert!(matches!(error, ServiceError::Cancelled(Cancelled::Signal(2))), "check {at}: {error}");
            failed += machine.driver.spawned().len();
            machine.assert_nothing_remains();
        }
        assert!(failed > 0, "no cancellation came after the spawn");
    });
}

#[test]
fn record_of_another_users_process_stays() {
    for_each_kind(|kind| {
        let machine = Machine::new(kind);
        machine.driver.plan_spawn(MockPlan::runs().listens(&machine.address).of_another_user());
        // As after `sudo`: the record exists, and this user may not signal the process.
        let error = machine.up_within(Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, ServiceError::Process(ProcessError::Signal { .. })), "{error}");
        assert!(machine.record().is_some(), "the process may be alive");
        let error = machine.down().unwrap_err();
        assert!(matches!(error, ServiceError::Process(ProcessError::Signal { .. })), "{error}");
        assert!(machine.record().is_some());
        assert_ne!(machine.driver.living(), []);
    });
}

#[test]
fn down_kills_processes_that_ignore_sigterm() {
    for_each_kind(|kind| {
        let machine = Machine::new(kind);
        machine.will_respond(|| {});
        machine.up().unwrap();
        let record = machine.record().unwrap();
        let leader = record.process.as_ref();
        machine.driver.member(record.instance.as_str(), leader, MockPlan::runs().ignores_terminate());
        machine.driver.member(record.instance.as_str(), leader, MockPlan::runs().own_session());
        let external = machine.driver.unrelated(MockPlan::runs());
        let down = machine.down().unwrap();
        assert!(down.killed);
        assert_eq!(machine.driver.living(), [external]);
        assert_eq!(machine.record(), None);
    });
}

/// Some servers abort their requests at a second SIGTERM.
#[test]
fn down_sends_one_sigterm_per_process() {
    for_each_kind(|kind| {
        let machine = Machine::new(kind);
        machine.will_respond(|| {});
        machine.up().unwrap();
        let record = machine.record().unwrap();
        let leader = record.process.unwrap();
        let member = |plan: MockPlan| {
            machine.driver.member(record.instance.as_str(), Some(&leader), plan.ignores_terminate())
        };
        let children = [member(MockPlan::runs()), member(MockPlan::runs().own_session())];
        machine.down().unwrap();
        for process in children.iter().chain([&leader]) {
            let signals = machine.driver.signals();
            let terminations =
                signals.iter().filter(|signal| **signal == (process.pid, StopSignal::Terminate));
            assert_eq!(terminations.count(), 1, "{process:?}");
        }
    });
}

#[test]
fn down_signals_no_process_of_dead_record() {
    for_each_kind(|kind| {
        let machine = Machine::new(kind);
        machine.will_respond(|| {});
        machine.up().unwrap();
        let process = machine.record().unwrap().process.unwrap();
        machine.driver.end(&process, Ending::Code(0));
        let reuser = machine.driver.reuse(&process);
        let before = machine.driver.signals().len();
        assert_eq!(machine.state(), State::Exited);
        machine.down().unwrap();
        assert_eq!(machine.driver.living(), [reuser]);
        let after: Vec<_> = machine.driver.signals().split_off(before);
        assert!(after.iter().all(|(pid, _)| *pid != process.pid), "{after:?}");

        let machine = Machine::new(kind);
        machine.will_respond(|| {});
        machine.up().unwrap();
        machine.driver.reboot();
        assert_eq!(machine.state(), State::Exited);
        machine.down().unwrap();
        machine.assert_nothing_remains();
    });
}

/// Records the intent of a start that stopped before its process was recorded.
fn record_intent(machine: &Machine) -> InstanceId {
    std::fs::create_dir_all(machine.file("")).unwrap();
    let instance = InstanceId::random("0123456789abcdef").unwrap();
    let spec = ProcessSpec {
        program: "/bin/sh".into(),
        args: Vec::new(),
        without: Vec::new(),
        home: None,
        env: Vec::new(),
        directory: machine.file(""),
        log: None,
        instance: instance.as_str().to_owned(),
    };
    let record = Record::intent(&spec, instance.clone(), &machine.address, std::time::UNIX_EPOCH);
    machine.with(|_, service| record.write(&service.files).unwrap());
    instance
}

/// After a crash between the spawn and the record, the instance id identifies the process.
#[test]
fn every_command_finds_process_of_intent() {
    for_each_kind(|kind| {
        type Command = fn(&Machine);
        let commands: [Command; 2] = [
            |machine| assert_eq!(machine.down().unwrap().pid.map(|_| ()), Some(())),
            |machine| assert_eq!(machine.state(), State::Starting),
        ];
        for command in commands {
            let machine = Machine::new(kind);
            let instance = record_intent(&machine);
            machine.driver.member(instance.as_str(), None, MockPlan::runs());
            command(&machine);
            machine.down().unwrap();
            machine.assert_nothing_remains();
        }
    });
}

/// Right after a spawn, the environment of the process does not show its instance id yet.
#[test]
fn late_instance_id_causes_no_second_start() {
    for_each_kind(|kind| {
        let machine = Machine::new(kind);
        let instance = record_intent(&machine);
        let driver = machine.driver.clone();
        *machine.on_scan.lock().unwrap() = Some(Box::new(move || {
            driver.member(instance.as_str(), None, MockPlan::runs());
        }));
        let error = machine.up_within(Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, ServiceError::Failed(_)), "{error}");
        let spawned = machine.driver.spawned();
        let is_rotator =
            |spec: &ProcessSpec| spec.args.first().is_some_and(|word| word == rotator::SUBCOMMAND);
        assert!(spawned.iter().all(is_rotator), "{spawned:?}");
        machine.down().unwrap();
        machine.assert_nothing_remains();
    });
}

#[test]
fn start_past_deadline_leaves_nothing() {
    for_each_kind(|kind| {
        let machine = Machine::new(kind);
        let error = machine.up_within(Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, ServiceError::Failed(_)), "{error}");
        machine.assert_nothing_remains();
    });
}
