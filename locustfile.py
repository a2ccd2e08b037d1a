"""Load for either target: every simulated user adds two numbers, thinks for a second or two, and adds again.

    locust -H http://localhost:8000                                              # then open http://localhost:8089
    locust -H https://… --headless --users 50 --spawn-rate 10 --run-time 2m      # without the page

An answer that is not exactly the sum is a failure, whatever its status: a load test that counts wrong answers as
successes measures nothing.
"""

from locust import HttpUser, between, task

EXPECTED = {"result": 15.0}


class AddUser(HttpUser):
    """Adds 10 and 5."""

    wait_time = between(1, 2)

    # The host may end in a slash: Locust joins host and path, and the service takes `//` for `/`.
    @task
    def add(self) -> None:
        with self.client.post("/", json={"a": 10, "b": 5}, catch_response=True) as response:
            if response.status_code == 0:
                response.failure(f"no answer: {response.error}")
            elif response.status_code != 200:
                response.failure(f"status {response.status_code} instead of 200: {response.text[:200]!r}")
            elif (answer := parsed(response)) != EXPECTED:
                response.failure(f"{answer!r} instead of {EXPECTED!r}")


def parsed(response) -> object:
    """The body as JSON, or as it came when it is none."""
    try:
        return response.json()
    except ValueError:
        return response.text[:200]
