"""Names of classes: read from exporters, kept, and never trusted."""

import json

import pytest

from lowbit.graph.class_names import class_names

AB = ("a", "b")


@pytest.mark.parametrize(
    "metadata",
    [
        {"lowbit.classes": '["a", "b"]'},
        {"names": "{0: 'a', 1: 'b'}"},
        {"names": '{"1": "b", "0": "a"}'},
        {"names": "{0: 'a', 1: \"b\",}"},
        {"names": "['a', 'b']", "lowbit.classes": "[1, 2]"},
    ],
)
def test_in_the_models_own_metadata(metadata):
    assert class_names(metadata, None, 2) == AB
    assert class_names(metadata, None, None) == AB
    assert class_names(metadata, None, 3) == ()


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("config.json", {"id2label": {"0": "a", "1": "b"}}),
        ("config.json", {"label_names": ["a", "b"]}),
        ("metadata.json", {"labels": ["a", "b"], "imageSize": 96}),
    ],
)
def test_in_a_file_beside_the_model(tmp_path, file, said):
    (tmp_path / file).write_text(json.dumps(said))
    assert class_names({}, tmp_path, 2) == AB
    assert class_names({"lowbit.classes": '["c", "d"]'}, tmp_path, 2) == ("c", "d")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "3",
        "{}",
        "[]",
        "{0: 'a', 2: 'b'}",
        "['a', 3]",
        "['a', '']",
        '["' + "x" * 201 + '", "b"]',
        "[" * 9999,
        "[1<" * 9,
        "{0: 'a' 1}",
    ],
)
def test_what_is_no_list_of_names_is_none(text):
    assert class_names({"names": text}, None, None) == ()


def test_names_may_hold_quotes():
    said = ("it's", 'a "b"', "c\\d", "é\n")
    assert class_names({"names": repr(dict(enumerate(said)))}, None, 4) == said
    assert class_names({"lowbit.classes": json.dumps(said)}, None, 4) == said
