//! The `storage` section: how long samples are kept.

use std::time::Duration;

use super::reader::{Notes, Result, Section};

/// How the data directory is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StorageConfig {
    /// How long to keep samples; comes before `--storage.tsdb.retention.time`.
    pub retention_time: Option<Duration>,
    /// Whether the file limits the size of the data, which this build does not do. Without a time, nothing
    /// is deleted then: the default of 15 days is not what such a file asks for.
    pub retention_by_size: bool,
}

impl StorageConfig {
    /// How long to keep samples, ms; `None` keeps all. `flags_ms` is what the command line says, `given`
    /// whether that was asked for rather than being the default.
    pub fn retention_ms(&self, flags_ms: Option<i64>, given: bool) -> Option<i64> {
        match self.retention_time {
            Some(time) => Some(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)),
            None if self.retention_by_size && !given => None,
            None => flags_ms,
        }
    }

    pub(super) fn read(mut section: Section, notes: &mut Notes) -> Result<Self> {
        let mut config = Self::default();
        if let Some(mut tsdb) = section.section(notes, "tsdb")? {
            for key in ["out_of_order_time_window", "stale_series_compaction_threshold"] {
                tsdb.unserved(notes, key);
            }
            if let Some(retention) = tsdb.section(notes, "retention")? {
                config = Self::read_retention(retention, notes)?;
            }
            tsdb.finish(notes)?;
        }
        section.unserved(notes, "exemplars");
        section.finish(notes)?;
        Ok(config)
    }

    fn read_retention(mut section: Section, notes: &mut Notes) -> Result<Self> {
        // Compat: zero is "not given", as for the flag.
        let retention_time = section.duration(notes, "time")?.filter(|time| !time.is_zero());
        let mut retention_by_size = false;
        for key in ["size", "percentage"] {
            if let Some(item) = section.take(key)
                && item.string(notes)? != "0"
            {
                retention_by_size = true;
                notes.warn(
                    &item.at,
                    match retention_time {
                        Some(_) => "not supported yet; retention goes by time only",
                        None => "not supported yet; unless a retention time is given, nothing is deleted",
                    },
                );
            }
        }
        section.finish(notes)?;
        Ok(Self { retention_time, retention_by_size })
    }
}
