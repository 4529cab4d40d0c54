"""Echo by Python's socketserver, for docs/COMPARE.md: echo_server.py fork|thread PORT."""

import socketserver
import sys


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)


server = {"fork": socketserver.ForkingTCPServer, "thread": socketserver.ThreadingTCPServer}[sys.argv[1]]
server.allow_reuse_address = True
server.request_queue_size = 1024
server(("127.0.0.1", int(sys.argv[2])), Echo).serve_forever()
