//! The files and directories of `up`: full, read-only, deleted, with odd names.

use std::os::unix::fs::PermissionsExt as _;

use crate::support::Sandbox;
use crate::{assert_nothing_left, down};

#[test]
#[cfg(target_os = "linux")] // The file systems of others refuse such names.
fn the_directory_has_a_name_that_is_not_text() {
    use std::os::unix::ffi::OsStrExt as _;
    let sandbox = Sandbox::new();
    let directory = sandbox.root().join(std::ffi::OsStr::from_bytes(b"not \xff text"));
    std::fs::rename(sandbox.config_dir(), &directory).expect("the sandbox is writable");
    let fusion = |word| sandbox.fusion(["ollama", word]).env("FUSION_CONFIG_DIR", &directory).run();
    fusion("up").assert_code(0);
    assert!(fusion("log").assert_code(0).stdout().contains("listening on "));
    fusion("down").assert(0, "ollama is down\n", "");
    sandbox.assert_nothing_runs();
}

/// Writes fail at the first byte, or after a block, where the record is larger: as on a disk that is full.
#[test]
fn the_disk_is_full() {
    let program = env!("CARGO_BIN_EXE_fusion");
    for blocks in [0, 1] {
        let sandbox = Sandbox::new();
        sandbox.configure(&format!("args = [\"{}\"]", "long".repeat(1000)), "");
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; \"$0\" ollama up");
        let up = sandbox.command("/bin/sh").arg("-c").arg(&script).arg(program).run().assert_code(1);
        assert!(up.stderr().contains("config/ollama"), "{blocks}: {}", up.stderr());
        assert_eq!(up.stdout(), "");
        assert_nothing_left(&sandbox, "ollama");
    }
}

#[test]
fn the_working_directory_is_deleted() {
    let sandbox = Sandbox::new();
    let gone = sandbox.root().join("gone");
    std::fs::create_dir(&gone).expect("the sandbox is writable");
    let program = env!("CARGO_BIN_EXE_fusion");
    let script = "rmdir \"$PWD\"; \"$0\" ollama up; \"$0\" ollama ps >/dev/null && \"$0\" ollama restart";
    let command = sandbox.command("/bin/sh").arg("-c").arg(script).arg(program).directory(&gone);
    command.run().assert_code(0);
    down(&sandbox, "ollama");
}

#[test]
fn the_directory_cannot_be_written() {
    if nix::unistd::geteuid().is_root() {
        // Nothing is read-only to root; a file in the directory's place is in the way of everybody.
        let sandbox = Sandbox::new();
        std::fs::write(sandbox.config_dir().join("ollama"), "").expect("the sandbox is writable");
        let up = sandbox.fusion(["ollama", "up"]).run().assert_code(1);
        assert!(up.stderr().contains("config/ollama"), "{}", up.stderr());
        sandbox.assert_nothing_runs();
        return;
    }
    let sandbox = Sandbox::new();
    let directory = sandbox.config_dir().join("ollama");
    std::fs::create_dir(&directory).expect("the sandbox is writable");
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o500)).expect("own directory");
    let up = sandbox.fusion(["ollama", "up"]).run().assert_code(1);
    assert!(up.stderr().contains("config/ollama"), "{}", up.stderr());
    sandbox.assert_nothing_runs();
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o700)).expect("own directory");
}

#[test]
fn the_log_is_a_symbolic_link() {
    let sandbox = Sandbox::new();
    let precious = sandbox.root().join("precious");
    std::fs::write(&precious, "precious\n").expect("the sandbox is writable");
    std::fs::create_dir(sandbox.config_dir().join("ollama")).expect("the sandbox is writable");
    std::os::unix::fs::symlink(&precious, sandbox.file("ollama", "ollama.log")).expect("a link");
    let up = sandbox.fusion(["ollama", "up"]).run().assert_code(1);
    assert!(up.stderr().contains("symbolic link"), "{}", up.stderr());
    assert_eq!(std::fs::read_to_string(&precious).expect("still there"), "precious\n");
    assert_nothing_left(&sandbox, "ollama");
}
