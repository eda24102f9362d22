"""Print `rain/protocol/layout.py`, after a change of the schema: `python -m rain.protocol.make_layout`."""

from __future__ import annotations

from rain.protocol.stock import layouts


def text() -> str:
    """The module's text."""
    found = layouts().items()
    rows = [f'    "{name}": ({n}, {words}, {pointers}, "{slots}"),\n' for name, (n, words, pointers, slots) in found]
    return (
        '"""Where the fields of messages are in frames: made of the schema by `rain.protocol.make_layout`."""\n\n'
        "from __future__ import annotations\n\n"
        "LAYOUTS: dict[str, tuple[int, int, int, str]] = {\n" + "".join(rows) + "}\n"
        '"""Of each class of messages: number of the member of Message, words of numbers, pointers, slots."""\n'
    )


if __name__ == "__main__":
    print(text(), end="")
