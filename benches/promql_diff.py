#!/usr/bin/env python3
"""Runs random PromQL against Prometheus and against Promontory, and shows where the answers differ.

    benches/promql_diff.py --prometheus /path/prometheus --promontory target/debug/promontory --seed 1 --count 2000
    benches/promql_diff.py --prometheus /path/prometheus-2.42 --language 2.42 --count 2000

makes random data (resets, gaps, staleness, NaN, infinities, churn, classic and native histograms), writes it
into a Prometheus through remote write, takes a snapshot, and starts both servers on a copy of its blocks. With
`--prometheus-url` and `--promontory-url`, servers that run already are compared instead. Everything follows from
the seed. Values are compared to 1e-9 (relative, NaN equals NaN), and so are labels, errors and annotations; a
difference is reduced to a smaller expression that still differs. At the end stands how often each function,
operator and keyword was asked for, and answered with something.

Needs a Prometheus with the same language version (3.14). With `--language 2.42` it may be one of that age: queries
keep to what it knows, there are no native histograms, samples stand where no query has the left edge of a window
(which belonged to the window before 3.0), and texts of errors and annotations are not compared. Differences that
come of known changes in between (`CHANGED`) are counted apart.

Series come from random_series.py, expressions from random_promql.py. The standard library of Python 3 is enough.
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
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

from random_promql import Coverage, Generator, Node
from random_series import make_data, remote_write

FEATURES = ("promql-experimental-functions,promql-extended-range-selectors,promql-binop-fill-modifiers,"
            "promql-duration-expr")



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


# What differs for a reason; docs/architecture.md says which.
SAMPLES = re.compile(r"over -?\d+ samples (from .*) \(.*\)")
PARTIAL = ["incompatible sample types encountered for binary operator", "a mix of histograms with exponential and custom",
           "mismatched custom buckets were reconciled during aggregation"]
SCHEMA_NAME = re.compile(r"(custom buckets schemas for metric name) \"[^\"]*\"")
FIRST = re.compile(r"modifier can only be used with: |invalid (source|destination) label name|invalid label name|"
                   r"subquery is only allowed on instant vector, got matrix instead|error parsing regexp|invalid regular exp")


def annotations(answer, kind):
    """Texts, and those of them of which upstream may tell a part only, or another name."""
    found = {SCHEMA_NAME.sub(r"\1", SAMPLES.sub(r"over samples \1", text)) for text in answer.get(kind, [])}
    partial = {text for text in found if any(p in text for p in PARTIAL)}
    return found - partial, partial


# What Prometheus changed between 2.42 and 3.14: the kind of a difference, a part of its expression or texts, and what.
CHANGED = [
    ("value", r"\[[^]]*:.*\[[^]]*:", "a window over steps has an open left edge"),
    ("value|scalar", r"rate|increase|delta", "rates look at the distance to the edge of the window before that to zero"),
    ("value", r"stdvar|stddev", "the deviation of one infinite value is not a number"),
    ("value", r"quantile", "buckets that are not monotonic by a rounding error are set right"),
    ("value", r"predict_linear.*@", "a line through a pinned window is prolonged to each step"),
    ("series", r"count_values", "sums are compensated, which shows in the last digit"),
    ("series", r"atan2", "atan2 drops the name"),
    ("status", r"bad name", "labels have any name"),
    ("status", r"overflows int64", "numbers of series are bounded"),
    ("status", r"multiple matches", "matches are told apart by their result also where a comparison leaves it out"),
]


def change(found, small):
    """What Prometheus changed since 2.42 that explains a difference."""
    kind = found.split(":")[0]
    known = (what for k, pattern, what in CHANGED if kind in k.split("|") and re.search(pattern, f"{small} {found}"))
    return next(known, None)


def difference(ours, theirs, ordered, texts_too=True):
    """What differs, in a line; None if nothing does. Texts of errors and annotations count where `texts_too`."""
    if theirs["status"] == "error" and "runtime error" in theirs["error"]:
        return None  # An index out of range in upstream is no answer to be compared with.
    if ours["status"] != theirs["status"]:
        return f"status: ours {ours.get('error', 'success')!r}, theirs {theirs.get('error', 'success')!r}"
    if ours["status"] == "error":
        # Which of several pairs of series is told of depends on the order of a map.
        group = re.compile(r"(found duplicate series for the match group) .*?(;many)")
        same = ours["errorType"] == theirs["errorType"] and (not texts_too or
            group.sub(r"\1\2", ours["error"]) == group.sub(r"\1\2", theirs["error"]))
        same = same or FIRST.search(ours["error"]) is not None
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
    for kind in ("warnings", "infos") if texts_too else ():
        (one, more), (two, less) = annotations(ours, kind), annotations(theirs, kind)
        omitted = any("omitted" in text for text in one | two)
        if (one != two or not less <= more or more and not (less or one or two)) and not omitted:
            return f"{kind}: ours {sorted(ours.get(kind, []))}, theirs {sorted(theirs.get(kind, []))}"
    return None


class Runner:
    def __init__(self, ours, theirs, texts_too, coverage):
        self.ours, self.theirs, self.texts_too, self.coverage = ours, theirs, texts_too, coverage

    def compare(self, node, params, reducing=False):
        expr = str(node)
        ordered = "time" in params and re.match(r"(sort|topk|bottomk)[^)]", expr) is not None
        ours, theirs = ask(self.ours, expr, params), ask(self.theirs, expr, params)
        found = difference(ours, theirs, ordered, self.texts_too)
        if not found and not reducing and theirs["status"] == "error" and "runtime error" in theirs["error"]:
            self.coverage.outcomes["failures of theirs"] += 1
        elif not found and not reducing:
            self.coverage.count(expr, params, ours, theirs)
        return found

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
                difference = self.compare(candidate, params, True)
                if difference and difference.split(":")[0] == kind:
                    node, found, smaller = candidate, difference, True
                    break
        if "step" in params:
            for at in [params["start"], params["end"]]:
                once = {k: v for k, v in params.items() if k not in ("start", "end", "step")} | {"time": at}
                difference = self.compare(node, once, True)
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
    theirs = features if args.language != "2.42" else []
    writer = Server([args.prometheus, *common, f"--storage.tsdb.path={work}/write", "--web.enable-admin-api",
                     "--web.enable-remote-write-receiver"], f"{work}/write.log")
    servers.append(writer)
    # See the module's text: on what side of a window a sample stands must not matter to 2.42.
    new = args.language != "2.42"
    remote_write(writer.url, make_data(random.Random(args.seed), args.histograms, new, 0 if new else 350))
    request = urllib.request.Request(writer.url + "/api/v1/admin/tsdb/snapshot", method="POST")
    name = json.load(urllib.request.urlopen(request))["data"]["name"]
    servers.pop().stop()
    for side in ("ours", "theirs"):
        shutil.copytree(f"{work}/write/snapshots/{name}", f"{work}/{side}")
    servers.append(Server([args.promontory, *common, *features, f"--storage.tsdb.path={work}/ours",
                           "--sql.listen-address=127.0.0.1:0"], f"{work}/ours.log"))
    servers.append(Server([args.prometheus, *common, *theirs, f"--storage.tsdb.path={work}/theirs"],
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
    parser.add_argument("--language", choices=["3.14", "2.42"], default="3.14", help="what the Prometheus understands")
    parser.add_argument("--delayed-name-removal", action="store_true", help="with that feature on both sides")
    parser.add_argument("--most", type=int, default=30, help="stop after so many differences")
    parser.add_argument("--only", default="", help="only expressions that contain this regular expression")
    parser.add_argument("--skip", default="(?!)", help="no expressions that contain this regular expression")
    args = parser.parse_args()
    if args.histograms and args.language == "2.42":
        parser.error("no native histograms with --language 2.42")
    work = tempfile.mkdtemp(prefix="promql-diff-")
    servers = []
    try:
        if not args.prometheus_url:
            make_servers(args, work, servers)
        coverage = Coverage(args.language != "2.42", args.histograms)
        runner = Runner(args.promontory_url or servers[0].url, args.prometheus_url or servers[1].url,
                        args.language != "2.42", coverage)
        sys.exit(1 if run(args, runner) else 0)
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(work, ignore_errors=True)


def run(args, runner):
    generator = Generator(random.Random(args.seed * 1_000_003), args.histograms, args.language)
    kinds, changed, asked, seen = collections.Counter(), collections.Counter(), 0, set()
    for i in range(args.count):
        node, params = generator.query()
        if not re.search(args.only, str(node)) or re.search(args.skip, str(node)):
            continue
        asked += 1
        found = runner.compare(node, params)
        if not found:
            continue
        small, at, found = runner.reduce(node, params, found)
        if args.language == "2.42" and change(found, small):
            changed[change(found, small)] += 1
            continue
        kinds[found.split(":")[0]] += 1
        if (str(small)) not in seen:
            seen.add(str(small))
            print(f"\n#{i} {small}\n    {at}\n    {found[:600]}", flush=True)
        if sum(kinds.values()) >= args.most:
            break
    for what, n in changed.most_common():
        print(f"\n{n} differ because of what changed since: {what}", end="")
    counts = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common()) or "none"
    print(f"\n{runner.coverage}\n{asked} queries of seed {args.seed}, {sum(kinds.values())} differences ({counts})")
    return sum(kinds.values())


if __name__ == "__main__":
    main()
