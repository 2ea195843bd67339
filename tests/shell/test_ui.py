"""Progress on a terminal and beside one; whatever is shown is safe to show."""

from __future__ import annotations

import io
import json
import re
import time

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from genret.shell import ui as ui_module
from genret.shell.ui import Ui, _Lines


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(ui_module, "SHOW_AFTER_SECONDS", 0.01)
    monkeypatch.setattr(ui_module, "LINE_EVERY_SECONDS", 0.0)
    monkeypatch.setenv("TERM", "xterm")  # rich draws no bars on a dumb terminal


def on_terminal() -> tuple[Ui, io.StringIO]:
    ui, screen = Ui(), io.StringIO()
    ui._err = Console(file=screen, force_terminal=True, width=100)
    return ui, screen


def test_answers_and_talk_are_kept_apart(capsys):
    with Ui(json=True) as ui:
        print("a library chatters")
        ui.note("a note [not markup]")
        ui.table("a table")
        ui.document({"ä": [1, None]})
    printed = capsys.readouterr()
    assert printed.out == '{"ä": [1, null]}\n' and json.loads(printed.out)
    assert printed.err == "a library chatters\na note [not markup]\na table\n"


def test_tables_are_answers_for_people(capsys):
    table = Table(box=None)
    table.add_row("x" * 150)
    with Ui() as ui:
        ui.table(table)
    assert "x" * 150 in capsys.readouterr().out, "where nobody watches, nothing is cut to a terminal's width"


def test_standard_output_comes_back_after_an_error(capsys):
    with pytest.raises(RuntimeError), Ui():
        raise RuntimeError
    print("answer")
    assert capsys.readouterr().out == "answer\n"


def test_documents_are_valid_json(capsys):
    with Ui(json=True) as ui, pytest.raises(ValueError):
        ui.document({"score": float("nan")})
    assert capsys.readouterr().out == ""


def test_long_steps_say_how_far_they_are(quick, capsys):
    with Ui() as ui, ui.progress("encoding", 10) as bar:
        bar.advance(4)
        time.sleep(0.02)
        bar.advance(2)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "encoding: 4 of 10" and second.startswith("encoding: 6 of 10, 0:00 left")


def test_a_slow_beginning_is_no_speed(quick, capsys):
    with Ui() as ui:
        lines = _Lines(ui, "generator", 1000)
        lines._start -= 100  # what comes before the first step: loading, compiling
        lines.advance(1)
        time.sleep(0.02)
        lines.advance(1)
    assert re.search(r"generator: 2 of 1000, 0:\d\d left", capsys.readouterr().err)


def test_short_steps_say_nothing(capsys):
    with Ui() as ui, ui.progress("encoding", 10) as bar:
        bar.advance(10)
    assert capsys.readouterr().err == ""
    ui, screen = on_terminal()
    with ui, ui.progress("encoding", 10) as bar:
        bar.advance(10)
    assert screen.getvalue() == ""


def test_bars_appear_even_before_the_first_advance_and_nest(quick):
    ui, screen = on_terminal()
    with ui, ui.progress("outer", 2) as outer:
        time.sleep(0.15)
        assert "outer" in screen.getvalue()
        with ui.progress("inner", None) as inner:
            time.sleep(0.15)
            inner.advance(3)
            ui.note("in between")
        outer.advance(1)
    assert "inner" in screen.getvalue() and "in between" in screen.getvalue()
    assert ui._bars is None, "the terminal is given back"


def test_bars_go_away_after_an_error(quick):
    ui, _ = on_terminal()
    with pytest.raises(RuntimeError), ui, ui.progress("step", 2):
        time.sleep(0.15)
        raise RuntimeError
    assert ui._bars is None


HOSTILE = "a\x1b]0;title\x07b \u202ec"
"""Sets the window's title and turns the direction of writing."""


def test_whatever_is_shown_is_cleaned(capsys):
    table = Table(HOSTILE, box=None, title=HOSTILE)
    table.add_row(Text(HOSTILE, style="bold"))
    with Ui() as ui:
        for show in (ui.note, ui.warn, ui.result):
            show(f"one\n{HOSTILE}")
        ui.table(table)
        ui.table(Text(HOSTILE))
    printed = capsys.readouterr()
    assert printed.err == "one\na]0;titleb c\nWarning: one\na]0;titleb c\n"
    assert printed.out.count("a]0;titleb c") == 5 and not set("\x1b\x07\u202e").intersection(printed.out)


def test_styles_of_tables_reach_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")  # a dumb terminal has no styles
    ui, screen = on_terminal()
    ui.json = True
    ui.table(Text(HOSTILE, style="bold"))
    assert screen.getvalue() == "\x1b[1ma]0;titleb c\x1b[0m\n"


def test_output_that_cannot_say_everything(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii"))
    with Ui() as ui:
        ui.result("käse")
        ui.table(Text("hund\u00e4"))
        ui.document({"ä": "🐶"})
    lines = raw.getvalue().decode("ascii").splitlines()
    assert lines[:2] == ["k?se", "hund?"] and lines[2].isascii() and json.loads(lines[2]) == {"ä": "🐶"}
    assert "?" not in lines[2]
