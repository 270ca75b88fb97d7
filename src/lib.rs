//! Freightliner replicates container images between OCI registries through a durable job queue.
//!
//! # One job's way
//!
//! *enqueue* ([`store::Store::enqueue`], or any program's `INSERT`) → *claim* ([`store::Store::claim`]) → *resolve*, *survey*,
//! *plan*, *transfer* ([`replicate::Engine::stage`]) → *confirm* ([`store::Store::confirm`]) → *publish*
//! ([`replicate::Engine::publish`]) → *settle* ([`store::Store::settle`]). One attempt reads top to bottom in
//! [`worker::attempt::run`], raced with [`worker::lease::Lease::keep`]. What workers leave when they die, [`sweep`] reclaims.
//!
//! Many copies at once are a *batch*: a job of kind `expand` lists what [`mirror::Rules`] select and makes the others, by the same
//! way of claim, lease and settle. [`schedule`] makes jobs and batches again and again.
//!
//! Programs ask over HTTP ([`server`]), which calls the same store; who may ask for what is in [`access`]. [`crypt`] keeps the
//! credentials of registries, sealed in the database.
//!
//! # Four ideas
//!
//! 1. Each attempt is a reconciliation: compare source with destination, transfer the difference. Content is addressed by
//!    digest, so the destination registry is the checkpoint.
//! 2. Stage, then publish: blobs and manifests go up by digest, which is harmless to repeat. The tag is one PUT, right after
//!    the lease was confirmed.
//! 3. A claim is a value: it cannot be cloned, and only settling it ends the attempt. Every write of an attempt is fenced by
//!    `lease_epoch`.
//! 4. Everything long-lived is a `tick()` and a `run(shutdown)`; no task is detached.
//!
//! # Who may touch what
//!
//! [`job`] and [`oci`] are pure: no I/O, no async, no clock. SQL lives in [`store`] alone, HTTP to registries in [`registry`]
//! alone, HTTP from users in [`server`] alone, printing in `cli/output.rs` alone, time in [`clock`] alone. [`replicate`],
//! [`registry`], [`layout`] and [`mirror`] know nothing of jobs' rows; [`store`] knows nothing of registries. A test reads the
//! sources and holds them to it.

pub mod access;
pub mod cli;
pub mod clock;
pub mod config;
pub mod crypt;
pub mod daemon;
pub mod job;
pub mod layout;
pub mod mirror;
pub mod oci;
pub mod registry;
pub mod replicate;
pub mod schedule;
pub mod server;
pub mod shutdown;
pub mod store;
pub mod sweep;
pub mod tempfiles;
pub mod worker;

#[cfg(test)]
#[path = "../tests/corpus/mod.rs"]
mod corpus;
