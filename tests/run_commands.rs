//! `fusion <runtime> run`: what is sent, what is printed where, and how it ends.

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::stub_server::{End, Framing, Reply, StubServer};
use support::terminal::Terminal;
use support::{Finished, Invocation, PATIENCE, Sandbox, processes};

/// One event with a piece of text.
fn text(text: &str) -> String {
    event(&json!({ "content": text }), &Value::Null)
}

fn event(delta: &Value, finish_reason: &Value) -> String {
    let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish_reason });
    format!("data: {}\n\n", json!({ "object": "chat.completion.chunk", "choices": [choice] }))
}

/// The end of an answer.
fn finish(reason: &str) -> String {
    event(&json!({}), &json!(reason)) + "data: [DONE]\n\n"
}

/// A stream of these pieces of text.
fn stream(pieces: &[&str]) -> Reply {
    Reply::stream(pieces.iter().map(|piece| text(piece)).chain([finish("stop")]))
}

/// A sandbox in which Ollama is a stub server.
struct Asked {
    sandbox: Sandbox,
    server: StubServer,
}

impl Asked {
    fn with(replies: impl IntoIterator<Item = Reply>) -> Self {
        Self::configured("", replies)
    }

    fn configured(config: &str, replies: impl IntoIterator<Item = Reply>) -> Self {
        let asked = Self { sandbox: Sandbox::new(), server: StubServer::start(replies) };
        let port = asked.server.port();
        asked.sandbox.write_config(&format!("[ollama_server]\nport = {port}\n{config}"));
        asked
    }

    fn invocation<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Invocation {
        self.sandbox.fusion(["ollama", "run"].into_iter().chain(arguments))
    }

    #[track_caller]
    fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Finished {
        self.invocation(arguments).run()
    }

    /// With the streams of the caller's choice.
    fn command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = self.invocation(arguments).into_command();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// The request that a dry run prints.
#[track_caller]
fn dry_run(sandbox: &Sandbox, arguments: &[&str], stdin: &str) -> Value {
    let arguments = ["ollama", "run", "--dry-run"].iter().chain(arguments).copied();
    sandbox.fusion(arguments).stdin(stdin).run().assert_code(0).json()
}

/// What the user asks, as a dry run prints it.
#[track_caller]
fn asked(sandbox: &Sandbox, arguments: &[&str], stdin: &str) -> Value {
    dry_run(sandbox, arguments, stdin)["messages"].as_array().unwrap().last().unwrap()["content"].clone()
}

#[track_caller]
fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "the program does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
}

// What is sent.

#[test]
fn the_request_is_made_of_the_configuration() {
    let sandbox = Sandbox::without_config();
    sandbox.fusion(["ollama", "run", "--dry-run", "Hello"]).run().assert(
        0,
        "{\n  \"messages\": [\n    {\n      \"content\": \"You are a helpful assistant.\",\n      \"role\": \"system\"\n    },\n    {\n      \
         \"content\": \"Hello\",\n      \"role\": \"user\"\n    }\n  ],\n  \"model\": \"llama3.2:3b\",\n  \"stream\": false,\n  \
         \"temperature\": 0.8\n}\n",
        "",
    );
}

#[test]
fn what_is_sent_is_what_a_dry_run_prints() {
    let asked = Asked::with([Reply::json(
        200,
        r#"{"choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}]}"#,
    )]);
    asked.run(["Hello", "--seed", "7"]).assert(0, "Hi\n", "");
    let request = asked.server.request();
    assert_eq!(request.line, "POST /v1/chat/completions HTTP/1.1");
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("accept-encoding"), Some("identity"));
    assert_eq!(request.header("content-length"), Some(request.body.len().to_string().as_str()));
    assert_eq!(request.json(), dry_run(&asked.sandbox, &["Hello", "--seed", "7"], ""));
}

#[test]
fn the_command_line_wins_over_a_kept_prompt_and_that_over_the_configuration() {
    let sandbox = Sandbox::without_config();
    sandbox.write_config(
        "[ollama_run]\nmodel = \"a\"\nsystem_prompt = \"one\"\ntemperature = 0.1\nmax_tokens = 10\nstop = [\"x\"]\nstream = true\n\
         extra = { keep_alive = \"5m\", top_k = 3 }\n\n[prompts.short]\nsystem = \"two\"\nmodel = \"b\"\ntemperature = 0.2\n\
         template = \"Shorten: {input}!\"\n",
    );
    let body = dry_run(&sandbox, &["Hi"], "");
    assert_eq!(
        body,
        json!({
            "model": "a", "temperature": 0.1, "max_tokens": 10, "stop": ["x"], "stream": true, "keep_alive": "5m", "top_k": 3,
            "stream_options": { "include_usage": true },
            "messages": [{ "role": "system", "content": "one" }, { "role": "user", "content": "Hi" }],
        })
    );
    let body = dry_run(&sandbox, &["Hi", "--prompt", "short"], "");
    assert_eq!((&body["model"], &body["temperature"]), (&json!("b"), &json!(0.2)));
    assert_eq!(body["messages"][0]["content"], "two");
    assert_eq!(body["messages"][1]["content"], "Shorten: Hi!");
    let flags = [
        "Hi",
        "--prompt",
        "short",
        "-m",
        "c",
        "-t",
        "0",
        "-s",
        "",
        "--max-tokens",
        "5",
        "--top-p",
        "0.5",
        "--seed",
        "9",
        "--stop",
        "y",
        "--stop",
        "z",
        "--no-stream",
        "-o",
        "top_k=null",
        "-o",
        "num=[1]",
        "-o",
        "word=two words",
    ];
    assert_eq!(
        dry_run(&sandbox, &flags, ""),
        json!({
            "model": "c", "temperature": 0.0, "max_tokens": 5, "top_p": 0.5, "seed": 9, "stop": ["y", "z"], "stream": false,
            "keep_alive": "5m", "num": [1], "word": "two words",
            "messages": [{ "role": "user", "content": "Shorten: Hi!" }],
        })
    );
}

#[test]
fn a_short_name_stands_for_a_model() {
    let sandbox = Sandbox::without_config();
    sandbox.write_config("[aliases]\nsmall = \"qwen3:0.6b\"\n");
    assert_eq!(dry_run(&sandbox, &["Hi", "-m", "small"], "")["model"], "qwen3:0.6b");
}

#[test]
fn a_prompt_that_is_not_kept_is_named_with_those_that_are() {
    let sandbox = Sandbox::without_config();
    sandbox.write_config(
        "[prompts.short]\ntemplate = \"Shorten: {input}\"\n\n[prompts.joke]\ntemplate = \"Tell a joke.\"\n",
    );
    sandbox.fusion(["ollama", "run", "--prompt", "shrot", "Hi"]).run().assert(
        2,
        "",
        "error: there is no prompt `shrot` in the configuration\nhint: there are: joke, short\n",
    );
    // One that needs no input is complete; one that does is not.
    assert_eq!(asked(&sandbox, &["--prompt", "joke"], ""), "Tell a joke.");
    assert_eq!(asked(&sandbox, &["--prompt", "joke", "About cats."], ""), "Tell a joke.\n\nAbout cats.");
    sandbox.fusion(["ollama", "run", "--prompt", "short", "--dry-run"]).run().assert(
        2,
        "",
        "error: the prompt is empty\nhint: give it as an argument, on standard input, or with --file\n",
    );
}

#[test]
fn numbers_out_of_range_are_refused_by_name() {
    let sandbox = Sandbox::new();
    for (arguments, complaint) in [
        (["-t", "-1"], "expected a number from 0 to 2"),
        (["-t", "nan"], "expected a number from 0 to 2"),
        (["--top-p", "1.1"], "expected a number from 0 to 1"),
        (["--max-tokens", "0"], "0 is not in 1.."),
        (["--timeout", "0"], "expected a number of seconds above 0"),
        (["--reasoning", "loud"], "expected `show` or `hide`"),
        (["-o", "novalue"], "expected KEY=VALUE"),
    ] {
        let finished =
            sandbox.fusion(["ollama", "run", "Hi", "--dry-run"].into_iter().chain(arguments)).run();
        let finished = finished.assert_code(2);
        assert!(finished.stderr().contains(complaint), "{finished:?}");
    }
}

// The prompt.

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
fn a_silent_pipe_is_named() {
    let asked = Asked::with([stream(&["Hi"])]);
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
    assert!(wait(&mut child).success());
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

// What is printed.

#[test]
fn the_text_ends_with_one_newline() {
    for (pieces, stdout) in [
        (&["Hi", " you"][..], "Hi you\n"),
        (&["Hi\n"], "Hi\n"),
        (&["Hi", "\n\n"], "Hi\n\n"),
        (&["", " "], " \n"),
        (&["<thin", ""], "<thin\n"),
    ] {
        Asked::with([stream(pieces)]).run(["Hello", "--stream"]).assert(0, stdout, "");
    }
}

#[test]
fn characters_cut_anywhere_arrive_whole_and_bytes_pass_unchanged_through_a_pipe() {
    let wanted = "grün 漢字 🙂 \u{1b}]52;c;AAAA\u{7} \u{1b}[31mred\u{9b}31m\r\n\u{0}";
    // Every byte of the reply is a chunk of its own.
    let bytes: Vec<Vec<u8>> =
        (text(wanted) + &finish("stop")).into_bytes().iter().map(|byte| vec![*byte]).collect();
    let asked = Asked::with([Reply::stream(bytes)]);
    let finished = asked.run(["Hello", "--stream"]).assert_code(0);
    assert_eq!(finished.stdout(), wanted.to_owned() + "\n");
    let finished = asked.run(["Hello", "--stream", "--json"]).assert_code(0);
    assert_eq!(finished.json()["text"], wanted);
}

#[test]
fn the_text_is_written_as_it_arrives() {
    let asked = Asked::with([Reply::stream([text("Hel"), text("lo")]).end(End::Hang)]);
    let mut child = asked.command(["Hello", "--stream"]).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut begun = [0; 5];
    // The server is still at it: this would wait for ever if the text were held back.
    stdout.read_exact(&mut begun).unwrap();
    assert_eq!(&begun, b"Hello");
    processes::send(i32::try_from(child.id()).unwrap(), Signal::SIGTERM);
    wait(&mut child);
}

#[test]
fn json_is_one_object_with_the_fields_of_the_contract() {
    let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5}}\n\n";
    let pieces = [
        event(&json!({ "role": "assistant", "reasoning": "Hm" }), &Value::Null),
        text("Hi"),
        event(&json!({}), &json!("stop")),
        usage.to_owned(),
        "data: [DONE]\n\n".to_owned(),
    ];
    let asked = Asked::with([Reply::stream(pieces)]);
    let finished = asked.run(["Hello", "--stream", "--json", "-m", "a-model"]).assert_code(0);
    assert_eq!(finished.stderr(), "");
    assert_eq!(finished.stdout().lines().count(), 1);
    let mut object = finished.json();
    let timing = object.as_object_mut().unwrap().remove("timing").unwrap();
    assert_eq!(
        object,
        json!({
            "runtime": "ollama", "model": "a-model", "text": "Hi", "reasoning": "Hm", "finish_reason": "stop",
            "usage": { "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5 },
        })
    );
    let mut names: Vec<&String> = timing.as_object().unwrap().keys().collect();
    names.sort();
    assert_eq!(names, ["first_token_ms", "tokens_per_second", "total_ms"]);
    assert!(timing["first_token_ms"].as_f64().unwrap() <= timing["total_ms"].as_f64().unwrap());
}

#[test]
fn verbose_tells_statistics_on_stderr() {
    let usage = json!({ "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5 });
    let choice = json!({ "message": { "content": "Hi" }, "finish_reason": "stop" });
    let asked = Asked::with([Reply::json(200, json!({ "choices": [choice], "usage": usage }).to_string())]);
    let finished = asked.run(["Hello", "-v"]).assert_code(0);
    assert_eq!(finished.stdout(), "Hi\n");
    let stderr = finished.stderr();
    assert!(stderr.starts_with("first token after "), "{stderr}");
    assert!(stderr.contains("tokens/s, 3 tokens of prompt, 2 of answer, "), "{stderr}");
    assert!(stderr.ends_with(" s in all\n"), "{stderr}");
}

#[test]
fn reasoning_is_hidden_or_shown_on_stderr_and_never_on_stdout() {
    let by_field = [
        event(&json!({ "reasoning": "One\u{1b}[31m " }), &Value::Null),
        event(&json!({ "reasoning": "two" }), &Value::Null),
        text("Hi"),
        finish("stop"),
    ];
    let by_block = [text("<th"), text("ink>One"), text(" two</thi"), text("nk>\n\nHi"), finish("stop")];
    for reply in [Reply::stream(by_field), Reply::stream(by_block)] {
        let asked = Asked::with([reply]);
        asked.run(["Hello", "--stream"]).assert(0, "Hi\n", "");
        asked.run(["Hello", "--stream", "--reasoning", "show"]).assert(0, "Hi\n", "One two\n");
        assert!(
            asked.run(["Hello", "--stream", "--json"]).json()["reasoning"].as_str().unwrap().ends_with("two")
        );
    }
}

#[test]
fn a_cut_answer_is_a_warning_and_with_strict_a_failure() {
    let warning = "warning: the answer was cut at the token limit; --max-tokens raises it\n";
    let asked = Asked::with([Reply::stream([text("Hi"), finish("length")])]);
    asked.run(["Hello", "--stream"]).assert(0, "Hi\n", warning);
    asked.run(["Hello", "--stream", "--strict"]).assert(9, "Hi\n", warning);
}

#[test]
fn a_prompt_that_the_server_cut_is_a_warning() {
    let reply = |tokens: u64| {
        let usage = json!({ "prompt_tokens": tokens, "completion_tokens": 1, "total_tokens": tokens + 1 });
        let choice = json!({ "message": { "content": "Hi" }, "finish_reason": "stop" });
        Reply::json(200, json!({ "choices": [choice], "usage": usage }).to_string())
    };
    let prompt = "words ".repeat(6000);
    let asked = Asked::with([reply(6000), reply(4096)]);
    asked.invocation([]).stdin(prompt.clone()).run().assert(0, "Hi\n", "");
    asked.invocation([]).stdin(prompt).run().assert(
        0,
        "Hi\n",
        "warning: the server counted 4096 tokens in a prompt of 36000 characters: it has probably cut the prompt to its context \
         length\n",
    );
}

#[test]
fn stop_texts_end_the_answer_even_where_the_server_ignores_them() {
    let asked = Asked::with([Reply::stream([text("one EN"), text("D two")]).end(End::Hang)]);
    asked.run(["Hello", "--stream", "--stop", "END"]).assert(0, "one \n", "");
    asked.server.wait_until_client_is_gone();
}

// Readers and terminals.

#[test]
fn a_reader_that_has_enough_ends_it_quietly_and_closes_the_connection() {
    let mut reply = Reply::stream([text("0123456789")]);
    reply.times = 1_000_000;
    let asked = Asked::with([reply]);
    let mut child = asked.command(["Hello", "--stream"]).spawn().unwrap();
    let mut head = [0; 10];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut head).unwrap();
    drop(stdout);
    let status = wait(&mut child);
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((status.code(), stderr.as_str(), &head), (Some(0), "", b"0123456789"));
    asked.server.wait_until_client_is_gone();
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_an_error() {
    let asked = Asked::with([stream(&["Hi"])]);
    for arguments in [&["Hello", "--stream"][..], &["Hello", "--stream", "--json"]] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = asked.command(arguments.iter().copied()).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            "error: cannot write to standard output\n  caused by: No space left on device (os error 28)\n"
        );
    }
}

#[test]
fn a_slow_reader_and_a_pipe_that_does_not_block_lose_nothing() {
    let mut reply = Reply::stream([text(&"x".repeat(1000))]);
    reply.times = 500;
    reply.pieces.push(text("").into_bytes());
    // Longer than any pipe holds.
    let asked = Asked::with([Reply::stream(
        std::iter::repeat_n(text(&"x".repeat(1000)), 500).chain([finish("stop")]),
    )]);
    let (mut reader, writer) = std::io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let mut child = asked.command(["Hello", "--stream", "--timeout", "1"]).stdout(writer).spawn().unwrap();
    // As long as nobody reads, the answer cannot be written, and that is no silence of the server.
    std::thread::sleep(Duration::from_millis(1200));
    let mut output = Vec::new();
    reader.read_to_end(&mut output).unwrap();
    assert!(wait(&mut child).success());
    assert_eq!(output.len(), 500_001);
}

#[test]
fn control_characters_are_not_obeyed_by_a_terminal() {
    let asked = Asked::with([stream(&["a\u{1b}]52;c;AA", "AA\u{7}b\u{1b}", "[31mc\u{8}\td\n"])]);
    let terminal = Terminal::open();
    let mut child = asked.command(["Hello", "--stream"]).stdout(terminal.stream()).spawn().unwrap();
    assert!(wait(&mut child).success());
    assert_eq!(terminal.finish(), "abc\td\r\n");
}

#[test]
fn a_spinner_turns_on_a_terminal_until_the_answer_begins_and_leaves_nothing() {
    let asked = Asked::with([stream(&[]).framing(Framing::None).end(End::Hang)]);
    let terminal = Terminal::open();
    let mut child = interactive(&asked, &terminal);
    terminal.wait_for("waiting for Ollama 0.");
    terminal.wait_for("waiting for Ollama 1.");
    processes::send(i32::try_from(child.id()).unwrap(), Signal::SIGINT);
    wait(&mut child);
    let shown = terminal.finish();
    assert!(shown.ends_with("\r\u{1b}[K\u{1b}[0m"), "the line is erased: {shown:?}");
}

#[test]
fn a_spinner_tells_how_far_the_prompt_was_read_and_makes_way_for_the_text() {
    let pieces = [": keepalive 5/10\n\n".to_owned(), text("Hi"), finish("stop")];
    let mut reply = Reply::stream(pieces);
    reply.drip = Some(Duration::from_millis(5));
    let asked = Asked::with([reply]);
    let terminal = Terminal::open();
    let mut child = interactive(&asked, &terminal);
    assert!(wait(&mut child).success());
    let shown = terminal.finish();
    assert!(shown.contains("reading the prompt, 5 of 10 tokens"), "{shown:?}");
    assert!(shown.ends_with("\r\u{1b}[KHi\r\n"), "{shown:?}");
}

/// On a terminal with all three streams.
fn interactive(asked: &Asked, terminal: &Terminal) -> Child {
    let mut command = asked.command(["Hello", "--stream"]);
    command.env("TERM", "xterm").stdin(terminal.stream()).stdout(terminal.stream()).stderr(terminal.stream());
    command.spawn().unwrap()
}

#[test]
fn a_dumb_terminal_gets_no_spinner() {
    let mut reply = stream(&["Hi"]);
    reply.drip = Some(Duration::from_millis(2));
    let asked = Asked::with([reply]);
    let terminal = Terminal::open();
    let mut command = asked.command(["Hello", "--stream"]);
    command.env("TERM", "dumb").stderr(terminal.stream());
    assert!(wait(&mut command.spawn().unwrap()).success());
    drop(command);
    assert_eq!(terminal.finish(), "");
}

#[test]
#[cfg(target_os = "linux")]
fn control_c_closes_the_connection_and_keeps_the_text() {
    let asked = Asked::with([Reply::stream([text("Hello"), text(" there")]).end(End::Hang)]);
    let mut terminal = Terminal::open();
    // A session of its own whose terminal this is: only then does the key become a signal.
    let inner = asked.command(["Hello", "--stream"]);
    let mut command = Command::new("setsid");
    command.args(["--ctty", "--wait"]).arg(inner.get_program()).args(inner.get_args());
    let environment = inner.get_envs().filter_map(|(name, value)| Some((name, value?)));
    command.env_clear().envs(environment).current_dir(asked.sandbox.project());
    command.stdin(terminal.stream()).stdout(terminal.stream()).stderr(terminal.stream());
    let mut child = command.spawn().unwrap();
    terminal.wait_for("Hello there");
    terminal.send(b"\x03");
    asked.server.wait_until_client_is_gone();
    assert_eq!(wait(&mut child).signal(), Some(Signal::SIGINT as i32));
    drop(command);
    assert!(terminal.finish().contains("Hello there"));
}

#[test]
fn a_signal_ends_it_at_once_and_closes_the_connection() {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143), (Signal::SIGHUP, 129)] {
        let asked = Asked::with([Reply::stream([text("Hello")]).end(End::Hang)]);
        let mut child = asked.command(["Hello", "--stream"]).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut begun = [0; 5];
        stdout.read_exact(&mut begun).unwrap();
        processes::send(i32::try_from(child.id()).unwrap(), signal);
        let status = wait(&mut child);
        assert_eq!(status.signal(), Some(signal as i32), "{code}");
        asked.server.wait_until_client_is_gone();
    }
}

// Servers and their moods.

#[test]
fn any_byte_counts_as_life_and_silence_does_not() {
    // A comment every 200 ms for longer than the limit, then silence.
    let comments = std::iter::repeat_n(": keepalive\n\n", 10);
    let mut reply = Reply::stream(comments).end(End::Hang);
    reply.drip = Some(Duration::from_millis(5));
    let asked = Asked::with([reply]);
    let begun = Instant::now();
    let finished = asked.run(["Hello", "--stream", "--timeout", "0.5"]).assert_code(124);
    let port = asked.server.port();
    assert_eq!(
        finished.stderr(),
        format!(
            "error: timed out: nothing came from 127.0.0.1:{port} for 0.5 s\nhint: --timeout SECONDS waits longer\n"
        )
    );
    assert!(begun.elapsed() > Duration::from_millis(500 + 10 * 18 * 5));
}

#[test]
fn a_long_wait_for_the_first_byte_is_told() {
    let asked = Asked::with([stream(&[]).framing(Framing::None).end(End::Hang)]);
    let port = asked.server.port();
    asked.run(["Hello", "--stream", "--timeout", "5.2"]).assert_code(124).assert(
        124,
        "",
        &format!(
            "still waiting for Ollama; it may be loading the model or reading the prompt\nerror: timed out: nothing came from \
             127.0.0.1:{port} for [TIME] s\nhint: --timeout SECONDS waits longer\n"
        ),
    );
}

#[test]
fn a_server_that_does_not_close_after_the_finish_reason_is_not_waited_for() {
    let asked = Asked::with([Reply::stream([text("Hi"), event(&json!({}), &json!("stop"))]).end(End::Hang)]);
    asked.run(["Hello", "--stream"]).assert(0, "Hi\n", "");
}

#[test]
fn done_ends_the_answer_at_once() {
    let asked = Asked::with([stream(&["Hi"]).end(End::Hang)]);
    asked.run(["Hello", "--stream"]).assert(0, "Hi\n", "");
    asked.server.wait_until_client_is_gone();
}

#[test]
fn a_server_that_dies_in_mid_stream_leaves_what_had_arrived() {
    for (framing, end) in [
        (Framing::Chunked, End::Rst),
        (Framing::ChunkedTruncated, End::Fin),
        (Framing::ContentLengthShort, End::Fin),
        (Framing::Close, End::Fin),
    ] {
        let asked = Asked::with([Reply::stream([text("Hel"), text("lo")]).framing(framing).end(end)]);
        asked.run(["Hello", "--stream"]).assert(
            8,
            "Hello\n",
            "error: the answer ended before it was finished: no finish reason was sent\nhint: its log may say why: fusion \
             ollama log\n",
        );
    }
}

#[test]
fn a_whole_reply_that_breaks_off_is_no_answer() {
    let whole = r#"{"choices":[{"message":{"content":"Hi"},"finish_reason":"st"#;
    for framing in
        [Framing::Close, Framing::ContentLength, Framing::ContentLengthShort, Framing::ChunkedTruncated]
    {
        let asked = Asked::with([Reply::json(200, whole).framing(framing)]);
        asked.run(["Hello"]).assert(
            8,
            "",
            "error: the answer ended before it was finished: no finish reason was sent\nhint: its log may say why: fusion \
             ollama log\n",
        );
    }
    let asked = Asked::with([Reply::json(200, "")]);
    asked.run(["Hello"]).assert(
        8,
        "",
        "error: the reply is empty\nhint: its log may say why: fusion ollama log\n",
    );
}

#[test]
fn a_server_answers_in_its_own_way_whatever_was_asked() {
    let whole =
        json!({ "choices": [{ "message": { "content": "<think>Hm</think>Hi" }, "finish_reason": "stop" }] });
    let asked = Asked::with([Reply::json(200, format!("\n {whole}"))]);
    asked.run(["Hello", "--stream"]).assert(0, "Hi\n", "");
    let asked = Asked::with([stream(&["Hi"])]);
    asked.run(["Hello", "--no-stream"]).assert(0, "Hi\n", "");
}

#[test]
fn an_endless_line_is_refused_in_little_memory() {
    let mut reply = Reply::stream([vec![b'x'; 1 << 20]]);
    reply.times = 200;
    let asked = Asked::with([reply]);
    asked.run(["Hello", "--stream"]).assert(8, "", "error: an event longer than 16 MiB\n");
    let mut reply = Reply::json(200, vec![b'['; 1 << 20]);
    reply.times = 200;
    let asked = Asked::with([reply]);
    asked.run(["Hello"]).assert(8, "", "error: an event longer than 16 MiB\n");
}

#[test]
fn a_page_is_not_dumped() {
    let mut reply = Reply::json(
        200,
        "<!doctype html><html><head><title>Router login</title></head><body>...</body></html>",
    );
    reply.content_type = "text/html".to_owned();
    let asked = Asked::with([reply]);
    asked.run(["Hello"]).assert(8, "", "error: the reply is not an answer: an HTML page: Router login\n");
}

#[test]
fn a_proxy_in_the_environment_is_not_used() {
    let asked = Asked::with([stream(&["Hi"])]);
    let nobody = "http://127.0.0.1:9";
    let mut invocation = asked.invocation(["Hello", "--stream"]);
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy", "HTTPS_PROXY"] {
        invocation = invocation.env(name, nobody);
    }
    invocation.run().assert(0, "Hi\n", "");
}

// The schema.

const SCHEMA: &str = r#"{
    "type": "object",
    "properties": { "name": { "type": "string" }, "age": { "type": "integer", "minimum": 0 } },
    "required": ["name", "age"],
    "additionalProperties": false
}"#;

#[test]
fn an_answer_is_checked_by_the_schema_whatever_the_server_did_with_it() {
    let answer = |text: &str| {
        let asked = Asked::with([stream(&[text])]);
        std::fs::write(asked.sandbox.project().join("person.json"), SCHEMA).unwrap();
        let finished = asked.run(["Who?", "--stream", "--schema", "person.json"]);
        let sent = asked.server.request().json();
        assert_eq!(sent["response_format"]["type"], "json_schema");
        assert_eq!(
            sent["response_format"]["json_schema"]["schema"],
            serde_json::from_str::<Value>(SCHEMA).unwrap()
        );
        finished
    };
    let good = r#"{"name": "Ada", "age": 36}"#;
    answer(good).assert(0, &format!("{good}\n"), "");
    let bad = r#"{"name": "Ada", "age": -1}"#;
    answer(bad).assert(
        8,
        &format!("{bad}\n"),
        "error: the answer does not satisfy the schema: /age must be at least 0, not -1\n",
    );
    answer("I am Ada.").assert(
        8,
        "I am Ada.\n",
        "error: the answer does not satisfy the schema: it is not JSON: expected value at line 1 column 1\n",
    );
}

#[test]
fn a_schema_that_cannot_be_checked_is_refused_before_anything_is_sent() {
    let sandbox = Sandbox::new();
    let run = |schema: &str| {
        std::fs::write(sandbox.project().join("schema.json"), schema).unwrap();
        sandbox.fusion(["ollama", "run", "Who?", "--schema", "schema.json"]).run()
    };
    run(r#"{"properties": {"a": {"pattern": "^x"}}}"#).assert(
        2,
        "",
        "error: the schema schema.json cannot be used: the keyword at #/properties/a/pattern is not supported\n",
    );
    run("{").assert(
        2,
        "",
        "error: the schema schema.json is not JSON\n  caused by: EOF while parsing an object at line 1 column 1\n",
    );
}

// Starting.

#[test]
fn without_a_server_it_is_started_first_with_the_model_that_was_asked_for() {
    let sandbox = Sandbox::new();
    let model = sandbox.root().join("other");
    std::fs::create_dir(&model).unwrap();
    for file in std::fs::read_dir(sandbox.model()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), model.join(file.file_name())).unwrap();
    }
    let name = model.to_str().unwrap();
    let models = format!("models={name},{}", sandbox.model().display());
    sandbox.faults("mlx", &[&models]);
    let finished = sandbox.fusion(["mlx", "run", "Hello", "-m", name]).run().assert_code(0);
    assert_eq!(finished.stderr(), "mlx is not running, and is started first\n");
    assert_eq!(sandbox.record("mlx").unwrap()["model"], name);
    // Now it runs, and nothing is said; another model is announced.
    let finished = sandbox.fusion(["mlx", "run", "Hello", "-m", name]).run().assert_code(0);
    assert_eq!(finished.stderr(), "");
    let other = sandbox.model();
    let finished =
        sandbox.fusion(["mlx", "run", "Hello", "-m", other.to_str().unwrap()]).run().assert_code(0);
    assert_eq!(
        finished.stderr(),
        format!("mlx was started with {name}, and loads {} instead now\n", other.display())
    );
    // The record says where it is, whatever the configuration says.
    sandbox.write_config("[mlx_server]\nport = 9\n");
    sandbox.fusion(["mlx", "run", "Hello", "-m", name]).run().assert_code(0);
    sandbox.fusion(["mlx", "down"]).run().assert_code(0);
    sandbox.assert_nothing_runs();
}

#[test]
fn a_server_that_is_not_to_be_started_is_not() {
    let sandbox = Sandbox::new();
    sandbox.fusion(["ollama", "run", "Hello", "--no-up"]).run().assert(
        3,
        "",
        "error: ollama is not running\nhint: start it: fusion ollama up\n",
    );
    sandbox.write_config(&format!(
        "[ollama_server]\nport = {}\n[ollama_run]\nauto_up = false\n",
        sandbox.port("ollama")
    ));
    sandbox.fusion(["ollama", "run", "Hello"]).run().assert_code(3);
    sandbox.assert_nothing_runs();
}

#[test]
fn a_model_that_is_not_there_is_neither_asked_for_nor_fetched() {
    let sandbox = Sandbox::new();
    let missing = "error: the model org/name is not there\nhint: fetch it: fusion mlx pull org/name\n";
    // Nothing is started for it, ...
    sandbox.fusion(["mlx", "run", "Hello", "-m", "org/name"]).run().assert_code(7);
    sandbox.assert_nothing_runs();
    // ... what fusion started is not asked, ...
    sandbox.fusion(["mlx", "up"]).run().assert_code(0);
    sandbox.fusion(["mlx", "run", "Hello", "-m", "org/name"]).run().assert(7, "", missing);
    sandbox.fusion(["mlx", "down"]).run().assert_code(0);
    // ... and what somebody else started only if it lists it.
    let list = |id: &str| Reply::json(200, json!({ "object": "list", "data": [{ "id": id }] }).to_string());
    let server = StubServer::at(sandbox.port("mlx"), [list("other"), list("org/name"), stream(&["Hi"])]);
    sandbox.fusion(["mlx", "run", "Hello", "-m", "org/name"]).run().assert(7, "", missing);
    assert_eq!(server.request().line, "GET /v1/models HTTP/1.1");
    sandbox.fusion(["mlx", "run", "Hello", "-m", "org/name", "--stream"]).run().assert(0, "Hi\n", "");
}
