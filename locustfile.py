"""Load for either target. Users are chosen by class; none chosen means AddUser.

    locust -H http://localhost:8000                                              # then open http://localhost:8089
    locust -H https://… --headless --users 50 --spawn-rate 10 --run-time 2m      # without the page
    locust -H http://… LoadUser --headless                                       # 1000 requests to /load, and ends
    locust -H http://… MixedUser --headless --users 50 --run-time 5m             # additions, and a burn now and then
    locust -H http://… MixedUser --headless --users 50 --run-time 5m --shape steps

AddUser adds two numbers, thinks for a second or two, and adds again. LoadUser burns CPU until its requests are done.
MixedUser does both. `--shape steps` or `--shape ramp` makes the number of users follow a course in time.

An answer that is not exactly what was asked for is a failure, whatever its status: a load test that counts wrong
answers as successes measures nothing. A 503 of /load that carries Retry-After is no failure: all slots were busy, the
service says so on purpose, and the figures list it as "/load (busy)".

`--requests-csv FILE` writes a line for each request, which `math-lab report` compares with those of another run. The
answer's request id is in it: on Lambda that of the invocation, by which the function's log marks cold starts.
"""

import csv
import logging
import math
import random
import time
import urllib.parse

# First: it patches the sockets and TLS that the others import.
from locust import HttpUser, LoadTestShape, between, constant, events, task
from locust.exception import StopUser
from locust.runners import LocalRunner

import gevent
import requests

EXPECTED = {"result": 15.0}
THINK_SECONDS = (1, 2)
# Nobody waits longer for an answer: no gateway would, and the service's own limit is shorter.
ANSWER_SECONDS = 60
# A burn that found every slot busy for this long counts as failed.
BUSY_SECONDS = 600
# LoadUser's share of failed requests above which the run as a whole has failed.
TOLERATED = 0.01
LOAD_USERS = 20
STEPS = 5
SHAPE_SECONDS = 300


def parsed(response) -> object:
    """The body as JSON, or as it came when it is none."""
    try:
        return response.json()
    except ValueError:
        return response.text[:200]


def wrong_status(response) -> str | None:
    """What is wrong with an answer before anybody looks at its body."""
    if response.status_code == 0:
        return f"no answer: {response.error}"
    if response.status_code != 200:
        return f"status {response.status_code} instead of 200: {response.text[:200]!r}"
    return None


def wrong_burn(response, seconds: float) -> str | None:
    """What is wrong with an answer of /load."""
    if problem := wrong_status(response):
        return problem
    answer = parsed(response)
    if not isinstance(answer, dict) or answer.get("seconds") != seconds or not answer.get("iterations", 0) > 0:
        return f"{answer!r} instead of {seconds} seconds and some iterations"
    return None


def busy_seconds(response) -> float | None:
    """How long to wait before asking again, when every slot was busy; None for any other answer."""
    wait = response.headers.get("retry-after", "") if response.status_code == 503 else ""
    return float(wait) if wait.isdecimal() else None


def add(user: HttpUser) -> None:
    """Adds 10 and 5."""
    # The host may end in a slash: Locust joins host and path, and the service takes `//` for `/`.
    with user.client.post("/", json={"a": 10, "b": 5}, timeout=ANSWER_SECONDS, catch_response=True) as response:
        if problem := wrong_status(response):
            response.failure(problem)
        elif (answer := parsed(response)) != EXPECTED:
            response.failure(f"{answer!r} instead of {EXPECTED!r}")


def burn(user: HttpUser) -> tuple[bool, float | None]:
    """Asks once for CPU time: whether it was burnt, and how long to wait when every slot was busy."""
    seconds = user.environment.parsed_options.load_seconds
    request = user.client.get(f"/load?seconds={seconds}", name="/load", timeout=ANSWER_SECONDS, catch_response=True)
    with request as response:
        # A new connection next time: what spreads connections, as kube-proxy does, would leave new pods without any.
        user.client.close()
        if (wait := busy_seconds(response)) is not None:
            response.request_meta["name"] = "/load (busy)"
            response.success()
            return False, wait
        if problem := wrong_burn(response, seconds):
            response.failure(problem)
            return False, None
    return True, None


def burn_or_wait(user: HttpUser) -> None:
    """Asks once, and does as Retry-After says: in a mix of requests somebody else burns meanwhile."""
    _, wait = burn(user)
    gevent.sleep(wait or 0)


class AddUser(HttpUser):
    """Adds, thinks, adds."""

    wait_time = between(*THINK_SECONDS)
    tasks = [add]


class MixedUser(HttpUser):
    """Nine additions to one burn."""

    wait_time = between(*THINK_SECONDS)
    tasks = {add: 9, burn_or_wait: 1}


class LoadUser(HttpUser):
    """Burns, as one of several workers, until --load-requests are done; then the run ends by itself."""

    wait_time = constant(0)

    def on_start(self) -> None:
        self.tally: Tally = self.environment.load_tally

    @task
    def work(self) -> None:
        if not self.tally.take():
            raise StopUser
        self.tally.finish(self.burn_at_last())
        if self.tally.complete():
            # From outside: a user cannot wait for its own end.
            gevent.spawn(end, self.environment)

    def burn_at_last(self) -> bool:
        """Whether the CPU time was burnt, be it after some waiting."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            done, wait = burn(self)
            if wait is None:
                return done
            self.tally.busy += 1
            if time.monotonic() + wait > deadline:
                logging.error("LoadUser: every slot was busy for %d s", BUSY_SECONDS)
                return False
            # Not all at the same moment, or all but one or two of them would find the slots busy again.
            gevent.sleep(wait * random.uniform(1, 2))


class Tally:
    """What LoadUser's workers have done together."""

    def __init__(self, requests: int) -> None:
        self.requests = self.left = requests
        self.done = self.failed = self.busy = 0
        self.began = self.said = time.monotonic()

    def take(self) -> bool:
        """Whether there is a request left to send; it is the caller's then."""
        self.left -= 1
        return self.left >= 0

    def finish(self, succeeded: bool) -> None:
        self.done += 1
        self.failed += not succeeded
        # Ten lines for a short run, and one every ten seconds of a long one.
        if self.done % math.ceil(self.requests / 10) == 0 or time.monotonic() - self.said >= 10:
            self.said = time.monotonic()
            logging.info("LoadUser: %s", self)

    def complete(self) -> bool:
        return self.done == self.requests

    def passed(self) -> bool:
        return self.complete() and self.failed <= TOLERATED * self.requests

    def __str__(self) -> str:
        elapsed = time.monotonic() - self.began
        return f"{self.done} of {self.requests} done, {self.failed} failed, {self.busy} times busy, {elapsed:.1f} s"


class Shape(LoadTestShape):
    """The number of users over --run-time, up to --users."""

    # Locust would use a shape just because it is here; --shape decides instead.
    abstract = True
    # The page asks for users and time, and the shape takes them from there.
    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        options = self.runner.environment.parsed_options
        peak = options.num_users or 1
        elapsed = self.get_run_time() / (options.run_time or SHAPE_SECONDS)
        if elapsed >= 1:
            return None
        # What a tick asks for starts at once; the shape itself is the ramp.
        return max(1, round(peak * self.share(elapsed))), peak

    def share(self, elapsed: float) -> float:
        """The share of the users that run when `elapsed`, from 0 to 1, of the time is over."""
        raise NotImplementedError


class Steps(Shape):
    """Up in equal steps: each shows where the autoscaler comes to rest."""

    abstract = True

    def share(self, elapsed: float) -> float:
        return (int(elapsed * STEPS) + 1) / STEPS


class Ramp(Shape):
    """Steadily up and down again."""

    abstract = True

    def share(self, elapsed: float) -> float:
        return 1 - abs(2 * elapsed - 1)


SHAPES = {"steps": Steps, "ramp": Ramp}


class Requests:
    """A file with a line for each request of the latest run."""

    COLUMNS = ("started", "method", "name", "status", "ms", "failed", "request_id")

    def __init__(self, path: str, environment) -> None:
        self.file = open(path, "w", newline="", encoding="utf-8")
        self.begin(environment)

    def begin(self, environment, **_) -> None:
        """Empties the file: the page can start several runs, which are not to be taken for one."""
        self.file.seek(0)
        self.file.truncate()
        self.lines = csv.writer(self.file, lineterminator="\n")
        self.lines.writerow(self.COLUMNS)
        self.base = urllib.parse.urlparse(environment.host or "").path.rstrip("/")

    def add(self, request_type, name, response_time, response, exception, start_time, **_) -> None:
        if self.file.closed:
            return
        # A host with a stage, or with a slash at its end, is no other path.
        path = "/" + name.removeprefix(self.base).lstrip("/")
        status = getattr(response, "status_code", 0)
        request_id = getattr(response, "headers", {}).get("x-request-id", "")
        started, ms = f"{start_time:.6f}", f"{response_time:.3f}"
        self.lines.writerow((started, request_type, path, status, ms, int(exception is not None), request_id))

    def flush(self, **_) -> None:
        self.file.flush()

    def close(self, **_) -> None:
        self.file.close()


def positive(kind: type) -> object:
    """A parser for an option that must be a number above 0."""

    def number(text: str):
        value = kind(text)
        if not (math.isfinite(value) and value > 0):
            raise ValueError(text)
        return value

    return number


@events.init_command_line_parser.add_listener
def options(parser) -> None:
    parser.add_argument("--load-seconds", type=positive(float), default=5.0, help="CPU seconds that a request to /load burns")
    parser.add_argument("--load-requests", type=positive(int), default=1000, help="requests to /load after which LoadUser ends")
    parser.add_argument(
        "--shape", choices=sorted(SHAPES), include_in_web_ui=False, help="how the number of users changes over --run-time"
    )
    parser.add_argument(
        "--requests-csv",
        metavar="FILE",
        env_var="LOCUST_REQUESTS_CSV",
        include_in_web_ui=False,
        help="write a line for each request, for `math-lab report`",
    )


@events.init.add_listener
def choose(environment, runner, **_) -> None:
    """Applies what the command line leaves open."""
    # gevent's clock has stood still since the imports began, which take seconds on a busy machine: --run-time would begin then.
    gevent.get_hub().loop.update_now()
    options = environment.parsed_options
    if not options.user_classes:
        environment.user_classes = [AddUser]
    if LoadUser in environment.user_classes:
        if not isinstance(runner, LocalRunner):
            raise SystemExit("LoadUser counts its requests in one process: leave out --processes, --master and --worker")
        options.num_users = options.num_users or LOAD_USERS
        options.spawn_rate = options.spawn_rate or options.num_users
        # Until a run says otherwise: one that is over before it has begun has not passed.
        environment.process_exit_code = 1 if options.headless else None
    if options.shape:
        environment.shape_class = SHAPES[options.shape]()
        environment.shape_class.runner = runner


@events.init.add_listener
def record_requests(environment, runner, **_) -> None:
    """Opens the file of requests, where one is asked for."""
    path = environment.parsed_options.requests_csv
    if not path:
        return
    if not isinstance(runner, LocalRunner):
        raise SystemExit("--requests-csv writes the requests of one process: leave out --processes, --master and --worker")
    try:
        record = Requests(path, environment)
    except OSError as error:
        raise SystemExit(f"--requests-csv: {error}") from None
    environment.events.test_start.add_listener(record.begin)
    environment.events.request.add_listener(record.add)
    environment.events.test_stop.add_listener(record.flush)
    environment.events.quit.add_listener(record.close)


@events.test_start.add_listener
def check(environment, **_) -> None:
    """Before LoadUser's first request: whether the target burns CPU at all. A thousand failures would say no more."""
    if LoadUser not in environment.user_classes:
        return
    environment.process_exit_code = None
    environment.load_tally = None
    if problem := what_prevents_a_burn(environment):
        environment.process_exit_code = 1
        logging.error("LoadUser sends nothing: %s", problem)
        gevent.spawn(end, environment)
        # Ends the greenlet that was about to start the users.
        raise gevent.GreenletExit
    environment.load_tally = Tally(environment.parsed_options.load_requests)


def what_prevents_a_burn(environment) -> str | None:
    """Asks for next to no CPU time; None when the target burns it, or is only too busy to."""
    if not environment.host:
        return "there is no host; give one with -H http://…"
    seconds = min(0.001, environment.parsed_options.load_seconds)
    url = f"{environment.host.rstrip('/')}/load?seconds={seconds}"
    try:
        response = requests.get(url, timeout=ANSWER_SECONDS)
    except requests.RequestException as error:
        return f"no answer from {url}: {error}"
    if busy_seconds(response) is not None:
        return None
    if problem := wrong_burn(response, seconds):
        remedy = "; start the service with LOAD_ENABLED=true" if response.status_code == 403 else ""
        return f"{url}: {problem}{remedy}"
    return None


def end(environment) -> None:
    """Ends the run; the page, if there is one, stays."""
    runner = environment.runner
    (runner.quit if environment.parsed_options.headless else runner.stop)()


# An interrupted run asks for the exit code before it stops the test.
@events.quitting.add_listener
@events.test_stop.add_listener
def summarize(environment, **_) -> None:
    """LoadUser's last line, and its verdict as the exit code."""
    tally = getattr(environment, "load_tally", None)
    if tally is None:
        return
    environment.load_tally = None
    logging.info("LoadUser %s: %s; up to %g %% may fail", "passed" if tally.passed() else "FAILED", tally, 100 * TOLERATED)
    others_failed = environment.stats.total.num_failures > tally.failed
    environment.process_exit_code = 0 if tally.passed() and not others_failed else 1
