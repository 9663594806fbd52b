//! [`Viewer`]: who asks, for tables that do not show everything to everyone.

use datafusion::catalog::Session;

use crate::pgwire::Access;

/// Stands where Postgres does not show what others ask.
pub(crate) const HIDDEN: &str = "<insufficient privilege>";

/// Who asks. An extension of the session's configuration, where tables find it; who has none is the program itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Viewer {
    name: String,
    sees_everyone: bool,
}

impl Default for Viewer {
    fn default() -> Self {
        Self { name: String::new(), sees_everyone: true }
    }
}

impl Viewer {
    /// A user with `access`. An empty name is nobody's.
    pub(crate) fn new(name: &str, access: &Access) -> Self {
        Self { name: name.to_owned(), sees_everyone: access.sees_everyone() }
    }

    /// Who asks in `session`.
    pub(crate) fn of(session: &dyn Session) -> Self {
        session.config().get_extension::<Self>().map(|viewer| viewer.as_ref().clone()).unwrap_or_default()
    }

    /// Whether they see what `user` asks.
    pub(crate) fn sees(&self, user: &str) -> bool {
        self.sees_everyone || (!user.is_empty() && self.name == user)
    }
}
