//! Replacing files of a model: they are moved aside, and move back unless the download succeeds.
//!
//! The aside directory survives the death of fusion; the next replacement then restores from it first.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{CachedModel, HubCache, HubCacheError, io_error, remove_directory, walk};
use crate::core::models::directory::is_inside;

/// In the model's directory; the paths in it are those of the moved files.
const ASIDE: &str = ".fusion-aside";

/// The commit of the newest files. The hub's tool changes it before it downloads, so a failed update would leave
/// the model without files.
const REFERENCE: &str = "refs/main";

/// Files that are moved aside. They move back when this is dropped before [`Replacement::finish`].
#[derive(Debug)]
pub struct Replacement {
    directory: PathBuf,
    aside: PathBuf,
    is_finished: bool,
}

impl Replacement {
    /// Keeps the commit of `model`, and moves `files` of its snapshot aside together with their blobs.
    pub fn begin(cache: &HubCache, model: &CachedModel, files: &[String]) -> Result<Self, HubCacheError> {
        let directory = model.directory.clone();
        let aside = directory.join(ASIDE);
        if (aside.exists() || !files.is_empty()) && cache.is_downloading(model) {
            return Err(HubCacheError::Busy { name: model.name.clone() });
        }
        let replacement = Self { directory, aside, is_finished: false };
        replacement.restore()?;
        if replacement.directory.join(REFERENCE).is_file() {
            replacement.keep_reference()?;
        }
        if let Some(snapshot) = model.snapshot() {
            for file in files.iter().filter(|file| is_inside(file)) {
                replacement.move_file(&snapshot.join(file))?;
            }
        }
        Ok(replacement)
    }

    /// Removes the files that were moved aside: their replacements are on the disk.
    pub fn finish(mut self) -> Result<(), HubCacheError> {
        self.is_finished = true;
        remove_directory(&self.aside)
    }

    /// Copies the reference now: restoring it by a rename needs no space on a full disk.
    fn keep_reference(&self) -> Result<(), HubCacheError> {
        let (from, to) = (self.directory.join(REFERENCE), self.aside.join(REFERENCE));
        make_parent(&to)?;
        fs::copy(&from, &to).map(drop).map_err(io_error("copy", &from))
    }

    fn move_file(&self, entry: &Path) -> Result<(), HubCacheError> {
        let blobs = self.directory.join("blobs");
        let blob = fs::read_link(entry).ok().and_then(|target| Some(blobs.join(target.file_name()?)));
        let is_there = |path: &PathBuf| path.symlink_metadata().is_ok();
        for path in [Some(entry.to_owned()), blob].into_iter().flatten().filter(is_there) {
            let Ok(inside) = path.strip_prefix(&self.directory) else { continue };
            rename(&path, &self.aside.join(inside))?;
        }
        Ok(())
    }

    /// Moves everything back, except where a replacement is.
    fn restore(&self) -> Result<(), HubCacheError> {
        for path in walk(&self.aside) {
            let Ok(inside) = path.strip_prefix(&self.aside) else { continue };
            let place = self.directory.join(inside);
            if inside == Path::new(REFERENCE) || place.symlink_metadata().is_err() {
                rename(&path, &place)?;
            }
        }
        remove_directory(&self.aside)
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.is_finished {
            // The next replacement restores what cannot be restored now.
            let _ = self.restore();
        }
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), HubCacheError> {
    make_parent(to)?;
    fs::rename(from, to).map_err(io_error("move", from))
}

fn make_parent(path: &Path) -> Result<(), HubCacheError> {
    let parent = path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput));
    parent.and_then(fs::create_dir_all).map_err(io_error("create the directory of", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::models::hub::tests::cache_with;

    /// Everything in the model's directory, with the content of files.
    fn content(model: &CachedModel) -> Vec<(PathBuf, Option<Vec<u8>>)> {
        let mut all: Vec<_> =
            walk(&model.directory).into_iter().map(|path| (path.clone(), fs::read(path).ok())).collect();
        all.sort();
        all
    }

    #[test]
    fn a_failed_replacement_restores_everything() -> anyhow::Result<()> {
        let (_root, cache) = cache_with("org/tiny")?;
        let model = cache.model("org/tiny")?;
        let before = content(&model);
        let replacement = Replacement::begin(
            &cache,
            &model,
            &["model.safetensors".to_owned(), "../../refs/main".to_owned()],
        )?;
        assert!(!model.directory.join("blobs/bb").exists());
        assert!(!model.directory.join("snapshots/c0ffee/model.safetensors").is_symlink());
        assert!(model.directory.join("snapshots/c0ffee/config.json").exists());
        // A download that is interrupted has changed the commit.
        fs::write(model.directory.join(REFERENCE), "beef")?;
        drop(replacement);
        assert_eq!(content(&model), before);
        Ok(())
    }

    #[test]
    fn a_replacement_that_arrived_stays() -> anyhow::Result<()> {
        let (_root, cache) = cache_with("org/tiny")?;
        let model = cache.model("org/tiny")?;
        for succeeds in [false, true] {
            let replacement = Replacement::begin(&cache, &model, &["model.safetensors".to_owned()])?;
            fs::write(model.directory.join("blobs/bb"), "new")?;
            std::os::unix::fs::symlink(
                "../../blobs/bb",
                model.directory.join("snapshots/c0ffee/model.safetensors"),
            )?;
            if succeeds {
                replacement.finish()?;
            } else {
                drop(replacement);
            }
            assert_eq!(fs::read(model.directory.join("snapshots/c0ffee/model.safetensors"))?, b"new");
            assert!(!model.directory.join(ASIDE).exists());
        }
        Ok(())
    }

    #[test]
    fn files_left_aside_are_restored_first() -> anyhow::Result<()> {
        let (_root, cache) = cache_with("org/tiny")?;
        let model = cache.model("org/tiny")?;
        let before = content(&model);
        // As after SIGKILL.
        std::mem::forget(Replacement::begin(&cache, &model, &["model.safetensors".to_owned()])?);
        drop(Replacement::begin(&cache, &model, &[])?);
        assert_eq!(content(&model), before);
        Ok(())
    }

    #[test]
    fn a_model_without_files_needs_nothing() -> anyhow::Result<()> {
        let root = tempfile::tempdir()?;
        let cache = HubCache::new(root.path());
        let model = cache.model("org/tiny")?;
        Replacement::begin(&cache, &model, &[])?.finish()?;
        assert!(!model.directory.exists());
        Ok(())
    }

    #[test]
    fn nothing_moves_during_another_download() -> anyhow::Result<()> {
        let (_root, cache) = cache_with("org/tiny")?;
        let model = cache.model("org/tiny")?;
        let before = content(&model);
        fs::create_dir_all(cache.locks(&model))?;
        let lock = fs::File::create(cache.locks(&model).join("bb.lock"))?;
        lock.lock()?;
        let refused = Replacement::begin(&cache, &model, &["model.safetensors".to_owned()]);
        assert!(matches!(refused, Err(HubCacheError::Busy { .. })));
        assert_eq!(content(&model), before);
        Ok(())
    }
}
