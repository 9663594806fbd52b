//! Tokens, and how error messages name them.

use super::ast::{AggregateOp, BinaryOp, Span};
use super::literal::quote;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Eof,
    /// A name without a colon that is no keyword.
    Identifier,
    /// A name with a colon.
    MetricIdentifier,
    Number,
    Duration,
    /// With its quotes.
    String,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Comma,
    Colon,
    /// `=`
    Equals,
    /// `=~`
    Matches,
    /// `!~`
    MatchesNot,
    At,
    Op(BinaryOp),
    Aggregate(AggregateOp),
    Bool,
    By,
    Without,
    On,
    Ignoring,
    GroupLeft,
    GroupRight,
    Fill,
    FillLeft,
    FillRight,
    Offset,
    Smoothed,
    Anchored,
    Start,
    End,
    Step,
    Range,
    MaxOf,
    MinOf,
}

/// A token and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) span: Span,
}

impl Kind {
    /// The keyword of this spelling; case does not matter.
    pub(super) fn keyword(word: &str) -> Option<Self> {
        const LONGEST: usize = "count_values".len();
        if word.len() > LONGEST {
            return None;
        }
        let mut lower = [0; LONGEST];
        let lower = &mut lower[..word.len()];
        lower.copy_from_slice(word.as_bytes());
        lower.make_ascii_lowercase();
        Some(match &*lower {
            b"and" => Self::Op(BinaryOp::And),
            b"or" => Self::Op(BinaryOp::Or),
            b"unless" => Self::Op(BinaryOp::Unless),
            b"atan2" => Self::Op(BinaryOp::Atan2),
            b"sum" => Self::Aggregate(AggregateOp::Sum),
            b"avg" => Self::Aggregate(AggregateOp::Avg),
            b"count" => Self::Aggregate(AggregateOp::Count),
            b"min" => Self::Aggregate(AggregateOp::Min),
            b"max" => Self::Aggregate(AggregateOp::Max),
            b"group" => Self::Aggregate(AggregateOp::Group),
            b"stddev" => Self::Aggregate(AggregateOp::Stddev),
            b"stdvar" => Self::Aggregate(AggregateOp::Stdvar),
            b"topk" => Self::Aggregate(AggregateOp::TopK),
            b"bottomk" => Self::Aggregate(AggregateOp::BottomK),
            b"count_values" => Self::Aggregate(AggregateOp::CountValues),
            b"quantile" => Self::Aggregate(AggregateOp::Quantile),
            b"limitk" => Self::Aggregate(AggregateOp::LimitK),
            b"limit_ratio" => Self::Aggregate(AggregateOp::LimitRatio),
            b"offset" => Self::Offset,
            b"smoothed" => Self::Smoothed,
            b"anchored" => Self::Anchored,
            b"by" => Self::By,
            b"without" => Self::Without,
            b"on" => Self::On,
            b"ignoring" => Self::Ignoring,
            b"group_left" => Self::GroupLeft,
            b"group_right" => Self::GroupRight,
            b"fill" => Self::Fill,
            b"fill_left" => Self::FillLeft,
            b"fill_right" => Self::FillRight,
            b"bool" => Self::Bool,
            b"start" => Self::Start,
            b"end" => Self::End,
            b"step" => Self::Step,
            b"range" => Self::Range,
            b"max_of" => Self::MaxOf,
            b"min_of" => Self::MinOf,
            b"inf" | b"nan" => Self::Number,
            _ => return None,
        })
    }

    /// Keywords that are allowed inside of `[…]`.
    pub(super) fn duration_keyword(word: &str) -> Option<Self> {
        Self::keyword(word).filter(|k| matches!(k, Self::Step | Self::Range | Self::MaxOf | Self::MinOf))
    }

    /// Whether a metric may have this name without quotes.
    pub(super) fn is_metric_name(self) -> bool {
        match self {
            Self::Op(op) => op.is_set(),
            Self::Identifier
            | Self::MetricIdentifier
            | Self::Aggregate(_)
            | Self::By
            | Self::Without
            | Self::Fill
            | Self::FillLeft
            | Self::FillRight
            | Self::Offset
            | Self::Smoothed
            | Self::Anchored
            | Self::Start
            | Self::End
            | Self::Step
            | Self::Range
            | Self::MaxOf
            | Self::MinOf => true,
            _ => false,
        }
    }

    /// Whether a label may have this name in `by (…)`, `on (…)` and the like without quotes.
    ///
    /// Compat: all metric names but `without`, and some more words; upstream's list, not a rule.
    pub(super) fn is_grouping_label(self) -> bool {
        match self {
            Self::Without => false,
            Self::Bool | Self::On | Self::Ignoring | Self::GroupLeft | Self::GroupRight => true,
            Self::Op(BinaryOp::Atan2) => true,
            other => other.is_metric_name(),
        }
    }

    /// Whether it can be the name of a function.
    pub(super) fn is_function_name(self) -> bool {
        matches!(
            self,
            Self::Identifier | Self::Start | Self::End | Self::Step | Self::Range | Self::MaxOf | Self::MinOf
        )
    }
}

impl Token {
    /// The token in the words of an error message. `text` is what stands at its span.
    pub(super) fn describe(self, text: &str) -> String {
        match self.kind {
            Kind::Eof => "end of input".to_owned(),
            Kind::Identifier => format!("identifier {}", quote(text)),
            Kind::MetricIdentifier => format!("metric identifier {}", quote(text)),
            Kind::Number => format!("number {}", shortened(text)),
            Kind::Duration => format!("duration {}", shortened(text)),
            Kind::String => format!("string {}", shortened(text)),
            Kind::Op(_) | Kind::Matches | Kind::MatchesNot | Kind::At => format!("<op:{text}>"),
            Kind::Aggregate(_) => format!("<aggr:{text}>"),
            Kind::Bool
            | Kind::By
            | Kind::Without
            | Kind::On
            | Kind::Ignoring
            | Kind::GroupLeft
            | Kind::GroupRight
            | Kind::Fill
            | Kind::FillLeft
            | Kind::FillRight
            | Kind::Offset
            | Kind::Smoothed
            | Kind::Anchored => format!("<{text}>"),
            _ => shortened(text),
        }
    }
}

/// Quoted, and cut after ten characters.
fn shortened(text: &str) -> String {
    if text.len() <= 10 {
        return quote(text);
    }
    format!("{}...", quote(&text.chars().take(10).collect::<String>()))
}
