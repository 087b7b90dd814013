//! The effect of logging out on running programs, as systemd-logind reports it (logind.conf(5), loginctl(1)).

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::core::executables::on_path;

/// The effect of logging out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Whether logging out kills every program of the session.
    pub kills: bool,
    /// Whether the user's service manager, and what it started, keeps running; `None` if logind does not report it.
    pub lingers: Option<bool>,
}

/// Returns the effect of logging out on the programs of `user`; `None` without logind, which means that they keep
/// running.
pub fn session(search: Option<&OsStr>, user: u32, name: &str) -> Option<Session> {
    let loginctl = on_path("loginctl", search)?;
    // Without a user, these are the properties of the manager itself.
    let manager = properties(&loginctl, &["show-user"])?;
    let own = properties(&loginctl, &["show-user", &user.to_string()]);
    let lingers = own.and_then(|own| Some(value(&own, "Linger")? == "yes"));
    Some(Session { kills: kills(&manager, name), lingers })
}

/// Evaluates `KillUserProcesses=`, and the lists of users to which alone it applies or does not apply.
fn kills(manager: &str, name: &str) -> bool {
    let listed = |key| value(manager, key).is_some_and(|names| names.split(' ').any(|listed| listed == name));
    let for_all = value(manager, "KillOnlyUsers").is_none_or(str::is_empty);
    value(manager, "KillUserProcesses") == Some("yes")
        && !listed("KillExcludeUsers")
        && (for_all || listed("KillOnlyUsers"))
}

/// Returns the value in a line `KEY=VALUE`.
fn value<'a>(properties: &'a str, key: &str) -> Option<&'a str> {
    properties.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
}

fn properties(loginctl: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(loginctl).args(arguments).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logout_kills_as_configured() {
        for (manager, expected) in [
            ("KillUserProcesses=no\nKillOnlyUsers=\nKillExcludeUsers=root\n", false),
            ("KillUserProcesses=yes\nKillOnlyUsers=\nKillExcludeUsers=root\n", true),
            ("KillUserProcesses=yes\nKillOnlyUsers=\nKillExcludeUsers=root ada\n", false),
            ("KillUserProcesses=yes\nKillOnlyUsers=bob\nKillExcludeUsers=\n", false),
            ("KillUserProcesses=yes\nKillOnlyUsers=bob ada\nKillExcludeUsers=\n", true),
            ("KillUserProcesses=yes\n", true),
            ("", false),
        ] {
            assert_eq!(kills(manager, "ada"), expected, "{manager}");
        }
    }
}
