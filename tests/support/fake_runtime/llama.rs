//! What only `llama-server` has: one model, or a router that loads and unloads those of a directory.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use crate::Fake;
use crate::server::{Request, response};

/// The state of a fake `llama-server`.
pub(crate) struct Llama {
    /// `--models-dir`, in which every file is a model.
    pub(crate) directory: Option<String>,
    /// The names of the models in memory.
    pub(crate) loaded: Mutex<BTreeSet<String>>,
}

impl Llama {
    /// Every name by which it answers.
    pub(crate) fn names(&self, fake: &Fake) -> Vec<String> {
        if let Some(model) = &fake.model {
            return vec![model.clone()];
        }
        let listed = fake.faults.text("models").map(|names| names.split(',').map(str::to_owned).collect());
        let files = || self.directory.as_ref().map(|directory| stems(Path::new(directory)));
        listed.or_else(files).unwrap_or_default()
    }

    fn loaded(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it answers a chat with this model: a router loads it, a server of one model does not care.
    pub(crate) fn accepts(&self, fake: &Fake, model: &str) -> bool {
        let is_known = fake.model.is_some() || self.names(fake).iter().any(|name| name == model);
        if is_known && fake.model.is_none() {
            self.loaded().insert(model.to_owned());
        }
        is_known
    }

    /// Answers a request that only this server knows; `None` for any other.
    pub(crate) fn answer(
        &self,
        fake: &Fake,
        stream: &mut TcpStream,
        request: &Request,
    ) -> Option<std::io::Result<()>> {
        let path = request.line.split('?').next().unwrap_or_default();
        let is_router = fake.model.is_none();
        let (status, body) = match path {
            "GET /health" => (200, json!({ "status": "ok" })),
            "GET /props" if is_router => (200, json!({ "role": "router", "build_info": "b42-fake" })),
            "GET /props" => (
                200,
                json!({ "build_info": "b42-fake", "default_generation_settings": { "n_ctx": context(fake) } }),
            ),
            "GET /v1/models" => (200, json!({ "data": self.list(fake) })),
            "POST /models/load" if is_router => self.load(fake, &request.body),
            "POST /models/unload" if is_router => self.unload(fake, &request.body),
            _ => return None,
        };
        Some(response(fake, stream, status, &body))
    }

    fn list(&self, fake: &Fake) -> Vec<Value> {
        let entry = |name: String| {
            let is_loaded = fake.model.is_some() || self.loaded().contains(&name);
            let mut entry = json!({ "id": name, "aliases": [], "owned_by": "llamacpp" });
            if is_loaded {
                entry["meta"] = json!({ "n_ctx": context(fake) });
            }
            if fake.model.is_none() {
                entry["status"] = json!({ "value": if is_loaded { "loaded" } else { "unloaded" } });
            }
            entry
        };
        self.names(fake).into_iter().map(entry).collect()
    }

    fn load(&self, fake: &Fake, body: &Value) -> (u64, Value) {
        let name = body["model"].as_str().unwrap_or_default().to_owned();
        if !self.names(fake).contains(&name) {
            return (404, error(404, "File Not Found"));
        }
        if !self.loaded().insert(name) {
            return (400, error(400, "model is already running"));
        }
        (200, json!({ "success": true }))
    }

    fn unload(&self, fake: &Fake, body: &Value) -> (u64, Value) {
        let name = body["model"].as_str().unwrap_or_default().to_owned();
        if !self.names(fake).contains(&name) {
            return (404, error(404, "File Not Found"));
        }
        if !self.loaded().remove(&name) {
            return (400, error(400, "model is not running"));
        }
        (200, json!({ "success": true }))
    }
}

fn context(fake: &Fake) -> u64 {
    fake.faults.number("context").unwrap_or(4096)
}

fn error(code: u64, words: &str) -> Value {
    json!({ "error": { "code": code, "message": words, "type": "invalid_request_error" } })
}

fn stems(directory: &Path) -> Vec<String> {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = files.filter_map(|file| file.file_name().into_string().ok());
    let mut stems: Vec<String> =
        names.filter_map(|name| Some(name.strip_suffix(".gguf")?.to_owned())).collect();
    stems.sort();
    stems
}
