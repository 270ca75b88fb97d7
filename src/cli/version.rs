//! `version`: five lines. What the build did not tell is `unknown`.

use super::Output;
use super::error::Result;

/// Print the version.
#[derive(Debug, clap::Args)]
pub struct VersionArgs {
    /// Accepted for older scripts; prints nothing more.
    #[arg(long, hide = true)]
    banner: bool,
}

/// The commit that was built, if the build said so.
const COMMIT: Option<&str> = option_env!("FREIGHTLINER_COMMIT");
/// When it was built, if the build said so: not found out here, so that builds can be repeated bit for bit.
const BUILD_TIME: Option<&str> = option_env!("FREIGHTLINER_BUILD_TIME");

/// Does it.
///
/// # Errors
/// Stdout cannot be written.
pub fn run(mut output: Output, _arguments: &VersionArgs) -> Result {
    let version = env!("CARGO_PKG_VERSION");
    let (commit, time) = (COMMIT.unwrap_or("unknown"), BUILD_TIME.unwrap_or("unknown"));
    let rust = env!("CARGO_PKG_RUST_VERSION");
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    if output.format().is_json() {
        output.json(&serde_json::json!({
            "name": "freightliner", "version": version, "commit": commit, "build_time": time,
            "rust_version": rust, "os": os, "arch": arch,
        }))?;
    } else {
        output.line(&format!("freightliner {version}"))?;
        output.line(&format!("Git Commit: {commit}"))?;
        output.line(&format!("Build Time: {time}"))?;
        output.line(&format!("Rust Version: {rust} or later"))?;
        output.line(&format!("OS/Arch: {os}/{arch}"))?;
    }
    output.flush()
}
