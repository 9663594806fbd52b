//! Deep trees on small stacks.
//!
//! An expression of twenty thousand terms is a plan as deep, and planning, running and dropping it
//! recurse. Whoever recurses does so through [`deeper`], which moves to a fresh piece of stack when
//! little is left.

use std::pin::Pin;
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use datafusion::error::Result;
use futures::Stream;
use futures::stream::BoxStream;

/// Stack that must be left, and how much is added otherwise.
const RED_ZONE_BYTES: usize = 256 * 1024;
const SEGMENT_BYTES: usize = 4 * 1024 * 1024;

/// Runs `f` with enough stack.
pub(crate) fn deeper<R>(f: impl FnOnce() -> R) -> R {
    stacker::maybe_grow(RED_ZONE_BYTES, SEGMENT_BYTES, f)
}

/// Runs `f`, which recurses over a tree of `depth` levels without asking for more stack on the way.
pub(crate) fn as_deep_as<R>(depth: usize, f: impl FnOnce() -> R) -> R {
    const LEVEL_BYTES: usize = 32 * 1024;
    if depth < 32 { f() } else { stacker::grow(SEGMENT_BYTES + depth * LEVEL_BYTES, f) }
}

/// A stream that is polled and dropped with enough stack.
pub(crate) struct DeepStream {
    inner: Option<BoxStream<'static, Result<RecordBatch>>>,
}

impl DeepStream {
    pub(crate) fn new(inner: BoxStream<'static, Result<RecordBatch>>) -> Self {
        Self { inner: Some(inner) }
    }
}

impl Stream for DeepStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut self.inner {
            Some(inner) => deeper(|| inner.as_mut().poll_next(cx)),
            None => Poll::Ready(None),
        }
    }
}

impl Drop for DeepStream {
    fn drop(&mut self) {
        deeper(|| drop(self.inner.take()));
    }
}
