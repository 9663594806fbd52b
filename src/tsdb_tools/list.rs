//! `promontory tsdb list`: the blocks of a data directory as a table.

use std::io::{self, Write};

use promontory_tsdb::block::Block;

use super::text::{base2_bytes, go_duration, go_time, put_table};
use super::{ListArgs, ToolError, open_blocks};

pub(super) fn list(args: &ListArgs, out: &mut dyn Write) -> Result<(), ToolError> {
    let blocks = open_blocks(&args.db_path)?;
    Ok(put_blocks(out, &blocks, true, args.human_readable)?)
}

/// A line for each block, below a header if there is to be one.
pub(super) fn put_blocks(
    out: &mut dyn Write,
    blocks: &[Block],
    with_header: bool,
    human_readable: bool,
) -> io::Result<()> {
    const HEADER: [&str; 8] =
        ["BLOCK ULID", "MIN TIME", "MAX TIME", "DURATION", "NUM SAMPLES", "NUM CHUNKS", "NUM SERIES", "SIZE"];
    let mut rows = Vec::new();
    if with_header {
        rows.push(HEADER.map(str::to_owned));
    }
    let time = |ms: i64| if human_readable { go_time(ms) } else { ms.to_string() };
    let size = |bytes: u64| if human_readable { base2_bytes(bytes) } else { bytes.to_string() };
    rows.extend(blocks.iter().map(|block| {
        let meta = block.meta();
        [
            meta.ulid.to_string(),
            time(meta.min_time),
            time(meta.max_time),
            go_duration(meta.max_time - meta.min_time),
            meta.stats.num_samples.to_string(),
            meta.stats.num_chunks.to_string(),
            meta.stats.num_series.to_string(),
            size(block.bytes()),
        ]
    }));
    put_table(out, &rows)
}
