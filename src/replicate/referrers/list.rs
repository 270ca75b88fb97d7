//! The list of referrers as a document: an index under a tag made of the subject's digest, for registries and layouts that keep
//! no list themselves (distribution spec, "Referrers Tag Schema"). Pure.
//!
//! Such a list belongs to everybody who signs: what is in it stays as it is, and only what is missing is added.

use crate::oci::manifest::OCI_INDEX;
use crate::oci::{Digest, Manifest};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Most digits of a digest in a tag: longer ones are cut (distribution spec, "Referrers Tag Schema").
const TAG_DIGITS: usize = 64;
/// The endings of the tags by which cosign names what it made for an image.
const COSIGN_ENDINGS: [&str; 3] = ["sig", "att", "sbom"];

/// The tag of the list of `subject`'s referrers.
pub(super) fn list_tag(subject: &Digest) -> String {
    let digits = subject.hex();
    format!("{}-{}", subject.algorithm(), digits.get(..TAG_DIGITS).unwrap_or(digits))
}

/// The tags that cosign gives to what it made for `image`. None for a digest that is too long for a tag with an ending.
pub(super) fn cosign_tags(image: &Digest) -> Vec<String> {
    if image.hex().len() > TAG_DIGITS {
        return Vec::new();
    }
    COSIGN_ENDINGS.iter().map(|ending| format!("{}.{ending}", list_tag(image))).collect()
}

/// What a manifest says of itself that goes into the list.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Told {
    artifact_type: Option<String>,
    config: Option<Config>,
    annotations: Option<Map<String, Value>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    media_type: Option<String>,
}

impl Told {
    pub fn by(manifest: &Manifest) -> Self {
        serde_json::from_slice(&manifest.bytes).unwrap_or_default()
    }

    /// Its artifact type; of an older manifest, the media type of its config.
    pub fn artifact_type(&self) -> Option<&str> {
        let own = self.artifact_type.as_deref().filter(|own| !own.is_empty());
        own.or_else(|| self.config.as_ref()?.media_type.as_deref())
    }
}

/// What the list says of a referrer.
pub(super) fn entry(manifest: &Manifest) -> Value {
    let told = Told::by(manifest);
    let mut entry = json!({
        "mediaType": manifest.media_type, "digest": manifest.digest.as_str(), "size": manifest.bytes.len(),
    });
    if let Some(artifact_type) = told.artifact_type() {
        entry["artifactType"] = artifact_type.into();
    }
    if let Some(annotations) = told.annotations.filter(|annotations| !annotations.is_empty()) {
        entry["annotations"] = annotations.into();
    }
    entry
}

/// The list `current` (None: there is none yet) with these entries, each digest once, and without those that are `gone`. None:
/// it says all that already.
///
/// # Errors
/// What is there is no list, and must not be replaced.
pub(super) fn merged(
    current: Option<&[u8]>,
    entries: &[Value],
    gone: &BTreeSet<Digest>,
) -> Result<Option<Vec<u8>>, String> {
    let mut list = match current {
        Some(bytes) => serde_json::from_slice(bytes).map_err(|cause| format!("it is no index ({cause})"))?,
        None => json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] }),
    };
    if list.get("mediaType").is_some_and(|media_type| media_type != OCI_INDEX) {
        return Err("it is something else than an OCI index".to_owned());
    }
    // Go writes an empty list as null.
    if list.get("manifests") == Some(&Value::Null) {
        list["manifests"] = json!([]);
    }
    let Some(Value::Array(listed)) = list.get_mut("manifests") else {
        return Err("it is no index: it has no 'manifests'".to_owned());
    };
    let before = listed.len();
    let is_gone = |entry: &Value| gone.iter().any(|digest| entry["digest"] == digest.as_str());
    listed.retain(|entry| !is_gone(entry));
    let kept = listed.len();
    for entry in entries {
        if !listed.iter().any(|known| known["digest"] == entry["digest"]) {
            listed.push(entry.clone());
        }
    }
    if listed.len() == kept && kept == before && current.is_some() {
        return Ok(None);
    }
    serde_json::to_vec(&list).map(Some).map_err(|cause| cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;
    use crate::oci::manifest::OCI_MANIFEST;
    use bytes::Bytes;

    fn manifest(fields: Value) -> Manifest {
        let mut document = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [] });
        document.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        Manifest::parse(Bytes::from(document.to_string()), None, None).unwrap()
    }

    fn config() -> Value {
        let digest = Digest::of(Algorithm::Sha256, b"{}");
        json!({ "mediaType": "application/vnd.example.config+json", "digest": digest.as_str(), "size": 2 })
    }

    #[test]
    fn tags_are_made_as_the_specification_has_them() {
        let short = Digest::of(Algorithm::Sha256, b"");
        assert_eq!(list_tag(&short), format!("sha256-{}", short.hex()));
        let long = Digest::of(Algorithm::Sha512, b"");
        assert_eq!(list_tag(&long), format!("sha512-{}", &long.hex()[..64]));
        assert!(cosign_tags(&long).is_empty());
        assert_eq!(cosign_tags(&short)[1], format!("sha256-{}.att", short.hex()));
    }

    #[test]
    fn an_entry_tells_type_and_annotations() {
        let annotations = json!({ "org.example.a": "1" });
        let own = entry(&manifest(json!({ "artifactType": "a/b", "config": config(), "annotations": annotations })));
        assert_eq!((&own["artifactType"], &own["annotations"]), (&json!("a/b"), &annotations));
        let older = entry(&manifest(json!({ "artifactType": "", "config": config() })));
        assert_eq!(older["artifactType"], "application/vnd.example.config+json");
        assert!(older.get("annotations").is_none());
        assert!(entry(&manifest(json!({}))).get("artifactType").is_none());
    }

    #[test]
    fn a_list_grows_and_keeps_what_it_has() {
        let (one, other) = (entry(&manifest(json!({ "artifactType": "a/b" }))), entry(&manifest(json!({}))));
        let none = BTreeSet::new();
        let first = merged(None, std::slice::from_ref(&one), &none).unwrap().unwrap();
        assert_eq!(merged(Some(&first), std::slice::from_ref(&one), &none), Ok(None), "each once");
        let mut strange: Value = serde_json::from_slice(&first).unwrap();
        strange["annotations"] = json!({ "x": "y" });
        strange["manifests"][0]["data"] = json!("e30=");
        let both = merged(Some(strange.to_string().as_bytes()), &[one.clone(), other.clone()], &none).unwrap().unwrap();
        let both: Value = serde_json::from_slice(&both).unwrap();
        assert_eq!((&both["manifests"][0]["data"], &both["annotations"]["x"]), (&json!("e30="), &json!("y")));
        assert_eq!(both["manifests"][1], other);
        let gone = BTreeSet::from([one["digest"].as_str().unwrap().parse().unwrap()]);
        let left = merged(Some(both.to_string().as_bytes()), std::slice::from_ref(&other), &gone).unwrap().unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&left).unwrap()["manifests"], json!([other]));
        let nulled = merged(Some(br#"{"schemaVersion":2,"manifests":null}"#), &[one], &none);
        assert!(nulled.unwrap().is_some());
    }

    #[test]
    fn what_is_no_list_is_not_replaced() {
        let other = manifest(json!({})).bytes;
        for wrong in [&b"no"[..], b"{}", b"[]", &other, br#"{"manifests":{}}"#] {
            assert!(merged(Some(wrong), &[], &BTreeSet::new()).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
    }
}
