"""Face detectors, MTCNN's networks and weights, images from outside a manifest, dlib's landmarks."""

import os
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from realdata import REAL, needs

from ubhpd import manifest
from ubhpd.core.errors import UbhpdError
from ubhpd.images import detectors, landmarks
from ubhpd.images import faces as inputs
from ubhpd.images.detectors import detector
from ubhpd.images.faces import Face, keep_apart, largest_first, overlap
from ubhpd.images.reading import Images
from ubhpd.pool.build import BuildConfig, build
from ubhpd.raw.image_files import decode


def weights_or_skip():
    try:
        import torch  # noqa: F401
    except ImportError:
        pytest.skip("torch is not installed")
    place = detectors.find_weights()
    if place is None:
        pytest.skip("MTCNN's weights are not here: set UBHPD_MTCNN")
    return place


def write_image(path, value=128, size=(12, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((*size, 3), value, np.uint8))


# ---- boxes


def test_overlap_by_hand():
    box = (0, 0, 10, 10)
    others = [(0, 0, 10, 10), (5, 0, 15, 10), (20, 20, 30, 30), (2, 2, 4, 4), (10, 0, 20, 10)]
    assert overlap(box, others) == pytest.approx([1, 50 / 150, 0, 4 / 100, 0])
    assert overlap(box, others, over_smaller=True) == pytest.approx([1, 50 / 100, 0, 1, 0])
    # With right and bottom inside, 11 x 11 pixels: those that touch share a column of 11.
    assert overlap(box, others, pixel=1)[4] == pytest.approx(11 / (121 + 121 - 11))
    assert overlap((3, 3, 3, 3), [(3, 3, 3, 3)]) == pytest.approx([0])


def test_of_boxes_that_overlap_the_surest_stays():
    boxes = [(0, 0, 10, 10), (1, 0, 11, 10), (40, 0, 50, 10), (3, 3, 5, 5)]
    scores = [0.8, 0.9, 0.7, 0.95]
    assert keep_apart(boxes, scores, 0.5).tolist() == [3, 1, 2]
    assert keep_apart(boxes, scores, 0.9).tolist() == [3, 1, 0, 2]
    assert keep_apart(boxes, scores, 0.5, over_smaller=True).tolist() == [3, 2]
    assert keep_apart(np.zeros((0, 4)), [], 0.5).tolist() == []


def test_what_stays_does_not_overlap_and_what_goes_does():
    rng = np.random.default_rng(3)
    low = rng.uniform(0, 60, (200, 2))
    boxes = np.concatenate([low, low + rng.uniform(5, 30, (200, 2))], axis=1)
    scores = rng.uniform(size=200)
    kept = keep_apart(boxes, scores, 0.4)
    assert (np.diff(scores[kept]) < 0).all()
    for place, row in enumerate(kept):
        assert (overlap(boxes[row], boxes[kept[:place]]) <= 0.4).all()
    for row in set(range(200)) - set(kept.tolist()):
        surer = kept[scores[kept] > scores[row]]
        assert (overlap(boxes[row], boxes[surer]) > 0.4).any()


def test_the_largest_face_comes_first_and_of_equal_ones_the_surest():
    small, sure, unsure = Face((0, 0, 5, 5), 0.99), Face((9, 9, 19, 19), 0.9), Face((0, 0, 10, 10), 0.8)
    assert largest_first([small, unsure, sure]) == [sure, unsure, small]


# ---- detectors


def test_without_a_detector_the_image_is_the_face():
    assert detector("none").boxes(np.zeros((20, 30, 3), np.uint8)) == [Face((0.0, 0.0, 30.0, 20.0), 1.0)]


def test_a_blank_image_has_no_face():
    assert detector("cascade").boxes(np.full((80, 90, 3), 130, np.uint8)) == []


def test_what_is_not_here_is_named_with_what_to_install(monkeypatch, tmp_path):
    monkeypatch.delenv("UBHPD_MTCNN", raising=False)
    monkeypatch.setattr(detectors, "find_spec", lambda name: None)
    with pytest.raises(UbhpdError, match="pip install --no-deps facenet-pytorch==2.6.0, or name its wheel in UBHPD_MT"):
        detector("mtcnn")
    assert detector("auto").name == "cascade"
    monkeypatch.setattr(detectors, "DEBIAN_FOLDERS", (tmp_path,))
    monkeypatch.setattr(cv2.data, "haarcascades", str(tmp_path))
    with pytest.raises(UbhpdError, match=r"haarcascade_frontalface_alt2.xml is not in .*apt install opencv-data"):
        detector("cascade")
    with pytest.raises(UbhpdError, match=r"No face detector is installed: .*facenet-pytorch.*opencv-python-headless<5"):
        detector("auto")
    monkeypatch.delattr(cv2, "CascadeClassifier")
    with pytest.raises(UbhpdError, match="has no cascades any more: pip install 'opencv-python-headless<5'"):
        detector("cascade")
    with pytest.raises(UbhpdError, match="called 'retina': choose from auto, mtcnn, yunet, cascade, none"):
        detector("retina")


def test_a_broken_cascade_file_is_not_taken(monkeypatch, tmp_path):
    for name in (detectors.FRONTAL, detectors.PROFILE):
        (tmp_path / name).write_text("<?xml version='1.0'?><opencv_storage></opencv_storage>")
    monkeypatch.setattr(cv2.data, "haarcascades", str(tmp_path))
    monkeypatch.setattr(detectors, "DEBIAN_FOLDERS", ())
    with pytest.raises(UbhpdError, match="haarcascade_frontalface_alt2.xml is not in"):
        detector("cascade")


# ---- MTCNN


def fake_weights(seed=0):
    """Weights of the right shapes that mean nothing."""
    torch = pytest.importorskip("torch")
    import io

    from ubhpd.images.mtcnn import ONet, PNet, RNet

    torch.manual_seed(seed)
    found = {}
    for name, network in (("pnet", PNet()), ("rnet", RNet()), ("onet", ONet())):
        buffer = io.BytesIO()
        torch.save(network.state_dict(), buffer)
        found[name] = buffer.getvalue()
    return found


def test_the_networks_have_the_shapes_and_sizes_of_the_paper():
    torch = pytest.importorskip("torch")
    from ubhpd.images.mtcnn import ONet, PNet, RNet

    with torch.inference_mode():
        moved, probability = PNet()(torch.zeros(2, 3, 12, 12))
        assert (moved.shape, probability.shape) == ((2, 4, 1, 1), (2, 1, 1))
        # As many cells of 12 pixels, two pixels apart, as fit; the last may hang over by one.
        assert PNet()(torch.zeros(1, 3, 40, 61))[1].shape == (1, 15, 26)
        assert [o.shape for o in RNet()(torch.zeros(5, 3, 24, 24))] == [(5, 4), (5,)]
        assert [o.shape for o in ONet()(torch.zeros(5, 3, 48, 48))] == [(5, 4), (5,), (5, 10)]
    counts = [sum(p.numel() for p in n.parameters()) for n in (PNet(), RNet(), ONet())]
    assert counts == [6_632, 100_178, 389_040]


@pytest.mark.parametrize("size", [(7, 9), (12, 300), (64, 48)])
def test_mtcnn_takes_images_of_any_size(size):
    pytest.importorskip("torch")
    from ubhpd.images.mtcnn import Mtcnn, MtcnnOptions

    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    eager = MtcnnOptions(thresholds=(0.0, 0.0, 0.0))  # every cell is a face: all stages run
    faces = Mtcnn(fake_weights(), eager).boxes(image)
    assert (len(faces) > 0) == (min(size) >= 20)
    assert all(np.isfinite(f.bbox_xyxy).all() and f.points5.shape == (5, 2) and 0 <= f.score <= 1 for f in faces)
    assert Mtcnn(fake_weights(), MtcnnOptions(thresholds=(1.1, 1.1, 1.1))).boxes(image) == []


def test_weights_are_read_from_a_folder_a_package_and_a_wheel(tmp_path, monkeypatch):
    files = {name: name.encode() for name in detectors.MTCNN_NETWORKS}
    data = tmp_path / "facenet_pytorch" / "data"
    data.mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "facenet.whl", "w") as wheel:
        for name, content in files.items():
            (data / f"{name}.pt").write_bytes(content)
            wheel.writestr(f"facenet_pytorch/data/{name}.pt", content)
    for place in (tmp_path, tmp_path / "facenet_pytorch", data, tmp_path / "facenet.whl"):
        assert detectors.read_weights(place) == files
    monkeypatch.delenv("UBHPD_MTCNN", raising=False)
    (tmp_path / "facenet_pytorch" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert detectors.find_weights() == data
    monkeypatch.setenv("UBHPD_MTCNN", str(tmp_path / "facenet.whl"))
    assert detectors.find_weights() == tmp_path / "facenet.whl"
    assert detectors.find_weights(data) == data


def test_wrong_weights_are_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "no.whl").write_bytes(b"no zip")
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as wheel:
        wheel.writestr("a.txt", "")
    for place, match in (
        (tmp_path, "does not hold pnet.pt, rnet.pt and onet.pt"),
        (tmp_path / "no.whl", "is no folder or wheel"),
        (tmp_path / "other.whl", "does not hold one pnet.pt"),
    ):
        with pytest.raises(UbhpdError, match=match):
            detectors.read_weights(place)
    monkeypatch.setenv("UBHPD_MTCNN", str(tmp_path / "gone.whl"))
    for name in ("mtcnn", "auto"):
        with pytest.raises(UbhpdError, match="no weights of MTCNN at .*gone.whl"):
            detector(name)


@pytest.mark.parametrize("content", [b"", b"junk", None])
def test_a_weight_file_of_something_else_is_refused(content):
    pytest.importorskip("torch")
    from ubhpd.images.mtcnn import Mtcnn

    good = fake_weights()
    with pytest.raises(UbhpdError, match=r"rnet.pt does not hold the weights of MTCNN's rnet"):
        Mtcnn({**good, "rnet": good["pnet"] if content is None else content})


@needs("AFLW2000")
def test_mtcnn_finds_the_faces_of_real_images(tmp_path):
    """Of all 387 usable heads at hand it finds 97 percent, and 86 percent of those turned by 60 degrees and more."""
    finder = detector("mtcnn", weights_or_skip())
    build(BuildConfig(("aflw2000",), tmp_path, str(REAL)))
    images = Images.of_build(tmp_path)
    heads = manifest.read(tmp_path / "pool.parquet", ["image_path", "bbox_xyxy", "drop_reason"]).to_pylist()
    heads = [h for h in heads if h["drop_reason"] is None][:40]
    found = []
    for head in heads:
        faces = finder.boxes(images.image("aflw2000", head["image_path"]))
        found.append(bool(faces) and overlap(head["bbox_xyxy"], [faces[0].bbox_xyxy])[0] > 0.4)
        for face in faces:
            left, top, right, bottom = face.bbox_xyxy
            x, y = face.points5.T
            assert face.score > 0.7 and left < x.mean() < right and top < y.mean() < bottom
    assert np.mean(found) > 0.9


# ---- images from outside


def test_a_folder_gives_its_images_in_order_and_says_what_it_cannot_read(tmp_path):
    write_image(tmp_path / "b.png", 10)
    write_image(tmp_path / "a" / "z.JPG", 20)
    write_image(tmp_path / "a" / "ä.bmp", 30)
    (tmp_path / "c.webp").write_bytes(b"RIFF junk")
    (tmp_path / "d.jpeg").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "e.png").symlink_to(tmp_path / "gone.png")
    sources = inputs.folder(tmp_path)
    assert sources.total == 6
    found = list(sources)
    assert [p.name for p in found] == ["a/z.JPG", "a/ä.bmp", "b.png", "c.webp", "d.jpeg", "e.png"]
    assert [p.pixels_bgr[0, 0, 0] for p in found[:3]] == [20, 30, 10]
    assert [p.problem for p in found] == [
        None, None, None, "c.webp does not decode as an image (9 bytes).",
        "d.jpeg does not decode as an image (0 bytes).", "e.png cannot be read (No such file or directory).",
    ]  # fmt: skip
    assert all(p.pixels_bgr is None for p in found[3:]) and {p.frame_index for p in found} == {None}
    (one,) = inputs.folder(tmp_path / "b.png")
    assert one.name == "b.png" and one.pixels_bgr.shape == (12, 16, 3)


def with_orientation(jpeg, value):
    tag = b"\x01\x12\x00\x03\x00\x00\x00\x01" + value.to_bytes(2, "big") + b"\x00\x00"
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + tag + b"\0\0\0\0"
    return jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]


# What a viewer does with the stored pixels, by EXIF orientation.
UPRIGHT = {
    1: lambda p: p, 2: np.fliplr, 3: lambda p: np.rot90(p, 2), 4: np.flipud, 5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, -1), 7: lambda p: np.rot90(p.swapaxes(0, 1), 2), 8: np.rot90,
}  # fmt: skip


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation_in_exif_is_undone_for_a_folder_and_ignored_for_a_manifest(tmp_path, orientation):
    stored = np.zeros((16, 24, 3), np.uint8)
    stored[:8, :8], stored[8:, :8], stored[:8, 16:] = 250, 170, 90
    jpeg = with_orientation(cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes(), orientation)
    (tmp_path / "a.jpg").write_bytes(jpeg)
    (image,) = inputs.folder(tmp_path)
    assert np.abs(image.pixels_bgr.astype(int) - UPRIGHT[orientation](stored)).max() < 8
    assert np.abs(decode(jpeg).astype(int) - stored).max() < 8


def test_a_jpeg_that_libjpeg_mends_is_a_problem(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    good = cv2.imencode(".jpg", noise)[1].tobytes()
    middle = len(good) // 2
    gray = cv2.imencode(".jpg", noise[..., 0])[1].tobytes()
    progressive = cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    for name, data in {
        "good": good, "gray": gray, "progressive": progressive, "hole": good[:middle] + good[middle + 300 :],
        "zeroed": good[:middle] + bytes(400) + good[middle + 400 :], "closed": good[:middle] + b"\xff\xd9",
        "zeroed_progressive": progressive[:middle] + bytes(400) + progressive[middle + 400 :],
    }.items():  # fmt: skip
        (tmp_path / f"{name}.jpg").write_bytes(data)
    problem_of = {image.name: image.problem for image in inputs.folder(tmp_path)}
    assert {n for n, problem in problem_of.items() if problem is None} == {"good.jpg", "gray.jpg", "progressive.jpg"}
    for name in ("hole", "zeroed", "closed", "zeroed_progressive"):
        assert problem_of[f"{name}.jpg"].startswith(f"{name}.jpg is a damaged JPEG (Corrupt JPEG data: "), name


def test_a_size_that_the_bytes_cannot_hold_is_refused_before_decoding(tmp_path, monkeypatch):
    import struct
    import zlib

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    jpeg = bytearray(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 60_000, 60_000)
    honest = cv2.imencode(".png", np.zeros((3000, 3000, 3), np.uint8))[1].tobytes()
    assert decode(honest).shape == (3000, 3000, 3)  # a blank image is small, and whole
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    assert decode(png) is None and decode(bytes(jpeg)) is None


def test_every_file_in_a_folder_is_an_image_or_counted(tmp_path):
    root, far = tmp_path / "root", tmp_path / "far"
    for name in ("a.jpg", "b/c.jfif", "b/d.JPG_large"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    write_image(far / "x.png")
    (root / "far").symlink_to(far)  # outside: followed
    (root / "a_link").symlink_to(root / "b")  # already read under its own name, which comes later
    (far / "back").symlink_to(root)  # a loop
    for name in ("b/e.gif", "b/f.avif", "._a.jpg", "__MACOSX/._a.jpg", "__MACOSX/sub/._c.jpg", "notes.txt", "n2.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"no image")
    os.mkfifo(root / "pipe.jpg")
    sources = inputs.folder(root)
    assert sources.passed_over == {
        "of macOS (._ and its name)": 1, "of macOS (folder __MACOSX)": 2, "with the suffix .txt": 2,
        "folder linked to twice (a_link)": 1, "folder linked to twice (far/back)": 1,
    }  # fmt: skip
    assert sources.total == 7
    assert {image.name: image.problem for image in sources} == {
        "a.jpg": None, "b/c.jfif": None, "b/d.JPG_large": None, "far/x.png": None,
        "b/e.gif": "b/e.gif is an image of a kind that is not read: convert it to JPEG or PNG.",
        "b/f.avif": "b/f.avif is an image of a kind that is not read: convert it to JPEG or PNG.",
        "pipe.jpg": "pipe.jpg is a named pipe, not a file.",
    }  # fmt: skip


def test_a_folder_that_does_not_open_is_named(tmp_path, monkeypatch):
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "closed" / "b.png")
    scandir = os.scandir

    def refusing(place):
        if Path(place).name == "closed":
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refusing)
    found = list(inputs.folder(tmp_path))
    assert [(i.name, i.problem) for i in found] == [
        ("a.png", None), ("closed/", "closed/ cannot be opened (Permission denied)."),
    ]  # fmt: skip


def test_names_that_are_not_utf8_are_written_and_stay_apart(tmp_path):
    jpeg = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    for name in (b"\xca\xfd.jpg", b"\\xca\\xfd.jpg", "ä.jpg".encode()):
        Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).write_bytes(jpeg)
    found = list(inputs.folder(tmp_path))
    assert [i.name for i in found] == ["\\xca\\xfd.jpg", "\\xca\\xfd.jpg_", "ä.jpg"]
    assert all(i.problem is None for i in found)


def write_video(path, frames=8, rate=10.0):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), rate, (64, 48))
    for i in range(frames):
        writer.write(np.full((48, 64, 3), 20 * (i % 8) + 10, np.uint8))
    writer.release()


def test_a_video_gives_its_frames_in_order_with_their_times(tmp_path):
    write_video(tmp_path / "v.avi")
    sources = inputs.video(tmp_path / "v.avi")
    assert sources.total == 8
    found = list(sources)
    assert [p.frame_index for p in found] == list(range(8)) and {p.name for p in found} == {"v.avi"}
    assert [p.time_s for p in found] == pytest.approx([i / 10 for i in range(8)], abs=1e-3)
    assert [int(p.pixels_bgr.mean()) for p in found] == pytest.approx([20 * i + 10 for i in range(8)], abs=4)
    assert all(p.problem is None for p in found)


def test_a_video_that_breaks_off_says_so(tmp_path):
    write_video(tmp_path / "v.avi", frames=40, rate=5.0)
    data = (tmp_path / "v.avi").read_bytes()
    (tmp_path / "v.avi").write_bytes(data[: len(data) * 2 // 3])
    *frames, last = inputs.video(tmp_path / "v.avi")
    assert 5 < len(frames) < 30 and all(f.problem is None for f in frames)
    assert last.pixels_bgr is None and last.problem == f"v.avi breaks off after {len(frames)} of 40 frames."


@pytest.mark.parametrize("name", ["10:30.avi", "http:a.avi", os.fsdecode(b"\xca\xfd.avi"), "file%02d.avi"])
def test_a_video_may_have_any_name(tmp_path, monkeypatch, name):
    write_video(tmp_path / "v.avi")
    (tmp_path / "v.avi").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(list(inputs.video(name))) == 8


def test_a_webm_is_whole_or_cut_by_its_bytes_not_by_its_estimated_frames(tmp_path, capfd):
    place = tmp_path / "v.webm"
    writer = cv2.VideoWriter(str(place), cv2.VideoWriter_fourcc(*"VP80"), 10.0, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no WebM")
    for i in range(40):
        writer.write(np.random.default_rng(i).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    writer.release()
    assert [i.problem for i in inputs.video(place)] == [None] * 40
    place.write_bytes(place.read_bytes()[: place.stat().st_size * 6 // 10])
    *frames, last = inputs.video(place)
    assert 10 < len(frames) < 30 and last.problem == f"v.webm breaks off after {len(frames)} frames."


def test_with_a_varying_frame_rate_the_time_of_the_last_frame_decides(tmp_path, monkeypatch):
    class Capture:
        """40 frames in 2.7 s, in a container that counts 1000 frames a second."""

        def __init__(self, path):
            self._frame = 0

        def isOpened(self):
            return True

        def get(self, what):
            times = {cv2.CAP_PROP_FPS: 1000.0, cv2.CAP_PROP_FRAME_COUNT: 2700.0}
            return times.get(what, 1000 * 2.7 * (self._frame - 1) / 40)

        def read(self):
            self._frame += 1
            return self._frame <= frames, np.zeros((4, 4, 3), np.uint8)

        def release(self):
            pass

    (tmp_path / "v.ts").write_bytes(b"")
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    frames = 40
    assert [i.problem for i in inputs.video(tmp_path / "v.ts")] == [None] * 40
    frames = 20
    assert list(inputs.video(tmp_path / "v.ts"))[-1].problem == "v.ts breaks off after 20 of 2700 frames."


def test_places_that_are_no_input_are_one_sentence(tmp_path, capfd):
    (tmp_path / "empty").mkdir()
    (tmp_path / "v.mp4").write_bytes(b"no video at all")
    for call, match in (
        (lambda: inputs.folder(tmp_path / "gone"), "There is no image or folder .*gone"),
        (lambda: inputs.folder(tmp_path / "empty"), r"empty holds no image \(.jpg"),
        (lambda: inputs.video(tmp_path / "gone.mp4"), "There is no video .*gone.mp4"),
        (lambda: inputs.video(Path("rtsp://host/live")), "--video reads a file, and rtsp:/host/live is the address"),
        (lambda: inputs.video(tmp_path / "v.mp4"), "v.mp4 does not open as a video"),
        (lambda: inputs.camera(97), "Camera 97 does not open"),
    ):
        with pytest.raises(UbhpdError, match=match):
            call()
    assert "WARN" not in capfd.readouterr().err


# ---- dlib


def test_dlibs_model_is_looked_for_without_importing_its_package(monkeypatch, tmp_path):
    monkeypatch.delenv("UBHPD_DLIB68", raising=False)
    monkeypatch.setattr(landmarks, "DEBIAN_FOLDER", tmp_path)
    model = tmp_path / "face_recognition_models" / "models" / landmarks.FILE
    model.parent.mkdir(parents=True)
    model.touch()
    (tmp_path / "face_recognition_models" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert landmarks.model_path() == model
    (tmp_path / landmarks.FILE).touch()
    assert landmarks.model_path() == tmp_path / landmarks.FILE
    monkeypatch.setenv("UBHPD_DLIB68", str(model))
    assert landmarks.model_path() == model
    monkeypatch.setenv("UBHPD_DLIB68", str(tmp_path))
    with pytest.raises(UbhpdError, match="UBHPD_DLIB68 names .*, which is no file"):
        landmarks.model_path()
    monkeypatch.delenv("UBHPD_DLIB68")
    monkeypatch.setattr(landmarks, "DEBIAN_FOLDER", Path("/nowhere"))
    monkeypatch.setattr(landmarks, "find_spec", lambda name: None)
    with pytest.raises(UbhpdError, match=r"is not here: pip install 'ubhpd\[dlib\]'"):
        landmarks.model_path()


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (0, 0, np.nan, 4), (9, 9, 2, 2), (1, 2, 3)])
def test_landmarks_need_a_box(box):
    with pytest.raises(UbhpdError, match="is empty or not finite"):
        landmarks.landmarks68(np.zeros((9, 9, 3), np.uint8), box)


@needs("AFLW2000")
def test_dlib_finds_the_landmarks_of_a_face_from_the_front(tmp_path):
    pytest.importorskip("dlib")
    build(BuildConfig(("aflw2000",), tmp_path, str(REAL)))
    columns = ["image_path", "bbox_xyxy", "landmarks68", "yaw_deg", "drop_reason"]
    heads = manifest.read(tmp_path / "pool.parquet", columns).to_pylist()
    heads = [h for h in heads if h["drop_reason"] is None and abs(h["yaw_deg"]) < 15][:20]
    images, errors = Images.of_build(tmp_path), []
    for head in heads:
        found = landmarks.landmarks68(images.image("aflw2000", head["image_path"]), head["bbox_xyxy"])
        left, top, right, bottom = head["bbox_xyxy"]
        own = np.reshape(head["landmarks68"], (68, 2))
        errors.append(np.median(np.linalg.norm(found - own, axis=1)[17:]) / np.hypot(right - left, bottom - top))
    assert np.median(errors) < 0.03
