//! The one file: all that is particular to an imaginary server, which the fake runtime plays.

use fusion::core::address::Address;
use fusion::core::api::Response;
use fusion::core::runtimes::{
    Defaults, InstallMethod, Launch, Model, ModelPlaces, Probe, Recognition, Runtime, ServerFacts,
};

/// `tabby-server`: a server of one model, which is a directory.
pub(crate) struct Tabby;

const DEFAULT_MODEL: &str = "~/models/tabby";

impl Runtime for Tabby {
    fn name(&self) -> &'static str {
        "tabby"
    }

    fn alias(&self) -> &'static str {
        "tb"
    }

    fn display_name(&self) -> &'static str {
        "Tabby"
    }

    fn defaults(&self) -> Defaults {
        Defaults { port: 5005, server_model: Some(DEFAULT_MODEL), run_model: DEFAULT_MODEL, temperature: 0.8 }
    }

    fn in_fresh_config(&self) -> bool {
        false
    }

    fn program(&self) -> &'static str {
        "tabby-server"
    }

    fn install_method(&self) -> Option<InstallMethod> {
        Some(InstallMethod::Homebrew { formula: "tabby", manual: "https://tabby.example" })
    }

    fn launch(&self, address: &Address, model: Option<&Model>, _places: &ModelPlaces) -> Launch {
        let (host, port) = (address.host.clone(), address.port.to_string());
        let mut args = vec!["--host".to_owned(), host, "--port".to_owned(), port];
        args.extend(model.into_iter().flat_map(|model| ["--model".to_owned(), model.name.clone()]));
        Launch { args, env: Vec::new() }
    }

    fn withheld_variables(&self) -> &'static [&'static str] {
        &["TABBY_*"]
    }

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

    fn explain_exit(&self, log_tail: &str) -> Option<String> {
        log_tail.contains("already in use").then(|| "the address is already in use".to_owned())
    }
}

fn read_models(response: &Response) -> Recognition {
    let (status, json) = (response.status, response.json());
    let models = json["data"].as_array().map_or(&[][..], Vec::as_slice);
    if status == 503 {
        return Recognition::NotReady("the model is loading".to_owned());
    }
    if models.is_empty() || models.iter().any(|model| model["owned_by"] != "tabby") {
        return Recognition::OtherProgram(format!("HTTP {status} to /v1/models, and not by Tabby"));
    }
    let names = models.iter().filter_map(|model| model["id"].as_str()).map(str::to_owned);
    Recognition::Ready(ServerFacts { models: Some(names.collect()), ..ServerFacts::default() })
}
