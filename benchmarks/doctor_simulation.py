"""How often the doctor names a planted mistake: 40 mistakes, 200 random draws each, on real predictions.

    python benchmarks/doctor_simulation.py DIR [--draws 200] [--out docs/benchmarks/doctor]

DIR holds predictions of AFLW2000 (../shared/real/predictions): one file with its truth, any others with the same heads.
Each draw takes one of the files, a random part of its heads (300 to all of them) in random order, plants the mistake
and asks the doctor. A draw counts as *named* if the errors and warnings are of the right kinds and of no other, or
offer the right one among those that the data do not tell apart; as *misnamed* if there is one of another kind; else as
*unnamed*. The effect is by how much the mistake raises the mean error of the three angles. A model whose own
predictions hold a mistake is left out (openvino's angles are nearer to the truth when read in the Euler order ZYX).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ubhpd.core.rotation import CONVENTIONS, euler_from_matrix, matrix_from_euler, wrap_deg
from ubhpd.core.typing import FloatArray
from ubhpd.evaluation import predictions
from ubhpd.evaluation.doctor import examine
from ubhpd.evaluation.pairing import places

Draw = np.random.Generator


class Case(NamedTuple):
    """What the doctor is given: predicted angles or rotations, true angles, and ids."""

    predicted: FloatArray
    rotation: FloatArray | None
    true: FloatArray
    ids: list[str]


class Mistake(NamedTuple):
    """Its name, the kinds that name it (all of them, or one of those joined by "|"), and how it is planted."""

    name: str
    kinds: tuple[str, ...]
    plant: Callable[[FloatArray, FloatArray, list[str], Draw], Case]


def angles(change: Callable[[FloatArray, Draw], FloatArray]) -> Callable[..., Case]:
    """Return a plant that changes the predicted angles."""
    return lambda p, t, ids, rng: Case(change(p, rng), None, t, ids)


def rotations(change: Callable[[FloatArray, Draw], FloatArray]) -> Callable[..., Case]:
    """Return a plant that changes the predicted rotations and writes rotations."""

    def plant(p: FloatArray, t: FloatArray, ids: list[str], rng: Draw) -> Case:
        changed = change(matrix_from_euler(p), rng)
        return Case(euler_from_matrix(changed), changed, t, ids)

    return plant


def read_off(order: str, signs: tuple[int, int, int] = (-1, -1, -1)) -> Callable[..., FloatArray]:
    """Return a change: the angles that another order of the axes gives for the same rotations."""
    from scipy.spatial.transform import Rotation

    def change(p: FloatArray, rng: Draw) -> FloatArray:
        found = Rotation.from_matrix(matrix_from_euler(p)).as_euler(order, degrees=True)
        by_axis = dict(zip(order, found.T, strict=True))
        return np.stack([by_axis["Y"] * signs[1], by_axis["X"] * signs[0], by_axis["Z"] * signs[2]], axis=1)

    return change


def turn(axis: str, degrees: float) -> FloatArray:
    """Return the rotation about one axis."""
    own = {"x": [0.0, -degrees, 0.0], "y": [-degrees, 0.0, 0.0], "z": [0.0, 0.0, -degrees]}[axis]
    return matrix_from_euler(np.array(own))


def random_turn(rng: Draw, low: float, high: float) -> FloatArray:
    """Return a rotation about a random axis by low to high degrees."""
    from scipy.spatial.transform import Rotation

    axis = rng.normal(size=3)
    vector = axis / np.linalg.norm(axis) * np.radians(rng.uniform(low, high))
    return np.asarray(Rotation.from_rotvec(vector).as_matrix())


def by_quaternion(order: tuple[int, ...], conjugate: bool = False) -> Callable[..., FloatArray]:
    """Return a change: the four numbers of the quaternion in another order."""
    from scipy.spatial.transform import Rotation

    def change(r: FloatArray, rng: Draw) -> FloatArray:
        q = Rotation.from_matrix(r).as_quat() * (np.array([-1.0, -1.0, -1.0, 1.0]) if conjugate else 1.0)
        return np.asarray(Rotation.from_quat(q[:, order]).as_matrix())

    return change


def halves(p: FloatArray, rng: Draw) -> FloatArray:
    """Flip yaw and roll from a random row on."""
    cut = int(rng.uniform(0.2, 0.8) * len(p))
    changed = p.copy()
    changed[cut:] *= [-1.0, 1.0, -1.0]
    return changed


def other_order(key: Callable[[str], Any]) -> Callable[..., Case]:
    """Return a plant: predictions in the order of `key`, ids as they are."""

    def plant(p: FloatArray, t: FloatArray, ids: list[str], rng: Draw) -> Case:
        names = [f"set{int(n[-5:]) % 7}/{int(n[-5:])}" for n in ids]  # numbers without leading zeros, in folders
        start = sorted(range(len(ids)), key=lambda i: names[i])
        p, t, names = p[start], t[start], [names[i] for i in start]
        order = sorted(range(len(ids)), key=lambda i: key(names[i]))
        return Case(p[order], None, t, names)

    return plant


def by_dataset(p: FloatArray, t: FloatArray, ids: list[str], rng: Draw) -> Case:
    """Turn the frame of two datasets differently."""
    names = [f"{'ab'[i % 2]}/{n}" for i, n in enumerate(ids)]
    r = matrix_from_euler(p)
    first, second = random_turn(rng, 8.0, 20.0), random_turn(rng, 8.0, 20.0)
    r[0::2], r[1::2] = r[0::2] @ first, r[1::2] @ second
    return Case(euler_from_matrix(r), None, t, names)


def folded(p: FloatArray, rng: Draw) -> FloatArray:
    """Turn the yaw of 3 to 10 % of the heads by 180 degrees."""
    chosen = rng.random(len(p)) < rng.uniform(0.03, 0.10)
    changed = p.copy()
    changed[chosen, 0] = wrap_deg(changed[chosen, 0] + 180.0)
    return changed


def signed(*signs: float) -> Callable[..., Case]:
    """Return a plant that flips signs."""
    return angles(lambda p, rng: p * np.array(signs))


MISTAKES = (
    Mistake("radians", ("radians",), angles(lambda p, rng: np.radians(p))),
    Mistake("divided by 90", ("scale",), angles(lambda p, rng: p / 90.0)),
    Mistake("divided by 99", ("scale",), angles(lambda p, rng: p / 99.0)),
    Mistake("divided by 180", ("scale",), angles(lambda p, rng: p / 180.0)),
    Mistake("class indices of 66 bins", ("class_index",), angles(lambda p, rng: np.clip((p + 99.0) / 3.0, 0, 65))),
    Mistake("scale 0.8", ("scale",), angles(lambda p, rng: 0.8 * p)),
    Mistake("scale 1.25", ("scale",), angles(lambda p, rng: 1.25 * p)),
    Mistake("yaw flipped", ("sign",), signed(-1, 1, 1)),
    Mistake("pitch flipped", ("sign",), signed(1, -1, 1)),
    Mistake("roll flipped (AFLW)", ("sign",), signed(1, 1, -1)),
    Mistake("mirrored images", ("sign",), signed(-1, 1, -1)),
    Mistake("all signs flipped", ("sign",), signed(-1, -1, -1)),
    Mistake("pitch,yaw,roll", ("column_order",), angles(lambda p, rng: p[:, [1, 0, 2]])),
    Mistake("roll,pitch,yaw", ("column_order",), angles(lambda p, rng: p[:, [2, 1, 0]])),
    Mistake("yaw,roll,pitch", ("column_order",), angles(lambda p, rng: p[:, [0, 2, 1]])),
    Mistake("pitch,yaw,roll and a sign", ("column_order",), angles(lambda p, rng: p[:, [1, 0, 2]] * [1, -1, 1])),
    Mistake("radians and a sign", ("radians", "sign"), angles(lambda p, rng: np.radians(p) * [1, 1, -1])),
    Mistake("radians and columns", ("radians", "column_order"), angles(lambda p, rng: np.radians(p[:, [1, 0, 2]]))),
    Mistake("Euler order XZY", ("euler_order",), angles(read_off("XZY"))),
    Mistake("Euler order YXZ", ("euler_order",), angles(read_off("YXZ"))),
    Mistake("Euler order YZX", ("euler_order",), angles(read_off("YZX"))),
    Mistake("Euler order ZXY", ("euler_order",), angles(read_off("ZXY"))),
    Mistake("Euler order ZYX", ("euler_order",), angles(read_off("ZYX"))),
    Mistake("AFLW's convention", ("euler_order",), angles(read_off("YXZ", (-1, -1, 1)))),
    Mistake("transposed matrices", ("transposed",), rotations(lambda r, rng: np.swapaxes(r, 1, 2))),
    Mistake("head's frame by 180 about x", ("frame",), rotations(lambda r, rng: r @ turn("x", 180.0))),
    Mistake("camera's frame by 180 about x", ("frame",), rotations(lambda r, rng: turn("x", 180.0) @ r)),
    Mistake("camera frame y down, z away", ("sign|frame",),
            rotations(lambda r, rng: turn("x", 180.0) @ r @ turn("x", 180.0))),
    Mistake("head's frame by 90 about z", ("frame",), rotations(lambda r, rng: r @ turn("z", 90.0))),
    Mistake("quaternion scalar first", ("quaternion_order",), rotations(by_quaternion((3, 0, 1, 2)))),
    Mistake("quaternion as w,z,y,x", ("quaternion_order",), rotations(by_quaternion((3, 2, 1, 0)))),
    Mistake("quaternion conjugated", ("transposed",), rotations(by_quaternion((0, 1, 2, 3), True))),
    Mistake("another frontal head", ("offset",), rotations(lambda r, rng: r @ random_turn(rng, 8.0, 25.0))),
    Mistake("a tilted camera", ("offset",), angles(
        lambda p, rng: euler_from_matrix(random_turn(rng, 8.0, 25.0) @ matrix_from_euler(p)))),
    Mistake("an offset per dataset", ("offset_by_dataset|offset",), by_dataset),
    Mistake("signs differ from a row on", ("part_of_rows",), angles(halves)),
    Mistake("folded by 180", ("folded",), angles(folded)),
    Mistake("quantised to 15 degrees", ("quantised",), angles(lambda p, rng: 15.0 * np.rint(p / 15.0))),
    Mistake("rows by number, ids as text", ("row_order",),
            other_order(lambda n: (n.split("/")[0], int(n.split("/")[1])))),
    Mistake("rows shifted", ("shifted",), angles(lambda p, rng: np.roll(p, int(rng.choice([-3, -2, -1, 1, 2, 3])), 0))),
)  # fmt: skip


def models(folder: Path) -> dict[str, tuple[list[str], FloatArray, FloatArray]]:
    """Return (ids, predicted, true) of every prediction file by its name."""
    files = {path.stem.partition("_")[0]: predictions.read(path) for path in sorted(folder.glob("*.csv"))}
    base = next(f for f in files.values() if f.true_deg is not None)
    assert base.true_deg is not None
    found = {}
    for name, file in files.items():
        rows = places(file.sample_id, base.sample_id)
        there = rows.is_valid().to_numpy(zero_copy_only=False)
        true = base.true_deg[rows.drop_null().to_numpy()]
        ids = base.sample_id.take(rows.drop_null()).to_pylist()
        sound = examine(file.predicted_deg[there], true).findings
        own = np.abs(wrap_deg(file.predicted_deg[there] - true)).mean()
        zyx = _zyx(file.predicted_deg[there])
        if not sound and np.abs(wrap_deg(zyx - true)).mean() > own:
            found[name] = (ids, file.predicted_deg[there], true)
    return found


def _zyx(p: FloatArray) -> FloatArray:
    from dataclasses import replace

    from ubhpd.core.rotation import matrix_from_angles

    return euler_from_matrix(matrix_from_angles(p, replace(CONVENTIONS["canonical"], axes="ZYX")))


def simulate(folder: Path, draws: int, seed: int = 0, jobs: int = 1) -> dict[str, Any]:
    """Return for each mistake how often it was named, unnamed, misnamed, and its mean effect in degrees."""
    from joblib import Parallel, delayed

    known = models(folder)
    parts = Parallel(n_jobs=jobs)(delayed(_simulated)(k, known, draws, seed) for k in range(-1, len(MISTAKES)))
    rows, wrong, times = [], [], []
    for row, own, took in parts:
        rows.append(row)
        wrong += own
        times += took
    return {"models": sorted(known), "draws": draws, "seed": seed, "mistakes": rows, "misnamed": wrong,
            "median_seconds": float(np.median(times)), "largest_seconds": float(np.max(times))}  # fmt: skip


def _simulated(
    number: int, known: dict[str, tuple[list[str], FloatArray, FloatArray]], draws: int, seed: int
) -> tuple[dict[str, Any], list[str], list[float]]:
    """Return the counts of one mistake, of none for -1; what was misnamed; and the seconds of each draw."""
    mistake = MISTAKES[number] if number >= 0 else Mistake("none", (), angles(lambda p, rng: p))
    wrong: list[str] = []
    times: list[float] = []
    counts = {"named": 0, "unnamed": 0, "misnamed": 0}
    large = {"named": 0, "draws": 0}
    effects = []
    for draw in range(draws):
        rng = np.random.default_rng([seed, draw, sum(map(ord, mistake.name))])
        name = sorted(known)[draw % len(known)]
        ids, p, t = known[name]
        chosen = rng.permutation(len(ids))[: int(rng.integers(300, len(ids) + 1))]
        p, t, own = p[chosen], t[chosen], [ids[i] for i in chosen]
        case = mistake.plant(p, t, own, rng)
        start = time.perf_counter()
        found = examine(case.predicted, case.true, None, case.ids, case.rotation)
        times.append(time.perf_counter() - start)
        first = [f for f in found.findings if f.severity != "note" and f.kind not in ("full_turn", "unexplained")]
        effect = (found.error_deg or 0.0) - float(np.abs(wrap_deg(p - t)).mean())
        effects.append(effect)
        kinds = {f.kind for f in first}
        alternatives = " ".join(f.text.partition("do not tell it apart from")[2] for f in first)
        if not first:
            what = "unnamed" if mistake.kinds else "named"
        elif _right(mistake, kinds) or _offered(mistake, alternatives):
            what = "named"
        else:
            what = "misnamed"
            wrong.append(f"{mistake.name} ({name}, {len(p)} heads): {'; '.join(f.text for f in first)}")
        counts[what] += 1
        if effect > 1.0:
            large["draws"] += 1
            large["named"] += what == "named"
    row = {"mistake": mistake.name, "draws": draws, **counts, "effect_deg": float(np.mean(effects)),
           "above_1_degree": large["draws"], "named_above_1_degree": large["named"]}  # fmt: skip
    return row, wrong, times


def _right(mistake: Mistake, kinds: set[str]) -> bool:
    allowed = {k for own in mistake.kinds for k in own.split("|")}
    return kinds <= allowed and all(kinds & set(own.split("|")) for own in mistake.kinds)


def _offered(mistake: Mistake, text: str) -> bool:
    words = {"sign": "sign of", "euler_order": "Euler order", "transposed": "transposed", "frame": "frame is turned",
             "offset": "constant rotation", "column_order": "columns", "quaternion_order": "qx,qy"}  # fmt: skip
    named = [any(words.get(k, "\0") in text for k in own.split("|")) for own in mistake.kinds]
    return bool(named) and all(named)


def table(result: dict[str, Any]) -> str:
    """Return the page of the documentation."""
    planted = result["mistakes"][1:]
    above = sum(r["above_1_degree"] for r in planted)
    named = sum(r["named_above_1_degree"] for r in planted)
    total = sum(r["draws"] for r in planted)
    wrong = sum(r["misnamed"] for r in planted)
    lines = [
        "# The doctor on planted mistakes",
        "",
        f"{len(planted)} mistakes, {result['draws']} draws each, on real predictions of AFLW2000 by "
        f"{', '.join(result['models'])} (benchmarks/doctor_simulation.py defines every mistake and every column). "
        "A draw takes one model, 300 to all of its heads, in random order.",
        "",
        f"* Misnamed: {wrong} of {total:,} draws ({100 * wrong / total:.2f} %).",
        "* Named, of the draws in which the mistake raises the mean error by more than 1 degree: "
        f"{named:,} of {above:,} ({100 * named / above:.2f} %).",
        f"* Sound predictions with a finding: {result['mistakes'][0]['misnamed']} of {result['draws']}.",
        "",
        "| mistake | effect (degrees) | named | unnamed | misnamed | named of those above 1 degree |",
        "|---|---|---|---|---|---|",
    ]
    for r in planted:
        share = f"{r['named_above_1_degree']} of {r['above_1_degree']}" if r["above_1_degree"] else "-"
        lines.append(
            f"| {r['mistake']} | {r['effect_deg']:.2f} | {r['named']} | {r['unnamed']} | {r['misnamed']} | {share} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the simulation and write OUT.json and OUT.md."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=None)
    a = parser.parse_args()
    result = simulate(a.folder, a.draws, jobs=a.jobs)
    print(table(result))
    print("\n".join(result["misnamed"][:40]))
    print(f"median {result['median_seconds']:.3f} s, largest {result['largest_seconds']:.3f} s")
    if a.out is not None:
        times = {k: result.pop(k) for k in ("median_seconds", "largest_seconds")}
        del times
        a.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        a.out.with_suffix(".md").write_text(table(result), encoding="utf-8")


if __name__ == "__main__":
    main()
