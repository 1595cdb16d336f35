"""`ubhpd predict`: a model's poses for the heads of a manifest, a folder of images, a video or a camera."""

from __future__ import annotations

from pathlib import Path

import click

from ubhpd.commands._completion import complete_io_file, complete_recipe, complete_runnable_model
from ubhpd.commands._options import Choice, Renamed

PATH = click.Path(path_type=Path)


@click.command(short_help="Run a model on face images.")
@click.option(
    "--model",
    metavar="NAME",
    shell_complete=complete_runnable_model,
    help="See: ubhpd models. Default: the model of the weights.",
)
@click.option("--weights", type=PATH, help="A checkpoint of ubhpd; see: ubhpd weights.")
@click.option(
    "--onnx",
    type=PATH,
    multiple=True,
    metavar="FILE",
    help="A model of others: an ONNX file, or an OpenVINO model (.xml). Several, one option each, are averaged.",
)
@click.option(
    "--io",
    metavar="FILE|NAME",
    shell_complete=complete_io_file,
    help="How that model takes images and gives poses; a file, or a name of: ubhpd onnx list. Default: the file "
    "FILE.io.toml beside it.",
)
@click.option(
    "--python",
    metavar="MODULE:FUNCTION",
    help="A function that takes crops (n, size, size, 3) of uint8 and returns angles (n, 3) or rotations (n, 3, 3).",
)
@click.option(
    "--crop",
    metavar="RECIPE",
    shell_complete=complete_recipe,
    help="Cut all heads by this recipe instead of the model's own; see: ubhpd export --list-recipes.",
)
@click.option(
    "--manifest",
    type=PATH,
    help="Run the model on the heads of this manifest with build.json beside it, or of a build's folder: "
    "UBHPD if it is there, else the pool.",
)
@click.option("--split", metavar="NAME", help="Of the manifest only this split, as test.")
@click.option(
    "--images", "--pictures", "images", cls=Renamed, type=PATH, help="Predict the faces in a folder of images."
)
@click.option("--video", type=PATH, help="Predict the faces in a video, frame by frame.")
@click.option("--camera", type=int, metavar="N", help="Predict the faces in front of a camera, until interrupted.")
@click.option("--detector", default="auto", show_default=True,
              help="Finds the faces without a manifest: auto, mtcnn, yunet, cascade, none (whole image).")  # fmt: skip
@click.option("--all-faces", is_flag=True, help="Predict all faces of an image, not only the largest.")
@click.option("--landmarks", type=Choice(["dlib"]), help="Find 68 landmarks, for a model that needs them.")
@click.option("--out", type=PATH, required=True, help="The prediction file, CSV.")
@click.option("--as", "form", type=Choice(["angles", "matrix"]), default="angles", show_default=True,
              help="Write yaw,pitch,roll in degrees, or r00..r22.")  # fmt: skip
@click.option(
    "--draw", type=PATH, metavar="DIR", help="Write the images, or the video, with axes and a cube on every head."
)
@click.option("--truth", is_flag=True, help="Draw the ground truth of a manifest beside each prediction.")
@click.option("--grid", type=click.IntRange(min=1), metavar="N",
              help="Put N of the drawings, at equal distances, into one image, DIR/grid.jpg.")  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1; auto takes a GPU if there is.")
@click.option("--engine", type=Choice(["auto", "torch", "onnx", "openvino"]), default="auto", show_default=True,
              help="What runs a checkpoint's network; auto: onnxruntime, if it is installed, for 500 heads or more "
              "on a CPU.")  # fmt: skip
@click.option("--half", is_flag=True, help="Compute with 16-bit floats.")
@click.option("--channels-last", is_flag=True, help="Keep images in the memory order that is faster on tensor cores.")
@click.option("--compile", "compiled", is_flag=True, help="Compile the network first.")
@click.option("--threads", default=0, help="For reading images. Default: one per core.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.pass_context
def command(
    ctx: click.Context, model: str | None, weights: Path | None, onnx: tuple[Path, ...], io: str | None,
    python: str | None, crop: str | None, manifest: Path | None, split: str | None,
    images: Path | None, video: Path | None, camera: int | None, detector: str, all_faces: bool,
    landmarks: str | None, out: Path, form: str, draw: Path | None, truth: bool,
    grid: int | None, device: str, engine: str, half: bool, channels_last: bool,
    compiled: bool, threads: int, quiet: bool,
) -> None:  # fmt: skip
    """Run a model on face images, and write a file that ubhpd score reads.

    A head that cannot be predicted is left out and named, with the reason, in OUT.problems.csv. An interrupted run
    resumes after the last finished batch. Exit code 0 good, 1 if heads were left out, 2 wrong input.
    """
    from ubhpd.core.progress import Progress
    from ubhpd.inference.predicting import Request, predict_request
    from ubhpd.inference.prediction_file import Speed

    request = Request(
        weights=weights,
        out=out,
        model=model,
        manifest=manifest,
        split=split,
        images=images,
        video=video,
        camera=camera,
        detector=detector,
        all_faces=all_faces,
        landmarks=landmarks,
        form=form,
        draw=draw,
        truth=truth,
        grid=grid or 0,
        device=device,
        speed=Speed(half, channels_last, compiled),
        threads=threads,
        onnx=onnx,
        io=io,
        engine=engine,
        python=python,
        crop=crop,
    )
    report = predict_request(request, Progress(show=not quiet))
    if not quiet:
        if images is not None:
            from ubhpd.images.faces import listed_counts

            others = sum(report.passed_over.values())
            reasons = f": {listed_counts(report.passed_over)}" if others else ""
            click.echo(
                f"{report.images + others:,} files found: {report.images:,} images, {others:,} passed over{reasons}"
            )
        if manifest is not None:
            from ubhpd.manifest import BuildFolder, header

            path = BuildFolder.at(manifest).manifest()
            rows, left_out = header(path).rows, len(report.problems)
            rest = rows - report.heads - left_out
            rest_is = "refused, or of another split" if split else "refused"
            click.echo(
                f"{rows:,} heads in {path}: {report.heads:,} predicted, {left_out:,} left out, {rest:,} {rest_is}"
            )
        kept = f", {report.kept:,} of them by an earlier run" if report.kept else ""
        click.echo(f"{report.heads:,} heads predicted{kept}: {report.out}")
        if report.problems:
            sample_id, reason = report.problems[0]
            click.echo(
                f"{len(report.problems):,} left out, see {report.problems_file}; the first: {sample_id}: {reason}"
            )
        if report.drawn:
            click.echo(f"{'Grid of the drawings' if grid else 'Video with the poses'}: {report.drawn}")
    ctx.exit(1 if report.problems else 0)
