"""ADBC's Postgres driver: rows as Arrow, through binary COPY."""

import os

import adbc_driver_postgresql.dbapi as adbc

with adbc.connect(os.environ["PROMONTORY_URL"]) as connection, connection.cursor() as cursor:
    cursor.execute("SELECT timestamp, job, value FROM up ORDER BY 1, 2")
    table = cursor.fetch_arrow_table()
    assert table.num_rows == 20 and table.column("job").to_pylist()[:2] == ["api", "node"], table
