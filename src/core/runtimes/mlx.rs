//! All that is particular to MLX (`mlx_lm.server`).

mod aliases;
mod catalogue;

use std::path::PathBuf;

use super::{
    Advice, BuiltInAlias, Defaults, InstallMethod, Launch, Model, ModelPlaces, Probe, PythonPackage,
    Recognition, Runtime, ServerFacts,
};
use crate::core::address::Address;
use crate::core::api::Response;
use crate::core::models::catalogue::Catalogue;
use crate::core::models::hub::HubCache;
use crate::core::models::hub::search::HubModels;

/// <https://github.com/ml-explore/mlx-lm>: `mlx_lm.server`.
pub(super) struct Mlx;

const DEFAULT_MODEL: &str = "mlx-community/Llama-3.2-3B-Instruct-4bit";

impl Runtime for Mlx {
    fn name(&self) -> &'static str {
        "mlx"
    }

    fn alias(&self) -> &'static str {
        "mx"
    }

    fn display_name(&self) -> &'static str {
        "MLX"
    }

    fn defaults(&self) -> Defaults {
        Defaults { port: 8080, server_model: Some(DEFAULT_MODEL), run_model: DEFAULT_MODEL, temperature: 0.7 }
    }

    fn program(&self) -> &'static str {
        "mlx_lm.server"
    }

    /// Without the extra, `mlx` is missing on Linux. An installation takes 352 MB and, meanwhile, the downloaded
    /// archives (version 0.32.2).
    fn install_method(&self) -> Option<InstallMethod> {
        Some(InstallMethod::Python(PythonPackage {
            name: "mlx-lm",
            extra: if cfg!(target_os = "macos") { None } else { Some("cpu") },
            versions: ("0.32.2", "0.33"),
            python: (3, 11),
            macos: 14,
            disk_bytes: 1_000_000_000,
        }))
    }

    /// With `HF_HUB_OFFLINE`, no request for a local model waits for a hub or downloads from it.
    fn launch(&self, address: &Address, model: Option<&Model>, _places: &ModelPlaces) -> Launch {
        let mut args =
            vec!["--host".to_owned(), address.host.clone(), "--port".to_owned(), address.port.to_string()];
        let mut env = Vec::new();
        if let Some(model) = model {
            args.extend(["--model".to_owned(), model.name.clone()]);
            if model.present == Some(true) {
                env.push(("HF_HUB_OFFLINE".to_owned(), "1".to_owned()));
            }
        }
        Launch { args, env }
    }

    fn status_probe(&self) -> Probe {
        Probe { path: "/health", read: read_health }
    }

    /// `/health` answers before the model is loaded, and up to version 0.31 even when loading failed.
    fn ready_needs_generation(&self) -> bool {
        true
    }

    /// The server takes another spelling of the same directory for another model, hence the absolute path. Called
    /// before every prompt, so it is cheap: `load` and `up` check the model's files.
    fn resolve_model(&self, name: &str, places: &ModelPlaces) -> Model {
        let (name, directory) = match places.directory(name) {
            Some(directory) => (directory.to_string_lossy().into_owned(), Some(directory)),
            None => (name.to_owned(), cached(name, places)),
        };
        let present = directory.is_some_and(|directory| directory.join("config.json").exists());
        Model { name, present: Some(present) }
    }

    fn model_aliases(&self) -> &'static [BuiltInAlias] {
        aliases::ALIASES
    }

    /// `--model` is the model of the requests that name this one (server.py: `default_model`).
    fn has_other_wires(&self, _version: Option<&str>) -> Option<bool> {
        Some(false)
    }

    fn resident_model(&self) -> Option<&'static str> {
        Some("default_model")
    }

    fn brings_hub_tool(&self) -> bool {
        true
    }

    fn hub_models(&self) -> Option<HubModels> {
        Some(HubModels { filter: "--filter=mlx", name: str::to_owned, choices: catalogue::choices })
    }

    fn catalogue(&self) -> Option<&'static dyn Catalogue> {
        Some(&catalogue::MlxCatalogue)
    }

    fn without_template(&self) -> &'static str {
        "separates the messages by words such as `USER:`, which the model may not know"
    }

    fn advice(&self) -> &'static [Advice] {
        &[Advice {
            about: "only 'text' content type is supported",
            text: "leave out the image, or ask another service",
        }]
    }

    fn explain_exit(&self, log_tail: &str) -> Option<String> {
        let last = log_tail.lines().rev().find(|line| line.contains("Error"))?;
        Some(last.trim().to_owned())
    }
}

/// Returns the directory of a model in the hub's cache.
fn cached(name: &str, places: &ModelPlaces) -> Option<PathBuf> {
    HubCache::new(places.hub_cache.as_ref()?).model(name).ok()?.snapshot()
}

/// Python's HTTP server names itself. The body is that of many servers: of llama-server, too.
fn read_health(response: &Response) -> Recognition {
    match (response.status, response.json()["status"].as_str()) {
        (200, Some("ok")) => {
            let is_unmarked = !response.server.starts_with("BaseHTTP/");
            Recognition::Ready(ServerFacts { is_unmarked, ..ServerFacts::default() })
        }
        // Since version 0.32: the thread that loads the model and generates has died (server.py: is_healthy).
        (503, Some("unavailable")) => Recognition::Broken("its generation thread died".to_owned()),
        (503, Some(reason)) => Recognition::NotReady(reason.to_owned()),
        _ => Recognition::OtherProgram(format!("HTTP {} to /health", response.status)),
    }
}
