//! Any bytes are a record of each kind or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use promontory_tsdb::wal::{RecordKind, RefSample, record};

fuzz_target!(|data: &[u8]| {
    drop(record::first_time(data));
    drop(RecordKind::of(data));
    let mut series = Vec::new();
    if record::decode_series(data, &mut series).is_ok() {
        let mut again = Vec::new();
        record::begin_series(&mut again);
        series.iter().for_each(|s| record::put_series(&mut again, s.series, &s.labels));
        let mut read = Vec::new();
        record::decode_series(&again, &mut read).expect("it was just written");
        assert_eq!(read, series);
    }
    let mut samples = Vec::new();
    if record::decode_samples(data, &mut samples).is_ok() {
        let mut again = Vec::new();
        record::encode_samples(&mut again, samples.iter().copied());
        let mut read = Vec::new();
        record::decode_samples(&again, &mut read).expect("it was just written");
        let bits = |s: &[RefSample]| s.iter().map(|s| (s.series, s.t, s.v.to_bits())).collect::<Vec<_>>();
        assert_eq!(bits(&read), bits(&samples));
    }
    let mut tombstones = Vec::new();
    if record::decode_tombstones(data, &mut tombstones).is_ok() {
        let mut again = Vec::new();
        record::encode_tombstones(&mut again, &tombstones);
        let mut read = Vec::new();
        record::decode_tombstones(&again, &mut read).expect("it was just written");
        assert_eq!(read, tombstones);
    }
});
