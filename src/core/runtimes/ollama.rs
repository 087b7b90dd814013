//! The facts of Ollama.

mod advice;
mod aliases;
mod catalogue;
mod store;

use std::ffi::OsString;
use std::path::Path;

use serde_json::Value;

use super::{
    Advice, BuiltInAlias, ContextProbe, Defaults, InstallMethod, Launch, Model, ModelPlaces, Probe,
    Recognition, Runtime, ServerFacts, Variables, engine_log,
};
use crate::core::address::Address;
use crate::core::api::Response;
use crate::core::gpu::{GpuParts, GpuShare};
use crate::core::models::catalogue::Catalogue;
use crate::core::models::expand_home;
use crate::core::models::gguf::names::{GgufQuantization, is_quantization, quantizations};
use crate::core::models::hub::search::{HubChoice, HubModels, RepositoryFile};

/// The variables of `envconfig/config.go`, the first line of each log of a start.
const VARIABLES: &[&str] = &[
    "OLLAMA_CONTEXT_LENGTH",
    "OLLAMA_DEBUG",
    "OLLAMA_EDITOR",
    "OLLAMA_FLASH_ATTENTION",
    "OLLAMA_GPU_OVERHEAD",
    "OLLAMA_HOST",
    "OLLAMA_KEEP_ALIVE",
    "OLLAMA_KV_CACHE_TYPE",
    "OLLAMA_LLM_LIBRARY",
    "OLLAMA_LOAD_TIMEOUT",
    "OLLAMA_MAX_LOADED_MODELS",
    "OLLAMA_MAX_QUEUE",
    "OLLAMA_MODELS",
    "OLLAMA_MULTIUSER_CACHE",
    "OLLAMA_NEW_ENGINE",
    "OLLAMA_NOHISTORY",
    "OLLAMA_NOPRUNE",
    "OLLAMA_NO_CLOUD",
    "OLLAMA_NUM_PARALLEL",
    "OLLAMA_ORIGINS",
    "OLLAMA_REMOTES",
    "OLLAMA_SCHED_SPREAD",
    "OLLAMA_VULKAN",
];

/// Reads the warnings of `envconfig/config.go`: `invalid environment variable, using default key=K value=V default=D`.
fn refused_variables(log: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in log.lines().filter(|line| line.contains("invalid environment variable")) {
        let Some((name, rest)) = line.split_once("key=").and_then(|(_, rest)| rest.split_once(" value="))
        else {
            continue;
        };
        let value = rest.rsplit_once(" default=").map_or(rest, |(value, _)| value);
        if found.iter().all(|(known, _)| known != name) {
            found.push((name.to_owned(), value.to_owned()));
        }
    }
    found
}

/// <https://ollama.com>: `ollama serve`.
pub(super) struct Ollama;

impl Runtime for Ollama {
    fn name(&self) -> &'static str {
        "ollama"
    }

    fn alias(&self) -> &'static str {
        "ol"
    }

    fn display_name(&self) -> &'static str {
        "Ollama"
    }

    fn defaults(&self) -> Defaults {
        Defaults { port: 11434, server_model: None, run_model: "llama3.2:3b", temperature: 0.8 }
    }

    fn program(&self) -> &'static str {
        "ollama"
    }

    /// <https://ollama.com/download>.
    fn install_method(&self) -> Option<InstallMethod> {
        let manual = if cfg!(target_os = "macos") {
            "https://ollama.com/download"
        } else {
            "curl -fsSL https://ollama.com/install.sh | sh"
        };
        Some(InstallMethod::Homebrew { formula: "ollama", manual })
    }

    /// It ends every other server (`reapServers` in app/server/server.go).
    fn application(&self) -> Option<&'static str> {
        Some("Ollama.app")
    }

    fn program_args(&self) -> &'static [&'static str] {
        &["serve"]
    }

    /// `OLLAMA_HOST` is the only way to set the address (envconfig/config.go). Without `OLLAMA_NOPRUNE`, a start
    /// deletes every partial download, also one that another server on the same directory is writing
    /// (server/routes.go).
    fn launch(&self, address: &Address, _model: Option<&Model>, _places: &ModelPlaces) -> Launch {
        let env = [("OLLAMA_HOST", address.to_string()), ("OLLAMA_NOPRUNE", "1".to_owned())];
        Launch { args: Vec::new(), env: env.map(|(name, value)| (name.to_owned(), value)).into() }
    }

    fn path_variables(&self) -> &'static [&'static str] {
        &["OLLAMA_MODELS"]
    }

    fn variables(&self) -> Option<Variables> {
        Some(Variables { prefix: "OLLAMA_", known: VARIABLES })
    }

    fn refused_variables(&self, log: &str) -> Vec<(String, String)> {
        refused_variables(log)
    }

    /// `OLLAMA_HOST` in the caller's shell may name another server.
    fn withheld_variables(&self) -> &'static [&'static str] {
        &["OLLAMA_HOST"]
    }

    /// The default is that of `envconfig/config.go`.
    fn stored_models(
        &self,
        variable: &dyn Fn(&str) -> Option<OsString>,
        home: Option<&Path>,
    ) -> Option<Vec<String>> {
        let store = match variable("OLLAMA_MODELS").filter(|store| !store.is_empty()) {
            Some(store) => expand_home(Path::new(&store), home),
            None => home?.join(".ollama/models"),
        };
        store::names(&store)
    }

    /// The port accepts connections before HTTP responds, and this path needs no model (server/routes.go).
    fn status_probe(&self) -> Probe {
        Probe { path: "/api/version", read: read_version }
    }

    fn is_same_model(&self, name: &str, other: &str) -> bool {
        catalogue::full_name(name) == catalogue::full_name(other)
    }

    fn has_other_wires(&self, version: Option<&str>) -> Option<bool> {
        version.and_then(|version| is_at_least(version, FIRST_WITH_OTHER_WIRES))
    }

    fn detail_probes(&self) -> &'static [Probe] {
        &[Probe { path: "/api/ps", read: read_loaded }]
    }

    fn gpu_probe(&self) -> Option<Probe> {
        self.detail_probes().first().copied()
    }

    fn context_probe(&self) -> Option<ContextProbe> {
        Some(ContextProbe { path: "/api/ps", read: read_context })
    }

    /// Kept are the first four tokens and the end (runner/ollamarunner/runner.go).
    fn cuts_prompts(&self) -> bool {
        true
    }

    fn longer_context(&self, service: &str, table: &str, tokens: u64) -> Option<String> {
        let context = tokens.saturating_add(1).checked_next_power_of_two()?;
        Some(format!(
            "use a longer context: fusion config set {table}.env.OLLAMA_CONTEXT_LENGTH {context}, then fusion \
             {service} restart"
        ))
    }

    fn ignored_fields(&self) -> &'static [Advice] {
        advice::IGNORED_FIELDS
    }

    fn advice(&self) -> &'static [Advice] {
        advice::ERRORS
    }

    /// Its template is then `{{ .Prompt }}`.
    fn without_template(&self) -> &'static str {
        "gives it the bare prompt: the roles and the system message are lost"
    }

    fn explain_model_failure(&self, log_tail: &str) -> Option<String> {
        engine_log::explain_model_failure(log_tail)
    }

    fn ready_needs_generation(&self) -> bool {
        false
    }

    fn resolve_model(&self, name: &str, _places: &ModelPlaces) -> Model {
        Model { name: name.to_owned(), present: None }
    }

    fn model_aliases(&self) -> &'static [BuiltInAlias] {
        aliases::ALIASES
    }

    fn is_model_name(&self, name: &str) -> bool {
        is_model_name(name)
    }

    fn hub_models(&self) -> Option<HubModels> {
        Some(HubModels { filter: "--apps=ollama", name: |repository| format!("hf.co/{repository}"), choices })
    }

    fn catalogue(&self) -> Option<&'static dyn Catalogue> {
        Some(&catalogue::OllamaCatalogue)
    }

    fn explain_exit(&self, log_tail: &str) -> Option<String> {
        if log_tail.contains("address already in use") {
            return Some("the address is already in use".to_owned());
        }
        // It ends with one such line (cmd/cmd.go).
        let cause = log_tail.lines().rev().find_map(|line| line.strip_prefix("Error: "))?;
        Some(cause.trim().to_owned())
    }
}

/// Returns the quantizations of a repository (<https://huggingface.co/docs/hub/ollama>): one of an unknown kind is named
/// by its file, one in several parts cannot be pulled.
fn choices(repository: &str, files: &[RepositoryFile]) -> Vec<HubChoice> {
    let choice = |one: GgufQuantization| HubChoice {
        name: format!("hf.co/{repository}:{}", if is_quantization(&one.tag) { &one.tag } else { &one.file }),
        quantization: Some(one.tag),
        bytes: one.bytes,
        weight_bytes: one.bytes,
    };
    quantizations(files).into_iter().filter(|one| !one.is_split).map(choice).collect()
}

/// `[host/][namespace/]model[:tag]`, as types/model/name.go reads it. A name that breaks its rules gets a different
/// error from each of the server's APIs, none of which names it.
fn is_model_name(name: &str) -> bool {
    let (path, tag) = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (name, None),
    };
    let is_part = |part: &str, longest: usize, more: &str| {
        let is_first = |first: char| first.is_ascii_alphanumeric() || first == '_';
        let is_letter = |letter: char| is_first(letter) || letter == '-' || more.contains(letter);
        part.starts_with(is_first) && part.chars().all(is_letter) && part.len() <= longest
    };
    let mut parts = path.rsplitn(3, '/');
    let mut is_next = |longest, more| parts.next().is_none_or(|part| is_part(part, longest, more));
    let are_model_and_namespace = is_next(80, ".") && is_next(80, "");
    let is_host = |host: &str| is_part(host.split_once("://").map_or(host, |(_, host)| host), 350, ".:");
    are_model_and_namespace && parts.next().is_none_or(is_host) && tag.is_none_or(|tag| is_part(tag, 80, "."))
}

/// The first version with `/v1/messages` and `/v1/responses`, major and minor.
const FIRST_WITH_OTHER_WIRES: (u32, u32) = (0, 14);

fn is_at_least(version: &str, least: (u32, u32)) -> Option<bool> {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().ok());
    let version = (numbers.next()??, numbers.next()??);
    // A build of a developer.
    (version != (0, 0)).then_some(version >= least)
}

fn read_version(response: &Response) -> Recognition {
    match response.json()["version"].as_str() {
        Some(version) if response.status == 200 => {
            Recognition::Ready(ServerFacts { version: Some(version.to_owned()), ..ServerFacts::default() })
        }
        _ => Recognition::OtherProgram(format!("HTTP {} without an Ollama version", response.status)),
    }
}

fn read_context(response: &Response, model: &str) -> Option<u64> {
    let json = response.json();
    let wanted = catalogue::full_name(model);
    let is_named =
        |loaded: &&Value| loaded["name"].as_str().is_some_and(|name| catalogue::full_name(name) == wanted);
    json["models"].as_array()?.iter().find(is_named)?["context_length"].as_u64()
}

/// Reads the sizes of a loaded model, with its context, in all memory and in that of the GPU.
fn gpu_share(model: &Value) -> Option<GpuShare> {
    let parts = GpuParts { on_gpu: model["size_vram"].as_u64()?, all: model["size"].as_u64()? };
    Some(GpuShare { model: model["name"].as_str()?.to_owned(), parts })
}

fn read_loaded(response: &Response) -> Recognition {
    match response.json()["models"].as_array() {
        Some(models) if response.status == 200 => {
            let names = models.iter().filter_map(|model| model["name"].as_str()).map(str::to_owned);
            let context = match &models[..] {
                [model] => model["context_length"].as_u64(),
                _ => None,
            };
            let gpu_shares = models.iter().filter_map(gpu_share).collect();
            let facts =
                ServerFacts { models: Some(names.collect()), context, gpu_shares, ..ServerFacts::default() };
            Recognition::Ready(facts)
        }
        _ => Recognition::NotReady(format!("HTTP {} to /api/ps", response.status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_variables_are_read_once() {
        let log = "2026/11/29 06:43:17 config.go:238: WARN invalid environment variable, using default key=OLLAMA_NUM_PARALLEL value=x default=1\n\
                   time=2026-11-29T06:43:17.696Z level=WARN source=config.go:238 msg=\"invalid environment variable, using default\" key=OLLAMA_NUM_PARALLEL value=x default=1\n\
                   time=2026-11-29T06:43:17.697Z level=WARN msg=\"invalid environment variable, using default\" key=OLLAMA_MAX_QUEUE value=\"1 2\" default=512\n";
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            refused_variables(log),
            [pair("OLLAMA_NUM_PARALLEL", "x"), pair("OLLAMA_MAX_QUEUE", "\"1 2\"")]
        );
        assert_eq!(refused_variables("level=INFO msg=\"server config\""), []);
    }

    #[test]
    fn the_last_error_in_the_log_explains() {
        let cause = |log: &str| Ollama.explain_exit(log);
        let log = "time=x level=INFO\nError: listen tcp 127.0.0.1:1: bind: address already in use\n";
        assert_eq!(cause(log).as_deref(), Some("the address is already in use"));
        let log =
            "Error: one\nError: mkdir /x: not a directory: ensure path elements are traversable\nlast\n";
        assert_eq!(
            cause(log).as_deref(),
            Some("mkdir /x: not a directory: ensure path elements are traversable")
        );
        assert_eq!(cause("level=ERROR msg=\"Error: no\"\n"), None);
    }

    #[test]
    fn context_of_the_loaded_model_is_read() {
        let facts = |models: &str| {
            let body = format!(r#"{{"models":[{models}]}}"#).into_bytes();
            match read_loaded(&Response { status: 200, server: String::new(), body }) {
                Recognition::Ready(facts) => facts.context,
                other => panic!("{other:?}"),
            }
        };
        let model = r#"{"name":"a","context_length":4096}"#;
        assert_eq!(facts(model), Some(4096));
        // Up to version 0.6 it does not tell, and of several it is not known which one is meant.
        assert_eq!(facts(r#"{"name":"a"}"#), None);
        assert_eq!(facts(&format!("{model},{model}")), None);
    }

    #[test]
    fn share_on_the_gpu_is_read() {
        let shares = |models: &str| {
            let body = format!(r#"{{"models":[{models}]}}"#).into_bytes();
            match read_loaded(&Response { status: 200, server: String::new(), body }) {
                Recognition::Ready(facts) => facts.gpu_shares,
                other => panic!("{other:?}"),
            }
        };
        let expected = GpuShare { model: "a".to_owned(), parts: GpuParts { on_gpu: 30, all: 40 } };
        assert_eq!(shares(r#"{"name":"a","size":40,"size_vram":30},{"name":"b","size":40}"#), [expected]);
    }

    #[test]
    fn names_of_models_are_told_from_others() {
        for name in [
            "llama3.2",
            "llama3.2:3b",
            "me/model",
            "hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M",
            "localhost:5000/library/model",
            "http://localhost:5000/library/model:tag",
            "_x:_y",
        ] {
            assert!(is_model_name(name), "{name}");
        }
        for name in
            ["", "bad name!", "./x", "../x", "/x", "~/x", "x/", "x:", ":x", "a/b/c/d", "-x", "mo del", "é"]
        {
            assert!(!is_model_name(name), "{name}");
        }
        for name in ["http://model", "http://me/model", "//me/model"] {
            assert!(!is_model_name(name), "{name} has no host");
        }
        for part in ["", "me/", "model:"] {
            let long = |length| format!("{part}{}", "x".repeat(length));
            assert!(is_model_name(&long(80)) && !is_model_name(&long(81)), "{part}");
        }
    }
}
