//! Several services at once: their starts, stops and restarts side by side.

use super::app::App;
use super::error::AppError;
use super::up::UpRequest;
use crate::core::cancel::CancelToken;
use crate::core::parallel;
use crate::core::services::{Down, DownOptions, ManagedService, ServiceError, Up, UpOptions};

impl App {
    /// Starts several services; see [`start_each`].
    pub fn up_several(
        &self,
        services: &[&ManagedService],
        request: &UpRequest,
        cancel: &CancelToken,
    ) -> Vec<Result<Up, AppError>> {
        start_each(services, cancel, &|service| self.up(service, request, cancel))
    }

    /// Restarts several services; see [`start_each`].
    pub fn restart_several(
        &self,
        services: &[&ManagedService],
        options: &UpOptions,
        cancel: &CancelToken,
    ) -> Vec<Result<Up, AppError>> {
        start_each(services, cancel, &|service| self.restart(service, options, cancel))
    }

    /// Stops the services at once. Returns what became of each, in their order.
    pub fn down_several(
        &self,
        services: &[&ManagedService],
        options: &DownOptions,
        cancel: &CancelToken,
    ) -> Vec<Result<Down, AppError>> {
        parallel::each(services, |_| false, |service| Ok(self.manager(cancel).down(service, options)?))
    }

    /// Returns the services whose process fusion started and is alive, also those whose record cannot be read: what is
    /// done to them tells why.
    pub fn started_by_fusion<'a>(&self, services: Vec<&'a ManagedService>) -> Vec<&'a ManagedService> {
        let is_ours = |service: &&ManagedService| !matches!(self.log(service).running(), Ok(None));
        services.into_iter().filter(is_ours).collect()
    }
}

/// Starts the services side by side; model servers one after the other, because each needs the machine for itself
/// while it loads. Begins no start after a cancellation. Returns what became of each, in their order.
fn start_each(
    services: &[&ManagedService],
    cancel: &CancelToken,
    start: &(dyn Fn(&ManagedService) -> Result<Up, AppError> + Sync),
) -> Vec<Result<Up, AppError>> {
    parallel::each(
        services,
        |service| is_model_server(service),
        |service| {
            cancel.check().map_err(ServiceError::from)?;
            start(service)
        },
    )
}

/// Returns whether a service serves a model, so its start takes much memory and time.
fn is_model_server(service: &ManagedService) -> bool {
    service.runtime().is_some() || service.server().model.is_some()
}
