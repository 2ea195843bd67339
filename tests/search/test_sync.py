"""What is decoded ahead of its use."""

from __future__ import annotations

import threading

import pytest

from genret.search.sync import ahead


def test_the_next_is_made_while_one_is_used() -> None:
    begun = [threading.Event() for _ in range(3)]

    def source():
        for number in range(3):
            begun[number].set()
            yield number

    for number in ahead(source()):
        assert number == 2 or begun[number + 1].wait(10)


def test_errors_come_through_and_nothing_is_left_running() -> None:
    def source():
        yield 1
        raise ValueError("torn")

    with pytest.raises(ValueError, match="torn"):
        list(ahead(source()))
    for _ in ahead(iter([1, 2, 3])):
        break
    assert list(ahead(iter([]))) == []
    assert not [one for one in threading.enumerate() if one.name.startswith("genret-decode")]
