//! The crate over real HTTP, with real tokens, against the embedded provider. Time is virtual but where a test says.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::type_complexity,
    clippy::cast_precision_loss,
    clippy::unchecked_time_subtraction,
    missing_docs,
    unreachable_pub,
    reason = "tests fail by panicking, and nobody reads their documentation"
)]

mod api;
mod api_audiences;
mod api_client;
mod api_server;
mod app_data;
mod backchannel_logout;
mod browser;
mod clients;
mod cluster;
mod config;
mod conformance;
mod encrypted;
mod failover;
mod high_security;
mod inactivity;
#[path = "../support/jar.rs"]
mod jar;
mod layers;
mod leaks;
mod login;
mod logout;
mod operating;
mod oracle;
mod other_logouts;
mod outage;
mod pages;
mod paths;
mod promotion;
mod provider_pages;
mod races;
mod registry;
mod registry_contract;
mod replicas;
mod requirements;
mod secrets;
#[allow(dead_code, reason = "each binary of tests uses its part")]
#[path = "../support/servers.rs"]
mod servers;
mod setup;
mod several;
mod side_by_side;
mod silent_login;
mod sqlite;
mod stores;
mod streams;
mod tidy;
mod trouble;
#[path = "../support/until.rs"]
mod until;
mod world;
