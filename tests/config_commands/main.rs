//! `fusion config`, and every fault of a configuration file, through the real binary.

mod edit_link;
mod faults;
mod file_faults;
mod first_use;
mod get;
mod on_a_terminal;
mod page;
mod places;
mod reset;
mod services;
mod set;
mod show;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::{Finished, Sandbox, same_output, table};

/// The sections and values that the fresh file must have.
const FRESH: &str = r#"[ollama_server]
host = "127.0.0.1"
port = 11434
[ollama_run]
model = "llama3.2:3b"
system_prompt = "You are a helpful assistant."
temperature = 0.8
stream = false
[mlx_server]
host = "127.0.0.1"
port = 8080
model = "mlx-community/Llama-3.2-3B-Instruct-4bit"
[mlx_run]
model = "mlx-community/Llama-3.2-3B-Instruct-4bit"
system_prompt = "You are a helpful assistant."
temperature = 0.7
stream = false
"#;

fn config_file(sandbox: &Sandbox) -> PathBuf {
    sandbox.config_dir().join("config.toml")
}

fn text(sandbox: &Sandbox) -> String {
    fs::read_to_string(config_file(sandbox)).expect("the configuration is there and is text")
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("it is there").mode() & 0o7777
}

/// The files in the configuration directory.
fn names(sandbox: &Sandbox) -> Vec<String> {
    let entries = fs::read_dir(sandbox.config_dir()).expect("the directory is there");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[track_caller]
fn config<'a>(sandbox: &Sandbox, arguments: impl IntoIterator<Item = &'a str>) -> Finished {
    sandbox.fusion(["config"].into_iter().chain(arguments)).run_in_process()
}

/// `fusion` under a shell's umask.
fn under_umask(sandbox: &Sandbox, umask: &str, arguments: &str) -> Finished {
    let script = format!("umask {umask}; exec \"$0\" {arguments}");
    sandbox.command("/bin/sh").arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_fusion")).run()
}
