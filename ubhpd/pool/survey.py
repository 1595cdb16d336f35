"""What datasets are known, how to get them, and which of them lie below a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from ubhpd import registry
from ubhpd.raw.discover import discover
from ubhpd.raw.source import Source
from ubhpd.raw.trees import TreeSpec, is_archive, open_tree


def survey(data_root: str | None, names: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Return a card per dataset: what it is, how to get it, its options, and where and how much of it was found.

    `heads_listed` counts labels by the listing alone, without reading them; it is None for a compressed tar,
    which would have to be read through.

    Raises:
        UbhpdError: an unknown name, a data root that does not exist, or a dataset found twice.
    """
    chosen = registry.select(names) if names else registry.builders()
    specs = discover(chosen, data_root, {}).specs if data_root else {}
    return {name: _card(builder, specs.get(name)) for name, builder in chosen.items()}


def _card(builder: registry.Builder, spec: TreeSpec | None) -> dict[str, Any]:
    return {
        "name": builder.NAME,
        "title": builder.TITLE,
        "homepage": builder.HOMEPAGE,
        "licence": builder.LICENSE,
        "citation": builder.CITATION,
        "access": builder.ACCESS,
        "layout": builder.LAYOUT,
        "published": builder.PUBLISHED,
        "options": {
            f.name: {"default": f.default, "choices": list(f.metadata.get("choices", ()))}
            for f in fields(builder.Options)
        },
        "found": [TreeSpec((part,)).where for part in spec.parts] if spec else [],
        "heads_listed": _listed(builder, spec) if spec else None,
    }


def _listed(builder: registry.Builder, spec: TreeSpec) -> int | None:
    if any(is_archive(place) and not place.lower().endswith((".zip", ".tar")) for place, _ in spec.parts):
        return None
    return sum(unit.size for unit in builder.units(Source(open_tree(spec)), builder.Options()))
