-- What Grafana's PostgreSQL data source asks for its query builder, and what its macros become.
-- expect: 1500
SELECT current_setting('server_version_num')::int/100 as version;
-- expect:
SELECT extversion FROM pg_extension WHERE extname = 'timescaledb';
-- expect: up
SELECT
    CASE WHEN
          quote_ident(table_schema) IN (
          SELECT
            CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
          FROM
            generate_series(
              array_lower(string_to_array(current_setting('search_path'),','),1),
              array_upper(string_to_array(current_setting('search_path'),','),1)
            ) as i,
            string_to_array(current_setting('search_path'),',') s
          )
      THEN quote_ident(table_name)
      ELSE quote_ident(table_schema) || '.' || quote_ident(table_name)
    END AS "table"
    FROM information_schema.tables
    WHERE quote_ident(table_schema) NOT IN ('information_schema',
                             'pg_catalog',
                             '_timescaledb_cache',
                             '_timescaledb_catalog',
                             '_timescaledb_internal',
                             '_timescaledb_config',
                             'timescaledb_information',
                             'timescaledb_experimental')
    ORDER BY CASE WHEN
          quote_ident(table_schema) IN (
          SELECT
            CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
          FROM
            generate_series(
              array_lower(string_to_array(current_setting('search_path'),','),1),
              array_upper(string_to_array(current_setting('search_path'),','),1)
            ) as i,
            string_to_array(current_setting('search_path'),',') s
          ) THEN 0 ELSE 1 END, 1;
-- expect: timestamp with time zone
SELECT quote_ident(column_name) AS "column", data_type AS "type"
    FROM information_schema.columns
    WHERE quote_ident(table_schema) = 'metrics' AND quote_ident(table_name) = 'up';
-- expect: api
SELECT floor(extract(epoch from "timestamp")/60)*60 AS "time", job AS metric, avg(value) AS "value"
    FROM up WHERE "timestamp" BETWEEN '2026-11-21T00:00:00Z' AND '2026-11-21T01:00:00Z'
    GROUP BY 1, 2 ORDER BY 1, 2;
-- expect: 2026-11-21 00:00:00
SELECT "timestamp" AS "time", value FROM up WHERE job = 'api' AND "timestamp" >= '2026-11-21T00:00:00Z' AND "timestamp" <= '2026-11-21T01:00:00Z' ORDER BY 1;
