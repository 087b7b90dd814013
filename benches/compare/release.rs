//! Builds the program as it is released.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Returns the program. What Cargo has built for a benchmark has the features of the tests and another profile.
pub(crate) fn build() -> Result<PathBuf> {
    let mut cargo = Command::new(env!("CARGO"));
    let arguments = ["build", "--quiet", "--release", "--locked", "--bin", "fusion"];
    let built = cargo.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).status()?;
    ensure!(built.success(), "fusion does not compile");
    let profile = Path::new(env!("CARGO_BIN_EXE_fusion")).parent().context("no target directory")?;
    Ok(profile.with_file_name("release").join("fusion"))
}
