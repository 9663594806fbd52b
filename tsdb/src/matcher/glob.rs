//! Literals with `.*` and `.+` between them, tested without a regular expression.

use memchr::memmem::Finder;

/// A part of what a [`Glob`] matches.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    /// This text.
    Literal(String),
    /// Anything; at least one character if `more`.
    Any { more: bool },
}

impl Piece {
    /// The text of a literal.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Literal(text) => text,
            Self::Any { .. } => "",
        }
    }
}

/// A literal, then gaps of anything, each with a literal behind it; the last literal is at the end.
#[derive(Debug)]
pub(super) struct Glob {
    head: String,
    gaps: Vec<Gap>,
}

#[derive(Debug)]
struct Gap {
    /// Whether it is at least one character long.
    more: bool,
    /// What is behind it.
    literal: Finder<'static>,
}

impl Glob {
    /// `None` if it cannot be tested literal by literal.
    pub(super) fn new(pieces: Vec<Piece>) -> Option<Self> {
        let mut head = String::new();
        let mut gaps: Vec<(bool, String)> = Vec::new();
        for piece in pieces {
            match (piece, gaps.last_mut()) {
                (Piece::Literal(text), None) => head += &text,
                (Piece::Literal(text), Some((_, literal))) => *literal += &text,
                // Two gaps in a row are one, but for two that need a character each.
                (Piece::Any { more }, Some((before, literal))) if literal.is_empty() => {
                    if more && *before {
                        return None;
                    }
                    *before |= more;
                }
                (Piece::Any { more }, _) => gaps.push((more, String::new())),
            }
        }
        let gap = |(more, literal): (bool, String)| Gap { more, literal: Finder::new(&literal).into_owned() };
        Some(Self { head, gaps: gaps.into_iter().map(gap).collect() })
    }

    /// What all that it matches starts with.
    pub(super) fn head(&self) -> &str {
        &self.head
    }

    pub(super) fn matches_everything(&self) -> bool {
        let [gap] = &self.gaps[..] else { return false };
        self.head.is_empty() && !gap.more && gap.literal.needle().is_empty()
    }

    /// Each literal is taken where it comes first, which leaves most for those behind it.
    pub(super) fn is_match(&self, value: &str) -> bool {
        // Empty texts are not compared: on some machines that takes ten times as long as to compare others.
        let mut rest = value.as_bytes();
        if !self.head.is_empty() {
            let Some(behind) = rest.strip_prefix(self.head.as_bytes()) else { return false };
            rest = behind;
        }
        let Some((last, gaps)) = self.gaps.split_last() else { return rest.is_empty() };
        for Gap { more, literal } in gaps {
            // A literal begins with a character, so a byte between is a character between.
            let from = usize::from(*more);
            let Some(at) = rest.get(from..).and_then(|rest| literal.find(rest)) else { return false };
            rest = &rest[from + at + literal.needle().len()..];
        }
        let needle = last.literal.needle();
        let is_long_enough = rest.len() >= needle.len() + usize::from(last.more);
        is_long_enough && (needle.is_empty() || rest.ends_with(needle))
    }
}
