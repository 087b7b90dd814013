//! What can be wrong with a file of a model.

use std::fs::{self, File, FileType};
use std::io::{self, Read as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

/// The start of a pointer of Git LFS (<https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md>).
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Pointers of Git LFS are shorter.
const MAX_LFS_POINTER_BYTES: u64 = 1024;

/// Why a model cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    #[error("{file} is missing")]
    Missing { file: String },
    #[error("{file} is a link, and its target {} is missing", target.display())]
    DanglingLink { file: String, target: PathBuf },
    /// The commit of the newest files in the hub's cache is unknown.
    #[error("refs/main, which names the newest files, is missing")]
    NoReference,
    /// The files of the newest commit are not in the hub's cache.
    #[error("snapshots/{commit} is missing")]
    NoSnapshot { commit: String },
    #[error("there are no weights (model*.safetensors)")]
    NoWeights,
    #[error("there is no tokenizer (tokenizer.json, tokenizer.model ...)")]
    NoTokenizer,
    /// A file is shorter than its header or the hub says.
    #[error("{file} has {found} of {expected} bytes")]
    Truncated { file: String, found: u64, expected: u64 },
    /// A JSON document is not closed.
    #[error("{file} ends early")]
    EndsEarly { file: String },
    /// A JSON document that the server cannot read either.
    #[error("{file} {reason}, and the server refuses that")]
    Refused { file: String, reason: &'static str },
    /// A text that names the file in a store of Git LFS.
    #[error("{file} is a Git LFS pointer instead of the file")]
    LfsPointer { file: String },
    #[error("{file} is {kind}, not a file")]
    NotAFile { file: String, kind: &'static str },
    #[error("{file} may not be read: {reason}")]
    Denied { file: String, reason: String },
    #[error("{file} does not start like a safetensors file")]
    NotSafetensors { file: String },
    #[error("{file} is not a GGUF file: {reason}")]
    NotGguf { file: String, reason: String },
}

impl Defect {
    /// Returns the file that is certainly shorter than it must be: only such a file may be replaced.
    pub fn too_short_file(&self) -> Option<&str> {
        match self {
            Self::Truncated { file, .. } | Self::EndsEarly { file } | Self::LfsPointer { file } => Some(file),
            _ => None,
        }
    }

    /// Returns whether a download can help.
    pub fn is_pullable(&self) -> bool {
        !matches!(
            self,
            Self::NotAFile { .. }
                | Self::Denied { .. }
                | Self::Refused { .. }
                | Self::NotSafetensors { .. }
                | Self::NotGguf { .. }
        )
    }

    /// Returns the file at fault.
    pub fn file(&self) -> Option<&str> {
        match self {
            Self::Missing { file }
            | Self::DanglingLink { file, .. }
            | Self::Truncated { file, .. }
            | Self::EndsEarly { file }
            | Self::Refused { file, .. }
            | Self::LfsPointer { file }
            | Self::NotAFile { file, .. }
            | Self::Denied { file, .. }
            | Self::NotSafetensors { file }
            | Self::NotGguf { file, .. } => Some(file),
            Self::NoReference | Self::NoSnapshot { .. } | Self::NoWeights | Self::NoTokenizer => None,
        }
    }
}

/// Returns the length of the file `name` in `directory`, which must be a regular file: opening a FIFO could wait
/// without limit.
pub fn file_length(directory: &Path, name: &str) -> Result<u64, Defect> {
    let path = directory.join(name);
    let file = || name.to_owned();
    match fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() => Ok(metadata.len()),
        Ok(metadata) => Err(Defect::NotAFile { file: file(), kind: kind(metadata.file_type()) }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(match fs::read_link(&path) {
            Ok(target) => Defect::DanglingLink { file: file(), target },
            Err(_) => Defect::Missing { file: file() },
        }),
        // A name in an index can be longer than any file's.
        Err(error) if error.kind() == io::ErrorKind::InvalidFilename => Err(Defect::Missing { file: file() }),
        Err(error) => Err(denied(name, &error)),
    }
}

/// Reads the regular file `name` in `directory`.
pub fn read_file(directory: &Path, name: &str) -> Result<Vec<u8>, Defect> {
    file_length(directory, name)?;
    fs::read(directory.join(name)).map_err(|error| denied(name, &error))
}

/// Returns whether the file is the pointer that Git LFS leaves in place of a file it has not downloaded.
pub fn is_lfs_pointer(directory: &Path, name: &str) -> bool {
    file_length(directory, name).is_ok_and(|length| length < MAX_LFS_POINTER_BYTES)
        && begins_with(directory, name, LFS_POINTER)
}

/// Returns whether the regular file begins with these bytes.
pub fn begins_with(directory: &Path, name: &str, bytes: &[u8]) -> bool {
    let mut start = Vec::new();
    file_length(directory, name).is_ok()
        && File::open(directory.join(name))
            .and_then(|file| file.take(bytes.len() as u64).read_to_end(&mut start))
            .is_ok()
        && start == bytes
}

/// Returns the defect of a file that the system does not let fusion read.
pub fn denied(name: &str, error: &io::Error) -> Defect {
    Defect::Denied { file: name.to_owned(), reason: error.to_string() }
}

fn kind(file: FileType) -> &'static str {
    if file.is_dir() {
        "a directory"
    } else if file.is_fifo() {
        "a FIFO"
    } else if file.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}
