"""`ubhpd predict`: a model's poses for the heads of a manifest, a folder of images, a video or a camera."""

from __future__ import annotations

from pathlib import Path

import click

from ubhpd.commands._completion import complete_runnable_model

PATH = click.Path(path_type=Path)


@click.command(short_help="Run a model on face images.")
@click.option(
    "--model",
    metavar="NAME",
    shell_complete=complete_runnable_model,
    help="See: ubhpd models. Default: the model of the weights.",
)
@click.option("--weights", type=PATH, required=True, help="A checkpoint of ubhpd; see: ubhpd weights.")
@click.option(
    "--manifest",
    type=PATH,
    help="Run the model on the heads of this manifest with build.json beside it, or of a build's folder: "
    "UBHPD if it is there, else the pool.",
)
@click.option("--split", metavar="NAME", help="Of the manifest only this split, as test.")
@click.option("--images", "--pictures", "images", type=PATH, help="Predict the faces in a folder of images.")
@click.option("--video", type=PATH, help="Predict the faces in a video, frame by frame.")
@click.option("--camera", type=int, metavar="N", help="Predict the faces in front of a camera, until interrupted.")
@click.option("--detector", default="auto", show_default=True,
              help="Finds the faces without a manifest: auto, mtcnn, cascade, none (whole image).")  # fmt: skip
@click.option("--all-faces", is_flag=True, help="Predict all faces of an image, not only the largest.")
@click.option("--landmarks", type=click.Choice(["dlib"]), help="Find 68 landmarks, for a model that needs them.")
@click.option("--out", type=PATH, required=True, help="The prediction file, CSV.")
@click.option("--as", "form", type=click.Choice(["angles", "matrix"]), default="angles", show_default=True,
              help="Write yaw,pitch,roll in degrees, or r00..r22.")  # fmt: skip
@click.option(
    "--draw", type=PATH, metavar="DIR", help="Write the images, or the video, with axes and a cube on every head."
)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1; auto takes a GPU if there is.")
@click.option("--half", is_flag=True, help="Compute with 16-bit floats.")
@click.option("--channels-last", is_flag=True, help="Keep images in the memory order that is faster on tensor cores.")
@click.option("--compile", "compiled", is_flag=True, help="Compile the network first.")
@click.option("--threads", default=0, help="For reading images. Default: one per core.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.pass_context
def command(
    ctx: click.Context, model: str | None, weights: Path, manifest: Path | None, split: str | None,
    images: Path | None, video: Path | None, camera: int | None, detector: str, all_faces: bool,
    landmarks: str | None, out: Path, form: str, draw: Path | None, device: str, half: bool, channels_last: bool,
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
        device=device,
        speed=Speed(half, channels_last, compiled),
        threads=threads,
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
        kept = f", {report.kept:,} of them by an earlier run" if report.kept else ""
        click.echo(f"{report.heads:,} heads predicted{kept}: {report.out}")
        if report.problems:
            sample_id, reason = report.problems[0]
            click.echo(
                f"{len(report.problems):,} left out, see {report.problems_file}; the first: {sample_id}: {reason}"
            )
        if report.drawn:
            click.echo(f"Video with the poses: {report.drawn}")
    ctx.exit(1 if report.problems else 0)
