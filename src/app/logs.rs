//! The log of a service: its path, and whether its writer is running.

use std::path::PathBuf;

use super::app::App;
use super::error::AppError;
use crate::core::cancel::CancelToken;
use crate::core::process::{Liveness, Pid};
use crate::core::services::record::Record;
use crate::core::services::{ManagedService, ServiceError, lock};

/// The log of a service. The path recorded at the start counts, not the current configuration.
pub struct ServiceLog<'a> {
    app: &'a App,
    pub service: &'a ManagedService,
}

impl App {
    pub fn log<'a>(&'a self, service: &'a ManagedService) -> ServiceLog<'a> {
        ServiceLog { app: self, service }
    }
}

impl ServiceLog<'_> {
    pub fn path(&self) -> PathBuf {
        let recorded = self.record().ok().flatten().and_then(|record| record.log);
        recorded.unwrap_or_else(|| self.service.files.log.clone())
    }

    /// Returns the process that fusion started, if it is alive.
    pub fn running(&self) -> Result<Option<Pid>, AppError> {
        let Some(process) = self.record()?.and_then(|record| record.process) else { return Ok(None) };
        let liveness = self.app.driver.liveness(&process).map_err(ServiceError::from)?;
        Ok((liveness == Liveness::Alive).then_some(process.pid))
    }

    /// Returns whether another command is starting or stopping the service, for example restarting it.
    pub fn is_changing(&self) -> bool {
        lock::is_held(&self.service.files).unwrap_or(false)
    }

    fn record(&self) -> Result<Option<Record>, AppError> {
        Ok(self.app.manager(&CancelToken::new()).record_of(self.service)?)
    }
}
