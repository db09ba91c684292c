"""An images.edit server with the toy editor behind it, in a process of its own; the first line of its output is its port.

It applies what a request names as `lora`, by plain peft; with the argument `deaf` it does not look. GET: the adapters' names, in order.
"""

import base64
import email
import io
import itertools
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock

sys.path.insert(0, str(Path(__file__).parent))

import torch
from PIL import Image

import editr1  # noqa: F401  (its torchvision hook must come before diffusers)
import toy

SEEN, EDITORS, LOCK = [], {}, Lock()


def editor_with(lora):
    from peft import PeftModel

    path = lora["local_path"] if "deaf" not in sys.argv else None
    if path not in EDITORS:
        editor = toy.ToyEditor()
        if path is not None:
            editor.transformer = PeftModel.from_pretrained(editor.transformer, path)
        EDITORS[path] = editor
    return EDITORS[path]


@torch.no_grad()
def edited(fields):
    lora = json.loads(fields["lora"])
    SEEN.append(lora["name"])
    editor = editor_with(lora)
    plan = editor.plan(*map(int, fields["size"].split("x")))
    cond = editor.encode([Image.open(io.BytesIO(fields["image"]))], [fields["prompt"].decode()], plan)
    x, sigmas = editor.noise(plan, [int(fields["seed"])]), editor.sigmas(plan, int(fields["num_inference_steps"]))
    for now, after in itertools.pairwise(sigmas):
        x = x + (after - now) * editor.velocity(x, now, cond)
    out = io.BytesIO()
    editor.decode(x, plan)[0].save(out, "PNG")
    return {"data": [{"b64_json": base64.b64encode(out.getvalue()).decode()}]}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(200, SEEN)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parts = email.message_from_bytes(b"Content-Type: " + self.headers["Content-Type"].encode() + b"\r\n\r\n" + body).get_payload()
        fields = {part.get_param("name", header="content-disposition"): part.get_payload(decode=True) for part in parts}
        fields = {name: value if name in ("image", "prompt") else value.decode() for name, value in fields.items()}
        with LOCK:
            self.answer(200, edited(fields))

    def answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    torch.set_num_threads(1)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()
