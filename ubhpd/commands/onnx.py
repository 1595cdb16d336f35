"""`ubhpd onnx`: a checkpoint as an ONNX file for other runtimes."""

from __future__ import annotations

from pathlib import Path

import click

PATH = click.Path(path_type=Path)


@click.command(short_help="Write a network as an ONNX file.")
@click.option("--weights", type=PATH, required=True, help="A checkpoint of ubhpd; see: ubhpd weights.")
@click.option("--out", type=PATH, required=True, help="The file to write, M.onnx.")
@click.option("--opset", default=17, show_default=True, help="Version of ONNX's operators.")
@click.option("--check", "heads", default=16, show_default=True, help="Random inputs to compare with torch.")
def command(weights: Path, out: Path, opset: int, heads: int) -> None:
    """Write a network as ONNX: uint8 crops (n, size, size, 3) in, yaw, pitch, roll (n, 3) in degrees out.

    The file is written only if onnxruntime gives what torch gives, one head at a time and all at once.
    """
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
