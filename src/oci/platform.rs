//! `os/arch[/variant]`: what an image in an index was built for.
//!
//! Kept as the strings that were written rather than as enums, because registries hold platforms that nobody has listed,
//! and a copy must not lose them. Nothing here is rewritten: `aarch64` stays `aarch64`, and only [`Platform::matches`] knows that
//! it means `arm64`.

use super::quote;
use serde::Deserialize;
use std::fmt;
use std::str::FromStr;

/// What stands for an operating system or architecture that a document leaves out.
const UNKNOWN: &str = "unknown";

/// A platform as in an index entry. Display and FromStr use `os/arch[/variant]`; in JSON it is the `platform` object of
/// the image spec (image-index.md).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "WirePlatform")]
pub struct Platform {
    /// Operating system, for example `linux`.
    pub os: String,
    /// Architecture, for example `amd64`.
    pub architecture: String,
    /// Variant of the architecture, for example `v8`.
    pub variant: Option<String>,
    /// Version of the operating system (`os.version`; Windows images). Not part of the text form.
    pub os_version: Option<String>,
}

/// The JSON object, where everything may be missing or null.
#[derive(Deserialize)]
struct WirePlatform {
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
    #[serde(rename = "os.version")]
    os_version: Option<String>,
}

impl From<WirePlatform> for Platform {
    fn from(wire: WirePlatform) -> Self {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        Self {
            os: given(wire.os).unwrap_or_else(|| UNKNOWN.to_owned()),
            architecture: given(wire.architecture).unwrap_or_else(|| UNKNOWN.to_owned()),
            variant: given(wire.variant),
            os_version: given(wire.os_version),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl Platform {
    /// An image for `offered` is what this asks for. Usual other names of architectures count as the same, a variant that is
    /// left out here stands for all, and one that is left out there for the one that is meant then (`arm64` is `arm64/v8`).
    /// Versions of the operating system do not count.
    #[must_use]
    pub fn matches(&self, offered: &Self) -> bool {
        let ((architecture, variant), (theirs, said)) = (self.usual(), offered.usual());
        let their_variant = said.or_else(|| default_variant(theirs));
        self.os.eq_ignore_ascii_case(&offered.os)
            && architecture.eq_ignore_ascii_case(theirs)
            && variant.is_none_or(|variant| their_variant.is_some_and(|other| other.eq_ignore_ascii_case(variant)))
    }

    /// The usual name of the architecture, and the variant that is said, or that its name means.
    fn usual(&self) -> (&str, Option<&str>) {
        let (architecture, variant) = match self.architecture.to_ascii_lowercase().as_str() {
            "x86_64" | "x86-64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "i386" | "i686" => ("386", None),
            "armhf" => ("arm", Some("v7")),
            "armel" => ("arm", Some("v6")),
            _ => (self.architecture.as_str(), None),
        };
        (architecture, self.variant.as_deref().or(variant))
    }
}

/// The variant that is meant when none is said.
fn default_variant(architecture: &str) -> Option<&'static str> {
    match architecture {
        "amd64" => Some("v1"),
        "arm" => Some("v7"),
        "arm64" => Some("v8"),
        _ => None,
    }
}

/// Why a text is not a platform. One line, quotes the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("platform {text} {why}; write OS/ARCH or OS/ARCH/VARIANT, for example linux/amd64 or linux/arm/v7")]
pub struct PlatformError {
    text: String,
    why: &'static str,
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |why| PlatformError { text: quote(text), why };
        let parts: Vec<&str> = text.split('/').collect();
        let valid = |part: &&str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if parts.iter().any(|part| part.is_empty()) {
            return Err(wrong("has an empty part"));
        }
        if !parts.iter().all(valid) {
            return Err(wrong("has a character that is not a letter, a digit, '.', '_' or '-'"));
        }
        let (os, architecture, variant) = match parts.as_slice() {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some((*variant).to_owned())),
            [_] => return Err(wrong("has no architecture")),
            _ => return Err(wrong("has too many parts")),
        };
        Ok(Self { os: (*os).to_owned(), architecture: (*architecture).to_owned(), variant, os_version: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_form() {
        let platform: Platform = "linux/arm/v7".parse().unwrap();
        assert_eq!((platform.os.as_str(), platform.architecture.as_str()), ("linux", "arm"));
        assert_eq!(platform.variant.as_deref(), Some("v7"));
        assert_eq!("linux/amd64".parse::<Platform>().unwrap().to_string(), "linux/amd64");
        for (text, why) in [
            ("", "empty part"),
            ("linux", "no architecture"),
            ("linux/", "empty part"),
            ("a/b/c/d", "too many"),
            ("linux/amd 64", "a character"),
        ] {
            let message = text.parse::<Platform>().unwrap_err().to_string();
            assert!(message.contains(why) && message.contains(&format!("'{text}'")), "{message}");
        }
    }

    #[test]
    fn json_form_is_lenient() {
        let text =
            r#"{"os":"windows","architecture":"amd64","os.version":"10.0.1","os.features":["x"],"variant":null}"#;
        let platform: Platform = serde_json::from_str(text).unwrap();
        assert_eq!(platform.os_version.as_deref(), Some("10.0.1"));
        assert_eq!(platform.variant, None);
        assert_eq!(platform.to_string(), "windows/amd64");
        let empty: Platform = serde_json::from_str("{}").unwrap();
        assert_eq!(empty.to_string(), "unknown/unknown");
    }

    proptest! {
        #[test]
        fn parsing_is_total_and_round_trips(text in "[a-z0-9/._-]{0,20}|.{0,20}") {
            if let Ok(platform) = text.parse::<Platform>() {
                prop_assert_eq!(platform.to_string(), text);
            }
        }
    }
}
