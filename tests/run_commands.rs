//! `fusion <runtime> run`: what is sent, how the answer is checked, and where the prompt goes.

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use serde_json::{Value, json};
use support::Sandbox;
use support::asked::{Asked, finish, stream, text, wait};
use support::stub_server::{Reply, StubServer};
use support::terminal::Terminal;

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
fn values_that_mean_nothing_are_refused_by_name() {
    let sandbox = Sandbox::new();
    for (arguments, complaint) in [
        (["-t", "-1"], "expected a number from 0 to 2"),
        (["-t", "nan"], "expected a number from 0 to 2"),
        (["--top-p", "1.1"], "expected a number from 0 to 1"),
        (["--max-tokens", "0"], "0 is not in 1.."),
        (["--timeout", "0"], "expected a number of seconds from 0.001 to 31536000"),
        (["--reasoning", "loud"], "[possible values: show, hide]"),
        (["-o", "novalue"], "expected KEY=VALUE"),
        (["-o", "model=other"], "the model is named with --model"),
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
    let asked = Asked::with([stream(&["Hi"])]);
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
    assert!(wait(&mut child).success());
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
    sandbox.write_config("[ollama_run]\nextra = { stop = 7 }\n");
    assert_eq!(dry_run(&sandbox, &["Hi"], "")["stop"], "7");
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
fn an_answer_that_was_cut_is_that_rather_than_a_violation() {
    let asked = Asked::with([Reply::stream([text("{\"name\": \"A"), finish("length")])]);
    std::fs::write(asked.sandbox.project().join("person.json"), SCHEMA).unwrap();
    let warning = "warning: the answer was cut at the token limit; --max-tokens raises it\n";
    asked.run(["Who?", "--schema", "person.json", "--strict"]).assert(9, "{\"name\": \"A\n", warning);
    asked.run(["Who?", "--schema", "person.json"]).assert_code(8);
}

#[test]
fn a_name_in_an_answer_cannot_forge_a_message() {
    let asked = Asked::with([stream(&["{\"a\\nerror: disk full\\nhint: run this\": 1}"])]);
    std::fs::write(
        asked.sandbox.project().join("schema.json"),
        "{\"additionalProperties\": {\"type\": \"string\"}}",
    )
    .unwrap();
    let finished = asked.run(["Who?", "--schema", "schema.json"]).assert_code(8);
    assert_eq!(
        finished.stderr(),
        "error: the answer does not satisfy the schema: /a error: disk full hint: run this must be of type string, not number\n"
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
        format!("mlx has {name} loaded, and loads {} instead now\n", other.display())
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
fn a_command_that_is_named_can_be_given_to_a_shell() {
    let asked = Asked::with([Reply::json(404, r#"{"error": {"message": "model 'x' not found"}}"#)]);
    let finished = asked.run(["Hello", "-m", "a b'c;$(x)"]).assert_code(7);
    assert!(
        finished.stderr().ends_with("hint: fetch it: fusion ollama pull 'a b'\\''c;$(x)'\n"),
        "{}",
        finished.stderr()
    );
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
    sandbox.fusion(["mlx", "run", "Hello", "-m", "./nowhere"]).run().assert(
        7,
        "",
        "error: the model [ROOT]/project/nowhere is not there\nhint: a path must lead to the directory of a model\n",
    );
    // (nor is a damaged one tried in place of the one that is loaded)
    std::fs::create_dir(sandbox.project().join("damaged")).unwrap();
    std::fs::write(sandbox.project().join("damaged/config.json"), "{}").unwrap();
    let finished = sandbox.fusion(["mlx", "run", "Hello", "-m", "./damaged"]).run().assert_code(7);
    assert_eq!(finished.stdout(), "");
    let told = finished.stderr();
    assert!(told.contains("/damaged is incomplete: there is no tokenizer"), "{told}");
    sandbox.fusion(["mlx", "down"]).run().assert_code(0);
    // ... and what somebody else started only if it lists it.
    let list = |id: &str| Reply::json(200, json!({ "object": "list", "data": [{ "id": id }] }).to_string());
    let server = StubServer::at(sandbox.port("mlx"), [list("other"), list("org/name"), stream(&["Hi"])]);
    sandbox.fusion(["mlx", "run", "Hello", "-m", "org/name"]).run().assert(7, "", missing);
    assert_eq!(server.request().line, "GET /v1/models HTTP/1.1");
    sandbox.fusion(["mlx", "run", "Hello", "-m", "org/name", "--stream"]).run().assert(0, "Hi\n", "");
}
