"""From samples to figures: medians, and ratios within the same round."""

from statistics import median

from cells import LIMITS, OURS

HIGHER, LOWER = "higher", "lower"
# Which way each measure is better.
BETTER = {
    "requests_per_s": HIGHER,
    "p50_us": LOWER,
    "p99_us": LOWER,
    "p99_9_us": LOWER,
    "server_us_per_request": LOWER,
}


def values_of(samples, cell, server, measure):
    """The values of one measure by round."""
    chosen = [s for s in samples if s["cell"] == cell and s["server"] == server and s.get(measure) is not None]
    return {s["round"]: s[measure] for s in chosen}


def spread(values):
    """Median, least and most, or None without values."""
    return (median(values), min(values), max(values)) if values else None


def figure(samples, cell, server, measure):
    return spread(list(values_of(samples, cell, server, measure).values()))


def against_best_peer(samples, cell, servers, measure):
    """The best peer by its median, and the spread of our ratio to it within each round; None without a peer."""
    peers = [name for name in servers if name != OURS and name not in LIMITS]
    medians = {name: found[0] for name in peers if (found := figure(samples, cell, name, measure))}
    if not medians:
        return None
    best = (max if BETTER[measure] == HIGHER else min)(medians, key=medians.get)
    ours, theirs = (values_of(samples, cell, name, measure) for name in (OURS, best))
    ratios = [ours[turn] / theirs[turn] for turn in ours.keys() & theirs.keys() if theirs[turn]]
    return (best, *spread(ratios)) if ratios else None


def verdict(measure, ratio, least, most):
    """Who is ahead, and whether all rounds agree about it."""
    if BETTER[measure] == LOWER:
        ratio, least, most = 1 / ratio, 1 / most, 1 / least
    if ratio >= 1:
        return "ahead" if least >= 1 else "ahead, not in all rounds"
    return "**behind**" if most < 1 else "**behind**, not in all rounds"
