#!/usr/bin/env python3
"""What large results and many clients cost the SQL server: memory, times, and that vanished clients are let go.

    cargo build --release
    cargo run --release -p promontory-tsdb --example generate_block -- /tmp/blocks
    benches/sql_load.py /tmp/blocks

The server starts on a copy of the blocks. Then, one after the other, with the peak of its resident memory before and
after each (`VmHWM`; what is no mapped file apart, `RssAnon`):

1. a SELECT of ROWS rows through the extended protocol, row by row (psycopg `stream`);
2. the same as COPY, text and binary;
3. the same through a cursor, FETCH by FETCH;
4. CLIENTS connections at once, each with a query of its own;
5. clients that are killed (SIGKILL) amid a large SELECT: how long until `pg_stat_activity` has forgotten them, and
   how much CPU time the server takes afterwards.

Fails if a result has not as many rows as it should, or a killed client is still there after 10 s.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psycopg

from side_by_side import Server, free_port, link_tree

HERE = Path(__file__).resolve().parent
TABLE = "http_requests_total"


class Measured:
    """Prints time and memory of what happens within."""

    def __init__(self, server, name):
        self.server, self.name = server, name

    def __enter__(self):
        self.server.reset_peak()
        self.before = [self.server.status_kib(field) / 1024 for field in ("VmHWM", "RssAnon")]
        self.cpu, self.began = self.server.cpu_ms(), time.monotonic()
        return self

    def __exit__(self, failed, *_):
        took = time.monotonic() - self.began
        peak, anon = (self.server.status_kib(field) / 1024 for field in ("VmHWM", "RssAnon"))
        if not failed:
            print(
                f"{self.name:34}{took:7.2f} s  cpu {(self.server.cpu_ms() - self.cpu) / 1000:6.2f} s  peak {self.before[0]:5.0f} -> {peak:5.0f} MiB"
                f"  anonymous {self.before[1]:5.0f} -> {anon:5.0f} MiB",
                flush=True,
            )


def expect(got, wanted, what):
    if got != wanted:
        sys.exit(f"{what}: {got} instead of {wanted}")


def large_results(connect, server, rows):
    query = f"SELECT timestamp, value, instance, job, handler, method, code FROM {TABLE} LIMIT {rows}"
    with connect() as c, Measured(server, "SELECT, extended protocol"):
        expect(sum(1 for _ in c.cursor().stream(query)), rows, "SELECT")
    for form in ("text", "binary"):
        with connect() as c, Measured(server, f"COPY {form}"):
            size = lines = 0
            with c.cursor().copy(f"COPY ({query}) TO STDOUT (FORMAT {form})") as copy:
                for part in copy:
                    size += len(part)
                    lines += 1
            print(f"  {size / 1e6:.0f} MB")
            if form == "text":
                expect(lines, rows, "COPY")
    with connect() as c, Measured(server, "cursor, 10,000 rows a FETCH"):
        c.execute("BEGIN")
        c.execute(f"DECLARE c CURSOR FOR {query}")
        got = 0
        while part := c.execute("FETCH 10000 FROM c").fetchall():
            got += len(part)
        expect(got, rows, "FETCH")


def many_clients(connect, server, clients):
    failures, ready = [], threading.Barrier(clients + 1)

    def client(i):
        try:
            with connect() as c:
                ready.wait()
                got = c.execute(f"SELECT count(*), max(value) FROM {TABLE} WHERE instance = 'host-{i % 40}:9100' AND job = 'api'").fetchone()
                expect(got[0], 57600, f"client {i}")
        except (Exception, SystemExit) as error:
            failures.append(error)
            ready.abort()

    threads = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
    with Measured(server, f"{clients} clients at once"):
        for thread in threads:
            thread.start()
        ready.wait()
        for thread in threads:
            thread.join()
    if failures:
        sys.exit(f"{len(failures)} clients failed, the first with {failures[0]!r}")


def vanished_clients(connect, server, dsn, count):
    script = f"import psycopg\nc = psycopg.connect({dsn!r}, application_name='vanishes')\nfor _ in c.cursor().stream('SELECT * FROM {TABLE}'):\n print(flush=True)\n import time; time.sleep(60)"
    there = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'vanishes'"
    with connect() as c, Measured(server, f"{count} clients killed amid a SELECT"):
        killed = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) for _ in range(count)]
        for process in killed:
            process.stdout.readline()
        expect(c.execute(there).fetchone()[0], count, "clients at work")
        for process in killed:
            process.send_signal(signal.SIGKILL)
            process.wait()
        began = time.monotonic()
        while c.execute(there).fetchone()[0]:
            if time.monotonic() - began > 10:
                sys.exit("killed clients are still there after 10 s")
            time.sleep(0.01)
        print(f"  forgotten after {(time.monotonic() - began) * 1000:.0f} ms")
    cpu = server.cpu_ms()
    time.sleep(2)
    print(f"  CPU time in the 2 s after: {server.cpu_ms() - cpu:.0f} ms")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("blocks", type=Path, help="directory with Prometheus blocks")
    p.add_argument("--ours", type=Path, default=Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target")) / "release/promontory")
    p.add_argument("--rows", type=int, default=10_000_000)
    p.add_argument("--clients", type=int, default=200)
    p.add_argument("--kills", type=int, default=5)
    args = p.parse_args()
    blocks = args.blocks.resolve()
    with tempfile.TemporaryDirectory(prefix="sql-load-", dir=blocks.parent) as tmp:
        tmp = Path(tmp)
        (tmp / "empty.yml").write_text(f"scrape_configs: []\nsql:\n  max_connections: {args.clients + 20}\n")
        link_tree(blocks, tmp / "data")
        port, sql_port = free_port(), free_port()
        argv = [
            args.ours, f"--config.file={tmp}/empty.yml", f"--storage.tsdb.path={tmp}/data", "--storage.tsdb.retention.time=100y",
            f"--web.listen-address=127.0.0.1:{port}", f"--sql.listen-address=127.0.0.1:{sql_port}",
        ]
        server = Server("ours", argv, port, tmp / "ours.log")
        try:
            server.wait_ready()
            dsn = f"host=127.0.0.1 port={sql_port} user=load dbname=promontory"

            def connect():
                return psycopg.connect(dsn, autocommit=True)

            large_results(connect, server, args.rows)
            many_clients(connect, server, args.clients)
            vanished_clients(connect, server, dsn, args.kills)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
