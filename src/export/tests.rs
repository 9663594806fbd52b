use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int32Type, TimestampMillisecondType};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, Encoding};
use promontory_tsdb::memory::MemoryStorage;
use promontory_tsdb::{Labels, stale_nan};

use super::*;

type LabelPairs<'a> = &'a [(&'a str, &'a str)];

fn storage(samples: &[(LabelPairs<'_>, i64, f64)]) -> Arc<dyn Queryable> {
    let storage = MemoryStorage::new();
    for (labels, t, v) in samples {
        storage.append(&Labels::from_pairs(labels.iter().copied()), *t, *v).unwrap();
    }
    Arc::new(storage)
}

fn args(out: &std::path::Path, matches: &[&str]) -> ExportArgs {
    ExportArgs {
        data_dir: PathBuf::new(),
        matches: matches.iter().map(|m| parse_selector(m).unwrap()).collect(),
        start: None,
        end: None,
        out: out.to_path_buf(),
    }
}

/// Rows as `ms value label=… label=…`, labels without a value left out.
fn rows(path: &std::path::Path) -> Vec<String> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(path).unwrap()).unwrap();
    reader.build().unwrap().flat_map(|batch| batch_rows(&batch.unwrap())).collect()
}

fn batch_rows(batch: &RecordBatch) -> Vec<String> {
    let schema = batch.schema();
    let times = batch.column(0).as_primitive::<TimestampMillisecondType>();
    let values = batch.column(1).as_primitive::<Float64Type>();
    (0..batch.num_rows())
        .map(|row| {
            let mut text = format!("{} {}", times.value(row), values.value(row));
            for (field, column) in schema.fields().iter().zip(batch.columns()).skip(2) {
                let column = column.as_dictionary::<Int32Type>();
                if let Some(key) = column.key(row) {
                    text += &format!(" {}={}", field.name(), column.values().as_string::<i32>().value(key));
                }
            }
            text
        })
        .collect()
}

#[test]
fn a_metric_becomes_one_file_sorted_by_series_then_time() {
    let dir = tempfile::tempdir().unwrap();
    let source = storage(&[
        (&[("__name__", "up"), ("job", "b")], 1_000, 1.0),
        (&[("__name__", "up"), ("job", "a"), ("zone", "x")], 1_000, 2.0),
        (&[("__name__", "up"), ("job", "a"), ("zone", "x")], 2_000, stale_nan()),
        (&[("__name__", "up"), ("job", "a"), ("zone", "x")], 3_000, f64::NAN),
        (&[("__name__", "other"), ("timestamp", "t")], 1_000, 5.0),
    ]);
    let summary = export(&source, &args(dir.path(), &["up", "{__name__=~\"up|other\"}"])).unwrap();
    assert_eq!(
        rows(&dir.path().join("up.parquet")),
        ["1000 2 job=a zone=x", "3000 NaN job=a zone=x", "1000 1 job=b"]
    );
    assert_eq!(rows(&dir.path().join("other.parquet")), ["1000 5 label_timestamp=t"]);
    let counts: Vec<_> = summary.files.iter().map(|f| (f.metric.as_str(), f.series, f.rows)).collect();
    assert_eq!(counts, [("other", 1, 1), ("up", 2, 3)]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "no partial file stays");
}

#[test]
fn the_range_is_closed_and_metrics_without_a_row_get_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let labels: LabelPairs<'_> = &[("__name__", "up")];
    let gone: LabelPairs<'_> = &[("__name__", "gone")];
    let source = storage(&[(labels, 1, 1.0), (labels, 2, 2.0), (labels, 3, 3.0), (gone, 2, stale_nan())]);
    let mut args = args(dir.path(), &["{__name__!=\"\"}"]);
    (args.start, args.end) = (Some(2), Some(3));
    let summary = export(&source, &args).unwrap();
    assert_eq!(rows(&dir.path().join("up.parquet")), ["2 2", "3 3"]);
    assert_eq!(summary.files.len(), 1);
    (args.start, args.end) = (Some(3), Some(2));
    assert!(matches!(export(&source, &args), Err(ExportError::EmptyRange { .. })));
}

#[test]
fn columns_are_encoded_small_and_carry_statistics() {
    let dir = tempfile::tempdir().unwrap();
    let storage = MemoryStorage::new();
    for job in ["a", "b"] {
        let labels = Labels::from_pairs([("__name__", "x_total"), ("job", job)]);
        for i in 0..50_000 {
            storage.append(&labels, i * 15_000, (i * 3) as f64).unwrap();
        }
    }
    let source: Arc<dyn Queryable> = Arc::new(storage);
    let summary = export(&source, &args(dir.path(), &["x_total"])).unwrap();
    assert!(summary.bytes() < summary.rows() * 4, "{} bytes for {} rows", summary.bytes(), summary.rows());
    let file = std::fs::File::open(dir.path().join("x_total.parquet")).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let group = reader.metadata().row_group(0);
    let encodings = |i: usize| group.column(i).encodings().collect::<Vec<_>>();
    assert!(
        encodings(0).contains(&Encoding::DELTA_BINARY_PACKED)
            && group.column(0).dictionary_page_offset().is_none()
    );
    assert!(encodings(1).contains(&Encoding::PLAIN) && group.column(1).dictionary_page_offset().is_none());
    assert!(group.column(2).dictionary_page_offset().is_some());
    for column in group.columns() {
        assert!(matches!(column.compression(), Compression::ZSTD(_)) && column.statistics().is_some());
    }
}
