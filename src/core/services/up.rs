//! `up`: look, decide, start; and `ensure_ready`, which does so only where it must.

use std::net::{TcpListener, ToSocketAddrs as _};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::launch::Plan;
use super::observe::{Locked, Observed};
use super::ready::{self, Depth, Sight};
use super::record::Record;
use super::wait::{Begun, Tracked};
use super::{
    ManagedService, Observation, Owner, Recorded, ServiceError, ServiceManager, Start, StartedBy, State,
    classify,
};
use crate::core::address::Address;
use crate::core::events::Event;
use crate::core::logs::keeper::KeeperSpec;
use crate::core::logs::{self, Limits};
use crate::core::process::{Listener, Liveness, Pid};

/// How to start.
#[derive(Debug, Clone, Default)]
pub struct UpOptions {
    /// How long it may take to be ready; by default as long as the configuration says.
    pub timeout: Option<Duration>,
    /// Return as soon as it is started.
    pub no_wait: bool,
    /// The model it is started with instead of the configured one, for runtimes whose server serves one model. Means
    /// nothing for one that runs already.
    pub model: Option<String>,
}

/// Where a runtime answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The address: the recorded one, whatever the configuration says now.
    pub address: Address,
    /// Its process, where the system tells.
    pub pid: Option<Pid>,
    /// The model the server was started with, exactly as requests must name it; `None` for servers that take none,
    /// and for those that somebody else started.
    pub model: Option<String>,
    /// Who started it.
    pub started_by: StartedBy,
}

/// What `up` did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Up {
    /// Where it answers.
    pub endpoint: Endpoint,
    /// What it took.
    pub kind: UpKind,
}

/// What it took to have a runtime up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpKind {
    /// It was started, and is ready.
    Started,
    /// It was started, and nobody waited for it.
    Launched,
    /// It ran already, and is ready.
    AlreadyUp,
    /// Somebody else had started it, and it is ready.
    External,
}

/// How long a look at an address may take before anything is started.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// How long a server that is not fusion's may take to generate one token.
const EXTERNAL_LIMIT: Duration = Duration::from_secs(30);

/// What a command goes on with after it has released the lock.
pub(super) enum Next {
    /// Nothing is left to do.
    Done(Up),
    /// It is to become ready.
    Wait(Box<Begun>),
}

impl ServiceManager<'_> {
    /// Has the service up: returns only when a request would now succeed (except with `no_wait`).
    pub fn up(&self, service: &ManagedService<'_>, options: &UpOptions) -> Result<Up, ServiceError> {
        let lock = self.lock(service, service.config.server.stop_timeout)?;
        let next = self.begin(service, options)?;
        drop(lock);
        self.go_on(service, options, next)
    }

    /// Where the service answers, for a command that wants to use it; started first if need be and `auto_up`.
    ///
    /// One that was ready once and lives costs reading the record and one look at the kernel: no request is made, so
    /// the caller's own request shows whether it still answers. Follow the address that is returned, not the
    /// configuration, and send [`Endpoint::model`]'s name where the same model is meant. `options.model` is the
    /// model to start with; compare it with what is returned. Without `auto_up`, what does not run is
    /// [`ServiceError::NotRunning`]. Nothing is printed; [`Event::Started`] and what follows tell of a start.
    pub fn ensure_ready(
        &self,
        service: &ManagedService<'_>,
        auto_up: bool,
        options: &UpOptions,
    ) -> Result<Endpoint, ServiceError> {
        if let Some(endpoint) = self.running(service)? {
            return Ok(endpoint);
        }
        if auto_up {
            return match Self::running_elsewhere(service) {
                Some(endpoint) => Ok(endpoint),
                None => Ok(self.up(service, options)?.endpoint),
            };
        }
        let observed = self.observe(service, LOOK_LIMIT, Locked::No)?;
        match (observed.state, &observed.past.record, &observed.past.process) {
            (State::Ready, Some(record), Some(process)) => Ok(endpoint(record, process.pid)),
            (State::External, ..) => Ok(external(&observed)),
            (State::Unhealthy, _, Some(process)) => Err(unhealthy(service, &observed, process.pid)),
            (State::Unhealthy, ..) => Err(taken(service, observed)),
            (state, ..) => Err(ServiceError::NotRunning { runtime: service.runtime.name(), state }),
        }
    }

    /// Where the service answers, if fusion started it, it was ready once, and it lives. Looks at the record and the
    /// kernel, and makes no request.
    pub fn running(&self, service: &ManagedService<'_>) -> Result<Option<Endpoint>, ServiceError> {
        let Ok(Some(record)) = Record::read(&service.files.state) else { return Ok(None) };
        match &record.process {
            Some(process) if record.ready && self.driver.liveness(process)? == Liveness::Alive => {
                Ok(Some(endpoint(&record, process.pid)))
            }
            _ => Ok(None),
        }
    }

    /// Where the service answers, if fusion has started nothing and somebody else has. Makes one request, and does not
    /// look for the process.
    fn running_elsewhere(service: &ManagedService<'_>) -> Option<Endpoint> {
        if !matches!(Record::read(&service.files.state), Ok(None)) {
            return None;
        }
        let address = &service.config.server.address;
        let sight = ready::look(service.runtime, address, Depth::Status, LOOK_LIMIT);
        let state = classify(Observation {
            process: Recorded::Nothing,
            start: Start::Underway,
            answer: sight.answered(),
            listener: Owner::Unknown,
        });
        let endpoint =
            || Endpoint { address: address.clone(), pid: None, model: None, started_by: StartedBy::Other };
        (state == State::External).then(endpoint)
    }

    /// Decides, and starts what is to be started. The caller holds the lock.
    pub(super) fn begin(
        &self,
        service: &ManagedService<'_>,
        options: &UpOptions,
    ) -> Result<Next, ServiceError> {
        let observed = self.observe(service, LOOK_LIMIT, Locked::Yes)?;
        self.warn_of_exposure(service, &observed.address);
        let Observed { past, state, .. } = &observed;
        match (state, &past.record, &past.process) {
            (State::Ready | State::Starting, Some(record), Some(process)) => {
                self.tell_of_change(service, record);
                let patience = options.timeout.unwrap_or(service.config.server.startup_timeout);
                let tracked = Tracked::Strangers(vec![process.clone()]);
                Ok(Next::Wait(Box::new(Begun::running(record.clone(), tracked, *state, patience))))
            }
            (State::Unhealthy, Some(_), Some(_)) if past.orphaned => {
                self.end_orphans(service, &observed)?;
                self.begin(service, options)
            }
            (State::Unhealthy, Some(_), Some(_)) if observed.listener_is_other() => {
                Err(taken(service, observed))
            }
            (State::Unhealthy, Some(record), Some(process)) => {
                let tracked = Tracked::Strangers(vec![process.clone()]);
                let begun = Begun::running(record.clone(), tracked, *state, UNHEALTHY_PATIENCE);
                Ok(Next::Wait(Box::new(begun)))
            }
            (State::External, ..) => self.external_up(service, &observed).map(Next::Done),
            _ => self.start(service, options, observed).map(|begun| Next::Wait(Box::new(begun))),
        }
    }

    /// After the lock was released: waits until what was begun is ready, unless that is not wanted.
    pub(super) fn go_on(
        &self,
        service: &ManagedService<'_>,
        options: &UpOptions,
        next: Next,
    ) -> Result<Up, ServiceError> {
        match next {
            Next::Done(up) => Ok(up),
            // Whether one that does not answer will do so again must be waited for.
            Next::Wait(begun) if options.no_wait && !begun.is_unhealthy() => {
                let pid = begun.pid();
                Ok(Up { endpoint: endpoint(&begun.record, pid), kind: begun.kind_without_waiting() })
            }
            Next::Wait(begun) => self.wait(service, *begun),
        }
    }

    /// Neither server has any authentication.
    fn warn_of_exposure(&self, service: &ManagedService<'_>, address: &Address) {
        if !address.is_loopback() {
            self.events.event(&Event::Exposed { runtime: service.runtime.name(), address });
        }
    }

    fn tell_of_change(&self, service: &ManagedService<'_>, record: &Record) {
        if self.has_changed(service, record) == Some(true) {
            self.events.event(&Event::ConfigurationChanged { runtime: service.runtime.name() });
        }
    }

    /// The same kind of runtime, started by somebody else, is as good as one's own, if it works.
    fn external_up(&self, service: &ManagedService<'_>, observed: &Observed) -> Result<Up, ServiceError> {
        let runtime = service.runtime;
        if let Some(model) = runtime.resident_model().filter(|_| runtime.ready_needs_generation()) {
            match ready::look(runtime, &observed.address, Depth::Generation(model), EXTERNAL_LIMIT) {
                Sight::Ready(_) => {}
                // It may have been started without a model, and load whichever it is asked for.
                sight @ (Sight::ModelMissing(_) | Sight::Broken(_)) => {
                    let words = format!("it did not generate with its own model: {}", sight.words());
                    self.events.event(&Event::Warning(&words));
                }
                sight => return Err(taken(service, Observed { sight, ..observed.clone() })),
            }
        }
        Ok(Up { endpoint: external(observed), kind: UpKind::External })
    }

    /// Ends what outlived a process that fusion had started, so that it can be started anew.
    fn end_orphans(&self, service: &ManagedService<'_>, observed: &Observed) -> Result<(), ServiceError> {
        let Some(record) = &observed.past.record else { return Ok(()) };
        let name = service.runtime.name();
        let words = format!("{name} had died and left processes behind; they are ended first");
        self.events.event(&Event::Warning(&words));
        self.end(service, record, service.config.server.stop_timeout, false)?;
        Ok(Record::remove(&service.files)?)
    }

    fn start(
        &self,
        service: &ManagedService<'_>,
        options: &UpOptions,
        observed: Observed,
    ) -> Result<Begun, ServiceError> {
        if !matches!(observed.sight, Sight::NoConnection(_)) {
            return Err(taken(service, observed));
        }
        self.try_to_listen(service)?;
        let started_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let Plan { spec, mut record } = self.plan(service, options.model.as_deref(), started_at)?;
        // From here on a crash leaves a record, by whose instance id the process is found.
        record.write(&service.files)?;
        let spawned = logs::rotate(&service.files.log, service.config.server.log_keep)
            .map_err(ServiceError::from)
            .and_then(|()| Ok(self.driver.spawn(&spec)?));
        let child = match spawned {
            Ok(child) => child,
            Err(error) => {
                Record::remove(&service.files)?;
                return Err(error);
            }
        };
        record.process = Some(child.id().clone());
        let pid = child.id().pid;
        let patience = options.timeout.unwrap_or(service.config.server.startup_timeout);
        let begun = Begun::started(record, Tracked::Child(child), patience);
        if let Err(error) = begun.record.write(&service.files) {
            // Without a record nobody would find it again.
            self.abandon_locked(service, &begun.record)?;
            return Err(error.into());
        }
        self.events.event(&Event::Started { runtime: service.runtime.name(), pid });
        self.keep_log(service, &begun.record);
        Ok(begun)
    }

    /// Starts what keeps the log within bounds; without it only the bound is lost.
    fn keep_log(&self, service: &ManagedService<'_>, record: &Record) {
        let (Some(fusion), Some(leader)) = (&self.environment.program, &record.process) else { return };
        let keeper = KeeperSpec {
            log: service.files.log.clone(),
            limits: Limits::from(&service.config.server),
            instance: record.instance.as_str().to_owned(),
            leader: leader.clone(),
        };
        if let Err(error) = self.driver.spawn(&keeper.process(fusion, &service.files.directory)) {
            self.events.event(&Event::Warning(&format!("the log will grow without bounds: {error}")));
        }
    }

    /// Nobody answers; but somebody may be bound and not listening yet, or the host may not be this machine's.
    fn try_to_listen(&self, service: &ManagedService<'_>) -> Result<(), ServiceError> {
        let address = &service.config.server.address;
        let (runtime, address) = (service.runtime.name(), address.clone());
        let candidates = match (address.host.as_str(), address.port).to_socket_addrs() {
            Ok(candidates) => candidates,
            Err(source) => return Err(ServiceError::AddressUnusable { runtime, address, source }),
        };
        let attempts: Vec<_> = candidates.map(|candidate| TcpListener::bind(candidate).err()).collect();
        let is_possible = attempts.iter().any(Option::is_none);
        for error in attempts.into_iter().flatten() {
            if error.kind() == std::io::ErrorKind::AddrInUse {
                let listener = self.driver.listener(&address, None).unwrap_or(Listener::Nobody);
                let said = error.to_string();
                return Err(ServiceError::AddressTaken { runtime, address, listener, said });
            }
            // `localhost` is often two addresses, one of which the machine does not have.
            if !is_possible {
                return Err(ServiceError::AddressUnusable { runtime, address, source: error });
            }
        }
        Ok(())
    }
}

/// How long one that was ready once may fail to answer before `up` says so.
const UNHEALTHY_PATIENCE: Duration = Duration::from_secs(5);

impl Observed {
    pub(super) fn listener_is_other(&self) -> bool {
        matches!(self.listener, Listener::Other { .. } | Listener::Hidden)
    }

    pub(super) fn listener_pid(&self) -> Option<Pid> {
        match self.listener {
            Listener::Ours { pid } | Listener::Other { pid, .. } => Some(pid),
            Listener::Nobody | Listener::Hidden => None,
        }
    }
}

pub(super) fn endpoint(record: &Record, pid: Pid) -> Endpoint {
    Endpoint {
        address: record.address.clone(),
        pid: Some(pid),
        model: record.model.clone(),
        started_by: StartedBy::Fusion,
    }
}

fn external(observed: &Observed) -> Endpoint {
    Endpoint {
        address: observed.address.clone(),
        pid: observed.listener_pid(),
        model: None,
        started_by: StartedBy::Other,
    }
}

pub(super) fn taken(service: &ManagedService<'_>, observed: Observed) -> ServiceError {
    ServiceError::AddressTaken {
        runtime: service.runtime.name(),
        address: observed.address,
        listener: observed.listener,
        said: observed.sight.words(),
    }
}

fn unhealthy(service: &ManagedService<'_>, observed: &Observed, pid: Pid) -> ServiceError {
    ServiceError::Unhealthy {
        runtime: service.runtime.name(),
        pid,
        address: observed.address.clone(),
        why: observed.sight.words(),
    }
}

/// When a wait ends that begins now. A limit beyond what the clock can hold is as good as a century.
pub(super) fn deadline(patience: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(patience).unwrap_or_else(|| now + Duration::from_secs(100 * 365 * 24 * 3600))
}
