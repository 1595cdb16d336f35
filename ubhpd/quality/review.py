"""The heads that `ubhpd review` shows: filtered by dataset, bin, flag and decision, and what is known of each.

`ubhpd review`: a page on this machine to look at heads and to keep or drop them.

Every decision is in OUT/decisions.csv before the server responds, so nothing is lost when the page or the server ends.
The server listens on 127.0.0.1 only. A visitor needs the key in the printed address, which other users of the
machine do not know; the name in the Host header is checked against DNS rebinding; a decision needs a token that
only the page has, as JSON from the same origin. Images are found by sample_id through the manifest and decoded
before they are sent: no other file can be had.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ubhpd import manifest
from ubhpd.core import bins
from ubhpd.core.errors import UbhpdError
from ubhpd.core.progress import Progress
from ubhpd.core.records import OF_SOURCE_PHOTO
from ubhpd.core.typing import AnyArray, FloatArray, IntArray
from ubhpd.images.reading import Images
from ubhpd.manifest import BuildFolder
from ubhpd.quality import checks, decisions
from ubhpd.quality.decisions import DROP, KEEP, Decision

STATES = ("undecided", KEEP, DROP)
OUTSIDE = "outside"  # the name of what is in no bin
ANY, NONE = "any", "none"  # flags: at least one of them, not one of them

_MARGIN = 0.35  # of the box, shown around it on every side
_MIN_CROP_PX = 8
_LIGHT = ("sample_id", "dataset", "subject_id", "image_path", "frame_index", "image_width", "image_height", "bbox_kind",
          "landmarks_kind", "drop_reason", "drop_detail")  # fmt: skip
_LISTS = ("bbox_xyxy", "rotation", "landmarks68", "landmarks21")


@dataclass(frozen=True)
class Filter:
    """Which heads to show; an empty string takes all. yaw, pitch and roll: the number of a bin, or `outside`."""

    dataset: str = ""
    yaw: str = ""
    pitch: str = ""
    roll: str = ""
    flag: str = ""
    decision: str = ""
    text: str = ""


class Heads:
    """The usable heads of a build, their flags, and the decisions on them as they are on disk."""

    def __init__(self, out: Path, progress: Progress | None = None) -> None:
        """Read the build in `out`.

        Raises:
            UbhpdError: there is no manifest, or the decisions beside it are not valid.
        """
        path = BuildFolder.at(out).pool()
        self.path = path.parent / "decisions.csv"
        self.fingerprint = manifest.header(path).fingerprint
        angles = [f"{a}_deg" for a in bins.ANGLES]
        table = manifest.read(path, [*_LIGHT, *angles, *_LISTS])
        reasons = table.column("drop_reason")
        shown = pc.or_(reasons.is_null(), pc.is_in(reasons, pa.array(checks.REVIEWED)))
        self._all_ids = table.column("sample_id")
        self._table = table.filter(shown).combine_chunks()
        self._ids: list[str] = self._table.column("sample_id").to_pylist()
        self._row = {name: row for row, name in enumerate(self._ids)}
        self._ypr = np.stack([self._table.column(a).to_numpy() for a in angles], axis=1).astype(np.float64)
        self._bin = bins.bin_index(self._ypr)
        self._dataset = np.array(self._table.column("dataset").to_pylist(), dtype=object)
        flags = checks.check_manifest(path, progress=progress).to_pylist()
        self._flags: dict[int, list[dict[str, Any]]] = {}
        for flag in flags:
            if (row := self._row.get(flag["sample_id"])) is not None:
                value = flag["value"] if np.isfinite(flag["value"]) else None
                self._flags.setdefault(row, []).append({"flag": flag["flag"], "value": value, "detail": flag["detail"]})
        self._decisions: dict[str, Decision] = {}
        self._state = np.zeros(len(self._ids), dtype=np.int64)
        self._stamp: Any = None
        self.refresh()

    def __len__(self) -> int:
        return len(self._ids)

    def refresh(self) -> None:
        """Read the decisions again if the file has changed, by this or another program.

        Raises:
            UbhpdError: the file is no longer valid.
        """
        try:
            status = self.path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        except FileNotFoundError:
            stamp = None
        if stamp == self._stamp:
            return
        found = decisions.read(self.path, self._all_ids) if stamp and stamp[1] else {}
        self._state[:] = 0
        for name, one in found.items():
            if name in self._row:
                self._state[self._row[name]] = STATES.index(one.decision)
        self._decisions, self._stamp = found, stamp

    def decision(self, sample_id: str) -> Decision | None:
        """Return what is decided on a head, as of the last refresh."""
        return self._decisions.get(sample_id)

    def last_of(self, who: str) -> str | None:
        """Return the head that `who` decided on last, by the order of the file."""
        return next((d.sample_id for d in reversed(self._decisions.values()) if d.who == who), None)

    def select(self, wanted: Filter) -> IntArray:
        """Return the rows of the heads that pass, in the manifest's order; by a flag's value where one is chosen.

        Raises:
            UbhpdError: a filter that is not one.
        """
        keep = np.ones(len(self), dtype=bool)
        if wanted.dataset:
            keep &= self._dataset == wanted.dataset
        for axis, angle in enumerate(bins.ANGLES):
            if text := getattr(wanted, angle):
                keep &= self._bin[:, axis] == _bin_number(angle, text)
        if wanted.decision:
            if wanted.decision not in STATES:
                raise UbhpdError(f"There is no decision {wanted.decision!r}: choose {', '.join(STATES)}.")
            keep &= self._state == STATES.index(wanted.decision)
        if wanted.text:
            keep &= pc.match_substring(self._table.column("sample_id"), wanted.text).to_numpy()
        if not wanted.flag:
            return np.flatnonzero(keep)
        value = self._value_of(wanted.flag)
        keep &= np.isnan(value) if wanted.flag == NONE else ~np.isnan(value)
        rows = np.flatnonzero(keep)
        return rows if wanted.flag in (ANY, NONE) else rows[np.argsort(-value[rows], kind="stable")]

    def row(self, sample_id: str) -> int:
        """Return the row of a head.

        Raises:
            UbhpdError: it is not among the heads shown.
        """
        if sample_id not in self._row:
            raise UbhpdError(f"There is no head {sample_id[:80]!r} to review.")
        return self._row[sample_id]

    def card(self, row: int) -> dict[str, Any]:
        """Return what is known of a head, as what JSON can hold; coordinates are pixels of the whole image."""
        light = {n: self._table.column(n)[row].as_py() for n in (*_LIGHT, *_LISTS)}
        # 300W-LP crops its warped images by the box of the photograph before: it is shown, and says so.
        points = light.pop("landmarks68") or light.pop("landmarks21", None)
        light.pop("landmarks21", None)
        decided = self._decisions.get(light["sample_id"])
        return {
            **light,
            "ypr_deg": [None if np.isnan(a) else round(float(a), 2) for a in self._ypr[row]],
            "landmarks": None if points is None else [round(p, 1) if p == p else None for p in points],
            "crop": self.crop(row),
            "window": self._window(row),
            "flags": self._flags.get(row, []),
            "decision": None if decided is None else decided._asdict(),
        }

    def image(self, row: int) -> tuple[str, str, int | None]:
        """Return dataset, path and frame of a head's image.

        Raises:
            UbhpdError: the path would lead out of the dataset, or there is none.
        """
        dataset, path, frame = (self._table.column(n)[row].as_py() for n in ("dataset", "image_path", "frame_index"))
        if not path:
            raise UbhpdError(f"{self._ids[row]} has no image.")
        if path.startswith(("/", "~")) or "\\" in path or "\0" in path or ".." in path.split("/"):
            raise UbhpdError(f"{self._ids[row]} has the image_path {path!r}, which leads out of its dataset: refused.")
        return dataset, path, frame

    def crop(self, row: int) -> list[int] | None:
        """Return left, top, right, bottom of the part of the image around the face; None for all of it."""
        size = [self._table.column(n)[row].as_py() for n in ("image_width", "image_height")]
        if (window := self._window(row)) is None or None in size:
            return None
        low = [max(v, 0) for v in window[:2]]
        high = [min(v, limit) for v, limit in zip(window[2:], size, strict=True)]
        return [*low, *high] if min(high[0] - low[0], high[1] - low[1]) >= _MIN_CROP_PX else None

    def counts(self) -> dict[str, int]:
        """Return how many heads there are, and how many in each state."""
        per_state = np.bincount(self._state, minlength=len(STATES)).tolist()
        return {"heads": len(self), **dict(zip(STATES, per_state, strict=True))}

    def choices(self) -> dict[str, Any]:
        """Return what can be filtered by, with the number of heads of each choice."""
        names, sizes = np.unique(self._dataset.astype(str), return_counts=True)
        flags = {name: int((~np.isnan(self._value_of(name))).sum()) for name in checks.FLAGS}
        per_bin = {}
        for axis, angle in enumerate(bins.ANGLES):
            inside = np.bincount(self._bin[:, axis] + 1, minlength=bins.N_BINS + 1).tolist()
            per_bin[angle] = {"inside": inside[1:], OUTSIDE: inside[0]}
        return {
            "datasets": dict(zip(names.tolist(), sizes.tolist(), strict=True)),
            "bins": per_bin,
            "edges_deg": bins.EDGES_DEG.tolist(),
            "flags": {n: {"heads": k, "meaning": checks.FLAGS[n]} for n, k in flags.items()},
            "any_flag": len(self._flags),
        }

    def _window(self, row: int) -> list[int] | None:
        """Return left, top, right, bottom of a square around the face, which may leave the image."""
        box = self._table.column("bbox_xyxy")[row].as_py()
        is_own = not (self._table.column("bbox_kind")[row].as_py() or "").endswith(OF_SOURCE_PHOTO)
        if box is None or not is_own or not np.isfinite(box).all():
            return None
        half = max(box[2] - box[0], box[3] - box[1], _MIN_CROP_PX) * (0.5 + _MARGIN)
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        return [round(v) for v in (x - half, y - half, x + half, y + half)]

    def _value_of(self, flag: str) -> FloatArray:
        """Return the value of a flag (n,), NaN where a head does not have it."""
        if flag not in checks.FLAGS and flag not in (ANY, NONE):
            raise UbhpdError(f"There is no flag {flag!r}: choose {', '.join(checks.FLAGS)}, {ANY} or {NONE}.")
        value = np.full(len(self), np.nan)
        for row, own in self._flags.items():
            for one in own:
                if flag in (ANY, NONE, one["flag"]):
                    value[row] = np.inf if one["value"] is None else one["value"]
        return value


def filter_from(arguments: Mapping[str, str]) -> Filter:
    """Return the filter that the arguments of a request name; what is no part of it is left alone."""
    return Filter(**{n: arguments.get(n, "") for n in Filter.__dataclass_fields__})


def _bin_number(angle: str, text: str) -> int:
    if text == OUTSIDE:
        return bins.OUTSIDE
    if not (text.isascii() and text.isdigit() and int(text) < bins.N_BINS):
        raise UbhpdError(f"There is no bin {text[:40]!r} of {angle}: give 0 to {bins.N_BINS - 1}, or {OUTSIDE}.")
    return int(text)


if TYPE_CHECKING:
    from flask import Flask, Response
    from werkzeug.serving import BaseWSGIServer

HOSTS = ("127.0.0.1", "localhost")
PORT = 8765
PAGE_SIZE = 24

_ASSETS = {"review.css": "text/css", "review.js": "text/javascript"}
_SIDES = {"face": 288, "near": 720, "whole": 1200}  # longest side of an image that is sent, in pixels
_JPEG_QUALITY = 90
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def create_app(heads: Heads, images: Images, who: str, key: str) -> Flask:
    """Return the web application.

    Args:
        heads: what is reviewed.
        images: where its images are.
        who: written beside every decision.
        key: what a visitor must know.

    Raises:
        UbhpdError: Flask is not installed.
    """
    try:
        from flask import Flask, abort, jsonify, make_response, redirect, request
    except ImportError:
        raise UbhpdError("The review page needs Flask: pip install 'ubhpd[web]'.") from None

    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = 16 * 1024
    token = hmac.new(key.encode(), b"decide", hashlib.sha256).hexdigest()
    of_heads, of_images = threading.Lock(), threading.Lock()
    undo: list[tuple[str, Decision | None]] = []  # head, and the decision on it before

    def cookie() -> str:
        return f"ubhpd_review_{urlsplit('//' + request.host).port or 80}"

    @app.before_request
    def guard() -> Any:
        if (urlsplit("//" + request.host).hostname or "") not in HOSTS:
            return _refusal("This page answers to 127.0.0.1 and localhost only.", 403)
        is_entrance = request.path == "/" and request.method == "GET"
        if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin") and not is_entrance:
            return _refusal("Another site asked for this: refused.", 403)
        shown = request.args.get("key", "") if is_entrance and "key" in request.args else None
        if not hmac.compare_digest((shown or request.cookies.get(cookie(), "")).encode(), key.encode()):
            return _refusal("Open the address that ubhpd review printed: it holds the key to this page.", 403)
        if request.method == "POST":
            origin = request.headers.get("Origin")
            if origin is not None and origin != f"http://{request.host}":
                return _refusal("Another site asked for this: refused.", 403)
            given = request.headers.get("X-Ubhpd-Token", "")
            if not request.is_json or not hmac.compare_digest(given.encode(), token.encode()):
                return _refusal("A decision needs JSON and the token of this page: reload it.", 403)
        return None

    @app.after_request
    def harden(response: Response) -> Response:
        for name, value in _HEADERS.items():
            response.headers[name] = value
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    @app.errorhandler(UbhpdError)
    def sentence(error: UbhpdError) -> Any:
        return _refusal(str(error), 400)

    def _refusal(text: str, status: int) -> Any:
        return make_response(jsonify(error=text), status)

    @app.get("/")
    def page() -> Any:
        if "key" in request.args:  # out of the address bar, into a cookie
            response = redirect("/")
            response.set_cookie(cookie(), key, httponly=True, samesite="Strict")
            return response
        text = _asset("index.html").replace("{{token}}", token)
        return make_response(text, {"Content-Type": "text/html; charset=utf-8"})

    @app.get("/page/<name>")
    def asset(name: str) -> Any:
        if name not in _ASSETS:
            abort(404)
        return make_response(_asset(name), {"Content-Type": f"{_ASSETS[name]}; charset=utf-8"})

    @app.get("/api/setup")
    def setup() -> Any:
        with of_heads:
            heads.refresh()
            return jsonify(who=who, page_size=PAGE_SIZE, file=str(heads.path), fingerprint=heads.fingerprint[:16],
                           counts=heads.counts(), choices=heads.choices())  # fmt: skip

    @app.get("/api/heads")
    def listed() -> Any:
        offset, limit = _whole(request.args.get("offset", "0")), _whole(request.args.get("limit", str(PAGE_SIZE)))
        with of_heads:
            heads.refresh()
            rows = heads.select(filter_from(request.args))
            cards = [heads.card(row) for row in rows[offset : offset + min(limit, 200)].tolist()]
            return jsonify(total=len(rows), offset=offset, heads=cards, counts=heads.counts())

    @app.get("/api/image/<view>")
    def image(view: str) -> Any:
        if view not in _SIDES:
            abort(404)
        row = heads.row(request.args.get("id", ""))
        dataset, path, frame = heads.image(row)
        with of_images:
            pixels = images.image(dataset, path, frame)
        data = _jpeg(pixels, None if view == "whole" else heads.crop(row), _SIDES[view])
        return make_response(data, {"Content-Type": "image/jpeg", "Cache-Control": "private, max-age=3600"})

    def changing(change: Callable[[dict[str, Any]], str]) -> Any:
        content = request.get_json(silent=True)
        if not isinstance(content, dict):
            return _refusal("A decision is a JSON object with sample_id, decision and reason.", 400)
        with of_heads:
            heads.refresh()
            name = change(content)
            heads.refresh()
            return jsonify(head=heads.card(heads.row(name)), counts=heads.counts())

    @app.post("/api/decide")
    def decide() -> Any:
        def change(content: dict[str, Any]) -> str:
            name, decision, reason = (content.get(n) for n in ("sample_id", "decision", "reason"))
            if not isinstance(name, str) or not isinstance(reason, str | None) or "decision" not in content:
                raise UbhpdError("A decision has a sample_id, keep, drop or null as decision, and a reason.")
            heads.row(name)
            before = heads.decision(name)
            if decision is None:
                decisions.withdraw(heads.path, name)
            else:
                decisions.record(heads.path, Decision(name, str(decision), reason or "", who))
            undo.append((name, before))
            return name

        return changing(change)

    @app.post("/api/undo")
    def take_back() -> Any:
        def change(content: dict[str, Any]) -> str:
            name, before = undo[-1] if undo else (heads.last_of(who), None)
            if name is None:
                raise UbhpdError("There is nothing to undo.")
            if before is None:
                decisions.withdraw(heads.path, name)
            else:
                decisions.record(heads.path, before)
            if undo:
                undo.pop()
            return name

        return changing(change)

    return app


def open_server(
    out: Path, host: str = HOSTS[0], port: int = PORT, who: str = "", progress: Progress | None = None
) -> tuple[BaseWSGIServer, str]:
    """Return a server that waits for serve_forever, and the address to open.

    Args:
        out: folder of a build.
        host: 127.0.0.1 or localhost; no other is taken.
        port: 0 for any that is free.
        who: written beside every decision.
        progress: what to tell about the checks that run first.

    Raises:
        UbhpdError: Flask is not installed, another host, a port in use, or no build there.
    """
    if host not in HOSTS:
        raise UbhpdError(f"--host {host} is not this machine: the page shows licensed images, so use {HOSTS[0]}.")
    if not out.is_dir():
        raise UbhpdError(f"{out} is not the folder of a build: name the one that ubhpd build --out wrote to.")
    key = _key(out / "work" / "review.key")
    app = create_app(Heads(out, progress), Images.of_build(out), who, key)
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Silent(WSGIRequestHandler):
        def log_request(self, *_: Any) -> None:
            pass

    try:
        with socket.create_server((HOSTS[0], port)) as bound:
            taken = bound.getsockname()[1]
            # The server listens on a copy of this socket: it would end the program if it found the port in use.
            server = make_server(HOSTS[0], taken, app, threaded=True, request_handler=Silent, fd=bound.fileno())
    except OSError as error:
        raise UbhpdError(f"Port {port} cannot be used ({error.strerror}): choose another --port, or 0.") from None
    return server, f"http://{HOSTS[0]}:{taken}/?key={key}"


def _key(path: Path) -> str:
    """Return the key of this build's page, the same after a restart; only its user can read it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            if len(key := path.read_text(encoding="ascii").strip()) >= 32:
                return key
            fd = os.open(path, os.O_WRONLY | os.O_TRUNC)
        key = secrets.token_urlsafe(24)
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(key + "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UbhpdError(f"The key of the page cannot be kept in {path} ({error}): make the folder writable.") from None
    return key


def _asset(name: str) -> str:
    return (files("ubhpd.quality") / "review_page" / name).read_text(encoding="utf-8")


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UbhpdError(f"{text[:40]!r} is not a whole number.")
    return int(text)


def _jpeg(pixels: AnyArray, crop: list[int] | None, longest: int) -> bytes:
    """Return an image, or the part of it, as JPEG no longer than `longest` on its longer side."""
    import cv2

    if crop is not None:
        pixels = pixels[crop[1] : crop[3], crop[0] : crop[2]]
    scale = longest / max(pixels.shape[:2])
    if scale < 1:
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1])
