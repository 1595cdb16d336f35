"""`ubhpd onnx`: a checkpoint as an ONNX file for other runtimes, and ONNX files of others."""

from __future__ import annotations

from pathlib import Path

import click

from ubhpd.commands._options import Subcommands
from ubhpd.core.errors import UbhpdError

PATH = click.Path(path_type=Path)


@click.group(
    cls=Subcommands,
    short_help="Write a network as ONNX, or inspect the ONNX file of others.",
    invoke_without_command=True,
)
@click.option("--weights", type=PATH, help="A checkpoint of ubhpd; see: ubhpd weights.")
@click.option("--out", type=PATH, help="The file to write, M.onnx.")
@click.option("--opset", default=17, show_default=True, help="Version of ONNX's operators.")
@click.option("--check", "heads", default=16, show_default=True, help="Random inputs to compare with torch.")
@click.pass_context
def command(ctx: click.Context, weights: Path | None, out: Path | None, opset: int, heads: int) -> None:
    """Write a network as ONNX: uint8 crops (n, size, size, 3) in, yaw, pitch, roll (n, 3) in degrees out.

    The file is written only if onnxruntime gives what torch gives, one head at a time and all at once. The subcommands
    are about ONNX files of others, which ubhpd predict --onnx runs. Exit code 0 good, 2 wrong input.
    """
    if ctx.invoked_subcommand is not None:
        return
    if weights is None or out is None:
        missing = " and ".join(n for n, v in (("--weights", weights), ("--out", out)) if v is None)
        raise UbhpdError(f"{missing} is missing: give the checkpoint to export and the file to write.")
    from ubhpd.models.catalogue import card, module_of
    from ubhpd.models.checkpoint import read_about

    module_of(card(read_about(weights).model))  # says so before any import of torch if it is not there
    from ubhpd.inference.onnx_export import export_onnx

    report = export_onnx(weights, out, opset, heads)
    shape = ", ".join(map(str, report.input_shape))
    click.echo(
        f"Wrote {report.out}: {report.model}, input ({shape}), opset {report.opset}, {report.bytes / 1e6:.1f} MB; "
        f"within {report.difference_deg:.1g} degrees of torch on {report.heads} random inputs."
    )


@command.command("list", short_help="List the IO files that come with the package.")
def list_io_files() -> None:
    """List the IO files that come with the package; their names are for --io."""
    from ubhpd.core.text import table
    from ubhpd.inference.io_file import read, shipped

    rows = [["name", "model", "license", "source"]]
    for name in shipped():
        io = read(name)
        rows.append([name, io.title, io.license, io.source])
    click.echo(table(rows))


@command.command(short_help="Propose the IO file of an ONNX or OpenVINO model.")
@click.argument("file", type=PATH)
@click.option("--manifest", type=PATH, required=True, help="Labelled heads: a manifest, or a build's folder.")
@click.option("--heads", default=200, show_default=True, help="How many of them to use.")
@click.option("--out", type=PATH, help="Write the proposal there instead of printing it, as FILE.io.toml.")
@click.option("--quiet", is_flag=True, help="Print nothing but the proposal and errors.")
def inspect(file: Path, manifest: Path, heads: int, out: Path | None, quiet: bool) -> None:
    """Propose how a model takes images and gives poses, from labelled heads.

    Every crop, colour and value range is tried with every reading of the outputs that their shapes allow. The reading
    with the smallest median error is the proposal; read it before you use it. Exit code 0 good, 1 if even the best
    reading is off by more than 20 degrees, 2 wrong input.
    """
    from ubhpd.core.files import replacing
    from ubhpd.core.progress import Progress
    from ubhpd.inference.inspecting import propose

    found = propose(file, manifest, Progress(show=not quiet), heads)
    if out is None:
        click.echo(found.text, nl=False)
    else:
        with replacing(out) as part:
            part.write_text(found.text, encoding="utf-8")
    if not quiet:
        click.echo(
            f"On {found.heads} heads: median geodesic error {found.median_deg:.2f} degrees, MAE {found.mae_deg:.2f}; "
            f"the next best crop, colour or value range has a median of {found.second_deg:.2f}.",
            err=True,
        )
    click.get_current_context().exit(1 if found.median_deg > 20 else 0)
