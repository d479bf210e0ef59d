//! What the tests of tokens share: a client, a moment, and tokens whose signature nobody looks at.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::{Expected, Moment, UnverifiedJwt, VerifiedJwt};
use crate::protocol::issuers::Issuers;
use crate::protocol::names::{ClientId, Issuer};

pub(crate) const ISSUER: &str = "https://op.example";
pub(crate) const CLIENT: &str = "shop";
/// The moment at which tokens are looked at, in seconds.
pub(crate) const NOW: u64 = 1_700_000_000;
/// How far clocks may be apart, in seconds.
pub(crate) const TOLERANCE: u64 = 60;

/// What the tokens of the tests are compared with.
pub(crate) fn expected() -> Expected<'static> {
    static CLIENT_AT_ISSUER: LazyLock<(Issuers, ClientId)> =
        LazyLock::new(|| (Issuers::one(Issuer::new(ISSUER)), ClientId::new(CLIENT)));
    let (issuers, client_id) = &*CLIENT_AT_ISSUER;
    Expected { issuers, client_id, at: Moment { now: at(NOW), tolerance: Duration::from_secs(TOLERANCE) } }
}

pub(crate) fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

pub(crate) fn encode(part: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(part)
}

pub(crate) fn map(json: &Value) -> Map<String, Value> {
    json.as_object().unwrap().clone()
}

/// `json` with one member set to another value, or taken away.
pub(crate) fn with(json: &Value, name: &str, value: Option<&Value>) -> Value {
    let mut map = map(json);
    match value {
        Some(value) => map.insert(name.to_owned(), value.clone()),
        None => map.remove(name),
    };
    Value::Object(map)
}

/// A token with this header and these claims, as if its signature had been checked.
pub(crate) fn verified(header: &Value, claims: &Value) -> VerifiedJwt {
    let token = format!("{}.{}.", encode(header.to_string()), encode(claims.to_string()));
    UnverifiedJwt::parse(&token).unwrap().trust_channel()
}
