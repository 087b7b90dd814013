//! The log rotator: a process beside the runtime that keeps its log within bounds and in its place, and ends with it.
//!
//! The runtime writes to its log itself, so a rotator that dies, hangs or is killed takes only the bound with it. It
//! is a hidden subcommand of fusion, in its own session, and belongs to no runtime's process tree.
//!
//! # For those who start and stop runtimes
//!
//! After the spawn of the runtime and its record, spawn [`LogRotator::process`] with the same driver and forget it;
//! if that fails, warn and go on. It carries an instance id derived from the runtime's, not that id itself, so
//! [`ProcessDriver::members`] of the runtime does not count it. Whoever stops a runtime calls [`stop`] once
//! everything else of it is gone: a rotator that is left (also one whose start was interrupted) ends then, and
//! never in the middle of a move. The lock under which a runtime is changed keeps others from starting one between
//! [`find`] and [`stop`]. Without a `stop` it ends by itself soon after the runtime's last process.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::kept::Kept;
use super::{Limits, Lock, lock, open};
use crate::core::files::FileError;
use crate::core::process::{
    Instance, Liveness, ProcessDriver, ProcessError, ProcessId, ProcessSpec, StopSignal,
};

/// The subcommand that [`LogRotator::process`] starts.
pub const SUBCOMMAND: &str = "rotate-log";

/// How long it sleeps while the log grows so fast that the limit is near, and while nothing happens.
const SLEEP: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// How long it sleeps at most while what is written can be seen only when it has copied it: what was written after
/// that when it is stopped is lost.
const COPYING: Duration = Duration::from_millis(50);

/// What a rotator is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRotator {
    /// The log.
    pub log: PathBuf,
    /// How much of it is kept.
    pub limits: Limits,
    /// The runtime's instance id.
    pub instance: String,
    /// The process that was started.
    pub leader: ProcessId,
}

impl LogRotator {
    /// How it is started; `fusion` is the path of this program, and `directory` one that will stay.
    pub fn process(&self, fusion: &Path, directory: &Path) -> ProcessSpec {
        let argument = |name: &str, value: OsString| [OsString::from(name), value];
        let args = [
            argument("--log", self.log.clone().into()),
            argument("--max-bytes", self.limits.max_bytes.to_string().into()),
            argument("--keep", self.limits.keep.to_string().into()),
            argument("--instance", self.instance.clone().into()),
            argument("--pid", self.leader.pid.to_string().into()),
            argument("--start-time", self.leader.start_time.to_string().into()),
        ];
        ProcessSpec {
            program: fusion.to_owned(),
            args: [SUBCOMMAND.into()].into_iter().chain(args.into_iter().flatten()).collect(),
            env: Vec::new(),
            directory: directory.to_owned(),
            log: None,
            instance: rotator_instance(&self.instance),
        }
    }

    /// Keeps the log until the last process of the runtime is gone.
    pub fn run(&self, driver: &dyn ProcessDriver) -> Result<(), FileError> {
        let Some(mut log) = Kept::open(&self.log, self.limits)? else { return Ok(()) };
        let mut last = (Instant::now(), 0);
        loop {
            let ended = self.has_ended(driver);
            log.tend().map_err(FileError::io("shorten", &self.log))?;
            if ended {
                return Ok(());
            }
            let size = log.size().map_err(FileError::io("look at", &self.log))?;
            let sleep = until_full(self.limits.max_bytes, last.1, size, last.0.elapsed());
            std::thread::sleep(if log.is_copied() { sleep.min(COPYING) } else { sleep });
            last = (Instant::now(), size);
        }
    }

    /// Whether nobody is left who could write to the log.
    fn has_ended(&self, driver: &dyn ProcessDriver) -> bool {
        let instance = Instance { id: &self.instance, leader: Some(&self.leader) };
        driver.liveness(&self.leader).is_ok_and(|liveness| liveness != Liveness::Alive)
            && driver.members(instance).is_ok_and(|members| members.is_empty())
    }
}

/// The instance id of the rotator of an instance.
fn rotator_instance(instance: &str) -> String {
    format!("{instance}-log")
}

/// Half the time in which a log that goes on growing as it did reaches its limit.
fn until_full(max_bytes: u64, before: u64, now: u64, elapsed: Duration) -> Duration {
    let grown = now.saturating_sub(before);
    let left = max_bytes.saturating_sub(now);
    if grown == 0 {
        return SLEEP.1;
    }
    #[allow(clippy::cast_precision_loss)] // An estimate.
    let half = elapsed.as_secs_f64() * left as f64 / grown as f64 / 2.0;
    Duration::try_from_secs_f64(half).unwrap_or(SLEEP.1).clamp(SLEEP.0, SLEEP.1)
}

/// The rotator of an instance, wherever its start was interrupted. Looks at every process of the machine.
pub fn find(driver: &dyn ProcessDriver, instance: &str) -> Result<Vec<ProcessId>, ProcessError> {
    driver.members(Instance { id: &rotator_instance(instance), leader: None })
}

/// Ends what [`find`] found, and waits for its end.
pub fn stop(driver: &dyn ProcessDriver, log: &Path, rotators: &[ProcessId]) -> Result<(), ProcessError> {
    if rotators.is_empty() {
        return Ok(());
    }
    // A log that cannot be opened is not being moved either.
    let file = open(log, OpenOptions::new().read(true)).ok().flatten().map(|(file, _)| file);
    let _locked = file.as_ref().map(|file| lock(file, Lock::Exclusive));
    for rotator in rotators {
        driver.signal(rotator, StopSignal::Kill)?;
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    for rotator in rotators {
        while driver.liveness(rotator)? == Liveness::Alive && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}
