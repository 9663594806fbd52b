//! The `promontory` binary.

fn main() {}
