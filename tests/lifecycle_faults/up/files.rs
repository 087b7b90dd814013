//! The files and directories of `up`: full, read-only, deleted, with unusual names.

use std::os::unix::fs::PermissionsExt as _;

use crate::support::matrix::{assert_shows, for_each_service};
use crate::{Finished, Sandbox, assert_nothing_left, assert_up_fails, down, log_lines_hidden, skipped, up};

#[test]
#[cfg(target_os = "linux")] // Other systems refuse such names.
fn the_directory_may_have_a_non_text_name() {
    use std::os::unix::ffi::OsStrExt as _;
    for_each_service(&[], |sandbox, service| {
        let directory = sandbox.root().join(std::ffi::OsStr::from_bytes(b"not \xff text"));
        std::fs::rename(sandbox.config_dir(), &directory).expect("the sandbox is writable");
        let fusion = |word| sandbox.fusion([service, word]).env("FUSION_CONFIG_DIR", &directory).run();
        fusion("up").assert_code(0);
        fusion("ps").assert_code(0);
        assert!(fusion("log").assert_code(0).stdout().contains("listening on "));
        fusion("restart").assert_code(0);
        fusion("down").assert_code(0).assert_stdout(&format!("{service} is down\n"));
        sandbox.assert_nothing_runs();
    });
}

/// Who may write there can replace the record, and so choose what is stopped.
#[test]
fn a_service_directory_of_others_is_refused() {
    for_each_service(&[], |sandbox, service| {
        let directory = sandbox.file(service, "");
        std::fs::create_dir(&directory).expect("the sandbox is writable");
        let others_may = |mode| {
            std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(mode)).expect("it is ours");
        };
        others_may(0o770);
        for command in ["up", "ps", "down", "restart", "health"] {
            let refused = sandbox.fusion([service, command]).run().assert_code(2);
            assert_eq!(refused.stdout(), "", "{refused}");
            let words = format!(
                "{} is writable by other users",
                directory.display().to_string().trim_end_matches('/')
            );
            assert!(refused.stderr().contains(&words), "{refused}");
            assert!(refused.stderr().contains("hint: chmod go-w "), "{refused}");
        }
        sandbox.assert_nothing_runs();
        let doctor = sandbox.fusion(["doctor"]).run().assert_code(1);
        assert!(doctor.stdout().contains("is writable by other users"), "{doctor}");
        others_may(0o755);
        if !nix::unistd::geteuid().is_root() {
            return skipped("a directory of another user", "only root can give it away");
        }
        let nobody = |path: &std::path::Path, user| {
            std::os::unix::fs::chown(path, Some(user), None).expect("we are root");
        };
        nobody(&directory, 65534);
        let refused = sandbox.fusion([service, "up"]).run().assert_code(2);
        assert!(refused.stderr().contains("belongs to user 65534"), "{refused}");
        nobody(&directory, 0);
        let config = sandbox.config_dir().join("config.toml");
        nobody(&config, 65534);
        let refused = sandbox.fusion([service, "up"]).run().assert_code(2);
        assert!(refused.stderr().contains("config.toml belongs to user 65534"), "{refused}");
    });
}

/// Nothing can run from a directory that was never written.
#[test]
fn down_on_a_read_only_directory_is_done() {
    for_each_service(&[], |sandbox, service| {
        let directory = sandbox.config_dir();
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o500)).expect("it is ours");
        // No mode stops root.
        let script = if nix::unistd::geteuid().is_root() {
            &format!(
                "mount --bind \"$1\" \"$1\" && mount -o remount,ro,bind \"$1\" && exec \"$0\" {service} down"
            )
        } else {
            &format!("exec \"$0\" {service} down")
        };
        let shell = sandbox.command("unshare").arg("-m").arg("--propagation").arg("private").arg("/bin/sh");
        let shell = if script.starts_with("exec") { sandbox.command("/bin/sh") } else { shell };
        let down = shell.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_fusion")).arg(&directory).run();
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o700)).expect("it is ours");
        assert_shows(&down, service, "exit 0\n[stdout]\n[SERVICE] is down");
    });
}

/// The disk fills up after the record was written, and every request of the server then fails.
#[test]
fn a_disk_that_fills_ends_a_start() {
    const MOUNT: &str = "mount -t tmpfs -o size=256k,mode=700 tmpfs \"$1\"";
    for_each_service(&["status=500"], |sandbox, service| {
        let disk = sandbox.root().join("disk");
        std::fs::create_dir(&disk).expect("the sandbox is writable");
        let unshared = |script: &str| {
            let shell =
                sandbox.command("unshare").arg("-m").arg("--propagation").arg("private").arg("/bin/sh");
            shell.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_fusion")).arg(&disk).arg(sandbox.config_dir())
        };
        if !unshared(MOUNT).into_command().output().is_ok_and(|output| output.status.success()) {
            return skipped("a full disk", "only root on Linux can mount one");
        }
        let script = format!(
            "{MOUNT} && cp \"$2/config.toml\" \"$1\" && export FUSION_CONFIG_DIR=\"$1\" || exit
            \"$0\" {service} up --timeout 600 & up=$!
            until [ -e \"$1/{service}/{service}.pid\" ] && [ -s \"$1/{service}/{service}.log\" ]; do sleep 0.01; done
            dd if=/dev/zero of=\"$1/fill\" bs=4k 2>/dev/null
            wait $up"
        );
        let up = log_lines_hidden(&unshared(&script).run());
        let status = if service == "ollama" { "without an Ollama version" } else { "" };
        assert!(up.starts_with("exit 6\n") && up.contains(&format!("HTTP 500 {status}")), "{up}");
        assert!(up.contains(&format!("  caused by: no space is left in [ROOT]/disk/{service}\n")), "{up}");
        let hint = format!("hint: free some space, then start it again: fusion {service} up");
        assert!(up.ends_with(&hint), "{up}");
        sandbox.assert_nothing_runs();
    });
}

/// Writes fail at the first byte, or after a block, which is smaller than the record.
#[test]
fn up_fails_cleanly_on_a_full_disk() {
    for blocks in [0, 1] {
        for_each_service(
            &["print=[ROOT]/that/makes/a/record/which/is/larger/than/a/block"],
            |sandbox, service| {
                let up = on_a_full_disk(sandbox, blocks, &format!("{service} up")).assert_code(1);
                let file = sandbox.file(service, "state.json");
                assert!(up.stderr().contains(&file.display().to_string()), "{up}");
                assert!(up.stderr().contains("  caused by: File too large"), "{up}");
                assert_nothing_left(sandbox, service);
            },
        );
    }
}

#[test]
fn a_server_is_stopped_on_a_full_disk() {
    for_each_service(&[], |sandbox, service| {
        up(sandbox, service);
        on_a_full_disk(sandbox, 0, &format!("{service} down")).assert_code(0);
        assert_nothing_left(sandbox, service);
    });
}

/// Runs fusion where every write fails after so many blocks.
fn on_a_full_disk(sandbox: &Sandbox, blocks: u32, line: &str) -> Finished {
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; \"$0\" {line}");
    sandbox.command("/bin/sh").arg("-c").arg(&script).arg(env!("CARGO_BIN_EXE_fusion")).run()
}

#[test]
fn commands_work_in_a_deleted_directory() {
    for_each_service(&[], |sandbox, service| {
        let gone = sandbox.root().join("gone");
        std::fs::create_dir(&gone).expect("the sandbox is writable");
        let program = env!("CARGO_BIN_EXE_fusion");
        let script = "rmdir \"$PWD\"; \"$0\" \"$1\" up; \"$0\" \"$1\" ps >/dev/null && \"$0\" \"$1\" restart";
        let command =
            sandbox.command("/bin/sh").arg("-c").arg(script).arg(program).arg(service).directory(&gone);
        command.run().assert_code(0);
        down(sandbox, service);
    });
}

#[test]
fn up_fails_if_its_directory_is_read_only() {
    for_each_service(&[], |sandbox, service| {
        let directory = sandbox.config_dir().join(service);
        if nix::unistd::geteuid().is_root() {
            // Root may write in a read-only directory, but not make one where a file is.
            std::fs::write(&directory, "").expect("the sandbox is writable");
        } else {
            std::fs::create_dir(&directory).expect("the sandbox is writable");
            std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o500))
                .expect("own directory");
        }
        let up = sandbox.fusion([service, "up"]).run().assert_code(1);
        assert!(up.stderr().contains(&format!("config/{service}")), "{up}");
        sandbox.assert_nothing_runs();
        if directory.is_dir() {
            std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o700))
                .expect("own directory");
        }
    });
}

#[test]
fn up_refuses_a_linked_log() {
    for_each_service(&[], |sandbox, service| {
        let precious = sandbox.root().join("precious");
        std::fs::write(&precious, "precious\n").expect("the sandbox is writable");
        std::fs::create_dir(sandbox.config_dir().join(service)).expect("the sandbox is writable");
        let log = sandbox.file(service, &format!("{service}.log"));
        std::os::unix::fs::symlink(&precious, &log).expect("a link");
        let up = assert_up_fails(sandbox, service, 1);
        assert_eq!(up.stderr(), format!("error: {} is a symbolic link\n", log.display()));
        assert_eq!(std::fs::read_to_string(&precious).expect("still there"), "precious\n");
    });
}
