//! Any bytes are a page or an error, in both formats.
#![no_main]

use libfuzzer_sys::fuzz_target;
use promontory::exposition::{Entry, Format, Parser};
use promontory_tsdb::LabelsBuilder;

fuzz_target!(|data: &[u8]| {
    for format in [Format::PrometheusText, Format::OpenMetrics] {
        for entry in Parser::new(format, data) {
            if let Ok(Entry::Series(series)) = entry {
                let _ = series.labels_into(&mut LabelsBuilder::default());
            }
        }
    }
});
