"""`help()` of the records that plugin authors meet says what each field is."""

import pydoc

import pytest

from genret import api

RECORDS = [one for name in api.__all__ if isinstance(one := getattr(api, name), type) and issubclass(one, tuple)]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_every_field_has_a_meaning(record):
    assert record.__doc__ and not record.__doc__.startswith(f"{record.__name__}("), "a docstring of its own"
    told = pydoc.plain(pydoc.render_doc(record))
    for field in record._fields:
        text = getattr(record, field).__doc__
        assert text and "Alias for field" not in text, field
        assert text.splitlines()[0] in told
    assert "Alias for field" not in told


def test_shape_and_pads_of_a_batch():
    told = pydoc.plain(pydoc.render_doc(api.GeneratorBatch))
    assert "(B, L) tokens of the positive identifier, -1 pads" in told
