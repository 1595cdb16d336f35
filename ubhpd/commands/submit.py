"""`ubhpd submit`: predictions of others become results of the leaderboard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ubhpd.commands._completion import complete_protocol
from ubhpd.core.errors import UbhpdError

if TYPE_CHECKING:
    from ubhpd.experiments.submission import Examined, Submission, SubmitRequest

PATH = click.Path(path_type=Path)


@click.command(short_help="Turn a prediction file into a row of the leaderboard.")
@click.argument("predictions", required=False)
@click.option("--name", help="Name of the method, as the leaderboard shows it.")
@click.option("--protocol", metavar="ID", shell_complete=complete_protocol, help="See: ubhpd protocols.")
@click.option("--data", type=PATH, metavar="OUT", help="The folder that ubhpd build wrote to; it has the test heads.")
@click.option("--out", type=PATH, metavar="RESULTS", help="Folder of results, as of ubhpd bench.")
@click.option("--trained-on", metavar="SET", help="Training set: 300W-LP, protocol (its training split), an id of a "
              "protocol, a manifest, a table of counts, or words. Without it the row is not ranked.")  # fmt: skip
@click.option("--counts", metavar="FILE", help="Manifest or table of counts of a set that --trained-on only names.")
@click.option("--paper", metavar="URL", help="Address or citation of the paper.")
@click.option("--code", metavar="URL", help="Address of the code.")
@click.option("--year", type=int, help="Year of the paper.")
@click.option("--parameters", type=int, metavar="N", help="Number of trainable parameters.")
@click.option("--license", metavar="L", help="Licence of code or weights.")
@click.option("--input", metavar="TEXT", help="Crop and size of the input, in words.")
@click.option("--crop", metavar="RECIPE", help="Crop recipe of the input: see docs/exports.md.")
@click.option("--seed", type=int, metavar="K", help="Seed of the training; submissions of one name are averaged.")
@click.option("--by", metavar="WHO", help="Person or group that submits.")
@click.option("--reported-as", metavar="NAME", help="Name of the method in published_results.csv.")
@click.option("--oracle", metavar="TEXT", help="Ground truth that the method sees at test time. It is not ranked.")
@click.option("--stress", metavar="FILE", help="JSON of ubhpd stress, for the column stress.")
@click.option("--accept", multiple=True, metavar="FINDING", help="Submit in spite of this finding, which is recorded.")
@click.option("--meta", type=PATH, metavar="FILE.toml", help="All of this in a file, also of several submissions.")
@click.option("--frames", type=PATH, metavar="FILE", help="List of frames, for a protocol that needs one.")
@click.option("--protocol-seed", default=0, show_default=True, help="For a protocol that divides one dataset.")
@click.option("--replace", is_flag=True, help="Replace another result of the same name.")
@click.option("--check", "only_check", is_flag=True, help="Only examine the predictions; write nothing.")
@click.option("--codabench", type=PATH, metavar="DIR", help="Write a scoring program for Codabench instead.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors and findings.")
@click.pass_context
def command(
    ctx: click.Context, /, predictions: str | None, data: Path | None, out: Path | None, meta: Path | None,
    frames: Path | None, protocol_seed: int, replace: bool, only_check: bool, codabench: Path | None, quiet: bool,
    accept: tuple[str, ...], **said: Any,
) -> None:  # fmt: skip
    """Score PREDICTIONS (CSV or Parquet, as for ubhpd score) on the test heads of a protocol, and write the result
    file of a row in the leaderboard to RESULTS.

    Checks ids, coverage and rotations and runs the doctor: a finding stops the submission unless it is accepted.
    --check does only that. --codabench writes the scoring program of a challenge: see docs/submit.md. Exit code 0
    good, 1 findings, 2 wrong input.
    """
    from ubhpd.experiments import submission as own

    given = {k: v for k, v in said.items() if v is not None}
    if accept:
        given["accept"] = list(accept)
    if data is None:
        raise UbhpdError("No build is named, against which predictions are scored: give --data OUT.")
    request = own.SubmitRequest(data, out or Path("."), frames, protocol_seed, replace)
    if codabench is not None:
        if predictions is not None or meta is not None:
            raise UbhpdError("--codabench writes a scoring program, which needs no predictions: leave them out.")
        written = own.write_codabench(given.get("protocol", ""), request, codabench, accept)
        click.echo(f"Wrote {written}: upload it to Codabench after reading {codabench / 'README.md'}.")
        return
    if predictions is not None:
        given["predictions"] = predictions
    if meta is not None:
        submissions = own.from_toml(meta, given)
    elif predictions is None:
        raise UbhpdError("No predictions are named: give a prediction file, or --meta FILE.toml.")
    else:
        submissions = [own.Submission(**{**given, "accept": accept})]
    if nameless := [s for s in submissions if not s.protocol]:
        raise UbhpdError(f"{nameless[0].predictions} names no protocol: give --protocol ID, see ubhpd protocols.")
    if only_check:
        found = [_examined(s, request, quiet) for s in submissions]
        ctx.exit(1 if any(own.stopping for own in found) else 0)
    if out is None:
        raise UbhpdError("No folder of results is named: give --out RESULTS, or --check to examine only.")
    try:
        for made in own.submit(submissions, request, lambda found: _print_findings(found, quiet)):
            if not quiet:
                _print_scores(made)
    except own.Stopped:
        ctx.exit(1)


def _examined(submission: Submission, request: SubmitRequest, quiet: bool) -> Examined:
    """Examine a submission and print what was found."""
    from dataclasses import replace

    from ubhpd.experiments.submission import examine, readable

    with readable(submission.predictions) as path:
        found = examine(replace(submission, predictions=str(path)), request)._replace(submission=submission)
    _print_findings(found, quiet)
    return found


def _print_findings(found: Examined, quiet: bool) -> None:
    """Print what was found in a submission; `quiet`: only if it is stopped."""
    from ubhpd.core.text import printable

    if quiet and not found.stopping:
        return
    own = found.submission
    name, test = own.name or own.predictions, found.splits.test.heads
    lines = [f"{name}: predictions for {found.heads:,} of {test:,} test heads of {own.protocol}."]
    for f in found.findings:
        word = "accepted" if f in found.accepted else f.severity
        lines.append(f"{word}: {f.kind}: {f.text}. Fix: {f.fix}.")
    if found.stopping:
        kinds = " ".join(f"--accept {kind}" for kind in dict.fromkeys(f.kind for f in found.stopping))
        lines.append(f"Not submitted: mend this, or accept it with {kinds}.")
    elif not found.findings:
        lines.append("Nothing found: ids, coverage, unit, columns, signs and rotations look right.")
    click.echo(printable("\n".join(lines)))


def _print_scores(made: Any) -> None:
    """Print the scores of a submission, and whether it can be ranked."""
    from ubhpd.core.text import printable

    own = made.result
    parts = []
    for name, title in (("balanced_mae", "balanced MAE"), ("mae", "MAE"), ("ubmae", "UBMAE")):
        score = own.scores.get(name)
        if score is not None and score.value is not None:
            parts.append(f"{title} {score.value:.3f}")
    notes = []
    if own.training.declared is None:
        notes.append("It is shown and not ranked, since no training set is declared: give --trained-on.")
    elif own.ubmae_source is None:
        notes.append("UBMAE is left out, since the counts of this training set are not known: give --counts FILE.")
    if own.coverage < 1.0:
        notes.append(f"It is shown and not ranked, since only {100 * own.coverage:.1f} % of the heads are predicted.")
    lines = [f"{own.model}, {own.protocol.id}: {', '.join(parts)} degrees", *notes]
    lines.append(f"{'Wrote' if made.is_new else 'Kept'} {made.path}")
    click.echo(printable("\n".join(lines)))
