"""A discrete-event simulation of many workers that score shards: no clock, no process, no picture.

A worker takes the next shard of the queue when it has finished one. A shard's pictures lie under one prefix of a store,
which answers so many requests a second: where the workers there ask for more, all of them slow down alike. A machine
that is lost takes the shards under way with it, which go back to the front of the queue, and comes back later.
"""

import heapq
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

SPREAD = 2_654_435_761  # equals `_SPREAD` of handful.scale.scoring; a test compares both


@dataclass(frozen=True)
class Cluster:
    """The machines and the store.

    Attributes:
        workers: the number of workers.
        per_machine: workers that are lost together.
        losses: the share of the machines that is lost in an hour.
        back: seconds until a lost machine is back.
        slow: the share of the workers that are slow.
        slowness: times as long as a shard takes on a slow worker.
        prefixes: the number of prefixes of the store, each with as many pictures.
        limit: requests a second that a prefix answers.
        spread: whether neighbours in the queue lie far apart in the plan, as in `handful.scale.todo`.
    """

    workers: int = 1_000
    per_machine: int = 16
    losses: float = 0.001
    back: float = 300.0
    slow: float = 0.02
    slowness: float = 3.0
    prefixes: int = 16
    limit: float = 5_500.0
    spread: bool = True


@dataclass(frozen=True)
class Work:
    """The pictures, and measured times.

    Attributes:
        pictures: the number of all pictures.
        shard: the number of pictures in a shard.
        picture: seconds for a picture.
        variation: measured times of shards as multiples of their mean, from which each shard's is drawn.
        load: seconds to start a worker and to load its inspector.
        requests: seconds that each shard takes beside its pictures: its marks, its part of the plan, and its part.
    """

    pictures: int
    shard: int
    picture: float
    variation: Sequence[float] = (1.0,)
    load: float = 1.5
    requests: float = 0.3


@dataclass(frozen=True)
class Outcome:
    """The outcome of a simulation.

    Attributes:
        seconds: from the start to the last part.
        ideal: seconds of all shards' work, shared out evenly to workers that are always there, and as fast as they are.
        lost: seconds of work on shards that did not end.
        machines_lost: the number of machines that were lost.
        shards: the number of shards.
        tail: seconds from the moment at which the queue was empty to the end.
    """

    seconds: float
    ideal: float
    lost: float
    machines_lost: int
    shards: int
    tail: float


@dataclass
class _Prefix:
    """The shards under way of a prefix; its clock runs slower than time where its limit is reached."""

    limit: float
    clock: float = 0.0
    since: float = 0.0  # the time at which the clock was read
    asked: float = 0.0  # requests a second at full speed
    due: float = float("inf")  # the time at which the next task ends, if nothing changes before
    ends: list[tuple[float, int]] = field(default_factory=list)  # the clock at the end of a task; a heap

    @property
    def pace(self) -> float:
        return min(1.0, self.limit / self.asked) if self.asked > 1e-9 else 1.0

    def read(self, now: float) -> None:
        """Set the clock to a time; called before the pace changes."""
        self.clock, self.since = self.clock + (now - self.since) * self.pace, now


@dataclass
class _Task:
    """A shard under way on a worker."""

    worker: int
    shard: int
    prefix: _Prefix
    work: float
    asked: float
    began: float  # the prefix's clock


class _Simulation:
    def __init__(self, cluster: Cluster, work: Work, seed: int) -> None:
        self.cluster, self.work, self.random = cluster, work, random.Random(seed)
        self.shards = -(-work.pictures // work.shard)
        self.prefixes = [_Prefix(cluster.limit) for _ in range(cluster.prefixes)]
        order = range(self.shards)
        self.queue = deque(sorted(order, key=lambda shard: shard * SPREAD % 2**32) if cluster.spread else order)
        self.factors = [
            cluster.slowness if self.random.random() < cluster.slow else 1.0 for _ in range(cluster.workers)
        ]
        self.variation = [self.random.choice(work.variation) for _ in order]
        self.tasks: dict[int, _Task] = {}  # under way, by a number
        self.of_worker: dict[int, int] = {}
        self.loaded = set[int]()
        self.idle: list[int] = []
        self.now, self.lost, self.machines_lost, self.number, self.emptied = 0.0, 0.0, 0, 0, 0.0
        self.losses: list[tuple[float, int, bool]] = []  # time, machine, whether it is back; a heap
        for machine in range(-(-cluster.workers // cluster.per_machine)):
            self._foresee_loss(machine)

    def run(self) -> Outcome:
        for worker in range(self.cluster.workers):
            self._begin(worker)
        while self.tasks or self.queue:
            prefix = min(self.prefixes, key=lambda one: one.due)
            if self.losses and self.losses[0][0] < prefix.due:
                self.now, machine, back = heapq.heappop(self.losses)
                self._machine(machine, back)
            else:
                self.now = prefix.due
                self._begin(self._taken(heapq.heappop(prefix.ends)[1]).worker)
        speed = sum(1 / factor for factor in self.factors)
        mean = sum(self.variation) / len(self.variation)
        ideal = self.work.pictures * self.work.picture * mean / speed
        return Outcome(self.now, ideal, self.lost, self.machines_lost, self.shards, max(0.0, self.now - self.emptied))

    def _begin(self, worker: int) -> None:
        """Give a worker the next shard."""
        if not self.queue:
            self.idle.append(worker)
            return
        shard = self.queue.popleft()
        if not self.queue:
            self.emptied = self.now
        size = min(self.work.shard, self.work.pictures - shard * self.work.shard)
        seconds = size * self.work.picture * self.variation[shard] * self.factors[worker] + self.work.requests
        if worker not in self.loaded:
            self.loaded.add(worker)
            seconds += self.work.load
        prefix = self.prefixes[shard * self.cluster.prefixes // self.shards]
        prefix.read(self.now)
        task = _Task(worker, shard, prefix, seconds, size / seconds, prefix.clock)
        self.number += 1
        self.tasks[self.number], self.of_worker[worker] = task, self.number
        prefix.asked += task.asked
        heapq.heappush(prefix.ends, (prefix.clock + seconds, self.number))
        self._foresee_end(prefix)

    def _foresee_end(self, prefix: _Prefix) -> None:
        while prefix.ends and prefix.ends[0][1] not in self.tasks:
            heapq.heappop(prefix.ends)  # lost with its machine
        left = max(0.0, prefix.ends[0][0] - prefix.clock) / prefix.pace if prefix.ends else float("inf")
        prefix.due = self.now + left

    def _taken(self, number: int) -> _Task:
        """End a task, done or lost."""
        task = self.tasks.pop(number)
        del self.of_worker[task.worker]
        task.prefix.read(self.now)
        task.prefix.asked -= task.asked
        self._foresee_end(task.prefix)
        return task

    def _machine(self, machine: int, back: bool) -> None:
        """Lose a machine, or have it back."""
        first = machine * self.cluster.per_machine
        workers = range(first, min(first + self.cluster.per_machine, self.cluster.workers))
        if back:
            for worker in workers:
                self._begin(worker)
            self._foresee_loss(machine)
            return
        self.machines_lost += 1
        for worker in workers:
            if worker in self.of_worker:
                task = self._taken(self.of_worker[worker])
                self.lost += min(task.work, task.prefix.clock - task.began)
                self.queue.appendleft(task.shard)
        gone = set(workers)
        self.loaded -= gone
        waiting, self.idle = [worker for worker in self.idle if worker not in gone], []
        for worker in waiting:
            self._begin(worker)
        heapq.heappush(self.losses, (self.now + self.cluster.back, machine, True))

    def _foresee_loss(self, machine: int) -> None:
        if self.cluster.losses:
            at = self.now + self.random.expovariate(self.cluster.losses / 3600)
            heapq.heappush(self.losses, (at, machine, False))


def simulate(cluster: Cluster, work: Work, *, seed: int = 0) -> Outcome:
    """Score all shards."""
    return _Simulation(cluster, work, seed).run()
