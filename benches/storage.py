#!/usr/bin/env python3
"""The storage engine beside real Prometheus servers, on the same directories, in one run.

    cargo build --release && cargo build --release -p promontory-tsdb --examples
    benches/storage.py replay  [--series 1000000] [--minutes 15]
    benches/storage.py compact [--instances 40 160]
    benches/storage.py start   [--blocks 1000]
    benches/storage.py select

`--peer` names a Prometheus and may be given several times; without it, the one in the path is taken. `--target` is
cargo's target directory. Each contestant works on a copy of its own and alone on the machine. CPU is user and system
time, memory the peak of resident memory; of that, `anon` is what is no mapped file (sampled, so the true peak may be
a little higher).
"""

import argparse
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
SIX_HOURS_S = 21_600
START_S = SIX_HOURS_S * 82_870


def status(pid):
    """Peak and present memory of a process in MiB: all, and what is its own."""
    text = Path(f"/proc/{pid}/status").read_text()
    return {key: int(kib) / 1024 for key, kib in re.findall(r"^(VmHWM|RssAnon):\s+(\d+) kB", text, re.M)}


def cpu_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def get(url):
    with urllib.request.urlopen(url, timeout=120) as answer:
        return answer.read()


class Watched:
    """A process whose memory is looked at while it runs."""

    def __init__(self, argv, log):
        self.log = Path(log)
        self.began = time.monotonic()
        self.process = subprocess.Popen([str(a) for a in argv], stdout=open(log, "wb"), stderr=subprocess.STDOUT)
        self.anon = self.peak = self.cpu = self.wall = 0

    def look(self):
        """Whether it still runs."""
        if self.process.poll() is not None:
            return False
        try:
            now = status(self.process.pid)
            self.cpu = cpu_s(self.process.pid)
        except (OSError, IndexError):
            return False
        self.anon = max(self.anon, now.get("RssAnon", 0))
        self.peak = max(self.peak, now.get("VmHWM", 0))
        self.wall = time.monotonic() - self.began
        return True

    def watch(self, done, limit_s=1200):
        """Looks until `done()` or the end of the process."""
        while self.look() and not done():
            if self.wall > limit_s:
                sys.exit(f"not done after {limit_s} s: {self.log.read_text()[-2000:]}")
            time.sleep(0.01)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __str__(self):
        return f"{self.wall:7.2f} s, {self.cpu:7.2f} s CPU, peak {self.peak:6.0f} MiB, anon {self.anon:6.0f} MiB"


class Server(Watched):
    def __init__(self, binary, data, tmp, flags=()):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        config = Path(tmp) / "empty.yml"
        config.write_text("scrape_configs: []\n")
        self.url = f"http://127.0.0.1:{port}"
        super().__init__(
            [binary, f"--config.file={config}", f"--storage.tsdb.path={data}", "--storage.tsdb.retention.time=100y",
             f"--web.listen-address=127.0.0.1:{port}", *flags], Path(tmp) / "log")

    def is_ready(self):
        try:
            get(f"{self.url}/-/ready")
            return True
        except OSError:
            return False

    def wait_ready(self):
        self.watch(self.is_ready)
        if self.process.poll() is not None:
            sys.exit(f"ended: {self.log.read_text()[-2000:]}")


def version(binary):
    output = subprocess.run([binary, "--version"], capture_output=True, text=True)
    found = re.search(r"version ([\d.]+)", output.stdout + output.stderr)
    # A build from a checkout may have none.
    return found.group(1) if found else str(binary)


def example(args, name, *arguments):
    return [args.target / "release/examples" / name, *arguments]


def run_example(args, log, name, *arguments):
    done = Watched(example(args, name, *arguments), log)
    done.watch(lambda: False)
    if done.process.wait() != 0:
        sys.exit(done.log.read_text())
    return done, done.log.read_text().strip()


def replay(args, tmp):
    """A log of one sample per series each 15 s. Nobody changes a segment that is there, so copies are links."""
    data = args.data or tmp / "data"
    if not data.exists():
        _, text = run_example(args, tmp / "log", "wal_replay", "write", data, args.series, args.minutes)
        print(f"log of {text}")
    print(f"{args.series} series, {args.series * args.minutes * 4} samples", flush=True)
    ours, text = run_example(args, tmp / "log", "wal_replay", "open", linked(data, tmp / "copy"))
    print(f"ours            {ours}  {text}", flush=True)
    for peer in args.peer:
        shutil.rmtree(tmp / "copy")
        server = Server(peer, linked(data, tmp / "copy"), tmp)
        server.wait_ready()
        took = re.search(r"total_replay_duration=(\S+)", server.log.read_text()).group(1)
        print(f"{version(peer):15} {server}  replay {took}  {server.wall / ours.wall:.1f} times ours")
        server.stop()


def compact(args, tmp):
    """Three blocks of two hours into one; the fourth says that the others are full."""
    for instances in args.instances:
        data = tmp / f"data{instances}"
        for slot in range(1, 5):
            end = START_S + slot * 7200
            run_example(args, tmp / "log", "generate_block", data, instances, 2, 15, end)
        ours, text = run_example(args, tmp / "log", "merge_blocks", linked(data, tmp / "copy"), 6)
        print(f"{instances} instances: ours  {ours}\n    {text}", flush=True)
        for peer in args.peer:
            shutil.rmtree(tmp / "copy")
            server = Server(peer, linked(data, tmp / "copy"), tmp, [
                "--storage.tsdb.min-block-duration=2h", "--storage.tsdb.max-block-duration=6h"])
            server.wait_ready()
            before = server.cpu
            line = None

            # It looks for blocks to merge once a minute.
            def merged():
                nonlocal line
                lines = server.log.read_text().splitlines()
                line = next((l for l in lines if "compact blocks" in l), None)
                return line is not None

            server.watch(merged)
            took = re.search(r"duration=(\S+)", line).group(1)
            print(f"    {version(peer)}: merge took {took}, {server.cpu - before:.2f} s CPU; "
                  f"peak {server.peak:.0f} MiB, anon {server.anon:.0f} MiB", flush=True)
            server.stop()
        shutil.rmtree(tmp / "copy")
        shutil.rmtree(data)


def linked(source, target):
    return shutil.copytree(source, target, copy_function=os.link)


def start(args, tmp):
    """From the start of the process until it is ready, with many blocks and no log."""
    data = tmp / "data"
    run_example(args, tmp / "log", "many_blocks", data, args.blocks, 1000)
    _, text = run_example(args, tmp / "log", "many_blocks", data)
    print(f"{args.blocks} blocks, ours, without the server:\n{text}")
    # Not to be merged while it is measured.
    flags = ["--storage.tsdb.min-block-duration=2h", "--storage.tsdb.max-block-duration=2h"]
    for binary in [args.ours, *args.peer]:
        walls = []
        for round in range(3):
            copy = linked(data, tmp / f"copy{round}")
            server = Server(binary, copy, tmp, [] if binary not in args.peer else flags)
            server.wait_ready()
            walls.append(server.wall)
            server.stop()
            shutil.rmtree(copy)
        print(f"{version(binary):15} {server}  ready after {statistics.median(walls):.2f} s (median of 3)")


SELECTORS = [
    ("one of a million", 'm{i="637409"}'),
    ("one of a million, all labels", 'm{i="637409",job="9"}'),
]
EXPRESSIONS = [
    ("prefix", 'm{i=~"7777.*"}'),
    ("prefixes", 'm{i=~"7777.*|1234.*"}'),
    ("literal inside", 'm{i=~".*77777.*"}'),
    ("literals inside", 'm{i=~".*77.*77.*7"}'),
    ("suffix", 'm{i=~".*77777"}'),
    ("alternation inside", 'm{i=~".*(77777|88888)"}'),
    ("set", 'm{i=~"7|77|777|7777"}'),
]


def select(args, tmp):
    """`/api/v1/series` over a block: medians of what a client waits, and what an empty answer costs of that."""
    for series, selectors in [(1_000_000, SELECTORS), (100_000, EXPRESSIONS)]:
        data = tmp / f"data{series}"
        run_example(args, tmp / "log", "many_blocks", data, 1, series)
        results = {}
        for binary in [args.ours, *args.peer]:
            server = Server(binary, linked(data, tmp / "copy"), tmp)
            server.wait_ready()
            for name, selector in [("nothing", 'm{i="none"}'), *selectors]:
                query = urllib.parse.urlencode({"match[]": selector, "start": 0, "end": 7000})
                url = f"{server.url}/api/v1/series?{query}"
                found = get(url).count(b"__name__")
                times = []
                for _ in range(50):
                    began = time.perf_counter()
                    get(url)
                    times.append(time.perf_counter() - began)
                results.setdefault((name, selector), []).append((statistics.median(times) * 1e3, found))
            server.stop()
            shutil.rmtree(tmp / "copy")
        print(f"{series} series: ours, then {', '.join(version(p) for p in args.peer)}")
        for (name, selector), cells in results.items():
            if len({found for _, found in cells}) != 1:
                print(f"{name}: answers differ")
            times = "  ".join(f"{ms:8.2f} ms" for ms, _ in cells)
            print(f"{name:30} {selector:28} {cells[0][1]:6} found  {times}", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["replay", "compact", "start", "select"])
    here = Path(__file__).resolve().parent
    p.add_argument("--target", type=Path, default=Path(os.environ.get("CARGO_TARGET_DIR", here.parent / "target")))
    p.add_argument("--ours", type=Path, help="the server; that of the target directory if not given")
    p.add_argument("--peer", action="append")
    p.add_argument("--tmp", help="where to work")
    p.add_argument("--series", type=int, default=1_000_000)
    p.add_argument("--minutes", type=int, default=15)
    p.add_argument("--instances", type=int, nargs="+", default=[40, 160])
    p.add_argument("--blocks", type=int, default=1000)
    p.add_argument("--data", type=Path, help="the log for replay; written if it is not there, and kept")
    args = p.parse_args()
    args.peer = args.peer or ["prometheus"]
    args.ours = args.ours or args.target / "release/promontory"
    with tempfile.TemporaryDirectory(prefix="storage-", dir=args.tmp) as tmp:
        {"replay": replay, "compact": compact, "start": start, "select": select}[args.what](args, Path(tmp))


if __name__ == "__main__":
    main()
