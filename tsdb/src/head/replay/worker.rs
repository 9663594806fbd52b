//! Threads that append replayed samples, each to its own share of the series.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use parking_lot::Mutex;

use super::Applied;
use crate::head::{Appended, Head};
use crate::sample::TimestampMs;
use crate::wal::RefSample;
use crate::wal::record::RefHistogramSample;

/// More do not pay: one thread cannot decode for them.
const MAX_WORKERS: usize = 8;

/// Samples that are handed over at a time.
const BATCH: usize = 4096;

/// Histograms that are handed over at a time; they are large.
const HISTOGRAM_BATCH: usize = 256;

/// Samples that a worker sorts by series before it appends them: several scrapes of some hundred thousand
/// series, so that a series is fetched from memory once for all of them. 16 MiB.
const GROUP: usize = 512 * 1024;

/// Series that are fetched from memory at the same time.
const AHEAD: usize = 32;

/// Batches that may wait for a worker.
const QUEUE: usize = 16;

/// What a worker is told.
enum Task {
    Samples(Vec<RefSample>),
    Histograms(Vec<RefHistogramSample>),
    /// Answer when all before is done.
    Wait(SyncSender<()>),
}

/// The threads of one replay.
#[derive(Debug)]
pub(super) struct Workers<'scope> {
    queues: Vec<SyncSender<Task>>,
    shards: Vec<Vec<RefSample>>,
    /// A shard has samples of one kind at a time, so that those of a series stay in order.
    histograms: Vec<Vec<RefHistogramSample>>,
    /// Emptied batches, for use again.
    spare: Arc<Mutex<Vec<Vec<RefSample>>>>,
    threads: Vec<ScopedJoinHandle<'scope, Applied>>,
    idle: bool,
}

impl<'scope> Workers<'scope> {
    pub(super) fn spawn<'env>(scope: &'scope Scope<'scope, 'env>, head: &'env Head) -> Self {
        let count = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS);
        let spare = Arc::<Mutex<Vec<Vec<RefSample>>>>::default();
        let (queues, threads) = (0..count)
            .map(|_| {
                let (queue, tasks) = sync_channel(QUEUE);
                let spare = Arc::clone(&spare);
                (queue, scope.spawn(move || run(head, &tasks, &spare)))
            })
            .unzip();
        let shards = vec![Vec::with_capacity(BATCH); count];
        Self { queues, shards, histograms: vec![Vec::new(); count], spare, threads, idle: true }
    }

    /// Appends a sample, sooner or later.
    pub(super) fn push(&mut self, sample: RefSample) {
        self.idle = false;
        let worker = sample.series.0 as usize % self.shards.len();
        self.hand_over_histograms(worker);
        let shard = &mut self.shards[worker];
        shard.push(sample);
        if shard.len() == BATCH {
            self.hand_over(worker);
        }
    }

    /// Appends a histogram, sooner or later.
    pub(super) fn push_histogram(&mut self, sample: RefHistogramSample) {
        self.idle = false;
        let worker = sample.series.0 as usize % self.shards.len();
        if !self.shards[worker].is_empty() {
            self.hand_over(worker);
        }
        self.histograms[worker].push(sample);
        if self.histograms[worker].len() == HISTOGRAM_BATCH {
            self.hand_over_histograms(worker);
        }
    }

    fn hand_over_histograms(&mut self, worker: usize) {
        if !self.histograms[worker].is_empty() {
            let batch = std::mem::take(&mut self.histograms[worker]);
            drop(self.queues[worker].send(Task::Histograms(batch)));
        }
    }

    fn hand_over(&mut self, worker: usize) {
        let empty = self.spare.lock().pop().unwrap_or_else(|| Vec::with_capacity(BATCH));
        let batch = std::mem::replace(&mut self.shards[worker], empty);
        // A worker only ends early by a panic, which `finish` passes on.
        drop(self.queues[worker].send(Task::Samples(batch)));
    }

    /// Returns when all samples are appended.
    pub(super) fn wait(&mut self) {
        if std::mem::replace(&mut self.idle, true) {
            return;
        }
        for worker in 0..self.shards.len() {
            self.hand_over_histograms(worker);
            self.hand_over(worker);
        }
        let (done, answers) = sync_channel(self.queues.len());
        for queue in &self.queues {
            drop(queue.send(Task::Wait(done.clone())));
        }
        drop(done);
        answers.iter().for_each(drop);
    }

    /// Ends the threads.
    pub(super) fn finish(&mut self) -> Applied {
        self.wait();
        self.queues.clear();
        let mut applied = Applied::default();
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(part) => applied.add(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        applied
    }
}

fn run(head: &Head, tasks: &Receiver<Task>, spare: &Mutex<Vec<Vec<RefSample>>>) -> Applied {
    let mut applied = Applied::default();
    let mut group = Vec::new();
    for task in tasks {
        match task {
            Task::Wait(done) => {
                append_group(head, &mut group, &mut applied);
                // Whoever waits is there until all have answered.
                let _ = done.send(());
            }
            Task::Histograms(batch) => {
                // A series may have samples of both kinds, in this order.
                append_group(head, &mut group, &mut applied);
                batch.iter().for_each(|sample| append_histogram(head, sample, &mut applied));
            }
            Task::Samples(mut batch) => {
                group.append(&mut batch);
                spare.lock().push(batch);
                if group.len() >= GROUP {
                    append_group(head, &mut group, &mut applied);
                }
            }
        }
    }
    append_group(head, &mut group, &mut applied);
    applied
}

/// Appends samples series by series, those of a series in log order.
fn append_group(head: &Head, group: &mut Vec<RefSample>, applied: &mut Applied) {
    group.sort_by_key(|sample| sample.series);
    let mut runs = group.chunk_by(|a, b| a.series == b.series);
    let (mut next, mut found) = (Vec::with_capacity(AHEAD), Vec::with_capacity(AHEAD));
    loop {
        next.extend(runs.by_ref().take(AHEAD));
        if next.is_empty() {
            break;
        }
        // Each step needs what the one before has asked for.
        next.iter().for_each(|samples| head.index.prefetch(samples[0].series));
        for samples in next.drain(..) {
            match head.index.get(samples[0].series) {
                Some(series) => found.push((series, samples)),
                None => applied.unknown_series += samples.len() as u64,
            }
        }
        found.iter().for_each(|(series, _)| series.lock().prefetch());
        for (series, samples) in found.drain(..) {
            for &RefSample { t, start_timestamp, v, .. } in samples {
                applied.count(t, head.replay(&series, t, start_timestamp, v));
            }
        }
    }
    group.clear();
}

fn append_histogram(head: &Head, sample: &RefHistogramSample, applied: &mut Applied) {
    let Some(series) = head.index.get(sample.series) else {
        applied.unknown_series += 1;
        return;
    };
    let RefHistogramSample { t, start_timestamp, ref value, .. } = *sample;
    applied.count(t, head.replay_histogram(&series, t, start_timestamp, value));
}

impl Applied {
    fn count(&mut self, t: TimestampMs, appended: Appended) {
        if !matches!(appended, Appended::NotNewer | Appended::Malformed) {
            self.samples += 1;
            self.mint = self.mint.min(t);
            self.maxt = self.maxt.max(t);
        }
    }
}
