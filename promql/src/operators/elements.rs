//! Binary operators on single samples, of which at least one is a histogram.
//!
//! Source: <https://github.com/prometheus/prometheus/blob/v3.14.0/promql/engine.go> (`vectorElemBinop`).

use std::sync::Arc;

use promontory_tsdb::histogram::{CounterResetHint, FloatHistogram};

use crate::histogram::layout::{divide, multiply};
use crate::histogram::trim::{Keep, trim};
use crate::histogram::{add, sub};
use crate::notes::{Notes, Operation};
use crate::parser::BinaryOp;

/// A sample.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Element {
    /// A float.
    Float(f64),
    /// A histogram.
    Histogram(Arc<FloatHistogram>),
}

impl Element {
    fn kind(&self) -> &'static str {
        match self {
            Self::Float(_) => "float",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// What an operator gives.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Combined {
    /// The value; of a comparison the left side.
    pub(crate) value: Element,
    /// Whether a comparison holds; `true` for arithmetic.
    pub(crate) holds: bool,
}

/// `left op right`; `None`, and a note, if they do not go together.
pub(crate) fn binary(op: BinaryOp, left: &Element, right: &Element, notes: &Notes<'_>) -> Option<Combined> {
    use BinaryOp as B;
    use Element as E;
    let changed = |h: &Arc<FloatHistogram>, change: &dyn Fn(&mut FloatHistogram)| {
        let mut h = h.as_ref().clone();
        change(&mut h);
        Some(Combined { value: E::Histogram(Arc::new(h)), holds: true })
    };
    match (left, op, right) {
        (E::Histogram(h), B::Mul, E::Float(v)) | (E::Float(v), B::Mul, E::Histogram(h)) => changed(h, &|h| {
            multiply(h, *v);
            h.compact(0);
        }),
        (E::Histogram(h), B::Div, E::Float(v)) => changed(h, &|h| {
            divide(h, *v);
            h.compact(0);
        }),
        (E::Histogram(h), B::TrimUpper, E::Float(v)) => changed(h, &|h| trim(h, *v, Keep::Below)),
        (E::Histogram(h), B::TrimLower, E::Float(v)) => changed(h, &|h| trim(h, *v, Keep::Above)),
        (E::Histogram(a), B::Add | B::Sub, E::Histogram(b)) => sum(op, a, b, notes),
        (E::Histogram(a), B::Eq | B::Ne, E::Histogram(b)) => {
            Some(Combined { value: left.clone(), holds: a.equals(b) == (op == B::Eq) })
        }
        _ => {
            notes.incompatible_types(left.kind(), op.symbol(), right.kind());
            None
        }
    }
}

fn sum(op: BinaryOp, a: &FloatHistogram, b: &FloatHistogram, notes: &Notes<'_>) -> Option<Combined> {
    let (combined, operation) = if op == BinaryOp::Add {
        (add(a, b), Operation::Addition)
    } else {
        (sub(a, b), Operation::Subtraction)
    };
    let Ok((mut h, added)) = combined else {
        notes.incompatible_layout(op.symbol());
        return None;
    };
    // Compat: upstream takes the warning for an error, and drops the sample and the other note with it.
    if added.collision {
        notes.reset_collision(operation);
        return None;
    }
    if added.reconciled {
        notes.mismatched_bounds(operation);
    }
    if op == BinaryOp::Sub {
        h.counter_reset_hint = CounterResetHint::Gauge;
    }
    h.compact(0);
    Some(Combined { value: Element::Histogram(Arc::new(h)), holds: true })
}
