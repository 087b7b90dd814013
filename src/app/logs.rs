//! The log of a service: where it is, and whether the process that writes it still runs.

use std::path::PathBuf;

use super::app::App;
use super::error::AppError;
use crate::core::process::{Liveness, Pid};
use crate::core::services::record::Record;
use crate::core::services::{ManagedService, ServiceError, lock};

/// The log of a service. What was recorded at the start counts, whatever the configuration says now.
pub struct ServiceLog<'a> {
    app: &'a App,
    /// The service.
    pub service: &'a ManagedService,
}

impl App {
    /// Returns the log of `service`.
    pub fn log<'a>(&'a self, service: &'a ManagedService) -> ServiceLog<'a> {
        ServiceLog { app: self, service }
    }
}

impl ServiceLog<'_> {
    /// Returns where the log is.
    pub fn path(&self) -> PathBuf {
        let recorded = self.record().ok().flatten().and_then(|record| record.log);
        recorded.unwrap_or_else(|| self.service.files.log.clone())
    }

    /// Returns the process that fusion started, if it lives.
    pub fn running(&self) -> Result<Option<Pid>, AppError> {
        let Some(process) = self.record()?.and_then(|record| record.process) else { return Ok(None) };
        let liveness = self.app.driver.liveness(&process).map_err(ServiceError::from)?;
        Ok((liveness == Liveness::Alive).then_some(process.pid))
    }

    /// Returns whether another command is starting or stopping the service: a restart is not its end.
    pub fn is_changing(&self) -> bool {
        lock::is_held(&self.service.files).unwrap_or(false)
    }

    fn record(&self) -> Result<Option<Record>, AppError> {
        Ok(Record::read(&self.service.files.state).map_err(ServiceError::from)?)
    }
}
