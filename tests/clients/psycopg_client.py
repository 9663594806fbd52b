"""psycopg 3: parameters, server-side cursors, COPY, binary results."""

import datetime
import os

import psycopg

START = datetime.datetime(2026, 11, 21, tzinfo=datetime.timezone.utc)

with psycopg.connect(os.environ["PROMONTORY_DSN"]) as connection:
    rows = connection.execute("SELECT job, count(*) FROM up WHERE value >= %s GROUP BY 1 ORDER BY 1", (0.5,))
    assert rows.fetchall() == [("api", 10), ("node", 10)]
    with connection.cursor("named") as cursor:
        cursor.execute("SELECT timestamp, value FROM up WHERE job = %s ORDER BY 1", ("node",))
        assert cursor.fetchmany(2) == [(START, 1.0), (START + datetime.timedelta(seconds=15), 1.0)]
        assert len(cursor.fetchall()) == 8
    with connection.cursor().copy("COPY (SELECT DISTINCT job FROM up ORDER BY 1) TO STDOUT") as copy:
        assert list(copy.rows()) == [("api",), ("node",)]
    with connection.cursor(binary=True) as cursor:
        cursor.execute("SELECT timestamp, value, job, 1::int, true FROM up WHERE job = 'api' ORDER BY 1 LIMIT 1")
        assert cursor.fetchone() == (START, 1.0, "api", 1, True)
    try:
        with connection.transaction():
            connection.execute("SELECT * FROM nothing")
    except psycopg.errors.UndefinedTable:
        pass
    else:
        raise AssertionError("there is no such table")
    assert connection.execute("SELECT 1").fetchone() == (1,)
