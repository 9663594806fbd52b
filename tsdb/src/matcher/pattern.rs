//! Regular expressions of matchers, with shortcuts for those that are hardly regular expressions.

use regex::Regex;
use regex_syntax::hir::{Class, Dot, Hir, HirKind, Look};

use super::{RegexError, compile_translated, re2};

/// Most values that an expression is written out as.
const MAX_SET: usize = 256;

/// A compiled, anchored expression.
#[derive(Debug)]
pub(super) struct Pattern {
    test: Test,
    prefix: String,
}

/// How a value is tested.
#[derive(Debug)]
enum Test {
    /// `.*`
    Everything,
    /// `.+`
    NonEmpty,
    /// One of these, sorted.
    Set(Vec<String>),
    /// `literal.*`, or `literal.+` if `more`.
    Prefix { literal: String, more: bool },
    /// `.*literal`, or `.+literal` if `more`.
    Suffix { literal: String, more: bool },
    /// `.*literal.*`
    Contains(String),
    /// Anything else.
    Regex(Regex),
}

impl Pattern {
    pub(super) fn new(pattern: &str) -> Result<Self, RegexError> {
        let (translated, hir) = re2::parse(pattern)?;
        let parts = parts(&hir);
        let test = match simple(&parts) {
            Some(test) => test,
            None => Test::Regex(compile_translated(&translated)?),
        };
        let prefix = match &test {
            Test::Prefix { literal, .. } => literal.clone(),
            Test::Regex(_) => parts.first().copied().and_then(literal).unwrap_or_default(),
            _ => String::new(),
        };
        Ok(Self { test, prefix })
    }

    pub(super) fn is_match(&self, value: &str) -> bool {
        match &self.test {
            Test::Everything => true,
            Test::NonEmpty => !value.is_empty(),
            Test::Set(values) => values.binary_search_by(|v| v.as_str().cmp(value)).is_ok(),
            Test::Prefix { literal, more } => {
                value.starts_with(literal.as_str()) && value.len() >= literal.len() + usize::from(*more)
            }
            Test::Suffix { literal, more } => {
                value.ends_with(literal.as_str()) && value.len() >= literal.len() + usize::from(*more)
            }
            Test::Contains(literal) => value.contains(literal.as_str()),
            Test::Regex(regex) => regex.is_match(value),
        }
    }

    pub(super) fn matches_everything(&self) -> bool {
        matches!(self.test, Test::Everything)
    }

    pub(super) fn set(&self) -> Option<&[String]> {
        match &self.test {
            Test::Set(values) => Some(values),
            _ => None,
        }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }
}

/// The expression as a sequence, without groups around the whole and without anchors at its ends,
/// which say nothing about an anchored expression.
fn parts(hir: &Hir) -> Vec<&Hir> {
    let hir = ungroup(hir);
    let mut parts: Vec<&Hir> = match hir.kind() {
        HirKind::Concat(parts) => parts.iter().map(ungroup).collect(),
        HirKind::Empty => Vec::new(),
        _ => vec![hir],
    };
    if parts.first().is_some_and(|p| matches!(p.kind(), HirKind::Look(Look::Start))) {
        parts.remove(0);
    }
    if parts.last().is_some_and(|p| matches!(p.kind(), HirKind::Look(Look::End))) {
        parts.pop();
    }
    parts
}

fn ungroup(mut hir: &Hir) -> &Hir {
    while let HirKind::Capture(group) = hir.kind() {
        hir = &group.sub;
    }
    hir
}

/// A test without a regular expression, if one will do.
fn simple(parts: &[&Hir]) -> Option<Test> {
    let set = parts.iter().try_fold(vec![String::new()], |prefixes, part| {
        let tails = written_out(part)?;
        let fits = prefixes.len() * tails.len() <= MAX_SET;
        fits.then(|| prefixes.iter().flat_map(|p| tails.iter().map(move |t| format!("{p}{t}"))).collect())
    });
    if let Some(mut values) = set {
        values.sort();
        values.dedup();
        return Some(Test::Set(values));
    }
    match parts {
        [only] => Some(if any(only)? { Test::NonEmpty } else { Test::Everything }),
        [head, tail] => match (literal(head), literal(tail)) {
            (Some(literal), None) => Some(Test::Prefix { literal, more: any(tail)? }),
            (None, Some(literal)) => Some(Test::Suffix { literal, more: any(head)? }),
            _ => None,
        },
        [head, middle, tail] => {
            let loose = !any(head)? && !any(tail)?;
            loose.then(|| literal(middle).map(Test::Contains)).flatten()
        }
        _ => None,
    }
}

/// Whether this is `.+` (true) or `.*` (false), with a dot that matches every character.
fn any(hir: &Hir) -> Option<bool> {
    let HirKind::Repetition(repetition) = hir.kind() else { return None };
    let dot = *ungroup(&repetition.sub) == Hir::dot(Dot::AnyChar);
    (dot && repetition.max.is_none() && repetition.min <= 1).then_some(repetition.min == 1)
}

fn literal(hir: &Hir) -> Option<String> {
    match hir.kind() {
        HirKind::Literal(bytes) => String::from_utf8(bytes.0.to_vec()).ok(),
        _ => None,
    }
}

/// All that `hir` can match, if that is finite and little.
fn written_out(hir: &Hir) -> Option<Vec<String>> {
    let out = match hir.kind() {
        HirKind::Empty => vec![String::new()],
        HirKind::Literal(_) => vec![literal(hir)?],
        HirKind::Capture(group) => written_out(&group.sub)?,
        HirKind::Class(Class::Unicode(class)) => {
            let size: u64 = class.iter().map(|r| u64::from(r.end()) - u64::from(r.start()) + 1).sum();
            if size > MAX_SET as u64 {
                return None;
            }
            class.iter().flat_map(|r| (r.start()..=r.end()).map(String::from)).collect()
        }
        HirKind::Concat(parts) => parts.iter().try_fold(vec![String::new()], |prefixes, part| {
            let tails = written_out(part)?;
            let fits = prefixes.len() * tails.len() <= MAX_SET;
            fits.then(|| {
                prefixes.iter().flat_map(|p| tails.iter().map(move |t| format!("{p}{t}"))).collect::<Vec<_>>()
            })
        })?,
        HirKind::Alternation(branches) => {
            let mut out = Vec::new();
            for branch in branches {
                out.append(&mut written_out(branch)?);
                if out.len() > MAX_SET {
                    return None;
                }
            }
            out
        }
        HirKind::Repetition(r) if r.min == 0 && r.max == Some(1) => {
            let mut out = written_out(&r.sub)?;
            out.push(String::new());
            out
        }
        _ => return None,
    };
    Some(out)
}
