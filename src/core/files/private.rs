//! Private files: never through a symbolic link, never another user's, never readable by others.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
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
    /// What the system said when `action`, a verb, was tried on the file.
    pub(in crate::core) fn io(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { action, path: path.clone(), source }
    }

    /// Whether the file is simply not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// What the system said, with its kind.
impl From<FileError> for io::Error {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Io { source, .. } => source,
            other => Self::other(other),
        }
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
    fcntl(file, FcntlArg::F_GETFL)
        .is_ok_and(|flags| OFlag::from_bits_truncate(flags).intersects(OFlag::O_WRONLY | OFlag::O_RDWR))
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

/// Puts `bytes` in place of the file in one step, with mode 0600: a reader, and a machine that loses power, sees the
/// old content or the new, never a part.
///
/// The new content is first written beside it under one fixed name, so that a writer that is killed leaves at most
/// that one file, which the next writer removes. Writers must exclude each other.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    replace_from(path, &write_beside(path, bytes, |_| Ok(()))?)
}

/// Like [`replace`], for a file that is the user's own: its mode, owner and group stay.
pub fn replace_contents(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let old = path.metadata().map_err(FileError::io("look at", path))?;
    let new = write_beside(path, bytes, |file| {
        let new = file.metadata()?;
        if new.uid() != old.uid() {
            fchown(file, Some(old.uid()), None)?;
        }
        if new.gid() != old.gid() {
            // A group that this user is not in cannot be given; the owner is what matters.
            let _ = fchown(file, None, Some(old.gid()));
        }
        file.set_permissions(old.permissions())
    })?;
    replace_from(path, &new)
}

fn replace_from(path: &Path, new: &Path) -> Result<(), FileError> {
    if let Err(error) = std::fs::rename(new, path) {
        // What failed is told; what is left of the attempt is removed by the next one, too.
        let _ = remove(new);
        return Err(FileError::io("replace", path)(error));
    }
    sync_directory(path)
}

/// Makes the file in one step, with mode 0600, unless something is in its place already: then false. Writers must
/// exclude each other.
pub fn create(path: &Path, bytes: &[u8]) -> Result<bool, FileError> {
    let new = write_beside(path, bytes, |_| Ok(()))?;
    // Unlike a rename, a hard link never takes the place of another file. Where there are none, the lock must do.
    let created = match std::fs::hard_link(&new, path) {
        Ok(()) => Ok(true),
        Err(_) if path.symlink_metadata().is_ok() => Ok(false),
        Err(_) => std::fs::rename(&new, path).map(|()| true),
    };
    remove(&new)?;
    created.map_err(FileError::io("make", path))
}

fn write_beside(
    path: &Path,
    bytes: &[u8],
    finish: impl FnOnce(&File) -> io::Result<()>,
) -> Result<PathBuf, FileError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    remove(&new)?;
    let written = open(&new, OpenOptions::new().write(true).create_new(true)).and_then(|mut file| {
        file.write_all(bytes)
            .and_then(|()| finish(&file))
            .and_then(|()| file.sync_all())
            .map_err(FileError::io("write", path))
    });
    if written.is_err() {
        let _ = remove(&new);
    }
    written.map(|()| new)
}

/// Removes a file; one that is not there is no error.
pub fn remove(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// A rename lasts once its directory is written. Some file systems cannot do that: they have their own ways.
fn sync_directory(path: &Path) -> Result<(), FileError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().as_bytes().is_empty());
    let directory = parent.unwrap_or(Path::new("."));
    match File::open(directory).and_then(|file| file.sync_all()) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Err(FileError::io("write", directory)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn every_missing_directory_is_private() {
        let home = tempfile::tempdir().unwrap();
        let deep = home.path().join("a/b/c");
        make_directory(&deep).unwrap();
        make_directory(&deep).unwrap();
        for directory in ["a", "a/b", "a/b/c"] {
            assert_eq!(mode(&home.path().join(directory)), 0o700, "{directory}");
        }
    }

    #[test]
    fn a_file_in_the_place_of_a_directory_is_an_error() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(make_directory(&file).is_err());
        assert!(make_directory(&file.join("deeper")).is_err());
    }

    #[test]
    fn create_never_overwrites_and_leaves_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        assert!(create(&file, b"one").unwrap());
        assert!(!create(&file, b"two").unwrap());
        assert_eq!(std::fs::read(&file).unwrap(), b"one");
        assert_eq!(mode(&file), 0o600);
        assert_eq!(home.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn create_does_not_follow_a_dangling_link() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        std::os::unix::fs::symlink(home.path().join("elsewhere"), &file).unwrap();
        assert!(!create(&file, b"one").unwrap());
        assert!(!home.path().join("elsewhere").exists());
    }

    #[test]
    fn replace_removes_what_a_killed_writer_left() {
        let home = tempfile::tempdir().unwrap();
        let [file, victim] = ["file", "victim"].map(|name| home.path().join(name));
        std::fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, home.path().join("file.new")).unwrap();
        std::fs::write(&file, "old").unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        replace_contents(&file, b"new").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        assert_eq!(mode(&file), 0o640);
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
        assert_eq!(home.path().read_dir().unwrap().count(), 2);
    }
}
