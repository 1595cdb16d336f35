"""`ubhpd review`: a page on this machine to look at heads and to keep or drop them.

Every decision is in OUT/decisions.csv before it is answered, so nothing is lost when the page or the server ends.
The page answers to 127.0.0.1 alone. A visitor needs the key in the printed address, which other users of the
machine do not know; the name in the Host header is checked against DNS rebinding; a decision needs a token that
only the page has, as JSON from the same origin. Pictures are found by sample_id through the manifest and decoded
before they are sent: no other file can be had.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import socket
import threading
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from ubhpd.checking import decisions
from ubhpd.checking.decisions import Decision
from ubhpd.checking.review_heads import Heads, filter_from
from ubhpd.errors import UbhpdError
from ubhpd.progress import Progress
from ubhpd.raw.images import Images

if TYPE_CHECKING:
    from flask import Flask, Response
    from werkzeug.serving import BaseWSGIServer

HOSTS = ("127.0.0.1", "localhost")
PORT = 8765
PAGE_SIZE = 24

_ASSETS = {"review.css": "text/css", "review.js": "text/javascript"}
_SIDES = {"face": 288, "near": 720, "whole": 1200}  # longest side of a picture that is sent, in pixels
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
        images: where its pictures are.
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
            answer = redirect("/")
            answer.set_cookie(cookie(), key, httponly=True, samesite="Strict")
            return answer
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

    @app.get("/api/picture/<view>")
    def picture(view: str) -> Any:
        if view not in _SIDES:
            abort(404)
        row = heads.row(request.args.get("id", ""))
        dataset, path, frame = heads.picture(row)
        with of_images:
            pixels = images.picture(dataset, path, frame)
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
        raise UbhpdError(f"--host {host} is not this machine: the page shows licensed pictures, so use {HOSTS[0]}.")
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
    return (files("ubhpd.checking") / "review_page" / name).read_text(encoding="utf-8")


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UbhpdError(f"{text[:40]!r} is not a whole number.")
    return int(text)


def _jpeg(pixels: np.ndarray[Any, Any], crop: list[int] | None, longest: int) -> bytes:
    """Return a picture, or the part of it, as JPEG no longer than `longest` on its longer side."""
    import cv2

    if crop is not None:
        pixels = pixels[crop[1] : crop[3], crop[0] : crop[2]]
    scale = longest / max(pixels.shape[:2])
    if scale < 1:
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1])
