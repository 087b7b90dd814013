//! Looking at a service: its record, the kernel, its address; and the verdict over what was seen.

use std::io;
use std::net::{TcpListener, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use super::ready::{self, Depth, Sight};
use super::record::{Record, RecordError};
use super::{
    ManagedService, Observation, Owner, Recorded, ServiceError, ServiceManager, Start, State, classify, lock,
};
use crate::core::address::Address;
use crate::core::events::Event;
use crate::core::files::FileError;
use crate::core::process::{Instance, Listener, Liveness, Pid, ProcessId};

/// What was recorded, and what became of it.
#[derive(Debug, Clone)]
pub(super) struct Past {
    /// The record, if there is a readable one.
    pub(super) record: Option<Record>,
    /// The process that stands for the service: the recorded one, or another of its instance that outlived it.
    pub(super) process: Option<ProcessId>,
    /// The recorded process is gone, and others of its instance live.
    pub(super) orphaned: bool,
    /// Between the intent and the spawn: a command is just starting it.
    pub(super) in_the_making: bool,
}

/// All that one look at a service showed.
#[derive(Debug, Clone)]
pub(super) struct Observed {
    pub(super) past: Past,
    /// The recorded address of what lives, else the configured one.
    pub(super) address: Address,
    /// What answers there.
    pub(super) sight: Sight,
    /// Who listens there, as far as the system tells.
    pub(super) listener: Listener,
    /// What all that means.
    pub(super) state: State,
}

impl Past {
    pub(super) fn nothing() -> Self {
        Self { record: None, process: None, orphaned: false, in_the_making: false }
    }

    pub(super) fn instance(&self) -> Option<Instance<'_>> {
        self.record.as_ref().map(Record::as_instance)
    }

    fn recorded(&self) -> Recorded {
        match &self.record {
            None => Recorded::Nothing,
            Some(_) if self.process.is_some() || self.in_the_making => Recorded::Alive,
            // An intent that nothing came of.
            Some(record) if record.process.is_none() => Recorded::Nothing,
            Some(_) => Recorded::Gone,
        }
    }
}

impl Observed {
    pub(super) fn listener_pid(&self) -> Option<Pid> {
        match self.listener {
            Listener::Ours { pid } | Listener::Other { pid, .. } => Some(pid),
            Listener::Nobody | Listener::Hidden => None,
        }
    }
}

/// How long each request of a look at an address may take, except for `ps`.
pub(super) const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// A process that was spawned the moment before fusion was killed shows its instance id this much later at most.
const SETTLING: Duration = Duration::from_millis(100);

/// Whether the caller holds the runtime's lock: then nobody else is about to change anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Locked {
    Yes,
    No,
}

impl ServiceManager<'_> {
    /// Looks at a service, without its lock. Each request may take as long as `limit`.
    pub(super) fn observe(
        &self,
        service: &ManagedService<'_>,
        limit: Duration,
    ) -> Result<Observed, ServiceError> {
        let past = self.past(service, Locked::No)?;
        Ok(self.look_at(service, past, limit))
    }

    /// Looks at the address of a service of which the past is known.
    pub(super) fn look_at(&self, service: &ManagedService<'_>, past: Past, limit: Duration) -> Observed {
        let recorded = past.recorded();
        let alive = past.record.as_ref().filter(|_| recorded == Recorded::Alive);
        let address = alive.map_or(&service.config.server.address, |record| &record.address).clone();
        let depth = match alive {
            Some(Record { ready: false, model: Some(model), .. })
                if service.runtime.ready_needs_generation() =>
            {
                Depth::Generation(model)
            }
            _ => Depth::Status,
        };
        let sight = ready::look(service.runtime, &address, depth, limit);
        let listener = match &sight {
            Sight::NoConnection(_) => Listener::Nobody,
            // Where the system does not tell, there is nothing to hold against what answers.
            _ => self.driver.listener(&address, past.instance()).unwrap_or(Listener::Nobody),
        };
        let state = classify(Observation {
            process: recorded,
            start: self.progress(service, &past),
            answer: sight.answered(),
            listener: owner(&listener),
        });
        Observed { past, address, sight, listener, state }
    }

    /// The past of a service whose lock the caller holds. An intent without a process is looked at until a process
    /// that was spawned for it would have been seen.
    pub(super) fn settled_past(&self, service: &ManagedService<'_>) -> Result<Past, ServiceError> {
        let begin = Instant::now();
        loop {
            let past = self.past(service, Locked::Yes)?;
            let is_intent = past.record.as_ref().is_some_and(|record| record.process.is_none());
            if !is_intent || past.process.is_some() || begin.elapsed() >= SETTLING {
                return Ok(past);
            }
            std::thread::sleep(SETTLING / 10);
        }
    }

    /// Reads the record, and asks the kernel what became of it. Writes nothing.
    fn past(&self, service: &ManagedService<'_>, locked: Locked) -> Result<Past, ServiceError> {
        let record = match Record::read(&service.files.state) {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(Past::nothing()),
            Err(error @ (RecordError::Damaged { .. } | RecordError::File(FileError::TooLarge { .. }))) => {
                self.events.event(&Event::RecordIgnored { error: &error });
                return Ok(Past::nothing());
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(process) = &record.process
            && self.driver.liveness(process)? == Liveness::Alive
        {
            let process = Some(process.clone());
            return Ok(Past { record: Some(record), process, orphaned: false, in_the_making: false });
        }
        let members = self.driver.members(record.as_instance())?;
        let process = members.into_iter().min_by_key(|member| member.start_time);
        Ok(Past {
            orphaned: record.process.is_some() && process.is_some(),
            in_the_making: record.process.is_none()
                && process.is_none()
                && locked == Locked::No
                && lock::is_held(&service.files)?,
            process,
            record: Some(record),
        })
    }

    fn progress(&self, service: &ManagedService<'_>, past: &Past) -> Start {
        let record = past.record.as_ref();
        if record.is_some_and(|record| record.ready) {
            return Start::Finished;
        }
        let configured = service.config.server.startup_timeout;
        let patience = record.map_or(configured, |record| record.patience(configured));
        let age = past.process.as_ref().and_then(|process| self.driver.usage(process));
        match age {
            Some(usage) if usage.uptime >= patience => Start::Overdue,
            _ => Start::Underway,
        }
    }
}

fn owner(listener: &Listener) -> Owner {
    match listener {
        Listener::Ours { .. } => Owner::Ours,
        Listener::Nobody => Owner::Unknown,
        Listener::Other { .. } | Listener::Hidden => Owner::Other,
    }
}

/// What comes of listening at each of the addresses that the host of `address` has.
pub(super) fn attempts_to_listen(address: &Address) -> io::Result<Vec<io::Result<()>>> {
    let candidates = (address.host.as_str(), address.port).to_socket_addrs()?;
    Ok(candidates.map(|candidate| TcpListener::bind(candidate).map(drop)).collect())
}
