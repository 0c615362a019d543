"""Draws bar charts and small line charts as SVG that is readable with light and with dark colours, and loads nothing."""

from html import escape
from math import log

WIDTH, LABEL_WIDTH, VALUE_WIDTH = 760, 140, 120
BAR, GAP, GROUP_GAP, TOP = 16, 4, 30, 40
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #222 }
.title { font-weight: bold; font-size: 14px } .group { font-weight: bold }
.ours { fill: #b5451b } .variant { fill: #dba28c } .peer { fill: #7d8ca3 } .limit { fill: #c9d1dc } .range { stroke: #222 }
@media (prefers-color-scheme: dark) {
  text { fill: #ddd } .peer { fill: #8796ae } .limit { fill: #4a5464 } .variant { fill: #7d4630 } .range { stroke: #ddd }
}"""


def bar_chart(title, groups, show):
    """Groups are pairs of a title and bars; a bar is its name, kind, value, least and most. `show` writes a value."""
    most = max((bar[4] for _, bars in groups for bar in bars), default=0) or 1
    room = WIDTH - LABEL_WIDTH - VALUE_WIDTH
    parts, y = [], TOP
    for group, bars in groups:
        parts.append(f'<text class="group" x="0" y="{y}">{escape(group)}</text>')
        y += 8
        for name, kind, value, least, greatest in bars:
            middle, length = y + BAR / 2, value / most * room
            left, right = (LABEL_WIDTH + edge / most * room for edge in (least, greatest))
            parts.append(f'<text x="{LABEL_WIDTH - 8}" y="{middle + 4}" text-anchor="end">{escape(name)}</text>')
            parts.append(f'<rect class="{kind}" x="{LABEL_WIDTH}" y="{y}" width="{length:.1f}" height="{BAR}"/>')
            parts.append(f'<path class="range" d="M{left:.1f} {middle}H{right:.1f}"/>')
            parts.append(f'<text x="{max(right, LABEL_WIDTH + length) + 6:.1f}" y="{middle + 4}">{escape(show(value))}</text>')
            y += BAR + GAP
        y += GROUP_GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img" aria-label="{escape(title, True)}">'
    return "\n".join([head, f"<style>{STYLE}</style>", f'<text class="title" x="0" y="16">{escape(title)}</text>', *parts, "</svg>\n"])


PANEL_WIDTH, PANEL_HEIGHT, PANEL_GAP, COLUMNS = 236, 120, 26, 3


def line_charts(title, names, charts):
    """Small charts of ratios side by side: each is a title and, for each of the names, a ratio with its interval, or None."""
    rows = -(-len(charts) // COLUMNS)
    height = TOP + rows * (PANEL_HEIGHT + PANEL_GAP)
    parts = [f'<text class="title" x="0" y="16">{escape(title)}</text>']
    for index, (name, points) in enumerate(charts):
        left = index % COLUMNS * (PANEL_WIDTH + PANEL_GAP)
        parts += panel(name, names, points, left, TOP + index // COLUMNS * (PANEL_HEIGHT + PANEL_GAP))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title, True)}">'
    return "\n".join([head, f"<style>{STYLE}{LINE_STYLE}</style>", *parts, "</svg>\n"])


LINE_STYLE = """
.one { stroke: #7d8ca3; stroke-dasharray: 3 3 } .line { stroke: #b5451b; fill: none; stroke-width: 1.5 } .small { font-size: 10px }"""


def panel(name, names, points, left, top):
    """One small chart: the ratios as a line on a logarithmic axis, with the peer's 1 as a dashed one."""
    label, bottom = 30, top + PANEL_HEIGHT - 16
    low = min([0.95, *(point[1] / 1.02 for point in points if point)])
    high = max([1.05, *(point[2] * 1.02 for point in points if point)])

    def y(ratio):
        return bottom - log(ratio / low) / log(high / low) * (bottom - top - 14)

    step = (PANEL_WIDTH - label) / max(len(names), 1)
    places = [(left + label + (index + 0.5) * step, point) for index, point in enumerate(points) if point]
    parts = [f'<text class="group" x="{left}" y="{top}">{escape(name)}</text>']
    for ratio in (low, 1, high):
        # Not over one another.
        if ratio == 1 or abs(y(ratio) - y(1)) > 11:
            parts.append(f'<text class="small" x="{left + label - 4}" y="{y(ratio) + 3:.1f}" text-anchor="end">{ratio:.2f}</text>')
    parts.append(f'<path class="one" d="M{left + label} {y(1):.1f}H{left + PANEL_WIDTH}"/>')
    line = " ".join(f"{x:.1f},{y(point[0]):.1f}" for x, point in places)
    parts.append(f'<polyline class="line" points="{line}"/>')
    for x, point in places:
        parts.append(f'<path class="range" d="M{x:.1f} {y(point[1]):.1f}V{y(point[2]):.1f}"/>')
        parts.append(f'<circle class="ours" cx="{x:.1f}" cy="{y(point[0]):.1f}" r="3"/>')
    # The first and the last name only, as there may be many.
    ends = dict([(0, "start"), (len(names) - 1, "end")][: len(names)])
    for index, anchor in ends.items():
        at = left + label if anchor == "start" else left + PANEL_WIDTH
        parts.append(f'<text class="small" x="{at}" y="{bottom + 13}" text-anchor="{anchor}">{escape(names[index])}</text>')
    return parts
