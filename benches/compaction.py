#!/usr/bin/env python3
"""Merges the same three 2-hour blocks with Prometheus and with us, and prints time and peak memory of each.

    cargo build --release -p promontory-tsdb --examples
    benches/compaction.py TARGET_DIR/release/examples [PROMETHEUS]

Prometheus looks for blocks to merge once a minute, so a run takes about 80 seconds.
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

examples = pathlib.Path(sys.argv[1])
prometheus = sys.argv[2] if len(sys.argv) > 2 else "prometheus"
START_S = 21_600 * 82_870  # a multiple of 6 hours
PEAK = re.compile(r"^(VmHWM|RssAnon):\s+(\d+) kB", re.M)


def memory(pid):
    return {key: int(kib) // 1024 for key, kib in PEAK.findall(pathlib.Path(f"/proc/{pid}/status").read_text())}


with tempfile.TemporaryDirectory() as tmp:
    data = pathlib.Path(tmp) / "data"
    for slot in range(1, 5):
        end = START_S + slot * 7200
        subprocess.run([examples / "generate_block", data, "40", "2", "15", str(end)], check=True)
    ours = pathlib.Path(tmp) / "ours"
    shutil.copytree(data, ours)
    done = subprocess.run([examples / "merge_blocks", ours, "6"], check=True, capture_output=True, text=True)
    print("ours:      ", done.stdout.strip())

    config = pathlib.Path(tmp) / "prometheus.yml"
    config.write_text("scrape_configs: []\n")
    log = open(pathlib.Path(tmp) / "log", "w+")
    server = subprocess.Popen(
        [prometheus, f"--config.file={config}", f"--storage.tsdb.path={data}", "--storage.tsdb.retention.time=50y",
         "--storage.tsdb.min-block-duration=2h", "--storage.tsdb.max-block-duration=6h",
         "--web.listen-address=127.0.0.1:0"], stderr=log, stdout=log)
    anon, line, deadline = 0, None, time.time() + 300
    while line is None and time.time() < deadline:
        time.sleep(0.05)
        now = memory(server.pid)
        anon = max(anon, now.get("RssAnon", 0))
        text = pathlib.Path(log.name).read_text()
        line = next((l for l in text.splitlines() if "compact blocks" in l), None)
    print("Prometheus:", line)
    print(f"            VmHWM {now.get('VmHWM')} MiB, largest RssAnon seen {anon} MiB")
    server.terminate()
    server.wait()
