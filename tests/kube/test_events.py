"""How a Job changes, followed by many at once on a real API server, which is killed meanwhile.

What it cannot show is the contents of logs: without a kubelet there are none. Those are scripted in tests/api/jobs/logs.rs.
"""

import itertools
import json
import re
import threading

import pytest
from apiserver import wait_for
from service import IMAGE, serving
from support import PATIENCE_SECONDS

WATCHERS = 50
numbers = itertools.count(1)


@pytest.fixture
def namespace(cluster) -> str:
    name = f"team-events-{next(numbers)}"
    cluster.api.make_namespace(name)
    return name


def create(service, cluster, namespace: str) -> str:
    """A Job with its pod, at step 0."""
    answer = service.call("POST", service.jobs(namespace), {"name": "a", "image": IMAGE, "labels": {"step": "0"}})
    assert answer.status == 201, answer
    wait_for(lambda: cluster.api.pods(namespace, "a"), "its pod")
    return service.jobs(namespace, "a") + "/events"


def change(cluster, namespace: str, step: int) -> None:
    patch = {"metadata": {"labels": {"step": str(step)}}}
    answer = cluster.api.ask("PATCH", cluster.api.job_path(namespace, "a"), patch, kind="application/merge-patch+json")
    assert answer.status == 200, answer


class Watcher:
    """An EventSource: goes on with Last-Event-ID wherever an answer ends, until it is told of the end."""

    def __init__(self, services, path: str, most: int | None = None):
        self.services, self.path, self.most = itertools.cycle(services), path, most
        self.last, self.answers = "", 0
        self.events: list[tuple[str, dict]] = []
        self.error = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            while not self._answer():
                pass
        except Exception as error:
            self.error = error

    def _answer(self) -> bool:
        """One answer; whether it was the last."""
        self.answers += 1
        kind, seen = "", 0
        with next(self.services).stream(self.path, self.last) as response:
            if response.status == 204:
                return True
            assert response.status == 200, response.read()
            for line in iter(response.readline, b""):
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "event":
                    kind = value
                elif name == "id":
                    self.last = value
                elif name == "data":
                    self.events.append((kind, json.loads(value)))
                    seen += 1
                    if kind == "end":
                        return True
                elif not name and seen == self.most:
                    return False
        return False

    def steps(self) -> list[int]:
        """Each step once, in the order in which it was told; what else changes (a pod's phase) is told too."""
        steps = [int(data["labels"]["step"]) for kind, data in self.events if kind == "status"]
        return [step for step, _ in itertools.groupby(steps)]

    def has_seen(self, step: int) -> bool:
        assert self.error is None, self.error
        return step in self.steps()

    def ends(self) -> tuple[str, dict]:
        self.thread.join(PATIENCE_SECONDS)
        assert not self.thread.is_alive() and self.error is None, (self.error, self.answers, self.last, self.events[-2:])
        return self.events[-1]


def finish(cluster, namespace: str) -> None:
    cluster.api.set_pods(namespace, "a", {"phase": "Succeeded"})


def all_have_seen(watchers: list[Watcher], step: int) -> None:
    wait_for(lambda: all(watcher.has_seen(step) for watcher in watchers), f"step {step} for all")


def resident_kib(service) -> int:
    text = service.call("GET", "/metrics", who=None, raw=True).body.decode()
    return int(re.search(r"^process_resident_memory_bytes (\d+)$", text, re.MULTILINE)[1]) // 1024


def test_fifty_watchers_miss_nothing_while_the_api_server_is_killed_and_restarted(cluster, granted, namespace, tmp_path):
    """All in order, none missing. Except: what changes after the restart and before the watch goes on again may be told as one, because a
    restarted API server has forgotten the past; then how the Job is at last is told."""
    with serving("container", cluster, tmp_path) as service:
        path = create(service, cluster, namespace)
        before = resident_kib(service)
        watchers = [Watcher([service], path) for _ in range(WATCHERS)]
        all_have_seen(watchers, 0)
        with_all = resident_kib(service)
        for step in range(1, 101):
            change(cluster, namespace, step)
        all_have_seen(watchers, 100)
        cluster.api.crash()
        for step in range(101, 121):
            change(cluster, namespace, step)
        all_have_seen(watchers, 120)
        for step in range(121, 201):
            change(cluster, namespace, step)
        all_have_seen(watchers, 200)
        after = resident_kib(service)
        finish(cluster, namespace)
        ends = [watcher.ends() for watcher in watchers]
    told = [len(watcher.steps()) for watcher in watchers]
    print(f"{WATCHERS} watchers: {sum(told)} of {201 * WATCHERS} changes told, {min(told)} to {max(told)} each; "
          f"resident {before} KiB without, {with_all} KiB with all, {after} KiB after 200 changes")
    for watcher, end in zip(watchers, ends, strict=True):
        steps = watcher.steps()
        assert steps == sorted(set(steps)), "in order, none twice"
        assert set(range(0, 101)) | set(range(120, 201)) <= set(steps), "none missing"
        assert watcher.events[-2][1]["status"] == "succeeded" and end == ("end", {"reason": "finished"})
        assert watcher.answers == 1, "the stream was never cut"


def test_a_client_that_goes_from_replica_to_replica_misses_nothing(cluster, granted, namespace, tmp_path):
    (tmp_path / "b").mkdir()
    with serving("container", cluster, tmp_path) as one, serving("container", cluster, tmp_path / "b") as other:
        path = create(one, cluster, namespace)
        watcher = Watcher([one, other], path, most=3)
        wait_for(lambda: watcher.has_seen(0), "the present")
        for step in range(1, 41):
            change(cluster, namespace, step)
        wait_for(lambda: watcher.has_seen(40), "the last step")
        finish(cluster, namespace)
        watcher.ends()
    assert watcher.steps() == list(range(41)) and watcher.answers > 10


def test_the_same_client_follows_a_job_on_lambda(cluster, granted, namespace, tmp_path):
    with serving("lambda", cluster, tmp_path, processes=3) as service:
        path = create(service, cluster, namespace)
        watcher = Watcher([service], path)
        wait_for(lambda: watcher.has_seen(0), "the present")
        for step in range(1, 21):
            change(cluster, namespace, step)
        wait_for(lambda: watcher.has_seen(20), "the last step")
        finish(cluster, namespace)
        watcher.ends()
    assert watcher.steps() == list(range(21)) and watcher.answers > 1


def test_an_id_from_before_a_restart_gets_the_present_of_a_replica_that_knows_nothing(cluster, granted, namespace, tmp_path):
    with serving("container", cluster, tmp_path) as service:
        path = create(service, cluster, namespace)
        with service.stream(path) as response:
            last = first(response, b"id: ")
        change(cluster, namespace, 1)
    cluster.api.crash()
    change(cluster, namespace, 2)
    with serving("container", cluster, tmp_path) as service, service.stream(path, last) as response:
        assert response.status == 200, response.read()
        told = []
        while 2 not in told:
            told.append(int(json.loads(first(response, b"data: "))["labels"]["step"]))
        assert told in ([1, 2], [2]), "in order, and to the present"


def first(response, name: bytes) -> str:
    """The first of some lines: all that there is comes well before two heartbeats."""
    for line in itertools.islice(iter(response.readline, b""), 20):
        if line.startswith(name):
            return line.removeprefix(name).decode().strip()
    raise AssertionError(f"no {name} came")


def test_the_log_of_a_pod_that_runs_nowhere_is_no_error(cluster, granted, namespace, tmp_path):
    with serving("container", cluster, tmp_path) as service:
        create(service, cluster, namespace)
        answer = service.call("GET", service.jobs(namespace, "a") + "/logs", raw=True)
        assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8"), answer
        missing = service.call("GET", service.jobs(namespace, "none") + "/logs", raw=True)
        assert missing.status == 404, missing
