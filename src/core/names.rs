//! The names of fusion's own commands, and the rule for names of instances.

/// Every word that is a command of fusion or of a service, visible or hidden, and every alias of one. A test of the
/// command line proves that it has no other.
pub const COMMANDS: &[&str] = &[
    "cf",
    "chat",
    "completions",
    "config",
    "create",
    "d",
    "disable",
    "doctor",
    "down",
    "enable",
    "gateway",
    "health",
    "help",
    "hl",
    "install",
    "launch",
    "lg",
    "load",
    "log",
    "logs",
    "man",
    "metrics",
    "models",
    "p",
    "ps",
    "pull",
    "remove",
    "restart",
    "rm",
    "rotate-log",
    "run",
    "search",
    "serve",
    "show",
    "status",
    "templates",
    "top",
    "uninstall",
    "unload",
    "up",
];

/// A directory of fusion's own beside those of the services.
const DATA: &str = "data";

/// Maximum number of characters of the name of an instance.
const MAX_LENGTH: usize = 32;

/// Why a name cannot be that of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameFault {
    /// It has another form than `[a-z0-9][a-z0-9-]{0,31}`.
    Form,
    Command,
    /// It is the name or the alias of a runtime.
    Runtime,
    /// fusion keeps its data in a directory of this name.
    Directory,
}

impl std::fmt::Display for NameFault {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Form => {
                "the name of an instance has 1 to 32 lowercase letters, digits and hyphens, no hyphen first"
            }
            Self::Command => "this is a command of fusion",
            Self::Runtime => "this is a built-in service",
            Self::Directory => "fusion keeps its own data in a directory of this name",
        })
    }
}

/// Checks the name of an instance; `built_in` are the names and aliases of the runtimes.
pub fn check<'n>(name: &str, mut built_in: impl Iterator<Item = &'n str>) -> Result<(), NameFault> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let has_form = (1..=MAX_LENGTH).contains(&name.len())
        && name.bytes().next().is_some_and(is_plain)
        && name.bytes().all(|byte| is_plain(byte) || byte == b'-');
    match name {
        _ if !has_form => Err(NameFault::Form),
        DATA => Err(NameFault::Directory),
        _ if COMMANDS.contains(&name) => Err(NameFault::Command),
        _ if built_in.any(|known| known == name) => Err(NameFault::Runtime),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_instances_are_told_from_others() {
        let check = |name: &str| check(name, ["ollama", "ol"].into_iter());
        for good in ["coder", "comfy-dev", "a", "0", "2-", "notes-api-v2", &"x".repeat(32)] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["", "-a", "A", "a_b", "a.b", "a b", "é", "../x", &"x".repeat(33)] {
            assert_eq!(check(bad), Err(NameFault::Form), "{bad}");
        }
        for command in ["up", "lg", "rotate-log", "serve", "help", "status"] {
            assert_eq!(check(command), Err(NameFault::Command), "{command}");
        }
        assert_eq!(check("ol"), Err(NameFault::Runtime));
        assert_eq!(check("data"), Err(NameFault::Directory));
    }

    #[test]
    fn commands_are_in_order() {
        assert!(COMMANDS.is_sorted_by(|one, other| one < other));
    }
}
