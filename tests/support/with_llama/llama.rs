//! The one file: all that is particular to llama.cpp's `llama-server`.

use fusion::core::address::Address;
use fusion::core::api::Response;
use fusion::core::runtimes::{
    Defaults, InstallMethod, Launch, Model, ModelPlaces, Probe, Recognition, Runtime, ServerFacts,
};

/// <https://github.com/ggml-org/llama.cpp>: `llama-server`.
pub(crate) struct Llama;

const DEFAULT_MODEL: &str = "ggml-org/gemma-3-1b-it-GGUF";

impl Runtime for Llama {
    fn name(&self) -> &'static str {
        "llama"
    }

    fn alias(&self) -> &'static str {
        "ll"
    }

    fn display_name(&self) -> &'static str {
        "llama.cpp"
    }

    fn defaults(&self) -> Defaults {
        Defaults { port: 8081, server_model: Some(DEFAULT_MODEL), run_model: DEFAULT_MODEL, temperature: 0.8 }
    }

    fn in_fresh_config(&self) -> bool {
        false
    }

    fn program(&self) -> &'static str {
        "llama-server"
    }

    fn install_method(&self) -> Option<InstallMethod> {
        Some(InstallMethod::Homebrew {
            formula: "llama.cpp",
            elsewhere: "https://github.com/ggml-org/llama.cpp",
        })
    }

    /// A file is named with `--model`, anything else is a repository of the Hugging Face hub.
    fn launch(&self, address: &Address, model: Option<&Model>) -> Launch {
        let (host, port) = (address.host.clone(), address.port.to_string());
        let mut args = vec!["--host".to_owned(), host, "--port".to_owned(), port];
        if let Some(model) = model {
            let option = if model.present == Some(true) { "--model" } else { "--hf-repo" };
            args.extend([option.to_owned(), model.name.clone()]);
        }
        Launch { args, env: Vec::new() }
    }

    /// Every path answers 503 until the model is loaded (tools/server/README.md).
    fn status_probe(&self) -> Probe {
        Probe { path: "/v1/models", read: read_models }
    }

    fn ready_needs_generation(&self) -> bool {
        false
    }

    fn resolve_model(&self, name: &str, places: &ModelPlaces) -> Model {
        let path = places.path(name).and_then(|path| path.canonicalize().ok());
        match path.map(|path| path.into_os_string().into_string()) {
            Some(Ok(name)) => Model { name, present: Some(true) },
            _ => Model { name: name.to_owned(), present: None },
        }
    }

    fn pull_command(&self, model: &str) -> String {
        format!("llama-server --hf-repo {model}")
    }

    fn explain_exit(&self, log_tail: &str) -> Option<String> {
        log_tail.contains("couldn't bind").then(|| "the address is already in use".to_owned())
    }
}

fn read_models(response: &Response) -> Recognition {
    let (status, json) = (response.status, response.json());
    let models = json["data"].as_array().map_or(&[][..], Vec::as_slice);
    if status == 503 {
        return Recognition::NotReady("the model is loading".to_owned());
    }
    if models.is_empty() || models.iter().any(|model| model["owned_by"] != "llamacpp") {
        return Recognition::OtherProgram(format!("HTTP {status} to /v1/models, and not by llama.cpp"));
    }
    let names = models.iter().filter_map(|model| model["id"].as_str()).map(str::to_owned);
    Recognition::Ready(ServerFacts { models: Some(names.collect()), ..ServerFacts::default() })
}
