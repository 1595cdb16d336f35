"""docs/add-a-model.md: the model and the test on the page are run as they stand there."""

from contextlib import suppress

import pytest
from model_room import blocks, room_with

pytest.importorskip("torch")


def test_the_example_and_its_test_run(tmp_path):
    model, test = blocks()
    with room_with(tmp_path, tinynet=model):
        names = {}
        exec(compile(test, "tests/test_tinynet.py", "exec"), names)
        tests = [run for name, run in names.items() if name.startswith("test_")]
        assert len(tests) == 3
        for run in tests:
            run()


def test_the_example_passes_the_contract(tmp_path):
    import test_models_contract as contract

    from ubhpd.models.catalogue import catalogue

    with room_with(tmp_path, tinynet=blocks()[0]):
        for card in (c for c in catalogue().values() if c.file == "tinynet"):
            for name, check in vars(contract).items():
                if name.startswith("test_") and name != "test_the_page_lists_it":
                    with suppress(pytest.skip.Exception):
                        check(card)
