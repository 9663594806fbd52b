"""Random series and a writer of Prometheus' remote write protocol, for benches/promql_diff.py.

Everything follows from the random source that is given. Times are milliseconds, of `START` seconds and the
`MINUTES` after it. The standard library is enough.
"""
import collections
import math
import struct
import sys
import urllib.error
import urllib.request

START = 1_767_225_600  # 2026-01-01, seconds
MINUTES = 150
STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]


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


def spans_of(buckets):
    """Spans as messages, and the counts, one span per run of indexes."""
    spans, counts, last = [], [], None
    for i in sorted(buckets):
        if last is None or i != last + 1:
            spans.append([i if last is None else i - last - 1, 0])
        spans[-1][1] += 1
        counts.append(buckets[i])
        last = i
    return [varint(1 << 3) + zigzag(offset) + field_int(2, length) for offset, length in spans], counts


class Histogram:
    """A native histogram, of floats or `whole` numbers; `custom` are the bounds of custom buckets (schema -53)."""

    def __init__(self, schema, positive, negative, total, hint, custom=(), zero=(0.0, 0.0), whole=False):
        self.schema, self.positive, self.negative, self.sum, self.hint = schema, positive, negative, total, hint
        self.custom, self.zero, self.whole = custom, zero, whole

    def encode(self, t_ms):
        threshold, zero = self.zero
        up, up_counts = spans_of(self.positive)
        down, down_counts = spans_of(self.negative)
        count = sum(up_counts) + sum(down_counts) + zero
        out = field_int(1, int(count)) if self.whole else field_double(2, count)
        out += field_double(3, self.sum) + varint(4 << 3) + zigzag(self.schema) + field_double(5, threshold)
        out += field_int(6, int(zero)) if self.whole else field_double(7, zero)
        for spans, counts, number in ((down, down_counts, 8), (up, up_counts, 11)):
            out += b"".join(field_bytes(number, s) for s in spans)
            if self.whole:
                deltas = [int(c) - int(p) for p, c in zip([0, *counts], counts)]
                out += field_bytes(number + 1, b"".join(zigzag(d) for d in deltas))
            else:
                out += field_bytes(number + 2, b"".join(struct.pack("<d", c) for c in counts))
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
    """Of one series: resets, and sometimes another schema, other bounds, another zero bucket from some time on."""
    choices = [(1.0, 2.0, 5.0), (1.0, 5.0, 10.0), (-1.0, 0.0, 1.0)]
    schema, bounds = (-53, rng.choice(choices)) if custom else (rng.choice([0, 1, 3]), ())
    changing, signed, whole = rng.random() < 0.3, rng.random() < 0.4 and not custom, rng.random() < 0.4
    gauge_hint, zero = rng.random() < 0.3, (0.0, 0.0) if custom else (0.001, 1.0)
    up, down, total, lowest = collections.Counter(), collections.Counter(), 0.0, -3
    for t in times:
        roll = rng.random()
        if roll < 0.03:
            up, down, total = collections.Counter(), collections.Counter(), 0.0
        if changing and roll > 0.97:
            up, down, total = collections.Counter(), collections.Counter(), 0.0
            schema, bounds = (-53, rng.choice(choices)) if custom else (rng.choice([-1, 0, 1, 2, 4]), ())
            if not custom:
                zero = (rng.choice([0.0, 0.001, 0.5, 2.0]), float(rng.randrange(0, 3)))
                # Nothing below the edge of the zero bucket.
                lowest = max(-3, math.ceil(math.log2(zero[0] or 1e-9) * 2**schema) + 1)
        for _ in range(rng.randrange(0, 4)):
            side = down if signed and rng.random() < 0.4 else up
            observed = rng.randrange(1, 5)
            side[rng.randrange(0, 4) if custom else lowest + rng.randrange(0, 9)] += observed
            total += (-1 if side is down else 1) * observed * rng.random() * 10
        hint = 3 if gauge_hint else 0
        yield t, Histogram(schema, dict(up), dict(down), total, hint, bounds, zero, whole)


def scrape_times(rng, shift_ms):
    """Times of samples: regular with jitter, gaps, a life that may begin late and end early."""
    every = rng.choice([15, 30, 60])
    begin = rng.choice([0, 0, 0, rng.randrange(MINUTES * 60)])
    end = rng.choice([MINUTES * 60] * 3 + [rng.randrange(begin, MINUTES * 60 + 1)])
    jitter, t, times = rng.choice([0, 0, 1.5]), begin, []
    while t < end:
        if rng.random() < 0.01:
            t += rng.randrange(30, 900)
        at = round((START + t + rng.random() * jitter) * 1000) + shift_ms
        times.append(at + 1 if shift_ms and at % 500 == 0 else at)
        t += every
    return times, end < MINUTES * 60


class Maker:
    """Series as (labels, [(ms, float or Histogram)]) in `out`."""

    def __init__(self, rng, shift_ms):
        self.rng, self.shift_ms, self.out = rng, shift_ms, []

    def add(self, make, **labels):
        times, ends = scrape_times(self.rng, self.shift_ms)
        samples = list(make(self.rng, times))
        if ends and samples and self.rng.random() < 0.7:
            last, value = samples[-1]
            if not isinstance(value, Histogram):
                samples.append((last + 15_000, STALE))
            else:
                samples.append((last + 15_000, Histogram(0, {}, {}, STALE, 0, whole=value.whole)))
        if samples:
            self.out.append(({("__name__" if k == "name" else k): v for k, v in labels.items()}, samples))

    def classic(self, name, labels, bounds, odd):
        """Buckets of a classic histogram; an `odd` one is not monotonic here and there, and lacks buckets."""
        rng, times = self.rng, scrape_times(self.rng, self.shift_ms)[0]
        rows, total = {le: [] for le in bounds}, collections.Counter()
        for t in times:
            seen = 0
            for le in rows:
                total[le] += rng.randrange(0, 4)
                seen += total[le]
                noise = rng.choice([-2, 1e-9, math.nan]) if odd and rng.random() < 0.02 else 0
                rows[le].append((t, float(seen + noise)))
        for le, samples in rows.items():
            keep = rng.random() < 0.9 if odd or le != "+Inf" else True
            if samples and keep:
                self.out.append(({"__name__": name, **labels, "le": le}, samples))


def ones(_, times):
    return ((t, 1.0) for t in times)


def make_data(rng, histograms, names_of_any_text=True, shift_ms=0):
    maker = Maker(rng, shift_ms)
    for job in ["api", "db"]:
        for instance in ["0", "1", "2"]:
            for path in ["/a", "/b"]:
                if rng.random() < 0.85:
                    maker.add(counter, name="reqs_total", job=job, instance=instance, path=path)
                if rng.random() < 0.6:
                    maker.add(counter, name="errs_total", job=job, instance=instance, path=path)
            maker.add(gauge, name="temp", job=job, instance=instance)
            maker.add(gauge, name="load", job=job, instance=instance, zone=rng.choice(["x", "y"]))
            maker.add(ones, name="target_info", job=job, instance=instance, version=rng.choice(["1.0", "1.1"]))
            if rng.random() < 0.4:
                maker.add(ones, name="build_info", job=job, instance=instance, rev="r1")
        maker.add(gauge, name="odd", job=job, text=rng.choice(["a\"b\\c", "line\nbreak", "<é>", "$1"]))
    if names_of_any_text:
        maker.add(gauge, **{"name": "odd.name", "job": "api", "a.label": "x y"})
    for job in ["api", "db"]:
        maker.classic("lat_bucket", {"job": job}, ["0.1", "0.5", "1", "5", "+Inf"], odd=False)
        maker.classic("odd_bucket", {"job": job}, ["-1", "0", "1", "1.0", "1e1", "Inf", "+Inf", "low"], odd=True)
    if histograms:
        for job in ["api", "db"]:
            for instance in ["0", "1"]:
                maker.add(lambda r, ts: native(r, ts, False), name="nh", job=job, instance=instance)
                maker.add(lambda r, ts: native(r, ts, True), name="nhcb", job=job, instance=instance)

                def mixed(r, ts):
                    half = len(ts) // 2
                    yield from native(r, ts[:half], False)
                    yield from gauge(r, ts[half:])
                maker.add(mixed, name="mix", job=job, instance=instance)
            maker.classic("nh_bucket", {"job": job, "instance": "0"}, ["1", "5", "+Inf"], odd=False)
    return maker.out


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
