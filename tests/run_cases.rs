//! The cases of `tests/cases/`: facts about event streams and about what servers really answer, from public
//! specifications, test suites, source code and issue threads.
//!
//! Each names its source.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use fusion::core::api::error::ServerError;
use fusion::core::api::sse::{Item, Parser, TooLong};
use proptest::prelude::*;
use serde_json::Value;
use support::Sandbox;
use support::stub_server::{End, Framing, Response, StubServer};

const SSE_CASES: &str = include_str!("cases/sse_cases.json");
const ERROR_BODIES: &str = include_str!("cases/error_bodies.json");
const HINTS: &str = include_str!("cases/hints.json");

fn cases(level: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(SSE_CASES).unwrap();
    all["cases"].as_array().unwrap().iter().filter(|case| case["level"] == level).cloned().collect()
}

/// Decodes the bytes of a case.
fn decode(base64: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(base64.as_str().unwrap()).unwrap()
}

/// Checks the cases on several threads: most of the time is spent waiting for programs and servers.
fn check_all(cases: &[Value], check: impl Fn(&Value) + Sync) {
    let next = AtomicUsize::new(0);
    let worker = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            check(case);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(worker);
        }
    });
}

/// An event of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Event {
    name: String,
    data: String,
    id: String,
}

fn events<B: AsRef<[u8]>>(chunks: impl IntoIterator<Item = B>) -> Result<Vec<Event>, TooLong> {
    let mut parser = Parser::default();
    let mut events = Vec::new();
    for chunk in chunks {
        let mut input = chunk.as_ref();
        while let Some(item) = parser.next(&mut input)? {
            if let Item::Event(event) = item {
                let (name, data, id) = (event.name.to_owned(), event.data.into_owned(), event.id.to_owned());
                events.push(Event { name, data, id });
            }
        }
    }
    Ok(events)
}

fn expected(case: &Value) -> Vec<Event> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let event = |event: &Value| Event {
        name: text(&event["event"]),
        data: text(&event["data"]),
        id: text(&event["id"]),
    };
    case["expected"].as_array().unwrap().iter().map(event).collect()
}

#[test]
fn every_stream_gives_the_expected_events() {
    let mut cases = cases("sse");
    assert_eq!(cases.len(), 95);
    cases.retain(|case| case["chunks_gen"].is_null());
    check_all(&cases, |case| {
        let name = &case["name"];
        let expected = expected(case);
        let chunks: Vec<Vec<u8>> = case["chunks"].as_array().unwrap().iter().map(decode).collect();
        assert_eq!(events(&chunks).unwrap(), expected, "{name}");
        if case["rechunk"] == true {
            let whole = chunks.concat();
            assert_eq!(events([&whole]).unwrap(), expected, "{name} in one piece");
            assert_eq!(events(whole.chunks(1)).unwrap(), expected, "{name} byte by byte");
            assert_eq!(events(whole.chunks(2)).unwrap(), expected, "{name} in twos");
            for cut in 0..=whole.len().min(2000) {
                let (head, tail) = whole.split_at(cut);
                assert_eq!(events([head, tail]).unwrap(), expected, "{name} cut at {cut}");
            }
        }
    });
}

/// Makes the bytes of a large stream: the case has only the parts to repeat.
fn generated(case: &Value) -> Vec<Vec<u8>> {
    fn bytes(part: &Value) -> Vec<u8> {
        if let Some(parts) = part["concat"].as_array() {
            return parts.iter().flat_map(bytes).collect();
        }
        if part["b64"].is_string() {
            return decode(&part["b64"]);
        }
        decode(&part["repeat_b64"]).repeat(usize::try_from(part["times"].as_u64().unwrap()).unwrap())
    }
    let mut chunks = Vec::new();
    for part in case["chunks_gen"].as_array().unwrap() {
        let bytes = bytes(part);
        match part["split"].as_u64() {
            Some(split) => chunks.extend(bytes.chunks(usize::try_from(split).unwrap()).map(<[u8]>::to_vec)),
            None => chunks.push(bytes),
        }
    }
    chunks
}

#[test]
fn large_streams_are_read_or_refused() {
    let cases: Vec<Value> = cases("sse").into_iter().filter(|case| !case["chunks_gen"].is_null()).collect();
    assert_eq!(cases.len(), 3);
    for case in &cases {
        let result = events(generated(case));
        // `policy` allows to refuse an event beyond the limit.
        if case["policy"] == true {
            insta::assert_snapshot!(result.unwrap_err(), @"an event longer than 16 MiB");
            continue;
        }
        let events = result.unwrap();
        let first = &case["expected_first"];
        assert_eq!(events.len() as u64, case["expected_count"].as_u64().unwrap(), "{}", case["name"]);
        assert_eq!(
            events[0].data.len() as u64,
            first["data_len_bytes"].as_u64().unwrap(),
            "{}",
            case["name"]
        );
        assert!(events[0].data.lines().all(|line| line == "x" || line == "ok"), "{}", case["name"]);
        assert_eq!(events[0].name, first["event"].as_str().unwrap());
    }
}

fn stream_bytes() -> impl Strategy<Value = Vec<u8>> {
    let fragments = [
        &b"data: "[..],
        b"data:",
        b"data",
        b"event: x",
        b"id: 7",
        b"id: a\0",
        b"error: e",
        b": comment",
        b"retry: 5",
        b"\n",
        b"\n",
        b"\n\n",
        b"\r",
        b"\r\n",
        b"\r\n\r\n",
        b"\xef\xbb\xbf",
        b"\xff",
        b"\xe2\x82",
        b"\xf0\x9f\x98\x80",
        b"\0",
        b" ",
        b"text",
        b":",
        b"{\"a\":1}",
        b"[DONE]",
    ];
    proptest::collection::vec(proptest::sample::select(fragments.to_vec()), 0..40)
        .prop_map(|fragments| fragments.concat())
}

proptest! {
    #[test]
    fn events_do_not_depend_on_cuts(
        bytes in stream_bytes(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        ends.extend([0, bytes.len()]);
        ends.sort_unstable();
        let pieces: Vec<&[u8]> = ends.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        let whole = events([&bytes]).unwrap();
        prop_assert_eq!(&whole, &events(pieces).unwrap());
        prop_assert_eq!(&whole, &events(bytes.chunks(1)).unwrap());
    }
}

fn response(case: &Value) -> Response {
    let http = &case["http"];
    let framing = match http["framing"].as_str().unwrap() {
        "chunked" => Framing::Chunked,
        "chunked-trailers" => Framing::ChunkedTrailers,
        "chunked-truncated" => Framing::ChunkedTruncated,
        "content-length" => Framing::ContentLength,
        "content-length-short" => Framing::ContentLengthShort,
        "close" => Framing::Close,
        "none" => Framing::None,
        "raw" => Framing::Raw,
        other => panic!("the framing {other} is not known"),
    };
    let end = match http["end"].as_str().unwrap() {
        "fin" => End::Fin,
        "rst" => End::Rst,
        "hang" => End::Hang,
        other => panic!("the end {other} is not known"),
    };
    let headers = http["headers"].as_object().unwrap().iter();
    Response {
        status: u16::try_from(http["status"].as_u64().unwrap()).unwrap(),
        content_type: http["content_type"].as_str().unwrap().to_owned(),
        headers: headers.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect(),
        framing,
        end,
        pieces: case["chunks"].as_array().unwrap().iter().map(decode).collect(),
        drip: http["drip_ms"].as_u64().map(Duration::from_millis),
        times: 1,
    }
}

/// Runs `fusion ollama run` in a sandbox whose configuration names the stub server.
fn run_against(server: &StubServer, arguments: &[&str]) -> support::Finished {
    let sandbox = Sandbox::new();
    // The model that the cases name.
    sandbox.write_config(&format!(
        "[ollama_server]\nhost = \"127.0.0.1\"\nport = {}\n[ollama_run]\nmodel = \"m\"\n",
        server.port()
    ));
    let arguments = ["ollama", "run", "Hello", "--no-up"].iter().chain(arguments).copied();
    sandbox.fusion(arguments).run_in_process()
}

#[test]
fn every_response_gives_the_expected_answer() {
    let cases = cases("chat");
    assert_eq!(cases.len(), 40);
    check_all(&cases, |case| {
        let name = case["name"].as_str().unwrap();
        let chat = &case["chat"];
        let exits = chat["exit"].as_array().cloned().unwrap_or_else(|| vec![chat["exit"].clone()]);
        let timeout = if case["http"]["end"] == "hang" { "0.5" } else { "20" };

        let server = StubServer::start([response(case)]);
        let finished = run_against(&server, &["--stream", "--timeout", timeout]);
        let (stdout, stderr) = (finished.stdout(), finished.stderr());
        let shown = format!("{name}: exit {}\n[stdout]\n{stdout}\n[stderr]\n{stderr}", finished.code());
        assert!(exits.contains(&finished.code().into()), "{shown}");
        let content = chat["content"].as_str().unwrap();
        // A compressed response may be refused, and then has no text.
        if finished.code() == 0 || exits.len() == 1 {
            let newline = if content.is_empty() { "" } else { "\n" };
            assert_eq!(stdout, format!("{content}{newline}"), "{shown}");
        } else {
            assert_eq!(stdout, "", "{shown}");
        }
        for words in chat["stderr_contains"].as_array().unwrap() {
            assert!(stderr.to_lowercase().contains(&words.as_str().unwrap().to_lowercase()), "{shown}");
        }
        if chat["outcome"] == "ok" && chat["stderr_contains"].as_array().unwrap().is_empty() {
            assert_eq!(stderr, "", "{shown}");
        }
        let request = server.request();
        assert_eq!(request.line, "POST /v1/chat/completions HTTP/1.1");
        assert_eq!(request.header("content-length"), Some(request.body.len().to_string().as_str()));

        let server = StubServer::start([response(case)]);
        let finished = run_against(&server, &["--stream", "--json", "--timeout", timeout]);
        assert!(exits.contains(&finished.code().into()), "{name} --json: {finished:?}");
        if finished.stdout.is_empty() {
            assert_ne!(finished.code(), 0, "{name} --json");
            assert!(content.is_empty() || exits.len() > 1, "{name} --json");
            return;
        }
        let object = finished.json();
        assert_eq!(object["text"], chat["content"], "{name} --json");
        assert_eq!(object["reasoning"], chat["reasoning"], "{name} --json");
        assert_eq!(object["finish_reason"], chat["finish_reason"], "{name} --json");
        assert_eq!(object["usage"], chat["usage"], "{name} --json");
        let tool_calls = chat["tool_calls"].as_array().unwrap();
        assert_eq!(
            object["tool_calls"].as_array().cloned().unwrap_or_default(),
            *tool_calls,
            "{name} --json"
        );
    });
}

fn error_bodies() -> Vec<Value> {
    let all: Value = serde_json::from_str(ERROR_BODIES).unwrap();
    all["errors"].as_array().unwrap().clone()
}

fn error_response(case: &Value) -> Response {
    let body = case["body"].as_str().unwrap();
    let status = u16::try_from(case["status"].as_u64().unwrap()).unwrap();
    let framing = if status == 0 { Framing::None } else { Framing::ContentLength };
    let content_type = case["content_type"].as_str().unwrap().to_owned();
    Response { status, content_type, framing, ..Response::stream([body]) }
}

#[test]
fn every_error_is_shown_in_the_servers_words() {
    let cases = error_bodies();
    assert_eq!(cases.len(), 34);
    check_all(&cases, |case| {
        let server = StubServer::start([error_response(case)]);
        let finished = run_against(&server, &["--stream"]);
        let stderr = finished.stderr();
        let shown = format!("{} ({}): exit {}\n{stderr}", case["server"], case["when"], finished.code());
        assert_eq!(Value::from(finished.code()), case["exit"], "{shown}");
        assert_eq!(finished.stdout(), "", "{shown}");
        if let Some(message) = case["expected_message"].as_str() {
            assert!(stderr.lines().next().unwrap_or_default().contains(message), "{shown}\n{message}");
        }
    });
}

#[test]
fn every_case_has_its_hint() {
    let all: Value = serde_json::from_str(HINTS).unwrap();
    let cases = all["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 30);
    check_all(cases, |case| {
        let server = StubServer::start([error_response(case)]);
        let arguments = case["arguments"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let repeated = &case["repeat"];
        let times = usize::try_from(repeated[1].as_u64().unwrap_or_default()).unwrap();
        let prompt = repeated[0].as_str().unwrap_or_default().repeat(times);
        let arguments: Vec<&str> = arguments.chain([prompt.as_str()]).collect();
        let finished = run_against(&server, &arguments);
        let stderr = finished.stderr();
        assert_eq!(Value::from(finished.code()), case["exit"], "{}: {finished}", case["about"]);
        assert_eq!(Value::from(stderr.lines().collect::<Vec<_>>()), case["stderr"], "{}", case["about"]);
    });
}

#[test]
fn every_error_is_of_the_expected_kind() {
    for case in error_bodies() {
        let status = u16::try_from(case["status"].as_u64().unwrap()).unwrap();
        let body = case["body"].as_str().unwrap();
        let kind = case["kind"].as_str().unwrap();
        if ["empty_reply", "empty_answer", "not_an_error"].contains(&kind) {
            continue; // Not an error of a server: covered by the test above.
        }
        let event = body.lines().find_map(|line| line.strip_prefix("data: "));
        let error = match event {
            Some(data) => ServerError::from_event(data),
            None => ServerError::from_response(status, body.as_bytes()),
        };
        let written = format!("{:?}", error.kind);
        assert_eq!(written.to_lowercase(), kind.replace('_', ""), "{}: {}", case["server"], case["when"]);
    }
}

#[test]
fn a_long_error_message_is_cut() {
    let body = format!("{{\"error\": {{\"message\": \"{}\"}}}}", "x".repeat(1 << 20));
    let error = ServerError::from_response(500, &body.as_bytes()[..64 * 1024]);
    assert_eq!(error.message, "x".repeat(299) + "…");
}

/// Streams of the real `mlx_lm.server`, recorded with a tiny model.
#[test]
fn recorded_streams_of_mlx_are_read() {
    let record = |body: &[u8], text: &str, finish_reason: &str, tokens: (u64, u64)| {
        let response = Response::stream([body.to_vec()]).framing(Framing::Close);
        let server = StubServer::start([response]);
        let finished = run_against(&server, &["--stream", "--json"]).assert_code(0);
        let object = finished.json();
        assert_eq!(object["text"], text);
        assert_eq!(object["finish_reason"], finish_reason);
        let usage = &object["usage"];
        assert_eq!(
            (&usage["prompt_tokens"], &usage["completion_tokens"]),
            (&tokens.0.into(), &tokens.1.into())
        );
        object
    };
    record(
        include_bytes!("cases/recorded/mlx_stream.txt"),
        "The small model. 🌲. 🌲. 🌲. 🌲. 🌲. 🌲. 🌲. 🌲. 🌲. �",
        "length",
        (12, 60),
    );
    record(include_bytes!("cases/recorded/mlx_keepalive.txt"), "The small model. ", "length", (12_014, 5));
    record(include_bytes!("cases/recorded/mlx_whole.json"), "The small model. 🌲. 🌲. �", "length", (12, 20));
    let thinking = record(
        include_bytes!("cases/recorded/mlx_thinking.txt"),
        "The small model runs on your machine has a small model runs on your machine has a small model runs on your machine has a small model runs on your machine has a thing, a thing, a thing, a thing, a thing, a thing, a thing, a thing, a thing, a small model runs on your machine has a small model runs on your machine has a",
        "length",
        (13, 80),
    );
    assert_eq!(
        thinking["reasoning"],
        "The user wrote to me. I must think about the answer. A short answer is good. "
    );
}
