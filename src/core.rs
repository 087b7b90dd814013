//! The silent core: no printing, no arguments, no environment variables, no exit.
//!
//! Dependencies point downwards only, as the table of the test below has them.

pub mod address;
pub mod aliases;
pub mod api;
pub mod config;
pub mod doctor;
pub mod events;
pub mod executables;
pub mod files;
pub mod helper;
pub mod install;
pub mod login;
pub mod logs;
pub mod machine;
pub mod models;
pub mod paths;
pub mod pid;
pub mod process;
pub mod programs;
pub mod runtimes;
pub mod services;
pub mod timestamp;

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    /// Every module, from the bottom to the top: each may use those of the layers before its own.
    const LAYERS: [&[&str]; 11] = [
        &["address", "executables", "machine", "paths", "pid", "timestamp"],
        &["files"],
        &["api", "login", "process"],
        &["helper"],
        &["events", "models"],
        &["runtimes"],
        &["config"],
        &["aliases", "logs", "programs"],
        &["services"],
        &["install"],
        &["doctor"],
    ];

    fn sources(directory: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let files = entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
        files.collect()
    }

    fn layer(module: &str) -> usize {
        let layer = LAYERS.iter().position(|layer| layer.contains(&module));
        layer.unwrap_or_else(|| panic!("{module} is in no layer"))
    }

    #[test]
    fn dependencies_point_downwards_only() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/core");
        for file in sources(&root) {
            let name = file.strip_prefix(&root).unwrap().with_extension("");
            let module = name.iter().next().unwrap().to_str().unwrap();
            let text = std::fs::read_to_string(&file).unwrap();
            // Comments may point anywhere.
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            for path in code.flat_map(|line| line.split("crate::").skip(1)) {
                assert!(!path.starts_with("cli"), "{name:?} uses cli");
                let Some(path) = path.strip_prefix("core::") else { continue };
                let used = path.split(|end: char| !(end.is_alphanumeric() || end == '_')).next().unwrap();
                let is_below = used == module || layer(used) < layer(module);
                assert!(is_below, "{} uses {used}, which is not below {module}", file.display());
            }
        }
    }
}
