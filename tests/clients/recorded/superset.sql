-- What Superset asks beside what SQLAlchemy does: views, estimates, and charts by time.
-- expect: metrics
SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg_%' ORDER BY nspname;
-- expect: up
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'metrics' AND c.relkind in ('r', 'p');
-- expect:
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'metrics' AND c.relkind IN ('v', 'm');
-- expect: 2026-11-21 00:00:00
SELECT DATE_TRUNC('day', timestamp) AS __timestamp, AVG(value) AS "AVG(value)" FROM metrics.up
WHERE timestamp >= TO_TIMESTAMP('2026-11-20 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US') AND timestamp < TO_TIMESTAMP('2026-11-22 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY DATE_TRUNC('day', timestamp) ORDER BY "AVG(value)" DESC LIMIT 1000;
-- expect: node
SELECT job AS job, count(DISTINCT instance) AS "COUNT_DISTINCT(instance)" FROM metrics.up GROUP BY job ORDER BY job LIMIT 10000;
