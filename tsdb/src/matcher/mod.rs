//! Label matchers: `=`, `!=`, `=~`, `!~`.
//!
//! Regular expressions are those of RE2, anchored at both ends, with `.` matching newlines too.

mod glob;
mod pattern;
mod re2;
mod template;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use pattern::Pattern;
use regex::{Regex, RegexBuilder};
pub use template::expand_template;

use crate::labels::{Labels, go_quote};

/// Memory that a compiled expression may take. RE2 in Go counts characters where the regex crate counts bytes of
/// UTF-8, of which a class of letters needs hundreds; with the crate's own 10 MiB a few hundred repetitions of such a
/// class were too many.
const MAX_REGEX_BYTES: usize = 64 << 20;

/// How a [`Matcher`] compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MatchOp {
    /// `=`
    Eq,
    /// `!=`
    Ne,
    /// `=~`, anchored at both ends, `.` matches newline.
    Re,
    /// `!~`
    Nre,
}

impl fmt::Display for MatchOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eq => "=",
            Self::Ne => "!=",
            Self::Re => "=~",
            Self::Nre => "!~",
        })
    }
}

/// A test of one label. A label that a series lacks is the empty string.
#[derive(Debug, Clone)]
pub struct Matcher {
    op: MatchOp,
    name: String,
    value: String,
    pattern: Option<Arc<Pattern>>,
}

/// A regular expression that RE2 would refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {0}")]
pub struct RegexError(pub String);

impl Matcher {
    /// A matcher.
    ///
    /// # Errors
    /// If `op` is a regular-expression match and `value` is not a valid one.
    pub fn new(op: MatchOp, name: impl Into<String>, value: impl Into<String>) -> Result<Self, RegexError> {
        let value = value.into();
        let pattern = match op {
            MatchOp::Eq | MatchOp::Ne => None,
            MatchOp::Re | MatchOp::Nre => Some(Arc::new(Pattern::new(&value)?)),
        };
        Ok(Self { op, name: name.into(), value, pattern })
    }

    /// `name="value"`.
    pub fn eq(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { op: MatchOp::Eq, name: name.into(), value: value.into(), pattern: None }
    }

    /// How it compares.
    pub fn op(&self) -> MatchOp {
        self.op
    }

    /// The label's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value or the regular expression as written.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether a label value passes.
    pub fn matches(&self, value: &str) -> bool {
        match (self.op, &self.pattern) {
            (MatchOp::Eq, _) => value == self.value,
            (MatchOp::Ne, _) => value != self.value,
            (MatchOp::Re, Some(pattern)) => pattern.is_match(value),
            (MatchOp::Nre, Some(pattern)) => !pattern.is_match(value),
            (MatchOp::Re | MatchOp::Nre, None) => unreachable!("`new` compiles every regular expression"),
        }
    }

    /// Whether this is a `=~` that every value passes, the empty one too.
    pub fn matches_everything(&self) -> bool {
        self.op == MatchOp::Re && self.pattern.as_ref().is_some_and(|p| p.matches_everything())
    }

    /// All values that the expression of a `=~` or `!~` matches, sorted, if they are few.
    pub fn set_matches(&self) -> Option<&[String]> {
        self.pattern.as_ref()?.set()
    }

    /// Values that the expression of a `=~` or `!~` matches start with one of these, sorted and none a prefix of
    /// another. Empty if nothing is known, and where [`Matcher::set_matches`] knows all.
    pub fn prefixes(&self) -> &[String] {
        self.pattern.as_ref().map_or(&[], |p| p.prefixes())
    }

    /// Whether a series without the label passes.
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }

    /// Whether all matchers hold for `labels`.
    pub fn all_match(matchers: &[Self], labels: &Labels) -> bool {
        matchers.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or_default()))
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        self.op == other.op && self.name == other.name && self.value == other.value
    }
}

impl Eq for Matcher {}

impl std::hash::Hash for Matcher {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.op, &self.name, &self.value).hash(state);
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.name, self.op, go_quote(&self.value))
    }
}

/// Compiles `^(?s:pattern)$` as Prometheus does. Groups keep their numbers and names.
///
/// # Errors
/// If RE2 would refuse the pattern.
pub fn compile_anchored(pattern: &str) -> Result<Regex, RegexError> {
    let (translated, _) = re2::parse(pattern)?;
    compile_translated(&translated)
}

fn compile_translated(translated: &str) -> Result<Regex, RegexError> {
    RegexBuilder::new(&format!("^(?s:{translated})$"))
        .size_limit(MAX_REGEX_BYTES)
        .build()
        .map_err(|e| RegexError(e.to_string()))
}
