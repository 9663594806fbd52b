//! What appenders of XOR and XOR2 chunks have in common.

use super::bits::{BitWriter, Window};
use crate::sample::{Sample, TimestampMs};

/// A chunk of floats that grows. It begins with the number of its samples, big-endian, two bytes.
#[derive(Debug, Clone)]
pub struct FloatChunk {
    pub(super) out: BitWriter,
    pub(super) last: Sample,
    pub(super) t_delta: u64,
    /// `None` before the first window is written.
    pub(super) window: Option<Window>,
    pub(super) count: u16,
}

impl FloatChunk {
    /// Without samples, and with room for `bytes` bytes.
    pub(super) fn with_capacity(header: usize, bytes: usize) -> Self {
        let mut buffer = Vec::with_capacity(bytes.max(header));
        buffer.resize(header, 0);
        let out = BitWriter { bytes: buffer, free: 0 };
        Self { out, last: Sample { t: 0, v: 0.0 }, t_delta: 0, window: None, count: 0 }
    }

    /// Counts a sample that was written.
    #[inline]
    pub(super) fn wrote(&mut self, t: TimestampMs, v: f64) {
        self.last = Sample { t, v };
        self.count = self.count.checked_add(1).expect("a chunk is cut before it holds 2^16 samples");
        self.out.bytes[..2].copy_from_slice(&self.count.to_be_bytes());
    }

    /// Bytes that the buffer can hold.
    pub fn capacity(&self) -> usize {
        self.out.bytes.capacity()
    }

    /// Makes room for one more sample without a start timestamp, by growing the buffer by no more than `step` bytes
    /// if it is full. For many chunks that stay open: doubling wastes a quarter of their memory.
    pub fn reserve_step(&mut self, step: usize) {
        // 147 bits, and the nine bytes that a write touches before it takes back what it does not need.
        const LARGEST: usize = 19 + 9;
        let bytes = &mut self.out.bytes;
        let room = bytes.capacity() - bytes.len();
        if room < LARGEST {
            bytes.reserve_exact(room + step.max(LARGEST));
        }
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The newest sample; meaningless while the chunk is empty.
    pub fn last(&self) -> Sample {
        self.last
    }

    /// The chunk so far, valid after every append.
    pub fn bytes(&self) -> &[u8] {
        &self.out.bytes
    }
}
