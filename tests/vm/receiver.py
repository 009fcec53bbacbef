"""Runs in the full system: answers every POST with 204 and prints it, one a line: headers and body as JSON.

Usage: receiver.py PORT
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        print(json.dumps({"headers": headers, "body": body}), flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass  # standard error is the line that the lab reads


HTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
