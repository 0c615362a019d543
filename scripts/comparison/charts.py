"""Draws bar charts as SVG that is readable with light and with dark colours, and loads nothing."""

from html import escape

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
