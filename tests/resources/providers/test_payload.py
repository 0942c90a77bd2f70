"""What every adapter reads texts with: nothing comes through that the database would refuse."""

import pytest

from resources.providers.payload import clean, decode, loose_text, said, text

ODD = "a\x00b\ud800c"
CLEAN = "a\ufffdb\ufffdc"


def test_every_reader_of_texts_cleans_them() -> None:
    assert clean(ODD) == CLEAN
    assert text({"key": ODD}, "key") == CLEAN
    assert loose_text({"key": ODD}, "key") == CLEAN
    assert said(ODD) == CLEAN
    assert clean("eSIM für Ōsaka 😀\n") == "eSIM für Ōsaka 😀\n"


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (rb'{"a\u0000": ["x\uD800y", {"b": "\udfff"}]}', {"a\ufffd": ["x\ufffdy", {"b": "\ufffd"}]}),
        (rb'["\ud83d\ude00", 1]', ["😀", 1]),
        (b'\xef\xbb\xbf{"a": null}', {"a": None}),
    ],
)
def test_a_document_holds_only_texts_that_can_be_stored(body: bytes, value: object) -> None:
    assert decode(body) == value


@pytest.mark.parametrize("body", [b'"\xed\xa0\x80"', b'"\x00"', b"", b"\xff"])
def test_a_document_that_is_no_json_in_utf_8_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(body)
