"""What happens in a simulated cluster: all of it follows from the seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from rain.common.failure import Failure
from rain.testing.faults import DRAIN, FAULTS, FIRST_FAULTS
from rain.testing.netfaults import ASKED, MESSAGES
from rain.testing.simlinks import BREAKS

KINDS = ("plain", "tolerant", "arrays", "real")
"""What the clients are like; of each four seeds one is of each kind."""
BREAKING = tuple((message, kind) for message in MESSAGES for kind in BREAKS)
"""All the ways in which a connection can break at a message."""
SELDOM = {
    "plain": ("ObjectsMissing", "ObjectsStored", "Refused", "TaskFailed", "TasksReturned", "WithdrawTasks"),
    "tolerant": ("Cancel", "Cancelled", "CancelTasks", "TasksStopped", "ObjectsMissing"),
    "arrays": ("SubmitBlock", "TaskFailed", "TasksReturned", "UnkeepObjects", "WithdrawTasks"),
    "real": (*ASKED, "GetStates", "States", "StopWaiting", "UnkeepObjects"),
}
"""Messages of which there are few, or only with such clients: at them connections break more often."""


@dataclass(slots=True)
class Plan:
    """What happens in a simulation.

    Attributes:
        kind: one of `KINDS`, or `first`: as it was when there were fewer faults, for seeds that failed then.
        cpus: of each worker.
        tasks: number of tasks of each client.
        faults: (time in seconds, name) in order.
        failing: how likely a task fails at least once.
        codec: messages go through the real codec.
        delete_timeout: of the workers, in seconds.
        check_every: batches of events from one walk through the invariants to the next.
        breaking: type of a message at which a connection breaks, how, and at the how manieth; None = it does not.
        tolerant: sessions go on after failures, and tasks are cancelled.
        arrays: some tasks are members of task arrays.
        real: the clients are those of `rain.client.aio`.
        quick: tasks are short and many, so that they are sent ahead.
        cached: results of some tasks may come from the result cache.
        linked: some tasks are members of linked blocks.
    """

    seed: int
    kind: str
    cpus: list[int]
    tasks: list[int]
    faults: list[tuple[float, str]]
    failing: float
    codec: bool
    delete_timeout: float
    check_every: int
    breaking: tuple[str, str, int] | None = None
    tolerant: bool = False
    arrays: bool = False
    real: bool = False
    quick: bool = False
    cached: bool = False
    linked: bool = False

    @property
    def is_first(self) -> bool:
        """Whether it is of the kind `first`."""
        return self.kind == "first"

    @classmethod
    def of_seed(cls, seed: int, kind: str = "") -> Plan:
        """The plan of a seed. kind: "" = as the seed says."""
        is_given, kind = bool(kind), kind or KINDS[seed % len(KINDS)]
        rng = random.Random(seed)
        cpus = [rng.randint(1, 4) for _ in range(rng.randint(2, 6))]
        clients = rng.randint(1, 3)
        tasks = [rng.randint(20, 120) // clients for _ in range(clients)]
        count = 0 if rng.random() < 0.1 else rng.randint(3, 10)
        span = rng.choice((1.0, 5.0, 20.0))
        names = FIRST_FAULTS if kind == "first" else FAULTS
        faults = sorted((rng.uniform(0, span), rng.choice(names)) for _ in range(count))
        plan = cls(
            seed=seed,
            kind=kind,
            cpus=cpus,
            tasks=tasks,
            faults=faults,
            failing=rng.choice((0.0, 0.0, 0.05)),
            codec=rng.random() < 0.25,
            delete_timeout=rng.choice((0.0, 1.0)),
            check_every=rng.choice((1, 10, 10, 10)),
        )
        if kind != "first":
            plan._add_what_came_later(rng)
        if not is_given and faults:
            plan._add_draining(span)
        if not is_given and random.Random(f"haste of {seed}").random() < 0.4:
            plan.quick = True
            plan.tasks = [4 * count for count in plan.tasks]
        if not is_given:
            plan.cached = random.Random(f"cache of {seed}").random() < 0.3
            plan.linked = random.Random(f"links of {seed}").random() < {"arrays": 0.6, "real": 0.2}.get(kind, 0.0)
        return plan

    def _add_draining(self, span: float) -> None:
        rng = random.Random(f"draining of {self.seed}")
        if rng.random() < 0.3:
            self.faults = sorted([*self.faults, *((rng.uniform(0, span), DRAIN) for _ in range(rng.randint(1, 3)))])

    def _add_what_came_later(self, rng: random.Random) -> None:
        self.check_every = rng.choice((1, 20, 20, 20, 20, 20))
        if self.faults and rng.random() < 0.8:
            turn = self.seed // len(KINDS)  # in turn, so that none is left out
            message, how = BREAKING[turn % len(BREAKING)]
            if rng.random() < 0.35:
                message = rng.choice(SELDOM[self.kind])
            self.breaking = (message, how, rng.choice((1, 1, 1, 2)))
        self.real = self.kind == "real"
        self.tolerant = self.kind == "tolerant" or (self.kind != "plain" and rng.random() < 0.3)
        self.arrays = self.kind == "arrays" or (self.kind == "real" and rng.random() < 0.5)


@dataclass(slots=True)
class Outcome:
    """How a client fared.

    Attributes:
        end: `finished`, `failed` (its session did), `lost` (its connection was), `crashed` or `tolerated` (whatever
            failed).
        failure: of its session.
        planned: whether a task never succeeds, by its id.
    """

    end: str = "running"
    failure: Failure | None = None
    planned: dict[int, bool] = field(default_factory=dict)
    session: int = 0
