//! Decodes chunks that overlap or are partly deleted, and encodes what is left of them anew.
//!
//! # Source
//! Chunks are cut as by `seriesToChunkEncoder` of
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/storage/series.go>. Difference: float chunks stay
//! XOR2 if one of the sources was, and all get room for start timestamps if one sample has one.

use super::compact::{MergedChunk, Piece, Source};
use crate::chunkenc::histogram::{Appended, ChunkAppender, Coder, FloatCoder, IntegerCoder};
use crate::chunkenc::{self, Decoded, Encoding, xor, xor2};
use crate::error::{Error, Result};
use crate::histogram::HistogramValue;
use crate::sample::TimestampMs;

/// Most samples of a chunk that is encoded anew.
const CHUNK_SAMPLES: usize = 120;

/// Merges samples; keeps its memory from one series to the next.
#[derive(Debug, Default)]
pub(super) struct Recoder {
    decoded: Decoded,
    samples: Vec<AnySample>,
}

/// A sample of either kind.
#[derive(Debug)]
struct AnySample {
    t: TimestampMs,
    /// Which source it is from; the first counts.
    source: usize,
    /// Which piece of the run it is from.
    piece: usize,
    start: TimestampMs,
    value: AnyValue,
}

#[derive(Debug)]
enum AnyValue {
    Float(f64),
    Histogram(HistogramValue),
}

impl Recoder {
    /// Appends to `out` chunks with the samples of `run` that go to the new block, in ascending time; of two
    /// at one time, the one from the first source counts.
    pub(super) fn recode(
        &mut self,
        sources: &[Source<'_>],
        run: &[Piece],
        out: &mut Vec<MergedChunk<'_>>,
    ) -> Result<()> {
        self.samples.clear();
        let mut xor2 = false;
        for (i, piece) in run.iter().enumerate() {
            let source = &sources[piece.source];
            let encoding = self.decode(source, piece)?;
            xor2 |= encoding == Encoding::Xor2;
            self.take(source, piece, i);
        }
        self.samples.sort_by_key(|s| (s.t, s.source));
        self.samples.dedup_by_key(|s| s.t);
        let starts = self.samples.iter().any(|s| s.start != 0);
        let mut writer = Chunks { out, open: None, xor2: xor2 || starts, starts };
        let mut before = None;
        for sample in self.samples.drain(..) {
            let consecutive = before.replace(sample.piece) == Some(sample.piece);
            let added = match sample.value {
                AnyValue::Float(v) => {
                    writer.add_float(sample.t, sample.start, v);
                    Ok(())
                }
                AnyValue::Histogram(mut h) => {
                    if !consecutive {
                        // What it is to the one before it in its own chunk says nothing about another.
                        h.forget_hint();
                    }
                    writer.add_histogram(sample.t, sample.start, &h)
                }
            };
            added
                .map_err(|reason| damaged(&sources[run[sample.piece].source], &run[sample.piece], reason))?;
        }
        writer.close();
        Ok(())
    }

    fn decode(&mut self, source: &Source<'_>, piece: &Piece) -> Result<Encoding> {
        let (encoding, data) = source.chunk(piece)?;
        let Decoded { timestamps, values, start_timestamps, histograms } = &mut self.decoded;
        timestamps.clear();
        values.clear();
        start_timestamps.clear();
        histograms.clear();
        chunkenc::decode(encoding, data, &mut self.decoded)
            .map_err(|e| damaged(source, piece, e.to_string()))?;
        Ok(encoding)
    }

    /// Moves the decoded samples that go to the new block.
    fn take(&mut self, source: &Source<'_>, piece: &Piece, i: usize) {
        let Decoded { timestamps, values, start_timestamps, histograms } = &mut self.decoded;
        let sample = |t, start, value| AnySample { t, source: piece.source, piece: i, start, value };
        let starts = start_timestamps.iter().copied().chain(std::iter::repeat(0));
        let floats = timestamps.iter().zip(&*values).zip(starts);
        let floats = floats.filter(|((t, _), _)| source.keeps(piece, **t));
        self.samples.extend(floats.map(|((t, v), start)| sample(*t, start, AnyValue::Float(*v))));
        let histograms = histograms.drain(..).filter(|h| source.keeps(piece, h.timestamp));
        self.samples.extend(
            histograms.map(|h| sample(h.timestamp, h.start_timestamp, AnyValue::Histogram(h.histogram))),
        );
    }
}

fn damaged(source: &Source<'_>, piece: &Piece, reason: String) -> Error {
    match source.block.chunks().file(piece.meta.reference) {
        Ok(file) => Error::corrupt(file, u64::from(piece.meta.reference.offset()), reason),
        Err(e) => e,
    }
}

/// Cuts samples into chunks.
struct Chunks<'o, 'b> {
    out: &'o mut Vec<MergedChunk<'b>>,
    open: Option<Open>,
    /// Whether floats are encoded as XOR2.
    xor2: bool,
    /// Whether histograms are encoded with start timestamps.
    starts: bool,
}

/// The chunk that samples go to.
struct Open {
    mint: TimestampMs,
    maxt: TimestampMs,
    samples: usize,
    appender: AnyAppender,
}

enum AnyAppender {
    Xor(xor::Appender),
    Xor2(xor2::Appender),
    Integer(ChunkAppender<IntegerCoder>),
    Float(ChunkAppender<FloatCoder>),
}

impl Chunks<'_, '_> {
    fn add_float(&mut self, t: TimestampMs, start: TimestampMs, v: f64) {
        let of_floats = |a: &AnyAppender| matches!(a, AnyAppender::Xor(_) | AnyAppender::Xor2(_));
        let xor2 = self.xor2;
        let open = self.open_for(t, of_floats, || {
            if xor2 {
                AnyAppender::Xor2(xor2::Appender::new())
            } else {
                AnyAppender::Xor(xor::Appender::new())
            }
        });
        match &mut open.appender {
            AnyAppender::Xor(a) => a.append(t, v),
            AnyAppender::Xor2(a) => a.append(start, t, v),
            AnyAppender::Integer(_) | AnyAppender::Float(_) => {}
        }
        open.grow(t);
    }

    fn add_histogram(
        &mut self,
        t: TimestampMs,
        start: TimestampMs,
        value: &HistogramValue,
    ) -> Result<(), String> {
        let starts = self.starts;
        match value {
            HistogramValue::Integer(h) => {
                let of_kind = |a: &AnyAppender| matches!(a, AnyAppender::Integer(_));
                let open = self.open_for(t, of_kind, || AnyAppender::Integer(ChunkAppender::new(starts)));
                let next = match &mut open.appender {
                    AnyAppender::Integer(a) => append(a, t, start, h)?.map(AnyAppender::Integer),
                    _ => None,
                };
                self.appended(t, next);
            }
            HistogramValue::Float(h) => {
                let of_kind = |a: &AnyAppender| matches!(a, AnyAppender::Float(_));
                let open = self.open_for(t, of_kind, || AnyAppender::Float(ChunkAppender::new(starts)));
                let next = match &mut open.appender {
                    AnyAppender::Float(a) => append(a, t, start, h)?.map(AnyAppender::Float),
                    _ => None,
                };
                self.appended(t, next);
            }
        }
        Ok(())
    }

    /// The open chunk if it takes such a sample, or else a new one.
    fn open_for(
        &mut self,
        t: TimestampMs,
        fits: impl Fn(&AnyAppender) -> bool,
        new: impl FnOnce() -> AnyAppender,
    ) -> &mut Open {
        if !self.open.as_ref().is_some_and(|o| o.samples < CHUNK_SAMPLES && fits(&o.appender)) {
            self.close();
        }
        self.open.get_or_insert_with(|| Open { mint: t, maxt: t, samples: 0, appender: new() })
    }

    /// Counts a histogram that went to the open chunk, or to the `next` one.
    fn appended(&mut self, t: TimestampMs, next: Option<AnyAppender>) {
        match next {
            Some(appender) => {
                self.close();
                self.open = Some(Open { mint: t, maxt: t, samples: 1, appender });
            }
            None => {
                if let Some(open) = &mut self.open {
                    open.grow(t);
                }
            }
        }
    }

    fn close(&mut self) {
        let Some(Open { mint, maxt, samples, appender }) = self.open.take() else { return };
        if samples == 0 {
            return;
        }
        let (encoding, bytes) = match appender {
            AnyAppender::Xor(a) => (Encoding::Xor, a.into_bytes()),
            AnyAppender::Xor2(a) => (Encoding::Xor2, a.into_bytes()),
            AnyAppender::Integer(a) => (a.encoding(), a.into_bytes()),
            AnyAppender::Float(a) => (a.encoding(), a.into_bytes()),
        };
        self.out.push(MergedChunk { mint, maxt, encoding, bytes: bytes.into() });
    }
}

impl Open {
    fn grow(&mut self, t: TimestampMs) {
        self.maxt = t;
        self.samples += 1;
    }
}

/// Appends to the chunk, or gives the next one that the sample had to go to.
fn append<C: Coder>(
    appender: &mut ChunkAppender<C>,
    t: TimestampMs,
    start: TimestampMs,
    value: &C::Value,
) -> Result<Option<ChunkAppender<C>>, String> {
    match appender.append(None, t, start, value) {
        Ok(Appended::InPlace | Appended::Recoded) => Ok(None),
        Ok(Appended::NewChunk(next)) => Ok(Some(*next)),
        Err(e) => Err(format!("histogram at {t}: {e}")),
    }
}
