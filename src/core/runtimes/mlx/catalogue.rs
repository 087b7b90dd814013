//! MLX's models: the hub's cache on the disk, the hub's own tool that downloads, and chats that load a model.
//!
//! The server's `/v1/models` does not help: it lists incomplete models too, and does not tell which is loaded.

use std::path::{Path, PathBuf};

use super::Mlx;
use crate::core::api::Client;
use crate::core::api::error::ServerError;
use crate::core::api::idle_timeout::IdleTimeout;
use crate::core::files;
use crate::core::models::catalogue::{
    Abilities, Catalogue, Details, Entry, KeepAlive, MemoryEstimate, ModelError, PullStep, Site,
};
use crate::core::models::defect::Defect;
use crate::core::models::directory;
use crate::core::models::hub::download::{self, Download};
use crate::core::models::hub::replacement::Replacement;
use crate::core::models::hub::search::{HubChoice, RepositoryFile, total_bytes};
use crate::core::models::hub::{CachedModel, DiskUse, HubCache, HubCacheError};
use crate::core::runtimes::Runtime as _;

/// The models in the hub's cache.
pub(super) struct MlxCatalogue;

/// The files to download: those that the server loads (`mlx_lm/utils.py`, `DEFAULT_ALLOW_PATTERNS`), and the card with
/// the license. Repositories can have the same weights in other formats too.
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

impl Catalogue for MlxCatalogue {
    fn needs_server(&self) -> bool {
        false
    }

    /// The cache has models for other programs too; a complete one that the server cannot load is not listed.
    fn list(&self, site: &Site<'_>) -> Result<Vec<Entry>, ModelError> {
        let models = cache(site)?.models()?.into_iter().map(Found::cached);
        Ok(models.filter(|found| !found.is_foreign()).map(|found| found.entry(found.name())).collect())
    }

    fn show(&self, site: &Site<'_>, name: &str) -> Result<Details, ModelError> {
        let found = Found::find(site, name)?;
        // Before the weights are read, which changes when they were last used.
        let entry = found.entry(name);
        let defects = found.defects();
        let facts = found.files().map(directory::facts).unwrap_or_default();
        let cache = facts.token_cache.filter(|_| facts.weight_bytes > 0 && defects.is_empty());
        Ok(Details {
            memory: cache
                .map(|cache| MemoryEstimate::estimate(facts.weight_bytes, cache, facts.context_length)),
            path: Some(found.files().unwrap_or(found.directory()).to_owned()),
            architecture: facts.architecture,
            parameters: facts.parameters,
            context_length: facts.context_length,
            load_context: None,
            license: facts.license,
            chat_template: Some(facts.chat_template),
            capabilities: Vec::new(),
            entry: Entry {
                quantization: facts.quantization,
                defects: defects.iter().map(ToString::to_string).collect(),
                ..entry
            },
        })
    }

    /// The server takes text only.
    fn abilities(&self, site: &Site<'_>, name: &str) -> Result<Abilities, ModelError> {
        let found = Found::find(site, name)?;
        Ok(Abilities { chat_template: found.files().map(directory::has_chat_template), vision: Some(false) })
    }

    /// The revision, unless the user has changed a file of it.
    fn identity(&self, site: &Site<'_>, name: &str) -> Option<String> {
        let found = Found::find(site, name).ok()?;
        match &found {
            Found::Cached(_, Ok(snapshot)) if found.changed().is_empty() => {
                snapshot.file_name()?.to_str().map(str::to_owned)
            }
            _ => found.disk_use().identity(name),
        }
    }

    fn check(&self, site: &Site<'_>, name: &str) -> Result<(), ModelError> {
        let found = Found::find(site, name)?;
        let defects = found.defects();
        if defects.is_empty() {
            return Ok(());
        }
        found.refuse_unreadable(name, &defects)?;
        let own = match found {
            Found::Own(directory) => Some(directory),
            Found::Cached(..) => None,
        };
        Err(ModelError::Incomplete { name: name.to_owned(), defects, own })
    }

    fn pull(
        &self,
        site: &Site<'_>,
        name: &str,
        observer: &mut dyn FnMut(PullStep<'_>),
    ) -> Result<(), ModelError> {
        if let Some(path) = site.places.directory(name) {
            let here = path.is_dir();
            return if here { self.check(site, name) } else { Err(ModelError::NoDirectory { path }) };
        }
        let cache = cache(site)?;
        let model = cache.model(name).map_err(name_error)?;
        let download = Download::prepare(site, &cache, &model)?;
        let found = Found::cached(model.clone());
        let defects = found.defects();
        found.refuse_unreadable(name, &defects)?;
        // The hub's tool takes a file that is there for complete.
        let files: Vec<String> =
            defects.iter().filter_map(Defect::too_short_file).map(str::to_owned).collect();
        let outlook = download.plan(&FILES, missing_bytes(&defects), observer)?;
        let replacement = Replacement::begin(&cache, &model, &files)?;
        if outlook.has_files() || !files.is_empty() {
            download.download(&FILES, &outlook, observer)?;
        }
        // The hub does not have what is still missing: a repository can have a model for other programs.
        let defects = Found::cached(model.clone()).defects();
        if !defects.is_empty() {
            return Err(ModelError::Unusable { name: name.to_owned(), title: Mlx.display_name(), defects });
        }
        Ok(replacement.finish()?)
    }

    fn remove(&self, site: &Site<'_>, name: &str) -> Result<Option<u64>, ModelError> {
        match site.places.directory(name) {
            Some(path) if path.is_dir() => return Err(ModelError::OwnDirectory { path }),
            Some(path) => return Err(ModelError::NoDirectory { path }),
            None => {}
        }
        let model = cached(site, name)?;
        Ok(Some(cache(site)?.remove(&model)?))
    }

    /// The server loads the model of a chat request, and unloads the one it had.
    fn load(&self, site: &Site<'_>, name: &str, keep_alive: Option<&KeepAlive>) -> Result<(), ModelError> {
        if keep_alive.is_some() {
            return Err(ModelError::CannotKeepAlive);
        }
        self.check(site, name)?;
        let response = Client::with_idle_timeout(
            site.address()?,
            &IdleTimeout::cancellable(site.load_timeout, site.cancel),
        )
        .one_token(name)?;
        match response.status {
            200 => Ok(()),
            status => Err(ServerError::from_response(status, &response.body).into()),
        }
    }

    fn unload(&self, site: &Site<'_>, name: &str) -> Result<(), ModelError> {
        Found::find(site, name)?;
        Err(ModelError::CannotUnload)
    }
}

fn cache(site: &Site<'_>) -> Result<HubCache, ModelError> {
    let root = site.places.hub_cache.as_ref();
    Ok(HubCache::new(root.ok_or(HubCacheError::NoHome)?))
}

/// Returns the model in the cache, which must be there.
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

/// Returns the size of the replacements of files that are too short.
fn missing_bytes(defects: &[Defect]) -> u64 {
    let sizes = defects.iter().map(|defect| match defect {
        Defect::Truncated { expected, .. } => *expected,
        _ => 0,
    });
    sizes.fold(0, u64::saturating_add)
}

fn is_needed(file: &str) -> bool {
    file != "README.md" && FILES.iter().any(|pattern| download::matches(pattern, file))
}

/// Returns the model of a repository, if it has weights that the server loads. Its `config.json` tells the quantization.
pub(super) fn choices(repository: &str, files: &[RepositoryFile]) -> Vec<HubChoice> {
    let pulled = || files.iter().filter(|file| is_needed(&file.path));
    let weights = || pulled().filter(|file| file.path.ends_with(".safetensors"));
    if weights().next().is_none() {
        return Vec::new();
    }
    let (bytes, weight_bytes) = (total_bytes(pulled()), total_bytes(weights()));
    vec![HubChoice { name: repository.to_owned(), quantization: None, bytes, weight_bytes }]
}

/// A model on the disk.
enum Found {
    /// A directory of the user.
    Own(PathBuf),
    /// A model in the hub's cache, and the directory of its files or why there is none.
    Cached(CachedModel, Result<PathBuf, Defect>),
}

impl Found {
    fn find(site: &Site<'_>, name: &str) -> Result<Self, ModelError> {
        match site.places.directory(name) {
            Some(path) if path.is_dir() => Ok(Self::Own(path)),
            Some(path) => Err(ModelError::NoDirectory { path }),
            None => cached(site, name).map(Self::cached),
        }
    }

    fn cached(model: CachedModel) -> Self {
        let snapshot = model.find_snapshot();
        Self::Cached(model, snapshot)
    }

    /// Returns the model's name, or the path of a directory.
    fn name(&self) -> &str {
        match self {
            Self::Own(path) => path.to_str().unwrap_or_default(),
            Self::Cached(model, _) => &model.name,
        }
    }

    fn directory(&self) -> &Path {
        match self {
            Self::Own(path) => path,
            Self::Cached(model, _) => &model.directory,
        }
    }

    /// Returns the directory of the files that the server would load.
    fn files(&self) -> Option<&Path> {
        match self {
            Self::Own(path) => Some(path),
            Self::Cached(_, snapshot) => snapshot.as_deref().ok(),
        }
    }

    /// Returns the names and sizes of its files, if the hub has told them.
    fn expected_files(&self) -> Vec<(String, u64)> {
        match self {
            Self::Own(_) => Vec::new(),
            Self::Cached(model, _) => model.expected_files().unwrap_or_default(),
        }
    }

    /// Returns the defects that names and sizes of files show.
    fn outward_defects(&self) -> Vec<Defect> {
        match self {
            Self::Cached(_, Err(reason)) => vec![reason.clone()],
            Self::Own(files) | Self::Cached(_, Ok(files)) => {
                directory::defects(files, &self.expected_files(), is_needed)
            }
        }
    }

    /// Fails if a file is there and cannot be read.
    fn refuse_unreadable(&self, name: &str, defects: &[Defect]) -> Result<(), ModelError> {
        if defects.iter().all(Defect::is_pullable) {
            return Ok(());
        }
        let path = self.files().unwrap_or(self.directory()).to_owned();
        Err(ModelError::Unreadable { name: name.to_owned(), path, defects: defects.to_vec() })
    }

    /// Returns everything that prevents loading it.
    fn defects(&self) -> Vec<Defect> {
        let defects = self.outward_defects();
        match self.files() {
            Some(files) if defects.is_empty() => directory::damaged_weights(files),
            _ => defects,
        }
    }

    /// Returns whether it is in the cache for other programs: it has no weights that the server loads, and none are
    /// expected.
    fn is_foreign(&self) -> bool {
        let Self::Cached(model, Ok(snapshot)) = self else { return false };
        let is_weights = |name: &str| name.starts_with("model") && name.contains(".safetensors");
        let is_expected = match model.expected_files() {
            Some(files) => files.iter().any(|(name, _)| is_weights(name)),
            None => model.has_unfinished_files(),
        };
        !is_expected && !files::names(snapshot).iter().any(|name| is_weights(name))
    }

    fn disk_use(&self) -> DiskUse {
        match self {
            Self::Own(path) => DiskUse::of_files_in(path),
            Self::Cached(model, _) => model.disk_use(),
        }
    }

    /// Returns the files that the user has changed since the download.
    fn changed(&self) -> Vec<String> {
        let changed = |files| directory::changed_files(files, &self.expected_files(), is_needed);
        self.files().map(changed).unwrap_or_default()
    }

    fn entry(&self, name: &str) -> Entry {
        let disk = self.disk_use();
        Entry {
            name: name.to_owned(),
            size_bytes: Some(disk.bytes),
            format: Some("safetensors".to_owned()),
            quantization: self.files().and_then(directory::quantization),
            modified: disk.modified.map(Into::into),
            last_used: disk.accessed.map(Into::into),
            loaded: None,
            remote: false,
            changed: self.changed(),
            defects: self.outward_defects().iter().map(ToString::to_string).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::core::cancel::CancelToken;
    use crate::core::models::ModelPlaces;
    use crate::core::sorted_map::SortedMap;

    fn identity(root: &Path, name: &str) -> Option<String> {
        let places = ModelPlaces { hub_cache: Some(root.to_owned()), ..ModelPlaces::default() };
        let site = Site {
            address: None,
            places,
            find_tool: Box::new(|_| None),
            log: Box::new(String::new),
            env: &SortedMap::default(),
            load_timeout: Duration::ZERO,
            cancel: &CancelToken::new(),
        };
        MlxCatalogue.identity(&site, name)
    }

    #[test]
    fn a_cached_model_is_known_by_its_revision() {
        let root = tempfile::tempdir().unwrap();
        let model = root.path().join("models--org--tiny");
        for commit in ["c0ffee", "decade"] {
            fs::create_dir_all(model.join("snapshots").join(commit)).unwrap();
            fs::write(model.join("snapshots").join(commit).join("config.json"), "{}").unwrap();
        }
        for directory in ["refs", "trees"] {
            fs::create_dir(model.join(directory)).unwrap();
        }
        let checked_out = |commit: &str| fs::write(model.join("refs/main"), commit).unwrap();
        checked_out("c0ffee");
        assert_eq!(identity(root.path(), "org/tiny").as_deref(), Some("c0ffee"));
        checked_out("decade");
        assert_eq!(identity(root.path(), "org/tiny").as_deref(), Some("decade"));
        fs::write(model.join("trees/decade.json"), r#"{"files":{"config.json":{"size":1}}}"#).unwrap();
        let changed = identity(root.path(), "org/tiny").unwrap();
        assert!(changed.starts_with("org/tiny 4 "), "{changed}");
        assert_eq!(identity(root.path(), "org/other"), None);
    }

    #[test]
    fn a_directory_is_known_by_size_and_time() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("config.json");
        let name = root.path().to_str().unwrap();
        fs::write(&file, "{}").unwrap();
        let before = identity(root.path(), name);
        assert!(
            before.as_ref().is_some_and(|before| before.starts_with(&format!("{name} 2 "))),
            "{before:?}"
        );
        assert_eq!(identity(root.path(), name), before);
        fs::File::options().write(true).open(&file).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_ne!(identity(root.path(), name), before);
    }
}
