"""`ubhpd protocols`: the named protocols, their definitions, and what they give on a manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ubhpd.commands._completion import complete_protocol
from ubhpd.core.errors import UbhpdError

if TYPE_CHECKING:
    from ubhpd.protocols.resolve import Protocol, Resolution

PATH = click.Path(path_type=Path)


@click.command(short_help="List the fixed training and test sets.")
@click.argument("protocol_id", metavar="[ID]", required=False, shell_complete=complete_protocol)
@click.option(
    "--manifest",
    type=PATH,
    metavar="OUT",
    help="A build's folder, or a manifest: which heads the protocol takes there.",
)
@click.option("--list", "list_out", type=PATH, metavar="FILE", help="Write the heads with their split, as CSV.")
@click.option("--frames", type=PATH, help="List of frames, for protocols that need one: lines as 01/frame_00003.")
@click.option("--seed", type=int, help="Seed, for protocols that divide one dataset; default 0.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(
    protocol_id: str | None, manifest: Path | None, list_out: Path | None, frames: Path | None, seed: int | None,
    as_json: bool,
) -> None:  # fmt: skip
    """List the protocols; with ID its definition; with --manifest the heads it takes there, their number and hash.

    ID may also be 1, 2, 3 or cross, as papers call their protocols. Exit code 0 good, 2 wrong input.
    """
    from ubhpd.protocols.resolve import PROTOCOLS, protocols_named, resolve

    if protocol_id is None:
        _refuse("needs the ID of a protocol", list=list_out, frames=frames, seed=seed)
        rows = _listed(list(PROTOCOLS.values()), manifest)
        text = _found_text if manifest is not None else _list_text
        click.echo(_json(rows) if as_json else text(rows))
        return
    named = protocols_named(protocol_id)
    if len(named) > 1:
        _refuse(f"needs one protocol: {protocol_id} means {', '.join(p.id for p in named)}", list=list_out, seed=seed)
        if manifest is None:
            content = [own.as_dict() for own in named]
            click.echo(_json(content) if as_json else "\n\n".join(map(_definition_text, named)))
            return
        rows = _listed(list(named), manifest)
        click.echo(_json(rows) if as_json else _found_text(rows))
        return
    wanted = named[0]
    if wanted.divide is None:
        _refuse(f"is of no use: {wanted.id} divides nothing", seed=seed)
    if manifest is None:
        _refuse("needs --manifest", list=list_out, frames=frames, seed=seed)
        click.echo(_json(wanted.as_dict()) if as_json else _definition_text(wanted))
        return
    resolution = resolve(wanted.id, manifest, frames, seed or 0)
    if list_out is not None:
        _write_list(resolution, list_out)
    click.echo(_json(resolution.as_dict()) if as_json else _resolution_text(resolution, list_out))


def _refuse(reason: str, **options: Any) -> None:
    for name, value in options.items():
        if value is not None:
            raise UbhpdError(f"--{name} {reason}.")


def _listed(protocols: list[Protocol], manifest: Path | None) -> list[dict[str, Any]]:
    """Return a row per protocol: what it is, and with a manifest what it gives there or why it gives nothing."""
    from ubhpd.manifest import POOL, BuildFolder, header
    from ubhpd.protocols.resolve import resolve

    if manifest is not None:
        header(BuildFolder.at(manifest).manifest(POOL))  # one sentence about a bad manifest, not one per protocol
    rows = []
    for own in protocols:
        row: dict[str, Any] = own.as_dict()
        if manifest is not None:
            try:
                row["resolution"] = resolve(own.id, manifest).as_dict()
            except UbhpdError as error:
                row["error"] = str(error)
        rows.append(row)
    return rows


def _list_text(rows: list[dict[str, Any]]) -> str:
    from ubhpd.core.text import table

    cells = [["id", "series", "version", "definition", ""]]
    cells += [[r["id"], r["series"], str(r["version"]), r["definition_hash"][:12], r["sentence"]] for r in rows]
    return f"{table(cells)}\nMore on one of them: ubhpd protocols ID"


def _found_text(rows: list[dict[str, Any]]) -> str:
    from ubhpd.core.text import table

    cells = [["id", "train", "test", "list", "as published"]]
    for row in (r for r in rows if "resolution" in r):
        own = row["resolution"]
        counts = [f"{own['counts'][side]['heads']:,}" for side in ("train", "test")]
        cells.append(
            [row["id"], *counts, own["hash"][:12], "no" if own["warnings"] else "yes" if row["published"] else ""]
        )
    refused = [r["error"] for r in rows if "error" in r]
    return "\n".join([*([table(cells)] if cells[1:] else []), *refused])


def _definition_text(own: Protocol) -> str:
    divide = own.divide
    sides = (
        [f"  train       {own.train}", f"  test        {own.test}"]
        if divide is None
        else [f"  heads       {own.train}", f"  divided     {divide.share:.0%} train, by {divide.form}"]
    )
    published = [f"  published   {side}: {p.heads:,} heads" for side, p in own.published.items()]
    return "\n".join(
        [
            f"{own.id}, version {own.version}, series {own.series}",
            f"  {own.sentence}",
            f"  paper       {own.paper}",
            *sides,
            *published,
            *([f"  note        {own.note}"] if own.note else []),
            f"  definition  {own.definition_hash}",
        ]
    )


def _resolution_text(resolution: Resolution, list_out: Path | None) -> str:
    from ubhpd.core.text import table

    own = resolution.protocol
    rows = [["side", "heads", "published", "refused", "beyond angle", "shared", "sha256"]]
    for side, c in resolution.counts.items():
        published = "" if c.published is None else f"{c.published:,}"
        left_out = [f"{n:,}" for n in (c.refused, c.beyond_max_angle, c.shared)]
        rows.append([side, f"{c.heads:,}", published, *left_out, resolution.hashes[side][:16]])
    seed = "" if resolution.seed is None else f", seed {resolution.seed}"
    return "\n".join(
        [
            f"{own.id}, version {own.version}{seed}",
            table(rows),
            f"definition {own.definition_hash}",
            f"list       {resolution.hash}",
            *(f"warning: {w}" for w in resolution.warnings),
            *([f"Wrote {list_out}; sha256sum of it gives the hash of the list."] if list_out else []),
        ]
    )


def _write_list(resolution: Resolution, path: Path) -> None:
    from ubhpd.core.files import replacing
    from ubhpd.protocols.resolve import list_text

    try:
        with replacing(path) as part:
            part.write_text(list_text(resolution), encoding="utf-8", newline="")
    except OSError as error:
        raise UbhpdError(f"Cannot write {path} ({error.strerror}): choose another --list.") from None


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False)
