//! Tags as versions, and ranges of versions.
//!
//! The order is that of Semantic Versioning 2.0. Tags are read leniently: one to three numbers, a prefix such as `v`, anything
//! after a hyphen is a pre-release. Ranges are those that people know from package managers: `>=1.2 <3`, `~1.4`, `^2`,
//! `1.x`, `1.2 - 1.4`, `!=1.3.1`, alternatives with `||`.

use semver::{Prerelease, Version};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Prefixes of versions in tags, the longest first.
const PREFIXES: [&str; 5] = ["release-", "version-", "ver-", "v", "V"];
/// Longest range, bytes.
const TEXT_LIMIT: usize = 512;

/// The version that a tag names; `prefix` is what stands before it, None: one of the usual ones or nothing.
#[must_use]
pub fn version(tag: &str, prefix: Option<&str>) -> Option<Version> {
    let text = match prefix {
        Some(prefix) => tag.strip_prefix(prefix)?,
        None => PREFIXES.iter().find_map(|prefix| tag.strip_prefix(prefix)).unwrap_or(tag),
    };
    let Partial { numbers, pre, wild: false } = partial(text)? else { return None };
    Some(numbers.version(pre))
}

/// One to three numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Numbers {
    major: u64,
    minor: Option<u64>,
    patch: Option<u64>,
}

impl Numbers {
    fn version(self, pre: Prerelease) -> Version {
        let mut version = Version::new(self.major, self.minor.unwrap_or(0), self.patch.unwrap_or(0));
        version.pre = pre;
        version
    }

    /// The first version behind all that begin like this.
    fn next(self) -> Version {
        match (self.minor, self.patch) {
            (Some(minor), Some(patch)) => Version::new(self.major, minor, patch.saturating_add(1)),
            (Some(minor), None) => Version::new(self.major, minor.saturating_add(1), 0),
            (None, _) => Version::new(self.major.saturating_add(1), 0, 0),
        }
    }

    const fn is_whole(self) -> bool {
        self.minor.is_some() && self.patch.is_some()
    }
}

struct Partial {
    numbers: Numbers,
    pre: Prerelease,
    /// `*` or `x` in the place of a number.
    wild: bool,
}

fn partial(text: &str) -> Option<Partial> {
    let text = text.split_once('+').map_or(text, |(before, _)| before);
    let (numbers, pre) = match text.split_once('-') {
        Some((numbers, pre)) => (numbers, Prerelease::new(pre).ok().filter(|pre| !pre.is_empty())?),
        None => (text, Prerelease::EMPTY),
    };
    let mut found = [None; 3];
    let mut wild = false;
    let mut count = 0;
    for (place, number) in numbers.split('.').enumerate() {
        count = place + 1;
        match number {
            "x" | "X" | "*" => wild = true,
            _ if wild || place > 2 || number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) => {
                return None;
            }
            number => found[place] = Some(number.parse().ok()?),
        }
    }
    (count <= 3).then_some(())?;
    let numbers = Numbers { major: found[0].or_else(|| wild.then_some(0))?, minor: found[1], patch: found[2] };
    Some(Partial { numbers, pre, wild: wild || found[0].is_none() })
}

/// A range of versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    text: String,
    alternatives: Vec<Vec<Comparator>>,
}

/// From here to there; `not`: outside of that.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Comparator {
    /// The least version.
    from: Option<Version>,
    /// The first version behind it, and whether it is in it all the same.
    to: Option<(Version, bool)>,
    /// The least version is not in it.
    above: bool,
    not: bool,
    /// It names a pre-release.
    pre: bool,
}

impl Range {
    /// The version is in it. Pre-releases are only when the range names one, or `prereleases` says so.
    #[must_use]
    pub fn matches(&self, version: &Version, prereleases: bool) -> bool {
        self.alternatives.iter().any(|all| {
            let allowed = version.pre.is_empty() || prereleases || all.iter().any(|comparator| comparator.pre);
            allowed && all.iter().all(|comparator| comparator.matches(version))
        })
    }
}

impl Comparator {
    const ANY: Self = Self { from: None, to: None, above: false, not: false, pre: false };

    fn matches(&self, version: &Version) -> bool {
        let low = self.from.as_ref().is_none_or(|from| if self.above { version > from } else { version >= from });
        let high = self.to.as_ref().is_none_or(|(to, inclusive)| {
            // Pre-releases of the first version behind a range are behind it too.
            let behind = !inclusive
                && to.pre.is_empty()
                && (version.major, version.minor, version.patch) == (to.major, to.minor, to.patch);
            version < to && !behind || *inclusive && version == to
        });
        (low && high) != self.not
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > TEXT_LIMIT {
            return Err(format!("a range of versions has at most {TEXT_LIMIT} bytes"));
        }
        let wrong = |what: &str| {
            format!("`{text}` is no range of versions: {what}; write for example >=1.2 <3, ~1.4, ^2 or 1.x")
        };
        let mut alternatives = Vec::new();
        for alternative in text.split("||") {
            alternatives.push(all_of(alternative).map_err(|what| wrong(&what))?);
        }
        Ok(Self { text: text.to_owned(), alternatives })
    }
}

/// Comparators that stand beside each other.
fn all_of(text: &str) -> Result<Vec<Comparator>, String> {
    let words: Vec<&str> = text.split([' ', '\t', ',']).filter(|word| !word.is_empty()).collect();
    let mut comparators = Vec::new();
    let mut at = 0;
    if words.is_empty() {
        return Err("it is empty".to_owned());
    }
    while at < words.len() {
        if words.get(at + 1) == Some(&"-") {
            let to = words.get(at + 2).ok_or("there is nothing behind the hyphen")?;
            comparators.push(comparator(">=", words[at])?);
            comparators.push(comparator("<=", to)?);
            at += 3;
            continue;
        }
        let word = words[at];
        let split = word.find(|character: char| !"=!<>~^".contains(character)).unwrap_or(word.len());
        let (operator, version) = word.split_at(split);
        at += 1;
        let version = if version.is_empty() {
            at += 1;
            words.get(at - 1).ok_or_else(|| format!("there is nothing behind {operator}"))?
        } else {
            version
        };
        comparators.push(comparator(operator, version)?);
    }
    Ok(comparators)
}

fn comparator(operator: &str, version: &str) -> Result<Comparator, String> {
    let text = version.strip_prefix(['v', 'V']).unwrap_or(version);
    let Partial { numbers, pre, wild } = partial(text).ok_or_else(|| format!("`{version}` is no version"))?;
    if wild && text.starts_with(['*', 'x', 'X']) {
        return match operator {
            "" | "=" | ">=" | "=>" | "<=" | "=<" | "~" | "^" => Ok(Comparator::ANY),
            _ => Err(format!("`{operator}{version}` means nothing")),
        };
    }
    let is_pre = !pre.is_empty();
    let (from, next, whole) = (numbers.version(pre), numbers.next(), numbers.is_whole());
    let base = Comparator { pre: is_pre, ..Comparator::ANY };
    let below = |to: Version| Some((to, false));
    let same = if whole { Some((from.clone(), true)) } else { below(next.clone()) };
    Ok(match operator {
        "" | "=" => Comparator { from: Some(from), to: same, ..base },
        "!=" => Comparator { from: Some(from), to: same, not: true, ..base },
        ">" if whole => Comparator { from: Some(from), above: true, ..base },
        ">" => Comparator { from: Some(next), ..base },
        ">=" | "=>" => Comparator { from: Some(from), ..base },
        "<" => Comparator { to: below(from), ..base },
        "<=" | "=<" => Comparator { to: same, ..base },
        "~" | "~>" => {
            let end = Numbers { patch: None, ..numbers }.next();
            Comparator { from: Some(from), to: below(end), ..base }
        }
        "^" => {
            let end = match (numbers.major, numbers.minor, numbers.patch) {
                (0, Some(0), Some(_)) => next,
                (0, Some(_), _) => Numbers { patch: None, ..numbers }.next(),
                _ => Numbers { minor: None, patch: None, ..numbers }.next(),
            };
            Comparator { from: Some(from), to: below(end), ..base }
        }
        _ => return Err(format!("`{operator}` is no operator")),
    })
}

impl fmt::Display for Range {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl Serialize for Range {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Range {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_in(range: &str, tag: &str, prereleases: bool) -> bool {
        range.parse::<Range>().unwrap().matches(&version(tag, None).unwrap(), prereleases)
    }

    #[test]
    fn tags_are_read_leniently() {
        for (tag, wanted) in [
            ("1.2.3", Some("1.2.3")),
            ("v1.2", Some("1.2.0")),
            ("V7", Some("7.0.0")),
            ("release-1.2.3-rc.1", Some("1.2.3-rc.1")),
            ("version-2.0", Some("2.0.0")),
            ("ver-2", Some("2.0.0")),
            ("2024.01.05", Some("2024.1.5")),
            ("1.2.3-alpine", Some("1.2.3-alpine")),
            ("latest", None),
            ("1.2.3.4", None),
            ("1..2", None),
            ("", None),
            ("v", None),
            ("1.2.3-", None),
            ("1.x", None),
            ("99999999999999999999", None),
            ("app-1.2", None),
        ] {
            assert_eq!(version(tag, None).map(|version| version.to_string()).as_deref(), wanted, "{tag}");
        }
        assert_eq!(version("app-1.2", Some("app-")), Some(Version::new(1, 2, 0)));
        assert_eq!(version("v1.2", Some("app-")), None);
    }

    #[test]
    fn ranges_mean_what_package_managers_mean() {
        for (range, yes, no) in [
            (">=1.2 <3", "2.9.9", "3.0.0"),
            (">=1.2,<3", "1.2.0", "1.1.9"),
            (">= 1.2, < 3", "1.2.0", "3.0"),
            ("~1.4", "1.4.9", "1.5.0"),
            ("~1.4.2", "1.4.2", "1.4.1"),
            ("~1", "1.9", "2"),
            ("^2", "2.9", "3"),
            ("^0.2.3", "0.2.9", "0.3.0"),
            ("^0.0.3", "0.0.3", "0.0.4"),
            ("^0", "0.9", "1.0"),
            ("^1.2.3", "1.9.0", "1.2.2"),
            ("1.x", "1.7.1", "2.0"),
            ("1.2.*", "1.2.9", "1.3"),
            ("1.2", "1.2.9", "1.3.0"),
            ("=1.2.3", "1.2.3", "1.2.4"),
            ("!=1.3.1 ^1", "1.3.2", "1.3.1"),
            ("!=1.3 ^1", "1.4", "1.3.7"),
            (">1.2", "1.3.0", "1.2.9"),
            (">1.2.3", "1.2.4", "1.2.3"),
            ("<=1.2", "1.2.9", "1.3.0"),
            ("<=1.2.3", "1.2.3", "1.2.4"),
            ("1.2 - 1.4", "1.4.9", "1.5"),
            ("1.2 - 1.4.1", "1.4.1", "1.4.2"),
            ("^1 || ^3", "3.1", "2.0"),
            ("v1 || V2", "2.5", "3"),
        ] {
            assert!(is_in(range, yes, false), "{range} {yes}");
            assert!(!is_in(range, no, false), "{range} {no}");
        }
        for range in ["*", "x", ">=*"] {
            assert!(is_in(range, "0.0.1", false), "{range}");
        }
    }

    #[test]
    fn prereleases_are_there_only_when_asked_for() {
        assert!(!is_in("^1", "1.3.0-rc1", false) && is_in("^1", "1.3.0-rc1", true));
        assert!(!is_in("*", "1.3.0-rc1", false) && is_in("*", "1.3.0-rc1", true));
        assert!(is_in(">=1.3.0-rc1 <2", "1.3.0-rc2", false) && !is_in(">=1.3.0-rc2 <2", "1.3.0-rc1", false));
        assert!(!is_in("<2", "2.0.0-rc1", true) && !is_in("^1", "2.0.0-rc1", true));
        assert!(is_in("<2.0.0-rc2", "2.0.0-rc1", false));
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        for range in ["", "||", "^1 ||", "latest", ">", ">=", "1.2 -", ">*", "~~1", "1.2.3.4", "=>=1"] {
            let error = range.parse::<Range>().unwrap_err();
            assert!(error.contains("write for example"), "{range}: {error}");
        }
        assert!("1".repeat(600).parse::<Range>().is_err());
    }
}
