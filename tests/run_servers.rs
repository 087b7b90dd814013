//! How `fusion <service> run` treats what servers do: silence, broken streams, endless lines, pages.

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use serde_json::json;
use support::stub_server::{End, Framing, Response};
use support::stubbed_ollama::{StubbedOllama, event, stream, text};
use support::{Sandbox, write_program};

#[test]
fn any_byte_restarts_the_idle_timeout() {
    // A byte every 5 ms, together for longer than the timeout, then the text, then silence.
    let comments = std::iter::repeat_n(": keepalive\n\n".to_owned(), 8);
    let mut response = Response::stream(comments.chain([text("Hi")])).end(End::Hang);
    response.drip = Some(Duration::from_millis(5));
    let asked = StubbedOllama::with([response]);
    insta::assert_snapshot!(asked.run(["Hello", "--stream", "--timeout", "1", "-q"]), @"
    exit 124
    [stdout]
    Hi
    [stderr]
    error: timed out: no data from 127.0.0.1:[STUB] for [TIME] s
    hint: raise the idle timeout with --timeout SECONDS
    ");
}

#[test]
fn a_server_that_never_reads_times_out() {
    // After it has told what it is, the kernel accepts the connection, and a prompt as long as its buffers.
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    setsockopt(&listener, sockopt::RcvBuf, &4096).unwrap();
    let port = listener.local_addr().unwrap().port();
    let sandbox = Sandbox::new();
    sandbox.write_config(&format!("[ollama_server]\nport = {port}\n"));
    std::fs::write(sandbox.project().join("long.txt"), "word ".repeat(1_600_000)).unwrap();
    let told = std::thread::spawn(move || {
        loop {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 512];
            let length = stream.read(&mut head).unwrap();
            let answer = match &head[..length] {
                head if head.starts_with(b"GET /api/version ") => "200 OK\r\n\r\n{\"version\":\"0.17.4\"}",
                head if head.starts_with(b"POST /v1/") => return stream,
                _ => "404 Not Found\r\n\r\n{}",
            };
            let _ = stream.write_all(format!("HTTP/1.0 {answer}").as_bytes());
        }
    });
    let run = sandbox.fusion(["ollama", "run", "Hello", "-f", "long.txt", "--timeout", "0.5"]);
    insta::assert_snapshot!(run.mask(format!(":{port}"), ":[PORT]").run(), @"
    exit 124
    [stderr]
    error: timed out: no data from 127.0.0.1:[PORT] for [TIME] s
    hint: raise the idle timeout with --timeout SECONDS
    ");
    drop(told.join().unwrap());
}

#[test]
fn text_cut_by_stop_is_not_incomplete() {
    let choice = json!({ "message": { "content": "one END two" }, "finish_reason": "length" });
    let asked = StubbedOllama::with([Response::json(200, json!({ "choices": [choice] }).to_string())]);
    asked.run(["Hello", "--stop", "END", "--strict"]).assert_stdout("one \n");
}

#[test]
fn a_404_shows_the_servers_message() {
    let asked = StubbedOllama::with([Response::json(404, r#"{"error": "No safetensors found in /tmp/x"}"#)]);
    insta::assert_snapshot!(asked.run(["Hello"]), @"
    exit 8
    [stderr]
    error: Ollama: No safetensors found in /tmp/x (HTTP 404)
    hint: see the log: fusion ollama log
    ");
}

#[test]
fn long_silence_is_explained_once() {
    let silent = StubbedOllama::with([stream(&[]).framing(Framing::None).end(End::Hang)]);
    let reading = StubbedOllama::with([Response::stream([": keepalive 5/10\n\n"]).end(End::Hang)]);
    // Both at once: each takes longer than the 5 s after which it is explained.
    let [silent_run, reading_run] =
        [&silent, &reading].map(|asked| asked.invocation(["Hello", "--stream", "--timeout", "5.2"]).start());
    insta::assert_snapshot!(silent_run.finish(), @"
    exit 124
    [stderr]
    still waiting for Ollama; it may be loading the model or processing the prompt
    error: timed out: no data from 127.0.0.1:[STUB] for [TIME] s
    hint: raise the idle timeout with --timeout SECONDS
    ");
    insta::assert_snapshot!(reading_run.finish(), @"
    exit 124
    [stderr]
    still processing the prompt: 5 of 10 tokens
    error: timed out: no data from 127.0.0.1:[STUB] for [TIME] s
    hint: raise the idle timeout with --timeout SECONDS
    ");
}

#[test]
fn strange_token_counts_do_not_spoil_the_text() {
    for usage in
        [json!({ "prompt_tokens": 3.5 }), json!({ "completion_tokens": null }), json!("none"), json!(null)]
    {
        let choice = json!({ "message": { "content": "Hi" }, "finish_reason": "stop" });
        let response = Response::json(200, json!({ "choices": [choice], "usage": usage }).to_string());
        let answer = StubbedOllama::with([response]).run(["Hello", "--json"]).assert_code(0).json();
        assert_eq!((&answer["text"], &answer["usage"]), (&json!("Hi"), &json!(null)), "{usage}");
    }
}

#[test]
fn silence_after_the_finish_reason_ends_the_answer() {
    let pieces = [text("Hi"), event(&json!({}), &json!("stop"))];
    let asked = StubbedOllama::with([Response::stream(pieces).end(End::Hang)]);
    asked.run(["Hello", "--stream", "--timeout", "0.5"]).assert_stdout("Hi\n");
}

#[test]
fn done_ends_the_answer_at_once() {
    let asked = StubbedOllama::with([stream(&["Hi"]).end(End::Hang)]);
    asked.run(["Hello", "--stream"]).assert_stdout("Hi\n");
    asked.server.wait_for_disconnect();
}

#[test]
fn a_broken_stream_keeps_what_had_arrived() {
    let broken = [
        (Framing::Chunked, End::Rst),
        (Framing::ChunkedTruncated, End::Fin),
        (Framing::ContentLengthShort, End::Fin),
        (Framing::Close, End::Fin),
    ];
    insta::allow_duplicates! {
        for (framing, end) in broken {
            let response = Response::stream([text("Hel"), text("lo")]).framing(framing).end(end);
            insta::assert_snapshot!(StubbedOllama::with([response]).run(["Hello", "--stream"]), @"
            exit 8
            [stdout]
            Hello
            [stderr]
            error: the answer ended before it was finished: no finish reason was sent
            hint: see the log: fusion ollama log
            ");
        }
    }
}

#[test]
fn a_broken_whole_response_is_no_answer() {
    let broken = r#"{"choices":[{"message":{"content":"Hi"},"finish_reason":"st"#;
    let framings =
        [Framing::Close, Framing::ContentLength, Framing::ContentLengthShort, Framing::ChunkedTruncated];
    insta::allow_duplicates! {
        for framing in framings {
            let response = Response::json(200, broken).framing(framing);
            insta::assert_snapshot!(StubbedOllama::with([response]).run(["Hello"]), @"
            exit 8
            [stderr]
            error: the answer ended before it was finished: no finish reason was sent
            hint: see the log: fusion ollama log
            ");
        }
    }
    insta::assert_snapshot!(StubbedOllama::with([Response::json(200, "")]).run(["Hello"]), @"
    exit 8
    [stderr]
    error: the response is empty
    hint: see the log: fusion ollama log
    ");
}

#[test]
fn streamed_and_whole_responses_are_both_read() {
    let whole =
        json!({ "choices": [{ "message": { "content": "<think>Hm</think>Hi" }, "finish_reason": "stop" }] });
    let asked = StubbedOllama::with([Response::json(200, format!("\n {whole}"))]);
    asked.run(["Hello", "--stream"]).assert_stdout("Hi\n");
    let asked = StubbedOllama::with([stream(&["Hi"])]);
    asked.run(["Hello", "--no-stream"]).assert_stdout("Hi\n");
}

/// 200 MiB are sent, of which 16 MiB are read.
#[test]
fn an_endless_line_is_refused_in_little_memory() {
    let responses = [
        (Response::stream([vec![b'x'; 1 << 20]]), "--stream"),
        (Response::json(200, vec![b'['; 1 << 20]), "--no-stream"),
        (Response::json(200, vec![b' '; 1 << 20]), "--no-stream"),
    ];
    insta::allow_duplicates! {
        for (mut response, stream) in responses {
            response.times = 200;
            let asked = StubbedOllama::with([response]);
            let (finished, memory) = asked.invocation(["Hello", stream]).run_measured();
            insta::assert_snapshot!(finished, @"
            exit 8
            [stderr]
            error: an event longer than 16 MiB
            ");
            assert!(memory < 80 << 20, "{memory} bytes");
        }
    }
}

#[test]
fn an_html_page_is_named_not_printed() {
    let mut response = Response::json(
        200,
        "<!doctype html><html><head><title>Router login</title></head><body>...</body></html>",
    );
    response.content_type = "text/html".to_owned();
    insta::assert_snapshot!(StubbedOllama::with([response]).run(["Hello"]), @"
    exit 8
    [stderr]
    error: the response is not an answer: an HTML page: Router login
    ");
}

#[test]
fn no_proxy_is_used_on_loopback() {
    let asked = StubbedOllama::with([stream(&["Hi"])]);
    let unreachable = "http://127.0.0.1:9";
    let mut invocation = asked.invocation(["Hello", "--stream"]);
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy", "HTTPS_PROXY"] {
        invocation = invocation.env(name, unreachable);
    }
    invocation.run().assert_stdout("Hi\n");
}

/// The text and what is malformed arrive in one read, or in several.
#[test]
fn text_before_a_malformed_chunk_is_printed() {
    let event = text("Hello");
    let chunk = format!("{:x}\r\n{event}\r\n", event.len());
    let longer = format!("{:x}\r\n{event}, and more\r\n", event.len());
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let interim = format!("HTTP/1.1 100 Continue\r\n\r\n{head}");
    for pieces in [
        vec![format!("{head}{chunk}{chunk}zz\r\n")],
        vec![format!("{interim}{chunk}{chunk}-1\r\n")],
        vec![format!("{head}{chunk}{longer}")],
        vec![head.to_owned(), format!("{chunk}{}", &chunk[..9]), format!("{}zz\r\n", &chunk[9..])],
        vec![format!("{head}{chunk}"), format!("{chunk}zz\r\n")],
    ] {
        let asked = StubbedOllama::with([Response::stream(pieces.clone()).framing(Framing::Raw)]);
        let run = asked.run(["Hello", "--stream"]);
        assert_eq!((run.stdout(), run.code()), ("HelloHello\n".to_owned(), 8), "{pieces:?}");
        let said = run.stderr();
        assert!(said.starts_with("error: malformed response: protocol: chunk "), "{said}");
    }
}

#[test]
fn a_response_without_content_is_named() {
    let response = Response { status: 204, ..Response::stream([""]) }.framing(Framing::Close);
    insta::assert_snapshot!(StubbedOllama::with([response]).run(["Hello"]), @"
    exit 8
    [stderr]
    error: the server answered HTTP 204 without content
    hint: another program may listen there; check the address: fusion config show
    ");
}

/// Ollama names no model in its last chunk when the process of the model is gone.
#[test]
fn the_end_of_the_models_process_is_named() {
    let chunk = |model: &str, content: &str| {
        let choice = json!({ "index": 0, "delta": { "role": "assistant", "content": content }, "finish_reason": null });
        format!("data: {}\n\n", json!({ "model": model, "choices": [choice] }))
    };
    let asked = StubbedOllama::with([Response::stream([chunk("llama3.2:3b", "Hel"), chunk("", "")])]);
    insta::assert_snapshot!(asked.run(["Hello", "--stream"]), @"
    exit 8
    [stdout]
    Hel
    [stderr]
    error: the process of the model ended before the answer was finished
    hint: see the log: fusion ollama log
    ");
    // One that never names a model says nothing by that.
    let asked = StubbedOllama::with([Response::stream([chunk("", "Hel"), chunk("", "")])]);
    insta::assert_snapshot!(asked.run(["Hello", "--stream"]), @"
    exit 8
    [stdout]
    Hel
    [stderr]
    error: the answer ended before it was finished: no finish reason was sent
    hint: see the log: fusion ollama log
    ");
}

/// The tools of either system; they note when they begin and end.
fn write_awake_tools(sandbox: &Sandbox, script: &str) {
    for tool in ["caffeinate", "systemd-inhibit"] {
        write_program(&sandbox.bin().join(tool), &format!("#!/bin/sh\ncd \"${{0%/*}}\"\n{script}\n"));
    }
}

#[test]
fn machine_stays_awake_until_the_answer_ends() {
    for (value, notes) in [("requests", Some("started\nended\n".to_owned())), ("never", None)] {
        let config = format!("keep_awake = \"{value}\"\n");
        let asked = StubbedOllama::configured(&config, [stream(&["Hi"])]);
        write_awake_tools(&asked.sandbox, "echo started >> notes; cat; echo ended >> notes");
        asked.run(["Hello"]).assert_stdout("Hi\n");
        assert_eq!(std::fs::read_to_string(asked.sandbox.bin().join("notes")).ok(), notes, "{value}");
    }
}

#[test]
fn machine_stays_awake_during_a_download() {
    for (value, notes) in [("requests", Some("started\nended\n".to_owned())), ("never", None)] {
        let config = format!("keep_awake = \"{value}\"\n");
        let asked = StubbedOllama::configured(&config, [Response::json(200, "{\"status\":\"success\"}\n")]);
        write_awake_tools(&asked.sandbox, "echo started >> notes; cat; echo ended >> notes");
        asked.sandbox.fusion(["ollama", "pull", "llama3.2:1b"]).run_in_process().assert_code(0);
        assert_eq!(std::fs::read_to_string(asked.sandbox.bin().join("notes")).ok(), notes, "{value}");
    }
}

#[test]
fn a_machine_that_may_sleep_still_answers() {
    let answers = [stream(&["Hi"]), stream(&["Hi"])];
    let asked = StubbedOllama::configured("keep_awake = \"requests\"\n", answers);
    write_awake_tools(&asked.sandbox, "echo no bus >&2; exit 1");
    asked.run(["Hello"]).assert_stdout("Hi\n");
    let told = asked.run(["Hello", "-v"]).assert_code(0);
    assert!(told.stderr().contains("the machine may sleep while ollama is busy: "), "{told}");
    assert!(told.stderr().contains(" failed: no bus\n"), "{told}");
}
