//! YAML as a tree that knows its lines.
//!
//! Small on purpose: scalars stay text, so that the reader decides what a value means by the key it
//! stands under. Anchors, aliases and merge keys (`<<`) work; a repeated key is an error, as in
//! upstream's strict mode. Input size bounds output size: aliases may not blow a file up.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};

/// Nodes that one file may have, aliases counted as often as they are used.
const MAX_NODES: usize = 1_000_000;
const MAX_DEPTH: usize = 100;

/// A value and the line it starts on, counted from 1.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key of a map.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) line: usize,
    pub(super) name: String,
}

/// What is wrong, and where.
#[derive(Debug)]
pub(super) struct YamlError {
    pub(super) line: usize,
    pub(super) reason: String,
}

impl From<ScanError> for YamlError {
    fn from(e: ScanError) -> Self {
        Self { line: e.marker().line(), reason: format!("not valid YAML: {}", e.info()) }
    }
}

/// Parses the first document of `text`; an empty one is null.
pub(super) fn parse(text: &str) -> Result<Node, YamlError> {
    let mut builder = Builder { parser: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0 };
    loop {
        match builder.event()? {
            Some((Event::StreamEnd, line)) => return Ok(Node { line, value: Value::Null }),
            Some((Event::DocumentStart(_), _)) => {
                let (event, line) = builder.some_event()?;
                return builder.node(event, line, 0);
            }
            Some(_) => {}
            None => return Ok(Node { line: 1, value: Value::Null }),
        }
    }
}

struct Builder<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
}

impl<'a> Builder<'a> {
    fn event(&mut self) -> Result<Option<(Event<'a>, usize)>, YamlError> {
        match self.parser.next() {
            Some(Ok((event, span))) => Ok(Some((event, span.start.line()))),
            Some(Err(e)) => Err(e.into()),
            None => Ok(None),
        }
    }

    fn some_event(&mut self) -> Result<(Event<'a>, usize), YamlError> {
        self.event()?
            .ok_or_else(|| YamlError { line: 1, reason: "not valid YAML: unexpected end".to_owned() })
    }

    fn count(&mut self, line: usize, nodes: usize) -> Result<(), YamlError> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err(YamlError { line, reason: "document contains excessive aliasing".to_owned() });
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'a>, line: usize, depth: usize) -> Result<Node, YamlError> {
        if depth > MAX_DEPTH {
            return Err(YamlError { line, reason: "nested too deeply".to_owned() });
        }
        self.count(line, 1)?;
        let before = self.nodes - 1;
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, _) => (anchor, scalar(&text, style)),
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match self.some_event()? {
                        (Event::SequenceEnd, _) => break,
                        (event, line) => items.push(self.node(event, line, depth + 1)?),
                    }
                }
                (anchor, Value::List(items))
            }
            Event::MappingStart(anchor, _) => (anchor, Value::Map(self.map(depth)?)),
            Event::Alias(id) => {
                let (node, size) = self
                    .anchors
                    .get(&id)
                    .cloned()
                    .ok_or_else(|| YamlError { line, reason: "unknown anchor".to_owned() })?;
                self.count(line, size)?;
                return Ok(Node { line, value: node.value });
            }
            _ => return Err(YamlError { line, reason: "not valid YAML".to_owned() }),
        };
        let node = Node { line, value };
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), self.nodes - before));
        }
        Ok(node)
    }

    fn map(&mut self, depth: usize) -> Result<Vec<(Key, Node)>, YamlError> {
        let mut pairs: Vec<(Key, Node)> = Vec::new();
        let mut merged = Vec::new();
        loop {
            let (name, line) = match self.some_event()? {
                (Event::MappingEnd, _) => break,
                (Event::Scalar(text, _, _, _), line) => (text.into_owned(), line),
                (_, line) => {
                    return Err(YamlError { line, reason: "a key must be a plain word".to_owned() });
                }
            };
            let (event, value_line) = self.some_event()?;
            let node = self.node(event, value_line, depth + 1)?;
            if name == "<<" {
                merged.push(node);
                continue;
            }
            if pairs.iter().any(|(k, _)| k.name == name) {
                return Err(YamlError { line, reason: format!("key {name:?} already set") });
            }
            pairs.push((Key { line, name }, node));
        }
        for node in merged {
            let line = node.line;
            let maps = match node.value {
                Value::List(maps) => maps,
                _ => vec![node],
            };
            for map in maps {
                let Value::Map(more) = map.value else {
                    return Err(YamlError {
                        line,
                        reason: "map merge requires map or list of maps".to_owned(),
                    });
                };
                for (key, node) in more {
                    if !pairs.iter().any(|(k, _)| k.name == key.name) {
                        pairs.push((key, node));
                    }
                }
            }
        }
        Ok(pairs)
    }
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    let is_null = style == ScalarStyle::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL");
    if is_null { Value::Null } else { Value::Scalar(text.to_owned()) }
}
