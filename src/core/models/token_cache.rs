//! How much memory the context of a model takes, from its `config.json`: which layers keep a key and a value of every
//! token, and how large they are.
//!
//! The kinds are those of `mlx_lm/models`.

use serde_json::Value;

/// Bytes of one number of the cache: the servers keep 16-bit numbers.
const NUMBER_BYTES: u64 = 2;

/// The memory that the tokens of a context take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenCache {
    /// Bytes of every token.
    pub growing: u64,
    /// Bytes of every token of the last `window`.
    pub sliding: u64,
    /// Tokens.
    pub window: u64,
}

impl TokenCache {
    /// Returns how many bytes a context of `tokens` takes.
    pub fn bytes(&self, tokens: u64) -> u64 {
        let growing = self.growing.saturating_mul(tokens);
        growing.saturating_add(self.sliding.saturating_mul(tokens.min(self.window)))
    }
}

impl From<u64> for TokenCache {
    /// Returns a cache of so many bytes for every token.
    fn from(growing: u64) -> Self {
        Self { growing, ..Self::default() }
    }
}

/// Returns a bound for a model of which only the number of parameters is known: a quarter of its power of two thirds.
///
/// A model of L layers of width d has about 12 L d^2 parameters and keeps at most 4 L d bytes of a token; L is at least
/// d / 128. Most models share heads and keep a fraction of that.
pub fn most_for(parameters: u64) -> TokenCache {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a bound needs no digits, and the root of 64 bits squared is within 64 bits"
    )]
    let bytes = (parameters as f64).cbrt().powi(2) as u64 / 4;
    TokenCache::from(bytes)
}

/// The architectures of GGUF files that keep a key and a value for each key-value head, in every layer.
const PLAIN_GGUF: &[&str] = &[
    "command-r",
    "falcon",
    "gemma",
    "gemma2",
    "glm4",
    "gptneox",
    "granite",
    "granitemoe",
    "internlm2",
    "llama",
    "mistral3",
    "olmo",
    "olmo2",
    "olmoe",
    "phi2",
    "phi3",
    "qwen2",
    "qwen25vl",
    "qwen2moe",
    "qwen3",
    "qwen3moe",
    "qwen3vl",
    "qwen3vlmoe",
    "seed_oss",
    "smollm3",
    "stablelm",
    "starcoder2",
];

/// Returns whether each token of a model of this architecture takes the same memory in every layer.
pub fn is_plain_gguf(architecture: &str) -> bool {
    PLAIN_GGUF.contains(&architecture)
}

/// What the layers of a model keep of every token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CacheKind {
    /// A key and a value for each key-value head, in every layer.
    Plain,
    /// One compressed vector and one with the position, in every layer.
    Latent,
    /// A key and a value for each head, in every layer, although the model compresses them.
    Expanded,
    /// A state of fixed size.
    Recurrent,
    /// As [`CacheKind::Plain`], in every n-th layer; a state of fixed size in the others.
    Interval,
    /// As `layer_types` says.
    LayerTypes,
    /// As [`CacheKind::Plain`], in every n-th layer; only the last tokens in the others.
    SlidingPattern,
    /// As [`CacheKind::Plain`], in the layers of one offset in each period; a state of fixed size in the others.
    Period,
    /// As [`CacheKind::Plain`], in the layers that a string marks with `*`.
    Marked,
}

/// The names of `model_type` whose kind is known.
const KINDS: &[(CacheKind, &[&str])] = &[
    (
        CacheKind::Plain,
        &[
            "apertus",
            "bitnet",
            "cohere",
            "dbrx",
            "deepseek",
            "dots1",
            "ernie4_5",
            "ernie4_5_moe",
            "exaone",
            "falcon_h1",
            "gemma",
            "gemma2",
            "glm",
            "glm4",
            "glm4_moe",
            "gpt2",
            "gpt_bigcode",
            "gpt_neox",
            "gptj",
            "granite",
            "granitemoe",
            "helium",
            "hunyuan",
            "hunyuan_v1_dense",
            "internlm2",
            "internlm3",
            "llama",
            "mimo",
            "minicpm",
            "minimax",
            "minimax_m2",
            "mistral",
            "mixtral",
            "nanochat",
            "nemotron",
            "olmo",
            "olmo2",
            "olmoe",
            "phi",
            "phi3",
            "phimoe",
            "qwen",
            "qwen2",
            "qwen2_5_vl",
            "qwen2_moe",
            "qwen2_vl",
            "qwen3",
            "qwen3_moe",
            "qwen3_vl",
            "qwen3_vl_moe",
            "seed_oss",
            "smollm3",
            "stablelm",
            "starcoder2",
        ],
    ),
    (CacheKind::Latent, &["deepseek_v3", "glm4_moe_lite", "kimi_k2", "mistral4"]),
    (CacheKind::Expanded, &["deepseek_v2", "minicpm3"]),
    (CacheKind::Recurrent, &["falcon_mamba", "mamba", "mamba2", "rwkv7"]),
    (CacheKind::Interval, &["qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_5_text", "qwen3_next"]),
    (CacheKind::LayerTypes, &["gpt_oss", "granitemoehybrid", "lfm2", "lfm2_moe", "ministral3"]),
    (CacheKind::SlidingPattern, &["cohere2", "gemma3_text"]),
    (CacheKind::Period, &["jamba"]),
    (CacheKind::Marked, &["nemotron_h"]),
];

/// Returns the memory of the tokens of the model that `config` describes; `None` for an unknown kind of model.
pub fn token_cache(config: &Value) -> Option<TokenCache> {
    let network = config.get("text_config").filter(|text| text.is_object()).unwrap_or(config);
    let kind = kind(network).or_else(|| kind(config))?;
    cache_of(kind, network)
}

fn kind(table: &Value) -> Option<CacheKind> {
    let name = table["model_type"].as_str()?;
    KINDS.iter().find(|(_, names)| names.contains(&name)).map(|(kind, _)| *kind)
}

fn cache_of(kind: CacheKind, network: &Value) -> Option<TokenCache> {
    let layers = || first_number(network, &["num_hidden_layers", "n_layer"]);
    let number = |key: &str| network[key].as_u64();
    let in_layers = |layers: u64, numbers: u64| product(&[layers, numbers, NUMBER_BYTES]);
    let growing = TokenCache::from;
    Some(match kind {
        CacheKind::Plain => growing(in_layers(layers()?, plain_numbers(network)?)),
        CacheKind::Latent => {
            let numbers = number("kv_lora_rank")?.saturating_add(number("qk_rope_head_dim")?);
            growing(in_layers(layers()?, numbers))
        }
        CacheKind::Expanded => growing(in_layers(layers()?, expanded_numbers(network)?)),
        CacheKind::Recurrent => TokenCache::default(),
        CacheKind::Interval => {
            let interval = number("full_attention_interval").unwrap_or(4);
            growing(in_layers(layers()?.checked_div(interval)?, plain_numbers(network)?))
        }
        CacheKind::LayerTypes => layer_types(network)?,
        CacheKind::SlidingPattern => {
            let full = layers()?.checked_div(number("sliding_window_pattern")?)?;
            with_window(network, full, layers()?.checked_sub(full)?)?
        }
        CacheKind::Period => {
            let (period, offset) = (number("attn_layer_period")?, number("attn_layer_offset")?);
            let full =
                layers()?.saturating_sub(offset).checked_add(period.checked_sub(1)?)?.checked_div(period)?;
            growing(in_layers(full, plain_numbers(network)?))
        }
        CacheKind::Marked => {
            let pattern = network["hybrid_override_pattern"].as_str()?;
            let full = u64::try_from(pattern.bytes().filter(|mark| *mark == b'*').count()).ok()?;
            growing(in_layers(full, plain_numbers(network)?))
        }
    })
}

/// Counts the layers by `layer_types`, of which all must be known.
fn layer_types(network: &Value) -> Option<TokenCache> {
    let (mut full, mut sliding) = (0, 0);
    for layer in network["layer_types"].as_array()? {
        match layer.as_str()? {
            "full_attention" | "attention" => full += 1,
            "sliding_attention" => sliding += 1,
            "linear_attention" | "mamba" | "conv" | "recurrent" => {}
            _ => return None,
        }
    }
    with_window(network, full, sliding)
}

fn with_window(network: &Value, full: u64, sliding: u64) -> Option<TokenCache> {
    let bytes = |layers: u64| Some(product(&[layers, plain_numbers(network)?, NUMBER_BYTES]));
    let window = if sliding == 0 { 0 } else { network["sliding_window"].as_u64()? };
    Some(TokenCache { growing: bytes(full)?, sliding: bytes(sliding)?, window })
}

/// Returns how many numbers the key and the value of a token have in one layer.
fn plain_numbers(network: &Value) -> Option<u64> {
    let heads = first_number(network, &["num_attention_heads", "n_head"])?;
    let kept = first_number(network, &["num_key_value_heads"]).unwrap_or(heads);
    let size = first_number(network, &["head_dim", "attention_head_dim"])
        .or_else(|| first_number(network, &["hidden_size", "n_embd"])?.checked_div(heads))?;
    Some(product(&[2, kept, size]))
}

fn expanded_numbers(network: &Value) -> Option<u64> {
    let heads = network["num_attention_heads"].as_u64()?;
    let (nope, rope) = (network["qk_nope_head_dim"].as_u64()?, network["qk_rope_head_dim"].as_u64()?);
    let value =
        network["v_head_dim"].as_u64().or_else(|| network["hidden_size"].as_u64()?.checked_div(heads))?;
    Some(product(&[heads, nope.saturating_add(rope).saturating_add(value)]))
}

fn product(factors: &[u64]) -> u64 {
    factors.iter().fold(1, |product, factor| product.saturating_mul(*factor))
}

/// Returns the first of `keys` that is a number.
pub fn first_number(table: &Value, keys: &[&str]) -> Option<u64> {
    keys.iter().find_map(|key| table[*key].as_u64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn growing(config: &Value) -> Option<u64> {
        token_cache(config).map(|cache| cache.growing)
    }

    #[test]
    fn only_layers_that_keep_a_cache_count() {
        let hybrid = include_bytes!("../../../tests/cases/field/kv-estimate-hybrid.config.json");
        assert_eq!(growing(&serde_json::from_slice(hybrid).unwrap()), Some(65_536));
        let jamba = json!({ "model_type": "jamba", "num_hidden_layers": 32, "num_attention_heads": 32,
            "num_key_value_heads": 8, "hidden_size": 4096, "attn_layer_period": 8, "attn_layer_offset": 4 });
        assert_eq!(growing(&jamba), Some(4 * 2 * 8 * 128 * 2));
        let nemotron = json!({ "model_type": "nemotron_h", "num_hidden_layers": 5, "num_attention_heads": 32,
            "num_key_value_heads": 8, "head_dim": 128, "hybrid_override_pattern": "M-*M*" });
        assert_eq!(growing(&nemotron), Some(2 * 2 * 8 * 128 * 2));
        let lfm2 = json!({ "model_type": "lfm2", "num_attention_heads": 32, "num_key_value_heads": 8,
            "hidden_size": 2048, "layer_types": ["conv", "full_attention", "conv"] });
        assert_eq!(growing(&lfm2), Some(2 * 8 * 64 * 2));
    }

    #[test]
    fn latent_attention_keeps_compressed_vectors() {
        let latent = include_bytes!("../../../tests/cases/field/kv-estimate-mla.config.json");
        let config: Value = serde_json::from_slice(latent).unwrap();
        assert_eq!(growing(&config), Some(70_272));
        // The server keeps the vectors of this one expanded.
        let mut expanded = config;
        expanded["model_type"] = "deepseek_v2".into();
        assert_eq!(growing(&expanded), Some(61 * 128 * (128 + 64 + 128) * 2));
    }

    #[test]
    fn sliding_layers_keep_one_window() {
        let config = json!({ "model_type": "gemma3_text", "num_hidden_layers": 26, "num_attention_heads": 4,
            "num_key_value_heads": 1, "head_dim": 256, "sliding_window_pattern": 6, "sliding_window": 512 });
        let layer = 2 * 256 * 2;
        let cache = TokenCache { growing: 4 * layer, sliding: 22 * layer, window: 512 };
        assert_eq!(token_cache(&config), Some(cache));
        assert_eq!(cache.bytes(100), 26 * layer * 100);
        assert_eq!(cache.bytes(4096), 4 * layer * 4096 + 22 * layer * 512);
        assert_eq!(TokenCache { growing: u64::MAX, sliding: u64::MAX, window: 9 }.bytes(u64::MAX), u64::MAX);
    }

    /// The first number of each line is that of the parameters, then layers, heads that are kept, and their size.
    #[test]
    fn the_bound_holds_for_known_models() {
        for (parameters, layers, heads, size) in [
            (124_000_000, 12, 12, 64),
            (464_000_000, 24, 16, 64),
            (1_240_000_000, 16, 8, 64),
            (2_780_000_000, 32, 32, 80),
            (3_820_000_000, 32, 32, 96),
            (6_740_000_000, 32, 32, 128),
            (8_030_000_000, 32, 8, 128),
            (9_240_000_000, 42, 8, 256),
            (70_600_000_000, 80, 8, 128),
        ] {
            let bound = most_for(parameters).growing;
            assert!(bound >= layers * heads * size * 4, "{parameters}: {bound}");
        }
        assert_eq!(most_for(0).growing, 0);
        assert!(most_for(u64::MAX).growing > 0);
    }

    #[test]
    fn a_recurrent_model_keeps_nothing_per_token() {
        assert_eq!(growing(&json!({ "model_type": "mamba2", "num_hidden_layers": 64 })), Some(0));
    }

    #[test]
    fn an_unknown_kind_has_no_estimate() {
        let plain = json!({ "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 256 });
        let of = |name: &str| {
            let mut config = plain.clone();
            config["model_type"] = name.into();
            growing(&config)
        };
        assert_eq!(of("llama"), Some(2 * 2 * 256 * 2));
        assert_eq!(of("deepseek_v9"), None);
        assert_eq!(growing(&plain), None);
        assert_eq!(of("qwen3_next"), Some(0));
        // A layer of an unknown type.
        let odd = json!({ "model_type": "lfm2", "num_attention_heads": 1, "hidden_size": 1, "layer_types": ["new"] });
        assert_eq!(growing(&odd), None);
        for zero in ["full_attention_interval", "num_attention_heads"] {
            let mut config = plain.clone();
            config["model_type"] = "qwen3_5".into();
            config[zero] = 0.into();
            let _ = token_cache(&config);
        }
    }
}
