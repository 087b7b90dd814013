//! Searches the hub for models that a service can pull, and tells whether they fit into the memory of this machine.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use super::admission::{MemoryFit, decide};
use super::app::App;
use crate::core::cancel::CancelToken;
use crate::core::machine;
use crate::core::models::catalogue::MemoryEstimate;
use crate::core::models::hub::search::{
    HubModels, HubSearch, HubSearchError, Repository, RepositoryFiles, SearchOrder,
};
use crate::core::parallel;
use crate::core::runtimes::Runtime;
use crate::core::services::ManagedService;
use crate::core::timestamp::Timestamp;

/// How many repositories are listed for each row, if rows are left out by size or memory.
const CANDIDATES_PER_ROW: usize = 4;

/// Maximum number of listed repositories.
const MAX_CANDIDATES: usize = 100;

/// Bytes of the context for each token of a model with 10^9 parameters. Models with grouped attention take 32 to 40 KB
/// at 10^9 parameters, about 130 KB at 8 * 10^9 and 320 KB at 70 * 10^9: it grows with the root of the size.
const TOKEN_BYTES: f64 = 40_000.0;

/// What to search for.
#[derive(Debug, Clone)]
pub struct SearchRequest {
    pub words: String,
    pub order: SearchOrder,
    /// Maximum number of rows.
    pub rows: usize,
    /// Leave out models that do not fit into the memory.
    pub only_fitting: bool,
    /// In bytes.
    pub max_size: Option<u64>,
    /// Context length for the memory, in tokens.
    pub context: Option<u64>,
}

/// Whether a model fits into the memory of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fits {
    Yes,
    /// It needs more than is free now.
    Tight,
    No,
}

/// A model on the hub. Unknown values are null.
#[derive(Debug, Serialize)]
pub struct FoundModel {
    pub service: Arc<str>,
    /// What `pull` takes.
    pub name: String,
    pub parameters: Option<u64>,
    pub quantization: Option<String>,
    pub size_bytes: Option<u64>,
    pub fits: Option<Fits>,
    pub downloads: Option<u64>,
    pub updated: Option<Timestamp>,
    /// The command that downloads it.
    pub pull: String,
}

/// Why a search has no result.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    #[error("{error}")]
    Hub {
        #[source]
        error: HubSearchError,
        /// The models of this machine whose names have the words.
        here: Vec<String>,
        /// The service whose installation brings the tool.
        brings_tool: Option<&'static str>,
    },
    #[error("{service} takes no models from the hub")]
    NoHub { service: Arc<str> },
}

impl App {
    /// Returns the service for a search that names none: `default_service`, else the first one whose program is
    /// installed, else the first one.
    pub fn service_for_search(&self, cancel: &CancelToken) -> Option<&ManagedService> {
        let has_hub = |service: &&ManagedService| hub_models(service).is_some();
        let default = self.config.default_service.as_deref().and_then(|name| self.service(name));
        let manager = self.manager(cancel);
        let mut services = self.services().iter().filter(has_hub);
        default
            .filter(has_hub)
            .or_else(|| services.clone().find(|service| manager.program(service).is_ok()))
            .or_else(|| services.next())
    }

    /// Searches the hub for models of `service`: one request for the list, and one for the files of each row.
    pub fn search(
        &self,
        service: &ManagedService,
        request: &SearchRequest,
        cancel: &CancelToken,
    ) -> Result<Vec<FoundModel>, SearchError> {
        let Some(models) = hub_models(service) else {
            return Err(SearchError::NoHub { service: Arc::clone(&service.name) });
        };
        self.found(service, &models, request, cancel).map_err(|error| SearchError::Hub {
            here: self.models_here(service, &request.words, cancel),
            brings_tool: self.brings_hub_tool(),
            error,
        })
    }

    fn found(
        &self,
        service: &ManagedService,
        models: &HubModels,
        request: &SearchRequest,
        cancel: &CancelToken,
    ) -> Result<Vec<FoundModel>, HubSearchError> {
        let search = self.environment.path.as_deref();
        let programs = self.programs(cancel).into_iter();
        let hub = self.environment.variables.get(&OsString::from("HF_ENDPOINT")).cloned().unwrap_or_default();
        let search = HubSearch::prepare(programs, search, self.paths.searches(), hub, cancel)?;
        let selects = request.only_fitting || request.max_size.is_some();
        let candidates = if selects { request.rows.saturating_mul(CANDIDATES_PER_ROW) } else { request.rows };
        let listed =
            search.list(models, &request.words, request.order, candidates.clamp(1, MAX_CANDIDATES))?;
        let mut rows = Vec::new();
        for some in listed.chunks(request.rows.max(1)) {
            let files = parallel::each(some, |_| false, |repository| search.files(models, &repository.name));
            for (repository, files) in some.iter().zip(files) {
                let files = match files {
                    // Without its files a row has no size.
                    Err(HubSearchError::Failed { .. }) => None,
                    other => other?,
                };
                let row = row(service, models, repository, files, request.context);
                let is_small =
                    request.max_size.is_none_or(|max| row.size_bytes.is_some_and(|size| size <= max));
                let fits = !request.only_fitting || matches!(row.fits, Some(Fits::Yes | Fits::Tight));
                if is_small && fits && rows.len() < request.rows {
                    rows.push(row);
                }
            }
            if rows.len() >= request.rows {
                break;
            }
        }
        Ok(rows)
    }

    /// Returns the programs of all services, beside which the hub's tool may be.
    fn programs(&self, cancel: &CancelToken) -> Vec<PathBuf> {
        let manager = self.manager(cancel);
        let found = self.services().iter().filter_map(|service| manager.program(service).ok());
        found.map(|program| program.path).collect()
    }

    fn brings_hub_tool(&self) -> Option<&'static str> {
        self.table.iter().find(|runtime| runtime.brings_hub_tool()).map(|runtime| runtime.name())
    }

    /// Returns the models of this machine whose names have all the words. Starts nothing.
    fn models_here(&self, service: &ManagedService, words: &str, cancel: &CancelToken) -> Vec<String> {
        let listed = self.models(service, cancel).and_then(|models| models.list(false));
        let names = listed.ok().flatten().into_iter().flatten().map(|row| row.entry.name);
        let words = words.to_lowercase();
        names.filter(|name| words.split_whitespace().all(|word| name.to_lowercase().contains(word))).collect()
    }
}

fn hub_models(service: &ManagedService) -> Option<HubModels> {
    service.runtime().and_then(Runtime::hub_models)
}

fn row(
    service: &ManagedService,
    models: &HubModels,
    repository: &Repository,
    files: Option<RepositoryFiles>,
    context: Option<u64>,
) -> FoundModel {
    let quantization = files.as_ref().and_then(|files| files.quantization.clone());
    let tag = quantization.as_ref().map(|quantization| format!(":{quantization}")).unwrap_or_default();
    let name = format!("{}{}{tag}", models.prefix, repository.name);
    let tokens = context.unwrap_or(MemoryEstimate::CONTEXT_TOKENS);
    let needed = files.as_ref().map(|files| {
        let parameters = repository.parameters.unwrap_or(files.weight_bytes);
        let cache = token_bytes(parameters);
        MemoryEstimate::with_context(files.weight_bytes, cache, repository.context_length, tokens).bytes
    });
    let memory = machine::memory();
    let fits = needed.filter(|_| memory.is_some()).map(|needed| match decide(Some(needed), memory) {
        MemoryFit::Fits => Fits::Yes,
        MemoryFit::Tight { .. } => Fits::Tight,
        MemoryFit::TooLarge { .. } => Fits::No,
    });
    FoundModel {
        service: Arc::clone(&service.name),
        pull: format!("fusion {} pull {name}", service.name),
        name,
        parameters: repository.parameters,
        quantization: quantization.or_else(|| repository.bits.map(|bits| format!("{bits}-bit"))),
        size_bytes: files.map(|files| files.bytes),
        fits,
        downloads: repository.downloads,
        updated: repository.updated,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "an estimate of at most 10^14"
)]
fn token_bytes(parameters: u64) -> u64 {
    (TOKEN_BYTES * (parameters as f64 / 1e9).sqrt()) as u64
}
