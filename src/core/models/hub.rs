//! The Hugging Face hub's cache on disk: which models it contains, how much space they use, and removing them.
//!
//! Layout (<https://huggingface.co/docs/huggingface_hub/guides/manage-cache>): `models--ORG--NAME/` with
//! `refs/main` (a commit), `snapshots/<commit>/` (links into `blobs/`), and `blobs/` (the files, named by their
//! hash; `*.incomplete` while they are downloaded). `.locks/models--ORG--NAME/<hash>.lock` is held during the
//! download of a file. Newer hub tools store a file of several models once, in `blobs/` beside the models, with a
//! list of its references.

pub mod download;
pub mod replacement;
pub mod search;
pub mod tool;

use std::ffi::OsString;
use std::fs::{self, File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use crate::core::files;
use crate::core::json_object;
use crate::core::models::defect::{Defect, read_file};

/// The file by which the hub's tool recognises its store of shared files, and its content for the layout known here.
const SHARED_STORE_MARKER: (&str, &str) = (".huggingface-shared-blobs", "1\n");

/// A hub cache; it need not exist.
#[derive(Debug, Clone)]
pub struct HubCache {
    root: PathBuf,
}

/// One model in the cache, complete or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedModel {
    /// `ORG/NAME`.
    pub name: String,
    pub directory: PathBuf,
}

/// How much space files use on the disk, and when they were used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskUse {
    /// Each file counts once.
    pub bytes: u64,
    /// When one of them was last written.
    pub modified: Option<SystemTime>,
    /// When the largest of them, the weights, was last read, if the file system records that. Small files are read by
    /// programs that only list models.
    pub accessed: Option<SystemTime>,
}

#[derive(Debug, thiserror::Error)]
pub enum HubCacheError {
    #[error("there is no home directory, so there is no place for models")]
    NoHome,
    #[error("{name:?} is not the name of a model on the hub (ORG/NAME)")]
    InvalidName { name: String },
    #[error("{path} is a symbolic link, and its target is not part of the cache")]
    Escapes { path: PathBuf },
    #[error("{name} is being downloaded by another program")]
    Busy { name: String },
    #[error("cannot {what} {path}")]
    Io {
        /// A verb.
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl HubCache {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns every model, complete or not, in no order.
    pub fn models(&self) -> Result<Vec<CachedModel>, HubCacheError> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(HubCacheError::Io { what: "read", path: self.root.clone(), source }),
        };
        Ok(entries.filter_map(|entry| cached_model(&entry.ok()?)).collect())
    }

    /// Returns the model called `name`, which need not be there.
    pub fn model(&self, name: &str) -> Result<CachedModel, HubCacheError> {
        if !is_model_name(name) {
            return Err(HubCacheError::InvalidName { name: name.to_owned() });
        }
        Ok(CachedModel { name: name.to_owned(), directory: self.root.join(folder_name(name)) })
    }

    /// Removes the model and everything that only it uses; returns how many bytes became free.
    ///
    /// The references go first: if it is interrupted, the model is incomplete and can be removed again.
    pub fn remove(&self, model: &CachedModel) -> Result<u64, HubCacheError> {
        let metadata =
            fs::symlink_metadata(&model.directory).map_err(io_error("remove", &model.directory))?;
        if metadata.is_symlink() {
            return Err(HubCacheError::Escapes { path: model.directory.clone() });
        }
        if self.is_downloading(model) {
            return Err(HubCacheError::Busy { name: model.name.clone() });
        }
        let shared = self.shared_files(&files_of(&model.directory.join("blobs")));
        let mut freed = own_bytes(&model.directory);
        for part in ["refs", "snapshots"] {
            remove_directory(&model.directory.join(part))?;
        }
        remove_directory(&model.directory)?;
        remove_directory(&self.locks(model))?;
        freed += shared.iter().map(|file| self.sweep_shared_file(file)).sum::<u64>();
        Ok(freed)
    }

    /// Removes the remains of interrupted downloads that no later download can use: the hub's tool names such a file
    /// `<hash>.<random>.incomplete`. (Older tools name it `<hash>.incomplete`, and resume it.)
    pub fn remove_leftovers(&self, model: &CachedModel) -> Result<(), HubCacheError> {
        for path in files_of(&model.directory.join("blobs")) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some((hash, _random)) =
                name.strip_suffix(".incomplete").and_then(|stem| stem.split_once('.'))
            else {
                continue;
            };
            if !is_locked(&self.locks(model).join(format!("{hash}.lock"))) {
                fs::remove_file(&path).map_err(io_error("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Removes some files of the model, given as entries of its newest snapshot, and everything that only they use;
    /// returns the bytes that became free. What another snapshot refers to stays. When no file is left, the model goes.
    pub fn remove_files(&self, model: &CachedModel, entries: &[PathBuf]) -> Result<u64, HubCacheError> {
        let snapshots = model.directory.join("snapshots");
        let kept: Vec<PathBuf> =
            walk(&snapshots).into_iter().filter(|entry| !entries.contains(entry)).collect();
        let is_card =
            |entry: &&PathBuf| entry.extension().is_some_and(|end| end == "md" || end == "gitattributes");
        if kept.iter().all(|entry| is_card(&entry)) {
            return self.remove(model);
        }
        if self.is_downloading(model) {
            return Err(HubCacheError::Busy { name: model.name.clone() });
        }
        let blob = |entry: &PathBuf| blob_name(entry);
        let used: Vec<_> = kept.iter().filter_map(blob).collect();
        let blobs = model.directory.join("blobs");
        let own = || entries.iter().filter(|entry| entry.starts_with(&snapshots));
        let unused = own().filter_map(blob).filter(|blob| !used.contains(blob)).map(|blob| blobs.join(blob));
        let unused: Vec<PathBuf> = unused.collect();
        let shared = self.shared_files(&unused);
        let mut freed: u64 = 0;
        for path in own().chain(&unused) {
            let Ok(metadata) = fs::symlink_metadata(path) else { continue };
            fs::remove_file(path).map_err(io_error("remove", path))?;
            freed = freed.saturating_add(if metadata.is_file() { metadata.len() } else { 0 });
        }
        Ok(freed + shared.iter().map(|file| self.sweep_shared_file(file)).sum::<u64>())
    }

    /// Returns whether a program is downloading a file of the model.
    pub fn is_downloading(&self, model: &CachedModel) -> bool {
        files_of(&self.locks(model)).iter().any(|lock| is_locked(lock))
    }

    fn locks(&self, model: &CachedModel) -> PathBuf {
        self.root.join(".locks").join(folder_name(&model.name))
    }

    /// Returns the files in the shared store that these blobs link to.
    fn shared_files(&self, blobs: &[PathBuf]) -> Vec<PathBuf> {
        let store = self.root.join("blobs");
        let (marker, layout) = SHARED_STORE_MARKER;
        if !fs::read_to_string(store.join(marker)).is_ok_and(|found| found == layout) {
            return Vec::new();
        }
        let Ok(store) = store.canonicalize() else { return Vec::new() };
        blobs
            .iter()
            .filter(|blob| blob.is_symlink())
            .filter_map(|blob| blob.canonicalize().ok())
            .filter(|file| file.strip_prefix(&store).is_ok_and(|rest| rest.components().count() == 2))
            .collect()
    }

    /// Removes a shared file without references and returns its size; in doubt, it stays.
    fn sweep_shared_file(&self, file: &Path) -> u64 {
        let beside = |suffix: &str| {
            let mut name = file.file_name().unwrap_or_default().to_owned();
            name.push(suffix);
            file.with_file_name(name)
        };
        let (references, lock) = (beside(".refs"), beside(".lock"));
        let Ok(text) = fs::read_to_string(&references) else { return 0 };
        let still_used = text.lines().any(|line| {
            let is_plain = Path::new(line).components().all(|part| matches!(part, Component::Normal(_)));
            !is_plain || self.root.join(line).canonicalize().is_ok_and(|target| target == file)
        });
        let Ok(metadata) = fs::symlink_metadata(file) else { return 0 };
        if still_used || is_locked(&lock) || fs::remove_file(file).is_err() {
            return 0;
        }
        let _ = fs::remove_file(references); // The hub's tool tolerates a list without its file.
        metadata.len()
    }
}

impl CachedModel {
    /// Returns the directory of the newest downloaded files of `main`.
    pub fn snapshot(&self) -> Option<PathBuf> {
        self.find_snapshot().ok()
    }

    /// Returns the directory of the newest downloaded files of `main`, or why there is none.
    pub fn find_snapshot(&self) -> Result<PathBuf, Defect> {
        if let Ok(target) = fs::read_link(&self.directory)
            && !self.directory.exists()
        {
            return Err(Defect::DanglingLink { file: folder_name(&self.name), target });
        }
        let commit = self.commit().ok_or(Defect::NoReference)?;
        let snapshot = self.directory.join("snapshots").join(&commit);
        if snapshot.is_dir() { Ok(snapshot) } else { Err(Defect::NoSnapshot { commit }) }
    }

    /// Returns the names and sizes of its files, if the hub's tool has stored them (`trees/<commit>.json`).
    pub fn expected_files(&self) -> Option<Vec<(String, u64)>> {
        let tree = format!("trees/{}.json", self.commit()?);
        read_tree(&read_file(&self.directory, &tree).ok()?)
    }

    /// Returns its use of the disk, unfinished downloads included.
    pub fn disk_use(&self) -> DiskUse {
        let mut files = walk(&self.directory.join("snapshots"));
        files.retain(|path| !path.is_symlink());
        files.extend(files_of(&self.directory.join("blobs")));
        DiskUse::of(&files)
    }

    /// Returns whether one of its files is only partly downloaded.
    pub fn has_unfinished_files(&self) -> bool {
        files_of(&self.directory.join("blobs"))
            .iter()
            .any(|path| path.extension().is_some_and(|end| end == "incomplete"))
    }

    fn commit(&self) -> Option<String> {
        let commit = String::from_utf8(read_file(&self.directory, "refs/main").ok()?).ok()?;
        let commit = commit.trim();
        let is_hash = !commit.is_empty() && commit.bytes().all(|byte| byte.is_ascii_alphanumeric());
        is_hash.then(|| commit.to_owned())
    }
}

impl DiskUse {
    /// Returns the use of the files directly in `directory`; links are followed.
    pub fn of_files_in(directory: &Path) -> Self {
        Self::of(&files_of(directory))
    }

    /// Returns what identifies the files, which are called `name`, as far as size and time can.
    pub fn identity(&self, name: &str) -> Option<String> {
        let modified = self.modified?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(format!("{name} {} {}.{}", self.bytes, modified.as_secs(), modified.subsec_nanos()))
    }

    /// Returns what these files take, links followed.
    pub fn of(files: &[PathBuf]) -> Self {
        let files = files.iter().filter_map(|path| fs::metadata(path).ok());
        let files: Vec<Metadata> = files.filter(Metadata::is_file).collect();
        let largest = files.iter().max_by_key(|file| file.len());
        Self {
            bytes: files.iter().map(on_disk).fold(0, u64::saturating_add),
            modified: files.iter().filter_map(|file| file.modified().ok()).max(),
            accessed: largest.and_then(|file| file.accessed().ok()),
        }
    }
}

/// Returns the name of the blob to which an entry of a snapshot links: its hash.
pub fn blob_name(entry: &Path) -> Option<OsString> {
    Some(fs::read_link(entry).ok()?.file_name()?.to_owned())
}

/// Returns whether the hub allows this name for a model: `NAME` or `ORG/NAME` of ASCII letters, digits, `-`, `_`,
/// `.`; no part begins or ends with `-` or `.`; never `--` or `..` (<https://github.com/huggingface/huggingface_hub>,
/// `validate_repo_id`). Such a name cannot leave the cache.
pub fn is_model_name(name: &str) -> bool {
    let is_part = |part: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        part.len() <= 96
            && part.bytes().all(known)
            && edge(part.bytes().next())
            && edge(part.bytes().next_back())
    };
    name.split('/').count() <= 2
        && name.split('/').all(is_part)
        && !name.contains("--")
        && !name.contains("..")
}

/// Parses a list of files as the hub's tool stores it.
fn read_tree(json: &[u8]) -> Option<Vec<(String, u64)>> {
    let json: serde_json::Value = json_object::parse(json).ok()?;
    let files = json["files"].as_object()?;
    files.iter().map(|(path, facts)| Some((path.clone(), facts["size"].as_u64()?))).collect()
}

fn folder_name(name: &str) -> String {
    format!("models--{}", name.replace('/', "--"))
}

/// Returns the model of an entry, which can be a link to a directory, as the hub's tool allows.
fn cached_model(entry: &fs::DirEntry) -> Option<CachedModel> {
    let folder = entry.file_name().into_string().ok()?;
    let name = folder.strip_prefix("models--")?.replacen("--", "/", 1);
    let kind = entry.file_type().ok()?;
    ((kind.is_dir() || kind.is_symlink()) && is_model_name(&name))
        .then(|| CachedModel { name, directory: entry.path() })
}

/// Returns how many bytes a file occupies, at most its length: a file that is being written can have holes.
fn on_disk(file: &Metadata) -> u64 {
    file.len().min(file.blocks().saturating_mul(512))
}

/// Returns the size of everything in a directory; links are not followed.
fn own_bytes(directory: &Path) -> u64 {
    walk(directory).iter().filter_map(|path| fs::symlink_metadata(path).ok()).map(|file| file.len()).sum()
}

/// Returns all files directly in a directory, which need not exist.
fn files_of(directory: &Path) -> Vec<PathBuf> {
    let mut files = files::entries(directory);
    files.retain(|path| !is_own_directory(path));
    files
}

/// Returns all files below a directory; links to directories are not followed.
fn walk(directory: &Path) -> Vec<PathBuf> {
    let (mut files, mut directories) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(directory) = directories.pop() {
        let (below, found): (Vec<_>, Vec<_>) =
            files::entries(&directory).into_iter().partition(|path| is_own_directory(path));
        files.extend(found);
        directories.extend(below);
    }
    files
}

/// Returns whether it is a directory, and no link to one.
fn is_own_directory(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
}

/// Returns whether a process holds the lock; the hub's tool locks with `flock`, as [`File::try_lock`] does.
fn is_locked(lock: &Path) -> bool {
    let Ok(file) = File::open(lock) else { return false };
    matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

fn remove_directory(directory: &Path) -> Result<(), HubCacheError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(io_error("remove", directory)),
    }
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HubCacheError {
    move |source| HubCacheError::Io { what, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
