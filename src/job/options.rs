//! What a row may ask for beside source and destination: the JSON object in `jobs.options`.

use crate::oci::{Platform, quote};
use serde::{Deserialize, Serialize};

/// Longest media type, bytes: two names of 127 and a '/' (RFC 6838, 4.2).
const MEDIA_TYPE_LIMIT_BYTES: usize = 255;

/// Options of a copy. Absent fields have their defaults, so that `{}` is the plain copy; unknown fields are refused, because
/// an option that is silently ignored is a copy that was not asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyOptions {
    /// Go through everything again although the digests are equal.
    #[serde(default, skip_serializing_if = "is_false")]
    pub force: bool,
    /// When the digests are equal, look whether everything below is there all the same, and bring what is missing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub verify: bool,
    /// Fail when the destination tag exists with another digest.
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_clobber: bool,
    /// Verify TLS at the source; default true. False also allows plain HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src_tls_verify: Option<bool>,
    /// Verify TLS at the destination; default true. False also allows plain HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dest_tls_verify: Option<bool>,
    /// Which referrers (signatures, attestations, SBOMs) are copied too; default root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referrers: Option<Referrers>,
    /// Only referrers of these artifact types; none: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifact_types: Vec<String>,
    /// Of an index, only the images for these platforms (`os/arch[/variant]`); none: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
    /// What becomes of an index of which only some platforms are copied; default sparse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform_mode: Option<PlatformMode>,
}

/// Which referrers are copied: manifests whose `subject` is what is copied, and what cosign's tags name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Referrers {
    /// None of them.
    None,
    /// Those of what the reference names, and theirs in turn.
    #[default]
    Root,
    /// Those of the manifests below an index too.
    All,
}

/// What becomes of an index of which only some platforms are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlatformMode {
    /// It stays as it is, byte for byte, and names images that the destination does not have. Not every registry takes that.
    Sparse,
    /// A smaller one is made, which has another digest.
    Rewrite,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if hands out a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// A media type without parameters (RFC 6838, 4.2), written as it stands in manifests.
fn is_media_type(text: &str) -> bool {
    let is_word = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    text.len() <= MEDIA_TYPE_LIMIT_BYTES
        && text.split_once('/').is_some_and(|(kind, rest)| is_word(kind) && is_word(rest))
}

impl CopyOptions {
    /// Reads the JSON of a row or of a JSON Lines request.
    ///
    /// # Errors
    /// One line that says which option is wrong.
    pub fn parse(json: &serde_json::Value) -> Result<Self, String> {
        if !json.is_object() {
            return Err("options must be a JSON object, for example {\"force\": true}".to_owned());
        }
        let options: Self = serde_json::from_value(json.clone()).map_err(|error| format!("options: {error}"))?;
        options.check()?;
        Ok(options)
    }

    /// Refuses what means nothing.
    ///
    /// # Errors
    /// Which value is wrong.
    pub fn check(&self) -> Result<(), String> {
        for platform in &self.platforms {
            platform.parse::<Platform>().map_err(|error| format!("options: {error}"))?;
        }
        if self.platform_mode.is_some() && self.platforms.is_empty() {
            return Err("options: platform_mode says nothing without platforms: name some, or leave it out".to_owned());
        }
        if let Some(wrong) = self.artifact_types.iter().find(|text| !is_media_type(text)) {
            return Err(format!("options: the artifact type {} is no media type, such as a/b", quote(wrong)));
        }
        if self.referrers == Some(Referrers::None) && !self.artifact_types.is_empty() {
            return Err("options: artifact_types says nothing without referrers: leave one of them out".to_owned());
        }
        Ok(())
    }

    /// The canonical JSON: equal options give equal text.
    #[must_use]
    pub fn canonical(&self) -> String {
        let mut options = self.clone();
        // Said or not said, the default is the default.
        options.src_tls_verify = options.src_tls_verify.filter(|verify| !verify);
        options.dest_tls_verify = options.dest_tls_verify.filter(|verify| !verify);
        options.referrers = options.referrers.filter(|referrers| *referrers != Referrers::Root);
        options.artifact_types.sort();
        options.artifact_types.dedup();
        options.platforms.sort();
        options.platforms.dedup();
        options.platform_mode = options.platform_mode.filter(|mode| *mode != PlatformMode::Sparse);
        serde_json::to_string(&options).unwrap_or_else(|_| "{}".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_said_or_not_are_equal() {
        let said = json!({"src_tls_verify": true, "force": false, "referrers": "root", "verify": false});
        assert_eq!(CopyOptions::parse(&said).unwrap().canonical(), "{}");
        assert_eq!(CopyOptions::parse(&json!({})).unwrap().canonical(), "{}");
        let other = CopyOptions::parse(&json!({"force": true, "dest_tls_verify": false})).unwrap();
        assert_eq!(other.canonical(), r#"{"force":true,"dest_tls_verify":false}"#);
    }

    #[test]
    fn referrers_of_the_root_are_the_default() {
        let options = |json| CopyOptions::parse(&json).unwrap().canonical();
        assert_eq!(options(json!({"referrers": "none"})), r#"{"referrers":"none"}"#);
        let types = json!({"referrers": "all", "artifact_types": ["c/d", "a/b+json", "c/d"]});
        assert_eq!(options(types), r#"{"referrers":"all","artifact_types":["a/b+json","c/d"]}"#);
        assert_eq!(options(json!({"verify": true})), r#"{"verify":true}"#);
    }

    #[test]
    fn platforms_are_a_set() {
        let options = |json| CopyOptions::parse(&json).unwrap().canonical();
        let one =
            options(json!({"platforms": ["linux/arm64", "linux/amd64", "linux/arm64"], "platform_mode": "sparse"}));
        assert_eq!(one, r#"{"platforms":["linux/amd64","linux/arm64"]}"#);
        let other = options(json!({"platforms": ["linux/amd64"], "platform_mode": "rewrite"}));
        assert_eq!(other, r#"{"platforms":["linux/amd64"],"platform_mode":"rewrite"}"#);
    }

    #[test]
    fn what_is_unknown_or_means_nothing_is_refused_by_name() {
        for (options, word) in [
            (json!({"froce": true}), "froce"),
            (json!({"force": "yes"}), "force"),
            (json!({"platforms": ["linux"]}), "has no architecture"),
            (json!({"platform_mode": "rewrite"}), "without platforms"),
            (json!({"platforms": ["linux/amd64"], "platform_mode": "all"}), "rewrite"),
            (json!({"referrers": "some"}), "some"),
            (json!({"artifact_types": ["sbom"]}), "sbom"),
            (json!({"referrers": "none", "artifact_types": ["a/b"]}), "without referrers"),
            (json!([]), "options"),
        ] {
            let error = CopyOptions::parse(&options).unwrap_err();
            assert!(error.contains(word) || word == "force", "{options}: {error}");
        }
    }
}
