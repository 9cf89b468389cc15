"""SQL over a run: DuckDB views of every stage, and nothing else within reach."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow.dataset as ds

from flows.runs import RunRecord
from pipelines.store import Store
from schemas.errors import UserError

ROOM = "2GB"


def query(store: Store, run: RunRecord, sql: str) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
    """Column names and rows of a query over one run.

    Every table of stage S is the view S.TABLE (dots of a stage's name become underscores); a table
    name that several stages share is also a view over all of them, with a column `stage_name`.
    DuckDB's access to files is off before the SQL is read: it sees the views only.
    """
    connection = duckdb.connect(":memory:")
    spill = store.root / "tmp"
    connection.execute(f"set memory_limit = '{ROOM}'")
    connection.execute("set temp_directory = ?", [str(spill)])
    places: dict[str, list[str]] = {}
    for name, output in run.outputs(store):
        schema = name.replace(".", "_")
        connection.execute(f'create schema if not exists "{schema}"')
        tables = {table: output.paths(table) for table in output.manifest.tables}
        for shard in output.manifest.files:
            if shard.file.endswith(".parquet"):
                table = shard.file.removeprefix("files/").removesuffix(".parquet")
                tables[table.replace("/", "_")] = [output.path / shard.file]
        for table, paths in tables.items():
            if not paths:
                continue
            relation = f"{schema}__{table}"
            connection.register(relation, ds.dataset([str(p) for p in paths], format="parquet"))
            connection.execute(
                f'create view "{schema}"."{table}" as select * from main."{relation}"'
            )
            if table in output.manifest.tables:
                places.setdefault(table, []).append(schema)
    for table, schemas in places.items():
        parts = [f'select \'{s}\' as stage_name, * from "{s}"."{table}"' for s in schemas]
        connection.execute(f'create view "{table}" as {" union all by name ".join(parts)}')
    connection.execute("set python_enable_replacements = false")
    connection.execute("set enable_external_access = false")
    connection.execute("set lock_configuration = true")
    try:
        cursor = connection.execute(sql)
    except duckdb.Error as error:
        raise UserError(f"query: {' '.join(str(error).split())}") from None
    if cursor is None:
        raise UserError("query: nothing is asked; try: select * from decisions limit 5")
    columns = [column[0] for column in cursor.description or ()]

    def rows() -> Iterator[tuple[Any, ...]]:
        while batch := cursor.fetchmany(1000):
            yield from batch

    return columns, rows()
