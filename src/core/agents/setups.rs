//! What each agent needs: environment, arguments and files, as its own documentation and releases have it.

use serde_json::{Value, json};

use super::{AgentSetup, AgentTarget};
use crate::core::order;

/// The name of the provider in an agent's configuration. Some names are reserved: `openai`, `ollama`, `lmstudio`.
const PROVIDER: &str = "fusion";

/// The variable that has the key of Codex. Others could see it in an argument.
const CODEX_KEY: &str = "FUSION_API_KEY";

/// The longest answer that an agent is told to expect, in tokens, unless a quarter of the context is less.
const MAX_OUTPUT_TOKENS: u64 = 8_192;

/// How long Claude Code waits for an answer: a local model may have to be loaded, and may read a long prompt slowly.
const API_TIMEOUT_MS: u64 = 3_600_000;

/// The instructions of Codex for small models. Its own take 18 KB.
const CODEX_INSTRUCTIONS: &str = "\
You are a coding agent. You work with the user's files in the current directory, with the tools that you are given. \
Read what is there before you change it. Write and change files with shell commands, and check the result, with the \
project's tests if it has some. Go on until the task is done, without asking, then say in a few words what you did. Do \
what was asked, and nothing else.";

/// The other keys of a model of Codex, each of which it needs.
const CODEX_MODEL: &str = r#"{"shell_type":"shell_command","truncation_policy":{"mode":"bytes","limit":10000},"supported_reasoning_levels":[],"experimental_supported_tools":[],"support_verbosity":false,"visibility":"list","supported_in_api":true,"priority":0}"#;

/// Codex asks for `/responses` below the base, and reads no list of models.
/// <https://github.com/openai/codex/blob/main/docs/config.md>
pub(super) fn codex(target: &AgentTarget<'_>) -> AgentSetup {
    let text = |text: &str| Value::from(text).to_string();
    let mut settings = vec![
        format!("model_providers.{PROVIDER}.name={}", text(PROVIDER)),
        format!("model_providers.{PROVIDER}.env_key={}", text(CODEX_KEY)),
        format!("model_providers.{PROVIDER}.base_url={}", text(&base(target))),
        format!("model_providers.{PROVIDER}.wire_api={}", text("responses")),
        format!("model_provider={}", text(PROVIDER)),
        format!("model={}", text(target.model)),
    ];
    settings.extend(target.context.map(|context| format!("model_context_window={context}")));
    let mut files = Vec::new();
    if target.lean {
        settings.push(format!("web_search={}", text("disabled")));
        let file = "models.json";
        settings.push(format!("model_catalog_json={}", text(&path(target, file))));
        let name = target.model;
        let texts = [("slug", name), ("display_name", name), ("base_instructions", CODEX_INSTRUCTIONS)];
        let model = object(CODEX_MODEL, &texts);
        files.push((file, json!({ "models": [model] }).to_string()));
    }
    let mut before: Vec<String> =
        settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]).collect();
    if target.lean {
        let features = ["multi_agent", "goals"];
        before.extend(features.iter().flat_map(|feature| ["--disable".to_owned(), (*feature).to_owned()]));
    }
    AgentSetup { before, env: vec![(CODEX_KEY, target.key.to_owned())], files, ..AgentSetup::default() }
}

/// Each makes Claude Code ask another provider instead of the address that it is given.
const CLAUDE_PROVIDERS: [&str; 5] = [
    "CLAUDE_CODE_USE_ANTHROPIC_AWS",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_FOUNDRY",
    "CLAUDE_CODE_USE_MANTLE",
    "CLAUDE_CODE_USE_VERTEX",
];

/// The user's settings file overrides the environment, so both have the variables; `--settings` wins. It is a file,
/// because others can see arguments. List-valued flags swallow a prompt behind them, so all of ours follow the
/// user's. <https://code.claude.com/docs/en/llm-gateway>
pub(super) fn claude(target: &AgentTarget<'_>) -> AgentSetup {
    let model = target.model;
    let mut env = vec![
        ("ANTHROPIC_BASE_URL", target.url.to_owned()),
        ("ANTHROPIC_AUTH_TOKEN", target.key.to_owned()),
        ("ANTHROPIC_API_KEY", String::new()),
        ("ANTHROPIC_MODEL", model.to_owned()),
        ("ANTHROPIC_DEFAULT_OPUS_MODEL", model.to_owned()),
        ("ANTHROPIC_DEFAULT_SONNET_MODEL", model.to_owned()),
        ("ANTHROPIC_DEFAULT_HAIKU_MODEL", model.to_owned()),
        ("CLAUDE_CODE_SUBAGENT_MODEL", model.to_owned()),
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".to_owned()),
        // Else a changing line at the top of each request makes the server process the whole prompt again.
        ("CLAUDE_CODE_ATTRIBUTION_HEADER", "0".to_owned()),
        ("API_TIMEOUT_MS", API_TIMEOUT_MS.to_string()),
        ("MAX_THINKING_TOKENS", "0".to_owned()),
    ];
    env.extend(CLAUDE_PROVIDERS.map(|provider| (provider, String::new())));
    // Else a model of an unknown name counts as one of a million tokens.
    env.extend(target.context.map(|context| ("CLAUDE_CODE_MAX_CONTEXT_TOKENS", context.to_string())));
    let settings = order::object(env.iter().map(|(name, value)| ((*name).to_owned(), value.as_str())));
    let file = "settings.json";
    let mut after = vec!["--settings".to_owned(), path(target, file)];
    if target.lean {
        after.extend(["--tools".to_owned(), "Bash,Edit,Read,Write".to_owned()]);
    }
    let files = vec![(file, json!({ "env": settings }).to_string())];
    AgentSetup { after, env, files, ..AgentSetup::default() }
}

/// A provider or model that the user has set for one of its own agents would win over `model`.
/// <https://opencode.ai/docs/providers>
pub(super) fn opencode(target: &AgentTarget<'_>) -> AgentSetup {
    let mut model = object("{}", &[("name", target.model)]);
    if let Some(context) = target.context {
        model["limit"] = json!({ "context": context, "output": max_output(context) });
    }
    let name = format!("{PROVIDER}/{}", target.model);
    let agents = ["build", "plan", "general"].map(|agent| (agent.to_owned(), json!({ "model": name })));
    let content = json!({
        "enabled_providers": [PROVIDER],
        "agent": order::object(agents),
        "provider": { PROVIDER: {
            "npm": "@ai-sdk/openai-compatible",
            "name": PROVIDER,
            "options": { "baseURL": base(target), "apiKey": target.key },
            "models": { target.model: model },
        } },
        "model": name,
        "small_model": name,
    });
    AgentSetup { env: vec![("OPENCODE_CONFIG_CONTENT", content.to_string())], ..AgentSetup::default() }
}

/// What aider is told of every model.
const AIDER_MODEL: &str =
    r#"{"input_cost_per_token":0.0,"output_cost_per_token":0.0,"litellm_provider":"openai","mode":"chat"}"#;

/// <https://aider.chat/docs/llms/openai-compat.html>
pub(super) fn aider(target: &AgentTarget<'_>) -> AgentSetup {
    let name = format!("openai/{}", target.model);
    // Those of the user's settings would get the changes, for messages of commits, and the plans.
    let models = ["--model", "--weak-model", "--editor-model"].map(|flag| [flag.to_owned(), name.clone()]);
    let mut before = models.concat();
    before.extend(["--openai-api-base".to_owned(), base(target), "--no-show-model-warnings".to_owned()]);
    let mut files = Vec::new();
    if let Some(context) = target.context {
        let mut facts = object(AIDER_MODEL, &[]);
        facts["max_input_tokens"] = json!(context);
        facts["max_output_tokens"] = json!(max_output(context));
        let file = "model-metadata.json";
        before.extend(["--model-metadata-file".to_owned(), path(target, file)]);
        files.push((file, json!({ name: facts }).to_string()));
    }
    AgentSetup {
        before,
        env: vec![("OPENAI_API_KEY", target.key.to_owned())],
        files,
        ..AgentSetup::default()
    }
}

/// A model in the user's settings would win over the variable.
/// <https://qwenlm.github.io/qwen-code-docs/en/users/configuration/auth/>
pub(super) fn qwen_code(target: &AgentTarget<'_>) -> AgentSetup {
    let env = vec![
        ("OPENAI_BASE_URL", base(target)),
        ("OPENAI_API_KEY", target.key.to_owned()),
        ("OPENAI_MODEL", target.model.to_owned()),
    ];
    let before = ["--auth-type", "openai", "--model", target.model].map(str::to_owned).to_vec();
    AgentSetup { before, env, ..AgentSetup::default() }
}

/// <https://github.com/charmbracelet/crush#custom-providers>
pub(super) fn crush(target: &AgentTarget<'_>) -> AgentSetup {
    let mut model = object("{}", &[("id", target.model), ("name", target.model)]);
    if let Some(context) = target.context {
        model["context_window"] = json!(context);
        model["default_max_tokens"] = json!(max_output(context));
    }
    let chosen = json!({ "provider": PROVIDER, "model": target.model });
    let config = json!({
        "providers": { PROVIDER: {
            "name": PROVIDER, "type": "openai-compat", "base_url": format!("{}/v1/", target.url), "api_key": target.key,
            "models": [model],
        } },
        "models": { "large": chosen, "small": chosen },
    });
    AgentSetup {
        env: vec![("CRUSH_GLOBAL_CONFIG", target.directory.display().to_string())],
        files: vec![("crush.json", config.to_string())],
        ..AgentSetup::default()
    }
}

/// What pi is told of every model.
const PI_MODEL: &str =
    r#"{"reasoning":false,"input":["text"],"cost":{"input":0,"output":0,"cacheRead":0,"cacheWrite":0}}"#;

/// <https://github.com/badlogic/pi-mono/blob/main/packages/coding-agent/docs/models.md>
pub(super) fn pi(target: &AgentTarget<'_>) -> AgentSetup {
    let mut model = object(PI_MODEL, &[("id", target.model), ("name", target.model)]);
    if let Some(context) = target.context {
        model["contextWindow"] = json!(context);
        model["maxTokens"] = json!(max_output(context));
    }
    let models = json!({ "providers": { PROVIDER: {
        "baseUrl": base(target), "api": "openai-completions", "apiKey": target.key, "models": [model],
    } } });
    AgentSetup {
        before: ["--provider", PROVIDER, "--model", target.model].map(str::to_owned).to_vec(),
        env: vec![("PI_CODING_AGENT_DIR", target.directory.display().to_string())],
        files: vec![("models.json", models.to_string())],
        ..AgentSetup::default()
    }
}

/// Returns a constant, which is JSON, with these texts.
fn object(constant: &str, texts: &[(&str, &str)]) -> Value {
    let mut object: Value = serde_json::from_str(constant).unwrap_or_default();
    for (key, text) in texts {
        object[*key] = json!(text);
    }
    object
}

/// Returns the base of OpenAI's paths.
fn base(target: &AgentTarget<'_>) -> String {
    format!("{}/v1", target.url)
}

fn path(target: &AgentTarget<'_>, file: &str) -> String {
    target.directory.join(file).display().to_string()
}

fn max_output(context: u64) -> u64 {
    (context / 4).clamp(1, MAX_OUTPUT_TOKENS)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::AGENTS;
    use super::*;

    fn setups(lean: bool, context: Option<u64>) -> String {
        let target = AgentTarget {
            url: "http://127.0.0.1:11434",
            key: "fusion",
            model: "qwen3:8b",
            context,
            lean,
            directory: Path::new("/data/agents/x"),
        };
        AGENTS.iter().fold(String::new(), |all, agent| {
            let AgentSetup { before, after, env, files } = (agent.setup)(&target);
            let mut lines = vec![format!("# {}", agent.name)];
            lines.push([&before[..], &["ARGS".to_owned()], &after[..]].concat().join(" "));
            lines.extend(env.iter().map(|(name, value)| format!("{name}={value}")));
            lines.extend(files.iter().map(|(name, text)| format!("{name}: {text}")));
            all + &lines.join("\n") + "\n"
        })
    }

    #[test]
    fn every_agent_gets_address_model_and_context() {
        insta::assert_snapshot!(setups(true, Some(32_768)), @r#"
        # codex
        -c model_providers.fusion.name="fusion" -c model_providers.fusion.env_key="FUSION_API_KEY" -c model_providers.fusion.base_url="http://127.0.0.1:11434/v1" -c model_providers.fusion.wire_api="responses" -c model_provider="fusion" -c model="qwen3:8b" -c model_context_window=32768 -c web_search="disabled" -c model_catalog_json="/data/agents/x/models.json" --disable multi_agent --disable goals ARGS
        FUSION_API_KEY=fusion
        models.json: {"models":[{"base_instructions":"You are a coding agent. You work with the user's files in the current directory, with the tools that you are given. Read what is there before you change it. Write and change files with shell commands, and check the result, with the project's tests if it has some. Go on until the task is done, without asking, then say in a few words what you did. Do what was asked, and nothing else.","display_name":"qwen3:8b","experimental_supported_tools":[],"priority":0,"shell_type":"shell_command","slug":"qwen3:8b","support_verbosity":false,"supported_in_api":true,"supported_reasoning_levels":[],"truncation_policy":{"limit":10000,"mode":"bytes"},"visibility":"list"}]}
        # claude
        ARGS --settings /data/agents/x/settings.json --tools Bash,Edit,Read,Write
        ANTHROPIC_BASE_URL=http://127.0.0.1:11434
        ANTHROPIC_AUTH_TOKEN=fusion
        ANTHROPIC_API_KEY=
        ANTHROPIC_MODEL=qwen3:8b
        ANTHROPIC_DEFAULT_OPUS_MODEL=qwen3:8b
        ANTHROPIC_DEFAULT_SONNET_MODEL=qwen3:8b
        ANTHROPIC_DEFAULT_HAIKU_MODEL=qwen3:8b
        CLAUDE_CODE_SUBAGENT_MODEL=qwen3:8b
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1
        CLAUDE_CODE_ATTRIBUTION_HEADER=0
        API_TIMEOUT_MS=3600000
        MAX_THINKING_TOKENS=0
        CLAUDE_CODE_USE_ANTHROPIC_AWS=
        CLAUDE_CODE_USE_BEDROCK=
        CLAUDE_CODE_USE_FOUNDRY=
        CLAUDE_CODE_USE_MANTLE=
        CLAUDE_CODE_USE_VERTEX=
        CLAUDE_CODE_MAX_CONTEXT_TOKENS=32768
        settings.json: {"env":{"ANTHROPIC_API_KEY":"","ANTHROPIC_AUTH_TOKEN":"fusion","ANTHROPIC_BASE_URL":"http://127.0.0.1:11434","ANTHROPIC_DEFAULT_HAIKU_MODEL":"qwen3:8b","ANTHROPIC_DEFAULT_OPUS_MODEL":"qwen3:8b","ANTHROPIC_DEFAULT_SONNET_MODEL":"qwen3:8b","ANTHROPIC_MODEL":"qwen3:8b","API_TIMEOUT_MS":"3600000","CLAUDE_CODE_ATTRIBUTION_HEADER":"0","CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC":"1","CLAUDE_CODE_MAX_CONTEXT_TOKENS":"32768","CLAUDE_CODE_SUBAGENT_MODEL":"qwen3:8b","CLAUDE_CODE_USE_ANTHROPIC_AWS":"","CLAUDE_CODE_USE_BEDROCK":"","CLAUDE_CODE_USE_FOUNDRY":"","CLAUDE_CODE_USE_MANTLE":"","CLAUDE_CODE_USE_VERTEX":"","MAX_THINKING_TOKENS":"0"}}
        # opencode
        ARGS
        OPENCODE_CONFIG_CONTENT={"agent":{"build":{"model":"fusion/qwen3:8b"},"general":{"model":"fusion/qwen3:8b"},"plan":{"model":"fusion/qwen3:8b"}},"enabled_providers":["fusion"],"model":"fusion/qwen3:8b","provider":{"fusion":{"models":{"qwen3:8b":{"limit":{"context":32768,"output":8192},"name":"qwen3:8b"}},"name":"fusion","npm":"@ai-sdk/openai-compatible","options":{"apiKey":"fusion","baseURL":"http://127.0.0.1:11434/v1"}}},"small_model":"fusion/qwen3:8b"}
        # aider
        --model openai/qwen3:8b --weak-model openai/qwen3:8b --editor-model openai/qwen3:8b --openai-api-base http://127.0.0.1:11434/v1 --no-show-model-warnings --model-metadata-file /data/agents/x/model-metadata.json ARGS
        OPENAI_API_KEY=fusion
        model-metadata.json: {"openai/qwen3:8b":{"input_cost_per_token":0.0,"litellm_provider":"openai","max_input_tokens":32768,"max_output_tokens":8192,"mode":"chat","output_cost_per_token":0.0}}
        # qwen-code
        --auth-type openai --model qwen3:8b ARGS
        OPENAI_BASE_URL=http://127.0.0.1:11434/v1
        OPENAI_API_KEY=fusion
        OPENAI_MODEL=qwen3:8b
        # crush
        ARGS
        CRUSH_GLOBAL_CONFIG=/data/agents/x
        crush.json: {"models":{"large":{"model":"qwen3:8b","provider":"fusion"},"small":{"model":"qwen3:8b","provider":"fusion"}},"providers":{"fusion":{"api_key":"fusion","base_url":"http://127.0.0.1:11434/v1/","models":[{"context_window":32768,"default_max_tokens":8192,"id":"qwen3:8b","name":"qwen3:8b"}],"name":"fusion","type":"openai-compat"}}}
        # pi
        --provider fusion --model qwen3:8b ARGS
        PI_CODING_AGENT_DIR=/data/agents/x
        models.json: {"providers":{"fusion":{"api":"openai-completions","apiKey":"fusion","baseUrl":"http://127.0.0.1:11434/v1","models":[{"contextWindow":32768,"cost":{"cacheRead":0,"cacheWrite":0,"input":0,"output":0},"id":"qwen3:8b","input":["text"],"maxTokens":8192,"name":"qwen3:8b","reasoning":false}]}}}
        "#);
    }

    #[test]
    fn full_and_unknown_context_give_less() {
        let text = setups(false, None);
        for word in [
            "--tools",
            "web_search",
            "model_catalog",
            "--disable",
            "32768",
            "limit",
            "context_window",
            "MAX_CONTEXT",
        ] {
            assert!(!text.contains(word), "{word} in {text}");
        }
    }
}
