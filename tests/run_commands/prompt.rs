//! Of what a prompt is made: words, standard input, files.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::stubbed_ollama::{StubbedOllama, stream};
use crate::support::terminal::Terminal;
use crate::support::{Sandbox, wait_for_end};
use crate::{asked, dry_run};

#[test]
fn words_are_joined_and_standard_input_is_appended() {
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
    for (arguments, stdin) in
        [(vec![], ""), (vec![], " \n\n"), (vec!["-"], ""), (vec!["  "], ""), (vec!["--no-stdin"], "x")]
    {
        let arguments = ["ollama", "run"].into_iter().chain(arguments);
        sandbox.fusion(arguments).stdin(stdin).run().assert(
            2,
            "",
            "error: the prompt is empty\nhint: give it as an argument, on standard input, or with --file\n",
        );
    }
}

#[test]
fn a_terminal_a_socket_and_a_device_are_not_read_beside_a_prompt() {
    let sandbox = Sandbox::new();
    let dry_run = || {
        let mut command = sandbox.fusion(["ollama", "run", "--dry-run", "Hello"]).into_command();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let terminal = Terminal::open();
    // The other end of the socket stays open and silent: who reads from it waits for ever.
    let (_other, socket) = UnixStream::pair().unwrap();
    let device = File::open("/dev/zero").unwrap();
    for stdin in [terminal.stream(), Stdio::from(std::os::fd::OwnedFd::from(socket)), Stdio::from(device)] {
        let output = dry_run().stdin(stdin).output().unwrap();
        let body: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(body["messages"][1]["content"], "Hello");
        assert_eq!(output.stderr, b"");
    }
    // A file is.
    std::fs::write(sandbox.project().join("input"), "from a file\n").unwrap();
    let output = dry_run().stdin(File::open(sandbox.project().join("input")).unwrap()).output().unwrap();
    let body: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(body["messages"][1]["content"], "Hello\n\nfrom a file");
}

#[test]
fn without_a_prompt_a_terminal_is_not_read() {
    let sandbox = Sandbox::new();
    let terminal = Terminal::open();
    let mut command = sandbox.fusion(["ollama", "run"]).into_command();
    let output = command.stdin(terminal.stream()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "error: no prompt was given\nhint: give it as an argument, or pipe it in; `-` reads it from the terminal\n"
    );
}

#[test]
fn an_image_is_a_prompt_on_a_terminal_too() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.project().join("photo.png"), b"\x89PNG\r\n\x1a\n").unwrap();
    let terminal = Terminal::open();
    let mut command = sandbox.fusion(["ollama", "run", "--dry-run", "-f", "photo.png"]).into_command();
    let output = command.stdin(terminal.stream()).output().unwrap();
    let body: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(body["messages"][1]["content"][0]["type"], "image_url");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn a_pipe_that_falls_silent_is_named_once() {
    let asked = StubbedOllama::with([stream(&["Hi"])]);
    let mut child = asked.command(["Hello"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"at ").unwrap();
    let said = b"waiting for standard input to end; --no-stdin leaves it alone\n";
    let mut message = vec![0; said.len()];
    child.stderr.as_mut().unwrap().read_exact(&mut message).unwrap();
    assert_eq!(message, said);
    stdin.write_all(b"last").unwrap();
    drop(stdin);
    let mut rest = String::new();
    child.stderr.take().unwrap().read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
    assert!(wait_for_end(&mut child).success());
    assert_eq!(asked.server.request().json()["messages"][1]["content"], "Hello\n\nat last");
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

/// Anything else kills the thread of `mlx_lm.server` that generates.
#[test]
fn what_stops_an_answer_is_sent_as_text() {
    let sandbox = Sandbox::new();
    let stop = |value: &str| dry_run(&sandbox, &["Hi", "-o", &format!("stop={value}")], "")["stop"].clone();
    assert_eq!(stop("5"), "5");
    assert_eq!(stop("END"), "END");
    assert_eq!(stop("[1, \"a\", null]"), json!(["1", "a"]));
    assert_eq!(stop("null"), Value::Null);
    sandbox.write_config("[ollama_run]\nextra_body = { stop = 7 }\n");
    assert_eq!(dry_run(&sandbox, &["Hi"], "")["stop"], "7");
}

#[test]
fn a_silent_pipe_is_named() {
    let asked = StubbedOllama::with([stream(&["Hi"])]);
    let mut child = asked.command(["Hello"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let mut message = vec![0; 18];
    stderr.read_exact(&mut message).unwrap();
    assert_eq!(String::from_utf8_lossy(&message), "waiting for standa");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"at last").unwrap();
    drop(stdin);
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "rd input to end; --no-stdin leaves it alone\n");
    assert!(wait_for_end(&mut child).success());
    assert_eq!(asked.server.request().json()["messages"][1]["content"], "Hello\n\nat last");
}

#[test]
fn what_is_not_text_is_refused_by_name() {
    let sandbox = Sandbox::new();
    sandbox.fusion(["ollama", "run"]).stdin(b"ab\xff\xfe".to_vec()).run().assert(
        1,
        "",
        "error: standard input is neither UTF-8 text (see byte 2) nor a known image\nhint: images may be PNG, JPEG, GIF or WebP\n",
    );
    sandbox.fusion(["ollama", "run", "Hi", "-f", "nowhere.txt"]).run().assert(
        1,
        "",
        "error: cannot read nowhere.txt\n  caused by: No such file or directory (os error 2)\n",
    );
    std::fs::write(sandbox.project().join("large.txt"), vec![b'x'; (20 << 20) + 1]).unwrap();
    sandbox.fusion(["ollama", "run", "Hi", "-f", "large.txt"]).run().assert(
        1,
        "",
        "error: large.txt is larger than 20 MiB, which is the limit\n",
    );
}

#[test]
fn files_are_quoted_with_their_names_and_images_become_parts() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.project().join("notes.md"), "# Notes\n").unwrap();
    std::fs::write(sandbox.project().join("list.txt"), "a\nb").unwrap();
    // The name says text, the content is what counts.
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
fn files_are_a_part_of_what_a_kept_prompt_is_about() {
    let sandbox = Sandbox::new();
    sandbox.write_config("[prompts.review]\ntemplate = \"Review this:\\n\\n{input}\\n\\nBe brief.\"\n");
    std::fs::write(sandbox.project().join("a.md"), "text").unwrap();
    assert_eq!(
        asked(&sandbox, &["--prompt", "review", "-f", "a.md", "above all its style"], ""),
        "Review this:\n\na.md:\n```\ntext\n```\n\nabove all its style\n\nBe brief."
    );
}
