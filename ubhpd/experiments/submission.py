"""`ubhpd submit` as functions: predictions of others become results.

A submission is a prediction file of somebody else with what its authors say about the method. It is examined first
(ids, coverage, rotations, the doctor), then scored as `bench` scores its own predictions, and written as the same
result file, with `training.how` "submitted". Nothing is written unless every submission of a call can be scored.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ubhpd import __version__, manifest
from ubhpd.core.bins import ANGLES, EDGES_DEG
from ubhpd.core.errors import UbhpdError, shortened
from ubhpd.core.files import locked, read_json, read_toml, replacing, sha256_of, write_json
from ubhpd.core.options import from_values
from ubhpd.core.registry import nearest
from ubhpd.core.text import csv_lines, printable, rendered, template_part
from ubhpd.evaluation import predictions
from ubhpd.evaluation.doctor import Finding, coverage_findings, examine_pairs
from ubhpd.evaluation.evaluate import Evaluation, evaluate
from ubhpd.evaluation.pairing import pair, places
from ubhpd.evaluation.predictions import Predictions, quoted
from ubhpd.evaluation.report import score_html
from ubhpd.experiments.plan import (
    Declared,
    Splits,
    declared_training,
    evaluated,
    scoring_options,
    splits_of,
    write_test_manifest,
)
from ubhpd.leaderboards.reported import comparable
from ubhpd.leaderboards.result import (
    FORMAT,
    SUBMITTED,
    Accepted,
    MethodInfo,
    Result,
    Training,
    canonical_hash,
    read,
    read_stress,
    text_of,
    write,
)
from ubhpd.leaderboards.tables import COLUMNS
from ubhpd.manifest import BuildFolder
from ubhpd.manifest.schema import COLUMNS as COLUMNS_OF_MANIFEST
from ubhpd.manifest.schema import Column, list_length
from ubhpd.protocols.resolve import protocol

MOST_TEXT = 300  # characters of one statement about a method


@dataclass(frozen=True)
class Submission:
    """Predictions of somebody, and what is said about the method. Each field is an option of `ubhpd submit` and a key
    of its TOML file.

    predictions: path of the file. name: of the method. protocol: id of the protocol whose test heads are predicted.
    trained_on: see `declared_training`; counts: a manifest or a table of counts for UBMAE, where `trained_on` is a name
    in words. paper: address or citation. code: address. year: of the paper. parameters: number of trainable ones.
    license: of code or weights. input: the crop, in words; crop: name of its recipe. seed: of the training. by: the
    person or group that submits. reported_as: name of the method in published_results.csv. oracle: the ground truth
    that the method sees at test time, as "true landmarks". stress: JSON file of `ubhpd stress`. accept: kinds of
    findings with which the predictions are submitted all the same.
    """

    predictions: str
    name: str = ""
    protocol: str = ""
    trained_on: str | None = None
    counts: str | None = None
    paper: str | None = None
    code: str | None = None
    year: int | None = None
    parameters: int | None = None
    license: str | None = None
    input: str | None = None
    crop: str | None = None
    seed: int | None = None
    by: str | None = None
    reported_as: str | None = None
    oracle: str | None = None
    stress: str | None = None
    accept: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise UbhpdError unless every statement can stand in a table."""
        where = self.name or self.predictions
        if not self.name.strip():
            raise UbhpdError(f"{self.predictions} has no name of its method: give --name, or name = in the TOML file.")
        for field in fields(self):
            value = getattr(self, field.name)
            texts = [value] if isinstance(value, str) else value if isinstance(value, tuple) else []
            for text in texts:
                if len(text) > MOST_TEXT or not text.isprintable():
                    what = f"{field.name} of {shortened(where)} is {shortened(text)}"
                    raise UbhpdError(f"{what}: write one line of at most {MOST_TEXT} characters.")
        if self.code is not None and not re.match(r"https?://[^\s/]+", self.code):
            raise UbhpdError(f"code of {where} is {shortened(self.code)}: give an address, as https://example.org/net.")
        for name, least, most in (("year", 1950, 2100), ("parameters", 0, 10**12), ("seed", 0, 2**63)):
            number = getattr(self, name)
            if number is not None and not least <= number <= most:
                raise UbhpdError(f"{name} of {where} is {number}: give a whole number from {least} to {most}.")
        if self.counts is not None and self.trained_on is None:
            raise UbhpdError(f"{where} has counts and no training set: name the set with --trained-on, too.")
        if self.reported_as is not None:
            self._check_reported(self.reported_as)

    def _check_reported(self, name: str) -> None:
        names = sorted({r.method for r in comparable(self.protocol)})
        if name not in names:
            near = nearest(name, names)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(names) or 'none'}."
            raise UbhpdError(f"No known paper reports a result of {name!r} for {self.protocol}: {hint}")

    @property
    def file_name(self) -> str:
        """Name of its files without an ending: what is no letter, digit, dot, - or _ becomes -, and a hash tells apart
        names that differ in such characters only."""
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", self.name).strip(".-")[:60] or "method"
        mark = "" if plain == self.name else f"-{canonical_hash(self.name)[:8]}"
        return f"{plain}{mark}-submitted" + ("" if self.seed is None else f"-seed{self.seed}")


@dataclass(frozen=True)
class SubmitRequest:
    """Where submissions go and what they are scored against.

    data: folder of a build with the test heads. out: folder of results. frames: list of frames, for a protocol that
    needs one. protocol_seed: for a protocol that divides one dataset. replace: a result of the same name is replaced.
    """

    data: Path
    out: Path
    frames: Path | None = None
    protocol_seed: int = 0
    replace: bool = False


class Examined(NamedTuple):
    """A submission that can be scored: its splits, and what was found in it.

    findings: all of them, worst first. stopping: those that keep it from being submitted: errors and warnings whose
    kind is not accepted. accepted: those that would, and are accepted.
    """

    submission: Submission
    splits: Splits
    heads: int
    coverage: float
    findings: tuple[Finding, ...]
    stopping: tuple[Finding, ...]
    accepted: tuple[Finding, ...]


class Submitted(NamedTuple):
    """A submission that was scored. is_new: False where the same result was there before."""

    path: Path
    result: Result
    examined: Examined
    evaluation: Evaluation
    is_new: bool = True


def from_toml(path: Path, given: Mapping[str, Any]) -> list[Submission]:
    """Return the submissions that a TOML file describes.

    The keys are the fields of `Submission`. Tables `[[submission]]` describe several; keys above them hold for all.
    Paths are relative to the folder of the file.

    Args:
        path: the file.
        given: fields that the command line names; they replace those of the file.

    Raises:
        UbhpdError: no TOML, an unknown key, a value of another type, or no prediction file.
    """
    content = read_toml(path, "correct it")
    several = content.pop("submission", None)
    if several is not None and not (isinstance(several, list) and all(isinstance(s, dict) for s in several)):
        raise UbhpdError(f"{path}: submission is no list of tables: write [[submission]] above each.")
    if several is not None and len(several) > 1 and (alone := [k for k in ("predictions", "name") if k in given]):
        raise UbhpdError(f"{path} describes {len(several)} submissions: leave {alone[0]} to the file.")
    found = []
    for number, own in enumerate(several if several is not None else [{}], start=1):
        where = f"{path}, submission {number}" if several is not None else str(path)
        values = {**content, **own}
        for key in ("predictions", "stress", "counts"):
            if isinstance(values.get(key), str):
                values[key] = str(path.parent / values[key])
        trained_on = values.get("trained_on")
        if isinstance(trained_on, str) and "/" in trained_on and (path.parent / trained_on).exists():
            values["trained_on"] = str(path.parent / trained_on)
        values |= given
        if not isinstance(values.get("predictions"), str):
            raise UbhpdError(f'{where} names no prediction file: write predictions = "FILE.csv".')
        found.append(from_values(Submission, values, where))
    return found


def examine(submission: Submission, request: SubmitRequest) -> Examined:
    """Return what is found in a submission that can be scored.

    Raises:
        UbhpdError: the file cannot be read or scored (ids twice, values that are no numbers, matrices that are no
            rotations), its ids are not test heads of the protocol, the protocol is unknown, or the build lacks its test
            heads.
    """
    own = protocol(submission.protocol)
    frames = request.frames if own.needs_frames else None
    BuildFolder(request.data).check()
    splits = splits_of(own.id, request.data, frames, request.protocol_seed, train_optional=True)
    file = predictions.read(submission.predictions)
    _check_ids(file, splits)
    paired = pair(file, request.data, splits.resolution.test)
    found = [*coverage_findings(paired), *examine_pairs(paired).findings]
    findings = tuple(sorted(found, key=lambda f: ("error", "warning", "note").index(f.severity)))
    serious = [f for f in findings if f.severity != "note"]
    return Examined(
        submission,
        splits,
        len(paired.sample_id),
        paired.coverage,
        findings,
        tuple(f for f in serious if f.kind not in submission.accept),
        tuple(f for f in serious if f.kind in submission.accept),
    )


def _check_ids(file: Predictions, splits: Splits) -> None:
    test = pa.array(splits.resolution.test, pa.string())
    if places(file.sample_id, test).null_count < len(file):
        return
    own, theirs = (quoted(ids[0].as_py()) for ids in (file.sample_id, test))
    raise UbhpdError(
        f"{file.path} has no prediction for any of the {len(test):,} test heads of {splits.resolution.protocol.id}: "
        f"its ids are like {own}, theirs like {theirs}; name the protocol of these predictions with --protocol."
    )


class Stopped(UbhpdError):
    """Findings that are not accepted keep predictions from being submitted."""

    def __init__(self, examined: Examined) -> None:
        """Say in one sentence what was found first."""
        first = examined.stopping[0]
        more = f", and {len(examined.stopping) - 1} more" if len(examined.stopping) > 1 else ""
        super().__init__(
            f"{examined.submission.predictions} is not submitted, the doctor found {first.kind} ({first.text}){more}: "
            f"{first.fix}, or accept it with --accept {first.kind}."
        )


def submit(
    submissions: Sequence[Submission], request: SubmitRequest, on_examined: Callable[[Examined], None] | None = None
) -> list[Submitted]:
    """Score submissions and write a result for each, beside a copy of its predictions.

    Args:
        submissions: what is submitted.
        request: where to, and what it is scored against.
        on_examined: called with what was found in each submission, before any is scored.

    Raises:
        Stopped: a finding that is not accepted. Nothing is written then.
        UbhpdError: a wrong statement about a method, as `examine`, two submissions of one name, protocol and seed, or
            another result of that name in `request.out`. Nothing is written then.
    """
    submissions = [replace(own, protocol=protocol(own.protocol).id) for own in submissions]
    for own in submissions:
        own.check()
    names = [(s.protocol, s.file_name) for s in submissions]
    if again := [s.name for s, n in zip(submissions, names, strict=True) if names.count(n) > 1]:
        raise UbhpdError(f"Two submissions are called {again[0]!r}: give each its own name, or its own seed.")
    with locked(request.out, is_file=True), ExitStack() as together:
        examined = []
        for own in submissions:
            path = together.enter_context(readable(own.predictions))
            examined.append((path, examine(replace(own, predictions=str(path)), request)._replace(submission=own)))
            if on_examined is not None:
                on_examined(examined[-1][1])
        for _, found in examined:
            if found.stopping:
                raise Stopped(found)
        made = [_scored(path, found, request) for path, found in examined]
        _write(made, request)
        return [Submitted(m.path, m.result, m.examined, m.evaluation, m.is_new) for m in made]


class _Made(NamedTuple):
    """A submission with its result, before anything is written."""

    examined: Examined
    result: Result
    evaluation: Evaluation
    source: Path
    path: Path
    is_new: bool


def _scored(source: Path, found: Examined, request: SubmitRequest) -> _Made:
    """Return an examined submission with its result; `source`: the predictions."""
    own = replace(found.submission, predictions=str(source))
    declared = declared_training(own.trained_on, found.splits.resolution.protocol)
    if own.counts is not None:
        declared = Declared(declared.name, own.counts)
    options = scoring_options(found.splits, request.frames, request.protocol_seed, declared.source)
    evaluation = evaluate(own.predictions, request.data, options)
    result = _result(own, found, evaluation, declared)
    path = request.out / own.protocol / f"{own.file_name}.json"
    return _Made(found, result, evaluation, source, path, _is_new(result, path, request.replace))


def _result(own: Submission, found: Examined, evaluation: Evaluation, declared: Declared) -> Result:
    suffix = ".parquet" if Path(own.predictions).read_bytes()[:4] == b"PAR1" else ".csv"
    content = sha256_of(Path(own.predictions))
    said = {k: v for k, v in asdict(own).items() if k not in ("predictions", "stress", "counts", "trained_on")}
    stress = None if own.stress is None else read_stress(Path(own.stress))
    resolution = found.splits.resolution
    made = {
        "ubhpd": __version__, "format": FORMAT, "predictions": content, "said": said, "declared": declared.name,
        "test": [resolution.hashes["test"], found.splits.test.fingerprint, own.protocol, resolution.seed],
    }  # fmt: skip
    return Result(
        model=own.name, title=own.name, options={}, chosen={}, parameters=own.parameters, input=None, seed=own.seed,
        training=Training(SUBMITTED, "", "not known", "not known", declared=declared.name), speed=None, device="",
        predictions=f"{own.file_name}.predictions{suffix}", predictions_sha256=content, inputs=canonical_hash(made),
        by=own.by, crop=own.crop, oracle=own.oracle, stress=stress,
        info=MethodInfo(own.paper, own.code, own.year, own.license, own.input, own.reported_as),
        accepted=tuple(Accepted(f.kind, f.text) for f in found.accepted),
        **evaluated(evaluation, found.splits, SUBMITTED, declared),
    )  # fmt: skip


def _is_new(result: Result, path: Path, can_replace: bool) -> bool:
    """Return False if the file holds this result already; raise UbhpdError if it holds another one."""
    if not path.exists():
        return True
    try:
        if read(path) == result and sha256_of(path.with_name(result.predictions)) == result.predictions_sha256:
            return False
    except (OSError, UbhpdError):
        pass
    if not can_replace:
        raise UbhpdError(
            f"{path} holds another result of {result.model!r}: give --replace, or another --name, --seed or --out."
        )
    return True


def _write(made: Sequence[_Made], request: SubmitRequest) -> None:
    """Write every new result and its predictions: all of them, or none."""
    try:
        for splits in {m.examined.submission.protocol: m.examined.splits for m in made}.values():
            write_test_manifest(splits, request.data, request.out / splits.resolution.protocol.id / "test")
        with ExitStack() as together:
            for own in (m for m in made if m.is_new):
                part = together.enter_context(replacing(own.path))
                part.write_text(text_of(own.result), encoding="utf-8")
                part = together.enter_context(replacing(own.path.with_name(own.result.predictions)))
                shutil.copyfile(own.source, part)
    except OSError as error:
        raise UbhpdError(f"Cannot write to {request.out} ({error.strerror}): name another folder with --out.") from None


@contextmanager
def readable(path: str) -> Iterator[Path]:
    """Give a path that can be read more than once: of a pipe a copy, which is removed in the end."""
    own = Path(path)
    content = predictions.piped(own)
    if content is None:
        yield own
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "piped-predictions")
        copy.write_bytes(content)
        yield copy


CODABENCH_KIND = "ubhpd-codabench"
_ABOUT, _COUNTS, _FRAMES = "about.json", "training_counts.csv", "frames.txt"
_SHOWN = ("balanced_mae", "mae", "mae_yaw", "mae_pitch", "mae_roll", "geodesic", "coverage")
# What a participant may state in the submission.toml of a zip; everything else is up to the organiser.
_STATED = ("name", "trained_on", "paper", "code", "year", "parameters", "license", "input", "crop", "seed", "by")


def write_codabench(protocol_id: str, request: SubmitRequest, folder: Path, accept: Sequence[str] = ()) -> Path:
    """Write a challenge for Codabench on the test heads of a protocol, and return the bundle to upload.

    The folder holds `bundle.zip`; its parts, `competition.yaml`, pages, logo, and the folders `scoring_program` and
    `reference_data` with their zips; a Dockerfile for the image that the scoring program runs in; and README.md.
    The reference data hold the true angles of the test heads.

    Args:
        protocol_id: of the protocol.
        request: the build with the test heads; `out` is not used.
        folder: to write to; it must be empty or not be there.
        accept: kinds of findings with which predictions are scored all the same.

    Raises:
        UbhpdError: no such protocol, no build with its test heads, or a folder that is not empty.
    """
    if not protocol_id:
        raise UbhpdError("No protocol is named: give --protocol ID, see ubhpd protocols.")
    own = protocol(protocol_id)
    BuildFolder(request.data).check()
    frames = request.frames if own.needs_frames else None
    splits = splits_of(own.id, request.data, frames, request.protocol_seed, train_optional=True)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UbhpdError(f"{folder} is not an empty folder: name another one with --codabench.")
    with tempfile.TemporaryDirectory() as place:  # moved as a whole, so that no half-written bundle stays
        made = Path(place, "bundle")
        _write_reference(made / "reference_data", splits, request, accept)
        values = {"own": own, "heads": splits.test.heads, "version": __version__, "shown": _shown_columns()}
        texts = {
            "competition.yaml": rendered("codabench_competition.yaml", **values),
            "overview.md": rendered("codabench_overview.md", **values),
            "terms.md": template_part("codabench_terms.md"),
            "README.md": rendered("codabench_readme.md", **values),
            "Dockerfile": template_part("codabench_Dockerfile").replace("@VERSION@", __version__),
            "scoring_program/metadata.yaml": template_part("codabench_metadata.yaml"),
            "scoring_program/score.py": template_part("codabench_score.txt"),
        }
        for name, text in texts.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_text(text, encoding="utf-8")
        (made / "logo.png").write_bytes(_logo())
        for name in ("reference_data", "scoring_program"):
            _zip(made / f"{name}.zip", made / name, sorted((made / name).iterdir()))
        parts = ("competition.yaml", "overview.md", "terms.md", "logo.png", "reference_data.zip", "scoring_program.zip")
        _zip(made / "bundle.zip", made, [made / name for name in parts])
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in made.iterdir():
                shutil.move(path, folder / path.name)
        except OSError as error:
            raise UbhpdError(f"Cannot write to {folder} ({error.strerror}): name another folder.") from None
    return folder / "bundle.zip"


def _shown_columns() -> list[tuple[str, str, str]]:
    """Return (key, title, order) of the columns of Codabench's leaderboard."""
    titles = {c.key: c.title for c in COLUMNS}
    return [(key, titles[key], "desc" if key == "coverage" else "asc") for key in _SHOWN]


def _write_reference(folder: Path, splits: Splits, request: SubmitRequest, accept: Sequence[str]) -> None:
    """Write the smallest build on which the protocol has the same test heads."""
    own, build = splits.resolution.protocol, BuildFolder(request.data)
    kept = {*splits.resolution.test, *(splits.resolution.train if own.divide is not None else ())}
    names = pa.array(sorted(kept), pa.string())
    for kind in own.tables:
        path = build.require(kind, f"Protocol {own.id}")
        table = manifest.read(path)
        wanted = pc.is_in(table.column("sample_id"), value_set=names)
        rows = table.filter(wanted if kind == own.test.table else pa.array([False] * table.num_rows))
        columns = tuple(_column(field) for field in table.schema)
        manifest.write_parquet([rows], folder / f"{kind}.parquet", columns)
    write_json({"ubhpd": __version__, "datasets": {}}, folder / "build.json")
    declared = declared_training("protocol", own)
    counts_file = None
    if declared.source is None and splits.train.heads and own.divide is None:
        counts_file = _COUNTS
        rows = zip(pairwise(EDGES_DEG.tolist()), *(splits.train.bins[a] for a in ANGLES), strict=True)
        lines = [[f"{v:g}" for v in (*edges, *heads)] for edges, *heads in rows]
        text = csv_lines([("low_deg", "high_deg", *ANGLES), *lines])
        (folder / _COUNTS).write_text(text, encoding="utf-8", newline="")
    if own.needs_frames and request.frames is not None:
        shutil.copyfile(request.frames, folder / _FRAMES)
    about = {
        "kind": CODABENCH_KIND, "ubhpd": __version__, "protocol": own.id, "protocol_seed": request.protocol_seed,
        "frames": _FRAMES if own.needs_frames else None, "counts": counts_file, "trained_on": declared.name,
        "accept": list(accept), "test": splits.resolution.hashes["test"],
    }  # fmt: skip
    write_json(about, folder / _ABOUT)
    again = splits_of(own.id, folder, request.frames if own.needs_frames else None, request.protocol_seed, True)
    if again.test.names_sha256 != splits.test.names_sha256:
        raise UbhpdError(f"The test heads of {own.id} alone do not give the same test split, so it makes no challenge.")


def _column(field: pa.Field) -> Column:
    known = {c.name: c for c in COLUMNS_OF_MANIFEST}
    return known.get(field.name) or Column(field.name, field.type, "", "", "", length=list_length(field))


def _logo() -> bytes:
    """Return a picture of a head's axes, which Codabench wants of every challenge."""
    import cv2

    from ubhpd.core.rotation import matrix_from_euler
    from ubhpd.images.drawing import draw_axes

    image = np.full((256, 256, 3), 255, np.uint8)
    draw_axes(image, matrix_from_euler(np.array([35.0, 15.0, 10.0])), (128.0, 128.0), 110.0)
    return bytes(cv2.imencode(".png", image)[1])


def _zip(path: Path, root: Path, files: Sequence[Path]) -> None:
    """Write a zip whose bytes depend on the files alone."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            entry = zipfile.ZipInfo(file.relative_to(root).as_posix(), (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, file.read_bytes(), zipfile.ZIP_DEFLATED)


def codabench_score(source: Path, out: Path) -> dict[str, float]:
    """Score a submission as Codabench hands it to the scoring program, and return what scores.json holds.

    Args:
        source: folder with `ref`, the reference data, and `res`, the unpacked zip of a participant: one prediction
            file, and a `submission.toml` if there is one.
        out: folder for scores.json, detailed_results.html and, in `result`, the result file without the true angles.

    Raises:
        UbhpdError: as `submit`, or a zip without a prediction file or with several.
    """
    ref, res = source / "ref", source / "res"
    about = read_json(ref / _ABOUT, "write the challenge again with ubhpd submit --codabench")
    if not isinstance(about, dict) or about.get("kind") != CODABENCH_KIND:
        raise UbhpdError(f"{ref / _ABOUT} is not what ubhpd submit --codabench writes: write the challenge again.")
    found = sorted(p for p in res.rglob("*") if p.suffix.lower() in (".csv", ".parquet") and p.is_file())
    if len(found) != 1:
        what = "no prediction file" if not found else f"{len(found)} files that may be predictions"
        raise UbhpdError(f"The submission holds {what}: put one .csv or .parquet file into the zip.")
    stated: dict[str, Any] = {"name": "submission"}
    if (toml := res / "submission.toml").is_file():
        content = read_toml(toml, "correct it")
        if unknown := [key for key in content if key not in _STATED]:
            raise UbhpdError(f"submission.toml has a key {shortened(unknown[0])}: it has {', '.join(_STATED)}.")
        stated |= content
    trained_on = stated.setdefault("trained_on", about["trained_on"])
    if not isinstance(trained_on, str) or Path(trained_on).exists():
        raise UbhpdError("trained_on in submission.toml is no name of a training set: write it in words.")
    is_default = trained_on in (about["trained_on"], "protocol")
    own = from_values(
        Submission,
        {
            **stated, "predictions": str(found[0]), "protocol": about["protocol"], "accept": about["accept"],
            "trained_on": about["trained_on"] if is_default else trained_on,
            "counts": str(ref / about["counts"]) if about["counts"] and is_default else None,
        },
        "submission.toml",
    )  # fmt: skip
    own.check()
    frames = ref / about["frames"] if about["frames"] else None
    # Not `submit`: it would leave the true angles beside the result, in a folder that participants may download.
    request = SubmitRequest(ref, out / "result", frames, about["protocol_seed"], replace=True)
    examined = examine(own, request)
    if examined.stopping:
        raise Stopped(examined)
    made = _scored(found[0], examined, request)
    scores = {k: v.value for k, v in made.result.scores.items() if k in (*_SHOWN, "ubmae") and v.value is not None}
    scores["coverage"] = made.result.coverage
    write(made.result, made.path)
    with replacing(out / "detailed_results.html") as part:
        part.write_text(score_html(made.evaluation.result, {}, []), encoding="utf-8")
    write_json(scores, out / "scores.json")
    return scores


def codabench_main(arguments: Sequence[str]) -> int:
    """Run the scoring program: arguments are the folders of input and output. Return the exit code."""
    if len(arguments) != 2:
        print("usage: score.py INPUT OUTPUT", file=sys.stderr)
        return 2
    try:
        scores = codabench_score(Path(arguments[0]), Path(arguments[1]))
    except UbhpdError as error:
        print(f"Error: {printable(str(error))}", file=sys.stderr)
        return 2
    print(", ".join(f"{name} {value:.4f}" for name, value in scores.items()))
    return 0
