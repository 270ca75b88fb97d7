//! `inspect REF`: what an image consists of.

use super::Context;
use super::error::{Error, Result};
use super::image::Image;
use super::output::{Format, Output, bytes};
use super::report::count;
use crate::oci::{Content, Descriptor, Manifest};
use clap::builder::BoolishValueParser;
use serde::Serialize;
use serde_json::value::RawValue;

/// Largest config blob that is read, bytes. Real ones have some kilobytes.
const CONFIG_LIMIT_BYTES: u64 = 4 * 1024 * 1024;
/// Media types of configs that describe an image; other configs belong to artifacts and mean something else.
const IMAGE_CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// Show what an image consists of.
#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    /// The image: [docker://]HOST[:PORT]/REPO[:TAG][@DIGEST] or oci:DIR[:TAG].
    #[arg(value_name = "REF")]
    reference: String,
    /// Print the manifest, byte for byte.
    #[arg(long)]
    raw: bool,
    /// Verify TLS; false also allows plain HTTP [default: true].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true,
        value_parser = BoolishValueParser::new())]
    tls_verify: Option<bool>,
    /// The older spelling of --output.
    #[arg(long, hide = true, value_enum)]
    format: Option<Format>,
}

/// A descriptor as users see it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    #[serde(skip_serializing_if = "String::is_empty")]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<PlatformShown>,
}

#[derive(Debug, Serialize)]
struct PlatformShown {
    os: String,
    architecture: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
    #[serde(rename = "os.version", skip_serializing_if = "Option::is_none")]
    os_version: Option<String>,
}

impl From<&Descriptor> for Part {
    fn from(descriptor: &Descriptor) -> Self {
        let platform = descriptor.platform.clone().map(|platform| PlatformShown {
            os: platform.os,
            architecture: platform.architecture,
            variant: platform.variant,
            os_version: platform.os_version,
        });
        Self {
            media_type: descriptor.media_type.clone(),
            digest: descriptor.digest.to_string(),
            size: descriptor.size,
            platform,
        }
    }
}

/// What is known of an image.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Inspected {
    name: String,
    digest: String,
    media_type: String,
    /// Of the manifest itself, as in its descriptor.
    size: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Part>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layers: Option<Vec<Part>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifests: Option<Vec<Part>>,
    repo_tags: Vec<String>,
    #[serde(flatten)]
    about: About,
    /// The manifest as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<Box<RawValue>>,
}

/// What the config says. Nothing for indexes and artifacts.
#[derive(Debug, Default, Serialize)]
struct About {
    #[serde(skip_serializing_if = "Option::is_none")]
    architecture: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    os: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    env: Vec<String>,
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    labels: serde_json::Map<String, serde_json::Value>,
}

/// Does it.
///
/// # Errors
/// The image is not there, may not be read, or is damaged.
pub async fn run(context: &mut Context, arguments: &InspectArgs) -> Result {
    let image = Image::open(context, &arguments.reference, arguments.tls_verify).await?;
    let manifest = image.manifest(context.config.manifest_limit()).await?;
    if arguments.raw {
        return context.output.raw(&manifest.bytes);
    }
    let inspected = look(&image, &manifest).await?;
    match arguments.format.unwrap_or_else(|| context.format()) {
        Format::Text => print(&mut context.output, &inspected),
        Format::Json => context.output.json(&inspected),
        Format::Jsonl => context.output.compact(&inspected),
    }
}

async fn look(image: &Image, manifest: &Manifest) -> Result<Inspected> {
    let (config, layers, manifests) = match &manifest.content {
        Content::Index { manifests, .. } => (None, None, Some(manifests.iter().map(Part::from).collect())),
        Content::Image { blobs, config, .. } => {
            let layers = blobs.iter().skip(usize::from(config.is_some())).map(Part::from).collect();
            (config.as_ref(), Some(layers), None)
        }
    };
    let about = match config {
        Some(config) if IMAGE_CONFIGS.contains(&config.media_type.as_str()) => {
            about(&image.small_blob(config, CONFIG_LIMIT_BYTES).await?, config)?
        }
        _ => About::default(),
    };
    Ok(Inspected {
        name: image.name(),
        digest: manifest.digest.to_string(),
        media_type: manifest.media_type.clone(),
        size: manifest.bytes.len(),
        config: config.map(Part::from),
        layers,
        manifests,
        repo_tags: image.tag().into_iter().collect(),
        about,
        manifest: serde_json::from_slice(&manifest.bytes).ok(),
    })
}

/// Reads what the config says, field by field: a config with one odd field still tells the others.
fn about(config: &[u8], descriptor: &Descriptor) -> Result<About> {
    let json: serde_json::Value = serde_json::from_slice(config).map_err(|error| {
        Error::failed("refused", format!("config {} is no JSON: line {}", descriptor.digest, error.line()))
    })?;
    let text =
        |name: &str| json.get(name).and_then(|value| value.as_str()).map(str::to_owned).filter(|text| !text.is_empty());
    let run = json.get("config");
    let env = run.and_then(|run| run.get("Env")).and_then(|env| env.as_array());
    let labels = run.and_then(|run| run.get("Labels")).and_then(|labels| labels.as_object());
    Ok(About {
        architecture: text("architecture"),
        os: text("os"),
        created: text("created"),
        author: text("author"),
        env: env.into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect(),
        labels: labels.cloned().unwrap_or_default(),
    })
}

fn print(output: &mut Output, image: &Inspected) -> Result {
    let mut pairs = vec![
        ("name", image.name.clone()),
        ("tag", image.repo_tags.join(", ")),
        ("digest", image.digest.clone()),
        ("media type", image.media_type.clone()),
        ("size", format!("{} bytes", image.size)),
    ];
    if let Some(config) = &image.config {
        pairs.push(("config", format!("{} ({})", config.digest, bytes(config.size))));
    }
    let about = &image.about;
    let platform = about.os.iter().chain(&about.architecture).cloned().collect::<Vec<_>>().join("/");
    pairs.push(("platform", platform));
    pairs.push(("created", about.created.clone().unwrap_or_default()));
    pairs.push(("author", about.author.clone().unwrap_or_default()));
    pairs.extend(about.env.iter().map(|variable| ("env", variable.clone())));
    let label = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    pairs.extend(about.labels.iter().map(|(name, value)| ("label", format!("{name}={}", label(value)))));
    pairs.retain(|(_, value)| !value.is_empty());
    output.pairs(&pairs)?;
    if let Some(layers) = &image.layers {
        let total = layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add);
        output.line(&format!("{}, {}:", count(layers.len(), "layer"), bytes(total)))?;
        output.table(&["DIGEST", "SIZE", "MEDIA TYPE"], layers.iter().map(row))?;
    }
    if let Some(manifests) = &image.manifests {
        output.line(&format!("{}:", count(manifests.len(), "manifest")))?;
        let rows = manifests.iter().map(|part| {
            let platform = part.platform.as_ref().map(|platform| {
                let variant = platform.variant.as_ref().map(|variant| format!("/{variant}")).unwrap_or_default();
                format!("{}/{}{variant}", platform.os, platform.architecture)
            });
            let mut row = row(part);
            row.insert(0, platform.unwrap_or_else(|| "-".to_owned()));
            row
        });
        output.table(&["PLATFORM", "DIGEST", "SIZE", "MEDIA TYPE"], rows)?;
    }
    Ok(())
}

fn row(part: &Part) -> Vec<String> {
    vec![part.digest.clone(), bytes(part.size), part.media_type.clone()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_odd_config_tells_what_it_can() {
        let descriptor = Descriptor {
            media_type: IMAGE_CONFIGS[0].to_owned(),
            digest: crate::oci::Digest::of(crate::oci::Algorithm::Sha256, b"{}"),
            size: 2,
            urls: Vec::new(),
            platform: None,
            artifact_type: None,
        };
        let config = br#"{"os":"linux","architecture":7,"author":"","config":{"Env":["A=1",2],"Labels":{"a":"b"}}}"#;
        let known = about(config, &descriptor).unwrap();
        assert_eq!((known.os.as_deref(), known.architecture, known.author), (Some("linux"), None, None));
        assert_eq!(known.env, ["A=1"]);
        assert_eq!(known.labels.get("a").and_then(|value| value.as_str()), Some("b"));
        assert!(about(b"{}", &descriptor).unwrap().labels.is_empty());
        assert!(about(b"not json", &descriptor).is_err());
    }
}
