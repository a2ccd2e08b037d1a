"""What the HorizontalPodAutoscaler does: its formula, and its loop with the rules of `behavior`, second by second.

After Kubernetes' own documentation of the algorithm and of the policies. Left out is what needs a cluster: pods that
are not ready, nodes that have to be added first, and measurements that fail.
"""

import math
from collections.abc import Callable

# The controller manager's --horizontal-pod-autoscaler-sync-period and --horizontal-pod-autoscaler-tolerance.
SYNC_SECONDS = 15
TOLERANCE = 0.1
# What is measured comes late: kubelets and Prometheus look every 15 s, and metrics-server and the adapter after them.
LAG_SECONDS = 30


def utilization_targets(autoscaler: dict) -> dict[str, int]:
    """The percentages of requests that the autoscaler aims at, by resource."""
    resources = [metric["resource"] for metric in autoscaler["metrics"] if metric["type"] == "Resource"]
    return {resource["name"]: resource["target"]["averageUtilization"] for resource in resources}


def target(autoscaler: dict) -> float:
    """The target of the first metric, in its own unit: the one that the load moves."""
    metric = autoscaler["metrics"][0]
    if metric["type"] == "Resource":
        return metric["resource"]["target"]["averageUtilization"]
    return float(metric["pods"]["target"]["averageValue"])


def desired(pods: int, measured: float, aim: float) -> int:
    """`measured` is the mean over the pods. Close to the target nothing happens."""
    if abs(measured / aim - 1) <= TOLERANCE:
        return pods
    # Less the dust of floating point, which would round a whole number up.
    return math.ceil(round(pods * measured / aim, 9))


def course(autoscaler: dict, pods: int, measured: Callable[[int, float], float], until: int) -> dict[int, int]:
    """The number of pods from each second at which it changed. `measured(pods, second)` is a pod's mean at that time."""
    history, wanted, changes = {0: pods}, {}, {}
    for now in range(0, until + 1, SYNC_SECONDS):
        wanted[now] = desired(pods, measured(pods, now - LAG_SECONDS), target(autoscaler))
        after = limited(autoscaler, now, pods, wanted, changes)
        if after != pods:
            changes[now], history[now] = after - pods, after
            pods = after
    return history


def limited(autoscaler: dict, now: int, pods: int, wanted: dict[int, int], changes: dict[int, int]) -> int:
    """What remains of a wish after stabilization, policies and bounds."""
    behavior = autoscaler["behavior"]
    up, down = (window(now, behavior[way]["stabilizationWindowSeconds"], wanted) for way in ("scaleUp", "scaleDown"))
    if min(up) > pods:
        wish = min(min(up), max(allowed(rule, now, pods, changes, +1) for rule in behavior["scaleUp"]["policies"]))
    elif max(down) < pods:
        wish = max(max(down), min(allowed(rule, now, pods, changes, -1) for rule in behavior["scaleDown"]["policies"]))
    else:
        wish = pods
    return min(max(wish, autoscaler["minReplicas"]), autoscaler["maxReplicas"])


def window(now: int, seconds: int, values: dict[int, int]) -> list[int]:
    """The latest value, and those before it that are younger than the window."""
    return [value for moment, value in values.items() if moment == now or moment > now - seconds]


def allowed(rule: dict, now: int, pods: int, changes: dict[int, int], way: int) -> int:
    """How many pods a policy allows: counted from the number at the beginning of its period."""
    recent = sum(change for moment, change in changes.items() if moment > now - rule["periodSeconds"] and change * way > 0)
    before = pods - recent
    if rule["type"] == "Pods":
        return before + way * rule["value"]
    share = 1 + way * rule["value"] / 100
    return math.ceil(before * share) if way > 0 else int(before * share)
