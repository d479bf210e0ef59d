//! HTTP in: what browsers and the provider see.

#[cfg_attr(not(feature = "tower-sessions"), path = "no_app_data.rs")]
pub(crate) mod app_data;
pub(crate) mod browser;
pub(crate) mod context;
pub(crate) mod cookie;
pub(crate) mod cross_site;
pub(crate) mod extract;
pub(crate) mod form;
pub(crate) mod keep_form;
pub(crate) mod layer;
pub(crate) mod multipart;
pub(crate) mod navigation;
pub(crate) mod page;
pub(crate) mod pages;
pub(crate) mod parties;
pub(crate) mod passive;
pub(crate) mod paths;
pub(crate) mod reject;
pub(crate) mod request;
pub(crate) mod require;
pub(crate) mod routes;
pub(crate) mod said;
pub(crate) mod send_again;
pub(crate) mod stream;
pub(crate) mod tenants;
pub(crate) mod texts;
pub(crate) mod upgrade;
pub(crate) mod websocket;
pub(crate) mod wiring;
