"""Reports of scores, comparisons and the doctor: text for a terminal, and a page in one file."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from ubhpd.core.text import content_hash, printable, rendered, table, template_part
from ubhpd.evaluation.metric_cards import all_scores

if TYPE_CHECKING:
    from ubhpd.evaluation.doctor import Diagnosis
    from ubhpd.evaluation.score_figures import WorstHead

_ANGLES = ("yaw", "pitch", "roll")
_FIRST = ("mae", "mae_yaw", "mae_pitch", "mae_roll", "mae_wrapped", "geodesic", "geodesic_aligned", "maev")


def score_text(result: Mapping[str, Any], per_bin: bool = False) -> str:
    """Return the result of a score as text."""
    lines = [*_heading(result), "", table(score_rows(result)), ""]
    if per_bin:
        lines += [table(bin_rows(result)), ""]
    lines += _remarks(result)
    return printable("\n".join(lines))


def compare_text(result: Mapping[str, Any]) -> str:
    """Return a comparison as text."""
    rows = [["score", "first", "second", "difference", _level(result), "p", "better"]]
    for name in _ordered(result["scores"]):
        s = result["scores"][name]
        interval = f"{_signed(s['low'])} to {_signed(s['high'])}"
        rows.append(
            [name, _number(s["first"]), _number(s["second"]), _signed(s["difference"]), interval, _p(s["p_value"]),
             s["better"] or "-"]
        )  # fmt: skip
    b = result["options"]["bootstrap"]
    lines = [
        f"first   {result['first']}",
        f"second  {result['second']}",
        f"truth   {result['truth_source']}",
        f"{result['heads']:,} heads in both; {result['only_first']:,} only in the first, {result['only_second']:,} "
        "only in the second, both left out.",
        "",
        table(rows),
        "",
        f"Difference is first minus second. Intervals and p from {b['rounds']:,} paired resamples over {b['over']} "
        f"({result['groups']:,} of them), seed {b['seed']}.",
        "Sign-flip test of the mean difference per head: "
        + ", ".join(f"{k} p = {_p(v)}" for k, v in result["sign_test"].items())
        + ".",
        verdict(result),
    ]
    return printable("\n".join(lines))


def verdict(result: Mapping[str, Any]) -> str:
    """Return in a sentence which of two files has the lower MAE, if the data can tell."""
    s = result["scores"]["mae"]
    if s["low"] is None or s["low"] <= 0.0 <= s["high"]:
        return "MAE: the data do not tell the two apart."
    better = "first" if s["difference"] < 0 else "second"
    return f"MAE: the {better} is lower by {abs(s['difference']):.3f} degrees."


def diagnosis_text(diagnosis: Diagnosis) -> str:
    """Return what the doctor found, worst first."""
    lines = [f"{diagnosis.path}: {diagnosis.heads:,} heads examined."]
    if diagnosis.error_deg is not None:
        lines[0] += f" Mean error on the circle {diagnosis.error_deg:.2f} degrees."
    if diagnosis.truth:
        lines[0] += f" Truth from {diagnosis.truth}."
    if not diagnosis.findings:
        return lines[0] + "\nNothing found: unit, columns, signs, rotations, ids and values look right."
    for f in diagnosis.findings:
        lines.append(f"{f.severity}: {f.kind}: {f.text}.")
        if f.before is not None and f.after is not None:
            share = 100 * (1 - f.after / f.before) if f.before else 0.0
            lines.append(
                f"  undone, the mean error falls from {f.before:.2f} to {f.after:.2f} degrees ({share:.0f} % less)"
            )
        lines.append(f"  fix: {f.fix}")
    return printable("\n".join(lines))


def score_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Return the table of scores, the first row its header."""
    with_interval = any("low" in s for s in result["scores"].values())
    meaning = all_scores()
    rows = [["score", "value", *([_level(result)] if with_interval else []), "unit", ""]]
    for name in _ordered(result["scores"]):
        s = result["scores"][name]
        interval = [f"{_number(s.get('low'))} to {_number(s.get('high'))}"] if with_interval else []
        text = meaning.get(name, "")
        if name == "ubmae":
            shares = [v for v in result["dropped_mass"].values() if v is not None]
            text += f"; leaves out {_percent(sum(shares) / len(shares) if shares else None)} of the test heads"
        rows.append([name, _number(s["value"]), *interval, s["unit"], text])
    return rows


def bin_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Return the per-bin table, one row per bin: heads, MAE and weight of each angle."""
    edges, bins = result["bins"]["edges_deg"], result["bins"]
    weighted = "weight" in bins["yaw"]
    header = ["bin"]
    for a in _ANGLES:
        header += [f"{a} n", f"{a} MAE", *([f"{a} w"] if weighted else [])]
    rows = [header]
    for i in range(len(edges) - 1):
        row = [f"{edges[i]:.0f} to {edges[i + 1]:.0f}"]
        for a in _ANGLES:
            row += [f"{bins[a]['n'][i]:,}", _number(bins[a]["error"][i])]
            row += [_number(bins[a]["weight"][i])] if weighted else []
        rows.append(row)
    return rows


class ShownFigure(NamedTuple):
    """A figure of the page: PNG in base64."""

    caption: str
    data: str


def score_html(result: Mapping[str, Any], figures: Mapping[str, bytes], worst: Sequence[WorstHead] = ()) -> str:
    """Return the result as one page that needs no other file.

    Args:
        result: of `ubhpd.evaluation.evaluate.evaluate`.
        figures: PNG files by caption.
        worst: the heads with the largest errors, to be listed by name.
    """
    style = template_part("score.css")
    return rendered(
        "score.html",
        style=Markup(style),
        style_hash=Markup(content_hash(style)),
        predictions=result["predictions"],
        heading=_heading(result),
        scores=score_rows(result),
        remarks=_remarks(result),
        figures=[ShownFigure(name, base64.b64encode(png).decode()) for name, png in figures.items()],
        worst=worst,
        angles=_ANGLES,
        has_weights="weight" in result["bins"][_ANGLES[0]],
        bins=bin_rows(result)[1:],
        options=list(_option_rows(result["options"])),
    )


def _option_rows(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield name and value of every option; those inside another one have a dotted name."""
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _option_rows(value, f"{prefix}{key}.") if value else [(f"{prefix}{key}", "none")]
        else:
            yield f"{prefix}{key}", _option_text(value)


def _option_text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "not set", True: "yes", False: "no"}[value]
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_option_text, value)) or "none"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)


def _heading(result: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{result['predictions']}: {result['heads']:,} heads scored, truth from {result['truth_source']}.",
        f"Coverage {_percent(result['coverage'])}: {result['wanted']:,} heads expected, {result['missing']:,} without "
        "a prediction" + (f" (the first: {result['example_missing']})." if result["missing"] else "."),
    ]
    if result["matched_by_ending"]:
        own, full = result["example_ending"]
        lines.append(f"{result['matched_by_ending']:,} ids were matched by their unique ending, as {own} = {full}.")
    if protocol := result["protocol"]:
        lines.append(f"Protocol {protocol['protocol']}, hash {protocol['hash'][:16]}.")
        lines += [f"Warning: {w}" for w in protocol["warnings"]]
    elif stated := result["options"]["protocol"]:
        lines.append(f"Protocol {stated} as stated, not checked: that needs --manifest.")
    return lines


def _remarks(result: Mapping[str, Any]) -> list[str]:
    outside = result["outside"]
    lines = [
        f"{'Warning' if f['severity'] != 'note' else 'Note'}: ubhpd doctor finds {f['kind']}: {f['text']}."
        for f in result["doctor"]
    ]
    if n := result["other_triplets"]:
        lines.append(
            f"MAE: for {n:,} heads the predicted angles are farther from the truth than the other triplet of the same "
            "rotation; beyond 90 degrees Euler angles are not unique: judge such heads by the geodesic error."
        )
    lines += [f"{result['non_empty_bins']} of 45 bins have heads, the smallest {result['smallest_bin']:,}."]
    if any(outside.values()):
        counts = ", ".join(f"{a} {outside[a]}" for a in _ANGLES)
        what = "left out of every score" if result["options"]["exclude_outside"] else "in no bin, but in the MAE"
        lines.append(f"True angles beyond 90 degrees: {counts}; those heads are {what}.")
    if result["excluded"]:
        lines.append(f"{result['excluded']:,} heads were left out by --exclude-outside or --max-angle.")
    if result["refused"]:
        who = "are not in the test split of the protocol" if result["protocol"] else "the manifest refuses"
        lines.append(f"{result['refused']:,} predictions are for heads that {who}; they are not scored.")
    if result["unused_columns"]:
        lines.append(f"Columns not used: {', '.join(result['unused_columns'])}.")
    if result["source"] is None:
        lines.append("No training set named (--source): UBMAE and the shots need one.")
    else:
        lines.append(f"Training set: {result['source_counts']}, {result['source_heads']:,} heads.")
        dropped = result["dropped_mass"]
        shares = ", ".join(f"{a} {_percent(dropped[a])}" for a in _ANGLES)
        lines.append(f"UBMAE leaves out the test heads in bins without a training head: {shares}.")
    if b := result["options"]["bootstrap"]:
        groups = f"{b['over']} ({result['groups']:,} of them)"
        lines.append(f"Intervals: {b['rounds']:,} bootstrap resamples over {groups}, seed {b['seed']}.")
    return lines


def _ordered(scores: Mapping[str, Any]) -> list[str]:
    ordered = [n for n in _FIRST if n in scores] + [n for n in scores if n not in _FIRST]
    if "ubmae" in ordered and "dropped_mass" in ordered:  # UBMAE is never shown without the share that it leaves out
        ordered.remove("dropped_mass")
        ordered.insert(ordered.index("ubmae") + 1, "dropped_mass")
    return ordered


def _level(result: Mapping[str, Any]) -> str:
    b = result["options"]["bootstrap"]
    return f"{100 * b['level']:g} % interval" if b else "interval"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if value >= 0.001 else "< 0.001"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"
