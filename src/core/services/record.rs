//! The record of a started process, read and written atomically.
//!
//! `up` writes the record twice: as an intent, without a process, before the spawn, and with the process after it. If
//! fusion dies in between, the instance id in the child's environment identifies the process.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde::de::Error as _;
use serde_json::Value;

use crate::core::address::Address;
use crate::core::files::{self, FileError};
use crate::core::json_object::{self, JsonObject, required, wrong};
use crate::core::paths::ServicePaths;
use crate::core::process::{Host, Instance, Pid, ProcessId, ProcessSpec};
use crate::core::sorted_map::SortedMap;

/// The format that this version writes, and the newest it can read.
const FORMAT: u32 = 1;

/// Maximum size of a record in bytes.
const MAX_RECORD_BYTES: u64 = 64 * 1024;

/// How a service was started, and the facts known at that time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Record {
    /// The number of the format, from 1.
    pub format: u32,
    /// The value of [`INSTANCE_VARIABLE`](crate::core::process::INSTANCE_VARIABLE) in the environment of the process.
    pub instance: InstanceId,
    /// The process; `None` between the intent and the spawn.
    pub process: Option<ProcessId>,
    /// The process that listens, if that one has a session of its own: it outlives the first one where a service puts
    /// itself into the background.
    pub background: Option<ProcessId>,
    /// The host of the intent. The process names its own.
    pub host: Option<Host>,
    /// The address on which it listens.
    pub address: Address,
    /// The model that it was started with, or that it loaded later for fusion.
    pub model: Option<String>,
    /// Its version, once the server has reported it.
    pub version: Option<String>,
    /// Time of the start in seconds since 1970, by the wall clock. For display only, never for decisions.
    pub started_at: u64,
    /// The startup timeout in milliseconds, if it differs from the configuration.
    pub startup_timeout_ms: Option<u64>,
    /// The name of its template; `None` in a record of version 2.0.
    pub template: Option<String>,
    /// The name of the runtime whose API it speaks.
    pub runtime: Option<String>,
    /// What `${PROJECT_ROOT}` stood for, if texts of the service may name it.
    pub project_root: Option<PathBuf>,
    /// The working directory in which it was started; `None` if the path is not UTF-8, or the version did not record it.
    pub working_dir: Option<PathBuf>,
    /// Whether it has been ready since it was started.
    pub ready: bool,
    /// Whether the gateway started it for a request.
    pub on_demand: bool,
    /// How often the service was started again because it had ended by itself.
    pub restarts: u64,
    /// The command line of the start. Bytes that are not UTF-8 are replaced.
    pub command: Vec<String>,
    /// The [`fingerprint`] of the start; empty if it is not known.
    pub fingerprint: String,
    /// The hashes of its parts, by name.
    pub facets: SortedMap<String, String>,
    /// The path of its log; `None` if the path is not UTF-8, which JSON requires: then the default path holds.
    pub log: Option<PathBuf>,
}

/// Another host or container, on which a service was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// The name of the host.
    pub host: String,
    /// The pid there, once it was recorded.
    pub pid: Option<Pid>,
}

impl std::fmt::Display for Elsewhere {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "on {}", self.host)?;
        self.pid.map_or(Ok(()), |pid| write!(formatter, " (pid {pid})"))
    }
}

/// A random number, and the mark of the service that was started: 64 bits each, as 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct InstanceId(String);

/// A text that is not an instance id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an instance id")]
pub struct InvalidInstanceId(String);

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not a valid record.
    #[error("{path} is not a record of a started service")]
    Damaged { path: PathBuf, source: serde_json::Error },
    #[error("{path} has format {found}; this version reads up to {FORMAT}")]
    Newer { path: PathBuf, found: u64 },
    #[error("cannot get a random number")]
    Random(#[source] io::Error),
    #[error("cannot encode the record")]
    Encode(#[source] serde_json::Error),
}

impl InstanceId {
    /// Returns a new id with a [`mark`](Self::mark).
    pub fn random(mark: &str) -> Result<Self, RecordError> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(|error| RecordError::Random(error.into()))?;
        Ok(Self(format!("{:016x}{mark}", u64::from_ne_bytes(bytes))))
    }

    /// Returns the mark of every start of a service of this configuration directory on this host: 16 hexadecimal
    /// digits, by which a process without a record is known.
    pub fn mark(host: &Host, directory: &Path, service: &str) -> String {
        let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
        let namespace = host.pid_namespace.unwrap_or_default().to_string();
        hash([host.boot_id.as_ref(), namespace.as_ref(), directory.as_os_str(), service.as_ref()])
    }

    /// Returns whether the id has this mark.
    pub fn is_marked(&self, mark: &str) -> bool {
        self.0.ends_with(mark)
    }

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
    /// Returns the record of a start of which nothing else is known.
    pub fn of(instance: InstanceId, address: &Address, started_at: SystemTime) -> Self {
        Self {
            format: FORMAT,
            instance,
            process: None,
            background: None,
            host: None,
            address: address.clone(),
            model: None,
            version: None,
            started_at: started_at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            startup_timeout_ms: None,
            template: None,
            runtime: None,
            project_root: None,
            working_dir: None,
            ready: false,
            on_demand: false,
            restarts: 0,
            command: Vec::new(),
            fingerprint: String::new(),
            facets: SortedMap::new(),
            log: None,
        }
    }

    /// Returns the record of a start before its spawn.
    pub fn intent(
        spec: &ProcessSpec,
        instance: InstanceId,
        address: &Address,
        started_at: SystemTime,
    ) -> Self {
        let words =
            std::iter::once(spec.program.as_os_str()).chain(spec.args.iter().map(OsString::as_os_str));
        Self {
            command: words.map(|word| word.to_string_lossy().into_owned()).collect(),
            fingerprint: fingerprint(spec, address),
            working_dir: Some(spec.directory.clone()).filter(|directory| directory.to_str().is_some()),
            log: spec.log.clone().filter(|log| log.to_str().is_some()),
            ..Self::of(instance, address, started_at)
        }
    }

    /// Returns the instance in the form that the process driver takes.
    pub fn as_instance(&self) -> Instance<'_> {
        Instance { id: self.instance.as_str(), leader: self.process.as_ref() }
    }

    /// Returns the host on which the service was started, if the record tells it.
    pub fn host(&self) -> Option<&Host> {
        self.process.as_ref().map(|process| &process.host).or(self.host.as_ref())
    }

    /// Returns where the service was started, in words for another host.
    pub fn elsewhere(&self) -> Elsewhere {
        let host = self.host().map_or_else(|| "another host".to_owned(), |host| host.name.clone());
        Elsewhere { host, pid: self.process.as_ref().map(|process| process.pid) }
    }

    /// Returns the startup timeout of this start; `configured` is the one of the configuration.
    pub fn startup_timeout(&self, configured: Duration) -> Duration {
        self.startup_timeout_ms.map_or(configured, Duration::from_millis)
    }

    /// Reads the record of a file; `None` if there is no file.
    pub fn read(path: &Path) -> Result<Option<Self>, RecordError> {
        path.parent().map_or(Ok(()), files::refuse_of_others)?;
        match files::read(path, MAX_RECORD_BYTES)? {
            None => Ok(None),
            Some(bytes) => Self::parse(path, &bytes).map(Some),
        }
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Self, RecordError> {
        let damaged = |source| RecordError::Damaged { path: path.to_owned(), source };
        let value: Value = json_object::parse(bytes).map_err(damaged)?;
        let record = JsonObject::new(&value, "the record").map_err(damaged)?;
        // The number that all formats share tells a newer one from a damaged file.
        let format =
            record.number("format").and_then(|format| required("format", format)).map_err(damaged)?;
        if format > u64::from(FORMAT) {
            return Err(RecordError::Newer { path: path.to_owned(), found: format });
        }
        Self::from_object(&record).map_err(damaged)
    }

    fn from_object(record: &JsonObject<'_>) -> Result<Self, serde_json::Error> {
        let instance = required("instance", record.text("instance")?)?;
        let address = required("address", record.object("address")?)?;
        let facets = record.object("facets")?.map(|facets| facets.entries().ok_or_else(|| wrong("facets")));
        Ok(Self {
            format: FORMAT,
            instance: instance.try_into().map_err(serde_json::Error::custom)?,
            process: record.object("process")?.map(|process| ProcessId::read(&process)).transpose()?,
            background: record.object("background")?.map(|process| ProcessId::read(&process)).transpose()?,
            host: record.object("host")?.map(|host| Host::read(&host)).transpose()?,
            address: Address {
                host: required("host", address.text("host")?)?,
                port: required("port", address.number("port")?)?
                    .try_into()
                    .map_err(serde_json::Error::custom)?,
            },
            model: record.text("model")?,
            version: record.text("version")?,
            started_at: required("started_at", record.number("started_at")?)?,
            startup_timeout_ms: record.number("startup_timeout_ms")?,
            template: record.text("template")?,
            runtime: record.text("runtime")?,
            project_root: record.text("project_root")?.map(PathBuf::from),
            working_dir: record.text("working_dir")?.map(PathBuf::from),
            ready: required("ready", record.flag("ready")?)?,
            on_demand: record.flag("on_demand")?.unwrap_or_default(),
            restarts: record.number("restarts")?.unwrap_or_default(),
            command: required("command", record.texts("command")?)?,
            fingerprint: required("fingerprint", record.text("fingerprint")?)?,
            facets: facets.transpose()?.into_iter().flatten().collect(),
            log: record.text("log")?.map(PathBuf::from),
        })
    }

    /// Writes the record, and the pid beside it. The caller holds the service's lock.
    pub fn write(&self, paths: &ServicePaths) -> Result<(), RecordError> {
        files::make_directory(&paths.directory)?;
        let text = json_object::indented(self).map_err(RecordError::Encode)? + "\n";
        files::replace(&paths.state, text.as_bytes())?;
        let Some(process) = &self.process else { return Ok(files::remove(&paths.pid)?) };
        let pid = format!("{}\n", process.pid);
        // Each write waits for the disk, so the second write of a start skips an unchanged pid.
        let is_there =
            files::read(&paths.pid, 64).is_ok_and(|found| found.as_deref() == Some(pid.as_bytes()));
        if !is_there {
            files::replace(&paths.pid, pid.as_bytes())?;
        }
        Ok(())
    }

    /// Removes the record, and the pid beside it. The caller holds the service's lock.
    pub fn remove(paths: &ServicePaths) -> Result<(), RecordError> {
        // The pid file goes first: it must never outlive the record.
        files::remove(&paths.pid)?;
        Ok(files::remove(&paths.state)?)
    }
}

/// Returns a hash that changes with the program, an argument, the environment or the address, and is equal in every
/// build of fusion: 64 bits of FNV-1a, as 16 hexadecimal digits. It leaves out the directory, which may have several
/// names.
///
/// A hash rather than the configuration itself, because the configuration may hold secrets.
pub fn fingerprint(spec: &ProcessSpec, address: &Address) -> String {
    let address = address.to_string();
    // The count separates arguments from variables.
    let arguments = spec.args.len().to_string();
    let mut parts: Vec<&OsStr> = vec![spec.program.as_os_str(), address.as_ref()];
    parts.push(arguments.as_ref());
    parts.extend(spec.args.iter().map(OsString::as_os_str));
    parts.extend(spec.env.iter().flat_map(|(name, value)| [name.as_os_str(), value.as_os_str()]));
    hash(parts)
}

/// Returns a hash of a list of texts.
pub(super) fn hash<'p>(parts: impl IntoIterator<Item = &'p OsStr>) -> String {
    let bytes = parts.into_iter().flat_map(|part| part.as_bytes().iter().copied().chain([0]));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests;
