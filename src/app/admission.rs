//! Decides whether a model may be loaded: what it needs against the memory of the machine and what is free of it.

use std::sync::Arc;

use super::app::App;
use super::error::AppError;
use super::models::Models;
use crate::core::address::Address;
use crate::core::cancel::CancelToken;
use crate::core::events::EventKind;
use crate::core::machine::{self, MemoryFit};
use crate::core::services::ManagedService;

impl App {
    /// Returns the memory that a start of the service with this model needs, in bytes; `None` if only the server
    /// knows it.
    pub fn memory_estimate(
        &self,
        service: &ManagedService,
        model: &str,
        cancel: &CancelToken,
    ) -> Option<u64> {
        let models = self.models(service, cancel).ok().filter(|models| !models.needs_server())?;
        models.memory_needed(None, &self.configured_model(service, model).name)
    }

    /// Checks before a load that the model with this resolved name fits into the memory. Fails if it cannot, unless
    /// `force` is set; an event tells if it does not fit now. `address` is where the server listens, if only that knows
    /// its models.
    pub(super) fn admit(
        &self,
        service: &ManagedService,
        model: &str,
        address: Option<&Address>,
        force: bool,
        cancel: &CancelToken,
    ) -> Result<(), AppError> {
        let Ok(models) = self.models(service, cancel) else { return Ok(()) };
        self.admit_from(&models, service, model, address, force)
    }

    pub(super) fn admit_from(
        &self,
        models: &Models<'_>,
        service: &ManagedService,
        model: &str,
        address: Option<&Address>,
        force: bool,
    ) -> Result<(), AppError> {
        let model = model.to_owned();
        let needed = models.memory_needed(address, &model);
        // Unknown prevents nothing.
        let (Some(needed), Some(memory)) = (needed, machine::memory()) else { return Ok(()) };
        let limit = memory.for_models;
        let free = match memory.fit(needed) {
            MemoryFit::Fits => return Ok(()),
            MemoryFit::TooLarge if !force => {
                return Err(AppError::TooLarge { service: Arc::clone(&service.name), model, needed, limit });
            }
            MemoryFit::TooLarge => limit,
            MemoryFit::Tight => memory.available,
        };
        self.events.emit(&service.name, EventKind::MemoryTight { model, needed, free });
        Ok(())
    }
}
