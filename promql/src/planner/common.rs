//! Which subexpressions of a query are the same, so that one evaluation can serve all of them.
//!
//! Subexpressions are put into classes from the leaves up: two are of one class if they differ in places and
//! parentheses only. A class that would be planned more than once, if all that is the same were planned once, may be
//! shared; whether places of a class are on one grid is not known here, but to the planner.

use std::collections::{HashMap, HashSet};

use super::{children, unwrap_parens};
use crate::logical::spec::RangeFunction;
use crate::parser::{
    AtModifier, DurationExpr, DurationExprKind, Expr, ExprKind, TimeShift, VectorMatching, VectorSelector,
};

/// Expressions that may be shared, by address, and their classes.
pub(super) type Classes = HashMap<*const Expr, u32>;

/// Finds what may be shared; `over_ranges` says whether functions of stored ranges may be.
pub(super) fn find(root: &Expr, over_ranges: bool) -> Classes {
    if !repeats_a_selector(root) {
        return Classes::new();
    }
    let mut found = Finder::default();
    found.walk(root);
    found.shared(over_ranges)
}

/// Whether two selectors are the same: without, nothing with data is, and most queries are done with here.
fn repeats_a_selector(root: &Expr) -> bool {
    let (mut seen, mut todo, mut key) = (HashSet::new(), vec![root], Vec::new());
    let mut last: Option<&VectorSelector> = None;
    while let Some(expr) = todo.pop() {
        let selector = match &expr.kind {
            ExprKind::VectorSelector(selector) => Some(selector),
            ExprKind::MatrixSelector(matrix) => Some(&matrix.selector),
            _ => None,
        };
        if let Some(selector) = selector {
            // A query with one selector needs no set.
            if let Some(first) = last.replace(selector) {
                if seen.is_empty() {
                    put_selector(first, &mut key);
                    seen.insert(std::mem::take(&mut key));
                }
                put_selector(selector, &mut key);
                if !seen.insert(std::mem::take(&mut key)) {
                    return true;
                }
            }
        }
        children(expr, |child| todo.push(child));
    }
    false
}

/// What is known of a class.
#[derive(Debug)]
struct Class {
    /// The planner plans it as a whole: it is a vector or a scalar.
    planned: bool,
    /// There is a selector in it.
    selects: bool,
    /// There is a range of stored samples in it.
    ranges: bool,
    /// The classes right below that are planned for it.
    below: Vec<u32>,
}

#[derive(Debug, Default)]
struct Finder {
    numbers: HashMap<Vec<u8>, u32>,
    classes: Vec<Class>,
    /// Every planned expression but those that are added up in their leaf.
    places: Vec<(*const Expr, u32)>,
}

impl Finder {
    /// From the leaves up, without recursion: chains of operators are long.
    fn walk(&mut self, root: &Expr) {
        let mut todo = vec![(root, false, false)];
        let mut done: Vec<u32> = Vec::new();
        let mut key = Vec::new();
        while let Some((expr, in_leaf, below_is_done)) = todo.pop() {
            if let ExprKind::Paren(inner) = &expr.kind {
                todo.push((inner, in_leaf, false));
                continue;
            }
            if !below_is_done {
                todo.push((expr, in_leaf, true));
                let adds_up = adds_up_in_leaf(expr);
                let first = todo.len();
                children(expr, |child| todo.push((child, adds_up, false)));
                todo[first..].reverse();
                continue;
            }
            let mut below = 0;
            children(expr, |_| below += 1);
            let below = done.split_off(done.len() - below);
            key.clear();
            put_expr(expr, &mut key);
            below.iter().for_each(|class| put_number(u64::from(*class), &mut key));
            let class = self.class(expr, &key, below);
            if self.classes[class as usize].planned && !in_leaf {
                self.places.push((std::ptr::from_ref(expr), class));
            }
            done.push(class);
        }
    }

    fn class(&mut self, expr: &Expr, key: &[u8], mut below: Vec<u32>) -> u32 {
        if let Some(class) = self.numbers.get(key) {
            return *class;
        }
        let any = |what: fn(&Class) -> bool| below.iter().any(|class| what(&self.classes[*class as usize]));
        let (selects, ranges) = (any(|class| class.selects), any(|class| class.ranges));
        let (selects, ranges, planned) = match &expr.kind {
            ExprKind::VectorSelector(_) => (true, false, true),
            ExprKind::MatrixSelector(_) => (true, true, false),
            ExprKind::Subquery(_) | ExprKind::Number(_) | ExprKind::String(_) => (selects, ranges, false),
            _ => (selects, ranges, selects),
        };
        if adds_up_in_leaf(expr) {
            below.clear();
        }
        let class = self.classes.len() as u32;
        self.classes.push(Class { planned, selects, ranges, below });
        self.numbers.insert(key.to_vec(), class);
        class
    }

    /// The places of classes that are wanted in several places.
    fn shared(self, over_ranges: bool) -> Classes {
        let mut wanted = vec![0u32; self.classes.len()];
        if let Some(root) = wanted.last_mut() {
            *root = 1;
        }
        // What is below has a lower number.
        for (number, class) in self.classes.iter().enumerate().rev() {
            let times = if class.planned { wanted[number].min(1) } else { wanted[number] };
            for below in &class.below {
                let below = &mut wanted[*below as usize];
                *below = below.saturating_add(times);
            }
        }
        let may = |class: &u32| {
            let number = *class as usize;
            wanted[number] > 1 && (over_ranges || !self.classes[number].ranges)
        };
        self.places.iter().filter(|(_, class)| may(class)).copied().collect()
    }
}

/// Whether `expr` is an aggregate right above a leaf, which adds up where series are evaluated. What such a leaf gives
/// would first have to become tiles to be shared, of each series and not of each group, and then be grouped again.
fn adds_up_in_leaf(expr: &Expr) -> bool {
    let ExprKind::Aggregate(aggregate) = &expr.kind else { return false };
    if aggregate.op.has_param() {
        return false;
    }
    match &unwrap_parens(&aggregate.expr).kind {
        ExprKind::VectorSelector(_) => true,
        ExprKind::Call(call) => {
            RangeFunction::by_name(call.function.name).is_some()
                && call.args.iter().any(|arg| matches!(unwrap_parens(arg).kind, ExprKind::MatrixSelector(_)))
        }
        _ => false,
    }
}

fn put_number(n: u64, key: &mut Vec<u8>) {
    // Most are small: as many bytes as needed, behind their count.
    let bytes = n.to_le_bytes();
    let len = 8 - n.leading_zeros() as usize / 8;
    key.push(len as u8);
    key.extend_from_slice(&bytes[..len]);
}

fn put_text(text: &str, key: &mut Vec<u8>) {
    put_number(text.len() as u64, key);
    key.extend_from_slice(text.as_bytes());
}

fn put_texts(texts: &[String], key: &mut Vec<u8>) {
    put_number(texts.len() as u64, key);
    texts.iter().for_each(|text| put_text(text, key));
}

/// All of `expr` but its place and what is below.
fn put_expr(expr: &Expr, key: &mut Vec<u8>) {
    match &expr.kind {
        ExprKind::Number(n) => {
            key.push(0);
            key.extend_from_slice(&n.value.to_bits().to_le_bytes());
        }
        ExprKind::String(text) => {
            key.push(1);
            put_text(text, key);
        }
        ExprKind::Paren(_) => key.push(2),
        ExprKind::Unary(op, _) => key.extend_from_slice(&[3, *op as u8]),
        ExprKind::Binary(binary) => {
            key.extend_from_slice(&[4, binary.op as u8, u8::from(binary.return_bool)]);
            match &binary.matching {
                None => key.push(0),
                Some(matching) => put_matching(matching, key),
            }
        }
        ExprKind::Aggregate(aggregate) => {
            let (without, param) = (u8::from(aggregate.without), u8::from(aggregate.param.is_some()));
            key.extend_from_slice(&[5, aggregate.op as u8, without, param]);
            put_texts(&aggregate.grouping, key);
        }
        ExprKind::Call(call) => {
            key.push(6);
            put_text(call.function.name, key);
            put_number(call.args.len() as u64, key);
        }
        ExprKind::VectorSelector(selector) => {
            key.push(7);
            put_selector(selector, key);
        }
        ExprKind::MatrixSelector(matrix) => {
            key.push(8);
            put_selector(&matrix.selector, key);
            put_duration(&matrix.range, key);
        }
        ExprKind::Subquery(subquery) => {
            key.push(9);
            put_duration(&subquery.range, key);
            key.push(u8::from(subquery.step.is_some()));
            subquery.step.iter().for_each(|step| put_duration(step, key));
            put_time(&subquery.time, key);
        }
    }
}

fn put_matching(matching: &VectorMatching, key: &mut Vec<u8>) {
    key.extend_from_slice(&[1, matching.cardinality as u8, u8::from(matching.on)]);
    put_texts(&matching.labels, key);
    put_texts(&matching.include, key);
    for fill in [matching.fill_left, matching.fill_right] {
        key.push(u8::from(fill.is_some()));
        fill.iter().for_each(|fill| key.extend_from_slice(&fill.to_bits().to_le_bytes()));
    }
}

fn put_selector(selector: &VectorSelector, key: &mut Vec<u8>) {
    put_number(selector.matchers.len() as u64, key);
    for matcher in &selector.matchers {
        key.push(matcher.op() as u8);
        put_text(matcher.name(), key);
        put_text(matcher.value(), key);
    }
    key.push(selector.extension.map_or(0, |extension| 1 + extension as u8));
    put_time(&selector.time, key);
}

fn put_time(time: &TimeShift, key: &mut Vec<u8>) {
    match time.at {
        None => key.push(0),
        Some(AtModifier::Start) => key.push(1),
        Some(AtModifier::End) => key.push(2),
        Some(AtModifier::At(at)) => {
            key.push(3);
            key.extend_from_slice(&at.to_le_bytes());
        }
    }
    key.push(u8::from(time.offset.is_some()));
    time.offset.iter().for_each(|offset| put_duration(offset, key));
}

fn put_duration(duration: &DurationExpr, key: &mut Vec<u8>) {
    match &duration.kind {
        DurationExprKind::Literal(n) => {
            key.push(0);
            key.extend_from_slice(&n.value.to_bits().to_le_bytes());
        }
        DurationExprKind::Unary(op, inner) => {
            key.extend_from_slice(&[1, *op as u8]);
            put_duration(inner, key);
        }
        DurationExprKind::Binary(op, a, b) => {
            key.extend_from_slice(&[2, *op as u8]);
            put_duration(a, key);
            put_duration(b, key);
        }
        DurationExprKind::Paren(inner) => put_duration(inner, key),
        DurationExprKind::Step => key.push(4),
        DurationExprKind::Range => key.push(5),
        DurationExprKind::MinOf(a, b) => {
            key.push(6);
            put_duration(a, key);
            put_duration(b, key);
        }
        DurationExprKind::MaxOf(a, b) => {
            key.push(7);
            put_duration(a, key);
            put_duration(b, key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::{self, ParserOptions};

    /// What may be shared, each text as often as there are places.
    fn shared(query: &str) -> Vec<String> {
        let expr = parser::parse(query, &ParserOptions::all()).unwrap();
        let classes = find(&expr, true);
        let mut texts = Vec::new();
        let mut todo = vec![&expr];
        while let Some(expr) = todo.pop() {
            if classes.contains_key(&std::ptr::from_ref(expr)) {
                texts.push(expr.to_string());
            }
            children(expr, |child| todo.push(child));
        }
        texts.sort();
        texts
    }

    #[test]
    fn only_the_largest_common_parts_are_shared() {
        assert_eq!(shared("abs(x) + abs((x))"), ["abs((x))", "abs(x)"]);
        assert_eq!(shared("abs(x) + abs( (x) ) + x"), ["abs((x))", "abs(x)", "x", "x", "x"]);
        assert_eq!(shared("x + y"), [""; 0]);
        assert_eq!(shared("x + x offset 1m"), [""; 0]);
        assert_eq!(shared("rate(x[5m]) + rate(x[1m])"), [""; 0]);
        assert_eq!(shared("1 + 1"), [""; 0]);
    }

    #[test]
    fn subqueries_hide_nothing() {
        assert_eq!(shared("max_over_time(x[5m:1m]) - min_over_time(x[5m:1m])"), ["x", "x"]);
    }

    #[test]
    fn what_is_added_up_in_the_leaf_is_not_shared_below_the_sum() {
        assert_eq!(shared("sum(rate(x[5m])) / count(rate(x[5m]))"), [""; 0]);
        assert_eq!(shared("sum(rate(x[5m])) / sum((rate(x[5m])))").len(), 2);
        assert_eq!(shared("sum(abs(x)) / count(abs(x))"), ["abs(x)", "abs(x)"]);
    }
}
