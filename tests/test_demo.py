"""The demo's commands, with few heads and few steps: from raw data to the leaderboard's page."""

import json

import pytest

from ubhpd import demo


def test_the_whole_journey(tmp_path, capfd):
    pytest.importorskip("torch")  # the demo trains a network
    training = ("--steps", "2", "--batch-size", "8", "--device", "cpu")
    demo.run(tmp_path / "out", 40, ("mean_pose", "ssrnet_md"), training)
    written = capfd.readouterr().out
    assert "$ ubhpd build" in written and "$ ubhpd leaderboard" in written
    assert "heads filled (ibug68)" in written and (tmp_path / "out/landmarks.parquet").is_file()
    page = (tmp_path / "out/leaderboard/leaderboard.html").read_text()
    assert "ssrnet_md" in page and "mean_pose" in page
    results = [json.loads(p.read_text()) for p in (tmp_path / "out/results").rglob("*.json")]
    models = {r["model"] for r in results if r.get("kind") == "ubhpd-result"}
    assert models == {"mean_pose", "ssrnet_md"}
    assert (tmp_path / "out/figures/density.png").exists()
