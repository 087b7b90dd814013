//! The file is made on first use.

use super::*;

#[test]
fn makes_exactly_the_promised_sections_and_values() {
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
fn gives_each_key_a_one_line_comment() {
    let sandbox = Sandbox::without_config();
    let shown = config(&sandbox, ["show"]).stdout();
    let mut previous = "";
    for line in shown.lines() {
        let is_comment = |line: &str| line.starts_with("# ");
        assert_eq!(is_comment(previous), line.contains(" = "), "{previous}\n{line}");
        assert!(line.len() <= 100, "{line}");
        previous = line;
    }
}

#[test]
fn no_umask_opens_what_is_private() {
    for umask in ["000", "022", "077", "777"] {
        let sandbox = Sandbox::without_config();
        fs::remove_dir(sandbox.config_dir()).expect("it is empty");
        under_umask(&sandbox, umask, "config get ollama_server.port").assert_stdout("11434\n");
        assert_eq!(mode(&sandbox.config_dir()), 0o700, "umask {umask}");
        assert_eq!(mode(&config_file(&sandbox)), 0o600, "umask {umask}");
        under_umask(&sandbox, umask, "config set ollama_server.port 4").assert_stdout("");
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
    config(&sandbox, ["get", "mlx_server.port"]).assert_stdout("8080\n");
    insta::assert_snapshot!(config(&sandbox, ["check"]), @"
    exit 0
    [stdout]
    [ROOT]/config/config.toml is valid
    ");
    assert_eq!(text(&sandbox), "# mine\n");
    assert_eq!(names(&sandbox), ["config.toml"]);
}

#[test]
fn is_not_needed_to_print_its_path() {
    let sandbox = Sandbox::without_config();
    config(&sandbox, ["path"]).assert_stdout(&format!("{}\n", config_file(&sandbox).display()));
    assert_eq!(names(&sandbox), Vec::<String>::new());
}
