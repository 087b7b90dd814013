//! What `fusion <runtime> run` prints where: text, JSON, reasoning, warnings; to pipes, files and terminals.

mod support;

use std::io::Read;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::stub_server::{End, Framing, Response, StubServer};
use support::stubbed_ollama::{StubbedOllama, event, finish, stream, text};
use support::terminal::Terminal;
use support::{Sandbox, processes, wait_for_end};

#[test]
fn the_text_ends_with_one_newline() {
    for (pieces, stdout) in [
        (&["Hi", " you"][..], "Hi you\n"),
        (&["Hi\n"], "Hi\n"),
        (&["Hi", "\n\n"], "Hi\n\n"),
        (&["", " "], " \n"),
        (&["<thin", ""], "<thin\n"),
    ] {
        StubbedOllama::with([stream(pieces)]).run(["Hello", "--stream"]).assert_stdout(stdout);
    }
}

#[test]
fn characters_cut_anywhere_arrive_whole_and_bytes_pass_unchanged_through_a_pipe() {
    let wanted = "grün 漢字 🙂 \u{1b}]52;c;AAAA\u{7} \u{1b}[31mred\u{9b}31m\r\n\u{0}";
    // Every byte of the reply is a chunk of its own.
    let bytes: Vec<Vec<u8>> =
        (text(wanted) + &finish("stop")).into_bytes().iter().map(|byte| vec![*byte]).collect();
    let asked = StubbedOllama::with([Response::stream(bytes)]);
    let finished = asked.run(["Hello", "--stream"]).assert_code(0);
    assert_eq!(finished.stdout(), wanted.to_owned() + "\n");
    let finished = asked.run(["Hello", "--stream", "--json"]).assert_code(0);
    assert_eq!(finished.json()["text"], wanted);
}

#[test]
fn a_character_cut_between_two_events_is_replaced() {
    let half = |unit: &str| text("x").replace("\"x\"", &format!("\"{unit}\""));
    let asked = StubbedOllama::with([Response::stream([
        text("a"),
        half("\\ud83d"),
        half("\\ude42b"),
        finish("stop"),
    ])]);
    asked.run(["Hello", "--stream"]).assert_stdout("a\u{fffd}\u{fffd}b\n");
}

#[test]
fn the_text_is_written_as_it_arrives() {
    let asked = StubbedOllama::with([Response::stream([text("Hel"), text("lo")]).end(End::Hang)]);
    let mut child = asked.command(["Hello", "--stream"]).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut begun = [0; 5];
    // The server is still at it: this would wait for ever if the text were held back.
    stdout.read_exact(&mut begun).unwrap();
    assert_eq!(&begun, b"Hello");
    processes::send(i32::try_from(child.id()).unwrap(), Signal::SIGTERM);
    wait_for_end(&mut child);
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
    let asked = StubbedOllama::with([Response::stream(pieces)]);
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
fn when_the_first_token_of_a_whole_reply_was_made_is_not_known() {
    let usage = json!({ "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5 });
    let choice = json!({ "message": { "content": "Hi" }, "finish_reason": "stop" });
    let response = json!({ "choices": [choice], "usage": usage }).to_string();
    // Whatever was asked for.
    for stream in ["--stream", "--no-stream"] {
        let asked = StubbedOllama::with([Response::json(200, response.clone())]);
        let timing = &asked.run(["Hello", "--json", stream]).assert_code(0).json()["timing"];
        assert_eq!(timing["first_token_ms"], Value::Null);
        assert!(timing["total_ms"].as_f64() > Some(0.0), "{timing}");
        assert!(timing["tokens_per_second"].as_f64() > Some(0.0), "{timing}");
    }
}

#[test]
fn the_speed_of_a_single_token_is_not_known() {
    let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1,\"total_tokens\":4}}\n\n";
    let pieces =
        [text("Hi"), event(&json!({}), &json!("stop")), usage.to_owned(), "data: [DONE]\n\n".to_owned()];
    let asked = StubbedOllama::with([Response::stream(pieces)]);
    let timing = &asked.run(["Hello", "--json", "--stream"]).assert_code(0).json()["timing"];
    assert!(timing["first_token_ms"].as_f64() > Some(0.0), "{timing}");
    assert_eq!(timing["tokens_per_second"], Value::Null);
}

#[test]
fn verbose_tells_statistics_on_stderr() {
    let usage = json!({ "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5 });
    let choice = json!({ "message": { "content": "Hi" }, "finish_reason": "stop" });
    let asked = StubbedOllama::with([Response::json(
        200,
        json!({ "choices": [choice], "usage": usage }).to_string(),
    )]);
    let finished = asked.run(["Hello", "-v"]).assert_code(0);
    assert_eq!(finished.stdout(), "Hi\n");
    let stderr = finished.stderr();
    assert!(stderr.contains(" tokens/s, 3 tokens of prompt, 2 of answer, "), "{stderr}");
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
    for response in [Response::stream(by_field), Response::stream(by_block)] {
        let asked = StubbedOllama::with([response]);
        asked.run(["Hello", "--stream"]).assert_stdout("Hi\n");
        asked.run(["Hello", "--stream", "--reasoning", "show"]).assert(0, "Hi\n", "One two\n");
        assert!(
            asked.run(["Hello", "--stream", "--json"]).json()["reasoning"].as_str().unwrap().ends_with("two")
        );
    }
}

#[test]
fn a_cut_answer_is_a_warning_and_with_strict_a_failure() {
    let warning = "warning: the answer was cut at the token limit; --max-tokens raises it\n";
    let asked = StubbedOllama::with([Response::stream([text("Hi"), finish("length")])]);
    asked.run(["Hello", "--stream"]).assert(0, "Hi\n", warning);
    asked.run(["Hello", "--stream", "--strict"]).assert(9, "Hi\n", warning);
}

#[test]
fn a_prompt_that_the_server_cut_is_a_warning() {
    let response = |tokens: u64| {
        let usage = json!({ "prompt_tokens": tokens, "completion_tokens": 1, "total_tokens": tokens + 1 });
        let choice = json!({ "message": { "content": "Hi" }, "finish_reason": "stop" });
        Response::json(200, json!({ "choices": [choice], "usage": usage }).to_string())
    };
    // As many as Ollama reads by default, of a prompt that is somewhat longer.
    let cut = StubbedOllama::with([response(4096)]);
    let prose = "It was a bright cold day in April. ".repeat(850);
    let told = cut.invocation([]).stdin(prose.clone()).run().assert_code(0).stderr();
    assert!(told.contains("counted 4096 tokens in a prompt of 29750 characters"), "{told}");
    StubbedOllama::with([response(5000)]).invocation([]).stdin(prose).run().assert_stdout("Hi\n");
    let prompt = "words ".repeat(6000);
    let asked = StubbedOllama::with([response(6000), response(4096)]);
    asked.invocation([]).stdin(prompt.clone()).run().assert_stdout("Hi\n");
    asked.invocation([]).stdin(prompt).run().assert(
        0,
        "Hi\n",
        "warning: the server counted 4096 tokens in a prompt of 36000 characters: it has probably cut the prompt to its context \
         length\n",
    );
}

#[test]
fn stop_texts_end_the_answer_even_where_the_server_ignores_them() {
    let asked = StubbedOllama::with([Response::stream([text("one EN"), text("D two")]).end(End::Hang)]);
    asked.run(["Hello", "--stream", "--stop", "END"]).assert_stdout("one \n");
    asked.server.wait_until_client_is_gone();
}

#[test]
fn a_reader_that_has_enough_ends_it_quietly_and_closes_the_connection() {
    let mut response = Response::stream([text("0123456789")]);
    response.times = 1_000_000;
    let asked = StubbedOllama::with([response]);
    let mut child = asked.command(["Hello", "--stream"]).spawn().unwrap();
    let mut head = [0; 10];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut head).unwrap();
    drop(stdout);
    let status = wait_for_end(&mut child);
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((status.code(), stderr.as_str(), &head), (Some(0), "", b"0123456789"));
    asked.server.wait_until_client_is_gone();
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_an_error() {
    let asked = StubbedOllama::with([stream(&["Hi"])]);
    for arguments in [&["Hello", "--stream"][..], &["Hello", "--stream", "--json"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
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
    // Longer than any pipe holds.
    let asked = StubbedOllama::with([Response::stream(
        std::iter::repeat_n(text(&"x".repeat(1000)), 500).chain([finish("stop")]),
    )]);
    let (mut reader, writer) = std::io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let mut child = asked.command(["Hello", "--stream", "--timeout", "2"]).stdout(writer).spawn().unwrap();
    // As long as nobody reads, the answer cannot be written, and that is no silence of the server.
    std::thread::sleep(Duration::from_millis(2500));
    let mut output = Vec::new();
    reader.read_to_end(&mut output).unwrap();
    assert!(wait_for_end(&mut child).success());
    assert_eq!(output.len(), 500_001);
}

#[test]
fn control_characters_are_not_obeyed_by_a_terminal() {
    let asked = StubbedOllama::with([stream(&["a\u{1b}]52;c;AA", "AA\u{7}b\u{1b}", "[31mc\u{8}\td\n"])]);
    let terminal = Terminal::open();
    let mut child = asked.command(["Hello", "--stream"]).stdout(terminal.stream()).spawn().unwrap();
    assert!(wait_for_end(&mut child).success());
    assert_eq!(terminal.finish(), "abc\td\r\n");
}

#[test]
fn a_spinner_turns_on_a_terminal_until_the_answer_begins_and_leaves_nothing() {
    let asked = StubbedOllama::with([stream(&[]).framing(Framing::None).end(End::Hang)]);
    let terminal = Terminal::open();
    let mut child = interactive(&asked, &terminal);
    terminal.wait_for("waiting for Ollama 0.");
    terminal.wait_for("waiting for Ollama 1.");
    asked.server.request();
    processes::send(i32::try_from(child.id()).unwrap(), Signal::SIGINT);
    wait_for_end(&mut child);
    let shown = terminal.finish();
    assert!(shown.ends_with("\r\u{1b}[K\u{1b}[0m"), "the line is erased: {shown:?}");
}

#[test]
fn a_spinner_does_not_wrap_in_a_narrow_window() {
    let asked = StubbedOllama::with([stream(&[]).framing(Framing::None).end(End::Hang)]);
    let terminal = Terminal::of_columns(12);
    let mut child = interactive(&asked, &terminal);
    terminal.wait_for("waiting f");
    asked.server.request();
    processes::send(i32::try_from(child.id()).unwrap(), Signal::SIGINT);
    wait_for_end(&mut child);
    let shown = terminal.finish();
    assert!(!shown.contains("waiting fo"), "{shown:?}");
}

#[test]
fn a_spinner_tells_how_far_the_prompt_was_read_and_makes_way_for_the_text() {
    let pieces = [": keepalive 5/10\n\n".to_owned(), text("Hi"), finish("stop")];
    let mut response = Response::stream(pieces);
    response.drip = Some(Duration::from_millis(5));
    let asked = StubbedOllama::with([response]);
    let terminal = Terminal::open();
    let mut child = interactive(&asked, &terminal);
    assert!(wait_for_end(&mut child).success());
    let shown = terminal.finish();
    assert!(shown.contains("reading the prompt, 5 of 10 tokens"), "{shown:?}");
    assert!(shown.ends_with("\r\u{1b}[KHi\r\n"), "{shown:?}");
}

/// On a terminal with all three streams.
fn interactive(asked: &StubbedOllama, terminal: &Terminal) -> Child {
    let mut command = asked.command(["Hello", "--stream"]);
    command.env("TERM", "xterm").stdin(terminal.stream()).stdout(terminal.stream()).stderr(terminal.stream());
    command.spawn().unwrap()
}

#[test]
fn a_dumb_terminal_gets_no_spinner() {
    let mut response = stream(&["Hi"]);
    response.drip = Some(Duration::from_millis(2));
    let asked = StubbedOllama::with([response]);
    let terminal = Terminal::open();
    let mut command = asked.command(["Hello", "--stream"]);
    command.env("TERM", "dumb").stderr(terminal.stream());
    assert!(wait_for_end(&mut command.spawn().unwrap()).success());
    drop(command);
    assert_eq!(terminal.finish(), "");
}

#[test]
fn control_c_closes_the_connection_and_keeps_the_text() {
    let asked = StubbedOllama::with([Response::stream([text("Hello"), text(" there")]).end(End::Hang)]);
    let mut terminal = Terminal::open();
    let shell = terminal.script(&asked.sandbox, "-c", "exec \"$0\" ollama run Hello --stream");
    terminal.wait_for("Hello there");
    terminal.send(b"\x03");
    asked.server.wait_until_client_is_gone();
    shell.finish().assert_code(130);
    assert!(terminal.finish().contains("Hello there"));
}

/// `mlx_lm.server` goes on with an answer for nobody unless it streams it, so it is asked for a stream even where the
/// answer is printed whole.
#[test]
fn an_answer_that_is_printed_whole_can_be_interrupted_too() {
    let sandbox = Sandbox::new();
    let models = json!({ "object": "list", "data": [{ "id": "org/name" }] }).to_string();
    let responses = [
        Response::json(200, models),
        stream(&["Hel", "lo"]),
        Response::stream([text("Hello"), text(" there")]).end(End::Hang),
    ];
    let server = StubServer::at(sandbox.port("mlx"), [0, 1, 0, 2].map(|index| responses[index].clone()));
    let run = || sandbox.fusion(["mlx", "run", "Hello", "-m", "org/name", "--no-stream"]);
    run().run().assert_stdout("Hello\n");
    assert_eq!(server.request().line, "GET /v1/models HTTP/1.1");
    let request = server.request().json();
    assert_eq!(request["stream"], true);
    assert_eq!(request, run().arg("--dry-run").run().assert_code(0).json());

    let terminal = Terminal::open();
    let mut command = run().into_command();
    command.env("TERM", "xterm").stdin(Stdio::null()).stdout(terminal.stream()).stderr(terminal.stream());
    let mut child = command.spawn().unwrap();
    terminal.wait_for("writing the answer");
    assert!(!terminal.text().contains("Hello"), "{}", terminal.text());
    processes::send(i32::try_from(child.id()).unwrap(), Signal::SIGINT);
    server.wait_until_client_is_gone();
    assert_eq!(wait_for_end(&mut child).signal(), Some(Signal::SIGINT as i32));
    drop(command);
    let shown = terminal.finish();
    assert!(shown.contains("\r\u{1b}[KHello there\r\n"), "{shown:?}");
}

#[test]
fn an_interrupt_keeps_what_had_arrived_for_json_too() {
    let asked = StubbedOllama::with([Response::stream([text("Hello")]).end(End::Hang)]);
    let terminal = Terminal::open();
    let mut command = asked.command(["Hello", "--json", "--no-stream"]);
    command.env("TERM", "xterm").stderr(terminal.stream());
    let mut child = command.spawn().unwrap();
    terminal.wait_for("writing the answer");
    processes::send(i32::try_from(child.id()).unwrap(), Signal::SIGINT);
    asked.server.wait_until_client_is_gone();
    assert_eq!(wait_for_end(&mut child).signal(), Some(Signal::SIGINT as i32));
    let mut stdout = String::new();
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&answer["text"], &answer["finish_reason"]), (&json!("Hello"), &Value::Null));
}

#[test]
fn a_reader_that_goes_while_nothing_comes_ends_it_quietly() {
    let asked = StubbedOllama::with([Response::stream([text("Hello")]).end(End::Hang)]);
    for stream in ["--stream", "--no-stream"] {
        let mut child = asked.command(["Hello", stream]).spawn().unwrap();
        drop(child.stdout.take());
        assert_eq!(wait_for_end(&mut child).code(), Some(0));
        asked.server.wait_until_client_is_gone();
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!(stderr, "");
    }
}

#[test]
fn a_reader_that_goes_before_anything_is_printed_ends_it_quietly() {
    for arguments in [&["Hello", "--no-stream"][..], &["Hello", "--stream", "--json"]] {
        let mut response = Response::stream([text("0123456789")]);
        response.times = 10_000_000;
        let asked = StubbedOllama::with([response]);
        let mut child = asked.command(arguments.iter().copied()).spawn().unwrap();
        drop(child.stdout.take());
        assert_eq!(wait_for_end(&mut child).code(), Some(0));
        asked.server.wait_until_client_is_gone();
    }
}

#[test]
fn an_interrupt_keeps_the_reasoning_for_json_too() {
    let thought = event(&json!({ "role": "assistant", "reasoning": "Hm" }), &Value::Null);
    let asked = StubbedOllama::with([Response::stream([thought]).end(End::Hang)]);
    let terminal = Terminal::open();
    let mut command = asked.command(["Hello", "--stream", "--json"]);
    command.env("TERM", "xterm").stderr(terminal.stream());
    let mut child = command.spawn().unwrap();
    terminal.wait_for("thinking");
    processes::send(i32::try_from(child.id()).unwrap(), Signal::SIGINT);
    assert_eq!(wait_for_end(&mut child).signal(), Some(Signal::SIGINT as i32));
    asked.server.wait_until_client_is_gone();
    let mut stdout = String::new();
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&answer["text"], &answer["reasoning"]), (&json!(""), &json!("Hm")));
}

#[test]
fn a_program_that_was_stopped_for_longer_than_the_limit_finds_what_came_meanwhile() {
    let mut response = stream(&["He", "llo"]);
    response.drip = Some(Duration::from_millis(1));
    let asked = StubbedOllama::with([response]);
    let mut child = asked.command(["Hello", "--stream", "--timeout", "1"]).spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 2]).unwrap();
    processes::send(pid, Signal::SIGSTOP);
    std::thread::sleep(Duration::from_millis(1500));
    processes::send(pid, Signal::SIGCONT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), String::from_utf8_lossy(&output.stdout).as_ref(), output.stderr.as_slice()),
        (Some(0), "llo\n", &b""[..])
    );
}

#[test]
fn a_server_that_lingers_after_the_answer_is_left() {
    let end = event(&json!({}), &json!("stop"));
    let comments = std::iter::repeat_n(": still here\n\n".to_owned(), 20_000);
    let mut response = Response::stream([text("Hi"), end].into_iter().chain(comments));
    response.drip = Some(Duration::from_millis(1));
    let asked = StubbedOllama::with([response]);
    asked.run(["Hello", "--stream"]).assert_stdout("Hi\n");
    asked.server.wait_until_client_is_gone();
}

#[test]
fn json_holds_no_character_that_a_terminal_would_obey() {
    let sly = "a\u{9d}52;c;AA\u{9c}\u{9b}2J\u{7f}b";
    let asked = StubbedOllama::with([stream(&[sly])]);
    for arguments in [&["Hello", "--stream", "--json"][..], &[sly, "--dry-run"]] {
        let finished = asked.run(arguments.iter().copied()).assert_code(0);
        assert!(
            finished.stdout().contains("a\\u009d52;c;AA\\u009c\\u009b2J\\u007fb"),
            "{}",
            finished.stdout()
        );
        assert!(!finished.stdout().contains(|c: char| c.is_control() && c != '\n'));
    }
    assert_eq!(asked.run(["Hello", "--stream", "--json"]).json()["text"], sly);
}

#[test]
fn a_tool_cannot_forge_a_message() {
    let call =
        json!({ "index": 0, "id": "1", "function": { "name": "x\nerror: disk full", "arguments": "{\n}" } });
    let asked = StubbedOllama::with([Response::stream([event(
        &json!({ "tool_calls": [call] }),
        &json!("tool_calls"),
    )])]);
    asked.run(["Hello", "--stream"]).assert(
        0,
        "",
        "warning: the model asks for the tool x error: disk full({ }), which is not called\n",
    );
}

#[test]
fn a_signal_ends_it_at_once_and_closes_the_connection() {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143), (Signal::SIGHUP, 129)] {
        let asked = StubbedOllama::with([Response::stream([text("Hello")]).end(End::Hang)]);
        let mut child = asked.command(["Hello", "--stream"]).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut begun = [0; 5];
        stdout.read_exact(&mut begun).unwrap();
        processes::send(i32::try_from(child.id()).unwrap(), signal);
        let status = wait_for_end(&mut child);
        assert_eq!(status.signal(), Some(signal as i32), "{code}");
        asked.server.wait_until_client_is_gone();
    }
}
