//! Phrases that several messages share.

use crate::core::events::VariableNotice;

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
