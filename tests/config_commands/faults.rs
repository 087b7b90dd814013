//! Every fault of the file, told with its place.

use super::*;

/// Texts, and where and what is wrong with them.
const FAULTS: &[(&str, &str, &str)] = &[
    // No TOML.
    ("port = \n", "1:8", "string values must be quoted, expected literal string"),
    ("[ollama_server]\nport = 1\nport = 2\n", "3:1", "duplicate key"),
    ("[ollama_server]\n[ollama_server]\n", "2:2", "duplicate key"),
    ("[ollama_server\n", "1:15", "unclosed table, expected `]`"),
    ("[ollama_run]\nmodel = 'é\n", "2:11", "invalid literal string, expected `'`"),
    ("\u{feff}port 1\n", "1:6", "key with no value, expected `=`"),
    // Typo.
    (
        "[ollama_server]\nprot = 1\n",
        "2:1",
        "unknown key `ollama_server.prot`; did you mean `ollama_server.port`?",
    ),
    ("[olama_server]\n", "1:2", "unknown table `olama_server`; did you mean `ollama_server`?"),
    ("[Ollama_Server]\n", "1:2", "unknown table `Ollama_Server`; did you mean `ollama_server`?"),
    (
        "[mlx_run]\nmaxtokens = 1\n",
        "2:1",
        "unknown key `mlx_run.maxtokens`; did you mean `mlx_run.max_tokens`?",
    ),
    (
        "[prompts.review]\nsytem = ''\n",
        "2:1",
        "unknown key `prompts.review.sytem`; did you mean `prompts.review.system`?",
    ),
    (
        "[aliases]\nsmall = { olama = 'x' }\n",
        "2:11",
        "unknown runtime `aliases.small.olama`; did you mean `aliases.small.ollama`?",
    ),
    // A key of version 2.0.
    ("[mlx_run]\nauto_up = false\n", "2:1", "`mlx_run.auto_up` is now called `mlx_run.start_on_demand`"),
    ("[mlx_run]\nextra = {}\n", "2:1", "`mlx_run.extra` is now called `mlx_run.extra_body`"),
    (
        "[ollama_server]\nlog_max_mb = 50\n",
        "2:1",
        "`ollama_server.log_max_mb` is now called `ollama_server.log_max_size`",
    ),
    // A key in the wrong table.
    (
        "[ollama_server]\ntemperature = 1\n",
        "2:1",
        "unknown key `ollama_server.temperature`; did you mean `ollama_run.temperature`?",
    ),
    (
        "[ollama_server]\nmodel = 'x'\n",
        "2:1",
        "unknown key `ollama_server.model`; did you mean `ollama_run.model`?",
    ),
    ("port = 1\n", "1:1", "unknown key `port`; did you mean `ollama_server.port` or `mlx_server.port`?"),
    // Nothing near.
    (
        "[zzz]\n",
        "1:2",
        "unknown table `zzz`; valid here: `ollama_server`, `ollama_run`, `mlx_server`, `mlx_run`, `prompts`, `aliases`",
    ),
    (
        "[prompts.x]\nzzz = 1\n",
        "2:1",
        "unknown key `prompts.x.zzz`; valid here: `system`, `model`, `temperature`, `template`",
    ),
    // Wrong type.
    ("ollama_server = 5\n", "1:17", "`ollama_server`: expected a table, found a whole number"),
    ("[[ollama_server]]\n", "1:1", "`ollama_server`: expected a table, found an array of tables"),
    ("prompts = 'x'\n", "1:11", "`prompts`: expected a table of prompts, found a string"),
    ("[prompts]\nx = 1\n", "2:5", "`prompts.x`: expected a table, found a whole number"),
    ("aliases = []\n", "1:11", "`aliases`: expected a table of model names, found an array"),
    (
        "[ollama_server]\nport = \"11434\"\n",
        "2:8",
        "`ollama_server.port`: expected a whole number from 1 to 65535, found the string \"11434\"",
    ),
    (
        "[ollama_server]\nport = 1.5\n",
        "2:8",
        "`ollama_server.port`: expected a whole number from 1 to 65535, found the number 1.5",
    ),
    (
        "[mlx_run]\nstream = 'yes'\n",
        "2:10",
        "`mlx_run.stream`: expected true or false, found the string \"yes\"",
    ),
    (
        "[mlx_run]\nmodel = 5\n",
        "2:9",
        "`mlx_run.model`: expected a string that is not empty, found the number 5",
    ),
    (
        "[mlx_run]\nmodel = ''\n",
        "2:9",
        "`mlx_run.model`: expected a string that is not empty, found the string \"\"",
    ),
    (
        "[mlx_run]\nsystem_prompt = 2026-01-01\n",
        "2:17",
        "`mlx_run.system_prompt`: expected a string, found a date",
    ),
    (
        "[mlx_run]\nstop = [1]\n",
        "2:8",
        "`mlx_run.stop`: expected a string or an array of strings, found an array",
    ),
    (
        "[mlx_run]\nreasoning = 'yes'\n",
        "2:13",
        "`mlx_run.reasoning`: expected \"show\" or \"hide\", found the string \"yes\"",
    ),
    (
        "[mlx_server]\ncommand = 'mlx serve'\n",
        "2:11",
        "`mlx_server.command`: expected an array of strings that begins with a program, found the string \"mlx serve\"",
    ),
    (
        "[mlx_server]\ncommand = []\n",
        "2:11",
        "`mlx_server.command`: expected an array of strings that begins with a program, found an array",
    ),
    (
        "[mlx_server]\ncommand = ['']\n",
        "2:11",
        "`mlx_server.command`: expected an array of strings that begins with a program, found an array",
    ),
    (
        "[mlx_server]\nargs = [\"a\\u0000\"]\n",
        "2:8",
        "`mlx_server.args`: expected an array of strings, found an array",
    ),
    (
        "[mlx_server]\nauto_start = 1\n",
        "2:14",
        "`mlx_server.auto_start`: expected true or false, found the number 1",
    ),
    // A value of the environment may be a secret: it is not shown.
    (
        "[mlx_server]\nenv = { A = 5 }\n",
        "2:13",
        "`mlx_server.env.A`: expected a string, found a whole number",
    ),
    ("[mlx_server.env]\nB = true\n", "2:5", "`mlx_server.env.B`: expected a string, found true or false"),
    (
        "[mlx_server]\nenv.'A=B' = 'x'\n",
        "2:13",
        "`mlx_server.env.\"A=B\"`: expected a name of an environment variable, without `=`, before a string, found a string",
    ),
    (
        "[mlx_run]\nextra_body = { day = 2026-01-01 }\n",
        "2:22",
        "`mlx_run.extra_body.day`: expected a value that JSON has: no date, no infinity, found a date",
    ),
    (
        "[mlx_run]\nextra_body.x = inf\n",
        "2:16",
        "`mlx_run.extra_body.x`: expected a value that JSON has: no date, no infinity, found a number",
    ),
    // Out of range.
    (
        "[ollama_server]\nport = 0\n",
        "2:8",
        "`ollama_server.port`: expected a whole number from 1 to 65535, found the number 0",
    ),
    (
        "[ollama_server]\nport = 65536\n",
        "2:8",
        "`ollama_server.port`: expected a whole number from 1 to 65535, found the number 65536",
    ),
    (
        "[ollama_server]\nport = -1\n",
        "2:8",
        "`ollama_server.port`: expected a whole number from 1 to 65535, found the number -1",
    ),
    ("[ollama_server]\nport = 99999999999999999999\n", "2:8", "integer number overflowed"),
    (
        "[mlx_server]\nstop_timeout = -1\n",
        "2:16",
        "`mlx_server.stop_timeout`: expected a number of seconds from 0.001 to 31536000, found the number -1",
    ),
    (
        "[mlx_server]\nstartup_timeout = 0\n",
        "2:19",
        "`mlx_server.startup_timeout`: expected a number of seconds from 0.001 to 31536000, found the number 0",
    ),
    (
        "[mlx_run]\ntimeout = inf\n",
        "2:11",
        "`mlx_run.timeout`: expected a number of seconds from 0.001 to 31536000, found the number inf",
    ),
    (
        "[mlx_run]\ntemperature = nan\n",
        "2:15",
        "`mlx_run.temperature`: expected a number from 0 to 2, found the number NaN",
    ),
    (
        "[mlx_run]\ntemperature = 2.1\n",
        "2:15",
        "`mlx_run.temperature`: expected a number from 0 to 2, found the number 2.1",
    ),
    (
        "[mlx_run]\ntop_p = -0.1\n",
        "2:9",
        "`mlx_run.top_p`: expected a number from 0 to 1, found the number -0.1",
    ),
    (
        "[mlx_run]\nseed = -1\n",
        "2:8",
        "`mlx_run.seed`: expected a whole number from 0 to 9223372036854775807, found the number -1",
    ),
    (
        "[mlx_run]\nmax_tokens = 0\n",
        "2:14",
        "`mlx_run.max_tokens`: expected a whole number from 1 to 4294967295, found the number 0",
    ),
    (
        "[mlx_server]\nlog_max_size = \"50M\"\n",
        "2:16",
        "`mlx_server.log_max_size`: expected a size from 1KB to 1000TB, such as \"50MB\" or \"64MiB\", found the string \"50M\"",
    ),
    (
        "[mlx_server]\nlog_max_size = 50\n",
        "2:16",
        "`mlx_server.log_max_size`: expected a size from 1KB to 1000TB, such as \"50MB\" or \"64MiB\", found the number 50",
    ),
    // A field of the request that is decided elsewhere.
    (
        "[mlx_run]\nextra_body = { stream = true }\n",
        "2:25",
        "`mlx_run.extra_body.stream` cannot be set: fusion sets `stream`, `model`, `messages` itself",
    ),
    // A host with more than a host in it.
    (
        "[mlx_server]\nhost = 'http://localhost'\n",
        "2:8",
        "`mlx_server.host`: expected a host name or an IP address, without scheme, port or path, found the string \"http://localhost\"",
    ),
    (
        "[mlx_server]\nhost = 'localhost/v1'\n",
        "2:8",
        "`mlx_server.host`: expected a host name or an IP address, without scheme, port or path, found the string \"localhost/v1\"",
    ),
    (
        "[mlx_server]\nhost = '127.0.0.1:80'\n",
        "2:8",
        "`mlx_server.host`: expected a host name or an IP address, without scheme, port or path, found the string \"127.0.0.1:80\"",
    ),
    (
        "[mlx_server]\nhost = ''\n",
        "2:8",
        "`mlx_server.host`: expected a host name or an IP address, without scheme, port or path, found the string \"\"",
    ),
    // Duplicate address.
    (
        "[ollama_server]\nport = 8080\n",
        "2:8",
        "`ollama_server.port`: 127.0.0.1:8080 is the address of `[mlx_server]` too",
    ),
    (
        "[ollama_server]\nport = 5\n[mlx_server]\nhost = '0.0.0.0'\nport = 5\n",
        "5:8",
        "`mlx_server.port`: 0.0.0.0:5 is the address of `[ollama_server]` too",
    ),
    (
        "[mlx_server]\nport = 5\nhost = 'LOCALHOST'\n[ollama_server]\nport = 5\n",
        "5:8",
        "`ollama_server.port`: 127.0.0.1:5 is the address of `[mlx_server]` too",
    ),
    (
        "[ollama_server]\nhost = '::'\nport = 8080\n",
        "3:8",
        "`ollama_server.port`: [::]:8080 is the address of `[mlx_server]` too",
    ),
];

#[test]
fn every_one_is_told_with_line_column_key_and_what_is_expected() {
    let sandbox = Sandbox::without_config();
    for (text, place, what) in FAULTS {
        sandbox.write_config(text);
        let stderr = format!("error: [ROOT]/config/config.toml:{place}: {what}\n{EDIT_HINT}");
        config(&sandbox, ["check"]).assert(2, "", &stderr);
        assert_eq!(self::text(&sandbox), *text);
    }
}

#[test]
fn no_command_that_needs_the_configuration_goes_on_with_a_broken_one() {
    let sandbox = Sandbox::without_config();
    sandbox.write_config("[ollama_server]\nport = 0\n");
    let stderr = "error: [ROOT]/config/config.toml:2:8: `ollama_server.port`: expected a whole number from 1 to 65535, \
                      found the number 0\nhint: `fusion config edit` opens the file\n";
    for arguments in [
        &["ollama", "up"][..],
        &["mlx", "run", "x"],
        &["config", "get", "mlx_server.port"],
        &["config", "show", "--effective"],
        &["config", "show", "--json"],
        &["config", "set", "mlx_server.port", "5"],
        &["config", "unset", "mlx_server.port"],
    ] {
        sandbox.fusion(arguments.iter().copied()).run().assert(2, "", stderr);
    }
}

#[test]
fn all_of_a_file_are_listed_by_check_and_the_first_three_elsewhere() {
    let sandbox = Sandbox::without_config();
    sandbox.write_config(
        "[ollama_server]\nport = 0\nhost = 5\n[mlx_run]\nx = 1\nseed = ''\n[prompts.a]\nmodel = ''\n",
    );
    let first = "error: [ROOT]/config/config.toml has 5 problems\n  \
            caused by: [ROOT]/config/config.toml:2:8: `ollama_server.port`: expected a whole number from 1 to 65535, found the number 0\n  \
            caused by: [ROOT]/config/config.toml:3:8: `ollama_server.host`: expected a host name or an IP address, without scheme, port or path, found the number 5\n  \
            caused by: [ROOT]/config/config.toml:5:1: unknown key `mlx_run.x`; valid here: `model`, `system_prompt`, `temperature`, `stream`, `max_tokens`, `top_p`, `seed`, `stop`, `timeout`, `start_on_demand`, `reasoning`, `extra_body`\n";
    let rest = "  caused by: [ROOT]/config/config.toml:6:8: `mlx_run.seed`: expected a whole number from 0 to 9223372036854775807, found the string \"\"\n  \
            caused by: [ROOT]/config/config.toml:8:9: `prompts.a.model`: expected a string that is not empty, found the string \"\"\n";
    config(&sandbox, ["check"]).assert(2, "", &format!("{first}{rest}{EDIT_HINT}"));
    let hint = "hint: `fusion config check` lists them all, `fusion config edit` opens the file\n";
    config(&sandbox, ["get", "mlx_run.seed"]).assert(2, "", &format!("{first}{hint}"));
}

#[test]
fn a_broken_file_blocks_neither_path_nor_show_nor_edit_nor_reset_nor_down() {
    let broken = "[ollama_server]\nport = \u{1}\nnot toml \u{e9}";
    let sandbox = Sandbox::without_config();
    sandbox.write_config(broken);
    config(&sandbox, ["path"]).assert(0, "[ROOT]/config/config.toml\n", "");
    config(&sandbox, ["show"]).assert(0, broken, "");
    config(&sandbox, ["edit", "--link"]).assert(
        0,
        "[ROOT]/project/fusion.toml -> [ROOT]/config/config.toml\n",
        "",
    );
    sandbox.fusion(["ollama", "down"]).run().assert_code(0);
    assert_eq!(text(&sandbox), broken);
    config(&sandbox, ["reset", "--yes"]).assert(
        0,
        "[ROOT]/config/config.toml is fresh; the old one is [ROOT]/config/config.toml.1.bak\n",
        "",
    );
    assert_eq!(
        fs::read_to_string(sandbox.config_dir().join("config.toml.1.bak")).ok().as_deref(),
        Some(broken)
    );
}

#[test]
fn bytes_that_are_no_utf_8() {
    let sandbox = Sandbox::without_config();
    let bytes = b"# caf\xc3\xa9\nx = '\xff'\n";
    fs::write(config_file(&sandbox), bytes).expect("writable");
    let stderr = format!("error: [ROOT]/config/config.toml:2:6: this is not UTF-8 text\n{EDIT_HINT}");
    config(&sandbox, ["check"]).assert(2, "", &stderr);
    config(&sandbox, ["set", "mlx_server.port", "1"]).assert(2, "", &stderr);
    assert_eq!(config(&sandbox, ["show"]).assert_code(0).stdout, bytes);
}

#[test]
fn ten_megabytes() {
    let sandbox = Sandbox::without_config();
    let large = "# 123456789012345678901234567890\n".repeat(10_000_000 / 33);
    sandbox.write_config(&large);
    let stderr = format!(
        "error: [ROOT]/config/config.toml has {} bytes; a configuration has at most 1048576\n\
             hint: move it away; fusion makes a new one on its next use\n",
        large.len()
    );
    config(&sandbox, ["check"]).assert(2, "", &stderr);
    assert_eq!(config(&sandbox, ["show"]).assert_code(0).stdout(), large);
    config(&sandbox, ["reset", "--yes"]).assert_code(0);
    assert_eq!(fs::read_to_string(sandbox.config_dir().join("config.toml.1.bak")).ok(), Some(large));
}

#[test]
fn a_directory_or_a_pipe_in_its_place() {
    let sandbox = Sandbox::without_config();
    let stderr = "error: [ROOT]/config/config.toml is not a file\n\
                      hint: move it away; fusion makes a new one on its next use\n";
    fs::create_dir(config_file(&sandbox)).expect("writable");
    for arguments in [&["check"][..], &["show"], &["set", "mlx_server.port", "1"], &["reset", "--yes"]] {
        config(&sandbox, arguments.iter().copied()).assert(2, "", stderr);
    }
    fs::remove_dir(config_file(&sandbox)).expect("it is empty");
    nix::unistd::mkfifo(&config_file(&sandbox), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    config(&sandbox, ["check"]).assert(2, "", stderr);
}

#[test]
fn a_link_to_nothing() {
    let sandbox = Sandbox::without_config();
    symlink(sandbox.root().join("dotfiles/fusion"), config_file(&sandbox)).expect("a link");
    let stderr = "error: [ROOT]/config/config.toml is a link to [ROOT]/dotfiles/fusion, which does not exist\n\
                      hint: make the file that the link leads to, or remove the link\n";
    config(&sandbox, ["check"]).assert(1, "", stderr);
    config(&sandbox, ["set", "mlx_server.port", "1"]).assert(1, "", stderr);
    assert_eq!(names(&sandbox), ["config.toml"]);
}

#[test]
fn control_characters_in_names_do_not_reach_the_terminal() {
    let sandbox = Sandbox::without_config();
    sandbox.write_config("\"\\u001b]0;title\\u0007\" = 1\n");
    let stderr = config(&sandbox, ["check"]).assert_code(2).stderr();
    assert!(!stderr.contains(['\u{1b}', '\u{7}']), "{stderr:?}");
}
