import apiserver
import pytest
from apiserver import ApiServer, CannotStart
from aws import Aws
from eks import CLUSTER, GROUP, REGION, Cluster, principals, shipped
from service import TARGETS
from webhook import TOKEN_SECONDS, Webhook


API = pytest.StashKey[ApiServer]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Each test begins with a whole cluster, whatever the one before left: one failure stays one."""
    api = item.config.stash.get(API, None)
    if api is not None and "cluster" in item.fixturenames:
        start_or_stop(item.session, api.ensure)


def start_or_stop(session, start) -> None:
    """Without a cluster no test is tried any more: each would only fail as this one does."""
    try:
        start()
    except CannotStart as error:
        session.shouldfail = "without a Kubernetes API server there is nothing to test"
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def cluster(request, tmp_path_factory):
    api = ApiServer(apiserver.command(), tmp_path_factory.mktemp("kube"))
    webhook = Webhook(CLUSTER, REGION, principals())
    aws = Aws(REGION, CLUSTER)
    with webhook.serving() as webhook_url, aws.serving() as aws_url:
        try:
            start_or_stop(request.session, lambda: api.start(webhook_url))
            request.config.stash[API] = api
            aws.point_at(api.url, api.ca)
            yield Cluster(api, webhook, aws, aws_url)
        finally:
            request.config.stash[API] = None
            api.wipe()


@pytest.fixture(scope="session")
def granted(cluster):
    """The cluster has the rights that are shipped."""
    (subject,) = shipped("ClusterRoleBinding")["subjects"]
    assert subject["name"] == GROUP
    grant(cluster)


def grant(cluster) -> None:
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
        # A test that takes some away may have failed before it gave them back.
        if "granted" in request.fixturenames:
            grant(cluster)
