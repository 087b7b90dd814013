//! `fusion config get`.

use super::*;

#[test]
fn prints_what_holds_a_string_without_quotes() {
    let sandbox = Sandbox::without_config();
    sandbox.write_config(
        "[ollama_server]\nport = 5\nenv = { A = 'x y' }\nstartup_timeout = 1.5\nlog_max_size = 67108864\nargs = ['a', \"b\"]\n\
             [ollama_run]\nstop = 'END'\nextra_body.a.b = [1, true]\n\
             [prompts.'code review']\ntemplate = '''\nReview:\n{input}'''\n\
             [aliases]\nsmall = 'm'\n'llama3.2:1b' = { mlx = 'x' }\n",
    );
    for (key, value) in [
        ("ollama_server.port", "5"),
        ("ollama_server.host", "127.0.0.1"),
        ("ollama_server.startup_timeout", "1.5"),
        ("ollama_server.stop_timeout", "15"),
        ("ollama_server.log_max_size", "64MiB"),
        ("mlx_server.log_max_size", "50MB"),
        ("ollama_server.args", r#"["a", "b"]"#),
        ("ollama_server.env", r#"{ A = "x y" }"#),
        ("ollama_server.env.A", "x y"),
        ("ollama_run.temperature", "0.8"),
        ("ollama_run.stop", r#"["END"]"#),
        ("ollama_run.extra_body.a", "{ b = [1, true] }"),
        ("ollama_run.extra_body.a.b", "[1, true]"),
        ("mlx_run.stop", "[]"),
        ("mlx_run.reasoning", "hide"),
        ("prompts.\"code review\".template", "Review:\n{input}"),
        ("aliases.small", "m"),
        ("aliases.'llama3.2:1b'.mlx", "x"),
    ] {
        config(&sandbox, ["get", key]).assert(0, &format!("{value}\n"), "");
    }
}

#[test]
fn says_what_is_not_set() {
    let sandbox = Sandbox::without_config();
    sandbox.write_config("");
    for key in [
        "ollama_run.seed",
        "ollama_server.env.A",
        "prompts.x.model",
        "aliases.small",
        "mlx_run.extra_body.a.b",
    ] {
        let stderr = format!(
            "error: `{key}` is not set, and has no default\nhint: set it: fusion config set {key} VALUE\n"
        );
        config(&sandbox, ["get", key]).assert(1, "", &stderr);
    }
}

#[test]
fn refuses_what_is_no_key() {
    let sandbox = Sandbox::without_config();
    let hint = "hint: `fusion config show --effective` shows every key\n";
    for (key, what) in [
        ("", "\"\" is not a key of the configuration"),
        ("a b", "\"a b\" is not a key of the configuration"),
        ("ollama_server", "`ollama_server` is a table, not a key"),
        ("prompts.review", "`prompts.review` is a table, not a key"),
        ("ollama_server.prot", "unknown key `ollama_server.prot`; did you mean `ollama_server.port`?"),
        ("olama_server.port", "unknown table `olama_server`; did you mean `ollama_server`?"),
        ("prompt.x.model", "unknown table `prompt`; did you mean `prompts`?"),
        ("prompts.x.modle", "unknown key `prompts.x.modle`; did you mean `prompts.x.model`?"),
        ("port", "unknown key `port`; did you mean `ollama_server.port` or `mlx_server.port`?"),
        (
            "zzz.port",
            "unknown table `zzz`; valid here: `ollama_server`, `ollama_run`, `mlx_server`, `mlx_run`, `prompts`, `aliases`",
        ),
        ("aliases.x.y", "unknown runtime `aliases.x.y`; valid here: `ollama`, `mlx`"),
    ] {
        for arguments in [&["get", key][..], &["set", key, "1"], &["unset", key]] {
            let finished = config(&sandbox, arguments.iter().copied());
            if arguments[0] == "unset" && key == "prompts.review" {
                finished.assert(0, "", "`prompts.review` was not set\n");
            } else {
                finished.assert(2, "", &format!("error: {what}\n{hint}"));
            }
        }
    }
    config(&sandbox, ["get", "mlx_server.port.x"]).assert(
        2,
        "",
        &format!("error: `mlx_server.port.x` is within something that is not a table\n{EDIT_HINT}"),
    );
}
