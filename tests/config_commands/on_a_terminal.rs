//! What asks or opens an editor, on a pseudo-terminal.

use std::process::Child;

use super::support::normalize::{Mask, normalize};
use super::support::terminal::Terminal;
use super::support::wait_for_end;
use super::*;

/// A command whose three streams are one terminal.
struct Session {
    child: Child,
    terminal: Terminal,
}

impl Session {
    fn start(sandbox: &Sandbox, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let terminal = Terminal::without_echo();
        let mut command = sandbox.fusion(arguments.iter().copied()).into_command();
        command.env("NO_COLOR", "1").envs(variables.iter().copied());
        command.stdin(terminal.stream()).stdout(terminal.stream()).stderr(terminal.stream());
        let child = command.spawn().expect("it starts");
        Self { child, terminal }
    }

    fn types(mut self, text: &str) -> Self {
        self.terminal.send(text.as_bytes());
        self
    }

    /// The exit code and what the terminal shows, for a snapshot.
    #[track_caller]
    fn finish(mut self, sandbox: &Sandbox) -> String {
        let status = wait_for_end(&mut self.child);
        let shown = hide_random(&self.terminal.finish().replace("\r\n", "\n"));
        let root = Mask::new(sandbox.root().display().to_string(), "[ROOT]");
        let code = status.code().expect("no signal ends it");
        format!("exit {code}\n{}", normalize(&shown, &[root]))
    }
}

/// The name of the copy has a random part.
fn hide_random(text: &str) -> String {
    let mut parts = text.split("config.edit.");
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.split_once(".toml").map_or(part, |(_, rest)| rest);
        result.push_str("config.edit.[RANDOM].toml");
        result.push_str(rest);
    }
    result
}

/// An editor that saves these texts one after the other, and keeps its arguments in a file.
fn editor(sandbox: &Sandbox, texts: &[&str]) -> String {
    let directory = sandbox.root().join("the editor's");
    fs::create_dir(&directory).expect("writable");
    for (number, text) in texts.iter().enumerate() {
        fs::write(directory.join(number.to_string()), text).expect("writable");
    }
    let script = "d=${0%/*}\necho \"$#\" \"$1\" >> \"$d/called\"\n\
                      for n in 0 1 2; do\n  [ -e \"$d/$n\" ] && cat \"$d/$n\" > \"$2\" && rm \"$d/$n\" && exit 0\ndone\nexit 0\n";
    fs::write(directory.join("script"), script).expect("writable");
    format!("sh \"{}/the editor's/script\" --wait", sandbox.root().display())
}

fn called(sandbox: &Sandbox) -> String {
    fs::read_to_string(sandbox.root().join("the editor's/called")).unwrap_or_default()
}

/// What `config edit` shows with this editor while `typed` is typed.
#[track_caller]
fn edit(sandbox: &Sandbox, editor: &str, typed: &str) -> String {
    Session::start(sandbox, &["config", "edit"], &[("EDITOR", editor)]).types(typed).finish(sandbox)
}

fn with_file(text: &str) -> Sandbox {
    let sandbox = Sandbox::without_config();
    sandbox.write_config(text);
    sandbox
}

#[test]
fn edit_replaces_the_file_with_the_edited_copy() {
    let sandbox = with_file("# old\n");
    let editor = editor(&sandbox, &["[mlx_server]\nport = 5\n"]);
    insta::assert_snapshot!(edit(&sandbox, &editor, ""), @"
    exit 0
    [ROOT]/config/config.toml was changed
    ");
    assert_eq!(text(&sandbox), "[mlx_server]\nport = 5\n");
    assert_eq!(called(&sandbox), "2 --wait\n");
    assert_eq!(names(&sandbox), ["config.lock", "config.toml"]);
    assert!(!sandbox.project().join("fusion.toml").exists());
}

#[test]
fn visual_comes_before_editor() {
    let sandbox = with_file("# old\n");
    let editor = editor(&sandbox, &["# new\n"]);
    let variables = [("VISUAL", editor.as_str()), ("EDITOR", "false")];
    let shown = Session::start(&sandbox, &["config", "edit"], &variables).finish(&sandbox);
    insta::assert_snapshot!(shown, @"
    exit 0
    [ROOT]/config/config.toml was changed
    ");
}

#[test]
fn a_mistake_can_be_corrected() {
    let sandbox = with_file("# old\n");
    let editor = editor(&sandbox, &["[mlx_server]\nprt = 5\n", "[mlx_server]\nport = 6\n"]);
    insta::assert_snapshot!(edit(&sandbox, &editor, "\n"), @"
    exit 0
    error: [ROOT]/config/config.edit.[RANDOM].toml:2:1: unknown key `mlx_server.prt`; did you mean `mlx_server.port`?
    Edit it again? [Y/n] [ROOT]/config/config.toml was changed
    ");
    assert_eq!(text(&sandbox), "[mlx_server]\nport = 6\n");
    assert_eq!(called(&sandbox), "2 --wait\n2 --wait\n");
    assert_eq!(names(&sandbox), ["config.lock", "config.toml"]);
}

#[test]
fn an_invalid_copy_is_kept_beside_the_file() {
    let mut shown = Vec::new();
    // "n", and the end of input.
    for typed in ["n\n", "\u{4}"] {
        let sandbox = with_file("# old\n");
        let editor = editor(&sandbox, &["[mlx_server]\nport = 0\n"]);
        shown.push(edit(&sandbox, &editor, typed));
        assert_eq!(text(&sandbox), "# old\n");
        let copy = names(&sandbox).into_iter().find(|name| name.starts_with("config.edit.")).expect("kept");
        let copy = sandbox.config_dir().join(copy);
        assert_eq!(fs::read_to_string(&copy).expect("readable"), "[mlx_server]\nport = 0\n");
        assert_eq!(mode(&copy), 0o600);
    }
    assert_eq!(shown[0], shown[1]);
    insta::assert_snapshot!(shown[0], @"
    exit 2
    error: [ROOT]/config/config.edit.[RANDOM].toml:2:8: `mlx_server.port`: expected a whole number from 1 to 65535, found the number 0
    Edit it again? [Y/n] error: [ROOT]/config/config.toml was not changed
    hint: your changes are in [ROOT]/config/config.edit.[RANDOM].toml
    ");
}

#[test]
fn a_broken_file_can_be_repaired() {
    let sandbox = with_file("[mlx_server\n");
    let editor = editor(&sandbox, &["[mlx_server]\n"]);
    insta::assert_snapshot!(edit(&sandbox, &editor, ""), @"
    exit 0
    [ROOT]/config/config.toml was changed
    ");
    assert_eq!(text(&sandbox), "[mlx_server]\n");
}

#[test]
fn edit_without_a_change_writes_nothing() {
    let sandbox = with_file("# old\n");
    let editor = editor(&sandbox, &[]);
    insta::assert_snapshot!(edit(&sandbox, &editor, ""), @"
    exit 0
    nothing was changed
    ");
    assert_eq!(names(&sandbox), ["config.toml"]);
}

#[test]
fn an_editor_that_fails_changes_nothing() {
    let sandbox = with_file("# old\n");
    insta::assert_snapshot!(edit(&sandbox, "false", ""), @"
    exit 1
    error: the editor `false` failed: exit status: 1
    ");
    assert_eq!(names(&sandbox), ["config.toml"]);
}

#[test]
fn edit_does_not_overwrite_a_change_made_meanwhile() {
    let sandbox = with_file("# old\n");
    let editor = format!(
        "sh -c 'echo \"# mine\" > \"$1\"; echo \"# theirs\" > \"{}\"' -",
        config_file(&sandbox).display()
    );
    insta::assert_snapshot!(edit(&sandbox, &editor, ""), @"
    exit 1
    error: [ROOT]/config/config.toml has been changed by another program
    hint: your changes are in [ROOT]/config/config.edit.[RANDOM].toml
    ");
    assert_eq!(text(&sandbox), "# theirs\n");
}

#[test]
fn ctrl_c_goes_to_the_editor() {
    let sandbox = with_file("# old\n");
    let [waits, goes_on] = ["waits", "goes on"].map(|name| sandbox.root().join(name));
    let editor = format!(
        "sh -c '> \"{}\"; until [ -e \"{}\" ]; do sleep 0.01; done; echo \"# new\" > \"$1\"' -",
        waits.display(),
        goes_on.display()
    );
    let session = Session::start(&sandbox, &["config", "edit"], &[("EDITOR", &editor)]);
    support::wait_until("the editor runs", || waits.exists());
    support::processes::send(i32::try_from(session.child.id()).expect("a PID"), Signal::SIGINT);
    fs::write(goes_on, "").expect("writable");
    insta::assert_snapshot!(session.finish(&sandbox), @"
    exit 0
    [ROOT]/config/config.toml was changed
    ");
    assert_eq!(text(&sandbox), "# new\n");
}

#[test]
fn edit_without_an_editor_makes_the_link() {
    let sandbox = with_file("# old\n");
    let without = Session::start(&sandbox, &["config", "edit"], &[]).finish(&sandbox);
    insta::assert_snapshot!(without, @"
    exit 0
    neither VISUAL nor EDITOR is set: making a link instead of opening an editor
    [ROOT]/project/fusion.toml -> [ROOT]/config/config.toml
    ");
    let link = Session::start(&sandbox, &["config", "edit", "--link"], &[("EDITOR", "false")]);
    insta::assert_snapshot!(link.finish(&sandbox), @"
    exit 0
    [ROOT]/project/fusion.toml -> [ROOT]/config/config.toml
    ");
}

#[test]
fn reset_asks_first() {
    let reset = |sandbox: &Sandbox, typed: &str| {
        Session::start(sandbox, &["config", "reset"], &[]).types(typed).finish(sandbox)
    };
    let declined = ["n\n", "\n", "\u{4}", "what\n"].map(|typed| {
        let sandbox = with_file("# old\n");
        let shown = reset(&sandbox, typed);
        assert_eq!(text(&sandbox), "# old\n");
        shown
    });
    assert!(declined.iter().all(|shown| *shown == declined[0]), "{declined:#?}");
    insta::assert_snapshot!(declined[0], @"
    exit 1
    Replace [ROOT]/config/config.toml with a fresh file, and keep a copy? [y/N] error: not reset
    ");
    insta::assert_snapshot!(reset(&with_file("# old\n"), "y\n"), @"
    exit 0
    Replace [ROOT]/config/config.toml with a fresh file, and keep a copy? [y/N] [ROOT]/config/config.toml is reset; the old file is [ROOT]/config/config.toml.bak
    ");
}

#[test]
fn show_filters_control_characters() {
    let sandbox = with_file("# \u{1b}]0;title\u{7}red\u{1b}[31m\n");
    insta::assert_snapshot!(Session::start(&sandbox, &["config", "show"], &[]).finish(&sandbox), @"
    exit 0
    # red
    ");
}
