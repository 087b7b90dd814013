//! `fusion <service> chat` on a pseudo-terminal, against the fake runtime.

mod support;

use std::path::PathBuf;

use nix::sys::signal::Signal;
use support::chat::{CONTROL_D, Chat, FAKE_ANSWER as ANSWER, down, running};
use support::terminal::Terminal;
use support::{Finished, Sandbox, processes};

fn fusion<'a>(sandbox: &Sandbox, arguments: impl IntoIterator<Item = &'a str>) -> Finished {
    sandbox.fusion(arguments).run_in_process()
}

fn directory(sandbox: &Sandbox) -> PathBuf {
    sandbox.config_dir().join("data/sessions")
}

/// The names of the session files.
fn names(sandbox: &Sandbox) -> Vec<String> {
    let entries = std::fs::read_dir(directory(sandbox)).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The content of a session file.
fn session(sandbox: &Sandbox, name: &str) -> String {
    std::fs::read_to_string(directory(sandbox).join(format!("{name}.jsonl"))).unwrap_or_default()
}

/// The contents of the messages in a session file, without the answers that are whole.
fn messages(sandbox: &Sandbox, name: &str) -> Vec<String> {
    let lines = session(sandbox, name);
    let lines = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let contents = lines.filter_map(|line| Some(line.get("content")?.as_str()?.to_owned()));
    contents.filter(|content| content != ANSWER).collect()
}

#[test]
fn a_conversation_is_shown_and_saved() {
    let sandbox = running(&[]);
    let mut chat = Chat::start(&sandbox, "");
    chat.asks("Why is the sky blue?").asks("Really?").types("/undo\r").expect("took out \"Really?\"");
    let shown = chat.leaves();
    assert!(shown.contains("llama3.2:3b · 8 > "), "{shown:?}");
    let [name] = names(&sandbox).try_into().expect("one session");
    let (date, words) = name.split_at(10);
    assert_eq!((date.matches('-').count(), words), (2, "-why-is-the-sky-blue.jsonl"));
    insta::assert_snapshot!(session(&sandbox, name.trim_end_matches(".jsonl")), @r#"
    {"service":"ollama","model":"llama3.2:3b","system":"You are a helpful assistant.","parameters":{"stream_options":{"include_usage":true},"temperature":0.8}}
    {"role":"user","content":"Why is the sky blue?"}
    {"role":"assistant","content":"Hello from the fake runtime.","tokens":8}
    {"role":"user","content":"Really?"}
    {"role":"assistant","content":"Hello from the fake runtime.","tokens":8}
    {"mark":"undo"}
    "#);
    down(&sandbox);
}

#[test]
fn a_failed_question_can_be_asked_again() {
    let sandbox = Sandbox::new();
    let loading = sandbox.root().join("loading");
    std::fs::write(&loading, "").expect("writable");
    sandbox.faults("ollama", &[&format!("chat-loading-while={}", loading.display())]);
    sandbox.fusion(["ollama", "up"]).run().assert_code(0);
    let mut chat = Chat::start(&sandbox, "-s one");
    chat.types("Why?\r").expect("error: Ollama: the model is loading").expect("the question is kept; /retry");
    std::fs::remove_file(&loading).expect("it is there");
    chat.types("/retry\r").expect(ANSWER);
    chat.leaves();
    down(&sandbox);
}

#[test]
fn a_message_starts_the_service() {
    let sandbox = Sandbox::new();
    let mut chat = Chat::start(&sandbox, "-s one");
    chat.types("Hi\r").expect("starting ollama, which is not running").expect(ANSWER);
    chat.leaves();
    down(&sandbox);
}

#[test]
fn pasted_text_is_one_message() {
    let sandbox = running(&[]);
    let mut chat = Chat::start(&sandbox, "-s one");
    chat.types("\x1b[200~fn main() {\r\tone\\\r}\r\x1b[201~\r").expect(ANSWER);
    chat.leaves();
    assert_eq!(messages(&sandbox, "one"), ["fn main() {\n\tone\\\n}"]);
    down(&sandbox);
}

#[test]
fn a_pasted_megabyte_is_one_message() {
    let sandbox = running(&["quiet"]);
    let mut chat = Chat::start(&sandbox, "-s one");
    let line = "0123456789abcdef".repeat(4);
    let lines = 1_000_000 / (line.len() + 1);
    chat.types("\x1b[200~");
    for _ in 0..lines {
        chat.send(&format!("{line}\r"));
    }
    chat.send("end\x1b[201~").expect("end").send("\r").expect(ANSWER);
    chat.leaves();
    let [message] = messages(&sandbox, "one").try_into().expect("one message");
    assert_eq!((message.len(), message.lines().count()), (lines * (line.len() + 1) + 3, lines + 1));
    down(&sandbox);
}

/// Each line of the rest would be a message.
#[test]
fn bytes_that_are_no_text_are_dropped() {
    let sandbox = running(&[]);
    let mut chat = Chat::start(&sandbox, "-s one");
    chat.expect("> ").send_bytes(b"\x1b[200~one\r\xff\rtwo\rthree\r\x1b[201~\r");
    chat.expect("warning: what was typed is not UTF-8; it is dropped").asks("four");
    chat.leaves();
    assert_eq!(messages(&sandbox, "one"), ["four"]);
    down(&sandbox);
}

#[test]
fn a_text_can_have_several_lines() {
    let sandbox = running(&[]);
    let mut chat = Chat::start(&sandbox, "-s one");
    chat.types("one\x1b\rtwo\\\r").expect("... ").send("three\r").expect(ANSWER);
    chat.types("\"\"\"four\r").expect("\n").send("/five\"\"\"\r").expect(ANSWER);
    chat.asks("//six");
    chat.leaves();
    assert_eq!(messages(&sandbox, "one"), ["one\ntwo\nthree", "four\n/five", "/six"]);
    down(&sandbox);
}

#[test]
fn twenty_columns_are_enough() {
    let sandbox = running(&[]);
    let mut chat = Chat::script(&sandbox, Terminal::of_columns(20), "exec \"$0\" ollama chat -s one");
    chat.asks("A question that is longer than a line of the terminal").asks("x");
    let shown = chat.leaves();
    assert!(!shown.contains("llama3.2:3b · 8 > "), "{shown:?}");
    assert_eq!(messages(&sandbox, "one"), ["A question that is longer than a line of the terminal", "x"]);
    down(&sandbox);
}

#[test]
fn a_full_disk_does_not_hide_answers() {
    let sandbox = running(&[]);
    // The smallest file that the header fits in, in blocks of 512 bytes.
    let mut chat =
        Chat::script(&sandbox, Terminal::open(), "trap '' XFSZ; ulimit -f 1; exec \"$0\" ollama chat -s one");
    let long = "x".repeat(400);
    chat.types(&format!("{long}\r")).expect("warning: cannot write").expect("File too large").expect(ANSWER);
    chat.expect("warning: cannot write");
    chat.leaves();
    assert_eq!(session(&sandbox, "one").lines().count(), 1, "only whole lines are in the file");
    down(&sandbox);
}

#[test]
fn a_full_disk_at_first_leaves_one_session() {
    let sandbox = running(&[]);
    let script = "trap '' XFSZ; ulimit -f 0; exec \"$0\" ollama chat";
    let mut chat = Chat::script(&sandbox, Terminal::open(), script);
    chat.types("one\r").expect("-one.jsonl: File too large").expect(ANSWER);
    chat.types("two\r").expect("-one.jsonl: File too large").expect(ANSWER);
    chat.leaves();
    let names = names(&sandbox);
    assert!(matches!(&*names, [name] if name.ends_with("-one.jsonl")), "{names:?}");
    down(&sandbox);
}

/// Keeps every session out of the directory, until the link is removed.
fn link_to_nowhere(sandbox: &Sandbox) -> PathBuf {
    let link = directory(sandbox);
    std::fs::create_dir_all(link.parent().expect("a directory")).expect("writable");
    std::os::unix::fs::symlink(sandbox.root().join("nowhere"), &link).expect("writable");
    link
}

#[test]
fn a_session_is_saved_once_that_works() {
    let sandbox = running(&[]);
    for arguments in ["-s one", ""] {
        for leaves_at_once in [true, false] {
            let in_the_way = link_to_nowhere(&sandbox);
            let mut chat = Chat::start(&sandbox, arguments);
            chat.types("one\r").expect("is written when that works").expect(ANSWER).expect("> ");
            std::fs::remove_file(&in_the_way).expect("it is there");
            if leaves_at_once {
                chat.send(CONTROL_D);
            } else {
                chat.send("two\r").expect(ANSWER).types(CONTROL_D);
            }
            chat.ends(0);
            let [name] = names(&sandbox).try_into().expect("one session");
            let expected: &[&str] = if leaves_at_once { &["one"] } else { &["one", "two"] };
            assert_eq!(messages(&sandbox, name.trim_end_matches(".jsonl")), expected, "{arguments}");
            std::fs::remove_dir_all(&in_the_way).expect("it is there");
        }
    }
    down(&sandbox);
}

#[test]
fn a_session_that_stays_unsaved_is_told() {
    let sandbox = running(&[]);
    link_to_nowhere(&sandbox);
    let mut chat = Chat::start(&sandbox, "-s one");
    chat.asks("one").types(CONTROL_D).expect("warning: cannot").expect("the session is not saved whole");
    chat.ends(0);
    down(&sandbox);
}

#[test]
fn no_save_opens_what_another_has_open() {
    let sandbox = running(&[]);
    let mut first = Chat::start(&sandbox, "-s one");
    first.asks("one").expect("> ");
    for arguments in ["-s one --no-save", "--continue --no-save"] {
        let mut second = Chat::start(&sandbox, arguments);
        second.types("/info\r").expect("session    not saved").expect("questions  1").asks("two");
        second.leaves();
    }
    first.send(CONTROL_D);
    first.ends(0);
    assert_eq!(messages(&sandbox, "one"), ["one"]);
    down(&sandbox);
}

#[test]
fn commands_files_and_pipes_join_a_message() {
    let sandbox = running(&[]);
    std::fs::write(sandbox.project().join("notes.md"), "one\n").expect("writable");
    let script = "echo piped | \"$0\" ollama chat -s one -f notes.md Read this";
    let mut chat = Chat::script(&sandbox, Terminal::open(), script);
    chat.expect(ANSWER).types("!echo two; exit 3\r").expect("goes with the next message");
    chat.types("/file notes.md\r").expect("notes.md: 4 B, goes with the next message").asks("And this");
    chat.leaves();
    assert_eq!(
        messages(&sandbox, "one"),
        [
            "notes.md:\n```\none\n```\n\nRead this\n\npiped",
            "$ echo two; exit 3:\n```\ntwo\n```\n\nnotes.md:\n```\none\n```\n\nAnd this"
        ]
    );
    down(&sandbox);
}

#[test]
fn slash_commands_change_the_conversation() {
    let sandbox = running(&[]);
    let mut chat = Chat::start(&sandbox, "-s one --system Brief.");
    chat.asks("one").asks("two").asks("three");
    chat.types("/drop 1\r").expect("took out 1 of 3 questions");
    chat.types("/system Long.\r").types("/model llama3.2:3b\r").types("/set seed 7\r").types("/info\r");
    chat.expect("questions  2").expect("system     Long.").expect("\"seed\":7");
    chat.types("/save out.md\r").expect("out.md was written");
    chat.types("/save out.md\r").expect("cannot write out.md");
    chat.types("/nonsense\r").expect("unknown command /nonsense");
    chat.types("/edit\r").send("!\r").expect(ANSWER).types("/clear\r").types("/quit\r");
    chat.ends(0);
    let saved = std::fs::read_to_string(sandbox.project().join("out.md")).expect("the file");
    insta::assert_snapshot!(saved, @"
    # llama3.2:3b

    ## System

    Long.

    ## Question

    two

    ## Answer

    Hello from the fake runtime.

    ## Question

    three

    ## Answer

    Hello from the fake runtime.
    ");
    assert_eq!(messages(&sandbox, "one"), ["one", "two", "three", "three!"]);
    down(&sandbox);
}

#[test]
fn an_editor_changes_the_last_question() {
    let sandbox = running(&[]);
    let edited = sandbox.project().join("edited");
    let script = "export EDITOR='cp edited'; exec \"$0\" ollama chat -s one";
    let mut chat = Chat::script(&sandbox, Terminal::open(), script);
    chat.asks("one").asks("two");
    chat.types("/edit\r").expect("error: the editor `cp edited` failed: exit status: 1");
    std::fs::write(&edited, "two\n").expect("writable");
    chat.types("/edit\r").expect("nothing was changed");
    std::fs::write(&edited, "\n").expect("writable");
    chat.types("/edit\r").expect("nothing was changed");
    std::fs::write(&edited, "three\nlines\nof text\n").expect("writable");
    chat.types("/edit\r").expect(ANSWER).types("/info\r").expect("questions  2");
    chat.leaves();
    assert_eq!(messages(&sandbox, "one"), ["one", "two", "three\nlines\nof text"]);
    assert_eq!(session(&sandbox, "one").matches("{\"mark\":\"undo\"}").count(), 1);
    down(&sandbox);
}

#[test]
fn a_saved_session_opens_as_it_was_left() {
    let sandbox = running(&["models=llama3.2:3b,other"]);
    let mut chat = Chat::start(&sandbox, "-s one -m other");
    chat.asks("one").types("/set seed 7\r");
    chat.leaves();
    let mut chat = Chat::start(&sandbox, "-s one");
    chat.expect("one: 1 question, 2 messages").types("/info\r");
    chat.expect("model      other").expect("\"seed\":7");
    chat.leaves();
    down(&sandbox);
}

#[test]
fn a_continued_session_shows_its_context_at_once() {
    let sandbox = running(&["context=4096"]);
    let mut chat = Chat::start(&sandbox, "-s one");
    chat.asks("one").expect("llama3.2:3b · 8/4k > ").send(CONTROL_D);
    chat.ends(0);
    for (tokens, warning) in [(8, ""), (4000, "warning: the context is full, 3.9k of 4k tokens")] {
        let path = directory(&sandbox).join("one.jsonl");
        let saved = session(&sandbox, "one").replace("\"tokens\":8", &format!("\"tokens\":{tokens}"));
        std::fs::write(path, saved).expect("writable");
        let mut chat = Chat::start(&sandbox, "--continue");
        chat.expect(warning).expect("/4k > ").send(CONTROL_D);
        let shown = chat.ends(0);
        assert_eq!(shown.contains("warning:"), !warning.is_empty(), "{shown}");
    }
    let shows_no_size = || {
        let mut chat = Chat::start(&sandbox, "--continue");
        chat.expect("llama3.2:3b · 3.9k > ").send(CONTROL_D);
        chat.ends(0);
    };
    let server = sandbox.pid("ollama").expect("it runs");
    processes::send(server, Signal::SIGSTOP);
    shows_no_size();
    processes::send(server, Signal::SIGCONT);
    down(&sandbox);
    shows_no_size();
}

#[test]
fn a_session_is_open_in_one_process() {
    let sandbox = Sandbox::new();
    let mut first = Chat::start(&sandbox, "-s one");
    first.expect("> ");
    let second = Chat::start(&sandbox, "-s one").ends(1);
    insta::assert_snapshot!(sandbox.normalized(&second.replace('\r', "")), @"
    error: the session one is open in another process
    hint: leave it there with Ctrl-D, or choose another name with --session NAME
    ");
    first.send(CONTROL_D);
    first.ends(0);
}

#[test]
fn without_a_service_one_is_picked() {
    let sandbox = running(&["models=llama3.2:3b,other"]);
    let chat =
        |arguments: &str| Chat::script(&sandbox, Terminal::open(), &format!("exec \"$0\" chat {arguments}"));
    let shown = chat("").ends(2).replace('\r', "");
    insta::assert_snapshot!(shown, @"
    error: no model is named, and no default service is set
    hint: set one: fusion config set default_service ollama; or name a model with --model
    ");
    let mut with_model = chat("-m other -s one");
    with_model.expect("the model is other").asks("one");
    with_model.leaves();
    // The session has the service.
    let mut continued = chat("--continue");
    continued.asks("two");
    continued.leaves();
    fusion(&sandbox, ["config", "set", "default_service", "ollama"]).assert_code(0);
    let mut default = chat("");
    default.expect("the model is llama3.2:3b").asks("three");
    default.leaves();
    down(&sandbox);
}

#[test]
fn no_save_leaves_no_file() {
    let sandbox = running(&[]);
    let mut chat = Chat::start(&sandbox, "--no-save");
    chat.asks("one");
    chat.leaves();
    assert!(names(&sandbox).is_empty());
    down(&sandbox);
}

#[test]
fn leaving_without_a_question_leaves_no_file() {
    let sandbox = Sandbox::new();
    Chat::start(&sandbox, "").leaves();
    assert!(names(&sandbox).is_empty());
}

#[test]
fn without_a_terminal_chat_names_run() {
    let sandbox = Sandbox::new();
    let all = [vec!["ollama", "chat"], vec!["ollama", "chat", "Hi"], vec!["ollama", "chat", "--", "ls"]];
    let shown = support::same_output(all.into_iter().map(|arguments| fusion(&sandbox, arguments)));
    insta::assert_snapshot!(shown, @r#"
    exit 2
    [stderr]
    error: a conversation needs a terminal
    hint: send one prompt: fusion ollama run "Why is the sky blue?"
    "#);
}

#[test]
fn sessions_are_listed_shown_and_removed() {
    let sandbox = Sandbox::new();
    insta::assert_snapshot!(fusion(&sandbox, ["chat", "ls"]), @"
    exit 0
    [stdout]
    SERVICE  NAME  MODEL  QUESTIONS  CHANGED
    ");
    std::fs::create_dir_all(directory(&sandbox)).expect("writable");
    let lines = [
        r#"{"service":"mlx","model":"tiny","system":"Be brief."}"#,
        r#"{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:,"}},{"type":"text","text":"What\nis it?"}]}"#,
        r#"{"role":"assistant","content":"A stub.\n"}"#,
        r#"{"role":"user","#,
    ];
    std::fs::write(directory(&sandbox).join("one.jsonl"), lines.join("\n")).expect("writable");
    let commands = [
        vec!["chat", "ls"],
        vec!["mlx", "chat", "ls"],
        vec!["ollama", "chat", "ls"],
        vec!["chat", "show", "one"],
        vec!["chat", "show", "one", "--markdown"],
        vec!["chat", "show", "two"],
        vec!["chat", "show", "../x"],
        vec!["chat", "rm", "one"],
        vec!["chat", "rm", "one", "--yes"],
        vec!["chat", "rm", "one", "--yes"],
    ];
    let shown = commands.map(|command| (command.join(" "), fusion(&sandbox, command)));
    insta::assert_snapshot!(support::table(shown), @"
    # chat ls
    exit 0
    [stdout]
    SERVICE  NAME  MODEL  QUESTIONS  CHANGED
    mlx      one   tiny   1          just now
    # mlx chat ls
    exit 0
    [stdout]
    SERVICE  NAME  MODEL  QUESTIONS  CHANGED
    mlx      one   tiny   1          just now
    # ollama chat ls
    exit 0
    [stdout]
    SERVICE  NAME  MODEL  QUESTIONS  CHANGED
    # chat show one
    exit 0
    [stdout]
    > [1 image]
    > What
    > is it?
    A stub.
    [stderr]
    warning: skipped 1 line of the session that cannot be read; the file keeps them
    # chat show one --markdown
    exit 0
    [stdout]
    # tiny

    ## System

    Be brief.

    ## Question

    [1 image]
    What
    is it?

    ## Answer

    A stub.
    [stderr]
    warning: skipped 1 line of the session that cannot be read; the file keeps them
    # chat show two
    exit 2
    [stderr]
    error: there is no session two
    hint: list the sessions: fusion chat ls
    # chat show ../x
    exit 2
    [stderr]
    error: `../x` cannot be the name of a session
    hint: a name has letters, digits, `-`, `_` and `.`, and begins with none of `-` and `.`
    # chat rm one
    exit 2
    [stderr]
    error: cannot ask whether to remove one: there is no terminal
    hint: pass --yes to remove it without confirmation
    # chat rm one --yes
    exit 0
    [stdout]
    removed one
    # chat rm one --yes
    exit 2
    [stderr]
    error: there is no session one
    hint: list the sessions: fusion chat ls
    ");
    assert!(names(&sandbox).is_empty());
}

#[test]
fn list_of_sessions_is_json() {
    let sandbox = Sandbox::new();
    std::fs::create_dir_all(directory(&sandbox)).expect("writable");
    std::fs::write(directory(&sandbox).join("one.jsonl"), "{\"service\":\"mlx\",\"model\":\"tiny\"}\n")
        .expect("writable");
    let mut rows = fusion(&sandbox, ["chat", "ls", "--json"]).assert_code(0).json();
    assert!(rows[0]["changed"].as_str().is_some_and(|changed| changed.ends_with('Z')));
    rows[0]["changed"] = "[TIME]".into();
    insta::assert_snapshot!(rows, @r#"[{"changed":"[TIME]","damaged_lines":0,"model":"tiny","questions":0,"runtime":"mlx","service":"mlx","session":"one"}]"#);
}

#[test]
fn a_missing_session_to_continue_is_told() {
    let sandbox = Sandbox::new();
    let chat = Chat::start(&sandbox, "--continue");
    insta::assert_snapshot!(chat.ends(2).replace('\r', ""), @"
    error: there is no session yet of ollama
    hint: start one without --continue
    ");
}

#[test]
fn a_dumb_terminal_gets_no_escape_codes() {
    let sandbox = running(&[]);
    let mut chat = Chat::script(&sandbox, Terminal::open(), "TERM=dumb exec \"$0\" ollama chat -s one");
    chat.asks("one");
    let shown = chat.leaves();
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
    down(&sandbox);
}
