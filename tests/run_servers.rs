//! What `fusion <runtime> run` makes of servers and their moods: silence, ends in the middle, endless lines, pages.

mod support;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::json;
use support::Sandbox;
use support::stub_server::{End, Framing, Response};
use support::stubbed_ollama::{StubbedOllama, event, stream, text};

#[test]
fn any_byte_counts_as_life_and_silence_does_not() {
    // A byte every 5 ms for longer than the limit, then silence.
    let comments = std::iter::repeat_n(": keepalive\n\n", 30);
    let mut response = Response::stream(comments).end(End::Hang);
    response.drip = Some(Duration::from_millis(5));
    let asked = StubbedOllama::with([response]);
    let begun = Instant::now();
    let finished = asked.run(["Hello", "--stream", "--timeout", "2", "-q"]).assert_code(124);
    let port = asked.server.port();
    assert_eq!(
        finished.stderr(),
        format!(
            "error: timed out: nothing came from 127.0.0.1:{port} for 2 s\nhint: --timeout SECONDS waits longer\n"
        )
    );
    assert!(begun.elapsed() > Duration::from_millis(2000 + 30 * 13 * 5));
}

#[test]
fn a_server_that_does_not_read_the_prompt_is_given_up() {
    // The kernel accepts the connection, and a prompt as long as its buffers.
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let sandbox = Sandbox::new();
    sandbox.write_config(&format!("[ollama_server]\nport = {port}\n"));
    std::fs::write(sandbox.project().join("long.txt"), "word ".repeat(3 << 20)).unwrap();
    sandbox.fusion(["ollama", "run", "Hello", "-f", "long.txt", "--timeout", "0.5"]).run().assert(
        124,
        "",
        &format!(
            "error: timed out: nothing came from 127.0.0.1:{port} for [TIME] s\nhint: --timeout SECONDS waits longer\n"
        ),
    );
}

#[test]
fn a_text_cut_at_a_stop_text_was_not_cut_at_the_token_limit() {
    let choice = json!({ "message": { "content": "one END two" }, "finish_reason": "length" });
    let asked = StubbedOllama::with([Response::json(200, json!({ "choices": [choice] }).to_string())]);
    asked.run(["Hello", "--stop", "END", "--strict"]).assert(0, "one \n", "");
}

#[test]
fn a_404_in_the_servers_own_words_is_no_wrong_address() {
    let asked = StubbedOllama::with([Response::json(404, r#"{"error": "No safetensors found in /tmp/x"}"#)]);
    asked.run(["Hello"]).assert(
        8,
        "",
        "error: Ollama: No safetensors found in /tmp/x (HTTP 404)\nhint: its log may say why: fusion ollama log\n",
    );
}

#[test]
fn a_long_wait_that_is_explained_is_not_guessed_about() {
    let response = Response::stream([": keepalive 5/10\n\n"]).end(End::Hang);
    let finished =
        StubbedOllama::with([response]).run(["Hello", "--stream", "--timeout", "5.2"]).assert_code(124);
    assert!(
        finished.stderr().starts_with("still reading the prompt, 5 of 10 tokens\n"),
        "{}",
        finished.stderr()
    );
}

#[test]
fn a_text_whose_tokens_were_counted_strangely_is_no_less_a_text() {
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
fn a_long_wait_for_the_first_byte_is_told() {
    let asked = StubbedOllama::with([stream(&[]).framing(Framing::None).end(End::Hang)]);
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
    let asked = StubbedOllama::with([
        Response::stream([text("Hi"), event(&json!({}), &json!("stop"))]).end(End::Hang)
    ]);
    asked.run(["Hello", "--stream"]).assert(0, "Hi\n", "");
}

#[test]
fn done_ends_the_answer_at_once() {
    let asked = StubbedOllama::with([stream(&["Hi"]).end(End::Hang)]);
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
        let asked =
            StubbedOllama::with([Response::stream([text("Hel"), text("lo")]).framing(framing).end(end)]);
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
        let asked = StubbedOllama::with([Response::json(200, whole).framing(framing)]);
        asked.run(["Hello"]).assert(
            8,
            "",
            "error: the answer ended before it was finished: no finish reason was sent\nhint: its log may say why: fusion \
             ollama log\n",
        );
    }
    let asked = StubbedOllama::with([Response::json(200, "")]);
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
    let asked = StubbedOllama::with([Response::json(200, format!("\n {whole}"))]);
    asked.run(["Hello", "--stream"]).assert(0, "Hi\n", "");
    let asked = StubbedOllama::with([stream(&["Hi"])]);
    asked.run(["Hello", "--no-stream"]).assert(0, "Hi\n", "");
}

/// 200 MiB are sent, of which 16 MiB are read.
#[test]
fn an_endless_line_is_refused_in_little_memory() {
    let refused = |mut response: Response, how: &str| {
        response.times = 200;
        let (finished, memory) = StubbedOllama::with([response]).invocation(["Hello", how]).run_measured();
        finished.assert(8, "", "error: an event longer than 16 MiB\n");
        assert!(memory < 80 << 20, "{memory} bytes");
    };
    refused(Response::stream([vec![b'x'; 1 << 20]]), "--stream");
    for filler in [b'[', b' '] {
        refused(Response::json(200, vec![filler; 1 << 20]), "--no-stream");
    }
}

#[test]
fn a_page_is_not_dumped() {
    let mut response = Response::json(
        200,
        "<!doctype html><html><head><title>Router login</title></head><body>...</body></html>",
    );
    response.content_type = "text/html".to_owned();
    let asked = StubbedOllama::with([response]);
    asked.run(["Hello"]).assert(8, "", "error: the reply is not an answer: an HTML page: Router login\n");
}

#[test]
fn a_proxy_in_the_environment_is_not_used() {
    let asked = StubbedOllama::with([stream(&["Hi"])]);
    let nobody = "http://127.0.0.1:9";
    let mut invocation = asked.invocation(["Hello", "--stream"]);
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy", "HTTPS_PROXY"] {
        invocation = invocation.env(name, nobody);
    }
    invocation.run().assert(0, "Hi\n", "");
}
