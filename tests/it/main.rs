//! The integration tests: one binary, so that they are linked once and share the rig.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::missing_panics_doc,
    reason = "a test says what went wrong by panicking"
)]

mod batch;
mod cli;
mod copy;
mod readme;
mod rig;
mod serve;
mod sqlx_data;
mod store;
mod support;
mod tidy;
mod work;
