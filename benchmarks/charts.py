"""Bar charts as SVG, by hand: readable on light and dark pages, no library, no script."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape

WIDTH = 760
LABEL, VALUE = 130, 150
"""Room left of the bars for names, and right of them for figures."""
BAR, STEP = 15, 22
PANEL, MARGIN, LEGEND = 34, 16, 26
SHARES = 6
"""Colours there are for the parts of a bar."""

STYLE = """
 .card{fill:#ffffff;stroke:#d5d9e0} text{font:13px system-ui,-apple-system,"Segoe UI",sans-serif;fill:#1f2733}
 .title,.name{font-weight:600} .quiet{fill:#667085;font-size:12px} .bar{fill:#a9b4c4} .rain{fill:#0072b2}
 .p0{fill:#0072b2} .p1{fill:#e69f00} .p2{fill:#009e73} .p3{fill:#cc79a7} .p4{fill:#8c8c8c} .p5{fill:#56b4e9}
 @media (prefers-color-scheme:dark){
  .card{fill:#161b22;stroke:#30363d} text{fill:#e6edf3} .quiet{fill:#9aa4b2} .bar{fill:#5b6675} .rain{fill:#4aa8e0}
  .p0{fill:#4aa8e0} .p5{fill:#9ad4f5}
 }
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.

    Attributes:
        name: left of it.
        parts: lengths of its parts.
        text: right of it.
        is_own: it is Rain's.
    """

    name: str
    parts: tuple[float, ...]
    text: str
    is_own: bool = False


@dataclass(slots=True)
class Panel:
    """Bars with a common scale from 0 on."""

    title: str
    note: str
    bars: list[Bar] = field(default_factory=list)

    @property
    def height(self) -> int:
        """In pixels."""
        return PANEL + STEP * len(self.bars)


def svg(title: str, panels: list[Panel], legend: tuple[str, ...] = ()) -> str:
    """A picture of panels one below the other.

    Args:
        title: for those who cannot see it.
        panels: from top to bottom.
        legend: what the parts of the bars are; without it, bars have one colour.
    """
    height = 2 * MARGIN + sum(panel.height for panel in panels) + (LEGEND if legend else 0)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
    ]
    top = MARGIN
    if legend:
        lines += _legend(legend, top)
        top += LEGEND
    for panel in panels:
        lines += _panel(panel, top, stacked=bool(legend))
        top += panel.height
    return "\n".join([*lines, "</svg>", ""])


def _legend(names: tuple[str, ...], top: int) -> list[str]:
    lines, left = [], MARGIN
    for place, name in enumerate(names):
        lines.append(f'<rect class="p{place % SHARES}" x="{left}" y="{top}" width="12" height="12" rx="2"/>')
        lines.append(f'<text x="{left + 18}" y="{top + 11}">{escape(name)}</text>')
        left += 40 + 8 * len(name)
    return lines


def _panel(panel: Panel, top: int, *, stacked: bool) -> list[str]:
    lines = [
        f'<text class="title" x="{MARGIN}" y="{top + 16}">{escape(panel.title)}'
        f'<tspan class="quiet" dx="8" font-weight="400">{escape(panel.note)}</tspan></text>'
    ]
    longest = max((sum(bar.parts) for bar in panel.bars), default=0) or 1
    scale = (WIDTH - LABEL - VALUE) / longest
    for number, bar in enumerate(panel.bars):
        y = top + PANEL - 8 + STEP * number
        name = "name" if bar.is_own else "plain"
        lines.append(f'<text class="{name}" x="{LABEL - 8}" y="{y + 12}" text-anchor="end">{escape(bar.name)}</text>')
        left = float(LABEL)
        for place, part in enumerate(bar.parts):
            colour = f"p{place % SHARES}" if stacked else "rain" if bar.is_own else "bar"
            length = part * scale if stacked else max(1.0, part * scale)
            lines.append(f'<rect class="{colour}" x="{left:.1f}" y="{y}" width="{length:.1f}" height="{BAR}"/>')
            left += length
        lines.append(f'<text class="{name}" x="{left + 6:.1f}" y="{y + 12}">{escape(bar.text)}</text>')
    return lines
