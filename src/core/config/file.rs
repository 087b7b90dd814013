//! The file itself: reads it with limits, creates it on first use, and lets one command at a time change it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use super::error::ConfigError;
use super::{parse, render};
use crate::core::files::{self, Lock, LockError};
use crate::core::runtimes::Table;

/// Maximum size: far larger than any configuration, small enough to read at every start.
pub(super) const MAX_BYTES: u64 = 1024 * 1024;

/// Timeout for another command's change, which takes milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns the text of the file; creates the file with its defaults if it is missing.
pub(super) fn read_or_create(path: &Path, table: Table) -> Result<String, ConfigError> {
    source(path, table, MAX_BYTES).and_then(|bytes| into_text(path, bytes))
}

/// Returns the bytes of the file, at most `limit`; creates the file with its defaults if it is missing.
pub(super) fn source(path: &Path, table: Table, limit: u64) -> Result<Vec<u8>, ConfigError> {
    if let Some(bytes) = read_if_there(path, limit)? {
        return Ok(bytes);
    }
    let text = render::fresh(table);
    if create(path, &text)? {
        return Ok(text.into_bytes());
    }
    // Another command has created it meanwhile.
    read_bytes(path, limit)
}

/// Returns the text of the existing file.
pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    read_bytes(path, MAX_BYTES).and_then(|bytes| into_text(path, bytes))
}

/// Returns the bytes of the existing file, at most `limit`.
pub(super) fn read_bytes(path: &Path, limit: u64) -> Result<Vec<u8>, ConfigError> {
    let missing = || ConfigError::Read { path: path.to_owned(), source: io::ErrorKind::NotFound.into() };
    read_if_there(path, limit)?.ok_or_else(missing)
}

fn read_if_there(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    if let Some(directory) = path.parent() {
        files::refuse_of_others(directory).map_err(ConfigError::OfOthers)?;
    }
    // Before it is opened: opening a pipe would wait for its writer.
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return match fs::read_link(path) {
                Ok(target) => Err(ConfigError::Dangling { path: path.to_owned(), target }),
                Err(_) => Ok(None),
            };
        }
        Err(error) => return Err(failed(error)),
    };
    if !metadata.is_file() {
        return Err(ConfigError::NotAFile { path: path.to_owned() });
    }
    if let Some(Ok(target)) = path.is_symlink().then(|| path.canonicalize()) {
        refuse_of_others(&target)?;
    } else {
        refuse_of_others(path)?;
    }
    if metadata.len() > limit {
        return Err(ConfigError::TooLarge { path: path.to_owned(), size: metadata.len(), limit });
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(failed)?;
    Ok(Some(bytes))
}

/// The file decides which programs are started, and who may write its directory can replace it. Neither needs to exist.
fn refuse_of_others(path: &Path) -> Result<(), ConfigError> {
    let directory = path.parent().map_or(Ok(()), files::refuse_of_others);
    directory.and_then(|()| files::refuse_of_others(path)).map_err(ConfigError::OfOthers)
}

/// Returns the bytes as text.
pub(super) fn into_text(path: &Path, bytes: Vec<u8>) -> Result<String, ConfigError> {
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let problems = vec![parse::not_utf8(error.as_bytes(), valid)];
        ConfigError::Invalid { path: path.to_owned(), problems }
    })
}

/// Creates the file and its directory; returns false if the file exists.
fn create(path: &Path, text: &str) -> Result<bool, ConfigError> {
    let failed = |source| ConfigError::Create { path: path.to_owned(), source };
    if let Some(directory) = path.parent() {
        files::make_directory(directory).map_err(failed)?;
    }
    let _lock = lock(path).map_err(|error| match error {
        ConfigError::Lock { path, source } => ConfigError::Create { path, source },
        other => other,
    })?;
    files::create(path, text.as_bytes()).map_err(failed)
}

/// Locks the file against changes by other commands until the result is dropped.
pub(super) fn lock(path: &Path) -> Result<Lock, ConfigError> {
    Lock::acquire(&path.with_extension("lock"), LOCK_TIMEOUT, &|| false).map_err(|error| match error {
        LockError::File(source) => ConfigError::Lock { path: path.to_owned(), source },
        LockError::Held { .. } | LockError::Cancelled { .. } => ConfigError::Locked { path: path.to_owned() },
    })
}
