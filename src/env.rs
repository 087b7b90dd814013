//! The sole reader of process globals: environment variables, home, current directory, terminals.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// The variable in which a completion script names its shell; see `cli::commands::completions`.
pub const COMPLETION_VARIABLE: &str = "_FUSION_COMPLETE";

/// Everything that fusion reads from its process, once. Tests build their own.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about the process, not a state machine")]
pub struct Environment {
    /// `FUSION_CONFIG_DIR`: the directory of the configuration and of the services' state.
    pub config_dir: Option<PathBuf>,
    /// `FUSION_PROJECT_ROOT`: the directory for the link of `config edit --link`.
    pub project_root: Option<PathBuf>,
    /// The user's home directory (`HOME`, else the password database).
    pub home: Option<PathBuf>,
    /// The platform's configuration directory ([`dirs::config_dir`]).
    pub platform_config_dir: Option<PathBuf>,
    /// The platform's data directory ([`dirs::data_dir`]).
    pub platform_data_dir: Option<PathBuf>,
    /// `XDG_DATA_HOME`, on which `platform_data_dir` depends on Linux. A relative path is ignored there.
    pub xdg_data_home: Option<PathBuf>,
    /// The current directory; `None` if it was deleted.
    pub current_dir: Option<PathBuf>,
    /// The path of this program, if the system reports it.
    pub program: Option<PathBuf>,
    /// `PATH`: the directories that are searched for programs.
    pub path: Option<OsString>,
    /// Every variable with its value.
    pub variables: Vec<(OsString, OsString)>,
    /// `VISUAL`, else `EDITOR`, when not empty.
    pub editor: Option<OsString>,
    /// `NO_COLOR` is set and not empty, or the terminal is dumb.
    pub no_color: bool,
    /// `TERM` is `dumb`: the terminal obeys no escape codes.
    pub terminal_is_dumb: bool,
    /// Standard input is a terminal.
    pub stdin_is_terminal: bool,
    /// Standard output is a terminal.
    pub stdout_is_terminal: bool,
    /// Standard error is a terminal.
    pub stderr_is_terminal: bool,
    /// [`COMPLETION_VARIABLE`]: the shell that requests completions, instead of a command.
    pub completing_shell: Option<OsString>,
    /// The variables that locate the cache and the hub of the Hugging Face tools.
    pub hugging_face: HuggingFaceVariables,
}

/// The variables that the Hugging Face tools read, so fusion searches the same directories.
#[derive(Debug, Clone, Default)]
pub struct HuggingFaceVariables {
    /// `HF_HUB_CACHE`: the cache directory itself.
    pub hub_cache: Option<PathBuf>,
    /// `HUGGINGFACE_HUB_CACHE`: the older name of the same.
    pub legacy_hub_cache: Option<PathBuf>,
    /// `HF_HOME`: its `hub` directory is the cache.
    pub home: Option<PathBuf>,
    /// `XDG_CACHE_HOME`: its `huggingface/hub` directory is the cache.
    pub xdg_cache_home: Option<PathBuf>,
}

/// The variable that names the directory of the project.
pub const PROJECT_ROOT: &str = "FUSION_PROJECT_ROOT";

impl Environment {
    /// Reads the environment of this process.
    #[expect(clippy::disallowed_methods, reason = "the one home of these calls")]
    pub fn from_process() -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let directory = |name: &str| variable(name).map(PathBuf::from);
        let terminal_is_dumb =
            variable("TERM").is_some_and(|term| ["dumb", "emacs", "cons25"].iter().any(|dumb| term == *dumb));
        Self {
            config_dir: directory("FUSION_CONFIG_DIR"),
            project_root: directory(PROJECT_ROOT),
            home: dirs::home_dir(),
            platform_config_dir: dirs::config_dir(),
            platform_data_dir: dirs::data_dir(),
            xdg_data_home: directory("XDG_DATA_HOME").filter(|path| path.is_absolute()),
            current_dir: std::env::current_dir().ok(),
            program: std::env::current_exe().ok(),
            path: variable("PATH"),
            variables: std::env::vars_os().collect(),
            editor: variable("VISUAL").or_else(|| variable("EDITOR")),
            no_color: variable("NO_COLOR").is_some() || terminal_is_dumb,
            terminal_is_dumb,
            stdin_is_terminal: std::io::stdin().is_terminal(),
            stdout_is_terminal: std::io::stdout().is_terminal(),
            stderr_is_terminal: std::io::stderr().is_terminal(),
            completing_shell: variable(COMPLETION_VARIABLE),
            hugging_face: HuggingFaceVariables {
                hub_cache: directory("HF_HUB_CACHE"),
                legacy_hub_cache: directory("HUGGINGFACE_HUB_CACHE"),
                home: directory("HF_HOME"),
                xdg_cache_home: directory("XDG_CACHE_HOME"),
            },
        }
    }

    /// Returns the value of a variable.
    pub fn variable(&self, name: &str) -> Option<&OsString> {
        self.variables.iter().find(|(other, _)| other == name).map(|(_, value)| value)
    }

    /// Returns the directory of the project, absolute: `FUSION_PROJECT_ROOT`, else the current one; `None` if that was
    /// deleted.
    pub fn project_directory(&self) -> Option<PathBuf> {
        match (&self.project_root, &self.current_dir) {
            (Some(root), _) if root.is_absolute() => Some(root.clone()),
            (Some(root), Some(current)) => Some(current.join(root)),
            (None, current) => current.clone(),
            (Some(_), None) => None,
        }
    }

    /// Returns the variables that a command started at login needs: the service manager does not have those of the
    /// user's shell. Directories are made absolute, because the current directory differs there. `config_dir` is the
    /// directory that `FUSION_CONFIG_DIR` names.
    pub fn for_login(&self, config_dir: &Path) -> Vec<(&'static str, OsString)> {
        let hugging_face = &self.hugging_face;
        let directories = [
            ("FUSION_CONFIG_DIR", self.config_dir.as_ref().map(|_| config_dir)),
            ("XDG_DATA_HOME", self.xdg_data_home.as_deref()),
            ("HF_HUB_CACHE", hugging_face.hub_cache.as_deref()),
            ("HUGGINGFACE_HUB_CACHE", hugging_face.legacy_hub_cache.as_deref()),
            ("HF_HOME", hugging_face.home.as_deref()),
            ("XDG_CACHE_HOME", hugging_face.xdg_cache_home.as_deref()),
        ];
        let absolute = |path: &Path| match &self.current_dir {
            // The tools that read the variable expand `~`.
            Some(current)
                if !path.starts_with("~") && !path.as_os_str().as_encoded_bytes().starts_with(b"$") =>
            {
                current.join(path)
            }
            _ => path.to_owned(),
        };
        let directories =
            directories.into_iter().filter_map(|(name, value)| Some((name, absolute(value?).into())));
        self.path.iter().map(|path| ("PATH", path.clone())).chain(directories).collect()
    }
}
