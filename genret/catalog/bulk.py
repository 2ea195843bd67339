"""Many rows into one table at the database's own speed: SQLAlchemy's way of binding each value costs more than that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import JSON, Connection, Table, bindparam, insert
from sqlalchemy.types import Text


def insert_rows(connection: Connection, table: Table, names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    """rows: values of the columns `names`; JSON as text already."""
    if not rows:
        return
    dialect = connection.dialect
    quote = dialect.identifier_preparer.quote
    columns = f"{quote(table.name)} ({', '.join(quote(name) for name in names)})"
    if dialect.name == "sqlite":
        places = ", ".join("?" * len(names))
        connection.exec_driver_sql(f"INSERT INTO {columns} VALUES ({places})", list(rows))
    elif dialect.driver == "psycopg":
        cursor: Any = connection.connection.cursor()
        with cursor, cursor.copy(f"COPY {columns} FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
    else:
        text = {name: bindparam(name, type_=Text()) for name in names if isinstance(table.c[name].type, JSON)}
        connection.execute(insert(table).values(text), [dict(zip(names, row, strict=True)) for row in rows])
