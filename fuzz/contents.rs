//! Everything that a source answers.
#![allow(dead_code, reason = "every target needs some of it")]

use std::collections::BTreeMap;

use promontory_tsdb::{Labels, Queryable, Result, SelectHints};

/// Samples by series; values as bits.
pub type Contents = BTreeMap<Labels, Vec<(i64, u64)>>;

/// Asks for everything in every way. What is damaged gives an error; what is not, ascends.
pub fn read(source: &dyn Queryable) -> Result<Contents> {
    let all = (i64::MIN, i64::MAX);
    let mut out = Contents::new();
    for partition in source.select(&[], all.0, all.1, &SelectHints::default())?.partitions {
        for batch in futures::executor::block_on_stream(partition) {
            let batch = batch?;
            for i in 0..batch.len() {
                let (labels, times, values) = batch.series(i);
                assert!(times.windows(2).all(|w| w[0] < w[1]), "{labels} does not ascend");
                let samples = times.iter().copied().zip(values.iter().map(|v| v.to_bits())).collect();
                out.insert(labels.clone(), samples);
            }
        }
    }
    for name in source.label_names(&[], all.0, all.1)? {
        source.label_values(&name, &[], all.0, all.1)?;
    }
    source.series_stats(&[], all.0, all.1)?;
    source.series_estimate(&[], all.0, all.1)?;
    Ok(out)
}
