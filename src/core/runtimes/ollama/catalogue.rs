//! Ollama's models, through its native API (<https://github.com/ollama/ollama/blob/main/docs/api.md>).
//!
//! fusion does not use its command line, which on macOS may start the application.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::store;
use crate::core::api::error::{ServerError, ServerErrorKind};
use crate::core::api::idle_timeout::IdleTimeout;
use crate::core::api::{ApiError, Client, Response};
use crate::core::json_object;
use crate::core::models::catalogue::{
    Abilities, Catalogue, Details, Entry, KeepAlive, MemoryEstimate, ModelError, PullStep, Site,
};
use crate::core::models::defect::Defect;
use crate::core::models::token_cache::is_plain_gguf;
use crate::core::timestamp::Timestamp;

/// The models of an Ollama server.
pub(super) struct OllamaCatalogue;

/// Idle timeout of a request that the server can respond to at once.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Idle timeout of a download: the server sends nothing while it verifies a large layer.
const PULL_IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// The template of a model whose own the server does not know: it has no roles, and drops the system message.
const NO_TEMPLATE: &str = "{{ .Prompt }}";

impl Catalogue for OllamaCatalogue {
    fn needs_server(&self) -> bool {
        true
    }

    fn list(&self, site: &Site<'_>) -> Result<Vec<Entry>, ModelError> {
        listed(site, &(site.log)())
    }

    fn show(&self, site: &Site<'_>, name: &str) -> Result<Details, ModelError> {
        let (shown, log) = (shown(site, name)?, (site.log)());
        let entry = entry(site, &log, name)?.ok_or_else(|| ModelError::NotHere { name: name.to_owned() })?;
        Ok(read_details(&shown, entry, server_context(site, &log)))
    }

    fn abilities(&self, site: &Site<'_>, name: &str) -> Result<Abilities, ModelError> {
        let shown = shown(site, name)?;
        let capabilities = shown["capabilities"].as_array();
        Ok(Abilities {
            chat_template: has_template(&shown),
            // Versions before 0.6.4 tell none.
            vision: capabilities.map(|all| all.iter().any(|capability| capability == "vision")),
        })
    }

    /// The digest of its manifest, which names the digests of its files.
    fn identity(&self, site: &Site<'_>, name: &str) -> Option<String> {
        let tags = json_of(&client(site).ok()?.get("/api/tags").ok()?).ok()?;
        text(&find(&tags, name)?["digest"])
    }

    fn check(&self, site: &Site<'_>, name: &str) -> Result<(), ModelError> {
        shown(site, name).map(|_| ())
    }

    fn pull(
        &self,
        site: &Site<'_>,
        name: &str,
        observer: &mut dyn FnMut(PullStep<'_>),
    ) -> Result<(), ModelError> {
        let client = Client::with_idle_timeout(
            site.address()?,
            &IdleTimeout::cancellable(PULL_IDLE_TIMEOUT, site.cancel),
        );
        let mut pull = Pull::default();
        let refused =
            client.post_for_lines("/api/pull", &json!({ "model": name, "stream": true }), &mut |line| {
                pull.line(line, observer);
                if pull.error.is_some() || site.cancel.is_cancelled() {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
        let said = match refused {
            Ok(Some(response)) => ServerError::from_response(response.status, &response.body).message,
            Ok(None) if site.cancel.is_cancelled() && !pull.succeeded => return Err(ModelError::Cancelled),
            Ok(None) if pull.succeeded => return Ok(()),
            Ok(None) => pull.error.unwrap_or_else(|| "the server ended its response too early".to_owned()),
            Err(ApiError::TimedOut { .. }) => {
                return Err(ModelError::Network {
                    said: "the server has received nothing for ten minutes".to_owned(),
                });
            }
            Err(error) => return Err(error.into()),
        };
        Err(pull_error(name, said))
    }

    fn remove(&self, site: &Site<'_>, name: &str) -> Result<Option<u64>, ModelError> {
        let response = client(site)?.delete("/api/delete", &json!({ "model": name }))?;
        named(name, response).map(|_| None)
    }

    fn load(&self, site: &Site<'_>, name: &str, keep_alive: Option<&KeepAlive>) -> Result<(), ModelError> {
        let keep_alive = keep_alive.map_or_else(|| default_keep_alive(site), KeepAlive::json);
        let body = json!({ "model": name, "stream": false, "keep_alive": keep_alive });
        let client = Client::with_idle_timeout(
            site.address()?,
            &IdleTimeout::cancellable(site.load_timeout, site.cancel),
        );
        let loaded = named(name, client.post("/api/generate", &body)?).map(|_| ());
        match &loaded {
            // So it answers about a model without its weights, too.
            Err(ModelError::Server { said, .. }) if said.message.contains("does not support generate") => {
                self.check(site, name).and(loaded)
            }
            _ => loaded,
        }
    }

    fn unload(&self, site: &Site<'_>, name: &str) -> Result<(), ModelError> {
        let body = json!({ "model": name, "keep_alive": 0, "stream": false });
        named(name, client(site)?.post("/api/generate", &body)?).map(|_| ())
    }

    /// An unload is answered at once. The list has the model for as long as it still answers a request, and a third
    /// of a second longer.
    fn is_loaded(&self, site: &Site<'_>, name: &str) -> Result<bool, ModelError> {
        let loaded = json_of(&client(site)?.get("/api/ps")?)?;
        Ok(find(&loaded, name).is_some())
    }
}

/// Returns what the server says about the model. It does not find one that it lists if a file of it is gone.
fn shown(site: &Site<'_>, name: &str) -> Result<Value, ModelError> {
    let response = client(site)?.post("/api/show", &json!({ "model": name }))?;
    match named(name, response) {
        Err(ModelError::NotHere { name }) => {
            let log = (site.log)();
            Err(match entry(site, &log, &name)? {
                Some(entry) => incomplete(&log, name, &entry),
                None => ModelError::NotHere { name },
            })
        }
        found => json_of(&found?),
    }
}

/// Returns the models that the server lists. Its log tells where their files are, which are then checked.
fn listed(site: &Site<'_>, log: &str) -> Result<Vec<Entry>, ModelError> {
    let client = client(site)?;
    let loaded = json_of(&client.get("/api/ps")?)?;
    let loaded: Vec<&str> = models(&loaded).filter_map(|model| model["name"].as_str()).collect();
    let tags = json_of(&client.get("/api/tags")?)?;
    let store = store::of_log(log);
    let read = |model| {
        let mut entry = read_entry(model, &loaded)?;
        let defects = defects(store.as_deref(), &entry.name);
        entry.defects = defects.iter().map(Defect::to_string).collect();
        Some(entry)
    };
    Ok(models(&tags).filter_map(read).collect())
}

/// Returns the model as the server lists it.
fn entry(site: &Site<'_>, log: &str, name: &str) -> Result<Option<Entry>, ModelError> {
    let wanted = full_name(name);
    Ok(listed(site, log)?.into_iter().find(|entry| full_name(&entry.name) == wanted))
}

/// Returns how long a model stays loaded that is loaded without `--keep-alive`: as `OLLAMA_KEEP_ALIVE` of the
/// configuration says, unless that unloads it at once, else as long as Ollama's own default.
fn default_keep_alive(site: &Site<'_>) -> Value {
    let configured = site.env.get("OLLAMA_KEEP_ALIVE").map(|value| value.trim());
    match configured.filter(|value| value.contains(|digit: char| ('1'..='9').contains(&digit))) {
        Some(value) => value.parse::<i64>().map_or_else(|_| json!(value), |seconds| json!(seconds)),
        None => json!("5m"),
    }
}

/// The state of a pull: one JSON object a line. Any line of a 200 response may be an error.
#[derive(Default)]
struct Pull {
    /// The layers in their order: digest, bytes that have arrived, bytes in all.
    layers: Vec<(String, u64, u64)>,
    succeeded: bool,
    error: Option<String>,
}

impl Pull {
    fn line(&mut self, line: &[u8], observer: &mut dyn FnMut(PullStep<'_>)) {
        let text = String::from_utf8_lossy(line);
        let Ok(json) = serde_json::from_str::<Value>(&text) else {
            self.error = Some(format!("this is not a response of Ollama: {text}"));
            return;
        };
        if json.get("error").is_some_and(|error| !error.is_null()) {
            self.error = Some(ServerError::from_event(&text).message);
            return;
        }
        let status = json["status"].as_str().unwrap_or_default();
        self.succeeded |= status == "success";
        match (json["digest"].as_str(), json["total"].as_u64()) {
            (Some(digest), Some(total)) => {
                self.layer(digest, json["completed"].as_u64().unwrap_or_default(), total);
                let sum = |part: fn(&(String, u64, u64)) -> u64| {
                    self.layers.iter().map(part).fold(0, u64::saturating_add)
                };
                observer(PullStep::Bytes { done: sum(|layer| layer.1), total: Some(sum(|layer| layer.2)) });
            }
            _ if !status.is_empty() && !self.succeeded => observer(PullStep::Stage(status)),
            _ => {}
        }
    }

    fn layer(&mut self, digest: &str, completed: u64, total: u64) {
        let completed = completed.min(total);
        match self.layers.iter_mut().find(|layer| layer.0 == digest) {
            Some(layer) => (layer.1, layer.2) = (completed, total),
            None => self.layers.push((digest.to_owned(), completed, total)),
        }
    }
}

/// Returns a client for long responses: a list of thousands of models, or a licence of many pages.
fn client(site: &Site<'_>) -> Result<Client, ModelError> {
    let idle_timeout = IdleTimeout::cancellable(IDLE_TIMEOUT, site.cancel);
    Ok(Client::with_idle_timeout(site.address()?, &idle_timeout).with_long_responses())
}

/// Returns the models of a list, which is `null` if there are none.
fn models(list: &Value) -> impl Iterator<Item = &Value> {
    list["models"].as_array().into_iter().flatten()
}

/// Returns the model of a list that has this name.
fn find<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    let wanted = full_name(name);
    models(list).find(|model| model["name"].as_str().is_some_and(|name| full_name(name) == wanted))
}

fn read_entry(model: &Value, loaded: &[&str]) -> Option<Entry> {
    let name = model["name"].as_str()?;
    let detail = |key: &str| text(&model["details"][key]);
    let is_remote = is_remote(model);
    Some(Entry {
        name: name.to_owned(),
        // Of a remote model, the size of its description.
        size_bytes: model["size"].as_u64().filter(|_| !is_remote),
        format: detail("format"),
        quantization: detail("quantization_level"),
        modified: model["modified_at"].as_str().and_then(|moment| moment.parse::<Timestamp>().ok()),
        last_used: None,
        loaded: Some(loaded.contains(&name)),
        remote: is_remote,
        ..Entry::default()
    })
}

/// Returns the context that a server gives to models that do not say theirs, in tokens: as its log tells, else as it is
/// configured.
fn server_context(site: &Site<'_>, log: &str) -> Option<u64> {
    let configured = || site.env.get("OLLAMA_CONTEXT_LENGTH")?.trim().parse().ok();
    logged_context(log).or_else(configured)
}

/// Returns what is wrong with the files of a model in `store`; nothing if it is not known.
fn defects(store: Option<&Path>, name: &str) -> Vec<Defect> {
    store.map(|store| store::defects(store, name)).unwrap_or_default()
}

/// Returns the error for a model that the server lists and does not find.
fn incomplete(log: &str, name: String, entry: &Entry) -> ModelError {
    let mut defects = defects(store::of_log(log).as_deref(), &entry.name);
    if defects.is_empty() {
        defects.push(Defect::Missing { file: "a file that its manifest names".to_owned() });
    }
    ModelError::Incomplete { name, defects, own: None }
}

/// Reads that context from the lines with which the server logs its start: its variables, and what it chose by the
/// memory of the GPU (`server/routes.go`).
fn logged_context(log: &str) -> Option<u64> {
    let after = |mark: &str| {
        let number = log.split_once(mark)?.1;
        let digits = number.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(number.len());
        number[..digits].parse().ok().filter(|tokens: &u64| *tokens > 0)
    };
    after("OLLAMA_CONTEXT_LENGTH:").or_else(|| after("default_num_ctx="))
}

/// Reads what the server says about a model; `server_context` is that of models that do not say theirs.
fn read_details(shown: &Value, entry: Entry, server_context: Option<u64>) -> Details {
    let info = &shown["model_info"];
    let architecture = text(&info["general.architecture"]).or_else(|| text(&shown["details"]["family"]));
    let fact = |key: &str| {
        let architecture = architecture.as_deref().unwrap_or_default();
        info[format!("{architecture}.{key}").as_str()].as_u64()
    };
    let context_length = fact("context_length").or_else(|| shown["details"]["context_length"].as_u64());
    let bytes_per_token = || {
        is_plain_gguf(architecture.as_deref()?).then_some(())?;
        let heads = fact("attention.head_count")?;
        let kept = fact("attention.head_count_kv").unwrap_or(heads);
        let size = || fact("embedding_length")?.checked_div(heads);
        let key = fact("attention.key_length").or_else(size)?;
        let value = fact("attention.value_length").or_else(size)?;
        // 16-bit numbers, for each key-value head, in each layer.
        [2, fact("block_count")?, kept, key.saturating_add(value)].into_iter().reduce(u64::saturating_mul)
    };
    let memory = entry.size_bytes.zip(bytes_per_token());
    let wanted_context = own_context(shown).or(server_context).filter(|_| !entry.remote);
    let context_tokens = wanted_context.unwrap_or(MemoryEstimate::CONTEXT_TOKENS);
    let capabilities = shown["capabilities"].as_array().into_iter().flatten();
    Details {
        memory: memory.map(|(weights, per_token)| {
            MemoryEstimate::with_context(weights, per_token, context_length, context_tokens)
        }),
        path: None,
        parameters: info["general.parameter_count"].as_u64(),
        load_context: wanted_context.filter(|wanted| context_length.is_none_or(|own| *wanted < own)),
        context_length,
        license: text(&shown["license"]).as_deref().and_then(first_line),
        chat_template: has_template(shown),
        capabilities: capabilities.filter_map(text).collect(),
        architecture,
        entry,
    }
}

/// Returns the context with which the model itself says that it is to be loaded, in tokens.
fn own_context(shown: &Value) -> Option<u64> {
    let parameters = shown["parameters"].as_str()?;
    parameters.lines().find_map(|line| line.strip_prefix("num_ctx")?.trim().parse().ok())
}

/// Returns whether another server answers for the model: what this one says of its template and context is not true of
/// it.
fn is_remote(model: &Value) -> bool {
    ["remote_host", "remote_model"].iter().any(|key| text(&model[*key]).is_some())
}

fn has_template(shown: &Value) -> Option<bool> {
    let has = || text(&shown["template"]).is_some_and(|template| template != NO_TEMPLATE);
    (!is_remote(shown)).then(has)
}

fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// Returns the first line of a licence text, which is its name.
fn first_line(license: &str) -> Option<String> {
    license.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}

/// Returns the name with its tag: `llama3.2` is `llama3.2:latest`.
pub(super) fn full_name(name: &str) -> String {
    let has_tag = name.rsplit('/').next().is_some_and(|last| last.contains(':'));
    if has_tag { name.to_lowercase() } else { format!("{}:latest", name.to_lowercase()) }
}

/// Returns the response to a request about one model, or its error.
fn named(name: &str, response: Response) -> Result<Response, ModelError> {
    if (200..300).contains(&response.status) {
        return Ok(response);
    }
    let error = ServerError::from_response(response.status, &response.body);
    let name = || name.to_owned();
    Err(match error.kind {
        ServerErrorKind::ModelMissing => ModelError::NotHere { name: name() },
        _ if error.message.contains("invalid model name") => ModelError::InvalidName { name: name() },
        _ => error.into(),
    })
}

fn json_of(response: &Response) -> Result<Value, ModelError> {
    let json = json_object::parse(&response.body).ok().filter(|_| response.status == 200);
    json.ok_or_else(|| ServerError::from_response(response.status, &response.body).into())
}

/// Returns the error of a failed pull. The texts are those of Ollama (`server/images.go`, `server/download.go`) and
/// Go.
fn pull_error(name: &str, said: String) -> ModelError {
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if has(&["file does not exist", "not found"]) {
        ModelError::Unknown { name: name.to_owned() }
    } else if has(&["invalid model name", "unqualified"]) {
        ModelError::InvalidName { name: name.to_owned() }
    } else if has(&[
        "dial tcp",
        "no such host",
        "timeout",
        "connection refused",
        "connection reset",
        "max retries",
    ]) {
        ModelError::Network { said }
    } else {
        ModelError::Download { said }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(lines: &[&str]) -> (Pull, Vec<String>) {
        let (mut pull, mut steps) = (Pull::default(), Vec::new());
        for line in lines {
            pull.line(line.as_bytes(), &mut |step| steps.push(format!("{step:?}")));
        }
        (pull, steps)
    }

    #[test]
    fn bytes_of_all_layers_add_up() {
        let (pull, steps) = steps(&[
            r#"{"status":"pulling manifest"}"#,
            r#"{"status":"pulling aa","digest":"sha256:aa","total":100}"#,
            r#"{"status":"pulling aa","digest":"sha256:aa","total":100,"completed":60}"#,
            r#"{"status":"pulling bb","digest":"sha256:bb","total":10,"completed":10}"#,
            r#"{"status":"verifying sha256 digest"}"#,
            r#"{"status":"success"}"#,
        ]);
        let expected = [
            r#"Stage("pulling manifest")"#,
            "Bytes { done: 0, total: Some(100) }",
            "Bytes { done: 60, total: Some(100) }",
            "Bytes { done: 70, total: Some(110) }",
            r#"Stage("verifying sha256 digest")"#,
        ];
        assert_eq!(steps, expected);
        assert!(pull.succeeded && pull.error.is_none());
    }

    #[test]
    fn an_error_inside_a_200_is_an_error() {
        let (pull, _) = steps(&[
            r#"{"status":"pulling manifest"}"#,
            r#"{"error":"pull model manifest: file does not exist"}"#,
        ]);
        assert_eq!(pull.error.as_deref(), Some("pull model manifest: file does not exist"));
        let error = pull_error("nix", pull.error.unwrap_or_default());
        assert!(matches!(error, ModelError::Unknown { .. }), "{error}");
    }

    #[test]
    fn line_that_is_not_json_is_error() {
        let (pull, _) = steps(&["<html>"]);
        assert_eq!(pull.error.as_deref(), Some("this is not a response of Ollama: <html>"));
    }

    #[test]
    fn null_list_is_empty() {
        assert_eq!(models(&json!({ "models": null })).count(), 0);
        assert_eq!(models(&json!({})).count(), 0);
    }

    #[test]
    fn model_of_list_is_parsed() {
        let model = json!({ "name": "llama3.2:3b", "size": 2_019_393_189, "modified_at": "2024-08-04T14:56:49.277302595-07:00",
            "details": { "format": "gguf", "quantization_level": "Q4_K_M" } });
        let expected = Entry {
            name: "llama3.2:3b".to_owned(),
            size_bytes: Some(2_019_393_189),
            format: Some("gguf".to_owned()),
            quantization: Some("Q4_K_M".to_owned()),
            modified: "2024-08-04T21:56:49Z".parse().ok(),
            loaded: Some(true),
            ..Entry::default()
        };
        assert_eq!(read_entry(&model, &["llama3.2:3b"]), Some(expected));
        assert_eq!(read_entry(&json!({ "size": 1 }), &[]), None);
    }

    #[test]
    fn model_details_are_parsed() {
        let shown = json!({
            "license": "\n\nLLAMA 3.2 COMMUNITY LICENSE AGREEMENT\nLong text", "template": "{{ .Prompt }}",
            "capabilities": ["completion", "tools"],
            "details": { "family": "llama" },
            "model_info": { "general.architecture": "llama", "general.parameter_count": 3_212_749_888_u64,
                "llama.block_count": 28, "llama.attention.head_count": 24, "llama.attention.head_count_kv": 8,
                "llama.attention.key_length": 128, "llama.attention.value_length": 128, "llama.context_length": 131_072 },
        });
        let entry = read_entry(&json!({ "name": "llama3.2:3b", "size": 2_000_000_000 }), &[]).unwrap();
        let details = read_details(&shown, entry, None);
        assert_eq!(details.license.as_deref(), Some("LLAMA 3.2 COMMUNITY LICENSE AGREEMENT"));
        assert_eq!((details.parameters, details.context_length), (Some(3_212_749_888), Some(131_072)));
        assert_eq!(details.capabilities, ["completion", "tools"]);
        let per_token = 2 * 28 * 8 * 256;
        assert_eq!(details.memory, Some(MemoryEstimate::estimate(2_000_000_000, per_token, Some(131_072))));
    }

    /// The model's own parameter wins over the configuration of the server.
    #[test]
    fn memory_is_that_of_the_context_used() {
        let entry = read_entry(&json!({ "name": "m", "size": 1_000 }), &[]).unwrap();
        for (parameters, configured, used, told) in [
            ("stop  \"x\"\nnum_ctx                        64", Some(8192), 64, Some(64)),
            ("num_thread 1", Some(8192), 8192, Some(8192)),
            ("num_thread 1", Some(1_000_000), 32_768, None),
            ("num_thread 1", None, 4096, None),
            ("num_ctx x", None, 4096, None),
        ] {
            let shown = json!({ "parameters": parameters, "model_info": { "general.architecture": "llama",
                "llama.block_count": 2, "llama.attention.head_count": 4, "llama.embedding_length": 64,
                "llama.context_length": 32_768 } });
            let details = read_details(&shown, entry.clone(), configured);
            assert_eq!(details.load_context, told);
            let memory = details.memory.unwrap();
            assert_eq!(memory, MemoryEstimate::with_context(1_000, 2 * 2 * 4 * 32, Some(32_768), used));
        }
    }

    #[test]
    fn the_log_tells_the_context_that_models_get() {
        let line = |tokens: u64| {
            format!(
                "level=INFO msg=\"server config\" env=\"map[HTTP_PROXY: OLLAMA_CONTEXT_LENGTH:{tokens} OLLAMA_DEBUG:INFO]\"\n"
            )
        };
        let chosen =
            "level=INFO msg=\"vram-based default context\" total_vram=\"0 B\" default_num_ctx=4096\n";
        assert_eq!(logged_context(&format!("{}{chosen}", line(0))), Some(4096));
        assert_eq!(logged_context(&format!("{}{chosen}", line(8192))), Some(8192));
        assert_eq!(logged_context(&line(16_384)), Some(16_384));
        for log in
            [&line(0), "", "default_num_ctx=", "default_num_ctx=x", "default_num_ctx=99999999999999999999"]
        {
            assert_eq!(logged_context(log), None, "{log}");
        }
    }

    #[test]
    fn an_unknown_kind_of_attention_has_no_estimate() {
        let shown = json!({ "model_info": { "general.architecture": "qwen3next", "qwen3next.block_count": 48,
            "qwen3next.attention.head_count": 16, "qwen3next.attention.head_count_kv": 2,
            "qwen3next.embedding_length": 2048 } });
        let entry = read_entry(&json!({ "name": "qwen3-next:80b", "size": 2_000_000_000 }), &[]).unwrap();
        assert_eq!(read_details(&shown, entry, None).memory, None);
    }

    #[test]
    fn a_remote_model_has_no_figures_here() {
        let model = json!({ "name": "gpt-oss:120b-cloud", "size": 384, "remote_host": "https://ollama.com:443",
            "remote_model": "gpt-oss:120b" });
        let entry = read_entry(&model, &[]).unwrap();
        assert_eq!((entry.remote, entry.size_bytes), (true, None));
        let shown = json!({ "template": NO_TEMPLATE, "remote_model": "gpt-oss:120b" });
        let details = read_details(&shown, entry, Some(4096));
        assert_eq!((details.load_context, details.chat_template), (None, None));
    }

    #[test]
    fn name_without_tag_is_latest() {
        assert_eq!(full_name("llama3.2"), "llama3.2:latest");
        assert_eq!(full_name("hf.co/Org/Model:Q4_K_M"), "hf.co/org/model:q4_k_m");
        assert_eq!(full_name("localhost:5000/model"), "localhost:5000/model:latest");
    }
}
