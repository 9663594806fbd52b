#!/usr/bin/env python3
"""How the latency of PromQL queries grows with series and with range, on the same samples.

    cargo build --release
    cargo run --release -p promontory-tsdb --example generate_block -- /tmp/blocks
    benches/scaling.py /tmp/blocks --svg docs/images/scaling.svg
    benches/scaling.py /tmp/blocks --peer prometheus=prometheus-3.14

Each query runs over 1, 4 and 16 shares of the series (instances picked by a regular expression) and over 1, 4 and 16
shares of the time, with one step, so that steps grow with the range; what is kept between queries is switched off. Every
cell is the median of ROUNDS runs behind one to warm up, with the servers in turn. A table in Markdown gives all cells and
how often the time of the smallest goes into that of the largest: 16 means proportional. `--svg FILE` draws both growths
with logarithmic axes, where proportional is a line of the slope of the dotted one; a peer is drawn dashed.

Servers, flags and peers are those of side_by_side.py.
"""

import argparse
import json
import math
import os
import re
import statistics
import sys
import tempfile
import urllib.parse
from pathlib import Path
from xml.sax.saxutils import escape

from side_by_side import HERE, compare, path_of, start

SHARES = [1, 4, 16]
QUERIES = {
    "sum of rates": "sum by (job) (rate(http_requests_total{%s}[5m]))",
    "histogram_quantile": "histogram_quantile(0.99, sum by (le, job) (rate(request_duration_seconds_bucket{%s}[5m])))",
    "quantile_over_time": "avg by (kind) (quantile_over_time(0.9, node_memory_bytes{%s}[30m]))",
    "topk": "topk(5, rate(http_requests_total{%s}[5m]))",
    "raw": "http_requests_total{%s}",
}
COLOURS = ["#3b6fb6", "#c8553d", "#4c956c", "#8c5fa8", "#b8860b", "#555555"]


def values_of(server, path):
    took, body = server.get(path)
    if took is None:
        sys.exit(f"{server.name}: {body[:200].decode(errors='replace')}")
    return json.loads(body)["data"]


def matchers(server, args):
    """For each share, a matcher that picks so many times as many instances as for one share."""
    names = sorted(values_of(server, f"/api/v1/label/{args.label}/values?start={args.end - 3600}&end={args.end}"))
    names = [n for n in names if re.search(args.instances, n)]
    each = len(names) // SHARES[-1]
    if each == 0:
        sys.exit(f"there are {len(names)} values of {args.label}, and {SHARES[-1]} are needed")
    # As PromQL takes a backslash in a string, there are two.
    text = {n: re.escape(n).replace("\\-", "-").replace("\\", "\\\\") for n in names}
    return {share: f'{args.label}=~"{"|".join(text[n] for n in names[: each * share])}"' for share in SHARES}


def series_of(server, expression, args):
    """Series that the selector in `expression` picks at the end."""
    selector = re.search(r"\w+\{.*?\}", expression).group(0)
    form = urllib.parse.urlencode({"query": f"count({selector})", "time": args.end})
    result = values_of(server, f"/api/v1/query?{form}")["result"]
    return int(float(result[0]["value"][1])) if result else 0


def times_of(servers, path, rounds):
    """Medians in ms by name, and how the answers of the first two differ."""
    first = [server.get(path) for server in servers]
    for server, (took, body) in zip(servers, first):
        if took is None:
            sys.exit(f"{server.name}: {body[:200].decode(errors='replace')}")
    told = compare(first[0][1], first[1][1]) if len(servers) > 1 else ""
    times = {server.name: [] for server in servers}
    for _ in range(rounds):
        for server in servers:
            times[server.name].append((server.get(path)[0] or math.nan) * 1000)
    return {name: statistics.median(t) for name, t in times.items()}, told


def run(servers, args):
    """A row per query and server: times by (share of series, share of range)."""
    picked, rows = matchers(servers[0], args), []
    for name, query in QUERIES.items():
        if args.only and args.only not in name:
            continue
        cells, series = {}, {}
        for share in SHARES:
            expression = query % picked[share]
            series[share] = series_of(servers[0], expression, args)
            for time in SHARES:
                grid = argparse.Namespace(start=args.end - args.range * time / SHARES[-1], end=args.end, step=args.step)
                cells[share, time], told = times_of(servers, path_of("range", expression, grid), args.rounds)
                if told:
                    print(f"{name}, {share}× series, {time}× range: {told}", file=sys.stderr)
        for server in servers:
            row = {"query": name, "server": server.name, "series": series}
            row["ms"] = {cell: times[server.name] for cell, times in cells.items()}
            rows.append(row)
            print(line(row), flush=True)
    return rows


def growth(row):
    """How many times the smallest the largest is: of series at the full range, of range with all series, of both."""
    ms, (least, most) = row["ms"], (SHARES[0], SHARES[-1])
    return [ms[most, most] / ms[cell] for cell in ((least, most), (most, least), (least, least))]


def header():
    cells = [f"{s}×{t}" for s in SHARES for t in SHARES]
    head = ["query", "server", "series", *cells, "series ×16", "range ×16", "both ×256"]
    return f"| {' | '.join(head)} |\n{'|---' * len(head)}|"


def line(row):
    series = " / ".join(f"{n:,}" for n in row["series"].values())
    cells = [f"{row['ms'][s, t]:.1f}" for s in SHARES for t in SHARES]
    return f"| {' | '.join([row['query'], row['server'], series, *cells, *(f'{g:.1f}' for g in growth(row))])} |"


# ------------------------------------------------------------------------------------------------ picture

WIDTH, HEIGHT, LEFT, TOP, PANEL, TALL = 890, 420, 60, 50, 290, 300


def panel(rows, at, title, cell, servers):
    """One plot: shares to the right, ms upwards, both logarithmic."""
    times = [row["ms"][cell(share)] for row in rows for share in SHARES]
    low, high = 10 ** math.floor(math.log10(min(times))), 10 ** math.ceil(math.log10(max(times)))
    high = max(high, low * 10)

    def x(share):
        return at + PANEL * math.log(share) / math.log(SHARES[-1])

    def y(ms):
        return TOP + TALL * (1 - math.log(ms / low) / math.log(high / low))

    out = [f'<text x="{at + PANEL / 2}" y="{TOP - 18}" text-anchor="middle" font-weight="bold">{escape(title)}</text>']
    ms = low
    while ms <= high * 1.001:
        label = f"{ms:g} ms" if ms < 1000 else f"{ms / 1000:g} s"
        out.append(f'<line x1="{at}" y1="{y(ms):.1f}" x2="{at + PANEL}" y2="{y(ms):.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{at - 6}" y="{y(ms) + 4:.1f}" text-anchor="end">{label}</text>')
        ms *= 10
    for share in SHARES:
        out.append(f'<line x1="{x(share):.1f}" y1="{TOP}" x2="{x(share):.1f}" y2="{TOP + TALL}" stroke="#ddd"/>')
        out.append(f'<text x="{x(share):.1f}" y="{TOP + TALL + 18}" text-anchor="middle">{share}×</text>')
    # Proportional, from the middle of the left side as far as it goes.
    first = math.sqrt(low * high) / 4
    last = min(first * SHARES[-1], high)
    out.append(f'<line x1="{x(1):.1f}" y1="{y(max(first, low)):.1f}" x2="{x(max(last / first, 1)):.1f}" y2="{y(last):.1f}" '
               'stroke="#999" stroke-dasharray="2 4"/>')
    names = list(dict.fromkeys(row["query"] for row in rows))
    for row in rows:
        colour = COLOURS[names.index(row["query"]) % len(COLOURS)]
        dash = "" if row["server"] == servers[0] else ' stroke-dasharray="7 4"'
        points = [(x(share), y(row["ms"][cell(share)])) for share in SHARES]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        out += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in points]
    return out


def picture(rows):
    servers = list(dict.fromkeys(row["server"] for row in rows))
    names = list(dict.fromkeys(row["query"] for row in rows))
    most = SHARES[-1]
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    out += panel(rows, LEFT, "series, over the whole range", lambda share: (share, most), servers)
    out += panel(rows, LEFT + PANEL + 70, "range, of all series", lambda share: (most, share), servers)
    right = LEFT + 2 * PANEL + 85
    entries = [(name, COLOURS[i % len(COLOURS)], "") for i, name in enumerate(names)]
    entries += [(s, "#333", "" if i == 0 else ' stroke-dasharray="7 4"') for i, s in enumerate(servers)] * (len(servers) > 1)
    entries.append(("proportional", "#999", ' stroke-dasharray="2 4"'))
    for i, (name, colour, dash) in enumerate(entries):
        y = TOP + 12 + 22 * i
        out.append(f'<line x1="{right}" y1="{y}" x2="{right + 22}" y2="{y}" stroke="{colour}" stroke-width="2"{dash}/>')
        out.append(f'<text x="{right + 28}" y="{y + 4}" font-size="11">{escape(name)}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("blocks", type=Path, help="directory with Prometheus blocks")
    p.add_argument("--ours", type=Path, default=Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target")) / "release/promontory")
    p.add_argument("--flag", action="append", default=["--query.cache-size=0"], help="a flag for ours, any number of times")
    p.add_argument("--peer", action="append", metavar="NAME=BINARY", default=[])
    p.add_argument("--victoria-data", type=Path, help="where imported samples are kept; default: BLOCKS-victoria")
    p.add_argument("--only", help="run the queries whose name contains this")
    p.add_argument("--label", default="instance", help="the label that series are picked by")
    p.add_argument("--instances", default="", help="only values of it that contain this regular expression")
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--end", type=float, default=1790000370.95)
    p.add_argument("--range", type=float, default=14370, help="seconds of the whole range")
    p.add_argument("--step", type=int, default=15)
    p.add_argument("--markdown", type=Path)
    p.add_argument("--svg", type=Path)
    args = p.parse_args()
    args.blocks = args.blocks.resolve()
    args.victoria_data = args.victoria_data or args.blocks.with_name(args.blocks.name + "-victoria")
    peers = dict(peer.split("=", 1) for peer in args.peer)

    with tempfile.TemporaryDirectory(prefix="scaling-", dir=args.blocks.parent) as tmp:
        tmp = Path(tmp)
        (tmp / "empty.yml").write_text("scrape_configs: []\n")
        servers = []
        try:
            for name, binary in {"ours": args.ours, **peers}.items():
                servers.append(start(name, binary, args.blocks, tmp, args))
            for server in servers:
                server.wait_ready()
            print(f"ms by share of series × share of range, step {args.step} s\n\n{header()}")
            rows = run(servers, args)
        finally:
            for server in servers:
                server.stop()
    if args.markdown:
        args.markdown.write_text("\n".join([header(), *map(line, rows)]) + "\n")
    if args.svg:
        args.svg.parent.mkdir(parents=True, exist_ok=True)
        args.svg.write_text(picture(rows))


if __name__ == "__main__":
    main()
