"""The figure of a calibration: how the vote shares are spread, and, where the truth is known, how often a winner with such a share is right."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from selftrain.evals.proxy import Bin
from selftrain.report.charts import number, ticks

WIDTH, HEIGHT = 760, 260
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 14, 40
NUM_BARS = 10
Shares = Sequence[tuple[float, bool | None]]
"""(vote share, whether the single winner is right; None where that is not known)"""


def x(value: float) -> float:
    """Place of a share in [0, 1]."""
    return round(LEFT + (WIDTH - LEFT - RIGHT) * value, 1)


def y(value: float) -> float:
    """Place of a fraction in [0, 1]."""
    return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - value), 1)


def shares_svg(shares: Shares, bins: Sequence[Bin]) -> str:
    """Bars: share of the prompts by vote share, the right ones below. Dots: accuracy of each bin with its interval; on the dashed line share is accuracy."""
    label = "Prompts by the vote share of the winner" + (", and how often such winners are right" if bins else "")
    parts = [f'<svg class="chart shares" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">']
    for tick in ticks(0, 1):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick)}" y2="{y(tick)}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y(tick) + 3.5}" text-anchor="end">{number(tick)}</text>')
        parts.append(f'<text class="tick" x="{x(tick)}" y="{HEIGHT - 22}" text-anchor="middle">{number(tick)}</text>')
    parts.append(f'<text class="tick" x="{x(0.5)}" y="{HEIGHT - 6}" text-anchor="middle">vote share of the winner</text>')
    parts += [bar for at in range(NUM_BARS) for bar in bars(shares, at)]
    if bins:
        parts.append(f'<line class="line diagonal" x1="{x(0)}" x2="{x(1)}" y1="{y(0)}" y2="{y(1)}"/>')
    for one in bins:
        place, accuracy = x(one.share_mean_frac), one.accuracy
        right = f"{100 * accuracy.value:.0f} % right [{100 * accuracy.low:.0f}, {100 * accuracy.high:.0f}]"
        words = f"share {one.low:g} to {one.high:g}: {one.num_prompts} prompts, {right}"
        parts.append(f'<line class="bar line1" x1="{place}" x2="{place}" y1="{y(accuracy.low)}" y2="{y(accuracy.high)}"/>')
        parts.append(f'<circle class="dot line1" cx="{place}" cy="{y(accuracy.value)}" r="4.5"><title>{escape(words)}</title></circle>')
    return "".join(parts) + "</svg>"


def bars(shares: Shares, at: int) -> list[str]:
    """The bar of shares in [at / NUM_BARS, (at + 1) / NUM_BARS), the last one with 1: right winners below, the others on top."""
    inside = [right for share, right in shares if min(int(share * NUM_BARS), NUM_BARS - 1) == at]
    below = sum(right is True for right in inside) / len(shares)
    whole = len(inside) / len(shares)
    left, width = x(at / NUM_BARS) + 1, (WIDTH - LEFT - RIGHT) / NUM_BARS - 2
    title = f"<title>{len(inside)} of {len(shares)} prompts{f', {sum(right is True for right in inside)} of them right' if below else ''}</title>"
    found = []
    for kind, low, high in (("right", 0.0, below), ("other", below, whole)):
        if high > low:
            found.append(f'<rect class="{kind}" x="{left}" y="{y(high)}" width="{width:.1f}" height="{y(low) - y(high):.1f}">{title}</rect>')
    return found
