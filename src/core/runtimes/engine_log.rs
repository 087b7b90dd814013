//! What the log of llama.cpp's engine says, which llama-server and Ollama have inside.

use super::Advice;

/// An error of the engine about a model that it does not know.
pub(super) const UNKNOWN_ARCHITECTURE: Advice = Advice {
    about: "unknown model architecture",
    text: "the server is too old for this model, or no version of it knows the model: update it, or choose another model",
};

/// Parts of the lines of the log that say why a model failed, each before the cause.
const CAUSES: [&str; 3] =
    ["error loading model architecture: ", "error loading model: ", "string=\"signal: "];

/// Returns the last cause in the log why a model failed.
pub(super) fn explain_model_failure(log_tail: &str) -> Option<String> {
    let cause = |line: &str| {
        CAUSES.iter().find_map(|mark| Some(line.split_once(mark)?.1)).map(|cause| {
            match cause.split_once('"') {
                Some((signal, _)) if line.contains("string=\"signal: ") => format!("signal: {signal}"),
                // A line end within a message is escaped.
                _ => cause.split("\\n").next().unwrap_or(cause).trim().trim_end_matches('"').to_owned(),
            }
        })
    };
    log_tail.lines().rev().find_map(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_why_a_model_failed() {
        let cause = |log: &str| explain_model_failure(log);
        let killed = "time=x level=ERROR source=server.go:1648 msg=\"post predict\" error=\"EOF\"\n\
                      time=x level=ERROR source=server.go:303 msg=\"llama runner process no longer running\" sys=9 \
                      string=\"signal: killed\"\n[GIN] 200\n";
        assert_eq!(cause(killed).as_deref(), Some("signal: killed"));
        let unknown = "llama_model_load: error loading model: error loading model architecture: unknown model \
                       architecture: 'nope'\nllama_model_load_from_file_impl: failed to load model\n";
        assert_eq!(cause(unknown).as_deref(), Some("unknown model architecture: 'nope'"));
        let damaged = "time=x level=INFO error=\"llama runner process has terminated: error loading model: missing \
                       tensor 'x'\\nllama_model_load_from_file_impl: failed\"\n";
        assert_eq!(cause(damaged).as_deref(), Some("missing tensor 'x'"));
        assert_eq!(cause("level=INFO msg=\"loaded\"\n"), None);
        let router = "[57559] 0.00.015.381 E llama_model_load: error loading model: check_tensor_dims: tensor \
                      'output_norm.weight' not found\n[57559] 0.00.015.427 E llama_model_load_from_file_impl: failed to \
                      load model\n0.00.087.083 I srv           run: instance name=tensor exited with status 1\n";
        assert_eq!(
            cause(router).as_deref(),
            Some("check_tensor_dims: tensor 'output_norm.weight' not found")
        );
    }
}
