use proptest::prelude::*;

use super::*;

fn re(pattern: &str) -> Matcher {
    Matcher::new(MatchOp::Re, "l", pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"))
}

fn error(pattern: &str) -> String {
    match Matcher::new(MatchOp::Re, "l", pattern) {
        Err(e) => e.to_string(),
        Ok(_) => panic!("{pattern} should be refused"),
    }
}

#[test]
fn expressions_mean_what_they_mean_in_re2() {
    for (pattern, matched, not_matched) in [
        (r"\Qa.b|c\E.", &["a.b|cx"][..], &["axb", "c"][..]),
        (r"\Qa.b", &["a.b"], &["axb"]),
        ("a.b", &["a\nb", "axb"], &["ab"]),
        (r"\d+", &["09"], &["٣", ""]),
        (r"\w", &["_", "z"], &["é", "-"]),
        (r"[\w\-]+", &["a-b"], &["a b"]),
        (r"\s", &[" ", "\t"], &["\u{b}", "\u{a0}"]),
        (r"[^\d]", &["a", "٣"], &["4"]),
        ("a{,5}", &["a{,5}"], &["aa"]),
        ("{a}", &["{a}"], &["a"]),
        ("a{2}", &["aa"], &["a", "aaa"]),
        ("[[a]", &["[", "a"], &["]"]),
        ("[]a]", &["]", "a"], &["["]),
        ("[^]a]", &["b"], &["]", "a"]),
        ("[a&&b]", &["a", "&", "b"], &["c"]),
        ("[a~-]", &["a", "~", "-"], &["b"]),
        ("[+--]", &["+", ",", "-"], &["."]),
        ("[[:alpha:]_]+", &["ab_"], &["a1"]),
        (r"\x41\x{42}\103\0", &["ABC\0"], &["ABC"]),
        (r"a\/b\_\<", &["a/b_<"], &["a/b"]),
        (r"\pL+\p{Greek}", &["xα"], &["1α"]),
        (r"(?i)Ab(?-i)c", &["aBc", "ABc"], &["abC"]),
        ("^foo$", &["foo"], &["foox", "xfoo"]),
        ("foo|bar$", &["foo", "bar"], &["foobar"]),
        ("(?P<n>a)|b", &["a", "b"], &["ab"]),
        ("(?<n>a)", &["a"], &["n"]),
        ("", &[""], &["a"]),
        ("()|x", &["", "x"], &["xx"]),
        (".*x.*", &["x", "axb", "\nx"], &["", "a"]),
        ("x.+", &["xa"], &["x", "ax"]),
        (".+x", &["ax", "xx"], &["x"]),
        ("é|ü.*", &["é", "ü", "üa"], &["éa"]),
    ] {
        let m = re(pattern);
        for value in matched {
            assert!(m.matches(value), "{pattern} should match {value:?}");
        }
        for value in not_matched {
            assert!(!m.matches(value), "{pattern} should not match {value:?}");
        }
        let anchored = compile_anchored(pattern).unwrap();
        for value in matched.iter().chain(not_matched) {
            assert_eq!(anchored.is_match(value), m.matches(value), "{pattern} {value:?}");
        }
    }
}

#[test]
fn what_re2_refuses_is_refused_with_the_text_of_go() {
    for (pattern, text) in [
        ("a(b", "missing closing ): `a(b`"),
        ("a)b", "unexpected ): `a)b`"),
        ("a)(?:b", "unexpected ): `a)(?:b`"),
        ("*a", "missing argument to repetition operator: `*`"),
        ("a**", "invalid nested repetition operator: `**`"),
        ("a*?+", "invalid nested repetition operator: `*?+`"),
        ("a{1001}", "invalid repeat count: `{1001}`"),
        ("a{3,2}", "invalid repeat count: `{3,2}`"),
        ("x[a", "missing closing ]: `[a`"),
        ("[z-a]", "invalid character class range: `z-a`"),
        ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
        ("(?!a)", "invalid or unsupported Perl syntax: `(?!`"),
        ("(?x) a", "invalid or unsupported Perl syntax: `(?x`"),
        ("(?<=a)b", "invalid named capture: `(?<=a)b`"),
        (r"(a)\1", r"invalid escape sequence: `\1`"),
        (r"\u0041", r"invalid escape sequence: `\u`"),
        (r"\y", r"invalid escape sequence: `\y`"),
        (r"a\", "trailing backslash at end of expression: ``"),
    ] {
        assert_eq!(error(pattern), format!("error parsing regexp: {text}"), "{pattern}");
    }
}

#[test]
fn expressions_that_are_sets_say_so() {
    for (pattern, set) in [
        ("a", &["a"][..]),
        ("b|a|a", &["a", "b"]),
        ("foo|fob|f", &["f", "fob", "foo"]),
        ("(a|b)c?", &["a", "ac", "b", "bc"]),
        ("x[0-2]", &["x0", "x1", "x2"]),
        ("^(?:a|b)$", &["a", "b"]),
        (r"a\.b", &["a.b"]),
        ("", &[""]),
        ("(?i)ab", &["AB", "Ab", "aB", "ab"]),
    ] {
        assert_eq!(re(pattern).set_matches().unwrap_or_default(), set, "{pattern}");
    }
    for pattern in ["a.*", ".", "[^a]", "a+", "a{2,}", r"\bfoo", "[0-9]{3}"] {
        assert_eq!(re(pattern).set_matches(), None, "{pattern}");
    }
    let many = (10_000..15_000).map(|i| format!("host-{i}:9100")).collect::<Vec<_>>();
    assert_eq!(re(&many.join("|")).set_matches(), Some(&many[..]));
    // Each of five letters three times is too much.
    assert_eq!(re("[abc]{5}").set_matches().map(<[_]>::len), None);
    assert_eq!(re("[ab][cd][ef]").set_matches().map(<[_]>::len), Some(8));
    assert_eq!(re("[a-q][a-q]").set_matches(), None);
}

#[test]
fn prefixes_and_catch_alls_are_known() {
    for (pattern, prefixes) in [
        ("foo.*", &["foo"][..]),
        ("foo[0-9a-z]+", &["foo"]),
        ("foo[ab]?x+", &["fooax", "foobx", "foox"]),
        ("b.*|foo[0-9a-z]+|a.+", &["a", "b", "foo"]),
        ("(foo|foobar|bar)-.*", &["bar-", "foo-", "foobar-"]),
        ("(foo|foobar|bar)[^-]+", &["bar", "foo"]),
        ("(?i)é.*", &["É", "é"]),
        ("foo.*|.*", &[]),
        (".*foo", &[]),
        ("^ab.+c", &["ab"]),
        ("a|b", &[]),
    ] {
        assert_eq!(re(pattern).prefixes(), prefixes, "{pattern}");
    }
    let any_case = re("(?i)foo.*");
    assert!(any_case.prefixes().iter().all(|p| p.eq_ignore_ascii_case("foo")), "{any_case:?}");
    assert_eq!(any_case.prefixes().len(), 8);
    assert!(re(".*").matches_everything());
    assert!(re("(.*)").matches_everything());
    assert!(!re(".+").matches_everything());
    assert!(!Matcher::new(MatchOp::Nre, "l", ".*").unwrap().matches_everything());
    assert!(!re("(?-s).*").matches_everything());
}

proptest! {
    /// Shortcuts give what the regular expression gives.
    #[test]
    fn shortcuts_change_nothing(
        parts in prop::collection::vec(prop::sample::select(vec![
            ".*", ".+", "a", "b", "ab", "(a|b)", "[ab]", "a?", "|", "é", "(?:ab|)", "b*", "^", "$", ".", "(?i:A)",
        ]), 0..5),
        values in prop::collection::vec("[abé]{0,4}", 0..20),
    ) {
        let pattern = parts.concat();
        if let Ok(m) = Matcher::new(MatchOp::Re, "l", pattern.as_str()) {
            let plain = Regex::new(&format!("^(?s:{pattern})$")).unwrap();
            for value in values {
                prop_assert_eq!(m.matches(&value), plain.is_match(&value), "{} {:?}", pattern, value);
                if m.matches(&value) && !m.prefixes().is_empty() {
                    prop_assert!(m.prefixes().iter().any(|p| value.starts_with(p)));
                }
                prop_assert!(m.prefixes().windows(2).all(|w| !w[1].starts_with(&w[0])));
            }
        }
    }

    #[test]
    fn any_text_is_a_pattern_or_an_error(pattern in r"[\\\[\](){}?*+|^$.:<>=!aPQE0-9,&~-]{0,12}") {
        if let Ok(m) = Matcher::new(MatchOp::Re, "l", pattern.as_str()) {
            m.matches("a");
            prop_assert!(compile_anchored(&pattern).is_ok());
        }
    }
}

#[test]
fn repeated_classes_may_be_as_large_as_in_re2() {
    let matcher = Matcher::new(MatchOp::Re, "a", r"\pL{1,1000}").unwrap();
    assert!(matcher.matches(&"\u{e9}".repeat(1000)) && !matcher.matches(&"\u{e9}".repeat(1001)));
}
