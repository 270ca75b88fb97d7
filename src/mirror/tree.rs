//! Trees: the repositories below a prefix, which another one takes the place of.

use super::{Destination, Pattern, Repositories, Rule, Rules, Tags};
use crate::job::CopyOptions;
use crate::oci::Repository;
use serde::{Deserialize, Serialize};

/// What a tree takes and leaves out; the JSON of the options of a schedule of kind `tree`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TreeOptions {
    /// Only repositories that match; when all are names, the registry is not asked for a list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub include_repos: Vec<Pattern>,
    /// No repositories that match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude_repos: Vec<Pattern>,
    /// Only tags that match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub include_tags: Vec<Pattern>,
    /// No tags that match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude_tags: Vec<Pattern>,
    /// How copies are made.
    #[serde(skip_serializing_if = "super::is_default")]
    pub copy: CopyOptions,
}

/// The rules of a tree.
///
/// # Errors
/// Source or destination is no place that may hold many repositories.
pub fn tree(source: &str, destination: &str, options: TreeOptions) -> Result<Rules, String> {
    let (registry, prefix) = place(source).map_err(|error| format!("source {error}"))?;
    let (host, below) = place(destination).map_err(|error| format!("destination {error}"))?;
    let target = [host.as_str(), below.as_str(), "{rest}"];
    let target = target.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
    options.copy.check()?;
    let rule = Rule {
        name: "tree".to_owned(),
        registry,
        prefix,
        repositories: Repositories { include: options.include_repos, exclude: options.exclude_repos },
        tags: Tags { include: options.include_tags, exclude: options.exclude_tags, ..Tags::default() },
        skip_existing: false,
        destinations: vec![Destination::try_from(target)?],
        options: options.copy,
    };
    Ok(Rules { rules: vec![rule] })
}

/// The host and the prefix of a place that may hold many repositories: `HOST[:PORT][/PREFIX]`.
///
/// # Errors
/// It names no host, or what stands behind it can be no part of a repository's name.
pub fn place(text: &str) -> Result<(String, String), String> {
    const FORM: &str = "write HOST[:PORT]/PREFIX, or HOST[:PORT] for all of a registry";
    let trimmed = text.strip_prefix("docker://").unwrap_or(text).trim_end_matches('/');
    let (host, prefix) = trimmed.split_once('/').unwrap_or((trimmed, ""));
    if !(host == "localhost" || host.contains(['.', ':', '['])) {
        return Err(format!("`{text}` names no registry: {FORM}"));
    }
    if prefix.contains(['@', ':', '{', '}', '$']) {
        return Err(format!("`{text}`: a prefix has no tag and no digest: {FORM}"));
    }
    let probe = if prefix.is_empty() { format!("{host}/x") } else { format!("{host}/{prefix}") };
    let repository = Repository::parse(&probe).map_err(|error| format!("`{text}`: {error}"))?;
    // Docker Hub keeps what is written with one component somewhere else; a prefix is what was typed.
    Ok((repository.host().to_owned(), prefix.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_takes_the_place_of_another() {
        let target = |from: &str, to: &str, name: &str| {
            let rules = tree(from, to, TreeOptions::default()).unwrap();
            rules.rules[0].references(name, &[], "v1").unwrap().join(" ")
        };
        assert_eq!(target("quay.io/org", "h.example:5000/m/x/", "org/a/b"), "h.example:5000/m/x/a/b:v1");
        assert_eq!(target("quay.io/org", "h.example/m", "org"), "h.example/m:v1");
        assert_eq!(target("quay.io", "h.example", "org/a"), "h.example/org/a:v1");
        assert_eq!(target("docker://localhost:5000/", "h.example/all", "a"), "h.example/all/a:v1");
        for (from, word) in
            [("org/a", "no registry"), ("h.example/a:1", "no tag"), ("h.example/A", "A"), ("", "no registry")]
        {
            assert!(tree(from, "h.example", TreeOptions::default()).unwrap_err().contains(word), "{from}");
        }
    }

    #[test]
    fn options_stand_in_rows() {
        let options: TreeOptions =
            serde_json::from_str(r#"{"include_repos": ["a*"], "exclude_tags": ["/rc/"], "copy": {"force": true}}"#)
                .unwrap();
        assert!(options.copy.force && options.include_repos.len() == 1);
        assert_eq!(serde_json::to_string(&TreeOptions::default()).unwrap(), "{}");
        assert!(serde_json::from_str::<TreeOptions>(r#"{"force": true}"#).is_err());
        assert!(serde_json::from_str::<TreeOptions>(r#"{"include_repos": ["/(/"]}"#).is_err());
    }
}
