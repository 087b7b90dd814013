//! The request: what the command line, a saved prompt and the configuration put into it.

use serde_json::json;

use crate::support::stub_server::Response;
use crate::support::stubbed_ollama::StubbedOllama;
use crate::support::{Sandbox, table};
use crate::{asked, dry_run};

#[test]
fn the_configuration_makes_the_request() {
    let sandbox = Sandbox::without_config();
    insta::assert_snapshot!(sandbox.fusion(["ollama", "run", "--dry-run", "Hello"]).run_in_process(), @r#"
    exit 0
    [stdout]
    {
      "messages": [
        {
          "content": "You are a helpful assistant.",
          "role": "system"
        },
        {
          "content": "Hello",
          "role": "user"
        }
      ],
      "model": "llama3.2:3b",
      "stream": true,
      "stream_options": {
        "include_usage": true
      },
      "temperature": 0.8
    }
    "#);
}

#[test]
fn a_dry_run_prints_what_is_sent() {
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
fn flags_win_over_saved_prompts_over_configuration() {
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
            "model": "c", "temperature": 0.0, "max_tokens": 5, "top_p": 0.5, "seed": 9, "stop": ["y", "z"], "stream": true,
            "stream_options": { "include_usage": true },
            "keep_alive": "5m", "num": [1], "word": "two words",
            "messages": [{ "role": "user", "content": "Shorten: Hi!" }],
        })
    );
}

#[test]
fn an_alias_stands_for_a_model() {
    let sandbox = Sandbox::without_config();
    sandbox.write_config("[aliases]\nsmall = \"qwen3:0.6b\"\n");
    assert_eq!(dry_run(&sandbox, &["Hi", "-m", "small"], "")["model"], "qwen3:0.6b");
}

#[test]
fn an_unknown_saved_prompt_lists_the_known_ones() {
    let sandbox = Sandbox::without_config();
    sandbox.write_config(
        "[prompts.short]\ntemplate = \"Shorten: {input}\"\n\n[prompts.joke]\ntemplate = \"Tell a joke.\"\n",
    );
    insta::assert_snapshot!(sandbox.fusion(["ollama", "run", "--prompt", "shrot", "Hi"]).run_in_process(), @"
    exit 2
    [stderr]
    error: there is no saved prompt `shrot` in the configuration
    hint: saved prompts: joke, short
    ");
    // A template without `{input}` is complete.
    assert_eq!(asked(&sandbox, &["--prompt", "joke"], ""), "Tell a joke.");
    assert_eq!(asked(&sandbox, &["--prompt", "joke", "About cats."], ""), "Tell a joke.\n\nAbout cats.");
    let empty = sandbox.fusion(["ollama", "run", "--prompt", "short", "--dry-run"]).run_in_process();
    insta::assert_snapshot!(empty, @"
    exit 2
    [stderr]
    error: the prompt is empty
    hint: pass it as an argument, on standard input, or with --file
    ");
}

#[test]
fn invalid_option_values_are_refused() {
    let sandbox = Sandbox::new();
    let options = [
        ["-t", "-1"],
        ["-t", "nan"],
        ["--top-p", "1.1"],
        ["--max-tokens", "0"],
        ["--max-tokens=-5", "--strict"],
        ["--timeout", "0"],
        ["--reasoning", "loud"],
        ["-o", "novalue"],
        ["-o", "model=other"],
    ];
    let refused = options.map(|option| {
        let arguments = ["ollama", "run", "Hi", "--dry-run"].into_iter().chain(option);
        (option.join(" "), sandbox.fusion(arguments).run_in_process())
    });
    insta::assert_snapshot!(table(refused), @"
    # -t -1
    exit 2
    [stderr]
    error: invalid value '-1' for '--temperature <NUMBER>': expected a number from 0 to 2

    For more information, try '--help'.
    # -t nan
    exit 2
    [stderr]
    error: invalid value 'nan' for '--temperature <NUMBER>': expected a number from 0 to 2

    For more information, try '--help'.
    # --top-p 1.1
    exit 2
    [stderr]
    error: invalid value '1.1' for '--top-p <NUMBER>': expected a number from 0 to 1

    For more information, try '--help'.
    # --max-tokens 0
    exit 2
    [stderr]
    error: invalid value '0' for '--max-tokens <N>': 0 is not in 1..=4294967295

    For more information, try '--help'.
    # --max-tokens=-5 --strict
    exit 2
    [stderr]
    error: invalid value '-5' for '--max-tokens <N>': -5 is not in 1..=4294967295

    For more information, try '--help'.
    # --timeout 0
    exit 2
    [stderr]
    error: invalid value '0' for '--timeout <SECONDS>': expected a number of seconds from 0.001 to 31536000

    For more information, try '--help'.
    # --reasoning loud
    exit 2
    [stderr]
    error: invalid value 'loud' for '--reasoning <WHAT>'
      [possible values: show, hide]

    For more information, try '--help'.
    # -o novalue
    exit 2
    [stderr]
    error: invalid value 'novalue' for '-o <KEY=VALUE>': expected KEY=VALUE

    For more information, try '--help'.
    # -o model=other
    exit 2
    [stderr]
    error: invalid value 'model=other' for '-o <KEY=VALUE>': use --model to choose the model

    For more information, try '--help'.
    ");
}

#[test]
fn a_models_own_table_wins_over_the_services() {
    let sandbox = Sandbox::new();
    sandbox.write_config(
        "[ollama_run]\nmodel = \"llama3.2\"\ntemperature = 0.8\nsystem_prompt = \"Service\"\n\
         [prompts.calm]\ntemperature = 0.1\n\
         [models.\"llama3.2:latest\"]\ntemperature = 0.3\nsystem_prompt = \"Model\"\n",
    );
    let sent = |arguments: &[&str]| {
        let body = dry_run(&sandbox, arguments, "");
        (body["messages"][0]["content"].clone(), body["temperature"].clone())
    };
    assert_eq!(sent(&["Hi"]), (json!("Model"), json!(0.3)));
    assert_eq!(sent(&["Hi", "--prompt", "calm"]), (json!("Model"), json!(0.1)));
    assert_eq!(sent(&["Hi", "--prompt", "calm", "-t", "0.2", "-s", "Mine"]), (json!("Mine"), json!(0.2)));
    assert_eq!(sent(&["Hi", "-m", "other"]), (json!("Service"), json!(0.8)));
}

#[test]
fn ollama_refuses_a_context_of_one_model() {
    let sandbox = Sandbox::new();
    sandbox.write_config("[models.\"llama3.2:3b\"]\ncontext = 32768\n");
    insta::assert_snapshot!(sandbox.fusion(["ollama", "run", "Hi", "--dry-run"]).run_in_process(), @"
    exit 2
    [stderr]
    error: `models.llama3.2:3b.context` is set, and ollama has one context for all models
    hint: use a longer context: fusion config set ollama_server.env.OLLAMA_CONTEXT_LENGTH 32768, then fusion ollama restart
    ");
}
