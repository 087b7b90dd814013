//! Words that several messages share.

use crate::core::process::Listener;

/// Returns who listens on a port, in words.
pub fn who(listener: &Listener) -> String {
    match listener {
        Listener::None => "a process that the system does not name".to_owned(),
        Listener::Unknown => "a process of another user".to_owned(),
        Listener::Ours { pid } | Listener::Other { pid, program: None } => format!("pid {pid}"),
        Listener::Other { pid, program: Some(program) } => format!("{program} (pid {pid})"),
    }
}
