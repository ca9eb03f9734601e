"""A server, and conversations that its dictionary knows."""

import json

import pytest
from chat_server import serving
from small_translation import DICTIONARY, conversation


@pytest.fixture
def server():
    with serving(DICTIONARY) as running:
        yield running


@pytest.fixture
def source(tmp_path):
    """A function that writes a file of so many conversations."""

    def write(count: int, name: str = "part.json"):
        path = tmp_path / "in" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps([conversation(number) for number in range(count)]))
        return path

    return write
