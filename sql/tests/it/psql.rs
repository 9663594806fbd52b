//! `psql`, the real one.

use std::process::Command;

use promontory_sql::SqlOptions;

use crate::Server;

/// What `psql` prints for `script`, unaligned without headers; `None` where there is no psql.
async fn psql(server: &Server, script: &str) -> Option<String> {
    psql_with(server, &["-At"], script).await
}

async fn psql_with(server: &Server, arguments: &[&str], script: &str) -> Option<String> {
    let mut command = psql_command(server, "tester");
    command.args(arguments).args(["-c", script]);
    run(command).await
}

/// `psql` that connects to `server` as `user`, and to nothing that the environment names.
pub(crate) fn psql_command(server: &Server, user: &str) -> Command {
    let mut command = Command::new("psql");
    command
        .args(["-X", "-w", "-h", "127.0.0.1", "-p", &server.address.port().to_string()])
        .args(["-U", user, "-d", "promontory"])
        .env_remove("PGPASSWORD")
        .env("PGCONNECT_TIMEOUT", "10");
    command
}

/// What `command` prints, errors last; `None` where there is no psql.
pub(crate) async fn run(mut command: Command) -> Option<String> {
    match tokio::task::spawn_blocking(move || command.output()).await.expect("waits") {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            Some(String::from_utf8(text).expect("psql prints UTF-8"))
        }
        Err(error) => {
            eprintln!("skipped: psql cannot be run: {error}");
            None
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_gets_the_rows_of_a_query() {
    let server = Server::start(SqlOptions::default()).await;
    let cases = [
        (
            "SELECT job, instance, max(value) FROM metrics.up \
             WHERE timestamp > now() - interval '1 hour' GROUP BY 1, 2 ORDER BY 1, 2",
            "api|api:8080|1\nnode|a:9100|1\nnode|b:9100|1\n",
        ),
        ("SELECT count(*) FROM up", "363\n"),
        ("SELECT count(*) FROM metrics.up WHERE env IS NULL", "242\n"),
        ("SELECT DISTINCT env FROM up ORDER BY env", "prod\n\n"),
        (
            "SELECT timestamp, value FROM metrics.\"Odd:Metric\" ORDER BY timestamp LIMIT 5",
            "2026-01-01 10:00:00+00|NaN\n2026-01-01 10:01:00+00|Infinity\n2026-01-01 10:02:00+00|-Infinity\n\
             2026-01-01 10:03:00+00|1e+100\n2026-01-01 10:05:00+00|-0.1\n",
        ),
        (
            "SELECT label_timestamp, label_value, \"Job\", \"a.b\" FROM \"Odd:Metric\" LIMIT 1",
            "monday|x|upper|dot\n",
        ),
        (
            "SELECT timestamp, value, lag(value) OVER (PARTITION BY instance ORDER BY timestamp) \
             FROM up WHERE instance = 'b:9100' AND timestamp BETWEEN '2026-01-01T11:29:00Z' AND \
             '2026-01-01T11:31:00Z' ORDER BY timestamp",
            "2026-01-01 11:29:00+00|1|\n2026-01-01 11:30:00+00|0|1\n2026-01-01 11:31:00+00|1|0\n",
        ),
        (
            "SELECT date_bin(interval '1 hour', timestamp) AS hour, count(*) FROM up \
             WHERE job = 'api' GROUP BY 1 ORDER BY 1",
            "2026-01-01 10:00:00+00|60\n2026-01-01 11:00:00+00|60\n2026-01-01 12:00:00+00|1\n",
        ),
        (
            "SELECT u.job, max(h.value) FROM up u JOIN http_requests_total h \
             ON u.instance = h.instance AND u.timestamp = h.timestamp WHERE h.code = '200' GROUP BY 1",
            "api|7200\n",
        ),
        (
            "SELECT metric, count(*) FROM tsdb.series WHERE metric IN ('Odd:Metric', 'http_requests_total', 'up') \
             GROUP BY 1 ORDER BY 1",
            "Odd:Metric|1\nhttp_requests_total|2\nup|3\n",
        ),
        (
            "SELECT labels, value FROM tsdb.samples WHERE metric = 'up' AND timestamp = now() ORDER BY 1",
            "{\"env\":\"prod\",\"instance\":\"api:8080\",\"job\":\"api\"}|1\n\
             {\"instance\":\"a:9100\",\"job\":\"node\"}|1\n{\"instance\":\"b:9100\",\"job\":\"node\"}|1\n",
        ),
        ("SELECT value FROM tsdb.labels WHERE name = 'job' ORDER BY 1", "api\nnode\n"),
        ("SELECT count(*) FROM tsdb.blocks", "0\n"),
    ];
    for (query, expected) in cases {
        let Some(got) = psql(&server, query).await else { return };
        assert_eq!(got, expected, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_are_called_what_postgres_calls_them() {
    let server = Server::start(SqlOptions::default()).await;
    for (query, expected) in [
        ("SELECT job, instance, max(value) FROM metrics.up GROUP BY 1, 2", "job|instance|max"),
        ("SELECT count(*), min(value), max(value) - min(value) FROM up", "count|min|?column?"),
        ("SELECT max(timestamp), max(value) AS top, max(value) FROM up", "max|top|max"),
        ("SELECT *, value * 2 FROM up", "timestamp|value|env|instance|job|?column?"),
        ("SELECT u.* FROM up u", "timestamp|value|env|instance|job"),
        ("SELECT 1, 'x', true, now()", "?column?|?column?|bool|now"),
        ("SELECT max(value) FROM up UNION ALL SELECT 1", "max"),
        ("SELECT version()", "version"),
    ] {
        let Some(got) = psql_with(&server, &["-A"], query).await else { return };
        assert_eq!(got.lines().next(), Some(expected), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_can_be_referred_to_by_their_names() {
    let server = Server::start(SqlOptions::default()).await;
    for (query, expected) in [
        (
            "SELECT job, max(value) FROM up GROUP BY job HAVING max(value) > 0 ORDER BY max, 1",
            "api|1\nnode|1\n",
        ),
        ("SELECT job, count(*) FROM up GROUP BY 1 ORDER BY count(*) DESC", "node|242\napi|121\n"),
        ("SELECT max FROM (SELECT job, max(value) FROM up GROUP BY 1) t WHERE job = 'api'", "1\n"),
        ("WITH t AS (SELECT count(*) FROM up) SELECT count + 1 FROM t", "364\n"),
        ("SELECT max(value), max(timestamp) FROM up", "1|2026-01-01 12:00:00+00\n"),
        (
            "SELECT date_trunc('hour', timestamp), count(*) FROM up WHERE job = 'api' GROUP BY date_trunc ORDER BY 1",
            "2026-01-01 10:00:00+00|60\n2026-01-01 11:00:00+00|60\n2026-01-01 12:00:00+00|1\n",
        ),
    ] {
        let Some(got) = psql(&server, query).await else { return };
        assert_eq!(got, expected, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_can_look_around() {
    let server = Server::start(SqlOptions::default()).await;
    let Some(databases) = psql(&server, "SELECT datname FROM pg_database").await else { return };
    assert_eq!(databases, "promontory\n");
    let version = psql(&server, "SELECT version()").await.unwrap_or_default();
    assert!(version.starts_with("PostgreSQL 15.0 compatible Promontory "), "{version}");
    let metrics = psql(&server, "\\dt metrics.*").await.unwrap_or_default();
    assert!(metrics.lines().all(|line| line.starts_with("metrics|")), "{metrics}");
    let cases: [(&str, &[&str]); 6] = [
        ("\\dn", &["metrics", "tsdb"]),
        ("\\l", &["promontory"]),
        ("\\dt metrics.*", &["up", "http_requests_total", "Odd:Metric"]),
        ("\\dt", &["up"]),
        (
            "\\d metrics.up",
            &["timestamp", "timestamp with time zone", "value", "double precision", "job", "text"],
        ),
        ("\\d tsdb.blocks", &["ulid", "bigint"]),
    ];
    for (command, expected) in cases {
        let Some(got) = psql(&server, command).await else { return };
        assert!(!got.contains("ERROR"), "{command}: {got}");
        for word in expected {
            assert!(got.contains(word), "{command} does not show {word:?}: {got}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_shows_what_was_pushed_down() {
    let server = Server::start(SqlOptions::default()).await;
    let query = "EXPLAIN SELECT value FROM up WHERE job = 'node' AND instance LIKE 'a%' \
                 AND timestamp >= now() - interval '5 minutes'";
    let Some(plan) = psql(&server, query).await else { return };
    for part in [
        "SeriesScanExec: table=metrics.up",
        "__name__=\"up\"",
        "job=\"node\"",
        "instance=~\"a.*\"",
        "time=[2026-01-01T11:55:00.000Z, +inf]",
        "columns=[value]",
    ] {
        assert!(plan.contains(part), "{part:?} is not in\n{plan}");
    }
    assert!(!plan.contains("FilterExec"), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_hears_what_is_wrong() {
    let server = Server::start(SqlOptions::default()).await;
    for (query, expected) in [
        ("DELETE FROM up", "0A000: Promontory is read only: DELETE is not supported"),
        ("EXPLAIN INSERT INTO up VALUES (1)", "0A000: Promontory is read only: INSERT is not supported"),
        ("DROP TABLE up", "0A000: Promontory is read only: DROP TABLE is not supported"),
        ("CREATE TABLE t (a int)", "0A000: Promontory is read only: CREATE TABLE is not supported"),
        ("SELECT * FROM no_such_metric", "42P01: relation \"metrics.no_such_metric\" does not exist"),
        ("SELECT no_such_label FROM up", "42703: column \"no_such_label\" does not exist"),
        ("SELEC 1", "42601: syntax error"),
    ] {
        let Some(got) = psql_with(&server, &["-v", "VERBOSITY=verbose"], query).await else { return };
        assert!(got.contains(expected), "{query}: {got}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_psql_that_looks_around_answers() {
    let server = Server::start(SqlOptions::default()).await;
    for (command, expected) in [
        ("\\dt+", "up"),
        ("\\d", "up"),
        ("\\d+", "up"),
        ("\\d metrics.up", "timestamp with time zone"),
        ("\\d+ up", "Stats target|Description"),
        ("\\d+ tsdb.series", "labels"),
        ("\\dt tsdb.*", "series"),
        ("\\dn+", "metrics"),
        ("\\df", "time_bucket"),
        ("\\df+ time_bucket", "width, timestamp"),
        ("\\da", "approx_percentile"),
        ("\\du", "Superuser"),
        ("\\du+", "tester"),
        ("\\dv", ""),
        ("\\dv+", ""),
        ("\\di", ""),
        ("\\ds", ""),
        ("\\dm", ""),
        ("\\l+", "promontory"),
        ("\\dT", ""),
        ("\\dT+", ""),
        ("\\dp", "up"),
        ("\\ddp", ""),
        ("\\dx", "plpgsql"),
        ("\\db+", "pg_default"),
        ("\\dC", ""),
        ("\\dD", ""),
        ("\\drds", ""),
        ("\\dl", ""),
        ("\\dA", "heap"),
        ("\\dRp", ""),
        ("\\conninfo", "tester"),
        ("\\encoding", "UTF8"),
    ] {
        let Some(got) = psql_with(&server, &["-A"], command).await else { return };
        assert!(!got.contains("ERROR") && got.contains(expected), "{command}: {got}");
    }
    // What is not in the search path has to be called by its full name, and is listed so.
    let listed = psql(&server, "\\dt").await.unwrap_or_default();
    assert!(!listed.contains("tsdb|"), "{listed}");
    let moved =
        psql_with(&server, &["-At", "-c", "SET search_path TO tsdb"], "\\dt").await.unwrap_or_default();
    assert!(moved.contains("tsdb|series") && !moved.contains("metrics|"), "{moved}");
}

/// The statements that psql 15 completes names with.
#[tokio::test(flavor = "multi_thread")]
async fn psql_completes_names() {
    let server = Server::start(SqlOptions::default()).await;
    for (query, expected) in [
        (
            "SELECT c.relname, NULL::pg_catalog.text FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'S', 'v', 'm', \
             'f', 'p') AND (c.relname) LIKE 'u%' AND pg_catalog.pg_table_is_visible(c.oid) AND c.relnamespace <> \
             (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'pg_catalog') UNION ALL SELECT NULL::pg_catalog.text, \
             n.nspname FROM pg_catalog.pg_namespace n WHERE n.nspname LIKE 'u%' AND n.nspname NOT LIKE E'pg\\\\_%' LIMIT 1000",
            "up|",
        ),
        (
            "SELECT a.attname, NULL::pg_catalog.text FROM pg_catalog.pg_attribute a, pg_catalog.pg_class c WHERE \
             c.oid = a.attrelid AND a.attnum > 0 AND NOT a.attisdropped AND (a.attname) LIKE 'in%' AND (c.relname) = 'up' \
             AND pg_catalog.pg_table_is_visible(c.oid) LIMIT 1000",
            "instance|",
        ),
        ("SELECT n.nspname FROM pg_catalog.pg_namespace n WHERE n.nspname LIKE 'm%' LIMIT 1000", "metrics"),
    ] {
        let Some(got) = psql(&server, query).await else { return };
        assert_eq!(got.trim_end(), expected, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_postgres_users_write_is_understood() {
    let server = Server::start(SqlOptions::default()).await;
    for (query, expected) in [
        (
            "SELECT interval '1 minute' * 5, 2 * interval '1 hour', interval '1 day' / 2",
            "00:05:00|02:00:00|12:00:00",
        ),
        ("SELECT age(timestamp '2026-01-01 00:00', timestamp '2025-11-30 12:00')", "1 mon 12:00:00"),
        ("SELECT format('%s has %I', 'x', 'A b'), width_bucket(5.35, 0.024, 10.06, 5)", "x has \"A b\"|3"),
        (
            "SELECT to_char(now(), 'YYYY-MM-DD HH24:MI'), pg_typeof(value) FROM up LIMIT 1",
            "2026-01-01 12:00|double precision",
        ),
        (
            "SELECT set_config('search_path', 'tsdb', false); SELECT current_schema(), current_role",
            "tsdb\ntsdb|tester",
        ),
        (
            "SELECT ARRAY(SELECT DISTINCT job FROM up ORDER BY 1), ARRAY(SELECT job FROM up WHERE false)",
            "{api,node}|{}",
        ),
        ("SELECT array_agg(job) FROM up WHERE timestamp = now() AND job = 'api'", "{api}"),
        (
            "SELECT a.job, (SELECT max(h.value) FROM http_requests_total h WHERE h.job = a.job) FROM up a \
             WHERE a.timestamp = now() AND a.job = 'api'",
            "api|7200",
        ),
        ("SELECT 1, 1, job, job FROM up WHERE job = 'api' FETCH FIRST 1 ROW ONLY", "1|1|api|api"),
        ("SELECT EXISTS(SELECT 1 FROM up), NOT EXISTS(SELECT 1 FROM up WHERE false)", "t|t"),
        ("SELECT count(*) FROM up WHERE timestamp >= '2026-01-01 12:00'", "3"),
        (
            "SELECT DISTINCT labels::json ->> 'job' FROM tsdb.series WHERE metric = 'up' ORDER BY 1",
            "api\nnode",
        ),
        ("SELECT 'metrics.up'::regclass = (SELECT oid FROM pg_class WHERE relname = 'up')", "t"),
        ("SELECT 'nothing'::regclass IS NULL", "t"),
        ("SELECT 'up'::regclass", "up"),
        ("SELECT 'tsdb.blocks'::regclass, 'pg_class'::regclass", "tsdb.blocks|pg_class"),
        (
            "SELECT DISTINCT attrelid::regclass FROM pg_attribute WHERE attrelid = 'tsdb.labels'::regclass",
            "tsdb.labels",
        ),
        ("SELECT oid::regclass AS t FROM pg_class WHERE relname = 'Odd:Metric'", "\"Odd:Metric\""),
        (
            "SELECT attrelid::regclass, count(*) > 1 FROM pg_attribute WHERE attrelid::regclass::text = 'up' GROUP BY attrelid::regclass",
            "up|t",
        ),
        ("SELECT 0::regclass, 999999::regclass", "-|999999"),
        ("SELECT has_table_privilege('up', 'SELECT'), has_table_privilege('up', 'INSERT')", "t|f"),
        ("SELECT usesuper FROM pg_user WHERE usename = current_user", "f"),
        ("SELECT pid = pg_backend_pid() FROM pg_stat_activity WHERE usename = user", "t"),
        ("SELECT pg_size_pretty(pg_database_size('promontory')), pg_encoding_to_char(6)", "0 bytes|UTF8"),
        (
            "SELECT column_name, data_type, is_nullable FROM information_schema.columns \
             WHERE table_schema = 'metrics' AND table_name = 'up' ORDER BY ordinal_position LIMIT 3",
            "timestamp|timestamp with time zone|NO\nvalue|double precision|NO\nenv|text|YES",
        ),
        ("SELECT table_type FROM information_schema.tables WHERE table_name = 'up'", "BASE TABLE"),
        ("SELECT count(*) FROM information_schema.key_column_usage", "0"),
    ] {
        let Some(got) = psql(&server, query).await else { return };
        assert_eq!(got.trim_end(), expected, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rare_commands_of_psql_answer() {
    let server = Server::start(SqlOptions::default()).await;
    for command in ["\\dd", "\\dL", "\\dconfig", "\\dconfig *timeout*", "\\sf version", "\\dd up"] {
        let Some(got) = psql(&server, command).await else { return };
        assert!(!got.contains("ERROR"), "{command}: {got}");
    }
    let mut command = psql_command(&server, "tester");
    command.args(["-c", "\\timing", "-c", "SELECT 1"]);
    let Some(got) = run(command).await else { return };
    assert!(got.contains("Timing is on.") && got.contains("Time: "), "{got}");
}

#[tokio::test(flavor = "multi_thread")]
async fn words_of_postgres_with_a_syntax_of_their_own() {
    let server = Server::start(SqlOptions::default()).await;
    for (query, expected) in [
        (
            "SELECT timestamp '2026-01-01 00:00:00' + make_interval(days => 2, hours => 3)",
            "2026-01-03 03:00:00\n",
        ),
        (
            "SELECT timestamp '2026-01-01 00:00:00' + make_interval(1, 1, 1, 1, 1, 1, 1.5)",
            "2027-02-09 01:01:01.5\n",
        ),
        ("SELECT mode() WITHIN GROUP (ORDER BY job) FROM up", "node\n"),
        (
            "SELECT job, mode() WITHIN GROUP (ORDER BY value) FROM up GROUP BY job ORDER BY 1",
            "api|1\nnode|1\n",
        ),
    ] {
        let Some(got) = psql(&server, query).await else { return };
        assert_eq!(got, expected, "{query}");
    }
}
