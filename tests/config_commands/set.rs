//! `fusion config set` and `unset`.

use super::*;

#[test]
fn takes_strings_unquoted_and_other_values_as_toml() {
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
        ("ollama_run.extra_body.a", "5", "extra_body.a = 5"),
        ("ollama_run.extra_body.b", "x y", "extra_body.b = \"x y\""),
        ("mlx_run.stop", "[\"a\"]", "stop = [\"a\"]"),
        ("mlx_run.system_prompt", "--\"quoted\" \\ 'both'", r#"system_prompt = '''--"quoted" \ 'both''''"#),
        ("prompts.review.model", "m", "model = \"m\""),
        ("prompts.mine.temperature", "1", "temperature = 1"),
        ("aliases.small", "m", "small = \"m\""),
        ("aliases.small", "{ mlx = 'x' }", "small = { mlx = 'x' }"),
        ("aliases.'a.b:c'.ollama", "y", "\"a.b:c\".ollama = \"y\""),
    ] {
        let before = if config_file(&sandbox).exists() { text(&sandbox) } else { String::new() };
        config(&sandbox, ["set", key, value]).assert_stdout("");
        let after = text(&sandbox);
        assert!(after.lines().any(|found| found == line), "{key}: no line {line} in\n{after}");
        assert_ne!(before, after, "{key}");
    }
    config(&sandbox, ["check"]).assert_code(0);
    config(&sandbox, ["get", "mlx_run.system_prompt"]).assert_stdout("--\"quoted\" \\ 'both'\n");
}

#[test]
fn changes_one_line_of_the_fresh_file() {
    let sandbox = Sandbox::without_config();
    let fresh = config(&sandbox, ["show"]).stdout();
    config(&sandbox, ["set", "ollama_run.seed", "7"]).assert_stdout("");
    assert_eq!(text(&sandbox), fresh.replacen("stream = false\n", "stream = false\nseed = 7\n", 1));
    config(&sandbox, ["unset", "ollama_run.seed"]).assert_stdout("");
    assert_eq!(text(&sandbox), fresh);
    config(&sandbox, ["set", "ollama_server.port", "5"]).assert_stdout("");
    assert_eq!(text(&sandbox), fresh.replacen("port = 11434\n", "port = 5\n", 1));
    config(&sandbox, ["unset", "ollama_server.port"]).assert_stdout("");
    config(&sandbox, ["set", "ollama_server.port", "11434"]).assert_stdout("");
    assert_eq!(text(&sandbox), fresh);
    insta::assert_snapshot!(config(&sandbox, ["unset", "ollama_run.seed"]), @"
    exit 0
    [stderr]
    `ollama_run.seed` was not set
    ");
}

#[test]
fn keeps_comments_order_and_spacing() {
    let sandbox = Sandbox::without_config();
    sandbox.write_config(
        "\u{feff}# top\n[mlx_run]   # run\r\n\tseed   =  1# one\n\n# why\nmodel = 'm'\n[ollama_server]#x",
    );
    config(&sandbox, ["set", "mlx_run.seed", "2"]).assert_stdout("");
    config(&sandbox, ["set", "ollama_server.port", "3"]).assert_stdout("");
    config(&sandbox, ["unset", "mlx_run.model"]).assert_stdout("");
    assert_eq!(
        text(&sandbox),
        "\u{feff}# top\n[mlx_run]   # run\r\n\tseed   =  2# one\n\n# why\n[ollama_server]#x\r\nport = 3\r\n"
    );
}

#[test]
fn refuses_an_invalid_value_and_leaves_the_file() {
    let sandbox = Sandbox::without_config();
    let fresh = config(&sandbox, ["show"]).stdout();
    let values = [
        ("mlx_server.port", "0"),
        ("mlx_server.port", "x"),
        ("mlx_server.port", "1 # c"),
        ("mlx_server.port", "1\nhost = 'x'"),
        ("instances.up.template", "mlx"),
        ("instances.coder.port", "8123"),
        ("instances.coder.template", "mxl"),
        ("gateway.token", "a b"),
        ("default_service", "coder"),
        ("mlx_server.host", "http://x"),
        ("mlx_run.model", ""),
        ("mlx_run.temperature", "-1"),
        ("mlx_run.extra_body.a", "2026-01-01"),
        ("mlx_run.extra_body.model", "x"),
        ("mlx_run.auto_up", "true"),
        ("mlx_server.env.A=B", "x"),
    ];
    let refused = values.map(|(key, value)| {
        let finished = config(&sandbox, ["set", key, value]);
        assert_eq!(text(&sandbox), fresh);
        (format!("{key} {value:?}"), finished)
    });
    insta::assert_snapshot!(table(refused), @r#"
    # mlx_server.port "0"
    exit 2
    [stderr]
    error: `mlx_server.port`: expected a whole number from 1 to 65535, found the number 0
    # mlx_server.port "x"
    exit 2
    [stderr]
    error: `mlx_server.port`: expected a whole number from 1 to 65535, found "x"
    # mlx_server.port "1 # c"
    exit 2
    [stderr]
    error: `mlx_server.port`: expected a whole number from 1 to 65535, found "1 # c"
    # mlx_server.port "1\nhost = 'x'"
    exit 2
    [stderr]
    error: `mlx_server.port`: expected a whole number from 1 to 65535, found "1\nhost = 'x'"
    # instances.up.template "mlx"
    exit 2
    [stderr]
    error: `instances.up`: this is a command of fusion
    # instances.coder.port "8123"
    exit 2
    [stderr]
    error: `instances.coder.port`: there is no instance `coder`
    hint: make it: fusion create coder --template TEMPLATE
    # instances.coder.template "mxl"
    exit 2
    [stderr]
    error: `instances.coder.template`: there is no template `mxl`; did you mean `mlx`?
    # gateway.token "a b"
    exit 2
    [stderr]
    error: `gateway.token`: expected an ASCII string without spaces and control characters, found a string
    # default_service "coder"
    exit 2
    [stderr]
    error: `default_service`: there is no service `coder`; valid here: `ollama`, `mlx`, `llama`
    # mlx_server.host "http://x"
    exit 2
    [stderr]
    error: `mlx_server.host`: expected a host name or an IP address, without scheme, port or path, found the string "http://x"
    # mlx_run.model ""
    exit 2
    [stderr]
    error: `mlx_run.model`: expected a string that is not empty, found the string ""
    # mlx_run.temperature "-1"
    exit 2
    [stderr]
    error: `mlx_run.temperature`: expected a number from 0 to 2, found the number -1
    # mlx_run.extra_body.a "2026-01-01"
    exit 2
    [stderr]
    error: `mlx_run.extra_body.a`: expected a value that JSON has: no date, no infinity, found a date
    # mlx_run.extra_body.model "x"
    exit 2
    [stderr]
    error: `mlx_run.extra_body.model` cannot be set: fusion sets `model`, `messages`, `stream` itself
    # mlx_run.auto_up "true"
    exit 2
    [stderr]
    error: `mlx_run.auto_up` is now called `mlx_run.start_on_demand`
    # mlx_server.env.A=B "x"
    exit 2
    [stderr]
    error: "mlx_server.env.A=B" is not a key of the configuration
    hint: see every key: fusion config show --effective
    "#);
}

#[test]
fn stores_a_relative_directory_as_absolute_path() {
    let sandbox = Sandbox::without_config();
    let project = sandbox.project();
    fs::create_dir_all(project.join("models/tiny")).expect("writable");
    let absolute = format!("{}\n", project.join("models/tiny").display());
    for (key, value) in [
        ("mlx_server.model", "models/tiny"),
        ("mlx_run.model", "./models/tiny/"),
        ("prompts.review.model", "../project/models/tiny"),
    ] {
        config(&sandbox, ["set", key, value]).assert_stdout("");
        config(&sandbox, ["get", key]).assert_stdout(&absolute);
    }
    // Names of models, and what is no model.
    for (key, value) in [
        ("mlx_run.model", "mlx-community/none"),
        ("mlx_run.system_prompt", "models/tiny"),
        ("ollama_run.model", "models"),
        ("mlx_server.env.model", "models"),
    ] {
        config(&sandbox, ["set", key, value]).assert_stdout("");
        config(&sandbox, ["get", key]).assert_stdout(&format!("{value}\n"));
    }
    config(&sandbox, ["set", "mlx_run.model", ""]).assert_code(2);
}

#[test]
fn repairs_a_wrong_value() {
    let sandbox = Sandbox::without_config();
    sandbox.write_config("[ollama_server]\nport = 0 # typo\n");
    config(&sandbox, ["set", "ollama_server.port", "5"]).assert_stdout("");
    assert_eq!(text(&sandbox), "[ollama_server]\nport = 5 # typo\n");
    sandbox.write_config("[ollama_server]\nprot = 5\n\n[olama_run]\nseed = 1\n");
    config(&sandbox, ["unset", "olama_run"]).assert_code(2);
    sandbox.write_config("[ollama_server]\nprot = 5\n");
    config(&sandbox, ["unset", "ollama_server.prot"]).assert_stdout("");
    assert_eq!(text(&sandbox), "[ollama_server]\n");
}

#[test]
fn refuses_to_change_a_broken_file() {
    let sandbox = Sandbox::without_config();
    sandbox.write_config("[ollama_server\n");
    let set = config(&sandbox, ["set", "ollama_server.port", "5"]);
    let unset = config(&sandbox, ["unset", "ollama_server.port"]);
    insta::assert_snapshot!(same_output([set, unset]), @"
    exit 2
    [stderr]
    error: [ROOT]/config/config.toml:1:15: unclosed table, expected `]`
    hint: edit the file: fusion config edit
    ");
    assert_eq!(text(&sandbox), "[ollama_server\n");
}

#[test]
fn writes_through_a_symlink_and_keeps_the_mode() {
    let sandbox = Sandbox::without_config();
    let dotfiles = sandbox.root().join("dotfiles");
    fs::create_dir(&dotfiles).expect("writable");
    let real = dotfiles.join("fusion");
    fs::write(&real, "# mine\n").expect("writable");
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).expect("ours");
    symlink("../dotfiles/fusion", config_file(&sandbox)).expect("a link");
    config(&sandbox, ["set", "mlx_server.port", "5"]).assert_stdout("");
    assert_eq!(fs::read_to_string(&real).expect("it is there"), "# mine\n\n[mlx_server]\nport = 5\n");
    assert_eq!(mode(&real), 0o640);
    assert_eq!(config_file(&sandbox).read_link().expect("still a link"), Path::new("../dotfiles/fusion"));
    assert_eq!(fs::read_dir(&dotfiles).expect("it is there").count(), 1);
    config(&sandbox, ["reset", "--yes"]).assert_code(0);
    assert_eq!(config_file(&sandbox).read_link().expect("still a link"), Path::new("../dotfiles/fusion"));
    assert_eq!(fs::read_to_string(&real).expect("it is there"), text(&sandbox));
}

#[test]
fn sigkill_at_any_moment_leaves_a_whole_file() {
    let sandbox = Sandbox::without_config();
    let fresh = config(&sandbox, ["show"]).stdout();
    let duration = {
        let start = Instant::now();
        config(&sandbox, ["set", "ollama_run.seed", "1"]).assert_code(0);
        start.elapsed()
    };
    let whole =
        |seed: u32| fresh.replacen("stream = false\n", &format!("stream = false\nseed = {seed}\n"), 1);
    let mut old = 1;
    let (mut kept, mut changed, mut round) = (0, 0, 0);
    // Each round later, until the kill comes after the change.
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
    config(&sandbox, ["set", "ollama_run.seed", "2"]).assert_stdout("");
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
        running.finish().assert_stdout("");
    }
    for number in &numbers {
        let key = format!("aliases.a{number}");
        config(&sandbox, ["get", &key]).assert_stdout(&format!("{number}\n"));
    }
}

#[test]
fn waits_for_the_lock() {
    let sandbox = Sandbox::without_config();
    config(&sandbox, ["check"]).assert_code(0);
    let lock = fs::File::options().write(true).open(sandbox.config_dir().join("config.lock")).expect("there");
    lock.lock().expect("free");
    let mut running = sandbox.fusion(["config", "set", "mlx_server.port", "5"]).start();
    // Without the wait it would end within this time.
    let moment = Instant::now() + Duration::from_millis(100);
    while Instant::now() < moment {
        assert!(!running.has_ended());
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(lock);
    running.finish().assert_stdout("");
}
