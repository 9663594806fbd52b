#!/usr/bin/env python3
"""Analytical SQL: Promontory beside DuckDB and PostgreSQL, on the same samples, in one run.

    cargo build --release
    cargo run --release -p promontory-tsdb --example generate_block -- /tmp/blocks
    benches/sql_speed.py /tmp/blocks --work /tmp/sql-speed

Promontory reads the blocks and is asked over the Postgres wire (psycopg). DuckDB reads the Parquet files of
`promontory export`, in this process, with as many threads as there are cores. PostgreSQL (Debian's, found under
/usr/lib/postgresql) has the same rows in tables with an index on the labels and the timestamp, vacuumed and analyzed.
Files and tables are made once and kept under `--work`; they take about 4 GB for the 24 million samples of the
example. Each query runs once on each to warm up and to compare the answers, then ROUNDS times in turn; medians are
printed. `--markdown FILE` keeps the table.

`$bucket(5 minutes)` in a query stands for what each calls a time bucket.
"""

import argparse
import datetime
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import psycopg

from side_by_side import Server, free_port, link_tree

HERE = Path(__file__).resolve().parent
SERIES = "instance, job, handler, method, code"

# name, query, and what is asked of PostgreSQL in its place where it has no such function
QUERIES = [
    ("bucket_by_label", "SELECT $bucket(5 minutes) AS t, job, avg(value) FROM http_requests_total GROUP BY t, job ORDER BY t, job", None),
    ("count_by_hour", "SELECT date_trunc('hour', timestamp) AS t, count(*) FROM http_requests_total GROUP BY t ORDER BY t", None),
    ("exact_percentile", "SELECT job, percentile_cont(0.99) WITHIN GROUP (ORDER BY value) FROM request_duration_seconds_bucket GROUP BY job ORDER BY job", None),
    ("approx_percentile", "SELECT job, $approx(value, 0.99) FROM request_duration_seconds_bucket GROUP BY job ORDER BY job", "-"),
    ("top_series", f"SELECT {SERIES}, max(value) - min(value) AS n FROM http_requests_total GROUP BY {SERIES} ORDER BY n DESC LIMIT 10", None),
    ("join_with_list", "SELECT o.team, count(*), max(h.value) FROM http_requests_total h JOIN (VALUES ('api', 'shop'), ('web', 'shop'), ('auth', 'infra'), ('billing', 'shop')) AS o (job, team) ON o.job = h.job GROUP BY o.team ORDER BY o.team", None),
    ("join_of_metrics", """WITH m AS (SELECT $bucket(1 minutes) AS t, instance, avg(value) AS free FROM node_memory_bytes WHERE kind = 'free' GROUP BY t, instance),
 c AS (SELECT $bucket(1 minutes) AS t, instance, max(value) - min(value) AS busy FROM node_cpu_seconds_total WHERE mode = 'user' AND cpu = '0' GROUP BY t, instance)
 SELECT m.instance, corr(m.free, c.busy), count(*) FROM m JOIN c ON m.t = c.t AND m.instance = c.instance GROUP BY m.instance ORDER BY m.instance""", None),
    ("distinct_labels", "SELECT DISTINCT handler, code FROM http_requests_total ORDER BY handler, code", None),
    ("last_of_each_series", f"SELECT DISTINCT ON ({SERIES}) {SERIES}, value FROM http_requests_total ORDER BY {SERIES}, timestamp DESC", None),
    ("window_resets", f"SELECT count(*) FROM (SELECT value < lag(value) OVER (PARTITION BY {SERIES} ORDER BY timestamp) AS reset FROM http_requests_total WHERE job = 'api') AS t WHERE reset", None),
    ("one_instance_15m", "SELECT handler, code, avg(value) FROM http_requests_total WHERE instance = 'host-7:9100' AND timestamp >= '$end'::timestamptz - interval '15 minutes' GROUP BY handler, code ORDER BY handler, code", None),
    ("one_series", "SELECT timestamp, value FROM http_requests_total WHERE instance = 'host-7:9100' AND job = 'api' AND handler = '/api/v1/h3' AND method = 'GET' AND code = '200' ORDER BY timestamp", None),
]
METRICS = ["http_requests_total", "node_cpu_seconds_total", "node_memory_bytes", "request_duration_seconds_bucket"]


def said(query, end, engine):
    """`query` as `engine` wants it."""
    bucket = {
        "ours": r"time_bucket('\1', timestamp)",
        "duckdb": r"time_bucket(INTERVAL '\1', timestamp)",
        "postgres": r"date_bin('\1', timestamp, '2000-01-01')",
    }[engine]
    approx = "approx_quantile" if engine == "duckdb" else "approx_percentile"
    if engine == "duckdb":
        query = query.replace("::timestamptz", "::timestamptz::timestamp")
    return re.sub(r"\$bucket\((.*?)\)", bucket, query).replace("$approx", approx).replace("$end", end)


def run(argv, **kwargs):
    subprocess.run([str(a) for a in argv], check=True, stdout=subprocess.DEVNULL, **kwargs)


def export(ours, blocks, work):
    out = work / "parquet"
    if not (out / f"{METRICS[-1]}.parquet").exists():
        run([ours, "export", f"--storage.tsdb.path={blocks}", "--match={__name__=~\".+\"}", f"--out={out}"])
    return out


def open_duckdb(parquet):
    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")
    for metric in METRICS:
        # Without the zone, which is UTC: for one, DuckDB wants another Python module.
        db.execute(f"CREATE VIEW {metric} AS SELECT * REPLACE (timestamp::TIMESTAMP AS timestamp) FROM read_parquet('{parquet}/{metric}.parquet')")
    return db


class Postgres:
    """A cluster of its own; as root, run as the user `postgres`."""

    def __init__(self, work, db):
        versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        if not versions:
            sys.exit("no PostgreSQL under /usr/lib/postgresql; --without-postgres leaves it out")
        self.bin = versions[-1].parent
        self.user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
        self.data, self.sockets = work / "postgres", tempfile.mkdtemp(prefix="pg-")
        if os.getuid() == 0:
            shutil.chown(self.sockets, "postgres")
        fresh = not (self.data / "loaded").exists()
        if fresh:
            shutil.rmtree(self.data, ignore_errors=True)
            self.data.mkdir(parents=True)
            if os.getuid() == 0:
                shutil.chown(self.data, "postgres")
            run([*self.user, self.bin / "initdb", "-D", self.data, "-A", "trust", "-U", "bench", "--no-locale", "-E", "UTF8", "--no-sync"], cwd="/")
        settings = {
            "listen_addresses": "", "shared_buffers": "3GB", "work_mem": "512MB", "maintenance_work_mem": "1GB", "fsync": "off", "wal_level": "minimal",
            "max_wal_senders": 0, "max_wal_size": "16GB", "timezone": "UTC", "max_parallel_workers_per_gather": os.cpu_count(), "random_page_cost": 1.1,
        }
        argv = [*self.user, str(self.bin / "postgres"), "-D", str(self.data), "-k", self.sockets]
        for key, value in settings.items():
            argv += ["-c", f"{key}={value}"]
        self.process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=open(work / "postgres.log", "wb"), cwd="/")
        self.connection = self.connect()
        if fresh:
            self.load(db, work)

    def connect(self):
        end = time.monotonic() + 120
        while True:
            try:
                return psycopg.connect(host=self.sockets, user="bench", dbname="postgres", autocommit=True)
            except psycopg.OperationalError:
                if time.monotonic() > end or self.process.poll() is not None:
                    sys.exit("PostgreSQL does not start; see postgres.log")
                time.sleep(0.1)

    def load(self, db, work):
        for metric in METRICS:
            began = time.monotonic()
            columns = [name for name, *_ in db.execute(f"DESCRIBE {metric}").fetchall()]
            labels = [c for c in columns if c not in ("timestamp", "value")]
            csv = work / "rows.csv"
            db.execute(f"COPY (SELECT * FROM {metric}) TO '{csv}' (FORMAT csv, HEADER false)")
            c = self.connection
            text = ", ".join(f'"{label}" text' for label in labels)
            c.execute(f'DROP TABLE IF EXISTS {metric}')
            c.execute(f'BEGIN; CREATE TABLE {metric} ("timestamp" timestamptz NOT NULL, value float8 NOT NULL, {text})')
            with c.cursor().copy(f"COPY {metric} FROM STDIN (FORMAT csv)") as copy, open(csv, "rb") as rows:
                while part := rows.read(1 << 20):
                    copy.write(part)
            c.execute("COMMIT")
            csv.unlink()
            c.execute(f"CREATE INDEX ON {metric} ({', '.join(labels)}, \"timestamp\")")
            c.execute(f"VACUUM (ANALYZE, FREEZE) {metric}")
            print(f"PostgreSQL has {metric} after {time.monotonic() - began:.0f} s", flush=True)
        (self.data / "loaded").touch()

    def stop(self):
        self.connection.close()
        self.process.send_signal(2)
        self.process.wait(60)
        shutil.rmtree(self.sockets, ignore_errors=True)


def plain(value):
    """A value for comparison: floats to nine digits, times as seconds."""
    if isinstance(value, datetime.datetime):
        return (value if value.tzinfo else value.replace(tzinfo=datetime.timezone.utc)).timestamp()
    if isinstance(value, float):
        return "nan" if math.isnan(value) else float(f"{value:.9g}")
    return value


def same(a, b):
    return [[plain(v) for v in row] for row in a] == [[plain(v) for v in row] for row in b]


def measure(engines, args, end):
    rows = []
    for name, query, other in QUERIES:
        if args.only and args.only not in name:
            continue
        asked = {e: ask for e, ask in engines.items() if not (e == "postgres" and other == "-")}
        texts = {e: said(query, end, e) for e in asked}
        answers = {e: ask(texts[e]) for e, ask in asked.items()}
        times = {e: [] for e in asked}
        rounds = args.rounds
        for _ in range(rounds):
            for e, ask in asked.items():
                if e == "postgres" and len(times[e]) >= args.postgres_rounds:
                    continue
                began = time.perf_counter()
                ask(texts[e])
                times[e].append((time.perf_counter() - began) * 1000)
        ms = {e: statistics.median(t) for e, t in times.items()}
        differ = [e for e, answer in answers.items() if e != "ours" and not same(answers["ours"], answer)]
        note = "same" if not differ else f"differs from {', '.join(differ)}"
        if name == "approx_percentile":
            note = "approximate"
        rows.append((name, ms, len(answers["ours"]), note))
        print(
            f"{name:22}" + "".join(f"{e} {ms[e]:9.1f} ms  " for e in ms)
            + "".join(f"{e}/ours {ms[e] / ms['ours']:6.2f}  " for e in ms if e != "ours") + note, flush=True,
        )
    return rows


def markdown(rows, engines):
    peers = [e for e in engines if e != "ours"]
    lines = ["| query | rows | ours | " + " | ".join(f"{p} | ratio" for p in peers) + " |", "|---" * (3 + 2 * len(peers)) + "|"]
    for name, ms, count, _ in rows:
        cells = [f"`{name}`", f"{count:,}", f"{ms['ours']:.1f} ms"]
        for p in peers:
            cells += [f"{ms[p]:.1f} ms", f"{ms[p] / ms['ours']:.2f}"] if p in ms else ["", ""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("blocks", type=Path, help="directory with Prometheus blocks")
    p.add_argument("--ours", type=Path, default=Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target")) / "release/promontory")
    p.add_argument("--work", type=Path, required=True, help="directory for Parquet files and tables, kept between runs")
    p.add_argument("--without-postgres", action="store_true")
    p.add_argument("--only", help="run the queries whose name contains this")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--postgres-rounds", type=int, default=2, help="it takes seconds where the others take tenths")
    p.add_argument("--end", default="2026-09-21 14:20:00Z", help="where the data ends")
    p.add_argument("--prepare", action="store_true", help="only make files and tables")
    p.add_argument("--markdown", type=Path)
    args = p.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    blocks = args.blocks.resolve()
    db = open_duckdb(export(args.ours, blocks, args.work))
    postgres = None if args.without_postgres else Postgres(args.work, db)
    with tempfile.TemporaryDirectory(prefix="sql-speed-", dir=blocks.parent) as tmp:
        tmp = Path(tmp)
        (tmp / "empty.yml").write_text("scrape_configs: []\n")
        link_tree(blocks, tmp / "data")
        port, sql_port = free_port(), free_port()
        argv = [
            args.ours, f"--config.file={tmp}/empty.yml", f"--storage.tsdb.path={tmp}/data", "--storage.tsdb.retention.time=100y",
            f"--web.listen-address=127.0.0.1:{port}", f"--sql.listen-address=127.0.0.1:{sql_port}",
        ]
        ours = None if args.prepare else Server("ours", argv, port, tmp / "ours.log")
        try:
            if ours:
                ours.wait_ready()
                connection = psycopg.connect(host="127.0.0.1", port=sql_port, user="bench", dbname="promontory", autocommit=True)
                engines = {"ours": lambda q: connection.execute(q).fetchall(), "duckdb": lambda q: db.execute(q).fetchall()}
                if postgres:
                    engines["postgres"] = lambda q: postgres.connection.execute(q).fetchall()
                rows = measure(engines, args, args.end)
                print(f"peak memory of ours: {ours.status_kib('VmHWM') / 1024:.0f} MiB")
                if args.markdown:
                    args.markdown.write_text(markdown(rows, list(engines)))
        finally:
            if ours:
                ours.stop()
            if postgres:
                postgres.stop()


if __name__ == "__main__":
    main()
