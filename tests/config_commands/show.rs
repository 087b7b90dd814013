//! `fusion config show`.

use super::*;

#[test]
fn effective_has_every_key_and_is_valid() {
    let sandbox = Sandbox::without_config();
    sandbox.write_config(
        "[mlx_run]\nseed = 5\ntimeout = 2.5\n[prompts.'a b']\nmodel = 'x'\n[aliases]\ns = 'y'\n",
    );
    let shown = config(&sandbox, ["show", "--effective"]).assert_code(0).stdout();
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    for line in [
        "[ollama_server]",
        "port = 11434",
        "# command is not set",
        "seed = 5",
        "timeout = 2.5",
        "# max_tokens is not set",
        "reasoning = \"hide\"",
        "[prompts.\"a b\"]",
        "# system is not set",
        "[aliases]",
        "s = \"y\"",
    ] {
        assert!(lines(&shown).contains(&line.to_owned()), "no {line} in\n{shown}");
    }
    sandbox.write_config(&shown);
    assert_eq!(config(&sandbox, ["show", "--effective"]).assert_code(0).stdout(), shown);
}

#[test]
fn json_keeps_types_and_shows_unset_as_null() {
    let sandbox = Sandbox::without_config();
    sandbox.write_config(
            "[ollama_server]\nenv.A = 'x'\nstop_timeout = 1\n[ollama_run]\nstop = 'x'\nextra_body = { a = [1, 2.5, { b = true }] }\n\
             [prompts.review]\ntemplate = 'x'\n[aliases]\ns = { mlx = 'y' }\n",
        );
    let file = config(&sandbox, ["show", "--json"]).assert_code(0).json();
    assert_eq!(
        file,
        serde_json::json!({
            "ollama_server": { "env": { "A": "x" }, "stop_timeout": 1 },
            "ollama_run": { "stop": "x", "extra_body": { "a": [1, 2.5, { "b": true }] } },
            "prompts": { "review": { "template": "x" } },
            "aliases": { "s": { "mlx": "y" } },
        })
    );
    let effective = config(&sandbox, ["show", "--effective", "--json"]).assert_code(0).json();
    assert_eq!(
        effective["ollama_server"],
        serde_json::json!({
            "host": "127.0.0.1", "port": 11434, "command": null, "args": [], "env": { "A": "x" },
            "startup_timeout": 300, "stop_timeout": 1, "auto_start": false, "log_max_size": "50MB", "log_keep": 3,
            "idle_timeout": null, "exclusive": null, "on_demand": true, "restart": "no", "keep_awake": "never",
        })
    );
    assert_eq!(
        effective["ollama_run"],
        serde_json::json!({
            "model": "llama3.2:3b", "system_prompt": "You are a helpful assistant.", "temperature": 0.8,
            "stream": false, "max_tokens": null, "top_p": null, "seed": null, "stop": ["x"], "timeout": 600,
            "start_on_demand": true, "reasoning": "hide", "extra_body": { "a": [1, 2.5, { "b": true }] },
        })
    );
    assert_eq!(
        effective["prompts"],
        serde_json::json!({ "review": { "system": null, "model": null, "temperature": null, "template": "x" } })
    );
    assert_eq!(effective["aliases"], serde_json::json!({ "s": { "mlx": "y" } }));
}
