#!/usr/bin/env python3
"""Write the tiny model of this repository, or a variant of it, as one GGUF file, the format of llama.cpp and Ollama.

    python3 tests/make_tiny_gguf.py MODEL_DIR OUT.gguf [--name NAME] [--thinking] [--tools] [--template FILE] [--vocab-only]

MODEL_DIR is what make_tiny_model.py writes. It needs nothing but Python, copies the weights as they are (float16,
bfloat16 or float32), and writes the same bytes everywhere: 352 KB for tests/models/tiny.

    --thinking       the chat template writes reasoning_content as <think>...</think>
    --tools          the chat template writes tools, and tool calls as <tool_call>...</tool_call>; the token "Hello", with
                     which every answer begins, is a whole call of get_weather, and "!", which follows, ends the answer
    --template FILE  a Jinja chat template in place of all that
    --vocab-only     no weights: a well-formed file that no server loads

How GGUF differs from the directory (https://github.com/ggml-org/ggml, docs/gguf.md):
  * a shape is written innermost dimension first, which is the same memory;
  * vectors (norms) must be float32;
  * rows of q_proj and k_proj are permuted, for llama.cpp rotates neighbours where transformers and MLX rotate halves;
  * every row of the embedding has a token: padding rows are [PAD...], "unused";
  * tokenizer.ggml.pre = llama-bpe makes llama.cpp take a whole word of the vocabulary as one token without merges
    (`ignore_merges`); it would also add a BOS token, hence add_bos_token = false.
"""
import argparse
import json
import struct
from pathlib import Path

# Value types of GGUF, and types of ggml's tensors.
U32, F32_VALUE, BOOL, STRING, ARRAY, I32 = 4, 6, 7, 8, 9, 5
TENSOR_TYPES = {"F32": 0, "F16": 1, "BF16": 30}
FILE_TYPES = {"F32": 0, "F16": 1, "BF16": 32}
BYTES = {"F32": 4, "F16": 2, "BF16": 2}
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
ALIGNMENT = 32

TENSORS = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
LAYER_TENSORS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}

START = "{%- for message in messages -%}{{- '<|im_start|>' + message['role'] + '\\n' -}}"
THOUGHT = (
    "{%- if message.reasoning_content -%}"
    "{{- '<think>' + message.reasoning_content + '</think>' -}}"
    "{%- endif -%}"
)
CONTENT = "{{- message['content'] or '' -}}"
CALLS = (
    "{%- for call in message.tool_calls or [] -%}"
    "{{- '<tool_call>\\n{\"name\": \"' + call.function.name + '\", \"arguments\": ' -}}"
    "{{- (call.function.arguments | tojson) + '}\\n</tool_call>' -}}"
    "{%- endfor -%}"
)
END = (
    "{{- '<|im_end|>\\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}@TAIL@{%- endif -%}"
)
NO_THOUGHT = (
    "{%- if enable_thinking is defined and enable_thinking is false -%}"
    "{{- '<think></think>' -}}{%- endif -%}"
)
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
TOOLS = "{%- if tools -%}{{- '<|im_start|>system\\n' + (tools | tojson) + '<|im_end|>\\n' -}}{%- endif -%}"


def template_with(thinking, tools):
    parts = [TOOLS if tools else "", START, THOUGHT if thinking else "", CONTENT, CALLS if tools else ""]
    return "".join(parts) + END.replace("@TAIL@", NO_THOUGHT if thinking else "")


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


class Header:
    def __init__(self):
        self.count, self.data = 0, b""

    def add(self, key, kind, packed):
        self.count += 1
        self.data += string(key) + struct.pack("<I", kind) + packed

    def u32(self, key, value):
        self.add(key, U32, struct.pack("<I", value))

    def f32(self, key, value):
        self.add(key, F32_VALUE, struct.pack("<f", value))

    def bool(self, key, value):
        self.add(key, BOOL, struct.pack("<?", value))

    def string(self, key, value):
        self.add(key, STRING, string(value))

    def strings(self, key, values):
        packed = struct.pack("<IQ", STRING, len(values)) + b"".join(map(string, values))
        self.add(key, ARRAY, packed)

    def i32s(self, key, values):
        self.add(key, ARRAY, struct.pack(f"<IQ{len(values)}i", I32, len(values), *values))


def read_safetensors(path):
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    body = data[8 + size :]
    return {
        name: (entry["dtype"], entry["shape"], body[slice(*entry["data_offsets"])])
        for name, entry in header.items()
    }


def as_f32(dtype, data):
    if dtype == "F16":
        values = struct.unpack(f"<{len(data) // 2}e", data)
        return struct.pack(f"<{len(values)}f", *values)
    if dtype == "BF16":
        return b"".join(b"\0\0" + data[i : i + 2] for i in range(0, len(data), 2))
    return data


def permuted(data, rows, heads):
    """Row 2i of each head from row i of its first half, row 2i+1 from row i of its second half."""
    row, size = len(data) // rows, rows // heads
    result = []
    for head in range(heads):
        for i in range(size // 2):
            for half in range(2):
                start = (head * size + half * (size // 2) + i) * row
                result.append(data[start : start + row])
    return b"".join(result)


def gguf_name(name):
    if name in TENSORS:
        return TENSORS[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{LAYER_TENSORS[rest.removesuffix('.weight')]}.weight"


def tensors_of(weights, config):
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", heads)
    for name, (dtype, shape, data) in weights.items():
        if name.endswith("q_proj.weight"):
            data = permuted(data, shape[0], heads)
        if name.endswith("k_proj.weight"):
            data = permuted(data, shape[0], kv_heads)
        if len(shape) == 1:
            dtype, data = "F32", as_f32(dtype, data)
        yield gguf_name(name), dtype, shape, data


def tokens_of(tokenizer, size):
    """The tokens by number, each with its type."""
    tokens = [(f"[PAD{number}]", UNUSED) for number in range(size)]
    for token, number in tokenizer["model"]["vocab"].items():
        tokens[number] = (token, NORMAL)
    for added in tokenizer["added_tokens"]:
        tokens[added["id"]] = (added["content"], CONTROL if added["special"] else USER_DEFINED)
    return tokens


def merges_of(tokenizer):
    merges = tokenizer["model"]["merges"]
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]


def header_of(directory, config, name, template, file_type, calls):
    def read(file):
        return json.loads((directory / file).read_text(encoding="utf-8"))

    tokenizer, tokenizer_config = read("tokenizer.json"), read("tokenizer_config.json")
    tokens = tokens_of(tokenizer, config["vocab_size"])
    if calls:
        renamed = {"Hello": (CALL, USER_DEFINED), "!": ("!", CONTROL)}
        tokens = [renamed.get(token, (token, kind)) for token, kind in tokens]
    number = {token: index for index, (token, _) in enumerate(tokens)}
    heads = config["num_attention_heads"]
    head_size = config.get("head_dim") or config["hidden_size"] // heads

    header = Header()
    header.string("general.architecture", "llama")
    header.string("general.type", "model")
    header.string("general.name", name)
    header.string("general.license", "mit")
    header.u32("general.file_type", file_type)
    header.u32("general.quantization_version", 2)
    header.u32("llama.vocab_size", config["vocab_size"])
    header.u32("llama.context_length", config["max_position_embeddings"])
    header.u32("llama.embedding_length", config["hidden_size"])
    header.u32("llama.block_count", config["num_hidden_layers"])
    header.u32("llama.feed_forward_length", config["intermediate_size"])
    header.u32("llama.attention.head_count", heads)
    header.u32("llama.attention.head_count_kv", config.get("num_key_value_heads", heads))
    header.u32("llama.attention.key_length", head_size)
    header.u32("llama.attention.value_length", head_size)
    header.f32("llama.attention.layer_norm_rms_epsilon", config["rms_norm_eps"])
    header.u32("llama.rope.dimension_count", head_size)
    header.f32("llama.rope.freq_base", config["rope_theta"])
    header.string("tokenizer.ggml.model", "gpt2")
    header.string("tokenizer.ggml.pre", "llama-bpe")
    header.strings("tokenizer.ggml.tokens", [token for token, _ in tokens])
    header.i32s("tokenizer.ggml.token_type", [kind for _, kind in tokens])
    header.strings("tokenizer.ggml.merges", merges_of(tokenizer))
    header.u32("tokenizer.ggml.eos_token_id", number["!" if calls else tokenizer_config["eos_token"]])
    # Never added; without it llama.cpp takes token 11, and says ")" is the start of a text.
    header.u32("tokenizer.ggml.bos_token_id", number[tokenizer_config["pad_token"]])
    header.u32("tokenizer.ggml.padding_token_id", number[tokenizer_config["pad_token"]])
    header.bool("tokenizer.ggml.add_bos_token", False)
    header.string("tokenizer.chat_template", template or tokenizer_config["chat_template"])
    return header


def gguf(header, tensors):
    infos, body = b"", b""
    for name, dtype, shape, data in tensors:
        body += b"\0" * (-len(body) % ALIGNMENT)
        infos += string(name) + struct.pack("<I", len(shape))
        infos += struct.pack(f"<{len(shape)}Q", *reversed(shape))
        infos += struct.pack("<IQ", TENSOR_TYPES[dtype], len(body))
        body += data
    start = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), header.count) + header.data + infos
    return start + b"\0" * (-len(start) % ALIGNMENT) + body + b"\0" * (-len(body) % ALIGNMENT)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage=argparse.SUPPRESS
    )
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--name", default="tiny")
    parser.add_argument("--thinking", action="store_true")
    parser.add_argument("--tools", action="store_true")
    parser.add_argument("--template", type=Path)
    parser.add_argument("--vocab-only", action="store_true")
    args = parser.parse_args()

    config = json.loads((args.model_dir / "config.json").read_text(encoding="utf-8"))
    weights = {} if args.vocab_only else read_safetensors(args.model_dir / "model.safetensors")
    for name, (dtype, shape, data) in weights.items():
        count = 1
        for size in shape:
            count *= size
        assert len(data) == count * BYTES[dtype], name
    template = None
    if args.template:
        template = args.template.read_text(encoding="utf-8")
    elif args.thinking or args.tools:
        template = template_with(args.thinking, args.tools)
    # Of the matrices: the vectors are float32 whatever these are.
    dtypes = {dtype for dtype, shape, _ in weights.values() if len(shape) > 1} or {"F32"}
    header = header_of(args.model_dir, config, args.name, template, FILE_TYPES[min(dtypes)], args.tools)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_bytes(gguf(header, list(tensors_of(weights, config))))


if __name__ == "__main__":
    main()
