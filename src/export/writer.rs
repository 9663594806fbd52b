//! [`MetricFile`]: one Parquet file, written aside and put in place when it is complete.
//!
//! # Format
//! zstd 3; `timestamp` DELTA_BINARY_PACKED and `value` PLAIN, both without dictionary: the library's
//! defaults, a dictionary for either, cost three to six times the bytes on metrics, and
//! BYTE_STREAM_SPLIT came out slightly larger than PLAIN under zstd. Row groups of a million rows, pages
//! of 20,000, statistics and page index on, so that readers skip by time and by label.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use promontory_tsdb::{Labels, TimestampMs, fs, is_stale};

use super::columns::{Columns, TIMESTAMP, VALUE};
use super::{ExportError, FileSummary};

const ROW_GROUP_ROWS: usize = 1_000_000;
const PAGE_ROWS: usize = 20_000;
/// Rows handed to the Parquet writer at a time.
const BATCH_ROWS: usize = 64 * 1024;
/// A row group ends early at this size, so that many wide labels do not grow it without bound.
const ROW_GROUP_BYTES: usize = 256 * 1024 * 1024;

/// A file being written. Dropped before [`MetricFile::finish`], it leaves nothing behind.
pub(crate) struct MetricFile {
    metric: String,
    path: PathBuf,
    partial: Partial,
    writer: ArrowWriter<BufWriter<File>>,
    columns: Columns,
    series: u64,
    rows: u64,
}

/// The unfinished file; removed on drop unless it was put in place.
struct Partial(Option<PathBuf>);

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl MetricFile {
    pub(crate) fn create(metric: &str, label_names: Vec<String>, path: PathBuf) -> Result<Self, ExportError> {
        let columns = Columns::new(label_names);
        let partial_path = partial_path(&path);
        let file =
            File::create(&partial_path).map_err(promontory_tsdb::Error::io("create", &partial_path))?;
        let partial = Partial(Some(partial_path));
        let properties =
            properties(metric).map_err(|source| ExportError::Parquet { path: path.clone(), source })?;
        let writer = ArrowWriter::try_new(BufWriter::new(file), columns.schema().clone(), Some(properties))
            .map_err(|source| ExportError::Parquet { path: path.clone(), source })?;
        Ok(Self { metric: metric.to_owned(), path, partial, writer, columns, series: 0, rows: 0 })
    }

    /// Writes the samples of one series. Stale markers make no rows.
    pub(crate) fn write_series(
        &mut self,
        labels: &Labels,
        timestamps: &[TimestampMs],
        values: &[f64],
    ) -> Result<(), ExportError> {
        let before = self.rows;
        for (timestamps, values) in timestamps.chunks(BATCH_ROWS).zip(values.chunks(BATCH_ROWS)) {
            let held = self.columns.rows();
            let samples = timestamps.iter().copied().zip(values.iter().copied());
            self.columns.push(labels, samples.filter(|(_, v)| !is_stale(*v)));
            self.rows += (self.columns.rows() - held) as u64;
            if self.columns.rows() >= BATCH_ROWS {
                self.write_batch()?;
            }
        }
        self.series += u64::from(self.rows > before);
        Ok(())
    }

    /// Completes the file, syncs it and puts it in place. `None`, and no file, if there was no row.
    pub(crate) fn finish(mut self) -> Result<Option<FileSummary>, ExportError> {
        if self.rows == 0 {
            return Ok(None);
        }
        self.write_batch()?;
        let file = self
            .writer
            .into_inner()
            .and_then(|buffered| {
                buffered.into_inner().map_err(|e| ParquetError::External(Box::new(e.into_error())))
            })
            .map_err(|source| ExportError::Parquet { path: self.path.clone(), source })?;
        file.sync_all().map_err(promontory_tsdb::Error::io("sync", &self.path))?;
        let bytes = file.metadata().map_err(promontory_tsdb::Error::io("stat", &self.path))?.len();
        if let Some(partial) = self.partial.0.take() {
            fs::replace(&partial, &self.path)?;
        }
        Ok(Some(FileSummary {
            metric: self.metric,
            path: self.path,
            series: self.series,
            rows: self.rows,
            bytes,
        }))
    }

    fn write_batch(&mut self) -> Result<(), ExportError> {
        let result =
            self.columns.take().map_err(ParquetError::from).and_then(|batch| self.writer.write(&batch));
        result.map_err(|source| ExportError::Parquet { path: self.path.clone(), source })
    }
}

/// Beside the target, so that putting it in place is a rename.
fn partial_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.partial", std::process::id()));
    path.with_file_name(name)
}

fn properties(metric: &str) -> Result<WriterProperties, ParquetError> {
    let column = |name: &str| ColumnPath::new(vec![name.to_owned()]);
    Ok(WriterProperties::builder()
        .set_created_by(concat!("promontory ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_key_value_metadata(Some(vec![KeyValue::new("promontory.metric".to_owned(), metric.to_owned())]))
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_column_dictionary_enabled(column(TIMESTAMP), false)
        .set_column_encoding(column(TIMESTAMP), Encoding::DELTA_BINARY_PACKED)
        .set_column_dictionary_enabled(column(VALUE), false)
        .set_column_encoding(column(VALUE), Encoding::PLAIN)
        .build())
}
