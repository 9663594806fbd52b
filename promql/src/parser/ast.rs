//! The syntax tree. Every node knows the bytes that it came from.

use promontory_tsdb::{Matcher, TimestampMs};

/// Bytes `[start, end)` of the query text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// Behind the last byte.
    pub end: usize,
}

/// The four types of the language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// A number per step.
    Scalar,
    /// Series with one sample per step.
    Vector,
    /// Series with a range of samples per step.
    Matrix,
    /// A text.
    String,
}

/// An expression with its place in the text.
#[derive(Debug, Clone, PartialEq)]
pub struct Expr {
    /// Where it stands.
    pub span: Span,
    /// What it is.
    pub kind: ExprKind,
}

impl Expr {
    /// The type of its value. Meaningful for expressions that passed the type checks.
    pub fn value_type(&self) -> ValueType {
        let mut expr = self;
        loop {
            expr = match &expr.kind {
                ExprKind::Number(_) => return ValueType::Scalar,
                ExprKind::String(_) => return ValueType::String,
                ExprKind::VectorSelector(_) | ExprKind::Aggregate(_) => return ValueType::Vector,
                ExprKind::MatrixSelector(_) | ExprKind::Subquery(_) => return ValueType::Matrix,
                ExprKind::Call(call) => return call.function.return_type,
                ExprKind::Paren(inner) | ExprKind::Unary(_, inner) => inner,
                ExprKind::Binary(b) if b.matching.is_some() => return ValueType::Vector,
                ExprKind::Binary(b) if b.rhs.value_type() != ValueType::Scalar => return ValueType::Vector,
                // The right side is a scalar, so the left side decides.
                ExprKind::Binary(b) => &b.lhs,
            };
        }
    }
}

/// What an expression is.
#[derive(Debug, Clone, PartialEq)]
pub enum ExprKind {
    /// `1.5`, `5m` where a number is wanted.
    Number(NumberLiteral),
    /// `"text"`.
    String(String),
    /// `(e)`.
    Paren(Box<Expr>),
    /// `-e`, `+e`.
    Unary(UnaryOp, Box<Expr>),
    /// `a + b`.
    Binary(BinaryExpr),
    /// `sum by (x) (e)`.
    Aggregate(AggregateExpr),
    /// `rate(e)`.
    Call(Call),
    /// `metric{a="b"} offset 5m`.
    VectorSelector(VectorSelector),
    /// `metric[5m] offset 5m`; the offset, `@` and extension stand in the inner selector, as upstream.
    MatrixSelector(MatrixSelector),
    /// `e[5m:1m]`.
    Subquery(SubqueryExpr),
}

/// A number, with how it was written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NumberLiteral {
    /// The value; seconds if it was written as a duration.
    pub value: f64,
    /// It was written as a duration, and is printed as one.
    pub is_duration: bool,
}

/// Sign operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnaryOp {
    /// `+`
    Plus,
    /// `-`
    Minus,
}

/// Binary operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the operators")]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    And,
    Or,
    Unless,
    /// `</`: keep what lies below.
    TrimUpper,
    /// `>/`: keep what lies above.
    TrimLower,
}

impl BinaryOp {
    /// As written.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
            Self::Atan2 => "atan2",
            Self::Eq => "==",
            Self::Ne => "!=",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
            Self::And => "and",
            Self::Or => "or",
            Self::Unless => "unless",
            Self::TrimUpper => "</",
            Self::TrimLower => ">/",
        }
    }

    /// `== != < <= > >=`.
    pub fn is_comparison(self) -> bool {
        matches!(self, Self::Eq | Self::Ne | Self::Lt | Self::Le | Self::Gt | Self::Ge)
    }

    /// `and or unless`.
    pub fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }
}

/// `lhs op rhs`.
#[derive(Debug, Clone, PartialEq)]
pub struct BinaryExpr {
    /// The operator.
    pub op: BinaryOp,
    /// Left side.
    pub lhs: Box<Expr>,
    /// Right side.
    pub rhs: Box<Expr>,
    /// `bool` stands after the operator.
    pub return_bool: bool,
    /// How vectors are matched; `Some` just when both sides are vectors.
    pub matching: Option<VectorMatching>,
}

/// A chain `a + a + …` leans to the left and may have a hundred thousand links, more than the stack
/// has room for; so the chain is taken apart link by link. All other nesting is bounded by the parser.
impl Drop for BinaryExpr {
    fn drop(&mut self) {
        let mut chain = self.take_binary_lhs();
        while let Some(mut link) = chain {
            chain = match &mut link.kind {
                ExprKind::Binary(b) => b.take_binary_lhs(),
                _ => None,
            };
        }
    }
}

impl BinaryExpr {
    /// Takes the left side out if it is a binary expression too, and leaves a number there.
    fn take_binary_lhs(&mut self) -> Option<Expr> {
        matches!(self.lhs.kind, ExprKind::Binary(_)).then(|| std::mem::take(&mut *self.lhs))
    }
}

/// The number 0: what stays behind where an expression is taken out.
impl Default for Expr {
    fn default() -> Self {
        let kind = ExprKind::Number(NumberLiteral { value: 0.0, is_duration: false });
        Self { span: Span::default(), kind }
    }
}

/// How two vectors are matched.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorMatching {
    /// How many on each side.
    pub cardinality: Cardinality,
    /// `on(…)` if set, `ignoring(…)` (or nothing, with no labels) otherwise.
    pub on: bool,
    /// Labels of `on` or `ignoring`.
    pub labels: Vec<String>,
    /// Labels of `group_left` or `group_right`, taken from the "one" side.
    pub include: Vec<String>,
    /// `fill_left` or `fill`: stands in for a missing left sample.
    pub fill_left: Option<f64>,
    /// `fill_right` or `fill`: stands in for a missing right sample.
    pub fill_right: Option<f64>,
}

/// Cardinality of a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cardinality {
    /// No group modifier.
    OneToOne,
    /// `group_left`.
    ManyToOne,
    /// `group_right`.
    OneToMany,
    /// Set operators.
    ManyToMany,
}

/// Aggregation operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the operators")]
pub enum AggregateOp {
    Sum,
    Avg,
    Count,
    Min,
    Max,
    Group,
    Stddev,
    Stdvar,
    TopK,
    BottomK,
    CountValues,
    Quantile,
    LimitK,
    LimitRatio,
}

impl AggregateOp {
    /// As written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Count => "count",
            Self::Min => "min",
            Self::Max => "max",
            Self::Group => "group",
            Self::Stddev => "stddev",
            Self::Stdvar => "stdvar",
            Self::TopK => "topk",
            Self::BottomK => "bottomk",
            Self::CountValues => "count_values",
            Self::Quantile => "quantile",
            Self::LimitK => "limitk",
            Self::LimitRatio => "limit_ratio",
        }
    }

    /// Whether it takes a parameter before the vector.
    pub fn has_param(self) -> bool {
        matches!(
            self,
            Self::TopK | Self::BottomK | Self::CountValues | Self::Quantile | Self::LimitK | Self::LimitRatio
        )
    }
}

/// `op by (grouping) (param, expr)`.
#[derive(Debug, Clone, PartialEq)]
pub struct AggregateExpr {
    /// The operator.
    pub op: AggregateOp,
    /// The vector.
    pub expr: Box<Expr>,
    /// `k`, `φ`, the label of `count_values`, or the ratio.
    pub param: Option<Box<Expr>>,
    /// Label names, in the order written.
    pub grouping: Vec<String>,
    /// `without` rather than `by`.
    pub without: bool,
}

/// `name(args…)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// What is called.
    pub function: &'static Function,
    /// Arguments, checked against [`Function::arg_types`].
    pub args: Vec<Expr>,
}

/// Signature of a function.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Name in the language.
    pub name: &'static str,
    /// Types of the arguments.
    pub arg_types: &'static [ValueType],
    /// 0: just these arguments. n > 0: the last n may be left out. −1: the last one may repeat or be left out.
    pub variadic: i32,
    /// Type of the result.
    pub return_type: ValueType,
    /// Needs `promql-experimental-functions`.
    pub experimental: bool,
}

/// `metric{…}`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct VectorSelector {
    /// Metric name as written in front of the braces; it is among the matchers too.
    pub name: Option<String>,
    /// All matchers, the name's included, in the order written (the name last when it stands in front, as upstream).
    pub matchers: Vec<Matcher>,
    /// `offset`, `@`.
    pub time: TimeShift,
    /// `anchored` or `smoothed`.
    pub extension: Option<RangeExtension>,
}

/// `anchored` and `smoothed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RangeExtension {
    /// The window begins at the last sample before it.
    Anchored,
    /// Values are interpolated at the window's ends.
    Smoothed,
}

impl RangeExtension {
    /// As written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Anchored => "anchored",
            Self::Smoothed => "smoothed",
        }
    }
}

/// `offset` and `@` of a selector or subquery.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TimeShift {
    /// `offset`, absent if not written.
    pub offset: Option<DurationExpr>,
    /// `@`.
    pub at: Option<AtModifier>,
}

/// What stands after `@`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtModifier {
    /// A timestamp, ms.
    At(TimestampMs),
    /// `start()`.
    Start,
    /// `end()`.
    End,
}

/// `selector[range]`.
#[derive(Debug, Clone, PartialEq)]
pub struct MatrixSelector {
    /// The selector, with the offset, `@` and extension that stand behind the brackets.
    pub selector: VectorSelector,
    /// Place of the inner selector.
    pub selector_span: Span,
    /// Width of the window `(t - range, t]`.
    pub range: DurationExpr,
}

/// `expr[range:step]`.
#[derive(Debug, Clone, PartialEq)]
pub struct SubqueryExpr {
    /// Evaluated at each inner step.
    pub expr: Box<Expr>,
    /// Width of the window.
    pub range: DurationExpr,
    /// Spacing; the default evaluation interval if absent.
    pub step: Option<DurationExpr>,
    /// `offset`, `@`.
    pub time: TimeShift,
}

/// A duration, constant or computed from the query's own step and range.
#[derive(Debug, Clone, PartialEq)]
pub struct DurationExpr {
    /// Where it stands.
    pub span: Span,
    /// What it is.
    pub kind: DurationExprKind,
}

/// What a duration is.
#[derive(Debug, Clone, PartialEq)]
pub enum DurationExprKind {
    /// A literal; `value` in seconds, `is_duration` as in [`NumberLiteral`].
    Literal(NumberLiteral),
    /// `+d`, `-d`.
    Unary(UnaryOp, Box<DurationExpr>),
    /// `a + b`, with `+ - * / % ^`.
    Binary(BinaryOp, Box<DurationExpr>, Box<DurationExpr>),
    /// `(d)`.
    Paren(Box<DurationExpr>),
    /// `step()`: the step of the query, 0 for an instant query.
    Step,
    /// `range()`: `end - start` of the query.
    Range,
    /// `min_of(a, b)`.
    MinOf(Box<DurationExpr>, Box<DurationExpr>),
    /// `max_of(a, b)`.
    MaxOf(Box<DurationExpr>, Box<DurationExpr>),
}
