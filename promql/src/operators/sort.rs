//! `Sort`: the order of an instant vector, for `sort`, `sort_by_label` and what keeps the order of its input.
//!
//! Sources: <https://github.com/prometheus/prometheus/blob/v3.14.0/promql/functions.go> (`funcSort`,
//! `funcSortByLabel`), <https://github.com/facette/natsort>. Difference: upstream's natural order has no rule for
//! numbers that differ in leading zeros only; here the shorter text goes first.

use std::cmp::Ordering;
use std::fmt;

use datafusion::error::DataFusionError;

use super::key::{compare, get, unmarked};
use super::rows::{Row, TileWriter};
use super::{Evaluate, Scope};
use crate::context::Pace;
use crate::error::QueryError;

/// Puts the rows of a vector on one step in order. Rows that are equal stay as they came.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sort {
    /// The order.
    pub by: SortBy,
    /// Rows come in an order that counts; otherwise they are brought into label order first.
    pub ordered_input: bool,
}

/// What a [`Sort`] sorts by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SortBy {
    /// Label sets.
    Labels,
    /// `sort`, `sort_desc`: NaN last.
    Value {
        /// Greatest first.
        descending: bool,
    },
    /// `sort_by_label`, `sort_by_label_desc`: numbers within values count as numbers.
    LabelValues {
        /// Most important first.
        labels: Vec<String>,
        /// In reverse.
        descending: bool,
    },
}

impl fmt::Display for Sort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = |descending| if descending { " descending" } else { "" };
        match &self.by {
            SortBy::Labels => f.write_str("by labels"),
            SortBy::Value { descending } => write!(f, "by value{}", direction(*descending)),
            SortBy::LabelValues { labels, descending } => {
                write!(f, "by values of {}{}", labels.join(", "), direction(*descending))
            }
        }
    }
}

impl Evaluate for Sort {
    fn name(&self) -> &'static str {
        "Sort"
    }

    fn run(
        &self,
        scope: Scope<'_>,
        vectors: &[Vec<Row<'_>>],
        out: &mut TileWriter<'_>,
    ) -> Result<(), DataFusionError> {
        let mut rows: Vec<&Row<'_>> = vectors[0].iter().collect();
        let mut pace = Pace::new(scope.context);
        if !self.ordered_input {
            rows.sort_by(|a, b| a.tile.cmp(&b.tile).then_with(|| by_labels(a, b)));
        }
        match &self.by {
            SortBy::Labels => {}
            SortBy::Value { descending } => {
                rows.sort_by(|a, b| by_float(a.values[0], b.values[0], *descending));
            }
            SortBy::LabelValues { labels, descending } => {
                let by = |a: &&Row<'_>, b: &&Row<'_>| {
                    let order = by_label_values(a, b, labels);
                    if *descending { order.reverse() } else { order }
                };
                rows = merge_sort(rows, &by, &mut pace)?;
            }
        }
        for row in rows {
            out.pass(row, row.key, u128::MAX)?;
        }
        Ok(())
    }
}

/// A stable sort that is content with an order that runs in circles, which natural order may.
fn merge_sort<T: Copy>(
    items: Vec<T>,
    order: &impl Fn(&T, &T) -> Ordering,
    pace: &mut Pace<'_>,
) -> Result<Vec<T>, QueryError> {
    let mut items = items;
    let mut width = 1;
    while width < items.len() {
        let mut merged = Vec::with_capacity(items.len());
        for pair in items.chunks(2 * width) {
            pace.step(pair.len())?;
            let (mut a, mut b) = pair.split_at(width.min(pair.len()));
            while let (Some((x, more_a)), Some((y, more_b))) = (a.split_first(), b.split_first()) {
                if order(x, y).is_le() {
                    merged.push(*x);
                    a = more_a;
                } else {
                    merged.push(*y);
                    b = more_b;
                }
            }
            merged.extend_from_slice(a);
            merged.extend_from_slice(b);
        }
        items = merged;
        width *= 2;
    }
    Ok(items)
}

fn by_labels(a: &Row<'_>, b: &Row<'_>) -> Ordering {
    compare(unmarked(a.key), unmarked(b.key))
}

fn by_float(a: f64, b: f64, descending: bool) -> Ordering {
    let order = a.partial_cmp(&b).unwrap_or(Ordering::Equal);
    a.is_nan().cmp(&b.is_nan()).then(if descending { order.reverse() } else { order })
}

fn by_label_values(a: &Row<'_>, b: &Row<'_>, labels: &[String]) -> Ordering {
    for label in labels {
        let (x, y) = (get(a.key, label).unwrap_or_default(), get(b.key, label).unwrap_or_default());
        if x != y {
            return natural(x, y);
        }
    }
    by_labels(a, b)
}

/// Compares texts piece by piece, runs of digits as numbers where both are numbers of 64 bits.
fn natural(a: &[u8], b: &[u8]) -> Ordering {
    let (mut rest_a, mut rest_b) = (a, b);
    while !rest_a.is_empty() && !rest_b.is_empty() {
        let (x, y) = (piece(&mut rest_a), piece(&mut rest_b));
        let order = match (number(x), number(y)) {
            (Some(m), Some(n)) => m.cmp(&n),
            _ => x.cmp(y),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    rest_a
        .is_empty()
        .cmp(&rest_b.is_empty())
        .reverse()
        .then_with(|| a.len().cmp(&b.len()))
        .then_with(|| a.cmp(b))
}

fn number(piece: &[u8]) -> Option<i64> {
    std::str::from_utf8(piece)
        .ok()
        .filter(|text| text.starts_with(|c: char| c.is_ascii_digit()))?
        .parse()
        .ok()
}

fn piece<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let digit = text[0].is_ascii_digit();
    let end = text.iter().position(|b| b.is_ascii_digit() != digit).unwrap_or(text.len());
    let (head, tail) = text.split_at(end);
    *text = tail;
    head
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::context::QueryContext;

    #[track_caller]
    fn check_natural(want: &[&str]) {
        for (i, a) in want.iter().enumerate() {
            for (j, b) in want.iter().enumerate() {
                assert_eq!(natural(a.as_bytes(), b.as_bytes()), i.cmp(&j), "{a} against {b}");
            }
        }
    }

    #[test]
    fn natural_order_counts_numbers() {
        check_natural(&["a", "node1", "node9", "node10"]);
    }

    #[test]
    fn equal_numbers_leave_it_to_the_next_piece() {
        check_natural(&["x01a", "x1b", "x001c"]);
        check_natural(&["x1", "x01", "x001", "x1a"]);
    }

    #[test]
    fn numbers_beyond_64_bits_are_texts() {
        check_natural(&["10000000000000000000", "9223372036854775808"]);
        check_natural(&["9", "9223372036854775807"]);
        check_natural(&["10000000000000000000", "9"]);
    }

    #[test]
    fn an_order_that_runs_in_circles_is_survived() {
        let texts = ["5", "10", "100000000000000000000"];
        let all: Vec<&str> = (0..1000).map(|i| texts[i * 7 % 3]).collect();
        let context = QueryContext::new(1, CancellationToken::new());
        let by = |a: &&str, b: &&str| natural(a.as_bytes(), b.as_bytes());
        let sorted = merge_sort(all.clone(), &by, &mut Pace::new(&context)).unwrap();
        assert_eq!(sorted.len(), all.len());
        let numbers = merge_sort(vec![3, 1, 2, 5, 4], &|a, b| a.cmp(b), &mut Pace::new(&context)).unwrap();
        assert_eq!(numbers, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn sorting_by_value_puts_nan_last_in_both_directions() {
        for descending in [false, true] {
            assert_eq!(by_float(f64::NAN, 1.0, descending), Ordering::Greater);
        }
    }
}
