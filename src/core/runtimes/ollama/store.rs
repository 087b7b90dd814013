//! The names of the models in Ollama's store on the disk.
//!
//! Each has a manifest at `manifests/HOST/NAMESPACE/MODEL/TAG` of the store, which is written when the download is
//! complete (`server/manifest.go`).

use crate::core::order;
use std::path::Path;

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

#[cfg(test)]
mod tests {
    use super::*;

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
