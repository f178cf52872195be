"""Ctrl-C at many moments of flows that call tasks in a tight loop: `interrupted.py ROUNDS SEED`."""

import os
import random
import signal
import sys
import threading
import time

from notes import say

from prefect_nb import flow, task


@task
def quick(n: int) -> int:
    return n


@flow
def loop() -> None:
    begun.set()
    while True:
        quick(1)


@flow
def mapping() -> None:
    begun.set()
    while True:
        quick.map(range(20)).wait()


def interrupt(pause: float) -> None:
    begun.wait()
    time.sleep(pause)
    os.kill(os.getpid(), signal.SIGINT)


begun = threading.Event()
chance = random.Random(int(sys.argv[2]))
interrupted = 0
for n in range(int(sys.argv[1])):
    begun.clear()
    threading.Thread(target=interrupt, args=(chance.uniform(0, 0.01),)).start()
    try:
        (loop if n % 3 else mapping)()
    except KeyboardInterrupt:
        interrupted += 1
say(interrupted)
