//! The programs that install Python packages, and their commands.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::InstallError;
use crate::core::executables::on_path;
use crate::core::runtimes::PythonPackage;

/// A program that makes Python environments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tool {
    /// uv, which downloads a Python if there is none.
    Uv(PathBuf),
    /// A Python with its `venv` module and pip.
    Python(PathBuf),
}

/// How many minor versions after the oldest supported one are searched by name.
const NEWER_MINOR_VERSIONS: u32 = 5;

/// Prints the version of a Python. Fails without the modules for environments, which Debian packages separately.
const PROBE: &str = "import sys; print(*sys.version_info[:2], flush=True); import venv, ensurepip";

impl Tool {
    /// Returns uv, else the first suitable Python on `PATH`.
    pub(super) fn find(package: &PythonPackage, search: Option<&OsStr>) -> Result<Self, InstallError> {
        if let Some(uv) = on_path("uv", search) {
            return Ok(Self::Uv(uv));
        }
        let (major, oldest) = package.python;
        let mut names = vec![format!("python{major}")];
        names.extend((oldest..=oldest + NEWER_MINOR_VERSIONS).map(|minor| format!("python{major}.{minor}")));
        names.push("python".to_owned());

        let mut reason = InstallError::NoPython { oldest: package.python };
        let found = names.iter().filter_map(|name| on_path(name, search));
        for path in found.filter(|path| !opens_dialog(path, cfg!(target_os = "macos"))) {
            match examine(&path) {
                Some((version, true)) if version >= package.python => return Ok(Self::Python(path)),
                // The error reports why the first Python is unsuitable.
                Some((version, _)) if version >= package.python => reason = InstallError::NoVenv { path },
                Some((found, _)) if matches!(reason, InstallError::NoPython { .. }) => {
                    reason = InstallError::PythonTooOld { path, found, oldest: package.python };
                }
                _ => {}
            }
        }
        Err(reason)
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Uv(_) => "uv",
            Self::Python(_) => "pip",
        }
    }

    /// Returns the commands that make the environment `directory` with `package` in it.
    ///
    /// `-I` keeps `PYTHONPATH` and the user's own packages out of the environment.
    /// With `managed`, uv looks for no Python of the system.
    pub(super) fn commands(&self, package: &PythonPackage, directory: &Path, managed: bool) -> [Command; 2] {
        let python = directory.join("bin/python");
        let (major, minor) = package.python;
        match self {
            Self::Uv(uv) => {
                let mut make = Command::new(uv);
                make.arg("venv").args(managed.then_some("--managed-python"));
                make.args(["--python", &format!(">={major}.{minor}")]).arg(directory);
                let mut fill = Command::new(uv);
                fill.args(["pip", "install", "--python"]).arg(python).arg(package.requirement());
                [make, fill]
            }
            Self::Python(path) => {
                let mut make = Command::new(path);
                make.args(["-I", "-m", "venv"]).arg(directory);
                let mut fill = Command::new(python);
                fill.args(["-I", "-m", "pip", "--disable-pip-version-check", "install"])
                    .args(["--no-input", "--no-user"])
                    .arg(package.requirement());
                [make, fill]
            }
        }
    }
}

/// Returns whether the system offers to install Apple's developer tools when its `python3` runs, which uv does too, as
/// `xcode_select` tells. fusion does not need them.
pub(super) fn lacks_developer_tools(xcode_select: &Path) -> bool {
    Command::new(xcode_select).arg("-p").output().is_ok_and(|output| !output.status.success())
}

/// Returns whether a Python only asks the user to install Apple's developer tools. Theirs is too old in any case.
fn opens_dialog(python: &Path, on_macos: bool) -> bool {
    on_macos && python.parent() == Some(Path::new("/usr/bin"))
}

/// Returns the version of a Python, and whether it can make environments; `None` if it does not run.
fn examine(python: &Path) -> Option<((u32, u32), bool)> {
    let probe = Command::new(python)
        .args(["-I", "-c", PROBE])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(probe.stdout).ok()?;
    let (major, minor) = text.trim().split_once(' ')?;
    Some(((major.parse().ok()?, minor.parse().ok()?), probe.status.success()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_programs::write_program;

    const PACKAGE: PythonPackage = PythonPackage {
        name: "mlx-lm",
        extra: Some("cpu"),
        versions: ("0.32.2", "0.33"),
        python: (3, 11),
        macos: 14,
        disk_bytes: 1,
    };

    /// A directory for `PATH` with programs that print `text` and exit with `code`.
    fn programs(list: &[(&str, &str, i32)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text, code) in list {
            let script = format!("#!/bin/sh\necho '{text}'\nexit {code}\n");
            write_program(&directory.path().join(name), &script);
        }
        directory
    }

    fn find(list: &[(&str, &str, i32)]) -> Result<Tool, String> {
        let directory = programs(list);
        let shorten = |path: PathBuf| path.strip_prefix(directory.path()).unwrap().to_owned();
        match Tool::find(&PACKAGE, Some(directory.path().as_os_str())) {
            Ok(Tool::Uv(path)) => Ok(Tool::Uv(shorten(path))),
            Ok(Tool::Python(path)) => Ok(Tool::Python(shorten(path))),
            Err(error) => Err(error.to_string().replace(&format!("{}/", directory.path().display()), "")),
        }
    }

    #[test]
    fn apples_python_is_not_run() {
        assert!(opens_dialog(Path::new("/usr/bin/python3"), true));
        assert!(!opens_dialog(Path::new("/usr/bin/python3"), false));
        assert!(!opens_dialog(Path::new("/opt/homebrew/bin/python3"), true));
    }

    #[test]
    fn without_developer_tools_uv_looks_for_none() {
        let directory = programs(&[("there", "/Library/Developer/CommandLineTools", 0), ("missing", "", 2)]);
        let lacks = |name: &str| lacks_developer_tools(&directory.path().join(name));
        assert_eq!([lacks("there"), lacks("missing"), lacks("none")], [false, true, false]);
        let made = |managed| {
            let [make, _] = Tool::Uv("uv".into()).commands(&PACKAGE, Path::new("/x"), managed);
            make.get_args().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(made(true), "venv --managed-python --python >=3.11 /x");
        assert_eq!(made(false), "venv --python >=3.11 /x");
    }

    #[test]
    fn uv_precedes_first_suitable_python() {
        assert_eq!(find(&[("uv", "", 0), ("python3", "3 12", 0)]), Ok(Tool::Uv("uv".into())));
        assert_eq!(find(&[("python3", "3 12", 0)]), Ok(Tool::Python("python3".into())));
        assert_eq!(
            find(&[("python3", "3 9", 0), ("python3.13", "3 13", 0)]),
            Ok(Tool::Python("python3.13".into()))
        );
        assert_eq!(
            find(&[("python3", "3 12", 1), ("python3.11", "3 11", 0)]),
            Ok(Tool::Python("python3.11".into()))
        );
    }

    #[test]
    fn errors_name_missing_old_or_incomplete_python() {
        assert_eq!(find(&[]), Err("neither uv nor Python 3.11 or newer is on PATH".to_owned()));
        assert_eq!(
            find(&[("python3", "3 9", 0)]),
            Err("python3 is Python 3.9, and 3.11 or newer is needed".to_owned())
        );
        assert_eq!(
            find(&[("python3", "3 12", 1), ("python", "3 9", 0)]),
            Err("python3 has no venv module".to_owned())
        );
        // The stub of macOS prints nothing and fails.
        assert_eq!(
            find(&[("python3", "", 1)]),
            Err("neither uv nor Python 3.11 or newer is on PATH".to_owned())
        );
    }
}
