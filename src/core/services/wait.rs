//! The wait for a service to be ready: its death, its answers, the clock and the user are watched at once.

use std::time::{Duration, Instant};

use super::endpoint::endpoint;
use super::error::{Failed, Why};
use super::launch::missing_model;
use super::ready::{Sight, Watch};
use super::record::Record;
use super::up::{Up, UpKind};
use super::{LockError, ManagedService, ServiceError, ServiceManager, State};
use crate::core::events::Event;
use crate::core::logs;
use crate::core::process::{Child, Ending, Listener, Liveness, Pid, ProcessId};
use crate::core::runtimes::ServerFacts;

/// How many lines of the log a failure shows.
const TAIL_LINES: u64 = 20;

/// How often the process is looked at while nothing else happens: at first more often, as most failures are early.
const FIRST_TICK: Duration = Duration::from_millis(2);
const TICK: Duration = Duration::from_millis(10);

/// How often the observer is told that the wait goes on.
const REPORT: Duration = Duration::from_secs(1);

/// After how long without an answer the last one is old news.
const SILENCE: Duration = Duration::from_secs(1);

/// What is known of a server while a look at it goes on.
const UNANSWERED: &str = "it has not answered yet";

/// How long the kernel may take to end a process that has begun to end.
const ENDING: Duration = Duration::from_millis(50);

/// How often it is asked who listens while the wrong answers come.
const SUSPICION: Duration = Duration::from_millis(500);

/// A service that is to become ready.
pub(super) struct Begun {
    pub(super) record: Record,
    process: Tracked,
    /// What it was when this command came to it; `None` if this command started it.
    found: Option<State>,
    patience: Duration,
}

/// The processes whose life is watched.
enum Tracked {
    /// A child of this command.
    Child(Box<dyn Child>),
    /// Others of the instance: another command started them, or the child left them behind and ended in peace.
    Strangers(Vec<ProcessId>),
}

/// Whether a service lives.
enum Life {
    Alive,
    /// It ended; how, if it was a child of this command.
    Ended(Option<Ending>),
}

/// Why a wait ended without success.
enum Unready {
    Died(Option<Ending>),
    TimedOut {
        last: String,
    },
    Broken(String),
    ModelMissing(String),
    Usurped {
        listener: Listener,
        said: String,
    },
    /// It could not be watched any further, or was not to be.
    Stopped(ServiceError),
}

impl<E: Into<ServiceError>> From<E> for Unready {
    fn from(error: E) -> Self {
        Self::Stopped(error.into())
    }
}

/// Who answers at the address.
enum Answerer {
    /// The instance, or it cannot be told.
    Ours,
    /// Nobody any more.
    Nobody,
    /// Somebody else.
    Other(Listener),
}

impl Begun {
    pub(super) fn started(record: Record, child: Box<dyn Child>, patience: Duration) -> Self {
        Self { record, process: Tracked::Child(child), found: None, patience }
    }

    pub(super) fn running(record: Record, process: ProcessId, found: State, patience: Duration) -> Self {
        Self { record, process: Tracked::Strangers(vec![process]), found: Some(found), patience }
    }

    /// The process that stands for the service.
    pub(super) fn pid(&self) -> Pid {
        self.leader().pid
    }

    fn leader(&self) -> ProcessId {
        match &self.process {
            Tracked::Child(child) => child.id().clone(),
            Tracked::Strangers(members) => members[0].clone(),
        }
    }

    pub(super) fn is_unhealthy(&self) -> bool {
        self.found == Some(State::Unhealthy)
    }

    pub(super) fn kind_without_waiting(&self) -> UpKind {
        match self.found {
            Some(State::Ready) => UpKind::AlreadyUp,
            _ => UpKind::Launched,
        }
    }
}

impl ServiceManager<'_> {
    /// Waits until the service is ready. One that this command started and that fails is ended, and its record
    /// removed; one that was found is left as it is, and so is one that is ready while another command has the lock,
    /// for nothing is wrong with it.
    pub(super) fn wait(&self, service: &ManagedService<'_>, mut begun: Begun) -> Result<Up, ServiceError> {
        let since = Instant::now();
        let ready = match self.watch(service, &mut begun) {
            Ok(facts) => self.mark_ready(service, &begun, facts),
            Err(unready) => Err(self.failure(service, &begun, unready, since.elapsed())),
        };
        let Err(error) = ready else {
            let kind = if begun.found.is_some() { UpKind::AlreadyUp } else { UpKind::Started };
            return Ok(Up { endpoint: endpoint(&begun.record, begun.pid()), kind });
        };
        let is_held = matches!(error, ServiceError::Lock(LockError::Held { .. }));
        if begun.found.is_none() && !is_held {
            self.abandon(service, &begun.record)?;
        }
        Err(error)
    }

    fn watch(&self, service: &ManagedService<'_>, begun: &mut Begun) -> Result<ServerFacts, Unready> {
        let (since, deadline) = (Instant::now(), deadline(begun.patience));
        let runtime = service.runtime;
        let model = begun.record.model.clone().filter(|_| runtime.ready_needs_generation());
        let mut watch = Watch::begin(runtime, begun.record.address.clone(), model, deadline);
        let (mut reported, mut asked) = (since, None);
        let (mut last, mut seen) = (UNANSWERED.to_owned(), since);
        loop {
            if let Life::Ended(ending) = self.life(begun)? {
                return Err(Unready::Died(ending));
            }
            self.heed()?;
            let now = Instant::now();
            if now >= deadline {
                return Err(Unready::TimedOut { last });
            }
            if now - reported >= REPORT {
                reported = now;
                let elapsed = now - since;
                self.events.event(&Event::Waiting { runtime: runtime.name(), elapsed, last: &last });
            }
            let tick = if now - since < Duration::from_millis(500) { FIRST_TICK } else { TICK };
            if let Some(sight) = watch.next(tick) {
                seen = now;
                last = sight.words();
                if let Some(facts) = self.judge(begun, sight, &mut asked)? {
                    return Ok(facts);
                }
            } else if now - seen >= SILENCE {
                UNANSWERED.clone_into(&mut last);
            }
        }
    }

    /// What a sight means for the wait: that it is over, or nothing. Who answers was last `asked` then.
    fn judge(
        &self,
        begun: &mut Begun,
        sight: Sight,
        asked: &mut Option<Instant>,
    ) -> Result<Option<ServerFacts>, Unready> {
        if matches!(sight, Sight::NoConnection(_)) {
            return Ok(None);
        }
        let is_final = matches!(sight, Sight::Ready(_) | Sight::Broken(_) | Sight::ModelMissing(_));
        if is_final || asked.is_none_or(|then| then.elapsed() >= SUSPICION) {
            *asked = Some(Instant::now());
            match self.answerer(begun)? {
                Answerer::Ours => {}
                Answerer::Nobody => return Ok(None),
                Answerer::Other(listener) => {
                    return Err(Unready::Usurped { listener, said: sight.words() });
                }
            }
        }
        match sight {
            Sight::Ready(facts) => Ok(Some(facts)),
            Sight::Broken(said) => Err(Unready::Broken(said)),
            Sight::ModelMissing(said) => Err(Unready::ModelMissing(said)),
            _ => Ok(None),
        }
    }

    /// Whose answer that was: one of ours counts only if ours still lives.
    fn answerer(&self, begun: &mut Begun) -> Result<Answerer, ServiceError> {
        let address = &begun.record.address;
        let look = || self.driver.listener(address, Some(begun.record.as_instance()));
        let listener = match look() {
            // The sockets of a process that is just ending belong to nobody that can be seen.
            Ok(Listener::Hidden) => {
                std::thread::sleep(ENDING);
                look()
            }
            other => other,
        };
        if let Err(error) = &listener {
            self.events.event(&Event::ListenerUnknown { address, error });
        }
        if matches!(self.life(begun)?, Life::Ended(_)) {
            return Ok(Answerer::Nobody);
        }
        Ok(match listener {
            // Where the system does not tell, there is nothing to hold against what answers.
            Ok(Listener::Ours { .. }) | Err(_) => Answerer::Ours,
            // It has just stopped listening: the next look will tell.
            Ok(Listener::Nobody) => Answerer::Nobody,
            Ok(listener) => Answerer::Other(listener),
        })
    }

    /// Whether it lives. A child that ends in peace and leaves others behind has made a daemon of itself: then those
    /// stand for the service.
    fn life(&self, begun: &mut Begun) -> Result<Life, ServiceError> {
        let ending = match &mut begun.process {
            Tracked::Child(child) => match child.try_wait()? {
                None => return Ok(Life::Alive),
                Some(Ending::Code(0)) => Some(Ending::Code(0)),
                Some(ending) => return Ok(Life::Ended(Some(ending))),
            },
            Tracked::Strangers(members) => {
                for member in members {
                    if self.driver.liveness(member)? == Liveness::Alive {
                        return Ok(Life::Alive);
                    }
                }
                None
            }
        };
        let mut members = self.driver.members(begun.record.as_instance())?;
        if members.is_empty() {
            return Ok(Life::Ended(ending));
        }
        members.sort_by_key(|member| member.start_time);
        begun.process = Tracked::Strangers(members);
        Ok(Life::Alive)
    }

    /// Records that it is ready, unless another command has stopped it meanwhile.
    fn mark_ready(
        &self,
        service: &ManagedService<'_>,
        begun: &Begun,
        facts: ServerFacts,
    ) -> Result<(), ServiceError> {
        if begun.record.ready && begun.record.process.as_ref() == Some(&begun.leader()) {
            return Ok(());
        }
        let _lock = self.lock(service)?;
        match Record::read(&service.files.state)? {
            Some(mut record) if record.instance == begun.record.instance => {
                record.ready = true;
                record.process = Some(begun.leader());
                record.version = facts.version.or(record.version);
                Ok(record.write(&service.files)?)
            }
            _ => Err(ServiceError::StoppedMeanwhile { runtime: service.runtime.name() }),
        }
    }

    /// Why it is not ready, in full.
    fn failure(
        &self,
        service: &ManagedService<'_>,
        begun: &Begun,
        unready: Unready,
        after: Duration,
    ) -> ServiceError {
        let runtime = service.runtime.name();
        let (pid, address) = (begun.pid(), begun.record.address.clone());
        let log = begun.record.log.clone().unwrap_or_else(|| service.files.log.clone());
        // A log that cannot be read has nothing to say; that is no reason to hide the failure.
        let tail = logs::tail_text(&log, TAIL_LINES).unwrap_or_default();
        let cause = service.runtime.explain_exit(&tail);
        let why = match unready {
            Unready::Stopped(error) => return error,
            Unready::Usurped { listener, said } => {
                return ServiceError::AddressTaken { runtime, address, listener, said };
            }
            Unready::ModelMissing(said) => {
                let model = begun.record.model.clone().unwrap_or_default();
                return missing_model(service, &model, Some(said));
            }
            Unready::TimedOut { last } | Unready::Broken(last)
                if matches!(begun.found, Some(State::Ready | State::Unhealthy)) =>
            {
                return ServiceError::Unhealthy { runtime, pid, address, why: last };
            }
            Unready::TimedOut { last } => Why::TimedOut { limit: begun.patience, last },
            Unready::Broken(said) => Why::Broken { said },
            Unready::Died(_) if self.was_stopped(service, &begun.record) => {
                return ServiceError::StoppedMeanwhile { runtime };
            }
            Unready::Died(ending) => {
                // The address was free before the start: somebody was quicker.
                match self.driver.listener(&address, Some(begun.record.as_instance())) {
                    Ok(listener @ Listener::Other { .. }) => {
                        let said = cause.unwrap_or_else(|| "somebody else listens there now".to_owned());
                        return ServiceError::AddressTaken { runtime, address, listener, said };
                    }
                    _ => Why::Died { ending, after: begun.found.is_none().then_some(after) },
                }
            }
        };
        ServiceError::Failed(Box::new(Failed { runtime, pid, why, cause, tail, log }))
    }

    /// Whether another command ended the instance: that holds the lock until it has removed the record.
    fn was_stopped(&self, service: &ManagedService<'_>, record: &Record) -> bool {
        let _lock = self.lock(service);
        match Record::read(&service.files.state) {
            Ok(now) => now.is_none_or(|now| now.instance != record.instance),
            Err(_) => false,
        }
    }

    /// Ends what this command had started and now gives up, and forgets it. Its own instance it may end even when
    /// the lock cannot be had; then the record stays for whoever has the lock.
    fn abandon(&self, service: &ManagedService<'_>, record: &Record) -> Result<(), ServiceError> {
        match self.undisturbed().lock(service) {
            Ok(_lock) => self.abandon_locked(service, record),
            Err(_) => self.end_abandoned(service, record),
        }
    }

    /// The same, for a caller that holds the lock.
    pub(super) fn abandon_locked(
        &self,
        service: &ManagedService<'_>,
        record: &Record,
    ) -> Result<(), ServiceError> {
        self.end_abandoned(service, record)?;
        match Record::read(&service.files.state) {
            Ok(Some(now)) if now.instance != record.instance => Ok(()),
            _ => Ok(Record::remove(&service.files)?),
        }
    }

    fn end_abandoned(&self, service: &ManagedService<'_>, record: &Record) -> Result<(), ServiceError> {
        let grace = service.config.server.stop_timeout;
        self.undisturbed().end(service, record, grace, false).map(drop)
    }
}

/// When a wait ends that begins now. A limit beyond what the clock can hold is as good as a century.
pub(super) fn deadline(patience: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(patience).unwrap_or_else(|| now + Duration::from_secs(100 * 365 * 24 * 3600))
}
