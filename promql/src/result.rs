//! From tiles and raw samples to [`QueryValue`].

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use promontory_tsdb::{Labels, Queryable, SelectHints, TimestampMs};

use crate::context::{HeldBytes, QueryContext};
use crate::error::QueryError;
use crate::histogram::weight;
use crate::kernels::range::extended;
use crate::kernels::{Live, Samples};
use crate::operators::final_labels;
use crate::operators::rows::{Held, lanes, same_labelset};
use crate::params::Grid;
use crate::parser::RangeExtension;
use crate::planner::RawSelector;
use crate::value::{InstantSample, QueryValue, RangeSeries, SampleValue};

/// Reads all of `stream`.
pub(crate) async fn collect(
    mut stream: SendableRecordBatchStream,
    context: &Arc<QueryContext>,
) -> Result<Held, QueryError> {
    let mut held = Held::new(context);
    loop {
        // Local data never waits: others, and the clock, get their turn here.
        tokio::task::consume_budget().await;
        let Some(batch) = stream.next().await else { return Ok(held) };
        context.check()?;
        held.push(batch.map_err(QueryError::from_datafusion)?)?;
    }
}

/// A scalar on one step.
pub(crate) fn scalar(held: &Held, grid: &Grid) -> Result<QueryValue, QueryError> {
    let rows = held.rows().map_err(QueryError::from_datafusion)?;
    let value = rows.first().filter(|row| row.mask & 1 == 1).map_or(f64::NAN, |row| row.values[0]);
    Ok(QueryValue::Scalar(grid.start, value))
}

/// A scalar that is the same at each step, over a range: a series without labels.
pub(crate) fn constant_matrix(value: f64, grid: &Grid) -> QueryValue {
    let floats = (0..grid.steps).map(|i| (grid.at(i), value)).collect();
    QueryValue::Matrix(vec![RangeSeries { floats, ..RangeSeries::default() }])
}

/// A vector on one step: in label order, unless rows are `ordered`.
pub(crate) fn vector(held: &Held, grid: &Grid, ordered: bool) -> Result<QueryValue, QueryError> {
    let rows = held.rows().map_err(QueryError::from_datafusion)?;
    let mut bytes = HeldBytes::new(held.context().as_ref());
    let mut elements: Vec<(Labels, SampleValue)> = Vec::with_capacity(rows.len());
    for row in &rows {
        let value = if row.mask & 1 == 1 {
            SampleValue::Float(row.values[0])
        } else {
            match row.histograms.get(0) {
                Some(histogram) => SampleValue::Histogram(Arc::new(histogram)),
                None => continue,
            }
        };
        bytes.add(row.key.len() + size_of::<(Labels, SampleValue)>() + 16 * row.histograms.weight())?;
        elements.push((final_labels(row.key), value));
    }
    let mut sorted: Vec<&Labels> = elements.iter().map(|(labels, _)| labels).collect();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(same_labelset());
    }
    if !ordered {
        elements.sort_by(|a, b| a.0.cmp(&b.0));
    }
    let sample = |(labels, value)| InstantSample { labels, timestamp: grid.start, value };
    Ok(QueryValue::Vector(elements.into_iter().map(sample).collect()))
}

/// A vector over a range: series in label order.
pub(crate) fn matrix(held: &Held, grid: &Grid) -> Result<QueryValue, QueryError> {
    let rows = held.rows().map_err(QueryError::from_datafusion)?;
    // In the order of their first row, as rows mostly come in label order.
    let mut by_key: Vec<(&[u8], Vec<usize>)> = Vec::new();
    let mut numbers: HashMap<&[u8], usize> = HashMap::new();
    let mut bytes = HeldBytes::new(held.context().as_ref());
    for (i, row) in rows.iter().enumerate() {
        let number = *numbers.entry(row.key).or_insert(by_key.len());
        if number == by_key.len() {
            by_key.push((row.key, Vec::new()));
        }
        by_key[number].1.push(i);
        let samples = row.mask.count_ones() as usize + row.histograms.weight();
        let key = if by_key[number].1.len() == 1 { row.key.len() + size_of::<RangeSeries>() } else { 0 };
        bytes.add(16 * samples + key)?;
    }
    let mut series: Vec<RangeSeries> = by_key
        .into_iter()
        .map(|(key, mut parts)| {
            parts.sort_unstable_by_key(|i| rows[*i].tile);
            let count = parts.iter().map(|i| rows[*i].mask.count_ones() as usize).sum();
            let mut floats = Vec::with_capacity(count);
            let mut histograms = Vec::new();
            for row in parts.into_iter().map(|i| &rows[i]) {
                let first = row.tile as usize * grid.tile_steps;
                let run = row.mask.trailing_zeros() as usize..128 - row.mask.leading_zeros() as usize;
                if !run.is_empty() && run.len() == row.mask.count_ones() as usize {
                    let points = row.values[run.clone()].iter().zip(run);
                    floats.extend(points.map(|(v, lane)| (grid.at(first + lane), *v)));
                } else {
                    floats.extend(lanes(row.mask).map(|lane| (grid.at(first + lane), row.values[lane])));
                }
                histograms.extend(row.histograms.iter().map(|(lane, h)| (grid.at(first + lane), h)));
            }
            RangeSeries { labels: final_labels(key), floats, histograms }
        })
        .collect();
    // A stable sort sees runs that are in order already.
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    merge_equal(series).map(QueryValue::Matrix)
}

/// Series that share their labels once names are gone become one, unless they share a timestamp.
fn merge_equal(series: Vec<RangeSeries>) -> Result<Vec<RangeSeries>, QueryError> {
    let mut merged: Vec<RangeSeries> = Vec::with_capacity(series.len());
    for next in series {
        match merged.last_mut().filter(|last| last.labels == next.labels) {
            None => merged.push(next),
            Some(last) => {
                last.floats.extend(next.floats);
                last.floats.sort_unstable_by_key(|(t, _)| *t);
                last.histograms.extend(next.histograms);
                last.histograms.sort_by_key(|(t, _)| *t);
                let mut times: Vec<_> = last.floats.iter().map(|(t, _)| *t).collect();
                times.extend(last.histograms.iter().map(|(t, _)| *t));
                times.sort_unstable();
                if times.windows(2).any(|pair| pair[0] == pair[1]) {
                    return Err(same_labelset());
                }
            }
        }
    }
    Ok(merged)
}

/// Samples as they are stored, stale markers left out.
pub(crate) async fn raw(
    source: &dyn Queryable,
    selector: &RawSelector,
    context: &QueryContext,
) -> Result<QueryValue, QueryError> {
    let hints = SelectHints::default();
    let (before, after) = selector.extension.map_or((0, 0), |e| e.reach());
    let (mint, maxt) = (selector.mint.saturating_sub(before), selector.maxt.saturating_add(after));
    let selection = source.select(&selector.matchers, mint.saturating_add(1), maxt, &hints)?;
    let mut live = Live::default();
    let mut series: Vec<RangeSeries> = Vec::new();
    let mut bytes = HeldBytes::new(context);
    for mut partition in selection.partitions {
        loop {
            tokio::task::consume_budget().await;
            let Some(batch) = partition.next().await else { break };
            context.check()?;
            let batch = batch?;
            context.hold_samples(batch.values.len())?;
            context.hold_samples(batch.histograms.iter().map(|h| weight(&h.histogram)).sum())?;
            let mut histograms = batch.histograms.iter().peekable();
            for i in 0..batch.len() {
                let (labels, timestamps, values) = batch.series(i);
                let samples = Samples::new(timestamps, values).without_stale(&mut live);
                let floats: Vec<(TimestampMs, f64)> = match selector.extension {
                    None => samples.timestamps.iter().copied().zip(samples.values.iter().copied()).collect(),
                    Some(extension) => {
                        let smoothed = extension.kind == RangeExtension::Smoothed;
                        extended::points(samples, (selector.mint, selector.maxt), smoothed)
                    }
                };
                let mut own = Vec::new();
                while let Some(h) = histograms.next_if(|h| h.series as usize <= i) {
                    if !promontory_tsdb::is_stale(h.histogram.sum) {
                        own.push((h.timestamp, Arc::clone(&h.histogram)));
                    }
                }
                if let Some(extension) = selector.extension.filter(|_| !own.is_empty()) {
                    let modifier = extension.kind.name();
                    let text = format!("{modifier} modifier is not supported with histograms");
                    return Err(QueryError::Execution(text));
                }
                if let Some(counts) = context.counts() {
                    let n = floats.len() + own.iter().map(|(_, h)| weight(h)).sum::<usize>();
                    counts.add(n, n);
                }
                bytes.add(labels.as_bytes().len() + size_of::<RangeSeries>())?;
                bytes.add(16 * (floats.len() + own.iter().map(|(_, h)| weight(h)).sum::<usize>()))?;
                if !floats.is_empty() || !own.is_empty() {
                    series.push(RangeSeries { labels: labels.clone(), floats, histograms: own });
                }
            }
        }
    }
    series.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
    Ok(QueryValue::Matrix(series))
}
