//! The rig's own tests: a fake that does not do what it says would make every other test a lie.

mod binary;
mod fake;
mod fake_auth;
mod fake_uploads;
mod faults;
mod registry;
