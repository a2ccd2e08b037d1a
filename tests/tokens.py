"""Writes tests/data/eks-tokens.json: what `aws eks get-token` answers at a given second.

    python3 -m venv /tmp/awscli && /tmp/awscli/bin/pip install awscli==1.46.3 freezegun==1.5.5
    /tmp/awscli/bin/python tests/tokens.py > tests/data/eks-tokens.json

The clock is frozen and the keys are AWS's documentation's, so a second run writes the same bytes.
"""

import io
import json
import os
import sys
from contextlib import redirect_stdout

from freezegun import freeze_time

KEY = {
    "access_key_id": "AKIAIOSFODNN7EXAMPLE",
    "secret_access_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "session_token": None,
}
SESSION = {
    "access_key_id": "ASIAIOSFODNN7EXAMPLE",
    "secret_access_key": "je7MtGbClwBF/2Zp9Utk/h3yCo8nvbEXAMPLEKEY",
    # What a real one has: base64 with every character that a URL must escape.
    "session_token": "IQoJb3JpZ2luX2VjEXAMPLE//////////wEaCXVzLWVhc3QtMSJIMEYCIQ+/=" + "A1b2/+" * 60 + "==",
}
CASES = [
    ("math", "us-east-1", "2026-11-21T10:11:12Z", KEY),
    ("math", "us-east-1", "2026-11-21T10:11:12Z", SESSION),
    ("math", "us-west-2", "2026-12-31T23:59:59Z", KEY),
    ("math", "eu-central-1", "2027-01-01T00:00:00Z", SESSION),
    ("Math_Cluster-01", "ap-southeast-7", "2028-02-29T12:00:00Z", KEY),
    ("0-_--__9", "ca-west-1", "2026-03-29T01:59:59Z", KEY),
    ("x" * 100, "sa-east-1", "2030-06-15T06:07:08Z", SESSION),
    ("math", "cn-north-1", "2026-11-21T10:11:12Z", KEY),
    ("math", "cn-northwest-1", "2026-11-21T10:11:12Z", SESSION),
    ("math", "us-gov-west-1", "2026-11-21T10:11:12Z", KEY),
    ("math", "us-gov-east-1", "2026-11-21T10:11:12Z", SESSION),
    ("math", "us-iso-east-1", "2026-11-21T10:11:12Z", KEY),
    ("math", "us-isob-east-1", "2026-11-21T10:11:12Z", KEY),
    ("math", "us-isof-south-1", "2026-11-21T10:11:12Z", KEY),
    ("math", "eu-isoe-west-1", "2026-11-21T10:11:12Z", KEY),
    ("math", "eusc-de-east-1", "2026-11-21T10:11:12Z", KEY),
]


def token(cluster: str, region: str, now: str, keys: dict) -> str:
    """What the awscli prints, run in this process because its clock is frozen here."""
    from awscli.clidriver import create_clidriver

    # AWS_DATA_PATH is where the awscli, when it is imported, says that its own files are.
    for name in [name for name in os.environ if name.startswith("AWS_") and name != "AWS_DATA_PATH"]:
        del os.environ[name]
    os.environ |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    # What version 2 always does and version 1 does only when told: the token names the region's own STS.
    os.environ["AWS_STS_REGIONAL_ENDPOINTS"] = "regional"
    os.environ |= {f"AWS_{name.upper()}": value for name, value in keys.items() if value}
    with freeze_time(now), redirect_stdout(io.StringIO()) as out:
        code = create_clidriver().main(["eks", "get-token", "--cluster-name", cluster, "--region", region])
    if code:
        sys.exit(f"aws eks get-token failed for {cluster} in {region}: {code}")
    return json.loads(out.getvalue())["status"]["token"]


if __name__ == "__main__":
    vectors = [
        {"cluster": cluster, "region": region, "now": now, **keys, "token": token(cluster, region, now, keys)}
        for cluster, region, now, keys in CASES
    ]
    json.dump(vectors, sys.stdout, indent=2)
    print()
