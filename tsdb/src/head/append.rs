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
use super::{Acceptance, Appended, COMPACTED, Head, MemSeries, NO_MAX, NO_MIN};
use crate::appender::Batch;
use crate::error::{AppendError, Result};
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
    ) -> std::result::Result<Acceptance, AppendError> {
        let mut result = series.lock().appendable(t, value, limits);
        if is_there_already(&result) && self.is_deleted(series, t) {
            // What is deleted is not there: to take it for the same would lose it.
            result = limits.late(t);
        }
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
        if !self.is_same(series, t, &value, limits)
            && self.insert_ooo(series, AnySample { t, start, value }, done)
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
        if !self.is_same(series, t, &value, limits)
            && self.insert_ooo(series, AnySample { t, start, value }, done)
        {
            done.behind.histograms.push(sample.clone());
        }
    }

    /// Whether the newest in-order sample is of this time.
    fn is_same(&self, series: &MemSeries, t: TimestampMs, value: &Value, limits: Limits) -> bool {
        let there = is_there_already(&series.lock().appendable(t, value, limits));
        there && !self.is_deleted(series, t)
    }

    /// Whether in-order samples of this time are deleted.
    fn is_deleted(&self, series: &MemSeries, t: TimestampMs) -> bool {
        self.tombstones.read().covers(series.series, t, t)
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
        let mut state = series.lock();
        let (inserted, began) = self.insert_late(series.series, &mut state, sample);
        if began {
            // All samples before are in chunks on disk, or in blocks: those need no marker a second time.
            let ooo = state.ooo_mut();
            let mut chunks = std::mem::take(&mut ooo.unnamed);
            if ooo.mapped.is_empty() {
                chunks.push(HeadChunkRef(0));
            }
            drop(state);
            done.behind.flush(self.rules().start_timestamps);
            done.behind.markers.extend(markers(series.series, &chunks));
        }
        if inserted {
            self.note_out_of_order(t);
            self.counters.out_of_order_appended.fetch_add(1, Ordering::Relaxed);
            done.late = Some(done.late.map_or((t, t), |(mint, maxt)| (mint.min(t), maxt.max(t))));
            done.appended += 1;
        }
        inserted
    }

    /// Inserts a sample into the open out-of-order chunk; a full one goes to disk first. Says whether the sample is
    /// new, and whether it is the first of the chunk.
    fn insert_late(
        &self,
        series: SeriesRef,
        state: &mut super::series::SeriesState,
        sample: AnySample,
    ) -> (bool, bool) {
        if state.ooo().is_some_and(|ooo| ooo.open.len() >= CAP)
            && let Err(error) = self.write_ooo(series, state)
        {
            // It stays in memory, and in the write-behind log.
            tracing::warn!(%error, "an out-of-order chunk could not be written to chunks_head/");
        }
        let ooo = state.ooo_mut();
        let begins = ooo.open.is_empty();
        let inserted = ooo.insert(sample);
        if begins {
            self.count_chunks(1);
        }
        (inserted, begins)
    }

    /// Moves the open out-of-order chunk to disk, if there is one and a place for it.
    ///
    /// # Errors
    /// If it cannot be written; then nothing changed.
    pub(super) fn write_ooo(&self, series: SeriesRef, state: &mut super::series::SeriesState) -> Result<()> {
        let Some(chunks) = &self.chunks else { return Ok(()) };
        if state.ooo().is_none_or(|ooo| ooo.open.is_empty()) {
            return Ok(());
        }
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
        let refs = chunks.write(new)?;
        ooo.mapped.reserve_exact(refs.len());
        ooo.add_mapped(encoded.iter().zip(&refs).map(|(chunk, at)| MappedChunk {
            at: *at,
            mint: chunk.mint,
            maxt: chunk.maxt,
            samples: crate::chunkenc::num_samples(chunk.encoding, &chunk.data),
            encoding: chunk.encoding,
        }));
        ooo.open.clear();
        // One chunk more for each one that the samples became, but the open one that is gone.
        self.counters.chunks_created.fetch_add((refs.len() as u64).saturating_sub(1), Ordering::Relaxed);
        Ok(())
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
        let mut state = series.lock();
        let ooo = state.ooo_mut();
        let begins = ooo.open.is_empty();
        // However many: a chunk that is made now would be none that the log tells from those of before.
        let inserted = ooo.insert(sample);
        drop(state);
        if begins {
            self.count_chunks(1);
        }
        if inserted {
            self.note_out_of_order(t);
        }
        inserted
    }

    /// Applies a marker of the write-behind log for all series, see [`COMPACTED`].
    pub(crate) fn replay_compacted(&self, at: &[HeadChunkRef]) {
        if self.chunks.is_some() && at.iter().any(|at| at.0 & COMPACTED != 0) {
            let compacted: Vec<_> = at.iter().copied().filter(|at| at.0 & COMPACTED != 0).collect();
            self.index.for_each(|series| self.replay_marker(series, &compacted, false));
        }
    }

    /// Applies a marker of the write-behind log: out-of-order samples of `series` so far are in the chunks `at`, or,
    /// where that is 0, in blocks; see also [`COMPACTED`].
    ///
    /// Ours name all chunks so far. One of Prometheus leaves out those that it made while it replayed this log, so that
    /// only this log is known to have all samples then. It passes over deletions here: after such a one, of a series with
    /// `deletions`, its chunks hold samples that are gone.
    pub(crate) fn replay_marker(&self, series: &MemSeries, at: &[HeadChunkRef], deletions: bool) {
        let mut state = series.lock();
        if self.chunks.is_none() || state.ooo().is_none() {
            // Where no chunk on disk was loaded, the samples are needed.
            return;
        }
        let (compacted, at): (Vec<HeadChunkRef>, Vec<HeadChunkRef>) =
            at.iter().partition(|at| at.0 & COMPACTED != 0);
        let ooo = state.ooo_mut();
        let mut gone = 0;
        if let Some(last) = compacted.iter().map(|at| HeadChunkRef(at.0 & !COMPACTED)).max() {
            gone += ooo.retain(|at| at > last);
        }
        let known = |at: &HeadChunkRef| *at == HeadChunkRef(0) || ooo.mapped.iter().any(|c| c.at == *at);
        let is_behind = |unnamed: &HeadChunkRef| at.iter().any(|at| *at == HeadChunkRef(0) || unnamed < at);
        let left_out = |unnamed: &HeadChunkRef| is_behind(unnamed) && !at.contains(unnamed);
        let stands = !deletions && !ooo.unnamed.iter().any(left_out);
        // A chunk that was lost with a damaged file is made again from the samples.
        if stands && !at.is_empty() && at.iter().all(known) {
            gone += usize::from(!std::mem::take(&mut ooo.open).is_empty());
            ooo.unnamed.retain(|unnamed| !at.contains(unnamed));
        }
        state.drop_rare();
        self.counters.chunks_removed.fetch_add(gone as u64, Ordering::Relaxed);
    }
}

/// Markers of chunks of a series.
pub(super) fn markers(
    series: SeriesRef,
    chunks: &[HeadChunkRef],
) -> impl Iterator<Item = RefMmapMarker> + use<'_> {
    chunks.iter().map(move |chunk| RefMmapMarker { series, chunk: chunk.0 })
}

/// Whether the series has a sample of this time, the same one or another.
fn is_there_already(acceptance: &std::result::Result<Acceptance, AppendError>) -> bool {
    use AppendError::{Duplicate, DuplicateHistogram, DuplicateOfHistogram};
    matches!(
        acceptance,
        Ok(Acceptance::Same) | Err(Duplicate { .. } | DuplicateHistogram | DuplicateOfHistogram { .. })
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
