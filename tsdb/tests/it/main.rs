//! Behaviour of the storage as its users see it, one module per behaviour.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests fail and say what they skip as tests do"
)]

mod append_and_restart;
mod block_cut;
mod blocks;
mod compaction;
mod crash;
mod full_disk;
mod head_chunks;
mod histograms;
mod isolation;
mod model;
mod out_of_order;
mod peer;
mod prometheus_fixtures;
mod prometheus_logs;
mod prometheus_reads_everything;
mod prometheus_reads_ours;
mod read_only;
mod snapshots;
mod support;
mod vectors;
