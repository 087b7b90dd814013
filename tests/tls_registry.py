"""Serve models to a real Ollama as its registry does, over TLS on loopback, with a certificate made on the spot.

    python3 tests/tls_registry.py DIRECTORY

DIRECTORY holds `manifests/NAME/TAG` and `blobs/sha256-HEX`. It gets `certificate.pem`, which clients have to trust;
`port`, when the server listens; and `requests`, one line for each request: method, path, range. Needs `openssl`.

Faults are files in DIRECTORY: `stall` has a number of bytes, after which a blob sends nothing more and keeps the
connection; `stalled` then appears if bytes are missing; with `damage` one byte of the weights is another one. (Of several damaged blobs Ollama finds one, and takes
the others for good the next time.)
"""
import http.server
import os
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

root = Path(sys.argv[1])
lock = threading.Lock()


def make_certificate():
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout key.pem -out certificate.pem"
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(command.split() + names, cwd=root, check=True, stderr=subprocess.DEVNULL)


class Registry(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, with_body):
        self.note()
        parts = self.path.strip("/").split("/")
        if "manifests" in parts:
            self.send(root / "manifests" / parts[-3] / parts[-1], with_body)
        elif "blobs" in parts and with_body:
            # The client asks with a range only where it was sent to another host.
            self.send_response(307)
            self.send_header("Location", f"https://localhost:{self.server.server_port}/stored/{parts[-1]}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.send(root / "blobs" / parts[-1].replace(":", "-"), with_body)

    def note(self):
        with lock, open(root / "requests", "a", encoding="utf-8") as log:
            log.write(f"{self.command} {self.path} {self.headers.get('Range', '-')}\n")

    def send(self, file, with_body):
        if not file.is_file():
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = bytearray(file.read_bytes())
        is_blob = file.parent.name == "blobs"
        if is_blob and len(data) > 100_000 and (root / "damage").exists():
            data[-1] ^= 1
        start, end = 0, len(data) - 1
        if ranges := self.headers.get("Range"):
            first, last = ranges.removeprefix("bytes=").split("-")
            start, end = int(first), min(int(last or end), end)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(end + 1 - start))
        self.end_headers()
        if not with_body:
            return
        stall = root / "stall"
        if is_blob and stall.exists():
            cut = start + int(stall.read_text())
            self.wfile.write(data[start : min(end + 1, cut)])
            self.wfile.flush()
            if cut <= end:
                (root / "stalled").touch()
            while stall.exists():
                time.sleep(0.02)
            self.close_connection = True
        else:
            self.wfile.write(data[start : end + 1])

    def log_message(self, *_):
        pass


def main():
    make_certificate()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(root / "certificate.pem", root / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    (root / "port.new").write_text(str(server.server_port), encoding="utf-8")
    os.rename(root / "port.new", root / "port")
    server.serve_forever()


main()
