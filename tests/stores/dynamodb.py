"""DynamoDB for the tests: moto in a server of one thread, because with more its updates are not atomic.

Prints its address, serves until its standard input is closed, and so ends with whoever started it.
"""

import os
import sys
import threading

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class Quiet(WSGIRequestHandler):
    # One thread serves one connection at a time: kept open, the first client's would be the only one.
    protocol_version = "HTTP/1.0"

    def log_request(self, *_):
        pass


server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=False, request_handler=Quiet)
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
print(f"http://127.0.0.1:{server.port}", flush=True)
server.serve_forever()
