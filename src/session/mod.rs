//! What we conclude: the record of a local session, the policy, and the rules between them. Pure: no I/O, no clock.

pub(crate) mod authorization_parameters;
pub(crate) mod browser;
pub(crate) mod decide;
pub(crate) mod end_reason;
pub(crate) mod event;
pub(crate) mod id;
pub(crate) mod login_attempt;
pub(crate) mod new_login;
pub(crate) mod partition;
pub(crate) mod policy;
pub(crate) mod record;
pub(crate) mod requirements;
pub(crate) mod revocation;
pub(crate) mod signal;
pub(crate) mod silent_login;
pub(crate) mod step_up;
pub(crate) mod stored;
