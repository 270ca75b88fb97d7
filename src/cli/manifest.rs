//! `manifest REF`: the bytes as they are; `manifest digest REF` and `manifest inspect REF`.

use super::Context;
use super::error::{Error, Result};
use super::image::Image;
use super::output::Format;
use crate::oci::{Algorithm, Digest};
use clap::builder::BoolishValueParser;

/// Print a manifest, byte for byte.
#[derive(Debug, clap::Args)]
#[command(subcommand_negates_reqs = true)]
pub struct ManifestArgs {
    /// The image: [docker://]HOST[:PORT]/REPO[:TAG][@DIGEST] or oci:DIR[:TAG].
    #[arg(value_name = "REF", required = true)]
    reference: Option<String>,
    /// Verify TLS; false also allows plain HTTP [default: true].
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true,
        value_parser = BoolishValueParser::new())]
    tls_verify: Option<bool>,
    #[command(subcommand)]
    what: Option<ManifestCommand>,
}

#[derive(Debug, clap::Subcommand)]
enum ManifestCommand {
    /// Print the digest of a manifest.
    Digest {
        /// The image.
        #[arg(value_name = "REF")]
        reference: String,
        /// sha256 or sha512.
        #[arg(long, value_enum, default_value_t)]
        algorithm: AlgorithmName,
    },
    /// Print a manifest as indented JSON.
    Inspect {
        /// The image.
        #[arg(value_name = "REF")]
        reference: String,
        /// The older spelling of --output.
        #[arg(long, hide = true, value_enum)]
        format: Option<Format>,
    },
}

#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum AlgorithmName {
    #[default]
    Sha256,
    Sha512,
}

/// Does it.
///
/// # Errors
/// The image is not there, may not be read, or is no manifest.
pub async fn run(context: &mut Context, arguments: &ManifestArgs) -> Result {
    let inside = arguments
        .what
        .as_ref()
        .map(|(ManifestCommand::Digest { reference, .. } | ManifestCommand::Inspect { reference, .. })| reference);
    let reference = inside.or(arguments.reference.as_ref()).ok_or_else(|| Error::usage("manifest takes a REF"))?;
    let image = Image::open(context, reference, arguments.tls_verify).await?;
    let manifest = image.manifest(context.config.manifest_limit()).await?;
    match &arguments.what {
        None => context.output.raw(&manifest.bytes),
        Some(ManifestCommand::Digest { algorithm, .. }) => {
            let algorithm = match algorithm {
                AlgorithmName::Sha256 => Algorithm::Sha256,
                AlgorithmName::Sha512 => Algorithm::Sha512,
            };
            let digest = Digest::of(algorithm, &manifest.bytes).to_string();
            if context.format().is_json() {
                context.output.json(&serde_json::json!({"digest": digest}))
            } else {
                context.output.line(&digest)
            }
        }
        Some(ManifestCommand::Inspect { .. }) => {
            let json: serde_json::Value = serde_json::from_slice(&manifest.bytes).map_err(|error| {
                Error::failed("refused", format!("manifest {} is no JSON: {error}", manifest.digest))
            })?;
            context.output.json(&json)
        }
    }
}
