"""Shows what gpu.py measured as Markdown."""

from __future__ import annotations

from typing import Any

TARGET = 5.0  # times the usual loader
WAYS = ("32 bits", "16 bits")  # of training, as gpu.py names them

Row = dict[str, Any]


def speed_text(value: float) -> str:
    """Return heads per second as text."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def page(results: Row, wanted: dict[str, list[str]]) -> str:
    """Return the results as Markdown, and which of the wanted networks of a part are missing.

    The notes of a part stand before its tables.
    """
    notes = results.get("notes", {})
    lines = ["# On a GPU", "", f"Device: {results['device']}. {results['machine']}", *said(notes, "top")]
    if rows := results.get("training"):
        lines += ["", "## Training against the usual loader", *said(notes, "training"), *training_table(rows)]
    if rows := results.get("feed"):
        lines += ["", "## Threads that prepare heads", *said(notes, "feed"), *feed_table(rows)]
    if rows := results.get("precision"):
        rows = [*rows, *results.get("compiled", [])]
        lines += ["", "## Precision, compilation, CUDA graph", *said(notes, "precision"), *precision_table(rows)]
    if rows := results.get("inference"):
        rows = [*rows, *results.get("compiled_inference", [])]
        lines += ["", "## Inference", *said(notes, "inference"), *inference_table(rows)]
    if found := results.get("processes"):
        lines += ["", "## One process under torchrun", *said(notes, "processes"), *processes_table(found)]
    if rows := results.get("table3"):
        lines += ["", "## Training and testing on rendered heads", *said(notes, "table3"), *table3(rows)]
    lines += ["", "## Not measured", ""]
    for part, names in wanted.items():
        there = {r["model"] for r in results.get(part, [])}
        left = [f"`{name}`" for name in dict.fromkeys(names) if name not in there]
        lines.append(f"* {part}: {', '.join(left) or 'nothing'}")
    return "\n".join([*lines, ""])


def said(notes: Row, part: str) -> list[str]:
    """Return the notes of a part as lines, a blank one before each."""
    return [line for note in notes.get(part, []) for line in ("", note)]


def training_table(rows: list[Row]) -> list[str]:
    """Return the section about training."""
    fast_ones = [r["model"] for r in rows if max(r[w]["times_faster"] for w in WAYS) >= TARGET]
    lines = [
        "", f"Target: at least {TARGET:g} times the heads per second of the usual loader with its 2 processes. "
        f"{len(fast_ones)} of {len(rows)} networks reach it. Speeds are heads per second, `waits` is the share of the "
        "time in which the GPU waited for heads.", "",
        "| model | crop | batch | usual | waits | 32 bits | waits | times faster | 16 bits | waits | times faster "
        "| CUDA graph |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]  # fmt: skip
    for r in rows:
        cells = [f"`{r['model']}`", str(r["size"]), str(r["batch"])]
        cells += [speed_text(r["usual"]["heads_per_second"]), f"{r['usual']['wait_share']:.0%}"]
        for way in WAYS:
            own = r[way]
            cells += [speed_text(own["heads_per_second"]), f"{own['wait_share']:.0%}", f"{own['times_faster']:.1f}"]
        cells.append("yes" if all(r[way]["recorded"] for way in WAYS) else "no")
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "", "Feeding alone, without a network:", "",
        "| crop | batch | augmentations | usual, heads a second | ubhpd | times faster |",
        "|---:|---:|---|---:|---:|---:|",
    ]  # fmt: skip
    seen = set()
    for r in rows:
        key = (r["size"], r["batch"], tuple(r["augmentations"]))
        if key not in seen:
            seen.add(key)
            usual, own = (r["feeding_alone"][n]["heads_per_second"] for n in ("usual", "ubhpd"))
            names = ", ".join(r["augmentations"]) or "none"
            lines.append(f"| {r['size']} | {r['batch']} | {names} | {usual:,.0f} | {own:,.0f} | {own / usual:.1f} |")
    return lines


def precision_table(rows: list[Row]) -> list[str]:
    """Return the section about precision."""
    lines = [
        "",
        "| model | batch | way | heads a second | waits | times faster | first step, s |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]  # fmt: skip
    lines += [
        f"| `{r['model']}` | {r['batch']} | {r['way']} | {speed_text(r['heads_per_second'])} | {r['wait_share']:.0%} "
        f"| {r['times_faster']:.2f} | {format(r['first_step_s'], '.1f') if 'first_step_s' in r else ''} |"
        for r in rows
    ]
    return lines


def inference_table(rows: list[Row]) -> list[str]:
    """Return the section about inference."""
    lines = [
        "", "Random weights; crops in memory in, poses in memory out, so both copies are in the time. Milliseconds per "
        "image; `paper` as printed.", "",
        "| model | crop | way | batch 1 | batch 64 | images a second at 64 | paper |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]  # fmt: skip
    for r in rows:
        paper = format(r["paper_ms"], ".2g") if r["paper_ms"] else ""
        lines.append(
            f"| `{r['model']}` | {r['size']} | {r['way']} | {r['ms_1']:.3f} | {r['ms_64']:.4f} "
            f"| {1e3 / r['ms_64']:,.0f} | {paper} |"
        )
    return lines


def feed_table(rows: list[Row]) -> list[str]:
    """Return the table of threads."""
    counts = sorted({r["threads"] for r in rows})
    lines = [
        "", f"| crop | batch | augmentations | {' | '.join(f'threads: {t}' for t in counts)} |",
        f"|---:|---:|---|{'---:|' * len(counts)}",
    ]  # fmt: skip
    speeds: dict[tuple[int, int, str], dict[int, str]] = {}
    for r in rows:
        key = (r["size"], r["batch"], ", ".join(r["augmentations"]))
        speeds.setdefault(key, {})[r["threads"]] = f"{r['heads_per_second']:,.0f}"
    for (size, batch, names), own in speeds.items():
        lines.append(f"| {size} | {batch} | {names} | {' | '.join(own.get(t, '') for t in counts)} |")
    return lines


def table3(rows: list[Row]) -> list[str]:
    """Return the table of errors on rendered heads."""
    lines = ["", "| model | MAE, degrees | yaw | pitch | roll | balanced MAE |", "|---|---|---:|---:|---:|---|"]
    for r in rows:
        mae, balanced = (f"{r[k]['value']:.2f} ({r[k]['low']:.2f} to {r[k]['high']:.2f})" for k in ("mae", "balanced"))
        lines.append(f"| `{r['model']}` | {mae} | {r['yaw']:.2f} | {r['pitch']:.2f} | {r['roll']:.2f} | {balanced} |")
    return lines


def processes_table(found: Row) -> list[str]:
    """Return the section about torchrun."""
    lines = [
        "", f"`{found['model']}`, {found['steps']} steps of {found['batch']} heads.", "",
        "| way | heads a second | NCCL | largest relative difference of the losses |", "|---|---:|---|---:|",
    ]  # fmt: skip
    differences = found["largest_difference_of_losses"]
    for name in (n for n in found if isinstance(found[n], dict) and "heads_per_second" in found[n]):
        difference = f"{differences[name]:.1e}" if name in differences else ""
        lines.append(
            f"| {name} | {speed_text(found[name]['heads_per_second'])} | {found[name]['nccl'] or ''} | {difference} |"
        )
    return lines
