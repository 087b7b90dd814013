//! Decides whether a model may be loaded: what it needs against the memory of the machine and what is free of it.

use std::sync::Arc;

use super::app::App;
use super::error::AppError;
use super::models::Models;
use crate::core::address::Address;
use crate::core::cancel::CancelToken;
use crate::core::events::EventKind;
use crate::core::machine::{self, Memory};
use crate::core::services::ManagedService;

/// Whether a model fits into the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MemoryFit {
    /// It fits, or it is not known what it needs.
    Fits,
    /// It needs more than is free now.
    Tight { needed: u64, free: u64 },
    /// It needs more than there is.
    TooLarge { needed: u64, limit: u64 },
}

fn decide(needed: Option<u64>, memory: Option<Memory>) -> MemoryFit {
    let (Some(needed), Some(memory)) = (needed, memory) else { return MemoryFit::Fits };
    let limit = memory.for_models;
    if needed > limit {
        MemoryFit::TooLarge { needed, limit }
    } else if needed > memory.available {
        MemoryFit::Tight { needed, free: memory.available }
    } else {
        MemoryFit::Fits
    }
}

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
        match decide(models.memory_needed(address, &model), machine::memory()) {
            MemoryFit::Fits => Ok(()),
            MemoryFit::TooLarge { needed, limit } if !force => {
                Err(AppError::TooLarge { service: Arc::clone(&service.name), model, needed, limit })
            }
            MemoryFit::Tight { needed, free } | MemoryFit::TooLarge { needed, limit: free } => {
                self.events.emit(&service.name, EventKind::MemoryTight { model, needed, free });
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_compared_with_the_memory() {
        let limit = 700;
        let memory = Memory { total: 1000, available: 100, for_models: limit };
        for (needed, memory, expected) in [
            (Some(100), Some(memory), MemoryFit::Fits),
            (Some(101), Some(memory), MemoryFit::Tight { needed: 101, free: 100 }),
            (Some(limit), Some(memory), MemoryFit::Tight { needed: limit, free: 100 }),
            (Some(limit + 1), Some(memory), MemoryFit::TooLarge { needed: limit + 1, limit }),
            // Unknown is neither.
            (None, Some(memory), MemoryFit::Fits),
            (Some(u64::MAX), None, MemoryFit::Fits),
        ] {
            assert_eq!(decide(needed, memory), expected, "{needed:?} {memory:?}");
        }
    }
}
