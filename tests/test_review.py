"""The review page's server: who may ask, what it tells, and that a decision is on disk before it is answered."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from importlib.resources import files

import cv2
import numpy as np
import pytest

from ubhpd import cli, manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.core.records import Record
from ubhpd.core.rotation import matrix_from_euler
from ubhpd.images.reading import Images
from ubhpd.manifest.schema import table_from_records
from ubhpd.pool.build import BuildConfig, build
from ubhpd.quality import review
from ubhpd.quality.decisions import Decision, read, record
from ubhpd.quality.review import Filter, Heads
from ubhpd.raw.trees import TreeSpec
from ubhpd.synth.writers import aflw_writer, biwi_writer, w300lp_writer

pytest.importorskip("flask", reason="the review page needs Flask: pip install 'ubhpd[web]'")

KEY = "k" * 32
SITE = "http://127.0.0.1:8765"
ONE = "biwi/01/frame_00003"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("built")
    biwi_writer.write(root / "raw", (1,), frames=8, with_depth=False)
    aflw_writer.write(root / "raw", 30, seed=2)
    w300lp_writer.write(root / "raw", 12, seed=3, bad_flips=2)
    build(BuildConfig(("biwi", "aflw", "300wlp"), root / "out", str(root / "raw")))
    Heads(root / "out")  # so that the flags are there
    return root / "out"


@pytest.fixture
def out(built):
    yield built
    (built / "decisions.csv").unlink(missing_ok=True)


@pytest.fixture
def heads(out):
    return Heads(out)


class Browser:
    """A page that has been opened with its key, on which the token stands."""

    def __init__(self, app, host="127.0.0.1:8765"):
        self.client, self.site = app.test_client(), f"http://{host}"
        self.client.get(f"/?key={KEY}", base_url=self.site)
        page = self.client.get("/", base_url=self.site).text
        self.token = re.search(r'name="ubhpd-token" content="(\w+)"', page)[1]

    def get(self, path, **headers):
        return self.client.get(path, base_url=self.site, headers=headers)

    def post(self, path, content, **headers):
        sent = {"X-Ubhpd-Token": self.token, "Origin": self.site, "Sec-Fetch-Site": "same-origin"} | headers
        return self.client.post(path, base_url=self.site, json=content, headers=sent)

    def decide(self, sample_id, decision, reason=""):
        return self.post("/api/decide", {"sample_id": sample_id, "decision": decision, "reason": reason})


@pytest.fixture
def app(heads, out):
    return review.create_app(heads, Images.of_build(out), "anna", KEY)


@pytest.fixture
def browser(app):
    return Browser(app)


# ---- who may ask


def test_without_the_key_nothing_is_shown(app):
    client = app.test_client()
    for path in ("/", "/api/setup", "/api/heads", "/page/review.js", "/api/image/face?id=x", "/?key=wrong", "/?key="):
        answer = client.get(path, base_url=SITE)
        assert answer.status_code == 403 and "printed" in answer.json["error"], path


def test_the_key_leaves_the_address_for_a_cookie(app):
    answer = app.test_client().get(f"/?key={KEY}", base_url=SITE)
    assert (answer.status_code, answer.headers["Location"]) == (302, "/")
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "0.0.0.0", "[::1]", "192.168.0.7"]
)
def test_a_rebound_name_is_refused(app, host):
    answer = app.test_client().get(f"/?key={KEY}", headers={"Host": host})
    assert answer.status_code in (400, 403) and b"ubhpd-token" not in answer.data


def test_a_tunnel_to_another_port_works(app):
    for host in ("localhost:9999", "127.0.0.1:1"):
        assert Browser(app, host).decide(ONE, "keep").status_code == 200


BAD_POSTS = {
    "another origin": {"Origin": "http://evil.example"},
    "another port": {"Origin": "http://127.0.0.1:1"},
    "no origin at all": {"Origin": "null"},
    "cross site": {"Sec-Fetch-Site": "cross-site"},
    "wrong token": {"X-Ubhpd-Token": "x" * 64},
    "odd token": {"X-Ubhpd-Token": "\u00e4"},
    "a form": {"Content-Type": "text/plain"},
    "another form": {"Content-Type": "application/x-www-form-urlencoded"},
}


@pytest.mark.parametrize("case", BAD_POSTS)
def test_a_decision_from_elsewhere_is_refused(case, browser, out):
    content = {"sample_id": ONE, "decision": "drop", "reason": ""}
    for path in ("/api/decide", "/api/undo"):
        assert browser.post(path, content, **BAD_POSTS[case]).status_code == 403
    assert not (out / "decisions.csv").exists()


def test_a_cookie_alone_decides_nothing_and_neither_does_get(browser, out):
    sent = {"sample_id": ONE, "decision": "drop"}
    assert browser.client.post("/api/decide", base_url=SITE, json=sent).status_code == 403
    assert browser.get("/api/decide").status_code == 405
    assert browser.get("/api/heads", **{"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert not (out / "decisions.csv").exists()


def test_every_answer_forbids_foreign_code_and_frames(browser):
    for path in ("/", "/api/setup", "/page/review.js", "/nothing"):
        headers = browser.get(path).headers
        assert "script-src 'self'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_the_page_asks_nobody_else_and_holds_no_inline_code():
    for name in ("index.html", "review.css", "review.js"):
        text = (files("ubhpd.quality") / "review_page" / name).read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|\bon\w+=\"|style=\"|innerHTML", text), name


# ---- what can be read


def pixels_of(answer):
    assert answer.mimetype == "image/jpeg"
    return cv2.imdecode(np.frombuffer(answer.data, np.uint8), cv2.IMREAD_COLOR)


def test_images(browser, heads):
    card = heads.card(heads.row(ONE))
    left, top, right, bottom = card["crop"]
    whole = pixels_of(browser.get("/api/image/whole?id=biwi/01/frame_00003"))
    face = pixels_of(browser.get("/api/image/face?id=biwi/01/frame_00003"))
    assert whole.shape == (480, 640, 3) and face.shape[:2] == (bottom - top, right - left)
    assert np.abs(whole[top:bottom, left:right].astype(int) - face).mean() < 6


def test_nothing_but_heads_can_be_asked_for(browser):
    for path in (
        "/api/image/face?id=../../etc/passwd", "/api/image/face?id=", "/api/image/face", "/api/image/raw?id=x",
        "/page/..%2freview.py", "/page/index.html", "/page/%2e%2e/review.py", "/decisions.csv", "/page/",
    ):  # fmt: skip
        assert browser.get(path).status_code in (400, 404), path


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../secret.png", "a/../../secret.png", "..\\secret.png", "~/x.png", "a\0b", None]
)
def test_a_path_that_leads_out_of_its_dataset_is_refused(path, built, tmp_path):
    good = manifest.read(built / "pool.parquet").to_pylist()
    one = next(r for r in good if r["dataset"] == "biwi")
    record_ = Record(**{k: v for k, v in one.items() if k != "dataset"})._replace(image_path=path)
    manifest.write_parquet([table_from_records("biwi", [record_])], tmp_path / "pool.parquet")
    secret = np.zeros((20, 20, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "secret.png"), secret)
    heads = Heads(tmp_path)
    answer = Browser(review.create_app(heads, Images.of_build(built), "anna", KEY)).get(
        f"/api/image/whole?id={one['sample_id']}"
    )
    assert answer.status_code == 400 and ("refused" in answer.json["error"] or "no image" in answer.json["error"])


def test_an_image_that_is_gone_is_a_sentence(heads, out, tmp_path):
    images = Images({"biwi": TreeSpec(((str(tmp_path), ""),))})
    answer = Browser(review.create_app(heads, images, "anna", KEY)).get("/api/image/face?id=biwi/01/frame_00003")
    assert answer.status_code == 400 and "cannot be read" in answer.json["error"]


# ---- what it tells


def test_cards_hold_what_is_drawn(browser):
    answer = browser.get("/api/heads?dataset=aflw&limit=5").json
    card = answer["heads"][0]
    assert answer["total"] > 20 and len(answer["heads"]) == 5
    assert np.allclose(np.reshape(card["rotation"], (3, 3)), matrix_from_euler(card["ypr_deg"]), atol=1e-3)
    assert len(card["landmarks"]) == 42 and len(card["bbox_xyxy"]) == 4 and card["decision"] is None
    json.dumps(answer, allow_nan=False)


def test_refused_heads_are_not_shown_but_rejected_ones_are(heads, built):
    table = manifest.read(built / "pool.parquet").to_pandas()
    assert len(heads) == table.drop_reason.isna().sum() < len(table)


def test_filters(heads):
    frame = [heads.card(r) for r in heads.select(Filter())]
    ypr = np.array([c["ypr_deg"] for c in frame])
    yaw = [c["sample_id"] for c, a in zip(frame, ypr) if -6 <= a[0] < 6]
    assert [heads.card(r)["sample_id"] for r in heads.select(Filter(yaw="7"))] == yaw
    assert len(heads.select(Filter(pitch="outside"))) == (np.abs(ypr[:, 1]) > 90).sum()
    flagged = {c["sample_id"] for c in frame if c["flags"]}
    assert {heads.card(r)["sample_id"] for r in heads.select(Filter(flag="any"))} == flagged
    assert len(heads.select(Filter(flag="none"))) == len(heads) - len(flagged)
    assert [heads.card(r)["sample_id"] for r in heads.select(Filter(text="frame_00005"))] == ["biwi/01/frame_00005"]
    choices = heads.choices()
    for angle in ("yaw", "pitch", "roll"):
        for i, n in enumerate(choices["bins"][angle]["inside"]):
            assert len(heads.select(Filter(**{angle: str(i)}))) == n
    for flag, own in choices["flags"].items():
        rows = heads.select(Filter(flag=flag))
        values = [next(f["value"] for f in heads.card(r)["flags"] if f["flag"] == flag) for r in rows]
        assert len(rows) == own["heads"] and values == sorted(values, reverse=True)


@pytest.mark.parametrize(
    "query", ["yaw=15", "yaw=-1", "roll=x", "flag=ugly", "decision=maybe", "offset=-1", "limit=1e9", "offset=٣"]
)
def test_a_wrong_filter_is_a_sentence(query, browser):
    answer = browser.get(f"/api/heads?{query}")
    assert answer.status_code == 400 and answer.json["error"].endswith(".")


# ---- decisions


def test_a_decision_is_on_disk_before_it_is_answered(browser, out):
    answer = browser.decide("biwi/01/frame_00004", "drop", " too\nblurred ")
    assert read(out / "decisions.csv") == {
        "biwi/01/frame_00004": Decision("biwi/01/frame_00004", "drop", "too blurred", "anna")
    }
    assert answer.json["head"]["decision"]["decision"] == "drop" and answer.json["counts"]["drop"] == 1
    browser.decide("biwi/01/frame_00004", "keep")
    assert read(out / "decisions.csv")["biwi/01/frame_00004"].decision == "keep"
    browser.decide("biwi/01/frame_00004", None)
    assert read(out / "decisions.csv") == {}


def test_undo_goes_back_step_by_step(browser, out):
    for sample_id, word in (
        (ONE, "keep"),
        ("biwi/01/frame_00004", "drop"),
        (ONE, "drop"),
    ):
        browser.decide(sample_id, word)
    told = [browser.post("/api/undo", {}).json["head"] for _ in range(3)]
    assert [h["sample_id"][-1] for h in told] == ["3", "4", "3"]
    assert [h["decision"] and h["decision"]["decision"] for h in told] == ["keep", None, None]
    answer = browser.post("/api/undo", {})
    assert answer.status_code == 400 and "nothing to undo" in answer.json["error"]


def test_undo_after_a_restart_takes_back_ones_own_last(out, built):
    record(out / "decisions.csv", Decision(ONE, "drop", "", "anna"))
    record(out / "decisions.csv", Decision("biwi/01/frame_00005", "drop", "", "ben"))
    browser = Browser(review.create_app(Heads(out), Images.of_build(out), "anna", KEY))
    assert browser.post("/api/undo", {}).json["head"]["sample_id"] == ONE
    assert list(read(out / "decisions.csv")) == ["biwi/01/frame_00005"]


def test_what_another_program_writes_is_seen(browser, out):
    record(out / "decisions.csv", Decision(ONE, "drop", "", "ben"))
    assert browser.get("/api/heads?decision=drop").json["total"] == 1
    (out / "decisions.csv").unlink()
    assert browser.get("/api/heads?decision=drop").json["total"] == 0


def test_a_spoilt_file_is_told_and_not_written_to(browser, out):
    (out / "decisions.csv").write_text("sample_id,decision,reason,who\nbiwi/01/frame_00003,dorp,,ben\n")
    before = (out / "decisions.csv").read_bytes()
    assert "line 2" in browser.get("/api/heads").json["error"]
    assert "line 2" in browser.decide("biwi/01/frame_00004", "keep").json["error"]
    assert (out / "decisions.csv").read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [[], "x", {}, {"sample_id": 3, "decision": "keep"}, {"sample_id": "nobody", "decision": "keep"}, {"sample_id": ONE},
     {"sample_id": ONE, "decision": "maybe"}, {"sample_id": ONE, "decision": ["keep"]},
     {"sample_id": ONE, "decision": "keep", "reason": 5}],
)  # fmt: skip
def test_a_bad_decision_is_a_sentence(content, browser, out):
    answer = browser.post("/api/decide", content)
    assert answer.status_code == 400 and answer.json["error"].endswith(".")
    assert not (out / "decisions.csv").exists()


def test_an_endless_decision_is_refused(browser, out):
    assert browser.decide(ONE, "keep", "x" * 100_000).status_code == 413
    assert not (out / "decisions.csv").exists()


# ---- the server


def test_the_server_keeps_its_key_private_and_the_same(out):
    first, address = review.open_server(out, port=0)
    second, again = review.open_server(out, port=0)
    first.server_close(), second.server_close()
    assert address.split("key=")[1] == again.split("key=")[1]
    assert (out / "work" / "review.key").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
def test_no_other_host_is_taken(host, out):
    with pytest.raises(UbhpdError, match="is not this machine"):
        review.open_server(out, host)


def test_a_taken_port_and_a_missing_build_are_sentences(out, tmp_path):
    server, address = review.open_server(out, port=0)
    port = int(re.search(r":(\d+)/", address)[1])
    with pytest.raises(UbhpdError, match=f"Port {port} cannot be used"):
        review.open_server(out, port=port)
    server.server_close()
    for place in (tmp_path, tmp_path / "nowhere", out / "pool.parquet"):
        with pytest.raises(UbhpdError):
            review.open_server(place, port=0)


def test_without_flask_a_sentence_says_what_to_install(heads, monkeypatch, out):
    monkeypatch.setitem(sys.modules, "flask", None)
    with pytest.raises(UbhpdError, match=r"pip install 'ubhpd\[web\]'"):
        review.create_app(heads, Images.of_build(out), "anna", KEY)


def test_the_command_refuses_another_host(out, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["review", str(out), "--host", "0.0.0.0"])
    assert stop.value.code == 2 and "is not this machine" in capsys.readouterr().err


def test_a_kill_loses_nothing(out):
    command = [sys.executable, "-m", "ubhpd", "review", str(out), "--port", "0", "--who", "anna", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = server.stdout.readline().strip()
            opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(), urllib.request.ProxyHandler({}))
            page = opener.open(address).read().decode()
            token = re.search(r'name="ubhpd-token" content="(\w+)"', page)[1]
            body = json.dumps({"sample_id": ONE, "decision": "drop", "reason": "x"}).encode()
            headers = {"Content-Type": "application/json", "X-Ubhpd-Token": token}
            request = urllib.request.Request(address.split("/?")[0] + "/api/decide", body, headers)
            assert opener.open(request).status == 200
        finally:
            os.kill(server.pid, signal.SIGKILL)
    assert list(read(out / "decisions.csv")) == [ONE]
    assert Heads(out).counts()["drop"] == 1
