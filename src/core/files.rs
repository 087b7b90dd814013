//! Files that are fusion's alone, locks between the processes that use them, and what directories hold.

mod listing;
mod lock;
mod private;

pub use listing::{entries, names};
pub use lock::{ContentLock, ContentLockKind, Lock, LockError};
pub use private::{
    FileError, create, make_directory, open, read, refuse_of_others, remove, replace, replace_contents,
};
