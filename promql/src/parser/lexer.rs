//! Text to tokens.
//!
//! What a character means depends on what is open: names inside `{…}` are never keywords, and
//! inside `[…]` only durations and their arithmetic are known. The lexer tracks that itself, so
//! that its messages are upstream's.
//!
//! Source: <https://github.com/prometheus/prometheus/blob/v3.14.0/promql/parser/lex.go>

use super::ParseError;
use super::ast::{BinaryOp, Span};
use super::literal::{quote, quote_char};
use super::token::{Kind, Token};

type Result<T> = std::result::Result<T, ParseError>;

/// Gives tokens one by one; after the last one, `Eof` for ever.
#[derive(Debug)]
pub(super) struct Lexer<'a> {
    input: &'a str,
    /// Next byte to read.
    pos: usize,
    /// First byte of the token that is being read.
    start: usize,
    paren_depth: usize,
    in_braces: bool,
    in_brackets: bool,
    /// Right behind `[` or an operator in there, where only durations make sense.
    in_duration: bool,
    got_colon: bool,
    got_duration: bool,
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

fn is_alpha(c: char) -> bool {
    c == '_' || c.is_ascii_alphabetic()
}

fn is_alphanumeric(c: char) -> bool {
    c == '_' || c.is_ascii_alphanumeric()
}

impl<'a> Lexer<'a> {
    pub(super) fn new(input: &'a str) -> Self {
        Self {
            input,
            pos: 0,
            start: 0,
            paren_depth: 0,
            in_braces: false,
            in_brackets: false,
            in_duration: false,
            got_colon: false,
            got_duration: false,
        }
    }

    pub(super) fn next_token(&mut self) -> Result<Token> {
        loop {
            self.start = self.pos;
            let kind = if self.in_braces {
                self.lex_in_braces()?
            } else if self.in_duration {
                self.lex_duration()?
            } else {
                self.lex_statement()?
            };
            if let Some(kind) = kind {
                return Ok(Token { kind, span: Span { start: self.start, end: self.pos } });
            }
        }
    }

    fn rest(&self) -> &'a str {
        &self.input[self.pos..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.pos += c.len_utf8();
        Some(c)
    }

    fn peek_is(&self, test: impl Fn(char) -> bool) -> bool {
        self.peek().is_some_and(test)
    }

    fn accept(&mut self, test: impl Fn(char) -> bool) -> bool {
        let hit = self.peek_is(test);
        if hit {
            self.next();
        }
        hit
    }

    fn accept_run(&mut self, test: impl Fn(char) -> bool) {
        while self.accept(&test) {}
    }

    fn error(&self, message: impl Into<String>) -> ParseError {
        self.error_at(self.start, message)
    }

    fn error_at(&self, start: usize, message: impl Into<String>) -> ParseError {
        ParseError::new(self.input, Span { start, end: self.input.len() }, message)
    }

    /// Outside of braces, and not where a duration has to begin.
    fn lex_statement(&mut self) -> Result<Option<Kind>> {
        let Some(c) = self.next() else { return self.end_of_input().map(Some) };
        Ok(Some(match c {
            '#' => return Ok(self.skip_comment()),
            c if is_space(c) => return Ok(self.skip_spaces()),
            ',' => Kind::Comma,
            '@' => Kind::At,
            '*' => Kind::Op(BinaryOp::Mul),
            '/' => Kind::Op(BinaryOp::Div),
            '%' => Kind::Op(BinaryOp::Mod),
            '+' => Kind::Op(BinaryOp::Add),
            '-' => Kind::Op(BinaryOp::Sub),
            '^' => Kind::Op(BinaryOp::Pow),
            '=' | '!' | '<' | '>' => self.lex_comparison(c)?,
            '0'..='9' => self.lex_number(c)?,
            '.' if self.peek_is(|c| c.is_ascii_digit()) => self.lex_number(c)?,
            '"' | '\'' | '`' => self.lex_string(c)?,
            c if is_alpha(c) || c == ':' => self.lex_word(c)?,
            '(' | ')' => self.lex_paren(c)?,
            '{' => {
                self.in_braces = true;
                Kind::LeftBrace
            }
            '[' if self.in_brackets => {
                return Err(self.error(format!("unexpected left bracket {}", quote_char(Some(c)))));
            }
            '[' => {
                self.got_colon = false;
                self.in_brackets = true;
                self.in_duration = true;
                Kind::LeftBracket
            }
            ']' if !self.in_brackets => {
                return Err(self.error(format!("unexpected right bracket {}", quote_char(Some(c)))));
            }
            ']' => {
                self.in_brackets = false;
                Kind::RightBracket
            }
            c => return Err(self.error(format!("unexpected character: {}", quote_char(Some(c))))),
        }))
    }

    fn end_of_input(&self) -> Result<Kind> {
        if self.paren_depth != 0 {
            return Err(self.error("unclosed left parenthesis"));
        }
        if self.in_brackets {
            return Err(self.error("unclosed left bracket"));
        }
        Ok(Kind::Eof)
    }

    fn skip_spaces(&mut self) -> Option<Kind> {
        self.accept_run(is_space);
        None
    }

    fn skip_comment(&mut self) -> Option<Kind> {
        self.accept_run(|c| !matches!(c, '\r' | '\n'));
        None
    }

    fn lex_comparison(&mut self, first: char) -> Result<Kind> {
        let second = self.peek();
        let (kind, width) = match (first, second) {
            ('=', Some('=')) => (BinaryOp::Eq, 1),
            ('=', Some('~')) => {
                return Err(self.error(format!("unexpected character after '=': {}", quote_char(second))));
            }
            ('=', _) => return Ok(Kind::Equals),
            ('!', Some('=')) => (BinaryOp::Ne, 1),
            ('!', _) => {
                return Err(self.error(format!("unexpected character after '!': {}", quote_char(second))));
            }
            ('<', Some('=')) => (BinaryOp::Le, 1),
            ('<', Some('/')) => (BinaryOp::TrimUpper, 1),
            ('<', _) => (BinaryOp::Lt, 0),
            (_, Some('=')) => (BinaryOp::Ge, 1),
            (_, Some('/')) => (BinaryOp::TrimLower, 1),
            _ => (BinaryOp::Gt, 0),
        };
        self.pos += width;
        Ok(Kind::Op(kind))
    }

    fn lex_paren(&mut self, c: char) -> Result<Kind> {
        if c == '(' {
            self.paren_depth += 1;
            return Ok(Kind::LeftParen);
        }
        match self.paren_depth.checked_sub(1) {
            Some(depth) => self.paren_depth = depth,
            // Compat: the place is behind the parenthesis.
            None => {
                return Err(
                    self.error_at(self.pos, format!("unexpected right parenthesis {}", quote_char(Some(c))))
                );
            }
        }
        Ok(Kind::RightParen)
    }

    /// A name, a keyword, or a colon inside of brackets. `first` is read already.
    fn lex_word(&mut self, first: char) -> Result<Kind> {
        if self.in_brackets {
            return self.lex_word_in_brackets(first);
        }
        self.accept_run(|c| is_alphanumeric(c) || c == ':');
        let word = &self.input[self.start..self.pos];
        Ok(match Kind::keyword(word) {
            // So that `fill` stays a good name for a metric.
            Some(Kind::Fill | Kind::FillLeft | Kind::FillRight)
                if !self.rest().trim_start_matches(is_space).starts_with('(') =>
            {
                Kind::Identifier
            }
            Some(keyword) => keyword,
            None if word.contains(':') => Kind::MetricIdentifier,
            None => Kind::Identifier,
        })
    }

    fn lex_word_in_brackets(&mut self, first: char) -> Result<Kind> {
        if first == ':' {
            if self.got_colon {
                return Err(self.error(format!("unexpected colon {}", quote_char(Some(first)))));
            }
            self.got_colon = true;
            return Ok(Kind::Colon);
        }
        self.lex_duration_keyword().ok_or_else(|| {
            self.error(format!("unexpected character: {}, expected ':'", quote_char(Some(first))))
        })
    }

    fn lex_duration_keyword(&mut self) -> Option<Kind> {
        self.accept_run(is_alpha);
        Kind::duration_keyword(&self.input[self.start..self.pos])
    }

    /// Inside of brackets, up to the first number.
    fn lex_duration(&mut self) -> Result<Option<Kind>> {
        let Some(c) = self.next() else {
            return Err(self.error("unexpected end of input in duration expression"));
        };
        if matches!(c, '+' | '-' | '*' | '/' | '%' | '^' | ',') {
            // Behind an operator there has to be one more.
            self.got_duration = false;
        }
        Ok(Some(match c {
            c if is_space(c) => return Ok(self.skip_spaces()),
            ']' => {
                self.in_brackets = false;
                self.in_duration = false;
                self.got_colon = false;
                Kind::RightBracket
            }
            ':' if !self.got_duration => {
                return Err(
                    self.error_at(self.pos, "unexpected colon before duration in duration expression")
                );
            }
            ':' if self.got_colon => {
                return Err(self.error_at(self.pos, "unexpected repeated colon in duration expression"));
            }
            ':' => {
                self.got_colon = true;
                Kind::Colon
            }
            '(' | ')' => {
                self.got_duration = c == ')';
                self.lex_paren(c)?
            }
            '+' => Kind::Op(BinaryOp::Add),
            '-' => Kind::Op(BinaryOp::Sub),
            '*' => Kind::Op(BinaryOp::Mul),
            '/' => Kind::Op(BinaryOp::Div),
            '%' => Kind::Op(BinaryOp::Mod),
            '^' => Kind::Op(BinaryOp::Pow),
            ',' => Kind::Comma,
            's' | 'S' | 'r' | 'R' | 'm' | 'M' => {
                let keyword = self.lex_duration_keyword().ok_or_else(|| {
                    let c = quote_char(Some(c));
                    self.error(format!("unexpected character in duration expression: {c}"))
                })?;
                // Unlike upstream, which refuses the colon of `[step():]`.
                self.got_duration = true;
                keyword
            }
            c if c.is_ascii_digit() || (c == '.' && self.peek_is(|c| c.is_ascii_digit())) => {
                self.got_duration = true;
                self.in_duration = false;
                self.lex_number(c)?
            }
            c => {
                let c = quote_char(Some(c));
                return Err(self.error(format!("unexpected character in duration expression: {c}")));
            }
        }))
    }

    /// A number or a duration that begins with `first`, which is read already.
    fn lex_number(&mut self, first: char) -> Result<Kind> {
        self.pos -= first.len_utf8();
        if self.scan_number() {
            return Ok(Kind::Number);
        }
        if self.scan_rest_of_duration() {
            return Ok(Kind::Duration);
        }
        let text = &self.input[self.start..self.pos];
        Err(self.error(format!("bad number or duration syntax: {}", quote(text))))
    }

    /// Reads digits, `.`, `_` and exponents, as far as they make sense; `false` if what stands there
    /// is no number, with the position behind what was understood. The parser finds out the value.
    fn scan_number(&mut self) -> bool {
        let begin = self.pos;
        let mut hex = false;
        if self.accept(|c| c == '0') && self.accept(|c| matches!(c, 'x' | 'X')) {
            self.accept(|c| c == '_');
            hex = true;
        }
        let is_digit = move |c: char| if hex { c.is_ascii_hexdigit() } else { c.is_ascii_digit() };
        let is_exponent = |c| matches!(c, 'e' | 'E');
        let breaks_number = |c| matches!(c, '.' | '_' | 'e' | 'E');
        let mut seen_dot = false;
        let mut seen_exponent = false;
        self.accept(|c| c == '.');
        self.accept(is_digit);
        while let Some(c) = self.peek() {
            if !(is_digit(c) || breaks_number(c)) {
                break;
            }
            if (c == '.' && seen_dot) || (is_exponent(c) && seen_exponent) {
                self.next();
                return false;
            }
            if c == '.' {
                self.next();
                seen_dot = true;
                if self.accept(|c| matches!(c, '_' | '.')) || hex {
                    return false;
                }
            } else if is_exponent(c) {
                self.next();
                seen_exponent = true;
                self.accept(|c| matches!(c, '+' | '-'));
                if self.accept(breaks_number) || self.peek().is_none() {
                    return false;
                }
            } else if c == '_' {
                self.next();
                if self.accept(breaks_number) || self.peek().is_none() {
                    return false;
                }
            } else {
                self.accept_run(is_digit);
            }
        }
        self.pos > begin && !self.peek_is(is_alphanumeric)
    }

    /// Reads the unit behind the digits, and more digits with units. Wrong units such as `hs` pass;
    /// the parser finds them.
    fn scan_rest_of_duration(&mut self) -> bool {
        if !self.accept(|c| "smhdwy".contains(c)) {
            return false;
        }
        self.accept(|c| c == 's');
        while self.accept(|c| c.is_ascii_digit()) {
            self.accept_run(|c| c.is_ascii_digit());
            if !self.accept(|c| "smhdw".contains(c)) {
                return false;
            }
            self.accept(|c| c == 's');
        }
        // The wrong character belongs into the error message.
        !self.accept(is_alphanumeric)
    }

    fn lex_string(&mut self, quote: char) -> Result<Kind> {
        loop {
            match self.next() {
                Some(c) if c == quote => return Ok(Kind::String),
                Some(char::REPLACEMENT_CHARACTER) => return Err(self.error("invalid UTF-8 rune")),
                None if quote == '`' => return Err(self.error("unterminated raw string")),
                Some(_) if quote == '`' => {}
                None | Some('\n') => return Err(self.error("unterminated quoted string")),
                Some('\\') => self.lex_escape(quote)?,
                Some(_) => {}
            }
        }
    }

    fn lex_escape(&mut self, quote: char) -> Result<()> {
        let (mut c, digits, base, max) = match self.next() {
            Some(c) if matches!(c, 'a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\') || c == quote => {
                return Ok(());
            }
            Some(c @ '0'..='7') => (Some(c), 3, 8, 255),
            Some('x') => (self.next(), 2, 16, 255),
            Some('u') => (self.next(), 4, 16, u32::from(char::MAX)),
            Some('U') => (self.next(), 8, 16, u32::from(char::MAX)),
            None => return Err(self.error("escape sequence not terminated")),
            Some(c) => {
                return Err(self.error(format!("unknown escape sequence U+{:04X} '{c}'", u32::from(c))));
            }
        };
        let mut value = 0_u32;
        for left in (0..digits).rev() {
            let Some(d) = c else { return Err(self.error("escape sequence not terminated")) };
            let Some(digit) = d.to_digit(base) else {
                let code = u32::from(d);
                return Err(self.error(format!("illegal character U+{code:04X} '{d}' in escape sequence")));
            };
            value = value.wrapping_mul(base).wrapping_add(digit);
            if left > 0 {
                c = self.next();
            }
        }
        if value > max || (0xD800..0xE000).contains(&value) {
            return Err(self.error("escape sequence is an invalid Unicode code point"));
        }
        Ok(())
    }

    fn lex_in_braces(&mut self) -> Result<Option<Kind>> {
        let Some(c) = self.next() else {
            return Err(self.error("unexpected end of input inside braces"));
        };
        Ok(Some(match c {
            '#' => return Ok(self.skip_comment()),
            c if is_space(c) => return Ok(self.skip_spaces()),
            c if is_alpha(c) => {
                self.accept_run(is_alphanumeric);
                Kind::Identifier
            }
            ',' => Kind::Comma,
            '"' | '\'' | '`' => self.lex_string(c)?,
            '=' if self.accept(|c| c == '~') => Kind::Matches,
            '=' => Kind::Equals,
            '!' => match self.next() {
                Some('~') => Kind::MatchesNot,
                Some('=') => Kind::Op(BinaryOp::Ne),
                other => {
                    let c = quote_char(other);
                    return Err(self.error(format!("unexpected character after '!' inside braces: {c}")));
                }
            },
            '{' => return Err(self.error(format!("unexpected left brace {}", quote_char(Some(c))))),
            '}' => {
                self.in_braces = false;
                Kind::RightBrace
            }
            c => {
                let c = quote_char(Some(c));
                return Err(self.error(format!("unexpected character inside braces: {c}")));
            }
        }))
    }
}
