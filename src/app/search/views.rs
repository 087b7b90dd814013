//! The JSON shape of a model that was found.

use std::sync::Arc;

use serde::Serialize;

use crate::core::machine::MemoryFit;
use crate::core::models::catalogue::Entry;
use crate::core::models::hub::search::{HubChoice, HubModel};
use crate::core::models::quoted;
use crate::core::runtimes::Runtime;
use crate::core::services::ManagedService;
use crate::core::timestamp::Timestamp;

/// A model that was found. Unknown is null.
#[derive(Debug, Serialize)]
pub struct FoundView {
    pub service: Arc<str>,
    pub runtime: Option<&'static str>,
    /// What `pull` takes.
    pub name: String,
    pub parameters: Option<u64>,
    pub quantization: Option<String>,
    pub size_bytes: Option<u64>,
    /// `yes`, `tight` or `no`.
    pub fits: Option<&'static str>,
    /// In the last 30 days.
    pub downloads: Option<u64>,
    pub modified: Option<Timestamp>,
    /// The command that downloads it; null for a model of this machine.
    pub pull: Option<String>,
}

impl FoundView {
    /// Returns the view of a choice of a repository.
    pub(super) fn of_hub(
        service: &ManagedService,
        model: &HubModel,
        choice: HubChoice,
        parameters: Option<u64>,
        fit: Option<MemoryFit>,
    ) -> Self {
        Self {
            parameters,
            quantization: choice.quantization,
            size_bytes: choice.bytes,
            fits: fit.map(word),
            downloads: model.downloads,
            modified: model.updated,
            pull: Some(format!("fusion {} pull {}", service.name, quoted(&choice.name))),
            ..Self::named(service, choice.name)
        }
    }

    /// Returns the view of a model of this machine.
    pub(super) fn here(service: &ManagedService, entry: Entry) -> Self {
        Self {
            quantization: entry.quantization,
            size_bytes: entry.size_bytes,
            modified: entry.modified,
            ..Self::named(service, entry.name)
        }
    }

    /// Returns the view of a model of which only the name is known.
    pub(super) fn named(service: &ManagedService, name: String) -> Self {
        Self {
            service: Arc::clone(&service.name),
            runtime: service.runtime().map(Runtime::name),
            name,
            parameters: None,
            quantization: None,
            size_bytes: None,
            fits: None,
            downloads: None,
            modified: None,
            pull: None,
        }
    }
}

fn word(fit: MemoryFit) -> &'static str {
    match fit {
        MemoryFit::Fits => "yes",
        MemoryFit::Tight => "tight",
        MemoryFit::TooLarge => "no",
    }
}
