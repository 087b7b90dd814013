//! What `fusion <service> run` prints: text, JSON, reasoning, warnings; to pipes, files and terminals.

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
use support::{Sandbox, processes, same_output, wait_for_end};

/// A recorded response: an answer of 200 tokens in one event.
const BURST: &str = include_str!("cases/field/burst-tokens.http");

/// Texts of the spinner.
const WAITING: &str = "waiting for Ollama";
const PREFILL: &str = "processing the prompt: 5 of 10 tokens";
const REASONING: &str = "reasoning";
const RECEIVING: &str = "receiving the answer";

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
fn characters_cut_anywhere_arrive_whole() {
    let wanted = "grün 漢字 🙂 \u{1b}]52;c;AAAA\u{7} \u{1b}[31mred\u{9b}31m\r\n\u{0}";
    // Every byte of the response is a chunk of its own.
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
    let mut started = [0; 5];
    // The server has not finished: this would wait forever if the text were held back.
    stdout.read_exact(&mut started).unwrap();
    assert_eq!(&started, b"Hello");
    processes::send(i32::try_from(child.id()).unwrap(), Signal::SIGTERM);
    wait_for_end(&mut child);
}

#[test]
fn json_is_one_object_with_the_promised_fields() {
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
            "service": "ollama", "runtime": "ollama", "model": "a-model", "text": "Hi", "reasoning": "Hm", "finish_reason": "stop",
            "usage": { "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5 },
            "tool_calls": [], "context": { "size": null, "left": null },
        })
    );
    let mut names: Vec<&String> = timing.as_object().unwrap().keys().collect();
    names.sort();
    assert_eq!(names, ["first_token_ms", "tokens_per_second", "total_ms"]);
    assert!(timing["first_token_ms"].as_f64().unwrap() <= timing["total_ms"].as_f64().unwrap());
}

#[test]
fn a_whole_response_has_no_first_token_time() {
    let usage = json!({ "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5 });
    let choice = json!({ "message": { "content": "Hi" }, "finish_reason": "stop" });
    let response = json!({ "choices": [choice], "usage": usage }).to_string();
    // The response counts, not the flag.
    for stream in ["--stream", "--no-stream"] {
        let asked = StubbedOllama::with([Response::json(200, response.clone())]);
        let timing = &asked.run(["Hello", "--json", stream]).assert_code(0).json()["timing"];
        assert_eq!(timing["first_token_ms"], Value::Null);
        assert!(timing["total_ms"].as_f64() > Some(0.0), "{timing}");
        assert_eq!(timing["tokens_per_second"], Value::Null);
    }
}

/// Two hundred tokens in one read are no speed.
#[test]
fn a_burst_has_no_speed() {
    let response = Response { framing: Framing::Raw, ..Response::stream([BURST]) };
    let asked = StubbedOllama::with([response]);
    let timing = &asked.run(["Hello", "--json", "--stream"]).assert_code(0).json()["timing"];
    assert_eq!(timing["tokens_per_second"], Value::Null);
    assert!(timing["first_token_ms"].as_f64() > Some(0.0), "{timing}");
    let stderr = asked.run(["Hello", "--stream", "-v"]).stderr();
    assert!(stderr.contains(", - tokens/s, 20 prompt tokens, 200 generated"), "{stderr}");
}

#[test]
fn separate_arrivals_have_a_speed() {
    let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":40,\"total_tokens\":43}}\n\n";
    let end = [event(&json!({}), &json!("stop")), usage.to_owned()];
    // Each byte is sent alone. A reader that the machine keeps waiting still sees sixteen of the forty arrive.
    let response = Response {
        drip: Some(Duration::from_micros(1)),
        ..Response::stream((0..40).map(|_| text("Hi")).chain(end))
    };
    let asked = StubbedOllama::with([response]);
    let timing = &asked.run(["Hello", "--json", "--stream"]).assert_code(0).json()["timing"];
    assert!(timing["tokens_per_second"].as_f64() > Some(0.0), "{timing}");
}

#[test]
fn another_model_than_asked_is_a_warning() {
    let answer = |asked: &str, named: &str| {
        let choice = json!({ "index": 0, "delta": { "content": "Hi" }, "finish_reason": "stop" });
        let chunk = json!({ "model": named, "choices": [choice] });
        let stubbed = StubbedOllama::with([Response::stream([format!("data: {chunk}\n\n")])]);
        let finished = stubbed.run(["Hello", "--json", "-m", asked]).assert_code(0);
        assert_eq!(finished.json()["model"], named);
        finished.stderr()
    };
    insta::assert_snapshot!(answer("one", "other\u{1b}[2J"), @"warning: the server names other as the model that answered, not one");
    assert_eq!(answer("one", "One:latest"), "");
}

#[test]
fn a_single_token_has_no_speed() {
    let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1,\"total_tokens\":4}}\n\n";
    let pieces =
        [text("Hi"), event(&json!({}), &json!("stop")), usage.to_owned(), "data: [DONE]\n\n".to_owned()];
    let asked = StubbedOllama::with([Response::stream(pieces)]);
    let timing = &asked.run(["Hello", "--json", "--stream"]).assert_code(0).json()["timing"];
    assert!(timing["first_token_ms"].as_f64() > Some(0.0), "{timing}");
    assert_eq!(timing["tokens_per_second"], Value::Null);
}

#[test]
fn verbose_prints_statistics_on_stderr() {
    let usage = json!({ "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5 });
    let choice = json!({ "message": { "content": "Hi" }, "finish_reason": "stop" });
    let asked = StubbedOllama::with([Response::json(
        200,
        json!({ "choices": [choice], "usage": usage }).to_string(),
    )]);
    insta::assert_snapshot!(asked.run(["Hello", "-v"]), @"
    exit 0
    [stdout]
    Hi
    [stderr]
    - tokens/s, 3 prompt tokens, 2 generated, [TIME] s total
    ");
}

#[test]
fn reasoning_never_goes_to_stdout() {
    let by_field = [
        event(&json!({ "reasoning": "One\u{1b}[31m " }), &Value::Null),
        event(&json!({ "reasoning": "two" }), &Value::Null),
        text("Hi"),
        finish("stop"),
    ];
    let by_block = [text("<th"), text("ink>One"), text(" two</thi"), text("nk>\n\nHi"), finish("stop")];
    let shown = [Response::stream(by_field), Response::stream(by_block)].map(|response| {
        let asked = StubbedOllama::with([response]);
        asked.run(["Hello", "--stream"]).assert_stdout("Hi\n");
        let object = asked.run(["Hello", "--stream", "--json"]).assert_code(0).json();
        assert!(object["reasoning"].as_str().unwrap().ends_with("two"), "{object}");
        asked.run(["Hello", "--stream", "--reasoning", "show"])
    });
    insta::assert_snapshot!(same_output(shown), @"
    exit 0
    [stdout]
    Hi
    [stderr]
    One two
    ");
}

#[test]
fn a_cut_answer_is_a_failure_with_strict() {
    let asked = StubbedOllama::with([Response::stream([text("Hi"), finish("length")])]);
    let cut = asked.run(["Hello", "--stream"]);
    let strict = asked.run(["Hello", "--stream", "--strict"]).assert_code(9);
    assert_eq!((&strict.stdout, &strict.stderr), (&cut.stdout, &cut.stderr));
    insta::assert_snapshot!(cut, @"
    exit 0
    [stdout]
    Hi
    [stderr]
    warning: the answer was cut at the token limit; raise it with --max-tokens
    ");
}

#[test]
fn a_prompt_cut_by_the_server_is_reported() {
    let response = |tokens: u64| {
        let usage = json!({ "prompt_tokens": tokens, "completion_tokens": 1, "total_tokens": tokens + 1 });
        let choice = json!({ "message": { "content": "Hi" }, "finish_reason": "stop" });
        Response::json(200, json!({ "choices": [choice], "usage": usage }).to_string())
    };
    // Ollama reads 4096 tokens by default; the prompt is somewhat longer.
    let cut = StubbedOllama::with([response(4096)]);
    let prose = "It was a bright cold day in April. ".repeat(850);
    insta::assert_snapshot!(cut.invocation([]).stdin(prose.clone()).run_in_process(), @"
    exit 0
    [stdout]
    Hi
    [stderr]
    warning: Ollama counted 4,096 tokens in a prompt of 29,777 characters: it probably cut the prompt to its context; shorten the prompt, or use a longer context: fusion config set ollama_server.env.OLLAMA_CONTEXT_LENGTH 8192, then fusion ollama restart
    ");
    StubbedOllama::with([response(5000)]).invocation([]).stdin(prose).run_in_process().assert_stdout("Hi\n");
    let prompt = "words ".repeat(6000);
    let asked = StubbedOllama::with([response(6000)]);
    asked.invocation([]).stdin(prompt.clone()).run_in_process().assert_stdout("Hi\n");
    let asked = StubbedOllama::with([response(4096)]);
    insta::assert_snapshot!(asked.invocation([]).stdin(prompt).run_in_process(), @"
    exit 0
    [stdout]
    Hi
    [stderr]
    warning: Ollama counted 4,096 tokens in a prompt of 36,027 characters: it probably cut the prompt to its context; shorten the prompt, or use a longer context: fusion config set ollama_server.env.OLLAMA_CONTEXT_LENGTH 16384, then fusion ollama restart
    ");
}

#[test]
fn stop_ends_the_answer_without_the_servers_help() {
    let asked = StubbedOllama::with([Response::stream([text("one EN"), text("D two")]).end(End::Hang)]);
    asked.run(["Hello", "--stream", "--stop", "END"]).assert_stdout("one \n");
    asked.server.wait_for_disconnect();
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
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
    asked.server.wait_for_disconnect();
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_an_error() {
    let asked = StubbedOllama::with([stream(&["Hi"])]);
    let full = [&["Hello", "--stream"][..], &["Hello", "--stream", "--json"]].map(|arguments| {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let run = asked.invocation(arguments.iter().copied());
        run.change(|command| _ = command.stdout(full)).run()
    });
    insta::assert_snapshot!(same_output(full), @"
    exit 1
    [stderr]
    error: cannot write to standard output
      caused by: No space left on device (os error [ERRNO])
    ");
}

#[test]
fn slow_readers_of_nonblocking_pipes_lose_nothing() {
    // Longer than any pipe holds.
    let asked = StubbedOllama::with([Response::stream(
        std::iter::repeat_n(text(&"x".repeat(1000)), 500).chain([finish("stop")]),
    )]);
    let (mut reader, writer) = std::io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let mut child = asked.command(["Hello", "--stream", "--timeout", "0.5"]).stdout(writer).spawn().unwrap();
    // While the pipe is full, the answer cannot be written: that is no silence of the server.
    std::thread::sleep(Duration::from_secs(1));
    let mut output = Vec::new();
    reader.read_to_end(&mut output).unwrap();
    assert!(wait_for_end(&mut child).success());
    assert_eq!(output.len(), 500_001);
}

#[test]
fn control_characters_do_not_reach_a_terminal() {
    let asked = StubbedOllama::with([stream(&["a\u{1b}]52;c;AA", "AA\u{7}b\u{1b}", "[31mc\u{8}\td\n"])]);
    let terminal = Terminal::open();
    let mut child = asked.command(["Hello", "--stream"]).stdout(terminal.stream()).spawn().unwrap();
    assert!(wait_for_end(&mut child).success());
    assert_eq!(terminal.finish(), "abc\td\r\n");
}

#[test]
fn an_interrupted_spinner_leaves_a_clean_line() {
    let asked = StubbedOllama::with([stream(&[]).framing(Framing::None).end(End::Hang)]);
    let terminal = Terminal::open();
    let mut child = interactive(&asked, &terminal);
    terminal.wait_for(&format!("{WAITING} 0."));
    terminal.wait_for(&format!("{WAITING} 1."));
    asked.server.request();
    processes::send(i32::try_from(child.id()).unwrap(), Signal::SIGINT);
    wait_for_end(&mut child);
    let shown = terminal.finish();
    assert!(shown.ends_with("\r\u{1b}[K\u{1b}[0m"), "the line is erased: {shown:?}");
}

#[test]
fn a_spinner_fits_into_a_narrow_window() {
    let asked = StubbedOllama::with([stream(&[]).framing(Framing::None).end(End::Hang)]);
    let terminal = Terminal::of_columns(12);
    let mut child = interactive(&asked, &terminal);
    // The spinner and a space take two of the columns, and the last stays free.
    terminal.wait_for(&WAITING[..9]);
    asked.server.request();
    processes::send(i32::try_from(child.id()).unwrap(), Signal::SIGINT);
    wait_for_end(&mut child);
    let shown = terminal.finish();
    assert!(!shown.contains(&WAITING[..10]), "{shown:?}");
}

#[test]
fn a_spinner_shows_prefill_progress_and_gives_way() {
    let pieces = [": keepalive 5/10\n\n".to_owned(), text("Hi"), finish("stop")];
    let mut response = Response::stream(pieces);
    response.drip = Some(Duration::from_millis(3));
    let asked = StubbedOllama::with([response]);
    let terminal = Terminal::open();
    let mut child = interactive(&asked, &terminal);
    assert!(wait_for_end(&mut child).success());
    let shown = terminal.finish();
    assert!(shown.contains(PREFILL), "{shown:?}");
    assert!(shown.ends_with("\r\u{1b}[KHi\r\n"), "{shown:?}");
}

/// With all three streams on a terminal.
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
fn ctrl_c_keeps_the_text_that_had_arrived() {
    let asked = StubbedOllama::with([Response::stream([text("Hello"), text(" there")]).end(End::Hang)]);
    let mut terminal = Terminal::open();
    let shell = terminal.script(&asked.sandbox, "-c", "exec \"$0\" ollama run Hello --stream");
    terminal.wait_for("Hello there");
    terminal.send(b"\x03");
    asked.server.wait_for_disconnect();
    shell.finish().assert_code(130);
    assert!(terminal.finish().contains("Hello there"));
}

/// `mlx_lm.server` notices that its client is gone only while it streams, so it is asked for a stream even if the
/// answer is printed whole.
#[test]
fn an_answer_printed_whole_can_be_interrupted() {
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
    terminal.wait_for(RECEIVING);
    assert!(!terminal.text().contains("Hello"), "{}", terminal.text());
    processes::send(i32::try_from(child.id()).unwrap(), Signal::SIGINT);
    server.wait_for_disconnect();
    assert_eq!(wait_for_end(&mut child).signal(), Some(Signal::SIGINT as i32));
    drop(command);
    let shown = terminal.finish();
    assert!(shown.contains("\r\u{1b}[KHello there\r\n"), "{shown:?}");
}

#[test]
fn an_interrupt_prints_the_partial_text_as_json() {
    let asked = StubbedOllama::with([Response::stream([text("Hello")]).end(End::Hang)]);
    let terminal = Terminal::open();
    let mut command = asked.command(["Hello", "--json", "--no-stream"]);
    command.env("TERM", "xterm").stderr(terminal.stream());
    let mut child = command.spawn().unwrap();
    terminal.wait_for(RECEIVING);
    processes::send(i32::try_from(child.id()).unwrap(), Signal::SIGINT);
    asked.server.wait_for_disconnect();
    assert_eq!(wait_for_end(&mut child).signal(), Some(Signal::SIGINT as i32));
    let mut stdout = String::new();
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&answer["text"], &answer["finish_reason"]), (&json!("Hello"), &Value::Null));
}

#[test]
fn a_pipe_closed_during_silence_ends_it_quietly() {
    let asked = StubbedOllama::with([Response::stream([text("Hello")]).end(End::Hang)]);
    for stream in ["--stream", "--no-stream"] {
        let mut child = asked.command(["Hello", stream]).spawn().unwrap();
        drop(child.stdout.take());
        assert_eq!(wait_for_end(&mut child).code(), Some(0));
        asked.server.wait_for_disconnect();
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!(stderr, "");
    }
}

#[test]
fn a_pipe_closed_early_ends_it_quietly() {
    for arguments in [&["Hello", "--no-stream"][..], &["Hello", "--stream", "--json"]] {
        let mut response = Response::stream([text("0123456789")]);
        response.times = 10_000_000;
        let asked = StubbedOllama::with([response]);
        let mut child = asked.command(arguments.iter().copied()).spawn().unwrap();
        drop(child.stdout.take());
        assert_eq!(wait_for_end(&mut child).code(), Some(0));
        asked.server.wait_for_disconnect();
    }
}

#[test]
fn an_interrupt_prints_the_partial_reasoning_as_json() {
    let thought = event(&json!({ "role": "assistant", "reasoning": "Hm" }), &Value::Null);
    let asked = StubbedOllama::with([Response::stream([thought]).end(End::Hang)]);
    let terminal = Terminal::open();
    let mut command = asked.command(["Hello", "--stream", "--json"]);
    command.env("TERM", "xterm").stderr(terminal.stream());
    let mut child = command.spawn().unwrap();
    terminal.wait_for(REASONING);
    processes::send(i32::try_from(child.id()).unwrap(), Signal::SIGINT);
    assert_eq!(wait_for_end(&mut child).signal(), Some(Signal::SIGINT as i32));
    asked.server.wait_for_disconnect();
    let mut stdout = String::new();
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&answer["text"], &answer["reasoning"]), (&json!(""), &json!("Hm")));
}

#[test]
fn time_spent_stopped_is_no_silence() {
    let mut response = stream(&["He", "llo"]);
    response.drip = Some(Duration::from_millis(1));
    let asked = StubbedOllama::with([response]);
    let mut child = asked.command(["Hello", "--stream", "--timeout", "0.5"]).spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 2]).unwrap();
    processes::send(pid, Signal::SIGSTOP);
    std::thread::sleep(Duration::from_millis(800));
    processes::send(pid, Signal::SIGCONT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), String::from_utf8_lossy(&output.stdout).as_ref(), output.stderr.as_slice()),
        (Some(0), "llo\n", &b""[..])
    );
}

#[test]
fn comments_after_the_finish_reason_are_not_awaited() {
    let end = event(&json!({}), &json!("stop"));
    let comments = std::iter::repeat_n(": still here\n\n".to_owned(), 20_000);
    let mut response = Response::stream([text("Hi"), end].into_iter().chain(comments));
    response.drip = Some(Duration::from_millis(1));
    let asked = StubbedOllama::with([response]);
    asked.run(["Hello", "--stream"]).assert_stdout("Hi\n");
    asked.server.wait_for_disconnect();
}

#[test]
fn json_escapes_control_characters() {
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
fn a_tool_name_cannot_forge_a_message() {
    let call =
        json!({ "index": 0, "id": "1", "function": { "name": "x\nerror: disk full", "arguments": "{\n}" } });
    let asked = StubbedOllama::with([Response::stream([event(
        &json!({ "tool_calls": [call] }),
        &json!("tool_calls"),
    )])]);
    insta::assert_snapshot!(asked.run(["Hello", "--stream"]), @"
    exit 0
    [stderr]
    warning: the model requested the tool call x error: disk full({ }), which fusion does not make
    ");
}

#[test]
fn a_signal_ends_it_and_closes_the_connection() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let asked = StubbedOllama::with([Response::stream([text("Hello")]).end(End::Hang)]);
        let mut child = asked.command(["Hello", "--stream"]).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut started = [0; 5];
        stdout.read_exact(&mut started).unwrap();
        processes::send(i32::try_from(child.id()).unwrap(), signal);
        let status = wait_for_end(&mut child);
        assert_eq!(status.signal(), Some(signal as i32), "{signal}");
        asked.server.wait_for_disconnect();
    }
}
