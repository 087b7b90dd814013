//! Parts of a prompt: words, standard input, files.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::stubbed_ollama::{StubbedOllama, stream};
use crate::support::terminal::Terminal;
use crate::support::{Sandbox, same_output, wait_for_end};
use crate::{asked, dry_run};

#[test]
fn words_are_joined_and_stdin_is_appended() {
    let sandbox = Sandbox::new();
    assert_eq!(asked(&sandbox, &["Why", "is  the", "sky blue?"], ""), "Why is  the sky blue?");
    assert_eq!(asked(&sandbox, &["Explain:"], "one\ntwo\n"), "Explain:\n\none\ntwo");
    assert_eq!(asked(&sandbox, &[], "Hello\r\n"), "Hello");
    assert_eq!(asked(&sandbox, &["-"], "Hello"), "Hello");
    assert_eq!(asked(&sandbox, &["Explain:", "--no-stdin"], "ignored"), "Explain:");
    assert_eq!(asked(&sandbox, &["--", "-m"], ""), "-m");
}

#[test]
fn an_empty_prompt_is_refused() {
    let sandbox = Sandbox::new();
    let empty = [(&[][..], ""), (&[], " \n\n"), (&["-"], ""), (&["  "], ""), (&["--no-stdin"], "x")];
    let refused = empty.map(|(arguments, stdin)| {
        let arguments = ["ollama", "run"].into_iter().chain(arguments.iter().copied());
        sandbox.fusion(arguments).stdin(stdin).run_in_process()
    });
    insta::assert_snapshot!(same_output(refused), @"
    exit 2
    [stderr]
    error: the prompt is empty
    hint: pass it as an argument, on standard input, or with --file
    ");
}

#[test]
fn of_stdin_only_pipes_and_files_are_appended() {
    let sandbox = Sandbox::new();
    let content = |stdin: Stdio| {
        let run = sandbox.fusion(["ollama", "run", "--dry-run", "Hello"]);
        let finished = run.change(|command| _ = command.stdin(stdin)).run().assert_code(0);
        assert_eq!(finished.stderr(), "");
        finished.json()["messages"][1]["content"].clone()
    };
    let terminal = Terminal::open();
    // The other end of the socket stays open and silent: to read from it would take forever.
    let (_other, socket) = UnixStream::pair().unwrap();
    let device = File::open("/dev/zero").unwrap();
    for stdin in [terminal.stream(), Stdio::from(std::os::fd::OwnedFd::from(socket)), Stdio::from(device)] {
        assert_eq!(content(stdin), "Hello");
    }
    std::fs::write(sandbox.project().join("input"), "from a file\n").unwrap();
    let file = File::open(sandbox.project().join("input")).unwrap();
    assert_eq!(content(file.into()), "Hello\n\nfrom a file");
}

#[test]
fn without_a_prompt_a_terminal_is_not_read() {
    let sandbox = Sandbox::new();
    let terminal = Terminal::open();
    let stdin = terminal.stream();
    let run = sandbox.fusion(["ollama", "run"]).change(|command| _ = command.stdin(stdin));
    insta::assert_snapshot!(run.run(), @"
    exit 2
    [stderr]
    error: no prompt was given
    hint: pass it as an argument or on standard input; `-` reads it from the terminal
    ");
}

/// Without IUTF8, a terminal erases one byte of a character.
#[test]
fn half_a_typed_character_is_explained() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::open();
    let stdin = terminal.stream();
    let run = sandbox
        .fusion(["ollama", "run", "--dry-run", "-"])
        .change(|command| _ = command.stdin(stdin))
        .start();
    terminal.send(b"gr\xc3\n\x04");
    insta::assert_snapshot!(run.finish(), @"
    exit 1
    [stderr]
    error: standard input is neither UTF-8 text (see byte 2) nor an image of a known format
    hint: a corrected character may be left in half: make the terminal erase whole ones: stty iutf8
    ");
}

#[test]
fn an_image_alone_is_a_prompt() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.project().join("photo.png"), b"\x89PNG\r\n\x1a\n").unwrap();
    let terminal = Terminal::open();
    let stdin = terminal.stream();
    let run = sandbox.fusion(["ollama", "run", "--dry-run", "-f", "photo.png"]);
    let finished = run.change(|command| _ = command.stdin(stdin)).run().assert_code(0);
    assert_eq!(finished.stderr(), "");
    assert_eq!(finished.json()["messages"][1]["content"][0]["type"], "image_url");
}

#[test]
fn a_silent_pipe_is_named_once() {
    let asked = StubbedOllama::with([stream(&["Hi"])]);
    // One is silent from the beginning, one falls silent.
    let runs = ["", "at last "].map(|first| {
        let mut child = asked.command(["Hello"]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(first.as_bytes()).unwrap();
        (first, child)
    });
    let named = runs.map(|(first, mut child)| {
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let (mut line, mut rest) = (String::new(), String::new());
        stderr.read_line(&mut line).unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"the end").unwrap();
        drop(stdin);
        stderr.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
        assert!(wait_for_end(&mut child).success());
        let content = &asked.server.request().json()["messages"][1]["content"];
        assert_eq!(*content, format!("Hello\n\n{first}the end"));
        line
    });
    assert_eq!(named[0], named[1]);
    insta::assert_snapshot!(named[0], @"waiting for standard input to end; do not read it with --no-stdin");
}

/// The input of a `while read` loop: a shell has read the first line.
#[test]
fn a_partly_read_file_is_left_alone() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.project().join("lines"), "one\ntwo\nthree\n").unwrap();
    let mut lines = File::open(sandbox.project().join("lines")).unwrap();
    lines.read_exact(&mut [0; 4]).unwrap();
    let shared = lines.try_clone().unwrap();
    let run = sandbox.fusion(["ollama", "run", "--dry-run", "one"]);
    let finished = run.change(|command| _ = command.stdin(shared)).run().assert_code(0);
    assert_eq!(finished.json()["messages"][1]["content"], "one");
    insta::assert_snapshot!(finished.stderr(), @"standard input is not appended: another program is reading the file, such as a `while read` loop");
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "two\nthree\n");
}

#[test]
fn a_pipe_that_never_ends_times_out() {
    let sandbox = Sandbox::new();
    let (_writer, stdin) = nix::unistd::pipe().map(|(reader, writer)| (writer, reader)).unwrap();
    let run = sandbox.fusion(["ollama", "run", "--timeout", "0.2", "Hello"]);
    insta::assert_snapshot!(run.change(|command| _ = command.stdin(stdin)).run(), @"
    exit 124
    [stderr]
    error: timed out: no data from standard input for [TIME] s
    hint: do not read standard input with --no-stdin
    ");
}

#[test]
fn a_named_pipe_without_a_writer_is_named() {
    let sandbox = Sandbox::new();
    nix::unistd::mkfifo(&sandbox.project().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let run = sandbox.fusion(["ollama", "run", "--no-stdin", "-f", "fifo", "Hello"]);
    insta::assert_snapshot!(run.run(), @"
    exit 1
    [stderr]
    error: fifo is a FIFO, not a file, and no program writes to it
    ");
}

#[test]
fn verbose_tells_what_was_appended() {
    let sandbox = Sandbox::new();
    let run = sandbox.fusion(["-v", "ollama", "run", "--dry-run", "Explain:"]).stdin("one\ntwo\n");
    insta::assert_snapshot!(run.run_in_process().stderr(), @"appended 8 B from standard input");
}

#[test]
fn the_last_of_several_options_counts() {
    let sandbox = Sandbox::new();
    for name in ["a.txt", "b.txt"] {
        std::fs::write(sandbox.project().join(name), name).unwrap();
    }
    let arguments =
        ["-m", "one", "-m", "two", "-t", "1", "-t", "0", "-f", "a.txt", "-f", "b.txt", "--stop", "x"];
    let body =
        dry_run(&sandbox, &[&arguments[..], &["--stop", "y", "-s", "one", "-s", "", "Hi"]].concat(), "");
    assert_eq!(body["model"], "two");
    assert_eq!(body["temperature"], 0.0);
    assert_eq!(body["stop"], json!(["x", "y"]));
    let content = "a.txt:\n```\na.txt\n```\n\nb.txt:\n```\nb.txt\n```\n\nHi";
    assert_eq!(body["messages"], json!([{ "role": "user", "content": content }]));
}

/// Other types kill the generating thread of `mlx_lm.server`.
#[test]
fn stop_sequences_are_sent_as_text() {
    let sandbox = Sandbox::new();
    let stop = |value: &str| dry_run(&sandbox, &["Hi", "-o", &format!("stop={value}")], "")["stop"].clone();
    assert_eq!(stop("5"), "5");
    assert_eq!(stop("END"), "END");
    assert_eq!(stop("[1, \"a\", null]"), json!(["1", "a"]));
    assert_eq!(stop("null"), Value::Null);
    sandbox.write_config("[ollama_run]\nextra_body = { stop = 7 }\n");
    assert_eq!(dry_run(&sandbox, &["Hi"], "")["stop"], "7");
}

/// Ollama and llama-server stop at them before the first token.
#[test]
fn empty_stop_sequences_are_left_out() {
    let sandbox = Sandbox::new();
    let stop = |words: &[&str]| dry_run(&sandbox, &[&["Hi"], words].concat(), "")["stop"].clone();
    assert_eq!(stop(&["--stop", "", "--stop", "a"]), json!(["a"]));
    assert_eq!(stop(&["--stop", ""]), json!([]));
    assert_eq!(stop(&["-o", "stop="]), Value::Null);
    sandbox.write_config("[ollama_run]\nstop = [\"\", \"b\"]\n");
    assert_eq!(stop(&[]), json!(["b"]));
}

#[test]
fn input_that_cannot_be_sent_is_refused() {
    let sandbox = Sandbox::new();
    let bytes = sandbox.fusion(["ollama", "run"]).stdin(b"ab\xff\xfe".to_vec());
    insta::assert_snapshot!(bytes.run_in_process(), @"
    exit 1
    [stderr]
    error: standard input is neither UTF-8 text (see byte 2) nor an image of a known format
    hint: use a PNG, JPEG, GIF or WebP image
    ");
    let missing = sandbox.fusion(["ollama", "run", "Hi", "-f", "nowhere.txt"]);
    insta::assert_snapshot!(missing.run_in_process(), @"
    exit 1
    [stderr]
    error: cannot read nowhere.txt
      caused by: No such file or directory (os error [ERRNO])
    ");
    std::fs::write(sandbox.project().join("large.txt"), vec![b'x'; (20 << 20) + 1]).unwrap();
    let large = sandbox.fusion(["ollama", "run", "Hi", "-f", "large.txt"]);
    insta::assert_snapshot!(large.run_in_process(), @"
    exit 1
    [stderr]
    error: large.txt is larger than the limit of 20 MiB
    ");
}

#[test]
fn files_are_quoted_and_images_become_parts() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.project().join("notes.md"), "# Notes\n").unwrap();
    std::fs::write(sandbox.project().join("list.txt"), "a\nb").unwrap();
    // The content counts, not the name.
    std::fs::write(sandbox.project().join("photo.txt"), b"\x89PNG\r\n\x1a\n").unwrap();
    let quoted = "notes.md:\n```\n# Notes\n```\n\nlist.txt:\n```\na\nb\n```\n\nSummarise";
    assert_eq!(asked(&sandbox, &["-f", "notes.md", "-f", "list.txt", "Summarise"], ""), quoted);
    let image = json!({ "type": "image_url", "image_url": { "url": "data:image/png;base64,iVBORw0KGgo=" } });
    assert_eq!(
        asked(&sandbox, &["-f", "notes.md", "-f", "list.txt", "-f", "photo.txt", "Summarise"], ""),
        json!([image, { "type": "text", "text": quoted }])
    );
    assert_eq!(asked(&sandbox, &["-f", "photo.txt"], ""), json!([image]));
    assert_eq!(asked(&sandbox, &["-f", "list.txt"], ""), "list.txt:\n```\na\nb\n```");
}

#[test]
fn a_saved_prompt_takes_files_as_input() {
    let sandbox = Sandbox::new();
    sandbox.write_config("[prompts.review]\ntemplate = \"Review this:\\n\\n{input}\\n\\nBe brief.\"\n");
    std::fs::write(sandbox.project().join("a.md"), "text").unwrap();
    assert_eq!(
        asked(&sandbox, &["--prompt", "review", "-f", "a.md", "above all its style"], ""),
        "Review this:\n\na.md:\n```\ntext\n```\n\nabove all its style\n\nBe brief."
    );
}
