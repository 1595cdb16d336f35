"""A folder that Hugging Face `datasets` loads as an image folder.

    train/metadata.csv, test/metadata.csv      file_name and the labels of each head
    train/images/<sample_id>.png               crops; with the recipe none the whole images, copied byte for byte

    load_dataset("imagefolder", data_dir=DIR)

Heads without a split all go to train. Reference: https://huggingface.co/docs/datasets/image_dataset.
"""

from __future__ import annotations

from ubhpd.exports._crops import Card, Job, label_names, labels_of, write_table

CARD = Card(
    "hf",
    "a folder for Hugging Face datasets: train/ and test/ with metadata.csv and images",
    recipe="square",
    images="files",
    folder="{split}/images",
)


def write(job: Job) -> list[str]:
    """Write metadata.csv beside the images of every split."""
    folders: dict[str, list[int]] = {}
    for i, name in enumerate(job.names):
        folders.setdefault(name.partition("/")[0], []).append(i)
    for folder, rows in sorted(folders.items()):
        table = ([job.names[i].removeprefix(f"{folder}/"), *labels_of(job.heads, i)] for i in rows)
        write_table(["file_name", *label_names()], table, job.out / folder / "metadata.csv")
        job.advance(len(rows))
    return [f"{folder}/metadata.csv" for folder in sorted(folders)]
