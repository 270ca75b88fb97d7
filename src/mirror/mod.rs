//! Rules of what belongs together: which repositories and tags, under which names, how. A batch is what its rules select.
//!
//! The rules are data: a command, a mirror of the configuration or a file of an older program becomes [`Rules`], which stand as
//! JSON in the row of the batch, so that whoever lists it, whenever, lists by the same rules. What they select is decided by
//! pure functions that say for each repository and tag which clause kept or dropped it ([`select`]); asking registries is
//! [`listing`]'s, and making jobs of it the worker's.

pub mod copies;
pub mod listing;
mod pattern;
pub mod select;
mod template;
mod tree;
mod version;

pub use pattern::Pattern;
pub use template::{Parts, Template};
pub use tree::{TreeOptions, place, tree};
pub use version::{Range, version};

use crate::job::CopyOptions;
use crate::oci::Repository;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most rules of a batch.
pub const RULES_LIMIT: usize = 10_000;

/// What belongs to a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// In the order in which they are listed.
    pub rules: Vec<Rule>,
}

/// Some repositories of one registry, some of their tags, and where they go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// For people.
    pub name: String,
    /// The host that repositories are taken from.
    pub registry: String,
    /// Only what is below it, and what it is itself; empty: all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// Which of them.
    #[serde(default, skip_serializing_if = "Repositories::is_all")]
    pub repositories: Repositories,
    /// Which of their tags.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tags: Tags,
    /// Pass over tags that the destination has, whatever they name there.
    #[serde(default, skip_serializing_if = "is_default")]
    pub skip_existing: bool,
    /// What copies are called: one for each of these.
    pub destinations: Vec<Destination>,
    /// How copies are made.
    #[serde(default, skip_serializing_if = "is_default")]
    pub options: CopyOptions,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Which repositories. Both lists are of names below the prefix of the rule or whole names, or of patterns of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repositories {
    /// One of these; none: all. When all of them are names, the registry is not asked for a list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<Pattern>,
    /// And none of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<Pattern>,
}

impl Repositories {
    fn is_all(&self) -> bool {
        *self == Self::default()
    }
}

/// Which tags of a repository. The clauses are applied in the order of these fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tags {
    /// Exactly these, which are not looked up before; none: those that the registry lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// One of these; none: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<Pattern>,
    /// Versions in this range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub semver: Option<Range>,
    /// Pre-releases too.
    #[serde(default, skip_serializing_if = "is_default")]
    pub prereleases: bool,
    /// What stands before the version; None: `v`, `release-` and the like, or nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_prefix: Option<String>,
    /// None of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<Pattern>,
    /// Images that were made less than so many seconds ago, as their configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub younger_than_secs: Option<u64>,
    /// The newest so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<u32>,
    /// What is newer.
    #[serde(default, skip_serializing_if = "is_default")]
    pub newest_by: Order,
    /// The first so many of what is left, in the order of the list; of versions, the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// What is newer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// The higher version; what is no version is left out.
    #[default]
    Semver,
    /// What comes later in the alphabet, numbers by their value.
    Name,
    /// What was made later, as the configurations of the images say.
    Created,
    /// What the registry lists first.
    Listed,
}

impl Tags {
    /// It matters when the images were made.
    #[must_use]
    pub const fn needs_creation(&self) -> bool {
        self.younger_than_secs.is_some() || self.newest.is_some() && matches!(self.newest_by, Order::Created)
    }
}

/// What a copy is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Destination {
    /// `host/name`.
    pub repository: Template,
    /// The tag.
    pub tag: Template,
}

impl TryFrom<String> for Destination {
    type Error = String;

    /// `host/name`, with `:tag` behind it when that is not `{tag}`.
    fn try_from(text: String) -> Result<Self, String> {
        let path = text.rfind('/').map_or(0, |at| at + 1);
        let (repository, tag) = match text[path..].rfind(':') {
            Some(at) if path > 0 => (&text[..path + at], &text[path + at + 1..]),
            _ => (text.as_str(), "{tag}"),
        };
        Ok(Self { repository: repository.parse()?, tag: tag.parse()? })
    }
}

impl From<Destination> for String {
    fn from(destination: Destination) -> Self {
        format!("{}:{}", destination.repository, destination.tag)
    }
}

impl Rule {
    /// The name without the prefix of the rule and the slash behind it; None when it is not below the prefix.
    #[must_use]
    pub fn below<'a>(&self, name: &'a str) -> Option<&'a str> {
        if self.prefix.is_empty() {
            return Some(name);
        }
        let rest = name.strip_prefix(self.prefix.as_str())?;
        if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
    }

    /// The names of the repositories, when they can be told without a list: those that are written without wildcards.
    #[must_use]
    pub fn named(&self) -> Option<Vec<String>> {
        let include = &self.repositories.include;
        (!include.is_empty() && include.iter().all(Pattern::is_plain)).then(|| {
            let full = |name: &Pattern| match self.prefix.as_str() {
                "" => name.as_str().to_owned(),
                // A whole name.
                _ if self.below(name.as_str()).is_some() => name.as_str().to_owned(),
                prefix => format!("{prefix}/{name}"),
            };
            include.iter().map(full).collect()
        })
    }

    /// The destination repositories of a repository of the source, one for each destination of the rule.
    ///
    /// # Errors
    /// A template does not fit, or what it makes is no repository.
    pub fn targets(&self, name: &str, captures: &[String]) -> Result<Vec<Repository>, String> {
        let rest = self.below(name).unwrap_or(name);
        let parts = Parts { registry: &self.registry, repository: name, rest, tag: "", captures };
        let target = |destination: &Destination| {
            let text = destination.repository.render(&parts)?;
            Repository::parse(&text).map_err(|error| format!("{}/{name} would go to `{text}`: {error}", self.registry))
        };
        self.destinations.iter().map(target).collect()
    }

    /// The references of the copies of a tag, one for each destination: their texts.
    ///
    /// # Errors
    /// As for [`targets`](Self::targets).
    pub fn references(&self, name: &str, captures: &[String], tag: &str) -> Result<Vec<String>, String> {
        let rest = self.below(name).unwrap_or(name);
        let parts = Parts { registry: &self.registry, repository: name, rest, tag, captures };
        let reference = |destination: &Destination| {
            Ok(format!("{}:{}", destination.repository.render(&parts)?, destination.tag.render(&parts)?))
        };
        self.destinations.iter().map(reference).collect()
    }

    /// What is wrong with the rule as far as that can be known without asking anybody; empty when nothing is.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.destinations.is_empty() {
            problems.push("it has no destination".to_owned());
        }
        let named = self.named();
        for destination in &self.destinations {
            let many = named.as_ref().is_none_or(|names| names.len() > 1);
            if many && !destination.repository.tells_repositories_apart() && !destination.tag.tells_repositories_apart()
            {
                problems.push(format!(
                    "destination `{}` is the same for every repository: put a part of the source into it, such as \
                     {{repository}}, {{rest}} or {{name}}",
                    destination.repository
                ));
            }
            let one_tag = self.tags.names.len() == 1 || self.tags.newest == Some(1) || self.tags.limit == Some(1);
            if !destination.tag.tells_tags_apart() && !one_tag {
                problems.push(format!(
                    "destination tag `{}` is the same for every tag: put {{tag}} into it, or keep only the newest 1",
                    destination.tag
                ));
            }
            if (destination.repository.needs_captures() || destination.tag.needs_captures())
                && self.repositories.include.is_empty()
            {
                problems.push(format!(
                    "destination `{}` asks for what wildcards stand for, but no pattern chooses repositories",
                    destination.repository
                ));
            }
        }
        if let Some(names) = named {
            problems.extend(self.clashes(&names));
        }
        problems.extend(self.options.check().err());
        problems
    }

    /// Repositories that would go to the same destination.
    #[must_use]
    pub fn clashes(&self, names: &[String]) -> Vec<String> {
        let mut problems = Vec::new();
        let mut taken: BTreeMap<(usize, String), &str> = BTreeMap::new();
        for name in names {
            let captures = self.captures(name);
            match self.targets(name, &captures) {
                Err(problem) => problems.push(problem),
                Ok(targets) => {
                    for (place, target) in targets.into_iter().enumerate() {
                        if self.destinations[place].tag.tells_repositories_apart() {
                            continue;
                        }
                        let other = taken.insert((place, target.to_string()), name);
                        if let Some(other) = other.filter(|other| other != name) {
                            problems.push(format!("{other} and {name} would both go to {target}"));
                        }
                    }
                }
            }
        }
        problems
    }

    /// What the wildcards stand for of the first pattern that chooses the repository.
    #[must_use]
    pub fn captures(&self, name: &str) -> Vec<String> {
        let below = self.below(name).unwrap_or(name);
        let include = &self.repositories.include;
        include
            .iter()
            .find_map(|pattern| pattern.captures(below).or_else(|| pattern.captures(name)))
            .unwrap_or_default()
    }
}

impl Rules {
    /// Source and destination, for people.
    #[must_use]
    pub fn ends(&self) -> (String, String) {
        let text = |of: fn(&Rule) -> Vec<String>| {
            let mut all: Vec<String> = self.rules.iter().flat_map(of).collect();
            all.dedup();
            all.join(", ")
        };
        let source = |rule: &Rule| {
            vec![[rule.registry.as_str(), rule.prefix.as_str()].join("/").trim_end_matches('/').to_owned()]
        };
        let destination = |rule: &Rule| rule.destinations.iter().cloned().map(String::from).collect();
        (text(source), text(destination))
    }

    /// Reads what stands in a row.
    ///
    /// # Errors
    /// It is no set of rules that this program knows.
    pub fn from_json(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| format!("the rules of the batch cannot be read: {error}"))
    }

    /// As it stands in a row.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(include: &[&str], destination: &str) -> Rule {
        Rule {
            name: "test".to_owned(),
            registry: "quay.io".to_owned(),
            prefix: "org".to_owned(),
            repositories: Repositories {
                include: include.iter().map(|text| text.parse().unwrap()).collect(),
                exclude: Vec::new(),
            },
            tags: Tags::default(),
            skip_existing: false,
            destinations: vec![destination.to_owned().try_into().unwrap()],
            options: CopyOptions::default(),
        }
    }

    #[test]
    fn destinations_are_read_with_and_without_tag() {
        let read = |text: &str| {
            let destination = Destination::try_from(text.to_owned()).unwrap();
            (destination.repository.to_string(), destination.tag.to_string())
        };
        assert_eq!(read("h:5000/x"), ("h:5000/x".to_owned(), "{tag}".to_owned()));
        assert_eq!(read("h:5000/{name}:{tag}-x"), ("h:5000/{name}".to_owned(), "{tag}-x".to_owned()));
    }

    #[test]
    fn names_are_told_without_a_list_when_none_is_a_pattern() {
        assert_eq!(rule(&["a", "b/c"], "h/{rest}").named(), Some(vec!["org/a".to_owned(), "org/b/c".to_owned()]));
        assert_eq!(rule(&["a", "b/*"], "h/{rest}").named(), None);
        assert_eq!(rule(&[], "h/{rest}").named(), None);
        let rule = rule(&[], "h/{rest}");
        assert_eq!(rule.below("org/a"), Some("a"));
        assert_eq!(rule.below("org"), Some(""));
        assert_eq!(rule.below("organ/a"), None);
    }

    #[test]
    fn what_would_overwrite_itself_is_refused_by_name() {
        let problems = rule(&["a/x", "b/x"], "h/{name}").problems();
        assert_eq!(
            problems,
            ["org/a/x and org/b/x would both go to h/x"].map(|text| text.replace("h/x", "docker.io/h/x"))
        );
        assert!(rule(&[], "h.io/all").problems()[0].contains("the same for every repository"));
        assert!(rule(&["a"], "h.io/all:latest").problems()[0].contains("the same for every tag"));
        assert!(rule(&[], "h.io/{1}").problems()[0].contains("no pattern chooses"));
        assert_eq!(rule(&["a"], "h.io/all").problems(), Vec::<String>::new());
        assert_eq!(rule(&["a-*"], "h.io/all-{1}").problems(), Vec::<String>::new());
        assert!(rule(&["a"], "h.io/UPPER").problems()[0].contains("h.io/UPPER"));
    }

    #[test]
    fn rules_stand_in_rows() {
        let mut rule = rule(&["a*"], "h/{rest}");
        rule.tags.semver = Some("^1".parse().unwrap());
        rule.tags.newest = Some(3);
        let rules = Rules { rules: vec![rule] };
        assert_eq!(Rules::from_json(&rules.to_json()).unwrap(), rules);
        assert!(Rules::from_json(r#"{"rules":[{"name":"x"}]}"#).unwrap_err().contains("cannot be read"));
    }
}
