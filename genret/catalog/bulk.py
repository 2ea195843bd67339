"""Many rows and many keys at the database's own speed: SQLAlchemy's way of binding each value costs more than that."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import JSON, Connection, Select, Table, bindparam, column, func, insert, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text

AT_A_TIME = 5_000
"""Values asked for with one statement."""
IN_A_LIST = 500
"""Likewise, where each value is a parameter of its own."""


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


def select_among(
    connection: Connection, statement: Select[Any], among: Any, values: Sequence[Any]
) -> Iterator[Sequence[Any]]:
    """What `statement` finds where the column `among` has one of the values (texts or whole numbers), in parts."""
    size = AT_A_TIME
    asked: Any = bindparam("values")
    if connection.dialect.name == "sqlite":
        listed = func.json_each(asked).table_valued(column("value", among.type))
        statement = statement.where(among.in_(select(listed.c.value)))
    elif connection.dialect.name == "postgresql":
        statement = statement.where(among == func.any(bindparam("values", type_=ARRAY(among.type))))
    else:
        size, statement = IN_A_LIST, statement.where(among.in_(bindparam("values", expanding=True)))
    for start in range(0, len(values), size):
        some: Any = list(values[start : start + size])
        if connection.dialect.name == "sqlite":
            some = json.dumps(some)
        if rows := connection.execute(statement, {"values": some}).all():
            yield rows
