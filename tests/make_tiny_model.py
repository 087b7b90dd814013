#!/usr/bin/env python3
"""Write a chat model so small that it can live in this repository.

    python3 tests/make_tiny_model.py tests/models/tiny     # the one that is committed

It is a real model in the Llama architecture, which `mlx_lm.server` loads and serves without a network, and it
answers every prompt with a readable sentence. It needs nothing but Python, and its files are the same bytes
everywhere.

How it works: attention and MLP are zero, so what reaches the output head is the embedding of the last token.
Every token that can occur in an answer has an embedding of its own axis; the head holds, along that axis, the
logarithms of the probabilities of the tokens that may follow. The probabilities come from the sentences below.

    --thinking   think aloud in <think> ... </think> before the answer
    --no-eos     never end by itself
    --slow N     make the MLP N times as wide, which costs time and changes nothing else
"""

import argparse
import json
import math
import re
import struct
from pathlib import Path

SENTENCES = [
    "Hello! This is a tiny model on your own machine.",
    "Hello there, welcome to the café.",
    "The café by the river opens early 🙂.",
    "A small model knows only a few words.",
    "Naïve questions get crème brûlée.",
    "Good morning, and good luck with your code.",
    "One ship sails west, another sails home.",
    "My memory is short but my answer comes quickly.",
]
# No word of it occurs in a sentence.
REASONING = "Someone wrote something here; let us think about it"

END_OF_TEXT, TURN_STARTS, TURN_ENDS = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
THINK, THINK_ENDS = "<think>", "</think>"

# After a sentence, the answer is over with this probability; else another sentence follows.
ENDS = 0.6
# The logarithm of the probability of a token that must not follow.
NEVER = -60.0

HEADS, HEAD_SIZE, MLP_WIDTH = 4, 32, 64
POSITIONS = 32768

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + (message['content'] or '') + '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)


def byte_letters():
    """The printable letter that stands for each byte in a byte-level vocabulary (as GPT-2 defined it)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable}
    letters.update({byte: chr(0x100 + index) for index, byte in enumerate(others)})
    return letters


LETTERS = byte_letters()


def spell(text):
    return "".join(LETTERS[byte] for byte in text.encode())


def tokens_of(text):
    """Words with the space before them, punctuation marks, and emoji as single bytes: a reader of the stream
    sees characters that arrive in pieces."""
    for piece in re.findall(r" ?\w+|[^\w\s]| ", text):
        if piece > "\uffff":
            yield from (LETTERS[byte] for byte in piece.encode())
        else:
            yield spell(piece)


def successors(thinking, endless):
    """For each token of an answer, the weights of those that may follow; `\\n` comes before the answer."""
    follow = {}

    def count(token, then, weight=1.0):
        weights = follow.setdefault(token, {})
        weights[then] = weights.get(then, 0.0) + weight

    start = spell("\n")
    answers = [(list(tokens_of(sentence)), list(tokens_of(" " + sentence))) for sentence in SENTENCES]
    ends = {first[-1] for first, _ in answers}
    for rank, (first, later) in enumerate(answers):
        # The earlier a sentence, the likelier, so the greedy answer is the first one.
        weight = 1 + 1 / (1 + rank)
        count(THINK_ENDS if thinking else start, first[0], weight)
        for words in (first, later):
            for token, then in zip(words, words[1:]):
                count(token, then, weight)
        for end in ends:
            count(end, later[0], (1 if endless else 1 - ENDS) / len(SENTENCES))
    if not endless:
        for end in ends:
            count(end, TURN_ENDS, ENDS)
    if thinking:
        chain = [start, THINK, *tokens_of(REASONING), THINK_ENDS]
        for token, then in zip(chain, chain[1:]):
            assert token not in follow
            follow[token] = {then: 1.0}
    return follow


def vocabulary(follow):
    special = [END_OF_TEXT, TURN_STARTS, TURN_ENDS]
    spoken = {token for weights in follow.values() for token in weights} - set(special)
    marks = sorted(spoken & {THINK, THINK_ENDS})
    words = sorted(spoken - set(marks) - set(LETTERS.values()))
    return special, marks, [*special, *LETTERS.values(), *words, *marks]


def up_to_64(number):
    """Quantisation wants dimensions that are multiples of 64."""
    return -(-number // 64) * 64


def half(values):
    return struct.pack(f"<{len(values)}e", *values)


class Weights:
    """Tensors in half precision, written as one safetensors file."""

    def __init__(self):
        self.tensors = {}

    def add(self, name, shape, data=None):
        size = 2 * math.prod(shape)
        self.tensors[name] = (shape, data if data is not None else bytes(size))
        assert len(self.tensors[name][1]) == size

    def ones(self, name, size):
        self.add(name, [size], half([1.0] * size))

    def bytes(self):
        header, position = {"__metadata__": {"format": "mlx"}}, 0
        for name, (shape, data) in self.tensors.items():
            header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [position, position + len(data)]}
            position += len(data)
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        return struct.pack("<Q", len(text)) + text + b"".join(data for _, data in self.tensors.values())


def weights_of(follow, ids, size, hidden, mlp_width):
    axis = {token: index for index, token in enumerate(follow)}
    embedding = [[0.0] * hidden for _ in range(size)]
    head = [[NEVER / math.sqrt(hidden)] * hidden for _ in range(size)]
    for token, weights in follow.items():
        embedding[ids[token]][axis[token]] = 1.0
        total = sum(weights.values())
        for then, weight in weights.items():
            # The norm before the head multiplies a unit vector by the square root of its dimension.
            head[ids[then]][axis[token]] = math.log(weight / total) / math.sqrt(hidden)

    result = Weights()
    result.add("lm_head.weight", [size, hidden], b"".join(map(half, head)))
    result.add("model.embed_tokens.weight", [size, hidden], b"".join(map(half, embedding)))
    layer = "model.layers.0"
    result.ones(f"{layer}.input_layernorm.weight", hidden)
    for name in ("gate", "up"):
        result.add(f"{layer}.mlp.{name}_proj.weight", [mlp_width, hidden])
    result.add(f"{layer}.mlp.down_proj.weight", [hidden, mlp_width])
    result.ones(f"{layer}.post_attention_layernorm.weight", hidden)
    for name in "qkv":
        result.add(f"{layer}.self_attn.{name}_proj.weight", [HEADS * HEAD_SIZE, hidden])
    result.add(f"{layer}.self_attn.o_proj.weight", [hidden, HEADS * HEAD_SIZE])
    result.ones("model.norm.weight", hidden)
    return result


def tokenizer_of(special, marks, ids):
    added = [(token, True) for token in special] + [(token, False) for token in marks]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": ids[token],
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": is_special,
            }
            for token, is_special in added
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            # A word of the vocabulary is one token, and every other text is one token for each byte.
            "ignore_merges": True,
            "vocab": {token: number for token, number in ids.items() if token not in marks},
            "merges": [],
        },
    }


def write_model(directory, thinking, endless, slow):
    follow = successors(thinking, endless)
    special, marks, tokens = vocabulary(follow)
    ids = {token: number for number, token in enumerate(tokens)}
    size, hidden, mlp_width = up_to_64(len(tokens)), up_to_64(len(follow)), MLP_WIDTH * slow
    weights = weights_of(follow, ids, size, hidden, mlp_width)

    directory.mkdir(parents=True, exist_ok=True)

    def write(name, value):
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        (directory / name).write_bytes(text.encode())

    (directory / "model.safetensors").write_bytes(weights.bytes())
    write(
        "model.safetensors.index.json",
        {
            "metadata": {"total_size": sum(len(data) for _, data in weights.tensors.values())},
            "weight_map": {name: "model.safetensors" for name in weights.tensors},
        },
    )
    write(
        "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": size,
            "hidden_size": hidden,
            "intermediate_size": mlp_width,
            "num_hidden_layers": 1,
            "num_attention_heads": HEADS,
            "num_key_value_heads": HEADS,
            "head_dim": HEAD_SIZE,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "max_position_embeddings": POSITIONS,
            "tie_word_embeddings": False,
            "torch_dtype": "float16",
            "bos_token_id": None,
            "eos_token_id": ids[TURN_ENDS],
        },
    )
    write("generation_config.json", {"eos_token_id": ids[TURN_ENDS], "pad_token_id": ids[END_OF_TEXT]})
    write("tokenizer.json", tokenizer_of(special, marks, ids))
    write(
        "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": None,
            "eos_token": TURN_ENDS,
            "pad_token": END_OF_TEXT,
            "unk_token": None,
            "clean_up_tokenization_spaces": False,
            "model_max_length": POSITIONS,
            "chat_template": CHAT_TEMPLATE,
        },
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage=argparse.SUPPRESS
    )
    parser.add_argument("directory", type=Path, help="where the model's files are written")
    parser.add_argument("--thinking", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--no-eos", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--slow", type=int, default=1, metavar="N", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    write_model(arguments.directory, arguments.thinking, arguments.no_eos, arguments.slow)


if __name__ == "__main__":
    main()
