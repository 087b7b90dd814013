//! A cache laid out as the hub's tool does, and its faults.

use super::*;

/// A cache with one model of two files, laid out as the hub's tool does.
pub(super) fn cache_with(name: &str) -> io::Result<(tempfile::TempDir, HubCache)> {
    let root = tempfile::tempdir()?;
    let model = root.path().join(folder_name(name));
    let snapshot = model.join("snapshots/c0ffee");
    for directory in [&snapshot, &model.join("refs"), &model.join("blobs")] {
        fs::create_dir_all(directory)?;
    }
    fs::write(model.join("refs/main"), "c0ffee")?;
    for (file, blob, bytes) in [("config.json", "aa", 100), ("model.safetensors", "bb", 20_000)] {
        fs::write(model.join("blobs").join(blob), vec![b'x'; bytes])?;
        std::os::unix::fs::symlink(format!("../../blobs/{blob}"), snapshot.join(file))?;
    }
    let cache = HubCache::new(root.path());
    Ok((root, cache))
}

#[test]
fn names_outside_the_cache_are_refused() {
    for name in ["org/model", "gpt2", "mlx-community/Llama-3.2-3B-Instruct-4bit", "a_b/c.d"] {
        assert!(is_model_name(name), "{name}");
    }
    let bad = [
        "",
        "/",
        "..",
        "../x",
        "a/..",
        "/etc/passwd",
        "a/b/c",
        "a//b",
        "./a",
        "a/.b",
        "a b",
        "a\nb",
        "a--b",
        "-a/b",
        "a/b-",
        "a/b.",
        "~/x",
        "é/x",
        "a\\b",
        "a/b\0",
    ];
    for name in bad {
        assert!(!is_model_name(name), "{name:?}");
    }
    assert!(!is_model_name(&format!("org/{}", "x".repeat(97))));
}

#[test]
fn a_model_is_found_and_measured() -> anyhow::Result<()> {
    let (_root, cache) = cache_with("org/tiny")?;
    let models = cache.models()?;
    assert_eq!(models.iter().map(|model| model.name.as_str()).collect::<Vec<_>>(), ["org/tiny"]);
    assert_eq!(models[0].disk_use().bytes, 20_100);
    assert!(models[0].snapshot().is_some_and(|snapshot| snapshot.ends_with("snapshots/c0ffee")));
    assert_eq!(models[0], cache.model("org/tiny")?);
    Ok(())
}

#[test]
fn a_missing_cache_is_empty() -> anyhow::Result<()> {
    assert_eq!(HubCache::new("/nonexistent/hub").models()?, []);
    Ok(())
}

#[test]
fn a_removed_model_leaves_nothing() -> anyhow::Result<()> {
    let (root, cache) = cache_with("org/tiny")?;
    let model = cache.model("org/tiny")?;
    fs::create_dir_all(cache.locks(&model))?;
    fs::write(cache.locks(&model).join("aa.lock"), "")?;
    assert!(cache.remove(&model)? >= 20_100);
    assert!(!model.directory.exists());
    assert!(walk(root.path()).is_empty());
    Ok(())
}

#[test]
fn a_linked_model_directory_is_not_removed() -> anyhow::Result<()> {
    let (_elsewhere, other) = cache_with("org/tiny")?;
    let root = tempfile::tempdir()?;
    let cache = HubCache::new(root.path());
    let model = cache.model("org/tiny")?;
    std::os::unix::fs::symlink(other.model("org/tiny")?.directory, &model.directory)?;
    assert!(matches!(cache.remove(&model), Err(HubCacheError::Escapes { .. })));
    assert_eq!(other.model("org/tiny")?.disk_use().bytes, 20_100);
    assert_eq!(cache.models()?, [model]);
    Ok(())
}

#[test]
fn links_out_of_a_model_are_not_followed() -> anyhow::Result<()> {
    let (_root, cache) = cache_with("org/tiny")?;
    let outside = tempfile::tempdir()?;
    fs::write(outside.path().join("precious"), "precious")?;
    let model = cache.model("org/tiny")?;
    std::os::unix::fs::symlink(outside.path(), model.directory.join("snapshots/link"))?;
    cache.remove(&model)?;
    assert_eq!(fs::read_to_string(outside.path().join("precious"))?, "precious");
    Ok(())
}

#[test]
fn a_model_in_download_is_not_removed() -> anyhow::Result<()> {
    let (_root, cache) = cache_with("org/tiny")?;
    let model = cache.model("org/tiny")?;
    fs::create_dir_all(cache.locks(&model))?;
    let lock = File::create(cache.locks(&model).join("bb.lock"))?;
    lock.lock()?;
    assert!(matches!(cache.remove(&model), Err(HubCacheError::Busy { .. })));
    lock.unlock()?;
    cache.remove(&model)?;
    Ok(())
}

#[test]
fn only_useless_leftovers_are_removed() -> anyhow::Result<()> {
    let (_root, cache) = cache_with("org/tiny")?;
    let model = cache.model("org/tiny")?;
    fs::create_dir_all(cache.locks(&model))?;
    let blobs = model.directory.join("blobs");
    for name in ["cc.0a1b2c3d.incomplete", "dd.0a1b2c3d.incomplete", "ee.incomplete"] {
        fs::write(blobs.join(name), "part")?;
    }
    let lock = File::create(cache.locks(&model).join("dd.lock"))?;
    lock.lock()?;
    cache.remove_leftovers(&model)?;
    let mut left: Vec<_> =
        files_of(&blobs).iter().filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect();
    left.sort();
    assert_eq!(left, ["aa", "bb", "dd.0a1b2c3d.incomplete", "ee.incomplete"]);
    Ok(())
}

#[test]
fn a_shared_file_goes_with_its_last_model() -> anyhow::Result<()> {
    let (root, cache) = cache_with("org/one")?;
    let store = root.path().join("blobs");
    fs::create_dir_all(store.join("ab"))?;
    fs::write(store.join(SHARED_STORE_MARKER.0), SHARED_STORE_MARKER.1)?;
    fs::write(store.join("ab/abcd"), vec![b'x'; 5000])?;
    fs::create_dir_all(root.path().join("models--org--two/blobs"))?;
    for model in ["one", "two"] {
        let link = root.path().join(format!("models--org--{model}/blobs/ff"));
        std::os::unix::fs::symlink("../../blobs/ab/abcd", link)?;
    }
    fs::write(store.join("ab/abcd.refs"), "models--org--one/blobs/ff\nmodels--org--two/blobs/ff\n")?;
    cache.remove(&cache.model("org/one")?)?;
    assert!(store.join("ab/abcd").exists());
    assert!(cache.remove(&cache.model("org/two")?)? >= 5000);
    assert!(!store.join("ab/abcd").exists());
    Ok(())
}

#[test]
fn a_shared_file_without_references_list_stays() -> anyhow::Result<()> {
    let (root, cache) = cache_with("org/one")?;
    let store = root.path().join("blobs");
    fs::create_dir_all(store.join("ab"))?;
    fs::write(store.join(SHARED_STORE_MARKER.0), SHARED_STORE_MARKER.1)?;
    fs::write(store.join("ab/abcd"), "x")?;
    std::os::unix::fs::symlink("../../blobs/ab/abcd", root.path().join("models--org--one/blobs/ff"))?;
    cache.remove(&cache.model("org/one")?)?;
    assert!(store.join("ab/abcd").exists());
    Ok(())
}

#[test]
fn a_commit_must_be_a_hash() -> anyhow::Result<()> {
    let (_root, cache) = cache_with("org/tiny")?;
    let model = cache.model("org/tiny")?;
    for commit in ["../../..", "", "/etc", "c0ffee/.."] {
        fs::write(model.directory.join("refs/main"), commit)?;
        assert_eq!(model.find_snapshot(), Err(Defect::NoReference), "{commit:?}");
    }
    Ok(())
}

/// Adds a file to a snapshot, with its blob.
fn add_file(model: &CachedModel, commit: &str, file: &str, blob: &str) -> io::Result<PathBuf> {
    let snapshot = model.directory.join("snapshots").join(commit);
    fs::create_dir_all(&snapshot)?;
    fs::write(model.directory.join("blobs").join(blob), vec![b'x'; 5000])?;
    std::os::unix::fs::symlink(format!("../../blobs/{blob}"), snapshot.join(file))?;
    Ok(snapshot.join(file))
}

#[test]
fn removed_files_leave_what_others_use() -> anyhow::Result<()> {
    let (_root, cache) = cache_with("org/tiny")?;
    let model = cache.model("org/tiny")?;
    let blob = |name: &str| model.directory.join("blobs").join(name);
    let one = add_file(&model, "c0ffee", "one.gguf", "cc")?;
    let two = add_file(&model, "c0ffee", "two.gguf", "dd")?;
    // An earlier commit has the second file, too.
    add_file(&model, "beef", "two.gguf", "dd")?;
    assert_eq!(cache.remove_files(&model, std::slice::from_ref(&one))?, 5000);
    assert!(!one.is_symlink() && !blob("cc").exists());
    assert_eq!(cache.remove_files(&model, std::slice::from_ref(&two))?, 0);
    assert!(!two.is_symlink() && blob("dd").exists() && blob("aa").exists() && blob("bb").exists());
    Ok(())
}

#[test]
fn a_model_without_files_left_goes() -> anyhow::Result<()> {
    let (root, cache) = cache_with("org/tiny")?;
    let model = cache.model("org/tiny")?;
    add_file(&model, "c0ffee", "README.md", "cc")?;
    let snapshot = model.snapshot().expect("a snapshot");
    let files = [snapshot.join("config.json"), snapshot.join("model.safetensors")];
    assert!(cache.remove_files(&model, &files)? >= 20_100);
    assert!(!root.path().join("models--org--tiny").exists());
    Ok(())
}

#[test]
fn no_file_is_removed_during_a_download() -> anyhow::Result<()> {
    let (_root, cache) = cache_with("org/tiny")?;
    let model = cache.model("org/tiny")?;
    let one = add_file(&model, "c0ffee", "one.gguf", "cc")?;
    fs::create_dir_all(cache.locks(&model))?;
    let lock = File::create(cache.locks(&model).join("dd.lock"))?;
    lock.lock()?;
    let refused = cache.remove_files(&model, std::slice::from_ref(&one));
    assert!(matches!(refused, Err(HubCacheError::Busy { .. })));
    assert!(one.exists());
    Ok(())
}

#[test]
fn a_removed_file_frees_its_shared_file() -> anyhow::Result<()> {
    let (root, cache) = cache_with("org/one")?;
    let model = cache.model("org/one")?;
    let store = root.path().join("blobs");
    fs::create_dir_all(store.join("ab"))?;
    fs::write(store.join(SHARED_STORE_MARKER.0), SHARED_STORE_MARKER.1)?;
    fs::write(store.join("ab/abcd"), vec![b'x'; 5000])?;
    fs::write(store.join("ab/abcd.refs"), "models--org--one/blobs/ff\n")?;
    std::os::unix::fs::symlink("../../blobs/ab/abcd", model.directory.join("blobs/ff"))?;
    let entry = model.directory.join("snapshots/c0ffee/one.gguf");
    std::os::unix::fs::symlink("../../blobs/ff", &entry)?;
    assert_eq!(cache.remove_files(&model, std::slice::from_ref(&entry))?, 5000);
    assert!(!store.join("ab/abcd").exists());
    Ok(())
}
