//! Threads that append replayed samples, each to its own share of the series.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use parking_lot::Mutex;

use super::Applied;
use crate::head::{Appended, Head};
use crate::wal::RefSample;

/// More do not pay: one thread cannot decode for them.
const MAX_WORKERS: usize = 8;

/// Samples that are handed over at a time.
const BATCH: usize = 4096;

/// Batches that may wait for a worker.
const QUEUE: usize = 16;

/// What a worker is told.
enum Task {
    Samples(Vec<RefSample>),
    /// Answer when all before is done.
    Wait(SyncSender<()>),
}

/// The threads of one replay.
#[derive(Debug)]
pub(super) struct Workers<'scope> {
    queues: Vec<SyncSender<Task>>,
    shards: Vec<Vec<RefSample>>,
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
        Self { queues, shards: vec![Vec::with_capacity(BATCH); count], spare, threads, idle: true }
    }

    /// Appends a sample, sooner or later.
    pub(super) fn push(&mut self, sample: RefSample) {
        self.idle = false;
        let worker = sample.series.0 as usize % self.shards.len();
        let shard = &mut self.shards[worker];
        shard.push(sample);
        if shard.len() == BATCH {
            self.hand_over(worker);
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
        (0..self.shards.len()).for_each(|worker| self.hand_over(worker));
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
    for task in tasks {
        match task {
            Task::Wait(done) => drop(done.send(())),
            Task::Samples(mut batch) => {
                for sample in batch.drain(..) {
                    append(head, sample, &mut applied);
                }
                spare.lock().push(batch);
            }
        }
    }
    applied
}

fn append(head: &Head, sample: RefSample, applied: &mut Applied) {
    let Some(series) = head.index.get(sample.series) else {
        applied.unknown_series += 1;
        return;
    };
    if head.replay(&series, sample.t, sample.v) != Appended::NotNewer {
        applied.samples += 1;
        applied.mint = applied.mint.min(sample.t);
        applied.maxt = applied.maxt.max(sample.t);
    }
}
