//! `fusion config`, and every fault of a configuration file, through the real binary.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::{Finished, Sandbox};

/// The sections and values of the file that is made on first use: the contract.
const FRESH: &str = r#"[ollama_server]
host = "127.0.0.1"
port = 11434
[ollama_run]
model = "llama3.2:3b"
system_prompt = "You are a helpful assistant."
temperature = 0.8
stream = false
[mlx_server]
host = "127.0.0.1"
port = 8080
model = "mlx-community/Llama-3.2-3B-Instruct-4bit"
[mlx_run]
model = "mlx-community/Llama-3.2-3B-Instruct-4bit"
system_prompt = "You are a helpful assistant."
temperature = 0.7
stream = false
"#;

const EDIT_HINT: &str = "hint: `fusion config edit` opens the file\n";

fn config_file(sandbox: &Sandbox) -> PathBuf {
    sandbox.config_dir().join("config.toml")
}

fn text(sandbox: &Sandbox) -> String {
    fs::read_to_string(config_file(sandbox)).expect("the configuration is there and is text")
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("it is there").mode() & 0o7777
}

/// The files in the configuration directory.
fn names(sandbox: &Sandbox) -> Vec<String> {
    let entries = fs::read_dir(sandbox.config_dir()).expect("the directory is there");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[track_caller]
fn config<'a>(sandbox: &Sandbox, arguments: impl IntoIterator<Item = &'a str>) -> Finished {
    sandbox.fusion(["config"].into_iter().chain(arguments)).run()
}

/// `fusion` under a shell's umask.
fn under_umask(sandbox: &Sandbox, umask: &str, arguments: &str) -> Finished {
    let script = format!("umask {umask}; exec \"$0\" {arguments}");
    sandbox.command("/bin/sh").arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_fusion")).run()
}

mod first_use {
    use super::*;

    #[test]
    fn makes_exactly_the_sections_and_values_of_the_contract() {
        let sandbox = Sandbox::without_config();
        let shown = config(&sandbox, ["show"]).assert_code(0);
        assert_eq!(shown.stdout(), text(&sandbox));
        assert_eq!(shown.stderr(), "");
        let values: String = shown
            .stdout()
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
            .flat_map(|line| [line, "\n"])
            .collect::<Vec<_>>()
            .concat();
        assert_eq!(values, FRESH);
    }

    #[test]
    fn gives_each_key_a_comment_of_one_line() {
        let sandbox = Sandbox::without_config();
        let shown = config(&sandbox, ["show"]).stdout();
        let lines: Vec<&str> = shown.lines().collect();
        let mut keys = 0;
        for pair in lines.windows(2) {
            let key = pair[1].trim_start_matches('#');
            if !key.starts_with(' ') && key.contains(" = ") && !key.starts_with("small") {
                keys += 1;
                assert!(pair[0].starts_with("# ") && pair[0].ends_with('.'), "{pair:?}");
                assert!(pair[0].len() <= 100, "{pair:?}");
            }
        }
        // Every key that can be set is there, those of two servers and of one prompt.
        assert_eq!(keys, 10 + 12 + 11 + 12 + 4);
    }

    #[test]
    fn umask_000_does_not_open_what_is_private() {
        for umask in ["000", "022", "077", "777"] {
            let sandbox = Sandbox::without_config();
            fs::remove_dir(sandbox.config_dir()).expect("it is empty");
            under_umask(&sandbox, umask, "config get ollama_server.port").assert(0, "11434\n", "");
            assert_eq!(mode(&sandbox.config_dir()), 0o700, "umask {umask}");
            assert_eq!(mode(&config_file(&sandbox)), 0o600, "umask {umask}");
            under_umask(&sandbox, umask, "config set ollama_server.port 4").assert(0, "", "");
            assert_eq!(mode(&config_file(&sandbox)), 0o600, "umask {umask}");
            for name in names(&sandbox) {
                assert_eq!(mode(&sandbox.config_dir().join(&name)), 0o600, "umask {umask}: {name}");
            }
        }
    }

    #[test]
    fn two_at_once_make_one_whole_file() {
        for _ in 0..10 {
            let sandbox = Sandbox::without_config();
            fs::remove_dir(sandbox.config_dir()).expect("it is empty");
            let running: Vec<_> = (0..6).map(|_| sandbox.fusion(["config", "show"]).start()).collect();
            let shown: Vec<String> =
                running.into_iter().map(|running| running.finish().assert_code(0).stdout()).collect();
            assert!(shown.iter().all(|one| *one == shown[0]));
            assert_eq!(shown[0], text(&sandbox));
            assert_eq!(names(&sandbox), ["config.lock", "config.toml"]);
        }
    }

    #[test]
    fn leaves_an_existing_file_as_it_is() {
        let sandbox = Sandbox::without_config();
        sandbox.write_config("# mine\n");
        config(&sandbox, ["get", "mlx_server.port"]).assert(0, "8080\n", "");
        config(&sandbox, ["check"]).assert(0, "[ROOT]/config/config.toml is valid\n", "");
        assert_eq!(text(&sandbox), "# mine\n");
        assert_eq!(names(&sandbox), ["config.toml"]);
    }

    #[test]
    fn is_not_needed_to_say_where_the_file_is() {
        let sandbox = Sandbox::without_config();
        config(&sandbox, ["path"]).assert(0, "[ROOT]/config/config.toml\n", "");
        assert_eq!(names(&sandbox), Vec::<String>::new());
    }
}

mod faults {
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
            "[mlx_run]\nextra = { day = 2026-01-01 }\n",
            "2:17",
            "`mlx_run.extra.day`: expected a value that JSON has: no date, no infinity, found a date",
        ),
        (
            "[mlx_run]\nextra.x = inf\n",
            "2:11",
            "`mlx_run.extra.x`: expected a value that JSON has: no date, no infinity, found a number",
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
            caused by: [ROOT]/config/config.toml:5:1: unknown key `mlx_run.x`; valid here: `model`, `system_prompt`, `temperature`, `stream`, `max_tokens`, `top_p`, `seed`, `stop`, `timeout`, `auto_up`, `reasoning`, `extra`\n";
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
}

mod get {
    use super::*;

    #[test]
    fn prints_what_holds_a_string_without_quotes() {
        let sandbox = Sandbox::without_config();
        sandbox.write_config(
            "[ollama_server]\nport = 5\nenv = { A = 'x y' }\nstartup_timeout = 1.5\nargs = ['a', \"b\"]\n\
             [ollama_run]\nstop = 'END'\nextra.a.b = [1, true]\n\
             [prompts.'code review']\ntemplate = '''\nReview:\n{input}'''\n\
             [aliases]\nsmall = 'm'\n'llama3.2:1b' = { mlx = 'x' }\n",
        );
        for (key, value) in [
            ("ollama_server.port", "5"),
            ("ollama_server.host", "127.0.0.1"),
            ("ollama_server.startup_timeout", "1.5"),
            ("ollama_server.stop_timeout", "15"),
            ("ollama_server.args", r#"["a", "b"]"#),
            ("ollama_server.env", r#"{ A = "x y" }"#),
            ("ollama_server.env.A", "x y"),
            ("ollama_run.temperature", "0.8"),
            ("ollama_run.stop", r#"["END"]"#),
            ("ollama_run.extra.a", "{ b = [1, true] }"),
            ("ollama_run.extra.a.b", "[1, true]"),
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
            "mlx_run.extra.a.b",
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
            ("olama_server.port", "unknown table `olama_server.port`; did you mean `ollama_server`?"),
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
}

mod set {
    use super::*;

    #[test]
    fn takes_a_string_as_it_is_and_anything_else_as_in_the_file() {
        let sandbox = Sandbox::without_config();
        for (key, value, line) in [
            ("ollama_server.port", "5", "port = 5"),
            ("ollama_server.host", "gpu.local", "host = \"gpu.local\""),
            ("ollama_server.stop_timeout", " 0.5 ", "stop_timeout = 0.5"),
            ("ollama_server.auto_start", "true", "auto_start = true"),
            ("ollama_server.command", r#"["a b", 'c']"#, r#"command = ["a b", 'c']"#),
            ("ollama_server.env", "{ A = 'b' }", "env = { A = 'b' }"),
            ("ollama_server.env.B", "5", "env = { A = 'b', B = \"5\" }"),
            ("ollama_run.model", "5", "model = \"5\""),
            ("ollama_run.system_prompt", "", "system_prompt = \"\""),
            ("ollama_run.stop", "END", "stop = \"END\""),
            ("ollama_run.seed", "7", "seed = 7"),
            ("ollama_run.reasoning", "show", "reasoning = \"show\""),
            ("ollama_run.extra.a", "5", "extra = { a = 5 }"),
            ("ollama_run.extra.b", "x y", "extra = { a = 5, b = \"x y\" }"),
            ("mlx_run.stop", "[\"a\"]", "stop = [\"a\"]"),
            (
                "mlx_run.system_prompt",
                "--\"quoted\" \\ 'both'",
                r#"system_prompt = '''--"quoted" \ 'both''''"#,
            ),
            ("prompts.review.model", "m", "model = \"m\""),
            ("prompts.mine.temperature", "1", "temperature = 1"),
            ("aliases.small", "m", "small = \"m\""),
            ("aliases.small", "{ mlx = 'x' }", "small = { mlx = 'x' }"),
            ("aliases.'a.b:c'.ollama", "y", "\"a.b:c\" = { ollama = \"y\" }"),
        ] {
            let before = if config_file(&sandbox).exists() { text(&sandbox) } else { String::new() };
            config(&sandbox, ["set", key, value]).assert(0, "", "");
            let after = text(&sandbox);
            assert!(after.lines().any(|found| found == line), "{key}: no line {line} in\n{after}");
            assert_ne!(before, after, "{key}");
        }
        config(&sandbox, ["check"]).assert_code(0);
        config(&sandbox, ["get", "mlx_run.system_prompt"]).assert(0, "--\"quoted\" \\ 'both'\n", "");
    }

    #[test]
    fn changes_one_line_of_the_fresh_file() {
        let sandbox = Sandbox::without_config();
        let fresh = config(&sandbox, ["show"]).stdout();
        config(&sandbox, ["set", "ollama_run.seed", "7"]).assert(0, "", "");
        assert_eq!(text(&sandbox), fresh.replacen("\n#seed = 42\n", "\nseed = 7\n", 1));
        config(&sandbox, ["unset", "ollama_run.seed"]).assert(0, "", "");
        assert_eq!(text(&sandbox), fresh);
        config(&sandbox, ["unset", "ollama_run.seed"]).assert(0, "", "`ollama_run.seed` was not set\n");
    }

    #[test]
    fn keeps_comments_order_and_spacing() {
        let sandbox = Sandbox::without_config();
        sandbox.write_config(
            "# top\n[mlx_run]   # run\r\n\tseed   =  1# one\n\n# why\nmodel = 'm'\n[ollama_server]#x",
        );
        config(&sandbox, ["set", "mlx_run.seed", "2"]).assert(0, "", "");
        config(&sandbox, ["set", "ollama_server.port", "3"]).assert(0, "", "");
        config(&sandbox, ["unset", "mlx_run.model"]).assert(0, "", "");
        assert_eq!(
            text(&sandbox),
            "# top\n[mlx_run]   # run\r\n\tseed   =  2# one\n\n# why\n[ollama_server]#x\r\nport = 3\r\n"
        );
    }

    #[test]
    fn refuses_a_value_that_is_not_valid_and_leaves_the_file() {
        let sandbox = Sandbox::without_config();
        let fresh = config(&sandbox, ["show"]).stdout();
        for (key, value, what) in [
            (
                "mlx_server.port",
                "0",
                "`mlx_server.port`: expected a whole number from 1 to 65535, found the number 0",
            ),
            (
                "mlx_server.port",
                "x",
                "`mlx_server.port`: expected a whole number from 1 to 65535, found \"x\"",
            ),
            (
                "mlx_server.port",
                "1 # c",
                "`mlx_server.port`: expected a whole number from 1 to 65535, found \"1 # c\"",
            ),
            (
                "mlx_server.port",
                "1\nhost = 'x'",
                "`mlx_server.port`: expected a whole number from 1 to 65535, found \"1\\nhost = 'x'\"",
            ),
            (
                "mlx_server.port",
                "11434",
                "`mlx_server.port`: 127.0.0.1:11434 is the address of `[ollama_server]` too",
            ),
            (
                "ollama_server.port",
                "8080",
                "`mlx_server.port`: 127.0.0.1:8080 is the address of `[ollama_server]` too",
            ),
            (
                "mlx_server.host",
                "http://x",
                "`mlx_server.host`: expected a host name or an IP address, without scheme, port or path, found the string \"http://x\"",
            ),
            (
                "mlx_run.model",
                "",
                "`mlx_run.model`: expected a string that is not empty, found the string \"\"",
            ),
            (
                "mlx_run.temperature",
                "-1",
                "`mlx_run.temperature`: expected a number from 0 to 2, found the number -1",
            ),
            (
                "mlx_run.extra.a",
                "2026-01-01",
                "`mlx_run.extra.a`: expected a value that JSON has: no date, no infinity, found a date",
            ),
            ("mlx_server.env.A=B", "x", "\"mlx_server.env.A=B\" is not a key of the configuration"),
        ] {
            let finished = config(&sandbox, ["set", key, value]);
            let hint = if what.contains("is not a key") {
                "hint: `fusion config show --effective` shows every key\n"
            } else {
                ""
            };
            finished.assert(2, "", &format!("error: {what}\n{hint}"));
            assert_eq!(text(&sandbox), fresh);
        }
    }

    #[test]
    fn repairs_the_value_that_is_wrong() {
        let sandbox = Sandbox::without_config();
        sandbox.write_config("[ollama_server]\nport = 0 # typo\n");
        config(&sandbox, ["set", "ollama_server.port", "5"]).assert(0, "", "");
        assert_eq!(text(&sandbox), "[ollama_server]\nport = 5 # typo\n");
        sandbox.write_config("[ollama_server]\nprot = 5\n\n[olama_run]\nseed = 1\n");
        config(&sandbox, ["unset", "olama_run"]).assert_code(2);
        sandbox.write_config("[ollama_server]\nprot = 5\n");
        config(&sandbox, ["unset", "ollama_server.prot"]).assert(0, "", "");
        assert_eq!(text(&sandbox), "[ollama_server]\n");
    }

    #[test]
    fn refuses_a_broken_file_and_says_why() {
        let sandbox = Sandbox::without_config();
        sandbox.write_config("[ollama_server\n");
        let stderr =
            format!("error: [ROOT]/config/config.toml:1:15: unclosed table, expected `]`\n{EDIT_HINT}");
        config(&sandbox, ["set", "ollama_server.port", "5"]).assert(2, "", &stderr);
        config(&sandbox, ["unset", "ollama_server.port"]).assert(2, "", &stderr);
        assert_eq!(text(&sandbox), "[ollama_server\n");
    }

    #[test]
    fn writes_through_a_symlinked_file_and_keeps_its_mode() {
        let sandbox = Sandbox::without_config();
        let dotfiles = sandbox.root().join("dotfiles");
        fs::create_dir(&dotfiles).expect("writable");
        let real = dotfiles.join("fusion");
        fs::write(&real, "# mine\n").expect("writable");
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).expect("ours");
        symlink("../dotfiles/fusion", config_file(&sandbox)).expect("a link");
        config(&sandbox, ["set", "mlx_server.port", "5"]).assert(0, "", "");
        assert_eq!(fs::read_to_string(&real).expect("it is there"), "# mine\n\n[mlx_server]\nport = 5\n");
        assert_eq!(mode(&real), 0o640);
        assert_eq!(config_file(&sandbox).read_link().expect("still a link"), Path::new("../dotfiles/fusion"));
        assert_eq!(fs::read_dir(&dotfiles).expect("it is there").count(), 1);
        config(&sandbox, ["reset", "--yes"]).assert_code(0);
        assert_eq!(config_file(&sandbox).read_link().expect("still a link"), Path::new("../dotfiles/fusion"));
        assert_eq!(fs::read_to_string(&real).expect("it is there"), text(&sandbox));
    }

    #[test]
    fn kill_9_during_config_set_50_times_leaves_a_whole_file() {
        let sandbox = Sandbox::without_config();
        let fresh = config(&sandbox, ["show"]).stdout();
        let duration = {
            let start = Instant::now();
            config(&sandbox, ["set", "ollama_run.seed", "1"]).assert_code(0);
            start.elapsed()
        };
        let whole = |seed: u32| fresh.replacen("\n#seed = 42\n", &format!("\nseed = {seed}\n"), 1);
        let mut old = 1;
        let (mut kept, mut changed) = (0, 0);
        for round in 0..50 {
            let seed = 1000 + round;
            let running = sandbox.fusion(["config", "set", "ollama_run.seed", &seed.to_string()]).start();
            let moment = Instant::now() + duration * round / 45;
            while Instant::now() < moment {
                std::hint::spin_loop();
            }
            running.signal(Signal::SIGKILL);
            running.finish();
            let now = text(&sandbox);
            if now == whole(seed) {
                changed += 1;
                old = seed;
            } else {
                kept += 1;
                assert_eq!(now, whole(old), "round {round}");
            }
        }
        assert_eq!(kept + changed, 50);
        config(&sandbox, ["set", "ollama_run.seed", "2"]).assert(0, "", "");
        assert_eq!(text(&sandbox), whole(2));
        assert_eq!(names(&sandbox), ["config.lock", "config.toml"]);
    }

    #[test]
    fn many_at_once_lose_no_change() {
        let sandbox = Sandbox::without_config();
        let numbers: Vec<String> = (0..16).map(|number| number.to_string()).collect();
        let running: Vec<_> = numbers
            .iter()
            .map(|number| {
                let key = format!("aliases.a{number}");
                sandbox.fusion(["config", "set", key.as_str(), number]).start()
            })
            .collect();
        for running in running {
            running.finish().assert(0, "", "");
        }
        for number in &numbers {
            let key = format!("aliases.a{number}");
            config(&sandbox, ["get", &key]).assert(0, &format!("{number}\n"), "");
        }
    }

    #[test]
    fn waits_for_another_command_that_changes_the_file() {
        let sandbox = Sandbox::without_config();
        config(&sandbox, ["check"]).assert_code(0);
        let lock =
            fs::File::options().write(true).open(sandbox.config_dir().join("config.lock")).expect("there");
        lock.lock().expect("free");
        let mut running = sandbox.fusion(["config", "set", "mlx_server.port", "5"]).start();
        // Long enough for it to have ended if it did not wait.
        let moment = Instant::now() + Duration::from_millis(100);
        while Instant::now() < moment {
            assert!(!running.has_ended());
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(lock);
        running.finish().assert(0, "", "");
    }
}

mod show {
    use super::*;

    #[test]
    fn effective_has_every_key_and_can_be_read_back() {
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
    fn json_keeps_types_and_has_null_for_what_is_not_set() {
        let sandbox = Sandbox::without_config();
        sandbox.write_config(
            "[ollama_server]\nenv.A = 'x'\nstop_timeout = 1\n[ollama_run]\nstop = 'x'\nextra = { a = [1, 2.5, { b = true }] }\n\
             [prompts.review]\ntemplate = 'x'\n[aliases]\ns = { mlx = 'y' }\n",
        );
        let file = config(&sandbox, ["show", "--json"]).assert_code(0).json();
        assert_eq!(
            file,
            serde_json::json!({
                "ollama_server": { "env": { "A": "x" }, "stop_timeout": 1 },
                "ollama_run": { "stop": "x", "extra": { "a": [1, 2.5, { "b": true }] } },
                "prompts": { "review": { "template": "x" } },
                "aliases": { "s": { "mlx": "y" } },
            })
        );
        let effective = config(&sandbox, ["show", "--effective", "--json"]).assert_code(0).json();
        assert_eq!(
            effective["ollama_server"],
            serde_json::json!({
                "host": "127.0.0.1", "port": 11434, "command": null, "args": [], "env": { "A": "x" },
                "startup_timeout": 300, "stop_timeout": 1, "auto_start": false, "log_max_mb": 50, "log_keep": 3,
            })
        );
        assert_eq!(
            effective["ollama_run"],
            serde_json::json!({
                "model": "llama3.2:3b", "system_prompt": "You are a helpful assistant.", "temperature": 0.8,
                "stream": false, "max_tokens": null, "top_p": null, "seed": null, "stop": ["x"], "timeout": null,
                "auto_up": true, "reasoning": "hide", "extra": { "a": [1, 2.5, { "b": true }] },
            })
        );
        assert_eq!(
            effective["prompts"],
            serde_json::json!({ "review": { "system": null, "model": null, "temperature": null, "template": "x" } })
        );
        assert_eq!(effective["aliases"], serde_json::json!({ "s": { "mlx": "y" } }));
    }
}

mod reset {
    use super::*;

    #[test]
    fn keeps_every_old_file_and_says_where() {
        let sandbox = Sandbox::without_config();
        for number in 1..=3 {
            let old = format!("# {number}\n");
            sandbox.write_config(&old);
            config(&sandbox, ["reset", "--yes"]).assert(
                0,
                &format!("[ROOT]/config/config.toml is fresh; the old one is [ROOT]/config/config.toml.{number}.bak\n"),
                "",
            );
            let backup = sandbox.config_dir().join(format!("config.toml.{number}.bak"));
            assert_eq!(fs::read_to_string(&backup).expect("it is there"), old);
            assert_eq!(mode(&backup), 0o600);
        }
        config(&sandbox, ["reset", "--yes"]).assert(0, "[ROOT]/config/config.toml is fresh\n", "");
        let fresh = text(&sandbox);
        fs::remove_file(config_file(&sandbox)).expect("it is there");
        config(&sandbox, ["reset", "--yes"]).assert(0, "[ROOT]/config/config.toml is fresh\n", "");
        assert_eq!(text(&sandbox), fresh);
    }

    #[test]
    fn asks_and_without_a_terminal_does_nothing() {
        let sandbox = Sandbox::without_config();
        sandbox.write_config("# mine\n");
        let stderr = "error: not reset: there is no terminal to ask on\n\
                      hint: say yes in advance: fusion config reset --yes\n";
        config(&sandbox, ["reset"]).assert(2, "", stderr);
        assert_eq!(text(&sandbox), "# mine\n");
        assert_eq!(names(&sandbox), ["config.toml"]);
    }
}

mod edit_link {
    use super::*;

    const SAID: &str = "[ROOT]/project/fusion.toml -> [ROOT]/config/config.toml\n";

    #[test]
    fn is_made_in_the_current_directory_and_kept() {
        let sandbox = Sandbox::without_config();
        let link = sandbox.project().join("fusion.toml");
        for arguments in [&["edit"][..], &["edit"], &["edit", "--link"]] {
            config(&sandbox, arguments.iter().copied()).assert(0, SAID, "");
            assert_eq!(link.read_link().expect("a link"), config_file(&sandbox));
        }
        assert_eq!(fs::read_to_string(&link).expect("readable"), text(&sandbox));
        // A link of the same meaning, made by hand.
        fs::remove_file(&link).expect("it is there");
        symlink("../config/config.toml", &link).expect("a link");
        config(&sandbox, ["edit"]).assert(0, SAID, "");
        assert_eq!(link.read_link().expect("a link"), Path::new("../config/config.toml"));
    }

    #[test]
    fn is_made_in_the_project_root() {
        let sandbox = Sandbox::without_config();
        let root = sandbox.root().join("elsewhere");
        fs::create_dir(&root).expect("writable");
        for value in [root.as_path(), Path::new("../elsewhere")] {
            let edit = sandbox.fusion(["config", "edit"]).env("FUSION_PROJECT_ROOT", value);
            edit.run().assert_code(0);
            assert_eq!(root.join("fusion.toml").read_link().expect("a link"), config_file(&sandbox));
            fs::remove_file(root.join("fusion.toml")).expect("it is there");
        }
        let missing = sandbox.root().join("missing");
        sandbox.fusion(["config", "edit"]).env("FUSION_PROJECT_ROOT", &missing).run().assert(
            1,
            "",
            "error: cannot make the link [ROOT]/missing/fusion.toml\n  caused by: No such file or directory (os error 2)\n",
        );
    }

    #[test]
    fn never_replaces_what_is_not_its_own() {
        let sandbox = Sandbox::without_config();
        let link = sandbox.project().join("fusion.toml");
        let stderr = "error: [ROOT]/project/fusion.toml is there already, and is not a link to [ROOT]/config/config.toml\n\
                      hint: move it away, or set FUSION_PROJECT_ROOT to another directory\n";
        fs::write(&link, "theirs").expect("writable");
        config(&sandbox, ["edit"]).assert(1, "", stderr);
        assert_eq!(fs::read_to_string(&link).expect("readable"), "theirs");
        fs::remove_file(&link).expect("it is there");
        symlink("/nowhere", &link).expect("a link");
        config(&sandbox, ["edit"]).assert(1, "", stderr);
        assert_eq!(link.read_link().expect("a link"), Path::new("/nowhere"));
        fs::remove_file(&link).expect("it is there");
        fs::create_dir(&link).expect("writable");
        config(&sandbox, ["edit"]).assert(1, "", stderr);
    }
}

mod places {
    use super::*;

    /// Without `FUSION_CONFIG_DIR`, and with the other variables as given.
    fn fusion_with(
        sandbox: &Sandbox,
        arguments: &[&str],
        variables: &[(&str, &Path)],
    ) -> std::process::Command {
        let mut command = sandbox.fusion(arguments.iter().copied()).into_command();
        command.env_remove("FUSION_CONFIG_DIR").env_remove("HOME").envs(variables.iter().copied());
        command
    }

    #[track_caller]
    fn stdout(mut command: std::process::Command) -> String {
        let output = command.output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    #[test]
    fn the_file_is_below_the_home_directory() {
        let sandbox = Sandbox::without_config();
        let home = sandbox.home();
        let expected = if cfg!(target_os = "macos") {
            home.join("Library/Application Support/fusion/config.toml")
        } else {
            home.join(".config/fusion/config.toml")
        };
        let shown = stdout(fusion_with(&sandbox, &["config", "path"], &[("HOME", &home)]));
        assert_eq!(shown, format!("{}\n", expected.display()));
        stdout(fusion_with(&sandbox, &["config", "check"], &[("HOME", &home)]));
        for directory in expected.ancestors().skip(1).take_while(|directory| *directory != home) {
            assert_eq!(mode(directory), 0o700, "{}", directory.display());
        }
    }

    #[test]
    fn a_relative_configuration_directory_is_below_the_current_one() {
        let sandbox = Sandbox::without_config();
        sandbox.fusion(["config", "path"]).env("FUSION_CONFIG_DIR", "here").run().assert(
            0,
            "[ROOT]/project/here/config.toml\n",
            "",
        );
    }

    /// Where `HOME` is not set, the system's list of users says where the home directory is.
    #[test]
    fn home_unset() {
        let sandbox = Sandbox::without_config();
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).expect("readable").expect("a user");
        let shown = stdout(fusion_with(&sandbox, &["config", "path"], &[]));
        assert!(Path::new(shown.trim_end()).starts_with(&user.dir), "{shown}");
        assert!(shown.ends_with("/fusion/config.toml\n"), "{shown}");
    }

    /// Runs `fusion` as somebody who may not write to `home`: as another user where this one is root, whom no mode
    /// keeps out.
    fn as_a_stranger(sandbox: &Sandbox, home: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
        let program = sandbox.root().join("fusion");
        if !program.exists() {
            fs::copy(env!("CARGO_BIN_EXE_fusion"), &program).expect("writable");
            fs::set_permissions(sandbox.root(), fs::Permissions::from_mode(0o755)).expect("ours");
            fs::set_permissions(home, fs::Permissions::from_mode(0o555)).expect("ours");
        }
        let mut command = std::process::Command::new(&program);
        command.env_clear().env("HOME", home).args(arguments).current_dir("/");
        if nix::unistd::geteuid().is_root() {
            command.uid(65534).gid(65534);
        }
        let output = command.output().expect("it runs");
        let text = |bytes: Vec<u8>| {
            String::from_utf8(bytes).expect("text").replace(&sandbox.root().display().to_string(), "[ROOT]")
        };
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    #[test]
    fn home_read_only() {
        let sandbox = Sandbox::without_config();
        let home = sandbox.home();
        let directory =
            if cfg!(target_os = "macos") { "Library/Application Support/fusion" } else { ".config/fusion" };
        let made = directory.split('/').next().expect("a name");
        let reason = format!(
            "cannot make [ROOT]/home/{directory}/config.toml: cannot make the directory [ROOT]/home/{made}: \
             Permission denied (os error 13)"
        );
        // What only reads goes on with the defaults, and says so.
        assert_eq!(
            as_a_stranger(&sandbox, &home, &["config", "get", "ollama_server.port"]),
            (Some(0), "11434\n".to_owned(), format!("warning: {reason}; the defaults hold\n"))
        );
        let (code, shown, stderr) = as_a_stranger(&sandbox, &home, &["config", "show"]);
        assert_eq!((code, stderr), (Some(0), format!("warning: {reason}; this is what it would be\n")));
        assert!(shown.contains("\nport = 11434\n"), "{shown}");
        // What writes fails, and says why.
        for arguments in [&["config", "set", "ollama_server.port", "5"][..], &["config", "reset", "--yes"]] {
            assert_eq!(
                as_a_stranger(&sandbox, &home, arguments),
                (
                    Some(1),
                    String::new(),
                    format!(
                        "error: cannot make [ROOT]/home/{directory}/config.toml\n  \
                         caused by: cannot make the directory [ROOT]/home/{made}\n  \
                         caused by: Permission denied (os error 13)\n\
                         hint: set FUSION_CONFIG_DIR to a directory that you can read and write\n"
                    )
                )
            );
        }
    }
}
