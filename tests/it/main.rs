//! The crate over real HTTP, with real tokens, against the embedded provider. Time is virtual but where a test says.

mod api;
mod app_data;
mod backchannel_logout;
mod browser;
mod config;
mod conformance;
mod inactivity;
mod login;
mod logout;
mod outage;
mod races;
mod registry_contract;
mod replicas;
mod secrets;
mod streams;
mod tidy;
mod world;
