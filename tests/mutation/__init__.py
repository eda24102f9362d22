"""Bugs made by hand in the cores, which the other tests must catch."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Mutant:
    """A bug. old: text that occurs in the file; new: what stands there instead."""

    what: str
    file: str
    old: str
    new: str

    def apply(self, source: str) -> str:
        """The source with the bug."""
        found = source.count(self.old)
        assert found == 1, f"{self.what}: its text occurs {found} times in {self.file}"
        mutated = source.replace(self.old, self.new)
        compile(mutated, self.file, "exec")
        return mutated


MUTANTS = [Mutant(**entry) for entry in tomllib.loads((Path(__file__).parent / "mutants.toml").read_text())["mutant"]]
