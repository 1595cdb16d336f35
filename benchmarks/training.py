"""Times training fed by `ubhpd train` against the same networks fed by the loader of the field's scripts.

    python benchmarks/training.py [--models NAME ...] [--all] [--rounds 5] [--seconds 10] [--quick] [--out FILE]

* the usual loader, in usual_loader.py, does for each head what Hopenet's (code/datasets.py) does: image opened and
  decoded with PIL, loadmat twice, crop, resize, float32 tensor with mean and deviation; torch's DataLoader with 2
  worker processes. The step is the plain one: forward, loss, backward, optimiser.
* ubhpd: crops cut before into the cache, `Feed` with as many threads as cores, and the step of its loop, both as
  `ubhpd train` runs them: as by default, with the channels of images first in memory, in 16 bits (bfloat16 on a CPU),
  and on a GPU also compiled.
* feeding alone: the same batches brought to the device and normalised there, and no network.

`Feed` makes the augmentations of the model's recipe in all of this, but where the table says unchanged; the usual
loader makes none. Both have the files in the page cache, and shuffle without end, so that neither pays for the ends of
epochs of a small set. Batches are as large as the model's recipe says.

Contenders take turns within a round. Of each turn the first sixth is not counted: the batches that were prepared while
others had their turn are used up in it. Speeds are medians, a ratio is the median of the ratios within a round.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from machine import describe_machine
from usual_loader import UsualHeads, plain_step, usual_batches

from ubhpd import manifest
from ubhpd.core.files import replacing
from ubhpd.core.progress import Progress
from ubhpd.inference.network_predictor import device_title
from ubhpd.models.catalogue import catalogue
from ubhpd.models.model import Model
from ubhpd.nn.contract import InputRecipe
from ubhpd.pool.build import BuildConfig, build
from ubhpd.synth.writers import w300lp_writer
from ubhpd.training.distributed import Team
from ubhpd.training.feeding import Feed, HeadBatch, Order, normalised
from ubhpd.training.loop import Loop, Work, fast
from ubhpd.training.request import TrainRequest
from ubhpd.training.run import Assembled, assembled
from ubhpd.training.state import Waits

SMALL = ("ssrnet_md", "fsanet_capsule_1x1", "fsanet_metric_wo", "osgg_small")
WAYS: dict[str, dict[str, Any]] = {
    "32 bits, channels first": {"channels_last": False},
    "32 bits": {},
    "16 bits": {"precision": "16"},
    "16 bits, compiled": {"precision": "16", "compiled": True},
}
USUAL, USUAL_FED = "usual", "usual, feeding alone"
FED, UNCHANGED = "feeding alone", "feeding alone, unchanged"
ENDLESS = 10**9  # steps
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks" / "training.md"

Step = Callable[[HeadBatch], object]


class Contender(NamedTuple):
    """Batches on the device, how many heads each has, and what is done with one."""

    batches: Iterator[HeadBatch]
    heads: int
    step: Step


class Turn(NamedTuple):
    """How fast it was, and which share of the time the device waited for heads."""

    heads_per_second: float
    wait_share: float


def own_batches(feed: Feed, order: Order, device: torch.device) -> Generator[HeadBatch, None, None]:
    """Yield batches of the crop cache without end, as the loop asks for them."""
    places = (divmod(step, order.steps) for step in count())
    wanted = ((epoch, at * order.batch_size, order.batch(epoch, at)) for epoch, at in places)
    with closing(feed.batches(wanted)) as batches:
        for batch in batches:
            yield batch.to(device)


def loop_step(work: Work) -> Step:
    """Return the step of the loop, with torch set as the loop sets it."""
    loop = Loop(work)

    def step(batch: HeadBatch) -> None:
        with fast(work.team.device):
            loop._step(batch)

    return step


def looked_at(recipe: InputRecipe, device: torch.device) -> Step:
    """Return what is done with a batch where there is no network: it is made what a network would see."""
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (recipe.mean, recipe.std))
    return lambda batch: normalised(batch.inputs, mean, std, channels_last=False)


def taken_turn(contender: Contender, seconds: float, device: torch.device) -> Turn:
    """Return the speed over so many seconds, three steps at least."""
    waits = Waits(device)
    for limit, least in ((seconds / 5, 1), (seconds, 3)):
        waits.read()
        begun, steps = time.perf_counter(), 0
        while steps < least or time.perf_counter() - begun < limit:
            mark = waits.begin()
            batch = next(contender.batches)
            waits.end(mark)
            contender.step(batch)
            steps += 1
        taken, share = waits.read()
    return Turn(steps * contender.heads / taken, share)


def all_turns(
    contenders: dict[str, Contender], rounds: int, seconds: float, device: torch.device
) -> dict[str, list[Turn]]:
    """Return the turns of each contender, the first of a round another each time."""
    for contender in contenders.values():  # also starts processes before threads, and compiles
        taken_turn(contender, 0.0, device)
    names = list(contenders)
    turns: dict[str, list[Turn]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            turns[name].append(taken_turn(contenders[name], seconds, device))
    return turns


class Data(NamedTuple):
    """A generated 300W-LP, its build, and a folder for runs."""

    raw: Path
    built: Path
    out: Path


def generated(folder: Path, heads: int) -> Data:
    """Write 300W-LP and build it."""
    w300lp_writer.write(folder, heads // 2, views=8, distinct_images=64)
    data = Data(folder / "300W_LP", folder / "built", folder / "runs")
    build(BuildConfig(("300wlp",), data.built, roots={"300wlp": str(data.raw)}))
    return data


def timed(name: str, data: Data, rounds: int, seconds: float, device: torch.device) -> dict[str, Any]:
    """Return the turns of all contenders for one network, and what it is."""
    model = Model.untrained(name)
    recipe = model.module.training_recipe(model.config)
    path = data.built / "pool.parquet"
    table, mark = manifest.read(path), manifest.header(path).fingerprint
    team = Team(0, 1, device)
    found = assembled(
        table,
        mark,
        model.kind,
        model.recipe,
        recipe.max_angle_deg,
        build=data.built,
        cache=data.built / "crops",
        seed=0,
        threads=0,
        team=team,
        progress=Progress(show=False),
    )
    order = Order(found.usable, recipe.batch_size, 0)
    pinned = device.type == "cuda"
    feeds = [Feed(found.heads, model.recipe, names, 0, 0, pinned) for names in (recipe.augmentations, ())]
    images = table.column("image_path").to_pylist()
    usual = UsualHeads([str(data.raw / images[row]) for row in found.usable.tolist()], model.recipe)
    check_agreement(usual, found)

    def loop_contender(way: str) -> Step:
        request = TrainRequest(name, data.built, data.out / name / way, **WAYS[way])
        none = found.usable[:0]
        return loop_step(
            Work(
                model=Model.untrained(name),
                recipe=recipe,
                heads=found.heads,
                order=order,
                feed=feeds[0],
                steps=ENDLESS,
                weights=None,
                validation=none,
                teachers=(),
                team=team,
                request=request,
                identity={},
            )
        )

    with ExitStack() as stack:
        theirs = stack.enter_context(closing(usual_batches(usual, order.batch_size, device)))
        changed, unchanged = (stack.enter_context(closing(own_batches(f, order, device))) for f in feeds)
        look = looked_at(model.recipe, device)
        ways = [way for way, options in WAYS.items() if pinned or "compiled" not in options]
        contenders = {
            USUAL: (theirs, plain_step(model, recipe, device)),
            USUAL_FED: (theirs, look),
            FED: (changed, look),
            UNCHANGED: (unchanged, look),
            **{way: (changed, loop_contender(way)) for way in ways},
        }
        turns = all_turns(
            {n: Contender(b, order.batch_size, step) for n, (b, step) in contenders.items()}, rounds, seconds, device
        )
    return {"model": name, "size": model.recipe.size, "batch": order.batch_size, "ways": ways,
            "augmentations": recipe.augmentations, "turns": turns}  # fmt: skip


def check_agreement(usual: UsualHeads, found: Assembled) -> None:
    """Stop unless both loaders have the same truth for the same heads."""
    for index, row in enumerate(found.usable[:16].tolist()):
        if not np.allclose(usual[index][1].numpy(), found.heads.angles_deg[row], atol=1e-3):
            raise SystemExit(f"the contenders disagree on {found.heads.sample_id[row]}")


def median(turns: list[Turn]) -> tuple[str, str]:
    """Return heads per second and the share of waiting as texts."""
    speed, wait = (statistics.median(values) for values in zip(*turns, strict=True))
    return f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}", f"{wait:.0%}"


def ratio(slow: list[Turn], fast: list[Turn]) -> str:
    """Return how many times faster `fast` is, the median over the rounds."""
    ratios = [f.heads_per_second / s.heads_per_second for s, f in zip(slow, fast, strict=True)]
    return f"{statistics.median(ratios):.2f}"


def page(rows: list[dict[str, Any]], about: list[str]) -> str:
    """Return the results as Markdown."""
    lines = [
        "# Training: the feed and the loop against the usual loader", "", *about, "", "## With the network", "",
        "| model | crop | batch | ubhpd's way | usual, heads a second | waits | ubhpd, heads a second | waits "
        "| times faster |",
        "|---|---:|---:|---|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for row in rows:
        turns, start = row["turns"], f"| `{row['model']}` | {row['size']} | {row['batch']} |"
        for way in row["ways"]:
            speeds = (*median(turns[USUAL]), *median(turns[way]), ratio(turns[USUAL], turns[way]))
            lines.append(f"{start} {way} | {' | '.join(speeds)} |")
    lines += [
        "", "`waits` is the share of the time in which the device waited for heads. On a CPU a loader also slows the",
        "network down by the cores that it takes from it, which is no waiting.", "", "## Feeding alone", "",
        "| model | crop | batch | augmentations | usual, heads a second | ubhpd | times faster | ubhpd, unchanged "
        "| times faster |",
        "|---|---:|---:|---|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for row in rows:
        turns, usual = row["turns"], row["turns"][USUAL_FED]
        cells = [f"`{row['model']}`", str(row["size"]), str(row["batch"]), ", ".join(row["augmentations"]) or "none"]
        cells.append(median(usual)[0])
        for own in (turns[FED], turns[UNCHANGED]):
            cells += [median(own)[0], ratio(usual, own)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def distinct_images() -> list[str]:
    """Return the networks that see single images; of variants with the same layers the first."""
    first: dict[tuple[str, int | None], str] = {}
    for name, card in catalogue().items():
        if card.kind == "image":
            first.setdefault((card.file, card.parameters), name)
    return list(first.values())


def main() -> None:
    """Run the comparison and write what it finds, anew after each network."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--models", nargs="*", default=list(SMALL), help="networks that see single images")
    arguments.add_argument("--all", action="store_true", help="all of those, one of each set of the same layers")
    arguments.add_argument("--heads", type=int, default=600)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=float, default=10.0, help="of a turn")
    arguments.add_argument("--quick", action="store_true", help="a round of half seconds; writes nothing")
    arguments.add_argument("--out", type=Path, default=PAGE)
    chosen = arguments.parse_args()
    names = distinct_images() if chosen.all else chosen.models
    if wrong := [n for n in names if n not in catalogue() or catalogue()[n].kind != "image"]:
        arguments.error(f"{wrong[0]} is no network that sees single images")
    rounds, seconds = (1, 0.5) if chosen.quick else (chosen.rounds, chosen.seconds)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    about = [
        f"300W-LP as generated, {chosen.heads} images of 450x450 px; medians of {rounds} rounds of {seconds:g} s.",
        describe_machine("torch", "opencv-python-headless", "pillow", "scipy"),
        f"Device: {device_title(device.type)}.",
    ]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        data = generated(Path(folder), chosen.heads)
        for name in names:
            rows.append(timed(name, data, rounds, seconds, device))
            if not chosen.quick:
                chosen.out.parent.mkdir(parents=True, exist_ok=True)
                with replacing(chosen.out) as file:
                    file.write_text(page(rows, about), encoding="utf-8")
            print(page(rows[-1:], about), flush=True)


if __name__ == "__main__":
    main()
