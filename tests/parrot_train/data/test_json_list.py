"""Lists read and written record by record, held against the standard library's reader of whole files."""

import contextlib
import hashlib
import json
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from parrot_runtime.errors import InputError
from parrot_train.data import json_list
from parrot_train.data.json_list import encode, image_mover, publish_list, stream_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("lists") / "list.json"


@settings(max_examples=200, deadline=None)
@given(items=st.lists(VALUES, min_size=1, max_size=8), step=st.integers(1, 40), indent=st.sampled_from([None, 0, 3]))
@example(items=[0.5, 12345, 6.5e30, 7], step=1, indent=None)
def test_any_list_is_read_as_json_reads_it_however_little_is_read_at_once(file, items, step, indent):
    file.write_text(json.dumps(items, indent=indent), encoding="utf-8")
    with mock.patch.object(json_list, "_READ", step):
        assert list(stream_json(file)) == items


@settings(max_examples=300, deadline=None)
@given(text=st.text('[]{},:"\\ 1e-.\ntrunul', max_size=30), step=st.integers(1, 40))
def test_what_json_refuses_is_refused_and_what_it_takes_is_taken(file, text, step):
    file.write_text(text, encoding="utf-8")
    try:
        expected = json.loads(text)
    except json.JSONDecodeError:
        expected = None
    with mock.patch.object(json_list, "_READ", step):
        if isinstance(expected, list) and expected:
            assert list(stream_json(file)) == expected
        else:
            with pytest.raises(InputError, match=str(file)):
                list(stream_json(file))


def test_a_mistake_is_told_with_its_line_and_after_what_stands_before_it(tmp_path):
    path = tmp_path / "f.json"
    path.write_text('[\n{"a": 1},\n{"b": 2},\n{"c" 3}\n]')
    members = stream_json(path)
    assert [next(members), next(members)] == [{"a": 1}, {"b": 2}]
    with pytest.raises(InputError, match="line 4"):
        next(members)


def test_text_that_never_becomes_a_record_is_not_read_to_its_end(tmp_path):
    path = tmp_path / "f.json"
    path.write_text('["' + "x" * 5000)
    with mock.patch.object(json_list, "_READ", 64), mock.patch.object(json_list, "_LONGEST", 300):
        window = json_list._Window(path.open(encoding="utf-8"))
        window.next_character()
        window.at += 1
        with pytest.raises(json.JSONDecodeError):
            window.value()
    assert len(window.text) < 1000


def test_a_list_appears_whole_with_its_hash_or_not_at_all(tmp_path):
    path = tmp_path / "out" / "f.json"
    items = [{"a": "ş"}, {"b": [1, "\ud800"]}]
    with publish_list(path) as writer:
        for item in items:
            writer.add(item)
        assert not path.exists()
    assert json.loads(path.read_text("utf-8")) == items
    assert writer.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.read_text("utf-8").count("\n") == 4  # one record a line
    with pytest.raises(InputError, match="exists already"), publish_list(path):
        pytest.fail("nothing may be done before")
    with contextlib.suppress(KeyError), publish_list(path, force=True) as writer:
        writer.add({"c": 1})
        raise KeyError
    with pytest.raises(InputError, match="no record is left"), publish_list(path, force=True):
        pass
    assert json.loads(path.read_text("utf-8")) == items
    assert [entry.name for entry in path.parent.iterdir()] == ["f.json"]


def test_what_a_killed_run_left_is_cleared_by_the_next(tmp_path):
    (tmp_path / ".f.json.abc.999999999.partial").write_text("[")
    with publish_list(tmp_path / "f.json") as writer:
        writer.add({"a": 1})
    assert [entry.name for entry in tmp_path.iterdir()] == ["f.json"]


@pytest.mark.parametrize(
    ("image", "moved"),
    [("p/a.png", "../in/p/a.png"), (["p/a.png", "/x/b.png"], ["../in/p/a.png", "/x/b.png"]), ("/x/a.png", "/x/a.png")],
)
def test_pictures_are_found_from_another_folder(tmp_path, image, moved):
    assert image_mover(tmp_path / "in", tmp_path / "out")({"image": image, "id": 1}) == {"image": moved, "id": 1}
    for stays in (None, tmp_path / "out" / ".." / "in"):
        assert image_mover(tmp_path / "in", stays)({"image": image}) == {"image": image}


def test_a_record_without_picture_stays_as_it_is(tmp_path):
    assert image_mover(tmp_path / "in", tmp_path)({"id": 1}) == {"id": 1}
    assert json.loads(encode({"a": "\ud800\n"})) == {"a": "\ud800\n"}


def test_a_byte_order_mark_is_no_part_of_the_list(tmp_path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps([{"id": 1}]), encoding="utf-8-sig")
    assert list(json_list.stream_json(path)) == [{"id": 1}]
