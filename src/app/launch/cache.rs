//! What `launch` has found out before: versions of programs, and models that call tools.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::core::files;
use crate::core::json_object;

const MAX_BYTES: u64 = 1 << 20;

/// How long another process may write.
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);

/// A file of findings. A damaged or missing one is empty; one that cannot be written costs time, not correctness.
#[derive(Debug)]
pub(super) struct Cache {
    directory: PathBuf,
}

#[derive(Debug, Default)]
struct Findings {
    /// By the path of the program: a version, and the stamp of the program that has it.
    versions: Map<String, Value>,
    /// What identifies models that call tools.
    calls_tools: Vec<Value>,
}

impl Cache {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Returns the version of a program that has not changed since.
    pub(super) fn version(&self, program: &Path) -> Option<String> {
        let findings = self.read();
        let known = findings.versions.get(&program.display().to_string())?;
        (known["stamp"] == stamp(program)?).then(|| known["version"].as_str().map(str::to_owned))?
    }

    pub(super) fn add_version(&self, program: &Path, version: &str) {
        let Some(stamp) = stamp(program) else { return };
        let found = json!({ "stamp": stamp, "version": version });
        self.change(|findings| {
            findings.versions.insert(program.display().to_string(), found);
        });
    }

    pub(super) fn calls_tools(&self, key: &str) -> bool {
        self.read().calls_tools.iter().any(|known| known == key)
    }

    pub(super) fn add_calls_tools(&self, key: &str) {
        self.change(|findings| findings.calls_tools.push(key.into()));
    }

    fn file(&self) -> PathBuf {
        self.directory.join("cache.json")
    }

    fn read(&self) -> Findings {
        let bytes = files::read(&self.file(), MAX_BYTES).ok().flatten().unwrap_or_default();
        let mut json: Value = json_object::parse(&bytes).unwrap_or_default();
        let mut taken = |name| json.get_mut(name).map(Value::take).unwrap_or_default();
        Findings {
            versions: if let Value::Object(versions) = taken("versions") { versions } else { Map::new() },
            calls_tools: if let Value::Array(keys) = taken("calls_tools") { keys } else { Vec::new() },
        }
    }

    fn change(&self, change: impl FnOnce(&mut Findings)) {
        let write = || {
            files::make_directory(&self.directory).ok()?;
            let lock = self.directory.join("cache.lock");
            let _lock = files::Lock::acquire(&lock, LOCK_TIMEOUT, &|| false).ok()?;
            let mut findings = self.read();
            change(&mut findings);
            let json = json!({ "versions": findings.versions, "calls_tools": findings.calls_tools });
            files::replace(&self.file(), json.to_string().as_bytes()).ok()
        };
        // Without it, the next launch finds it out again.
        let _ = write();
    }
}

/// Returns size and time of the last change. Of the program itself, for a link to it stays when the program is
/// replaced.
fn stamp(program: &Path) -> Option<String> {
    let metadata = program.metadata().ok()?;
    Some(format!("{} {}.{:09}", metadata.size(), metadata.mtime(), metadata.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_program_has_no_known_version() {
        let home = tempfile::tempdir().unwrap();
        let (cache, program) = (Cache::new(home.path().join("agents")), home.path().join("codex"));
        std::fs::write(&program, "one").unwrap();
        assert_eq!(cache.version(&program), None);
        cache.add_version(&program, "0.171.0");
        assert_eq!(cache.version(&program).as_deref(), Some("0.171.0"));
        std::fs::write(&program, "other").unwrap();
        assert_eq!(cache.version(&program), None);
    }

    #[test]
    fn a_damaged_cache_is_empty() {
        let home = tempfile::tempdir().unwrap();
        let cache = Cache::new(home.path().to_owned());
        cache.add_calls_tools("one");
        cache.add_calls_tools("two");
        assert!(cache.calls_tools("one") && cache.calls_tools("two") && !cache.calls_tools("three"));
        std::fs::write(cache.file(), "{").unwrap();
        assert!(!cache.calls_tools("one"));
        cache.add_calls_tools("one");
        assert!(cache.calls_tools("one"));
    }
}
