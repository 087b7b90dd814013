//! Tells the binary which commit and target it was built from, for `fusion --version --verbose`.

use std::path::Path;
use std::process::Command;

#[expect(clippy::disallowed_methods, reason = "that is how cargo talks to build scripts")]
fn main() {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=FUSION_COMMIT={commit}");
    println!("cargo::rustc-env=FUSION_TARGET={}", variable("TARGET"));
    // Spares every test that has a snapshot a run of `cargo metadata`.
    println!("cargo::rustc-env=INSTA_WORKSPACE_ROOT={}", variable("CARGO_MANIFEST_DIR"));
    println!("cargo::rerun-if-changed=build.rs");
    // Where HEAD and the branch it names are written; absent when built from an archive.
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
