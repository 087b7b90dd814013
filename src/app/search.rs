//! Searches the hub for models that a service can pull, and tells which of them fit into the memory.
//!
//! One request lists the models; the sizes of those that are shown take one or two more each.

mod cache;
pub mod views;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use self::cache::SearchCache;
use self::views::FoundView;
use super::app::App;
use super::error::AppError;
use crate::core::cancel::CancelToken;
use crate::core::machine::{self, Memory, MemoryFit};
use crate::core::models::catalogue::{MemoryEstimate, ModelError};
use crate::core::models::directory::{context_length_in, quantization_in};
use crate::core::models::hub::search::{
    HubChoice, HubError, HubModel, HubModels, HubOrder, HubQuery, RepositoryFile, files,
};
use crate::core::models::hub::tool::{HubTool, TOOL, find_tool};
use crate::core::models::token_cache::{TokenCache, most_for, token_cache};
use crate::core::parallel;
use crate::core::runtimes::Runtime;
use crate::core::services::ManagedService;

/// Maximum number of models that are shown.
pub const MAX_SHOWN: usize = 100;

/// Maximum number of repositories that are asked about at once.
const MAX_AT_ONCE: usize = 8;

/// What is searched for, and how.
#[derive(Debug, Clone, Copy)]
pub struct SearchRequest<'a> {
    pub words: &'a str,
    pub order: HubOrder,
    /// Maximum number of models.
    pub count: usize,
    /// Only models that fit into the memory.
    pub fits: bool,
    /// Only models of at most so many bytes.
    pub max_size: Option<u64>,
    /// The context that fits are judged with, in tokens.
    pub context: Option<u64>,
}

impl SearchRequest<'_> {
    fn is_filtered(&self) -> bool {
        self.fits || self.max_size.is_some()
    }

    /// Returns how many models the hub is asked for: some of them cannot be pulled, or are too large.
    fn limit(&self) -> usize {
        if self.is_filtered() { MAX_SHOWN } else { (self.count * 2 + 10).min(MAX_SHOWN) }
    }

    /// Returns whether a model may be shown. What is not known passes no filter.
    fn accepts(&self, bytes: Option<u64>, fit: Option<MemoryFit>) -> bool {
        let is_small = self.max_size.is_none_or(|max| bytes.is_some_and(|bytes| bytes <= max));
        is_small && (!self.fits || fit.is_some_and(|fit| fit != MemoryFit::TooLarge))
    }
}

/// The result of a search.
#[derive(Debug)]
pub struct SearchResult {
    pub rows: Vec<FoundView>,
    /// Why the hub has not told everything. If it has told nothing, `rows` are models of this machine.
    pub trouble: Option<HubError>,
}

/// Why nothing was searched.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    #[error("cannot search the hub: the program {TOOL} is not installed")]
    ToolMissing {
        /// The service whose installation brings it, if there is one.
        comes_with: Option<Arc<str>>,
    },
    /// The models of the service do not come from the hub.
    #[error("the hub has no models for {service}")]
    NoHub { service: Arc<str> },
    #[error(transparent)]
    Hub(HubError),
    #[error(transparent)]
    App(#[from] AppError),
}

impl App {
    /// Finds a tool beside the program of `service`, those of other services, or on `PATH`.
    pub(super) fn find_tool(&self, name: &str, service: &ManagedService) -> Option<PathBuf> {
        let cancel = CancelToken::new();
        let manager = self.manager(&cancel);
        let services = std::iter::once(service).chain(self.services());
        let programs: Vec<PathBuf> = services
            .filter(|service| service.runtime().is_some())
            .filter_map(|service| manager.program(service).ok())
            .map(|program| program.path)
            .collect();
        find_tool(name, programs.iter().map(PathBuf::as_path), self.environment.path.as_deref())
    }

    /// Returns the service whose installation brings the hub's tool.
    pub(super) fn brings_hub_tool(&self) -> Option<Arc<str>> {
        self.table.iter().find(|runtime| runtime.brings_hub_tool()).map(|runtime| runtime.name().into())
    }

    /// Returns the service for a search that names none: the default one, else the first whose program is installed, else
    /// the first.
    pub fn searched_service(&self) -> Option<&ManagedService> {
        let searched = || self.services().iter().filter(|service| hub_models(service).is_some());
        let default = self.config.default_service.as_deref();
        let cancel = CancelToken::new();
        let manager = self.manager(&cancel);
        searched()
            .find(|service| Some(&*service.name) == default)
            .or_else(|| searched().find(|service| manager.program(service).is_ok()))
            .or_else(|| searched().next())
    }

    /// Searches the hub for models that `service` can pull.
    pub fn search(
        &self,
        service: &ManagedService,
        request: &SearchRequest<'_>,
        cancel: &CancelToken,
    ) -> Result<SearchResult, SearchError> {
        let no_hub = || SearchError::NoHub { service: Arc::clone(&service.name) };
        let hub = hub_models(service).ok_or_else(no_hub)?;
        let missing = || SearchError::ToolMissing { comes_with: self.brings_hub_tool() };
        let program = self.find_tool(TOOL, service).ok_or_else(missing)?;
        let variables = service.server().env.iter().map(|(name, value)| (name.into(), value.into()));
        let asker = HubAsker {
            tool: HubTool::new(program, variables.collect(), cancel),
            cache: SearchCache::new(self.paths.searches()),
            endpoint: self.endpoint(service),
        };
        let search = OneSearch { service, hub, request, asker, memory: machine::memory() };
        match search.run() {
            Err(error) if says_later(&error) => {
                let rows = self.matching(service, request.words, cancel)?;
                Ok(SearchResult { rows, trouble: Some(error) })
            }
            other => other.map_err(SearchError::Hub),
        }
    }

    /// Returns the address of the hub, if a variable sets it.
    fn endpoint(&self, service: &ManagedService) -> OsString {
        const NAME: &str = "HF_ENDPOINT";
        let configured = service.server().env.get(NAME).map(OsString::from);
        let inherited = || self.environment.variable(NAME).cloned();
        configured.or_else(inherited).unwrap_or_default()
    }

    /// Returns the models of the service on this machine whose names contain all of `words`. Starts nothing.
    fn matching(
        &self,
        service: &ManagedService,
        words: &str,
        cancel: &CancelToken,
    ) -> Result<Vec<FoundView>, AppError> {
        let models = self.models(service, cancel)?;
        let mut rows: Vec<FoundView> = if let Some(rows) = models.list(false)? {
            rows.into_iter().map(|row| FoundView::here(service, row.entry)).collect()
        } else {
            let stored = service.stored_models(&self.environment).unwrap_or_default();
            stored.into_iter().map(|name| FoundView::named(service, name)).collect()
        };
        rows.retain(|row| contains_all(&row.name, words));
        Ok(rows)
    }
}

fn hub_models(service: &ManagedService) -> Option<HubModels> {
    service.runtime().and_then(Runtime::hub_models)
}

/// Returns whether the hub may answer at another time.
fn says_later(error: &HubError) -> bool {
    matches!(
        error,
        HubError::TooManyRequests { .. } | HubError::Unreachable { .. } | HubError::Offline { .. }
    )
}

fn contains_all(name: &str, words: &str) -> bool {
    let name = name.to_lowercase();
    words.split_whitespace().all(|word| name.contains(&word.to_lowercase()))
}

/// Asks the hub, unless it has answered the same within the last day.
struct HubAsker<'a> {
    tool: HubTool<'a>,
    cache: SearchCache,
    endpoint: OsString,
}

impl HubAsker<'_> {
    fn kept(
        &self,
        question: &str,
        ask: &dyn Fn(&HubTool<'_>) -> Result<Value, HubError>,
    ) -> Result<Value, HubError> {
        let question = format!("{} {question}", self.endpoint.to_string_lossy());
        if let Some(answer) = self.cache.get(&question) {
            return Ok(answer);
        }
        let answer = ask(&self.tool)?;
        self.cache.put(&question, &answer);
        Ok(answer)
    }

    fn list(&self, query: &HubQuery<'_>) -> Result<Vec<HubModel>, HubError> {
        let list = self.kept(&query.arguments().join("\n"), &|tool| tool.search(query))?;
        Ok(HubModel::all(&list))
    }

    fn details(&self, repository: &str) -> Result<HubDetails, HubError> {
        let list = self.kept(&format!("files {repository}"), &|tool| tool.files(repository))?;
        let files = files(&list);
        let has_config = files.iter().any(|file| file.path == "config.json");
        let config = if has_config {
            self.kept(&format!("config {repository}"), &|tool| tool.config(repository))?
        } else {
            Value::Null
        };
        Ok(HubDetails { files, config })
    }
}

/// What is known of one repository.
#[derive(Debug, Clone, Default)]
struct HubDetails {
    files: Vec<RepositoryFile>,
    /// Null if it has none.
    config: Value,
}

/// One search.
struct OneSearch<'a> {
    service: &'a ManagedService,
    hub: HubModels,
    request: &'a SearchRequest<'a>,
    asker: HubAsker<'a>,
    memory: Option<Memory>,
}

impl OneSearch<'_> {
    fn run(&self) -> Result<SearchResult, HubError> {
        let Self { request, .. } = self;
        let limit = request.limit();
        let query = HubQuery { words: request.words, filter: self.hub.filter, order: request.order, limit };
        let models: Vec<HubModel> =
            self.asker.list(&query)?.into_iter().filter(|model| self.may_be_shown(model)).collect();
        let (mut rows, mut trouble) = (Vec::new(), None);
        let mut rest = models.as_slice();
        while rows.len() < request.count && !rest.is_empty() {
            // Filters may take all of a batch.
            let wanted =
                if request.is_filtered() { MAX_AT_ONCE } else { MAX_AT_ONCE.min(request.count - rows.len()) };
            let (batch, others) = rest.split_at(wanted.min(rest.len()));
            rest = others;
            let details = match trouble {
                None => parallel::each(batch, |_| false, |model| self.asker.details(&model.name)),
                Some(_) => batch.iter().map(|_| Ok(HubDetails::default())).collect(),
            };
            for (model, details) in batch.iter().zip(details) {
                let details = match details {
                    Ok(details) => details,
                    Err(error @ HubError::Tool(ModelError::Cancelled)) => return Err(error),
                    Err(error) => {
                        let keeps = trouble.is_some() || !says_later(&error);
                        trouble = if keeps { trouble } else { Some(error) };
                        HubDetails::default()
                    }
                };
                rows.extend(self.row(model, &details));
            }
        }
        rows.truncate(request.count);
        Ok(SearchResult { rows, trouble })
    }

    /// Returns whether the service can pull something of the model, as far as the list tells.
    fn may_be_shown(&self, model: &HubModel) -> bool {
        let is_named = |name: &str| self.service.runtime().is_some_and(|runtime| runtime.is_model_name(name));
        let name = (self.hub.name)(&model.name);
        let has_files = |files: &Vec<RepositoryFile>| !(self.hub.choices)(&model.name, files).is_empty();
        is_named(&name) && model.files.as_ref().is_none_or(has_files) && !self.is_too_large(model)
    }

    /// Returns whether the model passes no filter, for a parameter takes at least one bit.
    fn is_too_large(&self, model: &HubModel) -> bool {
        let bytes = model.numbers.parameters(&Value::Null).map(|parameters| parameters / 8);
        let fit = bytes.zip(self.memory).map(|(bytes, memory)| memory.fit(bytes));
        bytes.is_some() && !self.request.accepts(bytes, fit.or(Some(MemoryFit::Fits)))
    }

    /// Returns the first choice that passes the filters.
    fn row(&self, model: &HubModel, details: &HubDetails) -> Option<FoundView> {
        let named = HubChoice {
            name: (self.hub.name)(&model.name),
            quantization: None,
            bytes: None,
            weight_bytes: None,
        };
        let known = if details.files.is_empty() { model.files.as_deref() } else { Some(&*details.files) };
        let choices = known.map_or_else(|| vec![named], |files| (self.hub.choices)(&model.name, files));
        let parameters = model.numbers.parameters(&details.config);
        let judged = choices.into_iter().map(|choice| {
            let fit = self.fit(model, &details.config, parameters, choice.weight_bytes);
            (choice, fit)
        });
        let (choice, fit) =
            judged.into_iter().find(|(choice, fit)| self.request.accepts(choice.bytes, *fit))?;
        let quantization = choice.quantization.or_else(|| quantization_in(&details.config));
        let choice = HubChoice { quantization, ..choice };
        Some(FoundView::of_hub(self.service, model, choice, parameters, fit))
    }

    /// Returns whether the model fits, if its size is known.
    fn fit(
        &self,
        model: &HubModel,
        config: &Value,
        parameters: Option<u64>,
        weight_bytes: Option<u64>,
    ) -> Option<MemoryFit> {
        let length = model.context_length.or_else(|| context_length_in(config));
        let tokens = self.request.context.unwrap_or(MemoryEstimate::CONTEXT_TOKENS);
        Some(judge(self.memory?, weight_bytes?, token_cache(config), parameters, length, tokens))
    }
}

/// Returns whether a model fits with a context of so many tokens. Without its exact cache, it fits if it does with the
/// largest one, and does not if it is too large without any.
fn judge(
    memory: Memory,
    weights: u64,
    cache: Option<TokenCache>,
    parameters: Option<u64>,
    length: Option<u64>,
    tokens: u64,
) -> MemoryFit {
    let needed = |cache| MemoryEstimate::with_context(weights, cache, length, tokens).bytes;
    // No quantization has less than two bits for a parameter.
    let most = || most_for(parameters.unwrap_or(weights.saturating_mul(4)));
    let [least, most] = cache.map_or_else(|| [TokenCache::default(), most()], |cache| [cache, cache]);
    match (memory.fit(needed(least)), memory.fit(needed(most))) {
        (MemoryFit::TooLarge, _) => MemoryFit::TooLarge,
        (_, MemoryFit::Fits) => MemoryFit::Fits,
        _ => MemoryFit::Tight,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;

    #[test]
    fn fits_are_judged_with_the_context() {
        use MemoryFit::{Fits, Tight, TooLarge};
        let memory = Memory { total: 16 * GB, available: 10 * GB, for_models: 12 * GB };
        let known = Some(TokenCache::from(100_000));
        for (weights, cache, length, tokens, expected) in [
            (5 * GB, known, None, 4096, Fits),
            (5 * GB, known, None, 65_536, Tight),
            (5 * GB, known, None, 131_072, TooLarge),
            // The model has no longer context.
            (5 * GB, known, Some(8192), 131_072, Fits),
            (13 * GB, known, None, 1, TooLarge),
            // About 1 MB for each of 8 billion parameters' tokens at most.
            (5 * GB, None, None, 4096, Fits),
            (5 * GB, None, None, 131_072, Tight),
            (13 * GB, None, None, 4096, TooLarge),
            (u64::MAX, None, None, u64::MAX, TooLarge),
        ] {
            let judged = judge(memory, weights, cache, Some(8 * GB), length, tokens);
            assert_eq!(judged, expected, "{weights} {cache:?} {length:?} {tokens}");
        }
        assert_eq!(judge(memory, 5 * GB, None, None, None, 4096), Tight);
    }

    #[test]
    fn unknown_sizes_pass_no_filter() {
        let request = SearchRequest {
            words: "x",
            order: HubOrder::New,
            count: 1,
            fits: true,
            max_size: Some(10),
            context: None,
        };
        let accepts = |bytes, fit| request.accepts(bytes, fit);
        assert!(accepts(Some(10), Some(MemoryFit::Tight)) && accepts(Some(0), Some(MemoryFit::Fits)));
        assert!(!accepts(Some(11), Some(MemoryFit::Fits)) && !accepts(Some(1), Some(MemoryFit::TooLarge)));
        assert!(!accepts(None, Some(MemoryFit::Fits)) && !accepts(Some(1), None));
        let open = SearchRequest { fits: false, max_size: None, ..request };
        assert!(open.accepts(None, None) && open.limit() == 12);
        assert_eq!(SearchRequest { count: MAX_SHOWN, ..open }.limit(), MAX_SHOWN);
    }

    #[test]
    fn all_words_are_in_a_name() {
        assert!(contains_all("mlx-community/Llama-3.2-3B", "LLAMA 3b"));
        assert!(!contains_all("mlx-community/Llama-3.2-3B", "llama qwen"));
    }
}
