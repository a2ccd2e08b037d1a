"""The webhook takes what AWS's own tools make, and nothing else: the chain tests are worth what it is worth."""

import base64
import time
import urllib.parse

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest
from eks import CLUSTER, FUNCTION, PODS, REGION, principals
from webhook import PREFIX, Refused, verify


def url(key: str = PODS, cluster: str = CLUSTER, secret: str = "", host: str = f"sts.{REGION}.amazonaws.com", region: str = REGION,
        expires: int = 60, action: str = "GetCallerIdentity", session: str | None = None) -> str:
    """Presigned as `aws eks get-token` does it, by botocore."""
    principal = principals()[key]
    credentials = botocore.credentials.Credentials(key, secret or principal.secret, session or principal.session_token)
    request = botocore.awsrequest.AWSRequest("GET", f"https://{host}/?Action={action}&Version=2011-06-15", headers={"x-k8s-aws-id": cluster})
    botocore.auth.SigV4QueryAuth(credentials, "sts", region, expires).add_auth(request)
    return request.url


def token(address: str) -> str:
    return PREFIX + base64.urlsafe_b64encode(address.encode()).decode().rstrip("=")


def check(address: str, ahead: float = 0.0):
    return verify(token(address), CLUSTER, REGION, principals(), time.time() + ahead)


def refused(text: str, ahead: float = 0.0) -> str:
    with pytest.raises(Refused) as reason:
        verify(text, CLUSTER, REGION, principals(), time.time() + ahead)
    return str(reason.value)


@pytest.mark.parametrize("key", [PODS, FUNCTION], ids=["a key", "a key with a session token"])
def test_what_botocore_signs_is_taken_for_fifteen_minutes(key):
    address = url(key)
    assert check(address) == principals()[key]
    assert check(address, ahead=14 * 60 + 55) == principals()[key], "however short X-Amz-Expires is"
    assert "expired" in refused(token(address), ahead=15 * 60 + 5)
    assert "in the future" in refused(token(address), ahead=-60)


MISTAKES = {
    "another cluster": (dict(cluster="other"), "wrong secret, cluster"),
    "another secret": (dict(secret="guessed"), "wrong secret, cluster"),
    "another session": (dict(key=FUNCTION, session="another"), "not this session"),
    "a global host": (dict(host="sts.amazonaws.com"), "not https://sts.eu-west-2"),
    "the host of another region": (dict(host="sts.us-east-1.amazonaws.com"), "not https://sts.eu-west-2"),
    "a host of somebody's": (dict(host="sts.eu-west-2.amazonaws.com.example"), "not https://sts.eu-west-2"),
    "signed for another region": (dict(region="us-east-1"), "another day, region"),
    "a longer expiry": (dict(expires=900), "X-Amz-Expires is 900"),
    "another action": (dict(action="GetSessionToken"), "another request"),
}


@pytest.mark.parametrize(("change", "reason"), MISTAKES.values(), ids=MISTAKES.keys())
def test_what_was_signed_for_something_else_is_refused(change, reason):
    assert reason in refused(token(url(**change)))


@pytest.mark.parametrize("name", ["X-Amz-Date", "X-Amz-Expires", "X-Amz-Signature", "X-Amz-Credential", "X-Amz-SignedHeaders", "Version"])
def test_no_signed_parameter_can_be_altered_left_out_or_repeated(name):
    address = urllib.parse.urlsplit(url())
    pairs = dict(urllib.parse.parse_qsl(address.query))
    altered = {"X-Amz-Date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() - 60)), "X-Amz-Expires": "59"}.get(name, pairs[name][:-1] + "!")
    for query in ({**pairs, name: altered}, {n: v for n, v in pairs.items() if n != name}):
        assert refused(token(address._replace(query=urllib.parse.urlencode(query)).geturl()))
    twice = f"{address.query}&{urllib.parse.urlencode({name: pairs[name]})}"
    assert refused(token(address._replace(query=twice).geturl())) == "a parameter is repeated"


@pytest.mark.parametrize("text", ["", "k8s-aws-v1.", "k8s-aws-v2.aHR0cHM6", "k8s-aws-v1.%%%", "k8s-aws-v1.aHR0cHM6Ly8=", "k8s-aws-v1.-_8"])
def test_what_is_no_token_is_refused(text):
    assert refused(text)


def test_other_addresses_and_parameters_are_refused():
    good = url()
    assert check(good)
    for wrong in [good.replace("https", "http"), good.replace("/?", "/path?"), f"{good}#x", f"{good}&Extra=1", good.replace(PODS, "AKIANOBODY0000000000")]:
        assert refused(token(wrong))


def test_a_user_of_the_real_server_is_whom_the_webhook_names(cluster):
    """With a client that makes its tokens itself; the service is not involved."""
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
    attributes = {"spec": {"resourceAttributes": {"verb": "list", "resource": "nodes"}}}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    answer = cluster.api.ask("POST", path, {**review, **attributes}, token=token(url()))
    assert answer.status == 201 and answer.body["status"]["allowed"] is False, answer
    forbidden = cluster.api.ask("GET", "/api/v1/nodes", token=token(url()))
    assert forbidden.status == 403 and principals()[PODS].user in forbidden.body["message"]
    assert cluster.api.ask("GET", "/api/v1/nodes", token=token(url(secret="guessed"))).status == 401
