#!/usr/bin/env python3
"""PromQL latency of Promontory beside real peers, on the same samples, in one run.

    cargo build --release
    cargo run --release -p promontory-tsdb --example generate_block -- /tmp/blocks
    benches/side_by_side.py /tmp/blocks
    benches/side_by_side.py /tmp/blocks --peer prometheus=prometheus-3.14 --peer victoria=victoria-metrics

A peer is `NAME=BINARY`. A binary whose name begins with `victoria` is VictoriaMetrics: it gets the samples once
through `vmctl` (looked for beside it) into `--victoria-data`, and runs with its response cache off. Any other is a
Prometheus. Each server gets a copy of the data and a free port on loopback. Every query runs once to warm up and is
compared between ours and the first peer (series, points, values), then ROUNDS times on each in turn; medians, ratios
and peak memory are printed, and CPU time per query where `--cpu` is given. Start and end are 0.95 s past a second,
where the generated data has no sample: servers before 3.0 count a sample on a window's left edge.

In turn, a server is measured while the one before it may still collect garbage, and with the caches of the CPU full of
that one's memory. With `--apart` all rounds of a server follow each other, after half a second and a round that does
not count. With `--refresh` a round asks for times a step later than the one before, as a dashboard that is refreshed.

A query file has one query per line: `name | range or instant | expression`; `#` starts a comment.
`--markdown FILE` and `--json FILE` keep the table.
"""

import argparse
import http.client
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
import urllib.parse
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
TICKS_MS = 1000 / os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def link_tree(source, target):
    shutil.copytree(source, target, copy_function=os.link)


class Server:
    """One server process on its own copy of the data."""

    def __init__(self, name, argv, port, log, ready="/-/ready"):
        self.name, self.port, self.ready = name, port, ready
        self.url = f"http://127.0.0.1:{port}"
        self.log = open(log, "wb")
        self.process = subprocess.Popen([str(a) for a in argv], stdout=self.log, stderr=subprocess.STDOUT)

    def wait_ready(self, deadline_s=120):
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            if self.process.poll() is not None:
                sys.exit(f"{self.name} ended with {self.process.returncode}; see {self.log.name}")
            try:
                with urllib.request.urlopen(f"{self.url}{self.ready}", timeout=1):
                    self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=180)
                    return
            except OSError:
                time.sleep(0.05)
        sys.exit(f"{self.name} was not ready after {deadline_s} s; see {self.log.name}")

    def get(self, path):
        """Seconds and body of an answer, `None` for the seconds if it is no success."""
        began = time.perf_counter()
        self.connection.request("GET", path)
        answer = self.connection.getresponse()
        body = answer.read()
        took = time.perf_counter() - began
        return (took if answer.status == 200 else None), body

    def status_kib(self, field):
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1])
        return 0

    def cpu_ms(self):
        """User and system time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) * TICKS_MS

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


class Victoria(Server):
    """VictoriaMetrics: other data, and times are not rounded to the step only where caches are off."""

    def get(self, path):
        return super().get(path + "&nocache=1")


def start(name, binary, blocks, tmp, args):
    port, data = free_port(), tmp / name
    keep = "--storage.tsdb.retention.time=100y"
    common = [f"--config.file={tmp}/empty.yml", f"--storage.tsdb.path={data}", keep, f"--web.listen-address=127.0.0.1:{port}"]
    log = tmp / f"{name}.log"
    if name == "ours":
        link_tree(blocks, data)
        return Server(name, [binary, *common, f"--sql.listen-address=127.0.0.1:{free_port()}", *args.flag], port, log)
    if Path(binary).name.startswith("victoria"):
        import_into_victoria(binary, blocks, args.victoria_data)
        shutil.copytree(args.victoria_data, data)
        argv = [binary, f"-storageDataPath={data}", f"-httpListenAddr=127.0.0.1:{port}", "-retentionPeriod=100y", "-search.disableCache"]
        return Victoria(name, argv, port, log, ready="/health")
    link_tree(blocks, data)
    return Server(name, [binary, *common], port, log)


def import_into_victoria(binary, blocks, data):
    """Fills `data` from the blocks unless it was filled before."""
    if (data / "done").exists():
        return
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    port = free_port()
    argv = [binary, f"-storageDataPath={data}", f"-httpListenAddr=127.0.0.1:{port}", "-retentionPeriod=100y"]
    server = Server("import", argv, port, data.with_suffix(".log"), ready="/health")
    server.wait_ready()
    vmctl = shutil.which(Path(shutil.which(binary) or binary).resolve().parent / "vmctl") or "vmctl"
    told = subprocess.run(
        [vmctl, "prometheus", f"--prom-snapshot={blocks}", f"--vm-addr={server.url}", "-s", "--disable-progress-bar"],
        capture_output=True, text=True,
    )
    server.stop()
    if told.returncode != 0:
        sys.exit(f"vmctl failed: {told.stdout}{told.stderr}")
    (data / "done").touch()


def path_of(kind, expression, args, earlier=0):
    """`earlier`: as it was asked that many seconds before."""
    if kind == "range":
        path, form = "query_range", {"start": args.start - earlier, "end": args.end - earlier, "step": args.step}
    else:
        path, form = "query", {"time": args.end - earlier}
    return f"/api/v1/{path}?" + urllib.parse.urlencode({"query": expression, **form})


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
    p.add_argument("--flag", action="append", default=[], help="a flag for ours, any number of times")
    p.add_argument("--peer", action="append", metavar="NAME=BINARY", help="default: prometheus=prometheus")
    p.add_argument("--victoria-data", type=Path, help="where imported samples are kept; default: BLOCKS-victoria")
    p.add_argument("--queries", type=Path, default=HERE / "queries.txt")
    p.add_argument("--only", help="run the queries whose name contains this")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--start", type=float, default=1789986000.95)
    p.add_argument("--end", type=float, default=1790000370.95)
    p.add_argument("--step", type=int, default=60)
    p.add_argument("--apart", action="store_true", help="all rounds of a server in a row, not in turn with the others")
    p.add_argument("--refresh", action="store_true", help="each round asks for times a step later, as a dashboard does")
    p.add_argument("--cpu", action="store_true", help="also print CPU time per query, ms")
    p.add_argument("--markdown", type=Path)
    p.add_argument("--json", type=Path)
    args = p.parse_args()
    args.blocks = args.blocks.resolve()
    args.victoria_data = args.victoria_data or args.blocks.with_name(args.blocks.name + "-victoria")
    peers = dict(peer.split("=", 1) for peer in args.peer or ["prometheus=prometheus"])

    with tempfile.TemporaryDirectory(prefix="side-by-side-", dir=args.blocks.parent) as tmp:
        tmp = Path(tmp)
        (tmp / "empty.yml").write_text("scrape_configs: []\n")
        servers = []
        try:
            for name, binary in {"ours": args.ours, **peers}.items():
                servers.append(start(name, binary, args.blocks, tmp, args))
            for server in servers:
                server.wait_ready()
            rows = run(servers, args)
        finally:
            for server in servers:
                server.stop()
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    if args.markdown:
        args.markdown.write_text(markdown(rows, list(peers)))


def run(servers, args):
    ours, *peers = servers
    print(f"{'query':18}{'ours':>11}" + "".join(f"{s.name:>14}{'x':>7}" for s in peers) + "   peak MiB" + ("   cpu ms" if args.cpu else "") + "  agreement")
    rows = []
    for name, kind, expression in read_queries(args.queries):
        if args.only and args.only not in name:
            continue
        # Of a dashboard that is refreshed each round asks a step later than the one before.
        rounds = range(args.rounds, -1, -1) if args.refresh else [0] * (args.rounds + 1)
        first_path, *paths = [path_of(kind, expression, args, earlier * args.step) for earlier in rounds]
        for server in servers:
            server.reset_peak()
        first = [server.get(first_path) for server in servers]
        failed = [f"{s.name}: {body[:160].decode(errors='replace')}" for s, (t, body) in zip(servers, first) if t is None]
        if failed:
            print(f"{name:18}  {'; '.join(failed)}")
            continue
        agreement = (compare(first[0][1], first[1][1]) or "same") if peers else ""
        times, cpu = {s.name: [] for s in servers}, {s.name: 0.0 for s in servers}
        turns = [(path, server) for path in paths for server in servers]
        if args.apart:
            turns = [(path, server) for server in servers for path in paths]
        last = None
        for path, server in turns:
            if args.apart and server is not last:
                time.sleep(0.5)
                server.get(first_path)
            last = server
            before = server.cpu_ms()
            times[server.name].append((server.get(path)[0] or math.nan) * 1000)
            cpu[server.name] += (server.cpu_ms() - before) / args.rounds
        row = {
            "name": name, "expression": expression, "bytes": len(first[0][1]), "agreement": agreement,
            "ms": {s.name: statistics.median(times[s.name]) for s in servers},
            "cpu_ms": cpu,
            "peak_mib": {s.name: s.status_kib("VmHWM") / 1024 for s in servers},
        }
        rows.append(row)
        ms = row["ms"]
        print(
            f"{name:18}{ms['ours']:8.1f} ms"
            + "".join(f"{ms[s.name]:11.1f} ms{ms[s.name] / ms['ours']:7.1f}" for s in peers)
            + f"   {'/'.join(f'{m:.0f}' for m in row['peak_mib'].values())}"
            + (f"   {'/'.join(f'{c:.0f}' for c in cpu.values())}" if args.cpu else "")
            + f"  {agreement}",
            flush=True,
        )
    for s in peers:
        ratios = [row["ms"][s.name] / row["ms"]["ours"] for row in rows]
        if ratios:
            print(f"geometric mean to {s.name}: {statistics.geometric_mean(ratios):.2f} over {len(ratios)} queries, least {min(ratios):.2f}")
    return rows


def markdown(rows, peers):
    lines = ["| query | ours | " + " | ".join(f"{p} | ratio" for p in peers) + " | peak MiB |"]
    lines.append("|---" * (3 + 2 * len(peers)) + "|")
    for row in rows:
        ms = row["ms"]
        cells = [f"`{row['name']}`", f"{ms['ours']:.1f} ms"]
        for p in peers:
            cells += [f"{ms[p]:.1f} ms", f"{ms[p] / ms['ours']:.1f}"]
        cells.append(" / ".join(f"{m:.0f}" for m in row["peak_mib"].values()))
        lines.append("| " + " | ".join(cells) + " |")
    means = [f"**{statistics.geometric_mean([r['ms'][p] / r['ms']['ours'] for r in rows]):.1f}**" for p in peers]
    lines.append("| geometric mean | | " + " | ".join(f"| {m}" for m in means) + " | |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
