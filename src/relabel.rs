//! Relabelling: rules that rewrite label sets, keep them or drop them.
//!
//! A [`Rule`] is checked when it is made ([`Rule::try_new`]), so applying it cannot fail.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/model/relabel/relabel.go>

use std::fmt;

use md5::{Digest, Md5};
use promontory_tsdb::LabelsBuilder;
use promontory_tsdb::labels::{go_quote, is_legacy_label_name};
use promontory_tsdb::matcher::{compile_anchored, expand_template};
use regex::Regex;

const DEFAULT_SEPARATOR: &str = ";";
const DEFAULT_REGEX: &str = "(.*)";
const DEFAULT_REPLACEMENT: &str = "$1";

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Action {
    /// Sets the target label if the regular expression matches.
    #[default]
    Replace,
    /// Drops what does not match.
    Keep,
    /// Drops what matches.
    Drop,
    /// Drops where the target label differs from the source.
    KeepEqual,
    /// Drops where the target label equals the source.
    DropEqual,
    /// Sets the target label to a hash of the source, modulo a number.
    HashMod,
    /// Copies labels whose name matches to another name.
    LabelMap,
    /// Removes labels whose name matches.
    LabelDrop,
    /// Removes labels whose name does not match.
    LabelKeep,
    /// Sets the target label to the source in lower case.
    Lowercase,
    /// Sets the target label to the source in upper case.
    Uppercase,
}

impl Action {
    const ALL: [Self; 11] = [
        Self::Replace,
        Self::Keep,
        Self::Drop,
        Self::KeepEqual,
        Self::DropEqual,
        Self::HashMod,
        Self::LabelMap,
        Self::LabelDrop,
        Self::LabelKeep,
        Self::Lowercase,
        Self::Uppercase,
    ];

    /// An action by name, in any case.
    ///
    /// # Errors
    /// If there is no such action.
    pub fn parse(name: &str) -> Result<Self, String> {
        let lower = name.to_lowercase();
        Self::ALL
            .into_iter()
            .find(|a| a.as_str() == lower)
            .ok_or_else(|| format!("unknown relabel action {}", go_quote(name)))
    }

    /// The name in config files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Keep => "keep",
            Self::Drop => "drop",
            Self::KeepEqual => "keepequal",
            Self::DropEqual => "dropequal",
            Self::HashMod => "hashmod",
            Self::LabelMap => "labelmap",
            Self::LabelDrop => "labeldrop",
            Self::LabelKeep => "labelkeep",
            Self::Lowercase => "lowercase",
            Self::Uppercase => "uppercase",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which label names are valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum NameValidation {
    /// Any non-empty UTF-8.
    #[default]
    Utf8,
    /// `[a-zA-Z_][a-zA-Z0-9_]*`
    Legacy,
}

impl NameValidation {
    /// Whether `name` may be the name of a label.
    pub fn is_valid_label_name(self, name: &str) -> bool {
        match self {
            Self::Utf8 => !name.is_empty(),
            Self::Legacy => is_legacy_label_name(name),
        }
    }

    /// Whether `name` may be the name of a metric.
    pub fn is_valid_metric_name(self, name: &str) -> bool {
        match self {
            Self::Utf8 => !name.is_empty(),
            Self::Legacy => !name.is_empty() && is_legacy_label_name(&name.replace(':', "_")),
        }
    }
}

/// A rule as written; what is left out has upstream's default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuleConfig {
    /// Labels whose values are joined into the source.
    pub source_labels: Vec<String>,
    /// What joins them; `;`.
    pub separator: Option<String>,
    /// What the source, or a label's name, must match in whole; `(.*)`.
    pub regex: Option<String>,
    /// Divisor for [`Action::HashMod`].
    pub modulus: u64,
    /// The label to set.
    pub target_label: String,
    /// What to set it to; `$1`.
    pub replacement: Option<String>,
    /// What to do.
    pub action: Action,
}

/// A checked rule.
#[derive(Debug, Clone)]
pub struct Rule {
    config: RuleConfig,
    regex: Regex,
    validation: NameValidation,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.config == other.config && self.validation == other.validation
    }
}

impl Rule {
    /// Checks a rule.
    ///
    /// # Errors
    /// What is wrong with it, in upstream's words.
    pub fn try_new(config: RuleConfig, validation: NameValidation) -> Result<Self, String> {
        check(&config, validation)?;
        let regex =
            compile_anchored(config.regex.as_deref().unwrap_or(DEFAULT_REGEX)).map_err(|e| e.to_string())?;
        Ok(Self { config, regex, validation })
    }

    /// The rule as written.
    pub fn config(&self) -> &RuleConfig {
        &self.config
    }

    fn separator(&self) -> &str {
        self.config.separator.as_deref().unwrap_or(DEFAULT_SEPARATOR)
    }

    fn replacement(&self) -> &str {
        self.config.replacement.as_deref().unwrap_or(DEFAULT_REPLACEMENT)
    }

    fn source(&self, labels: &LabelsBuilder) -> String {
        let mut source = String::new();
        for (i, name) in self.config.source_labels.iter().enumerate() {
            if i > 0 {
                source.push_str(self.separator());
            }
            source.push_str(labels.get(name).unwrap_or_default());
        }
        source
    }

    /// Applies the rule; `false` if it says to drop.
    pub fn apply(&self, labels: &mut LabelsBuilder) -> bool {
        let target = self.config.target_label.as_str();
        match self.config.action {
            Action::Replace => self.replace(labels),
            Action::Keep => return self.regex.is_match(&self.source(labels)),
            Action::Drop => return !self.regex.is_match(&self.source(labels)),
            Action::KeepEqual => return labels.get(target).unwrap_or_default() == self.source(labels),
            Action::DropEqual => return labels.get(target).unwrap_or_default() != self.source(labels),
            Action::HashMod => {
                let bucket = hash(self.source(labels).as_bytes()) % self.config.modulus;
                labels.set(target, &bucket.to_string());
            }
            Action::LabelMap => {
                let mut copies = Vec::new();
                for (name, value) in labels.iter() {
                    if let Some(captures) = self.regex.captures(name) {
                        let mut to = String::new();
                        expand_template(&captures, self.replacement(), &mut to);
                        copies.push((to, value.to_owned()));
                    }
                }
                copies.sort_unstable();
                for (name, value) in copies {
                    labels.set(&name, &value);
                }
            }
            Action::LabelDrop => self.remove_names(labels, true),
            Action::LabelKeep => self.remove_names(labels, false),
            Action::Lowercase => {
                let lower = self.source(labels).to_lowercase();
                labels.set(target, &lower);
            }
            Action::Uppercase => {
                let upper = self.source(labels).to_uppercase();
                labels.set(target, &upper);
            }
        }
        true
    }

    fn replace(&self, labels: &mut LabelsBuilder) {
        let source = self.source(labels);
        let Some(captures) = self.regex.captures(&source) else { return };
        let mut target = String::new();
        expand_template(&captures, &self.config.target_label, &mut target);
        if !self.validation.is_valid_label_name(&target) {
            return;
        }
        let mut value = String::new();
        expand_template(&captures, self.replacement(), &mut value);
        labels.set(&target, &value);
    }

    fn remove_names(&self, labels: &mut LabelsBuilder, matching: bool) {
        let doomed: Vec<String> = labels
            .iter()
            .map(|(name, _)| name)
            .filter(|name| self.regex.is_match(name) == matching)
            .map(str::to_owned)
            .collect();
        for name in doomed {
            labels.remove(&name);
        }
    }
}

/// Applies `rules` in order; `false` as soon as one says to drop.
pub fn apply(rules: &[Rule], labels: &mut LabelsBuilder) -> bool {
    rules.iter().all(|rule| rule.apply(labels))
}

/// The last 8 bytes of the MD5, big-endian, which is what earlier versions of upstream gave.
fn hash(bytes: &[u8]) -> u64 {
    let digest = Md5::digest(bytes);
    digest[8..].iter().fold(0, |n, b| (n << 8) | u64::from(*b))
}

fn check(config: &RuleConfig, validation: NameValidation) -> Result<(), String> {
    use Action::{
        DropEqual, HashMod, KeepEqual, LabelDrop, LabelKeep, LabelMap, Lowercase, Replace, Uppercase,
    };
    let action = config.action;
    let target = config.target_label.as_str();
    let replacement = config.replacement.as_deref().unwrap_or(DEFAULT_REPLACEMENT);
    let default_separator = config.separator.as_deref().unwrap_or(DEFAULT_SEPARATOR) == DEFAULT_SEPARATOR;
    let default_replacement = replacement == DEFAULT_REPLACEMENT;

    if config.modulus == 0 && action == HashMod {
        return Err("relabel configuration for hashmod requires non-zero modulus".to_owned());
    }
    if matches!(action, Replace | HashMod | Lowercase | Uppercase | KeepEqual | DropEqual)
        && target.is_empty()
    {
        return Err(format!("relabel configuration for {action} action requires 'target_label' value"));
    }
    let target_ok = match action {
        Replace if target.contains('$') => is_valid_template(target, validation),
        Replace | Lowercase | Uppercase | KeepEqual | DropEqual | HashMod => {
            validation.is_valid_label_name(target)
        }
        _ => true,
    };
    if !target_ok {
        return Err(format!("{} is invalid 'target_label' for {action} action", go_quote(target)));
    }
    if matches!(action, Lowercase | Uppercase | KeepEqual | DropEqual) && !default_replacement {
        return Err(format!("'replacement' can not be set for {action} action"));
    }
    if action == LabelMap && !is_valid_template(replacement, validation) {
        return Err(format!("{} is invalid 'replacement' for {action} action", go_quote(replacement)));
    }
    let plain = config.modulus == 0 && default_separator && default_replacement;
    if matches!(action, DropEqual | KeepEqual) && !(plain && config.regex.is_none()) {
        return Err(format!(
            "{action} action requires only 'source_labels' and `target_label`, and no other fields"
        ));
    }
    if matches!(action, LabelDrop | LabelKeep)
        && !(plain && config.source_labels.is_empty() && target.is_empty())
    {
        return Err(format!("{action} action requires only 'regex', and no other fields"));
    }
    Ok(())
}

/// Whether a label name that may hold `$1` or `${name}` can come out valid.
fn is_valid_template(template: &str, validation: NameValidation) -> bool {
    if validation == NameValidation::Utf8 {
        return !template.is_empty();
    }
    // What a variable stands for is not known; a letter in its place is as good as any.
    let mut name = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        name.push_str(before);
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (variable, tail) = match after.strip_prefix('{') {
            Some(inner) => match inner.split_once('}') {
                Some((variable, tail)) if variable.chars().all(is_word) => (variable, tail),
                _ => return false,
            },
            None => after.split_at(after.find(|c| !is_word(c)).unwrap_or(after.len())),
        };
        if variable.is_empty() {
            return false;
        }
        name.push('v');
        rest = tail;
    }
    name.push_str(rest);
    is_legacy_label_name(&name)
}

#[cfg(test)]
mod tests {
    use promontory_tsdb::Labels;

    use super::*;

    fn rule(action: Action) -> RuleConfig {
        RuleConfig { action, ..RuleConfig::default() }
    }

    fn source(mut config: RuleConfig, labels: &[&str]) -> RuleConfig {
        config.source_labels = labels.iter().map(|l| (*l).to_owned()).collect();
        config
    }

    fn with(mut config: RuleConfig, regex: &str, target: &str, replacement: &str) -> RuleConfig {
        config.regex = (!regex.is_empty()).then(|| regex.to_owned());
        config.target_label = target.to_owned();
        config.replacement = (replacement != "-").then(|| replacement.to_owned());
        config
    }

    /// What is left of `a="foo", b="bar", c="baz"`, or `dropped`.
    #[track_caller]
    fn check_rule(config: RuleConfig, want: &str) {
        let rule = Rule::try_new(config, NameValidation::Utf8).unwrap();
        let mut labels = Labels::from_pairs([("a", "foo"), ("b", "bar"), ("c", "baz")]).to_builder();
        let got = match apply(&[rule], &mut labels) {
            true => labels.build().to_string(),
            false => "dropped".to_owned(),
        };
        assert_eq!(got, want);
    }

    #[test]
    fn replace_expands_target_and_value() {
        use Action::Replace;
        let abc = r#"{a="foo", b="bar", c="baz"}"#;
        let from_a = || source(rule(Replace), &["a"]);
        check_rule(
            with(from_a(), "f(.*)", "d", "ch${1}-ch${1}"),
            r#"{a="foo", b="bar", c="baz", d="choo-choo"}"#,
        );
        check_rule(with(from_a(), "o$", "d", "x"), abc);
        check_rule(with(from_a(), "", "d", "-"), r#"{a="foo", b="bar", c="baz", d="foo"}"#);
        check_rule(with(from_a(), "foo", "b", ""), r#"{a="foo", c="baz"}"#);
        check_rule(
            with(from_a(), "(f)(?P<rest>.*)", "${1}_$rest", "v"),
            r#"{a="foo", b="bar", c="baz", f_oo="v"}"#,
        );
        check_rule(
            with(source(rule(Replace), &["a", "b"]), "foo;bar", "a", "both"),
            r#"{a="both", b="bar", c="baz"}"#,
        );
        check_rule(with(rule(Replace), "", "d", "constant"), r#"{a="foo", b="bar", c="baz", d="constant"}"#);
        // `$1x` is a group named "1x", which there is not.
        check_rule(with(from_a(), "(.*)", "d", "$1x"), abc);
        check_rule(with(from_a(), "(.*)", "d", "$1度"), abc);
        check_rule(with(from_a(), "(.*)", "d", "${a-b}${}"), r#"{a="foo", b="bar", c="baz", d="${a-b}${}"}"#);
        check_rule(with(from_a(), "(.*)", "d", "$$1"), r#"{a="foo", b="bar", c="baz", d="$1"}"#);
    }

    #[test]
    fn keep_and_drop_look_at_the_whole_source() {
        for (action, regex, dropped) in [
            (Action::Keep, "foo", false),
            (Action::Keep, "fo", true),
            (Action::Drop, "f.*", false),
            (Action::Drop, "oo", true),
        ] {
            let dropped = if action == Action::Drop { !dropped } else { dropped };
            let want = if dropped { "dropped" } else { r#"{a="foo", b="bar", c="baz"}"# };
            check_rule(with(source(rule(action), &["a"]), regex, "", "-"), want);
        }
        check_rule(with(source(rule(Action::KeepEqual), &["a"]), "", "b", "-"), "dropped");
        check_rule(
            with(source(rule(Action::KeepEqual), &["a"]), "", "a", "-"),
            r#"{a="foo", b="bar", c="baz"}"#,
        );
        check_rule(with(source(rule(Action::DropEqual), &["a"]), "", "a", "-"), "dropped");
    }

    #[test]
    fn dot_matches_a_newline() {
        let rule =
            Rule::try_new(with(source(rule(Action::Keep), &["a"]), "x.y", "", "-"), NameValidation::Utf8);
        let mut labels = Labels::from_pairs([("a", "x\ny")]).to_builder();
        assert!(apply(&[rule.unwrap()], &mut labels));
    }

    #[test]
    fn hashmod_is_upstreams_hash() {
        let mut config = with(source(rule(Action::HashMod), &["c"]), "", "d", "-");
        config.modulus = 1000;
        check_rule(config, r#"{a="foo", b="bar", c="baz", d="976"}"#);
        let mut config = with(source(rule(Action::HashMod), &["c"]), "", "d", "-");
        config.modulus = 1000;
        let rule = Rule::try_new(config, NameValidation::Utf8).unwrap();
        let mut labels = Labels::from_pairs([("a", "foo\nbar"), ("c", "foo\nbar")]).to_builder();
        apply(&[rule], &mut labels);
        assert_eq!(labels.get("d"), Some("734"));
    }

    #[test]
    fn label_actions_go_by_name() {
        check_rule(with(rule(Action::LabelDrop), "(a|c)", "", "-"), r#"{b="bar"}"#);
        check_rule(with(rule(Action::LabelKeep), "a", "", "-"), r#"{a="foo"}"#);
        check_rule(
            with(rule(Action::LabelMap), "([ab])", "", "x_$1"),
            r#"{a="foo", b="bar", c="baz", x_a="foo", x_b="bar"}"#,
        );
    }

    #[test]
    fn case_actions_write_the_target() {
        check_rule(
            with(source(rule(Action::Uppercase), &["a", "b"]), "", "d", "-"),
            r#"{a="foo", b="bar", c="baz", d="FOO;BAR"}"#,
        );
        check_rule(
            with(source(rule(Action::Lowercase), &["a"]), "", "a", "-"),
            r#"{a="foo", b="bar", c="baz"}"#,
        );
    }

    #[test]
    fn rules_apply_in_order() {
        let rules = [
            Rule::try_new(with(source(rule(Action::Replace), &["a"]), "", "b", "-"), NameValidation::Utf8),
            Rule::try_new(with(source(rule(Action::Replace), &["b"]), "", "c", "-"), NameValidation::Utf8),
        ]
        .map(Result::unwrap);
        let mut labels = Labels::from_pairs([("a", "1")]).to_builder();
        assert!(apply(&rules, &mut labels));
        assert_eq!(labels.build(), Labels::from_pairs([("a", "1"), ("b", "1"), ("c", "1")]));
    }

    #[test]
    fn senseless_rules_are_refused() {
        use NameValidation::{Legacy, Utf8};
        for (config, validation, want) in [
            (rule(Action::HashMod), Utf8, "relabel configuration for hashmod requires non-zero modulus"),
            (
                rule(Action::Replace),
                Utf8,
                "relabel configuration for replace action requires 'target_label' value",
            ),
            (
                with(rule(Action::Lowercase), "", "", "-"),
                Utf8,
                "relabel configuration for lowercase action requires 'target_label' value",
            ),
            (
                with(rule(Action::Lowercase), "", "a", "$2"),
                Utf8,
                "'replacement' can not be set for lowercase action",
            ),
            (
                with(rule(Action::Replace), "", "a-b", "x"),
                Legacy,
                "\"a-b\" is invalid 'target_label' for replace action",
            ),
            (
                with(rule(Action::Replace), "", "a${b", "x"),
                Legacy,
                "\"a${b\" is invalid 'target_label' for replace action",
            ),
            (
                with(rule(Action::LabelMap), "", "", "a-$1"),
                Legacy,
                "\"a-$1\" is invalid 'replacement' for labelmap action",
            ),
            (
                with(source(rule(Action::KeepEqual), &["a"]), "x", "b", "-"),
                Utf8,
                "keepequal action requires only 'source_labels' and `target_label`, and no other fields",
            ),
            (
                with(source(rule(Action::LabelDrop), &["a"]), "x", "", "-"),
                Utf8,
                "labeldrop action requires only 'regex', and no other fields",
            ),
        ] {
            assert_eq!(Rule::try_new(config, validation).unwrap_err(), want);
        }
        assert!(Rule::try_new(with(rule(Action::Keep), "(", "", "-"), Utf8).is_err());
        assert!(Rule::try_new(with(rule(Action::Replace), "", "${1}_x", "-"), Legacy).is_ok());
        assert_eq!(Action::parse("LabelMap"), Ok(Action::LabelMap));
        assert_eq!(Action::parse("nope").unwrap_err(), "unknown relabel action \"nope\"");
    }
}
