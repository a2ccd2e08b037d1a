"""How much longer creating a Job takes through the service than by a bare call of the `kube` crate's: `make bench-jobs`.

On the real API server of the tests, with the same token for both. Reports; judges nothing.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import apiserver  # noqa: E402
from apiserver import ApiServer  # noqa: E402
from aws import Aws  # noqa: E402
from eks import CLUSTER, PODS, REGION, Cluster, principals, shipped  # noqa: E402
from service import bearer, serving  # noqa: E402
from support import binary  # noqa: E402
from test_webhook import token, url  # noqa: E402
from webhook import Webhook  # noqa: E402

PAIRS = 400
NAMESPACE = "team-latency"


def main() -> None:
    program = binary("KUBE_CREATE_BIN", "target/release/examples/kube-create", "cargo build --release --example kube-create")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        api = ApiServer(apiserver.command(), folder)
        webhook, aws = Webhook(CLUSTER, REGION, principals()), Aws(REGION, CLUSTER)
        with webhook.serving() as webhook_url, aws.serving() as aws_url:
            try:
                api.start(webhook_url)
                aws.point_at(api.url, api.ca)
                for kind in ("ClusterRole", "ClusterRoleBinding"):
                    api.apply(shipped(kind))
                api.make_namespace(NAMESPACE)
                with serving("container", Cluster(api, webhook, aws, aws_url), folder) as service:
                    told = {
                        "pairs": str(PAIRS), "service": f"http://127.0.0.1:{service.port}", "caller": bearer("all"),
                        "namespace": NAMESPACE, "server": api.url, "authority": api.ca, "token": token(url(PODS)),
                    }
                    result = subprocess.run([program], input=json.dumps(told), capture_output=True, text=True)
            finally:
                api.wipe()
    if result.returncode != 0:
        sys.exit(result.stderr)
    print(result.stdout, end="")


if __name__ == "__main__":
    main()
