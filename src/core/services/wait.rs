//! The wait for a service to be ready: its death, its answers, the clock and the user are watched at once.

use std::time::{Duration, Instant};

use super::error::{Failed, Why};
use super::launch::missing_model;
use super::ready::{Sight, Watch};
use super::record::Record;
use super::up::{Up, UpKind, deadline, endpoint};
use super::{ManagedService, ServiceError, ServiceManager, State};
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
pub(super) enum Tracked {
    /// A child of this command.
    Child(Box<dyn Child>),
    /// Others of the instance: another command started them, or the child left them behind and ended in peace.
    Strangers(Vec<ProcessId>),
}

/// Why a wait ended without success.
enum Unready {
    Died(Option<Ending>),
    TimedOut { last: String },
    Interrupted(i32),
    Broken(String),
    ModelMissing(String),
    Usurped { listener: Listener, said: String },
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
    pub(super) fn started(record: Record, process: Tracked, patience: Duration) -> Self {
        Self { record, process, found: None, patience }
    }

    pub(super) fn running(record: Record, process: Tracked, found: State, patience: Duration) -> Self {
        Self { record, process, found: Some(found), patience }
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
    /// removed; one that was found is left as it is.
    pub(super) fn wait(&self, service: &ManagedService<'_>, mut begun: Begun) -> Result<Up, ServiceError> {
        let since = Instant::now();
        let ready = self.watch(service, &mut begun).and_then(|outcome| match outcome {
            Ok(facts) => self.mark_ready(service, &begun, facts),
            Err(unready) => Err(self.failure(service, &begun, unready, since.elapsed())),
        });
        let Err(error) = ready else {
            let kind = if begun.found.is_some() { UpKind::AlreadyUp } else { UpKind::Started };
            return Ok(Up { endpoint: endpoint(&begun.record, begun.pid()), kind });
        };
        if begun.found.is_none() {
            self.abandon(service, &begun.record)?;
        }
        Err(error)
    }

    fn watch(
        &self,
        service: &ManagedService<'_>,
        begun: &mut Begun,
    ) -> Result<Result<ServerFacts, Unready>, ServiceError> {
        let (since, deadline) = (Instant::now(), deadline(begun.patience));
        let runtime = service.runtime;
        let model = begun.record.model.clone().filter(|_| runtime.ready_needs_generation());
        let mut watch = Watch::begin(runtime, begun.record.address.clone(), model, deadline);
        let (mut reported, mut asked) = (since, None::<Instant>);
        let (mut last, mut seen) = (UNANSWERED.to_owned(), since);
        loop {
            if let Some(ending) = self.ended(begun)? {
                return Ok(Err(Unready::Died(ending)));
            }
            if let Some(signal) = (self.interrupted)() {
                return Ok(Err(Unready::Interrupted(signal)));
            }
            let now = Instant::now();
            if now >= deadline {
                return Ok(Err(Unready::TimedOut { last }));
            }
            if now - reported >= REPORT {
                reported = now;
                let elapsed = now - since;
                self.events.event(&Event::Waiting { runtime: runtime.name(), elapsed, last: &last });
            }
            let tick = if now - since < Duration::from_millis(500) { FIRST_TICK } else { TICK };
            let Some(sight) = watch.next(tick) else {
                if now - seen >= SILENCE {
                    UNANSWERED.clone_into(&mut last);
                }
                continue;
            };
            seen = now;
            last = sight.words();
            if matches!(sight, Sight::NoConnection(_)) {
                continue;
            }
            let is_final = matches!(sight, Sight::Ready(_) | Sight::Broken(_) | Sight::ModelMissing(_));
            if is_final || asked.is_none_or(|then| now - then >= SUSPICION) {
                asked = Some(now);
                match self.answerer(begun)? {
                    Answerer::Ours => {}
                    Answerer::Nobody => continue,
                    Answerer::Other(listener) => {
                        return Ok(Err(Unready::Usurped { listener, said: last }));
                    }
                }
            }
            match sight {
                Sight::Ready(facts) => return Ok(Ok(facts)),
                Sight::Broken(said) => return Ok(Err(Unready::Broken(said))),
                Sight::ModelMissing(said) => return Ok(Err(Unready::ModelMissing(said))),
                _ => {}
            }
        }
    }

    /// Whose answer that was: one of ours counts only if ours still lives.
    fn answerer(&self, begun: &mut Begun) -> Result<Answerer, ServiceError> {
        let mut second_look = false;
        loop {
            let listener = self.driver.listener(&begun.record.address, Some(begun.record.as_instance()));
            if self.ended(begun)?.is_some() {
                return Ok(Answerer::Nobody);
            }
            return Ok(match listener {
                Ok(Listener::Ours { .. }) => Answerer::Ours,
                // It has just stopped listening: the next look will tell.
                Ok(Listener::Nobody) => Answerer::Nobody,
                // The sockets of a process that is just ending belong to nobody that can be seen.
                Ok(Listener::Hidden) if !second_look => {
                    second_look = true;
                    std::thread::sleep(ENDING);
                    continue;
                }
                Ok(listener) => Answerer::Other(listener),
                Err(error) => {
                    let words = format!("it cannot be told who answers at the address: {error}");
                    self.events.event(&Event::Warning(&words));
                    Answerer::Ours
                }
            });
        }
    }

    /// How it ended, if it did. A child that ends in peace and leaves others behind has made a daemon of itself: then
    /// those stand for the service.
    #[allow(clippy::option_option)] // Whether it ended, and how if that can be known.
    fn ended(&self, begun: &mut Begun) -> Result<Option<Option<Ending>>, ServiceError> {
        let ending = match &mut begun.process {
            Tracked::Child(child) => match child.try_wait()? {
                None => return Ok(None),
                Some(Ending::Code(0)) => Some(Ending::Code(0)),
                Some(ending) => return Ok(Some(Some(ending))),
            },
            Tracked::Strangers(members) => {
                for member in members {
                    if self.driver.liveness(member)? == Liveness::Alive {
                        return Ok(None);
                    }
                }
                None
            }
        };
        let mut members = self.driver.members(begun.record.as_instance())?;
        if members.is_empty() {
            return Ok(Some(ending));
        }
        members.sort_by_key(|member| member.start_time);
        begun.process = Tracked::Strangers(members);
        Ok(None)
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
        let _lock = self.lock(service, service.config.server.stop_timeout)?;
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
            Unready::Interrupted(signal) => return ServiceError::Interrupted { signal },
            Unready::Usurped { listener, said } => {
                return ServiceError::AddressTaken { runtime, address, listener, said };
            }
            Unready::ModelMissing(said) => {
                let model = begun.record.model.clone().unwrap_or_default();
                return missing_model(service, &model, Some(said));
            }
            Unready::TimedOut { last } | Unready::Broken(last) if begun.found.is_some() => {
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
        let _lock = self.lock(service, service.config.server.stop_timeout);
        match Record::read(&service.files.state) {
            Ok(now) => now.is_none_or(|now| now.instance != record.instance),
            Err(_) => false,
        }
    }

    /// Ends what this command had started and now gives up, and forgets it. Its own instance it may end even when
    /// the lock cannot be had; then the record stays for whoever has the lock.
    fn abandon(&self, service: &ManagedService<'_>, record: &Record) -> Result<(), ServiceError> {
        let grace = service.config.server.stop_timeout;
        // The interruption is why this is done; it must not keep it from being done.
        let undisturbed = ServiceManager { interrupted: &|| None, ..*self };
        match undisturbed.lock(service, grace) {
            Ok(_lock) => self.abandon_locked(service, record),
            Err(_) => self.end(service, record, grace, false).map(|_| ()),
        }
    }

    /// The same, for a caller that holds the lock.
    pub(super) fn abandon_locked(
        &self,
        service: &ManagedService<'_>,
        record: &Record,
    ) -> Result<(), ServiceError> {
        self.end(service, record, service.config.server.stop_timeout, false)?;
        match Record::read(&service.files.state) {
            Ok(Some(now)) if now.instance != record.instance => Ok(()),
            _ => Ok(Record::remove(&service.files)?),
        }
    }
}
