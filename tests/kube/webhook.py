"""What EKS does with a bearer token, for the API server of the tests: a TokenReview webhook.

EKS sends the URL inside the token to STS, which checks its signature, and maps the caller to a Kubernetes user by the
cluster's access entries. Here the signature is computed again, by AWS's description of SigV4 and with Python's own
hmac and hashlib: nothing is shared with botocore or with the service.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import base64
import contextlib
import dataclasses
import datetime
import hashlib
import hmac
import http.server
import json
import re
import threading
import time
import urllib.parse

PREFIX = "k8s-aws-v1."
# How long EKS takes a token after the time in it, whatever X-Amz-Expires says.
TOKEN_SECONDS = 15 * 60
# A clock may be ahead of another by so much; AWS allows more.
SKEW_SECONDS = 5
# Anything else could make the URL another request than the one that was signed for EKS.
PARAMETERS = {
    "Action", "Version", "X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-Security-Token",
    "X-Amz-Signature", "X-Amz-SignedHeaders",
}


@dataclasses.dataclass
class Principal:
    """Somebody in IAM, with the access entry of the cluster."""

    secret: str
    user: str
    groups: list[str]
    session_token: str | None = None


class Refused(Exception):
    """Why a token is not taken."""


def require(fact: bool, otherwise: str) -> None:
    if not fact:
        raise Refused(otherwise)


def decoded(token: str) -> str:
    """The URL in a token."""
    require(token.startswith(PREFIX), "no EKS token")
    encoded = token.removeprefix(PREFIX)
    require(re.fullmatch(r"[A-Za-z0-9_-]+", encoded) is not None, "not unpadded base64url")
    try:
        return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode("ascii")
    except ValueError as error:
        raise Refused(f"not base64url: {error}") from error


def signature(secret: str, scope: str, moment: str, canonical_request: str) -> str:
    """SigV4, from its description."""
    digest = hashlib.sha256(canonical_request.encode()).hexdigest()
    key = b"AWS4" + secret.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.new(key, f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}".encode(), "sha256").hexdigest()


def encoded(text: str) -> str:
    return urllib.parse.quote(text, safe="-_.~")


def canonical(host: str, cluster: str, parameters: dict[str, str]) -> str:
    """The request that was signed: GET of `/` with an empty body, the host, and the cluster's name."""
    signed = sorted((encoded(n), encoded(v)) for n, v in parameters.items() if n != "X-Amz-Signature")
    query = "&".join(f"{name}={value}" for name, value in signed)
    empty = hashlib.sha256(b"").hexdigest()
    return f"GET\n/\n{query}\nhost:{host}\nx-k8s-aws-id:{cluster}\n\nhost;x-k8s-aws-id\n{empty}"


def verify(token: str, cluster: str, region: str, principals: dict[str, Principal], now: float, lifetime: float = TOKEN_SECONDS) -> Principal:
    """Whose token it is."""
    url = urllib.parse.urlsplit(decoded(token))
    host = f"sts.{region}.amazonaws.com"
    require((url.scheme, url.netloc, url.path, url.fragment) == ("https", host, "/", ""), f"not https://{host}/")
    pairs = urllib.parse.parse_qsl(url.query, keep_blank_values=True, strict_parsing=True)
    parameters = dict(pairs)
    require(len(parameters) == len(pairs), "a parameter is repeated")
    require(parameters.keys() <= PARAMETERS, f"unexpected parameters {parameters.keys() - PARAMETERS}")
    required = PARAMETERS - {"X-Amz-Security-Token"}
    require(required <= parameters.keys(), f"missing parameters {required - parameters.keys()}")
    fixed = {"Action": "GetCallerIdentity", "Version": "2011-06-15", "X-Amz-Algorithm": "AWS4-HMAC-SHA256"}
    require(fixed.items() <= parameters.items(), "another request than GetCallerIdentity")
    require(parameters["X-Amz-SignedHeaders"] == "host;x-k8s-aws-id", "the cluster is not signed")
    expires = parameters["X-Amz-Expires"]
    require(re.fullmatch(r"[0-9]{1,2}", expires) is not None and 0 < int(expires) <= 60, f"X-Amz-Expires is {expires}")

    moment = parameters["X-Amz-Date"]
    try:
        began = datetime.datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC).timestamp()
    except ValueError as error:
        raise Refused(str(error)) from error
    require(now - began <= lifetime, f"expired: {now - began:.0f} s old")
    require(began - now <= SKEW_SECONDS, f"{began - now:.0f} s in the future")

    key, _, scope = parameters["X-Amz-Credential"].partition("/")
    require(scope == f"{moment[:8]}/{region}/sts/aws4_request", f"for another day, region or service: {scope}")
    require(key in principals, "nobody has this access key")
    principal = principals[key]
    require(parameters.get("X-Amz-Security-Token") == principal.session_token, "not this session")
    expected = signature(principal.secret, scope, moment, canonical(host, cluster, parameters))
    require(hmac.compare_digest(parameters["X-Amz-Signature"], expected), "the signature is another: wrong secret, cluster or parameter")
    return principal


class Webhook:
    """The server, what it was asked, and its clock."""

    def __init__(self, cluster: str, region: str, principals: dict[str, Principal]):
        self.cluster, self.region, self.principals = cluster, region, principals
        # How far its clock is ahead, and how long it takes a token; tests change both.
        self.ahead_seconds = 0.0
        self.lifetime = float(TOKEN_SECONDS)
        self.accepted: list[str] = []
        self.refused: list[str] = []

    def review(self, token: str) -> dict:
        try:
            principal = verify(token, self.cluster, self.region, self.principals, time.time() + self.ahead_seconds, self.lifetime)
        except Refused as reason:
            self.refused.append(str(reason))
            return {"authenticated": False, "error": str(reason)}
        self.accepted.append(token)
        return {"authenticated": True, "user": {"username": principal.user, "groups": principal.groups}}

    def forget(self) -> None:
        self.accepted.clear()
        self.refused.clear()

    @contextlib.contextmanager
    def serving(self):
        webhook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                review = json.loads(self.rfile.read(int(self.headers["content-length"])))
                assert review["kind"] == "TokenReview"
                status = webhook.review(review["spec"]["token"])
                body = json.dumps({"apiVersion": review["apiVersion"], "kind": "TokenReview", "status": status}).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            # Connections that the API server keeps open must not hold up the end.
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                yield f"http://127.0.0.1:{server.server_port}/authenticate"
            finally:
                server.shutdown()
