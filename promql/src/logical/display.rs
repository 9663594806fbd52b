//! How specs read in `EXPLAIN`: like the PromQL they came from.

use std::fmt;

use promontory_tsdb::METRIC_NAME;
use promontory_tsdb::MatchOp;

use super::spec::{
    Grouping, KeyOutput, RangeFunction, SampleRead, SelectorSpec, SubquerySpec, TimeView, Window,
};
use crate::params::Grid;

/// `[start..end step 15000ms, 240 steps in tiles of 128]`, or `[t]` for an instant.
impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.steps == 1 {
            return write!(f, "[{}]", self.start);
        }
        let (end, Self { start, step, steps, tile_steps }) = (self.end(), self);
        write!(f, "[{start}..{end} step {step}ms, {steps} steps in tiles of {tile_steps}]")
    }
}

/// ` offset 60000ms @ 1000ms`; nothing for the plain view.
impl fmt::Display for TimeView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.offset_ms != 0 {
            write!(f, " offset {}ms", self.offset_ms)?;
        }
        self.at.map_or(Ok(()), |at| write!(f, " @ {at}ms"))
    }
}

/// `by (job)` or `without (instance)`.
impl fmt::Display for Grouping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.without { "without" } else { "by" };
        write!(f, "{word} ({})", self.labels.join(", "))
    }
}

/// What the key holds.
impl fmt::Display for KeyOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("labels"),
            Self::DropName => f.write_str("labels without name"),
            Self::Group(grouping) => grouping.fmt(f),
        }
    }
}

/// The function's PromQL name.
impl fmt::Display for RangeFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // PromQL names are the variants in snake case.
        for (i, c) in format!("{self:?}").chars().enumerate() {
            if c.is_ascii_uppercase() && i > 0 {
                f.write_str("_")?;
            }
            write!(f, "{}", c.to_ascii_lowercase())?;
        }
        Ok(())
    }
}

/// `rate(up{job="x"}[300000ms] offset 60000ms) key=by (job) grid=…`
impl fmt::Display for SelectorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.window {
            Window::Instant { read: SampleRead::Timestamp | SampleRead::FloatTimestamp, .. } => {
                f.write_str("timestamp(")?
            }
            Window::Instant { read: SampleRead::StartTimestamp, .. } => f.write_str("start_timestamp(")?,
            Window::Instant { read: SampleRead::Value, .. } | Window::Smoothed { .. } => {}
            Window::Range { function, .. } => write!(f, "{function}(")?,
        }
        let is_name = |m: &&promontory_tsdb::Matcher| m.name() == METRIC_NAME && m.op() == MatchOp::Eq;
        if let Some(name) = self.matchers.iter().find(is_name) {
            f.write_str(name.value())?;
        }
        let rest = self.matchers.iter().filter(|m| !is_name(m)).map(ToString::to_string).collect::<Vec<_>>();
        if !rest.is_empty() {
            write!(f, "{{{}}}", rest.join(","))?;
        }
        match self.window {
            Window::Instant { lookback_ms, read } => {
                let close = if read == SampleRead::Value { "" } else { ")" };
                write!(f, "{}{close} lookback={lookback_ms}ms", self.view)?;
            }
            Window::Smoothed { lookback_ms } => write!(f, "{} smoothed lookback={lookback_ms}ms", self.view)?,
            Window::Range { range_ms, extension, use_starts, .. } => {
                write!(f, "[{range_ms}ms]{}", self.view)?;
                if let Some(extension) = extension {
                    write!(f, " {} by {}ms", extension.kind.name(), extension.lookback_ms)?;
                }
                f.write_str(")")?;
                if use_starts {
                    f.write_str(" with start timestamps")?;
                }
            }
        }
        if self.distinct {
            f.write_str(" distinct")?;
        }
        if self.counters.is_some() {
            f.write_str(" counters")?;
        }
        write!(f, " key={} grid={}", self.output, self.grid)
    }
}

/// `max_over_time([3600000ms]) inner=… key=… grid=…`
impl fmt::Display for SubquerySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inner, grid, view, range_ms, function, output, position: _, counted: _ } = self;
        write!(f, "{function}([{range_ms}ms:{}ms]{view}) key={output} grid={grid} inner={inner}", inner.step)
    }
}
