//! The JSON shapes of every front end.
//!
//! Between releases fields are added; names and types do not change. Unknown values are null.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::ability::Ability;
use super::chat::SessionRow;
use crate::core::address::Address;
use crate::core::api::chat::{Answer, Arrivals, TokenUsage, ToolCall};
use crate::core::models::catalogue::{Details, Entry};
use crate::core::services::{Down, Endpoint, Health, ManagedService, StartedBy, State, Status, Up, UpKind};
use crate::core::sorted_map::SortedMap;
use crate::core::timestamp::Timestamp;

/// A service, as `ps` shows it.
#[derive(Debug, Serialize)]
pub struct ServiceView {
    pub name: Arc<str>,
    pub display_name: String,
    pub template: String,
    /// Null for a program that is not a runtime.
    pub runtime: Option<&'static str>,
    pub state: State,
    pub pid: Option<i64>,
    /// Null for a service without a port that was never started.
    pub address: Option<String>,
    pub uptime_s: Option<u64>,
    /// Of the whole process tree.
    pub memory_bytes: Option<u64>,
    /// Of the whole process tree since its start.
    pub cpu_percent: Option<f64>,
    /// The loaded models.
    pub models: Option<Vec<String>>,
    /// Context length of the loaded model, in tokens.
    pub context: Option<u64>,
    pub log: String,
    pub started_by: Option<StartedBy>,
    pub version: Option<String>,
    pub git_branch: Option<String>,
    pub tags: Vec<String>,
    pub restarts: Option<u64>,
}

impl ServiceView {
    pub fn new(service: &ManagedService, status: &Status) -> Self {
        let usage = status.usage.as_ref();
        let instance = &service.settings.instance;
        Self {
            name: Arc::clone(&service.name),
            display_name: service.template.display_name().to_owned(),
            template: service.template.name().to_owned(),
            runtime: runtime(service),
            state: status.state,
            pid: status.pid.map(i64::from),
            address: status.address.as_ref().map(Address::url),
            uptime_s: usage.map(|usage| usage.uptime.as_secs()),
            memory_bytes: usage.map(|usage| usage.memory_bytes),
            cpu_percent: usage.map(|usage| tenths(usage.cpu_percent)),
            models: status.models.clone(),
            context: status.context,
            log: status.log.display().to_string(),
            started_by: status.started_by,
            version: instance.version.clone().or_else(|| status.version.clone()),
            git_branch: instance.git_branch.clone(),
            tags: instance.tags.clone(),
            restarts: status.restarts,
        }
    }
}

/// The result of `up` and `restart`.
#[derive(Debug, Serialize)]
pub struct UpView {
    pub service: Arc<str>,
    pub runtime: Option<&'static str>,
    /// `ready`, `external`, or with `--no-wait` `starting`; null if it failed.
    pub state: Option<State>,
    pub pid: Option<i64>,
    /// Null if the service has none yet.
    pub address: Option<String>,
    pub model: Option<String>,
    pub started_by: Option<StartedBy>,
    /// Whether this command started it.
    pub started: bool,
}

impl UpView {
    pub fn new(service: &ManagedService, up: &Up) -> Self {
        let Endpoint { address, pid, model, started_by } = &up.endpoint;
        Self {
            state: Some(match up.kind {
                UpKind::Launched => State::Starting,
                UpKind::External => State::External,
                UpKind::Started | UpKind::AlreadyUp => State::Ready,
            }),
            pid: pid.map(i64::from),
            address: Some(address.url()),
            model: model.clone(),
            started_by: Some(*started_by),
            started: matches!(up.kind, UpKind::Started | UpKind::Launched),
            ..Self::failed(service)
        }
    }

    fn failed(service: &ManagedService) -> Self {
        Self {
            service: Arc::clone(&service.name),
            runtime: runtime(service),
            state: None,
            pid: None,
            address: service.address().map(|address| address.url()),
            model: None,
            started_by: None,
            started: false,
        }
    }
}

/// The result of `down`.
#[derive(Debug, Serialize)]
pub struct DownView {
    pub service: Arc<str>,
    pub runtime: Option<&'static str>,
    /// `stopped`; null if it failed.
    pub state: Option<State>,
    /// The process that was stopped; null if it was down already.
    pub pid: Option<i64>,
    /// Whether a process was killed.
    pub killed: bool,
    /// Null if it failed.
    pub seconds: Option<f64>,
}

impl DownView {
    pub fn new(service: &ManagedService, down: &Down) -> Self {
        Self {
            state: Some(State::Stopped),
            pid: down.pid.map(i64::from),
            killed: down.killed,
            seconds: Some(down.took.as_secs_f64()),
            ..Self::failed(service)
        }
    }

    fn failed(service: &ManagedService) -> Self {
        Self {
            service: Arc::clone(&service.name),
            runtime: runtime(service),
            state: None,
            pid: None,
            killed: false,
            seconds: None,
        }
    }
}

/// What became of one of several services.
#[derive(Debug, Serialize)]
pub struct Became<V> {
    #[serde(flatten)]
    pub view: V,
    /// Why it failed; null if it did not.
    pub error: Option<String>,
}

impl Became<UpView> {
    /// Returns the view of a start, or of its failure in words.
    pub fn up(service: &ManagedService, result: Result<&Up, String>) -> Self {
        Self::of(result, |up| UpView::new(service, up), || UpView::failed(service))
    }
}

impl Became<DownView> {
    /// Returns the view of a stop, or of its failure in words.
    pub fn down(service: &ManagedService, result: Result<&Down, String>) -> Self {
        Self::of(result, |down| DownView::new(service, down), || DownView::failed(service))
    }
}

impl<V> Became<V> {
    fn of<T>(result: Result<&T, String>, view: impl FnOnce(&T) -> V, failed: impl FnOnce() -> V) -> Self {
        match result {
            Ok(done) => Self { view: view(done), error: None },
            Err(error) => Self { view: failed(), error: Some(error) },
        }
    }
}

/// The result of `health`.
#[derive(Debug, Serialize)]
pub struct HealthView {
    pub service: Arc<str>,
    pub runtime: Option<&'static str>,
    pub address: String,
    /// Null for a program that is no model server.
    pub model: Option<String>,
    pub latency_ms: f64,
    /// Whether the model calls tools; null if it was not asked.
    pub tools: Option<bool>,
    /// Whether its answers satisfy a schema; null if it was not asked.
    pub schema: Option<bool>,
    /// Whether it sees images; null if it was not asked.
    pub vision: Option<bool>,
}

impl HealthView {
    /// Returns the view of a token that was generated, and of what the model was asked to show after that.
    pub fn new(service: &ManagedService, health: &Health, shown: &[(Ability, bool)]) -> Self {
        let of = |ability| shown.iter().find(|(asked, _)| *asked == ability).map(|(_, is_shown)| *is_shown);
        Self {
            service: Arc::clone(&service.name),
            runtime: runtime(service),
            address: health.endpoint.address.url(),
            model: health.model.clone(),
            latency_ms: milliseconds(health.latency),
            tools: of(Ability::Tools),
            schema: of(Ability::Schema),
            vision: of(Ability::Vision),
        }
    }
}

/// A model in a list.
#[derive(Debug, Serialize)]
pub struct ModelRow {
    pub service: Arc<str>,
    pub runtime: &'static str,
    /// Aliases of this model.
    pub aliases: Vec<String>,
    #[serde(flatten)]
    pub entry: Entry,
}

/// The models of all services, and the aliases.
#[derive(Debug, Serialize)]
pub struct ModelsView<'a> {
    /// From every service that could list its models.
    pub models: &'a [ModelRow],
    /// By alias, then by runtime.
    pub aliases: &'a SortedMap<String, SortedMap<&'static str, String>>,
}

/// The details of a model.
#[derive(Debug, Serialize)]
pub struct ModelView {
    pub service: Arc<str>,
    pub runtime: &'static str,
    /// Aliases of this model.
    pub aliases: Vec<String>,
    pub machine_memory_bytes: Option<u64>,
    /// The context length in tokens with which it is loaded; null if it is not, or the server does not tell.
    pub loaded_context: Option<u64>,
    #[serde(flatten)]
    pub details: Details,
}

/// The answer to a prompt.
#[derive(Debug, Serialize)]
pub struct AnswerView<'a> {
    pub service: Arc<str>,
    pub runtime: Option<&'static str>,
    pub model: &'a str,
    pub text: &'a str,
    pub reasoning: &'a str,
    pub finish_reason: Option<&'a str>,
    pub usage: Option<TokenUsage>,
    pub timing: Timing,
    pub tool_calls: &'a [ToolCall],
    pub context: ContextView,
}

impl<'a> AnswerView<'a> {
    /// Returns the view of an answer without its text and reasoning, which the caller has kept. `context` is the
    /// context length of the model in tokens, if known.
    pub fn new(
        service: &ManagedService,
        model: &'a str,
        answer: &'a Answer,
        timing: Timing,
        context: Option<u64>,
    ) -> Self {
        Self {
            service: Arc::clone(&service.name),
            runtime: runtime(service),
            model,
            text: "",
            reasoning: "",
            finish_reason: answer.finish_reason.as_deref(),
            usage: answer.usage,
            timing,
            tool_calls: &answer.tool_calls,
            context: ContextView::new(context, answer.usage),
        }
    }
}

/// The context length of the model that answered, in tokens; null where unknown.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct ContextView {
    pub size: Option<u64>,
    /// Tokens left after this request.
    pub left: Option<u64>,
}

impl ContextView {
    fn new(size: Option<u64>, usage: Option<TokenUsage>) -> Self {
        let used = usage.map(|usage| usage.prompt_tokens.saturating_add(usage.completion_tokens));
        let left = size.zip(used).map(|(size, used)| size.saturating_sub(used));
        Self { size, left }
    }
}

/// How long an answer took.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Timing {
    /// Null for an answer that came as a whole.
    pub first_token_ms: Option<f64>,
    pub total_ms: f64,
    /// Null unless the answer arrived while it was generated.
    pub tokens_per_second: Option<f64>,
}

impl Timing {
    /// Returns the timing of an answer whose first delta came after `first`, and the last after `total`.
    pub fn new(first: Option<Duration>, total: Duration, answer: &Answer, arrivals: &Arrivals) -> Self {
        let tokens = answer.usage.map(|usage| usage.completion_tokens).unwrap_or_default();
        let speed = arrivals.tokens_per_second(tokens).filter(|_| answer.streamed);
        Self {
            first_token_ms: first.filter(|_| answer.streamed).map(milliseconds),
            total_ms: milliseconds(total),
            tokens_per_second: speed.map(tenths),
        }
    }
}

/// A saved conversation in a list.
#[derive(Debug, Serialize)]
pub struct SessionView<'a> {
    /// Null if the header of the file is damaged.
    pub service: Option<&'a str>,
    pub runtime: Option<&'static str>,
    pub session: &'a str,
    pub model: &'a str,
    pub questions: usize,
    /// Lines that cannot be read.
    pub damaged_lines: usize,
    pub changed: Timestamp,
}

impl<'a> SessionView<'a> {
    /// Returns the view of a session with `service`, if there is such a service.
    pub fn new(row: &'a SessionRow, service: Option<&ManagedService>) -> Self {
        let contents = &row.contents;
        Self {
            service: contents.header.as_ref().map(|header| header.service.as_str()),
            runtime: service.and_then(runtime),
            session: &row.name,
            model: &contents.conversation.model,
            questions: contents.conversation.questions(),
            damaged_lines: contents.damaged,
            changed: row.changed.into(),
        }
    }
}

/// The severity of a finding of `doctor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    Warning,
    Problem,
}

/// A finding of `doctor` in words.
#[derive(Debug, Serialize)]
pub struct FindingView {
    /// What was checked: `configuration`, `disk`, `memory`, `logout`, `program`, `service`, `gpu`, `address`, `login`.
    pub check: &'static str,
    /// Null for what concerns all services.
    pub service: Option<Arc<str>>,
    pub runtime: Option<&'static str>,
    pub level: Level,
    pub summary: String,
    /// How to fix it; null if there is nothing to do.
    pub remedy: Option<String>,
}

impl FindingView {
    pub fn ok(check: &'static str, summary: String) -> Self {
        Self { check, service: None, runtime: None, level: Level::Ok, summary, remedy: None }
    }

    pub fn warning(check: &'static str, summary: String, remedy: String) -> Self {
        Self { level: Level::Warning, remedy: Some(remedy), ..Self::ok(check, summary) }
    }

    pub fn problem(check: &'static str, summary: String, remedy: String) -> Self {
        Self { level: Level::Problem, ..Self::warning(check, summary, remedy) }
    }

    /// Returns it as a finding about `service`.
    #[must_use]
    pub fn of(self, service: &ManagedService) -> Self {
        Self { service: Some(Arc::clone(&service.name)), runtime: runtime(service), ..self }
    }
}

fn runtime(service: &ManagedService) -> Option<&'static str> {
    service.runtime().map(super::super::core::runtimes::Runtime::name)
}

/// Rounds to one decimal place.
pub fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

/// Returns milliseconds with one decimal place.
pub fn milliseconds(duration: Duration) -> f64 {
    tenths(duration.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_left_needs_size_and_usage() {
        let usage = Some(TokenUsage { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 });
        let left = |size, usage| ContextView::new(size, usage).left;
        assert_eq!(left(Some(8), usage), Some(3));
        assert_eq!(left(Some(4), usage), Some(0));
        assert_eq!(left(None, usage), None);
        assert_eq!(left(Some(8), None), None);
    }
}
