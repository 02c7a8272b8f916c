# SPDX-License-Identifier: GPL-2.0-or-later
"""A web server for the tests: http_server.py DIRECTORY PORT

GET /NAME        a file of DIRECTORY
GET /peer        the address and port the request came from
GET /together/N  answers when N such requests are open at the same time
PUT, POST        the SHA-256 of what was sent
"""
import hashlib
import pathlib
import shutil
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DIRECTORY, PORT = pathlib.Path(sys.argv[1]), int(sys.argv[2])
LOCK = threading.Lock()
BARRIERS = {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def reply(self, status, text):
        body = (text + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        name = self.path.strip("/")
        if name == "peer":
            return self.reply(200, f"{self.client_address[0]} {self.client_address[1]}")
        if name.startswith("together/"):
            n = int(name.removeprefix("together/").split("?")[0])
            with LOCK:
                barrier = BARRIERS.setdefault(n, threading.Barrier(n))
            try:
                barrier.wait(30)
            except threading.BrokenBarrierError:
                return self.reply(503, "not enough requests at the same time")
            return self.reply(200, "together")
        try:
            file = open(DIRECTORY / name, "rb")
        except OSError as error:
            return self.reply(404, str(error))
        with file:
            size = file.seek(0, 2)
            file.seek(0)
            self.send_response(200)
            self.send_header("Content-Length", str(size))
            self.end_headers()
            shutil.copyfileobj(file, self.wfile, 1 << 20)

    def do_PUT(self):
        digest, left = hashlib.sha256(), int(self.headers["Content-Length"])
        while left > 0:
            data = self.rfile.read(min(left, 1 << 20))
            if not data:
                return self.reply(400, "the body ended early")
            digest.update(data)
            left -= len(data)
        self.reply(200, digest.hexdigest())

    do_POST = do_PUT


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 256
    daemon_threads = True

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # Not HTTPServer's, which asks the resolver for a name.
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "test", PORT


Server(("::", PORT), Handler).serve_forever()
