//! All that is particular to MLX (`mlx_lm.server`).

mod aliases;
mod catalogue;

use std::path::PathBuf;

use super::{
    BuiltInAlias, Defaults, InstallMethod, Launch, Model, ModelPlaces, Probe, PythonPackage, Recognition,
    Runtime, ServerFacts,
};
use crate::core::address::Address;
use crate::core::api::Response;
use crate::core::models::catalogue::Catalogue;
use crate::core::models::hub_cache::HubCache;

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

    /// Without the extra there is no `mlx` on Linux. The newest version, its requirements and 352 MB on disk were
    /// seen in November 2026; while it is made, the downloaded archives are there too.
    fn install_method(&self) -> Option<InstallMethod> {
        Some(InstallMethod::Python(PythonPackage {
            name: "mlx-lm",
            extra: if cfg!(target_os = "macos") { None } else { Some("cpu") },
            versions: ("0.32.2", "0.33"),
            python: (3, 11),
            disk_bytes: 1_000_000_000,
        }))
    }

    /// `HF_HUB_OFFLINE`: with a model that is here, no request may stall on or download from a hub.
    fn launch(&self, address: &Address, model: Option<&Model>) -> Launch {
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

    /// Another spelling of the same directory is another model to the server, hence the absolute path. Called before
    /// every prompt, so a glance must do: whether the model is whole is looked at when it is to be loaded.
    fn resolve_model(&self, name: &str, places: &ModelPlaces) -> Model {
        let (name, directory) = match places.directory(name) {
            Some(directory) => (directory.to_string_lossy().into_owned(), Some(directory)),
            None => (name.to_owned(), cached(name, places)),
        };
        let present = directory.is_some_and(|directory| directory.join("config.json").is_file());
        Model { name, present: Some(present) }
    }

    fn model_aliases(&self) -> &'static [BuiltInAlias] {
        aliases::ALIASES
    }

    /// `--model` is the model of the requests that name this one (server.py: `default_model`).
    fn resident_model(&self) -> Option<&'static str> {
        Some("default_model")
    }

    fn catalogue(&self) -> Option<&'static dyn Catalogue> {
        Some(&catalogue::Models)
    }

    fn explain_exit(&self, log_tail: &str) -> Option<String> {
        let last = log_tail.lines().rev().find(|line| line.contains("Error"))?;
        Some(last.trim().to_owned())
    }
}

/// The directory of a model in the hub's cache.
fn cached(name: &str, places: &ModelPlaces) -> Option<PathBuf> {
    HubCache::new(places.hub_cache.as_ref()?).model(name).ok()?.snapshot()
}

fn read_health(response: &Response) -> Recognition {
    match (response.status, response.json()["status"].as_str()) {
        (200, Some("ok")) => Recognition::Ready(ServerFacts::default()),
        // Since version 0.32: the thread that loads the model and generates has died (server.py: is_healthy).
        (503, Some("unavailable")) => Recognition::Broken("its generation thread died".to_owned()),
        (503, Some(reason)) => Recognition::NotReady(reason.to_owned()),
        _ => Recognition::OtherProgram(format!("HTTP {} to /health", response.status)),
    }
}
