"""Times the renderer of synthetic heads on one core, and makes the contact sheet of the documents.

    python benchmarks/render.py [--images 200] [--rounds 5] [--out docs/benchmarks/render.md] [--sheet FILE.jpg]

An image is timed from its pose to its pixels: posing, projection, rasterising, shading, background and noise, without
the encoding as JPEG: of people whose shape, hair and texture are made already; of twenty people with five expressions
each, made in the time that counts; and of a new person in every image. They are drawn person by person, as
`ubhpd synth` does. Given are medians of images a second of the process's own time: other work on the machine does not
count, though it slows the memory.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
from machine import describe_machine, show

from ubhpd.synth.rendered_heads import Head, draw_heads, draw_poses
from ubhpd.synth.renderer.paint import bare_texture
from ubhpd.synth.renderer.persons import expression_of
from ubhpd.synth.renderer.render import person_of, texture
from ubhpd.synth.renderer.shape import landmarks68
from ubhpd.synth.writers.writer_files import draw_image, face_view

_SHEET_POSES = (
    (0, 0, 0), (-35, 5, 0), (40, -10, 5), (-65, 0, -5), (70, 10, 8), (88, 0, 0), (0, 35, 0), (10, -40, 0),
    (-20, 15, 35), (25, 5, -40), (-50, -25, 15), (55, 25, -15), (-88, -5, 0), (5, 55, -10), (-10, 0, 60), (30, -30, 25),
)  # fmt: skip


def heads(count: int, people: int, first: int) -> list[Head]:
    """Return heads turned as those of AFLW2000-3D."""
    rng = np.random.default_rng([256, first])
    drawn = draw_heads(count, rng, people, first_subject=first, poses=draw_poses("aflw2000", count, rng))
    if people == count:
        drawn = [h._replace(subject=first + i, expression=expression_of(first + i, 0)) for i, h in enumerate(drawn)]
    return sorted(drawn, key=lambda h: (h.subject, h.expression))


def images_a_second(drawn: list[Head], side: int, rounds: int, forget: bool) -> float:
    """Return the median over rounds; `forget` makes every person anew each round."""
    found = []
    for number in range(rounds + 1):
        if forget:
            for cache in (texture, bare_texture, person_of):
                cache.cache_clear()
        start = time.process_time()
        for index, head in enumerate(drawn):
            draw_image([(face_view(head, side), head)], (side, side), np.random.default_rng([number, index]))
        found.append(len(drawn) / (time.process_time() - start))
    return statistics.median(found[1:])


def sheet(path: Path, side: int = 176) -> None:
    """Write eight columns of heads in six rows, the last with the 68 landmarks."""
    rows = []
    for row in range(6):
        cells = []
        for column in range(8):
            number = row * 8 + column
            yaw, pitch, roll = _SHEET_POSES[number % len(_SHEET_POSES)]
            subject = 500 + number
            head = Head(
                yaw_deg=yaw,
                pitch_deg=pitch,
                roll_deg=roll,
                subject=subject,
                centre_mm=(0.0, -60.0, 900.0),
                scale=1.15,
                expression=expression_of(subject, 0),
            )
            view = face_view(head, 2 * side)
            image = draw_image([(view, head)], (2 * side, 2 * side), np.random.default_rng([48, number]))
            if row == 5:
                for x, y in view.project(landmarks68(subject, head.expression))[:, :2] * 16:
                    centre = (round(x), round(y))
                    cv2.circle(image, centre, 36, (60, 255, 60), thickness=cv2.FILLED, lineType=cv2.LINE_AA, shift=4)
            cells.append(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA))
        rows.append(np.hstack(cells))
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 84])


def main() -> None:
    """Run and print."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--images", type=int, default=200)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--out", type=Path)
    arguments.add_argument("--sheet", type=Path)
    chosen = arguments.parse_args()
    if chosen.sheet:
        sheet(chosen.sheet)
        return
    cv2.setNumThreads(1)
    lines = ["| side | people | images/s, one core |", "|---|---|---:|"]
    cases = {
        "made already": heads(chosen.images, 3, 1),
        "20, each with 5 expressions": heads(chosen.images, 20, 1),
        "all new": heads(min(chosen.images, 60), min(chosen.images, 60), 1000),
    }
    for side in (128, 256, 450):
        for people, drawn in cases.items():
            speed = images_a_second(drawn, side, chosen.rounds, people != "made already")
            lines.append(f"| {side} px | {people} | {speed:.0f} |")
    count = person_of(1, expression_of(1, 0)).triangles.shape[1]
    about = [
        f"About {round(count, -3):,} triangles a person; medians of {chosen.rounds} rounds.",
        describe_machine("opencv-python-headless"),
        "",
    ]
    show("Rendering synthetic heads", [*about, *lines], chosen.out)


if __name__ == "__main__":
    main()
