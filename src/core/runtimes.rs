//! The table of all runtimes, and the trait that has everything particular to one.
//!
//! Adding a runtime is one file beside `ollama.rs` and one entry in [`TABLE`]: its subcommand, help, configuration
//! tables, `ps` row, completions and lifecycle follow from the table. The table is handed down from
//! [`crate::run`], so that a test can run the whole program with another one.

mod install_method;
mod mlx;
mod ollama;

pub use self::install_method::{InstallMethod, PythonPackage};
use std::ffi::OsStr;
use std::time::Duration;

use crate::core::address::Address;
use crate::core::api::Response;
use crate::core::api::error::{ServerError, ServerErrorKind};
use crate::core::models::catalogue::Catalogue;
use crate::core::models::quoted;
pub use crate::core::models::{Model, ModelPlaces};

/// A short name built into fusion, and the model of one runtime that it stands for.
pub type BuiltInAlias = (&'static str, &'static str);

/// Runtimes, in the order in which they are listed.
pub type Table = &'static [&'static dyn Runtime];

/// Every runtime that fusion knows.
pub const TABLE: Table = &[&ollama::Ollama, &mlx::Mlx];

/// Returns the runtime of `table` called `name`.
pub fn find(table: Table, name: &str) -> Option<&'static dyn Runtime> {
    table.iter().copied().find(|runtime| runtime.name() == name)
}

/// Returns whether no server inherits this variable of the caller's environment: it would be another server's address,
/// or a setting that the configuration does not know of.
pub fn is_withheld(variable: &OsStr) -> bool {
    let is_meant = |pattern: &&str| match pattern.strip_suffix('*') {
        Some(start) => variable.as_encoded_bytes().starts_with(start.as_bytes()),
        None => variable == *pattern,
    };
    TABLE.iter().any(|runtime| runtime.withheld_variables().iter().any(is_meant))
}

/// All that is particular to one runtime: facts and pure functions over bytes; others do the I/O.
pub trait Runtime: Sync {
    /// Returns the name of its built-in service: subcommand, directory, and prefix of its configuration tables.
    fn name(&self) -> &'static str;

    /// Returns the short form of its subcommand.
    fn alias(&self) -> &'static str;

    /// Returns its name in sentences.
    fn display_name(&self) -> &'static str;

    /// Returns what the configuration says on first use.
    fn defaults(&self) -> Defaults;

    /// Returns whether its configuration tables are in the file that is made on first use. Others are written when
    /// first set.
    fn in_fresh_config(&self) -> bool {
        true
    }

    /// Returns the program that is started when the configuration has no `command`; see [`crate::core::programs`].
    fn program(&self) -> &'static str;

    /// Returns the arguments that come with that program; `command` in the configuration replaces both.
    fn program_args(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns how fusion installs that program; `None` when the user must install it.
    fn install_method(&self) -> Option<InstallMethod> {
        None
    }

    /// Returns the arguments and environment that start a server listening on `address`, without `command`, `args` and
    /// `env` of the configuration. `model` is resolved already.
    fn launch(&self, address: &Address, model: Option<&Model>) -> Launch;

    /// Returns the variables that no server inherits from the caller; a `*` at the end stands for anything.
    fn withheld_variables(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns how long after SIGTERM a server gets SIGINT, if it may not end by the first.
    fn interrupt_after(&self) -> Option<Duration> {
        None
    }

    /// The cheap request by which a running server is recognised and looked at.
    fn status_probe(&self) -> Probe;

    /// Returns requests that tell more about a server that the status probe has recognised: its loaded models, its
    /// version.
    fn detail_probes(&self) -> &'static [Probe] {
        &[]
    }

    /// Returns whether a recognised server may still be unable to generate: then `up` requires a one-token chat.
    fn ready_needs_generation(&self) -> bool;

    /// Returns a model name that means the model the server was started with, which keeps an external server from
    /// loading another one; `None` when there is no such name.
    fn resident_model(&self) -> Option<&'static str> {
        None
    }

    /// Returns exactly what the server must be told for a model name, and whether its files are on this machine.
    fn resolve_model(&self, name: &str, places: &ModelPlaces) -> Model;

    /// Returns the built-in short names of models, each with the model that it means here.
    fn model_aliases(&self) -> &'static [BuiltInAlias] {
        &[]
    }

    /// Returns what can be done with its models.
    fn catalogue(&self) -> Option<&'static dyn Catalogue> {
        None
    }

    /// Returns the command that downloads a missing model.
    fn pull_command(&self, model: &str) -> String {
        format!("fusion {} pull {}", self.name(), quoted(model))
    }

    /// Returns why the process died, read from the end of its log; `None` when the log has no known words.
    fn explain_exit(&self, log_tail: &str) -> Option<String>;
}

/// What the configuration says about a runtime on first use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Defaults {
    /// The port that its makers chose.
    pub port: u16,
    /// The model the server is started with, for runtimes whose server serves one model.
    pub server_model: Option<&'static str>,
    /// The model that is asked.
    pub run_model: &'static str,
    /// The sampling temperature.
    pub temperature: f64,
}

/// How a server is started: arguments after the program, and environment variables.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Launch {
    /// Passed to the program as they are.
    pub args: Vec<String>,
    /// Set for the process.
    pub env: Vec<(String, String)>,
}

/// One `GET` request and how its response is read.
#[derive(Clone, Copy)]
pub struct Probe {
    /// The path, with its leading slash.
    pub path: &'static str,
    /// What the response means; a status probe gets at most 64 KiB of its body.
    pub read: fn(&Response) -> Recognition,
}

/// What a server's response to a [`Probe`] means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recognition {
    /// This kind of server, able to answer requests.
    Ready(ServerFacts),
    /// This kind of server, not able to answer requests now; why, in words.
    NotReady(String),
    /// This kind of server, not able to answer requests until it is restarted; why, in words.
    Broken(String),
    /// Another program; what it responded, in words.
    OtherProgram(String),
}

/// What the response to a one-token chat means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Generation {
    /// It generates.
    Works,
    /// Not now; why, in words.
    NotYet(String),
    /// The model is not there; what the server said.
    ModelMissing(String),
    /// Asking again would change nothing; what the server said.
    Refused(String),
}

impl Generation {
    /// From the response to it.
    pub fn from_response(response: &Response) -> Self {
        let json = response.json();
        if response.status == 200 && json["choices"].is_array() {
            return Self::Works;
        }
        let error = ServerError::from_response(response.status, &response.body);
        match (error.kind, response.status) {
            (ServerErrorKind::ModelMissing, _) => Self::ModelMissing(error.message),
            (ServerErrorKind::OutOfMemory | ServerErrorKind::ContextLength, _) => {
                Self::Refused(error.message)
            }
            (_, 429 | 500..) => Self::NotYet(error.message),
            _ => Self::Refused(error.message),
        }
    }
}

/// What a response tells about the server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerFacts {
    /// Its version, where it tells.
    pub version: Option<String>,
    /// The models loaded now, where it tells.
    pub models: Option<Vec<String>>,
    /// The context of the model that is loaded, in tokens, where it tells. `None` when several are loaded.
    pub context: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(status: u16, body: &str) -> Generation {
        Generation::from_response(&Response { status, server: String::new(), body: body.into() })
    }

    /// Any failure to load a model is a 404 of `mlx_lm.server` (server.py: `handle_completion`).
    #[test]
    fn a_failure_to_generate_is_told_apart_by_its_words() {
        assert_eq!(generation(200, r#"{"choices":[]}"#), Generation::Works);
        for words in [
            "Cannot find an appropriate cached snapshot folder for the specified revision on the local disk",
            "404 Client Error. Repository Not Found for url: x",
            "[Errno 2] No such file or directory: '/models/none/config.json'",
        ] {
            let body = serde_json::json!({ "error": words }).to_string();
            assert_eq!(generation(404, &body), Generation::ModelMissing(words.to_owned()));
        }
        let said = |words: &str| words.to_owned();
        assert_eq!(
            generation(404, r#"{"error":"generation thread died"}"#),
            Generation::Refused(said("generation thread died"))
        );
        assert_eq!(generation(404, "Not Found"), Generation::Refused(said("Not Found")));
        assert_eq!(generation(400, r#"{"detail":"No"}"#), Generation::Refused(said("No")));
        assert_eq!(
            generation(503, r#"{"error":{"message":"Loading"}}"#),
            Generation::NotYet(said("Loading"))
        );
        assert_eq!(generation(502, "<html>"), Generation::NotYet(said("HTTP 502 Bad Gateway")));
        // What is the same at the next attempt.
        for words in
            ["[METAL] Insufficient Memory", "CUDA error: out of memory", "the context size is exceeded"]
        {
            let body = serde_json::json!({ "error": { "message": words } }).to_string();
            assert_eq!(generation(500, &body), Generation::Refused(words.to_owned()));
        }
    }
}
