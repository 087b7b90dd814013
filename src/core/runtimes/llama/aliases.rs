//! The built-in aliases, each with a repository of GGUF files on the hub; the quantization is chosen as for any name
//! without one.

use crate::core::runtimes::BuiltInAlias;

/// In alphabetical order.
pub(super) const ALIASES: &[BuiltInAlias] = &[
    ("deepseek-r1:1.5b", "unsloth/DeepSeek-R1-Distill-Qwen-1.5B-GGUF"),
    ("deepseek-r1:14b", "unsloth/DeepSeek-R1-Distill-Qwen-14B-GGUF"),
    ("deepseek-r1:7b", "unsloth/DeepSeek-R1-Distill-Qwen-7B-GGUF"),
    ("deepseek-r1:8b", "unsloth/DeepSeek-R1-0528-Qwen3-8B-GGUF"),
    ("gemma3:12b", "ggml-org/gemma-3-12b-it-GGUF"),
    ("gemma3:1b", "ggml-org/gemma-3-1b-it-GGUF"),
    ("gemma3:27b", "ggml-org/gemma-3-27b-it-GGUF"),
    ("gemma3:4b", "ggml-org/gemma-3-4b-it-GGUF"),
    ("gpt-oss:20b", "ggml-org/gpt-oss-20b-GGUF"),
    ("llama3.1:8b", "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF"),
    ("llama3.2:1b", "bartowski/Llama-3.2-1B-Instruct-GGUF"),
    ("llama3.2:3b", "bartowski/Llama-3.2-3B-Instruct-GGUF"),
    ("llama3.3:70b", "bartowski/Llama-3.3-70B-Instruct-GGUF"),
    ("mistral-nemo:12b", "bartowski/Mistral-Nemo-Instruct-2407-GGUF"),
    ("mistral:7b", "bartowski/Mistral-7B-Instruct-v0.3-GGUF"),
    ("phi3.5:3.8b", "bartowski/Phi-3.5-mini-instruct-GGUF"),
    ("phi4-mini:3.8b", "unsloth/Phi-4-mini-instruct-GGUF"),
    ("phi4:14b", "bartowski/phi-4-GGUF"),
    ("qwen2.5-coder:1.5b", "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF"),
    ("qwen2.5-coder:14b", "Qwen/Qwen2.5-Coder-14B-Instruct-GGUF"),
    ("qwen2.5-coder:32b", "Qwen/Qwen2.5-Coder-32B-Instruct-GGUF"),
    ("qwen2.5-coder:7b", "Qwen/Qwen2.5-Coder-7B-Instruct-GGUF"),
    ("qwen2.5:0.5b", "Qwen/Qwen2.5-0.5B-Instruct-GGUF"),
    ("qwen2.5:1.5b", "Qwen/Qwen2.5-1.5B-Instruct-GGUF"),
    ("qwen2.5:3b", "Qwen/Qwen2.5-3B-Instruct-GGUF"),
    ("qwen2.5:7b", "Qwen/Qwen2.5-7B-Instruct-GGUF"),
    ("qwen3:0.6b", "Qwen/Qwen3-0.6B-GGUF"),
    ("qwen3:1.7b", "Qwen/Qwen3-1.7B-GGUF"),
    ("qwen3:14b", "Qwen/Qwen3-14B-GGUF"),
    ("qwen3:30b", "Qwen/Qwen3-30B-A3B-GGUF"),
    ("qwen3:4b", "Qwen/Qwen3-4B-GGUF"),
    ("qwen3:8b", "Qwen/Qwen3-8B-GGUF"),
    ("smollm2:135m", "bartowski/SmolLM2-135M-Instruct-GGUF"),
    ("smollm2:360m", "bartowski/SmolLM2-360M-Instruct-GGUF"),
];
