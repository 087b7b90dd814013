//! Private files: not symbolic links, not another user's, not readable by other users.

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

/// The bits of a mode that let other users write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is a symbolic link, through which a write could reach any file.
    #[error("{path} is a symbolic link")]
    SymbolicLink {
        /// The file.
        path: PathBuf,
    },
    /// It is a directory, device, socket or pipe.
    #[error("{path} is not a regular file")]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// It belongs to another user, who may have written anything to it.
    #[error("{path} belongs to user {owner}")]
    AnotherOwner {
        /// The file.
        path: PathBuf,
        /// The user's id.
        owner: u32,
    },
    /// Other users may change what is in it.
    #[error("{path} is writable by other users")]
    WritableByOthers {
        /// The file or directory.
        path: PathBuf,
    },
    /// It is larger than fusion expects.
    #[error("{path} is larger than {limit} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The maximum size in bytes.
        limit: u64,
    },
    /// A system call failed.
    #[error("cannot {action} {path}")]
    Io {
        /// The action, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

impl FileError {
    /// Returns a function that adds the action (a verb) and the path to the error of the system.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { action, path: path.clone(), source }
    }

    /// Returns whether another user decides what is in the file or directory.
    pub fn is_of_others(&self) -> bool {
        matches!(self, Self::AnotherOwner { .. } | Self::WritableByOthers { .. })
    }

    /// Returns whether the system does not allow to write there.
    pub fn is_denied(&self) -> bool {
        let denied = [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem];
        matches!(self, Self::Io { source, .. } if denied.contains(&source.kind()))
    }

    /// Returns whether the file does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Keeps the kind of the system's error.
impl From<FileError> for io::Error {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Io { source, .. } => source,
            other => Self::other(other),
        }
    }
}

/// Opens a regular file of this user, without following a symbolic link. If `options` create or write it, its mode
/// becomes 0600 regardless of the umask.
pub fn open(path: &Path, options: &mut OpenOptions) -> Result<File, FileError> {
    // O_NONBLOCK: opening a named pipe must not wait for its other end. It has no effect on a regular file.
    options.mode(PRIVATE_FILE).custom_flags(O_NOFOLLOW | O_NONBLOCK);
    let file = options.open(path).map_err(|source| {
        // ELOOP is the error of POSIX, Linux and macOS; FreeBSD returns EMLINK, NetBSD EFTYPE.
        if source.raw_os_error() == Some(Errno::ELOOP as i32) && path.is_symlink() {
            return FileError::SymbolicLink { path: path.to_owned() };
        }
        FileError::io("open", path)(source)
    })?;
    let metadata = file.metadata().map_err(FileError::io("inspect", path))?;
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

/// Fails if another user than root, who may do anything, owns an existing file or directory or may write it: that user
/// decides what fusion starts.
pub fn refuse_of_others(path: &Path) -> Result<(), FileError> {
    let Ok(metadata) = path.metadata() else { return Ok(()) };
    let owner = metadata.uid();
    if owner != 0 && owner != geteuid().as_raw() {
        return Err(FileError::AnotherOwner { path: path.to_owned(), owner });
    }
    if metadata.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(FileError::WritableByOthers { path: path.to_owned() });
    }
    Ok(())
}

fn is_writable(file: &File) -> bool {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(file, FcntlArg::F_GETFL)
        .is_ok_and(|flags| OFlag::from_bits_truncate(flags).intersects(OFlag::O_WRONLY | OFlag::O_RDWR))
}

/// Returns the whole file, at most `limit` bytes; `None` if it does not exist.
pub fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, FileError> {
    let file = match open(path, OpenOptions::new().read(true)) {
        Err(error) if error.is_missing() => return Ok(None),
        other => other?,
    };
    // Room for a record, which is then read at once.
    let mut bytes = Vec::with_capacity(4096);
    file.take(limit + 1).read_to_end(&mut bytes).map_err(FileError::io("read", path))?;
    if bytes.len() as u64 > limit {
        return Err(FileError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(Some(bytes))
}

/// Creates a directory and its missing parents, each with mode 0700 regardless of the umask. Existing ones keep theirs.
pub fn make_directory(path: &Path) -> Result<(), FileError> {
    let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.is_dir()).collect();
    missing.into_iter().rev().filter(|path| !path.as_os_str().is_empty()).try_for_each(make_one_directory)
}

fn make_one_directory(path: &Path) -> Result<(), FileError> {
    match DirBuilder::new().mode(PRIVATE_DIRECTORY).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(()),
        other => other.map_err(FileError::io("make the directory", path))?,
    }
    let private = Permissions::from_mode(PRIVATE_DIRECTORY);
    std::fs::set_permissions(path, private).map_err(FileError::io("make private", path))
}

/// Replaces the file by `bytes` in one step, with mode 0600. A reader sees either the old or the new content, never a
/// part, and so does the disk after a power failure.
///
/// The new content is first written to a file beside it, which has a fixed name: a writer that is killed leaves at most
/// that one file, which the next writer removes. Writers must exclude each other.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    replace_from(path, &write_beside(path, bytes, &|_| Ok(()))?)
}

/// Like [`replace`], but keeps the mode, owner and group of the file.
pub fn replace_contents(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let old = path.metadata().map_err(FileError::io("inspect", path))?;
    let new = write_beside(path, bytes, &|file| {
        let new = file.metadata()?;
        if new.uid() != old.uid() {
            fchown(file, Some(old.uid()), None)?;
        }
        if new.gid() != old.gid() {
            // This fails for a group of which the user is not a member. The owner matters more.
            let _ = fchown(file, None, Some(old.gid()));
        }
        file.set_permissions(old.permissions())
    })?;
    replace_from(path, &new)
}

fn replace_from(path: &Path, new: &Path) -> Result<(), FileError> {
    if let Err(error) = std::fs::rename(new, path) {
        // The first error is reported. The next attempt removes the new file, too.
        let _ = remove(new);
        return Err(FileError::io("replace", path)(error));
    }
    sync_directory(path)
}

/// Creates the file in one step, with mode 0600, and returns true; returns false if the path exists. Writers must
/// exclude each other.
pub fn create(path: &Path, bytes: &[u8]) -> Result<bool, FileError> {
    let new = write_beside(path, bytes, &|_| Ok(()))?;
    // Unlike a rename, a hard link never replaces another file. Without hard links, the lock of the writers must do.
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
    finish: &dyn Fn(&File) -> io::Result<()>,
) -> Result<PathBuf, FileError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    remove(&new)?;
    let written = open(&new, OpenOptions::new().write(true).create_new(true)).and_then(|mut file| {
        file.write_all(bytes)
            .and_then(|()| finish(&file))
            .and_then(|()| sync(&file))
            .map_err(FileError::io("write", path))
    });
    if written.is_err() {
        let _ = remove(&new);
    }
    written.map(|()| new)
}

/// Removes a file; succeeds if it does not exist.
pub fn remove(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Writes a file to the disk. On macOS `sync_all` has the disk empty its own cache (`F_FULLFSYNC`), which network and
/// foreign file systems refuse; then what other systems do must be enough.
fn sync(file: &File) -> io::Result<()> {
    match file.sync_all() {
        Err(error) if is_unsupported(&error) => {
            nix::unistd::fsync(file).or_else(|errno| match errno.into() {
                error if is_unsupported(&error) => Ok(()),
                error => Err(error),
            })
        }
        result => result,
    }
}

/// Returns whether the file system cannot do it at all: SMB and NTFS say ENOTSUP, `WebDAV` EINVAL, ZFS ENOTTY. The
/// standard library knows EOPNOTSUPP only, which on macOS is another number than ENOTSUP.
fn is_unsupported(error: &io::Error) -> bool {
    let unsupported = [Errno::ENOTSUP, Errno::EOPNOTSUPP, Errno::EINVAL, Errno::ENOTTY];
    error.raw_os_error().is_some_and(|raw| unsupported.contains(&Errno::from_raw(raw)))
}

/// Writes the directory of a renamed file to the disk, without which the rename may be lost. Some file systems do not
/// support that.
fn sync_directory(path: &Path) -> Result<(), FileError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().as_bytes().is_empty());
    let directory = parent.unwrap_or(Path::new("."));
    File::open(directory).and_then(|file| sync(&file)).map_err(FileError::io("write", directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_disk_that_cannot_flush_is_written() {
        for errno in [Errno::ENOTSUP, Errno::EOPNOTSUPP, Errno::EINVAL, Errno::ENOTTY] {
            assert!(is_unsupported(&errno.into()), "{errno}");
        }
        for errno in [Errno::EIO, Errno::ENOSPC, Errno::EDQUOT, Errno::EROFS] {
            assert!(!is_unsupported(&errno.into()), "{errno}");
        }
        // fsync(2) refuses a pipe.
        let (_reader, writer) = nix::unistd::pipe().unwrap();
        sync(&File::from(writer)).unwrap();
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
    fn a_file_is_refused_as_a_directory() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(make_directory(&file).is_err());
        assert!(make_directory(&file.join("deeper")).is_err());
    }

    #[test]
    fn create_never_overwrites() {
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
    fn replace_removes_the_rest_of_a_killed_writer() {
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
