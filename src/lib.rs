//! wip
pub mod config;
pub mod mac;
pub mod source;
