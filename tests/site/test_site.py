"""The documentation site, built strictly: complete, and whole in itself."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

import genret
import genret.api
from tests.test_docs import commands

pytest.importorskip("mkdocs")
pytest.importorskip("material")
pytest.importorskip("mkdocstrings_handlers.python")

ROOT = Path(__file__).parents[2]
HOOK = runpy.run_path(str(ROOT / "tools" / "site.py"))


def build(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder), *options]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Strict: a link or anchor that leads nowhere, or a page outside the navigation, fails it."""
    folder = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def pages(site: Path) -> dict[str, str]:
    return {path.relative_to(site).as_posix(): path.read_text(encoding="utf-8") for path in site.rglob("*.html")}


def article(html: str) -> str:
    (inner,) = re.findall(r"<article\b.*?>(.*)</article>", html, re.DOTALL)
    return str(inner)


def test_nothing_comes_from_elsewhere(site: Path) -> None:
    """No script, style, picture or font: only links that a reader follows."""
    for name, html in pages(site).items():
        loaded = re.findall(r"<(?!a\b)\w+\b[^>]*?\b(?:src|href|srcset)=[\"']?((?:https?:)?//[^\"' >]+)", html)
        assert not loaded, f"{name} loads {loaded}"
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style


def test_every_public_name_and_command_has_its_place(site: Path) -> None:
    html = "".join((site / "reference" / f"{name}.html").read_text() for name in ("python", "components"))
    for name in set(genret.__all__) - {"__version__"}:
        found = re.search(rf'<h\d[^>]*\bid="genret\.(?:[\w.]+\.)?{name}"', html)
        assert found, f"the reference lacks genret.{name}"
    for name in genret.api.__all__:
        assert re.search(rf'<h\d[^>]*\bid="genret\.api\.(?:\w+\.)?{name}"|<h\d[^>]*\bid="genret\.{name}"', html), name
    told = (site / "reference" / "help.html").read_text()
    for name in commands():
        assert f'id="genret-{name.replace(" ", "-")}"' in told and f"Usage: genret {name}" in told, name
    assert "\b" not in told, "no control characters: a blank line belongs before each \\b of a docstring"
    kit = (site / "reference" / "kit.html").read_text()
    for path in (ROOT / "genret" / "kit").glob("[a-z]*.py"):
        assert f'id="genret.kit.{path.stem}"' in kit, path.stem


@pytest.mark.parametrize(
    "name", sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("docs/*.md"), ROOT / "README.md"])
)
def test_a_page_reads_as_in_the_repository(site: Path, name: str) -> None:
    """As many headings, list items, rows and blocks as CommonMark sees, which is what people see at a repository."""
    tokens = MarkdownIt("commonmark").enable("table").parse((ROOT / name).read_text(encoding="utf-8"))
    html = article((site / HOOK["place"](name)).with_suffix(".html").read_text(encoding="utf-8"))
    for tag, kind in {"h2": "heading_open", "li": "list_item_open", "tr": "tr_open", "pre": "fence"}.items():
        expected = sum(token.type == kind and token.tag in (tag, "code") for token in tokens)
        assert len(re.findall(rf"<{tag}\b", html)) == expected, f"{name}: {tag}"


def test_links_are_turned() -> None:
    turned = HOOK["turned"]
    assert turned("[a](docs/data.md#x) ![b](docs/pictures/p.png)", "index.md") == "[a](data.md#x) ![b](pictures/p.png)"
    assert turned("[a](../README.md#q) [b](https://x.org/y)", "data.md") == "[a](index.md#q) [b](https://x.org/y)"
    assert turned("[a](../../docs/plugins.md)", "plugins/genret-bm25.md") == "[a](../plugins.md)"
    assert turned("[a](../LICENSE)", "data.md") == "[a](files/LICENSE)"


def test_a_link_that_leads_nowhere_stops_the_build(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for name in ("index", "other"):
        (tmp_path / "docs" / f"{name}.md").write_text("# A page\n\n[gone](other.md#nowhere)\n")
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    validation = re.findall(r"^validation:\n(?:  .+\n)+", text, re.MULTILINE)[0]
    (tmp_path / "mkdocs.yml").write_text(f"site_name: x\n{validation}")
    done = build(tmp_path / "site", "-f", str(tmp_path / "mkdocs.yml"))
    assert done.returncode == 1 and "nowhere" in done.stdout + done.stderr


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (apt-get install chromium)")
def test_it_is_read_and_searched_from_the_disk(site: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-quic"]
        )
        page = browser.new_page()
        asked, failed = list[str](), list[str]()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.goto((site / "index.html").as_uri())
        page.click("nav >> text=Your own pictures >> nth=0")
        assert page.url.endswith("own-pictures.html")
        page.fill("input.md-search__input", "ledger")
        page.wait_for_selector(".md-search-result__item", timeout=20_000)
        assert "ledger" in page.inner_text(".md-search-result__list").lower()
        browser.close()
    assert asked and all(url.startswith(("file:", "data:", "blob:")) for url in asked) and not failed
