"""The way to the cluster, whole: credentials, DescribeCluster, TLS, the token, the webhook. `/health` goes all of it."""

import datetime
import time

from apiserver import wait_for
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from eks import CLUSTER, PODS, principals
from service import Clock, Service, serving
from support import get, post_sum

# The API server remembers that a token was accepted for ten seconds, and asks nobody meanwhile.
REMEMBERED_SECONDS = 11
# What the service keeps of one look at the cluster.
HEALTH_SECONDS = 1.2


def cluster_status(service: Service) -> str:
    """Of a look of its own."""
    time.sleep(HEALTH_SECONDS)
    answer = service.call("GET", "/health", who=None)
    assert [each["name"] for each in answer.body["clusters"]] == [CLUSTER]
    assert answer.status == 503 or answer.body["clusters"][0]["status"] == "ok"
    return answer.body["clusters"][0]["status"]


def jobs_refusal(service: Service) -> str:
    """What a caller of the Jobs API is told while there is no way."""
    answer = service.call("GET", "/api/v1/namespaces")
    assert answer.status == answer.body["status"] == 502, answer
    assert "127.0.0.1" not in answer.body["detail"], "where the cluster is, is nobody's business"
    return answer.body["detail"]


def others_go_on(service: Service) -> bool:
    return post_sum(service.port).text == '{"result":15.0}' and get(service.port, "/readyz").status == 200


def test_it_goes_from_an_access_key_to_a_user_of_the_cluster(cluster, target, tmp_path):
    with serving(target, cluster, tmp_path, processes=1) as service:
        assert cluster.aws.asked == [], "nobody is asked before there is need"
        assert cluster_status(service) == "ok"
        assert cluster.aws.asked == [f"GET /clusters/{CLUSTER}"]
        assert len(cluster.webhook.accepted) == 1 and cluster.webhook.refused == []
        assert cluster_status(service) == "ok"
        assert len(cluster.aws.asked) == 1, "it remembers where the cluster is"


def test_a_token_is_renewed_before_its_end_for_as_long_as_the_process_lives(cluster, target, tmp_path):
    """Both clocks go on together, so the webhook sees each token as old as it would be."""
    clock = Clock(tmp_path)
    with serving(target, cluster, tmp_path, processes=1, **clock.env()) as service:
        tokens = []
        for minutes in (0, 13, 14.5, 27, 29, 60, 24 * 60):
            clock.set(int(minutes * 60))
            cluster.webhook.ahead_seconds = minutes * 60
            assert cluster_status(service) == "ok", minutes
            tokens.append(len(set(cluster.webhook.accepted)))
        assert cluster.webhook.refused == [], "each came in time"
    # One serves for fourteen minutes, and a new one from then on.
    assert tokens[:3] == [1, 1, 2] and tokens[3:] == sorted(tokens[3:]) and tokens[-1] >= 5


def test_a_token_that_the_cluster_no_longer_takes_is_made_anew_and_nobody_notices(cluster, target, tmp_path):
    # Shorter than the server's memory, and long enough for a token to arrive on a busy machine.
    cluster.webhook.lifetime = 10
    with serving(target, cluster, tmp_path, processes=1) as service:
        assert cluster_status(service) == "ok"
        time.sleep(REMEMBERED_SECONDS)
        assert cluster_status(service) == "ok"
    assert len(set(cluster.webhook.accepted)) == 2
    (reason,) = cluster.webhook.refused
    assert "expired" in reason


def test_a_secret_that_is_not_the_keys_is_refused_by_the_cluster(cluster, target, tmp_path):
    with serving(target, cluster, tmp_path, AWS_SECRET_ACCESS_KEY="guessed") as service:
        assert cluster_status(service) == "unavailable"
        assert cluster.webhook.accepted == [] and "wrong secret" in cluster.webhook.refused[0]
        assert "does not know this service" in jobs_refusal(service)
        assert others_go_on(service)


def test_an_api_server_that_eks_does_not_vouch_for_is_told_nothing(cluster, target, tmp_path):
    cluster.aws.point_at(cluster.api.url, make_authority())
    with serving(target, cluster, tmp_path) as service:
        assert cluster_status(service) == "unavailable"
        assert "could not prove who it is" in jobs_refusal(service)
        assert cluster.webhook.accepted == cluster.webhook.refused == [], "no token was sent"
        assert others_go_on(service)
        # A new authority is found by itself.
        cluster.aws.point_at(cluster.api.url, cluster.api.ca)
        wait_for(lambda: cluster_status(service) == "ok", "the way to the cluster")


def make_authority() -> str:
    """The certificate of an authority that has nothing to do with the cluster."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "other")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def test_without_aws_the_service_starts_and_does_all_else(cluster, target, tmp_path):
    cluster.aws.down = True
    with serving(target, cluster, tmp_path) as service:
        assert others_go_on(service)
        assert cluster_status(service) == "unavailable"
        assert "AWS did not say where the cluster is" in jobs_refusal(service)
        assert others_go_on(service)
        cluster.aws.down = False
        wait_for(lambda: cluster_status(service) == "ok", "the way to the cluster")


def test_a_killed_api_server_is_found_again(cluster, target, tmp_path):
    with serving(target, cluster, tmp_path) as service:
        assert cluster_status(service) == "ok"
        with cluster.api.killed():
            assert cluster_status(service) == "unavailable"
            assert "cannot be reached" in jobs_refusal(service)
            assert others_go_on(service)
        wait_for(lambda: cluster_status(service) == "ok", "the way to the cluster")


def test_without_a_cluster_nothing_is_said_of_one(cluster, target, tmp_path):
    with serving(target, cluster, tmp_path, EKS_CLUSTER_NAME="") as service:
        assert "clusters" not in service.call("GET", "/health", who=None).body
    assert cluster.aws.asked == []


def test_the_credentials_of_a_role_nobody_let_in_are_refused(cluster, target, tmp_path):
    cluster.webhook.principals.pop(PODS)
    try:
        with serving(target, cluster, tmp_path, key=PODS) as service:
            assert cluster_status(service) == "unavailable"
            assert "nobody has this access key" in cluster.webhook.refused[0]
    finally:
        cluster.webhook.principals.update(principals())
