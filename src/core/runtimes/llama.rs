//! All that is particular to llama.cpp (`llama-server`).
//!
//! Without a model it is a router: a process for each model, which is loaded when a request names it, out of a
//! directory and the hub's cache. With a model it serves that one, whatever a request names.

mod aliases;
mod catalogue;
mod files;
mod gpu;

use std::time::Duration;

use serde_json::Value;

use self::files::GgufModel;
use super::{
    Advice, BuiltInAlias, ContextProbe, Defaults, GpuQuery, InstallMethod, Launch, Model, ModelPlaces, Probe,
    Recognition, Runtime, ServerFacts, engine_log,
};
use crate::core::address::Address;
use crate::core::api::Response;
use crate::core::gpu::GpuParts;
use crate::core::models::catalogue::Catalogue;
use crate::core::models::gguf::names::{GgufQuantization, quantizations};
use crate::core::models::hub::search::{HubChoice, HubModels, RepositoryFile};

/// <https://github.com/ggml-org/llama.cpp>: `llama-server`.
pub(super) struct Llama;

/// The request that lists models, which have the directory and the cache read again.
const MODELS_PATH: &str = "/v1/models?reload=1";

/// Returns the quantizations of a repository, by the names that the server has for them.
fn choices(repository: &str, files: &[RepositoryFile]) -> Vec<HubChoice> {
    let choice = |one: GgufQuantization| HubChoice {
        name: format!("{repository}:{}", one.tag),
        quantization: Some(one.tag),
        bytes: one.bytes,
        weight_bytes: one.bytes,
    };
    quantizations(files).into_iter().map(choice).collect()
}

impl Runtime for Llama {
    fn name(&self) -> &'static str {
        "llama"
    }

    fn alias(&self) -> &'static str {
        "lc"
    }

    fn display_name(&self) -> &'static str {
        "llama.cpp"
    }

    /// Its makers chose 8080, which `mlx_lm.server` has, too.
    fn defaults(&self) -> Defaults {
        Defaults { port: 8081, server_model: None, run_model: "", temperature: 0.8 }
    }

    fn in_fresh_config(&self) -> bool {
        false
    }

    fn optional_keys(&self) -> &'static [&'static str] {
        &["model", "models_dir"]
    }

    fn program(&self) -> &'static str {
        "llama-server"
    }

    fn install_method(&self) -> Option<InstallMethod> {
        let manual = "https://github.com/ggml-org/llama.cpp/releases (a program outside of PATH is named with \
                         llama_server.command)";
        Some(InstallMethod::Homebrew { formula: "llama.cpp", manual })
    }

    /// `--cors-origins`: without it any web page may talk to the server. `--offline`: what is started is here, and with
    /// a hub that does not answer a start would hang.
    fn launch(&self, address: &Address, model: Option<&Model>, places: &ModelPlaces) -> Launch {
        let (host, port) = (address.host.clone(), address.port.to_string());
        let mut args = words(["--host", &host, "--port", &port, "--cors-origins", "localhost"]);
        let mut env = Vec::new();
        match model.map(|model| (model, files::find(places, &model.name).ok().flatten())) {
            Some((model, Some(found))) => args.extend(single(model, &found)),
            Some((model, None)) => args.extend(words(["-m", &model.name])),
            None => {
                if let Some(directory) = &places.models_dir {
                    args.extend(words(["--models-dir", &directory.to_string_lossy()]));
                }
                args.push("--offline".to_owned());
                if let Some(cache) = &places.hub_cache {
                    env.push(("LLAMA_CACHE".to_owned(), cache.to_string_lossy().into_owned()));
                }
            }
        }
        Launch { args, env }
    }

    /// Nearly every option has a variable, and one of them locks clients out that have no key.
    fn withheld_variables(&self) -> &'static [&'static str] {
        &["LLAMA_*"]
    }

    /// While it generates it may wait for its client to go; a second signal ends it at once (seen with b11434).
    fn interrupt_after(&self) -> Option<Duration> {
        Some(Duration::from_secs(2))
    }

    fn status_probe(&self) -> Probe {
        Probe { path: "/health", read: read_health }
    }

    fn detail_probes(&self) -> &'static [Probe] {
        &[Probe { path: "/v1/models", read: read_loaded }, Probe { path: "/props", read: read_props }]
    }

    /// `/health` is 503 until a request succeeds.
    fn ready_needs_generation(&self) -> bool {
        false
    }

    fn has_other_wires(&self, _version: Option<&str>) -> Option<bool> {
        Some(true)
    }

    fn served_models(&self) -> Option<Probe> {
        Some(Probe { path: MODELS_PATH, read: read_served })
    }

    fn resolve_model(&self, name: &str, places: &ModelPlaces) -> Model {
        match files::find(places, name) {
            Ok(Some(found)) => Model { present: Some(found.is_here()), name: found.name },
            _ => Model { name: files::plain_name(places, name), present: Some(false) },
        }
    }

    /// A file of `models_dir` has the name of its owner's choice.
    fn is_model_name(&self, name: &str) -> bool {
        let is_file = name.starts_with('/') || !name.contains('/');
        !name.is_empty() && (is_file || files::repository(name).is_some())
    }

    fn model_aliases(&self) -> &'static [BuiltInAlias] {
        aliases::ALIASES
    }

    fn cache_variable(&self) -> Option<&'static str> {
        Some("LLAMA_CACHE")
    }

    fn hub_models(&self) -> Option<HubModels> {
        Some(HubModels { filter: "--filter=gguf", name: str::to_owned, choices })
    }

    fn catalogue(&self) -> Option<&'static dyn Catalogue> {
        Some(&catalogue::LlamaCatalogue)
    }

    fn context_args(&self, tokens: u64) -> Option<Vec<String>> {
        Some(words(["-c", &tokens.to_string()]))
    }

    /// A section has the name by which the router lists the model.
    fn context_presets(&self, contexts: &[(String, u64)]) -> Option<(&'static str, String)> {
        let can_be_section = |name: &str| !name.contains(['[', ']', '\n', '\r']);
        let sections = contexts.iter().filter(|(name, _)| can_be_section(name));
        let sections: Vec<String> =
            sections.map(|(name, tokens)| format!("[{name}]\nctx-size = {tokens}\n")).collect();
        (!sections.is_empty()).then(|| ("--models-preset", format!("version = 1\n\n{}", sections.join("\n"))))
    }

    fn context_probe(&self) -> Option<ContextProbe> {
        Some(ContextProbe { path: "/v1/models", read: read_context })
    }

    fn gpu_share_in_log(&self) -> Option<fn(&str) -> Option<GpuParts>> {
        Some(gpu::in_log)
    }

    fn gpu_query(&self) -> Option<GpuQuery> {
        Some(GpuQuery { args: &["--list-devices"], read: gpu::has_device })
    }

    fn without_template(&self) -> &'static str {
        "uses that of ChatML, which the model may not know"
    }

    fn longer_context(&self, _service: &str, table: &str, tokens: u64) -> Option<String> {
        let context = tokens.saturating_add(1).checked_next_power_of_two()?;
        Some(format!("shorten the prompt, or add \"-c\", \"{context}\" to {table}.args: fusion config edit"))
    }

    fn advice(&self) -> &'static [Advice] {
        ERRORS
    }

    fn explain_model_failure(&self, log_tail: &str) -> Option<String> {
        engine_log::explain_model_failure(log_tail)
    }

    /// The first line that is marked as an error says most; those after it say what follows from it.
    fn explain_exit(&self, log_tail: &str) -> Option<String> {
        log_tail.lines().find_map(error_line).map(|line| match line {
            _ if line.contains("couldn't bind HTTP server socket") => {
                "the address is in use, or is not one of this machine".to_owned()
            }
            _ if line.contains("exactly one out metadata, path_model, and file must be defined") => {
                "the model is not on this machine".to_owned()
            }
            line => line.to_owned(),
        })
    }
}

/// Parts of its error messages, in small letters.
const ERRORS: &[Advice] = &[
    engine_log::UNKNOWN_ARCHITECTURE,
    Advice {
        about: "check_tensor_dims: tensor",
        text: "the file is damaged, or made for another program: convert or download it again",
    },
    Advice {
        about: "image input is not supported",
        text: "leave out the image, or choose a model that has a file `mmproj` beside it",
    },
];

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

/// The arguments for a server of one model. The alias is the name under which `models` lists it.
fn single(model: &Model, found: &GgufModel) -> Vec<String> {
    let path = found.first_file().to_string_lossy();
    let mut args = words(["-m", &path]);
    if let Some(projector) = &found.projector {
        args.extend(words(["--mmproj", &projector.to_string_lossy()]));
    }
    // The server takes a comma for the end of an alias.
    if model.name != path && !model.name.contains(',') {
        args.extend(words(["--alias", &model.name]));
    }
    args.push("--offline".to_owned());
    args
}

/// Other servers answer `/health` with the same body.
fn read_health(response: &Response) -> Recognition {
    match response.status {
        _ if response.server != "llama.cpp" => {
            Recognition::OtherProgram(format!("HTTP {} to /health, and not by llama.cpp", response.status))
        }
        200 => Recognition::Ready(ServerFacts::default()),
        503 => Recognition::NotReady("it is loading the model".to_owned()),
        401 => Recognition::NotReady("it requires an API key".to_owned()),
        status => Recognition::NotReady(format!("HTTP {status} to /health")),
    }
}

/// The entries of a list of models, if it is one of llama.cpp.
fn listed(json: &Value) -> Vec<&Value> {
    let models = json["data"].as_array().into_iter().flatten();
    models.filter(|model| model["owned_by"] == "llamacpp").collect()
}

/// A router lists what it could load, too, and says of each whether it is loaded.
fn is_loaded(model: &Value) -> bool {
    model["status"].is_null() || model["status"]["value"] == "loaded"
}

fn read_loaded(response: &Response) -> Recognition {
    let json = response.json();
    if response.status != 200 {
        return Recognition::NotReady(format!("HTTP {} to /v1/models", response.status));
    }
    let loaded: Vec<&Value> = listed(&json).into_iter().filter(|model| is_loaded(model)).collect();
    let context = match loaded.as_slice() {
        [one] => one["meta"]["n_ctx"].as_u64(),
        _ => None,
    };
    let names = loaded.iter().filter_map(|model| model["id"].as_str()).map(str::to_owned);
    Recognition::Ready(ServerFacts { models: Some(names.collect()), context, ..ServerFacts::default() })
}

fn read_context(response: &Response, model: &str) -> Option<u64> {
    let json = response.json();
    let is_named = |listed: &&Value| {
        let aliases = listed["aliases"].as_array().into_iter().flatten();
        is_loaded(listed) && [&listed["id"]].into_iter().chain(aliases).any(|name| name == model)
    };
    listed(&json).into_iter().find(is_named)?["meta"]["n_ctx"].as_u64()
}

/// Every name by which the server answers.
fn read_served(response: &Response) -> Recognition {
    let json = response.json();
    if response.status != 200 {
        return Recognition::NotReady(format!("HTTP {} to /v1/models", response.status));
    }
    let mut names = Vec::new();
    for model in listed(&json) {
        let aliases = model["aliases"].as_array().into_iter().flatten();
        for name in [&model["id"]].into_iter().chain(aliases).filter_map(Value::as_str) {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
    }
    Recognition::Ready(ServerFacts { models: Some(names), ..ServerFacts::default() })
}

fn read_props(response: &Response) -> Recognition {
    let json = response.json();
    if response.status != 200 {
        return Recognition::NotReady(format!("HTTP {} to /props", response.status));
    }
    // `b11434-<commit>`; `b0-unknown` of a build that does not know its own version.
    let build = json["build_info"].as_str().and_then(|build| build.split('-').next());
    let version = build.filter(|build| !matches!(*build, "" | "b0")).map(str::to_owned);
    let context = json["default_generation_settings"]["n_ctx"].as_u64().filter(|tokens| *tokens > 0);
    Recognition::Ready(ServerFacts { version, context, ..ServerFacts::default() })
}

/// What a line of the log says, if it is an error: `0.00.030.621 E gguf_init: failed to open`, `error: invalid
/// argument`.
fn error_line(line: &str) -> Option<&str> {
    if let Some(said) = line.strip_prefix("error: ") {
        return Some(said.trim());
    }
    let (time, said) = line.split_once(" E ")?;
    let is_time = !time.is_empty() && time.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    is_time.then(|| said.trim())
}

#[cfg(test)]
mod tests;
