//! Installing the program of a service, and removing fusion's own installation of it.

use std::time::Duration;

use super::app::App;
use super::error::AppError;
use crate::core::cancel::CancelToken;
use crate::core::events::EventKind;
use crate::core::install::{InstallError, InstallOutcome, Installer};
use crate::core::runtimes::{InstallMethod, Runtime};
use crate::core::services::ManagedService;
use crate::core::services::lock::{LockError, ServiceLock};

/// How long to wait for another command that changes the service.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

impl App {
    /// Installs the program of the service, if it is missing; with `upgrade`, also the newest version that is known to
    /// work in place of an older one.
    pub fn install(
        &self,
        service: &ManagedService,
        upgrade: bool,
        cancel: &CancelToken,
    ) -> Result<InstallOutcome, AppError> {
        let lock = self.lock_installation(service, cancel)?;
        Ok(self.installer(service, cancel)?.install(upgrade, &lock)?)
    }

    /// Installs the program of the service for a start, and tells of it.
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

    /// Removes fusion's own installation of the program; whether there was one.
    pub fn uninstall(&self, service: &ManagedService, cancel: &CancelToken) -> Result<bool, AppError> {
        let lock = self.lock_installation(service, cancel)?;
        Ok(self.installer(service, cancel)?.uninstall(&lock)?)
    }

    /// Takes the lock of the service, so that no other command changes it meanwhile.
    fn lock_installation(
        &self,
        service: &ManagedService,
        cancel: &CancelToken,
    ) -> Result<ServiceLock, InstallError> {
        match ServiceLock::acquire(&service.name, &service.files, LOCK_TIMEOUT, cancel, &self.events) {
            Err(LockError::Cancelled(_)) => Err(InstallError::Cancelled),
            other => Ok(other?),
        }
    }

    fn installer<'a>(
        &'a self,
        service: &'a ManagedService,
        cancel: &'a CancelToken,
    ) -> Result<Installer<'a>, AppError> {
        Ok(Installer {
            service: &service.name,
            runtime: runtime(service)?,
            paths: &service.files,
            driver: &*self.driver,
            search: self.environment.path.as_deref(),
            output: self.helper_output,
            cancel,
            events: &self.events,
        })
    }
}

fn runtime(service: &ManagedService) -> Result<&'static dyn Runtime, InstallError> {
    service.runtime().ok_or_else(|| InstallError::NoMethod { program: service.name.to_string() })
}

/// Returns the Homebrew formula that may have installed the program of the service.
pub fn homebrew_formula(service: &ManagedService) -> Option<&'static str> {
    match service.runtime()?.install_method()? {
        InstallMethod::Homebrew { formula, .. } => Some(formula),
        InstallMethod::Python(_) => None,
    }
}
