import apiserver
import pytest
from apiserver import ApiServer
from aws import Aws
from eks import CLUSTER, REGION, Cluster, principals
from webhook import Webhook


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
