//! Every fault of the text, reported with its place.

use super::*;

/// What `config check` says about each of these files: line, column and problem.
#[track_caller]
pub(super) fn problems(texts: &[&str]) -> String {
    let sandbox = Sandbox::without_config();
    let problem = |text: &&str| {
        sandbox.write_config(text);
        let stderr = config(&sandbox, ["check"]).assert_code(2).stderr();
        let place = format!("error: {}:", config_file(&sandbox).display());
        let problem = stderr.strip_prefix(&place).and_then(|rest| rest.split_once("\nhint: "));
        let (problem, _) = problem.unwrap_or_else(|| panic!("{text:?}: {stderr}"));
        assert_eq!(self::text(&sandbox), **text);
        format!("{text:?}\n  {problem}\n")
    };
    texts.iter().map(problem).collect()
}

#[test]
fn text_that_is_not_toml() {
    let problems = problems(&[
        "port = \n",
        "[ollama_server]\nport = 1\nport = 2\n",
        "[ollama_server]\n[ollama_server]\n",
        "[ollama_server\n",
        "[ollama_run]\nmodel = 'é\n",
        "\u{feff}port 1\n",
    ]);
    insta::assert_snapshot!(problems, @r#"
    "port = \n"
      1:8: `port` has no value
    "[ollama_server]\nport = 1\nport = 2\n"
      3:1: `port` is set twice in this table
    "[ollama_server]\n[ollama_server]\n"
      2:2: the table `[ollama_server]` is in the file twice
    "[ollama_server\n"
      1:15: unclosed table, expected `]`
    "[ollama_run]\nmodel = 'é\n"
      2:11: invalid literal string, expected `'`
    "\u{feff}port 1\n"
      1:6: key with no value, expected `=`
    "#);
}

#[test]
fn unknown_names_suggest_near_ones() {
    let problems = problems(&[
        "[ollama_server]\nprot = 1\n",
        "[olama_server]\n",
        "[Ollama_Server]\n",
        "[mlx_run]\nmaxtokens = 1\n",
        "[prompts.review]\nsytem = ''\n",
        "[aliases]\nsmall = { olama = 'x' }\n",
        "[ollama_server]\ntemperature = 1\n",
        "[ollama_server]\nmodel = 'x'\n",
        "port = 1\n",
        // Nothing is near.
        "[zzz]\n",
        "[prompts.x]\nzzz = 1\n",
    ]);
    insta::assert_snapshot!(problems, @r#"
    "[ollama_server]\nprot = 1\n"
      2:1: unknown key `ollama_server.prot`; did you mean `ollama_server.port`?
    "[olama_server]\n"
      1:2: unknown table `olama_server`; did you mean `ollama_server`?
    "[Ollama_Server]\n"
      1:2: unknown table `Ollama_Server`; did you mean `ollama_server`?
    "[mlx_run]\nmaxtokens = 1\n"
      2:1: unknown key `mlx_run.maxtokens`; did you mean `mlx_run.max_tokens`?
    "[prompts.review]\nsytem = ''\n"
      2:1: unknown key `prompts.review.sytem`; did you mean `prompts.review.system`?
    "[aliases]\nsmall = { olama = 'x' }\n"
      2:11: unknown runtime `aliases.small.olama`; did you mean `aliases.small.ollama`?
    "[ollama_server]\ntemperature = 1\n"
      2:1: unknown key `ollama_server.temperature`; did you mean `ollama_run.temperature`?
    "[ollama_server]\nmodel = 'x'\n"
      2:1: unknown key `ollama_server.model`; did you mean `ollama_run.model`?
    "port = 1\n"
      1:1: unknown key `port`; did you mean `ollama_server.port` or `mlx_server.port` or `llama_server.port`?
    "[zzz]\n"
      1:2: unknown table `zzz`; valid here: `ollama_server`, `ollama_run`, `mlx_server`, `mlx_run`, `llama_server`, `llama_run`, `gateway`, `templates`, `instances`, `models`, `prompts`, `aliases`
    "[prompts.x]\nzzz = 1\n"
      2:1: unknown key `prompts.x.zzz`; valid here: `system`, `model`, `temperature`, `template`
    "#);
}

#[test]
fn what_fusion_sets_itself_is_refused() {
    let problems = problems(&[
        "[mlx_run.extra_body]\nmessages = []\n",
        "[ollama_server]\nenv.OLLAMA_HOST = '0.0.0.0:5'\n",
    ]);
    insta::assert_snapshot!(problems, @r#"
    "[mlx_run.extra_body]\nmessages = []\n"
      2:12: `mlx_run.extra_body.messages` cannot be set: fusion sets `model`, `messages`, `stream` itself
    "[ollama_server]\nenv.OLLAMA_HOST = '0.0.0.0:5'\n"
      2:5: `ollama_server.env.OLLAMA_HOST` cannot be set: `ollama_server.host` and `ollama_server.port` say where the server listens
    "#);
    let sandbox = Sandbox::without_config();
    sandbox.write_config("[mlx_server]\nenv.OLLAMA_HOST = 'x'\n[mlx_run]\nextra_body.a.model = 'x'\n");
    config(&sandbox, ["check"]).assert_code(0);
    config(&sandbox, ["set", "ollama_server.env.OLLAMA_HOST", "x"]).assert_code(2);
    // A default of the launch is no fault to set.
    config(&sandbox, ["set", "ollama_server.env.OLLAMA_NOPRUNE", "0"]).assert_code(0);
}

#[test]
fn old_keys_name_the_new_ones() {
    let problems = problems(&[
        "[mlx_run]\nauto_up = false\n",
        "[mlx_run]\nextra = {}\n",
        "[ollama_server]\nlog_max_mb = 50\n",
    ]);
    insta::assert_snapshot!(problems, @r#"
    "[mlx_run]\nauto_up = false\n"
      2:1: `mlx_run.auto_up` is now called `mlx_run.start_on_demand`
    "[mlx_run]\nextra = {}\n"
      2:1: `mlx_run.extra` is now called `mlx_run.extra_body`
    "[ollama_server]\nlog_max_mb = 50\n"
      2:1: `ollama_server.log_max_mb` is now called `ollama_server.log_max_size`
    "#);
}

#[test]
fn values_of_the_wrong_type() {
    let problems = problems(&[
        "ollama_server = 5\n",
        "[[ollama_server]]\n",
        "prompts = 'x'\n",
        "[prompts]\nx = 1\n",
        "aliases = []\n",
        "[ollama_server]\nport = \"11434\"\n",
        "[ollama_server]\nport = 1.5\n",
        "[mlx_run]\nstream = 'yes'\n",
        "[mlx_run]\nmodel = 5\n",
        "[mlx_run]\nmodel = ''\n",
        "[mlx_run]\nsystem_prompt = 2026-01-01\n",
        "[mlx_run]\nstop = [1]\n",
        "[mlx_run]\nreasoning = 'yes'\n",
        "[mlx_server]\ncommand = 'mlx serve'\n",
        "[mlx_server]\ncommand = []\n",
        "[mlx_server]\ncommand = ['']\n",
        "[mlx_server]\nargs = [\"a\\u0000\"]\n",
        "[mlx_server]\nauto_start = 1\n",
        // A value of the environment may be a secret: it is not shown.
        "[mlx_server]\nenv = { A = 5 }\n",
        "[mlx_server.env]\nB = true\n",
        "[mlx_server]\nenv.'A=B' = 'x'\n",
        "[mlx_run]\nextra_body = { day = 2026-01-01 }\n",
        "[mlx_run]\nextra_body.x = inf\n",
    ]);
    insta::assert_snapshot!(problems, @r#"
    "ollama_server = 5\n"
      1:17: `ollama_server`: expected a table, found a whole number
    "[[ollama_server]]\n"
      1:1: `ollama_server`: expected a table, found an array
    "prompts = 'x'\n"
      1:11: `prompts`: expected a table of saved prompts, found a string
    "[prompts]\nx = 1\n"
      2:5: `prompts.x`: expected a table, found a whole number
    "aliases = []\n"
      1:11: `aliases`: expected a table of model names, found an array
    "[ollama_server]\nport = \"11434\"\n"
      2:8: `ollama_server.port`: expected a whole number from 1 to 65535, found the string "11434"
    "[ollama_server]\nport = 1.5\n"
      2:8: `ollama_server.port`: expected a whole number from 1 to 65535, found the number 1.5
    "[mlx_run]\nstream = 'yes'\n"
      2:10: `mlx_run.stream`: expected true or false, found the string "yes"
    "[mlx_run]\nmodel = 5\n"
      2:9: `mlx_run.model`: expected a string that is not empty, found the number 5
    "[mlx_run]\nmodel = ''\n"
      2:9: `mlx_run.model`: expected a string that is not empty, found the string ""
    "[mlx_run]\nsystem_prompt = 2026-01-01\n"
      2:17: `mlx_run.system_prompt`: expected a string, found a date
    "[mlx_run]\nstop = [1]\n"
      2:8: `mlx_run.stop`: expected a string or an array of strings, found an array
    "[mlx_run]\nreasoning = 'yes'\n"
      2:13: `mlx_run.reasoning`: expected "show" or "hide", found the string "yes"
    "[mlx_server]\ncommand = 'mlx serve'\n"
      2:11: `mlx_server.command`: expected an array of strings that begins with a program, found the string "mlx serve"
    "[mlx_server]\ncommand = []\n"
      2:11: `mlx_server.command`: expected an array of strings that begins with a program, found an array
    "[mlx_server]\ncommand = ['']\n"
      2:11: `mlx_server.command`: expected an array of strings that begins with a program, found an array
    "[mlx_server]\nargs = [\"a\\u0000\"]\n"
      2:8: `mlx_server.args`: expected an array of strings, found an array
    "[mlx_server]\nauto_start = 1\n"
      2:14: `mlx_server.auto_start`: expected true or false, found the number 1
    "[mlx_server]\nenv = { A = 5 }\n"
      2:13: `mlx_server.env.A`: expected a string, found a whole number
    "[mlx_server.env]\nB = true\n"
      2:5: `mlx_server.env.B`: expected a string, found true or false
    "[mlx_server]\nenv.'A=B' = 'x'\n"
      2:13: `mlx_server.env."A=B"`: expected a name of an environment variable, without `=`, before a string, found a string
    "[mlx_run]\nextra_body = { day = 2026-01-01 }\n"
      2:22: `mlx_run.extra_body.day`: expected a value that JSON has: no date, no infinity, found a date
    "[mlx_run]\nextra_body.x = inf\n"
      2:16: `mlx_run.extra_body.x`: expected a value that JSON has: no date, no infinity, found a number
    "#);
}

#[test]
fn values_out_of_range() {
    let problems = problems(&[
        "[ollama_server]\nport = 0\n",
        "[ollama_server]\nport = 65536\n",
        "[ollama_server]\nport = -1\n",
        "[ollama_server]\nport = 99999999999999999999\n",
        "[mlx_server]\nstop_timeout = -1\n",
        "[mlx_server]\nstartup_timeout = 0\n",
        "[mlx_run]\ntimeout = inf\n",
        "[mlx_run]\ntemperature = nan\n",
        "[mlx_run]\ntemperature = 2.1\n",
        "[mlx_run]\ntop_p = -0.1\n",
        "[mlx_run]\nseed = -1\n",
        "[mlx_run]\nmax_tokens = 0\n",
        "[mlx_server]\nlog_max_size = \"50M\"\n",
        "[mlx_server]\nlog_max_size = 50\n",
        // A field of the request that fusion sets itself.
        "[mlx_run]\nextra_body = { stream = true }\n",
    ]);
    insta::assert_snapshot!(problems, @r#"
    "[ollama_server]\nport = 0\n"
      2:8: `ollama_server.port`: expected a whole number from 1 to 65535, found the number 0
    "[ollama_server]\nport = 65536\n"
      2:8: `ollama_server.port`: expected a whole number from 1 to 65535, found the number 65536
    "[ollama_server]\nport = -1\n"
      2:8: `ollama_server.port`: expected a whole number from 1 to 65535, found the number -1
    "[ollama_server]\nport = 99999999999999999999\n"
      2:8: `ollama_server.port`: expected a whole number from 1 to 65535, found the number 99999999999999999999
    "[mlx_server]\nstop_timeout = -1\n"
      2:16: `mlx_server.stop_timeout`: expected a number of seconds from 0.001 to 31536000, found the number -1
    "[mlx_server]\nstartup_timeout = 0\n"
      2:19: `mlx_server.startup_timeout`: expected a number of seconds from 0.001 to 31536000, found the number 0
    "[mlx_run]\ntimeout = inf\n"
      2:11: `mlx_run.timeout`: expected a number of seconds from 0.001 to 31536000, found the number inf
    "[mlx_run]\ntemperature = nan\n"
      2:15: `mlx_run.temperature`: expected a number from 0 to 2, found the number nan
    "[mlx_run]\ntemperature = 2.1\n"
      2:15: `mlx_run.temperature`: expected a number from 0 to 2, found the number 2.1
    "[mlx_run]\ntop_p = -0.1\n"
      2:9: `mlx_run.top_p`: expected a number from 0 to 1, found the number -0.1
    "[mlx_run]\nseed = -1\n"
      2:8: `mlx_run.seed`: expected a whole number from 0 to 9223372036854775807, found the number -1
    "[mlx_run]\nmax_tokens = 0\n"
      2:14: `mlx_run.max_tokens`: expected a whole number from 1 to 4294967295, found the number 0
    "[mlx_server]\nlog_max_size = \"50M\"\n"
      2:16: `mlx_server.log_max_size`: expected a size from 1KB to 1000TB, such as "50MB" or "64MiB", found the string "50M"
    "[mlx_server]\nlog_max_size = 50\n"
      2:16: `mlx_server.log_max_size`: expected a size from 1KB to 1000TB, such as "50MB" or "64MiB", found the number 50
    "[mlx_run]\nextra_body = { stream = true }\n"
      2:25: `mlx_run.extra_body.stream` cannot be set: fusion sets `model`, `messages`, `stream` itself
    "#);
}

#[test]
fn hosts_with_more_than_a_host() {
    let problems = problems(&[
        "[mlx_server]\nhost = 'http://localhost'\n",
        "[mlx_server]\nhost = 'localhost/v1'\n",
        "[mlx_server]\nhost = '127.0.0.1:80'\n",
        "[mlx_server]\nhost = ''\n",
    ]);
    insta::assert_snapshot!(problems, @r#"
    "[mlx_server]\nhost = 'http://localhost'\n"
      2:8: `mlx_server.host`: expected a host name or an IP address, without scheme, port or path, found the string "http://localhost"
    "[mlx_server]\nhost = 'localhost/v1'\n"
      2:8: `mlx_server.host`: expected a host name or an IP address, without scheme, port or path, found the string "localhost/v1"
    "[mlx_server]\nhost = '127.0.0.1:80'\n"
      2:8: `mlx_server.host`: expected a host name or an IP address, without scheme, port or path, found the string "127.0.0.1:80"
    "[mlx_server]\nhost = ''\n"
      2:8: `mlx_server.host`: expected a host name or an IP address, without scheme, port or path, found the string ""
    "#);
}

#[test]
fn addresses_used_twice_by_starting_services() {
    let problems = problems(&[
        "[ollama_server]\nport = 8080\nauto_start = true\n[mlx_server]\nauto_start = true\n",
        "[ollama_server]\nport = 5\nauto_start = true\n[mlx_server]\nhost = '0.0.0.0'\nport = 5\nauto_start = true\n",
        "[instances.x]\ntemplate = 'mlx'\nport = 5\nauto_start = true\n[ollama_server]\nport = 5\nauto_start = true\n",
        "[instances.b]\ntemplate = 'mlx'\nport = 5\nauto_start = true\n[instances.a]\ntemplate = 'mlx'\nport = 5\nauto_start = true\n",
    ]);
    insta::assert_snapshot!(problems, @r#"
    "[ollama_server]\nport = 8080\nauto_start = true\n[mlx_server]\nauto_start = true\n"
      2:8: `ollama_server.port`: 127.0.0.1:8080 is already the address of `[mlx_server]`
    "[ollama_server]\nport = 5\nauto_start = true\n[mlx_server]\nhost = '0.0.0.0'\nport = 5\nauto_start = true\n"
      6:8: `mlx_server.port`: 0.0.0.0:5 is already the address of `[ollama_server]`
    "[instances.x]\ntemplate = 'mlx'\nport = 5\nauto_start = true\n[ollama_server]\nport = 5\nauto_start = true\n"
      6:8: `ollama_server.port`: 127.0.0.1:5 is already the address of `[instances.x]`
    "[instances.b]\ntemplate = 'mlx'\nport = 5\nauto_start = true\n[instances.a]\ntemplate = 'mlx'\nport = 5\nauto_start = true\n"
      7:8: `instances.a.port`: 127.0.0.1:5 is already the address of `[instances.b]`
    "#);
}

#[test]
fn check_warns_of_addresses_used_twice() {
    let sandbox = Sandbox::without_config();
    sandbox.write_config(
        "[ollama_server]\nhost = '::'\nport = 8080\nauto_start = true\n[instances.coder]\ntemplate = 'mlx'\nport = 8080\n\
         [gateway]\nport = 8081\n",
    );
    insta::assert_snapshot!(config(&sandbox, ["check"]), @"
    exit 0
    [stdout]
    [ROOT]/config/config.toml is valid
    [stderr]
    warning: mlx and ollama are both configured at [::]:8080; only one of them can run
    warning: mlx and coder are both configured at 127.0.0.1:8080; only one of them can run
    warning: ollama and coder are both configured at 127.0.0.1:8080; only one of them can run
    warning: llama and gateway are both configured at 127.0.0.1:8081; only one of them can run
    ");
}

#[test]
fn commands_refuse_a_broken_file() {
    let sandbox = Sandbox::without_config();
    sandbox.write_config("[ollama_server]\nport = 0\n");
    let commands = [
        &["ollama", "up"][..],
        &["mlx", "run", "x"],
        &["config", "get", "mlx_server.port"],
        &["config", "show", "--effective"],
        &["config", "show", "--json"],
        &["config", "set", "mlx_server.port", "5"],
        &["config", "unset", "mlx_server.port"],
    ];
    let refused = commands.map(|arguments| sandbox.fusion(arguments.iter().copied()).run_in_process());
    insta::assert_snapshot!(same_output(refused), @"
    exit 2
    [stderr]
    error: [ROOT]/config/config.toml:2:8: `ollama_server.port`: expected a whole number from 1 to 65535, found the number 0
    hint: edit the file: fusion config edit
    ");
}

#[test]
fn check_lists_all_problems_others_the_first_three() {
    let sandbox = Sandbox::without_config();
    sandbox.write_config(
        "[ollama_server]\nport = 0\nhost = 5\n[mlx_run]\nx = 1\nseed = ''\n[prompts.a]\nmodel = ''\n",
    );
    insta::assert_snapshot!(config(&sandbox, ["check"]), @r#"
    exit 2
    [stderr]
    error: [ROOT]/config/config.toml has 5 problems
      caused by: [ROOT]/config/config.toml:2:8: `ollama_server.port`: expected a whole number from 1 to 65535, found the number 0
      caused by: [ROOT]/config/config.toml:3:8: `ollama_server.host`: expected a host name or an IP address, without scheme, port or path, found the number 5
      caused by: [ROOT]/config/config.toml:5:1: unknown key `mlx_run.x`; valid here: `model`, `system_prompt`, `temperature`, `stream`, `max_tokens`, `top_p`, `seed`, `stop`, `timeout`, `start_on_demand`, `reasoning`, `extra_body`
      caused by: [ROOT]/config/config.toml:6:8: `mlx_run.seed`: expected a whole number from 0 to 9223372036854775807, found the string ""
      caused by: [ROOT]/config/config.toml:8:9: `prompts.a.model`: expected a string that is not empty, found the string ""
    hint: edit the file: fusion config edit
    "#);
    insta::assert_snapshot!(config(&sandbox, ["get", "mlx_run.seed"]), @"
    exit 2
    [stderr]
    error: [ROOT]/config/config.toml has 5 problems
      caused by: [ROOT]/config/config.toml:2:8: `ollama_server.port`: expected a whole number from 1 to 65535, found the number 0
      caused by: [ROOT]/config/config.toml:3:8: `ollama_server.host`: expected a host name or an IP address, without scheme, port or path, found the number 5
      caused by: [ROOT]/config/config.toml:5:1: unknown key `mlx_run.x`; valid here: `model`, `system_prompt`, `temperature`, `stream`, `max_tokens`, `top_p`, `seed`, `stop`, `timeout`, `start_on_demand`, `reasoning`, `extra_body`
    hint: list all problems: fusion config check; edit the file: fusion config edit
    ");
}

#[test]
fn a_broken_file_does_not_block_its_repair() {
    let broken = "[ollama_server]\nport = \u{1}\nnot toml \u{e9}";
    let sandbox = Sandbox::new();
    sandbox.fusion(["ollama", "up"]).run().assert_code(0);
    sandbox.write_config(broken);
    config(&sandbox, ["show"]).assert_stdout(broken);
    sandbox.fusion(["ollama", "down"]).run_in_process().assert_code(0);
    sandbox.assert_nothing_runs();
    let commands = [&["path"][..], &["edit", "--link"], &["reset", "--yes"]].map(|arguments| {
        assert_eq!(text(&sandbox), broken);
        (arguments.join(" "), config(&sandbox, arguments.iter().copied()))
    });
    insta::assert_snapshot!(table(commands), @"
    # path
    exit 0
    [stdout]
    [ROOT]/config/config.toml
    # edit --link
    exit 0
    [stdout]
    [ROOT]/project/fusion.toml -> [ROOT]/config/config.toml
    # reset --yes
    exit 0
    [stdout]
    [ROOT]/config/config.toml is reset; the old file is [ROOT]/config/config.toml.bak
    ");
    let backup = sandbox.config_dir().join("config.toml.bak");
    assert_eq!(fs::read_to_string(backup).ok().as_deref(), Some(broken));
}

#[test]
fn bytes_that_are_not_utf_8() {
    let sandbox = Sandbox::without_config();
    let bytes = b"# caf\xc3\xa9\nx = '\xff'\n";
    fs::write(config_file(&sandbox), bytes).expect("writable");
    let commands = [&["check"][..], &["set", "mlx_server.port", "1"]];
    let refused = commands.map(|arguments| config(&sandbox, arguments.iter().copied()));
    insta::assert_snapshot!(same_output(refused), @"
    exit 2
    [stderr]
    error: [ROOT]/config/config.toml:2:6: this is not UTF-8 text
    hint: edit the file: fusion config edit
    ");
    assert_eq!(config(&sandbox, ["show"]).assert_code(0).stdout, bytes);
}

#[test]
fn every_mistake_of_syntax_is_reported() {
    let sandbox = Sandbox::without_config();
    sandbox.write_config(
        "[ollama_server]\nport = 0\nport = 1\nhost = local host\nargs = 5\n[ollama_server]\n\
         [mlx_run]\nseed = 99999999999999999999\nstop = \"a\\q\"\nmodel = \n[zzz\nport = x\nnone = 1\n[prompts.x]\ny = 1\n",
    );
    insta::assert_snapshot!(config(&sandbox, ["check"]), @r#"
    exit 2
    [stderr]
    error: [ROOT]/config/config.toml has 10 problems
      caused by: [ROOT]/config/config.toml:2:8: `ollama_server.port`: expected a whole number from 1 to 65535, found the number 0
      caused by: [ROOT]/config/config.toml:3:1: `port` is set twice in this table
      caused by: [ROOT]/config/config.toml:4:8: `host`: text must be in quotes: host = "..."
      caused by: [ROOT]/config/config.toml:5:8: `ollama_server.args`: expected an array of strings, found the number 5
      caused by: [ROOT]/config/config.toml:6:2: the table `[ollama_server]` is in the file twice
      caused by: [ROOT]/config/config.toml:8:8: `mlx_run.seed`: expected a whole number from 0 to 9223372036854775807, found the number 99999999999999999999
      caused by: [ROOT]/config/config.toml:9:11: missing escaped value, expected `b`, `e`, `f`, `n`, `r`, `\`, `"`, `x`, `u`, `U`
      caused by: [ROOT]/config/config.toml:10:9: `model` has no value
      caused by: [ROOT]/config/config.toml:11:5: unclosed table, expected `]`
      caused by: [ROOT]/config/config.toml:15:1: unknown key `prompts.x.y`; valid here: `system`, `model`, `temperature`, `template`
    hint: edit the file: fusion config edit
    "#);
}

#[test]
fn errors_do_not_quote_secrets() {
    let sandbox = Sandbox::without_config();
    sandbox.write_config("[gateway]\ntoken = secret\n[ollama_server]\nenv.KEY = 0123\nenv.OTHER = secret\n");
    insta::assert_snapshot!(config(&sandbox, ["check"]), @r#"
    exit 2
    [stderr]
    error: [ROOT]/config/config.toml has 3 problems
      caused by: [ROOT]/config/config.toml:2:9: `token`: text must be in quotes: token = "..."
      caused by: [ROOT]/config/config.toml:4:11: `env.KEY`: a number does not begin with 0
      caused by: [ROOT]/config/config.toml:5:13: `env.OTHER`: text must be in quotes: env.OTHER = "..."
    hint: edit the file: fusion config edit
    "#);
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let sandbox = Sandbox::without_config();
    sandbox.write_config("\"\\u001b]0;title\\u0007\" = 1\n");
    let stderr = config(&sandbox, ["check"]).assert_code(2).stderr();
    assert!(!stderr.contains(['\u{1b}', '\u{7}']), "{stderr:?}");
}
