//! GGUF models on the disk, by the names that the server has for them.
//!
//! In a directory: a file without its ending, or a directory of one model with its parts and its projector. In the
//! hub's cache: `ORG/REPO:QUANTIZATION`. Anything else: the path of a file.

use std::io;
use std::path::{Path, PathBuf};

use crate::core::files;
use crate::core::models::ModelPlaces;
use crate::core::models::gguf::names::{
    DEFAULT_QUANTIZATION, SplitPart, best_projector, is_gguf, is_projector, is_quantization, part, tag,
};
use crate::core::models::hub::{CachedModel, HubCache, HubCacheError};
use crate::core::order;

/// A model: one or more files, of which the server is told the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GgufModel {
    /// Its name, as the server has it.
    pub(super) name: String,
    /// Its parts in order; more than one if it was split.
    pub(super) files: Vec<PathBuf>,
    /// What makes the model see or hear.
    pub(super) projector: Option<PathBuf>,
    pub(super) place: ModelPlace,
}

/// Where a model lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ModelPlace {
    /// In a directory of the user's.
    Own,
    /// In the hub's cache.
    Cache(CachedModel),
}

impl GgufModel {
    /// Returns the file that the server is told of.
    pub(super) fn first_file(&self) -> &Path {
        &self.files[0]
    }

    /// Returns every file that belongs to it.
    pub(super) fn all_files(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.iter().chain(&self.projector)
    }

    /// Returns whether no part is missing, or a link to nothing.
    pub(super) fn is_here(&self) -> bool {
        self.files.iter().all(|file| file.exists())
    }

    /// Returns the quantization as its name says.
    pub(super) fn tag(&self) -> Option<String> {
        tag(&file_name(self.first_file())).filter(|tag| is_quantization(tag))
    }
}

/// Returns the model that `name` means; `None` when there is none.
pub(super) fn find(places: &ModelPlaces, name: &str) -> Result<Option<GgufModel>, HubCacheError> {
    if let Some(path) = as_path(places, name) {
        return Ok(at_path(places, &path));
    }
    if let Some(directory) = &places.models_dir
        && let Some(found) = named(directory, name.strip_suffix(".gguf").unwrap_or(name))
    {
        return Ok(Some(found));
    }
    let (Some(cache), Some((repository, wanted))) = (&places.hub_cache, repository(name)) else {
        return Ok(None);
    };
    let models = in_repository(&HubCache::new(cache).model(repository)?);
    let has = |wanted: &str| models.iter().position(|model| quantization_of(&model.name) == wanted);
    let index = match wanted {
        Some(wanted) => has(&wanted.to_uppercase()),
        None => has(DEFAULT_QUANTIZATION).or(if models.is_empty() { None } else { Some(0) }),
    };
    Ok(index.and_then(|index| models.into_iter().nth(index)))
}

/// Returns how a model that is not here is named: a path is absolute, a quantization in capital letters.
pub(super) fn plain_name(places: &ModelPlaces, name: &str) -> String {
    match (as_path(places, name), repository(name)) {
        (Some(path), _) => path.to_string_lossy().into_owned(),
        (None, Some((repository, Some(tag)))) => format!("{repository}:{}", tag.to_uppercase()),
        (None, _) => name.to_owned(),
    }
}

/// Returns the path that `name` is, absolute; `None` when it is the name of a model. A link is not followed: where it
/// leads, the parts of the model need not be.
pub(super) fn as_path(places: &ModelPlaces, name: &str) -> Option<PathBuf> {
    let path = places.path(name)?;
    let starts = ["/", "./", "../", "~/"];
    let is_path = matches!(name, "." | ".." | "~") || starts.iter().any(|start| name.starts_with(start));
    let is_file = || is_gguf(name) && path.symlink_metadata().is_ok_and(|metadata| !metadata.is_dir());
    if !(is_path || is_file()) {
        return None;
    }
    let parent = path.parent().and_then(|parent| parent.canonicalize().ok());
    match (parent, path.file_name()) {
        (Some(parent), Some(name)) => Some(parent.join(name)),
        _ => Some(path.canonicalize().unwrap_or_else(|_| path.components().collect())),
    }
}

/// Splits `ORG/REPO:QUANTIZATION`; `None` for what the hub has no name for.
pub(super) fn repository(name: &str) -> Option<(&str, Option<&str>)> {
    let (repository, tag) = match name.split_once(':') {
        Some((repository, tag)) => (repository, Some(tag)),
        None => (name, None),
    };
    let is_tag = |tag: &str| {
        !tag.is_empty()
            && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
    };
    let is_hubs = repository.contains('/') && crate::core::models::hub::is_model_name(repository);
    (is_hubs && tag.is_none_or(is_tag)).then_some((repository, tag))
}

/// Returns every model of a directory: files, and directories of one model each.
pub(super) fn in_directory(directory: &Path) -> io::Result<Vec<GgufModel>> {
    let names =
        std::fs::read_dir(directory)?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut stems: Vec<String> = names
        .filter_map(|name| match name.strip_suffix(".gguf") {
            Some(stem) => (!is_projector(&name) && part(stem).is_none_or(|part| part.number == 1))
                .then(|| stem.to_owned()),
            None => directory.join(&name).is_dir().then_some(name),
        })
        .collect();
    order::sort(&mut stems);
    stems.dedup();
    Ok(stems.iter().filter_map(|stem| named(directory, stem)).collect())
}

/// Returns every model of the hub's cache.
pub(super) fn in_cache(cache: &HubCache) -> Result<Vec<GgufModel>, HubCacheError> {
    Ok(cache.models()?.iter().flat_map(in_repository).collect())
}

/// Returns the models of one repository, by quantization.
pub(super) fn in_repository(cached: &CachedModel) -> Vec<GgufModel> {
    // The server sees a snapshot only by the hash of its commit.
    let snapshot = cached.snapshot().filter(|snapshot| file_name(snapshot).len() == 40);
    let Some(snapshot) = snapshot else { return Vec::new() };
    let files = gguf_files(&snapshot, 3);
    let projector = best_projector(files.iter().map(|file| file_name(file)).collect())
        .and_then(|best| files.iter().find(|file| file_name(file) == best).cloned());
    let mut models: Vec<GgufModel> = Vec::new();
    for file in files.iter().filter(|file| !is_projector(&file_name(file))) {
        let Some(tag) = tag(&file_name(file)) else { continue };
        let name = format!("{}:{tag}", cached.name);
        let is_first = part(&stem(file)).is_none_or(|part| part.number == 1);
        if is_first && !models.iter().any(|model| model.name == name) {
            let place = ModelPlace::Cache(cached.clone());
            models.push(GgufModel { name, files: parts(file), projector: projector.clone(), place });
        }
    }
    models
}

fn quantization_of(name: &str) -> &str {
    name.rsplit_once(':').map_or("", |(_, tag)| tag)
}

fn at_path(places: &ModelPlaces, path: &Path) -> Option<GgufModel> {
    let own = places.models_dir.as_ref().and_then(|directory| directory.canonicalize().ok());
    if let Some(directory) = own
        && path.parent() == Some(&directory)
        && let Some(found) = named(&directory, &stem(path))
    {
        return Some(found);
    }
    if path.is_dir() {
        return of_directory(path, path.to_string_lossy().into_owned());
    }
    let name = path.to_string_lossy().into_owned();
    path.symlink_metadata().ok()?;
    Some(GgufModel { name, files: parts(path), projector: None, place: ModelPlace::Own })
}

/// Returns the model of a directory that has this name; a file comes before a directory.
fn named(directory: &Path, name: &str) -> Option<GgufModel> {
    if name.is_empty() || name.contains('/') || is_projector(name) {
        return None;
    }
    let file = directory.join(format!("{name}.gguf"));
    if file.symlink_metadata().is_ok_and(|metadata| !metadata.is_dir()) {
        return Some(GgufModel {
            name: name.to_owned(),
            files: parts(&file),
            projector: None,
            place: ModelPlace::Own,
        });
    }
    of_directory(&directory.join(name), name.to_owned())
}

/// Returns the one model of a directory: its first part if it was split, else its first file.
fn of_directory(directory: &Path, name: String) -> Option<GgufModel> {
    let files = gguf_files(directory, 1);
    let (projectors, models): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|file| is_projector(&file_name(file)));
    let split = models.iter().find(|file| part(&stem(file)).is_some_and(|part| part.number == 1));
    let first = split.or(models.first())?;
    let projector = projectors.into_iter().next();
    Some(GgufModel { name, files: parts(first), projector, place: ModelPlace::Own })
}

/// Returns the GGUF files of a directory and of those below, in order.
fn gguf_files(directory: &Path, depth: u32) -> Vec<PathBuf> {
    let (mut found, mut left) = (Vec::new(), vec![(directory.to_owned(), depth)]);
    while let Some((directory, depth)) = left.pop() {
        let (directories, files): (Vec<_>, Vec<_>) =
            files::entries(&directory).into_iter().partition(|path| path.is_dir());
        found.extend(files.into_iter().filter(|file| is_gguf(&file_name(file))));
        if depth > 1 {
            left.extend(directories.into_iter().rev().map(|directory| (directory, depth - 1)));
        }
    }
    found
}

/// Returns all parts of the model of which `file` is one, whether they are there or not.
fn parts(file: &Path) -> Vec<PathBuf> {
    let stem = stem(file);
    match part(&stem) {
        Some(SplitPart { front, count, .. }) => (1..=count)
            .map(|number| file.with_file_name(format!("{front}-{number:05}-of-{count:05}.gguf")))
            .collect(),
        None => vec![file.to_owned()],
    }
}

fn stem(file: &Path) -> String {
    let name = file_name(file);
    name.strip_suffix(".gguf").unwrap_or(&name).to_owned()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
