//! Tests of what is particular to llama.cpp.

use std::path::Path;

use super::*;

fn response(file: &str) -> Response {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/llama").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let server = head.lines().find_map(|line| line.strip_prefix("Server: ")).unwrap_or_default();
    Response { status, server: server.to_owned(), body: body.into() }
}

fn names(recognition: Recognition) -> Vec<String> {
    match recognition {
        Recognition::Ready(facts) => facts.models.unwrap(),
        other => panic!("{other:?}"),
    }
}

fn args(model: Option<&Model>, places: &ModelPlaces) -> String {
    let address = Address { host: "::1".to_owned(), port: 8081 };
    Llama.launch(&address, model, places).args.join(" ")
}

#[test]
fn only_its_own_header_is_a_mark() {
    let ready = Recognition::Ready(ServerFacts::default());
    assert_eq!(read_health(&response("health_200.http")), ready);
    assert_eq!(
        read_health(&response("loading_health_503.http")),
        Recognition::NotReady("it is loading the model".to_owned())
    );
    let other = Response { server: "BaseHTTP/0.6".to_owned(), ..response("health_200.http") };
    assert!(matches!(read_health(&other), Recognition::OtherProgram(_)));
}

#[test]
fn details_are_read_from_both_modes() {
    assert_eq!(
        read_loaded(&response("models_200.http")),
        Recognition::Ready(ServerFacts {
            models: Some(vec!["tiny.gguf".to_owned()]),
            context: Some(32768),
            ..ServerFacts::default()
        })
    );
    assert_eq!(names(read_loaded(&response("router_models_200.http"))), [""; 0]);
    assert_eq!(names(read_loaded(&response("router_models_loaded_200.http"))), ["tiny"]);
    assert_eq!(names(read_served(&response("router_models_200.http"))), ["bad", "endless", "sub", "tiny"]);
    let Recognition::Ready(facts) = read_props(&response("props_200.http")) else { panic!("not ready") };
    assert_eq!((facts.version.as_deref(), facts.context), (None, Some(32768)));
    let built = Response { body: br#"{"build_info":"b11434-abc"}"#.to_vec(), ..response("health_200.http") };
    let Recognition::Ready(facts) = read_props(&built) else { panic!("not ready") };
    assert_eq!(facts.version.as_deref(), Some("b11434"));
}

#[test]
fn a_router_serves_the_directory_and_the_cache() {
    let places = ModelPlaces { models_dir: Some("/models".into()), ..ModelPlaces::default() };
    assert_eq!(
        args(None, &places),
        "--host ::1 --port 8081 --cors-origins localhost --models-dir /models --offline"
    );
    assert_eq!(
        args(None, &ModelPlaces::default()),
        "--host ::1 --port 8081 --cors-origins localhost --offline"
    );
}

/// What the server says last is what follows; the cause comes first (b11434).
#[test]
fn the_log_explains_an_early_exit() {
    let missing = "0.00.029.100 I srv  llama_server: loading\n\
         0.00.030.621 E gguf_init_from_file: failed to open GGUF file 'x' (No such file or directory)\n\
         0.00.030.636 E llama_model_load: error loading model: failed to load model from x\n\
         0.00.031.115 E srv  llama_server: exiting due to model loading error\n";
    let cause = |log: &str| Llama.explain_exit(log);
    assert_eq!(
        cause(missing).as_deref(),
        Some("gguf_init_from_file: failed to open GGUF file 'x' (No such file or directory)")
    );
    let bind = "0.00.054.376 E srv         start: couldn't bind HTTP server socket, hostname: h, port: 1\n";
    assert_eq!(cause(bind).as_deref(), Some("the address is in use, or is not one of this machine"));
    assert_eq!(cause("error: invalid argument: --x\n").as_deref(), Some("invalid argument: --x"));
    assert_eq!(cause("0.00.1 I srv  all is well, E is a letter\n"), None);
}

#[test]
fn a_longer_context_holds_the_prompt() {
    assert_eq!(
        Llama.longer_context("llama", "llama_server", 45_019).as_deref(),
        Some("shorten the prompt, or add \"-c\", \"65536\" to llama_server.args: fusion config edit")
    );
    assert_eq!(Llama.longer_context("llama", "llama_server", u64::MAX), None);
}
