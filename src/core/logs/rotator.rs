//! The log rotator: a process beside the server that rotates its log above a limit, and ends with it.
//!
//! The server writes to its log itself, so a rotator that is killed costs only the limit, and the next `up` starts
//! another one. It is a hidden subcommand of fusion with an instance id of its own, so it is no member of the
//! server's instance.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::{Limits, beside, file_at, file_id, lock, numbered, open, part_count, shift_parts};
use crate::core::files::{self, ContentLockKind, FileError};
use crate::core::process::{
    Instance, Liveness, ProcessDriver, ProcessError, ProcessId, ProcessSpec, StopSignal,
};

/// The subcommand that [`LogRotator::process`] starts.
pub const SUBCOMMAND: &str = "rotate-log";

const MIN_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// How long a rotator waits after the death of its server before it searches for others that write: `down` ends it in
/// that time, and the search reads every process of the machine.
const DEATH_PAUSE: Duration = Duration::from_millis(200);

/// The flood that a rotator expects at any moment.
const FLOOD_BYTES_PER_SECOND: u64 = 100_000_000;

/// How many times its limit a log may have when the rotator notices such a flood.
const FLOOD_FACTOR: u64 = 2;

/// How much of what is written during a copy is copied, too: all, unless the server is as fast as the copy.
const MIN_CATCH_UP_BYTES: u64 = 10_000_000;

/// What a rotator is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRotator {
    /// The log.
    pub log: PathBuf,
    /// How much of it stays on the disk.
    pub limits: Limits,
    /// The server's instance id.
    pub instance: String,
    /// The process that was started as the server.
    pub leader: ProcessId,
}

impl LogRotator {
    /// Returns how the rotator is started; `fusion` is the path of this program, and `directory` one that will stay.
    pub fn process(&self, fusion: &Path, directory: &Path) -> ProcessSpec {
        let arguments: [(&str, OsString); 6] = [
            ("--log", self.log.clone().into()),
            ("--max-bytes", self.limits.max_bytes.to_string().into()),
            ("--keep", self.limits.keep.to_string().into()),
            ("--instance", self.instance.clone().into()),
            ("--pid", self.leader.pid.to_string().into()),
            ("--start-time", self.leader.start_time.to_string().into()),
        ];
        let arguments = arguments.into_iter().flat_map(|(name, value)| [name.into(), value]);
        ProcessSpec {
            program: fusion.to_owned(),
            args: [SUBCOMMAND.into()].into_iter().chain(arguments).collect(),
            without: Vec::new(),
            home: None,
            env: Vec::new(),
            directory: directory.to_owned(),
            log: None,
            instance: rotator_instance(&self.instance),
        }
    }

    /// Rotates the log until the last process of the server has ended, or the log was renamed.
    pub fn run(&self, driver: &dyn ProcessDriver) -> Result<(), FileError> {
        let Some(log) = GrowingLog::open(&self.log, self.limits)? else { return Ok(()) };
        let instance = Instance { id: &self.instance, leader: Some(&self.leader) };
        let mut watched = self.leader.clone();
        let mut last = (Instant::now(), 0);
        loop {
            let failed = FileError::io("rotate", &self.log);
            let growth = (log.size().map_err(&failed)?.saturating_sub(last.1), last.0.elapsed());
            let Some(size) = log.rotate_if_full().map_err(&failed)? else { return Ok(()) };
            last = (Instant::now(), size);
            let pause = pause(self.limits.max_bytes, size, growth);
            let survivor = driver.wait_for_exit(&watched, pause).and_then(|liveness| match liveness {
                // One that put itself into the background may have overwritten what proves that it is a member.
                Liveness::Dead => {
                    thread::sleep(DEATH_PAUSE);
                    Ok(driver.members(instance)?.into_iter().next().or_else(|| driver.writer(&self.log)))
                }
                _ => Ok(Some(watched.clone())),
            });
            match survivor {
                Ok(Some(next)) => watched = next,
                Ok(None) => return Ok(()),
                // The log needs its limit even while the system does not report what lives.
                Err(_) => thread::sleep(pause),
            }
        }
    }
}

/// Returns the wait before the next check of a log of `size` bytes: until it is full at its present rate, but no
/// longer than a flood may stay unnoticed.
pub(super) fn pause(max_bytes: u64, size: u64, growth: (u64, Duration)) -> Duration {
    let left = |limit: u64| u128::from(limit.saturating_sub(size));
    let flooded = left(max_bytes.saturating_mul(FLOOD_FACTOR)) * 1000 / u128::from(FLOOD_BYTES_PER_SECOND);
    let full = left(max_bytes).saturating_mul(growth.1.as_millis()).checked_div(u128::from(growth.0));
    let pause = full.map_or(flooded, |full| full.min(flooded));
    Duration::from_millis(u64::try_from(pause).unwrap_or(u64::MAX)).clamp(MIN_PAUSE, MAX_PAUSE)
}

fn rotator_instance(instance: &str) -> String {
    format!("{instance}-log")
}

/// Returns the rotators of an instance. Inspects every process of the machine.
pub fn find(driver: &dyn ProcessDriver, instance: &str) -> Result<Vec<ProcessId>, ProcessError> {
    driver.members(Instance { id: &rotator_instance(instance), leader: None })
}

/// Stops what [`find`] found, but not in the middle of a rotation, and waits for its end.
pub fn stop(driver: &dyn ProcessDriver, log: &Path, rotators: &[ProcessId]) -> Result<(), ProcessError> {
    // A log that cannot be opened is not being rotated.
    let file = open(log, OpenOptions::new().read(true)).ok().flatten();
    let _lock = file.and_then(|(file, _)| lock(&file, ContentLockKind::Exclusive));
    for rotator in rotators {
        driver.signal(rotator, StopSignal::Kill)?;
        driver.wait_for_exit(rotator, Duration::from_secs(5))?;
    }
    Ok(())
}

/// A log to which a server appends.
pub(super) struct GrowingLog {
    path: PathBuf,
    file: File,
    limits: Limits,
}

impl GrowingLog {
    /// Opens the log; `None` if there is none.
    pub(super) fn open(path: &Path, limits: Limits) -> Result<Option<Self>, FileError> {
        let opened = open(path, OpenOptions::new().read(true).write(true))?;
        Ok(opened.map(|(file, _)| Self { path: path.to_owned(), file, limits }))
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Rotates the log if it is larger than its limit. Returns its size afterwards, or `None` if it has another name
    /// now: then it must stay as it is, because a start may have put it aside.
    pub(super) fn rotate_if_full(&self) -> io::Result<Option<u64>> {
        if self.size()? > self.limits.max_bytes {
            let _lock = lock(&self.file, ContentLockKind::Exclusive);
            let metadata = self.file.metadata()?;
            let is_in_place = file_at(&self.path) == Some(file_id(&metadata));
            if is_in_place && self.limits.keep > 0 {
                self.copy_and_truncate(metadata.len())?;
            } else if is_in_place || metadata.nlink() == 0 {
                self.file.set_len(0)?;
            } else {
                return Ok(None);
            }
        }
        Ok(Some(self.size()?))
    }

    /// Copies the log, which has `size` bytes or more, to `.1` and truncates it. What the server writes between the
    /// last read and the truncation is lost; only a process between the server and its log could prevent that.
    pub(super) fn copy_and_truncate(&self, size: u64) -> io::Result<()> {
        let new = beside(&self.path, "new");
        let mut copied = self.copy_to(&new, size);
        if matches!(&copied, Err(error) if error.kind() == io::ErrorKind::StorageFull) {
            // The newest lines are worth more than the oldest.
            let _ = files::remove(&numbered(&self.path, part_count(&self.path)));
            copied = self.copy_to(&new, size);
        }
        if self.size()? < size {
            // Another process has truncated the log, and what the server wrote since is not in the copy.
            return Ok(files::remove(&new)?);
        }
        let put_aside = copied.and_then(|mut copy| {
            shift_parts(&self.path, self.limits.keep)?;
            fs::rename(&new, numbered(&self.path, 1))?;
            // Last, because the steps before take milliseconds.
            let limit = self.limits.max_bytes.max(MIN_CATCH_UP_BYTES);
            io::copy(&mut (&self.file).take(limit), &mut copy)
        });
        if put_aside.is_err() {
            // A log without a limit is worse than a part that is missing.
            let _ = files::remove(&new);
        }
        self.file.set_len(0)
    }

    /// Copies as much of the log as all parts together may have.
    fn copy_to(&self, new: &Path, size: u64) -> io::Result<File> {
        files::remove(new)?;
        let mut copy = files::open(new, OpenOptions::new().write(true).create_new(true))?;
        let kept = self.limits.max_bytes.saturating_mul(self.limits.keep.saturating_add(1)).min(size);
        (&self.file).seek(SeekFrom::Start(size - kept))?;
        io::copy(&mut (&self.file).take(kept), &mut copy)?;
        Ok(copy)
    }
}
