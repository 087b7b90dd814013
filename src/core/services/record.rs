//! What is remembered of a started process, read and written atomically.
//!
//! A record is written twice: as an intent, without a process, before the spawn; and with the process right after.
//! Whenever fusion dies in between, the instance id in the child's environment finds what was started.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::address::Address;
use crate::core::files::{self, FileError};
use crate::core::paths::RuntimePaths;
use crate::core::process::{Instance, ProcessId, ProcessSpec};

/// The format that this version writes, and the newest that it reads.
const FORMAT: u32 = 1;

/// No record comes near this size.
const SIZE_LIMIT: u64 = 64 * 1024;

/// What was started, and what was known when it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The format of the record, from 1.
    pub format: u32,
    /// The value of [`INSTANCE_VARIABLE`](crate::core::process::INSTANCE_VARIABLE) in the environment of the process.
    pub instance: InstanceId,
    /// The process; `None` between the intent and the spawn.
    pub process: Option<ProcessId>,
    /// Where it listens.
    pub address: Address,
    /// The model that it was started with, or that fusion had it load since.
    pub model: Option<String>,
    /// Its version, once it told.
    pub version: Option<String>,
    /// When it was started, in seconds since 1970 by the clock on the wall: for people, never for decisions.
    pub started_at: u64,
    /// Milliseconds that it may take to be ready, if the start said so; otherwise the configuration does.
    #[serde(default)]
    pub startup_timeout_ms: Option<u64>,
    /// Whether it has been ready since it was started.
    pub ready: bool,
    /// The command line with which it was started; what is not UTF-8 is replaced.
    pub command: Vec<String>,
    /// [`fingerprint`] of how it was started.
    pub fingerprint: String,
    /// Where its output goes; `None` for the usual place, when the path is not UTF-8 as JSON must be.
    pub log: Option<PathBuf>,
}

/// A random number of 128 bits, as 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId(String);

/// A text that is no instance id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an instance id")]
pub struct InvalidInstanceId(String);

/// Why a record cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file holds no record.
    #[error("{path} is not a record of a started service")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A newer fusion wrote it.
    #[error("{path} has format {found}; this version reads up to {FORMAT}")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// No random number for the instance.
    #[error("cannot get a random number")]
    Random(#[source] io::Error),
    /// The record cannot be written as JSON.
    #[error("cannot encode the record")]
    Encode(#[source] serde_json::Error),
}

impl InstanceId {
    /// A new one.
    pub fn random() -> Result<Self, RecordError> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| RecordError::Random(error.into()))?;
        Ok(Self(bytes.iter().fold(String::new(), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for InstanceId {
    type Error = InvalidInstanceId;

    fn try_from(text: String) -> Result<Self, InvalidInstanceId> {
        if text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            Ok(Self(text))
        } else {
            Err(InvalidInstanceId(text))
        }
    }
}

impl From<InstanceId> for String {
    fn from(id: InstanceId) -> Self {
        id.0
    }
}

impl Record {
    /// The record of a start that is about to be made, not written yet.
    pub fn intent(spec: &ProcessSpec, instance: InstanceId, address: &Address, started_at: u64) -> Self {
        let words =
            std::iter::once(spec.program.as_os_str()).chain(spec.args.iter().map(OsString::as_os_str));
        Self {
            format: FORMAT,
            instance,
            process: None,
            address: address.clone(),
            model: None,
            version: None,
            started_at,
            startup_timeout_ms: None,
            ready: false,
            command: words.map(|word| word.to_string_lossy().into_owned()).collect(),
            fingerprint: fingerprint(spec, address),
            log: spec.log.clone().filter(|log| log.to_str().is_some()),
        }
    }

    /// The instance, as the process driver wants it.
    pub fn as_instance(&self) -> Instance<'_> {
        Instance { id: self.instance.as_str(), leader: self.process.as_ref() }
    }

    /// Returns how long it may take to be ready, where the configuration says `configured`.
    pub fn startup_timeout(&self, configured: Duration) -> Duration {
        self.startup_timeout_ms.map_or(configured, Duration::from_millis)
    }

    /// The record in a file; `None` when there is no file.
    pub fn read(path: &Path) -> Result<Option<Self>, RecordError> {
        match files::read(path, SIZE_LIMIT)? {
            None => Ok(None),
            Some(bytes) => Self::parse(path, &bytes).map(Some),
        }
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Self, RecordError> {
        /// What every format has, so that a newer one is not called damaged.
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let damaged = |source| RecordError::Damaged { path: path.to_owned(), source };
        let head: Head = serde_json::from_slice(bytes).map_err(damaged)?;
        if head.format > FORMAT {
            return Err(RecordError::Newer { path: path.to_owned(), found: head.format });
        }
        serde_json::from_slice(bytes).map_err(damaged)
    }

    /// Writes the record, and the PID beside it. The caller holds the runtime's lock.
    pub fn write(&self, paths: &RuntimePaths) -> Result<(), RecordError> {
        files::make_directory(&paths.directory)?;
        let mut text = serde_json::to_vec_pretty(self).map_err(RecordError::Encode)?;
        text.push(b'\n');
        files::replace(&paths.state, &text)?;
        let Some(process) = &self.process else { return Ok(files::remove(&paths.pid)?) };
        let pid = format!("{}\n", process.pid);
        // A write waits for the disk, and `up` writes the record again when all that changed is that it is ready.
        let is_there =
            files::read(&paths.pid, 64).is_ok_and(|found| found.as_deref() == Some(pid.as_bytes()));
        if !is_there {
            files::replace(&paths.pid, pid.as_bytes())?;
        }
        Ok(())
    }

    /// Removes the record and the PID beside it. The caller holds the runtime's lock.
    pub fn remove(paths: &RuntimePaths) -> Result<(), RecordError> {
        // The copy goes first: it must never outlive what it is a copy of.
        files::remove(&paths.pid)?;
        Ok(files::remove(&paths.state)?)
    }
}

/// A number that changes when the program, an argument, the environment or the address changes, and is the same for
/// every build of fusion: 64 bits of FNV-1a, as 16 hexadecimal digits. The directory is the record's own, and may be
/// known by several names.
///
/// The configuration itself is not kept: it may hold secrets.
pub fn fingerprint(spec: &ProcessSpec, address: &Address) -> String {
    let address = address.to_string();
    // So that an argument is never taken for a variable.
    let arguments = spec.args.len().to_string();
    let mut parts: Vec<&OsStr> = vec![spec.program.as_os_str(), address.as_ref()];
    parts.push(arguments.as_ref());
    parts.extend(spec.args.iter().map(OsString::as_os_str));
    parts.extend(spec.env.iter().flat_map(|(name, value)| [name.as_os_str(), value.as_os_str()]));
    let bytes = parts.iter().flat_map(|part| part.as_bytes().iter().copied().chain([0]));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests;
