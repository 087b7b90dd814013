//! The one table of every key of the file, with its type, limits and meaning.
//!
//! The fresh file, validation, suggestions, `config get` and `set`, completion and the reference in `docs/` follow
//! from it.

use super::kind::{Key, ValueKind, field};
use super::settings::{
    Config, GatewaySettings, ModelSettings, SavedPrompt, ServiceSettings, TemplateSettings,
};

type ServiceKey = Key<ServiceSettings>;
type PromptKey = Key<SavedPrompt>;
type TemplateKey = Key<TemplateSettings>;
type GatewayKey = Key<GatewaySettings>;
type ModelKey = Key<ModelSettings>;
type TopKey = Key<Config>;

/// Keys above the first header.
pub(super) static TOP: &[TopKey] =
    &[TopKey::optional("default_service", ValueKind::Name, field!(Text, default_service), r#""coder""#)
        .means("Service of `fusion run` and `fusion chat` when neither a service nor a model is named")];

/// `[NAME_server]`.
pub(super) static SERVER: &[ServiceKey] = &[
    ServiceKey::fresh("host", ValueKind::Host, field!(Text, server.host), r#""0.0.0.0""#)
        .means("Host name or IP address to listen on; anyone who can reach it can use the server"),
    ServiceKey::fresh("port", ValueKind::Port, field!(Port, server.port), "11500").means("Port to listen on"),
    ServiceKey::fresh("model", ValueKind::Name, field!(Text, server.model), r#""/data/models/qwen3-4b""#)
        .means("Model that the server is started with: a name or a directory"),
    ServiceKey::of_some("models_dir", ValueKind::Name, field!(Text, server.models_dir), r#""/data/models""#)
        .means("Directory of models to serve beside those of the hub's cache"),
    ServiceKey::optional(
        "command",
        ValueKind::Command,
        field!(Texts, server.command),
        r#"["/opt/bin/server", "--verbose"]"#,
    )
    .means("Program and arguments to start, instead of the program that fusion finds"),
    ServiceKey::optional(
        "args",
        ValueKind::Arguments,
        field!(Texts, server.args),
        r#"["--log-level", "debug"]"#,
    )
    .means("Arguments appended to the command"),
    ServiceKey::optional(
        "env",
        ValueKind::Variables,
        field!(Variables, server.env),
        r#"{ HF_HOME = "/data/models" }"#,
    )
    .means("Environment variables of the server"),
    ServiceKey::optional("startup_timeout", ValueKind::Seconds, field!(Time, server.startup_timeout), "600")
        .means("Seconds that `up` waits for the server to become ready"),
    ServiceKey::optional("stop_timeout", ValueKind::Seconds, field!(Time, server.stop_timeout), "30")
        .means("Seconds that `down` waits for the server to stop before it is killed"),
    ServiceKey::optional("auto_start", ValueKind::Switch, field!(Switch, server.auto_start), "true")
        .means("Whether `fusion up` without a name starts the server"),
    ServiceKey::optional(
        "log_max_size",
        ValueKind::Size(1_000..=1_000_000_000_000_000),
        field!(Whole, server.log_max_size),
        r#""20MB""#,
    )
    .means("Size above which the log is rotated")
    .formerly("log_max_mb"),
    ServiceKey::optional("log_keep", ValueKind::Whole(0..=1000), field!(Whole, server.log_keep), "5")
        .means("Number of rotated logs to keep"),
    ServiceKey::optional("idle_timeout", ValueKind::IdleStop, field!(IdleStop, server.idle_timeout), "1800")
        .means("Seconds without a request after which the gateway stops the server; 0: never"),
    ServiceKey::optional("exclusive", ValueKind::Name, field!(Text, server.exclusive), r#""gpu""#)
        .means("Group of services of which at most one runs at a time"),
    ServiceKey::optional("on_demand", ValueKind::Switch, field!(Switch, server.on_demand), "false")
        .means("Whether a request to the gateway starts the server"),
    ServiceKey::optional("restart", ValueKind::Restart, field!(Restart, server.restart), r#""on-failure""#)
        .means("Whether the gateway starts the server again when it fails"),
    ServiceKey::optional(
        "keep_awake",
        ValueKind::KeepAwake,
        field!(KeepAwake, server.keep_awake),
        r#""requests""#,
    )
    .means("When the machine is kept from sleeping"),
];

/// The keys of `[instances.NAME]` beside those of `[NAME_server]`.
pub(super) static INSTANCE: &[ServiceKey] = &[
    ServiceKey::optional("template", ValueKind::Name, field!(Text, instance.template), r#""comfy""#)
        .means("Template of the service: a runtime, or the name of a `[templates]` table"),
    ServiceKey::optional(
        "working_dir",
        ValueKind::Name,
        field!(Text, instance.working_dir),
        r#""${PROJECT_ROOT}/notes""#,
    )
    .means("Working directory of the process; without it the home directory"),
    ServiceKey::optional("tags", ValueKind::Arguments, field!(Texts, instance.tags), r#"["code", "dev"]"#)
        .means("Words by which commands select services"),
    ServiceKey::optional("version", ValueKind::Text, field!(Text, instance.version), r#""2.0-beta""#)
        .means("Version to show"),
    ServiceKey::optional(
        "git_branch",
        ValueKind::Text,
        field!(Text, instance.git_branch),
        r#""feature/search""#,
    )
    .means("Branch to show"),
];

/// The keys of [`SERVER`] that instances of any program have, too.
pub(super) const OF_ANY_PROGRAM: [&str; 14] = [
    "host",
    "port",
    "model",
    "args",
    "env",
    "startup_timeout",
    "stop_timeout",
    "auto_start",
    "log_max_size",
    "log_keep",
    "idle_timeout",
    "exclusive",
    "on_demand",
    "restart",
];

/// `[NAME_run]`.
pub(super) static RUN: &[ServiceKey] = &[
    ServiceKey::fresh("model", ValueKind::Name, field!(Text, run.model), r#""qwen3:4b""#)
        .means("Model to ask: a name or a directory"),
    ServiceKey::fresh(
        "system_prompt",
        ValueKind::Text,
        field!(Text, run.system_prompt),
        r#""Answer in one sentence.""#,
    )
    .means("System message; an empty one is not sent"),
    ServiceKey::fresh("temperature", ValueKind::Number(0.0..=2.0), field!(Number, run.temperature), "0.2")
        .means("Sampling temperature, 0 to 2; 0 is greedy"),
    ServiceKey::fresh("stream", ValueKind::Switch, field!(Switch, run.stream), "true")
        .means("Whether the answer is printed while it is generated"),
    ServiceKey::optional(
        "max_tokens",
        ValueKind::Whole(1..=4_294_967_295),
        field!(Whole, run.max_tokens),
        "1024",
    )
    .means("Maximum number of tokens to generate"),
    ServiceKey::optional("top_p", ValueKind::Number(0.0..=1.0), field!(Number, run.top_p), "0.9")
        .means("Nucleus sampling: the share of probability to sample from"),
    ServiceKey::optional(
        "seed",
        ValueKind::Whole(0..=9_223_372_036_854_775_807),
        field!(Whole, run.seed),
        "42",
    )
    .means("Sampling seed, for answers that can be repeated"),
    ServiceKey::optional("stop", ValueKind::Texts, field!(Texts, run.stop), r#"["END"]"#)
        .means("Stop sequences: texts that end the answer"),
    ServiceKey::optional("timeout", ValueKind::Seconds, field!(Time, run.timeout), "120")
        .means("Idle timeout: seconds without data before the request fails"),
    ServiceKey::optional("start_on_demand", ValueKind::Switch, field!(Switch, run.start_on_demand), "false")
        .means("Whether `run` starts the server if it is not running")
        .formerly("auto_up"),
    ServiceKey::optional("reasoning", ValueKind::Reasoning, field!(Reasoning, run.reasoning), r#""show""#)
        .means("Whether the model's reasoning is printed on stderr"),
    ServiceKey::optional(
        "extra_body",
        ValueKind::Body,
        field!(Body, run.extra_body),
        "{ repeat_penalty = 1.1 }",
    )
    .means("Further fields of the request body")
    .formerly("extra"),
];

/// `[prompts.NAME]`.
pub(super) static PROMPT: &[PromptKey] = &[
    PromptKey::optional("system", ValueKind::Text, field!(Text, system), r#""You are a careful reviewer.""#)
        .means("System message, instead of `system_prompt`"),
    PromptKey::optional("model", ValueKind::Name, field!(Text, model), r#""qwen2.5-coder:7b""#)
        .means("Model to ask"),
    PromptKey::optional("temperature", ValueKind::Number(0.0..=2.0), field!(Number, temperature), "0.2")
        .means("Sampling temperature, 0 to 2; 0 is greedy"),
    PromptKey::optional(
        "template",
        ValueKind::Text,
        field!(Text, template),
        r#""Review this change:\n\n{input}""#,
    )
    .means("User message; `{input}` stands for files, the words of the command line and standard input"),
];

/// `[templates.NAME]`.
pub(super) static TEMPLATE: &[TemplateKey] = &[
    TemplateKey::optional("display_name", ValueKind::Text, field!(Text, display_name), r#""ComfyUI""#)
        .means("Name in sentences"),
    TemplateKey::optional("description", ValueKind::Text, field!(Text, description), r#""Image generation""#)
        .means("What the program does, in one line"),
    TemplateKey::optional("category", ValueKind::Text, field!(Text, category), r#""image""#)
        .means("Category to show"),
    TemplateKey::optional(
        "start_command",
        ValueKind::CommandLine(false),
        field!(Text, start_command),
        r#""python3 main.py --port {port}""#,
    )
    .means("Command as one line, which no shell runs; leading `NAME=value` words are environment"),
    TemplateKey::optional(
        "command",
        ValueKind::Command,
        field!(Texts, command),
        r#"["python3", "main.py", "--port", "{port}"]"#,
    )
    .means("Program and arguments, instead of `start_command`"),
    TemplateKey::optional(
        "stop_command",
        ValueKind::CommandLine(true),
        field!(Text, stop_command),
        r#""nginx -s quit -p {working_dir}""#,
    )
    .means("Command that is run before the signals that stop the server; `{pid}` is its process"),
    TemplateKey::optional(
        "health_endpoint",
        ValueKind::Endpoint,
        field!(Text, health_endpoint),
        r#""http://localhost:{port}/health""#,
    )
    .means("URL whose status 2xx means healthy; without it: the port accepts connections"),
    TemplateKey::optional("health_timeout_ms", ValueKind::Milliseconds, field!(Time, health_timeout), "2000")
        .means("Milliseconds that a request for `health_endpoint` may take"),
    TemplateKey::optional("host", ValueKind::Host, field!(Text, host), r#""0.0.0.0""#)
        .means("Host name or IP address that the program listens on"),
    TemplateKey::optional("default_port", ValueKind::Port, field!(Port, default_port), "8188")
        .means("Port of an instance without `port`, if it is free"),
    TemplateKey::optional("port_range", ValueKind::Ports, field!(Ports, port_range), "[8188, 8199]")
        .means("First and last port that an instance may have"),
    TemplateKey::optional("supports_multiple", ValueKind::Switch, field!(Switch, supports_multiple), "false")
        .means("Whether more than one instance may exist"),
    TemplateKey::optional("args", ValueKind::Arguments, field!(Texts, args), r#"["--verbose"]"#)
        .means("Arguments appended to the command"),
    TemplateKey::optional(
        "env",
        ValueKind::Variables,
        field!(Variables, env),
        r#"{ PYTHONUNBUFFERED = "1" }"#,
    )
    .means("Environment variables of the program"),
];

/// `[gateway]`.
pub(super) static GATEWAY: &[GatewayKey] = &[
    GatewayKey::optional("host", ValueKind::Host, field!(Text, host), r#""0.0.0.0""#)
        .means("Host name or IP address to listen on; any other than loopback needs `token`"),
    GatewayKey::optional("port", ValueKind::Port, field!(Port, port), "8800").means("Port to listen on"),
    GatewayKey::optional("idle_timeout", ValueKind::IdleStop, field!(IdleStop, idle_timeout), "1800").means(
        "Seconds without a request after which a server that the gateway started is stopped; 0: never",
    ),
    GatewayKey::optional("max_memory", ValueKind::Memory, field!(Memory, max_memory), r#""16GiB""#)
        .means("Memory that loaded model servers may hold together: a share, or a size"),
    GatewayKey::optional("token", ValueKind::Secret, field!(Text, token), r#""a-long-random-text""#)
        .means("Secret that clients must send; empty: none is needed on loopback"),
    GatewayKey::optional(
        "cors_origins",
        ValueKind::Origins,
        field!(Texts, cors_origins),
        r#"["http://localhost:3000"]"#,
    )
    .means("Web pages that may use the API"),
    GatewayKey::optional("hosts", ValueKind::Hosts, field!(Texts, hosts), r#"["gpu-box.local"]"#)
        .means("Further names under which the gateway may be called"),
];

/// `[models.NAME]`.
pub(super) static MODEL: &[ModelKey] = &[
    ModelKey::optional("temperature", ValueKind::Number(0.0..=2.0), field!(Number, temperature), "0.2")
        .means("Sampling temperature, 0 to 2; 0 is greedy"),
    ModelKey::optional(
        "system_prompt",
        ValueKind::Text,
        field!(Text, system_prompt),
        r#""Answer in one sentence.""#,
    )
    .means("System message; an empty one is not sent"),
    ModelKey::optional("keep_alive", ValueKind::KeepAlive, field!(KeepAlive, keep_alive), r#""10m""#)
        .means("How long a server that can be told keeps the model in memory; `forever`: without limit"),
    ModelKey::optional("context", ValueKind::Whole(1..=1_000_000_000), field!(Whole, context), "32768")
        .means("Context length in tokens with which a server that can be told loads the model"),
];
