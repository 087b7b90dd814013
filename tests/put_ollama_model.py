#!/usr/bin/env python3
"""Put the tiny model of this repository, or a variant of it, into a running Ollama: no network, 0.05 s.

    python3 tests/put_ollama_model.py ADDRESS NAME [VARIANT] [--parameter KEY=VALUE]...

ADDRESS is HOST:PORT. Variants are made from the weights of tests/models/tiny, so nothing but Python is needed:

    plain        as it is; at temperature 0 it answers "Hello! This is a tiny model on your own machine."
    endless      never ends by itself: its end token is as improbable as a padding row
    thinking     one token is renamed "</think>", and the template opens "<think>": reasoning "Hello", then an answer
    tools        one token is renamed to a whole call: it calls get_weather({"city": "Oslo"}) where a request has tools
    untemplated  a Jinja template that Ollama does not know: it takes `{{ .Prompt }}`, and the system message is lost
    vocab        well formed, but without weights: every load fails (500 `... missing tensor 'token_embd.weight'`)
    arch         an architecture that Ollama does not know: every load fails (500 `unable to load model: ...`)

--parameter num_ctx=256 and the like are written into the model; num_thread=1 always is.
"""
import argparse
import hashlib
import http.client
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODEL = HERE / "models" / "tiny"
VARIANTS = ["plain", "endless", "thinking", "tools", "untemplated", "vocab", "arch"]
START = "{{- range .Messages }}<|im_start|>{{ .Role }}\n"
END = "<|im_end|>\n{{ end }}<|im_start|>assistant\n"
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
TEMPLATES = {
    "thinking": START + "{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}" + END
    + "{{ if not (and .IsThinkSet (not .Think)) }}<think>\n{{ end }}",
    "tools": "{{- if .Tools }}<|im_start|>system\n{{ .Tools }}<|im_end|>\n{{ end }}" + START
    + '{{ .Content }}{{ if .ToolCalls }}{{ range .ToolCalls }}<tool_call>\n{"name": "{{ .Function.Name }}", '
    '"arguments": {{ .Function.Arguments }}}\n</tool_call>{{ end }}{{ end }}' + END,
}


def byte_level(text):
    """The text as GPT-2's vocabulary writes it."""
    return text.replace(" ", "\u0120").replace("\n", "\u010a")


def rename(directory, old, new):
    path = directory / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    vocab = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {byte_level(new) if token == old else token: number for token, number in vocab.items()}
    assert byte_level(new) in tokenizer["model"]["vocab"], old
    path.write_text(json.dumps(tokenizer), encoding="utf-8")


def never_end(directory):
    """Give the end token the row of a padding token in the output matrix."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    tokens = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    known = set(tokens["model"]["vocab"].values()) | {added["id"] for added in tokens["added_tokens"]}
    padding = max(set(range(config["vocab_size"])) - known)
    path = directory / "model.safetensors"
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[:8], "little")
    start, end = json.loads(data[8 : 8 + size])["lm_head.weight"]["data_offsets"]
    row = (end - start) // config["vocab_size"]
    at = lambda number: slice(8 + size + start + number * row, 8 + size + start + (number + 1) * row)
    eos = config["eos_token_id"]
    for number in eos if isinstance(eos, list) else [eos]:
        data[at(number)] = data[at(padding)]
    path.write_bytes(data)


def gguf(variant):
    with tempfile.TemporaryDirectory() as temp:
        directory, out = Path(temp) / "model", Path(temp) / "model.gguf"
        shutil.copytree(MODEL, directory)
        options = []
        if variant == "endless":
            never_end(directory)
        elif variant == "thinking":
            rename(directory, "!", "</think>")
        elif variant == "tools":
            rename(directory, "Hello", CALL)
        elif variant == "untemplated":
            (Path(temp) / "template").write_text("{% for m in messages %}[[{{ m['role'] }}: {{ m['content'] }}]]{% endfor %}>>>", encoding="utf-8")
            options = ["--template", str(Path(temp) / "template")]
        elif variant == "vocab":
            options = ["--vocab-only"]
        subprocess.run([sys.executable, str(HERE / "make_tiny_gguf.py"), str(directory), str(out), *options], check=True)
        data = out.read_bytes()
    if variant == "arch":
        data = data.replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0lxama", 1).replace(b"llama.", b"lxama.")
    return data


def request(address, method, path, body):
    connection = http.client.HTTPConnection(address, timeout=120)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method, path, data, {"Content-Type": "application/json"})
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response.status, text


def create(address, name, data, variant, parameters):
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    status, text = request(address, "POST", "/api/blobs/" + digest, data)
    assert status in (200, 201), text
    body = {"model": name, "files": {"tiny.gguf": digest}, "stream": False}
    if variant in TEMPLATES:
        body["template"] = TEMPLATES[variant]
    # One thread: with more, they wait for each other by spinning, a hundred times slower on a busy machine.
    body["parameters"] = {"num_thread": 1, **parameters}
    status, text = request(address, "POST", "/api/create", body)
    assert status == 200, text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("name")
    parser.add_argument("variant", nargs="?", default="plain", choices=VARIANTS)
    parser.add_argument("--parameter", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    parameters = {key: json.loads(value) for key, _, value in (p.partition("=") for p in args.parameter)}
    create(args.address, args.name, gguf(args.variant), args.variant, parameters)


if __name__ == "__main__":
    main()
