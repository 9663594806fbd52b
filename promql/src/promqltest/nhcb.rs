//! `load_with_nhcb`: classic histograms are also loaded as native ones with custom buckets.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/util/convertnhcb/convertnhcb.go>

use std::collections::BTreeMap;

use promontory_tsdb::histogram::{CUSTOM_SCHEMA, FloatHistogram, Span};
use promontory_tsdb::labels::METRIC_NAME;
use promontory_tsdb::memory::MemoryStorage;
use promontory_tsdb::{Labels, TimestampMs};

use super::script::{Load, LoadSeries};
use crate::parser::series::SequenceValue;

/// What is known of a classic histogram at one time.
#[derive(Debug, Default)]
struct Classic {
    /// Upper bound and cumulative count.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
}

/// Loads the classic histograms of `load` as native ones.
pub(super) fn load(load: &Load, storage: &MemoryStorage) -> Result<(), String> {
    let mut all: BTreeMap<Labels, BTreeMap<TimestampMs, Classic>> = BTreeMap::new();
    for LoadSeries { labels, values, .. } in &load.series {
        let name = labels.get(METRIC_NAME).unwrap_or_default();
        let known = ["_bucket", "_sum", "_count"];
        let Some((base, suffix)) = known.iter().find_map(|s| Some((name.strip_suffix(s)?, *s))) else {
            continue;
        };
        let le = labels.get("le").and_then(|le| le.parse::<f64>().ok()).filter(|le| !le.is_nan());
        if suffix == "_bucket" && le.is_none() {
            continue;
        }
        let mut builder = labels.to_builder();
        builder.set(METRIC_NAME, base);
        builder.remove("le");
        let series = all.entry(builder.build()).or_default();
        for (i, value) in values.iter().enumerate() {
            let SequenceValue::Float(v) = value else { continue };
            let classic = series.entry(i as i64 * load.gap_ms).or_default();
            match (suffix, le) {
                ("_bucket", Some(le)) => classic.buckets.push((le, *v)),
                ("_count", _) => classic.count = Some(*v),
                _ => classic.sum = *v,
            }
        }
    }
    for (labels, times) in all {
        for (t, classic) in times {
            let h = classic.convert().map_err(|e| format!("{labels} @{t}: {e}"))?;
            storage.append_histogram(&labels, t, 0, &h).map_err(|e| format!("{labels} @{t}: {e}"))?;
        }
    }
    Ok(())
}

impl Classic {
    fn convert(mut self) -> Result<FloatHistogram, String> {
        self.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        self.buckets.dedup_by(|next, kept| next.0.to_bits() == kept.0.to_bits());
        if self.buckets.windows(2).any(|pair| pair[1].1 < pair[0].1) {
            return Err("count is not cumulative".to_owned());
        }
        let count = self.count.or(self.buckets.last().map(|(_, n)| *n)).unwrap_or_default();
        if self.buckets.last().is_none_or(|(le, _)| *le != f64::INFINITY) {
            self.buckets.push((f64::INFINITY, count));
        }
        let last = self.buckets.last().map_or(0.0, |(_, n)| *n);
        if last.to_bits() != count.to_bits() {
            return Err(format!("count mismatch: count={count} but the last bucket has {last}"));
        }
        let mut before = 0.0;
        let mut counts = Vec::with_capacity(self.buckets.len());
        for (_, n) in &self.buckets {
            counts.push(n - before);
            before = *n;
        }
        let mut h = FloatHistogram {
            schema: CUSTOM_SCHEMA,
            count,
            sum: self.sum,
            positive_spans: vec![Span { offset: 0, length: self.buckets.len() as u32 }],
            positive_buckets: counts,
            custom_values: self.buckets.iter().map(|(le, _)| *le).filter(|le| le.is_finite()).collect(),
            ..FloatHistogram::default()
        };
        h.compact(0);
        Ok(h)
    }
}
