//! MLX's models: the hub's cache on the disk, the hub's own tool to fill it, and chats to have one loaded. The
//! server's `/v1/models` is of no use: it lists incomplete models, too, and does not tell what is loaded.

use std::path::Path;

use serde_json::json;

use crate::core::api::Client;
use crate::core::models::catalogue::{Catalogue, Details, Entry, KeepAlive, Memory, ModelError, Site, Step};
use crate::core::models::directory::{self, Defect};
use crate::core::models::hub_cache::{CachedModel, HubCache, HubCacheError};
use crate::core::models::hub_download::{self, Download};

/// The models in the hub's cache.
pub(super) struct Models;

/// What a download fetches: what the server loads (`mlx_lm/utils.py`, `DEFAULT_ALLOW_PATTERNS`), and the card with the
/// licence. Repositories may hold the same weights in other formats, too.
const FILES: [&str; 10] = [
    "*.json",
    "model*.safetensors",
    "*.py",
    "tokenizer.model",
    "*.tiktoken",
    "tiktoken.model",
    "*.txt",
    "*.jsonl",
    "*.jinja",
    "README.md",
];

impl Catalogue for Models {
    fn needs_server(&self) -> bool {
        false
    }

    /// A cache holds models for other programs, too; of those that are whole, only such as the server could load are
    /// listed.
    fn list(&self, site: &Site<'_>) -> Result<Vec<Entry>, ModelError> {
        let models = cache(site)?.models()?;
        let entries = models.iter().filter_map(|model| {
            let snapshot = model.snapshot();
            let defects = snapshot.as_deref().map(|snapshot| defects(model, snapshot));
            let foreign = snapshot.as_deref().is_some_and(|snapshot| is_foreign(model, snapshot));
            (!foreign).then(|| entry(model, snapshot.as_deref(), &defects.unwrap_or_else(not_begun)))
        });
        Ok(entries.collect())
    }

    fn show(&self, site: &Site<'_>, name: &str) -> Result<Details, ModelError> {
        let (path, entry) = match site.places.directory(name) {
            Some(path) if !path.is_dir() => return Err(ModelError::NoDirectory { path }),
            Some(path) => {
                let entry = own_entry(name, &path);
                (path, entry)
            }
            None => {
                let model = cached(site, name)?;
                let snapshot = model.snapshot();
                let defects =
                    snapshot.as_deref().map_or_else(not_begun, |snapshot| defects(&model, snapshot));
                let entry = entry(&model, snapshot.as_deref(), &defects);
                (snapshot.unwrap_or(model.directory), entry)
            }
        };
        let facts = directory::facts(&path);
        let per_token = facts.bytes_per_token.filter(|_| facts.weight_bytes > 0);
        Ok(Details {
            memory: per_token
                .map(|per_token| Memory::estimate(facts.weight_bytes, per_token, facts.context_length)),
            path: Some(path),
            architecture: facts.architecture,
            parameters: facts.parameters,
            context_length: facts.context_length,
            license: facts.license,
            chat_template: Some(facts.chat_template),
            capabilities: Vec::new(),
            entry: Entry { quantization: facts.quantization, ..entry },
        })
    }

    fn check(&self, site: &Site<'_>, name: &str) -> Result<(), ModelError> {
        let own = site.places.directory(name);
        let is_directory = own.is_some();
        let defects = match own {
            Some(path) if !path.is_dir() => return Err(ModelError::NoDirectory { path }),
            Some(path) => directory::defects(&path, &[], is_needed),
            None => {
                let model = cached(site, name)?;
                model.snapshot().map_or_else(not_begun, |snapshot| defects(&model, &snapshot))
            }
        };
        if defects.is_empty() {
            return Ok(());
        }
        Err(ModelError::Incomplete { name: name.to_owned(), defects, is_directory })
    }

    fn pull(
        &self,
        site: &Site<'_>,
        name: &str,
        observer: &mut dyn FnMut(Step<'_>),
    ) -> Result<(), ModelError> {
        if let Some(path) = site.places.directory(name) {
            let here = path.is_dir();
            return if here { self.check(site, name) } else { Err(ModelError::NoDirectory { path }) };
        }
        let cache = cache(site)?;
        let model = cache.model(name).map_err(name_error)?;
        let download = Download::prepare(site, &cache, &model)?;
        download.run(&FILES, observer)?;
        match self.check(site, name) {
            // An older tool takes only the last of several patterns.
            Err(ModelError::Incomplete { .. } | ModelError::NotHere { .. }) => {
                download.run(&[], observer)?;
                self.check(site, name)
            }
            result => result,
        }
    }

    fn remove(&self, site: &Site<'_>, name: &str) -> Result<Option<u64>, ModelError> {
        if let Some(path) = site.places.directory(name) {
            return Err(ModelError::OwnDirectory { path });
        }
        let model = cached(site, name)?;
        Ok(Some(cache(site)?.remove(&model)?))
    }

    /// The server loads what a chat asks for, and lets go of what it had.
    fn load(&self, site: &Site<'_>, name: &str, keep_alive: Option<&KeepAlive>) -> Result<(), ModelError> {
        if keep_alive.is_some() {
            let cannot = "keeps its model until another is loaded or it is stopped, so --keep-alive means nothing to it";
            return Err(ModelError::Unsupported { runtime: "MLX", cannot });
        }
        self.check(site, name)?;
        let body =
            json!({ "model": name, "max_tokens": 1, "messages": [{ "role": "user", "content": "Hi" }] });
        let reply =
            Client::with_limit(site.address, site.load_timeout).post("/v1/chat/completions", &body)?;
        if reply.status == 200 {
            return Ok(());
        }
        let json = serde_json::from_slice::<serde_json::Value>(&reply.body).unwrap_or_default();
        let said = json["error"].as_str().map(str::to_owned);
        let said = said.unwrap_or_else(|| String::from_utf8_lossy(&reply.body).trim().to_owned());
        Err(ModelError::Server { status: reply.status, said })
    }

    fn unload(&self, _site: &Site<'_>, _name: &str) -> Result<(), ModelError> {
        let cannot = "cannot let go of its model while it runs";
        Err(ModelError::Unsupported { runtime: "MLX", cannot })
    }
}

fn cache(site: &Site<'_>) -> Result<HubCache, ModelError> {
    let root = site.places.hub_cache.as_ref();
    Ok(HubCache::new(root.ok_or(HubCacheError::NoHome)?))
}

/// The model in the cache, which must be there.
fn cached(site: &Site<'_>, name: &str) -> Result<CachedModel, ModelError> {
    let model = cache(site)?.model(name).map_err(name_error)?;
    if model.directory.symlink_metadata().is_ok() {
        Ok(model)
    } else {
        Err(ModelError::NotHere { name: name.to_owned() })
    }
}

fn name_error(error: HubCacheError) -> ModelError {
    match error {
        HubCacheError::InvalidName { name } => ModelError::InvalidName { name },
        error => error.into(),
    }
}

fn is_needed(file: &str) -> bool {
    file != "README.md" && FILES.iter().any(|pattern| hub_download::matches(pattern, file))
}

fn defects(model: &CachedModel, snapshot: &Path) -> Vec<Defect> {
    directory::defects(snapshot, &model.expected_files().unwrap_or_default(), is_needed)
}

/// Of a model of which not even the list of files has come.
fn not_begun() -> Vec<Defect> {
    vec![Defect::NoWeights]
}

/// A model for another kind of program: neither are there weights that the server loads, nor does anything say that
/// they are still to come.
fn is_foreign(model: &CachedModel, snapshot: &Path) -> bool {
    let is_weights = |name: &str| name.starts_with("model") && name.contains(".safetensors");
    let files = std::fs::read_dir(snapshot).into_iter().flatten().flatten();
    let is_here = files.filter_map(|file| file.file_name().into_string().ok()).any(|name| is_weights(&name));
    let is_to_come = match model.expected_files() {
        Some(files) => files.iter().any(|(name, _)| is_weights(name)),
        None => model.has_unfinished_files(),
    };
    !is_here && !is_to_come
}

fn entry(model: &CachedModel, snapshot: Option<&Path>, defects: &[Defect]) -> Entry {
    let disk = model.disk_use();
    Entry {
        name: model.name.clone(),
        size_bytes: Some(disk.bytes),
        format: Some("safetensors".to_owned()),
        quantization: snapshot.and_then(directory::quantization),
        modified: disk.modified.map(Into::into),
        last_used: disk.accessed.map(Into::into),
        loaded: None,
        defects: defects.iter().map(ToString::to_string).collect(),
    }
}

/// Of a directory of the user's.
fn own_entry(name: &str, path: &Path) -> Entry {
    let files: Vec<_> = std::fs::read_dir(path).into_iter().flatten().flatten().collect();
    let facts = files
        .iter()
        .filter_map(|file| std::fs::metadata(file.path()).ok())
        .filter(std::fs::Metadata::is_file);
    let facts: Vec<_> = facts.collect();
    Entry {
        name: name.to_owned(),
        size_bytes: Some(facts.iter().map(std::fs::Metadata::len).sum()),
        format: Some("safetensors".to_owned()),
        quantization: directory::quantization(path),
        modified: facts.iter().filter_map(|file| file.modified().ok()).max().map(Into::into),
        last_used: facts.iter().filter_map(|file| file.accessed().ok()).max().map(Into::into),
        loaded: None,
        defects: directory::defects(path, &[], is_needed).iter().map(ToString::to_string).collect(),
    }
}
