"""F(`INDEX`) in decimal by GMP: prints microseconds of CPU a number."""

import json
import os
import time

import gmpy2

ENOUGH_NS = 10**9  # CPU time to spend; the last number may exceed it.

index = int(os.environ["INDEX"])
gmpy2.fib(index).digits()  # Once beforehand: memory is there afterwards.
began = time.process_time_ns()
numbers = 0
while time.process_time_ns() - began < ENOUGH_NS:
    gmpy2.fib(index).digits()
    numbers += 1
print(json.dumps({"figure": (time.process_time_ns() - began) / 1e3 / numbers}))
