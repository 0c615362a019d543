"""From samples to figures: medians, and ratios within the same round with their confidence intervals."""

from dataclasses import dataclass
from math import comb
from statistics import median

from cells import LIMITS, OURS, VARIANTS

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


@dataclass(frozen=True)
class Ratio:
    """Ours over another server's: the median of the rounds' ratios, its interval, and the ratio of the medians."""

    server: str
    middle: float
    low: float
    high: float
    of_medians: float


def interval(values):
    """The confidence interval of the median, of at least 95 % with six values or more: from one value to another, by their
    order alone, whatever their distribution."""
    ordered, count = sorted(values), len(values)
    cut, below = 0, 1 / 2**count
    # The median is below the (cut + 1)th value as often as at most `cut` of `count` coins show heads.
    while cut + 1 < count - cut - 1 and below + comb(count, cut + 1) / 2**count <= 0.025:
        cut += 1
        below += comb(count, cut) / 2**count
    return ordered[cut], ordered[count - 1 - cut]


def against(samples, cell, server, measure, ours=OURS):
    """Our ratio to another server; None without samples of the same rounds."""
    own, theirs = (values_of(samples, cell, name, measure) for name in (ours, server))
    ratios = [own[turn] / theirs[turn] for turn in own.keys() & theirs.keys() if theirs[turn]]
    if not ratios:
        return None
    of_medians = median(own.values()) / median(theirs.values())
    return Ratio(server, median(ratios), *interval(ratios), of_medians)


def against_best_peer(samples, cell, servers, measure, ours=OURS):
    """Our ratio to the best peer by its median; None without a peer."""
    peers = [name for name in servers if name != OURS and name not in LIMITS | VARIANTS.keys()]
    medians = {name: found[0] for name in peers if (found := figure(samples, cell, name, measure))}
    if not medians:
        return None
    best = (max if BETTER[measure] == HIGHER else min)(medians, key=medians.get)
    return against(samples, cell, best, measure, ours)


def verdict(measure, ratio):
    """Who is ahead, where the interval leaves no doubt."""
    is_above, is_below = ratio.low > 1, ratio.high < 1
    if BETTER[measure] == LOWER:
        is_above, is_below = is_below, is_above
    return "ahead" if is_above else "**behind**" if is_below else "level"
