//! Which images of an index are copied, when platforms are asked for.
//!
//! The index itself goes over byte for byte, with entries that the destination does not have (sparse), or a smaller one is
//! made, which has a digest of its own (rewrite). The attestations that a builder put beside a chosen image go with it. An
//! image without an index is copied when it is for the platform that is asked for; what is no image has no platform.

use super::source::Source;
use super::{Error, Limits};
use crate::job::{Class, CopyOptions, PlatformMode, Stage};
use crate::oci::{Content, Descriptor, Digest, Manifest, Platform};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Media types of configs that say for which platform the image is.
const IMAGE_CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
/// The annotation by which an entry says which image it attests.
const ATTESTS: &str = "vnd.docker.reference.digest";
/// Platforms that a message lists at most.
const LISTED: usize = 20;

/// What is published, and what of it is copied.
pub(super) struct Picked {
    pub root: Manifest,
    /// The entries of an index that were chosen. None: nothing was chosen, all is copied.
    pub chosen: Option<BTreeSet<Digest>>,
    /// The root names images that were not chosen.
    pub sparse: bool,
    /// The index of which the root is a part.
    pub rewritten_from: Option<Digest>,
}

/// Applies what was asked for to what the source has.
///
/// # Errors
/// As [`Selection::chosen`] and [`Selection::check`]; as [`Source::config`].
pub(super) async fn pick(
    selection: Option<&Selection>,
    source: &Source,
    root: Manifest,
    limits: &Limits,
) -> Result<Picked, Error> {
    let whole = |root| Picked { root, chosen: None, sparse: false, rewritten_from: None };
    let Some(selection) = selection else { return Ok(whole(root)) };
    let Some(chosen) = selection.chosen(&root, source.name())? else {
        if let Some(config) = Selection::config_of(&root) {
            selection.check(&source.config(config, limits).await?, source.name())?;
        }
        return Ok(whole(root));
    };
    if selection.rewrites {
        let index = root.digest.clone();
        let root = selection.rewritten(root, &chosen, source.name())?;
        let rewritten_from = (root.digest != index).then_some(index);
        return Ok(Picked { rewritten_from, ..whole(root) });
    }
    let sparse = !has_only(&root, &chosen);
    Ok(Picked { chosen: Some(chosen), sparse, ..whole(root) })
}

fn has_only(index: &Manifest, chosen: &BTreeSet<Digest>) -> bool {
    matches!(&index.content, Content::Index { manifests, .. } if manifests.iter().all(|entry| chosen.contains(&entry.digest)))
}

/// The platforms that a copy is asked for.
#[derive(Debug, Clone)]
pub(super) struct Selection {
    wanted: Vec<Platform>,
    rewrites: bool,
}

impl Selection {
    /// None: everything is copied.
    ///
    /// # Errors
    /// Refused: one of them is no platform.
    pub fn of(options: &CopyOptions) -> Result<Option<Self>, Error> {
        if options.platforms.is_empty() {
            return Ok(None);
        }
        let wanted = options.platforms.iter().map(|platform| platform.parse()).collect::<Result<_, _>>();
        let wanted = wanted.map_err(|cause| Error::new(Stage::Resolve, Class::Refused, format!("options: {cause}")))?;
        Ok(Some(Self { wanted, rewrites: options.platform_mode == Some(PlatformMode::Rewrite) }))
    }

    /// The entries of the index to copy. None: `root` is no index.
    ///
    /// # Errors
    /// Absent: there is none for one of the platforms; it lists those that there are.
    fn chosen(&self, root: &Manifest, name: &str) -> Result<Option<BTreeSet<Digest>>, Error> {
        let Content::Index { manifests, .. } = &root.content else { return Ok(None) };
        let mut chosen = BTreeSet::new();
        for wanted in &self.wanted {
            let of = |entry: &&Descriptor| entry.platform.as_ref().is_some_and(|offered| wanted.matches(offered));
            let mut found = manifests.iter().filter(of).map(|entry| entry.digest.clone()).peekable();
            if found.peek().is_none() {
                return Err(none(name, wanted, manifests));
            }
            chosen.extend(found);
        }
        let attested = attestations(&root.bytes);
        let with: Vec<_> = attested.into_iter().filter(|(_, image)| chosen.contains(image)).collect();
        chosen.extend(with.into_iter().map(|(attestation, _)| attestation));
        Ok(Some(chosen))
    }

    /// The index with the chosen entries alone: another document, with another digest. The same when all are chosen.
    ///
    /// # Errors
    /// Refused: it cannot be written again.
    fn rewritten(&self, index: Manifest, chosen: &BTreeSet<Digest>, name: &str) -> Result<Manifest, Error> {
        let Content::Index { manifests, .. } = &index.content else { return Ok(index) };
        if has_only(&index, chosen) {
            return Ok(index);
        }
        let wrong = |cause: &dyn std::fmt::Display| {
            let message = format!("the index of {name} cannot be made smaller: {cause}");
            Error::new(Stage::Resolve, Class::Refused, message)
        };
        let mut document: Value = serde_json::from_slice(&index.bytes).map_err(|cause| wrong(&cause))?;
        let entries = document.get_mut("manifests").and_then(Value::as_array_mut);
        let entries = entries.ok_or_else(|| wrong(&"it has no entries"))?;
        // Both were read from the same bytes: the entries are the same, in the same order.
        let mut keep = manifests.iter().map(|entry| chosen.contains(&entry.digest));
        entries.retain(|_| keep.next().unwrap_or_default());
        let bytes = Bytes::from(serde_json::to_vec(&document).map_err(|cause| wrong(&cause))?);
        let digest = Digest::of(index.digest.algorithm(), &bytes);
        Manifest::parse(bytes, Some(&index.media_type), Some(&digest)).map_err(|cause| wrong(&cause))
    }

    /// The config that says for which platform an image without an index is. None: it is not an image for a platform.
    fn config_of(root: &Manifest) -> Option<&Descriptor> {
        match &root.content {
            Content::Image { config: Some(config), .. } => {
                Some(config).filter(|config| IMAGE_CONFIGS.contains(&config.media_type.as_str()))
            }
            _ => None,
        }
    }

    /// The image with this config is for each platform that is wanted.
    ///
    /// # Errors
    /// Absent: it is not, and for which one it is.
    fn check(&self, config: &[u8], name: &str) -> Result<(), Error> {
        let offered: Platform = serde_json::from_slice(config).map_err(|cause| {
            let message = format!("the config of {name} does not say for which platform the image is: {cause}");
            Error::new(Stage::Resolve, Class::Refused, message)
        })?;
        match self.wanted.iter().find(|wanted| !wanted.matches(&offered)) {
            None => Ok(()),
            Some(wanted) => {
                let message = format!("{name} has no image for {wanted}: it is one image, for {offered}");
                Err(Error::new(Stage::Resolve, Class::Absent, message))
            }
        }
    }
}

fn none(name: &str, wanted: &Platform, manifests: &[Descriptor]) -> Error {
    let offered: BTreeSet<String> =
        manifests.iter().filter_map(|entry| entry.platform.as_ref()).map(ToString::to_string).collect();
    let mut listed: Vec<String> = offered.iter().take(LISTED).cloned().collect();
    if offered.len() > LISTED {
        listed.push(format!("and {} more", offered.len() - LISTED));
    }
    let has = if listed.is_empty() {
        "its index names no platform".to_owned()
    } else {
        format!("it has {}", listed.join(", "))
    };
    Error::new(Stage::Resolve, Class::Absent, format!("{name} has no image for {wanted}: {has}"))
}

/// Which entry attests which. What is not said as it should be says nothing.
fn attestations(index: &[u8]) -> BTreeMap<Digest, Digest> {
    #[derive(Deserialize)]
    struct Index {
        manifests: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        digest: String,
        #[serde(default)]
        annotations: Value,
    }
    let index: Index = serde_json::from_slice(index).unwrap_or(Index { manifests: Vec::new() });
    let attests =
        |entry: &Entry| Some((entry.digest.parse().ok()?, entry.annotations.get(ATTESTS)?.as_str()?.parse().ok()?));
    index.manifests.iter().filter_map(attests).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn digest(name: &str) -> Digest {
        Digest::of(crate::oci::Algorithm::Sha256, name.as_bytes())
    }

    fn entry(name: &str, os: &str, architecture: &str, variant: Option<&str>) -> Value {
        let media_type = crate::oci::manifest::OCI_MANIFEST;
        json!({"mediaType": media_type, "digest": digest(name).to_string(), "size": 7,
            "platform": {"os": os, "architecture": architecture, "variant": variant}})
    }

    fn index(entries: &[Value]) -> Manifest {
        let document = json!({"schemaVersion": 2, "x": {"b": 1, "a": null}, "manifests": entries});
        let bytes = Bytes::from(serde_json::to_vec(&document).unwrap());
        Manifest::parse(bytes, Some(crate::oci::manifest::OCI_INDEX), None).unwrap()
    }

    fn many() -> Manifest {
        let mut attestation = entry("att-amd", "unknown", "unknown", None);
        attestation["annotations"] = json!({ATTESTS: digest("amd").to_string(), "n": 1});
        let mut other = entry("att-arm", "unknown", "unknown", None);
        other["annotations"] = json!({ATTESTS: digest("arm64").to_string()});
        let mut odd = entry("odd", "unknown", "unknown", None);
        odd["annotations"] = json!([ATTESTS]);
        index(&[
            entry("amd", "linux", "amd64", None),
            entry("arm64", "linux", "arm64", Some("v8")),
            entry("armv6", "linux", "arm", Some("v6")),
            entry("armv7", "linux", "arm", Some("v7")),
            attestation,
            other,
            odd,
        ])
    }

    fn selection(platforms: &[&str]) -> Selection {
        let platforms = platforms.iter().map(ToString::to_string).collect();
        Selection::of(&CopyOptions { platforms, ..CopyOptions::default() }).unwrap().unwrap()
    }

    #[test]
    fn what_is_asked_for_is_chosen_with_its_attestations() {
        let chosen = |platforms: &[&str]| selection(platforms).chosen(&many(), "x").unwrap().unwrap();
        let set = |names: &[&str]| names.iter().map(|name| digest(name)).collect::<BTreeSet<_>>();
        assert_eq!(chosen(&["linux/amd64"]), set(&["amd", "att-amd"]));
        assert_eq!(chosen(&["linux/arm64"]), set(&["arm64", "att-arm"]));
        assert_eq!(chosen(&["linux/aarch64/v8", "linux/arm/v6"]), set(&["arm64", "att-arm", "armv6"]));
        assert_eq!(chosen(&["linux/arm"]), set(&["armv6", "armv7"]), "without a variant: all");
        assert_eq!(chosen(&["linux/amd64", "linux/x86_64"]), set(&["amd", "att-amd"]), "twice the same is no fault");
        assert!(Selection::of(&CopyOptions::default()).unwrap().is_none());
    }

    #[test]
    fn what_is_not_there_is_said_with_what_is() {
        let error = selection(&["linux/amd64", "linux/s390x"]).chosen(&many(), "app:1").unwrap_err();
        assert_eq!(error.class, Class::Absent);
        let expected = "app:1 has no image for linux/s390x: it has linux/amd64, linux/arm/v6, linux/arm/v7, linux/arm64/v8, unknown/unknown";
        assert_eq!(error.message, expected);
        let error = selection(&["linux/arm/v5"]).chosen(&index(&[]), "x").unwrap_err();
        assert!(error.message.contains("names no platform"), "{error}");
    }

    #[test]
    fn a_smaller_index_says_all_that_the_large_one_said_of_what_is_left() {
        let selection = selection(&["linux/amd64"]);
        let large = many();
        let chosen = selection.chosen(&large, "x").unwrap().unwrap();
        let small = selection.rewritten(large.clone(), &chosen, "x").unwrap();
        assert_ne!(small.digest, large.digest);
        assert_eq!(small.media_type, large.media_type);
        let (before, after): (Value, Value) =
            (serde_json::from_slice(&large.bytes).unwrap(), serde_json::from_slice(&small.bytes).unwrap());
        assert_eq!(after["manifests"], json!([before["manifests"][0], before["manifests"][4]]));
        assert_eq!(after["x"], before["x"]);
        let again = selection.rewritten(large.clone(), &chosen, "x").unwrap();
        assert_eq!(again.digest, small.digest, "the same each time");
        // Nothing to leave out: the index that it was.
        let chosen = selection.chosen(&small, "x").unwrap().unwrap();
        assert_eq!(selection.rewritten(small.clone(), &chosen, "x").unwrap().bytes, small.bytes);
    }

    #[test]
    fn an_image_alone_is_for_one_platform() {
        let config = br#"{"os":"linux","architecture":"arm64","rootfs":{}}"#;
        assert!(selection(&["linux/arm64/v8"]).check(config, "x").is_ok());
        let error = selection(&["linux/arm64", "linux/amd64"]).check(config, "x").unwrap_err();
        assert_eq!(error.class, Class::Absent);
        assert_eq!(error.message, "x has no image for linux/amd64: it is one image, for linux/arm64");
        assert_eq!(selection(&["linux/amd64"]).check(b"{}", "x").unwrap_err().class, Class::Absent);
        assert_eq!(selection(&["linux/amd64"]).check(b"no", "x").unwrap_err().class, Class::Refused);
    }
}
