"""CPython's own servers, for tests/conformance.rs: server.py CLASS HANDLER ENDPOINT STOP

The same as servers.rs, which says what the handlers are for. It ends when the file STOP is there.
"""

import os
import socketserver
import sys
import threading
import time


class ForkingUnixStreamServer(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    pass


class ForkingUnixDatagramServer(socketserver.ForkingMixIn, socketserver.UnixDatagramServer):
    pass


def say(line):
    os.write(2, (line + "\n").encode())


class Lines:
    def handle(self):
        line = self.rfile.readline()
        if line == b"raise\n":
            raise ValueError("as was wished")
        if line == b"who\n":
            (host, port), here = self.client_address, self.server.server_address[1]
            line = f"{host}:{port} at {here}\n".encode()
        self.wfile.write(line)


class Steps:
    def setup(self):
        super().setup()
        self.wfile.write(b"setup ")
        self.first = self.rfile.read(1)
        if self.first == b"s":
            raise ValueError("setup, as was wished")

    def handle(self):
        self.wfile.write(b"handle ")
        if self.first == b"h":
            raise ValueError("handle, as was wished")
        self.wfile.write(self.rfile.readline())

    def finish(self):
        self.wfile.write(b" finish")
        super().finish()


def main(class_name, handler_name, endpoint, stop):
    base = globals().get(class_name) or getattr(socketserver, class_name)

    class Server(base):
        def verify_request(self, request, client_address):
            return client_address[:1] != ("127.0.0.2",)

        def handle_error(self, request, client_address):
            say(f"handled {sys.exc_info()[1]}")

        def handle_timeout(self):
            super().handle_timeout()
            say("timed out")

    is_stream = base.socket_type == socketserver.socket.SOCK_STREAM
    files = socketserver.StreamRequestHandler if is_stream else socketserver.DatagramRequestHandler
    own = Steps if handler_name == "steps" else Lines
    handler = type(own.__name__, (own, files), {})

    scheme, address = endpoint.split("://")
    host, _, port = address.rpartition(":")
    with Server((host, int(port)) if host else address, handler) as server:
        bound = "{}:{}".format(*server.server_address) if host else address
        say(f"listening on {scheme}://{bound}")
        if handler_name == "single":
            server.timeout = 0.05
            while not os.path.exists(stop):
                server.handle_request()
                say("one turn")
            return
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        while not os.path.exists(stop):
            time.sleep(0.01)
        server.shutdown()
        serving.join()


main(*sys.argv[1:])
