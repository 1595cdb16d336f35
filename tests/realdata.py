"""Where the real data is, and the mark for a test that cannot do without it."""

import os
from pathlib import Path

import numpy as np
import pytest

REAL = Path(os.environ.get("UBHPD_REAL") or Path(__file__).resolve().parents[1].parent / "shared/real")


def needs(part):
    """Return the mark that skips a test, saying why, where this part of the real data is absent."""
    folder = REAL / part
    return pytest.mark.skipif(not folder.exists(), reason=f"the real data folder {folder} is not here: set UBHPD_REAL")


def predicted_part(model, folder, every=50):
    """Return ids, predicted and true angles (n, 3) of every so many-th usable head of AFLW2000.

    `folder` is an empty one for the build; the crops are those of the model's input recipe.
    """
    import cv2
    import torch

    from ubhpd import manifest
    from ubhpd.images.crops import crop, crop_box
    from ubhpd.images.recipes import RECIPES
    from ubhpd.pool.build import BuildConfig, build

    build(BuildConfig(("aflw2000",), folder, roots={"aflw2000": str(REAL / "AFLW2000")}))
    heads = [h for h in manifest.read(folder / "pool.parquet").to_pylist() if h["drop_reason"] is None][::every]
    own = RECIPES[model.recipe.crop_for("aflw2000")]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.recipe.mean, model.recipe.std))
    model.network.eval()
    pose = []
    for start in range(0, len(heads), 64):
        faces = []
        for head in heads[start : start + 64]:
            image = cv2.imread(str(REAL / "AFLW2000" / head["image_path"]))
            faces.append(crop(image, crop_box(head, own), own, model.recipe.size, model.recipe.colour))
        images = (torch.from_numpy(np.stack(faces).astype(np.float32)).movedim(-1, 1) - mean) / std
        with torch.inference_mode():
            pose.append(model.network.pose(model.network(images)).numpy())
    truth = np.array([[h[f"{angle}_deg"] for angle in ("yaw", "pitch", "roll")] for h in heads])
    return [h["sample_id"] for h in heads], np.concatenate(pose), truth
