//! Searches with the real `hf` tool on a hub on loopback: no network.

mod support;

use std::path::Path;
use std::process::ExitCode;

use support::hub::Hub;
use support::{Invocation, Sandbox, real};

fn main() -> ExitCode {
    real::main(
        "mlx",
        "hf",
        real::tests![
            a_search_shows_what_can_be_pulled,
            a_search_asks_once_and_for_shown_models_only,
            filters_choose_models_and_quantizations,
            a_hub_that_limits_requests_is_exit_8,
            a_search_without_the_tool_is_exit_4,
            hostile_names_are_not_printed,
        ],
    )
}

/// A sandbox with the real tool on its `PATH`, and a hub that has one model.
struct Real {
    sandbox: Sandbox,
    hub: Hub,
}

const MODEL: &str = "test-org/tiny";

impl Real {
    fn new(tool: &Path) -> Self {
        let (sandbox, hub) = (Sandbox::new(), Hub::start());
        real::install(&sandbox, tool);
        hub.offer(MODEL, Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/tiny")));
        Self { sandbox, hub }
    }

    /// Offers repositories of two quantizations each, of one to three megabytes and twice that, and one that is no model.
    fn offer_many(&self) {
        for (name, megabytes) in [("a", 1), ("b", 2), ("c", 3)] {
            for (tag, factor) in [("Q4_K_M", 1000), ("Q8_0", 2000)] {
                let file = format!("{name}-{tag}.gguf");
                self.hub.add(&format!("test-org/{name}-GGUF"), &file, vec![0; megabytes * factor * 1000]);
            }
            let facts = serde_json::json!({
                "gguf": { "total": megabytes * 1_000_000, "context_length": 8192 }, "downloads": megabytes * 1000,
            });
            self.hub.describe(&format!("test-org/{name}-GGUF"), facts);
        }
        self.hub.add("test-org/picture", "picture.png", vec![1; 10]);
    }

    fn search<'a>(&self, service: &'a str, arguments: impl IntoIterator<Item = &'a str>) -> Invocation {
        let command = [service, "search"].into_iter().chain(arguments);
        self.sandbox.fusion(command).env("HF_ENDPOINT", self.hub.url())
    }

    /// The paths of the requests that are a part of a search.
    fn asked(&self) -> Vec<String> {
        let paths = self.hub.requests().into_iter().map(|request| request.path);
        paths.filter(|path| path.starts_with("/api/models")).collect()
    }
}

fn a_search_shows_what_can_be_pulled(tool: &Path) {
    let real = Real::new(tool);
    real.offer_many();
    insta::assert_snapshot!(real.search("llama", ["tiny", "model"]).run(), @"
    exit 0
    [stdout]
    NAME                    PARAMS  QUANT   SIZE    FITS  DOWNLOADS  UPDATED
    test-org/a-GGUF:Q4_K_M  1.0M    Q4_K_M  1.0 MB  yes   1.0K       -
    test-org/b-GGUF:Q4_K_M  2.0M    Q4_K_M  2.0 MB  yes   2.0K       -
    test-org/c-GGUF:Q4_K_M  3.0M    Q4_K_M  3.0 MB  yes   3.0K       -
    fusion llama pull test-org/a-GGUF:Q4_K_M
    ");
    insta::assert_snapshot!(real.search("ollama", ["-n", "1", "tiny"]).run(), @"
    exit 0
    [stdout]
    NAME                          PARAMS  QUANT   SIZE    FITS  DOWNLOADS  UPDATED
    hf.co/test-org/a-GGUF:Q4_K_M  1.0M    Q4_K_M  1.0 MB  yes   1.0K       -
    fusion ollama pull hf.co/test-org/a-GGUF:Q4_K_M
    ");
    insta::assert_snapshot!(real.search("mlx", ["--json", "tiny"]).run(), @r#"
    exit 0
    [stdout]
    [
      {
        "service": "mlx",
        "runtime": "mlx",
        "name": "test-org/tiny",
        "parameters": null,
        "quantization": "float16",
        "size_bytes": 354677,
        "fits": "yes",
        "downloads": null,
        "modified": null,
        "pull": "fusion mlx pull test-org/tiny"
      }
    ]
    "#);
    assert!(real.asked()[0].contains("search=tiny+model"), "{:?}", real.asked());
}

fn a_search_asks_once_and_for_shown_models_only(tool: &Path) {
    let real = Real::new(tool);
    real.offer_many();
    real.search("llama", ["-n", "2", "--sort", "trending", "--", "--token=x"]).run().assert_code(0);
    let mut asked = real.asked();
    let list = asked.remove(0);
    for part in ["filter=gguf", "search=--token%3Dx", "sort=trendingScore"] {
        assert!(list.contains(part), "{list}");
    }
    asked.sort();
    let trees: Vec<_> = asked.iter().map(|path| path.split('?').next().unwrap_or_default()).collect();
    assert_eq!(trees, ["/api/models/test-org/a-GGUF/tree/main", "/api/models/test-org/b-GGUF/tree/main"]);
    real.hub.forget();
    real.search("llama", ["-n", "2", "--sort", "trending", "--", "--token=x"]).run().assert_code(0);
    assert_eq!(real.asked(), [""; 0]);
    // Another hub has other models.
    real.search("llama", ["x"]).env("HF_ENDPOINT", "http://127.0.0.1:1").run().assert_code(8);
}

fn filters_choose_models_and_quantizations(tool: &Path) {
    let real = Real::new(tool);
    real.offer_many();
    let names = |arguments: &[&str]| {
        let found = real.search("llama", ["--json", "x"].into_iter().chain(arguments.iter().copied()));
        let found = found.run().assert_code(0).json();
        let rows = found.as_array().expect("an array").iter();
        rows.map(|row| row["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&["--max-size", "2500KB"]), ["test-org/a-GGUF:Q4_K_M", "test-org/b-GGUF:Q4_K_M"]);
    assert_eq!(names(&["--max-size", "500KB"]), [""; 0]);
    assert_eq!(names(&["--fits", "--context", "8k", "-n", "1"]), ["test-org/a-GGUF:Q4_K_M"]);
    for wrong in [["--max-size", "big"], ["--context", "0"], ["--sort", "size"], ["-n", "0"], ["-n", "101"]] {
        real.search("llama", wrong.into_iter().chain(["x"])).run().assert_code(2);
    }
    real.search("llama", [" "]).run().assert_code(2);
    real.search("llama", []).run().assert_code(2);
}

fn a_hub_that_limits_requests_is_exit_8(tool: &Path) {
    let real = Real::new(tool);
    real.sandbox.fusion(["mlx", "pull", MODEL]).env("HF_ENDPOINT", real.hub.url()).run().assert_code(0);
    real.hub.refuse(299);
    insta::assert_snapshot!(real.search("mlx", ["TINY", "test"]).run(), @"
    exit 8
    [stdout]
    NAME           PARAMS  QUANT    SIZE    FITS  DOWNLOADS  UPDATED
    test-org/tiny  -       float16  355 kB  ?     -          just now
    [stderr]
    on this machine:
    error: the hub answers no more requests for now: too many have come from here
    hint: try again in 5m 0s
    ");
    let offline = real.search("mlx", ["nothing"]).env("HF_HUB_OFFLINE", "1").run();
    insta::assert_snapshot!(offline, @"
    exit 8
    [stderr]
    no model on this machine has such a name
    error: HF_HUB_OFFLINE is set, so the hub is not asked
    hint: unset HF_HUB_OFFLINE, then try again
    ");
    let refused = real.search("mlx", ["tiny"]).env("HF_ENDPOINT", "http://127.0.0.1:1").run().assert_code(8);
    assert!(refused.stderr().contains("check the connection, then try again"), "{refused}");
    real.sandbox.assert_nothing_runs();
}

fn a_search_without_the_tool_is_exit_4(_: &Path) {
    let sandbox = Sandbox::new();
    insta::assert_snapshot!(sandbox.fusion(["ollama", "search", "x"]).run(), @"
    exit 4
    [stderr]
    error: cannot search the hub: the program hf is not installed
    hint: install it: fusion mlx install, which brings it; or uv tool install huggingface_hub
    ");
}

fn hostile_names_are_not_printed(tool: &Path) {
    let real = Real::new(tool);
    let file = "x-\u{1b}]0;owned\u{7}Q4_K_M.gguf";
    real.hub.add("test-org/bad", file, vec![0; 1000]);
    for name in ["-x/y", "../../etc", "a b/c", "a\u{1b}[31m/b"] {
        real.hub.add(name, "x-Q4_K_M.gguf", vec![0; 10]);
    }
    let found = real.search("llama", ["--json", "x"]).run().assert_code(0);
    assert_eq!(found.json(), serde_json::json!([]));
    assert!(!found.to_string().contains('\u{1b}'), "{found}");
}
