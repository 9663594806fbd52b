"""Random PromQL over the series of random_series.py, for benches/promql_diff.py.

A generator speaks the language of one version: `3.14`, or `2.42`, which lacks experimental functions, duration
expressions, `anchored` and `smoothed`, `fill`, names of any text, and whatever is for native histograms.
`Coverage` counts which functions, operators and keywords were asked for, and what the answers were.
"""
import collections
import re

from random_series import MINUTES, START


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
    sum_over_time count_over_time stddev_over_time stdvar_over_time last_over_time present_over_time
    absent_over_time""".split()
NEW_RANGE_FUNCTIONS = """first_over_time mad_over_time ts_of_min_over_time ts_of_max_over_time ts_of_first_over_time
    ts_of_last_over_time""".split()
MATH = """abs ceil floor exp sqrt ln log2 log10 sgn acos acosh asin asinh atan atanh sinh cosh tanh deg rad - +
    """.split()
# The last digit of a large argument decides the first digit of the value.
PERIODIC = "cos sin tan".split()
DATES = "minute hour day_of_week day_of_month day_of_year days_in_month month year".split()
HISTOGRAM_FUNCTIONS = "histogram_count histogram_sum histogram_avg histogram_stddev histogram_stdvar".split()
AGGREGATES = "sum avg count min max group stddev stdvar".split()
COMPARISONS = ["==", "!=", ">", "<", ">=", "<="]
ARITHMETIC = ["+", "-", "*", "/", "%", "^", "atan2"]
SETS = ["and", "or", "unless"]


class Generator:
    def __init__(self, rng, histograms, language="3.14"):
        self.rng, self.new, self.histograms = rng, language != "2.42", histograms
        self.metrics = ["reqs_total"] * 4 + ["errs_total"] * 2 + ["temp"] * 3 + ["load"] * 3 + ["lat_bucket", "odd"]
        if histograms:
            self.metrics += ["nh"] * 3 + ["nhcb"] * 2 + ["mix"] * 2
        # With 2.42, queries stand on half seconds, where no sample is: a window has no left edge then.
        self.half = 0 if self.new else 0.5

    def pick(self, *choices):
        return self.rng.choice(choices)

    def chance(self, p):
        return self.rng.random() < p

    def labels(self, most=2):
        return ", ".join(self.rng.sample(LABELS, self.rng.randrange(0, most + 1)))

    # Selectors and ranges.

    def duration(self):
        if self.new and self.chance(0.08):
            return self.pick("(1m + 30s)", "(step() * 3 + 1m)", "max_of(step(), 2m)", "range() / 2 + 1m", "2 * 90", "2^8",
                             "5m % 70", "min_of(10m, range() + 1m)", "-1m + 3m", "step()", "1h / 7", "300", "1m - 1m",
                             "(2m + -30s) * 2", "0x80", "min_of(step(), 1m) * 2")
        return self.pick("15s", "45s", "1m", "90s", "2m", "5m", "10m", "17m", "1h1m", "1m30s")

    def offset(self):
        if self.new and self.chance(0.15):
            return self.pick("(1m + 30s)", "step()", "-step()", "(range() / 2)", "-(1m * 2)", "-2^2", "60", "-1.5",
                             "max_of(1m, step())", "-min_of(2m, step())", "+1m", "(-30s)")
        return self.pick("", "-") + self.pick("30s", "1m", "7m", "1h5m", "2h")

    def modifiers(self):
        out = []
        if self.chance(0.12):
            out.append(" offset " + self.offset())
        if self.chance(0.1):
            at = START + self.rng.randrange(MINUTES * 60) + self.half
            out.append(" @ " + self.pick("start()", "end()", str(at), f"{at:.1f}", f"{at:.10e}"))
        self.rng.shuffle(out)
        return "".join(out)

    def selector(self):
        name = self.rng.choice(self.metrics)
        matchers = []
        for _ in range(self.rng.choice([0, 0, 0, 1, 1, 2])):
            matchers.append(self.pick('job="api"', 'job=~"a.*|x"', 'job!="db"', 'instance!~"1|2"', 'instance="0"',
                                      'path="/a"', 'zone=~".+"', 'job=""', 'path!~"/a"', "job=~'(?i)API'", 'path=~""',
                                      'instance=~"[01]"', 'job!~""', "path=`/b`"))
        roll = self.rng.random()
        if roll < 0.04:
            return '{__name__=~"%s"}' % self.pick("reqs_total|errs_total", "t.*", ".+_total", "n.*|mix", "odd.*")
        if roll < 0.05:
            return self.pick('odd{text=~".*\\n.*"}', "odd{text=`<é>`}", 'odd{text!="$1"}', '{__name__="temp", job="api"}',
                             'temp{job="api",}', "nope", "up{}", 'info', "by", 'sum{job="x"}')
        if self.new and roll < 0.07:
            return self.pick('{"reqs_total"}', '{"odd.name"}', '{"odd.name", "a.label"="x y"}', "{'temp', job='api'}",
                             '{"a.label"!=""}', 'temp{"job"="db"}')
        return name + ("{%s}" % ",".join(matchers) if matchers else "")

    def range(self, depth):
        if depth <= 0 or self.chance(0.72):
            extension = self.pick(" anchored", " smoothed") if self.new and self.chance(0.1) else ""
            return Node("r", f"{self.selector()}[{self.duration()}]{extension}{self.modifiers()}")
        step = self.pick("", "", "30s", "1m", "7s", "1m30s", "11m")
        width = self.pick("1m", "5m", "12m", "1h")
        if self.new and self.chance(0.1):
            step, width = self.pick("step()", "", "30", "step() / 2", "1m - 45s"), self.pick("5 * 1m", "range() + 1m", "10m")
        inner = self.wrapped(self.vector(depth - 1)) if self.chance(0.9) else self.scalar_in_brackets(depth - 1)
        return Node("r", inner, f"[{width}:{step}]{self.modifiers()}")

    def wrapped(self, node):
        return Node(node.kind, "(", node, ")")

    def scalar_in_brackets(self, depth):
        return Node("v", "vector(", self.scalar(depth), ")")

    def scalar(self, depth):
        roll = self.rng.random()
        if depth <= 0 or roll < 0.6:
            numbers = ["0", "1", "2", "-1", "0.5", "3.7", "100", "1e9", "NaN", "Inf", "-Inf", "pi()", "time()", "0x1F",
                       "1e-3", ".5", "+2", "inf", "017"]
            if self.new:
                numbers += ["start()", "end()", "step()", "range()", "5m", "1_000", "1h30m"]
            return Node("s", self.rng.choice(numbers))
        if roll < 0.8:
            return Node("s", "scalar(", self.vector(depth - 1), ")")
        if roll < 0.85 and self.new:
            name = self.pick("max_of", "min_of")
            return Node("s", name + "(", self.scalar(depth - 1), ", ", self.scalar(depth - 1), ")")
        if roll < 0.88:
            return Node("s", self.pick("-", "+", "-("), self.scalar(depth - 1)) if self.chance(0.3) else Node(
                "s", "-(", self.scalar(depth - 1), ")")
        op = self.pick("+", "-", "*", "/", "%", "^", "== bool", "< bool", ">= bool", "atan2")
        return self.around(Node("s", self.scalar(depth - 1), f" {op} ", self.scalar(depth - 1)))

    def around(self, node):
        """Mostly in brackets: without them, precedence decides what the operands are."""
        return Node(node.kind, "(", node, ")") if self.chance(0.7) else node

    # Vectors.

    def vector(self, depth):
        if depth <= 0 or self.chance(0.12):
            extension = " smoothed" if self.new and self.chance(0.04) else ""
            return Node("v", self.selector() + extension + self.modifiers())
        makers = [(self.call, 10), (self.binary, 8), (self.aggregate, 8), (self.over_range, 8)]
        make = self.rng.choices([m for m, _ in makers], [w for _, w in makers])[0]
        return make(depth)

    def over_range(self, depth):
        roll, r = self.rng.random(), self.range(depth - 1)
        if roll < 0.08:
            return Node("v", "quantile_over_time(", self.scalar(depth - 2), ", ", r, ")")
        if roll < 0.13:
            return Node("v", "predict_linear(", r, ", ", self.scalar(depth - 2), ")")
        if roll < 0.16 and self.new:
            factors = self.pick("0.5, 0.3", "0.1, 0.3", "1, 1", "2, 0.1", "0.1, 0")
            return Node("v", "double_exponential_smoothing(", r, ", ", factors, ")")
        names = RANGE_FUNCTIONS + NEW_RANGE_FUNCTIONS if self.new else RANGE_FUNCTIONS
        return Node("v", self.rng.choice(names) + "(", r, ")")

    def call(self, depth):
        v, roll = self.vector(depth - 1), self.rng.random()
        scalar = lambda: self.scalar(depth - 2)
        if roll < 0.2:
            return Node("v", self.rng.choice(MATH) + "(", v, ")")
        if roll < 0.23:
            return Node("v", self.rng.choice(PERIODIC) + "(", self.vector(0), ")")
        if roll < 0.3:
            return Node("v", self.rng.choice(DATES) + "(", *([v] if self.chance(0.8) else []), ")")
        if roll < 0.34:
            return Node("v", "clamp(", v, ", ", scalar(), ", ", scalar(), ")")
        if roll < 0.4:
            name = self.pick("clamp_min", "clamp_max", "round")
            return Node("v", name + "(", v, ", ", scalar(), ")") if name != "round" or self.chance(0.7) else Node("v", "round(", v, ")")
        if roll < 0.45:
            if "@" in str(v) and "offset" in str(v):
                # Upstream looks at another time than the one it has read.
                v = Node("v", self.rng.choice(self.metrics))
            return Node("v", "timestamp(", v, ")")
        if roll < 0.47 and self.new:
            return Node("v", "start_timestamp(", self.vector(0), ")")
        if roll < 0.55:
            name = self.pick("absent", "absent", "sort", "sort_desc")
            return Node("v", name + "(", self.vector(0) if self.chance(0.3) else v, ")")
        if roll < 0.59 and self.new:
            by = self.pick('"instance", "path"', '"job"', '"le"', '"zone", "nope", "job"', '"__name__", "path"')
            return Node("v", self.pick("sort_by_label", "sort_by_label_desc") + "(", v, ", " + by + ")")
        if roll < 0.69:
            return Node("v", "label_replace(", v, f", {self.replacement()})")
        if roll < 0.74:
            args = self.pick('"x", "-", "job", "instance"', '"job", "", "path"', '"path", ",", "nope"', '"job", "-"',
                             '"__name__", "_", "job", "zone"', '"", "-", "job"')
            return Node("v", "label_join(", v, f", {args})")
        if roll < 0.79:
            return Node("v", "vector(", scalar(), ")")
        if roll < 0.85 and self.new:
            args = self.pick("", ', {version=~".+"}', ', {__name__=~".+_info"}', ', {rev="r1"}', ', {version="1.0"}',
                             ', {__name__="build_info"}', ', {version="", rev="r1"}', ', {__name__!="target_info", rev=~".*"}')
            return Node("v", "info(", v, f"{args})")
        if self.histograms and roll < 0.91:
            return Node("v", self.rng.choice(HISTOGRAM_FUNCTIONS) + "(", self.bucketed(depth), ")")
        if roll < 0.96 or not self.new:
            return Node("v", "histogram_quantile(", scalar(), ", ", self.bucketed(depth), ")")
        if roll < 0.98:
            return Node("v", "histogram_fraction(", scalar(), ", ", scalar(), ", ", self.bucketed(depth), ")")
        quantiles = [part for _ in range(self.rng.randrange(1, 4)) for part in (", ", scalar())]
        # Upstream merges buckets of equal bounds anew for each quantile.
        buckets = Node("v", str(self.bucketed(depth)).replace("odd_bucket", "lat_bucket"))
        return Node("v", "histogram_quantiles(", buckets, self.pick(', "q"', ', "job"', ', "le"'), *quantiles, ")")

    def replacement(self):
        """What follows the vector in label_replace: label, template, label, regular expression."""
        fixed = ['"x", "$1-y", "job", "(.*)"', '"instance", "", "path", "/a"', '"job", "$1", "path", "/(.)"',
                 '"__name__", "n_$1", "job", "(a).*"', '"x", "${first}_$2", "job", "(?P<first>.)(.*)"', '"x", "$$1", "job", ".*"',
                 '"x", "$1$3", "instance", "([0-9])?(.*)"', '"x", "$1x", "job", "(.*)"', '"x", "${1}x", "path", "/(.*)"',
                 '"job", "", "job", "api"', '"x", "a", "nope", ""', '"x", "$0", "text", "(?s).*"', '"x", "$", "job", ".*"',
                 '"x", "${1", "job", "(.*)"', '"x", "$name", "job", "(?P<name>a.i)"', '"x", "v", "job", "a(pi"', '"", "v", "job", ".*"']
        return self.rng.choice(fixed)

    def bucketed(self, depth):
        name = "lat_bucket" if self.chance(0.6) else "odd_bucket"
        if self.histograms and self.chance(0.6):
            name = self.pick("nh", "nh", "nhcb", "nhcb", "nh_bucket", '{__name__=~"nh|nh_bucket"}', "mix")
        roll = self.rng.random()
        if roll < 0.3:
            return Node("v", name)
        if roll < 0.6:
            return Node("v", f"{self.pick('rate', 'increase', 'irate', 'delta')}({name}[5m])")
        if roll < 0.85:
            return Node("v", self.pick("sum", "avg", "sum by (le)", "sum by (job, le)") + f" (rate({name}[5m]))")
        return self.vector(depth - 1)

    def grouping(self):
        return self.pick("", f" by ({self.labels()})", f" without ({self.labels()})", " by (__name__, job)", " by (job,)")

    def ranked(self):
        """Values of which few are equal: between equal ones, the order of series decides, which is chance upstream
        behind most operators."""
        roll, selector = self.rng.random(), self.vector(0)
        if "__name__" in str(selector):
            selector = Node("v", "temp")
        if roll < 0.6:
            return selector
        if roll < 0.8:
            window = self.range(0)
            if "__name__" in str(window):
                window = Node("r", "temp[5m]")
            return Node("v", self.pick("avg_over_time", "sum_over_time", "max_over_time", "rate") + "(", window, ")")
        return Node("v", self.pick("abs", "-", "sum by (job, instance)", "avg by (job)") + "(", selector, ")")

    def aggregate(self, depth):
        grouping, roll = self.grouping(), self.rng.random()
        if 0.6 <= roll < 0.82:
            op = self.pick("topk", "bottomk", "limitk") if self.new else self.pick("topk", "bottomk")
            v = self.vector(0) if op == "limitk" else self.ranked()
            k = Node("s", self.pick("1", "2", "3", "5", "0", "-1", "1.9")) if self.chance(0.85) else self.scalar(depth - 2)
            return self.grouped(op, grouping, k, ", ", v)
        if roll < 0.6 or (0.92 <= roll < 0.96 and not self.new):
            return self.grouped(self.rng.choice(AGGREGATES), grouping, self.vector(depth - 1))
        if roll >= 0.96:
            # Labels made of values show their last digit, which the libraries of mathematics do not agree about.
            v = self.pick(self.vector(0), Node("v", self.pick("abs", "ceil", "count by (job)", "sum by (job)") + "(", self.vector(0), ")"))
            return self.grouped("count_values", grouping, self.pick('"val"', '"job"', '"le"', '"bad name"'), ", ", v)
        v = self.vector(depth - 1)
        if roll < 0.92:
            q = Node("s", self.pick("0", "0.5", "0.9", "1", "2", "-0.1")) if self.chance(0.8) else self.scalar(depth - 2)
            return self.grouped("quantile", grouping, q, ", ", v)
        return self.grouped("limit_ratio", grouping, self.pick("0.5", "-0.3", "1", "1.5", "-1", "0", "0.13"), ", ", v)

    def grouped(self, op, grouping, *args):
        if self.chance(0.03):
            op = op.upper()
        if grouping and self.chance(0.2):
            return Node("v", op, "(", *args, ")", grouping)
        return Node("v", f"{op}{grouping} (", *args, ")")

    def binary(self, depth):
        arithmetic = ARITHMETIC + ["</", ">/"] if self.histograms and self.new else ARITHMETIC
        op = self.rng.choice(COMPARISONS + arithmetic * 2 + SETS * 3)
        is_set, is_comparison = op in SETS, op in COMPARISONS
        if is_set and self.chance(0.05):
            op = op.upper()
        if is_comparison and self.chance(0.4):
            op += " bool"
        left, roll = self.vector(depth - 1), self.rng.random()
        if op == "%" and re.search(r"exp|sinh|cosh|\^", str(left)):
            # What is left of a large number are its last digits.
            op = "-"
        if not is_set and roll < 0.35:
            sides = [left, self.scalar(depth - 1)]
            self.rng.shuffle(sides)
            return self.around(Node("v", sides[0], f" {op} ", sides[1]))
        matching = self.pick("", "", " on (job)", " on (job, instance)", " ignoring (path)", " ignoring (zone, path)", " on ()",
                             " ignoring ()", " on (job, instance, path)")
        grouped = matching and not is_set and self.chance(0.4)
        if grouped:
            matching += self.pick(" group_left", " group_right", " group_left (zone)", " group_right (path)", " group_left ()",
                                  " group_left (version, zone)", " group_right (instance)")
        if self.new and not is_set and self.chance(0.1):
            matching += self.pick(" fill(0)", " fill_left(1)", " fill_right(2)", " fill_left(1) fill_right(NaN)", " fill(-Inf)",
                                  " fill_right(3) fill_left(-1)", " fill (1m)")
        if grouped and self.chance(0.3):
            # What is grouped most: by a series that says more of an instance.
            sides = [left, Node("v", self.pick("target_info", "load", "sum by (job, instance) (temp)"))]
            self.rng.shuffle(sides)
            return self.around(Node("v", sides[0], f" {op}{matching} ", sides[1]))
        right = Node("v", str(left)) if self.chance(0.25) else self.vector(depth - 1)
        return self.around(Node("v", left, f" {op}{matching} ", right))

    # Queries.

    def broken(self, node):
        """A text that is mostly no expression, or not of the types it should have."""
        tokens = re.findall(r'"[^"]*"|[\w.]+|\s+|[^\w\s]', str(node))
        for _ in range(self.rng.randrange(1, 3)):
            at, roll = self.rng.randrange(len(tokens)), self.rng.random()
            if roll < 0.35:
                tokens[at] = ""
            elif roll < 0.7:
                tokens[at] += self.pick("(", ")", "[5m]", "{", "}", '"x"', " 1", " by", ",", " offset", "@", " bool", " on", "5m", "é",
                                        "'", "[5m:]", " and", "=", "=~", "!", "#", "\\", ":", "sum", "rate(", "Inf", "0x")
            else:
                other = self.rng.randrange(len(tokens))
                tokens[at], tokens[other] = tokens[other], tokens[at]
        return Node("v", "".join(tokens))

    def query(self):
        """An expression, and the parameters of an instant or a range query."""
        kind, depth = self.rng.random(), self.rng.choice([1, 2, 2, 3, 3, 4])
        node = self.scalar(depth) if kind < 0.05 else self.vector(depth)
        if 0.05 <= kind < 0.09 and self.new:
            node = self.broken(node)
        if 0.09 <= kind < 0.095:
            node = Node("v", self.pick('"text"', '"a\\n\\"b"', "'x'", "`raw`", '"\\u00e9"', *['("in brackets")'] * self.new))
        if 0.095 <= kind < 0.105:
            node = Node("v", node, self.pick(" # end", "\n#a comment\n", "\t"))
        at = START + self.rng.randrange(MINUTES * 60 + 300) + self.half
        more = {}
        if self.new and self.chance(0.1):
            more["lookback_delta"] = self.pick("30s", "10m", "90", "1m30s", "1s", "2h")
        if self.chance(0.5):
            if self.chance(0.06):
                node = self.range(depth)
            if self.new and self.chance(0.1):
                at += self.pick(0.25, 0.001, -0.5)
            return node, {"time": str(at), **more}
        step = self.rng.choice([7, 15, 60, 61, 300, 13.5, 3600, "1m30s", "2m"] if self.new else [7, 15, 60, 61, 300, "1m30s"])
        seconds = {"1m30s": 90, "2m": 120}.get(step, step)
        end = min(at + seconds * self.rng.randrange(0, 200), START + MINUTES * 60 + 900 + self.half)
        end += self.pick(0, 0, 3)
        return node, {"start": str(at), "end": str(max(at, end)), "step": str(step), **more}


class Coverage:
    """How often each word and operator of the language was asked for, and what came back."""

    WORDS = re.compile(r'"(?:[^"\\]|\\.)*"|\'[^\']*\'|`[^`]*`|#[^\n]*|[a-zA-Z_]\w*|</|>/|[<>=!]=|[-+*/%^<>@:]')
    HARD = set("+ - * / % ^ < > <= >= == != </ >/ @ : and or unless atan2 bool on ignoring group_left group_right by without offset "
               "fill fill_left fill_right anchored smoothed".split())

    def __init__(self, new, histograms):
        names = set("""scalar vector time pi absent absent_over_time clamp clamp_min clamp_max round timestamp sort sort_desc
            label_replace label_join quantile_over_time predict_linear histogram_quantile topk bottomk quantile
            count_values""".split())
        names |= set(RANGE_FUNCTIONS + MATH + PERIODIC + DATES + AGGREGATES) | self.HARD
        if new:
            names |= set(NEW_RANGE_FUNCTIONS) | set("""start end step range max_of min_of double_exponential_smoothing
                start_timestamp sort_by_label sort_by_label_desc info histogram_fraction histogram_quantiles limitk
                limit_ratio""".split())
        else:
            names -= set("fill fill_left fill_right anchored smoothed".split())
        if histograms:
            names |= set(HISTOGRAM_FUNCTIONS)
        else:
            names -= {"</", ">/"}
        self.names = names
        self.asked, self.answered, self.outcomes = collections.Counter(), collections.Counter(), collections.Counter()

    def count(self, text, params, ours, theirs):
        """`ours` and `theirs` are answers found equal."""
        outcome = "errors" if theirs["status"] == "error" else "answers"
        if outcome == "answers" and not theirs["data"]["result"]:
            outcome = "empty answers"
        self.outcomes[outcome] += 1
        if theirs["status"] == "error" and ours["error"] == theirs["error"]:
            self.outcomes["errors of the same text"] += 1
        if theirs.get("warnings") or theirs.get("infos"):
            self.outcomes["answers with annotations"] += 1
        self.outcomes["range queries" if "step" in params else "instant queries"] += 1
        self.outcomes["with lookback_delta"] += "lookback_delta" in params
        if '"histogram' in str(theirs.get("data", "")).replace("'", '"'):
            self.outcomes["answers with native histograms"] += 1
        words = {w.lower() for w in self.WORDS.findall(text)}
        for word in words & self.names:
            self.asked[word] += 1
            self.answered[word] += outcome == "answers"

    def __str__(self):
        lines = ["outcomes: " + ", ".join(f"{n} {kind}" for kind, n in self.outcomes.most_common())]
        cells = [f"{w} {self.asked[w]}/{self.answered[w]}" for w in sorted(self.names, key=lambda w: (self.answered[w], w))]
        lines.append(f"{sum(self.answered[w] > 0 for w in self.names)} of {len(self.names)} functions, operators and keywords "
                     "in answers that were not empty (asked/answered):")
        return "\n".join(lines + ["  " + ", ".join(cells[i:i + 9]) for i in range(0, len(cells), 9)])
