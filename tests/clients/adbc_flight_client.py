"""ADBC's Flight SQL driver: rows as Arrow, parameters, what there is, and errors."""

import os
import warnings

import adbc_driver_flightsql.dbapi as flight
from adbc_driver_flightsql import DatabaseOptions

warnings.simplefilter("ignore")  # There are no transactions, which the driver warns of.

options = {}
if "PROMONTORY_CA" in os.environ:
    with open(os.environ["PROMONTORY_CA"]) as file:
        options = {DatabaseOptions.TLS_ROOT_CERTS.value: file.read(), "username": "viewer", "password": "s3cret"}

with flight.connect(os.environ["PROMONTORY_FLIGHT"], db_kwargs=options) as connection:
    with connection.cursor() as cursor:
        cursor.execute("SELECT timestamp, job, value FROM up ORDER BY 1, 2")
        table = cursor.fetch_arrow_table()
        assert table.num_rows == 20 and table.column("job").to_pylist()[:2] == ["api", "node"], table
        cursor.execute("SELECT count(*) AS n, $2 AS same FROM up WHERE job = $1", ("api", 7))
        assert cursor.fetchall() == [(10, 7)]
        cursor.execute("SELECT count(*) AS n, $2 AS same FROM up WHERE job = $1", ("it's", 7))
        assert cursor.fetchall() == [(0, 7)]
        cursor.execute("SELECT 1 AS x UNION ALL SELECT 2.5 ORDER BY 1")
        assert cursor.fetchall() == [(1.0,), (2.5,)]
        for statement in ["SELECT * FROM nothing", "INSERT INTO up VALUES (1)"]:
            try:
                cursor.execute(statement)
                raise SystemExit(f"{statement} was not refused")
            except flight.Error as error:
                assert "SQLSTATE" in str(error), error
        cursor.execute("SELECT a.value FROM up a, up b, up c, up d, up e")
        reader = cursor.fetch_record_batch()
        assert reader.read_next_batch().num_rows > 0
    assert connection.adbc_get_table_schema("up", db_schema_filter="metrics").names == ["timestamp", "value", "job"]
    found = connection.adbc_get_objects(depth="columns", db_schema_filter="metrics", table_name_filter="up")
    (catalog,) = found.read_all().to_pylist()
    (schema,) = catalog["catalog_db_schemas"]
    (table,) = schema["db_schema_tables"]
    columns = [column["column_name"] for column in table["table_columns"]]
    assert (table["table_name"], columns) == ("up", ["timestamp", "value", "job"]), found
    assert connection.adbc_get_info()["vendor_name"] == "Promontory"
    assert "VIEW" in connection.adbc_get_table_types()

if options:
    for changed in [{"password": "wrong"}, {"username": "nobody"}]:
        try:
            with flight.connect(os.environ["PROMONTORY_FLIGHT"], db_kwargs={**options, **changed}) as connection:
                connection.adbc_get_table_types()
            raise SystemExit(f"{changed} was let in")
        except flight.Error as error:
            assert "28P01" in str(error), error
