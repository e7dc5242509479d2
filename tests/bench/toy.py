"""A row without physics. Its contenders fail in every possible way."""

import os
import signal
import time

import numpy as np

from benchmarks._case import Case, Program, Row

CONTENDERS = ("base", "off", "talks and fails", "dies", "hangs", "greedy")


def cases(quick, peers):
    return [
        Case(f"size {n}", {"n": n}, CONTENDERS[:2] if n == 1 else CONTENDERS, "base", reference="base") for n in (1, 2)
    ]


def build(case, contender):
    x = np.arange(1.0, 5.0)
    if contender == "hangs":
        time.sleep(600)
    if contender == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    runs = []

    def run():
        runs.append(0)
        if contender == "talks and fails":
            print("this is no answer", flush=True)
            if len(runs) > 1:
                raise ArithmeticError("two and two are five\nand more")
        time.sleep(0.002)
        return x * (1 + 1e-6) if contender == "off" else x

    figures = {"temporary_mb": 1e9 if contender == "greedy" else 1.0}
    return Program(run, figures, lambda found: {"gradient": found})


def count(case):
    return {"off": {"counted": case.sizes["n"]}}


ROW = Row("toy", "Toys", "Nothing is learned here.", cases, build, count)
