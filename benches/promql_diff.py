#!/usr/bin/env python3
"""Runs random PromQL against Prometheus and against Promontory, and shows where the answers differ.

    benches/promql_diff.py --prometheus /path/prometheus --promontory target/debug/promontory --seed 1 --count 2000

makes random data (resets, gaps, staleness, NaN, infinities, churn, classic and native histograms), writes it
into a Prometheus through remote write, takes a snapshot, and starts both servers on a copy of its blocks. With
`--prometheus-url` and `--promontory-url`, servers that run already are compared instead. Everything follows from
the seed. Values are compared to 1e-9 (relative, NaN equals NaN), and so are labels, errors and annotations; a
difference is reduced to a smaller expression that still differs.

Needs a Prometheus with the same language version (3.14). The standard library of Python 3 is enough.
"""
import argparse
import collections
import json
import math
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

START = 1_767_225_600  # 2026-01-01, seconds
MINUTES = 150
STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
FEATURES = ("promql-experimental-functions,promql-extended-range-selectors,promql-binop-fill-modifiers,"
            "promql-duration-expr")

# ---------------------------------------------------------------------------------------------- data


def varint(n):
    out = bytearray()
    while True:
        b, n = n & 0x7F, n >> 7
        out.append(b | (0x80 if n else 0))
        if not n:
            return bytes(out)


def zigzag(n):
    return varint((n << 1) ^ (n >> 63) if n >= 0 else ((-n) << 1) - 1)


def field_bytes(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def field_double(number, v):
    return varint(number << 3 | 1) + struct.pack("<d", v)


def field_int(number, v):
    return varint(number << 3) + varint(v & (1 << 64) - 1)


def snappy(data):
    """Snappy's block format, literals only."""
    out = bytearray(varint(len(data)))
    for i in range(0, len(data), 65536):
        piece = data[i:i + 65536]
        out += b"\xf4" + struct.pack("<H", len(piece) - 1) + piece
    return bytes(out)


class Histogram:
    """A native float histogram; `custom` are the bounds of custom buckets (schema -53)."""

    def __init__(self, schema, buckets, total, hint, custom=()):
        self.schema, self.buckets, self.sum, self.hint, self.custom = schema, buckets, total, hint, custom

    def encode(self, t_ms):
        # One span per run of indexes.
        spans, counts, last = [], [], None
        for i in sorted(self.buckets):
            if last is None or i != last + 1:
                spans.append([i if last is None else i - last - 1, 0])
            spans[-1][1] += 1
            counts.append(self.buckets[i])
            last = i
        zero = 0.0 if self.custom else 1.0
        out = field_double(2, sum(counts) + zero) + field_double(3, self.sum)
        out += varint(4 << 3) + zigzag(self.schema)
        out += field_double(5, 0.0 if self.custom else 0.001) + field_double(7, zero)
        for offset, length in spans:
            out += field_bytes(11, varint(1 << 3) + zigzag(offset) + field_int(2, length))
        out += field_bytes(13, b"".join(struct.pack("<d", c) for c in counts))
        out += field_int(14, self.hint) + field_int(15, t_ms)
        if self.custom:
            out += field_bytes(16, b"".join(struct.pack("<d", c) for c in self.custom))
        return out


def counter(rng, times):
    v, step = rng.choice([0.0, 1e6, 0.5]), rng.choice([1, 7.5, 1000])
    for t in times:
        v = 0.0 if rng.random() < 0.02 else v + rng.random() * step * rng.choice([0, 1, 1, 1])
        yield t, v


def gauge(rng, times):
    odd = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1e300, -1e-300]
    wild, v = rng.random() < 0.3, rng.uniform(-50, 50)
    for t in times:
        v += rng.gauss(0, 5)
        yield t, rng.choice(odd) if wild and rng.random() < 0.05 else (round(v) if rng.random() < 0.3 else v)


def native(rng, times, custom):
    schema = -53 if custom else rng.choice([0, 1, 3])
    bounds = rng.choice([(1.0, 2.0, 5.0), (1.0, 5.0, 10.0)]) if custom else ()
    gauge_hint, buckets, total = rng.random() < 0.3, collections.defaultdict(float), 0.0
    for t in times:
        if rng.random() < 0.03:
            buckets, total = collections.defaultdict(float), 0.0
        for _ in range(rng.randrange(1, 4)):
            buckets[rng.randrange(0, 4) if custom else rng.randrange(-3, 6)] += rng.randrange(1, 5)
            total += rng.random() * 10
        yield t, Histogram(schema, dict(buckets), total, 3 if gauge_hint else 0, bounds)


def scrape_times(rng):
    """Times of samples: regular with jitter, gaps, a life that may begin late and end early."""
    every = rng.choice([15, 30, 60])
    begin = rng.choice([0, 0, 0, rng.randrange(MINUTES * 60)])
    end = rng.choice([MINUTES * 60] * 3 + [rng.randrange(begin, MINUTES * 60 + 1)])
    jitter, t, times = rng.choice([0, 0, 1.5]), begin, []
    while t < end:
        if rng.random() < 0.01:
            t += rng.randrange(30, 900)
        times.append(round((START + t + rng.random() * jitter) * 1000))
        t += every
    return times, end < MINUTES * 60


def make_data(rng, histograms):
    """Series as (labels, [(ms, float or Histogram)])."""
    out = []

    def add(make, **labels):
        times, ends = scrape_times(rng)
        samples = list(make(rng, times))
        if ends and samples and rng.random() < 0.7 and isinstance(samples[-1][1], float):
            samples.append((samples[-1][0] + 15_000, STALE))
        if samples:
            labels = {("__name__" if k == "name" else k): v for k, v in labels.items()}
            out.append((labels, samples))

    for job in ["api", "db"]:
        for instance in ["0", "1", "2"]:
            for path in ["/a", "/b"]:
                if rng.random() < 0.85:
                    add(counter, name="reqs_total", job=job, instance=instance, path=path)
                if rng.random() < 0.6:
                    add(counter, name="errs_total", job=job, instance=instance, path=path)
            add(gauge, name="temp", job=job, instance=instance)
            add(gauge, name="load", job=job, instance=instance, zone=rng.choice(["x", "y"]))
            version = rng.choice(["1.0", "1.1"])
            add(lambda r, ts: ((t, 1.0) for t in ts), name="target_info", job=job, instance=instance, version=version)
            if rng.random() < 0.4:
                add(lambda r, ts: ((t, 1.0) for t in ts), name="build_info", job=job, instance=instance, rev="r1")
    for job in ["api", "db"]:
        times, total = scrape_times(rng)[0], collections.Counter()
        rows = {le: [] for le in ["0.1", "0.5", "1", "5", "+Inf"]}
        for t in times:
            seen = 0
            for le in rows:
                total[le] += rng.randrange(0, 4)
                seen += total[le]
                rows[le].append((t, float(seen)))
        for le, samples in rows.items():
            if samples and (le == "+Inf" or rng.random() < 0.9):
                out.append(({"__name__": "lat_bucket", "job": job, "le": le}, samples))
    if histograms:
        for job in ["api", "db"]:
            for instance in ["0", "1"]:
                add(lambda r, ts: native(r, ts, False), name="nh", job=job, instance=instance)
                add(lambda r, ts: native(r, ts, True), name="nhcb", job=job, instance=instance)

                def mixed(r, ts):
                    half = len(ts) // 2
                    yield from native(r, ts[:half], False)
                    yield from gauge(r, ts[half:])
                add(mixed, name="mix", job=job, instance=instance)
    return out


def remote_write(url, series):
    """Writes slice by slice of time, so that nothing is out of order."""
    slices = collections.defaultdict(list)
    for i, (labels, samples) in enumerate(series):
        for t, v in samples:
            slices[t // 300_000].append((i, t, v))
    for _, samples in sorted(slices.items()):
        by_series = collections.defaultdict(list)
        for i, t, v in samples:
            by_series[i].append((t, v))
        body = b""
        for i, points in by_series.items():
            ts = b"".join(field_bytes(1, field_bytes(1, k.encode()) + field_bytes(2, v.encode()))
                          for k, v in sorted(series[i][0].items()))
            for t, v in points:
                if isinstance(v, Histogram):
                    ts += field_bytes(4, v.encode(t))
                else:
                    ts += field_bytes(2, field_double(1, float(v)) + field_int(2, t))
            body += field_bytes(1, ts)
        headers = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf",
                   "X-Prometheus-Remote-Write-Version": "0.1.0"}
        request = urllib.request.Request(url + "/api/v1/write", data=snappy(body), headers=headers)
        try:
            urllib.request.urlopen(request).read()
        except urllib.error.HTTPError as e:
            sys.exit(f"remote write: {e.code} {e.read().decode()}")


# --------------------------------------------------------------------------------------- expressions


class Node:
    """An expression: pieces of text and other nodes. `kind` is v(ector), s(calar) or r(ange)."""

    def __init__(self, kind, *parts):
        self.kind, self.parts = kind, parts

    def __str__(self):
        return "".join(map(str, self.parts))

    def below(self):
        for part in self.parts:
            if isinstance(part, Node):
                yield part
                yield from part.below()

    def replaced(self, old, new):
        if self is old:
            return new
        return Node(self.kind, *(p.replaced(old, new) if isinstance(p, Node) else p for p in self.parts))


LABELS = ["job", "instance", "path", "zone", "le"]
RANGE_FUNCTIONS = """rate increase delta irate idelta deriv changes resets avg_over_time min_over_time max_over_time
    sum_over_time count_over_time stddev_over_time stdvar_over_time last_over_time first_over_time
    present_over_time mad_over_time ts_of_min_over_time ts_of_max_over_time ts_of_first_over_time
    ts_of_last_over_time absent_over_time""".split()
MATH = """abs ceil floor exp sqrt ln log2 log10 sgn acos asin atan sinh cosh tanh deg rad -""".split()
# The last digit of a large argument decides the first digit of the value.
PERIODIC = "cos sin tan".split()
DATES = "minute hour day_of_week day_of_month day_of_year days_in_month month year".split()
HISTOGRAM_FUNCTIONS = "histogram_count histogram_sum histogram_avg histogram_stddev histogram_stdvar".split()


class Generator:
    def __init__(self, rng, histograms):
        self.rng = rng
        self.metrics = ["reqs_total"] * 4 + ["errs_total"] * 2 + ["temp"] * 3 + ["load"] * 3 + ["lat_bucket"]
        if histograms:
            self.metrics += ["nh"] * 3 + ["nhcb"] * 2 + ["mix"] * 2
        self.histograms = histograms

    def pick(self, *choices):
        return self.rng.choice(choices)

    def labels(self, most=2):
        return ", ".join(self.rng.sample(LABELS, self.rng.randrange(0, most + 1)))

    def duration(self):
        if self.rng.random() < 0.05:
            return self.pick("(1m + 30s)", "(step() * 3 + 1m)", "max_of(step(), 2m)", "range() / 2 + 1m", "2 * 90")
        return self.pick("15s", "45s", "1m", "90s", "2m", "5m", "10m", "17m")

    def modifiers(self):
        out = ""
        if self.rng.random() < 0.12:
            out += " offset " + self.pick("", "-") + self.pick("30s", "1m", "7m")
        if self.rng.random() < 0.1:
            at = self.pick("start()", "end()", str(START + self.rng.randrange(MINUTES * 60)))
            out += " @ " + at
        return out

    def selector(self):
        name = self.rng.choice(self.metrics)
        matchers = []
        if self.rng.random() < 0.5:
            matchers.append(self.pick('job="api"', 'job=~"a.*|x"', 'job!="db"', 'instance!~"1|2"', 'instance="0"',
                                      'path="/a"', 'zone=~".+"', 'job=""', 'path!~"/a"'))
        if self.rng.random() < 0.04:
            return '{__name__=~"%s"}' % self.pick("reqs_total|errs_total", "t.*", ".+_total", "n.*|mix")
        return name + ("{%s}" % ",".join(matchers) if matchers else "")

    def range(self, depth):
        if depth <= 0 or self.rng.random() < 0.75:
            extension = self.pick(" anchored", " smoothed") if self.rng.random() < 0.08 else ""
            return Node("r", f"{self.selector()}[{self.duration()}]{extension}{self.modifiers()}")
        step = self.pick("", "30s", "1m", "7s")
        width = self.pick("1m", "5m", "12m")
        return Node("r", self.wrapped(self.vector(depth - 1)), f"[{width}:{step}]{self.modifiers()}")

    def wrapped(self, node):
        return Node(node.kind, "(", node, ")")

    def scalar(self, depth):
        roll = self.rng.random()
        if depth <= 0 or roll < 0.6:
            numbers = ["0", "1", "2", "-1", "0.5", "3.7", "100", "1e9", "NaN", "Inf", "-Inf", "pi()", "time()",
                       "start()", "end()", "step()", "range()"]
            return Node("s", self.rng.choice(numbers))
        if roll < 0.8:
            return Node("s", "scalar(", self.vector(depth - 1), ")")
        if roll < 0.85:
            name = self.pick("max_of", "min_of")
            return Node("s", name + "(", self.scalar(depth - 1), ", ", self.scalar(depth - 1), ")")
        op = self.pick("+", "-", "*", "/", "%", "^", "== bool", "< bool", "atan2")
        return Node("s", "(", self.scalar(depth - 1), f" {op} ", self.scalar(depth - 1), ")")

    def vector(self, depth):
        if depth <= 0 or self.rng.random() < 0.12:
            extension = " smoothed" if self.rng.random() < 0.04 else ""
            return Node("v", self.selector() + extension + self.modifiers())
        makers = [(self.call, 10), (self.binary, 8), (self.aggregate, 8), (self.over_range, 8)]
        make = self.rng.choices([m for m, _ in makers], [w for _, w in makers])[0]
        return make(depth)

    def over_range(self, depth):
        roll, r = self.rng.random(), self.range(depth - 1)
        if roll < 0.06:
            return Node("v", "quantile_over_time(", self.scalar(depth - 2), ", ", r, ")")
        if roll < 0.12:
            return Node("v", "predict_linear(", r, ", ", self.scalar(depth - 2), ")")
        if roll < 0.15:
            return Node("v", "double_exponential_smoothing(", r, ", ", self.pick("0.5", "0.1", "1", "2"), ", 0.3)")
        return Node("v", self.rng.choice(RANGE_FUNCTIONS) + "(", r, ")")

    def call(self, depth):
        v, roll = self.vector(depth - 1), self.rng.random()
        scalar = lambda: self.scalar(depth - 2)
        if roll < 0.22:
            return Node("v", self.rng.choice(MATH) + "(", v, ")")
        if roll < 0.25:
            return Node("v", self.rng.choice(PERIODIC) + "(", self.vector(0), ")")
        if roll < 0.32:
            return Node("v", self.rng.choice(DATES) + "(", v, ")")
        if roll < 0.37:
            return Node("v", "clamp(", v, ", ", scalar(), ", ", scalar(), ")")
        if roll < 0.42:
            return Node("v", self.pick("clamp_min", "clamp_max", "round") + "(", v, ", ", scalar(), ")")
        if roll < 0.5:
            return Node("v", "timestamp(", v, ")")
        if roll < 0.57:
            return Node("v", self.pick("absent", "sort", "sort_desc") + "(", v, ")")
        if roll < 0.61:
            return Node("v", self.pick("sort_by_label", "sort_by_label_desc") + "(", v, ', "instance", "path")')
        if roll < 0.69:
            args = self.pick('"x", "$1-y", "job", "(.*)"', '"instance", "", "path", "/a"', '"job", "$1", "path", "/(.)"',
                             '"__name__", "n_$1", "job", "(a).*"')
            return Node("v", "label_replace(", v, f", {args})")
        if roll < 0.74:
            args = self.pick('"x", "-", "job", "instance"', '"job", "", "path"', '"path", ",", "nope"')
            return Node("v", "label_join(", v, f", {args})")
        if roll < 0.79:
            return Node("v", "vector(", scalar(), ")")
        if roll < 0.85:
            args = self.pick("", ', {version=~".+"}', ', {__name__=~".+_info"}', ', {rev="r1"}', ', {version="1.0"}')
            return Node("v", "info(", v, f"{args})")
        if self.histograms and roll < 0.92:
            return Node("v", self.rng.choice(HISTOGRAM_FUNCTIONS) + "(", self.bucketed(depth), ")")
        if roll < 0.96:
            return Node("v", "histogram_quantile(", scalar(), ", ", self.bucketed(depth), ")")
        return Node("v", "histogram_fraction(", scalar(), ", ", scalar(), ", ", self.bucketed(depth), ")")

    def bucketed(self, depth):
        name = self.pick("lat_bucket", "lat_bucket", "nh", "nhcb") if self.histograms else "lat_bucket"
        roll = self.rng.random()
        if roll < 0.3:
            return Node("v", name)
        if roll < 0.6:
            return Node("v", f"rate({name}[5m])")
        if roll < 0.85:
            return Node("v", self.pick("sum", "avg", "sum by (le)", "sum by (job, le)") + f" (rate({name}[5m]))")
        return self.vector(depth - 1)

    def aggregate(self, depth):
        grouping = self.pick("", f" by ({self.labels()})", f" without ({self.labels()})", " by (__name__, job)")
        roll = self.rng.random()
        # Upstream decides between equal values by the order of series, which is chance behind most operators.
        ranked = 0.65 <= roll < 0.85
        v = self.vector(0 if ranked else depth - 1)
        if roll < 0.65:
            op = self.pick("sum", "avg", "count", "min", "max", "group", "stddev", "stdvar")
            return Node("v", f"{op}{grouping} (", v, ")")
        if roll < 0.85:
            op = self.pick("topk", "bottomk", "limitk")
            k = Node("s", self.pick("1", "2", "3", "5", "0", "-1")) if self.rng.random() < 0.9 else self.scalar(depth - 2)
            return Node("v", f"{op}{grouping} (", k, ", ", v, ")")
        if roll < 0.92:
            q = Node("s", self.pick("0", "0.5", "0.9", "1", "2")) if self.rng.random() < 0.8 else self.scalar(depth - 2)
            return Node("v", f"quantile{grouping} (", q, ", ", v, ")")
        if roll < 0.96:
            return Node("v", f"limit_ratio{grouping} (", self.pick("0.5", "-0.3", "1", "1.5"), ", ", v, ")")
        return Node("v", f"count_values{grouping} (" + self.pick('"val"', '"job"') + ", ", v, ")")

    def binary(self, depth):
        bool_ops = ["==", "!=", ">", "<", ">=", "<="]
        arithmetic = ["+", "-", "*", "/", "%", "^", "atan2"]
        if self.histograms:
            arithmetic += ["</", ">/"]
        op = self.rng.choice(bool_ops + arithmetic * 2 + ["and", "or", "unless"] * 2)
        if op in bool_ops and self.rng.random() < 0.4:
            op += " bool"
        left, roll = self.vector(depth - 1), self.rng.random()
        if op not in ("and", "or", "unless") and roll < 0.35:
            sides = [left, self.scalar(depth - 1)]
            self.rng.shuffle(sides)
            return Node("v", "(", sides[0], f" {op} ", sides[1], ")")
        matching = self.pick("", "", " on (job)", " on (job, instance)", " ignoring (path)", " ignoring (zone, path)")
        if matching and op not in ("and", "or", "unless") and self.rng.random() < 0.4:
            matching += self.pick(" group_left", " group_right", " group_left (zone)", " group_right (path)")
        if op not in ("and", "or", "unless") and self.rng.random() < 0.08:
            matching += self.pick(" fill(0)", " fill_left(1)", " fill_right(2)", " fill_left(1) fill_right(NaN)")
        right = Node("v", str(left)) if self.rng.random() < 0.25 else self.vector(depth - 1)
        return Node("v", "(", left, f" {op}{matching} ", right, ")")

    def query(self):
        """An expression, and the parameters of an instant or a range query."""
        kind, depth = self.rng.random(), self.rng.choice([1, 2, 2, 3, 3, 4])
        node = self.scalar(depth) if kind < 0.05 else self.vector(depth)
        at = START + self.rng.randrange(MINUTES * 60 + 300)
        if self.rng.random() < 0.5:
            if self.rng.random() < 0.05:
                node = self.range(depth)
            return node, {"time": str(at)}
        step = self.rng.choice([7, 15, 60, 61, 300])
        end = min(at + step * self.rng.randrange(0, 200), START + MINUTES * 60 + 900)
        return node, {"start": str(at), "end": str(max(at, end)), "step": str(step)}


# ---------------------------------------------------------------------------------------- comparison


def ask(url, expr, params):
    path = "/api/v1/query_range" if "step" in params else "/api/v1/query"
    data = urllib.parse.urlencode({"query": expr, **params}).encode()
    try:
        with urllib.request.urlopen(url + path, data=data, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as e:
        body = e.read().decode(errors="replace")
        try:
            return json.loads(body)
        except ValueError:
            return {"status": "error", "errorType": f"http {e.code}", "error": body}


def same_float(a, b):
    if a == b:
        return True
    x, y = float(a), float(b)
    if math.isnan(x) or math.isnan(y):
        return math.isnan(x) and math.isnan(y)
    if math.isinf(x) or math.isinf(y):
        return x == y
    return abs(x - y) <= 1e-9 * max(abs(x), abs(y)) or abs(x - y) < 1e-290


def same_value(a, b):
    if isinstance(a, dict) and isinstance(b, dict):
        one, two = a.get("buckets", []), b.get("buckets", [])
        return (same_float(a["count"], b["count"]) and same_float(a["sum"], b["sum"]) and len(one) == len(two)
                and all(p[0] == q[0] and all(same_float(v, w) for v, w in zip(p[1:], q[1:]))
                        for p, q in zip(one, two)))
    return isinstance(a, str) and isinstance(b, str) and same_float(a, b)


def points(series):
    out = {}
    for kind in ("values", "histograms"):
        for t, v in series.get(kind, []):
            out[t, kind] = v
    for kind in ("value", "histogram"):
        if kind in series:
            out[series[kind][0], kind] = series[kind][1]
    return out


def texts(answer, kind):
    # The two servers may see series in another order where upstream keeps the first or last text only.
    return sorted(answer.get(kind, []))


def difference(ours, theirs, ordered):
    """What differs, in a line; None if nothing does."""
    if ours["status"] != theirs["status"]:
        return f"status: ours {ours.get('error', 'success')!r}, theirs {theirs.get('error', 'success')!r}"
    if ours["status"] == "error":
        # Which of several pairs of series is told of depends on the order of a map.
        group = re.compile(r"(found duplicate series for the match group) .*?(;many)")
        same = ours["errorType"] == theirs["errorType"] and (
            group.sub(r"\1\2", ours["error"]) == group.sub(r"\1\2", theirs["error"]))
        return None if same else f"error: ours {ours['error']!r}, theirs {theirs['error']!r}"
    a, b = ours["data"], theirs["data"]
    if a["resultType"] != b["resultType"]:
        return f"type: ours {a['resultType']}, theirs {b['resultType']}"
    if a["resultType"] in ("scalar", "string"):
        if not same_value(a["result"][1], b["result"][1]):
            return f"scalar: ours {a['result']}, theirs {b['result']}"
    else:
        mine = {json.dumps(s["metric"], sort_keys=True): points(s) for s in a["result"]}
        other = {json.dumps(s["metric"], sort_keys=True): points(s) for s in b["result"]}
        for key in sorted(mine.keys() ^ other.keys()):
            return f"series: {key} only in {'ours' if key in mine else 'theirs'}"
        for key in sorted(mine):
            for at in sorted(mine[key].keys() | other[key].keys()):
                one, two = mine[key].get(at), other[key].get(at)
                if one is None or two is None or not same_value(one, two):
                    return f"value: {key} @{at[0]}: ours {one}, theirs {two}"
        # Series of equal value stand in no certain order.
        values = [[float(v) for s in r["result"] for v in points(s).values() if isinstance(v, str)] for r in (a, b)]
        if ordered and not all(same_float(v, w) for v, w in zip(*values)):
            return f"order: ours {list(mine)}, theirs {list(other)}"
    for kind in ("warnings", "infos"):
        one, two = texts(ours, kind), texts(theirs, kind)
        if one != two and max(len(one), len(two)) <= 10:
            return f"{kind}: ours {one}, theirs {two}"
    return None


class Runner:
    def __init__(self, ours, theirs):
        self.ours, self.theirs, self.queries = ours, theirs, 0

    def compare(self, node, params):
        self.queries += 1
        expr = str(node)
        ordered = "time" in params and re.match(r"(sort|topk|bottomk)[^)]", expr) is not None
        return difference(ask(self.ours, expr, params), ask(self.theirs, expr, params), ordered)

    def reduce(self, node, params, found):
        """The smallest expression that still differs, by trying parts of it and simpler parts in it."""
        simple = {"v": [Node("v", "temp"), Node("v", "reqs_total")], "s": [Node("s", "1")], "r": [Node("r", "temp[2m]")]}
        kind, budget = found.split(":")[0], 150
        smaller = True
        while smaller:
            smaller = False
            candidates = [n for n in node.below() if n.kind != "r" or "time" in params]
            candidates += [node.replaced(n, s) for n in node.below() for s in simple[n.kind]]
            for candidate in sorted(candidates, key=lambda n: len(str(n))):
                if len(str(candidate)) >= len(str(node)) or budget == 0:
                    break
                budget -= 1
                difference = self.compare(candidate, params)
                if difference and difference.split(":")[0] == kind:
                    node, found, smaller = candidate, difference, True
                    break
        if "step" in params:
            for at in [params["start"], params["end"]]:
                once = {"time": at}
                difference = self.compare(node, once)
                if difference and difference.split(":")[0] == kind:
                    return node, once, difference
        return node, params, found


# -------------------------------------------------------------------------------------------- servers


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def __init__(self, command, log):
        self.url = f"http://127.0.0.1:{free_port()}"
        address = self.url.removeprefix("http://")
        with open(log, "wb") as out:
            self.process = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=out, stderr=out)
        for _ in range(300):
            try:
                urllib.request.urlopen(self.url + "/-/ready").read()
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.1)
        sys.exit(f"{command[0]} does not start: {open(log, errors='replace').read()[-2000:]}")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


def make_servers(args, work, servers):
    """Both servers on copies of the same blocks, ours first."""
    config = os.path.join(work, "prometheus.yml")
    with open(config, "w") as f:
        f.write("global:\n  evaluation_interval: 1m\n")
    common = [f"--config.file={config}", "--storage.tsdb.retention.time=100y"]
    keep = ",promql-delayed-name-removal" if args.delayed_name_removal else ""
    features = [f"--enable-feature={FEATURES}{keep}"]
    writer = Server([args.prometheus, *common, f"--storage.tsdb.path={work}/write", "--web.enable-admin-api",
                     "--web.enable-remote-write-receiver"], f"{work}/write.log")
    remote_write(writer.url, make_data(random.Random(args.seed), args.histograms))
    request = urllib.request.Request(writer.url + "/api/v1/admin/tsdb/snapshot", method="POST")
    name = json.load(urllib.request.urlopen(request))["data"]["name"]
    writer.stop()
    for side in ("ours", "theirs"):
        shutil.copytree(f"{work}/write/snapshots/{name}", f"{work}/{side}")
    servers.append(Server([args.promontory, *common, *features, f"--storage.tsdb.path={work}/ours",
                           "--sql.listen-address=127.0.0.1:0"], f"{work}/ours.log"))
    servers.append(Server([args.prometheus, *common, *features, f"--storage.tsdb.path={work}/theirs"],
                          f"{work}/theirs.log"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--prometheus", default="prometheus", help="binary of Prometheus")
    parser.add_argument("--promontory", default="target/debug/promontory", help="binary of Promontory")
    parser.add_argument("--prometheus-url", help="a Prometheus that runs already")
    parser.add_argument("--promontory-url", help="a Promontory that runs already, on the same data")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=1000, help="queries")
    parser.add_argument("--histograms", action="store_true", help="native histograms, too")
    parser.add_argument("--delayed-name-removal", action="store_true", help="with that feature on both sides")
    parser.add_argument("--most", type=int, default=30, help="stop after so many differences")
    parser.add_argument("--only", default="", help="only expressions that contain this regular expression")
    parser.add_argument("--skip", default="(?!)", help="no expressions that contain this regular expression")
    args = parser.parse_args()
    work = tempfile.mkdtemp(prefix="promql-diff-")
    servers = []
    try:
        if not args.prometheus_url:
            make_servers(args, work, servers)
        runner = Runner(args.promontory_url or servers[0].url, args.prometheus_url or servers[1].url)
        sys.exit(1 if run(args, runner) else 0)
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(work, ignore_errors=True)


def run(args, runner):
    generator = Generator(random.Random(args.seed * 1_000_003), args.histograms)
    kinds, asked, seen = collections.Counter(), 0, set()
    for i in range(args.count):
        node, params = generator.query()
        if not re.search(args.only, str(node)) or re.search(args.skip, str(node)):
            continue
        asked += 1
        found = runner.compare(node, params)
        if not found:
            continue
        small, at, found = runner.reduce(node, params, found)
        kinds[found.split(":")[0]] += 1
        if (str(small)) not in seen:
            seen.add(str(small))
            print(f"\n#{i} {small}\n    {at}\n    {found[:600]}", flush=True)
        if sum(kinds.values()) >= args.most:
            break
    counts = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common()) or "none"
    print(f"\n{asked} queries, {sum(kinds.values())} differences ({counts})")
    return sum(kinds.values())


if __name__ == "__main__":
    main()
