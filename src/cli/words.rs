//! Phrases that several messages share.

use crate::core::process::Listener;

/// Returns the listener of a port for "port N is in use by ...".
pub fn listener_name(listener: &Listener) -> String {
    match listener {
        Listener::None => "a process that the system does not report".to_owned(),
        Listener::Unknown => "a process of another user".to_owned(),
        Listener::Ours { pid } | Listener::Other { pid, program: None } => format!("pid {pid}"),
        Listener::Other { pid, program: Some(program) } => format!("{program} (pid {pid})"),
    }
}

/// Returns the changed parts of a configuration in brackets, if they are known.
pub fn changed_parts(parts: &[String]) -> String {
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}
