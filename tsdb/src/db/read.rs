//! Reads of head and blocks together.

use super::Db;
use crate::error::Result;
use crate::matcher::Matcher;
use crate::query::{Queryable, SelectHints, Selection, SeriesStats};
use crate::sample::TimestampMs;

impl Queryable for Db {
    fn select(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
        hints: &SelectHints,
    ) -> Result<Selection> {
        self.head.select(matchers, mint, maxt, hints)
    }

    fn label_names(&self, matchers: &[Matcher], mint: TimestampMs, maxt: TimestampMs) -> Result<Vec<String>> {
        self.head.label_names(matchers, mint, maxt)
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
    ) -> Result<Vec<String>> {
        self.head.label_values(name, matchers, mint, maxt)
    }

    fn series_stats(
        &self,
        matchers: &[Matcher],
        mint: TimestampMs,
        maxt: TimestampMs,
    ) -> Result<SeriesStats> {
        self.head.series_stats(matchers, mint, maxt)
    }

    fn time_bounds(&self) -> Option<(TimestampMs, TimestampMs)> {
        self.head.time_bounds()
    }
}
