//! `promontory tsdb analyze --extended`: how full chunks are.

use std::io::{self, Write};

use promontory_tsdb::block::Block;
use promontory_tsdb::chunkenc::{Decoded, decode, num_samples};
use promontory_tsdb::chunks::ChunkRef;
use promontory_tsdb::histogram::HistogramValue;
use promontory_tsdb::index::SeriesEntry;
use promontory_tsdb::{Error, TimestampMs};

use super::ToolError;

pub(super) fn put(out: &mut dyn Write, block: &Block, references: &[u64]) -> Result<(), ToolError> {
    let mut chunks = 0;
    let (mut float_samples, mut float_bytes) = (Vec::new(), Vec::new());
    let (mut histogram_samples, mut histogram_bytes, mut buckets) = (Vec::new(), Vec::new(), Vec::new());
    let mut entry = SeriesEntry::default();
    for reference in references {
        block.index().series(*reference, TimestampMs::MIN, TimestampMs::MAX, &mut entry)?;
        for chunk in &entry.chunks {
            let (encoding, data) = block.chunks().chunk(chunk.reference)?;
            if encoding.is_histogram() {
                buckets.push(populated_buckets(block, chunk.reference)?);
            }
            let (samples, bytes) = match encoding.is_histogram() {
                true => (&mut histogram_samples, &mut histogram_bytes),
                false => (&mut float_samples, &mut float_bytes),
            };
            samples.push(u64::from(num_samples(encoding, data)));
            bytes.push(data.len() as u64);
            chunks += 1;
        }
    }
    writeln!(out, "\nCompaction analysis:\n")?;
    put_histogram(out, "samples per float chunk", float_samples, chunks)?;
    put_histogram(out, "bytes per float chunk", float_bytes, chunks)?;
    put_histogram(out, "samples per histogram chunk", histogram_samples, chunks)?;
    put_histogram(out, "bytes per histogram chunk", histogram_bytes, chunks)?;
    put_histogram(out, "buckets per histogram chunk", buckets, chunks)?;
    Ok(())
}

/// Buckets of all samples of a chunk together.
fn populated_buckets(block: &Block, reference: ChunkRef) -> Result<u64, ToolError> {
    let (encoding, data) = block.chunks().chunk(reference)?;
    let mut decoded = Decoded::default();
    decode(encoding, data, &mut decoded).map_err(|e| match block.chunks().file(reference) {
        Ok(file) => Error::corrupt(file, u64::from(reference.offset()), e.to_string()),
        Err(e) => e,
    })?;
    let counts = decoded.histograms.iter().map(|sample| match &sample.histogram {
        HistogramValue::Integer(h) => h.positive_buckets.len() + h.negative_buckets.len(),
        HistogramValue::Float(h) => h.positive_buckets.len() + h.negative_buckets.len(),
    });
    Ok(counts.sum::<usize>() as u64)
}

/// Bars whose lengths are percentages of `total`. Compat: upstream prints a bucket's limits one off
/// from what it counts in it.
fn put_histogram(out: &mut dyn Write, what: &str, mut values: Vec<u64>, total: u64) -> io::Result<()> {
    values.sort_unstable();
    let (Some(&min), Some(&max)) = (values.first(), values.last()) else {
        return writeln!(out, "{what}: N/A\n");
    };
    let (start, end, step) = buckets(min, max);
    let mut counts = vec![0u64; ((end - start) / step + 1) as usize];
    for value in &values {
        counts[((value - start) / step) as usize] += 1;
    }
    let mean = values.iter().sum::<u64>() / values.len() as u64;
    writeln!(out, "{what} (min/avg/max): {min}/{mean}/{max}")?;
    let digits = |n: u64| n.to_string().len();
    let (left, right) = (digits(end), digits(end + step));
    let most = digits(counts.iter().copied().max().unwrap_or_default());
    for (i, count) in counts.iter().enumerate() {
        let from = i as u64 * step + start + 1;
        let to = (i as u64 + 1) * step + start;
        let bar = "#".repeat((100.0 * *count as f64 / total as f64) as usize);
        writeln!(out, "[{from:left$}, {to:right$}]: {count:most$} {bar}")?;
    }
    writeln!(out)
}

/// Start, end and width of the bars for values from `min` to `max`.
fn buckets(min: u64, max: u64) -> (u64, u64, u64) {
    let wanted = (max - min) / 10;
    let mut step = 10;
    while step < wanted && step <= 10_000 {
        step *= 10;
    }
    (min - min % step, max - max % step + step, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_those_of_upstream() {
        let mut out = Vec::new();
        put_histogram(&mut out, "samples per float chunk", vec![120, 5, 120, 37], 4).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "samples per float chunk (min/avg/max): 5/70/120");
        let half = "#".repeat(50);
        assert_eq!(
            lines[1..],
            [&format!("[  1, 100]: 2 {half}"), &format!("[101, 200]: 2 {half}"), "[201, 300]: 0 ", ""]
        );
    }
}
