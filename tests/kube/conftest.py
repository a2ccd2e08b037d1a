import apiserver
import pytest
from apiserver import ApiServer
from aws import Aws
from eks import CLUSTER, GROUP, REGION, Cluster, principals, shipped
from service import TARGETS
from webhook import TOKEN_SECONDS, Webhook


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    api = ApiServer(apiserver.command(), tmp_path_factory.mktemp("kube"))
    webhook = Webhook(CLUSTER, REGION, principals())
    aws = Aws(REGION, CLUSTER)
    with webhook.serving() as webhook_url, aws.serving() as aws_url:
        try:
            api.start(webhook_url)
            aws.point_at(api.url, api.ca)
            yield Cluster(api, webhook, aws, aws_url)
        finally:
            api.wipe()


@pytest.fixture(scope="session")
def granted(cluster):
    """The cluster has the rights that are shipped."""
    (subject,) = shipped("ClusterRoleBinding")["subjects"]
    assert subject["name"] == GROUP
    for kind in ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"):
        cluster.api.apply(shipped(kind))


@pytest.fixture(params=TARGETS)
def target(request) -> str:
    return request.param


@pytest.fixture(autouse=True)
def calm(request):
    """Every test finds EKS as it is by itself."""
    if "cluster" in request.fixturenames:
        cluster = request.getfixturevalue("cluster")
        cluster.webhook.ahead_seconds, cluster.webhook.lifetime, cluster.aws.down = 0.0, float(TOKEN_SECONDS), False
        cluster.aws.point_at(cluster.api.url, cluster.api.ca)
        cluster.webhook.forget()
        cluster.aws.asked.clear()
