//! Which chunks are decoded side by side, in [`Lanes`], and what happens to them there.
//!
//! A chunk is copied into a lane, runs there until it or that of another lane is over, and the next one takes its
//! place. Chunks that gain nothing by it are decoded alone: those of which a sample takes few bits, as branches on what
//! is nearly always the same are predicted, and those too large for a lane.

use std::mem::MaybeUninit;

use super::State;
use super::bulk::{self, Registers};
use super::lanes::{HALF, LANES, Lanes, Out, ROOM, STEPS};
use crate::sample::TimestampMs;

/// Chunks of fewer bits a sample are decoded alone: of a gauge that seldom changes, scraped without jitter.
const FEW_BITS: usize = 6;
/// Of fewer chunks, each is decoded alone, as idle lanes cost as much as busy ones.
const FEW: usize = HALF;
/// A timestamp far from where it is expected interrupts all lanes, which costs as much as this number of steps.
const INTERRUPTION: usize = 16;
/// Steps by which interruptions may be ahead.
const PATIENCE: usize = 256;

/// A chunk of which the first samples were read.
#[derive(Debug)]
struct Job<'a> {
    rest: &'a [u8],
    timestamps: &'a mut [MaybeUninit<TimestampMs>],
    values: &'a mut [MaybeUninit<f64>],
    done: usize,
}

/// Appends the samples of all chunks. If not all are sound, or there is nothing to gain, the vectors are as they were,
/// and the answer is `false`.
pub(super) fn decode(chunks: &[&[u8]], timestamps: &mut Vec<TimestampMs>, values: &mut Vec<f64>) -> bool {
    if chunks.len() < FEW || !Lanes::available() {
        return false;
    }
    let (mut total, mut suited) = (0, 0);
    for data in chunks {
        let Ok((_, count)) = State::open(data) else { return false };
        total += usize::from(count);
        suited += usize::from(is_suited(data, usize::from(count)));
    }
    if suited < FEW {
        return false;
    }
    timestamps.reserve(total);
    values.reserve(total);
    let slots = (&mut timestamps.spare_capacity_mut()[..total], &mut values.spare_capacity_mut()[..total]);
    let queue = Queue { chunks, timestamps: slots.0, values: slots.1 };
    if queue.decode().is_none() {
        return false;
    }
    // SAFETY: there is room for `total` more, and all slots were written, as the queue is through without an error.
    unsafe {
        timestamps.set_len(timestamps.len() + total);
        values.set_len(values.len() + total);
    }
    true
}

fn is_suited(data: &[u8], count: usize) -> bool {
    count > 2 && data.len() <= ROOM && data.len() * 8 >= count * FEW_BITS
}

/// Chunks that wait for a lane, and where their samples go.
#[derive(Debug)]
struct Queue<'a> {
    chunks: &'a [&'a [u8]],
    timestamps: &'a mut [MaybeUninit<TimestampMs>],
    values: &'a mut [MaybeUninit<f64>],
}

impl<'a> Queue<'a> {
    /// Writes all slots. `None` if a chunk is damaged.
    fn decode(mut self) -> Option<()> {
        let mut lanes = Lanes::new();
        let mut jobs: [Option<Job<'_>>; LANES] = [const { None }; LANES];
        let mut patience = PATIENCE;
        loop {
            for (lane, job) in jobs.iter_mut().enumerate() {
                if job.is_none() {
                    *job = self.next(&mut lanes, lane)?;
                }
            }
            let busy = jobs.iter().flatten().count();
            if busy < FEW || patience < INTERRUPTION {
                break;
            }
            if busy <= HALF {
                gather(&mut lanes, &mut jobs);
            }
            let groups = if busy <= HALF { 1 } else { 2 };
            let (steps, rare) = run(&mut lanes, &mut jobs, groups);
            patience = (patience + steps).min(PATIENCE);
            if rare != 0 {
                patience -= INTERRUPTION;
                for (lane, job) in jobs.iter_mut().enumerate().filter(|(lane, _)| rare >> lane & 1 == 1) {
                    job.as_mut()?.step(&mut lanes, lane);
                }
            }
            for (lane, slot) in jobs.iter_mut().enumerate() {
                if let Some(job) = slot.take_if(|job| job.done == job.timestamps.len()) {
                    lanes.state(lane).check(job.rest).ok()?;
                    lanes.clear(lane);
                }
            }
        }
        for (lane, slot) in jobs.iter_mut().enumerate() {
            if let Some(job) = slot.take() {
                job.finish(lanes.state(lane))?;
            }
        }
        while let Some((data, timestamps, values)) = self.take() {
            bulk::decode(data, timestamps, values).ok()?;
        }
        Some(())
    }

    /// Puts the next chunk into a lane; those before that are not for lanes are decoded. `None` if one is damaged.
    fn next(&mut self, lanes: &mut Lanes, lane: usize) -> Option<Option<Job<'a>>> {
        while let Some((data, timestamps, values)) = self.take() {
            if let Some((state, rest)) = bulk::begin(data, timestamps, values).ok()? {
                let job = Job { rest, timestamps, values, done: 2 };
                let count = job.timestamps.len();
                if is_suited(data, count) {
                    lanes.set(lane, state, rest);
                    return Some(Some(job));
                }
                job.finish(state)?;
            }
        }
        Some(None)
    }

    /// The next chunk and its slots.
    #[expect(clippy::type_complexity, reason = "taken apart at once")]
    fn take(&mut self) -> Option<(&'a [u8], &'a mut [MaybeUninit<TimestampMs>], &'a mut [MaybeUninit<f64>])> {
        let data = self.chunks.split_off_first()?;
        let (_, count) = State::open(data).ok()?;
        let count = usize::from(count);
        Some((data, self.timestamps.split_off_mut(..count)?, self.values.split_off_mut(..count)?))
    }
}

impl Job<'_> {
    /// Reads what is left, alone.
    fn finish(self, state: Registers) -> Option<()> {
        bulk::finish(self.rest, state, self.timestamps, self.values, self.done).ok()
    }

    /// Reads one sample, alone.
    fn step(&mut self, lanes: &mut Lanes, lane: usize) {
        let state = lanes.step(lane);
        self.timestamps[self.done].write(state.t);
        self.values[self.done].write(f64::from_bits(state.v));
        self.done += 1;
    }
}

/// Moves what is in lanes of the second half to the first, where there is room for all.
fn gather(lanes: &mut Lanes, jobs: &mut [Option<Job<'_>>; LANES]) {
    let (first, second) = jobs.split_at_mut(HALF);
    let free = first.iter_mut().enumerate().filter(|(_, job)| job.is_none());
    for ((to, free), (from, job)) in free.zip((HALF..).zip(second).filter(|(_, job)| job.is_some())) {
        *free = job.take();
        if let Some(job) = free {
            lanes.set(to, lanes.state(from), job.rest);
        }
    }
}

/// Takes as many steps as all busy lanes have samples, but see [`Lanes::run`].
fn run(lanes: &mut Lanes, jobs: &mut [Option<Job<'_>>; LANES], groups: usize) -> (usize, u32) {
    let left = jobs.iter().flatten().map(|job| job.timestamps.len() - job.done);
    let steps = left.min().unwrap_or(0).min(STEPS);
    let mut outs = jobs.each_mut().map(|job| {
        job.as_mut().map(|job| {
            let to = job.done..job.done + steps;
            Out { timestamps: &mut job.timestamps[to.clone()], values: &mut job.values[to] }
        })
    });
    let (steps, rare) = lanes.run(&mut outs, steps, groups);
    for job in jobs.iter_mut().flatten() {
        job.done += steps;
    }
    (steps, rare)
}
