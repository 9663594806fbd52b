//! `Buckets`: `histogram_quantile` and `histogram_fraction` over classic buckets and native histograms.
//!
//! Source: <https://github.com/prometheus/prometheus/blob/v3.14.0/promql/quantile.go>
//! (`BucketQuantile`, `BucketFraction`). Differences: none intended.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

use datafusion::error::DataFusionError;
use promontory_tsdb::labels::{METRIC_NAME, go_quote, put_pair};

use super::format::{go_2g, go_f, go_g, rfc3339};
use super::key::{NAME_DROPPED, get, retain_into};
use super::notice::bad_quantile;
use super::rows::{Merger, Row, TileWriter, lanes, same_labelset};
use super::{Evaluate, ScalarArg, Scope};
use crate::context::Pace;
use crate::histogram::stats;
use crate::notes::Notes;

/// A function of each native histogram, and of the classic buckets that share all labels but `le`,
/// step by step. Where both have the same labels neither counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Buckets {
    /// Which one.
    pub function: BucketFunction,
    /// ` (line:col)` of the vector, for annotations.
    pub position: String,
    /// Names are marked and not dropped, and told in annotations.
    pub delayed_names: bool,
}

/// What a [`Buckets`] computes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BucketFunction {
    /// `histogram_quantile(φ, v)`; with the position of φ.
    Quantile(ScalarArg, String),
    /// `histogram_quantiles(v, "label", φ…)`; with the positions of the φ.
    Quantiles(String, Vec<(ScalarArg, String)>),
    /// `histogram_fraction(lower, upper, v)`.
    Fraction(ScalarArg, ScalarArg),
}

impl fmt::Display for Buckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.function {
            BucketFunction::Quantile(q, _) => write!(f, "quantile {q}"),
            BucketFunction::Quantiles(label, qs) => {
                write!(f, "quantiles into {label}:")?;
                qs.iter().try_for_each(|(q, _)| write!(f, " {q}"))
            }
            BucketFunction::Fraction(lower, upper) => write!(f, "fraction {lower}..{upper}"),
        }
    }
}

/// A series of native histograms.
#[derive(Debug)]
struct Native<'a> {
    row: &'a Row<'a>,
    /// Steps that count.
    keep: u128,
}

/// A cumulative bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bucket {
    upper: f64,
    count: f64,
}

impl Evaluate for Buckets {
    fn name(&self) -> &'static str {
        "Buckets"
    }

    fn run(
        &self,
        scope: Scope<'_>,
        vectors: &[Vec<Row<'_>>],
        out: &mut TileWriter<'_>,
    ) -> Result<(), DataFusionError> {
        self.check_quantiles(scope);
        let mut pace = Pace::new(scope.context);
        let mut groups: HashMap<_, Vec<(f64, &Row<'_>)>> = HashMap::new();
        let mut natives: BTreeMap<_, Native<'_>> = BTreeMap::new();
        for row in &vectors[0] {
            pace.step(1)?;
            if !row.histograms.is_empty() {
                let mut key = Vec::with_capacity(row.key.len());
                retain_into(row.key, &mut key, |n| n != NAME_DROPPED.as_bytes());
                natives.insert((row.tile, key), Native { row, keep: u128::MAX });
            }
            if row.mask == 0 {
                continue;
            }
            let Some(upper) = self.upper_bound(scope, row) else { continue };
            let mut key = Vec::with_capacity(row.key.len());
            retain_into(row.key, &mut key, |n| n != b"le" && n != NAME_DROPPED.as_bytes());
            groups.entry((row.tile, key)).or_default().push((upper, row));
        }
        let mut merger = Merger::new(out.width(), scope.context);
        let mut fixed = Fixes::default();
        let mut groups: Vec<_> = groups.into_iter().collect();
        groups.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for ((tile, key), buckets) in &groups {
            merger.fits()?;
            let native = natives.get_mut(&(*tile, key.clone()));
            let twice = native.map_or(0, |native| self.both(scope, key, buckets, native));
            self.group(scope, *tile, key, (buckets, twice), &mut fixed, &mut pace, &mut merger)?;
        }
        for ((tile, key), native) in &natives {
            merger.fits()?;
            self.native(scope, *tile, key, native, &mut pace, &mut merger)?;
        }
        fixed.tell(scope, &self.position);
        merger.write(out)?;
        Ok(())
    }
}

impl Buckets {
    fn check_quantiles(&self, scope: Scope<'_>) {
        let one;
        let quantiles = match &self.function {
            BucketFunction::Quantile(q, position) => {
                one = [(*q, position.clone())];
                &one[..]
            }
            BucketFunction::Quantiles(_, quantiles) => quantiles,
            BucketFunction::Fraction(..) => return,
        };
        for (q, position) in quantiles {
            let q = q.resolve(scope.scalars);
            for text in (0..scope.grid.steps).filter_map(|step| bad_quantile(q.at(step))) {
                scope.context.warn(&format!("{text}{position}"));
            }
        }
    }

    fn upper_bound(&self, scope: Scope<'_>, row: &Row<'_>) -> Option<f64> {
        let le = get(row.key, "le").and_then(|v| std::str::from_utf8(v).ok()).unwrap_or_default();
        let upper = parse_go_float(le);
        if upper.is_none() {
            let mut text =
                format!("bucket label \"le\" is missing or has a malformed value of {}", go_quote(le));
            if self.delayed_names {
                text.push_str(&for_metric(row.key));
            }
            scope.context.warn(&format!("{text}{}", self.position));
        }
        upper
    }

    #[expect(clippy::too_many_arguments, reason = "one call, in a loop that owns the buffers")]
    fn group(
        &self,
        scope: Scope<'_>,
        tile: u32,
        key: &[u8],
        (rows, except): (&[(f64, &Row<'_>)], u128),
        fixed: &mut Fixes,
        pace: &mut Pace<'_>,
        merger: &mut Merger<'_>,
    ) -> Result<(), DataFusionError> {
        let mut rows = rows.to_vec();
        rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        let any = rows.iter().fold(0, |mask, (_, row)| mask | row.mask) & !except;
        let width = rows[0].1.values.len();
        let outputs = self.outputs();
        let mut buckets = Vec::new();
        let mut values = vec![0.0; width];
        // What is wrong with the buckets of a step is told once, not for each quantile.
        let mut told = 0u128;
        for (label, argument) in outputs {
            let argument = argument.resolve(scope.scalars);
            for lane in lanes(any) {
                pace.step(rows.len())?;
                let step = tile as usize * width + lane;
                buckets.clear();
                buckets.extend(
                    rows.iter()
                        .filter(|(_, row)| row.mask >> lane & 1 == 1)
                        .map(|(upper, row)| Bucket { upper: *upper, count: row.values[lane] }),
                );
                values[lane] = match &self.function {
                    BucketFunction::Fraction(_, upper) => {
                        fraction(argument.at(step), upper.resolve(scope.scalars).at(step), &mut buckets)
                    }
                    _ => {
                        let (value, fix) = quantile(argument.at(step), &mut buckets);
                        if let Some(fix) = fix.filter(|_| told >> lane & 1 == 0) {
                            told |= 1 << lane;
                            let name = if self.delayed_names { for_metric(key) } else { String::new() };
                            fixed.add(name, scope.grid.at(step), fix);
                        }
                        value
                    }
                };
                // Only a quantile that is told in a label can change from step to step.
                if let Some(label) = label {
                    let out_key = self.out_key(key, Some((label, argument.at(step))));
                    if merger.add(&out_key, tile, 1 << lane, &values) != 0 {
                        return Err(same_labelset().into());
                    }
                }
            }
            if label.is_none() && merger.add(&self.out_key(key, None), tile, any, &values) != 0 {
                return Err(same_labelset().into());
            }
        }
        Ok(())
    }

    /// Label and argument of each output series.
    fn outputs(&self) -> Vec<(Option<&str>, ScalarArg)> {
        match &self.function {
            BucketFunction::Quantiles(label, quantiles) => {
                quantiles.iter().map(|(q, _)| (Some(label.as_str()), *q)).collect()
            }
            BucketFunction::Quantile(q, _) => vec![(None, *q)],
            BucketFunction::Fraction(lower, _) => vec![(None, *lower)],
        }
    }

    /// Steps at which there are classic buckets and a native histogram: neither counts.
    fn both(&self, scope: Scope<'_>, key: &[u8], rows: &[(f64, &Row<'_>)], native: &mut Native<'_>) -> u128 {
        let classic = rows.iter().fold(0, |mask, (_, row)| mask | row.mask);
        let both = classic & native.row.histograms.mask();
        if both != 0 {
            self.notes(scope, key).mixed_classic();
            native.keep &= !both;
        }
        both
    }

    fn notes<'a>(&'a self, scope: Scope<'a>, key: &'a [u8]) -> Notes<'a> {
        let name = get(key, METRIC_NAME).filter(|_| self.delayed_names);
        let name = name.and_then(|n| std::str::from_utf8(n).ok()).unwrap_or_default();
        Notes { context: scope.context, position: &self.position, name }
    }

    /// The function of the histograms of one series.
    fn native(
        &self,
        scope: Scope<'_>,
        tile: u32,
        key: &[u8],
        native: &Native<'_>,
        pace: &mut Pace<'_>,
        merger: &mut Merger<'_>,
    ) -> Result<(), DataFusionError> {
        let notes = self.notes(scope, key);
        let plain = self.out_key(key, None);
        let mut values = vec![0.0; native.row.values.len()];
        for (lane, h) in native.row.histograms.iter().filter(|(lane, _)| native.keep >> lane & 1 == 1) {
            let step = tile as usize * values.len() + lane;
            for (label, argument) in self.outputs() {
                pace.step(1 + h.positive_buckets.len() + h.negative_buckets.len())?;
                let argument = argument.resolve(scope.scalars).at(step);
                let (value, note) = match &self.function {
                    BucketFunction::Fraction(_, upper) => {
                        stats::fraction(argument, upper.resolve(scope.scalars).at(step), &h)
                    }
                    _ => stats::quantile(argument, &h),
                };
                if let Some(note) = note {
                    notes.nan_observations(note);
                }
                values[lane] = value;
                let key = match label {
                    Some(label) => Cow::Owned(self.out_key(key, Some((label, argument)))),
                    None => Cow::Borrowed(plain.as_slice()),
                };
                if merger.add(&key, tile, 1 << lane, &values) != 0 {
                    return Err(same_labelset().into());
                }
            }
        }
        Ok(())
    }

    fn out_key(&self, key: &[u8], quantile: Option<(&str, f64)>) -> Vec<u8> {
        let mut out = Vec::with_capacity(key.len() + 16);
        retain_into(key, &mut out, |n| self.delayed_names || !crate::keys::is_metadata_label(n));
        if let Some((label, q)) = quantile {
            let mut builder = super::labels(&out).to_builder();
            builder.set(label, &openmetrics_float(q));
            out = builder.build().as_bytes().to_vec();
        }
        if self.delayed_names {
            put_pair(&mut out, NAME_DROPPED, "1");
        }
        out
    }
}

/// `1` prints as `1.0`, so that the label looks like a float; a zero has no sign.
fn openmetrics_float(v: f64) -> String {
    let v = if v == 0.0 { 0.0 } else { v };
    let text = if v.is_finite() { go_g(v) } else { go_f(v) };
    if v.is_finite() && !text.contains(['e', '.']) { format!("{text}.0") } else { text }
}

fn for_metric(key: &[u8]) -> String {
    match get(key, METRIC_NAME).and_then(|n| std::str::from_utf8(n).ok()) {
        Some(name) if !name.is_empty() => format!(" for metric name {}", go_quote(name)),
        _ => String::new(),
    }
}

/// The `q`-quantile of classic buckets of one histogram, `(upper bound, cumulative count)` in any order, as
/// `histogram_quantile` computes it. NaN without a bucket that ends at +Inf.
pub fn classic_quantile(q: f64, buckets: &[(f64, f64)]) -> f64 {
    let mut buckets: Vec<_> = buckets.iter().map(|&(upper, count)| Bucket { upper, count }).collect();
    buckets.sort_by(|a, b| a.upper.total_cmp(&b.upper));
    quantile(q, &mut buckets).0
}

/// The value of a label `le`, as Go's `strconv.ParseFloat` reads it as far as bucket bounds go.
pub fn parse_go_float(text: &str) -> Option<f64> {
    let plain = text.trim_start_matches(['+', '-']);
    let known = plain.eq_ignore_ascii_case("inf")
        || plain.eq_ignore_ascii_case("infinity")
        || plain.eq_ignore_ascii_case("nan")
        || plain.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if known { text.parse().ok() } else { None }
}

/// What had to be changed to make bucket counts grow.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Fix {
    min_bucket: f64,
    max_bucket: f64,
    max_difference: f64,
}

/// All fixes of a query, by metric.
#[derive(Debug, Default)]
struct Fixes(BTreeMap<String, (Fix, i64, i64, usize)>);

impl Fixes {
    fn add(&mut self, name: String, t: i64, fix: Fix) {
        let (all, first, last, count) = self.0.entry(name).or_insert((fix, t, t, 0));
        all.min_bucket = all.min_bucket.min(fix.min_bucket);
        all.max_bucket = all.max_bucket.max(fix.max_bucket);
        all.max_difference = all.max_difference.max(fix.max_difference);
        *first = t.min(*first);
        *last = t.max(*last);
        *count += 1;
    }

    fn tell(self, scope: Scope<'_>, position: &str) {
        for (name, (fix, first, last, count)) in self.0 {
            scope.context.info(&format!(
                "input to histogram_quantile needed to be fixed for monotonicity (see \
                 https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile){name}, \
                 from buckets {} to {}, with a max diff of {}, over {count} samples from {} to {}{position}",
                go_g(fix.min_bucket),
                go_g(fix.max_bucket),
                go_2g(fix.max_difference),
                rfc3339(first),
                rfc3339(last),
            ));
        }
    }
}

/// Adds up buckets with equal bounds; they come sorted.
#[expect(clippy::float_cmp, reason = "bounds are parsed from labels, equal text or not")]
fn coalesce(buckets: &mut Vec<Bucket>) {
    buckets.dedup_by(|next, kept| {
        let same = next.upper == kept.upper;
        if same {
            kept.count += next.count;
        }
        same
    });
}

/// Makes counts grow with bounds. Differences too small to be real are ignored without a word.
#[expect(clippy::float_cmp, reason = "equal counts need no correction")]
fn make_monotonic(buckets: &mut [Bucket]) -> Option<Fix> {
    let mut fix = None::<Fix>;
    let mut previous = buckets[0].count;
    for bucket in &mut buckets[1..] {
        let current = bucket.count;
        if current == previous {
            continue;
        }
        if almost_equal(previous, current, 1e-12) {
            bucket.count = previous;
            continue;
        }
        if current < previous {
            bucket.count = previous;
            let fix = fix.get_or_insert(Fix {
                min_bucket: f64::INFINITY,
                max_bucket: f64::NEG_INFINITY,
                max_difference: 0.0,
            });
            fix.min_bucket = fix.min_bucket.min(bucket.upper);
            fix.max_bucket = fix.max_bucket.max(bucket.upper);
            fix.max_difference = fix.max_difference.max(previous - current);
            continue;
        }
        previous = current;
    }
    fix
}

/// Upstream's `almost.Equal`.
#[expect(clippy::float_cmp, reason = "the exact case of an approximate comparison")]
fn almost_equal(a: f64, b: f64, epsilon: f64) -> bool {
    if a.is_nan() && b.is_nan() || a == b {
        return true;
    }
    let sum = a.abs() + b.abs();
    let difference = (a - b).abs();
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < epsilon * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < epsilon
}

/// The quantile by linear interpolation. `buckets` come sorted by bound and are changed.
fn quantile(q: f64, buckets: &mut Vec<Bucket>) -> (f64, Option<Fix>) {
    if q.is_nan() {
        return (f64::NAN, None);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if buckets.last().is_none_or(|b| b.upper != f64::INFINITY) {
        return (f64::NAN, None);
    }
    coalesce(buckets);
    let fix = make_monotonic(buckets);
    let last = buckets.len() - 1;
    let observations = buckets[last].count;
    if buckets.len() < 2 || observations == 0.0 {
        return (f64::NAN, fix);
    }
    let mut rank = q * observations;
    let b = partition(&buckets[..last], |bucket| bucket.count >= rank);
    if b == last {
        return (buckets[last - 1].upper, fix);
    }
    if b == 0 && buckets[0].upper <= 0.0 {
        return (buckets[0].upper, fix);
    }
    let (mut start, mut count) = (0.0, buckets[b].count);
    if b > 0 {
        start = buckets[b - 1].upper;
        count -= buckets[b - 1].count;
        rank -= buckets[b - 1].count;
    }
    (start + (buckets[b].upper - start) * (rank / count), fix)
}

/// Go's `sort.Search`: where `f` begins to hold.
fn partition(buckets: &[Bucket], f: impl Fn(&Bucket) -> bool) -> usize {
    buckets.partition_point(|b| !f(b))
}

/// The part of observations in `(lower, upper]` by linear interpolation. `buckets` come sorted.
fn fraction(lower: f64, upper: f64, buckets: &mut Vec<Bucket>) -> f64 {
    if buckets.last().is_none_or(|b| b.upper != f64::INFINITY) {
        return f64::NAN;
    }
    coalesce(buckets);
    let count = buckets[buckets.len() - 1].count;
    if count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let mut rank = 0.0;
    let (mut lower_rank, mut upper_rank) = (None, None);
    let mut bound = if buckets[0].upper <= 0.0 { f64::NEG_INFINITY } else { 0.0 };
    for bucket in buckets.iter() {
        let interpolate = |v: f64| {
            if bound == f64::NEG_INFINITY {
                bucket.count
            } else {
                rank + (bucket.count - rank) * (v - bound) / (bucket.upper - bound)
            }
        };
        for (wanted, found) in [(lower, &mut lower_rank), (upper, &mut upper_rank)] {
            if found.is_none() && bound >= wanted {
                *found = Some(rank);
            }
        }
        if lower_rank.is_some() && upper_rank.is_some() {
            break;
        }
        for (wanted, found) in [(lower, &mut lower_rank), (upper, &mut upper_rank)] {
            if found.is_none() && bound < wanted && bucket.upper > wanted {
                *found = Some(interpolate(wanted));
            }
        }
        if lower_rank.is_some() && upper_rank.is_some() {
            break;
        }
        rank = bucket.count;
        bound = bucket.upper;
    }
    // Counts that shrink may lead beyond the total.
    let capped = |rank: Option<f64>| rank.map_or(count, |r| if r > count { count } else { r });
    let (lower_rank, upper_rank) = (capped(lower_rank), capped(upper_rank));
    (upper_rank - lower_rank) / count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(pairs: &[(f64, f64)]) -> Vec<Bucket> {
        pairs.iter().map(|(upper, count)| Bucket { upper: *upper, count: *count }).collect()
    }

    #[test]
    fn quantile_interpolates_within_the_bucket() {
        let all = [(1.0, 1.0), (2.0, 3.0), (f64::INFINITY, 4.0)];
        assert_eq!(quantile(0.5, &mut buckets(&all)).0, 1.5);
        assert_eq!(quantile(1.0, &mut buckets(&all)).0, 2.0);
        assert!(quantile(0.5, &mut buckets(&all[..2])).0.is_nan(), "no +Inf bucket");
    }

    #[test]
    fn quantile_reports_counts_that_shrink() {
        let (_, fix) = quantile(0.5, &mut buckets(&[(1.0, 3.0), (2.0, 1.0), (f64::INFINITY, 4.0)]));
        assert_eq!(fix, Some(Fix { min_bucket: 2.0, max_bucket: 2.0, max_difference: 2.0 }));
    }

    #[test]
    fn fraction_is_the_share_between_two_bounds() {
        let all = [(1.0, 1.0), (2.0, 3.0), (f64::INFINITY, 4.0)];
        assert_eq!(fraction(0.0, 2.0, &mut buckets(&all)), 0.75);
        assert_eq!(fraction(0.5, 1.0, &mut buckets(&all)), 0.125);
        let shrinking = [(1.0, 6.0), (2.0, 3.0), (f64::INFINITY, 4.0)];
        assert_eq!(fraction(0.0, 1.0, &mut buckets(&shrinking)), 1.0, "no more than all");
        assert!(fraction(0.0, 1.0, &mut buckets(&[(1.0, f64::NAN), (f64::INFINITY, 4.0)])).is_nan());
    }
}
