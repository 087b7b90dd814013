//! Programs that tests write.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// Writes an executable script, by another process: a program cannot be run while a process has it open for writing,
/// and a process that another test starts at that moment would inherit it open.
pub fn write_program(path: &Path, text: &str) {
    let write =
        Command::new("/bin/sh").args(["-c", "printf %s \"$1\" > \"$0\""]).arg(path).arg(text).status();
    assert!(write.is_ok_and(|status| status.success()), "cannot write {}", path.display());
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("its own file");
}
