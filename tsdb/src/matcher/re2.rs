//! Makes the regex crate read what RE2 reads.
//!
//! The two agree on nearly all of the syntax. Where they do not, the pattern is rewritten: `\Q…\E`,
//! octal escapes, classes like `\d` that are ASCII in RE2, braces that are no repetition, and
//! characters in brackets that the regex crate gives a meaning. What RE2 refuses is refused with the
//! text that Go gives.
//!
//! # Source
//! <https://github.com/google/re2/wiki/Syntax>, <https://pkg.go.dev/regexp/syntax>

use regex_syntax::ast::{self, ErrorKind};
use regex_syntax::hir::Hir;

use super::RegexError;

/// Most often that Go lets a repetition repeat.
const MAX_REPEAT: u32 = 1000;

/// A pattern for the regex crate that means what `pattern` means in RE2, and its syntax tree with `.`
/// matching newlines.
pub(super) fn parse(pattern: &str) -> Result<(String, Hir), RegexError> {
    let mut translator = Translator { rest: pattern, out: String::with_capacity(pattern.len() + 8) };
    translator.run()?;
    let translated = translator.out;
    let mut parser = regex_syntax::ParserBuilder::new().dot_matches_new_line(true).build();
    match parser.parse(&translated) {
        Ok(hir) => Ok((translated, hir)),
        Err(regex_syntax::Error::Parse(e)) => Err(RegexError(go_text(&e, pattern))),
        Err(regex_syntax::Error::Translate(e)) => {
            let span = e.span();
            let text = translated.get(span.start.offset..span.end.offset).unwrap_or(pattern);
            Err(RegexError(format!("invalid character class range: `{text}`")))
        }
        Err(e) => Err(RegexError(e.to_string())),
    }
}

/// What Go says in the same case.
fn go_text(e: &ast::Error, pattern: &str) -> String {
    let span = e.span();
    let text = e.pattern().get(span.start.offset..span.end.offset).unwrap_or(pattern);
    match e.kind() {
        ErrorKind::GroupUnclosed => format!("missing closing ): `{pattern}`"),
        ErrorKind::GroupUnopened => format!("unexpected ): `{pattern}`"),
        ErrorKind::RepetitionMissing => {
            // The span is the empty place where the argument should be.
            let operator = e.pattern().get(span.start.offset..).unwrap_or_default();
            let len = repetition(operator).ok().flatten().unwrap_or_default();
            format!("missing argument to repetition operator: `{}`", &operator[..len])
        }
        ErrorKind::ClassUnclosed => format!("missing closing ]: `{text}`"),
        ErrorKind::ClassRangeInvalid => format!("invalid character class range: `{text}`"),
        ErrorKind::GroupNameInvalid | ErrorKind::GroupNameEmpty | ErrorKind::GroupNameUnexpectedEof => {
            format!("invalid named capture: `{text}`")
        }
        ErrorKind::GroupNameDuplicate { .. } => format!("duplicate capture group name: `{text}`"),
        ErrorKind::NestLimitExceeded(_) => format!("expression nests too deeply: `{pattern}`"),
        kind => format!("{kind}: `{text}`"),
    }
}

struct Translator<'p> {
    rest: &'p str,
    out: String,
}

impl<'p> Translator<'p> {
    fn run(&mut self) -> Result<(), RegexError> {
        // What is left from where the repetition right before began, if there is one.
        let mut last_repeat: Option<&str> = None;
        while let Some(c) = self.rest.chars().next() {
            let start = self.rest;
            if let Some(len) = repetition(start)? {
                let lazy = usize::from(start[len..].starts_with('?'));
                if let Some(before) = last_repeat {
                    let text = &before[..before.len() - start.len() + len + lazy];
                    return Err(RegexError(format!("invalid nested repetition operator: `{text}`")));
                }
                self.copy(len + lazy);
                last_repeat = Some(start);
                continue;
            }
            last_repeat = None;
            match c {
                '\\' => self.escape()?,
                '[' => self.class()?,
                '(' => self.group()?,
                '{' | '}' | ']' => {
                    self.rest = &self.rest[1..];
                    self.push_literal(c);
                }
                _ => self.copy(c.len_utf8()),
            }
        }
        Ok(())
    }

    /// Moves `len` bytes over unchanged.
    fn copy(&mut self, len: usize) {
        let (piece, rest) = self.rest.split_at(len);
        self.out.push_str(piece);
        self.rest = rest;
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn push_literal(&mut self, c: char) {
        // Inside brackets more characters are special than `escape` knows of.
        if c.is_ascii_punctuation() && !matches!(c, '<' | '>') {
            self.out.push('\\');
        }
        self.out.push(c);
    }

    /// The text from `start` to here.
    fn since(&self, start: &'p str) -> &'p str {
        &start[..start.len() - self.rest.len()]
    }

    /// An escape outside brackets.
    fn escape(&mut self) -> Result<(), RegexError> {
        let start = self.rest;
        if let Some(quoted) = start.strip_prefix("\\Q") {
            let (quoted, rest) = quoted.split_once("\\E").unwrap_or((quoted, ""));
            quoted.chars().for_each(|c| self.push_literal(c));
            self.rest = rest;
            return Ok(());
        }
        match start.as_bytes().get(1) {
            Some(b'b') => {
                self.out.push_str("(?-u:\\b)");
                self.rest = &start[2..];
            }
            Some(b'A' | b'z' | b'B') => self.copy(2),
            _ if self.class_escape()? => {}
            _ => {
                let c = self.character_escape()?;
                self.push_literal(c);
            }
        }
        Ok(())
    }

    /// An escape that stands for a class of characters; false if this is none.
    fn class_escape(&mut self) -> Result<bool, RegexError> {
        let class = match self.rest.as_bytes().get(1) {
            Some(b'd') => "[0-9]",
            Some(b'D') => "[^0-9]",
            Some(b's') => "[\\t\\n\\x0C\\r ]",
            Some(b'S') => "[^\\t\\n\\x0C\\r ]",
            Some(b'w') => "[0-9A-Za-z_]",
            Some(b'W') => "[^0-9A-Za-z_]",
            Some(b'p' | b'P') => {
                let name = &self.rest[2..];
                let len = match name.chars().next() {
                    Some('{') => name.find('}').map(|end| end + 1),
                    other => other.map(char::len_utf8),
                };
                let Some(len) = len else {
                    return Err(RegexError(format!("invalid character class range: `{}`", self.rest)));
                };
                self.copy(2 + len);
                return Ok(true);
            }
            _ => return Ok(false),
        };
        self.out.push_str(class);
        self.rest = &self.rest[2..];
        Ok(true)
    }

    /// An escape that stands for one character.
    fn character_escape(&mut self) -> Result<char, RegexError> {
        let start = self.rest;
        self.rest = &start[1..];
        let Some(c) = self.next() else {
            return Err(RegexError("trailing backslash at end of expression: ``".to_owned()));
        };
        let found = match c {
            'a' => Some('\x07'),
            'f' => Some('\x0c'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'v' => Some('\x0b'),
            // A lone digit would be a back reference.
            '1'..='7' if !self.rest.starts_with(|c| ('0'..='7').contains(&c)) => None,
            '0'..='7' => {
                let more = self.rest.bytes().take(2).take_while(|b| (b'0'..=b'7').contains(b)).count();
                self.rest = &self.rest[more..];
                u32::from_str_radix(&self.since(start)[1..], 8).ok().and_then(char::from_u32)
            }
            'x' => self.hexadecimal(),
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => Some(c),
            _ => None,
        };
        found.ok_or_else(|| RegexError(format!("invalid escape sequence: `{}`", self.since(start))))
    }

    /// `41` or `{1F600}`, after `\x`.
    fn hexadecimal(&mut self) -> Option<char> {
        let (digits, len) = match self.rest.strip_prefix('{') {
            Some(inner) => inner.find('}').map(|end| (&inner[..end], end + 2))?,
            None => (self.rest.get(..2)?, 2),
        };
        self.rest = &self.rest[len..];
        let hexadecimal = digits.bytes().all(|b| b.is_ascii_hexdigit());
        hexadecimal.then(|| u32::from_str_radix(digits, 16).ok().and_then(char::from_u32)).flatten()
    }

    /// A class in brackets.
    fn class(&mut self) -> Result<(), RegexError> {
        let start = self.rest;
        let unclosed = || RegexError(format!("missing closing ]: `{start}`"));
        self.copy(1);
        if self.rest.starts_with('^') {
            self.copy(1);
        }
        let mut first = true;
        loop {
            match self.rest.as_bytes().first() {
                None => return Err(unclosed()),
                Some(b']') if !first => {
                    self.copy(1);
                    return Ok(());
                }
                Some(b'[') if self.rest.starts_with("[:") && self.rest[2..].contains(":]") => {
                    let end = self.rest[2..].find(":]").map_or(self.rest.len(), |end| end + 4);
                    self.copy(end);
                }
                Some(b'\\') if self.class_escape()? => {}
                Some(_) => self.class_range(unclosed)?,
            }
            first = false;
        }
    }

    /// One character in brackets, or a range of them.
    fn class_range(&mut self, unclosed: impl Fn() -> RegexError) -> Result<(), RegexError> {
        let start = self.rest;
        let low = self.class_character()?.ok_or_else(&unclosed)?;
        self.push_literal(low);
        if self.rest.starts_with('-') && self.rest.len() > 1 && !self.rest.starts_with("-]") {
            self.copy(1);
            let high = self.class_character()?.ok_or_else(&unclosed)?;
            if high < low {
                let text = self.since(start);
                return Err(RegexError(format!("invalid character class range: `{text}`")));
            }
            self.push_literal(high);
        }
        Ok(())
    }

    fn class_character(&mut self) -> Result<Option<char>, RegexError> {
        if self.rest.starts_with('\\') { self.character_escape().map(Some) } else { Ok(self.next()) }
    }

    /// The start of a group.
    fn group(&mut self) -> Result<(), RegexError> {
        let start = self.rest;
        let Some(inner) = start.strip_prefix("(?") else {
            self.copy(1);
            return Ok(());
        };
        let refused = |len: usize| {
            let text = start.get(..len).unwrap_or(start);
            Err(RegexError(format!("invalid or unsupported Perl syntax: `{text}`")))
        };
        if inner.starts_with("P<") || inner.starts_with('<') {
            let end = start.find('>').map_or(start.len(), |end| end + 1);
            let name = start[..end].split_once('<').map_or("", |(_, name)| name.trim_end_matches('>'));
            let valid = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !valid || !start[..end].ends_with('>') {
                return Err(RegexError(format!("invalid named capture: `{}`", &start[..end])));
            }
            // The regex crate does not let a name begin with a digit; nothing refers to it by then.
            let prefix = if name.starts_with(|c: char| c.is_ascii_digit()) { "_" } else { "" };
            self.out.push_str(&format!("(?P<{prefix}{name}>"));
            self.rest = &start[end..];
            return Ok(());
        }
        for (i, c) in inner.char_indices() {
            match c {
                'i' | 'm' | 's' | 'U' | '-' => {}
                ':' | ')' => {
                    self.copy(2 + i + 1);
                    return Ok(());
                }
                other => return refused(2 + i + other.len_utf8()),
            }
        }
        Err(RegexError(format!("missing closing ): `{start}`")))
    }
}

/// Length of the repetition operator at the start of `text`, without a `?` after it.
fn repetition(text: &str) -> Result<Option<usize>, RegexError> {
    match text.as_bytes().first() {
        Some(b'*' | b'+' | b'?') => return Ok(Some(1)),
        Some(b'{') => {}
        _ => return Ok(None),
    }
    // A brace that does not enclose numbers is itself.
    let Some(end) = text.find('}') else { return Ok(None) };
    let inner = &text[1..end];
    let (low, high) = match inner.split_once(',') {
        None => (inner, Some(inner)),
        Some((low, "")) => (low, None),
        Some((low, high)) => (low, Some(high)),
    };
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(low) || !high.is_none_or(digits) {
        return Ok(None);
    }
    let number = |s: &str| s.parse::<u32>().ok().filter(|n| *n <= MAX_REPEAT);
    let valid = match (number(low), high.map(number)) {
        (Some(_), None) => true,
        (Some(low), Some(Some(high))) => low <= high,
        _ => false,
    };
    if valid {
        return Ok(Some(end + 1));
    }
    Err(RegexError(format!("invalid repeat count: `{}`", &text[..=end])))
}
