"""Strings and paths that stay on the disk."""

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_train.data.strings import Paths, StoredStrings, save_strings

# Lone surrogates too: JSON can hold them.
TEXTS = st.lists(st.text(st.characters(), max_size=8), max_size=12)


@given(texts=TEXTS)
def test_what_is_saved_is_read(texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("strings")
    save_strings(folder, "names", texts)
    stored = StoredStrings(folder, "names")
    assert list(stored) == texts
    assert len(stored) == len(texts)
    assert [stored[place - len(texts)] for place in range(len(texts))] == texts


def test_beyond_the_end_is_an_index_error(tmp_path):
    save_strings(tmp_path, "names", ["مرحبا", ""])
    stored = StoredStrings(tmp_path, "names")
    for place in (2, -3):
        with pytest.raises(IndexError):
            stored[place]


def test_a_worker_gets_file_names_and_no_strings(tmp_path):
    save_strings(tmp_path, "images", [f"resimler/{number:09d}.jpg" for number in range(10_000)])
    sent = pickle.dumps(Paths(Path("root"), StoredStrings(tmp_path, "images")))
    assert len(sent) < 1000
    assert pickle.loads(sent)[9_999] == Path("root/resimler/000009999.jpg")
