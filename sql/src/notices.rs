//! [`Notices`]: what a statement has to say beside its rows.

use parking_lot::Mutex;

/// What clients are told at most of one statement.
const MOST: usize = 20;

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The answer may not be what was meant.
    Warning,
    /// Good to know.
    Notice,
}

/// What the statements of a session have to say, until its client was told. An extension of the session's
/// configuration, where whoever runs part of a plan finds it.
#[derive(Debug, Default)]
pub struct Notices(Mutex<Vec<(Severity, String)>>);

impl Notices {
    /// Says `text`, once.
    pub fn say(&self, severity: Severity, text: impl Into<String>) {
        let said = (severity, text.into());
        let mut all = self.0.lock();
        if all.len() < MOST && !all.contains(&said) {
            all.push(said);
        }
    }

    /// What was said, in order; it is not said again.
    pub(crate) fn take(&self) -> Vec<(Severity, String)> {
        std::mem::take(&mut *self.0.lock())
    }
}
