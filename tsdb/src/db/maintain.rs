//! Carries out what [`super::plan`] decides.

use super::{Db, plan};
use crate::error::{Error, Result};

/// What a maintenance pass did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Maintenance {
    /// Names of blocks that were cut from the head.
    pub blocks_cut: Vec<String>,
    /// Names of blocks that retention deleted.
    pub blocks_deleted: Vec<String>,
    /// Series that the head forgot.
    pub series_removed: u64,
    /// Last segment of the checkpoint that was written, if one was.
    pub checkpoint: Option<u32>,
}

pub(super) fn run(db: &Db) -> Result<Maintenance> {
    let _pass = db.maintenance.lock();
    if plan::next_cut(db.head.bounds(), db.head.ooo_min_time(), db.head.block_range_ms()).is_some() {
        return Err(Error::Unsupported("cutting a block from the head".into()));
    }
    Ok(Maintenance::default())
}
