//! Regular expressions of matchers, with shortcuts for those that are hardly regular expressions.
//!
//! An expression is written out as alternatives of literals and `.*` or `.+` between them, if it has few. Those of
//! literals only are a sorted list, others are [`Glob`]s. What is left is a regular expression, which runs on
//! values that have the literals it needs.

use memchr::memmem::Finder;
use regex::Regex;
use regex_syntax::hir::literal::{ExtractKind, Extractor};
use regex_syntax::hir::{Class, Dot, Hir, HirKind, Look};

use super::glob::{Glob, Piece};
use super::{RegexError, compile_translated, re2};

/// Most values that an expression is written out as. Lists of names that a dashboard makes are long.
const MAX_SET: usize = 16 * 1024;
/// The same where they are more than what the expression spells out: one of these, then one of those.
const MAX_PRODUCT: usize = 256;
/// Most alternatives that are tried one after the other; one pass of a regular expression takes as long.
const MAX_GLOBS: usize = 16;
/// Most prefixes that are looked up.
const MAX_PREFIXES: usize = 64;

/// A compiled, anchored expression.
#[derive(Debug)]
pub(super) struct Pattern {
    test: Test,
    prefixes: Vec<String>,
}

/// How a value is tested.
#[derive(Debug)]
enum Test {
    /// One of these, sorted.
    Set(Vec<String>),
    /// One of these fits.
    Globs(Vec<Glob>),
    /// Anything else.
    Regex {
        regex: Regex,
        /// Literals that every match has, in this order, without overlap.
        inside: Vec<Finder<'static>>,
    },
}

impl Pattern {
    pub(super) fn new(pattern: &str) -> Result<Self, RegexError> {
        let (translated, hir) = re2::parse(pattern)?;
        let parts = parts(&hir);
        let test = match written_out(&parts) {
            Some(test) => test,
            None => {
                let literals = parts.iter().filter_map(|part| literal(part));
                let inside = literals.map(|l| Finder::new(l).into_owned()).collect();
                Test::Regex { regex: compile_translated(&translated)?, inside }
            }
        };
        let prefixes = match &test {
            Test::Set(_) => Vec::new(),
            Test::Globs(globs) => shortest(globs.iter().map(|g| g.head().to_owned()).collect()),
            Test::Regex { .. } => extract_prefixes(&hir),
        };
        Ok(Self { test, prefixes })
    }

    pub(super) fn is_match(&self, value: &str) -> bool {
        match &self.test {
            Test::Set(values) => values.binary_search_by(|v| v.as_str().cmp(value)).is_ok(),
            Test::Globs(globs) => globs.iter().any(|glob| glob.is_match(value)),
            Test::Regex { regex, inside } => has_in_order(value, inside) && regex.is_match(value),
        }
    }

    pub(super) fn matches_everything(&self) -> bool {
        matches!(&self.test, Test::Globs(globs) if globs.iter().any(Glob::matches_everything))
    }

    pub(super) fn set(&self) -> Option<&[String]> {
        match &self.test {
            Test::Set(values) => Some(values),
            _ => None,
        }
    }

    pub(super) fn prefixes(&self) -> &[String] {
        &self.prefixes
    }
}

fn has_in_order(value: &str, literals: &[Finder<'_>]) -> bool {
    let mut rest = value.as_bytes();
    literals.iter().all(|literal| {
        let found = literal.find(rest);
        rest = found.map_or(rest, |at| &rest[at + literal.needle().len()..]);
        found.is_some()
    })
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
fn written_out(parts: &[&Hir]) -> Option<Test> {
    let alternatives = sequence(parts.iter().copied())?;
    if alternatives.iter().all(|a| a.iter().all(|piece| matches!(piece, Piece::Literal(_)))) {
        let text = |pieces: Vec<Piece>| pieces.iter().map(Piece::text).collect::<String>();
        let mut values: Vec<String> = alternatives.into_iter().map(text).collect();
        values.sort();
        values.dedup();
        return Some(Test::Set(values));
    }
    if alternatives.len() > MAX_GLOBS {
        return None;
    }
    alternatives.into_iter().map(Glob::new).collect::<Option<_>>().map(Test::Globs)
}

/// All that may follow each other, piece by piece, if it is little.
fn alternatives(hir: &Hir) -> Option<Vec<Vec<Piece>>> {
    Some(match hir.kind() {
        HirKind::Empty => vec![Vec::new()],
        HirKind::Literal(_) => vec![vec![Piece::Literal(literal(hir)?.to_owned())]],
        HirKind::Capture(group) => alternatives(&group.sub)?,
        HirKind::Class(Class::Unicode(class)) => {
            let size: u64 = class.iter().map(|r| u64::from(r.end()) - u64::from(r.start()) + 1).sum();
            if size > MAX_PRODUCT as u64 {
                return None;
            }
            let chars = class.iter().flat_map(|r| r.start()..=r.end());
            chars.map(|c| vec![Piece::Literal(c.to_string())]).collect()
        }
        HirKind::Concat(parts) => sequence(parts)?,
        HirKind::Alternation(branches) => {
            let mut out = Vec::new();
            for branch in branches {
                out.append(&mut alternatives(branch)?);
                if out.len() > MAX_SET {
                    return None;
                }
            }
            out
        }
        HirKind::Repetition(r) if r.min == 0 && r.max == Some(1) => {
            let mut out = alternatives(&r.sub)?;
            out.push(Vec::new());
            out
        }
        HirKind::Repetition(r) => {
            // With a dot that matches every character.
            let dot = *ungroup(&r.sub) == Hir::dot(Dot::AnyChar);
            let any = dot && r.max.is_none() && r.min <= 1;
            any.then(|| vec![vec![Piece::Any { more: r.min == 1 }]])?
        }
        _ => return None,
    })
}

/// One of each of `parts` after the other.
fn sequence<'h>(parts: impl IntoIterator<Item = &'h Hir>) -> Option<Vec<Vec<Piece>>> {
    parts.into_iter().try_fold(vec![Vec::new()], |heads, part| {
        let tails = alternatives(part)?;
        let all = heads.len() * tails.len();
        let fits = all <= if heads.len() > 1 && tails.len() > 1 { MAX_PRODUCT } else { MAX_SET };
        let join =
            |head: &Vec<Piece>| tails.iter().map(|tail| [head.as_slice(), tail].concat()).collect::<Vec<_>>();
        fits.then(|| heads.iter().flat_map(join).collect())
    })
}

fn literal(hir: &Hir) -> Option<&str> {
    match hir.kind() {
        HirKind::Literal(bytes) => std::str::from_utf8(&bytes.0).ok(),
        _ => None,
    }
}

/// What matches of `hir` start with: one of these. Empty if nothing is known.
fn extract_prefixes(hir: &Hir) -> Vec<String> {
    let mut extractor = Extractor::new();
    extractor.kind(ExtractKind::Prefix).limit_total(MAX_PREFIXES);
    let found = extractor.extract(hir);
    let Some(literals) = found.literals() else { return Vec::new() };
    let text = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        // Cut within a character.
        Err(e) => String::from_utf8_lossy(&bytes[..e.valid_up_to()]).into_owned(),
    };
    shortest(literals.iter().map(|l| text(l.as_bytes())).collect())
}

/// Sorted, and without those that start with another. Empty if that leaves the empty one, which says nothing.
fn shortest(mut prefixes: Vec<String>) -> Vec<String> {
    prefixes.sort();
    prefixes.dedup_by(|longer, shorter| longer.starts_with(shorter.as_str()));
    if prefixes.first().is_some_and(String::is_empty) { Vec::new() } else { prefixes }
}
