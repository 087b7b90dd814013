//! Files that are fusion's alone, and locks between the processes that use them.

mod lock;
mod private;

pub use lock::{ContentLock, ContentLockKind, Lock, LockError};
pub use private::{FileError, create, make_directory, open, read, remove, replace, replace_contents};
