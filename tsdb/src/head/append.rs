//! Applies batches that are in the log, and samples of a replayed log.
//!
//! # Order
//! As upstream: within a batch floats, then histograms, then metadata. A series has samples of one kind in a
//! batch, or floats before histograms. The stale marker of a series whose newest sample is a histogram
//! becomes a histogram.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/head_append.go> (`Commit`)

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::ooo::CAP;
use super::sample::{AnySample, Value, encode, stale_like};
use super::series::Limits;
use super::{Acceptance, Appended, Head, MemSeries, NO_MAX, NO_MIN};
use crate::appender::Batch;
use crate::error::AppendError;
use crate::head_chunks::{HeadChunkRef, MappedChunk, NewChunk};
use crate::histogram::HistogramValue;
use crate::sample::{SeriesRef, TimestampMs, is_stale};
use crate::wal::RefSample;
use crate::wal::record::{self, RefHistogramSample, RefMmapMarker};

/// What a commit did, to be counted once.
#[derive(Debug)]
struct Applied {
    mint: TimestampMs,
    maxt: TimestampMs,
    /// Range of samples that came out of order.
    late: Option<(TimestampMs, TimestampMs)>,
    appended: u64,
    refused: u64,
    too_old: u64,
    /// Series with a newly finished chunk.
    finished: Vec<SeriesRef>,
    behind: Behind,
}

/// Records for the write-behind log. What is in a chunk on disk stands before the marker of that chunk.
#[derive(Debug, Default)]
struct Behind {
    records: Vec<Vec<u8>>,
    markers: Vec<RefMmapMarker>,
    samples: Vec<RefSample>,
    histograms: Vec<RefHistogramSample>,
}

impl Behind {
    fn flush(&mut self, start_timestamps: bool) {
        let mut record = Vec::new();
        if !self.markers.is_empty() {
            record::encode_mmap_markers(&mut record, &self.markers);
            self.records.push(std::mem::take(&mut record));
            self.markers.clear();
        }
        if !self.samples.is_empty() {
            let samples = self.samples.iter().copied();
            if start_timestamps {
                record::encode_samples_v2(&mut record, samples);
            } else {
                record::encode_samples(&mut record, samples);
            }
            self.records.push(record);
            self.samples.clear();
        }
        self.records.extend(record::histogram_records(&self.histograms, start_timestamps));
        self.histograms.clear();
    }
}

impl Head {
    /// What decides now whether a sample is taken.
    pub(crate) fn limits(&self) -> Limits {
        let window = self.ooo_window_ms.load(Ordering::Relaxed);
        let newest = self.max_time.load(Ordering::Acquire);
        Limits {
            floor: self.floor(),
            out_of_order_floor: (window > 0).then(|| newest.saturating_sub(window)),
        }
    }

    /// Whether `series` takes the sample; refusals are counted.
    pub(crate) fn check(
        &self,
        series: &MemSeries,
        t: TimestampMs,
        value: &Value,
        limits: Limits,
    ) -> Result<Acceptance, AppendError> {
        let result = series.lock().appendable(t, value, limits);
        match &result {
            Err(AppendError::OutOfOrder) => &self.counters.out_of_order,
            Err(AppendError::OutOfBounds) => &self.counters.out_of_bounds,
            Err(AppendError::TooOld) => &self.counters.too_old,
            Err(_) => &self.counters.duplicates,
            Ok(_) => return result,
        }
        .fetch_add(1, Ordering::Relaxed);
        result
    }

    /// Applies logged batches all at once, and gives the records for the write-behind log. The caller holds
    /// the commit lock.
    pub(crate) fn apply(&self, batches: Vec<Batch>) -> Vec<Vec<u8>> {
        let _visible = self.visibility.write();
        let mut done = Applied {
            mint: NO_MIN,
            maxt: NO_MAX,
            late: None,
            appended: 0,
            refused: 0,
            too_old: 0,
            finished: Vec::new(),
            behind: Behind::default(),
        };
        // A block may have been cut since samples were checked; how late they may be was checked then.
        let ooo = self.ooo_window_ms.load(Ordering::Relaxed) > 0;
        let limits =
            Limits { floor: self.min_valid_time(), out_of_order_floor: ooo.then_some(TimestampMs::MIN) };
        for batch in batches {
            self.apply_batch(batch, limits, &mut done);
        }
        if done.mint <= done.maxt {
            self.extend_bounds(done.mint, done.maxt);
            self.changes().appended(done.mint);
        }
        if let Some((mint, maxt)) = done.late {
            self.changes().changed(mint, maxt);
        }
        if !done.finished.is_empty() {
            self.note_finished(done.finished);
        }
        self.counters.samples_appended.fetch_add(done.appended, Ordering::Relaxed);
        self.counters.out_of_order.fetch_add(done.refused, Ordering::Relaxed);
        self.counters.out_of_bounds.fetch_add(done.too_old, Ordering::Relaxed);
        done.behind.flush(self.rules().start_timestamps);
        done.behind.records
    }

    fn apply_batch(&self, batch: Batch, limits: Limits, done: &mut Applied) {
        let Batch { samples, series, mut histograms, mut histogram_series, exemplars, metadata } = batch;
        for (series, exemplar) in exemplars {
            // Checked when it came; another batch may have been faster.
            if let Err(error) = self.exemplars.add(&series.labels, exemplar) {
                tracing::debug!(%error, series = %series.labels, "an exemplar was refused");
            }
        }
        for (series, sample) in series.into_iter().zip(samples) {
            let stale = if is_stale(sample.v) { series.lock().newest_histogram() } else { None };
            if let Some(like) = stale {
                let RefSample { series: series_ref, t, start_timestamp, .. } = sample;
                let value = stale_like(&like);
                histograms.push(RefHistogramSample { series: series_ref, t, start_timestamp, value });
                histogram_series.push(series);
                continue;
            }
            self.apply_float(&series, &sample, limits, done);
        }
        for (series, sample) in histogram_series.iter().zip(&histograms) {
            self.apply_histogram(series, sample, limits, done);
        }
        if !metadata.is_empty() {
            let mut store = self.metadata.write();
            for (series, metadata) in &metadata {
                store.set(series.series, metadata);
            }
        }
    }

    fn apply_float(&self, series: &Arc<MemSeries>, sample: &RefSample, limits: Limits, done: &mut Applied) {
        let RefSample { t, start_timestamp: start, v, .. } = *sample;
        if t >= limits.floor {
            let appended = series.lock().append_float(t, start, v, self.rules());
            if appended != Appended::NotNewer {
                return self.count(series, t, appended, done);
            }
        }
        if limits.out_of_order_floor.is_none() {
            return done.refuse(t, limits);
        }
        let value = Value::Float(v);
        if !is_same(series, t, &value, limits) && self.insert_ooo(series, AnySample { t, start, value }, done)
        {
            done.behind.samples.push(*sample);
        }
    }

    fn apply_histogram(
        &self,
        series: &Arc<MemSeries>,
        sample: &RefHistogramSample,
        limits: Limits,
        done: &mut Applied,
    ) {
        let (t, start) = (sample.t, sample.start_timestamp);
        if t >= limits.floor {
            let appended = series.lock().append_histogram(t, start, &sample.value, self.rules());
            if appended != Appended::NotNewer {
                return self.count(series, t, appended, done);
            }
        }
        if limits.out_of_order_floor.is_none() {
            return done.refuse(t, limits);
        }
        let value = Value::Histogram(sample.value.clone());
        if !is_same(series, t, &value, limits) && self.insert_ooo(series, AnySample { t, start, value }, done)
        {
            done.behind.histograms.push(sample.clone());
        }
    }

    fn count(&self, series: &MemSeries, t: TimestampMs, appended: Appended, done: &mut Applied) {
        match appended {
            Appended::NotNewer | Appended::Malformed => {
                done.refused += 1;
                return;
            }
            Appended::SameChunk => {}
            Appended::FirstChunk => self.count_chunks(1),
            Appended::NextChunk => {
                self.count_chunks(1);
                if self.chunks.is_some() {
                    done.finished.push(series.series);
                }
            }
        }
        done.mint = done.mint.min(t);
        done.maxt = done.maxt.max(t);
        done.appended += 1;
    }

    fn count_chunks(&self, created: u64) {
        self.counters.chunks_created.fetch_add(created, Ordering::Relaxed);
    }

    /// Inserts a sample that is out of order, and notes what the write-behind log must know of its chunk.
    fn insert_ooo(&self, series: &Arc<MemSeries>, sample: AnySample, done: &mut Applied) -> bool {
        let t = sample.t;
        let (inserted, written) = self.insert_out_of_order(series, sample);
        if let Some(written) = written {
            done.behind.flush(self.rules().start_timestamps);
            let series = series.series;
            done.behind
                .markers
                .extend(written.into_iter().map(|chunk| RefMmapMarker { series, chunk: chunk.0 }));
        }
        if inserted {
            self.note_out_of_order(t);
            self.counters.out_of_order_appended.fetch_add(1, Ordering::Relaxed);
            done.late = Some(done.late.map_or((t, t), |(mint, maxt)| (mint.min(t), maxt.max(t))));
            done.appended += 1;
        }
        inserted
    }

    /// Inserts a sample into the open out-of-order chunk. If it began a chunk, gives the references of those
    /// that hold all samples before, or 0 if there are none.
    pub(crate) fn insert_out_of_order(
        &self,
        series: &MemSeries,
        sample: AnySample,
    ) -> (bool, Option<Vec<HeadChunkRef>>) {
        let mut state = series.lock();
        let len = state.ooo().map_or(0, |ooo| ooo.open.len());
        let mut written = None;
        if len == 0 {
            self.count_chunks(1);
            // The chunk before was written for a compaction, which may not have come to its end.
            let before = state.ooo().and_then(|ooo| ooo.mapped.last());
            written = Some(vec![before.map_or(HeadChunkRef(0), |chunk| chunk.at)]);
        } else if len >= CAP
            && let Some(chunks) = self.write_ooo(series.series, &mut state)
        {
            self.count_chunks(1);
            written = Some(chunks);
        }
        let inserted = state.ooo_mut().insert(sample);
        (inserted, written)
    }

    /// Moves the open out-of-order chunk to disk; `None` if that is not possible, and nothing changed.
    pub(super) fn write_ooo(
        &self,
        series: SeriesRef,
        state: &mut super::series::SeriesState,
    ) -> Option<Vec<HeadChunkRef>> {
        let chunks = self.chunks.as_ref()?;
        let ooo = state.ooo_mut();
        let encoded = encode(&ooo.open, self.rules(), usize::from(u16::MAX));
        let new = encoded.iter().map(|chunk| NewChunk {
            series,
            mint: chunk.mint,
            maxt: chunk.maxt,
            encoding: chunk.encoding,
            out_of_order: true,
            data: &chunk.data,
        });
        let refs = match chunks.write(new) {
            Ok(refs) => refs,
            Err(error) => {
                // It stays in memory, and in the write-behind log.
                tracing::warn!(%error, "an out-of-order chunk could not be written to chunks_head/");
                return None;
            }
        };
        ooo.mapped.reserve_exact(refs.len());
        ooo.mapped.extend(encoded.iter().zip(&refs).map(|(chunk, at)| MappedChunk {
            at: *at,
            mint: chunk.mint,
            maxt: chunk.maxt,
            samples: crate::chunkenc::num_samples(chunk.encoding, &chunk.data),
            encoding: chunk.encoding,
        }));
        ooo.open.clear();
        // One chunk more for each one that the samples became, but the open one that is gone.
        self.counters.chunks_created.fetch_add((refs.len() as u64).saturating_sub(1), Ordering::Relaxed);
        Some(refs)
    }

    /// Appends a float of the log.
    pub(crate) fn replay(
        &self,
        series: &Arc<MemSeries>,
        t: TimestampMs,
        start: TimestampMs,
        v: f64,
    ) -> Appended {
        let mut state = series.lock();
        let stale = if is_stale(v) { state.newest_histogram() } else { None };
        let appended = match stale {
            Some(like) => state.append_histogram(t, start, &stale_like(&like), self.rules()),
            None => state.append_float(t, start, v, self.rules()),
        };
        drop(state);
        self.replayed(series, appended)
    }

    /// Appends a histogram of the log.
    pub(crate) fn replay_histogram(
        &self,
        series: &Arc<MemSeries>,
        t: TimestampMs,
        start: TimestampMs,
        value: &HistogramValue,
    ) -> Appended {
        let appended = series.lock().append_histogram(t, start, value, self.rules());
        self.replayed(series, appended)
    }

    fn replayed(&self, series: &MemSeries, appended: Appended) -> Appended {
        if matches!(appended, Appended::FirstChunk | Appended::NextChunk) {
            self.count_chunks(1);
        }
        if appended == Appended::NextChunk {
            self.note_finished([series.series]);
            self.map_if_many();
        }
        appended
    }

    /// Inserts a sample of the write-behind log; says whether it is new.
    pub(crate) fn replay_out_of_order(&self, series: &MemSeries, sample: AnySample) -> bool {
        let t = sample.t;
        let (inserted, _) = self.insert_out_of_order(series, sample);
        if inserted {
            self.note_out_of_order(t);
        }
        inserted
    }

    /// Applies a marker of the write-behind log: out-of-order samples of `series` so far are in the chunk `at`,
    /// or, if that is 0, in blocks.
    pub(crate) fn replay_marker(&self, series: &MemSeries, at: HeadChunkRef) {
        if self.chunks.is_none() {
            // No chunk on disk was loaded, so the samples are needed.
            return;
        }
        let mut state = series.lock();
        let known = at == HeadChunkRef(0)
            || state.ooo().is_some_and(|ooo| ooo.mapped.iter().any(|chunk| chunk.at == at));
        // A chunk that was lost with a damaged file is made again from the samples.
        if known && state.ooo().is_some() {
            let ooo = state.ooo_mut();
            if !ooo.open.is_empty() {
                ooo.open = Vec::new();
                self.counters.chunks_removed.fetch_add(1, Ordering::Relaxed);
            }
            state.drop_rare();
        }
    }
}

/// Whether the in-order sample at `t` is this very one.
fn is_same(series: &MemSeries, t: TimestampMs, value: &Value, limits: Limits) -> bool {
    matches!(
        series.lock().appendable(t, value, limits),
        Ok(Acceptance::Same) | Err(AppendError::Duplicate { .. })
    )
}

impl Applied {
    fn refuse(&mut self, t: TimestampMs, limits: Limits) {
        if t < limits.floor {
            self.too_old += 1;
        } else {
            self.refused += 1;
        }
    }
}
