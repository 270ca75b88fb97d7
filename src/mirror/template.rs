//! What a copy is called at its destination.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// A reference with parts of the source in braces: `registry.example.com/mirror/{repository}`.
///
/// | part | of `quay.io/org/team/app:v1` below `org` |
/// |---|---|
/// | `{registry}` | `quay.io` |
/// | `{repository}` | `org/team/app` |
/// | `{namespace}` | `org/team` |
/// | `{name}` | `app` |
/// | `{rest}` | `team/app`: below the prefix of the source |
/// | `{tag}` | `v1` |
/// | `{1}` to `{9}` | what a wildcard or group of the pattern stands for that chose the repository |
///
/// An empty part takes the slash before or behind it with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Part(Part),
}

/// A part of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Registry,
    Repository,
    Namespace,
    Name,
    Rest,
    Tag,
    Capture(usize),
}

/// What the parts stand for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Parts<'a> {
    /// The host.
    pub registry: &'a str,
    /// The name on the registry.
    pub repository: &'a str,
    /// The name below the prefix of the source.
    pub rest: &'a str,
    /// The tag.
    pub tag: &'a str,
    /// What wildcards stand for.
    pub captures: &'a [String],
}

impl Template {
    /// It is another one for each repository, as far as that can be known without them.
    #[must_use]
    pub fn tells_repositories_apart(&self) -> bool {
        self.has(|part| matches!(part, Part::Repository | Part::Namespace | Part::Name | Part::Rest | Part::Capture(_)))
    }

    /// It is another one for each tag.
    #[must_use]
    pub fn tells_tags_apart(&self) -> bool {
        self.has(|part| part == Part::Tag)
    }

    /// It needs what the wildcards of a pattern stand for.
    #[must_use]
    pub fn needs_captures(&self) -> bool {
        self.has(|part| matches!(part, Part::Capture(_)))
    }

    fn has(&self, is_it: impl Fn(Part) -> bool) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Part(part) if is_it(*part)))
    }

    /// The text with the parts in it.
    ///
    /// # Errors
    /// A wildcard is asked for that the pattern does not have.
    pub fn render(&self, parts: &Parts<'_>) -> Result<String, String> {
        let mut text = String::new();
        for piece in &self.pieces {
            let part = match piece {
                Piece::Text(plain) => {
                    text.push_str(if text.ends_with('/') { plain.trim_start_matches('/') } else { plain });
                    continue;
                }
                Piece::Part(Part::Registry) => parts.registry,
                Piece::Part(Part::Repository) => parts.repository,
                Piece::Part(Part::Namespace) => parts.repository.rsplit_once('/').map_or("", |(space, _)| space),
                Piece::Part(Part::Name) => parts.repository.rsplit('/').next().unwrap_or_default(),
                Piece::Part(Part::Rest) => parts.rest,
                Piece::Part(Part::Tag) => parts.tag,
                Piece::Part(Part::Capture(number)) => match parts.captures.get(number - 1) {
                    Some(capture) => capture,
                    None => {
                        return Err(format!(
                            "{self}: there is no {{{number}}}: the pattern that chose {} has {} wildcards or groups",
                            parts.repository,
                            parts.captures.len()
                        ));
                    }
                },
            };
            text.push_str(part);
        }
        let end = text.trim_end_matches('/').len();
        text.truncate(end);
        Ok(text)
    }
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a template is empty".to_owned());
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}', '$']) {
            let (plain, behind) = rest.split_at(at);
            if !plain.is_empty() {
                pieces.push(Piece::Text(plain.to_owned()));
            }
            let (name, after) = if let Some(behind) = behind.strip_prefix('{') {
                behind.split_once('}').ok_or_else(|| format!("`{text}`: a {{ is not closed"))?
            } else if let Some(behind) = behind.strip_prefix('$') {
                behind.split_at(behind.chars().next().map_or(0, char::len_utf8))
            } else {
                return Err(format!("`{text}`: a }} closes nothing"));
            };
            pieces.push(Piece::Part(part(text, name)?));
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self { text: text.to_owned(), pieces })
    }
}

fn part(text: &str, name: &str) -> Result<Part, String> {
    Ok(match name {
        "registry" => Part::Registry,
        "repository" => Part::Repository,
        "namespace" => Part::Namespace,
        "name" => Part::Name,
        "rest" => Part::Rest,
        "tag" => Part::Tag,
        _ => match name.parse() {
            Ok(number @ 1..=9) if name.len() == 1 => Part::Capture(number),
            _ => {
                return Err(format!(
                    "`{text}`: there is no part {{{name}}}: use {{registry}}, {{repository}}, {{namespace}}, {{name}}, \
                     {{rest}}, {{tag}} or {{1}} to {{9}}"
                ));
            }
        },
    })
}

impl fmt::Display for Template {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl Serialize for Template {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_the_source_are_put_in() {
        let captures = ["x".to_owned()];
        let parts =
            Parts { registry: "quay.io", repository: "org/team/app", rest: "team/app", tag: "v1", captures: &captures };
        for (text, wanted) in [
            ("h/m/{repository}:{tag}", "h/m/org/team/app:v1"),
            ("h/{namespace}-x/{name}", "h/org/team-x/app"),
            ("h/{rest}", "h/team/app"),
            ("h/{registry}/{1}/$1", "h/quay.io/x/x"),
            ("h/fixed", "h/fixed"),
        ] {
            assert_eq!(text.parse::<Template>().unwrap().render(&parts).unwrap(), wanted, "{text}");
        }
        let single = Parts { repository: "app", ..Parts::default() };
        for (text, wanted) in [("h/{namespace}/{name}", "h/app"), ("h/m/{rest}", "h/m"), ("h/{rest}/x", "h/x")] {
            assert_eq!(text.parse::<Template>().unwrap().render(&single).unwrap(), wanted, "{text}");
        }
        assert!("h/{2}".parse::<Template>().unwrap().render(&parts).unwrap_err().contains("has 1 wildcards"));
    }

    #[test]
    fn unknown_parts_are_refused() {
        for (text, word) in [
            ("", "empty"),
            ("h/{repo}", "{repo}"),
            ("h/{name", "not closed"),
            ("h/name}", "closes nothing"),
            ("h/{0}", "{0}"),
            ("h/{10}", "{10}"),
            ("$x", "{x}"),
        ] {
            assert!(text.parse::<Template>().unwrap_err().contains(word), "{text}");
        }
    }

    #[test]
    fn what_tells_apart_is_known() {
        let template = |text: &str| text.parse::<Template>().unwrap();
        assert!(template("h/{name}").tells_repositories_apart() && !template("h/x:{tag}").tells_repositories_apart());
        assert!(template("{tag}-x").tells_tags_apart() && !template("latest").tells_tags_apart());
        assert!(template("h/{1}").needs_captures());
    }
}
