//! Private files: never through a symbolic link, never another user's, never readable by others.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use nix::unistd::geteuid;

const PRIVATE_FILE: u32 = 0o600;
const PRIVATE_DIRECTORY: u32 = 0o700;

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Writing through it would write to a place of somebody else's choosing.
    #[error("{path} is a symbolic link")]
    SymbolicLink {
        /// The file.
        path: PathBuf,
    },
    /// A directory, device, socket or pipe.
    #[error("{path} is not a regular file")]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// It belongs to another user, who could have put anything into it.
    #[error("{path} belongs to user {owner}")]
    AnotherOwner {
        /// The file.
        path: PathBuf,
        /// The user's number.
        owner: u32,
    },
    /// It is larger than anything that fusion writes there.
    #[error("{path} is larger than {limit} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// How large it may be.
        limit: u64,
    },
    /// The system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl FileError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// Whether the file is simply not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Opens a regular file of this user, without following a symbolic link; made with mode 0600 if `options` make it,
/// and tightened to 0600 if they write it, whatever the umask.
pub fn open(path: &Path, options: &mut OpenOptions) -> Result<File, FileError> {
    // O_NONBLOCK: opening a named pipe must not wait for its other end. It means nothing for a regular file.
    options.mode(PRIVATE_FILE).custom_flags(O_NOFOLLOW | O_NONBLOCK);
    let file = options.open(path).map_err(|source| {
        // BSD says EMLINK (FreeBSD) or EFTYPE (NetBSD) where POSIX, Linux and macOS say ELOOP.
        if source.raw_os_error() == Some(Errno::ELOOP as i32) && path.is_symlink() {
            return FileError::SymbolicLink { path: path.to_owned() };
        }
        FileError::io("open", path)(source)
    })?;
    let metadata = file.metadata().map_err(FileError::io("look at", path))?;
    if !metadata.is_file() {
        return Err(FileError::NotAFile { path: path.to_owned() });
    }
    if metadata.uid() != geteuid().as_raw() {
        return Err(FileError::AnotherOwner { path: path.to_owned(), owner: metadata.uid() });
    }
    if is_writable(&file) && metadata.mode() & 0o777 != PRIVATE_FILE {
        let private = Permissions::from_mode(PRIVATE_FILE);
        file.set_permissions(private).map_err(FileError::io("make private", path))?;
    }
    Ok(file)
}

fn is_writable(file: &File) -> bool {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = fcntl(file, FcntlArg::F_GETFL).map(OFlag::from_bits_truncate).unwrap_or(OFlag::empty());
    flags.intersects(OFlag::O_WRONLY | OFlag::O_RDWR)
}

/// The whole file; `None` when there is none.
pub fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, FileError> {
    let file = match open(path, OpenOptions::new().read(true)) {
        Err(error) if error.is_missing() => return Ok(None),
        other => other?,
    };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(FileError::io("read", path))?;
    if bytes.len() as u64 > limit {
        return Err(FileError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(Some(bytes))
}

/// Makes a directory and those above it, each with mode 0700 whatever the umask; those that are there stay as they
/// are.
pub fn make_directory(path: &Path) -> Result<(), FileError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_directory(parent)?;
    }
    match DirBuilder::new().mode(PRIVATE_DIRECTORY).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(()),
        other => other.map_err(FileError::io("make the directory", path))?,
    }
    let private = Permissions::from_mode(PRIVATE_DIRECTORY);
    std::fs::set_permissions(path, private).map_err(FileError::io("make private", path))
}

/// Puts `bytes` in place of the file in one step: a reader, and a machine that loses power, sees the old content or
/// the new, never a part.
///
/// The new content is first written beside it under one fixed name, so that a writer that is killed leaves at most
/// that one file, which the next writer removes. Writers must exclude each other.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    remove(&new)?;
    let written = open(&new, OpenOptions::new().write(true).create_new(true)).and_then(|mut file| {
        file.write_all(bytes).map_err(FileError::io("write", path))?;
        file.sync_all().map_err(FileError::io("write", path))
    });
    let renamed = written.and_then(|()| std::fs::rename(&new, path).map_err(FileError::io("replace", path)));
    if renamed.is_err() {
        // What failed is told; what is left of the attempt is removed by the next one, too.
        let _ = remove(&new);
    }
    renamed?;
    sync_directory(path)
}

/// Removes a file; one that is not there is no error.
pub fn remove(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// A rename lasts once its directory is written.
fn sync_directory(path: &Path) -> Result<(), FileError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().as_bytes().is_empty());
    let directory = parent.unwrap_or(Path::new("."));
    File::open(directory).and_then(|file| file.sync_all()).map_err(FileError::io("write", directory))
}
