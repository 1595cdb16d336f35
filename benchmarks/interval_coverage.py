"""How often the 95 % interval of each score covers the value that the score is an estimate of.

    python benchmarks/interval_coverage.py [--sets N] [--rounds N] [--out docs/benchmarks/intervals]

A population of 400,000 heads has the angles of a typical test set in the wild (a frontal majority, long tails) and
errors that grow towards the profile. Test sets of 200 to 20,000 heads are drawn from it, and each gives an interval of
every score by `ubhpd.evaluation.intervals`. The value to cover is the score of the whole population, its bins and rings
limited to those that the test set occupies. The training set of UBMAE and of the shots has the counts of 300W-LP.

Writes OUT.json and OUT.md. One process.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from machine import describe_machine, show

from ubhpd.core.typing import AnyArray, FloatArray
from ubhpd.evaluation.intervals import BootstrapOptions, intervals
from ubhpd.evaluation.pairing import training_set
from ubhpd.evaluation.scoring import Pairs, ScoreOptions, score, scores

SIZES = (200, 600, 2_000, 6_000, 20_000)
POPULATION = 400_000


NOTES = [
    "",
    "* Before resamples kept rare bins, the intervals of the balanced MAE covered the value in 83 % of test sets of "
    "up to 2,000 heads of this population, and in 90 % of 6,000.",
    "* The intervals of UBMAE are wider than needed up to 6,000 heads: much of it comes from a few heads in rare bins.",
    "* `mae_few` and `mae_median` average over the heads in bins with few training heads. In a test set of 200 "
    "heads these are one to five heads, and no interval from so few is reliable.",
    "* `worst_bin`, a maximum, has no interval.",
]


def population() -> Pairs:
    """Return predicted and true angles: most yaws normal, the rest even; errors of profiles up to 5 times as large."""
    rng = np.random.default_rng(1)
    n = POPULATION
    yaw = np.where(rng.random(n) < 0.75, rng.normal(0, 28, n), rng.uniform(-90, 90, n))
    pitch = rng.normal(-6, 14, n) + (rng.random(n) < 0.05) * rng.normal(0, 30, n)
    roll = rng.normal(0, 13, n) + (rng.random(n) < 0.06) * rng.normal(0, 35, n)
    true = np.clip(np.stack([yaw, pitch, roll], axis=1), -89.9, 89.9)
    hard = 1 + (np.abs(true).max(axis=1) / 45) ** 2
    error = rng.gamma(1.3, 3 / 1.3, (n, 3)) * rng.choice([-1.0, 1.0], (n, 3)) * hard[:, None]
    return Pairs(true + error, true)


def value_to_cover(
    everything: dict[str, AnyArray], drawn: dict[str, AnyArray], options: ScoreOptions
) -> dict[str, FloatArray]:
    """Return the population's scores in the bins and rings that the drawn test set occupies."""
    occupied = {"bin": drawn["bin_n"] > 0, "ring": drawn["ring_n"] > 0}
    limited = {
        name: np.where(occupied[name[: name.index("_")]], v, 0) if name.startswith(("bin_", "ring_")) else v
        for name, v in everything.items()
    }
    return scores(limited, options)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=1000, help="test sets of each size")
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    options = ScoreOptions()
    source = training_set("300W-LP").counts
    pairs = population()
    everything = score(pairs, options, source).statistics
    covered: dict[str, dict[int, float]] = {}
    holds: dict[str, dict[int, float]] = {}
    for size in SIZES:
        inside: dict[str, list[bool]] = {}
        own: dict[str, list[bool]] = {}
        for number in range(arguments.sets):
            rows = np.random.default_rng([size, number]).integers(0, POPULATION, size)
            scored = score(pairs.take(rows), options, source)
            value = value_to_cover(everything, scored.statistics, options)
            ends = intervals(
                scored.errors, scored.statistics, options, BootstrapOptions(rounds=arguments.rounds, seed=number)
            )
            for name, (low, high) in ends.items():
                if np.isfinite([low, high, value[name]]).all() and low < high:
                    inside.setdefault(name, []).append(bool(low <= value[name] <= high))
                    own.setdefault(name, []).append(bool(low <= scored.scores[name] <= high))
        for name, seen in inside.items():
            covered.setdefault(name, {})[size] = round(100 * float(np.mean(seen)), 1)
            holds.setdefault(name, {})[size] = round(100 * float(np.mean(own[name])), 1)
        print(size, {n: v[size] for n, v in covered.items()}, flush=True)
    table = [
        "How often, in percent, the 95 % interval of a score covers the value that the score is an estimate of: the "
        "score of the population in the bins that the test set occupies. The last column says how often, at least, "
        "the interval contains the score itself.",
        "",
        f"{describe_machine()} {arguments.sets:,} test sets of each size, {arguments.rounds:,} resamples each; a "
        f"share of 95 % is known to {1.96 * 100 * (0.95 * 0.05 / arguments.sets) ** 0.5:.1f} points.",
        "",
        "| score | " + " | ".join(f"{n:,} heads" for n in SIZES) + " | holds its score, least |",
        "|---|" + "---|" * (len(SIZES) + 1),
        *(
            f"| `{name}` | " + " | ".join(f"{by_size[n]:.1f}" if n in by_size else "" for n in SIZES)
            + f" | {min(holds[name].values()):.1f} |"
            for name, by_size in covered.items()
        ),
    ]  # fmt: skip
    table += NOTES
    show("Coverage of the intervals", table, arguments.out and arguments.out.with_suffix(".md"))
    if arguments.out:
        content = {"sets": arguments.sets, "rounds": arguments.rounds, "covered": covered, "holds": holds}
        arguments.out.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
