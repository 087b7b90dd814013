//! The table of all runtimes, and the trait with all facts of one runtime.
//!
//! A new runtime is one file beside `ollama.rs` and one entry in [`TABLE`]. Its subcommand, help, configuration
//! tables, `ps` row, completions and lifecycle follow from the table. [`crate::run`] passes the table on, so a test
//! can run the whole program with another one.

mod engine_log;
mod install_method;
mod llama;
mod mlx;
mod ollama;

pub use self::install_method::{InstallMethod, PythonPackage};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;

use crate::core::address::Address;
use crate::core::api::Response;
use crate::core::api::error::{ServerError, ServerErrorKind};
use crate::core::gpu::{GpuParts, GpuShare};
use crate::core::models::catalogue::Catalogue;
use crate::core::models::hub::{self, search::HubModels};
use crate::core::models::quoted;

pub use crate::core::models::{Model, ModelPlaces};

/// A built-in alias, and the model of one runtime that it means.
pub type BuiltInAlias = (&'static str, &'static str);

/// Runtimes, in the order of their lists.
pub type Table = &'static [&'static dyn Runtime];

/// Every runtime that fusion knows.
pub const TABLE: Table = &[&ollama::Ollama, &mlx::Mlx, &llama::Llama];

/// Returns the runtime of `table` called `name`.
pub fn find(table: Table, name: &str) -> Option<&'static dyn Runtime> {
    table.iter().copied().find(|runtime| runtime.name() == name)
}

/// Returns whether servers do not inherit this variable from the caller: it belongs to another server, or sets
/// something that the configuration does not know.
pub fn is_withheld(table: Table, variable: &OsStr) -> bool {
    let is_meant = |pattern: &&str| match pattern.strip_suffix('*') {
        Some(start) => variable.as_encoded_bytes().starts_with(start.as_bytes()),
        None => variable == *pattern,
    };
    table.iter().any(|runtime| runtime.withheld_variables().iter().any(is_meant))
}

/// The variables that the makers of a runtime document.
#[derive(Debug, Clone, Copy)]
pub struct Variables {
    /// With what each begins.
    pub prefix: &'static str,
    pub known: &'static [&'static str],
}

/// All facts of one runtime, as pure functions over bytes. Callers do the I/O.
pub trait Runtime: Sync {
    /// Returns the name of its built-in service: subcommand, directory, and prefix of its configuration tables.
    fn name(&self) -> &'static str;

    /// Returns the short form of its subcommand.
    fn alias(&self) -> &'static str;

    /// Returns its name in sentences.
    fn display_name(&self) -> &'static str;

    /// Returns the values of a new configuration.
    fn defaults(&self) -> Defaults;

    /// Returns whether a new configuration file has its tables. Those of other runtimes are written when a key is
    /// first set.
    fn in_fresh_config(&self) -> bool {
        true
    }

    /// Returns the keys of its configuration tables that have no default and that other runtimes may lack.
    fn optional_keys(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns whether a server can be started with a model.
    fn takes_model(&self) -> bool {
        self.defaults().server_model.is_some() || self.optional_keys().contains(&"model")
    }

    /// Returns the program of the server if the configuration has no `command`; see [`crate::core::programs`].
    fn program(&self) -> &'static str;

    /// Returns the arguments of that program; `command` in the configuration replaces both.
    fn program_args(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns how fusion installs that program; `None` when the user must install it.
    fn install_method(&self) -> Option<InstallMethod> {
        None
    }

    /// Returns the macOS application that runs such a server of its own, and starts it again whenever it ends.
    fn application(&self) -> Option<&'static str> {
        None
    }

    /// Returns the arguments and environment that start a server on `address`, without `command`, `args` and `env` of
    /// the configuration. `model` is resolved; `places` are those of resolved names.
    fn launch(&self, address: &Address, model: Option<&Model>, places: &ModelPlaces) -> Launch;

    /// Returns the variables that no server inherits from the caller; a `*` at the end stands for any text.
    fn withheld_variables(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns the variables that its makers document; `None` if fusion does not know them.
    fn variables(&self) -> Option<Variables> {
        None
    }

    /// Returns the variables, with their values, in whose place the server used a default, as its log tells.
    fn refused_variables(&self, _log: &str) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Returns the variables of its server that name a file or directory and in which the server does not expand `~`.
    fn path_variables(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns how long after SIGTERM a server gets SIGINT, if SIGTERM may not end it.
    fn interrupt_after(&self) -> Option<Duration> {
        None
    }

    /// Returns the cheap request that recognises a running server and reads its state.
    fn status_probe(&self) -> Probe;

    /// Returns requests for further facts about a recognised server: its loaded models, its version.
    fn detail_probes(&self) -> &'static [Probe] {
        &[]
    }

    /// Returns whether a recognised server may still be unable to generate: then `up` requires a one-token chat.
    fn ready_needs_generation(&self) -> bool;

    /// Returns the name that means the model with which the server was started, so an external server loads no other;
    /// `None` if there is no such name.
    fn resident_model(&self) -> Option<&'static str> {
        None
    }

    /// Returns the request that lists every name by which the server answers, for a server that may ignore which model
    /// a request names: what is not in the list is not asked for.
    fn served_models(&self) -> Option<Probe> {
        None
    }

    /// Returns whether a server of this version has the APIs `/v1/messages` and `/v1/responses`, too; `None` if only a
    /// request shows it.
    fn has_other_wires(&self, _version: Option<&str>) -> Option<bool> {
        None
    }

    /// Returns the variable that tells the server where the hub's cache is, before those of the hub's own tool.
    fn cache_variable(&self) -> Option<&'static str> {
        None
    }

    /// Returns the exact name of a model for the server, and whether its files are on this machine.
    fn resolve_model(&self, name: &str, places: &ModelPlaces) -> Model;

    /// Returns the names of the models that its server would find on the disk, where only the server itself lists its
    /// models; `None` if that cannot be known. `variable` returns a variable of the server's environment.
    fn stored_models(
        &self,
        _variable: &dyn Fn(&str) -> Option<OsString>,
        _home: Option<&Path>,
    ) -> Option<Vec<String>> {
        None
    }

    /// Returns the built-in aliases of models.
    fn model_aliases(&self) -> &'static [BuiltInAlias] {
        &[]
    }

    /// Returns whether a model can have this resolved name: that of a path or, as a rule, one of the hub.
    fn is_model_name(&self, name: &str) -> bool {
        name.starts_with('/') || hub::is_model_name(name)
    }

    /// Returns the operations on its models.
    fn catalogue(&self) -> Option<&'static dyn Catalogue> {
        None
    }

    /// Returns whether the installation of its program brings the hub's own tool.
    fn brings_hub_tool(&self) -> bool {
        false
    }

    /// Returns how the hub is searched for models that its catalogue can pull; `None` if it cannot be.
    fn hub_models(&self) -> Option<HubModels> {
        None
    }

    /// Returns whether both names mean the same model of the server.
    fn is_same_model(&self, name: &str, other: &str) -> bool {
        name == other
    }

    /// Returns how `service`, whose server has this table of the configuration, gets a context of at least this many
    /// tokens, in words.
    fn longer_context(&self, _service: &str, _table: &str, _tokens: u64) -> Option<String> {
        None
    }

    /// Returns the arguments that start a server of one model with this context length; `None` where a model has no
    /// context of its own.
    fn context_args(&self, _tokens: u64) -> Option<Vec<String>> {
        None
    }

    /// Returns the argument before the path of a file that gives models their context lengths, and its text, for a
    /// server of many models.
    fn context_presets(&self, _contexts: &[(String, u64)]) -> Option<(&'static str, String)> {
        None
    }

    /// Returns which of [`detail_probes`](Self::detail_probes) tells how much of each model is on the GPU.
    fn gpu_probe(&self) -> Option<Probe> {
        None
    }

    /// Returns the function that reads from the beginning of the server's log how much of its model is on the GPU,
    /// for a server that tells it nowhere else.
    fn gpu_share_in_log(&self) -> Option<fn(&str) -> Option<GpuParts>> {
        None
    }

    /// Returns how its program tells whether it can use a GPU.
    fn gpu_query(&self) -> Option<GpuQuery> {
        None
    }

    /// Returns the request that tells the context length of a loaded model.
    fn context_probe(&self) -> Option<ContextProbe> {
        None
    }

    /// Returns whether the server cuts a prompt that exceeds its context, and answers without a word about it.
    fn cuts_prompts(&self) -> bool {
        false
    }

    /// Returns the fields of a request that the server ignores without a word, each with what to do instead.
    fn ignored_fields(&self) -> &'static [Advice] {
        &[]
    }

    /// Returns what to do about errors of the server, by what it says.
    fn advice(&self) -> &'static [Advice] {
        &[]
    }

    /// Returns what the server does with the messages of a model that has no chat template, in words that follow "the
    /// server".
    fn without_template(&self) -> &'static str {
        "puts the messages to it in a form of its own"
    }

    /// Returns why the process of a model ended or the model could not be loaded, from the end of the server's log;
    /// `None` if the log does not show it.
    fn explain_model_failure(&self, _log_tail: &str) -> Option<String> {
        None
    }

    /// Returns why the process died, from the end of its log; `None` if the log does not show it.
    fn explain_exit(&self, log_tail: &str) -> Option<String>;
}

/// The values of a runtime in a new configuration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Defaults {
    /// The default port of the server.
    pub port: u16,
    /// The model of the server, for runtimes whose server has one model.
    pub server_model: Option<&'static str>,
    /// The model of `run`; empty where no model can be expected to be there.
    pub run_model: &'static str,
    pub temperature: f64,
}

/// How a server is started: arguments after the program, and environment variables.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Launch {
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
}

/// What to do in a certain case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advice {
    /// The name of a field, or a part of a message.
    pub about: &'static str,
    /// In words; `SERVICE` and `MODEL` stand for the names, `SECTION` for the server's table of the configuration.
    pub text: &'static str,
}

impl Advice {
    /// Returns the text with the names.
    pub fn of(&self, service: &str, table: &str, model: &str) -> String {
        self.text.replace("SERVICE", service).replace("SECTION", table).replace("MODEL", &quoted(model))
    }
}

/// One `GET` request, and the function that reads the context length of a model from its response, in tokens.
#[derive(Clone, Copy)]
pub struct ContextProbe {
    /// The path, with its leading slash.
    pub path: &'static str,
    pub read: fn(&Response, &str) -> Option<u64>,
}

/// What a program is asked to tell whether it can use a GPU.
#[derive(Clone, Copy)]
pub struct GpuQuery {
    pub args: &'static [&'static str],
    /// Reads what it prints; `None` if it prints something else.
    pub read: fn(&str) -> Option<bool>,
}

/// One `GET` request, and the function that reads its response.
#[derive(Clone, Copy)]
pub struct Probe {
    /// The path, with its leading slash.
    pub path: &'static str,
    /// Reads the response. For a status probe, the body is cut at 64 KiB.
    pub read: fn(&Response) -> Recognition,
}

/// The meaning of a server's response to a [`Probe`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recognition {
    /// A ready server of this runtime.
    Ready(ServerFacts),
    /// A server of this runtime that is not ready yet; the reason in words.
    NotReady(String),
    /// A server of this runtime that cannot generate until it is restarted; the reason in words.
    Broken(String),
    /// Another program; its response in words.
    OtherProgram(String),
}

/// The meaning of the response to a one-token chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Generation {
    /// The server generates.
    Works,
    /// The server cannot generate yet; the reason in words.
    NotYet(String),
    /// The server does not have the model; its message.
    ModelMissing(String),
    /// The server cannot generate, and a second request would fail too; its message.
    Refused(String),
}

impl Generation {
    /// Reads the response to a one-token chat.
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

/// The facts in a server's response.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerFacts {
    /// Its version, if reported.
    pub version: Option<String>,
    /// The loaded models, if reported.
    pub models: Option<Vec<String>>,
    /// The context length of the loaded model in tokens, if reported. `None` if several models are loaded.
    pub context: Option<u64>,
    /// The loaded models of which it is reported how much is on the GPU.
    pub gpu_shares: Vec<GpuShare>,
    /// Whether servers of other kinds respond in the same way. Only a process that fusion started is then known to be of
    /// this runtime.
    pub is_unmarked: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(status: u16, body: &str) -> Generation {
        Generation::from_response(&Response { status, server: String::new(), body: body.into() })
    }

    /// `mlx_lm.server` reports every failure to load a model as a 404 (server.py: `handle_completion`).
    #[test]
    fn generation_failures_differ_by_message() {
        assert_eq!(generation(200, r#"{"choices":[]}"#), Generation::Works);
        for words in [
            "Cannot find an appropriate cached snapshot folder for the specified revision on the local disk",
            "404 Client Error. Repository Not Found for url: x",
            "[Errno 2] No such file or directory: '/models/none/config.json'",
        ] {
            let body = serde_json::json!({ "error": words }).to_string();
            assert_eq!(generation(404, &body), Generation::ModelMissing(words.to_owned()));
        }
        let text = |words: &str| words.to_owned();
        assert_eq!(
            generation(404, r#"{"error":"generation thread died"}"#),
            Generation::Refused(text("generation thread died"))
        );
        assert_eq!(generation(404, "Not Found"), Generation::Refused(text("Not Found")));
        assert_eq!(generation(400, r#"{"detail":"No"}"#), Generation::Refused(text("No")));
        assert_eq!(
            generation(503, r#"{"error":{"message":"Loading"}}"#),
            Generation::NotYet(text("Loading"))
        );
        assert_eq!(generation(502, "<html>"), Generation::NotYet(text("HTTP 502 Bad Gateway")));
        // Failures that a second attempt does not change.
        for words in
            ["[METAL] Insufficient Memory", "CUDA error: out of memory", "the context size is exceeded"]
        {
            let body = serde_json::json!({ "error": { "message": words } }).to_string();
            assert_eq!(generation(500, &body), Generation::Refused(words.to_owned()));
        }
    }
}
