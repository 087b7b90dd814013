//! `fusion config get`.

use super::*;

#[test]
fn prints_values_and_strings_without_quotes() {
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
        config(&sandbox, ["get", key]).assert_stdout(&format!("{value}\n"));
    }
}

#[test]
fn names_the_key_that_is_not_set() {
    let sandbox = Sandbox::without_config();
    sandbox.write_config("");
    let keys = [
        "ollama_run.seed",
        "ollama_server.env.A",
        "prompts.x.model",
        "aliases.small",
        "mlx_run.extra_body.a.b",
    ];
    let missing = keys.map(|key| (key, config(&sandbox, ["get", key])));
    insta::assert_snapshot!(table(missing), @"
    # ollama_run.seed
    exit 1
    [stderr]
    error: `ollama_run.seed` is not set, and has no default
    hint: set it: fusion config set ollama_run.seed 42
    # ollama_server.env.A
    exit 1
    [stderr]
    error: `ollama_server.env.A` is not set, and has no default
    hint: set it: fusion config set ollama_server.env.A VALUE
    # prompts.x.model
    exit 1
    [stderr]
    error: `prompts.x.model` is not set, and has no default
    hint: set it: fusion config set prompts.x.model qwen2.5-coder:7b
    # aliases.small
    exit 1
    [stderr]
    error: `aliases.small` is not set, and has no default
    hint: set it: fusion config set aliases.small VALUE
    # mlx_run.extra_body.a.b
    exit 1
    [stderr]
    error: `mlx_run.extra_body.a.b` is not set, and has no default
    hint: set it: fusion config set mlx_run.extra_body.a.b VALUE
    ");
}

#[test]
fn refuses_what_is_not_a_key() {
    let sandbox = Sandbox::without_config();
    let keys = [
        "",
        "a b",
        "ollama_server",
        "prompts.review",
        "ollama_server.prot",
        "olama_server.port",
        "prompt.x.model",
        "prompts.x.modle",
        "port",
        "zzz.port",
        "aliases.x.y",
    ];
    let refused = keys.map(|key| {
        let get = config(&sandbox, ["get", key]);
        // `unset` takes a table, too.
        let unset = (key != "prompts.review").then(|| config(&sandbox, ["unset", key]));
        let others = [Some(config(&sandbox, ["set", key, "1"])), unset].into_iter().flatten();
        (key, same_output(others.chain([get])))
    });
    insta::assert_snapshot!(table(refused), @r#"
    # 
    exit 2
    [stderr]
    error: "" is not a key of the configuration
    hint: see every key: fusion config show --effective
    # a b
    exit 2
    [stderr]
    error: "a b" is not a key of the configuration
    hint: see every key: fusion config show --effective
    # ollama_server
    exit 2
    [stderr]
    error: `ollama_server` is a table, not a key
    hint: see every key: fusion config show --effective
    # prompts.review
    exit 2
    [stderr]
    error: `prompts.review` is a table, not a key
    hint: see every key: fusion config show --effective
    # ollama_server.prot
    exit 2
    [stderr]
    error: unknown key `ollama_server.prot`; did you mean `ollama_server.port`?
    hint: see every key: fusion config show --effective
    # olama_server.port
    exit 2
    [stderr]
    error: unknown table `olama_server`; did you mean `ollama_server`?
    hint: see every key: fusion config show --effective
    # prompt.x.model
    exit 2
    [stderr]
    error: unknown table `prompt`; did you mean `prompts`?
    hint: see every key: fusion config show --effective
    # prompts.x.modle
    exit 2
    [stderr]
    error: unknown key `prompts.x.modle`; did you mean `prompts.x.model`?
    hint: see every key: fusion config show --effective
    # port
    exit 2
    [stderr]
    error: unknown key `port`; did you mean `ollama_server.port` or `mlx_server.port` or `llama_server.port`?
    hint: see every key: fusion config show --effective
    # zzz.port
    exit 2
    [stderr]
    error: unknown table `zzz`; valid here: `ollama_server`, `ollama_run`, `mlx_server`, `mlx_run`, `llama_server`, `llama_run`, `gateway`, `templates`, `instances`, `models`, `prompts`, `aliases`
    hint: see every key: fusion config show --effective
    # aliases.x.y
    exit 2
    [stderr]
    error: unknown runtime `aliases.x.y`; valid here: `ollama`, `mlx`, `llama`
    hint: see every key: fusion config show --effective
    "#);
    insta::assert_snapshot!(config(&sandbox, ["unset", "prompts.review"]), @"
    exit 0
    [stderr]
    `prompts.review` was not set
    ");
    insta::assert_snapshot!(config(&sandbox, ["get", "mlx_server.port.x"]), @"
    exit 2
    [stderr]
    error: `mlx_server.port.x` is within something that is not a table
    hint: edit the file: fusion config edit
    ");
}
