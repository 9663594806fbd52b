//! The exact lexer: walks one entry token by token and knows what to say when it is wrong.
//!
//! Tokens and states are those of upstream's generated lexers, so that error texts agree. It is the
//! slow path: the parser only comes here for metadata lines, for series that are seen for the first
//! time, and for lines that are wrong.
//!
//! Source: <https://github.com/prometheus/prometheus/blob/v3.14.0/model/textparse/promlex.l>,
//! `openmetricslex.l`. Differences: a NUL byte is an ordinary byte, never the end of the input.

use super::Format;

/// What the lexer can say about the bytes `[start, at)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Invalid,
    Eof,
    Linebreak,
    Help,
    Type,
    Unit,
    EofWord,
    Text,
    Comment,
    Name,
    Quoted,
    BraceOpen,
    BraceClose,
    LabelName,
    LabelValue,
    Equal,
    Comma,
    Timestamp,
    Value,
}

impl Token {
    /// The name that error texts use.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "INVALID",
            Self::Eof => "EOF",
            Self::Linebreak => "LINEBREAK",
            Self::Help => "HELP",
            Self::Type => "TYPE",
            Self::Unit => "UNIT",
            Self::EofWord => "EOFWORD",
            Self::Text => "TEXT",
            Self::Comment => "COMMENT",
            Self::Name => "MNAME",
            Self::Quoted => "QSTRING",
            Self::BraceOpen => "BOPEN",
            Self::BraceClose => "BCLOSE",
            Self::LabelName => "LNAME",
            Self::LabelValue => "LVALUE",
            Self::Equal => "EQUAL",
            Self::Comma => "COMMA",
            Self::Timestamp => "TIMESTAMP",
            Self::Value => "VALUE",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Init,
    MetaName,
    MetaText,
    Labels,
    LabelValue,
    Value,
    Timestamp,
    Exemplar,
    ExemplarValue,
    ExemplarTimestamp,
}

pub(super) fn is_name_start(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_' || b == b':'
}

pub(super) fn is_name_byte(b: u8) -> bool {
    is_name_start(b) || b.is_ascii_digit()
}

fn is_label_start(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_'
}

/// A cursor over a body. The text format behaves as if the body ended in one more newline.
#[derive(Debug)]
pub(super) struct Lexer<'a> {
    format: Format,
    body: &'a [u8],
    /// First byte of the current token.
    pub(super) start: usize,
    /// First byte after the current token; for an invalid token, how far the lexer got.
    pub(super) at: usize,
    state: State,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(format: Format, body: &'a [u8], at: usize) -> Self {
        Self { format, body, start: at, at, state: State::Init }
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Forgets the current token: the next one starts an entry.
    pub(super) fn restart(&mut self) {
        self.state = State::Init;
    }

    /// Length of the input, the implied newline included.
    fn len(&self) -> usize {
        self.body.len() + usize::from(self.format == Format::PrometheusText)
    }

    fn peek(&self) -> Option<u8> {
        match self.body.get(self.at) {
            Some(b) => Some(*b),
            None => (self.at < self.len()).then_some(b'\n'),
        }
    }

    /// The bytes `[from, to)`, without the implied newline.
    pub(super) fn slice(&self, from: usize, to: usize) -> &'a [u8] {
        let to = to.min(self.body.len());
        &self.body[from.min(to)..to]
    }

    /// The bytes of the current token.
    pub(super) fn token(&self) -> &'a [u8] {
        self.slice(self.start, self.at)
    }

    /// `[from, at]` as text for an error, the byte after the token and the implied newline included.
    pub(super) fn excerpt(&self, from: usize) -> Vec<u8> {
        let end = (self.at + 1).min(self.len());
        let mut out = self.slice(from, end).to_vec();
        if end > self.body.len() && from < end {
            out.push(b'\n');
        }
        out
    }

    /// The next token; blanks between tokens are skipped where the format allows them.
    pub(super) fn next(&mut self) -> Token {
        match self.format {
            Format::PrometheusText => self.next_text(),
            Format::OpenMetrics => self.next_open_metrics(),
        }
    }

    fn next_text(&mut self) -> Token {
        while matches!(self.peek(), Some(b' ' | b'\t')) && self.state != State::MetaText {
            self.at += 1;
        }
        self.start = self.at;
        let Some(b) = self.peek() else { return Token::Eof };
        match self.state {
            State::Init => match b {
                b'\n' => self.take(1, State::Init, Token::Linebreak),
                b'#' => self.text_comment(),
                b'{' => self.take(1, State::Labels, Token::BraceOpen),
                b if is_name_start(b) => self.name(State::Value),
                _ => Token::Invalid,
            },
            State::MetaName => self.meta_name(),
            State::MetaText => {
                self.skip_line();
                self.state = State::Init;
                Token::Text
            }
            State::Labels => self.in_labels(State::LabelValue, State::Value, State::Labels, true),
            State::LabelValue => self.quoted(true, State::Labels, Token::LabelValue),
            State::Value => match b {
                b'{' => self.take(1, State::Labels, Token::BraceOpen),
                b'\n' => Token::Invalid,
                _ => {
                    while self.peek().is_some_and(|b| !matches!(b, b'{' | b' ' | b'\t' | b'\n')) {
                        self.at += 1;
                    }
                    self.state = State::Timestamp;
                    Token::Value
                }
            },
            State::Timestamp => match b {
                b'\n' => self.take(1, State::Init, Token::Linebreak),
                b'0'..=b'9' => {
                    while self.peek().is_some_and(|b| b.is_ascii_digit()) {
                        self.at += 1;
                    }
                    Token::Timestamp
                }
                _ => Token::Invalid,
            },
            State::Exemplar | State::ExemplarValue | State::ExemplarTimestamp => Token::Invalid,
        }
    }

    /// A line that starts with `#`: metadata, or a comment that runs to its end.
    fn text_comment(&mut self) -> Token {
        self.at += 1;
        let blanks = self.skip_blanks();
        if blanks > 0 {
            for (word, token) in [(&b"HELP"[..], Token::Help), (b"TYPE", Token::Type)] {
                let end = self.at + word.len();
                if self.slice(self.at, end) == word && matches!(self.body.get(end), Some(b' ' | b'\t')) {
                    self.at = end;
                    self.skip_blanks();
                    self.state = State::MetaName;
                    return token;
                }
            }
        }
        self.skip_line();
        Token::Comment
    }

    fn next_open_metrics(&mut self) -> Token {
        self.start = self.at;
        let Some(b) = self.peek() else { return Token::Eof };
        match self.state {
            State::Init => match b {
                b'#' => self.open_metrics_comment(),
                b'{' => self.take(1, State::Labels, Token::BraceOpen),
                b if is_name_start(b) => self.name(State::Value),
                _ => Token::Invalid,
            },
            State::MetaName => self.meta_name(),
            State::MetaText => {
                if b != b' ' {
                    return Token::Invalid;
                }
                self.skip_line();
                if self.peek().is_none() {
                    return Token::Invalid;
                }
                self.take(1, State::Init, Token::Text)
            }
            State::Labels => self.in_labels(State::LabelValue, State::Value, State::Labels, true),
            State::LabelValue => self.quoted(false, State::Labels, Token::LabelValue),
            State::Value if b == b'{' => self.take(1, State::Labels, Token::BraceOpen),
            State::Value => self.word(State::Timestamp, Token::Value),
            State::Timestamp if b == b'\n' => self.take(1, State::Init, Token::Linebreak),
            State::Timestamp if self.slice(self.at, self.at + 4) == b" # {" => {
                self.take(4, State::Exemplar, Token::Comment)
            }
            State::Timestamp => self.word(State::Timestamp, Token::Timestamp),
            State::Exemplar => {
                self.in_labels(State::ExemplarValue, State::ExemplarValue, State::Exemplar, false)
            }
            State::ExemplarValue if b == b'"' => self.quoted(false, State::Exemplar, Token::LabelValue),
            State::ExemplarValue => self.word(State::ExemplarTimestamp, Token::Value),
            State::ExemplarTimestamp if b == b'\n' => self.take(1, State::Init, Token::Linebreak),
            State::ExemplarTimestamp => self.word(State::ExemplarTimestamp, Token::Timestamp),
        }
    }

    fn open_metrics_comment(&mut self) -> Token {
        if self.slice(self.at, self.at + 2) != b"# " {
            self.at += 1;
            return Token::Invalid;
        }
        self.at += 2;
        for (word, token) in [(&b"HELP "[..], Token::Help), (b"TYPE ", Token::Type), (b"UNIT ", Token::Unit)]
        {
            if self.slice(self.at, self.at + word.len()) == word {
                return self.take(word.len(), State::MetaName, token);
            }
        }
        if self.slice(self.at, self.at + 3) == b"EOF" {
            let newline = usize::from(self.body.get(self.at + 3) == Some(&b'\n'));
            return self.take(3 + newline, State::Init, Token::EofWord);
        }
        Token::Invalid
    }

    /// One token between braces. `free_newline` says whether a quoted name may span lines.
    fn in_labels(&mut self, value: State, after: State, quoted: State, free_newline: bool) -> Token {
        match self.peek() {
            Some(b'}') => self.take(1, after, Token::BraceClose),
            Some(b'=') => self.take(1, value, Token::Equal),
            Some(b',') => self.take(1, self.state, Token::Comma),
            Some(b'"') => self.quoted(free_newline, quoted, Token::Quoted),
            Some(b) if is_label_start(b) => {
                while self.peek().is_some_and(|b| is_label_start(b) || b.is_ascii_digit()) {
                    self.at += 1;
                }
                Token::LabelName
            }
            _ => Token::Invalid,
        }
    }

    fn take(&mut self, bytes: usize, state: State, token: Token) -> Token {
        self.at += bytes;
        self.state = state;
        token
    }

    fn name(&mut self, state: State) -> Token {
        while self.peek().is_some_and(is_name_byte) {
            self.at += 1;
        }
        self.state = state;
        Token::Name
    }

    fn meta_name(&mut self) -> Token {
        match self.peek() {
            Some(b'"') => self.quoted(true, State::MetaText, Token::Name),
            Some(b) if is_name_start(b) => self.name(State::MetaText),
            _ => Token::Invalid,
        }
    }

    /// A blank and the bytes up to the next blank or line end.
    fn word(&mut self, state: State, token: Token) -> Token {
        if self.peek() != Some(b' ') {
            return Token::Invalid;
        }
        self.at += 1;
        let from = self.at;
        while self.peek().is_some_and(|b| b != b' ' && b != b'\n') {
            self.at += 1;
        }
        if self.at == from {
            return Token::Invalid;
        }
        self.state = state;
        token
    }

    fn quoted(&mut self, free_newline: bool, state: State, token: Token) -> Token {
        if self.peek() != Some(b'"') {
            return Token::Invalid;
        }
        self.at += 1;
        loop {
            match self.peek() {
                None => return Token::Invalid,
                Some(b'"') => return self.take(1, state, token),
                Some(b'\\') => {
                    self.at += 1;
                    if matches!(self.peek(), None | Some(b'\n')) {
                        return Token::Invalid;
                    }
                    self.at += 1;
                }
                Some(b'\n') if !free_newline => return Token::Invalid,
                Some(_) => self.at += 1,
            }
        }
    }

    fn skip_blanks(&mut self) -> usize {
        let from = self.at;
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
        self.at - from
    }

    fn skip_line(&mut self) {
        let rest = self.body.get(self.at..).unwrap_or_default();
        self.at += memchr::memchr(b'\n', rest).unwrap_or(rest.len());
    }
}
