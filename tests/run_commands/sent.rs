//! What a prompt sends, and what the command line, a kept prompt and the configuration put into it.

use serde_json::json;

use crate::support::Sandbox;
use crate::support::stub_server::Response;
use crate::support::stubbed_ollama::StubbedOllama;
use crate::{asked, dry_run};

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
    let asked = StubbedOllama::with([Response::json(
        200,
        r#"{"choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}]}"#,
    )]);
    asked.run(["Hello", "--seed", "7"]).assert_stdout("Hi\n");
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
         extra_body = { keep_alive = \"5m\", top_k = 3 }\n\n[prompts.short]\nsystem = \"two\"\nmodel = \"b\"\ntemperature = 0.2\n\
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
