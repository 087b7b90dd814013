//! Installs the program of a service, and removes the installation.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::app::App;
use super::error::AppError;
use crate::core::cancel::CancelToken;
use crate::core::events::EventKind;
use crate::core::install::{InstallError, InstallOutcome, Installer};
use crate::core::runtimes::{InstallMethod, Runtime};
use crate::core::services::ManagedService;
use crate::core::services::lock::{ServiceLock, ServiceLockError};

/// Timeout for another command that changes the service.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

impl App {
    /// Installs the program of the service if it is missing; with `upgrade`, replaces an older version with the newest
    /// one that is known to work.
    pub fn install(
        &self,
        service: &ManagedService,
        upgrade: bool,
        cancel: &CancelToken,
    ) -> Result<InstallOutcome, AppError> {
        let lock = self.lock_installation(service, cancel)?;
        Ok(self.installer(service, &self.installation(service), cancel)?.install(upgrade, &lock)?)
    }

    /// Installs the program for a start, and emits an event.
    pub fn install_for_start(&self, service: &ManagedService, cancel: &CancelToken) -> Result<(), AppError> {
        let (version, path) = match self.install(service, false, cancel)? {
            InstallOutcome::Already(now) | InstallOutcome::Made { now, .. } => {
                (Some(now.version), now.directory)
            }
            InstallOutcome::Homebrew(program) => (None, program),
        };
        self.events.emit(&service.name, EventKind::Installed { version, path });
        Ok(())
    }

    /// Removes the program if fusion installed it; returns whether it did.
    pub fn uninstall(&self, service: &ManagedService, cancel: &CancelToken) -> Result<bool, AppError> {
        let lock = self.lock_installation(service, cancel)?;
        Ok(self.installer(service, &self.installation(service), cancel)?.uninstall(&lock)?)
    }

    /// Returns the directory of fusion's own installation for the service.
    pub fn installation(&self, service: &ManagedService) -> PathBuf {
        self.paths.installation(service.template.name())
    }

    /// Locks the service against other commands that change it.
    fn lock_installation(
        &self,
        service: &ManagedService,
        cancel: &CancelToken,
    ) -> Result<ServiceLock, InstallError> {
        match ServiceLock::acquire(&service.name, &service.files, LOCK_TIMEOUT, cancel, &self.events) {
            Err(ServiceLockError::Cancelled(_)) => Err(InstallError::Cancelled),
            other => Ok(other?),
        }
    }

    fn installer<'a>(
        &'a self,
        service: &'a ManagedService,
        home: &'a Path,
        cancel: &'a CancelToken,
    ) -> Result<Installer<'a>, AppError> {
        Ok(Installer {
            service: &service.name,
            runtime: runtime(service)?,
            paths: &service.files,
            home,
            driver: &*self.driver,
            search: self.environment.path.as_deref(),
            output: self.helper_output.clone(),
            cancel,
            events: &self.events,
        })
    }
}

fn runtime(service: &ManagedService) -> Result<&'static dyn Runtime, InstallError> {
    service.runtime().ok_or_else(|| InstallError::NoMethod { program: service.name.to_string() })
}

/// Returns the Homebrew formula of the program, if it has one.
pub fn homebrew_formula(service: &ManagedService) -> Option<&'static str> {
    match service.runtime()?.install_method()? {
        InstallMethod::Homebrew { formula, .. } => Some(formula),
        InstallMethod::Python(_) => None,
    }
}
