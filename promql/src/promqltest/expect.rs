//! What an `eval` expects besides values: failure, annotations, order.

use std::collections::BTreeMap;

use promontory_tsdb::Labels;
use regex::Regex;

use crate::parser::series::SequenceValue;

/// Kinds of `expect` lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expectation {
    Ordered,
    Fail,
    Warn,
    NoWarn,
    Info,
    NoInfo,
}

/// How a text should be.
#[derive(Debug)]
pub(super) enum Text {
    Any,
    Message(String),
    Pattern(Regex),
}

impl Text {
    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Message(m) => m == text,
            Self::Pattern(p) => p.is_match(text),
        }
    }
}

/// All that a case expects.
#[derive(Debug, Default)]
pub struct Expectations {
    /// Series with their place and values, when a vector or matrix is expected.
    pub(super) series: BTreeMap<Labels, (usize, Vec<SequenceValue>)>,
    pub(super) scalar: Option<f64>,
    pub(super) string: Option<String>,
    pub(super) legacy_fail: bool,
    pub(super) legacy_warn: bool,
    pub(super) legacy_info: bool,
    lines: Vec<(Expectation, Text)>,
}

impl Expectations {
    pub(super) fn add(&mut self, kind: Expectation, text: Text) -> Result<(), String> {
        let clash = match kind {
            Expectation::Warn => self.has(Expectation::NoWarn),
            Expectation::NoWarn => self.has(Expectation::Warn),
            Expectation::Info => self.has(Expectation::NoInfo),
            Expectation::NoInfo => self.has(Expectation::Info),
            Expectation::Fail => self.has(Expectation::Fail),
            Expectation::Ordered => false,
        };
        if clash {
            return Err(format!("invalid expect lines: {kind:?} does not go with what stands before it"));
        }
        self.lines.push((kind, text));
        Ok(())
    }

    fn has(&self, kind: Expectation) -> bool {
        self.lines.iter().any(|(k, _)| *k == kind)
    }

    fn texts(&self, kind: Expectation) -> Vec<&Text> {
        self.lines.iter().filter(|(k, _)| *k == kind).map(|(_, t)| t).collect()
    }

    /// The query should fail.
    pub fn fails(&self) -> bool {
        self.legacy_fail || self.has(Expectation::Fail)
    }

    /// The order of the result counts.
    pub fn is_ordered(&self) -> bool {
        self.has(Expectation::Ordered)
    }

    /// Whether the query failed as it should.
    pub(super) fn check_failure(&self, error: &str) -> Result<(), String> {
        match self.texts(Expectation::Fail).iter().find(|t| !t.matches(error)) {
            None => Ok(()),
            Some(text) => Err(format!("expected an error like {text:?} but got: {error}")),
        }
    }

    /// Whether the annotations are those that are expected. What is not spoken of is not looked at.
    pub(super) fn check_annotations(&self, warnings: &[String], infos: &[String]) -> Result<(), String> {
        for (name, legacy, wanted, none, got) in [
            ("warn", self.legacy_warn, Expectation::Warn, Expectation::NoWarn, warnings),
            ("info", self.legacy_info, Expectation::Info, Expectation::NoInfo, infos),
        ] {
            let texts = self.texts(wanted);
            if got.is_empty() && (legacy || !texts.is_empty()) {
                return Err(format!("expected {name} annotations but got none"));
            }
            if let Some(missing) = texts.iter().find(|t| !got.iter().any(|a| t.matches(a))) {
                return Err(format!("expected {name} annotation like {missing:?} but found: {got:?}"));
            }
            let extra = got.iter().find(|a| !texts.iter().any(|t| t.matches(a)));
            if let Some(extra) = extra.filter(|_| !texts.is_empty() || self.has(none)) {
                return Err(format!("unexpected {name} annotation {extra:?}"));
            }
        }
        Ok(())
    }
}
