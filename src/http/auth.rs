//! Who is asking, and what they may see.
//!
//! [`peer`] knows the processes of this host; [`policy`] says what an identity may see.

use std::sync::Arc;

pub mod peer;
pub mod policy;

/// Who asks, as far as it was proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user's id, where there is one.
    pub user: Option<Arc<str>>,
    /// The id of the project for which the user acts; never empty.
    pub project: Option<Arc<str>>,
    /// Whether everything may be seen.
    pub admin: bool,
}

impl Identity {
    /// An administrator of this host.
    #[must_use]
    pub fn admin() -> Self {
        Self { user: None, project: None, admin: true }
    }
}
