//! What the hub has answered within the last day.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::core::files;
use crate::core::json_object;

/// How long an answer is used.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Longer answers are not kept.
const MAX_BYTES: u64 = 8 << 20;

/// How long another process may write.
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);

/// A directory with one file for each answer. What is damaged or cannot be written costs time, not correctness.
#[derive(Debug)]
pub(super) struct SearchCache {
    directory: PathBuf,
}

impl SearchCache {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Returns the answer to a question, unless it is older than a day.
    pub(super) fn get(&self, question: &str) -> Option<Value> {
        let file = self.file(question);
        if !is_fresh(&file) {
            return None;
        }
        let bytes = files::read(&file, MAX_BYTES).ok()??;
        let mut kept: Value = json_object::parse(&bytes).ok()?;
        (kept["question"] == question).then(|| kept["answer"].take())
    }

    /// Keeps an answer, and removes those that are too old.
    pub(super) fn put(&self, question: &str, answer: &Value) {
        let write = || {
            files::make_directory(&self.directory).ok()?;
            let _lock = files::Lock::acquire(&self.directory.join("lock"), LOCK_TIMEOUT, &|| false).ok()?;
            self.remove_old();
            let kept = json!({ "question": question, "answer": answer }).to_string();
            let is_short = u64::try_from(kept.len()).is_ok_and(|length| length <= MAX_BYTES);
            is_short.then(|| files::replace(&self.file(question), kept.as_bytes()).ok())?
        };
        // Without it, the next search asks again.
        let _ = write();
    }

    fn file(&self, question: &str) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        question.hash(&mut hasher);
        self.directory.join(format!("{:016x}.json", hasher.finish()))
    }

    fn remove_old(&self) {
        let mut old = files::entries(&self.directory);
        old.retain(|path| path.extension().is_some() && !is_fresh(path));
        for file in old {
            let _ = files::remove(&file);
        }
    }
}

/// Returns whether the file was written within the last day; one of the future was not.
fn is_fresh(file: &Path) -> bool {
    let age = file.symlink_metadata().ok().and_then(|metadata| metadata.modified().ok()?.elapsed().ok());
    age.is_some_and(|age| age < LIFETIME)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn answers_are_kept_for_a_day() {
        let home = tempfile::tempdir().unwrap();
        let cache = SearchCache::new(home.path().join("searches"));
        assert_eq!(cache.get("a"), None);
        cache.put("a", &json!([1]));
        cache.put("b", &json!({}));
        assert_eq!(cache.get("a"), Some(json!([1])));
        let set_age = |hours: u64, future: bool| {
            let age = Duration::from_secs(hours * 60 * 60);
            let now = SystemTime::now();
            let moment = if future { now + age } else { now - age };
            std::fs::File::options().write(true).open(cache.file("a")).unwrap().set_modified(moment).unwrap();
        };
        set_age(23, false);
        assert_eq!(cache.get("a"), Some(json!([1])));
        for (hours, future) in [(25, false), (1, true)] {
            set_age(hours, future);
            assert_eq!(cache.get("a"), None);
        }
        cache.put("b", &json!({}));
        assert!(!cache.file("a").exists() && cache.file("b").exists());
    }

    #[test]
    fn a_damaged_answer_is_none() {
        let home = tempfile::tempdir().unwrap();
        let cache = SearchCache::new(home.path().to_owned());
        for content in ["", "{", "[]", r#"{"question":"other","answer":1}"#, "null"] {
            std::fs::write(cache.file("a"), content).unwrap();
            assert_eq!(cache.get("a"), None, "{content}");
        }
    }
}
