//! `$1` and `${name}` in replacements.

use std::sync::LazyLock;

use regex::{Captures, Regex};

/// Appends `template` to `out`, with the groups of `captures` in the place of `$1`, `${1}`, `$name` and `${name}`.
/// Without braces a name is as long as letters, digits and `_` go; `$01` is a name, too. Groups that there are not,
/// or that took no part, are empty; `$$` is a dollar sign, and so is one behind which no name stands.
///
/// Source: the rules of `Regexp.Expand`, <https://pkg.go.dev/regexp#Regexp.Expand>.
pub fn expand_template(captures: &Captures<'_>, template: &str, out: &mut String) {
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
            continue;
        }
        let Some((name, tail)) = reference(after) else {
            out.push('$');
            rest = after;
            continue;
        };
        let group = match number(name) {
            Some(number) => captures.get(number),
            None => captures.name(name),
        };
        out.push_str(group.map_or("", |group| group.as_str()));
        rest = tail;
    }
    out.push_str(rest);
}

/// The name at the start of `text`, in braces or not, and what stands behind.
fn reference(text: &str) -> Option<(&str, &str)> {
    static NAME: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^[\p{L}\p{Nd}_]+").expect("the pattern is fixed"));
    let inner = text.strip_prefix('{');
    let (name, tail) = {
        let text = inner.unwrap_or(text);
        text.split_at(NAME.find(text)?.end())
    };
    match inner {
        Some(_) => tail.strip_prefix('}').map(|tail| (name, tail)),
        None => Some((name, tail)),
    }
}

/// The number of a group, if the name is one: no leading zeros, not beyond a hundred million.
fn number(name: &str) -> Option<usize> {
    let plain = name.bytes().all(|b| b.is_ascii_digit()) && (name == "0" || !name.starts_with('0'));
    name.parse().ok().filter(|n| plain && *n < 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matcher::compile_anchored;

    #[test]
    fn templates_are_those_of_go() {
        let regex = compile_anchored("(.)(?P<rest>.*)(x)?").unwrap();
        let captures = regex.captures("foo").unwrap();
        for (template, want) in [
            ("", ""),
            ("plain", "plain"),
            ("$1-${2}-$rest-${rest}", "f-oo-oo-oo"),
            ("$0", "foo"),
            ("$3$9$none${none}|", "|"),
            ("$1x ${1}x", " fx"),
            ("$1\u{5ea6}", ""),
            ("$1-\u{5ea6}", "f-\u{5ea6}"),
            ("$01$00|", "|"),
            ("$$1$$", "$1$"),
            ("$", "$"),
            ("a$ b", "a$ b"),
            ("${a-b}${}${1", "${a-b}${}${1"),
            ("${$1}", "${f}"),
        ] {
            let mut out = String::new();
            expand_template(&captures, template, &mut out);
            assert_eq!(out, want, "{template}");
        }
    }
}
