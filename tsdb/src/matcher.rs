//! Label matchers: `=`, `!=`, `=~`, `!~`.

use std::fmt;

use regex::Regex;

use crate::labels::{Labels, go_quote};

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
    regex: Option<Regex>,
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
        let regex = match op {
            MatchOp::Eq | MatchOp::Ne => None,
            MatchOp::Re | MatchOp::Nre => Some(compile_anchored(&value)?),
        };
        Ok(Self { op, name: name.into(), value, regex })
    }

    /// `name="value"`.
    pub fn eq(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { op: MatchOp::Eq, name: name.into(), value: value.into(), regex: None }
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
        match (self.op, &self.regex) {
            (MatchOp::Eq, _) => value == self.value,
            (MatchOp::Ne, _) => value != self.value,
            (MatchOp::Re, Some(re)) => re.is_match(value),
            (MatchOp::Nre, Some(re)) => !re.is_match(value),
            (MatchOp::Re | MatchOp::Nre, None) => unreachable!("`new` compiles every regular expression"),
        }
    }

    /// Whether every value passes, the empty one too, because the expression says so outright.
    pub fn matches_everything(&self) -> bool {
        self.op == MatchOp::Re && self.value == ".*"
    }

    /// The values that the expression of a `=~` or `!~` lists, if it is an alternation of literals.
    pub fn set_matches(&self) -> Option<Vec<String>> {
        let literal = !self.value.contains(|c: char| "\\.+*?()[]{}^$".contains(c));
        (self.regex.is_some() && literal).then(|| self.value.split('|').map(str::to_owned).collect())
    }

    /// What every value that the expression matches starts with; may be empty.
    pub fn prefix(&self) -> &str {
        ""
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

/// Compiles `^(?s:pattern)$` as Prometheus does.
///
/// # Errors
/// If the pattern is not valid.
pub fn compile_anchored(pattern: &str) -> Result<Regex, RegexError> {
    Regex::new(&format!("^(?s:{pattern})$")).map_err(|e| RegexError(e.to_string()))
}
