//! `SetOperator`: `and`, `or`, `unless`, decided step by step.

use std::collections::HashMap;
use std::fmt;

use datafusion::error::DataFusionError;

use super::key::{Interner, PerKey, Signature};
use super::rows::{Merger, Row, TileWriter, same_labelset};
use super::{Evaluate, Scope};
use crate::context::{HeldBytes, Pace, QueryContext};
use crate::error::QueryError;
use crate::parser::BinaryOp;

/// A set operator: the left side's samples, kept or dropped by what the right side has with the same
/// signature at the same step; `or` adds the right side's samples where the left has none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SetOperator {
    /// `And`, `Or` or `Unless`.
    pub op: BinaryOp,
    /// What belongs together.
    pub signature: Signature,
}

impl fmt::Display for SetOperator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.op.symbol(), self.signature)
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", if self.on { "on" } else { "ignoring" }, self.labels.join(", "))
    }
}

/// Signatures and presence of one side.
#[derive(Debug, Default)]
struct Side {
    /// Signature of each row.
    signatures: Vec<u32>,
    /// Steps at which the signature has a sample.
    present: HashMap<(u32, u32), u128>,
}

impl Side {
    fn new(
        rows: &[Row<'_>],
        signature: &Signature,
        ids: &mut Interner,
        (context, held): (&QueryContext, &mut HeldBytes<&QueryContext>),
    ) -> Result<Self, QueryError> {
        let mut pace = Pace::new(context);
        let mut known = PerKey::new();
        let mut side = Self::default();
        for row in rows {
            pace.step(1)?;
            held.grow_to(ids.bytes())?;
            let id = known.get(row.key, |key| ids.id(&signature.of(key)));
            side.signatures.push(id);
            *side.present.entry((row.tile, id)).or_default() |= row.any();
        }
        Ok(side)
    }

    fn present(&self, tile: u32, signature: u32) -> u128 {
        self.present.get(&(tile, signature)).copied().unwrap_or(0)
    }
}

impl Evaluate for SetOperator {
    fn name(&self) -> &'static str {
        "SetOperator"
    }

    fn vector_inputs(&self) -> usize {
        2
    }

    fn run(
        &self,
        scope: Scope<'_>,
        vectors: &[Vec<Row<'_>>],
        out: &mut TileWriter<'_>,
    ) -> Result<(), DataFusionError> {
        let mut ids = Interner::default();
        let (context, mut held) = (scope.context, HeldBytes::new(scope.context));
        let left = Side::new(&vectors[0], &self.signature, &mut ids, (context, &mut held))?;
        let right = Side::new(&vectors[1], &self.signature, &mut ids, (context, &mut held))?;
        if self.op == BinaryOp::Or {
            return or(vectors, &left, &right, scope.context, out);
        }
        for (row, signature) in vectors[0].iter().zip(&left.signatures) {
            let other = right.present(row.tile, *signature);
            let keep = if self.op == BinaryOp::And { other } else { !other };
            out.pass(row, row.key, keep)?;
        }
        Ok(())
    }
}

/// A series may stand on both sides, at different steps: rows are laid over each other.
fn or(
    vectors: &[Vec<Row<'_>>],
    left: &Side,
    right: &Side,
    context: &QueryContext,
    out: &mut TileWriter<'_>,
) -> Result<(), DataFusionError> {
    let mut pace = Pace::new(context);
    let mut merger = Merger::new(out.width(), context);
    for row in &vectors[0] {
        pace.step(1)?;
        merger.fits()?;
        if merger.add_row(row, row.key, u128::MAX) != 0 {
            return Err(same_labelset().into());
        }
    }
    for (row, signature) in vectors[1].iter().zip(&right.signatures) {
        pace.step(1)?;
        merger.fits()?;
        let alone = !left.present(row.tile, *signature);
        if merger.add_row(row, row.key, alone) != 0 {
            return Err(same_labelset().into());
        }
    }
    merger.write(out)?;
    Ok(())
}
