//! Scalar arguments of operators.

use std::fmt;
use std::hash::{Hash, Hasher};

use super::format::go_g;

/// A float that is equal to another one with the same bits, so that plans can be compared.
#[derive(Clone, Copy)]
pub struct Float(pub f64);

impl PartialEq for Float {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Float {}

impl Hash for Float {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

impl fmt::Debug for Float {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&go_g(self.0))
    }
}

/// Where a scalar argument comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScalarArg {
    /// The plan knows it.
    Constant(Float),
    /// It is the scalar input of this index (vector inputs not counted).
    Input(usize),
}

impl ScalarArg {
    pub(crate) fn resolve(self, scalars: &[Vec<f64>]) -> Scalar<'_> {
        match self {
            Self::Constant(v) => Scalar::Constant(v.0),
            Self::Input(i) => Scalar::Steps(&scalars[i]),
        }
    }
}

impl fmt::Display for ScalarArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(v) => write!(f, "{v:?}"),
            Self::Input(i) => write!(f, "${i}"),
        }
    }
}

/// A scalar argument at run time.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scalar<'a> {
    Constant(f64),
    Steps(&'a [f64]),
}

impl Scalar<'_> {
    /// The value at a step; NaN behind the last one.
    #[inline]
    pub(crate) fn at(self, step: usize) -> f64 {
        match self {
            Self::Constant(v) => v,
            Self::Steps(values) => values.get(step).copied().unwrap_or(f64::NAN),
        }
    }
}
