//! Follows the configuration file: a valid file applies within a second, an invalid one changes nothing.

use std::path::Path;
use std::time::SystemTime;

use super::state::{Gateway, Setup};
use crate::core::config::Config;
use crate::core::events::{EventKind, chain};

/// Identifies a version of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    modified: Option<SystemTime>,
    size: u64,
    inode: u64,
}

/// Returns the version of the file; `None` if it cannot be read.
pub(super) fn version(path: &Path) -> Option<Version> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(path).ok()?;
    Some(Version { modified: metadata.modified().ok(), size: metadata.len(), inode: metadata.ino() })
}

/// Reads the file again, and replaces the setup if it is valid. Requests that are under way keep the one they have.
pub(super) fn reload(gateway: &Gateway) {
    let setup = gateway.setup();
    let (ok, message) = match next(&setup) {
        Ok(next) => {
            gateway.replace_setup(next);
            gateway.seats.wake_keeper();
            (true, None)
        }
        Err(message) => (false, Some(message)),
    };
    setup.app.events.emit(&"gateway".into(), EventKind::ConfigChanged { ok, message });
}

/// Returns the setup of the file, or its problems.
fn next(setup: &Setup) -> Result<Setup, String> {
    let app = &setup.app;
    let config = Config::load(&app.paths.config_file(), app.table).map_err(|error| chain(&error))?;
    let bound = setup.guard.bound.clone();
    let app = app.with_config(config);
    app.check_gateway(&bound).map_err(|error| error.to_string())?;
    Ok(Setup::new(app, bound))
}
