//! Hands out the head's data for a block, series by series.

use super::Head;
use super::read::Snapshot;
use crate::error::Result;
use crate::labels::Labels;
use crate::sample::{Sample, TimestampMs};

/// What a block gets of one series.
#[derive(Debug)]
pub(crate) struct CutSeries {
    /// Its labels.
    pub(crate) labels: Labels,
    /// Its samples, ascending; not empty.
    pub(crate) samples: Vec<Sample>,
}

impl Head {
    /// Series with samples in `[mint, maxt]`, in label order, without what was deleted.
    pub(crate) fn cut(
        &self,
        mint: TimestampMs,
        maxt: TimestampMs,
    ) -> impl Iterator<Item = Result<CutSeries>> + use<> {
        let snapshot = self.snapshot(&[], mint, maxt, 1).pop().unwrap_or_default();
        (0..snapshot.len()).filter_map(move |i| cut_one(&snapshot, i, mint, maxt).transpose())
    }
}

fn cut_one(snapshot: &Snapshot, i: usize, mint: TimestampMs, maxt: TimestampMs) -> Result<Option<CutSeries>> {
    let (mut timestamps, mut values) = (Vec::new(), Vec::new());
    snapshot.decode(i, mint, maxt, &mut timestamps, &mut values)?;
    if timestamps.is_empty() {
        return Ok(None);
    }
    let samples = timestamps.into_iter().zip(values).map(|(t, v)| Sample { t, v }).collect();
    Ok(Some(CutSeries { labels: snapshot.labels(i), samples }))
}
