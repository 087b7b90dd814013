//! What happens to running programs when the user logs out, as systemd-logind has it (logind.conf(5), loginctl(1)).

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::core::executables::on_path;

/// What logging out does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// It ends every program that was started in the session.
    pub kills: bool,
    /// The user's own service manager, and what it started, stays; `None` when logind does not tell.
    pub lingers: Option<bool>,
}

/// What logging out does to the programs of `user`; `None` where no logind answers, and then nobody ends them.
pub fn session(search: Option<&OsStr>, user: u32, name: &str) -> Option<Session> {
    let loginctl = on_path("loginctl", search)?;
    // Without a user these are the properties of the manager itself.
    let manager = properties(&loginctl, &["show-user"])?;
    let own = properties(&loginctl, &["show-user", &user.to_string()]);
    let lingers = own.and_then(|own| Some(value(&own, "Linger")? == "yes"));
    Some(Session { kills: kills(&manager, name), lingers })
}

/// `KillUserProcesses=`, and the lists of those for whom alone it holds and for whom it does not.
fn kills(manager: &str, name: &str) -> bool {
    let listed = |key| value(manager, key).is_some_and(|names| names.split(' ').any(|listed| listed == name));
    let for_all = value(manager, "KillOnlyUsers").is_none_or(str::is_empty);
    value(manager, "KillUserProcesses") == Some("yes")
        && !listed("KillExcludeUsers")
        && (for_all || listed("KillOnlyUsers"))
}

/// The value in a line `KEY=VALUE`.
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
    fn logging_out_kills_whom_the_administrator_says() {
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
