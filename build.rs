//! Tells the binary which commit and target it was built from, for `fusion --version --verbose`, and links it small.

use std::path::Path;
use std::process::Command;

#[expect(clippy::disallowed_methods, reason = "that is how cargo talks to build scripts")]
fn main() {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let (target, host) = (variable("TARGET"), variable("HOST"));
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=FUSION_COMMIT={commit}");
    println!("cargo::rustc-env=FUSION_TARGET={target}");
    // Spares every test that has a snapshot a run of `cargo metadata`.
    println!("cargo::rustc-env=INSTA_WORKSPACE_ROOT={}", variable("CARGO_MANIFEST_DIR"));
    println!("cargo::rerun-if-changed=build.rs");
    // Where HEAD and the branch it names are written; absent when built from an archive.
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    if target != host {
        return;
    }
    let link = |option: &str| println!("cargo::rustc-link-arg-bin=fusion=-Wl,{option}");
    if target.ends_with("-linux-gnu") && loader_reads_packed_relocations() {
        // 128 KB fewer, and fewer pages to read at each start.
        link("-z,pack-relative-relocs");
    }
    if target == "x86_64-unknown-linux-gnu"
        && linker_is_lld(&variable("RUSTC"), &variable("CARGO_ENCODED_RUSTFLAGS"))
    {
        // One copy of functions with the same code: 45 KB fewer.
        link("--icf=all");
    }
}

/// Returns whether rustc links with the lld that comes with it, which is its default on this target.
fn linker_is_lld(rustc: &str, flags: &str) -> bool {
    let sysroot = output(Command::new(rustc).args(["--print", "sysroot"])).unwrap_or_default();
    let lld = Path::new(&sysroot).join("lib/rustlib/x86_64-unknown-linux-gnu/bin/gcc-ld/ld.lld");
    lld.exists() && !["linker", "fuse-ld"].iter().any(|other| flags.contains(other))
}

/// Returns whether the C library of this machine is glibc 2.36 or newer, whose loader reads packed relocations.
fn loader_reads_packed_relocations() -> bool {
    let version = output(Command::new("getconf").arg("GNU_LIBC_VERSION")).unwrap_or_default();
    let minor =
        version.strip_prefix("glibc 2.").and_then(|minor| minor.split('.').next()?.parse::<u32>().ok());
    minor.is_some_and(|minor| minor >= 36)
}

fn git(arguments: &[&str]) -> Option<String> {
    output(Command::new("git").args(arguments))
}

/// Returns what a program prints, without the end of its line, if it succeeds.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
