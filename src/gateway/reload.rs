//! Follows the configuration file: a valid file applies within a second, an invalid one changes nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::state::{Gateway, Setup};
use crate::app::{App, ServeError};
use crate::core::address::Address;
use crate::core::config::Config;
use crate::core::events::{EventKind, chain};
use crate::core::services::ManagedService;

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
    if is_open_to_others(&app, &bound) {
        return Err(ServeError::NoToken { address: bound }.to_string());
    }
    if let Some(service) = own_port(&app, &bound) {
        return Err(format!("{service} has the address of the gateway, {bound}"));
    }
    Ok(Setup::new(app, bound))
}

/// Returns whether programs on other machines could use a gateway at this address without a token.
pub(super) fn is_open_to_others(app: &App, address: &Address) -> bool {
    !address.is_loopback() && app.config.gateway.token.is_empty()
}

/// Returns the service whose requests would come back to the gateway.
pub(super) fn own_port(app: &App, bound: &Address) -> Option<Arc<str>> {
    let is_same = |service: &&ManagedService| {
        service.server().address().is_some_and(|configured| configured.conflicts_with(bound))
    };
    app.services().iter().find(is_same).map(|service| Arc::clone(&service.name))
}
