//! Fields that several encodings share: varbit numbers, XORed floats, start timestamps.

use super::ChunkError;
use super::bits::{BitReader, BitWriter, Window, lopsided};
use crate::encoding::zigzag;
use crate::sample::TimestampMs;

/// Payload widths of a varbit number by the number of leading ones of its prefix.
const WIDTHS: [u32; 9] = [0, 3, 6, 9, 12, 18, 25, 56, 64];

/// Length of the prefix with that many ones.
fn prefix_length(ones: u32) -> u32 {
    (ones + 1).min(8)
}

impl BitWriter {
    /// A signed varbit number.
    ///
    /// Compat: n bits hold −(2ⁿ⁻¹ − 1) … 2ⁿ⁻¹, as in XOR chunks.
    pub(super) fn put_varbit(&mut self, v: i64) {
        let class = (0..8).find(|c| match WIDTHS[*c] {
            0 => v == 0,
            n => -((1 << (n - 1)) - 1) <= v && v <= 1 << (n - 1),
        });
        self.put_class(class, v as u64);
    }

    /// An unsigned varbit number.
    pub(super) fn put_uvarbit(&mut self, v: u64) {
        self.put_class((0..8).find(|c| v >> WIDTHS[*c] == 0), v);
    }

    #[inline]
    fn put_class(&mut self, class: Option<usize>, v: u64) {
        let Some(class) = class else {
            self.put(0xff, 8);
            return self.put(v, 64);
        };
        let n = WIDTHS[class];
        // As many ones as the class, then a zero.
        let prefix = (1u64 << (class + 1)) - 2;
        self.put(prefix << n | v & ((1 << n) - 1), class as u32 + 1 + n);
    }
}

impl BitReader<'_> {
    /// What [`BitWriter::put_varbit`] wrote.
    #[inline]
    pub(super) fn varbit(&mut self) -> i64 {
        let word = self.peek();
        // The usual classes have branches: the next position is then known once the branch is predicted,
        // not only once this word was looked at.
        if word >> 63 == 0 {
            self.skip(1);
            return 0;
        }
        if word >> 62 == 0b10 {
            self.skip(5);
            return lopsided(word << 2, 3);
        }
        let ones = word.leading_ones().min(8);
        let (prefix, n) = (prefix_length(ones), WIDTHS[ones as usize]);
        match n {
            64 => {
                self.skip(8);
                self.take(64) as i64
            }
            n => {
                self.skip((prefix + n) as usize);
                lopsided(word << prefix, n)
            }
        }
    }

    /// What [`BitWriter::put_uvarbit`] wrote.
    pub(super) fn uvarbit(&mut self) -> u64 {
        let word = self.peek();
        let ones = word.leading_ones().min(8);
        let (prefix, n) = (prefix_length(ones), WIDTHS[ones as usize]);
        match n {
            0 => {
                self.skip(1);
                0
            }
            64 => {
                self.skip(8);
                self.take(64)
            }
            n => {
                self.skip((prefix + n) as usize);
                word << prefix >> (64 - n)
            }
        }
    }
}

/// A float that is stored as the bits in which it differs from the one before.
#[derive(Debug, Clone, Copy)]
pub(super) struct XorField {
    pub(super) bits: u64,
    /// `None` before a window was written or read.
    window: Option<Window>,
}

impl XorField {
    /// The first value of a field, which is stored as it is.
    pub(super) fn new(v: f64) -> Self {
        Self { bits: v.to_bits(), window: None }
    }

    pub(super) fn value(&self) -> f64 {
        f64::from_bits(self.bits)
    }

    pub(super) fn write(&mut self, out: &mut BitWriter, v: f64) {
        let xor = v.to_bits() ^ self.bits;
        self.bits = v.to_bits();
        if xor == 0 {
            return out.put(0, 1);
        }
        Window::write(&mut self.window, out, xor, (0b10, 2), (0b11, 2));
    }

    #[inline]
    pub(super) fn read(&mut self, bits: &mut BitReader<'_>) -> Result<(), ChunkError> {
        let word = bits.peek();
        if word >> 63 == 0 {
            bits.skip(1);
            return Ok(());
        }
        if word >> 62 == 0b11 {
            let Some(window) = Window::parse(word << 2) else {
                return Err(bits.error("value window is wider than a value"));
            };
            self.window = Some(window);
            bits.skip(13);
        } else {
            bits.skip(2);
        }
        self.bits ^= self.window.unwrap_or(Window::WHOLE).read(bits);
        Ok(())
    }
}

/// Byte of the header that says which samples have start timestamps.
const HEADER_BYTE: usize = 2;
/// Flag there: the first sample has one.
const FIRST_KNOWN: u8 = 0x80;
/// Index of the last sample from which start timestamps may be stored, for want of header bits.
const LAST_FROM: u8 = 0x7f;

/// Start timestamps, behind each sample of the encodings that have them.
///
/// Stored is how long before the *previous* sample the start was, and of that only the changes. The
/// first sample stores its own distance. Nothing is stored up to the first change.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct StartTimestamps {
    /// The newest, ms; 0 is none.
    pub(super) newest: TimestampMs,
    /// Time of the previous sample less start, as last stored.
    distance: i64,
    /// Whether the first sample has one.
    first_known: bool,
    /// Index of the first later sample that has one, 0 if none.
    from: u8,
}

impl StartTimestamps {
    /// What the header of a chunk says.
    pub(super) fn open(header: u8) -> Self {
        let (first_known, from) = (header & FIRST_KNOWN != 0, header & !FIRST_KNOWN);
        Self { first_known, from, ..Self::default() }
    }

    /// Prepares for writing sample `count` of a chunk, which are `bytes`. What its header says about samples that
    /// are not there yet is taken back: a damaged one may say anything.
    pub(super) fn resume(&mut self, bytes: &mut [u8], count: u16) {
        if count == 0 && self.first_known {
            self.first_known = false;
            bytes[HEADER_BYTE] &= !FIRST_KNOWN;
        }
        if self.from > 0 && u16::from(self.from) >= count {
            self.from = 0;
            bytes[HEADER_BYTE] &= FIRST_KNOWN;
        }
    }

    /// Whether the chunk stores any.
    pub(super) fn any(&self) -> bool {
        self.first_known || self.from > 0
    }

    /// Writes the start timestamp of sample `index`, at `t` after one at `before`.
    pub(super) fn write(
        &mut self,
        out: &mut BitWriter,
        index: u16,
        before: TimestampMs,
        t: TimestampMs,
        start: TimestampMs,
    ) {
        let distance = before.wrapping_sub(start);
        if index == 0 {
            if start != 0 {
                out.put_uvarint(zigzag(t.wrapping_sub(start)));
                self.first_known = true;
                out.bytes[HEADER_BYTE] = FIRST_KNOWN;
            }
        } else if self.from > 0 {
            out.put_varbit(distance.wrapping_sub(self.distance));
            self.distance = distance;
        } else if index <= u16::from(LAST_FROM) && (start != self.newest || index == u16::from(LAST_FROM)) {
            // The header has no room for a later index, so there it is stored even if nothing changed.
            self.from = index as u8;
            out.bytes[HEADER_BYTE] |= self.from;
            out.put_varbit(distance);
            self.distance = distance;
        }
        self.newest = start;
    }

    /// Reads the start timestamp of sample `index`, at `t` after one at `before`.
    #[inline]
    pub(super) fn read(
        &mut self,
        bits: &mut BitReader<'_>,
        index: usize,
        before: TimestampMs,
        t: TimestampMs,
    ) -> Result<(), ChunkError> {
        if index == 0 {
            if self.first_known {
                self.newest = t.wrapping_sub(bits.varint()?);
            }
        } else if self.from > 0 && index >= usize::from(self.from) {
            // The first one is a change from zero.
            self.distance = self.distance.wrapping_add(bits.varbit());
            self.newest = before.wrapping_sub(self.distance);
        }
        Ok(())
    }
}
