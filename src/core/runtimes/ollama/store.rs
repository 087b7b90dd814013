//! The models in Ollama's store on the disk.
//!
//! Each has a manifest at `manifests/HOST/NAMESPACE/MODEL/TAG` of the store, which is written when the download is
//! complete (`server/manifest.go`), and names its files, `blobs/sha256-DIGEST`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::core::json_object;
use crate::core::models::defect::{Defect, file_length};
use crate::core::order;

/// So many digits of a digest name a file, as in Ollama's own messages.
const SHOWN_DIGITS: usize = 12;

/// The parts of a name that are left out of it (`types/model/name.go`).
const DEFAULT_HOST: &str = "registry.ollama.ai";
const DEFAULT_NAMESPACE: &str = "library";

/// Returns the name of every model in `store`, sorted, as the server lists it; `None` if the store cannot be read. The
/// server makes the store with the first model.
pub(super) fn names(store: &Path) -> Option<Vec<String>> {
    let mut paths = vec![store.join("manifests")];
    let mut parts: Vec<Vec<String>> = vec![Vec::new()];
    for level in 0..4 {
        let mut below = Vec::new();
        let mut names = Vec::new();
        for (path, before) in paths.iter().zip(&parts) {
            let entries = match path.read_dir() {
                // Without a store there are no models, and what was just removed has none.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                entries => entries.ok()?,
            };
            for entry in entries.flatten() {
                // The server skips what is no name, too.
                let Ok(name) = entry.file_name().into_string() else { continue };
                let is_part = if level == 3 { entry.path().is_file() } else { entry.path().is_dir() };
                if is_part && !name.starts_with('.') {
                    below.push(entry.path());
                    names.push([before.as_slice(), &[name]].concat());
                }
            }
        }
        (paths, parts) = (below, names);
    }
    let mut names: Vec<String> = parts.iter().filter_map(|parts| name(parts)).collect();
    order::sort(&mut names);
    Some(names)
}

fn name(parts: &[String]) -> Option<String> {
    let [host, namespace, model, tag] = parts else { return None };
    let model = format!("{model}:{tag}");
    Some(match (host.as_str(), namespace.as_str()) {
        (DEFAULT_HOST, DEFAULT_NAMESPACE) => model,
        (DEFAULT_HOST, namespace) => format!("{namespace}/{model}"),
        (host, namespace) => format!("{host}/{namespace}/{model}"),
    })
}

/// Reads where the server keeps its models from the line with which it logs its variables, which are sorted.
pub(super) fn of_log(log: &str) -> Option<PathBuf> {
    let path = log.split_once(" OLLAMA_MODELS:")?.1.split_once(" OLLAMA_")?.0;
    Some(PathBuf::from(path)).filter(|path| path.is_absolute())
}

/// Returns what is wrong with the files of the model `name`, which is one of [`names`]: those that are gone or too
/// short. The server lists such a model like any other.
pub(super) fn defects(store: &Path, name: &str) -> Vec<Defect> {
    let manifest = manifest_path(store, name).and_then(|path| fs::read(path).ok()).unwrap_or_default();
    let manifest: Value = json_object::parse(&manifest).unwrap_or_default();
    let layers = manifest["layers"].as_array().into_iter().flatten();
    let blobs = store.join("blobs");
    layers.chain([&manifest["config"]]).filter_map(|file| defect(&blobs, file)).collect()
}

fn manifest_path(store: &Path, name: &str) -> Option<PathBuf> {
    let (path, tag) = name.rsplit_once(':')?;
    let parts: Vec<&str> = path.split('/').collect();
    let before: &[&str] = match parts.len() {
        1 => &[DEFAULT_HOST, DEFAULT_NAMESPACE],
        2 => &[DEFAULT_HOST],
        _ => &[],
    };
    let path = before.iter().chain(&parts).chain([&tag]).collect::<PathBuf>();
    Some(store.join("manifests").join(path))
}

/// Compares a file with what the manifest says about it.
fn defect(blobs: &Path, described: &Value) -> Option<Defect> {
    let digest = described["digest"].as_str()?.strip_prefix("sha256:")?;
    digest.bytes().all(|digit| digit.is_ascii_hexdigit()).then_some(())?;
    let expected = described["size"].as_u64()?;
    let file = format!("blob {}", digest.get(..SHOWN_DIGITS)?);
    match file_length(blobs, &format!("sha256-{digest}")) {
        Ok(found) if found < expected => Some(Defect::Truncated { file, found, expected }),
        Err(Defect::Missing { .. }) => Some(Defect::Missing { file }),
        Err(Defect::DanglingLink { target, .. }) => Some(Defect::DanglingLink { file, target }),
        // What fusion may not read the server may.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_is_where_the_log_says() {
        let line = r#"msg="server config" env="map[OLLAMA_LOAD_TIMEOUT:5m0s OLLAMA_MODELS:/home/a b/.ollama/models OLLAMA_MULTIUSER_CACHE:false OLLAMA_NOHISTORY:false]""#;
        assert_eq!(of_log(line).as_deref(), Some(Path::new("/home/a b/.ollama/models")));
        for unknown in ["", "OLLAMA_MODELS:/cut off", "map[ OLLAMA_MODELS:relative OLLAMA_NEW_ENGINE:false"] {
            assert_eq!(of_log(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn files_that_are_gone_or_short_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path();
        let blobs = store.join("blobs");
        let digest = |digit: &str| digit.repeat(64);
        let file = |digit: &str, size: u64| serde_json::json!({ "digest": format!("sha256:{}", digest(digit)), "size": size });
        fs::create_dir_all(&blobs).unwrap();
        for (digit, content) in [("1", "whole"), ("2", "longer than said"), ("3", "short")] {
            fs::write(blobs.join(format!("sha256-{}", digest(digit))), content).unwrap();
        }
        let bad = serde_json::json!({ "digest": "sha256:../../secret", "size": 1 });
        let manifest = serde_json::json!({
            "config": file("4", 5),
            "layers": [file("1", 5), file("2", 5), file("3", 6), bad, null, { "digest": 7 }],
        });
        for path in
            ["registry.ollama.ai/library/one/latest", "registry.ollama.ai/me/one/latest", "hf.co/me/one/Q4"]
        {
            let path = store.join("manifests").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, manifest.to_string()).unwrap();
        }
        let short = Defect::Truncated { file: "blob 333333333333".to_owned(), found: 5, expected: 6 };
        let gone = Defect::Missing { file: "blob 444444444444".to_owned() };
        for name in ["one:latest", "me/one:latest", "hf.co/me/one:Q4"] {
            assert_eq!(defects(store, name), [short.clone(), gone.clone()], "{name}");
        }
        assert_eq!(defects(store, "other:latest"), []);
    }

    #[test]
    fn names_are_those_of_the_server() {
        let store = tempfile::tempdir().unwrap();
        assert_eq!(names(store.path()), Some(vec![]), "the server has never run");
        assert_eq!(names(Path::new("/dev/null")), None, "it cannot be read");
        for manifest in [
            "registry.ollama.ai/library/llama3.2/3b",
            "registry.ollama.ai/me/own/latest",
            "hf.co/org/repo-GGUF/Q4_K_M",
            "registry.ollama.ai/library/.hidden/latest",
        ] {
            let path = store.path().join("manifests").join(manifest);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "{}").unwrap();
        }
        std::fs::write(store.path().join("manifests/registry.ollama.ai/library/README"), "").unwrap();
        let expected = ["hf.co/org/repo-GGUF:Q4_K_M", "llama3.2:3b", "me/own:latest"];
        assert_eq!(names(store.path()), Some(expected.map(str::to_owned).to_vec()));
    }
}
