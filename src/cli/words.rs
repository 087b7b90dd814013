//! Phrases that several messages share.

use crate::core::events::VariableNotice;
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

/// Returns what is wrong with a variable of the server `name`, and what to do.
pub fn variable_notice(name: &str, notice: &VariableNotice) -> (String, String) {
    match notice {
        VariableNotice::Refused { name: variable, value } => (
            format!("{name} used its default in place of {variable}={value}, which it cannot read"),
            format!("correct the value, then restart it: fusion {name} restart"),
        ),
        VariableNotice::Unknown { name: variable, nearest } => (
            format!("{name} does not know {variable}, which the configuration sets"),
            match nearest {
                Some(nearest) => format!("did you mean {nearest}? change it: fusion config edit"),
                None => "remove it: fusion config edit".to_owned(),
            },
        ),
        VariableNotice::Shell { name: variable, value } => (
            format!(
                "{variable}={value} of this shell counts for the commands of {name} itself, not for fusion"
            ),
            format!("unset it, or set it to the address of {name}: fusion {name} ps"),
        ),
    }
}
