//! The short names that fusion knows, and the model of the MLX community (<https://huggingface.co/mlx-community>)
//! that each stands for.

use crate::core::runtimes::BuiltInAlias;

/// In alphabetical order.
pub(super) const ALIASES: &[BuiltInAlias] = &[
    ("deepseek-r1:1.5b", "mlx-community/DeepSeek-R1-Distill-Qwen-1.5B-4bit"),
    ("deepseek-r1:14b", "mlx-community/DeepSeek-R1-Distill-Qwen-14B-4bit"),
    ("deepseek-r1:7b", "mlx-community/DeepSeek-R1-Distill-Qwen-7B-4bit"),
    ("deepseek-r1:8b", "mlx-community/DeepSeek-R1-0528-Qwen3-8B-4bit"),
    ("gemma3:12b", "mlx-community/gemma-3-12b-it-4bit"),
    ("gemma3:1b", "mlx-community/gemma-3-1b-it-4bit"),
    ("gemma3:27b", "mlx-community/gemma-3-27b-it-4bit"),
    ("gemma3:4b", "mlx-community/gemma-3-4b-it-4bit"),
    ("gpt-oss:20b", "mlx-community/gpt-oss-20b-MXFP4-Q8"),
    ("llama3.1:8b", "mlx-community/Meta-Llama-3.1-8B-Instruct-4bit"),
    ("llama3.2:1b", "mlx-community/Llama-3.2-1B-Instruct-4bit"),
    ("llama3.2:3b", "mlx-community/Llama-3.2-3B-Instruct-4bit"),
    ("llama3.3:70b", "mlx-community/Llama-3.3-70B-Instruct-4bit"),
    ("mistral-nemo:12b", "mlx-community/Mistral-Nemo-Instruct-2407-4bit"),
    ("mistral:7b", "mlx-community/Mistral-7B-Instruct-v0.3-4bit"),
    ("phi3.5:3.8b", "mlx-community/Phi-3.5-mini-instruct-4bit"),
    ("phi4-mini:3.8b", "mlx-community/Phi-4-mini-instruct-4bit"),
    ("phi4:14b", "mlx-community/phi-4-4bit"),
    ("qwen2.5-coder:1.5b", "mlx-community/Qwen2.5-Coder-1.5B-Instruct-4bit"),
    ("qwen2.5-coder:14b", "mlx-community/Qwen2.5-Coder-14B-Instruct-4bit"),
    ("qwen2.5-coder:32b", "mlx-community/Qwen2.5-Coder-32B-Instruct-4bit"),
    ("qwen2.5-coder:7b", "mlx-community/Qwen2.5-Coder-7B-Instruct-4bit"),
    ("qwen2.5:0.5b", "mlx-community/Qwen2.5-0.5B-Instruct-4bit"),
    ("qwen2.5:1.5b", "mlx-community/Qwen2.5-1.5B-Instruct-4bit"),
    ("qwen2.5:3b", "mlx-community/Qwen2.5-3B-Instruct-4bit"),
    ("qwen2.5:7b", "mlx-community/Qwen2.5-7B-Instruct-4bit"),
    ("qwen3:0.6b", "mlx-community/Qwen3-0.6B-4bit"),
    ("qwen3:1.7b", "mlx-community/Qwen3-1.7B-4bit"),
    ("qwen3:14b", "mlx-community/Qwen3-14B-4bit"),
    ("qwen3:30b", "mlx-community/Qwen3-30B-A3B-4bit"),
    ("qwen3:4b", "mlx-community/Qwen3-4B-4bit"),
    ("qwen3:8b", "mlx-community/Qwen3-8B-4bit"),
    ("smollm2:135m", "mlx-community/SmolLM2-135M-Instruct"),
    ("smollm2:360m", "mlx-community/SmolLM2-360M-Instruct"),
];
