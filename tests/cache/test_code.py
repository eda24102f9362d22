"""Digests of functions."""

from __future__ import annotations

import functools
import math
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from rain.cache.code import code_digest
from rain.common.errors import RainException

HEAD = "import math, functools, json\n"


def made(source: str, name: str = "f", **names: Any) -> Any:
    """The function `name` of this source, as if of a script."""
    scope: dict[str, Any] = {"__name__": "__main__", **names}
    exec(compile(HEAD + source, "<script>", "exec"), scope)
    return scope[name]


SAME = [
    ("def f(x): return x + 1", "\n\n\ndef f(x):\n    # a remark\n    return x + 1"),
    ("def f(x): return g(x)\ndef g(x): return x", "def g(x): return x\ndef f(x): return g(x)"),
    ("def f(x): return x in {1, 2, 'a'}", "def f(x): return x in {'a', 2, 1}"),
    ("A = 1\nB = 2\ndef f(): return A", "A = 1\nB = 3\ndef f(): return A"),
]

DIFFERENT = [
    ("def f(x): return x + 1", "def f(x): return x + 2"),
    ("def f(x): return x + 1", "def f(x): return x - 1"),
    ("def f(x): return 1", "def f(x): return True"),
    ("def f(x): return 1", "def f(x): return 1.0"),
    ("def f(x=1): return x", "def f(x=2): return x"),
    ("def f(*, x=1): return x", "def f(*, x=2): return x"),
    ("A = 1\ndef f(): return A", "A = 2\ndef f(): return A"),
    ("A = [1]\ndef f(): return A", "A = [2]\ndef f(): return A"),
    ("A = {1: 2}\ndef f(): return A", "A = {1: 3}\ndef f(): return A"),
    ("def g(x): return x\ndef f(x): return g(x)", "def g(x): return -x\ndef f(x): return g(x)"),
    (
        "def g(x): return x\ndef f(x): return [g(y) for y in x]",
        "def g(x): return 2\ndef f(x): return [g(y) for y in x]",
    ),
    ("f = lambda x: [x for _ in '1']", "f = lambda x: [x for _ in '2']"),
    ("def make(n):\n    return lambda: n\nf = make(1)", "def make(n):\n    return lambda: n\nf = make(2)"),
    ("f = functools.partial(int, base=2)", "f = functools.partial(int, base=3)"),
    ("f = math.sin", "f = math.cos"),
    ("def f(): return json.dumps", "def f(): return json.loads"),
    (
        "class C:\n    def m(self): return 1\ndef f(): return C()",
        "class C:\n    def m(self): return 2\ndef f(): return C()",
    ),
    ("class C:\n    x = 1\ndef f(): return C()", "class C:\n    x = 2\ndef f(): return C()"),
    (
        "class C:\n    @property\n    def m(self): return 1\nf = C",
        "class C:\n    @property\n    def m(self): return 2\nf = C",
    ),
    (
        "class C:\n    @staticmethod\n    def m(): return 1\nf = C",
        "class C:\n    @staticmethod\n    def m(): return 2\nf = C",
    ),
    ("class B:\n    x = 1\nclass C(B): pass\nf = C", "class B:\n    x = 2\nclass C(B): pass\nf = C"),
    (
        "class C:\n    def __init__(self, n): self.n = n\n    def __call__(self): pass\nf = C(1)",
        "class C:\n    def __init__(self, n): self.n = n\n    def __call__(self): pass\nf = C(2)",
    ),
    (
        "class C:\n    def __init__(self, n): self.n = n\n    def m(self): pass\nf = C(1).m",
        "class C:\n    def __init__(self, n): self.n = n\n    def m(self): pass\nf = C(2).m",
    ),
    (
        "def f(): \n  try: return 1\n  except ValueError: return 2",
        "def f(): \n  try: return 1\n  except KeyError: return 2",
    ),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_equal_code_has_one_digest(one: str, other: str):
    assert code_digest(made(one)) == code_digest(made(other))


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_every_change_counts(one: str, other: str):
    assert code_digest(made(one)) == code_digest(made(one))
    assert code_digest(made(one)) != code_digest(made(other))


def test_functions_that_call_each_other_end():
    source = "def f(x): return g(x)\ndef g(x): return f(x)"
    assert code_digest(made(source)) == code_digest(made(source))
    assert code_digest(made(source)) != code_digest(made(source, "g"))


def test_lists_that_hold_themselves_end():
    loop: list[Any] = [1]
    loop.append(loop)
    assert code_digest(made("def f(): return A", A=loop))


def test_a_decorated_function_counts_with_what_decorates_it():
    source = "def d(g):\n    @functools.wraps(g)\n    def w(): return g() + {n}\n    return w\n@d\ndef f(): return 1"
    assert code_digest(made(source.format(n=1))) != code_digest(made(source.format(n=2)))
    cached = "@functools.lru_cache\ndef f(): return {n}"
    assert code_digest(made(cached.format(n=1))) != code_digest(made(cached.format(n=2)))
    assert code_digest(made(cached.format(n=1))) == code_digest(made(cached.format(n=1)))


def test_installed_functions_go_by_name_and_version(monkeypatch: pytest.MonkeyPatch):
    import hypothesis

    before = code_digest(made("def f(): return given", given=hypothesis.given))
    assert before == code_digest(made("def f(): return given", given=hypothesis.given))
    monkeypatch.setattr(hypothesis, "__version__", "0")
    assert before != code_digest(made("def f(): return given", given=hypothesis.given))


def test_what_cannot_be_pickled_is_named():
    with pytest.raises(RainException, match=r"'LOCK', a lock, cannot be pickled .* give a text as cache="):
        code_digest(made("def f(): return LOCK", LOCK=threading.Lock()))


def test_a_variable_that_is_not_assigned_yet():
    def outer() -> Any:
        def inner() -> Any:
            return later

        digest = code_digest(inner)
        later = 1
        return digest, code_digest(inner)

    before, after = outer()
    assert before != after


def test_builtins_and_partials():
    assert code_digest(len) != code_digest(max)
    assert code_digest(math.sin) == code_digest(math.sin)
    assert code_digest(functools.partial(max, 1)) == code_digest(functools.partial(max, 1))


def test_every_process_finds_the_same_digest(tmp_path: Path):
    source = (
        "import math\n"
        "WORDS = {'some', 'words', 'in', 'a', 'set'}\n"
        "class Model:\n"
        "    def __init__(self, scale): self.scale = scale\n"
        "    def apply(self, x): return x * self.scale + len(WORDS)\n"
        "def helper(x): return [math.sqrt(y) for y in x if y not in (1, 2)]\n"
        "def f(x, k={'a': 1}): return helper(Model(3).apply(x)) + [x in {'p', 'q', 'r'}]\n"
        "if __name__ == '__main__':\n"
        "    from rain.cache.code import code_digest\n"
        "    print(code_digest(f).hex())\n"
    )
    found = set()
    for number in range(4):
        script = tmp_path / f"place{number}" / "script.py"
        script.parent.mkdir()
        script.write_text("\n" * number + source)
        run = subprocess.run(
            [sys.executable, str(script)],
            env={"PYTHONHASHSEED": str(number), "PATH": "", "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        found.add(run.stdout)
    assert len(found) == 1
