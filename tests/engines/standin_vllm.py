"""Speaks vLLM's API as far as Indigo uses it: `standin_vllm.py serve MODEL ...`; some MODELs fail."""

from __future__ import annotations

import argparse
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    arguments = argparse.Namespace()

    def do_GET(self) -> None:
        if self.path == "/health":
            self._send(200, b"")
        elif self.path == "/v1/models" and self._allowed():
            name = self.arguments.served_model_name
            length = self.arguments.max_model_len or 32768
            model = {"id": name, "object": "model", "owned_by": "vllm", "max_model_len": length}
            self._json(200, {"object": "list", "data": [model]})
        elif self.path == "/arguments":
            environ = {key: value for key, value in os.environ.items() if key in ("VLLM_API_KEY", "HF_TOKEN")}
            self._json(200, {"argv": sys.argv[1:], "environ": environ})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._allowed():
            return
        if request["model"] != self.arguments.served_model_name:
            message = f"The model `{request['model']}` does not exist."
            self._json(404, {"error": {"message": message, "type": "NotFoundError", "param": "model", "code": 404}})
            return
        usage = {"prompt_tokens": 20, "total_tokens": 21, "completion_tokens": 1}
        frame = {"id": "chatcmpl-1", "created": 1_750_000_000, "model": request["model"]}
        if request.get("stream"):
            self._stream({**frame, "object": "chat.completion.chunk"}, usage)
            return
        none: list[object] = []
        said: dict[str, object] = {"role": "assistant", "content": "hi", "tool_calls": none}
        choice: dict[str, object] = {"index": 0, "message": said, "finish_reason": "stop", "stop_reason": None}
        self._json(200, {**frame, "object": "chat.completion", "choices": [choice], "usage": usage})

    def _stream(self, frame: dict[str, object], usage: dict[str, int]) -> None:
        """A chunk with the role, one with the word and the end, one with the usage, as vLLM sends them."""
        first: dict[str, object] = {
            "index": 0,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }
        last: dict[str, object] = {**first, "delta": {"content": "hi"}, "finish_reason": "stop", "stop_reason": None}
        none: list[object] = []
        events = [json.dumps({**frame, "choices": [choice]}) for choice in (first, last)]
        events.append(json.dumps({**frame, "choices": none, "usage": usage}))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in [*events, "[DONE]"]:
            data = f"data: {event}\n\n".encode()
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")

    def _allowed(self) -> bool:
        if self.headers["Authorization"] == f"Bearer {os.environ['VLLM_API_KEY']}":
            return True
        self._json(401, {"error": "Unauthorized"})
        return False

    def _json(self, status: int, body: object) -> None:
        self._send(status, json.dumps(body).encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    parser = argparse.ArgumentParser(prog="vllm")
    parser.add_argument("verb", choices=["serve"])
    parser.add_argument("model")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--served-model-name")
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--gpu-memory-utilization", type=float)
    parser.add_argument("--dtype")
    parser.add_argument("--enforce-eager", action="store_true")
    parser.add_argument("--quantization")
    parser.add_argument("--enable-auto-tool-choice", action="store_true")
    parser.add_argument("--tool-call-parser")
    arguments = parser.parse_args()
    if arguments.model == "too/large":
        where = "(EngineCore pid=7) ERROR 11-20 12:00:00 [core.py:700] "
        sys.exit(f"{where}ValueError: No available memory for the cache blocks.\nRuntimeError: see above.")
    if arguments.model == "crash/once":
        sys.exit("RuntimeError: a passing trouble")
    Handler.arguments = arguments
    ThreadingHTTPServer((arguments.host, arguments.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
