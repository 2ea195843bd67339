"""Rows of a batch in threads of their own: all of them, in order, with torch's threads shared out."""

import threading

import pytest
import torch

from genret.toolbox import cores
from tests.threads import torch_threads


@pytest.fixture
def four_threads():
    with torch_threads(4):
        yield


@pytest.mark.parametrize(("rows", "parts"), [(0, 1), (1, 1), (7, 1), (8, 2), (15, 3), (16, 4), (1000, 4)])
def test_parts_have_enough_rows_and_a_thread_each(four_threads, rows, parts):
    assert cores.num_parts(rows, torch.device("cpu")) == parts
    assert cores.num_parts(rows, torch.device("cuda")) == 1


def test_results_are_in_order_and_items_run_at_the_same_time(four_threads):
    meeting = threading.Barrier(4, timeout=30)

    def together(item):
        meeting.wait()  # none returns before all have begun
        return item, torch.get_num_threads()

    assert cores.side_by_side(together, "abcd") == [(item, 1) for item in "abcd"]
    assert cores.side_by_side(lambda item: torch.get_num_threads(), "ab") == [2, 2]
    assert torch.get_num_threads() == 4
    later = list[int]()
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [4]  # threads that others start have what they would have had


def test_one_item_stays_in_its_thread(four_threads):
    assert cores.side_by_side(lambda item: threading.current_thread(), "a") == [threading.current_thread()]


def test_an_error_comes_through_after_all_have_ended(four_threads):
    ended = list[str]()

    def work(item):
        if item == "a":
            raise ValueError("of a")
        ended.append(item)

    with pytest.raises(ValueError, match="of a"):
        cores.side_by_side(work, "abc")
    assert sorted(ended) == ["b", "c"]
