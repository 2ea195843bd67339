"""genret's conformance kit, recalls counted one by one, and the tables of a run."""

import genret_groups
import pytest
from genret_groups.evaluator import LENGTH, GroupsEvaluator, length_of

from genret.testing import check_evaluator, check_plugin, train_run


def test_it_registers():
    assert check_plugin(genret_groups) == ["evaluator groups"]


@pytest.mark.parametrize("options", [{}, {"most_values": 2, "least_queries": 1}, {"least_queries": 1000}])
def test_it_keeps_the_contract(options):
    check_evaluator(GroupsEvaluator, **options)


def test_figures_are_counted(tmp_path):
    with train_run(tmp_path / "run", "retriever: two-tower\n", genret_groups) as run:
        found = run.evaluate(also={"groups": {"least_queries": 1}})
        told = run.tables(found)
        figures, overall = found.more["groups"], found.recall
        assert set(figures) == {"subject", "place", "row", LENGTH}
        for key in ("subject", "place"):
            groups = figures[key]
            total = sum(one["queries"] for one in groups.values())
            assert total == found.num_queries
            for k in ("1", "5", "10"):
                mean = sum(one["queries"] * one["recall"][k] for one in groups.values()) / total
                assert mean == pytest.approx(overall[k])
        right = {"dog": [], "cat": []}
        for image in (record for record in run.dataset.records("test") if record.metadata["subject"] in right):
            for result in run.search(list(image.captions), k=1):
                right[image.metadata["subject"]].append(result.hits[0].image_id == image.image_id)
        for subject, hits in right.items():
            assert figures["subject"][subject]["recall"]["1"] == pytest.approx(100 * sum(hits) / len(hits))
    assert any("Recall by subject" in str(getattr(table, "title", "")) for table in told)


def test_lengths():
    assert [length_of("x " * count) for count in (1, 3, 4, 11, 16)] == [
        "up to 3", "up to 3", "up to 6", "up to 15", "more than 15",
    ]  # fmt: skip
