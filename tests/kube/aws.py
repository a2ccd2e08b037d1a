"""AWS for the tests of this folder: moto, in this process and with one thread, answers eks:DescribeCluster."""

import base64
import contextlib
import threading

from moto.core import DEFAULT_ACCOUNT_ID
from moto.eks.models import eks_backends
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class Quiet(WSGIRequestHandler):
    # One thread serves one connection at a time: kept open, the first client's would be the only one.
    protocol_version = "HTTP/1.0"

    def log_request(self, *_):
        pass


class Aws:
    """The EKS of one region, with one cluster; what it was asked."""

    def __init__(self, region: str, cluster: str):
        backend = eks_backends[DEFAULT_ACCOUNT_ID][region]
        arguments = {"resources_vpc_config": {"subnetIds": []}, "role_arn": f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:role/cluster"}
        # moto gives it a random endpoint and authority; `point_at` says the right ones.
        self.cluster = backend.create_cluster(name=cluster, version="1.35", kubernetes_network_config=None, logging=None, **arguments)
        self.asked: list[str] = []
        self.down = False

    def point_at(self, endpoint: str, ca: str) -> None:
        self.cluster.endpoint = endpoint
        self.cluster.certificate_authority = {"data": base64.b64encode(ca.encode()).decode()}

    @contextlib.contextmanager
    def serving(self):
        moto = DomainDispatcherApplication(create_backend_app)

        def application(environ, start_response):
            self.asked.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
            if self.down:
                start_response("503 Service Unavailable", [("content-length", "0")])
                return [b""]
            return moto(environ, start_response)

        server = make_server("127.0.0.1", 0, application, threaded=False, request_handler=Quiet)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.port}"
        finally:
            server.shutdown()
