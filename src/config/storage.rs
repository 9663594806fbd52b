//! The `storage` section: how long samples are kept, and how many exemplars.

use promontory_tsdb::Retention;
use promontory_tsdb::chunkenc::Encoding;

use super::reader::{Item, Notes, Result, Section};

/// How the data directory is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StorageConfig {
    /// What is kept; comes before the flags as a whole: a limit that is left out here does not hold.
    pub retention: Option<Retention>,
    /// How much older than the newest sample a sample may be, ms; 0 takes samples in order only.
    pub out_of_order_window_ms: i64,
    /// How float chunks are encoded; `None` leaves it to the flags.
    pub float_encoding: Option<Encoding>,
    /// How many exemplars are kept in memory, if the feature is enabled; `None` is the default.
    pub exemplars_max: Option<usize>,
}

impl StorageConfig {
    /// What is kept if the command line says `flags`.
    pub fn retention_with(&self, flags: Retention) -> Retention {
        self.retention.unwrap_or(flags)
    }

    pub(super) fn read(mut section: Section, notes: &mut Notes) -> Result<Self> {
        let mut config = Self::default();
        if let Some(mut tsdb) = section.section(notes, "tsdb")? {
            tsdb.unserved(notes, "stale_series_compaction_threshold");
            if let Some(window) = tsdb.duration(notes, "out_of_order_time_window")? {
                config.out_of_order_window_ms = i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
            }
            if let Some(encoding) = tsdb.section(notes, "chunk_encoding")? {
                config.float_encoding = read_chunk_encoding(encoding, notes)?;
            }
            if let Some(retention) = tsdb.take("retention").filter(|item| !item.is_null()) {
                config.retention = Some(read_retention(retention.section(notes)?, notes)?);
            }
            tsdb.finish(notes)?;
        }
        if let Some(mut exemplars) = section.section(notes, "exemplars")? {
            if let Some(item) = exemplars.take("max_exemplars") {
                // Compat: what is not positive keeps none.
                let max: i64 = parsed(&item, notes, "a whole number")?;
                config.exemplars_max = Some(usize::try_from(max).unwrap_or(0));
            }
            exemplars.finish(notes)?;
        }
        section.finish(notes)?;
        Ok(config)
    }
}

fn read_retention(mut section: Section, notes: &mut Notes) -> Result<Retention> {
    let time = section.duration(notes, "time")?.filter(|time| !time.is_zero());
    let bytes = section.bytes(notes, "size")?.filter(|bytes| *bytes > 0);
    let mut percentage = None;
    if let Some(item) = section.take("percentage") {
        let percent: f64 = parsed(&item, notes, "a number")?;
        if !(0.0..=100.0).contains(&percent) {
            let reason =
                format!("'storage.tsdb.retention.percentage' must be in the range [0, 100], got {percent}");
            return Err(notes.error(&item.at, reason));
        }
        percentage = Some(percent).filter(|percent| *percent > 0.0);
        if percentage.is_some() && bytes.is_some() {
            notes.warn(&item.at, "counts instead of storage.tsdb.retention.size, which is ignored");
        }
    }
    section.finish(notes)?;
    let time_ms = time.map(|time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
    Ok(Retention { time_ms, bytes, percentage })
}

fn read_chunk_encoding(mut section: Section, notes: &Notes) -> Result<Option<Encoding>> {
    let mut encoding = None;
    if let Some(item) = section.take("floats") {
        match item.string(notes)?.as_str() {
            "" => {}
            "xor" => encoding = Some(Encoding::Xor),
            "xor2" => encoding = Some(Encoding::Xor2),
            other => {
                let reason = format!(
                    "'storage.tsdb.chunk_encoding.floats' must be 'xor' or 'xor2', or the field must be omitted \
                     entirely, got {other:?}"
                );
                return Err(notes.error(&item.at, reason));
            }
        }
    }
    section.finish(notes)?;
    Ok(encoding)
}

fn parsed<T: std::str::FromStr>(item: &Item, notes: &Notes, what: &str) -> Result<T> {
    let text = item.string(notes)?;
    text.parse().map_err(|_| notes.error(&item.at, format!("expected {what}, found {text:?}")))
}
