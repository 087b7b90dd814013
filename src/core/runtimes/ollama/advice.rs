//! What Ollama ignores and says, and what to do about it: data.

use crate::core::runtimes::Advice;
use crate::core::runtimes::engine_log::UNKNOWN_ARCHITECTURE;

/// Fields that its OpenAI-compatible API ignores (openai/openai.go: `ChatCompletionRequest`).
pub(super) const IGNORED_FIELDS: &[Advice] = &[
    Advice {
        about: "num_ctx",
        text: "set the context of the server: fusion config set SECTION.env.OLLAMA_CONTEXT_LENGTH TOKENS, then \
               fusion SERVICE restart",
    },
    Advice {
        about: "keep_alive",
        text: "load the model with it: fusion SERVICE load MODEL --keep-alive TIME",
    },
    Advice { about: "num_predict", text: "use --max-tokens" },
    Advice { about: "max_completion_tokens", text: "use --max-tokens" },
    Advice { about: "think", text: "use -o reasoning_effort=none, low, medium or high" },
    Advice { about: "n", text: "run the command again for another answer" },
    Advice { about: "options", text: "set parameters of the model in a Modelfile" },
    Advice { about: "truncate", text: "shorten the prompt, or use a longer context" },
];

/// Parts of its error messages, in small letters.
pub(super) const ERRORS: &[Advice] = &[
    Advice {
        about: "timed out waiting for llama runner to start",
        text: "give the model more time to load: fusion config set SECTION.env.OLLAMA_LOAD_TIMEOUT 15m, then \
               fusion SERVICE restart",
    },
    Advice {
        about: "invalid json schema in format",
        text: "the server cannot compile the schema: leave out `not`, references to other documents and unknown types",
    },
    Advice {
        about: "does not support thinking",
        text: "leave out reasoning_effort, or choose a model that reasons",
    },
    Advice {
        about: "invalid reasoning value",
        text: "set it to none, low, medium or high: -o reasoning_effort=low",
    },
    Advice {
        about: "does not support tools",
        text: "choose a model with the capability `tools`; `fusion SERVICE show NAME` lists the capabilities",
    },
    Advice {
        about: "maximum pending requests exceeded",
        text: "too many requests wait for a model to load: try again later, or raise \
               SECTION.env.OLLAMA_MAX_QUEUE",
    },
    UNKNOWN_ARCHITECTURE,
    Advice { about: "missing tensor", text: DAMAGED },
    Advice { about: "exceeds file size", text: DAMAGED },
    Advice { about: "incomplete on the disk", text: DAMAGED },
    // What its JSON parser says of a manifest that was cut or overwritten; it can neither show nor remove the model.
    Advice { about: "unexpected eof", text: MANIFEST },
    Advice { about: "invalid character", text: MANIFEST },
    // It fails without a word on a file that is no model.
    Advice {
        about: "http 500 internal server error",
        text: "see the log: fusion SERVICE log; if the model is damaged: fusion SERVICE rm MODEL, then fusion SERVICE \
               pull MODEL",
    },
];

const MANIFEST: &str =
    "its manifest on the disk may be damaged; download it again: fusion SERVICE pull MODEL";

const DAMAGED: &str =
    "the model is damaged; download it again: fusion SERVICE rm MODEL, then fusion SERVICE pull MODEL";
