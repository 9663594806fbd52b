//! Reads typed values out of the YAML tree, strictly, and remembers where each one stood.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::units::{parse_bytes, parse_duration};
use super::yaml::{Key, Node, Value};
use super::{ConfigError, ConfigWarning};

pub(super) type Result<T> = std::result::Result<T, ConfigError>;

/// What reading one file yields besides its values.
#[derive(Debug)]
pub(super) struct Notes {
    pub(super) file: PathBuf,
    pub(super) warnings: Vec<ConfigWarning>,
}

impl Notes {
    pub(super) fn new(file: &Path) -> Self {
        Self { file: file.to_path_buf(), warnings: Vec::new() }
    }

    pub(super) fn error(&self, at: &At, reason: impl Into<String>) -> ConfigError {
        ConfigError { file: self.file.clone(), line: at.line, key: at.key.clone(), reason: reason.into() }
    }

    pub(super) fn warn(&mut self, at: &At, message: impl Into<String>) {
        self.warnings.push(ConfigWarning {
            file: self.file.clone(),
            line: at.line,
            key: at.key.clone(),
            message: message.into(),
        });
    }
}

/// A place in a file: the line, and the key with all keys above it.
#[derive(Debug, Clone, Default)]
pub(super) struct At {
    pub(super) line: usize,
    pub(super) key: String,
}

impl At {
    fn child(&self, key: &Key) -> Self {
        let sep = if self.key.is_empty() { "" } else { "." };
        Self { line: key.line, key: format!("{}{sep}{}", self.key, key.name) }
    }

    fn item(&self, i: usize, line: usize) -> Self {
        Self { line, key: format!("{}[{i}]", self.key) }
    }
}

/// A value that is not null, with its place.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) at: At,
    node: Node,
}

/// A map of which every key must be taken or refused.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) at: At,
    pairs: Vec<(Key, Node)>,
}

impl Section {
    /// The root of a file. Null is an empty map.
    pub(super) fn root(notes: &Notes, node: Node) -> Result<Self> {
        let at = At { line: node.line, key: String::new() };
        Item { at, node }.section(notes)
    }

    /// Takes `key`; null counts as not there, as upstream.
    pub(super) fn take(&mut self, key: &str) -> Option<Item> {
        let i = self.pairs.iter().position(|(k, _)| k.name == key)?;
        let (key, node) = self.pairs.remove(i);
        if matches!(node.value, Value::Null) {
            return None;
        }
        Some(Item { at: self.at.child(&key), node })
    }

    /// Takes a key that Prometheus has and this build does not serve: one warning if it is there.
    pub(super) fn unserved(&mut self, notes: &mut Notes, key: &str) {
        if let Some(item) = self.take(key) {
            notes.warn(&item.at, "not supported yet; ignored");
        }
    }

    /// [`Section::unserved`], but `false`, which is what this build does, is no news.
    pub(super) fn unserved_flag(&mut self, notes: &mut Notes, key: &str) -> Result<()> {
        if let Some(item) = self.take(key)
            && item.bool(notes)?
        {
            notes.warn(&item.at, "not supported yet; ignored");
        }
        Ok(())
    }

    /// The keys that are left.
    pub(super) fn keys(&self) -> Vec<String> {
        self.pairs.iter().map(|(key, _)| key.name.clone()).collect()
    }

    pub(super) fn string(&mut self, notes: &Notes, key: &str) -> Result<Option<String>> {
        self.take(key).map(|item| item.string(notes)).transpose()
    }

    pub(super) fn strings(&mut self, notes: &Notes, key: &str) -> Result<Option<Vec<String>>> {
        self.take(key)
            .map(|item| item.list(notes)?.into_iter().map(|i| i.string(notes)).collect())
            .transpose()
    }

    pub(super) fn bool(&mut self, notes: &Notes, key: &str) -> Result<Option<bool>> {
        self.take(key).map(|item| item.bool(notes)).transpose()
    }

    pub(super) fn number(&mut self, notes: &Notes, key: &str) -> Result<Option<u64>> {
        self.take(key).map(|item| item.number(notes)).transpose()
    }

    pub(super) fn duration(&mut self, notes: &Notes, key: &str) -> Result<Option<Duration>> {
        self.take(key).map(|item| item.duration(notes)).transpose()
    }

    pub(super) fn bytes(&mut self, notes: &Notes, key: &str) -> Result<Option<u64>> {
        let Some(item) = self.take(key) else { return Ok(None) };
        let text = item.string(notes)?;
        parse_bytes(&text).map(Some).map_err(|reason| notes.error(&item.at, reason))
    }

    /// The items of a list, which may be null: the caller says what that means.
    pub(super) fn list(&mut self, notes: &Notes, key: &str) -> Result<Vec<Item>> {
        self.take(key).map_or(Ok(Vec::new()), |item| item.list(notes))
    }

    pub(super) fn section(&mut self, notes: &Notes, key: &str) -> Result<Option<Self>> {
        self.take(key).map(|item| item.section(notes)).transpose()
    }

    /// A map of strings, in the order written.
    pub(super) fn string_map(&mut self, notes: &Notes, key: &str) -> Result<Vec<(At, String, String)>> {
        let Some(section) = self.section(notes, key)? else { return Ok(Vec::new()) };
        let mut out = Vec::with_capacity(section.pairs.len());
        for (key, node) in section.pairs {
            let item = Item { at: section.at.child(&key), node };
            let value = if item.is_null() { String::new() } else { item.string(notes)? };
            out.push((item.at, key.name, value));
        }
        Ok(out)
    }

    /// A map of lists of strings, in the order written.
    pub(super) fn string_list_map(&mut self, notes: &Notes, key: &str) -> Result<Vec<(String, Vec<String>)>> {
        let Some(section) = self.section(notes, key)? else { return Ok(Vec::new()) };
        let mut out = Vec::with_capacity(section.pairs.len());
        for (key, node) in section.pairs {
            let item = Item { at: section.at.child(&key), node };
            let values = item.list(notes)?.into_iter().map(|i| i.string(notes)).collect::<Result<_>>()?;
            out.push((key.name, values));
        }
        Ok(out)
    }

    /// Refuses what was not taken.
    pub(super) fn finish(self, notes: &Notes) -> Result<()> {
        match self.pairs.first() {
            None => Ok(()),
            Some((key, _)) => Err(notes.error(&self.at.child(key), "unknown key")),
        }
    }
}

impl Item {
    pub(super) fn is_null(&self) -> bool {
        matches!(self.node.value, Value::Null)
    }

    fn what(&self) -> &'static str {
        match self.node.value {
            Value::Null => "nothing",
            Value::Scalar(_) => "a scalar",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    pub(super) fn string(&self, notes: &Notes) -> Result<String> {
        match &self.node.value {
            Value::Scalar(text) => Ok(text.clone()),
            Value::Null => Ok(String::new()),
            _ => Err(notes.error(&self.at, format!("expected a scalar, found {}", self.what()))),
        }
    }

    pub(super) fn bool(&self, notes: &Notes) -> Result<bool> {
        match self.string(notes)?.as_str() {
            "true" | "True" | "TRUE" | "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Ok(true),
            "false" | "False" | "FALSE" | "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Ok(false),
            other => Err(notes.error(&self.at, format!("expected true or false, found {other:?}"))),
        }
    }

    pub(super) fn number(&self, notes: &Notes) -> Result<u64> {
        let text = self.string(notes)?;
        text.replace('_', "")
            .parse()
            .map_err(|_| notes.error(&self.at, format!("expected a whole number, found {text:?}")))
    }

    pub(super) fn duration(&self, notes: &Notes) -> Result<Duration> {
        parse_duration(&self.string(notes)?).map_err(|reason| notes.error(&self.at, reason))
    }

    pub(super) fn list(self, notes: &Notes) -> Result<Vec<Self>> {
        let what = self.what();
        match self.node.value {
            Value::Null => Ok(Vec::new()),
            Value::List(nodes) => Ok(nodes
                .into_iter()
                .enumerate()
                .map(|(i, node)| Self { at: self.at.item(i, node.line), node })
                .collect()),
            _ => Err(notes.error(&self.at, format!("expected a list, found {what}"))),
        }
    }

    pub(super) fn section(self, notes: &Notes) -> Result<Section> {
        let what = self.what();
        match self.node.value {
            Value::Null => Ok(Section { at: self.at, pairs: Vec::new() }),
            Value::Map(pairs) => Ok(Section { at: self.at, pairs }),
            _ => Err(notes.error(&self.at, format!("expected a map, found {what}"))),
        }
    }
}
