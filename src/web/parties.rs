//! Whose a request is, where an application has several providers or tenants.

use std::fmt;
use std::sync::Arc;

use http::request::Parts;
use http::{Extensions, HeaderMap, header};

use super::context::Context;
use super::cookie::Presented;
use super::tenants::{Party, Tenants};
use crate::session::id::SessionKey;

/// The relying parties that one layer stands for.
#[derive(Clone, Debug)]
pub(crate) enum Parties {
    One(Context),
    Many(Many),
}

/// Those of an application that has several providers, or tenants.
#[derive(Clone, Debug)]
pub(crate) enum Many {
    Several(Arc<Several>),
    Tenants(Arc<Tenants>),
}

impl Many {
    /// Those that are known by now, with their names.
    pub(crate) fn known(&self) -> Vec<(String, Context)> {
        match self {
            Self::Several(several) => {
                several.members.iter().map(|member| (member.name.clone(), member.context.clone())).collect()
            }
            Self::Tenants(tenants) => tenants.here(),
        }
    }

    /// Whose a request is.
    pub(crate) fn of(&self, parts: &mut Parts) -> Party {
        match self {
            Self::Several(several) => {
                // For the login, which ends what the browser has elsewhere.
                parts.extensions.insert(several.clone());
                Party::Known(several.of(parts).clone())
            }
            Self::Tenants(tenants) => tenants.of(parts),
        }
    }
}

/// The providers of one application, of which a person chooses one.
pub(crate) struct Several {
    pub(crate) members: Vec<Member>,
    /// Where nobody has chosen yet.
    pub(crate) nobody: Context,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Member {
    /// As its routes say.
    pub(crate) name: String,
    /// As people read it.
    pub(crate) label: String,
    pub(crate) context: Context,
}

impl fmt::Debug for Several {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.members.iter().map(|member| &member.name)).finish()
    }
}

impl Several {
    /// The provider whose route is asked for, else the one that the browser has a session of, else none.
    fn of(&self, parts: &Parts) -> &Context {
        let contexts = || self.members.iter().map(|member| &member.context);
        let path = parts.uri.path();
        let by_path = contexts().find(|context| context.paths().is_of_party(path));
        // Of two, which a browser has seldom, the later one: browsers name the older cookies first.
        let by_cookie = || {
            let headers = parts.headers.get_all(header::COOKIE).iter().rev();
            let mut pairs = headers.flat_map(|header| header.as_bytes().rsplit(|byte| *byte == b';'));
            pairs.find_map(|pair| contexts().find(|context| context.cookies().is_session(pair)))
        };
        // Who was signed in at one a moment ago goes on there; what was entered is kept by its cookie.
        let by_end = || contexts().find(|context| context.cookies().has_ended(&parts.headers));
        by_path.or_else(by_cookie).or_else(by_end).unwrap_or(&self.nobody)
    }
}

/// What a request brings as the session of that relying party.
fn presented(context: &Context, headers: &HeaderMap) -> Presented {
    let found = headers.get_all(header::COOKIE).iter().map(|value| context.cookies().session(value));
    found.into_iter().find(|found| !matches!(found, Presented::Nothing)).unwrap_or(Presented::Nothing)
}

/// What a browser has of other providers of the same application.
pub(crate) struct Elsewhere {
    pub(crate) context: Context,
    /// The session, if the cookie may be one's.
    pub(crate) key: Option<SessionKey>,
}

/// Whether the application of a request has several providers.
pub(crate) fn are_several(extensions: &Extensions) -> bool {
    extensions.get::<Arc<Several>>().is_some()
}

/// Whether none of several providers is chosen.
pub(crate) fn is_nobodys(context: &Context, extensions: &Extensions) -> bool {
    extensions.get::<Arc<Several>>().is_some_and(|several| several.nobody.is(context))
}

/// The sessions that a browser has at other providers of the application than this.
pub(crate) fn elsewhere(context: &Context, headers: &HeaderMap, extensions: &Extensions) -> Vec<Elsewhere> {
    let Some(several) = extensions.get::<Arc<Several>>() else { return Vec::new() };
    let others = several.members.iter().map(|member| &member.context).filter(|other| !other.is(context));
    others
        .filter_map(|other| {
            let key = match presented(other, headers) {
                Presented::Id(id) => Some(other.key_of(&id)),
                Presented::Malformed => None,
                Presented::Nothing => return None,
            };
            Some(Elsewhere { context: other.clone(), key })
        })
        .collect()
}
