//! Searching the hub with its own tool, `hf models ls`: the query, and what the tool prints.
//!
//! The tool repeats a failed request up to five times, and sleeps as long as a hub with a limit asks for: it is watched,
//! and stopped when it is clear that it waits.

use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::is_model_name;
use super::tool::{HubTool, failure, said};
use crate::core::helper::Helper;
use crate::core::models::catalogue::ModelError;
use crate::core::models::defect::read_file;
use crate::core::models::directory::quantization_of;
use crate::core::models::python_json;
use crate::core::timestamp::Timestamp;

/// How often the tool is asked whether it has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How much of the tool's messages is read while it runs.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// What the tool is asked about each model of a list.
const PROPERTIES: &str = "downloads,lastModified,gguf,safetensors,siblings";

/// In which order models are listed, the first of each order first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HubOrder {
    Downloads,
    New,
    Trending,
}

impl HubOrder {
    /// Returns the tool's word for it.
    fn word(self) -> &'static str {
        match self {
            Self::Downloads => "downloads",
            Self::New => "created_at",
            Self::Trending => "trending_score",
        }
    }
}

/// How the hub is searched for the models of a runtime.
#[derive(Clone, Copy)]
pub struct HubModels {
    /// The option of the tool that leaves only what the runtime may use.
    pub filter: &'static str,
    /// Returns what the catalogue calls a repository.
    pub name: fn(&str) -> String,
    /// Returns what can be pulled from a repository with these files: the usual choice first.
    pub choices: fn(&str, &[RepositoryFile]) -> Vec<HubChoice>,
}

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryFile {
    pub path: String,
    /// `None` if it is not known.
    pub bytes: Option<u64>,
}

/// Something that can be pulled from a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubChoice {
    /// What `pull` takes.
    pub name: String,
    /// If the name of a file tells it.
    pub quantization: Option<String>,
    /// Of all files that are downloaded; `None` if it is not known.
    pub bytes: Option<u64>,
    /// Of the files that are loaded; `None` if it is not known.
    pub weight_bytes: Option<u64>,
}

/// A question to the hub.
#[derive(Debug, Clone, Copy)]
pub struct HubQuery<'a> {
    pub words: &'a str,
    /// See [`HubModels::filter`].
    pub filter: &'static str,
    pub order: HubOrder,
    /// Maximum number of models.
    pub limit: usize,
}

impl HubQuery<'_> {
    /// Returns the arguments of the tool. The words are a part of one argument, so they are no option.
    pub fn arguments(&self) -> Vec<String> {
        vec![
            "models".to_owned(),
            "ls".to_owned(),
            format!("--search={}", self.words),
            self.filter.to_owned(),
            format!("--sort={}", self.order.word()),
            format!("--limit={}", self.limit),
            format!("--expand={PROPERTIES}"),
            "--format=json".to_owned(),
        ]
    }
}

/// A repository of the hub, as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubModel {
    /// `ORG/NAME`.
    pub name: String,
    /// In the last 30 days.
    pub downloads: Option<u64>,
    pub updated: Option<Timestamp>,
    /// Tokens.
    pub context_length: Option<u64>,
    pub numbers: NumberCounts,
    /// `None` if they are not known.
    pub files: Option<Vec<RepositoryFile>>,
}

/// How many numbers the weights of a repository hold, as the hub counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NumberCounts {
    total: Option<u64>,
    /// Of these the numbers of 32 bits that hold several quantized ones.
    packed: u64,
}

impl NumberCounts {
    fn of(model: &Value) -> Self {
        if let Some(total) = model["gguf"]["total"].as_u64() {
            return Self { total: Some(total), packed: 0 };
        }
        let table = &model["safetensors"];
        let counts = table["parameters"].as_object().into_iter().flat_map(Map::values);
        let sum = counts.filter_map(Value::as_u64).fold(0, u64::saturating_add);
        let packed = table["parameters"]["U32"].as_u64().unwrap_or_default();
        let total = table["total"].as_u64();
        // A total that is not the sum counts what the packed numbers hold.
        Self { total, packed: if total == Some(sum) { packed } else { 0 } }
    }

    /// Returns the number of parameters. Packed ones are counted by the `config.json` of the model.
    pub fn parameters(self, config: &Value) -> Option<u64> {
        let total = self.total.filter(|total| *total > 0)?;
        if self.packed == 0 {
            return Some(total);
        }
        let table = quantization_of(config)?;
        let (bits, group) = (table["bits"].as_u64()?, table["group_size"].as_u64()?);
        let held = self.packed.checked_mul(32)?.checked_div(bits)?;
        // Each group has a scale and a bias.
        let scales = held.checked_div(group)?.checked_mul(2)?;
        (total - self.packed).saturating_sub(scales).checked_add(held)
    }
}

impl HubModel {
    /// Reads one model of a list; `None` for what is none.
    fn read(model: &Value) -> Option<Self> {
        let name = model["id"].as_str().filter(|name| is_model_name(name))?.to_owned();
        let file =
            |file: &Value| Some(RepositoryFile { path: file["rfilename"].as_str()?.to_owned(), bytes: None });
        Some(Self {
            downloads: model["downloads"].as_u64(),
            updated: model["last_modified"].as_str().and_then(|text| text.parse().ok()),
            context_length: model["gguf"]["context_length"].as_u64(),
            numbers: NumberCounts::of(model),
            files: model["siblings"].as_array().map(|files| files.iter().filter_map(file).collect()),
            name,
        })
    }

    /// Returns the models of a list, in its order.
    pub fn all(list: &Value) -> Vec<Self> {
        list.as_array().into_iter().flatten().filter_map(Self::read).collect()
    }
}

/// Reads what the tool lists of a repository. A file without a size that could be one has an unknown size.
pub fn files(list: &Value) -> Vec<RepositoryFile> {
    let entries = list.as_array().into_iter().flatten();
    let file = |entry: &Value| {
        // A directory.
        if entry.get("tree_id").is_some() {
            return None;
        }
        Some(RepositoryFile { path: entry["path"].as_str()?.to_owned(), bytes: entry["size"].as_u64() })
    };
    entries.filter_map(file).collect()
}

/// Returns the sum of the sizes of these files; `None` if there is none, or the size of one is not known.
pub fn total_bytes<'f>(files: impl Iterator<Item = &'f RepositoryFile>) -> Option<u64> {
    let mut files = files.peekable();
    files.peek()?;
    files.map(|file| file.bytes).try_fold(0, |sum: u64, bytes| Some(sum.saturating_add(bytes?)))
}

/// Why the hub did not answer.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error("the hub answers no more requests for now: too many have come from here")]
    TooManyRequests {
        /// When it answers again, if it says so.
        retry_after: Option<Duration>,
    },
    #[error("cannot reach the hub: {said}")]
    Unreachable { said: String },
    /// A variable of the environment forbids requests.
    #[error("{variable} is set, so the hub is not asked")]
    Offline { variable: &'static str },
    #[error("the search failed: {said}")]
    Failed { said: String },
    #[error("this version of hf cannot search")]
    ToolTooOld,
    #[error(transparent)]
    Tool(#[from] ModelError),
}

impl HubTool<'_> {
    /// Returns the list of models that the query finds, as [`HubModel::all`] reads it.
    pub fn search(&self, query: &HubQuery<'_>) -> Result<Value, HubError> {
        let mut list = self.json("", &query.arguments())?;
        for model in list.as_array_mut().into_iter().flatten() {
            keep(model, &["id", "downloads", "last_modified", "gguf", "safetensors", "siblings"]);
            // It also holds a chat template, which is long.
            keep(&mut model["gguf"], &["total", "context_length"]);
        }
        Ok(list)
    }

    /// Returns the files of a repository, as [`files`] reads them.
    pub fn files(&self, repository: &str) -> Result<Value, HubError> {
        let arguments = ["models", "ls", repository, "-R", "--format=json"].map(str::to_owned);
        let mut list = self.json(repository, &arguments)?;
        for file in list.as_array_mut().into_iter().flatten() {
            keep(file, &["path", "size", "tree_id"]);
        }
        Ok(list)
    }

    /// Returns the `config.json` of a repository; null if it may not be read or is none.
    pub fn config(&self, repository: &str) -> Result<Value, HubError> {
        const FILE: &str = "config.json";
        let broken = |source| ModelError::ToolBroken { tool: "hf".into(), source };
        let directory = tempfile::tempdir().map_err(broken)?;
        // Not in the cache, where it would be a part of a model.
        let path = directory.path().to_string_lossy().into_owned();
        let arguments = ["download", repository, FILE, "--local-dir", &path].map(str::to_owned);
        match self.ask(repository, &arguments) {
            Err(HubError::Tool(ModelError::Cancelled)) => Err(ModelError::Cancelled.into()),
            Ok(_) | Err(HubError::Tool(_) | HubError::Failed { .. }) => {
                let bytes = read_file(directory.path(), FILE).unwrap_or_default();
                Ok(python_json::parse(&bytes).unwrap_or_default())
            }
            Err(other) => Err(other),
        }
    }

    fn json(&self, repository: &str, arguments: &[String]) -> Result<Value, HubError> {
        let printed = self.ask(repository, arguments)?;
        python_json::parse(printed.trim().as_bytes())
            .map_err(|_| HubError::Failed { said: format!("its list cannot be read: {}", said(&printed)) })
    }

    /// Returns what the tool prints, unless it fails or only waits.
    fn ask(&self, repository: &str, arguments: &[String]) -> Result<String, HubError> {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let deadline = Instant::now() + TIMEOUT;
        let mut goes_on = |helper: &Helper| {
            Instant::now() < deadline && trouble(&helper.output(MAX_MESSAGE_BYTES)).is_none()
        };
        let ended = self.run(&arguments, POLL_INTERVAL, &mut goes_on)?;
        if ended.succeeded() {
            return Ok(ended.printed);
        }
        if let Some(trouble) = trouble(&ended.messages) {
            return Err(trouble);
        }
        if ended.status.is_none() {
            let said = format!("it gave no answer within {} seconds", TIMEOUT.as_secs());
            return Err(HubError::Unreachable { said });
        }
        Err(why(repository, &ended.all()))
    }
}

/// Returns why the tool failed.
fn why(repository: &str, output: &str) -> HubError {
    let lower = output.to_lowercase();
    let too_old = ["no such option", "no such command", "invalid choice", "unrecognized arguments"];
    if too_old.iter().any(|words| lower.contains(words)) {
        return HubError::ToolTooOld;
    }
    match failure(repository, output) {
        ModelError::Offline { variable } => HubError::Offline { variable },
        ModelError::Network { said } => HubError::Unreachable { said },
        // The address of the request is long, and the user has not written it.
        ModelError::Download { said } => HubError::Failed {
            said: said.split_once(" for url ").map_or(said.as_str(), |(what, _)| what).to_owned(),
        },
        other => other.into(),
    }
}

/// Returns why the tool repeats its request, from its messages. A first failure other than a limit may pass.
fn trouble(messages: &str) -> Option<HubError> {
    if messages.contains("HTTP Error 429") || messages.contains("429 Too Many Requests") {
        let retry_after = seconds_after(messages, "Waiting ").or(seconds_after(messages, "Retry after "));
        let waits = ["Retrying in ", "Too Many Requests"].iter().any(|words| messages.contains(words));
        return (waits || retry_after.is_some()).then_some(HubError::TooManyRequests { retry_after });
    }
    messages.contains("[Retry 2/").then(|| {
        let said = said(messages);
        // `'[Errno 111] Connection refused' thrown while requesting GET http://...`
        let said = said.split_once(" thrown while").map_or(said.as_str(), |(cause, _)| cause);
        HubError::Unreachable { said: said.trim_matches(['\'', '"']).to_owned() }
    })
}

/// Returns the number of seconds behind the last `words`, rounded up to a whole one.
fn seconds_after(text: &str, words: &str) -> Option<Duration> {
    let (_, rest) = text.rsplit_once(words)?;
    let number = rest.split(|end: char| !end.is_ascii_digit() && end != '.').next()?;
    let whole = number.split('.').next()?;
    whole.parse::<u32>().ok().map(|seconds| Duration::from_secs(seconds.into()))
}

/// Removes the other fields of an object.
fn keep(value: &mut Value, fields: &[&str]) {
    if let Some(object) = value.as_object_mut() {
        object.retain(|field, _| fields.contains(&field.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn query(words: &str, order: HubOrder) -> Vec<String> {
        HubQuery { words, filter: "--filter=mlx", order, limit: 30 }.arguments()
    }

    #[test]
    fn words_are_never_an_option() {
        for words in ["--token=x", "-x", "", "$(reboot); \u{1b}[31m", "a b"] {
            let arguments = query(words, HubOrder::Downloads);
            assert_eq!(arguments[2], format!("--search={words}"));
            assert_eq!(arguments.len(), 8, "{words}");
        }
        let sorted = |order| query("x", order)[4].clone();
        assert_eq!(sorted(HubOrder::Downloads), "--sort=downloads");
        assert_eq!(sorted(HubOrder::New), "--sort=created_at");
        assert_eq!(sorted(HubOrder::Trending), "--sort=trending_score");
    }

    #[test]
    fn a_list_of_models_is_read() {
        let list = br#"[
            {"id": "org/a", "downloads": 12, "last_modified": "2026-01-02T03:04:05+00:00",
             "gguf": {"total": 3000000000, "context_length": 8192},
             "siblings": [{"rfilename": "a-Q4_K_M.gguf"}, {"rfilename": 7}, "x"]},
            {"id": "org/b", "downloads": -3, "last_modified": "soon", "gguf": {"total": NaN}},
            {"id": "org/c", "downloads": 1e400, "gguf": 7, "siblings": {}, "safetensors": [1]},
            {"id": "../../etc"}, {"id": "-x/y"}, {"id": 5}, {}, 4, null, {"id": "a\u001b[31m/b"}
        ]"#;
        let models = HubModel::all(&python_json::parse(list).unwrap());
        assert_eq!(models.iter().map(|model| &*model.name).collect::<Vec<_>>(), ["org/a", "org/b", "org/c"]);
        let [a, b, c] = &models[..] else { panic!("three models") };
        assert_eq!(
            (a.downloads, a.context_length, a.numbers.total),
            (Some(12), Some(8192), Some(3_000_000_000))
        );
        assert_eq!(a.updated.unwrap().to_string(), "2026-01-02T03:04:05Z");
        let file = RepositoryFile { path: "a-Q4_K_M.gguf".to_owned(), bytes: None };
        assert_eq!(a.files.as_deref(), Some(&[file][..]));
        let unknown = (None, None, None, NumberCounts::default(), None);
        for model in [b, c] {
            let HubModel { downloads, updated, context_length, numbers, files, .. } = model;
            assert_eq!((*downloads, *updated, *context_length, *numbers, files.clone()), unknown);
        }
        assert_eq!(HubModel::all(&json!({ "error": "x" })), []);
    }

    #[test]
    fn sizes_that_are_none_are_unknown() {
        let list = br#"[{"path": "a", "size": 5}, {"path": "d", "tree_id": "x"}, {"path": "b", "size": -1},
            {"path": "c", "size": NaN}, {"path": "e", "size": 99999999999999999999999}, {"size": 3}, 4]"#;
        let files = files(&python_json::parse(list).unwrap());
        let sizes: Vec<_> = files.iter().map(|file| (&*file.path, file.bytes)).collect();
        assert_eq!(sizes, [("a", Some(5)), ("b", None), ("c", None), ("e", None)]);
        assert_eq!(total_bytes(files.iter()), None);
        assert_eq!(total_bytes(files[..1].iter()), Some(5));
        assert_eq!(total_bytes([].iter()), None);
        let huge = RepositoryFile { path: String::new(), bytes: Some(u64::MAX) };
        assert_eq!(total_bytes([&huge, &huge].into_iter()), Some(u64::MAX));
    }

    #[test]
    fn packed_numbers_count_what_they_hold() {
        let of = |model: Value, config: Value| NumberCounts::of(&model).parameters(&config);
        assert_eq!(of(json!({ "gguf": { "total": 7 } }), json!(null)), Some(7));
        assert_eq!(
            of(json!({ "safetensors": { "parameters": { "BF16": 9 }, "total": 9 } }), json!({})),
            Some(9)
        );
        // 64 numbers of 4 bits in eight of 32, with one group's scale and bias, and 10 others.
        let packed = json!({ "safetensors": { "parameters": { "BF16": 12, "U32": 8 }, "total": 20 } });
        let config = json!({ "quantization": { "bits": 4, "group_size": 64 } });
        assert_eq!(of(packed.clone(), config.clone()), Some(74));
        assert_eq!(of(packed.clone(), json!({})), None);
        for odd in [
            json!({ "bits": 0, "group_size": 64 }),
            json!({ "bits": 4, "group_size": 0 }),
            json!({ "bits": -4 }),
        ] {
            assert_eq!(of(packed.clone(), json!({ "quantization": odd })), None);
        }
        // Counted by the hub.
        let counted = json!({ "safetensors": { "parameters": { "BF16": 12, "U32": 8 }, "total": 74 } });
        assert_eq!(of(counted, json!({})), Some(74));
        let huge = json!({ "safetensors": { "parameters": { "U32": u64::MAX }, "total": u64::MAX } });
        assert_eq!(of(huge, config), None);
        assert_eq!(of(json!({ "gguf": { "total": 0 } }), json!({})), None);
    }

    /// The messages are those of `utils/_http.py`.
    #[test]
    fn waiting_is_told_from_a_first_failure() {
        let told = |messages: &str| trouble(messages).map(|error| format!("{error:?}"));
        let first = "HTTP Error 429 thrown while requesting GET http://x/api/models\n";
        assert_eq!(told(first), None);
        let limited = format!("{first}Rate limited. Waiting 56.0s before retry [Retry 1/5].\n");
        assert_eq!(told(&limited).unwrap(), "TooManyRequests { retry_after: Some(56s) }");
        let unknown = format!("{first}Retrying in 1s [Retry 1/5].\n");
        assert_eq!(told(&unknown).unwrap(), "TooManyRequests { retry_after: None }");
        let at_once =
            "429 Too Many Requests: you have reached your 'api' rate limit.\nRetry after 55 seconds (0/500).";
        assert_eq!(told(at_once).unwrap(), "TooManyRequests { retry_after: Some(55s) }");
        let refused = "'[Errno 111] Connection refused' thrown while requesting GET http://x/api/models\n";
        let once = format!("{refused}Retrying in 1s [Retry 1/5].\n");
        assert_eq!(told(&once), None);
        let twice = format!("{once}{refused}Retrying in 2s [Retry 2/5].\n");
        assert_eq!(told(&twice).unwrap(), r#"Unreachable { said: "[Errno 111] Connection refused" }"#);
        let broken = "HTTP Error 503 thrown while requesting GET http://x\nRetrying in 2s [Retry 2/5].\n";
        assert_eq!(told(broken).unwrap(), r#"Unreachable { said: "HTTP Error 503" }"#);
        assert_eq!(seconds_after("Waiting 99999999999999s", "Waiting "), None);
    }

    #[test]
    fn an_old_tool_is_recognised() {
        for output in
            ["Error: No such command 'models'.", "hf: error: argument {x}: invalid choice: 'models'"]
        {
            assert!(matches!(why("", output), HubError::ToolTooOld), "{output}");
        }
        assert!(matches!(why("", "Cannot reach x: offline mode is enabled."), HubError::Offline { .. }));
        assert_eq!(why("", "Error: disk on fire").to_string(), "the search failed: disk on fire");
        let refused = "Error: Client error '401 Unauthorized' for url 'http://x/api/models?search=m'";
        assert_eq!(why("", refused).to_string(), "the search failed: Client error '401 Unauthorized'");
    }
}
