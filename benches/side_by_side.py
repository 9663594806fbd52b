#!/usr/bin/env python3
"""PromQL latency of Promontory beside a real Prometheus, on the same blocks, in one run.

    cargo build --release
    cargo run --release -p promontory-tsdb --example generate_block -- /tmp/blocks
    benches/side_by_side.py /tmp/blocks

Each server gets a hard-linked copy of the blocks and a free port on loopback. Every query runs once
to warm up and is compared between the servers (series, points, values), then ROUNDS times on each in
turn; medians, ratios and peak memory are printed. Start and end are 0.95 s past a second, where the
generated data has no sample: servers before 3.0 count a sample on a window's left edge. A query file has one query per line:
`name | range or instant | expression`; `#` starts a comment.
"""

import argparse
import json
import math
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def link_tree(source, target):
    shutil.copytree(source, target, copy_function=os.link)


class Server:
    """One server process on its own copy of the blocks."""

    def __init__(self, name, command, data, log):
        self.name, self.data = name, data
        self.url = f"http://127.0.0.1:{command['port']}"
        self.log = open(log, "wb")
        self.process = subprocess.Popen(command["argv"], stdout=self.log, stderr=subprocess.STDOUT)

    def wait_ready(self, deadline_s=120):
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            if self.process.poll() is not None:
                sys.exit(f"{self.name} ended with {self.process.returncode}; see {self.log.name}")
            try:
                with urllib.request.urlopen(f"{self.url}/-/ready", timeout=1):
                    return
            except OSError:
                time.sleep(0.05)
        sys.exit(f"{self.name} was not ready after {deadline_s} s; see {self.log.name}")

    def status_kib(self, field):
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1])
        return 0

    def reset_peak(self):
        try:
            Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        except OSError:
            pass

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()


def ask(server, kind, expression, args):
    if kind == "range":
        path, form = "query_range", {"start": args.start, "end": args.end, "step": args.step}
    else:
        path, form = "query", {"time": args.end}
    url = f"{server.url}/api/v1/{path}?" + urllib.parse.urlencode({"query": expression, **form})
    began = time.perf_counter()
    try:
        with urllib.request.urlopen(url, timeout=180) as answer:
            body = answer.read()
    except urllib.error.HTTPError as e:
        return None, e.read()
    return time.perf_counter() - began, body


def points(body):
    """{(sorted labels, timestamp): value} of an answer."""
    out = {}
    for series in json.loads(body)["data"]["result"]:
        key = tuple(sorted(series["metric"].items()))
        for t, v in series.get("values") or [series["value"]]:
            out[key, t] = float(v)
    return out


def compare(a, b):
    """How two answers differ, in words; empty when they agree to 1e-9."""
    a, b = points(a), points(b)
    if a.keys() != b.keys():
        return f"{len(a.keys() - b.keys())} points only in the first, {len(b.keys() - a.keys())} only in the second"
    off = [k for k in a if not (a[k] == b[k] or (math.isnan(a[k]) and math.isnan(b[k])) or math.isclose(a[k], b[k], rel_tol=1e-9))]
    if off:
        return f"{len(off)} of {len(a)} values differ, e.g. {a[off[0]]} and {b[off[0]]}"
    return ""


def read_queries(path):
    for line in path.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            name, kind, expression = (part.strip() for part in line.split("|", 2))
            yield name, kind, expression


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("blocks", type=Path, help="directory with Prometheus blocks")
    p.add_argument("--ours", type=Path, default=Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target")) / "release/promontory")
    p.add_argument("--prometheus", default="prometheus")
    p.add_argument("--queries", type=Path, default=HERE / "queries.txt")
    p.add_argument("--only", help="run the queries whose name contains this")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--start", type=float, default=1789986000.95)
    p.add_argument("--end", type=float, default=1790000370.95)
    p.add_argument("--step", type=int, default=60)
    args = p.parse_args()

    with tempfile.TemporaryDirectory(prefix="side-by-side-", dir=args.blocks.resolve().parent) as tmp:
        tmp = Path(tmp)
        (tmp / "empty.yml").write_text("scrape_configs: []\n")
        for name in ("ours", "prometheus"):
            link_tree(args.blocks, tmp / name)
        a, b, c = free_port(), free_port(), free_port()
        keep = "--storage.tsdb.retention.time=100y"
        servers = [
            Server("ours", {"port": a, "argv": [
                args.ours, f"--config.file={tmp}/empty.yml", f"--storage.tsdb.path={tmp}/ours", keep,
                f"--web.listen-address=127.0.0.1:{a}", f"--sql.listen-address=127.0.0.1:{c}"]}, tmp / "ours", tmp / "ours.log"),
            Server("prometheus", {"port": b, "argv": [
                args.prometheus, f"--config.file={tmp}/empty.yml", f"--storage.tsdb.path={tmp}/prometheus", keep,
                f"--web.listen-address=127.0.0.1:{b}"]}, tmp / "prometheus", tmp / "prometheus.log"),
        ]
        try:
            for server in servers:
                server.wait_ready()
            run(servers, args)
        finally:
            for server in servers:
                server.stop()


def run(servers, args):
    ours, theirs = servers
    print(f"{'query':20}{'ours':>12}{'prometheus':>14}{'ratio':>8}{'ours MiB':>10}{'prom MiB':>10}  agreement")
    ratios = []
    for name, kind, expression in read_queries(args.queries):
        if args.only and args.only not in name:
            continue
        for server in servers:
            server.reset_peak()
        first = [ask(server, kind, expression, args) for server in servers]
        failed = [f"{s.name}: {body[:160].decode(errors='replace')}" for s, (t, body) in zip(servers, first) if t is None]
        if failed:
            print(f"{name:20}  {'; '.join(failed)}")
            continue
        agreement = compare(first[0][1], first[1][1]) or "same"
        times = {s.name: [] for s in servers}
        for _ in range(args.rounds):
            for server in servers:
                times[server.name].append(ask(server, kind, expression, args)[0] or math.nan)
        mine, other = (statistics.median(times[s.name]) * 1000 for s in servers)
        ratios.append(other / mine)
        peaks = [s.status_kib("VmHWM") / 1024 for s in servers]
        print(f"{name:20}{mine:9.1f} ms{other:11.1f} ms{other / mine:7.1f}x{peaks[0]:10.0f}{peaks[1]:10.0f}  {agreement}", flush=True)
    if ratios:
        print(f"geometric mean: {statistics.geometric_mean(ratios):.2f}x over {len(ratios)} queries")


if __name__ == "__main__":
    main()
