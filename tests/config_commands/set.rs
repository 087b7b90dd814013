//! `fusion config set` and `unset`.

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
        ("ollama_server.log_max_size", "64MiB", "log_max_size = \"64MiB\""),
        ("ollama_server.log_max_size", "2000000", "log_max_size = 2000000"),
        ("ollama_run.model", "5", "model = \"5\""),
        ("ollama_run.system_prompt", "", "system_prompt = \"\""),
        ("ollama_run.stop", "END", "stop = \"END\""),
        ("ollama_run.seed", "7", "seed = 7"),
        ("ollama_run.reasoning", "show", "reasoning = \"show\""),
        ("ollama_run.extra_body.a", "5", "extra_body = { a = 5 }"),
        ("ollama_run.extra_body.b", "x y", "extra_body = { a = 5, b = \"x y\" }"),
        ("mlx_run.stop", "[\"a\"]", "stop = [\"a\"]"),
        ("mlx_run.system_prompt", "--\"quoted\" \\ 'both'", r#"system_prompt = '''--"quoted" \ 'both''''"#),
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
        ("mlx_server.port", "x", "`mlx_server.port`: expected a whole number from 1 to 65535, found \"x\""),
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
        ("mlx_run.model", "", "`mlx_run.model`: expected a string that is not empty, found the string \"\""),
        (
            "mlx_run.temperature",
            "-1",
            "`mlx_run.temperature`: expected a number from 0 to 2, found the number -1",
        ),
        (
            "mlx_run.extra_body.a",
            "2026-01-01",
            "`mlx_run.extra_body.a`: expected a value that JSON has: no date, no infinity, found a date",
        ),
        (
            "mlx_run.extra_body.model",
            "x",
            "`mlx_run.extra_body.model` cannot be set: fusion sets `stream`, `model`, `messages` itself",
        ),
        ("mlx_run.auto_up", "true", "`mlx_run.auto_up` is now called `mlx_run.start_on_demand`"),
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
    let stderr = format!("error: [ROOT]/config/config.toml:1:15: unclosed table, expected `]`\n{EDIT_HINT}");
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
    let (mut kept, mut changed, mut round) = (0, 0, 0);
    // Later in each round, until it has come too late.
    while round < 50 || changed == 0 {
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
        round += 1;
    }
    assert!(kept > 0, "it was never killed before the change");
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
    let lock = fs::File::options().write(true).open(sandbox.config_dir().join("config.lock")).expect("there");
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
