"""The command line's contract, with fakes for what trains, searches and evaluates."""

from __future__ import annotations

import errno
import json
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from genret.api import Hit, IndexReport, Restriction, SearchResult, Skipped
from genret.cli import build
from genret.cli.state import State
from genret.errors import BadImage, GenretError
from genret.plugin import discovery
from genret.plugin.loading import load_plugins
from genret.run import Run
from genret.settings import Settings

TOYS = '''
"""What a module says of itself."""
import genret
from pydantic import Field

class CaptionedImages(genret.Dataset):
    """Toy pictures, for tests.

    More about them.
    """
    class Config(genret.Config):
        path: str = "here"
        """Where they lie."""
        size: int = Field(ge=1)
        """How large they are."""
    def records(self, split): return iter(())
    def read(self, record): return b""

class Towers(genret.Encoder):
    def tower_key(self, modality): return ""
    def image_features(self, images, view=0): ...
    def text_features(self, texts): ...

@genret.hookimpl
def register_datasets(register): register("toy", CaptionedImages)

@genret.hookimpl
def register_encoders(register):
    register("toy", Towers)
    register("broken", "no_such_package_anywhere:X")

@genret.hookimpl
def register_commands(cli):
    @cli.command()
    def hello(): print("hello from a plugin")
'''
RECIPE = "retriever: two-tower\ndataset: {type: toy, size: 3}\nencoder: toy\n"


class FakeCatalog:
    def keys_of(self, image_ids):
        return np.array([0 if image_id.startswith("id-") else -1 for image_id in image_ids])

    def searchable_keys(self):
        return np.arange(2)

    def added_images(self):
        return {}

    def contents_of(self, image_ids):
        return {}

    def close(self):
        """Nothing is open."""


class FakeRetriever:
    catalog = FakeCatalog()

    def __init__(self):
        self.calls = []
        self.hits = [
            Hit(1, "id-1", "/p/dog.png", -0.5, ["c0_1", "c1_2"], {"emoji": "🐶", "name": "dog\x1b[31m face"}),
            Hit(2, "id-2", "emoji.tar:u1f431.png", -1.25, None, {}),
        ]

    def search(self, queries, k=10, *, num_beams=None, restrict=(), **options):
        print("a library chatters")
        self.calls.append((list(queries), k, num_beams, list(restrict)))
        return [SearchResult(query, self.hits[:k], num_beams or 20, 1.5) for query in queries]

    def index(self, images):
        added, skipped = 0, []
        for record, read in images:
            try:
                self.calls.append((record.uri, read()))
                added += 1
            except BadImage as error:
                skipped.append(Skipped(record.uri, str(error)))
        return IndexReport(added, 0, skipped)

    def remove(self, image_ids):
        return IndexReport(0, sum(i == "id-1" for i in image_ids), [Skipped(i, "?") for i in image_ids if i != "id-1"])


class Cli:
    def __init__(self, home: Path):
        self.home = home
        self.retriever = FakeRetriever()

    def __call__(self, *argv: str, input: str | bytes | None = None, debug: bool = False):
        settings = Settings(home=self.home)
        state = State(settings, load_plugins((), settings), debug)
        return CliRunner().invoke(build(state), list(argv), input=input, catch_exceptions=False)

    def finished(self, name: str = "avg-1") -> Path:
        run = self.home / "runs" / name
        run.mkdir(parents=True)
        (run / "summary.json").write_text("{}")
        return run


@pytest.fixture
def cli(tmp_path, monkeypatch) -> Cli:
    monkeypatch.setattr(discovery, "entry_points", lambda group: [])
    cli = Cli(tmp_path / "home")
    (cli.home / "plugins").mkdir(parents=True)
    (cli.home / "plugins" / "toys.py").write_text(TOYS)
    monkeypatch.setattr(Run, "retriever", property(lambda run: cli.retriever))
    monkeypatch.setattr(Run, "catalog", property(lambda run: cli.retriever.catalog))
    return cli


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "toy.yaml"
    path.write_text(RECIPE)
    return path


# ----------------------------------------------------------------------------------------------------------- search
def test_search_json_is_one_document_and_nothing_else(cli):
    cli.finished()
    result = cli("search", "a dog", "-k", "2", "--num-beams", "7", "--where", "emoji=🐶", "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert list(document) == ["query", "hits", "num_beams", "elapsed_ms", "confidence"]
    assert [list(hit) for hit in document["hits"]] == [["rank", "image_id", "uri", "score", "identifier"]] * 2
    assert document["hits"][0]["identifier"] == ["c0_1", "c1_2"] and document["hits"][1]["identifier"] is None
    assert cli.retriever.calls == [(["a dog"], 2, 7, [Restriction(where="emoji=🐶")])]
    assert "a library chatters" in result.stderr


def test_search_for_people(cli):
    cli.finished()
    result = cli("search", "a dog")
    first, second = result.stdout.splitlines()
    assert [*first.split()][:3] == ["1", "-0.500", "🐶"]
    assert "dog[31m face" in first and "\x1b" not in result.stdout, "control characters of metadata are not printed"
    assert "/p/dog.png" in first and "c0_1 c1_2" in first
    assert "u1f431" in second and "emoji.tar:u1f431.png" in second


def test_long_identifiers_do_not_crowd_out_the_rest(cli):
    cli.finished()
    symbols = [f"c{level}_7" for level in range(24)]
    for count in (8, 9, 24):
        cli.retriever.hits = [Hit(1, "id-1", "/p/dog.png", -0.5, symbols[:count], {})]
        (line,) = cli("search", "a dog").stdout.splitlines()
        shown = line.split()[4:]
        assert shown == (symbols[:8] if count == 8 else [*symbols[:8], f"+{count - 8}"])
        document = json.loads(cli("search", "a dog", "--json").stdout)
        assert document["hits"][0]["identifier"] == symbols[:count]


def test_search_without_a_hit(cli):
    cli.finished()
    cli.retriever.hits = []
    result = cli("search", "a dog")
    assert result.exit_code == 0 and result.stdout == "" and "Nothing found" in result.stderr


def test_many_queries_are_answered_in_order_as_json_lines(cli, tmp_path, monkeypatch):
    cli.finished()
    monkeypatch.setattr("genret.commands.search.QUERIES_AT_A_TIME", 2)
    queries = ["one", "two", "drei ä", "vier", "five"]
    (tmp_path / "queries.txt").write_text("\n".join(queries) + "\n", encoding="utf-8")
    for result in (
        cli("search", "--queries", str(tmp_path / "queries.txt")),
        cli("search", "--queries", "-", "--json", input="\r\n".join(queries)),
    ):
        assert result.exit_code == 0
        assert [json.loads(line)["query"] for line in result.stdout.splitlines()] == queries
    assert [len(call[0]) for call in cli.retriever.calls] == [2, 2, 1] * 2


def test_what_may_be_found_is_said_by_options_or_by_each_line(cli, tmp_path):
    cli.finished()
    (tmp_path / "ids.txt").write_text("b\n\nc d\r\n", encoding="utf-8")
    options = ["--only", "a", "--only", f"@{tmp_path / 'ids.txt'}", "--not", "e", "--unlike", "f"]
    assert cli("search", "x", *options, "--unlike-symbols", "1", "--json").exit_code == 0
    lines = [
        "plain words",
        '{"query": "ä dog", "not": ["g"], "where": "k=1"}',
        '{"query": "cat", "only": [], "unlike": ["h", "i"], "unlike_symbols": 3}',
        '{"no query": 1}',
        '{"half',
        "[1]",
    ]
    result = cli("search", "--queries", "-", *options, input="\n".join(lines))
    asked = ["plain words", "ä dog", "cat", *lines[3:]]
    assert [json.loads(line)["query"] for line in result.stdout.splitlines()] == asked
    shared = Restriction("", ("a", "b", "c d"), ("e",), ("f",))
    each = [shared] * len(lines)
    each[1] = shared._replace(where="k=1", without=("g",))
    each[2] = shared._replace(only=(), unlike=("h", "i"), unlike_symbols=3)
    assert cli.retriever.calls == [(["x"], 10, None, [shared._replace(unlike_symbols=1)]), (asked, 10, None, each)]


def test_a_very_long_query_passes(cli):
    cli.finished()
    query = "dog " * 10_000
    assert cli("search", query, "--json").exit_code == 0
    assert cli.retriever.calls[0][0] == [query]


def test_words_without_quotes_are_one_query(cli):
    cli.finished()
    assert json.loads(cli("search", "red", "heart", "-k", "2", "--json").stdout)["query"] == "red heart"


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_empty_lines_and_a_byte_order_mark_are_no_query(cli, tmp_path, mark):
    cli.finished()
    text = f"{mark}\na dog\n\n   \r\n{mark}a cat\n\n"
    (tmp_path / "queries.txt").write_text(text, encoding="utf-8")
    for result in (
        cli("search", "--queries", str(tmp_path / "queries.txt")),
        cli("search", "--queries", "-", input=text),
    ):
        assert [json.loads(line)["query"] for line in result.stdout.splitlines()] == ["a dog", "a cat"]


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("/p/Screenshot 2024-01-02 10:11:12.png", "Screenshot 2024-01-02 10:11:12"),
        ("/p/back\\slash.png", "back\\slash"),
        ("/p/a:b/c.png", "c"),
        ("emoji.tar:u1f431.png", "u1f431"),
        ("/d/train-0.tar:in/a folder/x:y.jpg", "x:y"),
        ("owner/name:test/17", "17"),
        ("/p/dog", "dog"),
    ],
)
def test_names_are_shown_whole(uri, name):
    from genret.toolbox.names import name_of

    assert name_of(Hit(1, "id", uri, 0.0, None, {})) == name


@pytest.mark.parametrize(
    "option",
    [
        ["search", "a", "--run=~/no-such"],
        ["index", "x.png", "--run", "~/no-such"],
        ["evaluate", "--run=~/no-such"],
        ["catalog", "--run=~/no-such"],
        ["compare", "~/no-such"],
        ["report", "~/no-such"],
        ["train", "--resume", "--run=~/no-such"],
        ["validate", "~/no-such.yaml"],
        ["search", "--queries=~/no-such"],
        ["search", "a", "--only=@~/no-such"],
    ],
)
def test_a_tilde_is_the_home_folder(cli, option, monkeypatch, tmp_path):
    """Found there where there is something, and named there where there is not; never a folder called `~`."""
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.chdir(tmp_path)
    cli.finished()
    result = cli(*option)
    assert result.exit_code == 2 and "no-such" in result.stderr
    if not any("--queries" in word or "--only" in word for word in option):
        assert str(tmp_path / "me" / "no-such") in result.stderr
    assert not (tmp_path / "~").exists()


def test_what_is_made_below_a_tilde(cli, recipe, trained, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.chdir(tmp_path)
    assert cli("train", str(recipe), "--run=~/run").exit_code == 0
    assert cli("plugins", "new", "mine", "--kind", "loss", "--folder=~/here").exit_code == 0
    assert (tmp_path / "me" / "run" / "recipe.yaml").is_file() and (tmp_path / "me" / "here" / "genret-mine").is_dir()
    assert not (tmp_path / "~").exists()


HOSTILE = "\x1b]0;owned\x07\u202e"


def test_what_files_say_cannot_act_on_the_terminal(cli, recipe, tmp_path):
    written = tmp_path / "hostile.yaml"
    written.write_text(RECIPE + f"identifier: {{type: {json.dumps(HOSTILE)}}}\n", encoding="utf-8")
    run = cli.finished()
    (run / "catalog.url").write_text(f"nonsense{HOSTILE}://x\n")
    for result in (cli("validate", str(written)), cli("train", str(written), "--set", "x=1"), cli("catalog")):
        assert result.exit_code
        assert not set("\x1b\x07\u202e").intersection(result.stdout + result.stderr)
    assert "]0;owned" in cli("validate", str(written)).stderr


def test_a_query_that_is_no_text_does_not_break_the_answer(cli):
    cli.finished()
    result = cli("search", b"caf\xe9".decode("utf-8", "surrogateescape"), "--json")
    assert json.loads(result.stdout)["query"] == "caf\ufffd"


@pytest.mark.parametrize(
    ("argv", "input", "message"),
    [
        (["search", ""], None, "the query is empty"),
        (["search", " \t\n"], None, "the query is empty"),
        (["search"], None, "ask for something"),
        (["search", "a", "--queries", "-"], "b", "not both"),
        (["search", "--queries", "absent.txt"], None, "there is no file absent.txt"),
        (["search", "--queries", "-"], "", "standard input holds no query"),
        (["search", "--queries", "-"], "\n \n\ufeff\n", "standard input holds no query"),
        (["search", "--queries", "-"], b"\xff\xfe\xfa", "no UTF-8 text"),
        (
            ["search", "--queries", "-"],
            '{"query": "a", "onyl": ["b"]}',
            "line 1 of standard input 'onyl', did you mean",
        ),
        (["search", "--queries", "-"], '{"query": "a", "not": "b"}', "not has to be a list of image ids"),
        (["search", "--queries", "-"], '{"query": "a", "unlike_symbols": 0}', "has to be a number from 1"),
        (["search", "--queries", "-"], 'a\n{"query": " "}', "line 2 of standard input is empty"),
        (["search", "a", "--only", "@absent.txt"], None, "--only: there is no file absent.txt"),
        (["search", "a", "-k", "-1"], None, "-k"),
        (["search", "a", "--min-score", "nan"], None, "--min-score nan"),
        (["search", "a", "--run", "no-such-run"], None, "no run directory no-such-run"),
        (["search", "a", "--run", "avg-11"], None, "did you mean 'avg-1'?"),
        (["serach", "a"], None, "search"),
        (["evaluate", "--num-beams", "1,x"], None, "--num-beams 1,x"),
        (["evaluate", "--num-beams", "0"], None, "--num-beams 0"),
        (["index"], None, "name pictures or folders"),
        (["train"], None, "name a recipe"),
        (["train", "--resume"], None, "--resume needs"),
        (["validate"], None, "RECIPE"),
        (["components", "encodr"], None, "did you mean 'encoder'?"),
        (["components", "encoder", "top"], None, "did you mean 'toy'?"),
    ],
)
def test_wrong_commands_exit_2_with_a_sentence(cli, argv, input, message):
    cli.finished()
    result = cli(*argv, input=input)
    assert result.exit_code == 2
    assert result.stdout == "" and message in result.stderr and "Traceback" not in result.stderr


# -------------------------------------------------------------------------------------------------------------- runs
@pytest.mark.parametrize("argv", [["search", "a"], ["index", "."], ["evaluate"]])
def test_no_run_yet(cli, argv):
    result = cli(*argv)
    assert result.exit_code == 1
    assert f"Error: no finished run yet in {cli.home / 'runs'}; start with: " in result.stderr
    assert result.stderr.endswith("genret train recipes/avg.yaml\n")


def test_unfinished_run_says_how_to_go_on(cli):
    (cli.home / "runs" / "avg-1").mkdir(parents=True)
    assert "no finished run yet" in cli("search", "a").stderr
    result = cli("search", "a", "--run", "avg-1")
    assert result.exit_code == 1 and "--resume" in result.stderr


# ------------------------------------------------------------------------------------------------------------- index
def test_index_adds_skips_and_removes(cli, tmp_path):
    cli.finished()
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"A")
    (folder / "notes.txt").write_bytes(b"not a picture")
    result = cli("index", str(folder), str(tmp_path / "absent"), "--remove", "id-1", "--remove", "id-9", "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert (document["added"], document["removed"]) == (1, 1)
    assert [skipped["path"] for skipped in document["skipped"]] == [str(tmp_path / "absent"), "id-9"]
    assert cli.retriever.calls == [(str(folder / "a.png"), b"A")]


def test_index_that_can_do_nothing_exits_1(cli, tmp_path):
    cli.finished()
    result = cli("index", str(tmp_path / "absent"), "--json")
    assert result.exit_code == 1
    document = {"path": str(tmp_path / "absent"), "reason": "it does not exist"}
    assert json.loads(result.stdout) == {
        "added": 0, "removed": 0, "skipped": [document], "updated": 0, "moved": 0, "unchanged": 0, "missing": 0,
    }  # fmt: skip
    (tmp_path / "empty").mkdir()
    result = cli("index", str(tmp_path / "empty"))
    assert result.exit_code == 1 and "holds no pictures" in result.stderr and "Traceback" not in result.stderr


# ---------------------------------------------------------------------------------------------------------- evaluate
def test_evaluate(cli, monkeypatch, tmp_path):
    run, seen = cli.finished(), []

    def evaluate(opened, split, num_beams, *, also, ui):
        seen.append((opened.folder, split, num_beams, also))
        return SimpleNamespace(as_json=lambda: {"recall": {"1": None}})

    monkeypatch.setattr(Run, "evaluate", evaluate)
    monkeypatch.setattr(Run, "tables", lambda opened, found: ["a table"])
    result = cli("evaluate", "--num-beams", "20, 1,5", "--trec", str(tmp_path), "--json")
    assert json.loads(result.stdout) == {"recall": {"1": None}}
    assert seen == [(run, "test", [1, 5, 20], {"trec": {"folder": str(tmp_path)}})]
    assert cli("evaluate").stdout == "a table\n" and seen[1] == (run, "test", [], {})


# ------------------------------------------------------------------------------------------------------------- train
@pytest.fixture
def trained(monkeypatch):
    calls = []

    def train(recipe, run, registries, settings, ui):
        calls.append(SimpleNamespace(recipe=recipe, run=run))
        (run / "recipe.yaml").write_text(recipe.dump_yaml())
        if calls[-1].recipe.train.seed == 13:
            raise KeyboardInterrupt
        (run / "summary.json").write_text("{}")
        return SimpleNamespace(as_json=lambda: {"run": str(run)})

    monkeypatch.setitem(sys.modules, "genret.training", SimpleNamespace(train=train))
    return calls


def test_train_numbers_its_runs(cli, recipe, trained):
    for number in (1, 2):
        result = cli("train", str(recipe), "--json")
        assert json.loads(result.stdout) == {"run": str(cli.home / "runs" / f"toy-{number}")}
    assert [call.run.name for call in trained] == ["toy-1", "toy-2"] and trained[0].recipe.dataset.options.size == 3


def test_train_refuses_a_used_directory(cli, recipe, trained, tmp_path):
    run = tmp_path / "mine"
    assert cli("train", str(recipe), "--run", str(run)).exit_code == 0
    result = cli("train", str(recipe), "--run", str(run))
    assert result.exit_code == 2 and "--resume" in result.stderr
    assert cli("train", str(recipe), "--run", str(recipe)).exit_code == 2, "a file is no run directory"
    result = cli("train", str(recipe), "--run", str(recipe / "below-a-file"))
    assert result.exit_code == 1 and "a file where a folder is needed" in result.stderr
    assert len(trained) == 1


def test_faults_are_told_before_anything_is_made(cli, recipe, trained):
    result = cli("train", str(recipe), "--set", "train.sed=1", "--set", "encoder=tay")
    assert result.exit_code == 2 and result.stderr.startswith("Error: the recipe has 2 faults:\n")
    assert not (cli.home / "runs").exists() and not trained


def test_interruption_says_how_to_continue_and_resume_finds_it(cli, recipe, trained):
    result = cli("train", str(recipe), "--set", "train.seed=13")
    run = cli.home / "runs" / "toy-1"
    assert result.exit_code == 130
    assert f"genret train --run {run} --resume" in result.stderr
    for argv in (["--run", str(run)], [str(recipe)], ["--run", "toy-1"]):
        assert cli("train", *argv, "--set", "train.seed=13", "--resume").exit_code == 130
        assert trained[-1].run == run and trained[-1].recipe.dump_yaml() == trained[0].recipe.dump_yaml()
    assert cli("train", "--run", str(run), "--resume", "--set", "train.seed=1").exit_code == 0
    result = cli("train", str(recipe), "--resume")
    assert result.exit_code == 2 and "no unfinished run of 'toy'" in result.stderr


def test_resume_of_a_run_that_never_began(cli, recipe, trained, tmp_path):
    assert cli("train", str(recipe), "--run", str(tmp_path / "new"), "--resume").exit_code == 0
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    result = cli("train", str(recipe), "--run", str(tmp_path / "other"), "--resume")
    assert result.exit_code == 2 and "no recipe.yaml" in result.stderr


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (GenretError("the weights are gone"), 1, "Error: the weights are gone"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/a"), 1, "the disk is full (/x/a)"),
        (RuntimeError("SafetensorError: I/O error: No space left on device (os error 28)"), 1, "the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/a"), 1, "no permission to read or write (/x/a)"),
        (OSError(errno.EROFS, "Read-only file system", "/x/a"), 1, "no permission"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/x/a"), 1, "No such file or directory (/x/a)"),
        (MemoryError(), 1, "out of memory"),
        (ZeroDivisionError("division\nby zero"), 1, "unexpected ZeroDivisionError: division by zero"),
    ],
)
def test_failures_are_one_line(cli, recipe, monkeypatch, error, code, message):
    def train(*given):
        raise error

    monkeypatch.setitem(sys.modules, "genret.training", SimpleNamespace(train=train))
    result = cli("train", str(recipe))
    assert result.exit_code == code and message in result.stderr
    assert len(result.stderr.splitlines()) == 1 and result.stdout == ""
    assert "Traceback" in cli("train", str(recipe), debug=True).stderr


# -------------------------------------------------------------------------------------------------------- inspection
def test_validate(cli, recipe, tmp_path):
    result = cli("validate", str(recipe))
    assert result.exit_code == 0 and f"genret train {recipe}" in result.stdout
    printed = cli("validate", str(recipe), "--set", "dataset.size=8", "--print").stdout
    (tmp_path / "resolved.yaml").write_text(printed)
    assert cli("validate", str(tmp_path / "resolved.yaml"), "--print").stdout == printed
    result = cli("validate", str(recipe), "--set", "dataset.size=large")
    assert result.exit_code == 2 and "dataset.size" in result.stderr


def test_components(cli):
    document = json.loads(cli("components", "dataset", "toy", "--json").stdout)
    (part,) = document["components"]
    assert (part["kind"], part["name"], part["origin"]) == ("dataset", "toy", "toys")
    assert part["summary"] == "Toy pictures, for tests." and part["error"] is None
    assert part["options"] == [
        {
            "name": "path",
            "type": "str",
            "default": "here",
            "required": False,
            "bounds": "",
            "meaning": "Where they lie.",
        },
        {
            "name": "size",
            "type": "int",
            "default": None,
            "required": True,
            "bounds": "at least 1",
            "meaning": "How large they are.",
        },
    ]
    page = cli("components", "datasets", "toy").stdout
    assert "Where they lie." in page and "required" in page


def test_a_broken_component_does_not_hide_the_others(cli):
    parts = {part["name"]: part for part in json.loads(cli("components", "encoder", "--json").stdout)["components"]}
    assert "no_such_package_anywhere" in parts["broken"]["error"] and parts["toy"]["error"] is None
    assert parts["toy"]["summary"] == "What a module says of itself.", "not the base class's words"
    result = cli("components", "encoder", "broken")
    assert result.exit_code == 1 and "no_such_package_anywhere" in result.stderr


def test_plugins_and_their_commands(cli):
    (cli.home / "plugins" / "sick.py").write_text("raise RuntimeError('boom')")
    (cli.home / "plugins" / "thief.py").write_text(
        "import genret\n@genret.hookimpl\ndef register_commands(cli):\n"
        "    @cli.command()\n    def train(): print('stolen')\n"
    )
    assert cli("hello").stdout == "hello from a plugin\n"
    document = json.loads(cli("plugins", "--json").stdout)
    assert {plugin["name"] for plugin in document["plugins"]} == {
        "genret",
        "genret.commands",
        "genret.guide",
        "genret.lab",
        "genret.pictures",
        "genret.serve",
        "genret.share",
        "genret.shell",
        "thief",
        "toys",
    }
    assert {f["name"]: f["reason"] for f in document["failures"]} == {
        "sick": "RuntimeError: boom",
        "thief": "its commands are left out: the command 'train' already exists",
    }
    result = cli("plugins")
    assert "FAILED: RuntimeError: boom" in result.stdout and "toys" in result.stdout
    assert "RECIPE" in cli("train", "--help").stdout


def test_every_command_explains_itself(cli):
    assert "First steps" in cli("--help").stdout
    for command in ("train", "search", "index", "evaluate", "validate", "components"):
        assert "Examples:" in cli(command, "--help").stdout


@pytest.mark.parametrize("option", ["--queries", "--only", "--not", "--unlike", "--remove"])
def test_lists_without_end_are_one_sentence_and_little_memory(cli, tmp_path, option):
    """A device of zeros, and one line of 200 MB: neither is read to its end."""
    cli.finished()
    endless = tmp_path / "long.txt"
    with endless.open("wb") as stream:
        stream.truncate(1)
        for _ in range(200):
            stream.write(b"a" * 1_000_000)
    command = ["index"] if option == "--remove" else ["search"] if option == "--queries" else ["search", "a"]
    for path in ("/dev/zero", str(endless)):
        tracemalloc.start()
        result = cli(*command, option, path if option == "--queries" else f"@{path}")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert result.exit_code == 2 and result.stdout == ""
        assert f"{option}: line 1 of {path} is too long or no text" in result.stderr and peak < 32e6


def test_a_list_of_too_many_ids_is_not_read_to_its_end(cli, tmp_path, monkeypatch):
    from genret.commands import queries

    cli.finished()
    monkeypatch.setattr(queries, "MAX_IDS", 3)
    (tmp_path / "ids").write_text("a\n\nb\nc\nd\n")
    result = cli("search", "a", "--only", f"@{tmp_path / 'ids'}")
    assert result.exit_code == 2 and "more than 3 ids; a filter, --where, can select many images" in result.stderr
