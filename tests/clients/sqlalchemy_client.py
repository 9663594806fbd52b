"""SQLAlchemy: reflection as Superset does it, a query over the reflected table, pandas."""

import os

import sqlalchemy

url = os.environ["PROMONTORY_URL"].replace("postgresql://", "postgresql+psycopg://")
engine = sqlalchemy.create_engine(url)
inspector = sqlalchemy.inspect(engine)
assert {"metrics", "tsdb"} <= set(inspector.get_schema_names())
assert "up" in inspector.get_table_names("metrics")
assert inspector.has_table("up", "metrics")
columns = {column["name"]: str(column["type"]) for column in inspector.get_columns("up", "metrics")}
assert columns == {"timestamp": "TIMESTAMP", "value": "DOUBLE PRECISION", "job": "TEXT"}, columns
assert inspector.get_pk_constraint("up", "metrics")["constrained_columns"] == []
assert inspector.get_foreign_keys("up", "metrics") == []
assert inspector.get_indexes("up", "metrics") == []
assert inspector.get_unique_constraints("up", "metrics") == []
table = sqlalchemy.Table("up", sqlalchemy.MetaData(), autoload_with=engine, schema="metrics")
query = sqlalchemy.select(table.c.job, sqlalchemy.func.count()).group_by(table.c.job).order_by(table.c.job)
with engine.connect() as connection:
    assert [tuple(row) for row in connection.execute(query)] == [("api", 10), ("node", 10)]

try:
    import pandas
except ImportError:
    print("skipped: no pandas")
else:
    frame = pandas.read_sql("SELECT timestamp, value FROM up", engine)
    assert frame.shape == (20, 2) and str(frame["value"].dtype) == "float64", frame.dtypes
    assert str(frame["timestamp"].dtype).startswith("datetime64"), frame.dtypes
