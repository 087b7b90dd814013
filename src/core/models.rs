//! Models: where their files are, what a user's names for them mean, and what a runtime can do with them.

pub mod catalogue;
pub mod defect;
pub mod directory;
pub mod gguf;
pub mod hub;
pub mod python_json;
pub mod token_cache;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::core::paths::Paths;
use crate::core::sorted_map::SortedMap;
use crate::env::Environment;

/// The places on this machine where model files can be.
#[derive(Debug, Clone, Default)]
pub struct ModelPlaces {
    /// Where a relative directory starts; without it, no name is a relative directory.
    pub base: Option<PathBuf>,
    /// Where a relative directory of the configuration starts: the configuration's own directory.
    pub config_dir: PathBuf,
    /// What `~` means.
    pub home: Option<PathBuf>,
    pub hub_cache: Option<PathBuf>,
    /// The user's own directory of models, for runtimes that have one.
    pub models_dir: Option<PathBuf>,
    /// Whether a variable names the hub cache.
    pub has_hub_cache_variable: bool,
}

/// A model as the server must be told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// The exact string for the server's command line and for every request.
    pub name: String,
    /// Whether its files are on this machine; `None` when only the server knows.
    pub present: Option<bool>,
}

impl ModelPlaces {
    /// Returns the places of a server that gets `server_env` (from its configuration) on top of this environment. The
    /// hub cache is found as the hub's own tool finds it (`huggingface_hub/constants.py`). Relative names start in the
    /// working directory.
    pub fn discover(
        environment: &Environment,
        paths: &Paths,
        server_env: &SortedMap<String, String>,
    ) -> Self {
        let home = environment.home.clone();
        let config_dir = paths.directory().to_owned();
        let variables = &environment.hugging_face;
        let value = |name: &str| {
            let inherited = || Some(environment.variable(name)?.clone());
            server_env.get(name).map(OsString::from).or_else(inherited)
        };
        // A relative value in the configuration starts in its directory.
        let pick = |name: &str, inherited: &Option<PathBuf>| {
            let configured = server_env.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
            let base =
                if configured.is_some() { Some(&config_dir) } else { environment.current_dir.as_ref() };
            let path = expand_variables(
                &expand_home(&configured.or_else(|| inherited.clone())?, home.as_deref()),
                value,
            );
            Some(base.map_or(path.clone(), |base| base.join(path)))
        };
        let configured = pick("HF_HUB_CACHE", &variables.hub_cache)
            .or_else(|| pick("HUGGINGFACE_HUB_CACHE", &variables.legacy_hub_cache))
            .or_else(|| Some(pick("HF_HOME", &variables.home)?.join("hub")))
            .or_else(|| Some(pick("XDG_CACHE_HOME", &variables.xdg_cache_home)?.join("huggingface/hub")));
        let has_hub_cache_variable = configured.is_some();
        let hub_cache = configured.or_else(|| Some(home.as_ref()?.join(".cache/huggingface/hub")));
        let base = environment.current_dir.clone();
        Self { base, config_dir, home, hub_cache, has_hub_cache_variable, models_dir: None }
    }

    /// Returns the variable that leads a server to the same cache: it starts in another directory, where a relative
    /// value would mean another place.
    pub fn hub_cache_variable(&self) -> Option<(String, String)> {
        let cache = self.hub_cache.as_ref().filter(|_| self.has_hub_cache_variable)?;
        Some(("HF_HUB_CACHE".to_owned(), cache.to_str()?.to_owned()))
    }

    /// Returns the places for names in the configuration, which do not depend on the working directory.
    #[must_use]
    pub fn of_configuration(&self) -> Self {
        Self { base: Some(self.config_dir.clone()), ..self.clone() }
    }

    /// Returns the places for names that [`crate::core::aliases::resolve`] returned.
    #[must_use]
    pub fn of_resolved(&self) -> Self {
        Self { base: None, ..self.clone() }
    }

    /// Returns `name` as an absolute path; `None` for a relative one without a base.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        let path = expand_home(Path::new(name), self.home.as_deref());
        if path.is_absolute() { Some(path) } else { Some(self.base.as_ref()?.join(path)) }
    }

    /// Returns the directory that a user means by `name`, absolute and without symbolic links; `None` for the name of a
    /// model. A path (`/x`, `./x`, `../x`, `~/x`) is always a directory, even if it does not exist; another name is one
    /// only if a directory of that name contains a model, be it one that cannot be read.
    pub fn directory(&self, name: &str) -> Option<PathBuf> {
        let path = self.path(name)?;
        let path = path.canonicalize().unwrap_or_else(|_| path.components().collect());
        (is_path(name) || path.join("config.json").symlink_metadata().is_ok()).then_some(path)
    }
}

/// Returns whether a name can only be a path.
fn is_path(name: &str) -> bool {
    matches!(name, "." | ".." | "~") || ["/", "./", "../", "~/"].iter().any(|start| name.starts_with(start))
}

/// Returns the path with `home` in place of a leading `~`.
pub(crate) fn expand_home(path: &Path, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

/// Replaces `$NAME` and `${NAME}` as Python's `os.path.expandvars` does: unknown variables stay as they are.
fn expand_variables(path: &Path, value: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let Some(text) = path.to_str() else { return path.to_owned() };
    let mut parts = text.split('$');
    let mut expanded = OsString::from(parts.next().unwrap_or_default());
    for part in parts {
        let braced = part.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let end = part.find(|end: char| !end.is_ascii_alphanumeric() && end != '_').unwrap_or(part.len());
        let (name, rest) = braced.unwrap_or_else(|| part.split_at(end));
        if let Some(value) = value(name).filter(|_| !name.is_empty()) {
            expanded.push(value);
            expanded.push(rest);
        } else {
            expanded.push("$");
            expanded.push(part);
        }
    }
    expanded.into()
}

/// Returns a model's name as a word of a shell, in quotes only if it needs them.
pub fn quoted(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:~".contains(&byte);
    if !name.is_empty() && name.bytes().all(is_plain) {
        name.to_owned()
    } else {
        format!("'{}'", name.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::HuggingFaceVariables;

    #[test]
    fn names_are_quoted_for_shells_only_if_needed() {
        assert_eq!(quoted("org/name:3b"), "org/name:3b");
        assert_eq!(quoted("a b'c;$(x)"), r"'a b'\''c;$(x)'");
        assert_eq!(quoted(""), "''");
    }

    fn hub_cache(variables: &[(&str, &str)], server_env: &[(&str, &str)]) -> Option<PathBuf> {
        let variable =
            |name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value));
        let environment = Environment {
            home: Some(PathBuf::from("/home/me")),
            config_dir: Some(PathBuf::from("/config")),
            hugging_face: HuggingFaceVariables {
                hub_cache: variable("HF_HUB_CACHE"),
                legacy_hub_cache: variable("HUGGINGFACE_HUB_CACHE"),
                home: variable("HF_HOME"),
                xdg_cache_home: variable("XDG_CACHE_HOME"),
            },
            current_dir: Some(PathBuf::from("/home/me/project")),
            variables: [("HOME", "/home/me"), ("DISK", "/disk")]
                .map(|(name, value)| (name.into(), value.into()))
                .into(),
            ..Environment::default()
        };
        let server_env =
            server_env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let paths = Paths::discover(&environment).unwrap();
        ModelPlaces::discover(&environment, &paths, &server_env).hub_cache
    }

    #[test]
    fn hub_cache_is_where_the_hubs_tool_looks() {
        let is = |expected: &str, variables: &[(&str, &str)]| {
            assert_eq!(hub_cache(variables, &[]), Some(PathBuf::from(expected)), "{variables:?}");
        };
        is("/home/me/.cache/huggingface/hub", &[]);
        is("/xdg/huggingface/hub", &[("XDG_CACHE_HOME", "/xdg")]);
        is("/hf/hub", &[("HF_HOME", "/hf"), ("XDG_CACHE_HOME", "/xdg")]);
        is("/old", &[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HOME", "/hf")]);
        is("/cache", &[("HF_HUB_CACHE", "/cache"), ("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HOME", "/hf")]);
        is("/home/me/hf/hub", &[("HF_HOME", "~/hf")]);
        is("/home/me/hf/hub", &[("HF_HOME", "$HOME/hf")]);
        is("/disk2/hub", &[("HF_HUB_CACHE", "${DISK}2/hub")]);
        is("/disk/huggingface/hub", &[("XDG_CACHE_HOME", "$DISK")]);
        is("/home/me/project/rel", &[("HF_HUB_CACHE", "rel")]);
        is("/home/me/project/$NONE/$/${/hub", &[("HF_HOME", "$NONE/$/${")]);
    }

    #[test]
    fn environment_of_the_server_wins() {
        let found = hub_cache(&[("HF_HOME", "/hf")], &[("HF_HOME", "/disk")]);
        assert_eq!(found, Some(PathBuf::from("/disk/hub")));
        let found = hub_cache(&[], &[("HF_HOME", "$ROOT/hf"), ("ROOT", "/root")]);
        assert_eq!(found, Some(PathBuf::from("/root/hf/hub")));
        assert_eq!(hub_cache(&[], &[("HF_HUB_CACHE", "rel")]), Some(PathBuf::from("/config/rel")));
        assert_eq!(hub_cache(&[("HF_HOME", "/hf")], &[("HF_HOME", "")]), Some(PathBuf::from("/hf/hub")));
    }

    #[test]
    fn only_a_directory_with_a_model_counts() -> std::io::Result<()> {
        let root = tempfile::tempdir()?;
        let root = root.path().canonicalize()?;
        std::fs::create_dir_all(root.join("org/model"))?;
        std::fs::create_dir_all(root.join("org/other"))?;
        std::fs::write(root.join("org/model/config.json"), "{}")?;
        nix::unistd::mkfifo(&root.join("org/config.json"), nix::sys::stat::Mode::S_IRWXU)?;
        let places = ModelPlaces {
            base: Some(root.clone()),
            home: Some(root.clone()),
            config_dir: root.join("org"),
            ..ModelPlaces::default()
        };
        assert_eq!(places.directory("org/model"), Some(root.join("org/model")));
        assert_eq!(places.directory("org/other"), None);
        assert_eq!(places.directory("org"), Some(root.join("org")));
        assert_eq!(places.directory("llama3.2:3b"), None);
        assert_eq!(places.directory("./org/other"), Some(root.join("org/other")));
        assert_eq!(places.directory("org/../org/model"), Some(root.join("org/model")));
        assert_eq!(places.directory("~/nowhere"), Some(root.join("nowhere")));
        assert_eq!(places.directory("/nowhere"), Some(PathBuf::from("/nowhere")));
        assert_eq!(places.directory("./nowhere"), Some(root.join("nowhere")));
        assert_eq!(places.of_configuration().directory("model"), Some(root.join("org/model")));
        assert_eq!(places.of_configuration().directory("./x"), Some(root.join("org/x")));
        assert_eq!(places.of_resolved().directory("org/model"), None);
        assert_eq!(places.of_resolved().directory("/nowhere"), Some(PathBuf::from("/nowhere")));
        Ok(())
    }
}
