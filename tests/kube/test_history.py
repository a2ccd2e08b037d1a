"""What becomes of Jobs on a real API server, written down by one replica at a time, one of which is killed."""

import contextlib
import datetime
import itertools
import re
import signal
import time

import pytest
from apiserver import wait_for
from eks import PODS
from service import IMAGE, Service, settings
from support import PATIENCE_SECONDS, free_port, running, server_binary

LEASE = "/apis/coordination.k8s.io/v1/namespaces/default/leases/math-service-jobs"
# What the Lease says.
LEASE_SECONDS = 15
JOBS = 20
numbers = itertools.count(1)


@pytest.fixture
def namespace(cluster, granted) -> str:
    name = f"team-history-{next(numbers)}"
    cluster.api.make_namespace(name)
    # Of whoever held it in another test.
    cluster.api.ask("DELETE", LEASE)
    return name


class Replica(Service):
    def __init__(self, port: int, process):
        super().__init__(port)
        self.process = process


@contextlib.contextmanager
def replica(cluster, folder, name: str):
    """One of several processes with one store."""
    port = free_port()
    env = settings(
        cluster, folder, PODS, HOSTNAME=name, HOST="127.0.0.1", PORT=str(port), STATE_URL=f"sqlite://{folder / 'state.db'}", JOBS_LEASE_NAMESPACE="default",
    )
    with running([server_binary()], port, env) as process:
        yield Replica(port, process)


def holder(cluster) -> str:
    """The name of the replica that has the Lease."""
    answer = cluster.api.ask("GET", LEASE)
    return answer.body["spec"]["holderIdentity"].partition("_")[0] if answer.status == 200 else ""


def moment(cluster, field: str) -> datetime.datetime:
    """What the Lease says of when it was taken or renewed."""
    return datetime.datetime.fromisoformat(cluster.api.ask("GET", LEASE).body["spec"][field])


def has_watched(service) -> bool:
    """Whether this replica has written down all that there was at some moment, and at which."""
    text = service.call("GET", "/metrics", who=None, raw=True).body.decode()
    return re.search(r"^jobs_watch_last_success_timestamp_seconds\{.*\} [1-9]", text, re.MULTILINE) is not None


def history(service, namespace: str, name: str = "a") -> list[tuple[str, str]]:
    answer = service.call("GET", f"{service.jobs(namespace, name)}/history")
    assert answer.status == 200, answer
    return [(item["uid"], item["status"]) for item in answer.body["items"]]


def stages(service, namespace: str, name: str = "a") -> list[str]:
    return [status for _, status in history(service, namespace, name)]


def create(service, namespace: str, name: str = "a") -> str:
    answer = service.call("POST", service.jobs(namespace), {"name": name, "image": IMAGE})
    assert answer.status == 201, answer
    return answer.body["uid"]


def test_history_is_told_when_the_cluster_has_forgotten_the_job(cluster, namespace, tmp_path):
    with replica(cluster, tmp_path, "one") as service:
        uids = []
        for _ in range(2):
            uids.append(create(service, namespace))
            cluster.api.set_pods(namespace, "a", {"phase": "Succeeded"})
            wait_for(lambda: "succeeded" in [s for uid, s in history(service, namespace) if uid == uids[-1]], "its end")
            assert service.call("DELETE", service.jobs(namespace, "a")).status == 202
            wait_for(lambda: (uids[-1], "gone") in history(service, namespace), "that it is gone")
        assert cluster.api.job(namespace, "a") is None
        told = history(service, namespace)
        for uid in uids:
            of_this = [status for found, status in told if found == uid]
            assert [status for status in of_this if status != "running"] == ["pending", "succeeded", "gone"], "by UID"
        audit = service.call("GET", f"/api/v1/audit?namespace={namespace}").body["items"]
        assert [(entry["verb"], entry["outcome"], entry["uid"]) for entry in audit] == [
            ("DELETE", "done", uids[1]), ("POST", "done", uids[1]), ("DELETE", "done", uids[0]), ("POST", "done", uids[0]),
        ]


def test_when_the_replica_that_watches_is_killed_another_goes_on_and_nothing_is_missing(cluster, namespace, tmp_path):
    with replica(cluster, tmp_path, "one") as one, replica(cluster, tmp_path, "two") as two:
        by_name = {"one": one, "two": two}
        first = wait_for(lambda: holder(cluster), "somebody who watches")
        watching, waiting = by_name[first], by_name["two" if first == "one" else "one"]
        # It lists what other tests have left, which takes a while; only then is there a place from which to go on.
        wait_for(lambda: has_watched(watching), "a first look at the cluster")
        names = [f"job-{number}" for number in range(JOBS)]
        for name in names[: JOBS // 2]:
            create(watching, namespace, name)
            cluster.api.set_pods(namespace, name, {"phase": "Succeeded"})
        watching.process.kill()
        watching.process.wait()
        killed, renewed = time.monotonic(), moment(cluster, "renewTime")
        # What happens while nobody watches: some are made, some end, one comes and goes.
        for name in names[JOBS // 2 :]:
            create(waiting, namespace, name)
            cluster.api.set_pods(namespace, name, {"phase": "Succeeded"})
        wait_for(lambda: cluster.api.job(namespace, names[-1])["status"].get("succeeded"), "its end")
        assert waiting.call("DELETE", waiting.jobs(namespace, names[-1])).status == 202
        wait_for(lambda: cluster.api.job(namespace, names[-1]) is None, "that it is gone")
        wait_for(lambda: holder(cluster) not in ("", first), "another who watches")
        print(f"figure: the Lease changed hands {time.monotonic() - killed:.1f} s after its holder was killed")
        assert (moment(cluster, "acquireTime") - renewed).total_seconds() >= LEASE_SECONDS, "no sooner than it may"
        for name in names:
            wait_for(lambda: "succeeded" in stages(waiting, namespace, name), f"the end of {name}")
        wait_for(lambda: "gone" in stages(waiting, namespace, names[-1]), "that it is gone")
        for name in names:
            told = stages(waiting, namespace, name)
            expected = ["pending", "succeeded"] + (["gone"] if name == names[-1] else [])
            assert [stage for stage in told if stage != "running"] == expected, "each once, and none missing"


def test_a_replica_that_ends_lets_the_next_one_watch_at_once(cluster, namespace, tmp_path):
    with replica(cluster, tmp_path, "two-ends") as two:
        with replica(cluster, tmp_path, "one-ends") as one:
            first = wait_for(lambda: holder(cluster), "somebody who watches")
            watching, waiting = (two, one) if first == "two-ends" else (one, two)
            # Stopped, so that it cannot have the Lease before it is looked at.
            waiting.process.send_signal(signal.SIGSTOP)
            try:
                watching.process.terminate()
                watching.process.wait(PATIENCE_SECONDS)
                assert holder(cluster) == "", "it was released"
            finally:
                waiting.process.send_signal(signal.SIGCONT)
            wait_for(lambda: holder(cluster) not in ("", first), "another who watches")
            create(waiting, namespace)
            wait_for(lambda: stages(waiting, namespace) == ["pending"], "that it is watched")


def test_the_api_server_is_killed_and_the_history_is_complete(cluster, namespace, tmp_path):
    with replica(cluster, tmp_path, "one") as service:
        create(service, namespace)
        wait_for(lambda: stages(service, namespace) == ["pending"], "that it is watched")
        with cluster.api.killed():
            assert stages(service, namespace) == ["pending"], "what is known needs no cluster"
        cluster.api.set_pods(namespace, "a", {"phase": "Succeeded"})
        wait_for(lambda: "succeeded" in stages(service, namespace), "its end")
