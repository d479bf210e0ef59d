//! What ends long responses.

use crate::session::end_reason::EndReason;

/// Why nothing more is to be sent of a long response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// The process is about to end: what ends by itself may go on for as long as the server lets it.
    Process,
    /// The session is over, for that reason if it is known, or nobody can tell.
    Session(Option<EndReason>),
}
