//! What a row may ask for beside source and destination: the JSON object in `jobs.options`.

use crate::oci::Platform;
use serde::{Deserialize, Serialize};

/// Options of a copy. Absent fields have their defaults, so that `{}` is the plain copy; unknown fields are refused, because
/// an option that is silently ignored is a copy that was not asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyOptions {
    /// Go through everything again although the digests are equal.
    #[serde(default, skip_serializing_if = "is_false")]
    pub force: bool,
    /// Fail when the destination tag exists with another digest.
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_clobber: bool,
    /// Verify TLS at the source; default true. False also allows plain HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src_tls_verify: Option<bool>,
    /// Verify TLS at the destination; default true. False also allows plain HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dest_tls_verify: Option<bool>,
    /// Which referrers to copy: only `none` works so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referrers: Option<String>,
    /// Of an index, only the images for these platforms (`os/arch[/variant]`); none: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
    /// What becomes of an index of which only some platforms are copied; default sparse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform_mode: Option<PlatformMode>,
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

impl CopyOptions {
    /// Reads the JSON of a row or of a JSON Lines request.
    ///
    /// # Errors
    /// One line that says which option is wrong, or that it is not implemented.
    pub fn parse(json: &serde_json::Value) -> Result<Self, String> {
        if !json.is_object() {
            return Err("options must be a JSON object, for example {\"force\": true}".to_owned());
        }
        let options: Self = serde_json::from_value(json.clone()).map_err(|error| format!("options: {error}"))?;
        options.check()?;
        Ok(options)
    }

    /// Refuses what is not there yet.
    ///
    /// # Errors
    /// `not implemented: ...`, or which value is wrong.
    pub fn check(&self) -> Result<(), String> {
        for platform in &self.platforms {
            platform.parse::<Platform>().map_err(|error| format!("options: {error}"))?;
        }
        if self.platform_mode.is_some() && self.platforms.is_empty() {
            return Err("options: platform_mode says nothing without platforms: name some, or leave it out".to_owned());
        }
        match self.referrers.as_deref() {
            None | Some("none") => Ok(()),
            Some("root" | "all") => Err("not implemented: referrers; use \"none\" or leave it out".to_owned()),
            Some(other) => Err(format!("options: referrers is `{other}`: use none, root or all")),
        }
    }

    /// The canonical JSON: equal options give equal text.
    #[must_use]
    pub fn canonical(&self) -> String {
        let mut options = self.clone();
        // Said or not said, the default is the default.
        options.src_tls_verify = options.src_tls_verify.filter(|verify| !verify);
        options.dest_tls_verify = options.dest_tls_verify.filter(|verify| !verify);
        options.referrers = options.referrers.filter(|referrers| referrers != "none");
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
        let said = json!({"src_tls_verify": true, "force": false, "referrers": "none"});
        assert_eq!(CopyOptions::parse(&said).unwrap().canonical(), "{}");
        assert_eq!(CopyOptions::parse(&json!({})).unwrap().canonical(), "{}");
        let other = CopyOptions::parse(&json!({"force": true, "dest_tls_verify": false})).unwrap();
        assert_eq!(other.canonical(), r#"{"force":true,"dest_tls_verify":false}"#);
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
    fn what_is_unknown_or_not_there_yet_is_refused_by_name() {
        for (options, word) in [
            (json!({"froce": true}), "froce"),
            (json!({"force": "yes"}), "force"),
            (json!({"platforms": ["linux"]}), "has no architecture"),
            (json!({"platform_mode": "rewrite"}), "without platforms"),
            (json!({"platforms": ["linux/amd64"], "platform_mode": "all"}), "rewrite"),
            (json!({"referrers": "all"}), "not implemented: referrers"),
            (json!({"referrers": "some"}), "some"),
            (json!([]), "options"),
        ] {
            let error = CopyOptions::parse(&options).unwrap_err();
            assert!(error.contains(word) || word == "force", "{options}: {error}");
        }
    }
}
