//! llama.cpp's models: files on the disk, the hub's own tool to download them, and the router to have them loaded.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;

use super::files::{self, GgufModel, ModelPlace};
use super::{Llama, MODELS_PATH, listed};
use crate::core::api::error::ServerError;
use crate::core::api::idle_timeout::IdleTimeout;
use crate::core::api::{Client, Response};
use crate::core::models::ModelPlaces;
use crate::core::models::catalogue::{
    Abilities, Catalogue, Details, Entry, KeepAlive, MemoryEstimate, ModelError, PullStep, Site,
};
use crate::core::models::defect::{Defect, file_length};
use crate::core::models::gguf::Header;
use crate::core::models::gguf::names::{self, DEFAULT_QUANTIZATION};
use crate::core::models::hub::download::Download;
use crate::core::models::hub::replacement::Replacement;
use crate::core::models::hub::{CachedModel, DiskUse, HubCache, HubCacheError, blob_name};
use crate::core::order;
use crate::core::runtimes::Runtime as _;

/// The models of a llama.cpp server.
pub(super) struct LlamaCatalogue;

/// How long the server may take to answer what it can answer at once.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a model may take to be unloaded while it answers. The router kills its process after 10 s by default: it may
/// wait for a client that is gone, which the router does not notice while the process sends nothing.
const UNLOAD_TIMEOUT: Duration = Duration::from_secs(15);

/// How often the router is asked what has become of a model.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

impl Catalogue for LlamaCatalogue {
    fn needs_server(&self) -> bool {
        false
    }

    fn restarts_to_load(&self) -> bool {
        false
    }

    fn list(&self, site: &Site<'_>) -> Result<Vec<Entry>, ModelError> {
        let mut models = match &site.places.models_dir {
            Some(directory) => files::in_directory(directory).map_err(|source| {
                ModelError::Cache(HubCacheError::Io { what: "read", path: directory.clone(), source })
            })?,
            None => Vec::new(),
        };
        if let Some(cache) = &site.places.hub_cache {
            models.extend(files::in_cache(&HubCache::new(cache))?);
        }
        Ok(models.iter().map(entry).collect())
    }

    fn show(&self, site: &Site<'_>, name: &str) -> Result<Details, ModelError> {
        let model = find(&site.places, name)?;
        let entry = entry(&model);
        let defects = defects(&model);
        let header = Header::read(model.first_file()).unwrap_or_default();
        let others = model.files.iter().skip(1).filter_map(|file| Header::read(file).ok());
        let parameters = others.fold(header.parameters, |sum, part| sum.saturating_add(part.parameters));
        let weight_bytes =
            model.all_files().filter_map(|file| std::fs::metadata(file).ok()).map(|file| file.len());
        let weight_bytes = weight_bytes.fold(0, u64::saturating_add);
        let memory = header.bytes_per_token().filter(|_| defects.is_empty());
        let mut capabilities = if defects.is_empty() { header.capabilities() } else { Vec::new() };
        if model.projector.is_some() && !capabilities.is_empty() {
            capabilities.push("vision".to_owned());
        }
        Ok(Details {
            memory: memory
                .map(|per_token| MemoryEstimate::estimate(weight_bytes, per_token, header.context_length())),
            path: Some(model.first_file().to_owned()),
            architecture: header.architecture().map(str::to_owned),
            parameters: Some(parameters).filter(|count| *count > 0),
            context_length: header.context_length(),
            load_context: None,
            license: header.license().map(str::to_owned),
            chat_template: header.architecture().map(|_| header.chat_template().is_some()),
            capabilities,
            entry: Entry {
                quantization: header.quantization().map(str::to_owned).or(entry.quantization.clone()),
                defects: defects.iter().map(ToString::to_string).collect(),
                ..entry
            },
        })
    }

    fn abilities(&self, site: &Site<'_>, name: &str) -> Result<Abilities, ModelError> {
        let model = find(&site.places, name)?;
        let header = Header::read(model.first_file()).ok();
        Ok(Abilities {
            chat_template: header.map(|header| header.chat_template().is_some()),
            vision: Some(model.projector.is_some()),
        })
    }

    /// The hashes of its files, which the hub's cache knows.
    fn identity(&self, site: &Site<'_>, name: &str) -> Option<String> {
        let model = find(&site.places, name).ok()?;
        let is_cached = matches!(model.place, ModelPlace::Cache(_));
        let hash = |file: &PathBuf| blob_name(file)?.into_string().ok().filter(|_| is_cached);
        let hashes: Option<Vec<String>> = model.files.iter().map(hash).collect();
        let disk_use = || DiskUse::of(&model.files).identity(name);
        hashes.map(|hashes| hashes.join(" ")).or_else(disk_use)
    }

    fn check(&self, site: &Site<'_>, name: &str) -> Result<(), ModelError> {
        let model = find(&site.places, name)?;
        let defects = defects(&model);
        if defects.is_empty() {
            return Ok(());
        }
        refuse_unreadable(name, &model, &defects)?;
        Err(ModelError::Incomplete {
            name: name.to_owned(),
            defects,
            own: (model.place == ModelPlace::Own).then(|| model.first_file().to_owned()),
        })
    }

    fn pull(
        &self,
        site: &Site<'_>,
        name: &str,
        observer: &mut dyn FnMut(PullStep<'_>),
    ) -> Result<(), ModelError> {
        if files::as_path(&site.places, name).is_some() {
            return self.check(site, name);
        }
        let found = files::find(&site.places, name)?;
        if found.is_some_and(|model| model.place == ModelPlace::Own) {
            return self.check(site, name);
        }
        let invalid = || ModelError::InvalidName { name: name.to_owned() };
        let (repository, tag) = files::repository(name).ok_or_else(invalid)?;
        let cache = cache(&site.places)?;
        let model = cache.model(repository)?;
        let download = Download::prepare(site, &cache, &model)?;
        let wanted = choose(name, &download.list("*.gguf")?, tag)?;
        // The hub's tool takes a file that is there for complete.
        let pulled = format!("{repository}:{}", wanted.tag);
        let damaged = match files::find(&site.places, &pulled)? {
            Some(here) => too_short_files(&pulled, &model, &here)?,
            None => Vec::new(),
        };
        let patterns: Vec<&str> = wanted.files.iter().map(String::as_str).collect();
        let outlook = download.plan(&patterns, 0, observer)?;
        let replacement = Replacement::begin(&cache, &model, &damaged)?;
        if outlook.has_files() || !damaged.is_empty() {
            download.download(&patterns, &outlook, observer)?;
        }
        let defects = find(&site.places, &pulled).map(|model| defects(&model))?;
        if !defects.is_empty() {
            return Err(ModelError::Unusable { name: name.to_owned(), title: Llama.display_name(), defects });
        }
        replacement.finish()?;
        // A router that runs sees the new model only when it looks again.
        let _ = client(site).map(|client| client.get(MODELS_PATH));
        Ok(())
    }

    fn remove(&self, site: &Site<'_>, name: &str) -> Result<Option<u64>, ModelError> {
        let model = find(&site.places, name)?;
        let ModelPlace::Cache(cached) = &model.place else {
            return Err(ModelError::OwnFile { path: model.first_file().to_owned() });
        };
        let cache = cache(&site.places)?;
        let is_last = files::in_repository(cached).len() == 1;
        // The projector belongs to every quantization.
        let projector = model.projector.as_ref().filter(|_| is_last);
        let removed: Vec<_> = model.files.iter().chain(projector).cloned().collect();
        Ok(Some(cache.remove_files(cached, &removed)?))
    }

    fn load(&self, site: &Site<'_>, name: &str, keep_alive: Option<&KeepAlive>) -> Result<(), ModelError> {
        if keep_alive.is_some() {
            return Err(ModelError::CannotKeepAlive);
        }
        let name = served_name(&site.places, name);
        let client = client(site)?;
        if !is_router(&client)? {
            return only_this(&client, &name);
        }
        let mut response = client.post("/models/load", &json!({ "model": name }))?;
        if response.status == 404 {
            // It may have come after the router looked.
            client.get(MODELS_PATH)?;
            response = client.post("/models/load", &json!({ "model": name }))?;
        }
        match response.status {
            200..300 => {}
            404 => return Err(not_served(&site.places, &client, name)?),
            _ if status_of(&client, &name)?.is_some_and(LoadState::is_settling) => {}
            _ => return Err(refusal(&response)),
        }
        let deadline = Instant::now() + site.load_timeout;
        loop {
            match status_of(&client, &name)? {
                Some(LoadState::Loaded) => return Ok(()),
                Some(LoadState::Failed) => {
                    let body = json!({ "error": { "message": format!("{name} failed to load") } });
                    return Err(ServerError::from_response(500, body.to_string().as_bytes()).into());
                }
                None => return Err(ModelError::NotHere { name }),
                Some(_) if Instant::now() >= deadline => return Err(ModelError::LoadTimedOut { name }),
                Some(_) => pause(site)?,
            }
        }
    }

    fn unload(&self, site: &Site<'_>, name: &str) -> Result<(), ModelError> {
        let name = served_name(&site.places, name);
        let client = client(site)?;
        if !is_router(&client)? {
            return Err(ModelError::CannotUnload);
        }
        let response = client.post("/models/unload", &json!({ "model": name }))?;
        match (response.status, status_of(&client, &name)?) {
            (404, _) | (_, None) => return Err(ModelError::NotHere { name }),
            (400, Some(LoadState::Unloaded | LoadState::Failed)) | (200..300, _) => {}
            _ => return Err(refusal(&response)),
        }
        let deadline = Instant::now() + UNLOAD_TIMEOUT;
        while matches!(status_of(&client, &name)?, Some(LoadState::Loaded | LoadState::Loading)) {
            if Instant::now() >= deadline {
                return Err(ModelError::UnloadTimedOut { name });
            }
            pause(site)?;
        }
        Ok(())
    }
}

/// What the router says of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LoadState {
    Unloaded,
    Loading,
    Loaded,
    Failed,
}

impl LoadState {
    /// Whether it is loaded, or is about to be.
    fn is_settling(self) -> bool {
        matches!(self, Self::Loading | Self::Loaded)
    }
}

fn status_of(client: &Client, name: &str) -> Result<Option<LoadState>, ModelError> {
    let json = client.get("/v1/models")?.json();
    let model = listed(&json).into_iter().find(|model| model["id"] == name).map(|model| &model["status"]);
    Ok(model.map(|status| match status["value"].as_str() {
        Some("loaded" | "sleeping") => LoadState::Loaded,
        Some("unloaded") if status["failed"] == true => LoadState::Failed,
        Some("unloaded") => LoadState::Unloaded,
        _ => LoadState::Loading,
    }))
}

fn is_router(client: &Client) -> Result<bool, ModelError> {
    let response = client.get("/props")?;
    if response.status == 200 { Ok(response.json()["role"] == "router") } else { Err(refusal(&response)) }
}

/// Returns why the router does not know a model: it is not on this machine, or where the router does not look.
fn not_served(places: &ModelPlaces, client: &Client, name: String) -> Result<ModelError, ModelError> {
    find(places, &name)?;
    let json = client.get(MODELS_PATH)?.json();
    let served = listed(&json).into_iter().filter_map(|model| model["id"].as_str()).map(str::to_owned);
    Ok(ModelError::NotServed { name, served: served.collect() })
}

/// Fails unless the server of one model has this one.
fn only_this(client: &Client, name: &str) -> Result<(), ModelError> {
    let json = client.get("/v1/models")?.json();
    let model = listed(&json).first().copied().cloned().unwrap_or_default();
    let is_alias =
        model["aliases"].as_array().is_some_and(|aliases| aliases.iter().any(|alias| alias == name));
    if model["id"] == name || is_alias {
        return Ok(());
    }
    let served = model["id"].as_str().map(str::to_owned).into_iter().collect();
    Err(ModelError::NotServed { name: name.to_owned(), served })
}

fn refusal(response: &Response) -> ModelError {
    ServerError::from_response(response.status, &response.body).into()
}

fn pause(site: &Site<'_>) -> Result<(), ModelError> {
    if site.cancel.is_cancelled() {
        return Err(ModelError::Cancelled);
    }
    std::thread::sleep(POLL_INTERVAL);
    Ok(())
}

/// The router lists each model with all of its options.
fn client(site: &Site<'_>) -> Result<Client, ModelError> {
    let idle_timeout = IdleTimeout::cancellable(RESPONSE_TIMEOUT, site.cancel);
    Ok(Client::with_idle_timeout(site.address()?, &idle_timeout).with_long_responses())
}

/// Returns the name under which the server knows a model; one that was downloaded just now has its quantization.
fn served_name(places: &ModelPlaces, name: &str) -> String {
    find(places, name).map_or_else(|_| name.to_owned(), |model| model.name)
}

fn cache(places: &ModelPlaces) -> Result<HubCache, ModelError> {
    Ok(HubCache::new(places.hub_cache.as_ref().ok_or(HubCacheError::NoHome)?))
}

fn find(places: &ModelPlaces, name: &str) -> Result<GgufModel, ModelError> {
    if let Some(found) = files::find(places, name)? {
        return Ok(found);
    }
    Err(match files::as_path(places, name) {
        Some(path) => ModelError::NoFile { path },
        None => ModelError::NotHere { name: name.to_owned() },
    })
}

fn entry(model: &GgufModel) -> Entry {
    let disk = DiskUse::of(&model.all_files().cloned().collect::<Vec<_>>());
    let missing = model.files.iter().filter_map(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        file_length(file.parent()?, &name).err()
    });
    Entry {
        name: model.name.clone(),
        size_bytes: Some(disk.bytes),
        format: Some("gguf".to_owned()),
        quantization: model.tag(),
        modified: disk.modified.map(Into::into),
        last_used: disk.accessed.map(Into::into),
        loaded: None,
        remote: false,
        changed: Vec::new(),
        defects: missing.map(|defect| defect.to_string()).collect(),
    }
}

/// Returns what keeps the model from being loaded, by the headers of its files.
fn defects(model: &GgufModel) -> Vec<Defect> {
    model.all_files().filter_map(|file| Header::read(file).err()).collect()
}

/// Fails when files are there and cannot be used, which no download changes.
fn refuse_unreadable(name: &str, model: &GgufModel, defects: &[Defect]) -> Result<(), ModelError> {
    if defects.iter().all(Defect::is_pullable) {
        return Ok(());
    }
    let path = model.first_file().to_owned();
    Err(ModelError::Unreadable { name: name.to_owned(), path, defects: defects.to_vec() })
}

/// Returns the files that a download has to replace, by their names in the repository.
fn too_short_files(name: &str, cached: &CachedModel, model: &GgufModel) -> Result<Vec<String>, ModelError> {
    let found = defects(model);
    refuse_unreadable(name, model, &found)?;
    let is_damaged = |file: &&PathBuf| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        found.iter().any(|defect| defect.too_short_file() == Some(&*name))
    };
    let snapshot = cached.snapshot().unwrap_or_default();
    let relative = |file: &PathBuf| Some(file.strip_prefix(&snapshot).ok()?.to_string_lossy().into_owned());
    Ok(model.all_files().filter(is_damaged).filter_map(relative).collect())
}

/// What a download covers.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    tag: String,
    files: Vec<String>,
}

/// Chooses the files of one quantization, and the projector: the one that is asked for, else the usual one, else the
/// only one.
fn choose(name: &str, listed: &[String], asked: Option<&str>) -> Result<Wanted, ModelError> {
    let file_name = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    let mut tags: Vec<String> = Vec::new();
    for tag in listed.iter().map(|path| file_name(path)).filter(|file| !names::is_projector(file)) {
        tags.extend(names::tag(&tag).filter(|tag| !tags.contains(tag)));
    }
    order::sort(&mut tags);
    let asked = asked.map(str::to_uppercase);
    let usual = || tags.iter().find(|tag| *tag == DEFAULT_QUANTIZATION);
    let only = || tags.first().filter(|_| tags.len() == 1);
    let tag = match &asked {
        Some(asked) => tags.iter().find(|tag| *tag == asked),
        None => usual().or_else(only),
    };
    let Some(tag) = tag.cloned() else {
        let name = name.to_owned();
        return Err(if tags.is_empty() {
            let defects = vec![Defect::Missing { file: "*.gguf".to_owned() }];
            ModelError::Unusable { name, title: Llama.display_name(), defects }
        } else {
            ModelError::NoQuantization { name, asked, available: tags }
        });
    };
    let projector = names::best_projector(listed.iter().map(|path| file_name(path)).collect());
    let is_wanted = |path: &&String| {
        let file = file_name(path);
        if names::is_projector(&file) {
            projector.as_ref() == Some(&file)
        } else {
            names::tag(&file).as_ref() == Some(&tag)
        }
    };
    Ok(Wanted { files: listed.iter().filter(is_wanted).cloned().collect(), tag })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::core::cancel::CancelToken;
    use crate::core::sorted_map::SortedMap;

    fn identity(places: &ModelPlaces, name: &str) -> Option<String> {
        let site = Site {
            address: None,
            places: places.clone(),
            find_tool: Box::new(|_| None),
            log: Box::new(String::new),
            env: &SortedMap::default(),
            load_timeout: Duration::ZERO,
            cancel: &CancelToken::new(),
        };
        LlamaCatalogue.identity(&site, name)
    }

    #[test]
    fn a_cached_model_is_known_by_its_hashes() {
        let root = tempfile::tempdir().unwrap();
        let (model, commit) = (root.path().join("models--org--x"), "c".repeat(40));
        let snapshot = model.join("snapshots").join(&commit);
        for directory in [&snapshot, &model.join("refs"), &model.join("blobs")] {
            fs::create_dir_all(directory).unwrap();
        }
        fs::write(model.join("refs/main"), &commit).unwrap();
        for (file, blob) in [("x-Q8_0-00001-of-00002.gguf", "aa"), ("x-Q8_0-00002-of-00002.gguf", "bb")] {
            fs::write(model.join("blobs").join(blob), blob).unwrap();
            std::os::unix::fs::symlink(format!("../../blobs/{blob}"), snapshot.join(file)).unwrap();
        }
        let places = ModelPlaces { hub_cache: Some(root.path().to_owned()), ..ModelPlaces::default() };
        assert_eq!(identity(&places, "org/x:Q8_0").as_deref(), Some("aa bb"));
        assert_eq!(identity(&places, "org/y:Q8_0"), None);
    }

    #[test]
    fn a_file_is_known_by_size_and_time() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("weights"), "four").unwrap();
        // The name to which it links says nothing of the content.
        std::os::unix::fs::symlink("weights", root.path().join("own.gguf")).unwrap();
        let places = ModelPlaces { models_dir: Some(root.path().to_owned()), ..ModelPlaces::default() };
        let before = identity(&places, "own");
        assert!(before.as_ref().is_some_and(|before| before.starts_with("own 4 ")), "{before:?}");
        fs::write(root.path().join("weights"), "other").unwrap();
        assert!(identity(&places, "own").is_some_and(|after| after.starts_with("own 5 ")));
    }

    fn chosen(listed: &[&str], asked: Option<&str>) -> Result<Wanted, String> {
        let listed: Vec<String> = listed.iter().map(ToString::to_string).collect();
        choose("org/x", &listed, asked).map_err(|error| error.to_string())
    }

    const LISTED: [&str; 6] = [
        "BF16/x-BF16-00001-of-00002.gguf",
        "BF16/x-BF16-00002-of-00002.gguf",
        "mmproj-x-BF16.gguf",
        "mmproj-x-F16.gguf",
        "x-Q4_K_M.gguf",
        "x-q8_0.gguf",
    ];

    #[test]
    fn one_quantization_is_chosen_with_its_projector() {
        let wanted = |tag: &str, files: &[&str]| {
            Ok(Wanted { tag: tag.to_owned(), files: files.iter().map(ToString::to_string).collect() })
        };
        assert_eq!(chosen(&LISTED, None), wanted("Q4_K_M", &["mmproj-x-F16.gguf", "x-Q4_K_M.gguf"]));
        assert_eq!(chosen(&LISTED, Some("q8_0")), wanted("Q8_0", &["mmproj-x-F16.gguf", "x-q8_0.gguf"]));
        let split =
            ["BF16/x-BF16-00001-of-00002.gguf", "BF16/x-BF16-00002-of-00002.gguf", "mmproj-x-F16.gguf"];
        assert_eq!(chosen(&LISTED, Some("BF16")), wanted("BF16", &split));
        assert_eq!(chosen(&["only-F32.gguf"], None), wanted("F32", &["only-F32.gguf"]));
    }

    #[test]
    fn a_missing_quantization_lists_what_there_is() {
        assert_eq!(
            chosen(&LISTED, Some("Q2_K")),
            Err("org/x has no quantization Q2_K; it has BF16, Q4_K_M, Q8_0".to_owned())
        );
        assert_eq!(
            chosen(&["x-Q5_0.gguf", "x-Q6_K.gguf"], None),
            Err("org/x has no quantization Q4_K_M; it has Q5_0, Q6_K".to_owned())
        );
        assert_eq!(
            chosen(&[], None),
            Err("org/x is not a model for llama.cpp: *.gguf is missing".to_owned())
        );
    }
}
