"""Croissant metadata of a build's folder: JSON-LD that dataset search engines and `mlcroissant` read.

Croissant 1.1 (mlcommons.org/croissant). Each manifest is a file with its SHA-256 and a record set with a field per
column; the splits are a record set of their own. No date is written, so that the same folder gives the same bytes;
`mlcroissant validate` recommends a date but does not require one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import sha256_of, write_json
from ubhpd.reports.card import CITATION, PERSONAL, Built, BuiltColumn, BuiltFile, limits, read_built

NAME = "croissant.json"

_PARQUET = "application/x-parquet"
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_SPLITS = {"train": "cr:TrainingSplit", "validation": "cr:ValidationSplit", "test": "cr:TestSplit"}
_KINDS = (
    (pa.types.is_boolean, "sc:Boolean"),
    (pa.types.is_integer, "sc:Integer"),
    (pa.types.is_floating, "sc:Float"),
    (pa.types.is_string, "sc:Text"),
)


def write_croissant(out: Path) -> Path:
    """Write OUT/croissant.json and return its path.

    Raises:
        UbhpdError: no build in OUT, a column of a type unknown to Croissant, or a folder that cannot be written to.
    """
    content = croissant(out)
    try:
        write_json(content, out / NAME)
    except OSError as error:
        raise UbhpdError(f"Cannot write {out / NAME} ({error.strerror}): check the folder.") from None
    return out / NAME


def croissant(out: Path) -> dict[str, Any]:
    """Return the JSON-LD of a build's folder.

    Raises:
        UbhpdError: no build there, or a column of a type unknown to Croissant.
    """
    built = read_built(out)
    splits = tuple(dict.fromkeys(split for f in built.files for split in f.splits))
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": built.name,
        "description": built.description(),
        "version": f"1.0.0+{built.files[-1].fingerprint[:12]}",
        "license": [f"{s.title}: {s.licence}" for s in built.sources],
        "isBasedOn": [s.homepage for s in built.sources if s.homepage],
        "creator": {"@type": "sc:Organization", "name": f"made by ubhpd {built.version}"},
        "citeAs": " ".join(dict.fromkeys([CITATION, *(s.citation for s in built.sources if s.citation)])),
        "keywords": ["head pose estimation", "yaw", "pitch", "roll", *(s.title for s in built.sources)],
        "rai:dataLimitations": limits(built),
        "rai:personalSensitiveInformation": [PERSONAL],
        "distribution": [_distribution(built, file) for file in built.files],
        "recordSet": [*([_splits(splits)] if splits else []), *(_record_set(built, file) for file in built.files)],
    }


def _distribution(built: Built, file: BuiltFile) -> dict[str, Any]:
    path = built.out / file.name
    return {
        "@type": "cr:FileObject",
        "@id": file.name,
        "name": file.name,
        "description": f"Manifest of {file.rows:,} heads, fingerprint {file.fingerprint}.",
        "contentUrl": file.name,
        "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": _PARQUET,
        "sha256": sha256_of(path),
    }


def _splits(splits: tuple[str, ...]) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "name": "splits",
        "description": "The splits.",
        "dataType": "cr:Split",
        "key": {"@id": "splits/name"},
        "field": [
            {"@type": "cr:Field", "@id": f"splits/{name}", "name": name, "description": text, "dataType": kind}
            for name, text, kind in (
                ("name", "Name of the split.", "sc:Text"),
                ("url", "What it is for.", "sc:URL"),
            )
        ],
        "data": [{"splits/name": split, "splits/url": _SPLITS.get(split, "cr:Split")} for split in splits],
    }


def _record_set(built: Built, file: BuiltFile) -> dict[str, Any]:
    name = Path(file.name).stem
    refused = "refused ones too, each with its reason" if name == "pool" else "all of them usable"
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": f"One record per head, {refused}.",
        "key": {"@id": f"{name}/sample_id"},
        "field": [_field(name, file, column) for column in file.columns],
    }


def _field(record_set: str, file: BuiltFile, column: BuiltColumn) -> dict[str, Any]:
    unit = f" Unit: {column.unit}." if column.unit else ""
    field: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"{record_set}/{column.name}",
        "name": column.name,
        "description": f"{column.meaning or column.name}.{unit}",
        "dataType": _kind(column, column.type),
        "source": {"fileObject": {"@id": file.name}, "extract": {"column": column.name}},
    }
    if column.length is not None:
        field |= {"isArray": True, "arrayShape": str(column.length)}
    if column.name == "split":
        field["references"] = {"field": {"@id": "splits/name"}}
    return field


def _kind(column: BuiltColumn, kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return _kind(column, kind.value_type)
    for is_kind, name in _KINDS:
        if is_kind(kind):
            return name
    raise UbhpdError(f"Column {column.name} has type {kind}, which Croissant does not know: store it as text.")
